"""The noise level of a series, where the user does not give it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_most
from rimap.estimators.possible_values import possible_at
from rimap.estimators.quantiles import chi2_quantile
from rimap.foreground import otsu
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

Floats = NDArray[Any]

#: Images are looked at in at most this many voxels.
SAMPLE = 20_000
#: Number of voxels that determine the object from air.
_FEWER = 8_192
#: Voxels have signal whose power exceeds that of noise alone by this many standard deviations of it.
_SIGNAL = 4.0
#: Below so many σ (root mean square over the images) the residuals of magnitudes are no longer those of Gaussian noise,
#: and few images let a fit follow the noise: air then says better what σ is, if it agrees with the residuals within
#: these factors (the last one if there is a single degree of freedom: searched over polarities, such a fit leaves half
#: of the noise).
LOW, _AGREE = 8.0, (0.85, 1.35, 2.0)
#: Below so many σ the residuals of magnitudes lack some of the noise, by the degrees of freedom: with one, by 16 % for
#: 17 σ and 9 % for 38 σ (inversion times of 100 to 2700 ms); with two, by 7 % for 14 σ.
_FOLDED = {1: 60.0, 2: 25.0}
#: With more they lack less (0.6 % for 11 σ and 31 images): this many σ up to six degrees of freedom, and then less,
#: with their square root.
_FOLDED_BEYOND, _FREE = 15.0, 6
#: Voxels of which the fit explains a smaller share of the power do not follow the model at all.
_EXPLAINED = 0.5
#: A residual that noise alone exceeds with less than this chance contradicts the model and does not say what noise is.
CONTRADICTS = 1e-7
#: Where more of the voxels do, noise differs between regions, or the model is wrong: σ is then that of all.
_MOST_CONTRADICTING = 0.25
#: Standard deviation over mean of a Rayleigh distribution.
_RAYLEIGH_CV = 0.5227
#: σ and the level of the signal, if neither can be estimated.
_UNKNOWN = (float("nan"), float("nan"))


def estimate_sigma(
    series: WeightedSeries,
    maps: ParameterMaps,
    rms: Floats | None = None,
    held: Iterable[str] | None = None,
    calibrated: Callable[[float], float] | None = None,
) -> tuple[float, str]:
    """Return σ and where it comes from, ``residuals`` or ``background``; NaN and ``unknown`` where neither has it.

    From the residuals of a least-squares fit: the median over voxels with signal of the sum of squares, which is
    σ² χ² with N − Q degrees of freedom. Where N = Q there are none; then from the background, and also where the signal
    is so low that the residuals of magnitudes are no longer Gaussian.

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
    calibrated
        Returns what σ from the residuals of magnitudes should be at low SNR, where air does not say it.
    """
    sigma, strength = _from_residuals(series, maps, rms, held)
    if np.isfinite(sigma):
        if strength < LOW * sigma:
            air = sigma_from_background(series)
            least, most, single = _AGREE
            if least * sigma < air < (single if freedom(series, held) == 1 else most) * sigma:
                return air, "background"
        free = freedom(series, held)
        limit = _FOLDED.get(free, _FOLDED_BEYOND * min(1.0, (_FREE / free) ** 0.5))
        if calibrated is not None and not series.model.is_signed and strength < limit * sigma:
            sigma = calibrated(sigma)
        return sigma, "residuals"
    sigma = sigma_from_background(series)
    return (sigma, "background") if np.isfinite(sigma) else (np.nan, "unknown")


def of_signal(squares: Floats, power: Floats) -> NDArray[np.bool_]:
    """Return the voxels (V) whose brightness is that of a signal; all of them if that is a minority.

    An artefact that is bright in one image is brighter than the object and does not follow the model at all. It does
    not determine what is dark, what is noise, and what is usual in the scan.

    Parameters
    ----------
    squares, power
        (V), means over the images of the squares of the residuals and of the values.
    """
    signal = np.asarray(squares < (1 - _EXPLAINED) * power)
    return signal if 2 * np.count_nonzero(signal) > signal.size else np.ones(signal.shape, bool)


def sigma_from_residuals(
    series: WeightedSeries, maps: ParameterMaps, rms: Floats | None = None, held: Iterable[str] | None = None
) -> float:
    """Return σ from the residuals of all voxels (robust), NaN if there are no degrees of freedom; `rms` is (*X)."""
    return _from_residuals(series, maps, rms, held)[0]


def _from_residuals(
    series: WeightedSeries, maps: ParameterMaps, rms: Floats | None, held: Iterable[str] | None
) -> tuple[float, float]:
    """Return σ from the residuals, and the root mean square over the images of the median voxel with signal."""
    free = freedom(series, held)
    if free < 1 or maps.residual is None:
        return _UNKNOWN
    known = has(maps.status, (Status.OK, Status.AT_BOUND))
    if not known.any():
        return _UNKNOWN
    voxels = sampled(known)
    rms = np.sqrt((values_at(series, voxels) ** 2).mean(0)) if rms is None else rms.reshape(-1)[voxels]
    rss = np.asarray(maps.residual, dtype=float).reshape(-1)[voxels] ** 2 * series.model.n_images
    interior = maps.status.reshape(-1)[voxels] == int(Status.OK)
    interior &= possible_at(series, voxels)
    signal = of_signal(rss / series.model.n_images, np.square(rms, dtype=float))
    if not signal.all():
        rms, rss, interior = rms[signal], rss[signal], interior[signal]
    chosen = rms > dark_below(rms)
    if not chosen.any():  # squares below or beyond what a float can hold
        return _UNKNOWN
    if not interior.all() and (chosen & interior).sum() > 0.2 * chosen.sum():
        rms, rss, chosen = rms[interior], rss[interior], chosen[interior]
    sigma = 0.0
    noise, contradicting = np.sqrt(air_power(series.model)), chi2(1 - CONTRADICTS, free)
    for _ in range(4):
        sigma = float(np.sqrt(quantile(rss if chosen.all() else rss[chosen], 0.5) / chi2(0.5, free)))
        stronger = rms > noise * sigma
        follow = stronger & (rss < sigma**2 * contradicting)
        if np.count_nonzero(follow) > (1 - _MOST_CONTRADICTING) * np.count_nonzero(stronger):
            stronger = follow
        if not stronger.any() or np.array_equal(chosen, stronger):
            break
        chosen = stronger
    strength = quantile(rms[chosen], 0.5)
    floor = 1e-7 * strength  # noiseless to the precision of float32
    return (max(sigma, floor) if sigma + floor > 0 else float("nan")), strength


def sampled(known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the places (in a row) of those voxels with known estimates (*X) that determine σ."""
    return at_most(np.flatnonzero(known), SAMPLE)


def air_power(model: SignalModel) -> float:
    """Return the power, in units of σ², above which a voxel has more than noise."""
    channels = 1 if model.is_signed else 2
    return float(channels * (1 + _SIGNAL * np.sqrt(2 / (channels * model.n_images))))


def freedom(series: WeightedSeries, held: Iterable[str] | None = None) -> int:
    """Return N − Q, the degrees of freedom of the residuals of a voxel; `held` is that of `estimate_sigma`."""
    known_parameters = set(series.held if held is None else held)
    return series.model.n_images - sum(parameter.name not in known_parameters for parameter in series.model.parameters)


def dark_below(rms: Floats) -> float:
    """Return the root mean square that separates air from the object, from the root mean square of each voxel (V,).

    It is Otsu's threshold of the square root of `rms`, if there are two groups of voxels.
    """
    from rimap.estimators.sigma_kernels import histogram, split_sums  # numba is slow to import

    rms = at_most(rms, _FEWER)
    top = quantile(rms, 0.98)
    finite = np.isfinite(rms)
    x = np.sqrt(rms if finite.all() else rms[finite])
    low, high = x.min(initial=np.inf), x.max(initial=0)
    if not high - low > 1e-6 * high:  # one kind of voxel, and no bins between
        return float(0.1 * top)
    counts, edges = np.zeros(128, np.int64), np.linspace(low, high, 129, dtype=x.dtype)
    histogram(x, edges, counts)
    limit = x.dtype.type(otsu(counts.astype(float), edges))
    sum_dark, dark, total_sum = split_sums(x, limit)
    bright = len(x) - dark
    if bright < 0.01 * len(x) or dark < 0.05 * len(x) or sum_dark / dark > 0.6 * (total_sum - sum_dark) / bright:
        return float(0.1 * top)
    return float(max(limit**2, 0.1 * top))


def sigma_from_background(series: WeightedSeries) -> float:
    """Return σ from air: Rayleigh distributed in magnitude images, N(0, σ²) in signed ones; NaN if there is none.

    Air is sought outside the mask (everywhere, if there is none) among the voxels of the lowest power; it is
    accepted where enough voxels agree and the spread of their values is that of the distribution.
    """
    where = np.ones(series.shape, bool) if series.mask is None else ~series.mask
    voxels = at_most(np.flatnonzero(where), SAMPLE)
    if not len(voxels):
        return float("nan")
    S = values_at(series, voxels)
    S = S[:, np.isfinite(S).all(0) & (S != 0).any(0)]
    signed = series.model.is_signed
    channels = 1 if signed else 2
    enough = max(50, len(voxels) // 100)
    if S.shape[1] < enough:
        return float("nan")
    N = S.shape[0]
    power = (S**2).mean(0)  # σ² χ²(channels·N)/N
    if series.mask is None and (dark := power <= dark_below(np.sqrt(power)) ** 2).sum() >= enough:
        S, power = S[:, dark], power[dark]
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
    mean, deviation = values.mean(), values.std()
    if signed:
        fits = abs(mean) < 0.2 * deviation
    else:
        fits = abs(deviation / mean - _RAYLEIGH_CV) < 0.1 and (values == 0).mean() < 0.2
    # Air is the same in every image, and its voxels differ as chance alone makes them differ.
    fits &= values.mean(1).std() < 0.1 * deviation
    spread = power[air].std() / power[air].mean() / np.sqrt(2 / (channels * N))
    fits &= 0.6 < spread < 1.5
    return float(np.sqrt(sigma2)) if fits else float("nan")


def quantile(x: Floats, q: float) -> float:
    """Return what ``np.quantile(x, q)`` returns for x (n,), but sort only the values that can be the quantile."""
    from rimap.estimators.sigma_kernels import between  # numba is slow to import

    place = q * (len(x) - 1)
    k, few = int(place), np.sort(x[:: len(x) // 1000 + 1])
    near_place = q * len(few)
    low, high = few[max(int(near_place - 70), 0)], few[min(int(near_place + 70), len(few) - 1)]
    found = np.empty(len(x) + 1, x.dtype)
    number, below = between(x, low, high, found)
    near = found[:number]
    if not below <= k < below + len(near) - 1:
        return float(np.quantile(x, q))
    pair = np.partition(near, (k - below, k - below + 1))[k - below : k - below + 2]
    return float(pair[0] + (place - k) * (pair[1] - pair[0]))


def values_at(series: WeightedSeries, voxels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the images (N, V) at voxels (flat indices)."""
    if series.images.flags.c_contiguous:
        return np.stack([image.reshape(-1)[voxels] for image in series.images]).astype(np.float64)
    where = np.unravel_index(voxels, series.shape)
    return np.stack([image[where] for image in series.images]).astype(np.float64)


def chi2(q: float, free: int) -> float:
    """Return the quantile q of χ² with `free` degrees of freedom."""
    return chi2_quantile(float(q), int(free))
