"""The noise level of a series, where the user does not give it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from rimap.series import ParameterMaps, Status, WeightedSeries

Floats = NDArray[Any]

#: Images are looked at in at most this many voxels.
_SAMPLE = 50_000
#: Voxels whose root mean square exceeds this many σ have signal.
_SIGNAL = 4.0
#: Standard deviation over mean of a Rayleigh distribution.
_RAYLEIGH_CV = 0.5227


def estimate_sigma(
    series: WeightedSeries, maps: ParameterMaps, rms: Floats | None = None, held: Iterable[str] | None = None
) -> tuple[float, str]:
    """Return σ and where it comes from, ``residuals`` or ``background``; NaN and ``unknown`` where neither has it.

    From the residuals of a least-squares fit: the median over voxels with signal of the sum of squares, which is
    σ² χ² with N − Q degrees of freedom. Where N = Q there are none; then from the background.

    Parameters
    ----------
    series
        Its mask is honoured for the residuals; the background is what lies outside of it.
    maps
        Of a least-squares estimator, with `residual`.
    rms
        (*X) root mean square over the images, if it is known.
    held
        Names of the parameters that were not estimated; by default those that are known with the series.
    """
    sigma = sigma_from_residuals(series, maps, rms, held)
    if np.isfinite(sigma):
        return sigma, "residuals"
    sigma = sigma_from_background(series)
    return (sigma, "background") if np.isfinite(sigma) else (np.nan, "unknown")


def sigma_from_residuals(
    series: WeightedSeries, maps: ParameterMaps, rms: Floats | None = None, held: Iterable[str] | None = None
) -> float:
    """Return σ from the residuals (robust, pooled), NaN where there are no degrees of freedom."""
    known_parameters = set(series.held if held is None else held)
    free = series.model.n_images - sum(p.name not in known_parameters for p in series.model.parameters)
    if free < 1 or maps.residual is None:
        return float("nan")
    known = (maps.status == Status.OK) | (maps.status == Status.AT_BOUND)
    voxels = np.arange(0, known.size, _step(known.size)) if known.all() else _thin(np.flatnonzero(known))
    if not len(voxels):
        return float("nan")
    rms = np.sqrt((_values(series, voxels) ** 2).mean(0)) if rms is None else rms.reshape(-1)[voxels]
    rss = np.asarray(maps.residual, dtype=float).reshape(-1)[voxels] ** 2 * series.model.n_images
    interior = maps.status.reshape(-1)[voxels] == Status.OK
    chosen = rms > 0.1 * quantile(rms, 0.98)
    if not chosen.any():  # squares below or beyond what a float can hold
        return float("nan")
    if not interior.all() and (chosen & interior).sum() > 0.2 * chosen.sum():
        rms, rss, chosen = rms[interior], rss[interior], chosen[interior]
    sigma = 0.0
    for _ in range(4):
        sigma = float(np.sqrt(quantile(rss if chosen.all() else rss[chosen], 0.5) / chi2(0.5, free)))
        stronger = rms > _SIGNAL * sigma
        if not stronger.any() or np.array_equal(chosen, stronger):
            break
        chosen = stronger
    floor = 1e-7 * quantile(rms[chosen], 0.5)  # noiseless to the precision of float32
    return max(sigma, floor) if sigma + floor > 0 else float("nan")


def sigma_from_background(series: WeightedSeries) -> float:
    """Return σ from air: Rayleigh distributed in magnitude images, N(0, σ²) in signed ones; NaN where there is none.

    Air is sought outside the mask (everywhere, if there is none) among the voxels of the lowest power; it is
    accepted where enough voxels agree and the spread of their values is that of the distribution.
    """
    where = np.ones(series.shape, bool) if series.mask is None else ~series.mask
    voxels = _thin(np.flatnonzero(where))
    if not len(voxels):
        return float("nan")
    S = _values(series, voxels)
    S = S[:, np.isfinite(S).all(0) & (S != 0).any(0)]
    signed = series.model.is_signed
    channels = 1 if signed else 2
    enough = max(50, len(voxels) // 100)
    if S.shape[1] < enough:
        return float("nan")
    N = S.shape[0]
    power = (S**2).mean(0)  # σ² χ²(channels·N)/N
    sigma2 = np.percentile(power, 5) / channels
    limit = chi2(0.999, channels * N) / N
    middle = chi2(0.5, channels * N) / N
    air = power < sigma2 * limit
    for _ in range(20):
        if air.sum() < enough:
            return float("nan")
        sigma2 = float(np.median(power[air])) / middle
        air = power < sigma2 * limit
    values = S[:, air]
    mean, sd = values.mean(), values.std()
    if signed:
        fits = abs(mean) < 0.2 * sd
    else:
        fits = abs(sd / mean - _RAYLEIGH_CV) < 0.1 and (values == 0).mean() < 0.2
    # Air is the same in every image, and its voxels differ as chance alone makes them differ.
    fits &= values.mean(1).std() < 0.1 * sd
    spread = power[air].std() / power[air].mean() / np.sqrt(2 / (channels * N))
    fits &= 0.6 < spread < 1.5
    return float(np.sqrt(sigma2)) if fits else float("nan")


def quantile(x: Floats, q: float) -> float:
    """Return what `np.quantile` returns, faster: what cannot hold it is only counted."""
    place = q * (len(x) - 1)
    k, few = int(place), np.sort(x[:: len(x) // 1000 + 1])
    low, high = (few[int(np.clip(q * len(few) + side * 70, 0, len(few) - 1))] for side in (-1, 1))
    below, near = np.count_nonzero(x < low), x[(x >= low) & (x <= high)]
    if not below <= k < below + len(near) - 1:
        return float(np.quantile(x, q))
    pair = np.partition(near, (k - below, k - below + 1))[k - below : k - below + 2]
    return float(pair[0] + (place - k) * (pair[1] - pair[0]))


def _thin(voxels: NDArray[np.intp]) -> NDArray[np.intp]:
    return voxels[:: _step(len(voxels))]


def _step(voxels: int) -> int:
    return -(-voxels // _SAMPLE) or 1


def _values(series: WeightedSeries, voxels: NDArray[np.intp]) -> NDArray[np.float64]:
    if series.images.flags.c_contiguous:
        return np.stack([image.reshape(-1)[voxels] for image in series.images]).astype(np.float64)
    where = np.unravel_index(voxels, series.shape)
    return np.stack([image[where] for image in series.images]).astype(np.float64)


def chi2(q: float, free: int) -> float:
    """Return the quantile q of χ² with `free` degrees of freedom (importing scipy.stats for it takes 0.4 s)."""
    return float(2 * gammaincinv(free / 2, q))
