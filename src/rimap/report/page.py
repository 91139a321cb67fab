"""One run as one self-contained HTML page: no network; a viewer on screen, pictures on paper; light and dark."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import __version__, colours
from rimap.report.charts import histogram, precision
from rimap.report.embedding import Embedded, embed, window_of
from rimap.report.methods import formula_of, methods, options_of, title_of
from rimap.report.numbers import ms, number, sd_origin, sigma_number, sigma_origin
from rimap.report.panels import STATUS_COLOURS, palettes, panels_of, status_pictures
from rimap.report.statistics import Statistics, counted, describe, foreground, region, statistics_of
from rimap.report.templating import render, source
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import Parameter, bids_time
from rimap.slices import View, edges_mm, png, view_of, volume

#: A page stays below this many characters: 10 MB with some to spare.
LIMIT = 9_600_000
#: The block of the page that holds the `Run`, for `rimap report`.
RUN_BLOCK = '<script type="application/json" id="run">'


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
        Time for mapping; 0 where it is not known.
    made
        Date and time, as it shall be shown.
    warnings
        In plain words, with those of the maps.
    rois
        Rows of `roi_table`.
    versions
        Of the software that made the maps; of what is installed if left out.
    network_start
        Where a network begins, `methods.start_of`: maps know its name alone.
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
    versions: Mapping[str, str] = field(default_factory=dict)
    network_start: str = ""


def page(series: WeightedSeries | None, maps: ParameterMaps, run: Run) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    series
        Images (N, *X); X may have one to three axes. `None` where they are no longer at hand: then there are no
        measured points.
    maps
        What was estimated from them.
    run
        What else to say.
    """
    script = source("viewer.js")
    run = replace(run, estimator_title=title_of(maps, run.estimator_title))
    return render(
        "report.html",
        **_content(series, maps, run),
        css=source("base.css", "report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def _content(series: WeightedSeries | None, maps: ParameterMaps, run: Run) -> dict[str, Any]:
    if series is None:
        inside, where = _region_of_maps(maps)
        affine = maps.affine
    else:
        inside, where = region(series)
        affine = series.affine
    finite = np.isfinite(maps.kappa).all(0) & inside
    shown = finite if finite.any() else inside
    view = view_of(affine, shown)
    model, stats, figured = maps.model, statistics_of(maps, inside), inside & counted(maps)
    times = [p for p in model.parameters if p.unit == "ms"]
    panels = panels_of(maps, inside, figured)
    still = [p.pictures(view, view.slices if i < len(times) else (view.middle,)) for i, p in enumerate(panels)]
    images = [] if series is None else _weighted(series, view)
    used = sum(len(picture["src"]) for each in (*still, {"pictures": images}) for picture in each["pictures"])
    embedded = embed(maps, series, inside, affine, LIMIT - used - 150_000)
    masked = bool((maps.status == Status.OUTSIDE_MASK).any()) if series is None else series.mask is not None
    text, books = methods(maps, run.estimator_title, run.versions.get("rimap", __version__), run.network_start)
    return {
        "run": run,
        "run_json": _json({k: v for k, v in asdict(run).items() if k not in ("rois", "warnings", "versions")}),
        "quantity": " and ".join(p.name for p in times),
        "main": still[: len(times)],
        "panels": still[len(times) :],
        "viewer_json": _json(_viewer(maps, embedded, panels, view, figured, masked)),
        "blocks": embedded.blocks,
        "notes": embedded.notes if series is not None else [*embedded.notes, _NO_IMAGES],
        "n_slices": int(inside.shape[view.plane.axes[2]]) if inside.ndim == 3 else 1,
        "view": view,
        "histograms": [histogram(maps[p.name][figured], p, panels[i].window) for i, p in enumerate(times)],
        "precision": precision(maps, figured),
        "statuses": _statuses(maps.status if masked else maps.status[inside]),
        "n_background": 0 if masked else int((~inside).sum()),
        "status_pictures": status_pictures(np.where(inside, maps.status, np.uint8(255)), view, (view.middle,)),
        "stats": [
            {"parameter": p, "s": stats[p.name], "sd": describe(maps.sd[p.name][figured]).median}
            for p in model.parameters
        ],
        "tiles": _tiles(stats, inside, where, maps, run),
        "warnings": list(dict.fromkeys((*run.warnings, *maps.warnings))),
        "background": not masked and not inside.all(),
        "where": where,
        "images": images,
        "acquisition": _acquisition(maps, affine),
        "sd_source": sd_origin(maps),
        "settings": _settings(maps, run),
        "versions": list(run.versions.items()) or _versions(),
        "methods": text,
        "books": books,
        "version": __version__,
        "rois": run.rois,
        "has_affine": affine is not None,
        "files": [("Read", _by_folder(run.inputs)), ("Written", _by_folder(run.outputs))],
    }


_NO_IMAGES = "The images that were mapped are not at hand, so the page shows the fitted curves without measured points."


def _json(data: Any) -> str:
    """Return JSON that can stand in a script element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _region_of_maps(maps: ParameterMaps) -> tuple[NDArray[np.bool_], str]:
    """Return over which voxels (*X) figures are given where there are no images: the mask, else where A is large."""
    selected = maps.status != Status.OUTSIDE_MASK
    if not selected.all():
        return np.asarray(selected), "in the mask"
    bright = foreground(np.nan_to_num(maps.kappa[:1]))
    return bright, "where there is signal" if not bright.all() else "of all voxels"


def _viewer(
    maps: ParameterMaps,
    embedded: Embedded,
    panels: Sequence[Any],
    view: View,
    figured: NDArray[np.bool_],
    masked: bool,
) -> dict[str, Any]:
    """Return what the viewer's script reads."""
    model = maps.model
    sigma = sigma_number(maps)
    return embedded.about | {
        "panels": [p.about() for p in panels],
        "palettes": palettes(panels),
        "parameters": [{"name": p.name, "unit": "" if p.unit == "1" else p.unit} for p in model.parameters],
        "statuses": {
            str(int(s)): {"name": _name(s), "meaning": s.meaning, "colour": STATUS_COLOURS[s]} for s in Status
        },
        "times": model.times.tolist(),
        "axis": {"InversionTime": "inversion time", "EchoTime": "echo time"}.get(bids_time(model), "time"),
        "sigma": sigma if sigma is not None and np.isfinite(sigma) else None,
        "start": _start(maps, view, figured, embedded.about["origin"], embedded.about["stride"]),
        "outside": "outside the mask" if masked else "background, left out of this page",
    }


def _start(
    maps: ParameterMaps, view: View, figured: NDArray[np.bool_], origin: Sequence[int], stride: Sequence[int]
) -> list[int]:
    """Return the voxel that is shown first: in the middle slice, of a typical T, not far from the centre.

    Of those that the page holds: each `stride` from `origin`.
    """
    T, through = volume(maps.kappa[-1]), view.plane.axes[2]
    held = np.zeros(T.shape, bool)
    held[tuple(slice(o, None, s) for o, s in zip(origin, stride))] = True
    good = volume(figured & (maps.status == Status.OK)) & held
    middle = origin[through] + round((view.middle - origin[through]) / stride[through]) * stride[through]
    here = good & (np.indices(T.shape, sparse=True)[through] == middle)
    good = here if here.any() else good
    if not good.any():
        return [middle if a == through else n // 2 for a, n in enumerate(T.shape)]
    where = np.argwhere(good)
    values = T[good]
    typical = np.abs(np.log(values / np.median(values)))
    near = np.linalg.norm((where - where.mean(0)) / np.maximum(np.ptp(where, axis=0), 1), axis=1)
    return [int(i) for i in where[int(np.argmin(typical + near))]]


def _weighted(series: WeightedSeries, view: View, limit: int = 12) -> list[dict[str, Any]]:
    N = series.model.n_images
    chosen = np.unique(np.linspace(0, N - 1, min(N, limit)).round().astype(int))
    pictures = [view.picture(series.images[n], view.middle) for n in chosen]
    window = window_of(series)
    return [
        {
            "time": ms(series.model.times[n]),
            "src": png(colours.indices(x, window["low"], window["high"]), colours.palette("grey")),
        }
        for n, x in zip(chosen, pictures)
    ]


def _name(status: Status) -> str:
    return status.name.lower().replace("_", " ")


def _statuses(status: NDArray[np.uint8]) -> list[dict[str, Any]]:
    values, numbers = np.unique(status, return_counts=True)
    count = {Status(int(v)): int(n) for v, n in zip(values, numbers)}
    inside = sum(n for s, n in count.items() if s is not Status.OUTSIDE_MASK)
    return [
        {
            "name": _name(s),
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
        snr = f", median A/σ {number(A.median / sigma, 2)}" if A is not None and A.n else ""
        tiles.append({"label": "noise σ", "value": number(sigma), "note": sigma_origin(maps) + snr})
    took = f"{number(run.seconds, 2)} s" if run.seconds > 0 else run.estimator_title
    tiles.append({"label": "estimator", "value": maps.estimator.upper(), "note": took})
    return tiles


def _acquisition(maps: ParameterMaps, affine: NDArray[Any] | None) -> list[tuple[str, str]]:
    model, shape = maps.model, maps.status.shape
    rows = [
        ("Sequence", f"{model.title} ({model.bids_suffix})"),
        ("Images", f"{model.n_images}, of {' × '.join(map(str, shape))} voxels"),
        ("Times, ms", ", ".join(ms(t) for t in model.times)),
    ]
    if hasattr(model, "tr"):
        tr = model.tr
        known = None if tr is None else sorted(set(np.atleast_1d(tr).tolist()))
        rows.append(("TR, ms", "not known (taken as long)" if known is None else ", ".join(ms(t) for t in known)))
    if hasattr(model, "signed"):
        rows.append(("Data", "signed (real part)" if model.signed else "magnitude"))
    if affine is not None:
        rows.append(("Voxel, mm", " × ".join(number(v) for v in edges_mm(affine)[: max(len(shape), 2)])))
    return rows


def _settings(maps: ParameterMaps, run: Run) -> list[tuple[str, str]]:
    sigma = sigma_number(maps)
    noise = maps.noise.name if maps.noise is not None else "–"
    rows = [("Estimator", " – ".join(x for x in (maps.estimator, run.estimator_title) if x)), ("Chosen", run.choice)]
    rows.append(
        ("Model", formula_of(maps) or (type(maps.model).__doc__ or "–").strip().splitlines()[0].replace("`", ""))
    )
    rows.append(("Noise", noise + ("" if sigma is None else f", σ = {number(sigma)} ({sigma_origin(maps)})")))
    rows += list(options_of(maps).items())
    rows.append(("Bounds", "; ".join(f"{p.name} {_bounds(p)}" for p in maps.model.parameters)))
    if run.made:
        rows.append(("Made", run.made))
    if run.seconds > 0:
        rows.append(("Mapping took", f"{number(run.seconds)} s"))
    return [(k, v) for k, v in rows if v]


def _bounds(p: Parameter) -> str:
    low, high = p.bounds
    unit = "" if p.unit == "1" else f" {p.unit}"
    return f"≥ {low:g}{unit}" if np.isinf(high) else f"{low:g}–{high:,g}{unit}"


def _by_folder(files: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the names of files by their folder, in the order that they come in."""
    found: dict[str, list[str]] = {}
    for f in files:
        folder, slash, name = f.rpartition("/")
        found.setdefault(folder if slash else "", []).append(name)
    return list(found.items())


def _versions() -> list[tuple[str, str]]:
    rows = [("rimap", __version__), ("Python", platform.python_version())]
    for name in ("numpy", "scipy", "numba", "nibabel", "onnxruntime"):
        try:
            rows.append((name, version_of(name)))
        except PackageNotFoundError:
            continue
    return rows
