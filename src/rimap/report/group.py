"""All subjects of a derivative on one page and in one table: median, quartiles and status shares of each region."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import __version__, colours
from rimap.errors import InputError, count_of
from rimap.io.bids import BidsName, compose, read_json
from rimap.io.grid import affine_of
from rimap.io.masks import read_labels, read_mask
from rimap.io.nifti import open_nifti
from rimap.quantities import Quantity, name_of, shown_name
from rimap.report.statistics import COUNTED, describe, foreground
from rimap.report.templating import render, source
from rimap.series import Status
from rimap.signals import signal_models
from rimap.signals.base import main_of
from rimap.signals.settings import unit_symbol

#: Outliers are marked among so many series or more.
_ENOUGH = 5
#: Regions and series that the page shows; the table has all.
_MOST_REGIONS, _MOST_ROWS = 24, 2000
#: BIDS has times in seconds, rimap in milliseconds; other units are the same.
_TO_MILLISECONDS = 1000.0
#: Shares of voxels by quality flag: columns of the table.
SHARES = tuple(s for s in Status if s is not Status.OUTSIDE_MASK)

Row = dict[str, Any]


@dataclass(frozen=True)
class MainMap:
    """The main map of a series in a derivative: a T1map, a T2starmap.

    Parameters
    ----------
    path
        The image.
    entities
        The entities of its name, without ``desc-``.
    name
        Its suffix without ``map``: ``T1``.
    estimator
        The estimator that made it.
    prefix
        The start of the ``desc-`` of the other maps of the series.
    model
        The name of the signal model; "" if the sidecar has none.
    """

    path: Path
    entities: Mapping[str, str]
    name: str
    estimator: str
    prefix: str
    model: str = ""

    @property
    def quantity(self) -> Quantity:
        """The declaration of the map in the signal model that made it, or else in the first one with such a map."""
        known = signal_models()
        if self.model in known and (found := main_of(known[self.model])).suffix == f"{self.name}map":
            return found
        return next(q for q in map(main_of, known.values()) if q.suffix == f"{self.name}map")

    @property
    def label(self) -> str:
        """For messages: ``sub-01 ses-1 T1map``."""
        return compose(self.entities, f"{self.name}map").replace("_", " ")

    def beside(self, what: str, suffix: str = "") -> Path:
        """Return the path of another map of the same series, by the end of its ``desc-``."""
        desc = (self.prefix + what[:1].upper() + what[1:]) if self.prefix else what
        entities = {**self.entities, **({"desc": desc} if desc else {})}
        return self.path.with_name(f"{compose(entities, suffix or f'{self.name}map')}.nii.gz")


def main_maps(
    out: Path, *, subjects: Sequence[str] = (), sessions: Sequence[str] = (), estimator: str | None = None
) -> list[MainMap]:
    """Return the main maps in a derivative, in order of name: those with the suffix of a signal model's main map.

    Parameters
    ----------
    subjects, sessions
        Only these, without ``sub-`` and ``ses-``; all if empty.
    estimator
        Only the maps of this estimator; by default those whose names have no ``desc-``.
    """
    found, suffixes = [], {main_of(model).suffix for model in signal_models().values()}
    for path in sorted(Path(out).glob("sub-*/**/*map.nii.gz")):
        parsed = BidsName.parse(path.name)
        if parsed is None or parsed.suffix not in suffixes:
            continue
        entities = dict(parsed.entities)
        desc, sidecar = entities.pop("desc", ""), path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        if (subjects and entities.get("sub") not in subjects) or (sessions and entities.get("ses") not in sessions):
            continue
        if (desc and (estimator is None or desc != re.sub(r"[^a-zA-Z0-9]", "", estimator))) or not sidecar.is_file():
            continue
        about = read_json(sidecar)
        made_by, model = str(about.get("Estimator", "")), str(about.get("SignalModel", ""))
        if estimator in (None, made_by):
            found.append(MainMap(path, entities, parsed.suffix.removesuffix("map"), made_by, desc, model))
    return found


def rows_of(
    main: MainMap, *, labels: Path | None = None, names: Mapping[int, str] | None = None, mask: Path | None = None
) -> list[Row]:
    """Return one row for each region of one map, in the unit of its declaration (ms for times).

    The regions are those of a label image if one is given; else the mask; else the mask of the maps; else, for maps
    without a mask, the foreground of the amplitude map.

    Raises
    ------
    InputError
        If a file cannot be read, or is not on the grid of the map.
    """
    file = open_nifti(main.path)
    values = (_TO_MILLISECONDS if main.quantity.unit == "ms" else 1.0) * next(iter(file.volumes()))
    status = _beside(main.beside("status"), values.shape)
    if status is None:
        raise InputError(f"{main.label}: {main.beside('status').name} is missing. Map this series again.")
    regions: list[tuple[int | str, str, NDArray[np.bool_]]]
    if labels is not None:
        image = read_labels(labels, file.shape, affine_of(file))
        regions = [(int(v), (names or {}).get(int(v), ""), image == v) for v in np.unique(image[image != 0])]
        if not regions:
            raise InputError(f"{labels}: expected at least one region, got zeros only.")
    elif mask is not None:
        regions = [("mask", "", read_mask(mask, file.shape, affine_of(file)))]
    elif (status == Status.OUTSIDE_MASK).any():
        regions = [("mask", "", status != Status.OUTSIDE_MASK)]
    else:
        regions = [("signal", "", _signal(main, values.shape))]
    return [_row(main, values, status, *region) for region in regions]


def _beside(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if not path.is_file():
        return None
    values = next(iter(open_nifti(path).volumes()))
    if values.shape != shape:
        raise InputError(f"{path}: expected the shape of the main map {shape}, got {values.shape}.")
    return values


def _signal(main: MainMap, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the foreground of the amplitude map; all voxels if there is none."""
    model = signal_models().get(main.model)
    suffixes = [p.suffix for p in model.parameters if p.amplitude and p.suffix] if model else []
    for suffix in suffixes:
        for desc in ("", model.bids_suffix if model else ""):  # two series with the same entities share a suffix
            A = _beside(main.beside(desc, suffix), shape)
            if A is not None:
                return foreground(A[None])
    return np.ones(shape, bool)


def _row(
    main: MainMap, values: NDArray[Any], status: NDArray[Any], region: int | str, name: str, where: NDArray[np.bool_]
) -> Row:
    found = status[where]
    s = describe(values[where & np.isin(status, COUNTED)])
    inside = max(1, int((found != Status.OUTSIDE_MASK).sum()))
    return {
        "participant_id": f"sub-{main.entities['sub']}",
        "session_id": f"ses-{main.entities['ses']}" if "ses" in main.entities else "",
        "map": main.name,
        "unit": main.quantity.unit,
        "estimator": main.estimator,
        "region": region,
        "name": name,
        "voxels": int(where.sum()),
        "n": s.n,
        "median": s.median,
        "q25": s.q25,
        "q75": s.q75,
        "iqr": s.iqr,
        "mean": s.mean,
        "sd": s.sd,
        **{_share(x): float((found == x).sum() / inside) for x in SHARES},
        "outlier": "",
        "series": main.path.name.removesuffix(".nii.gz"),
    }


def _share(status: Status) -> str:
    return f"share_{status.name.lower()}"


def with_outliers(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with `outlier` filled in: ``high`` or ``low`` beyond 1.5 IQR from the quartiles of all series.

    ``few`` marks those with far fewer estimated voxels than the rest. No outliers are marked among fewer than five series.
    """
    marked = [dict(r) for r in rows]
    for members in _by_region(marked).values():
        for key, names in (("median", ("low", "high")), ("share_ok", ("few", ""))):
            low, high = fences([r[key] for r in members])
            for r in members:
                word = names[0] if r[key] < low else names[1] if r[key] > high else ""
                if key == "share_ok" and word and low - r[key] < 0.02:
                    word = ""
                r["outlier"] = ", ".join(x for x in (r["outlier"], word) if x)
    return marked


def fences(values: Sequence[float]) -> tuple[float, float]:
    """Return the values beyond which a series is an outlier (Tukey 1977): 1.5 IQR from the quartiles.

    >>> fences([1, 2, 3, 4, 5])
    (-1.0, 7.0)
    """
    x = np.array([v for v in values if math.isfinite(v)])
    if len(x) < _ENOUGH:
        return -math.inf, math.inf
    q25, q75 = np.quantile(x, [0.25, 0.75])
    return float(q25 - 1.5 * (q75 - q25)), float(q75 + 1.5 * (q75 - q25))


def columns() -> dict[str, dict[str, Any]]:
    """Return the descriptions of the columns, for the JSON file of the table."""
    mains = {f"{q.suffix}".removesuffix("map"): q for q in map(main_of, signal_models().values())}
    units = {q.unit for q in mains.values()}
    about: dict[str, dict[str, Any]] = {
        "participant_id": {"Description": "Subject"},
        "session_id": {"Description": "Session, if the data set has sessions"},
        "map": {"Description": "Map", "Levels": {k: q.meaning or name_of(q) for k, q in mains.items()}},
        "unit": {"Description": "Unit of the median, the quartiles, the mean and the standard deviation"},
        "estimator": {"Description": "Estimator that made the map"},
        "region": {
            "Description": "Value in the label image; mask: the mask; signal: the foreground of the amplitude map"
        },
        "name": {"Description": "Name of the label"},
        "voxels": {"Description": "Voxels of the region"},
        "n": {"Description": "Voxels of the region with a value (status ok or at a bound)"},
    }
    for key, text in (
        ("median", "Median over the region"),
        ("q25", "First quartile"),
        ("q75", "Third quartile"),
        ("iqr", "Interquartile range"),
        ("mean", "Mean"),
        ("sd", "Standard deviation between voxels"),
    ):
        about[key] = {"Description": text} | ({"Units": next(iter(units))} if len(units) == 1 else {})
    for s in SHARES:
        about[_share(s)] = {"Description": f"Share of the voxels of the region: {s.meaning}", "Units": "1"}
    return about | {
        "outlier": {
            "Description": "low, high: the median is more than 1.5 interquartile ranges from the quartiles of all series; "
            "few: the share of estimated voxels is"
        },
        "series": {"Description": "Name of the map, without extension"},
    }


def page(
    rows: Sequence[Row], *, title: str, made: str, command: str = "", failed: Sequence[Mapping[str, str]] = ()
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    rows
        Of `with_outliers`.
    title, made, command
        The data set, the date and time, and the command line.
    failed
        ``participant_id``, ``series`` and ``reason`` of each series without a map.
    """
    regions = _by_region(rows)
    shown = dict(list(regions.items())[:_MOST_REGIONS])
    return render(
        "group.html",
        css=source("base.css"),
        title=title,
        made=made,
        command=command,
        version=__version__,
        tiles=_tiles(rows, failed),
        maps=[
            {"name": _map_title(rows, name), "regions": [_strip(m) for key, m in shown.items() if key[0] == name]}
            for name in dict.fromkeys(key[0] for key in shown)
        ],
        more_regions=len(regions) - len(shown),
        ok=_strip_of_shares(rows),
        outliers=[r for r in rows if r["outlier"]],
        table=_table(rows, list(shown)),
        failed=failed,
    )


_Region = tuple[str, Any]


def _by_region(rows: Sequence[Row]) -> dict[_Region, list[Row]]:
    regions: dict[_Region, list[Row]] = {}
    for r in rows:
        regions.setdefault((r["map"], r["region"]), []).append(r)
    return dict(sorted(regions.items(), key=lambda item: (item[0][0], str(type(item[0][1])), item[0][1])))


def _region_title(r: Row) -> str:
    whole = {"mask": "in the mask", "signal": "where there is signal"}
    return whole.get(r["region"], f"{r['region']} {r['name']}".strip())


def _map_title(rows: Sequence[Row], name: str) -> str:
    unit = unit_symbol(next(r["unit"] for r in rows if r["map"] == name))
    return f"{shown_name(name)}, {unit}" if unit else shown_name(name)


def _tiles(rows: Sequence[Row], failed: Sequence[Any]) -> list[dict[str, str]]:
    series = {r["series"] for r in rows}
    outliers = {r["series"] for r in rows if r["outlier"]}
    return [
        {
            "label": "subjects",
            "value": f"{len({r['participant_id'] for r in rows}):,}",
            "note": count_of(len(series), "map"),
        },
        {"label": "regions", "value": f"{len(_by_region(rows)):,}", "note": "figures of each in group.tsv"},
        {"label": "outliers", "value": f"{len(outliers):,}", "note": "maps with an outlying region"},
        {"label": "failed", "value": f"{len(failed):,}", "note": "series without a map"},
    ]


def _strip(members: Sequence[Row]) -> dict[str, Any]:
    values = [r["median"] for r in members]
    title = f"{shown_name(members[0]['map'])} {_region_title(members[0])}"
    return {"title": title, "unit": unit_symbol(members[0]["unit"]), **_box(values, members)}


def _strip_of_shares(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the share of estimated voxels of each map, over its regions."""
    of_map: dict[str, list[Row]] = {}
    for r in rows:
        of_map.setdefault(r["series"], []).append(r)
    values = [
        100 * sum(r["share_ok"] * r["voxels"] for r in rs) / max(1, sum(r["voxels"] for r in rs))
        for rs in of_map.values()
    ]
    firsts = [rs[0] | {"outlier": ""} for rs in of_map.values()]
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
    finite = np.array([v for v in values if math.isfinite(v)])
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
            "x": at(v),
            "y": 26 + 13 * math.sin(2.4 * i),  # spread out, and reproducible
            "out": not fence[0] <= v <= fence[1],
            "tip": f"{_who(r)}: {v:.4g}",
        }
        for i, (v, r) in enumerate(zip(values, members))
        if math.isfinite(v)
    ]
    named = [_who(r) for v, r in zip(values, members) if math.isfinite(v) and not fence[0] <= v <= fence[1]]
    return {
        "n": int(finite.size),
        "median": median,
        "q25": q25,
        "q75": q75,
        "box": (at(q25), at(q75), at(median), at(float(within.min())), at(float(within.max()))),
        "dots": sorted(dots, key=lambda d: d["out"]),
        "ticks": [{"at": at(t), "label": f"{t:,.10g}"} for t in colours.ticks(low, high, 7)],
        "named": named,
    }


def _who(r: Row) -> str:
    return " ".join(x for x in (r["participant_id"], r["session_id"]) if x)


def _table(rows: Sequence[Row], shown: Sequence[_Region]) -> dict[str, Any]:
    """Return the medians as a table: a line for each map, a column for each region."""
    lines: dict[str, dict[str, Any]] = {}
    for r in rows:
        line = lines.setdefault(r["series"], {"who": _who(r), "series": r["series"], "cells": {}, "ok": [], "n": []})
        line["cells"][r["map"], r["region"]] = r
        line["ok"].append(r["share_ok"] * r["voxels"])
        line["n"].append(r["voxels"])
    head = {key: _region_title(next(r for r in rows if (r["map"], r["region"]) == key)) for key in shown}
    return {
        "head": [f"{shown_name(key[0])} {text}" for key, text in head.items()],
        "lines": [
            {
                "who": line["who"],
                "series": line["series"],
                "cells": [line["cells"].get(key) for key in shown],
                "ok": 100 * sum(line["ok"]) / max(1, sum(line["n"])),
            }
            for line in list(lines.values())[:_MOST_ROWS]
        ],
        "more": max(0, len(lines) - _MOST_ROWS),
    }
