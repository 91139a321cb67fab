"""Maps to files: a BIDS derivative data set, or loose NIfTI files with sidecars. `rimap.io.naming` has the names."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.foreground import Region
from rimap.io.atomic import Content, write_together
from rimap.io.bids import absolute
from rimap.io.naming import Naming, Quantity, outputs_of, rate_suffix, sidecar_of
from rimap.io.nifti import open_nifti
from rimap.io.nifti_bytes import nifti_of_pieces
from rimap.io.provenance import dataset_files, dataset_problem, map_metadata, to_json
from rimap.io.series_files import SeriesFiles
from rimap.io.slabs import MapsOnDisk, pieces_of
from rimap.io.voxel_grid import placed_first
from rimap.map_display import file_unit, values_of
from rimap.series import ParameterMaps, Status
from rimap.signals import Parameter

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialHeader

#: What the sidecar of a mask may say that it is (BIDS); a foreground is no brain.
_KIND_OF_MASK = "ROI"


def planned_outputs(
    series_files: SeriesFiles, out: Path | str, *, estimator: str, sequence: str | None = None
) -> list[Path]:
    """Return every map file that `write_maps` may write for a series, rates among them.

    Parameters
    ----------
    estimator
        Its name, as `ParameterMaps.estimator`.
    sequence
        A signal model by name, if the files do not say it.
    """
    naming = Naming(series_files, Path(out), series_files.model_class(sequence), estimator)
    return naming.all_files()


def check_output(
    series: Sequence[SeriesFiles],
    out: Path | str,
    *,
    estimator: str,
    overwrite: bool = False,
    sequence: str | None = None,
) -> None:
    """Refuse, before anything is computed, an OUT that cannot take the maps.

    Raises
    ------
    InputError
        Where OUT is a file, an input data set or that of other software; where results of this estimator are there
        and `overwrite` is false; where two series would get the same names.
    """
    out = Path(out)
    nearest = next(p for p in [out, *absolute(out).parents] if p.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest}: expected a folder, got a file. Give another output folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: no permission to write. Give another output folder.")
    owner: dict[Path, SeriesFiles] = {}
    for s in series:
        if s.dataset is not None and (problem := dataset_problem(out, s.dataset)):
            raise InputError(problem)
        for path in planned_outputs(s, out, estimator=estimator, sequence=sequence):
            if path in owner:
                raise InputError(
                    f"{owner[path].label} and {s.label} would both be written as {path.name}. Map them one at a time, "
                    "each into its own folder."
                )
            owner[path] = s
            if path.exists() and not overwrite:
                raise InputError(f"{path} already exists. Replace it with --overwrite, or give another output folder.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Writing:
    """How maps are written: the counterpart of `Reading`.

    Parameters
    ----------
    fill
        What stands for NaN.
    rates
        Write the rate of each relaxation time (R1 = 1/T1) and its standard deviation too, 1/s.
    given
        Where each given parameter is from, by name, as `OpenSeries.given_from` has it.
    extra_metadata
        For every sidecar, over what is written by itself.
    described
        The voxels that figures describe, for the mask that is written; no mask is, if they are left out.
    """

    fill: float = np.nan
    rates: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    extra_metadata: Mapping[str, Any] = field(default_factory=dict)
    described: Region | None = None


#: The maps alone, and NaN if there is no value.
AS_THEY_ARE = Writing()


def write_maps(
    maps: ParameterMaps,
    series_files: SeriesFiles,
    out: Path | str,
    how: Writing = AS_THEY_ARE,
    *,
    overwrite: bool = False,
    sequence: str | None = None,
) -> list[Path]:
    """Write the maps of a series with their sidecars, all or none.

    Parameters
    ----------
    out
        The derivative data set (BIDS input) or folder (loose input); made where it is missing.
    overwrite
        Replace an earlier result of the same estimator.
    sequence
        As in `planned_outputs`.

    Returns
    -------
    list of Path
        The images, the main map first.

    Raises
    ------
    InputError
        As `check_output`; where the shape of the maps is not that of the files; where OUT cannot be written.
    """
    check_output([series_files], Path(out), estimator=maps.estimator, overwrite=overwrite, sequence=sequence)
    new = map_files(maps, series_files, out, how)
    write_together(new.contents, remove=new.stale if overwrite else ())
    return list(new.images)


@dataclass(frozen=True)
class MapFiles:
    """What `write_maps` writes.

    Parameters
    ----------
    contents
        By path, in the order in which they are to be written.
    images
        The images among them, the main map first.
    stale
        What an earlier result may have left that these do not replace.
    dataset_files
        Those that all series share.
    """

    contents: Mapping[Path, Content]
    images: tuple[Path, ...]
    stale: tuple[Path, ...]
    dataset_files: tuple[Path, ...]


def map_files(
    maps: ParameterMaps | MapsOnDisk, series_files: SeriesFiles, out: Path | str, how: Writing = AS_THEY_ARE
) -> MapFiles:
    """Return the files of the maps of a series without writing them; the parameters are those of `write_maps`.

    Raises
    ------
    InputError
        If the maps do not have the shape of the series.
    """
    first = placed_first([open_nifti(image) for image in series_files.images])
    shape = maps.shape if isinstance(maps, MapsOnDisk) else maps.status.shape
    if shape not in (first.shape, (*first.shape[:2], 1)):
        raise InputError(f"maps: expected the shape of {first.path.name}, {first.shape}, got {shape}.")
    return files_like(maps, series_files, Path(out), first.header, how)


def files_like(
    maps: ParameterMaps | MapsOnDisk, series_files: SeriesFiles, out: Path, header: SpatialHeader, how: Writing
) -> MapFiles:
    """Return the files of maps with the geometry of a NIfTI header; the other parameters are those of `write_maps`."""
    head = maps.head if isinstance(maps, MapsOnDisk) else maps
    shape = maps.shape if isinstance(maps, MapsOnDisk) else maps.status.shape
    shape = (*shape, 1) if len(shape) == 1 else shape  # a file has two axes or more
    naming = Naming(series_files, out, type(head.model), head.estimator)
    common = map_metadata(head, series_files, out, given=how.given) | dict(how.extra_metadata)
    images: dict[Path, Content] = {}
    sidecars: dict[Path, Content] = {}

    def add(path: Path, values: Values, units: str | None, about: str, **more: Any) -> None:
        images[path] = partial(nifti_of_pieces, partial(_in_slabs, maps, values), header, shape, how.fill)
        metadata = {"Description": about, **({"Units": units} if units else {}), **more, **common}
        sidecars[sidecar_of(path)] = to_json(metadata)

    known = how.given
    for q in outputs_of(type(head.model)):
        if isinstance(q, Parameter) and q.given and not isinstance(known.get(q.name, q.start), (Path, str)):
            continue  # one number, which the sidecars have
        unit, scale = file_unit(q.unit)
        title = f"{q.name} of {head.model.title.lower()}"
        as_given = q.name in known
        add(naming.main(q), partial(_value, q, scale), unit, f"{title}, as it was given" if as_given else title)
        has_sd = not as_given and _has_sd(q.name, maps, head)
        if has_sd:
            add(naming.sd(q), partial(_sd, q.name, scale), unit, f"Standard deviation of {title} ({head.sd_source})")
        if how.rates and rate_suffix(q, type(head.model)):
            about = f"1/{q.name} of {head.model.title.lower()}"
            add(naming.main(q, rate=True), partial(_rate, q), "1/s", about)
            if has_sd:
                about = f"Standard deviation of 1/{q.name} ({head.sd_source})"
                add(naming.sd(q, rate=True), partial(_rate_sd, q), "1/s", about)
    if head.residual is not None:
        about = "Root mean square of image minus model over the images"
        add(naming.extra("residual"), _residual, "arbitrary", about)
    levels = {str(int(s)): s.meaning for s in Status}
    add(naming.extra("status"), _status, None, "Quality flag of each voxel", Levels=levels)
    if (region := how.described) is not None:
        path, inside = naming.mask(), np.asarray(region.inside, np.uint8).reshape(shape)
        images[path] = partial(nifti_of_pieces, lambda: [inside], header, shape, how.fill)
        what = {"Description": f"Voxels that figures describe ({region.words})", "Type": _KIND_OF_MASK}
        sidecars[sidecar_of(path)] = to_json({**what, "HowFound": region.how, "Sources": common["Sources"]})
    files: dict[Path, Content] = {}
    if series_files.dataset is not None:
        files |= dataset_files(out, series_files.dataset)
    stale = [f for path in naming.all_files() for f in (path, sidecar_of(path))]
    return MapFiles(files | sidecars | images, tuple(images), tuple(stale), tuple(files))


def without_sd(maps: ParameterMaps | MapsOnDisk, given: Collection[str] = ()) -> list[str]:
    """Return the names of maps whose standard deviation is missing in all voxels, so that no file is written for it."""
    head = maps.head if isinstance(maps, MapsOnDisk) else maps
    names = [q.name for q in outputs_of(type(head.model)) if q.name not in {*given, *_known(head)}]
    estimated = head.sd_kappa is not None
    return [name for name in names if (estimated or head.has_sd(name)) and not _has_sd(name, maps, head)]


def _known(maps: ParameterMaps) -> set[str]:
    """Return the parameters that were not estimated, by name: given ones, and those that the estimator holds fixed."""
    return {parameter.name for parameter in maps.model.parameters if parameter.given} | set(
        dict(maps.settings.get("fixed") or {})
    )


def _has_sd(name: str, maps: ParameterMaps | MapsOnDisk, head: ParameterMaps) -> bool:
    """Return whether a voxel has a standard deviation: a map of NaN alone says nothing."""
    return head.has_sd(name) and any(np.isfinite(piece.sd[name]).any() for piece in pieces_of(maps))


#: From the maps of a slab to what is written of it.
Values = Callable[[ParameterMaps], NDArray[Any]]


def _in_slabs(maps: ParameterMaps | MapsOnDisk, values: Values) -> Iterator[NDArray[Any]]:
    return map(values, pieces_of(maps))


def _value(q: Quantity, scale: float, maps: ParameterMaps) -> NDArray[Any]:
    return np.asarray(values_of(q, maps.model, maps), dtype=float) * scale  # as `as_stored` has it


def _sd(name: str, scale: float, maps: ParameterMaps) -> NDArray[Any]:
    return np.asarray(maps.sd[name] * scale)


def _rate(q: Quantity, maps: ParameterMaps) -> NDArray[Any]:
    with np.errstate(divide="ignore"):
        return 1 / _seconds(q, maps)


def _rate_sd(q: Quantity, maps: ParameterMaps) -> NDArray[Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 / _seconds(q, maps) * maps.sd[q.name] / values_of(q, maps.model, maps))


def _seconds(q: Quantity, maps: ParameterMaps) -> NDArray[np.float64]:
    """Return a relaxation time in seconds, whichever its unit."""
    return np.asarray(values_of(q, maps.model, maps) * file_unit(q.unit)[1])


def _residual(maps: ParameterMaps) -> NDArray[Any]:
    assert maps.residual is not None
    return maps.residual


def _status(maps: ParameterMaps) -> NDArray[Any]:
    return maps.status.astype(np.uint8)
