"""Areas in which many voxels contradict the model: the others there fit it by chance.

With one degree of freedom, a quarter of the voxels of an area without any valid signal (metal) have a residual that
noise explains. Their neighbours show that they are wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Where = NDArray[np.bool_]
#: Voxels around each one along an axis of a slice, on each side.
HALF = 2
#: A voxel is in a wrong area if a larger share of its neighbours contradicts the model; air does not. At a straight
#: border of such an area a voxel outside has 42 % of them inside, and one inside has 58 %.
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
        Of the same shape: voxels of which it is known whether they contradict the model. Others do not, and are in no
        wrong area.
    half
        The neighbours are the other voxels of a square of 2 half + 1 voxels in the first two axes.
    """
    if contradicting.ndim < 2 or not contradicting.any():
        return contradicting
    # Flat indices of arrays with a margin: neighbours are then at the same distances everywhere.
    margin = [(half, half)] * 2 + [(0, 0)] * (contradicting.ndim - 2)
    out, known = np.pad(contradicting, margin), np.pad(known, margin)
    row, step = out[0].size, out[0, 0].size
    around = [i * row + j * step for i in range(-half, half + 1) for j in range(-half, half + 1) if (i, j) != (0, 0)]
    flat, usable, count = out.reshape(-1), known.reshape(-1), np.zeros(out.size, np.uint8)
    new = np.flatnonzero(flat & usable)
    for _ in range(ROUNDS):
        for distance in around:
            count[new + distance] += 1
        new = np.flatnonzero(count > SHARE * len(around))
        new = new[usable[new] & ~flat[new]]
        if not len(new):
            break
        flat[new] = True
    return out[half : half + contradicting.shape[0], half : half + contradicting.shape[1]]
