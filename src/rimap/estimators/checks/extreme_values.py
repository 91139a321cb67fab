"""Values that are far beyond those of the object, as divisions by almost zero leave at the edge of a mask.

Sums over voxels (σ, the unit of the images, a smooth field) would be those of a few such voxels alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_most
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.neighbour_planes import Planes
from rimap.estimators.sigma import quantile

#: A value is extreme above so many times the quantile of the brightest values of the voxels. No coil and no contrast
#: makes the signal of tissues differ as much.
FAR, _QUANTILE = 1000.0, 0.9
#: Bright voxels that fill squares of this half edge are the object itself, in an image with almost no noise.
_HALF = 2
#: So many voxels determine the quantile.
_VOXELS = 50_000


def extreme_above(census: Census, inside: NDArray[np.bool_]) -> float:
    """Return the size above which values are extreme; infinite if no voxel `inside` (*X) has a signal."""
    peak = census.peak
    there = np.isfinite(peak) & (peak > 0) & census.voxels.flatten(inside)
    planes = Planes.of(census.voxels)
    while there.any():
        limit = FAR * float(quantile(at_most(peak[there], _VOXELS).astype(float), _QUANTILE))
        far: NDArray[Any] = there & (peak > limit)
        if planes is None or not far.any():
            return limit
        squares = planes.count(far.reshape(planes.shape), _HALF) == (2 * _HALF + 1) ** 2
        if not squares.any():
            return limit
        there = far
    return float("inf")
