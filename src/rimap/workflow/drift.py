"""How the spheres of an array change over maps of different dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np

from rimap.evaluation.references import Layout, References
from rimap.evaluation.spheres import Array
from rimap.io.map_images import MapImage

Row = dict[str, Any]
#: A date in a path: year, month and day, with or without separators.
_DATE = re.compile(r"(?<!\d)(20\d{2}|19\d{2})[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")


@dataclass(frozen=True, eq=False)
class Measured:
    """An array of spheres in a map.

    Parameters
    ----------
    map
        The map.
    layout
        The array.
    array
        Where it was found.
    rows
        One for each sphere.
    references
        The reference values of the spheres.
    date
        Acquisition date from the session or file name; `None` if these have no date.
    """

    map: MapImage
    layout: Layout
    array: Array
    rows: tuple[Row, ...]
    references: References
    date: date | None


def date_of(m: MapImage) -> date | None:
    """Return the date in the session of a map (``ses-20240131``), or else in its file or folder name; `None` if there
    is none.
    """
    for text in (m.entities.get("ses", ""), m.path.name, m.path.parent.name):
        if found := _DATE.search(text):
            try:
                return datetime(*(int(part) for part in found.groups())).date()  # type: ignore[arg-type]
            except ValueError:
                continue
    return None


def in_groups(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Return the maps that can be compared with each other, in the order of their dates if all of a group have one.

    They are of one array with the same references and of one subject, which is the phantom or the scanner in most data
    sets. If no subject has two maps, the subjects are the repeats.
    """
    arrays: dict[tuple[Any, ...], dict[str, list[Measured]]] = {}
    for m in measured:
        subjects = arrays.setdefault((m.layout.name, m.map.name, tuple(m.references.values.values())), {})
        subjects.setdefault(m.map.entities.get("sub", ""), []).append(m)
    groups: list[list[Measured]] = []
    for subjects in arrays.values():
        everyone = [member for members in subjects.values() for member in members]
        repeated = [members for members in subjects.values() if len(members) > 1]
        groups += repeated or ([everyone] if len(everyone) > 1 else [])
    return [in_order(members) for members in groups]


def in_order(measured: Sequence[Measured]) -> list[Measured]:
    """Return maps in the order of their dates; as they are if one of them has none."""
    dates = {id(m): m.date for m in measured if m.date is not None}
    return sorted(measured, key=lambda m: dates[id(m)]) if len(dates) == len(measured) else list(measured)


def drift_of(measured: Sequence[Measured]) -> list[Row]:
    """Return how the median of each sphere changes over the maps of each group: a row for each sphere.

    The spread is the standard deviation over the maps, the change is last minus first, both relative to the mean; the
    trend is the slope of a straight line over the dates, if each map has one.
    """
    rows: list[Row] = []
    for members in in_groups(measured):
        layout, name = members[0].layout.name, members[0].map.name
        subjects = {member.rows[0]["participant_id"] for member in members}
        subject = subjects.pop() if len(subjects) == 1 else ""
        days = [member.date.toordinal() for member in members if member.date is not None]
        dated = len(days) == len(members) and len(set(days)) > 1
        for n in range(1, 15):
            medians = np.array(
                [next(row["median"] for row in member.rows if row["label"] == n) for member in members], dtype=float
            )
            good = np.isfinite(medians)
            mean = float(medians[good].mean()) if good.any() else float("nan")
            spread = float(medians[good].std(ddof=1)) if good.sum() > 1 else float("nan")
            trend = float("nan")
            if dated and good.sum() > 1 and np.ptp(np.array(days)[good]):
                trend = float(np.polyfit(np.array(days, float)[good], medians[good], 1)[0]) * 365.25 / mean * 100
            ends = medians[good][[0, -1]] if good.sum() > 1 else np.array([np.nan, np.nan])
            rows.append(
                {
                    "participant_id": subject,
                    "array": layout,
                    "map": name,
                    "unit": "ms",
                    "label": n,
                    "maps": int(good.sum()),
                    "reference": members[0].references.values.get(n, float("nan")),
                    "mean": mean,
                    "spread_percent": 100 * spread / mean,
                    "change_percent": 100 * float(ends[1] - ends[0]) / mean,
                    "trend_percent_per_year": trend,
                    **{f"median_{k}": float(median) for k, median in enumerate(medians, start=1)},
                }
            )
    every = list(dict.fromkeys(c for row in rows for c in row))
    return [{c: row.get(c, float("nan")) for c in every} for row in rows]


def drift_columns(groups: Sequence[Sequence[Measured]]) -> dict[str, dict[str, str]]:
    """Return the descriptions of the columns of the table of changes over the maps of these groups."""
    about = {
        "participant_id": {"Description": "Subject, if the maps are of one"},
        "array": {"Description": "Array of spheres"},
        "map": {"Description": "What the maps show"},
        "unit": {"Description": "Unit of the reference, the mean and the medians"},
        "label": {"Description": "Number of the sphere"},
        "maps": {"Description": "Number of maps with a value"},
        "reference": {"Description": "Reference value of the first map"},
        "mean": {"Description": "Mean of the medians over the maps"},
        "spread_percent": {
            "Description": "Standard deviation of the medians over the maps, relative to the mean",
            "Units": "%",
        },
        "change_percent": {"Description": "Last minus first median, relative to the mean", "Units": "%"},
        "trend_percent_per_year": {"Description": "Slope over the dates, relative to the mean", "Units": "%/year"},
    }
    for index in range(max((len(members) for members in groups), default=0)):
        names = [members[index].map.label for members in groups if len(members) > index]
        about[f"median_{index + 1}"] = {"Description": f"Median in {' or '.join(dict.fromkeys(names))}"}
    return about
