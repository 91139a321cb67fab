"""All subjects of a derivative on one page and in one table: median, quartiles and status shares of each region."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rimap import __version__, colours
from rimap.errors import count_of
from rimap.foreground import HOW
from rimap.map_display import name_of, shown_name
from rimap.report.main_maps import MainMap, Row
from rimap.report.statistics import about_figures
from rimap.report.templating import render, source
from rimap.report.thumbnails import Thumbnail, thumbnails
from rimap.signals import signal_models
from rimap.signals.base import main_of
from rimap.signals.settings import unit_symbol

#: Smallest number of series among which outliers are marked.
_ENOUGH = 5
#: Maps of the same object differ by this share of their median or less, whatever the others do: no outlier.
_LEAST_DIFFERENCE = 0.01
#: Largest numbers of regions and series on the page. The table has all of them.
_MOST_REGIONS, _MOST_ROWS = 24, 2000
#: Largest number of map names in a line of the page, which then gives the number of further maps.
_MOST_NAMES = 12


def with_outliers(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with `outlier` filled in: ``high`` or ``low`` beyond 1.5 IQR from the quartiles of all series.

    A median also has to differ by 1 % from the median of all series. ``few`` marks those with far fewer estimated
    voxels than the rest. No outliers are marked among fewer than five series.
    """
    marked = [dict(row) for row in rows]
    for members in _by_region(marked).values():
        for key, names in (("median", ("low", "high")), ("share_ok", ("few", ""))):
            values = [member[key] for member in members]
            low, high = fences(values)
            if key == "median" and math.isfinite(low):
                middle = float(np.nanmedian(values))
                least = _LEAST_DIFFERENCE * abs(middle)
                low, high = min(low, middle - least), max(high, middle + least)
            for member in members:
                word = names[0] if member[key] < low else names[1] if member[key] > high else ""
                if key == "share_ok" and word and low - member[key] < 0.02:
                    word = ""
                member["outlier"] = ", ".join(x for x in (member["outlier"], word) if x)
    return marked


def fences(values: Sequence[float]) -> tuple[float, float]:
    """Return the values beyond which a series is an outlier (Tukey 1977): 1.5 IQR from the quartiles.

    >>> fences([1, 2, 3, 4, 5])
    (-1.0, 7.0)
    """
    x = np.array([value for value in values if math.isfinite(value)])
    if len(x) < _ENOUGH:
        return -math.inf, math.inf
    q25, q75 = np.quantile(x, [0.25, 0.75])
    return float(q25 - 1.5 * (q75 - q25)), float(q75 + 1.5 * (q75 - q25))


def columns() -> dict[str, dict[str, Any]]:
    """Return the descriptions of the columns, for the JSON file of the table."""
    mains = {f"{q.suffix}".removesuffix("map"): q for q in map(main_of, signal_models().values())}
    units = {main.unit for main in mains.values()}
    about: dict[str, dict[str, Any]] = {
        "participant_id": {"Description": "Subject"},
        "session_id": {"Description": "Session, if the data set has sessions"},
        "map": {"Description": "Map", "Levels": {key: main.meaning or name_of(main) for key, main in mains.items()}},
        "unit": {"Description": "Unit of the median, the quartiles, the mean and the standard deviation"},
        "estimator": {"Description": "Estimator that made the map"},
        "region": {
            "Description": f"Value in the label image; mask: the mask; signal: {HOW}. desc-signal_mask next to each "
            f"map has the "
            "voxels of mask and signal"
        },
        "name": {"Description": "Name of the label"},
    }
    about |= about_figures({"Units": next(iter(units))} if len(units) == 1 else {})
    return about | {
        "warnings": {
            "Description": "Number of warnings about the map; their texts are in its sidecar and in group.html"
        },
        "outlier": {
            "Description": "low, high: the median is more than 1.5 interquartile ranges from the quartiles of all "
            "series; few: the share of estimated voxels is lower by that much"
        },
        "series": {"Description": "Name of the map, without extension"},
    }


def warnings_of_maps(maps: Sequence[MainMap]) -> list[tuple[str, list[str]]]:
    """Return each warning with the names of the maps it applies to, the most severe and then the most frequent first.

    Warnings that differ only in their figures are merged, with the text of the first map.
    """
    found: dict[str, tuple[str, list[str], int]] = {}
    for map_ in maps:
        for rank, text in enumerate(map_.warnings):
            first, names, before = found.setdefault(re.sub(r"\d[\d.,]*", "#", text), (text, [], rank))
            names.append(map_.series)
            found[re.sub(r"\d[\d.,]*", "#", text)] = (first, names, min(before, rank))
    listed = sorted(found.values(), key=lambda x: ("do not rely" not in x[0], x[2], -len(x[1])))
    return [(text, list(dict.fromkeys(names))) for text, names, _ in listed]


def page(
    rows: Sequence[Row],
    *,
    title: str,
    made: str,
    command: str = "",
    failed: Sequence[Mapping[str, str]] = (),
    maps: Sequence[MainMap] = (),
    pictures: Mapping[str, Thumbnail] | None = None,
    without_labels: Sequence[str] = (),
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    rows
        Rows from `with_outliers`.
    title, made, command
        The data set, the date and time, and the command line.
    failed
        ``participant_id``, ``series`` and ``reason`` of each series without a map.
    maps
        The maps, for their warnings.
    pictures
        The middle slice of each map, by the name of its series.
    without_labels
        Names of the maps that have no labels, although others have.
    """
    regions = _by_region(rows)
    shown = dict(list(regions.items())[:_MOST_REGIONS])
    gallery, more_pictures = thumbnails(maps, pictures or {}, rows)
    return render(
        "group.html",
        css=source("base.css"),
        title=title,
        made=made,
        command=command,
        version=__version__,
        tiles=_tiles(rows, failed),
        maps=[
            {
                "name": _map_title(rows, name),
                "regions": [_strip(value) for key, value in shown.items() if key[0] == name],
            }
            for name in dict.fromkeys(key[0] for key in shown)
        ],
        gallery=gallery,
        more_pictures=more_pictures,
        more_regions=len(regions) - len(shown),
        ok=_strip_of_shares(rows),
        outliers=[row for row in rows if row["outlier"]],
        table=_table(rows, list(shown)),
        failed=failed,
        warnings=[_listed(text, names) for text, names in warnings_of_maps(maps)],
        without_labels=_listed("", without_labels),
    )


def _listed(text: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a text with the maps it is about, for the page."""
    return {"text": text, "names": names[:_MOST_NAMES], "n": len(names), "more": max(0, len(names) - _MOST_NAMES)}


_Region = tuple[str, Any]


def _by_region(rows: Sequence[Row]) -> dict[_Region, list[Row]]:
    regions: dict[_Region, list[Row]] = {}
    for row in rows:
        regions.setdefault((row["map"], row["region"]), []).append(row)
    return dict(sorted(regions.items(), key=lambda item: (item[0][0], str(type(item[0][1])), item[0][1])))


def _region_title(r: Row) -> str:
    whole = {"mask": "in the mask", "signal": "in the foreground"}
    return whole.get(r["region"], f"{r['region']} {r['name']}".strip())


def _map_title(rows: Sequence[Row], name: str) -> str:
    unit = unit_symbol(next(row["unit"] for row in rows if row["map"] == name))
    return f"{shown_name(name)}, {unit}" if unit else shown_name(name)


def _tiles(rows: Sequence[Row], failed: Sequence[Any]) -> list[dict[str, str]]:
    series = {row["series"] for row in rows}
    outliers = {row["series"] for row in rows if row["outlier"]}
    return [
        {
            "label": "subjects",
            "value": f"{len({row['participant_id'] for row in rows}):,}",
            "note": count_of(len(series), "map"),
        },
        {"label": "regions", "value": f"{len(_by_region(rows)):,}", "note": "figures of each in group.tsv"},
        {"label": "outliers", "value": f"{len(outliers):,}", "note": "maps with an outlying region"},
        {"label": "failed", "value": f"{len(failed):,}", "note": "series without a map"},
    ]


def _strip(members: Sequence[Row]) -> dict[str, Any]:
    values = [member["median"] for member in members]
    title = f"{shown_name(members[0]['map'])} {_region_title(members[0])}"
    return {"title": title, "unit": unit_symbol(members[0]["unit"]), **_box(values, members)}


def _strip_of_shares(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the share of estimated voxels of each map, over its mask or foreground: the first of its rows."""
    of_map: dict[str, Row] = {}
    for row in rows:
        of_map.setdefault(row["series"], row)
    values = [100 * r["share_ok"] for r in of_map.values()]
    firsts = [r | {"outlier": ""} for r in of_map.values()]
    return {"title": "Voxels estimated", "unit": "%", **_box(values, firsts, most=100.0)}


def _box(
    values: Sequence[float], members: Sequence[Row], *, most: float = math.inf, width: float = 720.0
) -> dict[str, Any]:
    """Return a strip of dots over a box: quartiles, median, whiskers to the last value within the fences.

    Parameters
    ----------
    most
        The largest end of the axis.
    """
    finite = np.array([value for value in values if math.isfinite(value)])
    if not finite.size:
        return {"n": 0, "dots": [], "ticks": [], "named": []}
    spread = float(np.ptp(finite)) or 0.1 * abs(float(finite[0])) or 1.0
    low, high = float(finite.min()) - 0.06 * spread, min(float(finite.max()) + 0.06 * spread, most)
    q25, median, q75 = (float(q) for q in np.quantile(finite, [0.25, 0.5, 0.75]))
    fence = fences(values)
    within = finite[(finite >= fence[0]) & (finite <= fence[1])]

    def at(v: float) -> float:
        return width * (v - low) / (high - low)

    dots = [
        {
            "x": at(value),
            "y": 26 + 13 * math.sin(2.4 * i),  # spread out, and reproducible
            "out": not fence[0] <= value <= fence[1],
            "tip": f"{_who(member)}: {value:.4g}",
        }
        for i, (value, member) in enumerate(zip(values, members))
        if math.isfinite(value)
    ]
    named = [
        _who(member)
        for value, member in zip(values, members)
        if math.isfinite(value) and not fence[0] <= value <= fence[1]
    ]
    return {
        "n": int(finite.size),
        "median": median,
        "q25": q25,
        "q75": q75,
        "box": (at(q25), at(q75), at(median), at(float(within.min())), at(float(within.max()))),
        "dots": sorted(dots, key=lambda d: d["out"]),
        "ticks": [{"at": at(tick), "label": f"{tick:,.10g}"} for tick in colours.ticks(low, high, 7)],
        "named": named,
    }


def _who(r: Row) -> str:
    return " ".join(x for x in (r["participant_id"], r["session_id"]) if x)


def _table(rows: Sequence[Row], shown: Sequence[_Region]) -> dict[str, Any]:
    """Return the medians as a table: a line for each map, a column for each region."""
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault(row["series"], {"who": _who(row), "series": row["series"], "cells": {}, "row": row})
        line["cells"][row["map"], row["region"]] = row
    head = {key: _region_title(next(row for row in rows if (row["map"], row["region"]) == key)) for key in shown}
    return {
        "head": [f"{shown_name(key[0])} {text}" for key, text in head.items()],
        "lines": [
            {
                "who": line["who"],
                "series": line["series"],
                "cells": [line["cells"].get(key) for key in shown],
                "estimator": line["row"]["estimator"],
                "warnings": line["row"]["warnings"],
                "ok": 100 * line["row"]["share_ok"],
            }
            for line in list(lines.values())[:_MOST_ROWS]
        ],
        "more": max(0, len(lines) - _MOST_ROWS),
    }
