"""One run as one self-contained HTML page: no network, no script; light, dark and on paper."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from rimap import __version__, colours
from rimap.report.images import View, png, view_of
from rimap.report.statistics import Statistics, counted, describe, region, statistics_of
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import Parameter

#: Colour of each status in the status map, and in its legend. Distinct also for the colour-blind.
STATUS_COLOURS: Mapping[Status, str] = {
    Status.OK: "#5b7f95",
    Status.AT_BOUND: "#e69f00",
    Status.NO_SIGNAL: "#2b2b2b",
    Status.NOT_FINITE: "#cc79a7",
    Status.NOT_CONVERGED: "#d55e00",
    Status.OUTSIDE_TRAINING: "#f0e442",
    Status.OUTSIDE_MASK: "#000000",
}

_BOOKS = (
    "Sabidussi ER, Klein S, Caan MWA, Bazrafkan S, den Dekker AJ, Sijbers J, Niessen WJ, Poot DHJ. Recurrent "
    "inference machines as inverse problem solvers for MR relaxometry. Medical Image Analysis 74:102220, 2021. "
    "doi:10.1016/j.media.2021.102220",
    "Colours: Fuderer M, et al. Color-map recommendation for MR relaxometry maps. Magnetic Resonance in Medicine "
    "93:490-495, 2025. doi:10.1002/mrm.30290",
)


@dataclass(frozen=True)
class Run:
    """What the page says of a run beside its series and its maps.

    Parameters
    ----------
    title
        The name of the series.
    estimator_title, choice
        The estimator in words, and why it was chosen.
    inputs, outputs
        Names of files.
    command
        The command line that made it.
    seconds
        Time for mapping.
    made
        Date and time, as it shall be shown.
    warnings
        In plain words, with those of the maps.
    rois
        Rows of `roi_table`.
    """

    title: str
    estimator_title: str = ""
    choice: str = ""
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    command: str = ""
    seconds: float = 0.0
    made: str = ""
    warnings: Sequence[str] = ()
    rois: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def page(series: WeightedSeries, maps: ParameterMaps, run: Run) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    series
        Images (N, *X); X may have one to three axes.
    maps
        What was estimated from them.
    run
        What else to say.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rimap.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["g"] = number
    return environment.get_template("report.html").render(**_content(series, maps, run))


def number(x: float, digits: int = 3) -> str:
    """Return a number for people: 3 significant digits, all digits of the whole part.

    >>> [number(x) for x in (1234.5, 64.23, 0.01234, 1.5e-7, float("nan"))]
    ['1,234', '64.2', '0.0123', '1.5e-07', '–']
    """
    if not np.isfinite(x):
        return "–"
    if x == 0:
        return "0"
    if abs(x) >= 10 ** (digits - 1):
        return f"{x:,.0f}"
    if abs(x) < 1e-4:
        return f"{x:.{digits}g}"
    return f"{x:.{digits - 1 - int(np.floor(np.log10(abs(x))))}f}"


def ms(t: float) -> str:
    """Return a time in ms as it was given, without digits that say nothing."""
    return f"{t:.6g}"


def _content(series: WeightedSeries, maps: ParameterMaps, run: Run) -> dict[str, Any]:
    inside, where = region(series)
    finite = np.isfinite(maps.kappa).all(0) & inside
    shown = finite if finite.any() else inside
    view, small = view_of(series, shown), view_of(series, shown, limit=6)
    model, stats, figured = maps.model, statistics_of(maps, inside), inside & counted(maps)
    times = [p for p in model.parameters if p.unit == "ms"]
    windows = {p.name: _relaxation_window(maps[p.name][figured], p) for p in times}
    return {
        "run": run,
        "quantity": " and ".join(p.name for p in times),
        "main": [
            _panel(
                p.name,
                p.unit,
                np.where(inside, maps[p.name], np.nan),
                view,
                colours.of_parameter(p.name),
                *windows[p.name],
                log=True,
            )
            for p in times
        ],
        "panels": _other_panels(maps, small, inside, figured),
        "view": view,
        "histograms": [_histogram(maps[p.name][figured], p, windows[p.name]) for p in times],
        "statuses": _statuses(maps),
        "status_panel": _status_panel(maps, view),
        "stats": [
            {"parameter": p, "s": stats[p.name], "sd": describe(maps.sd[p.name][figured]).median}
            for p in model.parameters
        ],
        "tiles": _tiles(stats, inside, where, maps, run),
        "warnings": list(dict.fromkeys((*run.warnings, *maps.warnings))),
        "masked": series.mask is not None,
        "background": series.mask is None and not inside.all(),
        "where": where,
        "images": _weighted(series, view),
        "acquisition": _acquisition(series),
        "settings": _settings(maps, run),
        "versions": _versions(),
        "methods": methods_text(series, maps, run),
        "books": _BOOKS,
        "version": __version__,
        "rois": run.rois,
        "has_affine": series.affine is not None,
    }


def _panel(
    title: str, unit: str, values: NDArray[Any], view: View, name: str, low: float, high: float, *, log: bool = False
) -> dict[str, Any]:
    table = colours.palette(name)
    bar = colours.indices(np.linspace(high, low, 256)[:, None], low, high, logarithmic=log)
    marks = colours.ticks(low, high)
    return {
        "title": title,
        "unit": unit,
        "pictures": [
            {
                "k": k,
                "src": png(colours.indices(view.picture(values, k), low, high, logarithmic=log), table),
                "alt": f"{title}, slice {k}",
            }
            for k in view.slices
        ],
        "bar": png(bar, table),
        "ticks": [{"at": 100 * (high - t) / (high - low), "label": f"{t:,.10g}"} for t in marks],
    }


def _relaxation_window(values: NDArray[Any], p: Parameter) -> tuple[float, float]:
    low, high = colours.window(values)
    if (most := 2.5 * describe(values).q75) < high:  # contrast for tissue rather than for fluid
        low, high = colours.window(np.array([most]))
    return low, min(high, p.bounds[1])


def _other_panels(
    maps: ParameterMaps, view: View, inside: NDArray[np.bool_], figured: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    panels = []

    def add(title: str, unit: str, values: NDArray[Any], name: str, low: float | None, upper: float) -> None:
        window = colours.window(values[figured], low=low, upper=upper)
        panels.append(_panel(title, unit, np.where(inside, values, np.nan), view, name, *window))

    for p in maps.model.parameters:
        values = maps[p.name]
        if p.unit == "ms":
            sd = np.where(values > 0, 100 * maps.sd[p.name] / np.where(values > 0, values, 1), np.nan)
            if np.isfinite(sd).any():
                add(f"Standard deviation of {p.name}", f"% of {p.name}", sd, "lajolla", 0.0, 0.95)
        elif p.unit == "1":
            add(p.name, "", values, "batlow", None, 0.98)
        else:
            add(p.name, p.unit, values, "grey", 0.0, 0.99)
    if maps.residual is not None:
        residual = np.where(np.isfinite(maps.kappa).all(0), maps.residual, np.nan)
        add("Residual (root mean square)", "a.u.", residual, "lajolla", 0.0, 0.98)
    return panels


def _status_panel(maps: ParameterMaps, view: View) -> list[dict[str, Any]]:
    table = np.zeros((256, 3), np.uint8)
    for status, colour in STATUS_COLOURS.items():
        table[status] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return [{"k": k, "src": png(view.picture(maps.status, k), table), "alt": f"status, slice {k}"} for k in view.slices]


def _weighted(series: WeightedSeries, view: View, limit: int = 12) -> list[dict[str, Any]]:
    k = view.slices[len(view.slices) // 2]
    N = series.model.n_images
    chosen = np.unique(np.linspace(0, N - 1, min(N, limit)).round().astype(int))
    pictures = [view.picture(series.images[n], k) for n in chosen]
    values = np.stack(pictures)
    low, high = colours.window(values, low=None if (values[np.isfinite(values)] < 0).any() else 0.0, upper=0.995)
    return [
        {
            "time": ms(series.model.times[n]),
            "src": png(colours.indices(x, low, high), colours.palette("grey")),
        }
        for n, x in zip(chosen, pictures)
    ]


def _histogram(values: NDArray[Any], p: Parameter, window: tuple[float, float], bins: int = 72) -> dict[str, Any]:
    """Bars of the histogram in an SVG of 720 × 200, in the colours of the map."""
    low, high = colours.window(values)
    high = min(high, p.bounds[1])
    counts, edges = np.histogram(values[np.isfinite(values)], bins=bins, range=(low, high))
    table = colours.palette(colours.of_parameter(p.name))
    centres = (edges[1:] + edges[:-1]) / 2
    entries = colours.indices(centres, *window, logarithmic=True)
    top, s = max(int(counts.max()), 1), describe(values)
    above = int((values > high).sum())

    def at(v: float) -> float:
        return float(np.clip(720 * (v - low) / (high - low), 0, 720))

    return {
        "name": p.name,
        "bars": [
            {"x": 720 * i / bins, "h": 190 * c / top, "fill": "#" + bytes(table[e]).hex()}
            for i, (c, e) in enumerate(zip(counts, entries))
            if c
        ],
        "width": 720 / bins,
        "median": at(s.median) if s.n else None,
        "q25": at(s.q25) if s.n else 0.0,
        "q75": at(s.q75) if s.n else 0.0,
        "ticks": [{"at": at(t), "label": f"{t:,.10g}"} for t in colours.ticks(low, high, 8)],
        "above": above,
        "high": high,
        "n": s.n,
    }


def _statuses(maps: ParameterMaps) -> list[dict[str, Any]]:
    count = maps.count()
    inside = sum(n for s, n in count.items() if s is not Status.OUTSIDE_MASK)
    return [
        {
            "name": s.name.lower().replace("_", " "),
            "code": int(s),
            "n": n,
            "percent": None if s is Status.OUTSIDE_MASK or not inside else 100 * n / inside,
            "meaning": s.meaning,
            "colour": STATUS_COLOURS[s],
        }
        for s, n in count.items()
    ]


def _tiles(
    stats: Mapping[str, Statistics], inside: NDArray[np.bool_], where: str, maps: ParameterMaps, run: Run
) -> list[dict[str, str]]:
    tiles = []
    for p in (p for p in maps.model.parameters if p.unit == "ms"):
        s = stats[p.name]
        tiles.append(
            {
                "label": f"median {p.name} {where}",
                "value": f"{number(s.median)} {p.unit}",
                "note": f"IQR {number(s.q25)}–{number(s.q75)} {p.unit}",
            }
        )
    n, ok = int(inside.sum()), int(((maps.status == Status.OK) & inside).sum())
    tiles.append(
        {"label": f"estimated {where}", "value": f"{100 * ok / max(n, 1):.1f} %", "note": f"{ok:,} of {n:,} voxels"}
    )
    if (sigma := sigma_number(maps)) is not None:
        A = stats.get("A")
        note = f"from {maps.sigma_source}" if maps.sigma_source != "given" else "given"
        snr = f", median A/σ {number(A.median / sigma, 2)}" if A is not None and A.n else ""
        tiles.append({"label": "noise σ", "value": number(sigma), "note": note + snr})
    tiles.append({"label": "estimator", "value": maps.estimator.upper(), "note": f"{number(run.seconds, 2)} s"})
    return tiles


def sigma_number(maps: ParameterMaps) -> float | None:
    """Return σ, the median of it where it is a map, `None` where there is none."""
    if maps.noise is None or maps.noise.sigma is None:
        return None
    return float(np.nanmedian(maps.noise.sigma))


def _acquisition(series: WeightedSeries) -> list[tuple[str, str]]:
    model = series.model
    rows = [
        ("Sequence", f"{model.title} ({model.bids_suffix})"),
        ("Images", f"{model.n_images}, of {' × '.join(map(str, series.shape))} voxels"),
        ("Times, ms", ", ".join(ms(t) for t in model.times)),
    ]
    if hasattr(model, "tr"):
        tr = model.tr
        known = None if tr is None else sorted(set(np.atleast_1d(tr).tolist()))
        rows.append(("TR, ms", "not known (taken as long)" if known is None else ", ".join(ms(t) for t in known)))
    if hasattr(model, "signed"):
        rows.append(("Data", "signed (real part)" if model.signed else "magnitude"))
    if series.affine is not None:
        rows.append(("Voxel, mm", " × ".join(number(v) for v in series.voxel_size)))
    return rows


def _settings(maps: ParameterMaps, run: Run) -> list[tuple[str, str]]:
    sigma = sigma_number(maps)
    noise = maps.noise.name if maps.noise is not None else "–"
    rows = [("Estimator", " – ".join(x for x in (maps.estimator, run.estimator_title) if x)), ("Chosen", run.choice)]
    rows.append(("Model", (type(maps.model).__doc__ or "").strip().splitlines()[0].replace("`", "")))
    rows.append(("Noise", noise + ("" if sigma is None else f", σ = {number(sigma)} ({maps.sigma_source})")))
    rows += [(k, _plain(v)) for k, v in _options(maps).items()]
    rows.append(("Bounds", "; ".join(f"{p.name} {_bounds(p)}" for p in maps.model.parameters)))
    return [(k, v) for k, v in rows if v]


def _options(maps: ParameterMaps) -> dict[str, Any]:
    """Return the settings that bear on the values."""
    return {str(k): v for k, v in maps.settings.items() if v is not None and k != "threads"}


def _bounds(p: Parameter) -> str:
    low, high = p.bounds
    unit = "" if p.unit == "1" else f" {p.unit}"
    return f"≥ {low:g}{unit}" if np.isinf(high) else f"{low:g}–{high:,g}{unit}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    return str(value)


def _versions() -> list[tuple[str, str]]:
    rows = [("rimap", __version__), ("Python", platform.python_version())]
    for name in ("numpy", "scipy", "numba", "nibabel", "onnxruntime"):
        try:
            rows.append((name, version_of(name)))
        except PackageNotFoundError:
            continue
    return rows


def methods_text(series: WeightedSeries, maps: ParameterMaps, run: Run) -> str:
    """Return the sentences to paste into a methods section."""
    model, sigma = maps.model, sigma_number(maps)
    what = " and ".join(p.name for p in model.parameters if p.unit == "ms")
    times = ", ".join(ms(t) for t in model.times)
    kind = {"InversionTime": "inversion times", "EchoTime": "echo times"}.get(model.bids_time, "times")
    text = f"{what} maps were estimated with rimap {__version__} ({run.estimator_title or maps.estimator}"
    options = ", ".join(f"{k} = {_plain(v)}" for k, v in _options(maps).items())
    text += f"; {options})" if options else ")"
    text += f" from {model.n_images} images at {kind} of {times} ms"
    tr = getattr(model, "tr", None)
    if tr is not None:
        text += f" and TR {', '.join(ms(t) for t in sorted(set(np.atleast_1d(tr).tolist())))} ms"
    if maps.noise is not None:
        text += f", with a {maps.noise.name.capitalize()} likelihood"
        if sigma is not None:
            text += (
                f" (σ = {number(sigma)}, {'given' if maps.sigma_source == 'given' else 'from ' + maps.sigma_source})"
            )
    return text + "."
