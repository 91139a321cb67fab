"""Tables that verbs write: TSV with the descriptions of its columns beside it, or JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.atomic import as_bytes, write_together
from rimap.io.path_redaction import word_without_folders
from rimap.io.provenance import to_json
from rimap.workflow.region_names import tsv


def command_line(arguments: Sequence[str]) -> str:
    """Return what was typed, without folders; "" if Python called.

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
        For another extension than .tsv or .json, or a file that exists.
    """
    if path.suffix not in (".tsv", ".json"):
        raise InputError(f"{path}: expected a file called .tsv or .json for the table.")
    for file in (path, path.with_suffix(".json")):
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists. Give another name, or --overwrite.")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[Path]:
    """Write rows as TSV, with the descriptions of the columns as JSON beside it; or both as one JSON file if `path` is called so.

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
