"""The page of a phantom: each map with its spheres marked, the bias of each sphere, and changes between the maps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rimap import __version__, colours
from rimap.advice import warnings_of
from rimap.evaluation.spheres import MEASURED_MM, N_SPHERES, Array
from rimap.report.templating import render, source
from rimap.slices import Plane, View, edges_mm, extent, planes_of, png, volume

#: Size of a chart, in the units of its SVG.
WIDTH, HEIGHT = 640, 240
#: Largest bias on a chart, %.
_MOST_PERCENT = 40.0


class _Map(Protocol):
    name: str
    label: str

    def values(self) -> NDArray[np.float64]: ...

    def geometry(self) -> tuple[NDArray[np.float64] | None, tuple[float, ...]]: ...


class _PhantomRun(Protocol):
    """What the page reads of `rimap.workflow.phantom.PhantomRun`, which is a floor above."""

    @property
    def measured(self) -> Sequence[Any]: ...
    @property
    def refused(self) -> Sequence[tuple[str, str]]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def tolerance_percent(self) -> float: ...
    @property
    def rows(self) -> Sequence[dict[str, Any]]: ...
    @property
    def drift(self) -> Any: ...
    @property
    def groups(self) -> Any: ...


def page(run: _PhantomRun, command: str = "") -> str:
    """Return the page of a run of `rimap.workflow.phantom` as HTML."""
    measured, tolerance = run.measured, run.tolerance_percent
    verdicts = [row["verdict"] for row in run.rows]
    biases = np.array([row["bias_percent"] for row in run.rows], dtype=float)
    known = biases[np.isfinite(biases)]
    tiles = [
        {
            "label": "maps",
            "value": str(len(measured)),
            "note": ", ".join(dict.fromkeys(m.layout.name for m in measured)),
        },
        {
            "label": "within tolerance",
            "value": f"{verdicts.count('pass')} of {len(verdicts)}",
            "note": f"spheres, {tolerance:g} %",
        },
        {
            "label": "median bias",
            "value": f"{np.median(known):+.1f} %" if known.size else "–",
            "note": f"of {known.size} spheres with a value",
        },
        {
            "label": "not measured",
            "value": str(sum(verdict not in ("pass", "fail") for verdict in verdicts)),
            "note": "spheres without a value",
        },
    ]
    return render(
        "phantom.html",
        css=source("base.css"),
        version=__version__,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        title="Phantom: " + ", ".join(dict.fromkeys(m.layout.title for m in measured)),
        tiles=tiles,
        notes=warnings_of(run.notes),
        refused=run.refused,
        maps=[
            {
                "title": m.map.label,
                "about": f"{m.map.name}, {m.layout.name}" + (f", {m.date.isoformat()}" if m.date else ""),
                "picture": picture(m.map, m.array, 1.5 * max(m.references.values.values())),
                "chart": bias_chart(m.rows, tolerance),
                "rows": m.rows,
                "source": m.references.source,
            }
            for m in measured
        ],
        drift=run.drift,
        drift_charts=[_drift_chart(members) for members in run.groups],
        tolerance=tolerance,
        command=command,
    )


def picture(m: _Map, array: Array, highest: float) -> dict[str, Any]:
    """Return a slice of a map as a picture with the circles of the spheres, for the template.

    Parameters
    ----------
    highest
        The approximate value of the upper end of the colours, ms.
    """
    x = volume(m.values())
    affine, edges = m.geometry()
    size = edges_mm(affine, edges)
    planes = planes_of(affine, x.shape)
    plane = next(
        (plane for plane in planes if plane.axes[2] == array.axis), Plane("", (1, 0, 2), (False, False), ("",) * 4)
    )
    right, down, _ = plane.axes
    # crop the field of view to the phantom: all values, and all spheres
    shown = np.isfinite(x) & (x > 0)
    crops = []
    for axis, flip in ((right, plane.flips[0]), (down, plane.flips[1])):
        n = x.shape[axis]
        first, end = extent(np.moveaxis(shown, array.axis, 0)[array.index].reshape(_without(x.shape, array.axis)), axis)
        crops.append(slice(n - end, n - first) if flip else slice(first, end))
    width, height = ((crop.stop - crop.start) * size[a] for crop, a in zip(crops, (right, down)))
    view = View(plane, (array.index,), (crops[0], crops[1]), float(width / height))
    values = view.picture(np.where(shown, x, np.nan), array.index)
    high = float(colours.window(np.array([highest]))[1])
    name = colours.of_relaxation(m.name)
    circles = []
    for sphere in array.spheres:
        at = []
        for k, (axis, flip) in enumerate(((right, plane.flips[0]), (down, plane.flips[1]))):
            index = x.shape[axis] - 1 - sphere.centre[axis] if flip else sphere.centre[axis]
            at.append((index + 0.5 - crops[k].start) * size[axis])
        circles.append({"x": at[0], "y": at[1], "n": sphere.number, "problem": sphere.problem})
    bar = colours.indices(np.linspace(high, 0.0, 256)[:, None], 0, high, logarithmic=True)
    return {
        "src": png(colours.indices(values, 0, high, logarithmic=True), colours.palette(name)),
        "width": width,
        "height": height,
        "radius": MEASURED_MM,
        "circles": circles,
        "letters": plane.letters,
        "bar": png(bar, colours.palette(name)),
        "ticks": [{"at": 100 * (high - tick) / high, "label": f"{tick:,.10g}"} for tick in colours.ticks(0, high)],
        "label": f"{m.name}, ms",
    }


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Return a shape of three axes with one of them a single slice."""
    return tuple(1 if k == axis else length for k, length in enumerate(shape))


def bias_chart(rows: Sequence[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """Return the biases of the spheres of one map, with the quartiles of their voxels, as numbers for the template."""
    points = []
    for row in rows:
        if not np.isfinite(row["bias_percent"]):
            continue
        quartiles = [100 * (row[q] / row["reference"] - 1) for q in ("q25", "q75")]
        points.append(
            {"n": row["label"], "bias": row["bias_percent"], "quartiles": quartiles, "verdict": row["verdict"]}
        )
    largest = max([1.3 * tolerance, *(1.1 * abs(b) for point in points for b in (point["bias"], *point["quartiles"]))])
    most = min(largest, max(_MOST_PERCENT, 1.3 * tolerance))

    def y(percent: float) -> float:
        return float(HEIGHT / 2 - HEIGHT / 2 * np.clip(percent / most, -1, 1))

    def x(n: float) -> float:
        return float(WIDTH * (n - 0.5) / N_SPHERES)

    return {
        "points": [
            {"x": x(point["n"]), "y": y(point["bias"]), "low": y(point["quartiles"][0]),
             "high": y(point["quartiles"][1]), "bad": point["verdict"] == "fail",
             "tip": f"sphere {point['n']}: {point['bias']:+.1f} %"}
            for point in points
        ],
        "band": (y(tolerance), y(-tolerance)),
        "zero": y(0),
        "x_ticks": [{"at": x(n), "label": str(n)} for n in range(1, N_SPHERES + 1)],
        "y_ticks": [{"at": y(tick), "label": f"{tick:+g} %" if tick else "0"}
                    for tick in colours.ticks(-most, most, 6)],
    }  # fmt: skip


def _drift_chart(members: Sequence[Any]) -> dict[str, Any]:
    """Return the bias of each sphere over the maps of one array, as numbers for the template."""
    bias = np.array([[row["bias_percent"] for row in member.rows] for member in members], dtype=float)
    finite = np.abs(bias[np.isfinite(bias)])
    most = float(np.clip(1.1 * finite.max(), 2.0, _MOST_PERCENT)) if finite.size else 10.0
    dated = all(member.date for member in members) and len({member.date for member in members}) > 1
    at = np.array([member.date.toordinal() if dated else k for k, member in enumerate(members)], dtype=float)
    x = 24 + (WIDTH - 120) * (at - at.min()) / max(float(np.ptp(at)), 1e-9)
    y = HEIGHT / 2 - HEIGHT / 2 * np.clip(bias / most, -1, 1)
    table = colours.palette("batlow")
    subjects = {member.rows[0]["participant_id"] for member in members}
    subject = subjects.pop() if len(subjects) == 1 else ""
    series = []
    for n in range(N_SPHERES):
        good = np.isfinite(y[:, n])
        if good.any():
            points = [(float(a), float(b)) for a, b in zip(x[good], y[good, n])]
            series.append({"n": n + 1, "points": points, "colour": "#" + bytes(table[20 + 15 * n]).hex()})
    return {
        "title": ", ".join((*([subject] if subject else []), members[0].layout.name, members[0].map.name)),
        "series": series,
        "zero": HEIGHT / 2,
        "x_ticks": [
            {"at": float(v), "label": member.date.isoformat() if dated else str(k)}
            for k, (v, member) in enumerate(zip(x, members), start=1)
        ],
        "names": [] if dated else [member.map.label for member in members],
        "y_ticks": [
            {"at": HEIGHT / 2 - HEIGHT / 2 * tick / most, "label": f"{tick:+g} %" if tick else "0"}
            for tick in colours.ticks(-most, most, 6)
        ],
    }
