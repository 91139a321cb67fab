"""The spatial correlation of noise: what interpolated (zero-filled) images have, measured from residuals, and drawn
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note

Floats = NDArray[np.float64]

#: Number of lags of the result, and of lags that distinguish noise from errors of the model, which vary slowly.
LAGS, FAR = 4, 8
#: Noise is correlated along an axis from this correlation of neighbours on, and so many standard errors.
_LEAST, _SURE = 0.1, 4.0
#: Correlations are those of zero-filling if they deviate by less than this (root mean square), and are such a share of
#: it.
_FITS, _LEAST_SHARE, _MOST_SHARE = 0.03, 0.8, 1.1
#: Correlations that are not those of zero-filling must have decayed to this beyond the first lags.
_DECAYED = 0.15
#: Residuals that share more of their power than this say nothing about noise.
_MOST_SHARED = 0.9
#: Residuals count up to so many times their robust standard deviation.
_CLIP = 3.0
#: Noise is reported to be lower than the residuals if distant voxels share this part of their power.
_SHARED = 0.15
#: Number of pairs of neighbours that determine a correlation.
_PAIRS = 400
#: Median absolute value of a standard normal variable.
_MAD = 0.6745
#: Samples of the spectrum from which the taps along the slices follow.
_GRID = 32


@dataclass(frozen=True)
class NoiseCorrelation:
    """The correlation of the noise of voxels that are 1, 2, … voxels apart, along each spatial axis; () if there is
    none.

    Along oblique directions it is the product. Zero-filling a k-space by a factor f gives sin(πl/f)/(πl/f) at lag l.
    """

    axes: tuple[tuple[float, ...], ...]
    #: The share of the residuals' power that voxels far apart have in common: an error of the model, which σ contains.
    shared: float = 0.0

    @property
    def is_white(self) -> bool:
        """Whether the noise of each voxel is its own."""
        return not any(self.axes)

    @property
    def neighbours(self) -> tuple[float, ...]:
        """The correlation of adjacent voxels along each axis."""
        return tuple(axis[0] if axis else 0.0 for axis in self.axes)

    @property
    def factors(self) -> tuple[float, ...]:
        """By which factor images are interpolated whose noise has these correlations, along each axis.

        >>> [round(f, 2) for f in NoiseCorrelation(((0.6366,), (0.3,), ())).factors]
        [2.0, 1.33, 1.0]
        """
        tried = np.linspace(1, 8, 2000)
        return tuple(
            1.0 if not axis else float(tried[np.argmin(abs(np.sinc(1 / tried) - axis[0]))]) for axis in self.axes
        )

    @property
    def voxels(self) -> float:
        """How many voxels share one independent value: the variance of a mean over many is σ² times this over their
        number.

        It is the product of the factors: the sum of the first correlations alone would overstate it.

        >>> round(NoiseCorrelation(((0.6366, 0.0, -0.2122, 0.0), (), ())).voxels, 2)
        2.0
        """
        return float(np.prod(self.factors))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of it."""
        misfit = (
            ()
            if self.shared < _SHARED
            else (
                note(
                    f"Voxels {LAGS + 1} to {FAR} voxels apart share {100 * self.shared:.0f} % of the power of the "
                    "residuals. Noise does not do this: it is a misfit of the model. It increases σ and the standard "
                    "deviations, so that repeated scans may differ by less than these."
                ),
            )
        )
        if self.is_white:
            return misfit
        near, factors = (" × ".join(f"{value:.2f}" for value in values) for values in (self.neighbours, self.factors))
        return (
            note(
                f"The noise of adjacent voxels is correlated ({near} along the axes), as in images that are "
                f"interpolated (zero-filled) by {factors}: {self.voxels:.1f} voxels share one independent value."
            ),
            *misfit,
        )

    def coloured(self, white: Floats, axes: Sequence[int]) -> Floats:
        """Return white noise (…, *X) with the correlations of the spatial `axes`, the last axes of the array, in their
        order.
        """
        out = np.asarray(white, dtype=float)
        for place, axis in zip(range(-len(axes), 0), axes):
            if axis < len(self.axes) and self.axes[axis]:
                n = out.shape[place]
                gain = np.sqrt(_spectrum(self.axes[axis], np.fft.rfftfreq(n)))
                both = np.sqrt(_spectrum(self.axes[axis], np.fft.fftfreq(n)))
                gain = gain / np.sqrt(np.mean(both**2))
                shape = [1] * out.ndim
                shape[place] = len(gain)
                out = np.fft.irfft(np.fft.rfft(out, axis=place) * gain.reshape(shape), n, axis=place)
        return np.asarray(out)

    def taps(self, axis: int) -> Floats:
        """Return the weights of 2·`LAGS` + 1 independent values whose sums have the correlation along an axis; 1 if
        there is none.
        """
        if axis >= len(self.axes) or not self.axes[axis]:
            return np.ones(1)
        kernel = np.fft.fftshift(np.fft.ifft(np.sqrt(_spectrum(self.axes[axis], np.fft.fftfreq(_GRID)))).real)
        kernel = kernel[_GRID // 2 - LAGS : _GRID // 2 + LAGS + 1]
        return np.asarray(kernel / np.sqrt((kernel**2).sum()))


def correlation_of(residuals: NDArray[Any], good: NDArray[np.bool_], freedom: float) -> NoiseCorrelation:
    """Return the correlation of the noise in residuals (N, *X), of the values `good` (N, *X).

    What residuals farther apart still share is an error of the model and is taken off.

    Parameters
    ----------
    freedom
        Degrees of freedom of the residuals of a voxel.
    """
    axes = good.ndim - 1
    if not good.any():
        return NoiseCorrelation(((),) * axes)
    r = np.where(good, residuals, 0.0).astype(np.float32)
    sizes = np.abs(r).reshape(-1)
    limit = np.float32(_CLIP * float(np.median(sizes if good.all() else np.compress(good.reshape(-1), sizes))) / _MAD)
    r = np.minimum(np.maximum(r, -limit), limit)
    found = [_along(r, good, axis, freedom) for axis in range(axes)]
    far = [shared for _, shared in found if np.isfinite(shared)]
    return NoiseCorrelation(tuple(of_noise for of_noise, _ in found), max(0.0, min(far, default=0.0)))


def _along(
    r: NDArray[np.float32], good: NDArray[np.bool_], axis: int, freedom: float
) -> tuple[tuple[float, ...], float]:
    """Return the correlations of noise along a spatial axis, () if there are none, and the mean correlation far apart,
    NaN if unknown.
    """
    n, everywhere = good.shape[axis + 1], bool(good.all())

    def covariance(lag: int) -> tuple[float, float]:
        """Return the mean product of values so many voxels apart, and how many pairs of voxels there are."""
        before: tuple[slice, ...] = (slice(None),) * (axis + 1)
        a, b = (*before, slice(lag, None)), (*before, slice(0, n - lag))
        pairs = good[a].size if everywhere else int(np.count_nonzero(good[a] & good[b]))
        return float(np.vdot(r[a], r[b])) / max(pairs, 1), pairs / len(good)

    power = covariance(0)[0]
    if n < 2 or not power > 0:
        return (), float("nan")
    found = [covariance(lag) for lag in range(1, min(FAR, n - 1) + 1)]
    if found[0][1] < _PAIRS:
        return (), float("nan")
    c = np.array([value / power for value, pairs in found if pairs >= _PAIRS / 2])
    error = 1 / float(np.sqrt(found[0][1] * max(freedom, 1.0)))
    shared = float(c[LAGS:].mean()) if len(c) == FAR else float("nan")
    of_noise = _without_errors(c) if len(c) == FAR else np.empty(0)
    if not len(of_noise) or not of_noise[0] >= max(_LEAST, _SURE * error):
        return (), shared
    return tuple(round(float(value), 4) for value in np.clip(of_noise, -0.99, 0.99)), shared


def _without_errors(c: Floats) -> Floats:
    """Return the correlations of noise at the first lags from those of residuals (`FAR`), () if these are no noise.

    Residuals are noise and errors of the model. Those of neighbours of other T and of small magnitudes share less than
    their noise does, so c(l) = α sin(πl/f)/(πl/f) + s − q l² at lag l: zero-filled noise, and an error of share s that
    varies slowly.
    """
    designs, inverses = _designs()
    parts = np.einsum("fkl,l->fk", inverses, c)
    parts[(parts[:, 1] < 0) | (parts[:, 2] < 0)] = 0.0  # no error has a negative share: the noise alone, below
    alone = (designs[:, :, 0] @ c) / (designs[:, :, 0] ** 2).sum(1)
    parts = np.where((parts == 0).all(1, keepdims=True), np.stack([alone, 0 * alone, 0 * alone], 1), parts)
    off = np.sqrt(((np.einsum("flk,fk->fl", designs, parts) - c) ** 2).mean(1))
    best = int(np.argmin(off))
    share, error, bend = parts[best]
    if error >= _MOST_SHARED:
        return np.empty(0)
    scale = share / (1 - error)
    near = designs[best, :LAGS, 0]
    if off[best] < _FITS and _LEAST_SHARE <= scale <= _MOST_SHARE:
        return np.asarray(near)
    if off[best] >= _FITS and abs(float(c[LAGS:].mean())) > _DECAYED:
        return np.empty(0)  # what does not decay is no noise, and cannot be taken off
    lags = np.arange(1, LAGS + 1)
    return np.asarray((c[:LAGS] - error + bend * (lags / FAR) ** 2) / (1 - error))


@cache
def _designs() -> tuple[Floats, Floats]:
    """Return for each factor what noise and an error contribute at each lag (F, lags, 3), and the least-squares
    solutions (F, 3, lags).
    """
    factors, lags = np.geomspace(1.05, 3.5, 400), np.arange(1, FAR + 1)
    designs = np.stack(
        [np.stack([np.sinc(lags / factor), np.ones(FAR), -((lags / FAR) ** 2)], 1) for factor in factors]
    )
    return designs, np.linalg.pinv(designs)


def _spectrum(correlations: Sequence[float], frequency: NDArray[Any]) -> Floats:
    """Return the power of noise at frequencies (cycles for each voxel), which is never negative."""
    lags = np.arange(1, len(correlations) + 1)[:, None]
    power = 1 + 2 * (np.array(correlations)[:, None] * np.cos(2 * np.pi * lags * frequency)).sum(0)
    return np.asarray(np.maximum(power, 0.0))
