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
from rimap.io.nifti import open_nifti, read_labels, read_mask
from rimap.report.statistics import COUNTED, describe, foreground
from rimap.report.templating import render, source
from rimap.series import Status

#: From so many series on, one can lie out.
_ENOUGH = 5
#: Regions and series that the page shows; the table has all.
_MOST_REGIONS, _MOST_ROWS = 24, 2000
#: Shares of voxels by status: columns of the table.
SHARES = tuple(s for s in Status if s is not Status.OUTSIDE_MASK)

Row = dict[str, Any]


@dataclass(frozen=True)
class MainMap:
    """A T1 or T2 map of a derivative.

    Parameters
    ----------
    path
        The image.
    entities
        Of its name, without ``desc-``.
    name
        ``T1``.
    estimator
        That made it.
    prefix
        What the ``desc-`` of the maps beside it begins with.
    """

    path: Path
    entities: Mapping[str, str]
    name: str
    estimator: str
    prefix: str

    @property
    def label(self) -> str:
        """For messages: ``sub-01 ses-1 T1map``."""
        return compose(self.entities, f"{self.name}map").replace("_", " ")

    def beside(self, what: str, suffix: str = "") -> Path:
        """Return another map of the same series, by the end of its ``desc-``."""
        desc = (self.prefix + what[:1].upper() + what[1:]) if self.prefix else what
        entities = {**self.entities, **({"desc": desc} if desc else {})}
        return self.path.with_name(f"{compose(entities, suffix or f'{self.name}map')}.nii.gz")


def main_maps(
    out: Path, *, subjects: Sequence[str] = (), sessions: Sequence[str] = (), estimator: str | None = None
) -> list[MainMap]:
    """Return the T1 and T2 maps in a derivative, in order of name.

    Parameters
    ----------
    subjects, sessions
        Only these, without ``sub-`` and ``ses-``; all if empty.
    estimator
        Only its maps; those whose names have no ``desc-`` if left out.
    """
    found = []
    for path in sorted(Path(out).glob("sub-*/**/*map.nii.gz")):
        parsed = BidsName.parse(path.name)
        if parsed is None or not re.fullmatch(r"T\d\w*map", parsed.suffix):
            continue
        entities = dict(parsed.entities)
        desc, sidecar = entities.pop("desc", ""), path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        if (subjects and entities.get("sub") not in subjects) or (sessions and entities.get("ses") not in sessions):
            continue
        if (desc and (estimator is None or desc != re.sub(r"[^a-zA-Z0-9]", "", estimator))) or not sidecar.is_file():
            continue
        made_by = str(read_json(sidecar).get("Estimator", ""))
        if estimator in (None, made_by):
            found.append(MainMap(path, entities, parsed.suffix.removesuffix("map"), made_by, desc))
    return found


def rows_of(
    main: MainMap, *, labels: Path | None = None, names: Mapping[int, str] | None = None, mask: Path | None = None
) -> list[Row]:
    """Return one row for each region of one map; times in ms.

    The regions are those of a label image; else one, the mask; else what the maps were made in; else, where maps were
    made everywhere, what is brighter in the map of A than its background.

    Raises
    ------
    InputError
        Where a file cannot be read, or does not lie on the grid of the map.
    """
    file = open_nifti(main.path)
    values = 1000.0 * next(iter(file.volumes()))
    status = _beside(main.beside("status"), values.shape)
    if status is None:
        raise InputError(f"{main.label}: there is no {main.beside('status').name}. Map this series again.")
    regions: list[tuple[int | str, str, NDArray[np.bool_]]]
    if labels is not None:
        image = read_labels(labels, file.shape, file.affine)
        regions = [(int(v), (names or {}).get(int(v), ""), image == v) for v in np.unique(image[image != 0])]
        if not regions:
            raise InputError(f"{labels}: the labels are all zero: no region is marked.")
    elif mask is not None:
        regions = [("mask", "", read_mask(mask, file.shape, file.affine))]
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
        raise InputError(f"{path} has shape {values.shape}; the map beside it {shape}.")
    return values


def _signal(main: MainMap, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    for path in (main.beside("", "M0map"), main.beside("MESE", "M0map")):
        A = _beside(path, shape)
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

    ``few`` marks those with far fewer estimated voxels than the rest. Of fewer than five series none lies out.
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
    """Return the values beyond which one lies out (Tukey 1977): 1.5 IQR from the quartiles.

    >>> fences([1, 2, 3, 4, 5])
    (-1.0, 7.0)
    """
    x = np.array([v for v in values if math.isfinite(v)])
    if len(x) < _ENOUGH:
        return -math.inf, math.inf
    q25, q75 = np.quantile(x, [0.25, 0.75])
    return float(q25 - 1.5 * (q75 - q25)), float(q75 + 1.5 * (q75 - q25))


def columns() -> dict[str, dict[str, Any]]:
    """Return what the JSON file beside the table says of its columns."""
    about: dict[str, dict[str, Any]] = {
        "participant_id": {"Description": "Subject"},
        "session_id": {"Description": "Session, where there is one"},
        "map": {"Description": "Which relaxation time", "Levels": {"T1": "T1", "T2": "T2"}},
        "estimator": {"Description": "Estimator that made the map"},
        "region": {
            "Description": "Value in the label image; mask: the mask; signal: where A is brighter than its background"
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
        about[key] = {"Description": text, "Units": "ms"}
    for s in SHARES:
        about[_share(s)] = {"Description": f"Share of the voxels of the region: {s.meaning}", "Units": "1"}
    return about | {
        "outlier": {
            "Description": "low, high: the median lies beyond 1.5 interquartile ranges from the quartiles of all series; "
            "few: so does the share of estimated voxels"
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
        The data set, the date and time, and what was typed.
    failed
        ``participant_id``, ``series`` and ``reason`` of what has no map.
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
            {"name": name, "regions": [_strip(members) for key, members in shown.items() if key[0] == name]}
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


def _tiles(rows: Sequence[Row], failed: Sequence[Any]) -> list[dict[str, str]]:
    series = {r["series"] for r in rows}
    lying_out = {r["series"] for r in rows if r["outlier"]}
    return [
        {
            "label": "subjects",
            "value": f"{len({r['participant_id'] for r in rows}):,}",
            "note": count_of(len(series), "map"),
        },
        {"label": "regions", "value": f"{len(_by_region(rows)):,}", "note": "figures of each in group.tsv"},
        {"label": "outliers", "value": f"{len(lying_out):,}", "note": "maps with a region that lies out"},
        {"label": "failed", "value": f"{len(failed):,}", "note": "series without a map"},
    ]


def _strip(members: Sequence[Row]) -> dict[str, Any]:
    values = [r["median"] for r in members]
    return {"title": f"{members[0]['map']} {_region_title(members[0])}", "unit": "ms", **_box(values, members)}


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
        Where the axis ends at the latest.
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
            "y": 26 + 13 * math.sin(2.4 * i),  # apart from each other, and the same each time
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
        "head": [f"{key[0]} {text}" for key, text in head.items()],
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
