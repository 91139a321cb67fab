"""The names of the regions of a label image, and tables of values."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.bids import BidsName, absolute, dataset_of
from rimap.io.unreadable_formats import refuse_device


def label_table(image: Path) -> Path:
    """Return the path of the table with the names of the labels of an image. It may not exist."""
    return image.with_name(f"{image.name.removesuffix('.gz').removesuffix('.nii')}.tsv")


def label_names(image: Path | None) -> dict[int, str]:
    """Return the names in the table of a label image, if it has one.

    In BIDS it has the same stem, the extension ``.tsv`` and the columns index and name, or it is inherited from a
    folder above.

    Raises
    ------
    InputError
        If the table cannot be read or lacks these columns.
    """
    if image is None:
        return {}
    names: dict[int, str] = {}
    table = label_table(image)
    if not table.exists():
        inherited = _inherited_table(image)
        if inherited is None:
            return {}
        table = inherited
    refuse_device(table)
    remedy = "Correct the table, or remove it: the regions then have numbers"
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            if missing := [c for c in ("index", "name") if c not in (rows.fieldnames or ())]:
                raise InputError(
                    f"{table}: expected the columns index and name, separated by tabs, got none called {missing[0]}. "
                    f"{remedy}."
                )
            for row in rows:
                if (row.get("index") or "").strip().isdigit():
                    index, name = int(row["index"]), (row.get("name") or "").strip()
                    if names.setdefault(index, name) != name:
                        raise InputError(
                            f"{table}: expected one name for each index, got {names[index]!r} and {name!r} for "
                            f"{index}. {remedy}."
                        )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{table} cannot be read: {reason}. {remedy}.") from None
    return names


def _inherited_table(image: Path) -> Path | None:
    """Return the table that a BIDS image inherits, such as ``dseg.tsv`` in a folder above; `None` if there is none."""
    name, dataset = BidsName.parse(image.name), dataset_of(image)
    if name is None or dataset is None:
        return None
    for folder in absolute(image).parents:
        for path in sorted(folder.glob(f"*{name.suffix}.tsv")):
            other = BidsName.parse(path.name)
            if other and other.suffix == name.suffix and other.entities.items() <= name.entities.items():
                return path
        if folder == dataset:
            break
    return None


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet would execute a cell as a formula.

    Spreadsheets remove quotes around a cell first, and some also accept full-width signs.
    """
    text = text.strip('" ')
    if not text or text[0] not in "=+-@\uff1d\uff0b\uff0d\uff20":
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as tab-separated text as in BIDS: ``n/a`` for unknown values, and quotes around formulas of a
    spreadsheet.
    """

    def cell(v: Any) -> str:
        if isinstance(v, float):
            return f"{v:.6g}" if v == v else "n/a"
        text = " ".join(str(v).split()) or "n/a"
        return f"'{text}" if _is_formula(text) else text

    lines = ["\t".join(rows[0]), *("\t".join(cell(v) for v in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"
