"""Record each failure in OUT, and write a table of all failures."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from rimap.workflow.region_names import tsv

if TYPE_CHECKING:
    from rimap.io.series_records import Record

#: The table of what failed and why, in OUT.
FAILED = "failed.tsv"


def subject_record(out: Path, label: str) -> Record:
    """Return the record of a subject, or of one of its scans, whose files form no series."""
    from rimap.io.series_records import FOLDER, Record

    return Record(out / FOLDER / f"{label.replace(' ', '_')}.json", out, label, {})


def forget(out: Path, subjects: Collection[str]) -> None:
    """Remove the records of earlier failures of these subjects. Repeated failures are recorded again."""
    from rimap.io.series_records import FOLDER, records

    for name, content in records(out):
        if content.get("state") == "failed" and name.split("_")[0] in subjects:
            (out / FOLDER / f"{name}.json").unlink(missing_ok=True)


def write_failed(out: Path) -> None:
    """Write the table of what failed in OUT in this run or an earlier one; remove it if nothing did."""
    from rimap.io import write_whole
    from rimap.io.series_records import records

    rows = [
        {"participant_id": name.split("_")[0], "series": content.get("label", name), "reason": content["message"]}
        for name, content in records(out)
        if content.get("message")
    ]
    if rows:
        write_whole(out / FAILED, tsv(rows))
    else:
        (out / FAILED).unlink(missing_ok=True)


def read_failed(out: Path) -> list[dict[str, str]]:
    """Return the rows of that table, [] if there is none."""
    try:
        with (out / FAILED).open(encoding="utf-8", newline="") as file:
            return [{"series": r["series"], "reason": r["reason"]} for r in csv.DictReader(file, delimiter="\t")]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        return []
