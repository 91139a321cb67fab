"""Sums over the neighbourhood of every voxel, the same for NumPy and torch."""

from __future__ import annotations

import numpy as np

from rimap.arrays import Array, floating

_REACH = 3.0  # standard deviations


def gaussian_sum(C: Array, width: float) -> Array:
    """Return Σ G(|x − y|) C(y) over the last two axes (…, h, w), G(0) = 1, of standard deviation `width` (pixels)."""

    def matrix(n: int) -> Array:
        d = (np.arange(n)[:, None] - np.arange(n)) / width
        return floating(np.where(abs(d) <= _REACH, np.exp(-0.5 * d**2), 0.0), C)

    G, K = matrix(C.shape[-2]), matrix(C.shape[-1])
    return G @ C @ K
