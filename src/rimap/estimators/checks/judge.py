"""What every estimator does with its maps at the end: the status of each voxel that the images decide, and warnings by weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import ordered
from rimap.estimators.base import as_many_as_parameters, conditioning_warnings, model_warnings
from rimap.estimators.checks.background import background, levels_of
from rimap.estimators.checks.field_range import field_warnings
from rimap.estimators.checks.improbable import IMPROBABLE, chance_of_residual, contradicts, usual_misfit
from rimap.estimators.checks.misfit import misfit_warnings, off_model_warnings
from rimap.estimators.checks.missing import Missing, sample_of_planes
from rimap.estimators.checks.mixtures import unexplained
from rimap.estimators.checks.noise_floor import noise_floor_warnings
from rimap.likelihood import Gaussian
from rimap.series import ParameterMaps, Status, WeightedSeries

#: A residual is a contradiction only if it also exceeds this share of the voxel's signal (root mean squares over the images), also
#: that of the best mixture of two tissues: small errors of the model and partial volume are larger than the noise of a good scan.
LARGE = 0.08
#: Voxels with this share of the power of the object tell what misfit is usual.
_OF_BRIGHT = 0.25
#: Statuses of voxels that were estimated.
_ESTIMATED = (Status.OK, Status.AT_BOUND, Status.NOT_CONVERGED, Status.OUTSIDE_TRAINING)
#: Voxels whose predicted signal is found at a time.
_CHUNK = 100_000


@dataclass(frozen=True)
class Fit:
    """How an estimator fits, for what may be expected of its residuals.

    Parameters
    ----------
    estimated
        How many parameters of each voxel the residuals have lost: those that are free voxel by voxel.
    farther
        By how much χ² of a voxel may exceed that of the best fit because the estimator says so, not the images.
    without_value
        Parameters that keep their value in background, by name: known ones, and smooth fields that go on there.
    """

    estimated: int
    farther: float = 0.0
    without_value: tuple[str, ...] = ()


@dataclass(frozen=True)
class Usual:
    """What a scan is like, from some planes that stand for the whole.

    Parameters
    ----------
    levels
        The power of the object, and that above which voxels belong to it.
    misfit
        By which factor the χ² of the median voxel exceeds its expectation.
    """

    levels: tuple[float, float]
    misfit: float

    @classmethod
    def of(cls, series: WeightedSeries, maps: ParameterMaps, fit: Fit) -> Usual:
        """Return it from the planes of a series that stand for the whole (`sampled`)."""
        power = np.mean([np.square(image, dtype=float) for image in series.images], axis=0)
        some = np.isin(maps.status, _ESTIMATED)
        levels = levels_of(power[some])
        misfit, free = 1.0, series.model.n_images - fit.estimated
        noise = maps.noise
        if maps.residual is not None and free > 0 and noise is not None and noise.sigma is not None:
            sigma = np.asarray(noise.sigma, float)
            good = some & (power > _OF_BRIGHT * levels[0])
            sigma = sigma if sigma.ndim == 0 else sigma[good]
            squares = len(series.images) * maps.residual[good].astype(float) ** 2
            misfit = usual_misfit(np.maximum(squares - fit.farther * sigma**2, 0), sigma, free)
        return cls(levels, misfit)


def sampled(series: WeightedSeries, maps: ParameterMaps) -> tuple[WeightedSeries, ParameterMaps]:
    """Return the planes of a volume that stand for the whole."""
    if len(series.shape) < 3 or series.shape[2] == 1:
        return series, maps
    planes = sample_of_planes(series.shape)
    images, status = series.images[..., planes], maps.status[..., planes]
    if not np.isfinite(images).any() or not np.nan_to_num(images).any():
        return series, maps
    sigma: Any = np.nan if maps.noise is None else maps.noise.sigma
    noise = (
        maps.noise
        if np.ndim(sigma) == 0 or maps.noise is None
        else type(maps.noise)(sigma=np.asarray(sigma)[..., planes])
    )
    mask = None if series.mask is None or not series.mask[..., planes].any() else series.mask[..., planes]
    given = {k: v if np.ndim(v) == 0 else np.asarray(v)[..., planes] for k, v in series.given.items()}
    return (
        replace(series, images=images, mask=mask, noise=noise, given=given),
        replace(
            maps,
            kappa=maps.kappa[..., planes],
            status=status,
            residual=None if maps.residual is None else maps.residual[..., planes],
            sd_kappa=None,
            covariance=None,
            noise=noise,
        ),
    )


def with_statuses(
    series: WeightedSeries,
    maps: ParameterMaps,
    fit: Fit,
    usual: Usual | None = None,
    doubtful: NDArray[np.bool_] | None = None,
) -> tuple[ParameterMaps, NDArray[np.bool_]]:
    """Return maps whose background is no signal, and in which voxels that do not follow the model say so.

    Background has no value. A voxel that does not follow the model keeps its value.

    Parameters
    ----------
    series
        The images of the maps.
    maps
        With their noise.
    fit
        How they were fitted.
    usual
        Of a slab: that of the whole.
    doubtful
        (*X), voxels whose images hold wrong values.

    Returns
    -------
    The maps, and which voxels (*X) are background, also beside the mask.
    """
    status = np.isin(maps.status, _ESTIMATED)
    if not status.any():
        return maps, np.zeros(maps.status.shape, bool)
    usual = usual or Usual.of(*sampled(series, maps), fit)
    sigma: Any = np.nan if maps.noise is None or maps.noise.sigma is None else maps.noise.sigma
    air = background(
        series.images, sigma, signed=series.model.is_signed, usable=_usable(series, maps), levels=usual.levels
    )
    if maps.sigma_source == "given" and not (status & ~air).any():
        air = np.zeros(status.shape, bool)  # such a σ is wrong, and a scan of air alone is no scan
    maps = _without(maps, air & status, fit.without_value)
    off = _off_model(series, maps, sigma, fit, usual.misfit)
    if doubtful is not None:
        off |= doubtful & np.isin(maps.status, (Status.OK, Status.AT_BOUND))
    if not off.any():
        return maps, air
    new = maps.status.copy()
    new[off] = Status.OFF_MODEL
    return replace(maps, status=new), air


def warnings_for(
    series: WeightedSeries,
    maps: ParameterMaps,
    fit: Fit,
    found: Iterable[str] = (),
    air: NDArray[np.bool_] | None = None,
) -> tuple[str, ...]:
    """Return all warnings about maps, the heaviest first; `found` are those that the estimator has to add."""
    return ordered(
        (
            *model_warnings(series.model),
            *found,
            *field_warnings(series, maps),
            *as_many_as_parameters(series.model, fit.estimated),
            *conditioning_warnings(series, maps),
            *noise_floor_warnings(series, maps),
            *misfit_warnings(series, maps, fit.estimated, air),
            *off_model_warnings(maps),
        )
    )


def judged(
    series: WeightedSeries, maps: ParameterMaps, fit: Fit, missing: Missing, found: Iterable[str] = ()
) -> ParameterMaps:
    """Return the maps with their statuses and all warnings; `missing` are values of the images that were not measured."""
    maps, air = with_statuses(series, maps, fit, doubtful=missing.doubtful)
    return replace(maps, warnings=warnings_for(series, maps, fit, (*found, *missing.advice(series.model)), air))


def _usable(series: WeightedSeries, maps: ParameterMaps) -> NDArray[np.bool_]:
    """Return the voxels (*X) whose images are finite, also beside a mask: they are neighbours."""
    finite = np.asarray((maps.status != Status.NOT_FINITE) & (maps.status != Status.OUTSIDE_MASK))
    if series.mask is None:
        return finite
    beside = ~series.mask
    for image in series.images:
        beside = beside & np.isfinite(image)
    return np.asarray(finite | beside)


def _without(maps: ParameterMaps, where: NDArray[np.bool_], kept: tuple[str, ...]) -> ParameterMaps:
    """Return the maps without values in background."""
    if not where.any():
        return maps
    status, kappa = maps.status.copy(), maps.kappa.copy()
    status[where] = Status.NO_SIGNAL
    for q, p in enumerate(maps.model.parameters):
        if p.name not in kept:
            kappa[q][where] = np.nan
    changed: dict[str, Any] = {}
    for name in ("sd_kappa", "residual", "covariance"):
        values = getattr(maps, name)
        if values is not None:
            changed[name] = values.copy()
            changed[name][..., where] = np.nan
    return replace(maps, status=status, kappa=kappa, **changed)


def _off_model(series: WeightedSeries, maps: ParameterMaps, sigma: Any, fit: Fit, usual: float) -> NDArray[np.bool_]:
    """Return the voxels (*X) whose residual is improbable for σ, unusual in this scan, and large."""
    none = np.zeros(maps.status.shape, bool)
    N = series.model.n_images
    free = N - fit.estimated
    if maps.residual is None or free < 1 or not np.isfinite(sigma).any():
        return none
    judged_ones = np.isin(maps.status, (Status.OK, Status.AT_BOUND)) & np.isfinite(maps.residual)
    at = np.flatnonzero(judged_ones)
    if not len(at):
        return none
    s = np.asarray(sigma, float)
    s = s if s.ndim == 0 else s.reshape(-1)[at]
    squares = N * np.asarray(maps.residual, float).reshape(-1)[at] ** 2
    suspect = contradicts(np.maximum(squares - fit.farther * s**2, 0), s, free, usual=usual)
    at, squares = at[suspect], squares[suspect]
    s = s if np.ndim(s) == 0 else s[suspect]
    where = np.unravel_index(at, maps.status.shape)
    power = np.zeros(len(at))
    for image in series.images:
        power += image[where].astype(float) ** 2
    off = squares * (N / free) > LARGE**2 * power
    if maps.noise is not None and not isinstance(maps.noise, Gaussian):
        off &= _far_from_mean(series, maps, at, s, fit, free)
    at = at[off]
    at = at[unexplained(series, maps, at) > LARGE**2]
    out = none.reshape(-1)
    out[at] = True
    return out.reshape(none.shape)


def _far_from_mean(
    series: WeightedSeries, maps: ParameterMaps, at: NDArray[np.intp], sigma: Any, fit: Fit, free: int
) -> NDArray[np.bool_]:
    """Return which voxels `at` are as improbable about what the noise model expects: a magnitude exceeds its signal."""
    found = np.zeros(len(at), bool)
    noise = maps.noise
    assert noise is not None
    kappa = maps.kappa.reshape(len(maps.kappa), -1)
    for i in range(0, len(at), _CHUNK):
        some = at[i : i + _CHUNK]
        here = sigma if np.ndim(sigma) == 0 else sigma[i : i + _CHUNK]
        S = np.stack([image[np.unravel_index(some, maps.status.shape)] for image in series.images]).astype(float)
        mean = type(noise)(sigma=here).mean(series.model.signal(kappa[:, some].astype(float)))
        squares = ((S - mean) ** 2).sum(0)
        found[i : i + _CHUNK] = (
            chance_of_residual(np.maximum(squares - fit.farther * here**2, 0), here, free) < IMPROBABLE
        )
    return found
