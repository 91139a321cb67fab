"""Map a volume that is larger than memory slab by slab, from disk to disk, with the same result as for the whole
volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rimap import foreground
from rimap.advice import ordered
from rimap.arrays import Array, places, stride
from rimap.correlation import NoiseCorrelation
from rimap.errors import InputError
from rimap.estimators import sigma
from rimap.estimators.base import model_warnings, settings_of_options
from rimap.estimators.checks.final_checks import Fit, Usual, flag_wrong_areas, warnings_for, with_statuses
from rimap.estimators.checks.missing_values import Missing, Whole, sample_of_planes, screened
from rimap.estimators.mle.estimator import MLE
from rimap.estimators.nlls.covariance import covariance_for
from rimap.estimators.nlls.estimator import NLLS, noise_of, sd_for
from rimap.estimators.noise_correlation import correlation_in, estimated_in, window_of, with_correlation
from rimap.foreground import Region
from rimap.io.slabs import MapsOnDisk, Planes, cuts
from rimap.likelihood import Gaussian, Noise
from rimap.series import ParameterMaps, Status, WeightedSeries, checked_given

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.io.masks import LabelFile
    from rimap.io.open_series import OpenSeries
    from rimap.signals import SignalModel

#: Number of voxels that `conditioning_warnings` samples.
_SAMPLE = 50_000
#: Voxels of a flat array at a time.
_BLOCK = 1 << 20


def voxelwise(estimator: Estimator, model: SignalModel, noise: Noise | None) -> NLLS | None:
    """Return the least-squares estimator that an estimator is equivalent to in each voxel; `None` if it needs all
    voxels.
    """
    if isinstance(estimator, NLLS):
        return estimator
    if isinstance(estimator, MLE) and isinstance(noise or Gaussian(), Gaussian):
        known = estimator.fixed or {}
        smooth = any(parameter.smooth and parameter.name not in known for parameter in model.parameters)
        if not smooth or estimator.lambda_B == 0:
            return NLLS(threads=estimator.threads, fixed=estimator.fixed or {}, bounds=estimator.bounds or {})
    return None


@dataclass(frozen=True, eq=False)
class Slabwise:
    """A series and its maps on disk, and what is known about all voxels.

    Parameters
    ----------
    opened
        The series, uncompressed, with all its settings.
    maps
        The maps, in files.
    status
        (*X) quality flags, in memory with one byte per voxel.
    planes
        The slabs.
    described
        The voxels (*X) that the statistics describe.
    """

    opened: OpenSeries
    maps: MapsOnDisk
    status: NDArray[np.uint8]
    planes: Sequence[Planes]
    described: Region

    def held(self, where: Array) -> dict[str, Any]:
        """Return the known parameters in some voxels, as `WeightedSeries.held` does."""
        return _defaults(self.opened.model) | _given_at(self.opened, where)

    def count(self) -> dict[Status, int]:
        """Return the number of voxels of each quality flag that occurs."""
        counts = np.bincount(self.status.reshape(-1, order="A"), minlength=len(Status))
        return {s: int(counts[s]) for s in Status if counts[s]}

    def some(self, voxels: int) -> tuple[WeightedSeries, ParameterMaps, list[int]]:
        """Return evenly spaced planes with about `voxels` voxels: their series, maps and indices."""
        axes = tuple(range(self.status.ndim - 1))
        good = np.flatnonzero((self.status <= Status.AT_BOUND).any(axes))
        used = good if len(good) else np.flatnonzero((self.status < Status.NOT_FINITE).any(axes))
        n = max(1, min(len(used), voxels * self.status.shape[-1] // self.status.size))
        chosen = [int(k) for k in used[np.unique(np.linspace(0, len(used) - 1, n).round().astype(int))]]
        read = [self.opened.read_planes(k, k + 1) for k in chosen]
        affine = None if self.opened.affine is None else self.opened.affine.copy()
        axis = min(self.status.ndim, 3) - 1
        if affine is not None:
            affine[:3, 3] += affine[:3, axis] * chosen[0]
            if len(chosen) > 1:
                affine[:3, axis] *= (chosen[-1] - chosen[0]) / (len(chosen) - 1)
        series = WeightedSeries(
            np.concatenate([images for images, _ in read], -1),
            self.opened.model,
            noise=_noise_at(self.maps.head.noise, (..., chosen)),
            mask=None if read[0][1] is None else np.concatenate([m for _, m in read if m is not None], -1),
            affine=affine,
            source=self.opened.label,
            notes=self.opened.notes,
            given=_given_at(self.opened, (..., chosen)),
        )
        parts = [self.maps.read((k, k + 1)) for k in chosen]
        maps = replace(
            self.maps.head,
            kappa=np.concatenate([part.kappa for part in parts], -1),
            sd_kappa=np.concatenate([part.sd_kappa for part in parts if part.sd_kappa is not None], -1),
            residual=np.concatenate([part.residual for part in parts if part.residual is not None], -1),
            status=np.concatenate([part.status for part in parts], -1),
            covariance=_joined([part.covariance for part in parts]),
            noise=series.noise,
            affine=affine,
        )
        return series, maps, chosen

    def labelled(self, labels: LabelFile) -> tuple[ParameterMaps, NDArray[np.int64]]:
        """Return the maps (Q, n) and the labels (n) of the labelled voxels.

        Raises
        ------
        InputError
            If no voxel has a label.
        """
        found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        for a, b in self.planes:
            here = labels.read((a, b))
            where = here != 0
            maps = self.maps.read((a, b))
            found.append((maps.kappa[:, where], maps.status[where], here[where]))
        kappa, status, values = (np.concatenate(x, -1) for x in zip(*found))
        if not values.size:
            raise InputError(f"{labels.file.path}: expected labels, got only zeros.")
        return replace(self.maps.head, kappa=kappa, status=status, covariance=None), values


def estimate(
    estimator: Estimator,
    opened: OpenSeries,
    folder: Path,
    voxels: int,
    progress: Callable[[int, int], None] | None = None,
) -> Slabwise:
    """Return the maps of a series, in files, from slabs of about `voxels` voxels.

    Parameters
    ----------
    estimator
        A `voxelwise` estimator.
    folder
        Folder for the maps, and for the uncompressed images.

    Raises
    ------
    InputError
        As if the whole volume were mapped at once.
    """
    opened = opened.unpacked(folder).settled()
    slabs = cuts(opened.shape, voxels)
    opened, described = _described(opened, slabs)
    squares = voxelwise(estimator, opened.model, opened.noise)
    assert squares is not None
    opened = replace(opened, model=opened.model.with_bounds(squares.bounds))
    # A map is checked as a whole, since a slab may have no part of it. Fixed parameters are treated like given ones.
    given = checked_given({**opened.given, **squares.fixed}, opened.model, None, opened.shape)
    opened = replace(opened, given=given)
    squares = NLLS(threads=squares.threads)
    model, Q = opened.model, len(opened.model.parameters)
    empty = np.empty(0)
    settings = settings_of_options(estimator)
    settings.pop("lambda_B", None)  # no field is smoothed voxel by voxel
    head = ParameterMaps(
        kappa=np.empty((Q, 0)), model=model, status=np.empty(0, np.uint8), sd_kappa=np.empty((Q, 0)), residual=empty,
        affine=opened.affine, estimator=estimator.name, settings=settings,
        covariance=np.empty((Q * (Q + 1) // 2, 0)) if model.derived else None,
    )  # fmt: skip
    done = Slabwise(opened, MapsOnDisk(folder, opened.shape, head), np.empty(opened.shape, np.uint8), slabs, described)
    selected = finite = signal = False
    missing = Missing.none(model.n_images)
    standing = _read_some(opened, sample_of_planes(opened.shape))
    whole = Whole.of(standing, lambda: _parts(opened, slabs))
    for n, (a, b) in enumerate(slabs):
        images, mask = opened.read_planes(a, b)
        here = mask is None or bool(mask.any()), bool(np.isfinite(images).any()), bool(images.any())
        selected, finite, signal = selected | here[0], finite | here[1], signal | here[2]
        if all(here):
            screen = screened(WeightedSeries(images, model, mask=mask, given=opened.given_at(a, b)), whole)
            maps, missing = squares.piece(screen.series), missing + screen.missing
        else:
            maps = _nothing(head, mask, images.shape[1:], Status.NO_SIGNAL if here[1] else Status.NOT_FINITE)
        done.maps.write((a, b), maps)
        done.status[..., a:b] = maps.status
        if progress:
            progress(n + 1, len(slabs))
    if not selected:
        raise InputError(f"{opened.label}: expected a mask with voxels inside, got an empty one.")
    if not (finite and signal):
        _one_voxel(model, 0.0 if finite else np.nan)  # raises the error with the reason
    noise, source, found = _noise(done)
    fit = Fit(sum(parameter.name not in {*opened.given, *_defaults(model)} for parameter in model.parameters))
    usual = None
    if standing is not None:
        some_planes = sample_of_planes(opened.shape)
        known = replace(_maps_of_some(done, some_planes), noise=noise.at((..., some_planes)), sigma_source=source)
        usual = Usual.of(screened(standing, whole).census, known, fit)
    for a, b in slabs:
        planes = (..., slice(a, b))
        maps, there, held = done.maps.read((a, b)), noise.at(planes), done.held(planes)
        covariance = covariance_for(model, maps, there, held) if model.derived else None
        maps = replace(maps, sd_kappa=sd_for(model, maps, there, held=held), covariance=covariance)
        images, mask = opened.read_planes(a, b)
        if (maps.status <= Status.AT_BOUND).any():
            part, gone, census = screened(WeightedSeries(images, model, mask=mask, given=opened.given_at(a, b)), whole)
            maps = replace(maps, noise=there, sigma_source=source)
            flat = len(opened.shape) < 3  # slabs of a single slice cut it
            maps, _ = with_statuses(part, maps, fit, usual, gone.doubtful, census, part_of_slice=flat)
            done.status[..., a:b] = maps.status
        done.maps.write((a, b), maps)
    if len(opened.shape) < 3:
        flag_wrong_areas(done.status, model.n_images - fit.estimated)
        for a, b in slabs:
            done.maps.write((a, b), replace(done.maps.read((a, b)), status=done.status[..., a:b]))
    done = _without_wrong_values(done)
    head = replace(head, noise=noise, sigma_source=source)
    thinly = places(done.status.size, stride(done.status.size, _SAMPLE))
    where = np.unravel_index(thinly, done.status.shape)
    thin = _maps_at(done, where)
    thin = replace(thin, noise=_noise_at(noise, where), estimator=squares.name)
    some = _series_at(done, thinly)[0]
    told = (*found, *missing.advice(model))
    air = np.asarray(thin.status == Status.NO_SIGNAL)
    if some:
        warnings = warnings_for(some, replace(thin, sigma_source=source), fit, told, air)
    else:
        warnings = ordered((*model_warnings(model), *told))
    head = with_correlation(replace(head, warnings=warnings), _correlation(done, fit.estimated))
    return replace(done, maps=replace(done.maps, head=head))


def _correlation(done: Slabwise, estimated: int) -> NoiseCorrelation | None:
    """Return the noise correlation between neighbours, from the same window as for the whole volume."""
    good = estimated_in(done.status)
    if not good.any():
        return None
    window = window_of(good)
    inside, planes = (slice(None), *window[:-1]), range(done.status.shape[-1])[window[-1]]
    images = np.stack([done.opened.read_planes(plane, plane + 1)[0][..., 0][inside] for plane in planes], -1)
    kappa = np.stack([done.maps.read((plane, plane + 1)).kappa[..., 0][inside] for plane in planes], -1)
    return correlation_in(images, kappa, good[window], done.opened.model, estimated)


def _described(opened: OpenSeries, slabs: Sequence[Planes]) -> tuple[OpenSeries, Region]:
    """Return the series with its mask, and the voxels that statistics describe, as `WeightedSeries.described` for a
    whole volume.
    """
    if opened.mask is not None and not opened.finds_mask:
        masks = [opened.read_planes(a, b)[1] for a, b in slabs]
        return opened, Region.of_mask(np.concatenate([mask for mask in masks if mask is not None], -1))
    inside = _foreground(opened, slabs)
    if not opened.finds_mask:
        return opened, Region.found(inside)
    return replace(opened, mask=inside, notes=(*opened.notes, foreground.note_on(inside))), Region.of_mask(inside)


def _foreground(opened: OpenSeries, slabs: Sequence[Planes], wrong: NDArray[np.bool_] | None = None) -> Array:
    """Return the foreground (*X) of the images, as `foreground` does; voxels that are `wrong` (*X) count as dark."""
    without = replace(opened, mask=None)

    def pieces() -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
        for a, b in slabs:
            images = without.read_planes(a, b)[0]
            if wrong is not None:
                images[:, wrong[..., a:b]] = np.nan
            yield images, foreground.strength(images)

    limit = foreground.threshold(pieces)
    return np.concatenate([foreground.above(x, limit) for _, x in pieces()], -1)


def _without_wrong_values(done: Slabwise) -> Slabwise:
    """Return the maps with the voxels that statistics describe chosen without values that are no measurement, as for a
    whole volume.
    """
    if done.opened.mask is not None:
        return done
    wrong = done.status == Status.NOT_FINITE
    for a, b in done.planes if wrong.any() else ():
        wrong[..., a:b] &= np.isfinite(done.opened.read_planes(a, b)[0]).all(0)
    if not wrong.any():
        return done
    return replace(done, described=Region.found(_foreground(done.opened, done.planes, wrong)))


def _read_some(opened: OpenSeries, planes: Any) -> WeightedSeries | None:
    """Return the series of some planes, `None` if they have no voxels to map."""
    if isinstance(planes, slice):
        planes = np.arange(opened.shape[-1])
    read = [opened.read_planes(int(plane), int(plane) + 1) for plane in planes]
    images = np.concatenate([i for i, _ in read], -1)
    masks = [m for _, m in read if m is not None]
    mask = np.concatenate(masks, -1) if masks else None
    if not np.isfinite(images).any() or not np.nan_to_num(images).any() or (mask is not None and not mask.any()):
        return None
    return WeightedSeries(images, opened.model, mask=mask, given=_given_at(opened, (..., planes)))


def _parts(opened: OpenSeries, slabs: Sequence[Planes]) -> Iterator[WeightedSeries]:
    """Yield the slabs that have voxels to map."""
    for a, b in slabs:
        images, mask = opened.read_planes(a, b)
        if (mask is None or mask.any()) and np.isfinite(images).any() and images.any():
            yield WeightedSeries(images, opened.model, mask=mask, given=opened.given_at(a, b))


def _maps_of_some(done: Slabwise, planes: Any) -> ParameterMaps:
    """Return the maps of some planes."""
    if isinstance(planes, slice):
        planes = np.arange(done.status.shape[-1])
    parts = [done.maps.read((int(plane), int(plane) + 1)) for plane in planes]
    residual = [part.residual for part in parts if part.residual is not None]
    return replace(
        done.maps.head,
        kappa=np.concatenate([part.kappa for part in parts], -1),
        status=np.concatenate([part.status for part in parts], -1),
        residual=np.concatenate(residual, -1) if residual else None,
        sd_kappa=None,
        covariance=None,
    )


def _defaults(model: SignalModel) -> dict[str, Any]:
    """Return the default values of the known parameters of a model."""
    return {
        parameter.name: parameter.start
        for parameter in model.parameters
        if parameter.given and parameter.start is not None
    }


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return the arrays concatenated along the last axis; `None` if one is missing."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there, -1) if len(there) == len(parts) else None


def _one_voxel(model: SignalModel, value: float) -> WeightedSeries:
    return WeightedSeries(np.full((model.n_images, 1), value), model)


def _nothing(head: ParameterMaps, mask: Any, shape: tuple[int, ...], why: Status) -> ParameterMaps:
    """Return the maps of a slab that has no voxels to map."""
    status = np.full(shape, why, np.uint8)
    if mask is not None:
        status[~mask] = Status.OUTSIDE_MASK
    nan = np.full((len(head.model.parameters), *shape), np.nan)
    covariance = None if head.covariance is None else np.full((len(head.covariance), *shape), np.nan)
    return replace(head, kappa=nan, sd_kappa=nan, residual=nan[0], status=status, covariance=covariance)


def _noise(done: Slabwise) -> tuple[Noise, str, tuple[str, ...]]:
    """Return the noise with its σ, estimated from the same voxels as for the whole volume."""
    noise, model = done.opened.noise, done.opened.model
    if noise is not None and noise.sigma is not None:
        return noise, "given", ()
    fitted = _thinned(lambda status: status <= Status.AT_BOUND, done.status)
    series, maps = _series_at(done, fitted)
    if series is not None:
        found = noise_of(series, maps)
        if found[1] == "residuals":
            return found
    masked = done.opened.mask is not None
    air = _thinned((lambda s: s == Status.OUTSIDE_MASK) if masked else (lambda s: s < 255), done.status)
    series, maps = _series_at(done, air)
    return noise_of(series or _one_voxel(model, 1.0), replace(maps, residual=None))


def _thinned(wanted: Callable[[NDArray[np.uint8]], NDArray[np.bool_]], status: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return a sample of the wanted voxels, as `at_most(np.flatnonzero(…), SAMPLE)` does, with little
    memory.
    """
    flat = status.reshape(-1)

    def blocks() -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for index in range(0, flat.size, _BLOCK):
            yield index, wanted(flat[index : index + _BLOCK])

    total = sum(int(w.sum()) for _, w in blocks())
    chosen, before, found = places(total, stride(total, sigma.SAMPLE)), 0, [np.empty(0, np.intp)]
    for i, w in blocks():
        here = np.flatnonzero(w)
        first, last = np.searchsorted(chosen, (before, before + len(here)))
        found.append(here[chosen[first:last] - before] + i)
        before += len(here)
    return np.concatenate(found)


def _series_at(done: Slabwise, voxels: NDArray[np.intp]) -> tuple[WeightedSeries | None, ParameterMaps]:
    """Return images (N, n) and maps (Q, n) of voxels. The series is `None` if there are none to map."""
    where = np.unravel_index(voxels, done.status.shape)
    images: NDArray[Any] | None = None
    for a, b in done.planes:
        here = (where[-1] >= a) & (where[-1] < b)
        if here.any():
            slab, _ = done.opened.read_planes(a, b)
            if images is None:
                images = np.empty((len(slab), len(voxels)), slab.dtype)
            images[:, here] = slab[_at(where, here, a)]
    maps = _maps_at(done, where)
    if images is None or not np.isfinite(images).any() or not images.any():
        return None, maps
    noise, given = _noise_at(done.opened.noise, where), _given_at(done.opened, where)
    return WeightedSeries(images, done.opened.model, noise=noise, given=given), maps


def _maps_at(done: Slabwise, where: tuple[NDArray[np.intp], ...]) -> ParameterMaps:
    n = len(where[0])
    Q = len(done.opened.model.parameters)
    kappa, deviation, residual = np.empty((Q, n)), np.empty((Q, n)), np.empty(n)
    for a, b in done.planes:
        here = (where[-1] >= a) & (where[-1] < b)
        if not here.any():
            continue
        maps = done.maps.read((a, b))
        at = _at(where, here, a)
        assert maps.sd_kappa is not None and maps.residual is not None
        kappa[:, here], deviation[:, here], residual[here] = maps.kappa[at], maps.sd_kappa[at], maps.residual[at[1:]]
    # derived maps are not needed for the noise of these voxels
    return replace(
        done.maps.head, kappa=kappa, sd_kappa=deviation, residual=residual, status=done.status[where], covariance=None
    )


def _at(where: tuple[NDArray[np.intp], ...], here: NDArray[np.bool_], a: int) -> tuple[Any, ...]:
    """Return the index of voxels in the maps or images of a slab that begins at plane `a`."""
    return (slice(None), *(w[here] for w in where[:-1]), where[-1][here] - a)


def _given_at(opened: OpenSeries, where: Any) -> dict[str, Any]:
    """Return the given parameters of some voxels."""
    return {name: value if np.ndim(value) == 0 else np.asarray(value)[where] for name, value in opened.given.items()}


def _noise_at(noise: Noise | None, where: Any) -> Noise | None:
    """Return the noise of some voxels."""
    return None if noise is None else noise.at(where)
