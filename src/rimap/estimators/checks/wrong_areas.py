"""Areas in which many voxels contradict the model: the others there fit it by chance.

With one degree of freedom, a quarter of the voxels of an area without any valid signal (metal) have a residual that
noise explains. Their neighbours show that they are wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import summed_before

Where = NDArray[np.bool_]
#: Voxels around each one along an axis of a slice, on each side.
HALF = 2
#: A voxel is in a wrong area if a larger share of its neighbours contradicts the model. At a straight border of such an
#: area a voxel outside has 42 % of them inside, and one inside has 58 %.
SHARE = 0.45
#: So often, voxels that are found so count as neighbours of others: a straight border stays where it is.
ROUNDS = 5


def with_their_areas(contradicting: Where, known: Where, half: int = HALF) -> Where:
    """Return the contradicting voxels, and those of whose neighbours too many contradict the model.

    Parameters
    ----------
    contradicting
        (X, Y) or (X, Y, Z). Voxels of a list (X,) have no neighbours.
    known
        Of the same shape: voxels of which it is known whether they contradict the model.
    half
        The neighbours are the other voxels of a square of 2 half + 1 voxels in the first two axes.
    """
    if contradicting.ndim < 2 or not contradicting.any():
        return contradicting
    neighbours = np.maximum(_around(known, half) - 1, 1)
    for _ in range(ROUNDS):
        more = known & ~contradicting & (_around(contradicting & known, half) > SHARE * neighbours)
        if not more.any():
            break
        contradicting = contradicting | more
    return contradicting


def _around(where: Where, half: int) -> NDArray[np.float64]:
    """Return how many voxels of the square around each one are there."""
    sums, (rows, columns) = summed_before(where), where.shape[:2]
    above, below = (np.clip(np.arange(rows) + shift, 0, rows) for shift in (-half, half + 1))
    left, right = (np.clip(np.arange(columns) + shift, 0, columns) for shift in (-half, half + 1))
    of_rows = sums[below] - sums[above]
    return np.asarray(of_rows[:, right] - of_rows[:, left])
