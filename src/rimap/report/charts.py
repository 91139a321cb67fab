"""The charts of the page, as numbers for its template: a histogram, and the precision that the protocol allows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.likelihood import cramer_rao_sd
from rimap.map_display import Quantity, is_relaxation, name_of, palette_of
from rimap.report.number_formats import number, plural
from rimap.report.statistics import describe, known_parameters
from rimap.series import ParameterMaps
from rimap.signals.base import Parameter, SignalModel
from rimap.signals.settings import unit_symbol

#: Size of the area of a chart, in the units of its SVG.
WIDTH, HEIGHT = 640, 220


def histogram(values: NDArray[Any], q: Quantity, window: tuple[float, float], bins: int = 64) -> dict[str, Any]:
    """Return the bars of a histogram in the colours of the map within its window."""
    low, high = colours.window(values, low=0.0 if is_relaxation(q) else None)
    high = min(high, 2 * window[1]) if window[1] > low else high  # a long tail would compress the rest of the histogram
    if isinstance(q, Parameter):
        high = min(high, q.bounds[1])
    counts, edges = np.histogram(values[np.isfinite(values)], bins=bins, range=(low, high))
    table = colours.palette(palette_of(q))
    entries = colours.indices((edges[1:] + edges[:-1]) / 2, *window, logarithmic=is_relaxation(q))
    top, s = max(int(counts.max()), 1), describe(values)

    def at(v: float) -> float:
        return float(np.clip(WIDTH * (v - low) / (high - low), 0, WIDTH))

    return {
        "key": q.name,
        "name": name_of(q),
        "unit": unit_symbol(q.unit),
        "bars": [
            {"x": WIDTH * i / bins, "h": 0.95 * HEIGHT * count / top, "fill": "#" + bytes(table[entry]).hex()}
            for i, (count, entry) in enumerate(zip(counts, entries))
            if count
        ],
        "width": WIDTH / bins,
        "median": at(s.median) if s.n else None,
        "q25": at(s.q25) if s.n else 0.0,
        "q75": at(s.q75) if s.n else 0.0,
        "ticks": [{"at": at(tick), "label": f"{tick:,.10g}"} for tick in colours.ticks(low, high, 8)],
        "above": int((values > high).sum()),
        "low": low,
        "high": high,
        "n": s.n,
    }


def precision(maps: ParameterMaps, counts: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Return the Cramér-Rao bound of T over T for this protocol, at the medians of the other maps and the σ of the
    data.

    `None` if the noise, the amplitude or T is not known.

    Parameters
    ----------
    counts
        (*X), the voxels from which the medians are taken.
    """
    noise, model = maps.noise, maps.model
    if noise is None or noise.sigma is None or not counts.any():
        return None
    sigma = noise.typical_sigma(counts)
    if not np.isfinite(maps.kappa[:, counts]).any(axis=1).all():
        return None
    p, noise, middle = model.time, type(noise)(sigma), np.nanmedian(maps.kappa[:, counts], axis=1)
    q = model.index(p.name)
    amplitude, size = _size(model, middle)
    if not (np.isfinite(middle).all() and middle[q] > 0 and 1e-6 < size / sigma < 1e9):
        return None
    T_data = maps.kappa[q][counts]
    low, q25, q75, high = (float(x) for x in np.nanquantile(T_data, [0.02, 0.25, 0.75, 0.98]))
    span = (max(low / 2, p.bounds[0]), min(max(high * 1.6, 2 * low), p.bounds[1]))
    T = np.geomspace(*span, 161)
    kappa = np.broadcast_to(middle[:, None], (len(middle), T.size)).copy()
    kappa[q] = T
    known = known_parameters(maps)
    fields = [f for f in model.nonlinear if f.name != p.name and f.name not in known]
    bounds = [
        (cramer_rao_sd(model, noise, kappa, held=known)[q] / T * 100, "every parameter unknown" if fields else "")
    ]
    if smooth := [field for field in fields if field.smooth]:
        names = " and ".join(name_of(f) for f in smooth)
        held = known | {f.name for f in smooth}
        bounds.append((cramer_rao_sd(model, noise, kappa, held=held)[q] / T * 100, f"{names} known"))
    finite = np.concatenate([b[np.isfinite(b) & (b > 0)] for b, _ in bounds])
    if not finite.size:
        return None
    y_low = float(10 ** np.floor(np.log10(finite.min() / 1.3)))
    y_high = float(np.clip(10 ** np.ceil(np.log10(np.quantile(finite, 0.97))), 10 * y_low, max(1000.0, 100 * y_low)))

    def x(t: Any) -> Any:
        return np.clip(WIDTH * np.log(t / span[0]) / np.log(span[1] / span[0]), 0, WIDTH)

    def y(percent: Any) -> Any:
        return np.clip(HEIGHT - HEIGHT * np.log(percent / y_low) / np.log(y_high / y_low), 0, HEIGHT)

    curves = []
    for b, label in bounds:
        good = np.isfinite(b) & (b > 0) & (b <= y_high)
        points = " ".join(f"{u:.1f},{v:.1f}" for u, v in zip(x(T[good]), y(b[good])))
        curves.append({"points": points, "label": label})
    free = bounds[0][0]
    at_median = float(np.interp(np.log(middle[q]), np.log(T), free))
    good = T[free <= 5.0]
    same_unit = model.axis.unit == p.unit  # inversion times can be marked on an axis of T1, flip angles cannot
    others = [f for f in model.nonlinear if f.name != p.name]
    return {
        "key": p.name,
        "name": name_of(p),
        "unit": unit_symbol(p.unit),
        "curves": curves,
        "x_range": span,
        "y_range": (y_low, y_high),
        "dots": [{"x": float(x(t)), "y": float(y(s))} for t, s in _found(maps, counts, T_data, span) if s > y_low],
        "band": (float(x(q25)), float(x(q75))),
        "median": float(x(middle[q])),
        "x_ticks": [{"at": float(x(tick)), "label": f"{tick:,.10g}"} for tick in log_ticks(*span)],
        "y_ticks": [{"at": float(y(tick)), "label": f"{tick:g} %"} for tick in log_ticks(y_low, y_high)],
        "marks": [float(x(t)) for t in model.times if span[0] <= t <= span[1]] if same_unit else [],
        "axis": plural(model.axis.title),
        "amplitude": amplitude,
        "snr": number(size / sigma, 2),
        "others": ", ".join(
            f"{name_of(other)} = {number(float(middle[model.index(other.name)]))} {unit_symbol(other.unit)}".strip()
            for other in others
        ),
        "words": _words(p, at_median, float(middle[q]), good, T),
    }


def _size(model: SignalModel, kappa: NDArray[Any]) -> tuple[str, float]:
    """Return the name and the value of the quantity that is compared with σ: the amplitude, or else the largest
    signal.
    """
    for amplitude in model.amplitudes:
        return name_of(amplitude), float(kappa[model.index(amplitude.name)])
    return "signal", float(np.abs(model.signal(kappa)).max())


def _found(
    maps: ParameterMaps, counts: NDArray[np.bool_], T: NDArray[Any], span: tuple[float, float], n: int = 14
) -> list[tuple[float, float]]:
    """Return (T, median SD in %) of the data in bins of T that have enough voxels."""
    deviation = maps.sd_kappa
    if deviation is None:
        return []
    relative = 100 * deviation[maps.model.index(maps.model.time.name)][counts] / T
    edges = np.geomspace(*span, n + 1)
    out = []
    bins = np.digitize(T, edges)
    for i, (a, b) in enumerate(pairwise(edges), start=1):
        values = relative[(bins == i) & np.isfinite(relative)]
        if values.size >= 20:
            out.append((float(np.sqrt(a * b)), float(np.median(values))))
    return out


def _words(p: Parameter, percent: float, T: float, good: NDArray[Any], asked: NDArray[Any]) -> str:
    name = name_of(p)
    if not np.isfinite(percent):
        return f"This protocol does not determine {name} at its median."
    text = (
        f"With this protocol and noise level, no unbiased estimate from a single voxel can have a standard deviation "
        f"below {number(percent, 2)} % at the median {name} of {number(T)} {unit_symbol(p.unit)}"
    )
    if not good.size:
        return text + "; the bound exceeds 5 % over the whole range of the chart."
    low, high = float(good.min()), float(good.max())
    if good.size == asked.size:
        return text + "; it is below 5 % over the whole range of the chart."
    return text + f"; it is below 5 % from {number(low, 2)} to {number(high, 2)} {unit_symbol(p.unit)}.".replace(
        " .", "."
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis, at least four if the range contains as many."""
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        found = [
            float(f"{step * power:.6g}")
            for power in powers
            for step in steps
            if low * 0.999 <= step * power <= high * 1.001
        ]
        if len(found) >= 4:
            break
    return found
