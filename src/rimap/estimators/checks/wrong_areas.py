"""Areas in which many voxels contradict the model: some of the others there fit it by chance.

With one degree of freedom, a third of the voxels of an area without any valid signal (metal) have a residual that
noise explains; with two, one in twenty; with more, barely any. They are scattered among voxels that contradict the
model, while good voxels are adjacent.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Where = NDArray[np.bool_]
#: With more degrees of freedom, a voxel rarely fits by chance.
MOST_FREE = 2
#: Voxels around each one along an axis of a slice, on each side.
HALF = 2
#: A voxel may be in a wrong area if a larger share of its neighbours contradicts the model; air does not. At a straight
#: border of such an area a voxel outside has 42 % of them inside, and one inside has 58 %.
SHARE = 0.42


def with_their_areas(contradicting: Where, known: Where, half: int = HALF) -> Where:
    """Return the contradicting voxels, and those that follow the model by chance.

    These have many neighbours that contradict it, and each square of `half` + 1 voxels that contains them has such a
    voxel.

    Parameters
    ----------
    contradicting
        (X, Y) or (X, Y, Z). Voxels of a list (X,) have no neighbours.
    known
        Of the same shape: voxels of which it is known whether they contradict the model. Others, such as air, do not,
        and are never returned.
    half
        The neighbours are the other voxels of a square of 2 half + 1 voxels in the first two axes.
    """
    if contradicting.ndim < 2 or not contradicting.any():
        return contradicting
    # Flat indices of arrays with a margin: neighbours are then at the same distances everywhere.
    margin = [(half, half)] * 2 + [(0, 0)] * (contradicting.ndim - 2)
    out, known = (np.pad(np.ascontiguousarray(where), margin) for where in (contradicting, known))
    row, step = out[0].size, out[0, 0].size

    def distances(*along: range) -> list[int]:
        return [i * row + j * step for i, j in product(*along)]

    around = [distance for distance in distances(*[range(-half, half + 1)] * 2) if distance]
    off, usable, count = out.reshape(-1), known.reshape(-1), np.zeros(out.size, np.uint8)
    wrong = np.flatnonzero(off & usable)
    for distance in around:
        count[wrong + distance] += 1
    doubtful = np.flatnonzero(count > SHARE * len(around))
    doubtful = doubtful[usable[doubtful] & ~off[doubtful]]
    square, together = distances(*[range(half + 1)] * 2), np.zeros(len(doubtful), bool)
    for corner in square:
        together |= ~np.any([off[doubtful - corner + distance] for distance in square], axis=0)
    off[doubtful[~together]] = True
    return out[half : half + contradicting.shape[0], half : half + contradicting.shape[1]]
