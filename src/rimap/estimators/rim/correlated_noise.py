"""The standard deviations of a network where the noise of neighbouring voxels is correlated (interpolated images).

A network is trained on noise that each voxel has of its own, and its standard deviations are those of a mean over
neighbours with such noise. A mean over neighbours that share their noise has more. How many neighbours a voxel was
averaged with follows from its standard deviation divided by that of the voxel alone, r: weights w that fall like a
Gaussian have Σw² = r², and with correlations ρ the variance is not Σw² but Σ w_i w_j ρ_ij.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from rimap.correlation import NoiseCorrelation

F32 = NDArray[np.float32]
Floats = NDArray[np.float64]
#: Standard deviations of the weights that are tabulated, pixels, and how far the weights reach.
_WIDTHS, _REACH = np.geomspace(0.15, 8.0, 80), 32


def inflation(ratio: F32, correlation: NoiseCorrelation) -> F32:
    """Return by which factors standard deviations grow with noise that is correlated in the plane.

    Parameters
    ----------
    ratio
        (*X), the standard deviations that the network gives, over those of voxels that are alone. From 1 on, a voxel
        was averaged with no other.

    Examples
    --------
    >>> inflation(np.float32([0.25, 0.5, 1.0]), NoiseCorrelation(((0.6366, 0.0, -0.2122, 0.0),) * 2)).round(2)
    array([1.97, 1.56, 1.  ], dtype=float32)
    """
    out = np.ones_like(ratio)
    known = np.isfinite(ratio)
    for axis in correlation.axes[:2]:
        if axis:  # weights of a plane are products of those along two axes, which have Σw² = r each
            squares, variance = _averaged(axis)
            out[known] *= np.sqrt(np.interp(ratio[known], squares, variance)).astype(np.float32)
    return out


@cache
def _averaged(correlations: tuple[float, ...]) -> tuple[Floats, Floats]:
    """Return Σw² along an axis for each of `_WIDTHS`, rising, and Σ w_i w_j ρ_ij over it."""
    lags = np.arange(-_REACH, _REACH + 1)
    weights = np.exp(-0.5 * (lags / _WIDTHS[::-1, None]) ** 2)
    weights /= weights.sum(1, keepdims=True)
    squares = (weights**2).sum(1)
    variance = squares.copy()
    for lag, correlation in enumerate(correlations, 1):
        variance += 2 * correlation * (weights[:, lag:] * weights[:, :-lag]).sum(1)
    return squares, variance / squares
