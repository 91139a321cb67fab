"""Connected areas of voxels."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

#: With more voxels than this, SciPy's scan of the volume is faster, its import included.
_MANY = 50_000


def areas(where: NDArray[np.bool_], fewest: int) -> NDArray[np.bool_]:
    """Return the voxels (*X) that are with `fewest` or more side by side, diagonally too; a list of voxels has no
    sides.
    """
    if where.ndim < 2 or not where.any():
        return where
    at = np.flatnonzero(where)
    if len(at) < fewest:
        return np.zeros(where.shape, bool)
    groups = _few(at, where.shape) if len(at) <= _MANY else _many(where)
    large = np.zeros(where.size, bool)
    large[at] = np.bincount(groups)[groups] >= fewest
    return large.reshape(where.shape)


def _few(at: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return a number for each voxel (V, flat indices in ascending order) that is the same for voxels side by side."""
    wide = tuple(
        length + 2 for length in shape
    )  # a border, so that the last voxel of a row is not beside the first of the next
    places = np.ravel_multi_index(tuple(i + 1 for i in np.unravel_index(at, shape)), wide)
    steps = np.array([int(np.prod(wide[axis + 1 :])) for axis in range(len(shape))])
    ahead = [int(steps @ d) for d in itertools.product((-1, 0, 1), repeat=len(shape)) if d > (0,) * len(shape)]
    first, second = [], []
    for step in ahead:
        found = np.minimum(np.searchsorted(places, places + step), len(places) - 1)
        beside = np.flatnonzero(places[found] == places + step)
        first.append(beside)
        second.append(found[beside])
    a, b = np.concatenate(first), np.concatenate(second)
    group = np.arange(len(at))
    while True:
        smaller = np.minimum(group[a], group[b])
        np.minimum.at(group, group[a], smaller)
        np.minimum.at(group, group[b], smaller)
        while not np.array_equal(shorter := group[group], group):
            group = shorter
        if np.array_equal(group[a], group[b]):
            return group


def _many(where: NDArray[np.bool_]) -> NDArray[np.intp]:
    from scipy.ndimage import label  # slow to import

    groups, _ = label(where, np.ones((3,) * where.ndim))
    return np.asarray(groups[where], np.intp)
