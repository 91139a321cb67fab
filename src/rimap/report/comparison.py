"""The page of a comparison: both maps and their difference, Bland-Altman plots, and the calibration of the standard
deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rimap import __version__, colours
from rimap.advice import notes_of, warnings_of
from rimap.evaluation.agreement import LEVELS
from rimap.likelihood import HALF_OF_95
from rimap.map_display import HIGHEST_QUARTILES, shown_name
from rimap.report.number_formats import number
from rimap.report.panels import Panel
from rimap.report.templating import render, source
from rimap.slices import png, slice_number, view_of

#: Size of a chart, in the units of its SVG, and cells of the density of a Bland-Altman plot.
WIDTH, HEIGHT = 560, 300
#: Columns and rows of the density, instead of points, if there are many voxels.
_CELLS = (112, 60)
#: Largest numbers of pairs and slices on the page. The table has all pairs.
MOST_PAIRS, _SLICES = 8, 3
#: Colours of differences: white at zero.
_DIVERGING, _DENSITY = "vik", "lapaz"


class _Compared(Protocol):
    """What the page reads of `rimap.workflow.compare.Comparison`, which is a floor above."""

    @property
    def pairs(self) -> Sequence[Any]: ...
    @property
    def over_repeats(self) -> Sequence[dict[str, Any]]: ...
    @property
    def over_subjects(self) -> Sequence[dict[str, Any]]: ...
    @property
    def notes(self) -> Sequence[str]: ...


def page(found: _Compared, command: str = "") -> str:
    """Return the page of a comparison of `rimap.workflow.compare` as HTML."""
    pairs = found.pairs
    whole = [pair.rows[0] for pair in pairs]
    calibrated = [pair.calibration for pair in pairs if pair.calibration is not None and pair.calibration.n]
    tiles = [
        {"label": "pairs of maps", "value": str(len(pairs)),
         "note": ", ".join(dict.fromkeys(shown_name(pair.first.name) for pair in pairs))},
        {"label": "bias", "value": _over(whole, "bias_percent", "+.2f", " %"), "note": "mean difference, of the mean"},
        {"label": "within-subject CV", "value": _over(whole, "within_cv_percent", ".2f", " %"), "note": "of single "
            "voxels"},
        {
            "label": "SD of z",
            "value": f"{np.median([c.sd for c in calibrated]):.2f}" if calibrated else "–",
            "note": "1 if the SDs are calibrated" if calibrated else "the maps have no SDs",
        },
    ]  # fmt: skip
    return render(
        "comparison.html",
        css=source("base.css"),
        version=__version__,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        title="Comparison of maps of " + ", ".join(dict.fromkeys(shown_name(pair.first.name) for pair in pairs)),
        tiles=tiles,
        warnings=warnings_of(found.notes),
        notes=notes_of(found.notes),
        pairs=[_pair(pair) for pair in pairs[:MOST_PAIRS]],
        more=len(pairs) - min(len(pairs), MOST_PAIRS),
        over_subjects=[_shown(r) for r in found.over_subjects],
        over_repeats=[_shown(r) | {"map": r["first"]} for r in found.over_repeats],
        over_subjects_charts=_charts_over_subjects(pairs),
        command=command,
    )


def _over(rows: Sequence[dict[str, Any]], column: str, form: str, unit: str) -> str:
    values = [row[column] for row in rows if np.isfinite(row[column])]
    return f"{np.median(values):{form}}{unit}" if values else "–"


def _pair(pair: Any) -> dict[str, Any]:
    unit = pair.first.unit
    inside = pair.inside & np.isfinite(pair.values).all(axis=0)
    affine, edges = pair.first.geometry()
    view = view_of(affine, inside, _SLICES, edges)
    labelled = {key: median for key, median in pair.medians.items() if key[0] != "whole"}
    return {
        "title": pair.label,
        "unit": unit,
        "first": pair.names[0],
        "second": pair.names[1],
        "aspect": view.aspect,
        "letters": view.plane.letters,
        "slices": [slice_number(index) for index in view.slices],
        "panels": [panel.pictures(view, view.slices) for panel in _panels(pair, inside)],
        "bland_altman": bland_altman(pair.values[:, inside], unit, labelled),
        "z": _histogram_of_z(pair.z[inside])
        if pair.z is not None and pair.calibration and pair.calibration.n
        else None,
        "calibration": [
            {"level": f"{100 * level:g} %", "share": f"{100 * share:.1f} %"}
            for level, share in zip(LEVELS, pair.calibration.shares)
        ]
        if pair.calibration is not None
        else [],
        "rows": [_shown(row) for row in pair.rows],
        "has_z": pair.z is not None,
    }


def _panels(pair: Any, inside: NDArray[np.bool_]) -> list[Panel]:
    """Return both maps in one window, and their difference in one that is symmetric about zero."""
    values = np.where(inside, pair.values, np.nan)
    finite = values[np.isfinite(values)]
    unit, name = pair.first.unit, pair.first.name
    relaxation = unit in ("ms", "1/s")
    low, high = colours.window(finite, low=0.0 if relaxation else None)
    if relaxation and finite.size:  # tissue rather than fluid, as in the report
        high = min(high, colours.window(np.array([HIGHEST_QUARTILES * float(np.quantile(finite, 0.75))]))[1])
    palette = colours.of_relaxation(name) if relaxation else "batlow"
    difference = values[1] - values[0]
    most = colours.window(np.abs(difference), low=0.0, upper=0.95)[1]
    maps = [
        Panel(f"{n}", f"{shown_name(name)}, {which}", unit, value, palette, (low, high), relaxation)
        for n, (which, value) in enumerate(zip(("first", "second"), values))
    ]
    return [*maps, Panel("difference", "second − first", unit, difference, _DIVERGING, (-most, most))]


def bland_altman(
    values: NDArray[np.float64], unit: str, medians: dict[tuple[str, str], tuple[float, float]]
) -> dict[str, Any]:
    """Return a Bland-Altman plot of voxels as a density, with regions as dots, as numbers for the template.

    Parameters
    ----------
    values
        (2, n), finite.
    medians
        Those of both maps, by label and name of the region.
    """
    mean, difference = values.mean(axis=0), values[1] - values[0]
    regions = [
        (key, float(np.mean(median)), float(median[1] - median[0]))
        for key, median in medians.items()
        if np.isfinite(median).all()
    ]
    x_range = _range(np.concatenate([mean, [region[1] for region in regions]]), 0.005)
    bias, deviation = float(difference.mean()), float(difference.std(ddof=1)) if difference.size > 1 else 0.0
    limits = [bias - HALF_OF_95 * deviation, bias + HALF_OF_95 * deviation]
    most = max(1.6 * max(abs(limit) for limit in limits), *(1.1 * abs(region[2]) for region in regions), 1e-9)
    y_range = (-most, most)
    counts, _, _ = np.histogram2d(mean, difference, bins=_CELLS, range=(x_range, y_range))
    with np.errstate(divide="ignore"):
        shown = np.where(counts > 0, np.log10(counts), np.nan)
    entries = colours.indices(shown.T[::-1], -0.4, max(float(np.nanmax(shown)) if counts.any() else 1.0, 1.0))

    def x(v: float) -> float:
        return float(WIDTH * (v - x_range[0]) / (x_range[1] - x_range[0]))

    def y(v: float) -> float:
        return float(HEIGHT * (y_range[1] - v) / (y_range[1] - y_range[0]))

    lines = [("mean", bias), ("mean − 1.96 SD", limits[0]), ("mean + 1.96 SD", limits[1])]
    return {
        "density": png(entries, _density_table()),
        "lines": [{"y": y(v), "label": f"{name}: {number(v)} "
            f"{unit}".strip(), "middle": name == "mean"} for name, v in lines],
        "zero": y(0.0),
        "dots": [{"x": x(m), "y": y(d), "tip": f"{' '.join(key).strip()}: {number(d)} "
            f"{unit}".strip()} for key, m, d in regions],
        "x_ticks": [{"at": x(tick), "label": f"{tick:,.10g}"} for tick in colours.ticks(*x_range, 6)],
        "y_ticks": [{"at": y(tick), "label": f"{tick:,.10g}"} for tick in colours.ticks(*y_range, 6)],
        "unit": unit,
        "outside": int(((np.abs(difference) > most) | (mean < x_range[0]) | (mean > x_range[1])).sum()),
    }  # fmt: skip


def _density_table() -> NDArray[np.uint8]:
    """Return the colours of densities: light for few voxels, and the colour of the page (entry 0) for none."""
    table = colours.palette(_DENSITY)[::-1].copy()
    table[0] = 250
    return table


def _range(values: NDArray[np.float64], cut: float) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(values, [cut, 1 - cut]))
    span = high - low or abs(high) or 1.0
    return low - 0.05 * span, high + 0.05 * span


def _histogram_of_z(z: NDArray[np.float64]) -> dict[str, Any]:
    """Return the histogram of z and the normal distribution that it has if the standard deviations are calibrated."""
    finite = z[np.isfinite(z)]
    end, bins = 5.0, 50
    density, edges = np.histogram(finite, bins=bins, range=(-end, end))
    width = edges[1] - edges[0]
    share = density / (finite.size * width)
    normal_x = np.linspace(-end, end, 101)
    normal = stats.norm.pdf(normal_x)
    top = 1.08 * max(float(share.max(initial=0)), float(normal.max()))

    def x(v: Any) -> Any:
        return WIDTH * (v + end) / (2 * end)

    return {
        "bars": [
            {"x": float(x(edge)), "h": float(HEIGHT * s / top)} for edge, s in zip(edges[:-1], share) if s > 0
        ],
        "width": WIDTH / bins,
        "normal": " ".join(f"{x(a):.1f},{HEIGHT - HEIGHT * b / top:.1f}" for a, b in zip(normal_x, normal)),
        "ticks": [{"at": float(x(t)), "label": f"{t:+g}" if t else "0"} for t in range(-4, 5, 2)],
        "beyond": int((np.abs(finite) > end).sum()),
    }  # fmt: skip


def _charts_over_subjects(pairs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a Bland-Altman plot of the region medians of all pairs for each kind of map, if there are several
    pairs.
    """
    charts = []
    for name in dict.fromkeys(pair.first.name for pair in pairs):
        members = [pair for pair in pairs if pair.first.name == name]
        medians = {
            (f"{member.label}, {key[0]}", key[1]): median
            for member in members
            for key, median in member.medians.items()
            if np.isfinite(median).all()
        }
        if len(members) > 1 and len(medians) > 2:
            unit = members[0].first.unit
            values = np.array(list(medians.values())).T
            chart = bland_altman(values, unit, medians)
            charts.append({"title": f"{shown_name(name)}: medians of all pairs and regions", "bland_altman": chart})
    return charts


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a row as text."""

    def percent(value: float, form: str) -> str:
        return "–" if value != value else f"{value:{form}} %"

    icc = row["icc"]
    return {
        "region": f"{row['label']} {row['name']}".strip(),
        "n": f"{row['n']:,}",
        "first": number(row["median_first"], 4),
        "second": number(row["median_second"], 4),
        "bias": number(row["bias"]),
        "bias_percent": percent(row["bias_percent"], "+.2f"),
        "limits": f"{number(row['limit_low'])} to {number(row['limit_high'])}"
        if row["limit_low"] == row["limit_low"]
        else "–",
        "wcv": percent(row["within_cv_percent"], ".2f"),
        "rc": number(row["repeatability_coefficient"]),
        "icc": "–" if icc != icc else f"{icc:.3f}",
        "z_sd": number(row["z_sd"]),
        "z_robust": number(row["z_robust_sd"]),
        "z_share": percent(100 * row["z_share_95"], ".1f"),
        "unit": row["unit"],
        "map": shown_name(row["map"]),
    }
