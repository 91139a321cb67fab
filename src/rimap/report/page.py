"""One run as a self-contained HTML page that needs no network: a viewer on screen, pictures on paper, light and dark
mode.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import __version__, colours
from rimap.advice import notes_of, warnings_of
from rimap.foreground import Region
from rimap.map_display import is_relaxation, name_of, quantities_of, values_of, window_of
from rimap.report.charts import histogram, precision
from rimap.report.embedding import Embedded, Shown, embed, image_window
from rimap.report.formula import formula_of
from rimap.report.methods import methods, options_of, options_of_model, title_of
from rimap.report.number_formats import correlation_in_words, number, sd_origin, sigma_number, sigma_origin
from rimap.report.panels import STATUS_COLOURS, palettes, panels_of, status_pictures
from rimap.report.statistics import (
    COUNTED,
    Statistics,
    counted,
    describe,
    known_parameters,
    statistics_of,
)
from rimap.report.templating import render, source
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import Parameter, SignalModel
from rimap.signals.settings import unit_symbol, with_unit
from rimap.slices import View, edges_mm, png, view_of, volume

#: Largest size of a page in characters: 10 MB with a margin.
LIMIT = 9_600_000
#: The block of the page that holds the `Run`, for `rimap report`.
RUN_BLOCK = '<script type="application/json" id="run">'
#: Fields that this block leaves out, because they are in the sidecars, the tables and the images.
_NOT_KEPT = ("rois", "warnings", "versions", "edges", "described")


@dataclass(frozen=True)
class Run:
    """The contents of the page apart from the series and its maps.

    Parameters
    ----------
    title
        The name of the series.
    estimator_title, choice
        The estimator in words, and why it was chosen.
    inputs, outputs
        Names of files.
    command
        The command line of the run.
    seconds
        Time for mapping; 0 if it is unknown.
    made
        Date and time, as the page shows it.
    warnings
        Warnings and notes (`rimap.advice`); those of the maps are added.
    rois
        Rows of `roi_table`.
    versions
        Versions of the software that made the maps; by default of what is installed.
    network_start
        Starting point of a network, see `methods.start_of`: maps contain only the name of the network.
    described
        The voxels that the statistics describe, if they are known; else the mask of the series, or the foreground.
    edges
        Edge lengths of a voxel from the header, mm, for images without an affine.
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
    edges: Sequence[float] = ()
    described: Region | None = None


def page(series: WeightedSeries | None, maps: ParameterMaps, run: Run) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    series
        Images (N, *X); X may have one to three axes. `None` if they are no longer available: the page then has no
        measured points.
    maps
        The maps that were estimated from them.
    run
        The other contents of the page.
    """
    run = replace(run, estimator_title=title_of(maps, run.estimator_title))
    return rendered(_content(series, maps, run))


def rendered(content: Mapping[str, Any]) -> str:
    """Return the page with this content, with its style and its scripts."""
    script = source("band.js", "region.js", "viewer.js")
    return render(
        "report.html",
        **content,
        css=source("base.css", "report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        version=__version__,
    )


def _content(series: WeightedSeries | None, maps: ParameterMaps, run: Run) -> dict[str, Any]:
    described = run.described or (maps if series is None else series).described
    inside, where = described.inside, described.words
    affine = maps.affine if series is None else series.affine
    finite = np.isfinite(maps.kappa).all(0) & inside
    shown = finite if finite.any() else inside
    view = view_of(affine, shown, edges=run.edges)
    model, stats, figured = maps.model, statistics_of(maps, inside), inside & counted(maps)
    main, known = model.main, known_parameters(maps)
    main_values = values_of(main, model, maps)
    panels = panels_of(maps, inside, figured)
    still = [panel.pictures(view, view.slices if i == 0 else (view.middle,)) for i, panel in enumerate(panels)]
    images = [] if series is None else _weighted(series, view)
    used = sum(len(picture["src"]) for each in (*still, {"pictures": images}) for picture in each["pictures"])
    embedded = embed(Shown.of(maps), series, inside, affine, LIMIT - used - 150_000, run.edges)
    masked = bool((maps.status == Status.OUTSIDE_MASK).any()) if series is None else series.mask is not None
    text, books = methods(maps, run.estimator_title, run.versions.get("rimap", __version__), run.network_start)
    return {
        "run": run,
        "run_json": json_for_script(
            {field.name: getattr(run, field.name) for field in fields(run) if field.name not in _NOT_KEPT}
        ),
        "quantity": name_of(main),
        "unit": unit_symbol(main.unit),
        "recommended": is_relaxation(main),
        "main": still[:1],
        "panels": still[1:],
        "viewer_json": json_for_script(_viewer(maps, embedded, panels, view, figured, masked)),
        "blocks": embedded.blocks,
        "notes": embedded.notes if series is not None else [*embedded.notes, _NO_IMAGES],
        "n_slices": int(inside.shape[view.plane.axes[2]]) if inside.ndim == 3 else 1,
        "view": view,
        "histogram": histogram(main_values[figured], main, window_of(main, main_values[figured])),
        "precision": precision(maps, figured),
        "statuses": flag_rows(maps.status if masked else maps.status[inside]),
        "n_background": 0 if masked else int((~inside).sum()),
        "status_pictures": status_pictures(np.where(inside, maps.status, np.uint8(255)), view, (view.middle,)),
        "stats": [
            {
                "name": name_of(q),
                "unit": unit_symbol(q.unit),
                "known": q.name in known,
                "s": stats[q.name],
                "sd": describe(maps.sd[q.name][figured]).median if q.name in maps.sd else float("nan"),
            }
            for q in quantities_of(model)
        ],
        "tiles": _tiles(stats, inside, where, maps, run),
        "warnings": warnings_of((*run.warnings, *maps.warnings)),
        "advice_notes": notes_of((*run.warnings, *maps.warnings)),
        "background": not masked and not inside.all(),
        "where": where,
        "images": images,
        "acquisition": _acquisition(maps, affine),
        "sd_source": sd_origin(maps),
        "settings_title": "Settings",
        "settings": _settings(maps, run),
        "versions": list(run.versions.items()) or _versions(),
        "methods": text,
        "books": books,
        "rois": run.rois,
        "has_affine": affine is not None,
        "files": [("Read", by_folder(run.inputs)), ("Written", by_folder(run.outputs))],
    }


_NO_IMAGES = "The images are not available, so this page shows the fitted curves without measured points."


def json_for_script(data: object) -> str:
    """Return JSON that is safe inside a script element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _viewer(
    maps: ParameterMaps,
    embedded: Embedded,
    panels: Sequence[Any],
    view: View,
    figured: NDArray[np.bool_],
    masked: bool,
) -> dict[str, Any]:
    """Return the data that the script of the viewer reads."""
    model, axis = maps.model, maps.model.axis
    sigma = sigma_number(maps)
    return embedded.about | {
        "panels": [panel.about() for panel in panels],
        "palettes": palettes(panels),
        "maps": [{"key": q.name, "name": name_of(q), "unit": unit_symbol(q.unit)} for q in quantities_of(model)],
        "main": model.main.name,
        "time": model.time.name,
        "free": [parameter.name for parameter in model.parameters if parameter.name not in known_parameters(maps)],
        "counted": [int(s) for s in COUNTED],
        "amplitude": next((amplitude.name for amplitude in model.amplitudes), None),
        "statuses": {
            str(int(s)): {"name": _name(s), "meaning": s.meaning, "colour": STATUS_COLOURS[s]} for s in Status
        },
        "values": model.times.tolist(),
        "labels": image_labels(model),
        "order": np.argsort(model.times, kind="stable").tolist(),
        "axis": {"title": axis.title, "unit": unit_symbol(axis.unit)},
        "sigma": sigma if sigma is not None and np.isfinite(sigma) else None,
        "start": start_voxel(
            values_of(model.main, model, maps), figured & (maps.status == Status.OK), view, embedded.about
        ),
        "outside": "outside the mask" if masked else "background, not on this page",
    }


def image_labels(model: SignalModel) -> list[str]:
    """Return the settings that differ between the images as labels (N), beginning with the axis of the model."""
    shown = []
    for setting in model.settings.values():
        value = getattr(model, setting.name)
        if value is None or setting.per_image is False:
            continue
        if setting.name == model.axis.name or len(set(value)) > 1:
            shown.append([setting.text(v) for v in value])
    return [", ".join(words) for words in zip(*shown)]


def start_voxel(values: NDArray[Any], good: NDArray[np.bool_], view: View, about: Mapping[str, Any]) -> list[int]:
    """Return the voxel that is shown first: in the middle slice, with a typical value of the main map, near the centre.

    It is one of those that the page contains: each `stride` from `origin` of `about`.

    Parameters
    ----------
    values, good
        (*X): the main map, and the voxels to choose from.
    """
    origin, stride = about["origin"], about["stride"]
    T, through = volume(values), view.plane.axes[2]
    contained = np.zeros(T.shape, bool)
    contained[tuple(slice(o, None, s) for o, s in zip(origin, stride))] = True
    with np.errstate(invalid="ignore"):
        good = volume(good) & contained & (T > 0)
    middle = origin[through] + round((view.middle - origin[through]) / stride[through]) * stride[through]
    here = good & (np.indices(T.shape, sparse=True)[through] == middle)
    good = here if here.any() else good
    if not good.any():
        return [middle if a == through else length // 2 for a, length in enumerate(T.shape)]
    where = np.argwhere(good)
    values = T[good]
    typical = np.abs(np.log(values / np.median(values)))
    near = np.linalg.norm((where - where.mean(0)) / np.maximum(np.ptp(where, axis=0), 1), axis=1)
    return [int(i) for i in where[int(np.argmin(typical + near))]]


def _weighted(series: WeightedSeries, view: View, limit: int = 12) -> list[dict[str, Any]]:
    N = series.model.n_images
    order = np.argsort(series.model.times, kind="stable")
    chosen = order[np.unique(np.linspace(0, N - 1, min(N, limit)).round().astype(int))]
    pictures = [view.picture(series.images[n], view.middle) for n in chosen]
    window, labels = image_window(series), image_labels(series.model)
    return [
        {
            "label": labels[n],
            "src": png(colours.indices(picture, window["low"], window["high"]), colours.palette("grey")),
        }
        for n, picture in zip(chosen, pictures)
    ]


def _name(status: Status) -> str:
    return status.name.lower().replace("_", " ")


def flag_rows(status: NDArray[np.uint8]) -> list[dict[str, Any]]:
    values, numbers = np.unique(status, return_counts=True)
    count = {Status(int(value)): int(number) for value, number in zip(values, numbers)}
    inside = sum(value for s, value in count.items() if s is not Status.OUTSIDE_MASK)
    return [
        {
            "name": _name(s),
            "code": int(s),
            "n": value,
            "percent": None if s is Status.OUTSIDE_MASK or not inside else 100 * value / inside,
            "meaning": s.meaning,
            "colour": STATUS_COLOURS[s],
        }
        for s, value in count.items()
    ]


def _tiles(
    stats: Mapping[str, Statistics], inside: NDArray[np.bool_], where: str, maps: ParameterMaps, run: Run
) -> list[dict[str, str]]:
    main = maps.model.main
    s, unit = stats[main.name], unit_symbol(main.unit)
    tiles = [
        {
            "label": f"median {name_of(main)} {where}",
            "value": f"{number(s.median)} {unit}".rstrip(),
            "note": f"IQR {number(s.q25)}–{number(s.q75)} {unit}".rstrip(),
        }
    ]
    n, valid = int(inside.sum()), int(((maps.status == Status.OK) & inside).sum())
    tiles.append(
        {
            "label": f"estimated {where}",
            "value": f"{100 * valid / max(n, 1):.1f} %",
            "note": f"{valid:,} of {n:,} voxels",
        }
    )
    if (sigma := sigma_number(maps)) is not None:
        first = next((amplitude for amplitude in maps.model.amplitudes if stats[amplitude.name].n), None)
        snr = "" if first is None else f", median {name_of(first)}/σ {number(stats[first.name].median / sigma, 2)}"
        tiles.append({"label": "noise σ", "value": number(sigma), "note": sigma_origin(maps) + snr})
    took = f"{number(run.seconds, 2)} s" if run.seconds > 0 else run.estimator_title
    tiles.append({"label": "estimator", "value": maps.estimator.upper(), "note": took})
    return tiles


def _acquisition(maps: ParameterMaps, affine: NDArray[Any] | None) -> list[tuple[str, str]]:
    model, shape = maps.model, maps.status.shape
    rows = [
        ("Sequence", f"{model.title} ({model.bids_suffix})" if model.bids_suffix else model.title),
        ("Images", f"{model.n_images}, of {' × '.join(map(str, shape))} voxels"),
    ]
    for setting in model.settings.values():
        value, unit = getattr(model, setting.name), unit_symbol(setting.unit)
        title = setting.title[:1].upper() + setting.title[1:] + (f", {unit}" if unit else "")
        rows.append((title, "not known" if value is None else _numbers(value)))
    rows += [(name.capitalize(), value) for name, value in options_of_model(model).items()]
    if model.changes_sign:
        rows.append(("Data", "signed (real part)" if model.is_signed else "magnitude"))
    if affine is None:
        rows.append(("Orientation", "orientation unknown: the headers do not define left and right"))
    else:
        rows.append(("Voxel, mm", " × ".join(number(v) for v in edges_mm(affine)[: max(len(shape), 2)])))
    return rows


def _numbers(values: Any) -> str:
    """Return the values of a setting, or a single one if all are equal."""
    found = np.atleast_1d(np.asarray(values, dtype=float)).tolist()
    return ", ".join(f"{v:.6g}" for v in (found[:1] if len(set(found)) == 1 else found))


def _settings(maps: ParameterMaps, run: Run) -> list[tuple[str, str]]:
    sigma = sigma_number(maps)
    noise = maps.noise.name.capitalize() if maps.noise is not None else "–"
    rows = [("Estimator", " – ".join(x for x in (maps.estimator, run.estimator_title) if x)), ("Chosen", run.choice)]
    rows.append(("Model", formula_of(maps.model)))
    rows.append(("Noise", noise + ("" if sigma is None else f", σ = {number(sigma)} ({sigma_origin(maps)})")))
    rows.append(("Noise between voxels", correlation_in_words(maps)))
    rows += list(options_of(maps).items())
    known = known_parameters(maps)
    free = [parameter for parameter in maps.model.parameters if parameter.name not in known]
    rows.append(("Bounds", "; ".join(f"{name_of(p)} {_bounds(p)}" for p in free)))
    rows.append(
        ("Given", "; ".join(_given(maps, parameter) for parameter in maps.model.parameters if parameter.name in known))
    )
    if run.made:
        rows.append(("Made", run.made))
    if run.seconds > 0:
        rows.append(("Mapping took", f"{number(run.seconds)} s"))
    return [(k, v) for k, v in rows if v]


def _bounds(p: Parameter) -> str:
    (low, high), unit = p.bounds, unit_symbol(p.unit)
    if np.isinf(low):
        return f"≤ {high:g} {unit}".rstrip() if np.isfinite(high) else "any"
    return f"≥ {low:g} {unit}".rstrip() if np.isinf(high) else f"{low:g}–{high:,g} {unit}".rstrip()


def _given(maps: ParameterMaps, p: Parameter) -> str:
    values = maps[p.name][np.isfinite(maps[p.name])]
    if values.size and np.ptp(values) <= 1e-9 * np.abs(values).max():
        return f"{name_of(p)} {with_unit(float(values[0]), p.unit)}"
    return f"{name_of(p)}, a map"


def by_folder(files: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the names of files by their folder, in their order."""
    found: dict[str, list[str]] = {}
    for file in files:
        folder, slash, name = file.rpartition("/")
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
