"""σ from the residuals of magnitudes at low SNR: by how much a fit follows the noise is found by fitting simulated
images.

The residuals of a least-squares fit are σ² χ² with N − Q degrees of freedom if the signal is nearly linear in its
parameters over the noise. At low SNR it is not: magnitudes are folded at zero, a search over polarities leaves less
than one polarity would, and times at the end of their range absorb noise. So images are simulated at the estimates,
with noise of the σ that was found, and fitted the same way; what their residuals lack, those of the scan lack too
(parametric bootstrap).

Estimates scatter more than the truth, most of all if one degree of freedom is left (four images of an inversion
recovery), and images that are simulated there leave more residual than those of the scan: σ was 14 % low at SNR 4. A
smooth field needs no degree of freedom of each voxel. So at such an SNR both, the scan and what is simulated, are
fitted with the field of their region of the volume.

References
----------
Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 10 (estimates of bias).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_most
from rimap.estimators.base import by_time
from rimap.estimators.possible_values import possible
from rimap.estimators.sigma import CONTRADICTS, LOW, SAMPLE, air_power, chi2, dark_below, freedom, values_at
from rimap.likelihood import Rician
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries

#: Number of voxels at most, and at least.
_VOXELS, _FEWEST = 3_000, 100
#: Number of simulated voxels at least if one degree of freedom is left: the median of χ² then scatters twice as much as
#: with three.
_OF_ONE = 12_000
#: Rounds at most, and the relative change of σ at which they end.
_ROUNDS, _CLOSE = 5, 0.01
#: σ from the residuals is too low by at most this factor. Voxels whose residual contradicts σ times this do not count.
_MOST_LESS = 1.5
#: Voxels at least that determine the field of a region.
_REGION = 150
#: A field that is not smooth (that of a model without the term of TR follows the tissue) leaves residuals of its own: σ
#: with the field of regions may exceed that with the field of each voxel by this factor.
_MOST_MORE = 1.35

#: Fits a list of voxels with some parameters known.
Refit = Callable[[WeightedSeries, Mapping[str, Any]], ParameterMaps]


def calibrated(
    series: WeightedSeries,
    maps: ParameterMaps,
    sigma: float,
    held: Mapping[str, Any],
    refit: Refit,
    rms: NDArray[Any] | None = None,
) -> float:
    """Return σ so that images simulated with it leave the residuals of the scan, in the median voxel.

    Parameters
    ----------
    series, maps
        The images and their least-squares estimates, with residual.
    sigma
        From the residuals, to begin with.
    held
        What is known of the parameters, numbers or maps (*X) by name.
    refit
        The same least squares.
    rms
        (*X), root mean square over the images, if it is known.
    """
    assert maps.residual is not None
    known = np.flatnonzero(has(maps.status, (Status.OK, Status.AT_BOUND)))
    known = at_most(known, SAMPLE)
    S = values_at(series, known)
    rms = np.sqrt((S**2).mean(0)) if rms is None else rms.reshape(-1)[known]
    chosen = rms > max(dark_below(rms), np.sqrt(air_power(series.model)) * sigma)
    rss = series.model.n_images * np.square(maps.residual.reshape(-1)[known].astype(float))
    chosen &= possible(S, magnitude=series.model.magnitude)
    chosen &= rss < _MOST_LESS**2 * sigma**2 * chi2(1 - CONTRADICTS, freedom(series, held))
    some = np.flatnonzero(chosen)
    some = at_most(some, _VOXELS)
    if len(some) < _FEWEST:
        return sigma
    place = np.unravel_index(known[some], series.shape)
    given = {name: value if np.ndim(value) == 0 else np.asarray(value)[place] for name, value in held.items()}
    voxels = replace(series, images=S[:, some], mask=None, noise=None, given={}, affine=None)
    kappa = maps.kappa.reshape(len(maps.kappa), -1)[:, known[some]]
    left = rss[chosen] / series.model.n_images
    field = series.model.field
    if field is None or not field.smooth or field.name in given:
        return _matched(voxels, kappa, left, sigma, given, refit)
    smooth = {**given, field.name: _by_region(kappa[series.model.index(field.name)], place)}
    fitted = refit(voxels, smooth)
    assert fitted.residual is not None
    of_voxels = _matched(voxels, fitted.kappa, left, sigma, given, refit)
    if float(np.median(rms[some])) > LOW * of_voxels:
        return of_voxels
    of_regions = _matched(voxels, fitted.kappa, np.square(fitted.residual), of_voxels, smooth, refit)
    return of_regions if of_regions < _MOST_MORE * of_voxels else of_voxels


def _matched(
    voxels: WeightedSeries,
    kappa: NDArray[Any],
    left: NDArray[np.float64],
    sigma: float,
    given: Mapping[str, Any],
    refit: Refit,
) -> float:
    """Return σ so that images simulated at κ (Q, V) leave the mean squares `left` (V) in the median voxel."""
    f = voxels.model.signal(np.asarray(np.nan_to_num(kappa), float))
    if freedom(voxels, given) == 1 and (draws := -(-_OF_ONE // f.shape[1])) > 1:
        f = np.tile(f, draws)
        given = {name: np.tile(value, draws) if np.ndim(value) else value for name, value in given.items()}
    middle, found, order = float(np.nanmedian(left)), sigma, by_time(voxels.model)
    for _ in range(_ROUNDS):
        drawn = np.empty(f.shape)
        drawn[order] = Rician(sigma=found).sample(
            f[order], np.random.default_rng(0)
        )  # whatever the order of the images
        again = refit(replace(voxels, images=drawn), given).residual
        assert again is not None
        residual = float(np.nanmedian(np.square(again)))
        if not residual > 0:
            return sigma
        new = found * float(np.sqrt(middle / residual))
        if abs(new / found - 1) < _CLOSE:
            return new
        found = new
    return found


def _by_region(values: NDArray[np.float64], place: tuple[NDArray[np.intp], ...]) -> NDArray[np.float64]:
    """Return the median over the region of each voxel (V): the volume is cut at its median along its longest edge,
    again and again. A list of voxels is one region.
    """
    if len(place) < 2:
        return np.full(values.shape, np.nanmedian(values))
    positions, out = np.stack(place), np.empty(values.shape)
    regions = [np.arange(len(values))]
    while regions:
        region = regions.pop()
        if len(region) < 2 * _REGION:
            out[region] = np.nanmedian(values[region])
            continue
        axis = int(np.ptp(positions[:, region], axis=1).argmax())
        order = region[np.argsort(positions[axis, region], kind="stable")]
        regions += [order[: len(order) // 2], order[len(order) // 2 :]]
    return out
