"""Voxels that lie side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label


def areas(where: NDArray[np.bool_], fewest: int) -> NDArray[np.bool_]:
    """Return the voxels (*X) that are with `fewest` or more side by side, diagonally too; a list of voxels has no sides."""
    if where.ndim < 2 or not where.any():
        return where
    groups, _ = label(where, np.ones((3,) * where.ndim))
    large = np.bincount(groups.reshape(-1)) >= fewest
    large[0] = False
    return np.asarray(large[groups])
