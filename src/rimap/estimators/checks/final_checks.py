"""What every estimator does with its maps at the end: the status of each voxel that the images decide, and warnings by
weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import ordered
from rimap.arrays import at_most
from rimap.estimators.base import as_many_as_parameters, conditioning_warnings, model_warnings
from rimap.estimators.checks.background import Levels, background
from rimap.estimators.checks.field_range import field_warnings
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.misfit import misfit_warnings, off_model_warnings
from rimap.estimators.checks.missing_values import Screened, sample_of_planes
from rimap.estimators.checks.mixtures import unexplained
from rimap.estimators.checks.noise_floor import noise_floor_warnings
from rimap.estimators.checks.nothing_mapped import nothing_mapped
from rimap.estimators.checks.residual_probability import (
    IMPROBABLE,
    SAMPLE,
    chance_of_residual,
    contradicts,
    usual_misfit,
)
from rimap.estimators.checks.rounded_maps import rounding_warnings
from rimap.estimators.checks.wrong_areas import MOST_FREE, with_their_areas
from rimap.estimators.noise_correlation import noise_correlation, with_correlation
from rimap.estimators.sigma import freedom, of_signal
from rimap.foreground import foreground
from rimap.image_brightness import levels_of, odd_levels
from rimap.likelihood import Gaussian
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries

#: A residual is a contradiction only if it also exceeds this share of the voxel's signal (root mean squares over the
#: images), also that of the best mixture of two tissues: small errors of the model and partial volume are larger than
#: the noise of a good scan.
LARGE = 0.08
#: Voxels with this share of the power of the object determine what misfit is usual.
_OF_BRIGHT = 0.25
#: So many voxels at most stand for a scan: three times what the levels and the usual misfit are found from.
_STANDING = 3 * SAMPLE
#: Statuses of voxels that were estimated.
_ESTIMATED = (Status.OK, Status.AT_BOUND, Status.NOT_CONVERGED, Status.OUTSIDE_TRAINING)
#: Voxels whose predicted signal is found at a time.
_CHUNK = 100_000
#: A given map must have a value in all but this share of the object.
_UNKNOWN = 0.05


@dataclass(frozen=True)
class Fit:
    """How an estimator fits, for what may be expected of its residuals.

    Parameters
    ----------
    estimated
        How many parameters of each voxel the residuals have lost: those that are free voxel by voxel.
    farther
        Excess of χ² over that of the best fit that is due to the estimator (its smoothing), not to the images.
    without_value
        Parameters that keep their value in background, by name: known ones, and smooth fields, which extend into it.
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
        The power of the object.
    misfit
        By which factor the χ² of the median voxel exceeds its expectation.
    """

    levels: Levels
    misfit: float

    @classmethod
    def of(cls, census: Census, maps: ParameterMaps, fit: Fit) -> Usual:
        """Return it from the census of the images of maps."""
        some, noise = standing(census, has(maps.status, _ESTIMATED)), maps.noise
        power, sigma = census.power.reshape(-1)[some], np.asarray(np.nan if noise is None else noise.sigma, float)
        residual = None if maps.residual is None else maps.residual.reshape(-1)[some].astype(float)
        if residual is not None:
            signal = of_signal(np.square(residual), power)
            some, power, residual = some[signal], power[signal], residual[signal]
        levels = Levels(at_most(power, SAMPLE))
        N, misfit = maps.model.n_images, 1.0
        free = N - fit.estimated
        if residual is not None and free > 0 and not np.isnan(sigma).all():
            good = at_most(np.flatnonzero(power > _OF_BRIGHT * levels.bright), SAMPLE)
            sigma = sigma if sigma.ndim == 0 else sigma.reshape(-1)[some[good]]
            squares = N * residual[good] ** 2
            misfit = usual_misfit(np.maximum(squares - fit.farther * sigma**2, 0), sigma, free)
        return cls(levels, misfit)


def standing(census: Census, estimated: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the places (in a row) of those voxels among the `estimated` (*X) that stand for the whole."""
    planes = planes_of(census)
    if planes is not None:
        of_planes = np.zeros_like(estimated)
        of_planes[..., planes] = estimated[..., planes]
        estimated = of_planes
    return at_most(np.flatnonzero(estimated), _STANDING)


def planes_of(census: Census) -> NDArray[np.intp] | None:
    """Return the planes of a volume that stand for the whole, `None` if that takes every voxel."""
    shape = census.shape
    if len(shape) < 3 or shape[2] == 1:
        return None
    planes = sample_of_planes(shape)
    power = census.power[..., planes]
    return planes if len(planes) < shape[2] and (np.isfinite(power) & (power > 0)).any() else None


def with_statuses(
    series: WeightedSeries,
    maps: ParameterMaps,
    fit: Fit,
    usual: Usual | None = None,
    doubtful: NDArray[np.bool_] | None = None,
    census: Census | None = None,
    part_of_slice: bool = False,
    air: NDArray[np.bool_] | None = None,
) -> tuple[ParameterMaps, NDArray[np.bool_]]:
    """Return maps in which background and voxels that do not follow the model have these quality flags.

    Background has no value. A voxel that does not follow the model keeps its value. With few degrees of freedom, the
    flag includes voxels that follow the model by chance, in an area that contradicts it.

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
    census
        The census of the images, if it is known.
    part_of_slice
        Areas are then left to `flag_wrong_areas` with the whole slice.
    air
        What `air_in` returns, if it is known.

    Returns
    -------
    The maps, and which voxels (*X) are background, also beside the mask.
    """
    status = has(maps.status, _ESTIMATED)
    if not status.any():
        return maps, np.zeros(maps.status.shape, bool)
    census = census or Census.of(series.images)
    usual = usual or Usual.of(census, maps, fit)
    sigma: Any = np.nan if maps.noise is None or maps.noise.sigma is None else maps.noise.sigma
    air = air_in(series, maps, usual, census) if air is None else air
    maps = _without(maps, air & status, fit.without_value)
    off = _off_model(series, maps, sigma, fit, usual.misfit, census)
    if doubtful is not None:
        off |= doubtful & has(maps.status, (Status.OK, Status.AT_BOUND))
    if not off.any():
        return maps, air
    new = maps.status.copy()
    new[off] = Status.OFF_MODEL
    if not part_of_slice:
        flag_wrong_areas(new, freedom(series))
    return replace(maps, status=new), air


def air_in(series: WeightedSeries, maps: ParameterMaps, usual: Usual, census: Census) -> NDArray[np.bool_]:
    """Return the voxels (*X) that are background, also beside the mask, for the status and noise of the maps."""
    status = has(maps.status, _ESTIMATED)
    none = np.zeros(status.shape, bool)
    if not series.model.amplitudes:  # without one (UNIT1) a value near zero is as good as any
        return none
    sigma: Any = np.nan if maps.noise is None or maps.noise.sigma is None else maps.noise.sigma
    air = background(
        census, sigma, signed=series.model.is_signed, usable=_usable(series, maps, census), levels=usual.levels
    )
    # Such a σ is wrong: nobody scans air alone.
    return none if maps.sigma_source == "given" and not (status & ~air).any() else air


def flag_wrong_areas(status: NDArray[np.uint8], free: int) -> None:
    """Flag voxels of a status map (*X) that follow the model by chance, in an area that contradicts it.

    Parameters
    ----------
    status
        Changed in place.
    free
        Degrees of freedom of a voxel: with many, none follows the model by chance.
    """
    if free <= MOST_FREE:
        known = has(status, (Status.OK, Status.AT_BOUND, Status.OFF_MODEL))
        status[with_their_areas(has(status, (Status.OFF_MODEL,)), known)] = Status.OFF_MODEL


def warnings_for(
    series: WeightedSeries,
    maps: ParameterMaps,
    fit: Fit,
    found: Iterable[str] = (),
    air: NDArray[np.bool_] | None = None,
    census: Census | None = None,
) -> tuple[str, ...]:
    """Return all warnings about maps, the most important first.

    Parameters
    ----------
    found
        Warnings of the estimator itself.
    air
        (*X), voxels without signal.
    """
    census = census or Census.of(series.images)
    return ordered(
        (
            *model_warnings(series.model),
            *rounding_warnings(series),
            *brightness_warnings(series),
            *found,
            *unknown_given(series),
            *field_warnings(series, maps, census),
            *as_many_as_parameters(series.model, fit.estimated),
            *conditioning_warnings(series, maps),
            *noise_floor_warnings(series, maps),
            *misfit_warnings(series, maps, fit.estimated, air, census, farther=fit.farther > 0),
            *off_model_warnings(maps),
            *nothing_mapped(series, maps),
        )
    )


def brightness_warnings(series: WeightedSeries) -> tuple[str, ...]:
    """Return what is odd about images that were given as arrays: those of files were looked at while they were read."""
    return () if series.source else tuple(odd_levels(levels_of(series.images), series.model))


def unknown_given(series: WeightedSeries) -> tuple[str, ...]:
    """Return a warning for each given map that has no value in more than a small part of the object."""
    found = []
    for name, value in series.given.items():
        if np.isfinite(value).all():
            continue
        thing = series.selected & foreground(series.images)
        share = float((~np.isfinite(value) & thing).sum() / max(thing.sum(), 1))
        if share > _UNKNOWN:
            found.append(
                f"The map of {name} has no value in {100 * share:.0f} % of the object: no map is made there. Give a "
                f"map of the whole object."
            )
    return tuple(found)


def judged(
    screen: Screened,
    maps: ParameterMaps,
    fit: Fit,
    found: Iterable[str] = (),
    air: NDArray[np.bool_] | None = None,
) -> ParameterMaps:
    """Return the maps of a series with their statuses and all warnings. `air` is what `air_in` returns, if known."""
    series, missing, census = screen
    maps, air = with_statuses(series, maps, fit, doubtful=missing.doubtful, census=census, air=air)
    found = (*found, *missing.advice(series.model))
    maps = replace(maps, warnings=warnings_for(series, maps, fit, found, air, census))
    return with_correlation(maps, noise_correlation(series, maps, fit.estimated))


def _usable(series: WeightedSeries, maps: ParameterMaps, census: Census) -> NDArray[np.bool_]:
    """Return the voxels (*X) whose images are finite, also beside a mask: they are neighbours."""
    finite = ~has(maps.status, (Status.NOT_FINITE, Status.OUTSIDE_MASK))
    if series.mask is None:
        return finite
    return np.asarray(finite | (~series.mask & np.isfinite(census.power)))


def _without(maps: ParameterMaps, where: NDArray[np.bool_], kept: tuple[str, ...]) -> ParameterMaps:
    """Return the maps without values in background."""
    if not where.any():
        return maps
    status, kappa, at = maps.status.copy(), maps.kappa.copy(), np.flatnonzero(where)
    status[where] = Status.NO_SIGNAL
    for row, parameter in enumerate(maps.model.parameters):
        if parameter.name not in kept:
            kappa[row].reshape(-1)[at] = np.nan
    changed: dict[str, Any] = {}
    for name in ("sd_kappa", "residual", "covariance"):
        values = getattr(maps, name)
        if values is not None:
            changed[name] = values.copy()
            changed[name].reshape(-1, where.size)[:, at] = np.nan
    return replace(maps, status=status, kappa=kappa, **changed)


def _off_model(
    series: WeightedSeries, maps: ParameterMaps, sigma: Any, fit: Fit, usual: float, census: Census
) -> NDArray[np.bool_]:
    """Return the voxels (*X) whose residual is improbable for σ, unusual in this scan, and large."""
    none = np.zeros(maps.status.shape, bool)
    N = series.model.n_images
    free = N - fit.estimated
    if maps.residual is None or free < 1 or not np.isfinite(sigma).any():
        return none
    at = np.flatnonzero(np.square(maps.residual, dtype=float) > LARGE**2 * (free / N) * census.power)
    at = at[has(maps.status.reshape(-1)[at], (Status.OK, Status.AT_BOUND))]
    if not len(at):
        return none
    s = np.asarray(sigma, float)
    s = s if s.ndim == 0 else s.reshape(-1)[at]
    squares = N * np.asarray(maps.residual, float).reshape(-1)[at] ** 2
    off = contradicts(np.maximum(squares - fit.farther * s**2, 0), s, free, usual=usual)
    if maps.noise is not None and not isinstance(maps.noise, Gaussian):
        at, off, s = at[off], off[off], s if np.ndim(s) == 0 else s[off]
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
    for index in range(0, len(at), _CHUNK):
        some = at[index : index + _CHUNK]
        here = sigma if np.ndim(sigma) == 0 else sigma[index : index + _CHUNK]
        S = np.stack([image[np.unravel_index(some, maps.status.shape)] for image in series.images]).astype(float)
        mean = type(noise)(sigma=here).mean(series.model.signal(kappa[:, some].astype(float)))
        squares = ((S - mean) ** 2).sum(0)
        found[index : index + _CHUNK] = (
            chance_of_residual(np.maximum(squares - fit.farther * here**2, 0), here, free) < IMPROBABLE
        )
    return found
