"""Write tables and folders of the command line (TSV with a JSON file that describes the columns, or JSON alone);
nothing is replaced unless asked.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.atomic import Content, as_bytes, write_together
from rimap.io.bids import absolute
from rimap.io.path_redaction import word_without_folders
from rimap.io.provenance import to_json
from rimap.workflow.region_names import tsv


def command_line(arguments: Sequence[str]) -> str:
    """Return the command line without folders; "" if Python was the caller.

    >>> command_line(["rois", "/data/out", "--rates"])
    'rimap rois out --rates'
    """
    here = Path.cwd()
    return shlex.join(["rimap", *(word_without_folders(word, here) for word in arguments)]) if arguments else ""


def check_table(path: Path, *, overwrite: bool) -> None:
    """Refuse a table that cannot be written, before any work.

    Raises
    ------
    InputError
        If the extension is not .tsv or .json, if the file exists, or if the folder may not be written.
    """
    if path.suffix not in (".tsv", ".json"):
        raise InputError(f"-o: expected a file name that ends in .tsv or .json for the table, got {path}.")
    _refuse_existing([path, path.with_suffix(".json")], "name", overwrite=overwrite)
    check_writable(path.parent)


def check_folder(out: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """Refuse a folder that cannot take files, before any work.

    Parameters
    ----------
    names
        Files that will be written there for certain.

    Raises
    ------
    InputError
        If it is a file, may not be written, or has one of the files and `overwrite` is false.
    """
    check_writable(out)
    _refuse_existing((out / name for name in names), "folder", overwrite=overwrite)


def check_writable(folder: Path) -> None:
    """Refuse a folder that is a file, or that may not be written.

    Raises
    ------
    InputError
        If so.
    """
    nearest = next(p for p in (folder, *absolute(folder).parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest}: expected a folder, got a file. Give another output folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: no permission to write. Give another output folder.")


def write_new(files: Mapping[Path, Content], *, overwrite: bool, remove: Iterable[Path] = ()) -> list[Path]:
    """Write files, all or none; with `overwrite` they replace earlier ones, and what an earlier run has beyond them is
    removed.

    Returns
    -------
    The files.

    Raises
    ------
    InputError
        If one of them exists and `overwrite` is false, or if the folder cannot be written.
    """
    _refuse_existing(files, "folder", overwrite=overwrite)
    write_together(files, remove if overwrite else ())
    return list(files)


def _refuse_existing(files: Iterable[Path], what: str, *, overwrite: bool) -> None:
    existing = None if overwrite else next((file for file in files if file.exists()), None)
    if existing is not None:
        raise InputError(
            f"-o: expected new files, got {existing}, which exists. Give another {what}, or use --overwrite."
        )


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[Path]:
    """Write rows as TSV with a JSON file that describes the columns, or both as one JSON file if `path` ends in .json.

    Returns
    -------
    The files.
    """
    if path.suffix == ".json":
        write_together({path: to_json({"columns": about, "rows": rows})})
        return [path]
    beside = path.with_suffix(".json")
    write_together({path: as_bytes(tsv(rows)), beside: to_json(about)})
    return [path, beside]
