"""The charts of the page, as numbers for its template: a histogram, and what precision the protocol allows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.likelihood import Noise, cramer_rao_sd, fisher_information
from rimap.report.numbers import number
from rimap.report.statistics import describe
from rimap.series import ParameterMaps
from rimap.signals.base import Parameter, SignalModel

#: Size of the area of a chart, in the units of its SVG.
WIDTH, HEIGHT = 640, 220


def histogram(values: NDArray[Any], p: Parameter, window: tuple[float, float], bins: int = 64) -> dict[str, Any]:
    """Return the bars of a histogram in the colours of the map, whose window is given."""
    low, high = colours.window(values)
    high = min(high, p.bounds[1], 2 * window[1])  # a long tail would squeeze the rest
    counts, edges = np.histogram(values[np.isfinite(values)], bins=bins, range=(low, high))
    table = colours.palette(colours.of_parameter(p.name))
    entries = colours.indices((edges[1:] + edges[:-1]) / 2, *window, logarithmic=True)
    top, s = max(int(counts.max()), 1), describe(values)

    def at(v: float) -> float:
        return float(np.clip(WIDTH * (v - low) / (high - low), 0, WIDTH))

    return {
        "name": p.name,
        "bars": [
            {"x": WIDTH * i / bins, "h": 0.95 * HEIGHT * c / top, "fill": "#" + bytes(table[e]).hex()}
            for i, (c, e) in enumerate(zip(counts, entries))
            if c
        ],
        "width": WIDTH / bins,
        "median": at(s.median) if s.n else None,
        "q25": at(s.q25) if s.n else 0.0,
        "q75": at(s.q75) if s.n else 0.0,
        "ticks": [{"at": at(t), "label": f"{t:,.10g}"} for t in colours.ticks(low, high, 8)],
        "above": int((values > high).sum()),
        "low": low,
        "high": high,
        "n": s.n,
    }


def precision(maps: ParameterMaps, counts: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Return the Cramér-Rao bound of T over T, for these times at the median A and σ of the data.

    `None` where the noise, A or T is not known.

    Parameters
    ----------
    counts
        (*X), the voxels that the data's own figures are taken from.
    """
    noise, model = maps.noise, maps.model
    if noise is None or noise.sigma is None or not counts.any():
        return None
    sigma = float(np.nanmedian(np.broadcast_to(noise.sigma, counts.shape)[counts]))
    noise, middle = type(noise)(sigma), np.nanmedian(maps.kappa[:, counts], axis=1)
    if not (np.isfinite(middle).all() and middle[-1] > 0 and 1e-6 < middle[0] / sigma < 1e9):
        return None
    p, T_data = model.parameters[-1], maps.kappa[-1][counts]
    low, q25, q75, high = (float(q) for q in np.nanquantile(T_data, [0.02, 0.25, 0.75, 0.98]))
    span = (max(low / 2, p.bounds[0]), min(max(high * 1.6, 2 * low), p.bounds[1]))
    T = np.geomspace(*span, 161)
    kappa = np.broadcast_to(middle[:, None], (len(middle), T.size)).copy()
    kappa[-1] = T
    bounds = [(cramer_rao_sd(model, noise, kappa)[-1] / T * 100, "" if len(middle) < 3 else "every parameter unknown")]
    smooth = [q for q, each in enumerate(model.parameters) if each.smooth]
    if smooth:
        names = " and ".join(model.parameters[q].name for q in smooth)
        bounds.append((_known(model, noise, kappa, smooth) / T * 100, f"{names} known"))
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
    at_median = float(np.interp(np.log(middle[-1]), np.log(T), free))
    good = T[free <= 5.0]
    return {
        "name": p.name,
        "curves": curves,
        "x_range": span,
        "y_range": (y_low, y_high),
        "dots": [{"x": float(x(t)), "y": float(y(s))} for t, s in _found(maps, counts, T_data, span) if s > y_low],
        "band": (float(x(q25)), float(x(q75))),
        "median": float(x(middle[-1])),
        "x_ticks": [{"at": float(x(t)), "label": f"{t:,.10g}"} for t in _log_ticks(*span)],
        "y_ticks": [{"at": float(y(t)), "label": f"{t:g} %"} for t in _log_ticks(y_low, y_high)],
        "times": [float(x(t)) for t in model.times if span[0] <= t <= span[1]],
        "snr": number(float(middle[0]) / sigma, 2),
        "others": ", ".join(f"{model.parameters[q].name} = {number(float(middle[q]))}" for q in smooth),
        "words": _words(p.name, at_median, float(middle[-1]), good, T),
    }


def _known(model: SignalModel, noise: Noise, kappa: NDArray[Any], fixed: list[int]) -> NDArray[np.float64]:
    """Return the bound of the last parameter where others are known: their partial derivatives count for nothing."""
    F = np.asarray(fisher_information(model, noise, kappa), dtype=float)
    keep = [q for q in range(len(kappa)) if q not in fixed]
    F = np.moveaxis(F[np.ix_(keep, keep)], (0, 1), (-2, -1))
    with np.errstate(all="ignore"):
        try:
            variance = np.linalg.inv(F)[..., -1, -1]
        except np.linalg.LinAlgError:
            return np.full(kappa.shape[1], np.nan)
        return np.asarray(np.sqrt(variance))


def _found(
    maps: ParameterMaps, counts: NDArray[np.bool_], T: NDArray[Any], span: tuple[float, float], n: int = 14
) -> list[tuple[float, float]]:
    """Return (T, median SD in %) of the data in bins of T that have enough voxels."""
    sd = maps.sd_kappa
    if sd is None:
        return []
    relative = 100 * sd[-1][counts] / T
    edges = np.geomspace(*span, n + 1)
    out = []
    bins = np.digitize(T, edges)
    for i, (a, b) in enumerate(pairwise(edges), start=1):
        values = relative[(bins == i) & np.isfinite(relative)]
        if values.size >= 20:
            out.append((float(np.sqrt(a * b)), float(np.median(values))))
    return out


def _words(name: str, percent: float, T: float, good: NDArray[Any], asked: NDArray[Any]) -> str:
    if not np.isfinite(percent):
        return f"These times do not determine {name} at its median."
    text = (
        f"At these times and this noise, no unbiased estimate from one voxel alone can have a smaller standard deviation "
        f"than {number(percent, 2)} % at the median {name} of {number(T)} ms"
    )
    if not good.size:
        return text + "; it is above 5 % everywhere."
    low, high = float(good.min()), float(good.max())
    if good.size == asked.size:
        return text + "; it is below 5 % over the whole range of the chart."
    return text + f"; it is below 5 % from {number(low, 2)} to {number(high, 2)} ms."


def _log_ticks(low: float, high: float) -> list[float]:
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        found = [float(f"{s * p:.6g}") for p in powers for s in steps if low * 0.999 <= s * p <= high * 1.001]
        if len(found) >= 4:
            break
    return found
