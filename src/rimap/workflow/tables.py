"""Write tables of the command line: TSV with a JSON file that describes the columns, or JSON alone."""

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
        If the extension is not .tsv or .json, or if the file exists.
    """
    if path.suffix not in (".tsv", ".json"):
        raise InputError(f"-o: expected a file name that ends in .tsv or .json for the table, got {path}.")
    for file in (path, path.with_suffix(".json")):
        if file.exists() and not overwrite:
            raise InputError(
                f"-o: expected a new file, got {file}, which exists. Give another name, or use --overwrite."
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
