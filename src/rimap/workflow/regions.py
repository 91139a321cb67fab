"""The names of the regions of a label image, and tables of values."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def label_table(image: Path) -> Path:
    """Return where the names of the labels of an image are stored, if anywhere."""
    return image.with_name(f"{image.name.removesuffix('.gz').removesuffix('.nii')}.tsv")


def label_names(image: Path | None) -> dict[int, str]:
    """Return the names in the table beside a label image (BIDS: the same stem, ``.tsv``, index and name), if any."""
    if image is None:
        return {}
    names = {}
    try:
        with label_table(image).open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if (row.get("index") or "").strip().isdigit():
                    names[int(row["index"])] = (row.get("name") or "").strip()
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return names


def _is_formula(text: str) -> bool:
    """Tell whether a spreadsheet would take a cell for a formula and execute it."""
    if text[0] not in "=+-@":
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as tab-separated text in the form of BIDS: ``n/a`` for what is not known, and what a spreadsheet would execute quoted."""

    def cell(v: Any) -> str:
        if isinstance(v, float):
            return f"{v:.6g}" if v == v else "n/a"
        text = " ".join(str(v).split()) or "n/a"
        return f"'{text}" if _is_formula(text) else text

    lines = ["\t".join(rows[0]), *("\t".join(cell(v) for v in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"
