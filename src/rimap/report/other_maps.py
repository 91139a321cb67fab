"""The page of maps that other software made: what their files contain, without a signal model and its curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.advice import notes_of, warnings_of
from rimap.errors import InputError
from rimap.foreground import Region
from rimap.io.atomic import write_whole
from rimap.io.bids import absolute, strip_nii
from rimap.io.map_images import ALL, MapImage, map_image, map_images, maps_beside
from rimap.io.masks import read_mask
from rimap.io.results import ResultFiles
from rimap.map_display import Quantity, is_relaxation, name_of, palette_of, window_of
from rimap.report.charts import histogram
from rimap.report.embedding import Embedded, Shown, embed
from rimap.report.number_formats import number, plain
from rimap.report.page import LIMIT, Run, by_folder, flag_rows, json_for_script, rendered, start_voxel
from rimap.report.panels import STATUS_COLOURS, Panel, palettes, status_pictures
from rimap.report.statistics import COUNTED, Statistics, describe
from rimap.series import Status
from rimap.signals.base import Derived
from rimap.signals.settings import unit_symbol
from rimap.slices import View, edges_mm, view_of

#: Names of amplitudes in other software, which have the unit of the images.
_AMPLITUDES = ("M0", "S0", "PD")
#: The tag that marks a page of rimap.
_OF_RIMAP = '<meta name="generator" content="rimap '
#: Fields of a sidecar that are longer than this, in characters, are left out.
_LONGEST_FIELD = 300
#: What the page shows in place of curves.
_NO_MODEL = (
    "These maps were made by other software. The page shows what their files contain, without fitted curves and "
    "without a text for a methods section."
)


@dataclass(frozen=True)
class OtherMaps:
    """Maps of one series that other software made.

    Parameters
    ----------
    main
        The main map of the page: T1.
    more
        The other maps of the series: R1, M0, B1.
    """

    main: MapImage
    more: tuple[MapImage, ...]

    def page_path(self) -> Path:
        """Return the path of the page: next to the subjects of a data set, or else next to the map."""
        path, stem = self.main.path, strip_nii(self.main.path)
        subject = stem.split("_")[0]
        root = next(
            (
                parent.parent
                for parent in absolute(path).parents
                if parent.name == subject and subject.startswith("sub-")
            ),
            None,
        )
        return path.with_name(f"{stem}_report.html") if root is None else root / f"{stem}.html"


def find_other_maps(folder: Path, known: Sequence[ResultFiles] = ()) -> list[OtherMaps]:
    """Return the maps of other software in a folder, a set for each relaxation time of each series; [] if there are
    none.

    Parameters
    ----------
    folder
        A folder, or one map.
    known
        The results of rimap. Their maps are left out.
    """
    of_rimap = {(result.main.parent, result.stem) for result in known}
    if folder.is_file():
        main = map_image(folder)
        if _by_rimap(main):
            return []
        return [OtherMaps(main, _companions(main, maps_beside(main)))]
    try:
        found = map_images([folder], [ALL])
    except InputError:  # no map at all
        return []
    series: dict[tuple[Path, str], list[MapImage]] = {}
    for m in found:
        if (m.path.parent, m.stem) not in of_rimap and not _by_rimap(m):
            series.setdefault((m.path.parent, m.stem), []).append(m)
    return [OtherMaps(main, _companions(main, members)) for members in series.values() for main in _mains(members)]


def _by_rimap(m: MapImage) -> bool:
    """Return whether an estimator of rimap made a map. The truth of `rimap simulate` also has a signal model."""
    return "SignalModel" in m.about and "Estimator" in m.about


def _mains(members: Sequence[MapImage]) -> list[MapImage]:
    """Return the maps that have a page: relaxation times, rates without their time, or else the first map."""
    values = [member for member in members if member.name == member.quantity]
    times = [value for value in values if value.is_time]
    names = {m.name for m in times}
    rates = [value for value in values if re.fullmatch(r"R[12]\w*", value.name) and f"T{value.name[1:]}" not in names]
    return times + rates or values[:1]


def _companions(main: MapImage, members: Sequence[MapImage]) -> tuple[MapImage, ...]:
    """Return the maps that are shown with a main map: not the times and rates of others."""
    kind = main.name[1:]
    return tuple(
        member
        for member in members
        if member.path != main.path
        and member.name == member.quantity
        and member.name != main.name
        and (not re.fullmatch(r"[TR][12]\w*", member.name) or member.name[1:] == kind)
    )


def page_of_other_maps(maps: OtherMaps) -> Path:
    """Write the page of maps that other software made, and return its path.

    Raises
    ------
    InputError
        If a map cannot be read, or if a page of other software has this name.
    """
    path = maps.page_path()
    if path.is_file() and _OF_RIMAP not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise InputError(f"{path}: expected a page of rimap or none, got a page of other software. Move it elsewhere.")
    write_whole(path, rendered(_content(maps)))
    return path


def _quantity(m: MapImage) -> Quantity:
    """Return the declaration of a map, that is its name and unit. There is no model to compute it from."""

    def not_computed(model: Any, maps: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    unit = "a.u." if not m.unit and m.name in _AMPLITUDES else m.unit or "1"
    return Derived(m.name, unit, not_computed, suffix=f"{m.name}map")


def _values(m: MapImage, q: Quantity, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a map. A time or rate of zero counts as no value."""
    values = m.values()
    if values.shape != shape:
        raise InputError(f"{m.path}: expected the shape of the main map {shape}, got {values.shape}.")
    return np.where(np.isfinite(values) & (values != 0), values, np.nan) if is_relaxation(q) else values


def _shown(maps: OtherMaps) -> tuple[Shown, Region, list[str]]:
    """Return the values, the voxels that the figures describe, and notes."""
    q = _quantity(maps.main)
    main = maps.main.values()
    main = _values(maps.main, q, main.shape)
    found, notes = {q.name: (q, main)}, list(maps.main.notes)
    for m in maps.more:
        other = _quantity(m)
        try:
            found[other.name] = other, _values(m, other, main.shape)
            notes += m.notes
        except InputError as error:
            notes.append(f"{m.path.name} is not shown: {error}")
    deviations = {}
    for m in (maps.main, *maps.more):
        try:
            deviation = m.sd() if m.name in found else None
        except InputError as error:
            notes.append(f"The standard deviations of {m.name} are not shown: {error}")
            continue
        if deviation is not None and is_relaxation(found[m.name][0]):
            deviations[m.name] = np.where(deviation > 0, deviation, np.nan)
    status = maps.main.status()
    if status is None or not np.isin(status, [int(s) for s in Status]).all():
        status = np.where(np.isfinite(main), Status.OK, Status.NO_SIGNAL).astype(np.uint8)
    mask = _mask(maps.main, notes)
    if mask is not None:
        status = np.where(mask, status, Status.OUTSIDE_MASK).astype(np.uint8)
    inside = status != Status.OUTSIDE_MASK if mask is not None else np.isfinite(main)
    words = "in the mask" if mask is not None else "with a value"
    return Shown(found, status, deviations), Region(np.asarray(inside), words, ""), notes


def _mask(main: MapImage, notes: list[str]) -> NDArray[np.bool_] | None:
    """Return the mask next to a map, `None` if there is none that fits."""
    for name in (f"{main.stem}_desc-brain_mask", f"{main.stem}_mask"):
        for path in (main.path.with_name(f"{name}.nii.gz"), main.path.with_name(f"{name}.nii")):
            if path.is_file():
                file = main.file()
                try:
                    mask = read_mask(path, file.shape, main.geometry()[0])
                except InputError as error:
                    notes.append(f"The mask was not used: {error}")
                    continue
                notes.append(f"The figures describe the voxels of the mask {path.name}.")
                return mask
    return None


def _content(maps: OtherMaps) -> dict[str, Any]:
    shown, described, notes = _shown(maps)
    inside, where = described.inside, described.words
    affine, edges = maps.main.geometry()
    q, values = shown.maps[maps.main.name]
    figured = inside & np.isin(shown.status, COUNTED)
    view = view_of(affine, inside if inside.any() else np.ones_like(inside), edges=edges)
    panels = _panels(shown, inside, figured)
    still = [panel.pictures(view, view.slices if i == 0 else (view.middle,)) for i, panel in enumerate(panels)]
    used = sum(len(picture["src"]) for each in still for picture in each["pictures"])
    embedded = embed(shown, None, inside, affine, LIMIT - used - 150_000, edges)
    masked = bool((shown.status == Status.OUTSIDE_MASK).any())
    main_only = describe(values[figured])
    title = strip_nii(maps.main.path).removesuffix(f"_{maps.main.name}map").replace("_", " ")
    run = Run(
        title=title,
        estimator_title=str(maps.main.about.get("EstimationAlgorithm") or "Maps of other software"),
        inputs=[maps.main.path.name, *(m.path.name for m in maps.more if m.name in shown.maps)],
    )
    return {
        "run": run,
        "run_json": json_for_script(
            {field.name: getattr(run, field.name) for field in fields(run) if field.name in ("title", "inputs")}
        ),
        "quantity": name_of(q),
        "unit": unit_symbol(q.unit),
        "recommended": is_relaxation(q),
        "main": still[:1],
        "panels": still[1:],
        "viewer_json": json_for_script(_viewer(shown, q, embedded, panels, view, figured, masked)),
        "blocks": embedded.blocks,
        "notes": [*embedded.notes, _NO_MODEL],
        "n_slices": int(inside.shape[view.plane.axes[2]]) if inside.ndim == 3 else 1,
        "view": view,
        "histogram": histogram(values[figured], q, window_of(q, values[figured])),
        "precision": None,
        "statuses": flag_rows(shown.status),
        "n_background": 0,
        "status_pictures": status_pictures(np.where(inside, shown.status, np.uint8(255)), view, (view.middle,)),
        "stats": [
            {
                "name": name_of(quantity),
                "unit": unit_symbol(quantity.unit),
                "known": False,
                "s": describe(x[figured]),
                "sd": describe(shown.sd[name][figured]).median if name in shown.sd else float("nan"),
            }
            for name, (quantity, x) in shown.maps.items()
        ],
        "tiles": _tiles(q, main_only, where, figured, inside, maps),
        "warnings": warnings_of(notes),
        "advice_notes": notes_of(notes),
        "background": False,
        "where": where,
        "images": [],
        "acquisition": [],
        "sd_source": "from the file" if shown.sd else "",
        "settings_title": "Sidecar",
        "settings": _sidecar(maps.main.about, inside.shape, affine),
        "versions": [],
        "methods": "",
        "books": [],
        "rois": [],
        "has_affine": affine is not None,
        "files": [("Read", by_folder(run.inputs))],
    }


def _panels(shown: Shown, inside: NDArray[np.bool_], figured: NDArray[np.bool_]) -> list[Panel]:
    panels = []
    for name, (q, values) in shown.maps.items():
        drawn = np.where(inside, values, np.nan)
        window = window_of(q, values[figured])
        panels.append(Panel(name, name_of(q), unit_symbol(q.unit), drawn, palette_of(q), window, is_relaxation(q)))
        if name in shown.sd:
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(inside & (values > 0), 100 * shown.sd[name] / values, np.nan)
            if np.isfinite(share).any():
                of, window = name_of(q), colours.window(share[figured], low=0.0, upper=0.95)
                panels.append(Panel(f"sd {name}", f"SD of {of}", f"% of {of}", share, "lajolla", window))
    return panels


def _viewer(
    shown: Shown,
    main: Quantity,
    embedded: Embedded,
    panels: Sequence[Panel],
    view: View,
    figured: NDArray[np.bool_],
    masked: bool,
) -> dict[str, Any]:
    """Return what the viewer's script reads; there are no images and no curves."""
    return embedded.about | {
        "panels": [panel.about() for panel in panels],
        "palettes": palettes(panels),
        "maps": [{"key": key, "name": name_of(q), "unit": unit_symbol(q.unit)} for key, (q, _) in shown.maps.items()],
        "main": main.name,
        "time": main.name,
        "free": [],
        "counted": [int(s) for s in COUNTED],
        "amplitude": None,
        "statuses": {
            str(int(s)): {"name": s.name.lower().replace("_", " "), "meaning": s.meaning, "colour": STATUS_COLOURS[s]}
            for s in Status
        },
        "values": [],
        "labels": [],
        "order": [],
        "axis": {"title": "", "unit": ""},
        "sigma": None,
        "start": start_voxel(shown.maps[main.name][1], figured, view, embedded.about),
        "outside": "outside the mask" if masked else "no value, not on this page",
    }


def _tiles(
    q: Quantity,
    s: Statistics,
    where: str,
    figured: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    maps: OtherMaps,
) -> list[dict[str, str]]:
    unit, about = unit_symbol(q.unit), maps.main.about
    tiles = [
        {
            "label": f"median {name_of(q)} {where}",
            "value": f"{number(s.median)} {unit}".rstrip(),
            "note": f"IQR {number(s.q25)}–{number(s.q75)} {unit}".rstrip(),
        },
        {"label": "voxels with a value", "value": f"{s.n:,}", "note": f"of {inside.size:,} in the file"},
    ]
    software = about.get("EstimationSoftwareName")
    if isinstance(software, str) and software:
        version = about.get("EstimationSoftwareVer", "")
        tiles.append({"label": "made by", "value": software, "note": str(version)})
    return tiles


def _sidecar(about: Mapping[str, Any], shape: tuple[int, ...], affine: Any) -> list[tuple[str, str]]:
    """Return the fields of the sidecar and their values."""
    rows = [("Voxels", " × ".join(map(str, shape)))]
    if affine is not None:
        rows.append(("Voxel, mm", " × ".join(number(v) for v in edges_mm(affine)[: max(len(shape), 2)])))
    for name, value in about.items():
        text = plain(value)
        if text and len(text) <= _LONGEST_FIELD:
            rows.append((str(name), text))
    return rows
