"""Magnitude images under the noise floor: how far they bias T where the noise is taken for Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.advice import percent
from rimap.arrays import at_most, bessel_e
from rimap.estimators.base import estimated_rows
from rimap.estimators.checks.smooth_refit import orthonormal
from rimap.estimators.possible_values import negative_at
from rimap.estimators.sigma import quantile
from rimap.likelihood import Gaussian, Rician
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

#: Number of voxels that determine a median.
_SAMPLE = 500
#: Number of voxels that decide whether a closer check is needed.
_FEW = 100
#: Voxels are looked at whose brightest image, as it is fitted, exceeds this part of that of the brightest (98th
#: percentile).
BRIGHT = 0.4
#: Quality flags of voxels that have a value in the maps.
WITH_VALUE = (Status.OK, Status.AT_BOUND, Status.OUTSIDE_TRAINING)
#: Images are signed if so many voxels have negative values: fewer may have wrapped.
_SIGNED = 0.05
#: An image below so many σ is mostly noise.
_FAINT = 3.0
#: Above so many σ a magnitude exceeds its signal f by σ²/2f.
_NEAR = 10.0


def noise_floor_warnings(series: WeightedSeries, maps: ParameterMaps, limit: float = 0.05) -> tuple[str, ...]:
    """Return a warning where T of half of the voxels is off by more than 5 %, because magnitudes cannot be below noise.

    The mean of a magnitude exceeds its signal f by σ h(f/σ), at most 1.25 σ. What least squares makes of that, to
    first order, is (JᵀJ)⁻¹Jᵀ σh, where J has the columns of what was estimated: a known field absorbs nothing, and a
    smooth one changes alike in all voxels. The fit has taken up a part of the floor already: in truth T is off by more.

    Parameters
    ----------
    series
        Of `maps`. Signed images have no floor; for a model without polarity, images with a negative value are signed.
    maps
        With σ, found as if the noise were Gaussian.

    References
    ----------
    Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618.
    """
    model, noise = series.model, maps.noise
    least_squares = maps.estimator == "nlls"
    if noise is None or noise.sigma is None or not (least_squares or isinstance(noise, Gaussian)):
        return ()
    if model.is_signed or not model.amplitudes or model.time.name in series.held:
        return ()
    known = has(maps.status.reshape(-1), WITH_VALUE)
    if np.ndim(noise.sigma):
        sigma = np.asarray(noise.sigma, float).reshape(-1)
        known &= np.isfinite(sigma)
    else:
        sigma = np.broadcast_to(np.asarray(noise.sigma, float), known.shape)
    at = at_most(np.flatnonzero(known), _SAMPLE)
    few = at_most(at, _FEW)
    off = np.sort(_seen(series, maps, sigma[few], few)[3])
    lower, middle, upper = (off[(len(off) - 1) * q // 4] for q in (1, 2, 3))
    if not middle + 3 * (upper - lower) / len(off) ** 0.5 > limit:  # a few voxels show that the median is below
        return ()
    kappa, sigma, f, off = _seen(series, maps, sigma[at], at)
    if not np.median(off) > limit or (not model.changes_sign and _are_signed(series, at)):
        return ()
    T, faint = model.time.name, int(np.median((f < _FAINT * sigma).sum(axis=0)))
    also = " --estimator mle" if least_squares else ""
    return (
        f"The noise floor biases {T}: the magnitude of pure noise is about 1.25 σ, and the fit assumes Gaussian "
        f"noise. {T} is off by about {percent(float(np.median(off)))} % in the median voxel with signal: at an SNR of "
        f"{np.median(model.amplitude(kappa) / sigma):.2g} (σ = {np.median(sigma):.3g}), {faint} of {model.n_images} "
        f"images are below 3 σ. Use --noise rician{also}.",
    )


def _seen(
    series: WeightedSeries, maps: ParameterMaps, sigma: NDArray[np.float64], at: NDArray[np.intp]
) -> tuple[NDArray[np.float64], ...]:
    """Return κ, σ, the signal, and by which part T is off, of the bright ones among the voxels `at`."""
    model, rows = series.model, estimated_rows(series, maps)
    kappa = np.asarray(maps.kappa.reshape(len(maps.kappa), -1)[:, at], float)
    with np.errstate(all="ignore"):
        f = np.asarray(model.signal(kappa))
        peak = abs(f).max(axis=0)
        bright = peak > BRIGHT * quantile(peak, 0.98) if (peak > 0).any() else peak > 0
        kappa, sigma, f = kappa[:, bright], sigma[bright], f[:, bright]
        return kappa, sigma, abs(f), abs(_bias(model, rows, kappa, sigma, f)) if bright.any() else np.zeros(1)


def _bias(
    model: SignalModel,
    rows: tuple[list[int], list[int]],
    kappa: NDArray[np.float64],
    sigma: NDArray[np.float64],
    f: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return by which part T (V,) is off, to first order, where the signal is f (N, V). `rows`: `estimated_rows`."""
    free, shared = rows
    T, partials = model.index(model.time.name), np.asarray(model.partials(kappa))
    level = abs(f / sigma)
    floor = 0.5 / np.maximum(level, 1.0)  # in units of σ, far above the noise
    near = level < _NEAR
    floor[near] = Rician(sigma=1.0).mean(level[near]) - level[near]
    if shared:
        floor = floor - _absorbed(partials[:, free], partials[:, shared] / sigma, floor)
    J = partials[:, free].swapaxes(0, 1)
    size = np.maximum(np.sqrt((J * J).sum(1)), 1e-30)
    J = J / size[:, None]
    normal = np.array([[(a * b).sum(0) for a in J] for b in J]) + 1e-6 * np.eye(len(J))[..., None]
    right = sigma * (J * floor).sum(1)
    step = np.linalg.solve(normal.transpose(2, 0, 1), right.T[..., None])[..., 0].T / size
    return np.asarray(step[free.index(T)] / kappa[T])


def _absorbed(own: NDArray[np.float64], shared: NDArray[np.float64], floor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what of the floor (N, V) parameters take up that change alike in all voxels.

    Parameters
    ----------
    own
        (N, Q, V), partial derivatives by the parameters of each voxel, which take up their part in any case.
    shared
        (N, K, V), those by the shared parameters, in units of σ.
    """
    rest, columns = floor, shared
    for q in orthonormal(own):
        rest = rest - q * (q * rest).sum(0)
        columns = columns - q[:, None] * (q[:, None] * columns).sum(0)
    change, *_ = np.linalg.lstsq(columns.swapaxes(0, 1).reshape(shared.shape[1], -1).T, rest.reshape(-1), rcond=None)
    return np.asarray(np.einsum("nkv,k->nv", shared, change))


def _are_signed(series: WeightedSeries, voxels: NDArray[np.intp]) -> bool:
    """Return whether more of the voxels have negative values than a few that are wrong."""
    return bool(negative_at(series, voxels).mean() > _SIGNED)


def excess(m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of Rician magnitudes minus their signals m (any shape), for σ = 1."""
    m = np.minimum(abs(m), 1e3)
    z = m * m / 4
    return np.asarray(np.sqrt(np.pi / 2) * ((1 + 2 * z) * bessel_e(0, z) + 2 * z * bessel_e(1, z)) - m)
