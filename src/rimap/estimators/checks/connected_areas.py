"""Connected areas of voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def areas(where: NDArray[np.bool_], fewest: int) -> NDArray[np.bool_]:
    """Return the voxels (*X) that are with `fewest` or more side by side, diagonally too; a list of voxels has no
    sides.
    """
    if where.ndim < 2:
        return where
    from rimap.estimators.checks.connected_area_kernels import large_areas  # numba is slow to import

    volume = np.ascontiguousarray(where).reshape((1,) * (3 - where.ndim) + where.shape)
    parent, found = np.empty(where.size, np.int64), np.zeros(volume.shape, np.bool_)
    large_areas(volume, fewest, parent, found)
    return found.reshape(where.shape)
