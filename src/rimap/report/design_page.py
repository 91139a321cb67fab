"""A design as one self-contained page: the precision over T, and the signal that each protocol samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import __version__, colours
from rimap.planning.design import Design, Protocol, middle
from rimap.planning.goal import Goal
from rimap.planning.measurable_range import name_of_time, what_it_measures
from rimap.planning.precision import tissue_of
from rimap.report.charts import HEIGHT, WIDTH, log_ticks
from rimap.report.design_text import columns_of, conditions_of, duration, gain_of, images_of, scan_time_of, title_of
from rimap.report.formula import formula_of
from rimap.report.number_formats import number, plural
from rimap.report.templating import render, source
from rimap.signals.base import predicting
from rimap.signals.settings import REPETITION_TIME, unit_symbol

#: The largest relative SD that the chart shows, %.
_TOP_PERCENT = 100.0
#: Points of a signal curve.
_POINTS = 96


def page(found: Design, limit_percent: float, command: str = "") -> str:
    """Return the page."""
    protocols = [("best", found.best)] + ([("present", found.present)] if found.present is not None else [])
    name = name_of_time(found.best.model)
    return render(
        "design.html",
        css=source("base.css"),
        version=__version__,
        title=title_of(found),
        name=name,
        tiles=_tiles(found),
        chart=_precision_chart(found, protocols, limit_percent),
        signal=_signal_chart(found, protocols),
        gain=gain_of(found),
        protocols=[
            {
                "label": label,
                "title": f"{label.capitalize()} protocol",
                "measures": what_it_measures(found, p, limit_percent),
                "columns": [
                    f"{s.symbol} ({unit_symbol(s.unit)})" if unit_symbol(s.unit) else s.symbol for s in columns_of(p)
                ],
                "rows": [[f"{v:.6g}" for v in row] for row in images_of(p)],
                "averages": f"{p.averages:.3g}",
                "minutes": duration(p.minutes),
            }
            for label, p in protocols
        ],
        conditions=[*conditions_of(found), *found.notes],
        scan_time=scan_time_of(found.goal),
        formula=formula_of(found.best.model),
        reference=found.goal.kind.reference,
        command=command,
    )


def _tiles(found: Design) -> list[dict[str, str]]:
    best, present = found.best, found.present
    low, high = found.goal.T_ms
    tiles = [
        {
            "label": "Worst standard deviation",
            "value": f"{100 * best.worst:.3g} %",
            "note": f"{low:g} to {high:g} ms, best protocol",
        }
    ]
    if present is not None:
        value = f"{100 * present.worst:.3g} %" if np.isfinite(present.worst) else "not determined"
        tiles.append({"label": "Worst standard deviation", "value": value, "note": "present protocol, same scan time"})
    tiles.append(
        {
            "label": "Scan time",
            "value": duration(best.minutes * best.averages),
            "note": f"of {duration(found.minutes)}",
        }
    )
    tiles.append(
        {
            "label": "Images",
            "value": str(best.model.n_images),
            "note": f"averaged {best.averages:g}×" if best.averages != 1 else "not averaged",
        }
    )
    return tiles


def _precision_chart(found: Design, protocols: list[tuple[str, Protocol]], limit_percent: float) -> dict[str, Any]:
    """Return the relative SD over T of each protocol as lines for an SVG, both axes logarithmic."""
    T = found.T_ms
    curves = [(label, 100 * p.sd(T)) for label, p in protocols]
    shown = [deviation[np.isfinite(deviation)] for _, deviation in curves]
    least = min((float(deviation.min()) for deviation in shown if deviation.size), default=1.0)
    y_low = float(min(least / 1.5, limit_percent / 2))
    y_high = float(max(_TOP_PERCENT, 20 * y_low))
    x, y = _logarithmic(T[0], T[-1], WIDTH), _logarithmic(y_low, y_high, HEIGHT)
    lines = []
    for label, deviation in curves:
        pieces = _pieces(np.isfinite(deviation) & (deviation <= y_high))
        points = [" ".join(f"{x(T[i]):.1f},{HEIGHT - y(deviation[i]):.1f}" for i in piece) for piece in pieces]
        lines.append({"label": label, "points": [point for point in points if point]})
    low, high = found.goal.T_ms
    return {
        "lines": lines,
        "band": (x(low), max(x(high) - x(low), 2.0)),
        "limit": HEIGHT - y(limit_percent),
        "limit_label": f"{limit_percent:g} %",
        "x_ticks": [{"at": x(tick), "label": f"{tick:,.10g}"} for tick in log_ticks(T[0], T[-1])],
        "y_ticks": [{"at": HEIGHT - y(tick), "label": f"{tick:g} %"} for tick in log_ticks(y_low, y_high)],
    }


def _signal_chart(found: Design, protocols: list[tuple[str, Protocol]]) -> dict[str, Any]:
    """Return the signal over the axis for tissues of the range, with the samples of each protocol."""
    low, high = found.goal.T_ms
    values = np.unique([low, middle(found.goal), high])
    axis = found.best.model.axis
    times = np.concatenate([p.model.times for _, p in protocols])
    span = (float(times.min()) / 1.4, float(times.max()) * 1.15)
    x = _logarithmic(*span, WIDTH)
    along, curves = _curves(found, np.geomspace(*span, _POINTS), values)
    top = max((float(np.nanmax(np.abs(s))) for _, s in curves), default=1.0) * 1.08 or 1.0
    floor = min(0.0, min((float(np.nanmin(s)) for _, s in curves), default=0.0) * 1.08)

    def y(s: Any) -> Any:
        return HEIGHT - HEIGHT * (s - floor) / (top - floor)

    return {
        "recovered": _recovers(found.goal),
        "axis": f"{plural(axis.title)} ({unit_symbol(axis.unit)})",
        "curves": [
            {
                "label": f"{name_of_time(found.best.model)} = {number(float(v))} ms",
                "points": " ".join(f"{x(t):.1f},{y(s):.1f}" for t, s in zip(along, signal)),
            }
            for v, signal in curves
        ],
        "marks": [
            {"label": label, "at": [x(float(t)) for t in p.model.times], "row": k}
            for k, (label, p) in enumerate(protocols)
        ],
        "x_ticks": [{"at": x(tick), "label": f"{tick:,.10g}"} for tick in log_ticks(*span)],
        "y_ticks": [{"at": float(y(tick)), "label": f"{tick:.3g}"} for tick in colours.ticks(floor, top)],
    }


def _recovers(goal: Goal) -> bool:
    """Return whether the signal depends on the recovery after an image. Curves are drawn for complete recovery."""
    return goal.repetition is not None and goal.repetition.longer_than == goal.axis.name


def _curves(
    found: Design, at: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[tuple[float, NDArray[np.float64]]]]:
    """Return points of the axis and the signal there for each T.

    Images of one echo train, or of a cycle that every image changes, have a signal only at their own times.
    """
    goal, model = found.goal, found.best.model
    if not (goal.kind.cycle.also_chosen or goal.axis.even):
        settings = {setting.name: getattr(model, setting.name) for setting in model.settings.values()}
        settings = {
            key: (value[0] if isinstance(value, tuple) and len(value) == model.n_images else value)
            for key, value in settings.items()
        }
        settings[goal.axis.name] = tuple(at)
        if _recovers(goal):
            settings[REPETITION_TIME] = None
        model = predicting(type(model))(**settings)
    order = np.argsort(model.times)
    signals = np.asarray(model.signal(tissue_of(model, values, goal.assumed)), dtype=float)[order]
    return model.times[order], [(float(value), signals[:, k]) for k, value in enumerate(values)]


def _logarithmic(low: float, high: float, length: float) -> Any:
    return lambda v: float(np.clip(length * np.log(v / low) / np.log(high / low), 0, length))


def _pieces(good: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Return the runs of indices that are true."""
    at = np.flatnonzero(good)
    return [run for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if run.size]
