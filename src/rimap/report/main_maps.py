"""The main maps of a derivative (T1map, T2map), and the statistics of their regions as in the runs that made them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.foreground import foreground
from rimap.io.bids import BidsName, compose, read_json
from rimap.io.masks import read_labels, read_mask
from rimap.io.naming import SIGNAL, desc_of, sidecar_of
from rimap.io.nifti import open_nifti
from rimap.io.voxel_grid import affine_of, edges_of
from rimap.map_display import Quantity, file_unit
from rimap.report.statistics import COUNTS, FIGURES, figures_of, share_column
from rimap.series import Status
from rimap.signals import signal_models
from rimap.signals.base import main_of

Row = dict[str, Any]
#: Columns of a table of regions that contain text.
_TEXT = ("label", "name", "map", "unit")


@dataclass(frozen=True)
class MainMap:
    """The main map of a series in a derivative: a T1map, a T2starmap.

    Parameters
    ----------
    path
        The image.
    entities
        The entities of its name, without ``desc-``.
    name
        Its suffix without ``map``: ``T1``.
    estimator
        The estimator that made it.
    prefix
        The start of the ``desc-`` of the other maps of the series.
    model
        The name of the signal model; "" if the sidecar has none.
    warnings
        Warnings about the map, the most severe first.
    sources
        The sources in its sidecar.
    """

    path: Path
    entities: Mapping[str, str]
    name: str
    estimator: str
    prefix: str
    model: str = ""
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def quantity(self) -> Quantity:
        """The declaration of the map in the signal model that made it, or else in the first one with such a map."""
        known = signal_models()
        if self.model in known and (found := main_of(known[self.model])).suffix == f"{self.name}map":
            return found
        return next(q for q in map(main_of, known.values()) if q.suffix == f"{self.name}map")

    @property
    def label(self) -> str:
        """The name of the map in messages: ``sub-01 ses-1 T1map``."""
        return compose(self.entities, f"{self.name}map").replace("_", " ")

    @property
    def series(self) -> str:
        """The name of the map, without extension."""
        return self.path.name.removesuffix(".nii.gz")

    def beside(self, what: str, suffix: str = "") -> Path:
        """Return the path of another map of the same series, by the end of its ``desc-``."""
        desc = desc_of(what, self.prefix)
        entities = {**self.entities, **({"desc": desc} if desc else {})}
        return self.path.with_name(f"{compose(entities, suffix or f'{self.name}map')}.nii.gz")

    def mask(self) -> Path | None:
        """Return the mask of the voxels that the statistics describe; `None` if an earlier version made the map."""
        model = signal_models().get(self.model)
        suffixes = [s for s in ((model.bids_suffix, *model.also_reads) if model else ()) if s]
        for desc in (*(f"{SIGNAL}{suffix}" for suffix in suffixes), SIGNAL):
            path = self.beside(desc, "mask")
            if path.is_file() and set(_texts(path, "Sources")) <= set(self.sources):
                return path
        return None

    def table(self, out: Path) -> Path:
        """Return the path of the table of regions that the run of the map wrote. It may not exist."""
        return out / f"{self.series}_rois.tsv"


def main_maps(
    out: Path, *, subjects: Sequence[str] = (), sessions: Sequence[str] = (), estimator: str | None = None
) -> list[MainMap]:
    """Return the main maps in a derivative, in order of name: those with the suffix of a signal model's main map.

    Parameters
    ----------
    subjects, sessions
        Only these, without ``sub-`` and ``ses-``; all if empty.
    estimator
        Only the maps of this estimator; by default those whose names have no ``desc-``.
    """
    found, suffixes = [], {main_of(model).suffix for model in signal_models().values()}
    for path in sorted(Path(out).glob("sub-*/**/*map.nii.gz")):
        parsed = BidsName.parse(path.name)
        if parsed is None or parsed.suffix not in suffixes:
            continue
        entities = dict(parsed.entities)
        desc, sidecar = entities.pop("desc", ""), sidecar_of(path)
        if (subjects and entities.get("sub") not in subjects) or (sessions and entities.get("ses") not in sessions):
            continue
        if (desc and (estimator is None or desc != re.sub(r"[^a-zA-Z0-9]", "", estimator))) or not sidecar.is_file():
            continue
        about = read_json(sidecar)
        made_by, model = str(about.get("Estimator", "")), str(about.get("SignalModel", ""))
        if estimator in (None, made_by):
            texts = (tuple(_strings(about.get(field))) for field in ("Warnings", "Sources"))
            found.append(MainMap(path, entities, parsed.suffix.removesuffix("map"), made_by, desc, model, *texts))
    return found


@dataclass(frozen=True, eq=False)
class Contents:
    """A main map that was read.

    Parameters
    ----------
    values
        (*X), in the unit of its declaration (ms for times).
    status
        (*X), its quality flags.
    inside, region
        (*X), the voxels that its statistics describe, and their name in the group table: ``mask`` or ``signal``.
    affine, edges
        Its affine (`None` if the orientation is unknown) and the edge lengths of a voxel, mm.
    """

    values: NDArray[np.float64]
    status: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    region: str
    affine: NDArray[Any] | None
    edges: tuple[float, ...]


def contents_of(main: MainMap, *, mask: Path | None = None) -> Contents:
    """Return a main map, its quality flags and the voxels that its figures describe.

    These are the voxels of the given mask, or else of the mask that the run wrote. A map of an earlier version has no
    such mask. The mask of the map or the foreground of the amplitude map is then used.

    Raises
    ------
    InputError
        If a file cannot be read, or is not on the grid of the map.
    """
    file = open_nifti(main.path)
    _, scale = file_unit(main.quantity.unit)
    values = np.asarray(next(iter(file.volumes())), dtype=float) * (1 / scale)
    status = _beside(main.beside("status"), values.shape)
    if status is None:
        raise InputError(
            f"{main.label}: expected {main.beside('status').name} next to the map, got none. Map this series again."
        )
    codes = np.nan_to_num(status, nan=float(Status.NOT_FINITE)).astype(np.uint8)
    region, where = _whole(main, codes, file, mask)
    return Contents(values, codes, where, region, affine_of(file), tuple(edges_of(file)))


def rows_of(
    main: MainMap,
    *,
    labels: Path | None = None,
    names: Mapping[int, str] | None = None,
    contents: Contents | None = None,
) -> list[Row]:
    """Return a row for the whole of one map, then one for each label, in the unit of its declaration (ms for times).

    Parameters
    ----------
    contents
        The result of `contents_of`. By default it is read here.

    Raises
    ------
    InputError
        If a file cannot be read, or is not on the grid of the map.
    """
    read = contents_of(main) if contents is None else contents
    values, codes = read.values, read.status
    rows = [_row(main, read.region, "", figures_of(values, codes, read.inside))]
    if labels is not None:
        image = read_labels(labels, values.shape, read.affine)
        found = np.unique(image[image != 0])
        if not found.size:
            raise InputError(f"{labels}: expected at least one region, got only zeros.")
        rows += [
            _row(main, int(v), (names or {}).get(int(v), ""), figures_of(values, codes, image == v)) for v in found
        ]
    return rows


def rows_of_table(main: MainMap, table: Sequence[Mapping[str, str]]) -> list[Row]:
    """Return the rows of the main map from the table of regions that its run wrote."""
    rows = []
    for line in table:
        if line["map"] == main.quantity.name:
            figures = {key: _number(value) for key, value in line.items() if key not in _TEXT}
            rows.append(_row(main, int(line["label"]), _text(line["name"]), figures))
    return rows


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of regions as text.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
        for row in rows:
            (
                int(row["label"]),
                [_number(value) for key, value in row.items() if key not in _TEXT],
                row["name"],
                row["map"],
            )
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path}: expected a table of regions, got something else. Map the series again.") from None
    return rows


def whole_table(mains: Sequence[tuple[MainMap, Sequence[Mapping[str, str]]]]) -> list[Row]:
    """Return the tables of regions of all series as one table. Each row begins with the subject and session."""
    rows = [{**_whose(main), **line} for main, table in mains for line in table]
    every = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column, "n/a") for column in every} for row in rows]


def _whole(main: MainMap, status: NDArray[Any], file: Any, mask: Path | None) -> tuple[str, NDArray[np.bool_]]:
    if mask is not None:
        return "mask", read_mask(mask, file.shape, affine_of(file))
    masked = bool((status == Status.OUTSIDE_MASK).any())
    written = main.mask()
    if written is not None:
        return "mask" if masked else "signal", read_mask(written, file.shape, affine_of(file))
    if masked:
        return "mask", status != Status.OUTSIDE_MASK
    return "signal", _signal(main, status.shape)


def _beside(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if not path.is_file():
        return None
    values = next(iter(open_nifti(path).volumes()))
    if values.shape != shape:
        raise InputError(f"{path}: expected the shape of the main map {shape}, got {values.shape}.")
    return values


def _signal(main: MainMap, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the foreground of the amplitude map; all voxels if there is none."""
    model = signal_models().get(main.model)
    suffixes = (
        [parameter.suffix for parameter in model.parameters if parameter.amplitude and parameter.suffix]
        if model
        else []
    )
    for suffix in suffixes:
        for desc in ("", model.bids_suffix if model else ""):  # two series with the same entities share a suffix
            A = _beside(main.beside(desc, suffix), shape)
            if A is not None:
                return foreground(A[None])
    return np.ones(shape, bool)


def _whose(main: MainMap) -> Row:
    return {
        "participant_id": f"sub-{main.entities['sub']}",
        "session_id": f"ses-{main.entities['ses']}" if "ses" in main.entities else "",
        "series": main.series,
        "estimator": main.estimator,
    }


def _row(main: MainMap, region: int | str, name: str, figures: Mapping[str, Any]) -> Row:
    whose = _whose(main)
    series = whose.pop("series")
    about = {"map": main.name, "unit": main.quantity.unit, "estimator": whose.pop("estimator")}
    # Tables of earlier versions lack quartiles and shares.
    ordered = {k: figures.get(k, float("nan")) for k in FIGURES}
    shares = {share_column(s): figures.get(share_column(s), float("nan")) for s in Status}
    whole = {k: int(ordered[k]) for k in COUNTS}
    more = {"warnings": len(main.warnings), "outlier": "", "series": series}
    return {**whose, **about, "region": region, "name": name, **ordered, **whole, **shares, **more}


def _number(text: str) -> float:
    return float("nan") if text == "n/a" else float(text)


def _text(text: str) -> str:
    return "" if text == "n/a" else text


def _texts(image: Path, field: str) -> list[str]:
    try:
        return _strings(read_json(sidecar_of(image)).get(field))
    except InputError:
        return []


def _strings(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
