"""Where the search for a smooth field starts: near the best of all its minima, for signals that depend on the field in any way.

A refocusing pulse of 160° and one of 200° give almost the same echoes: for a field that enters nonlinearly the likelihood of a
voxel has several minima, and Newton's method stays at the one where it starts. So the likelihood is summed over blocks of
voxels, for some values of the field, and the smoothest combination of likely values is found by message passing between
neighbouring blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.mle.field import Box, solve_linear
from rimap.signals.base import Parameter

if TYPE_CHECKING:
    from rimap.estimators.mle.voxels import Voxels

Array = NDArray[np.float64]

#: Values of the field that are tried, over its bounds.
LEVELS = 41
#: About how many blocks along the longest axis, and how many voxels of each block are looked at (on average).
BLOCKS, VOXELS_OF_A_BLOCK = 12, 10
#: By how much a block's value may differ from its neighbour's: this share of the field's spread in an image, for each of
#: `BLOCKS` along the longest axis.
STEP = 0.3
#: The most that a block may say against a value, in units of the log-likelihood: a block that contradicts the model has little say.
CAP = 200.0
#: What the distance from `field.start` costs a block, in units of the field's spread: it decides between values that are
#: equally likely, and nothing else.
PREFERENCE = 0.02
#: A block that tells its values apart by less than this has no say.
SILENT = 1.0


def smooth_start(box: Box, data: Voxels, field: Parameter) -> Array:
    """Return a field (*box.shape) near the best minimum of Σ f(F) over smooth fields; `data` are the voxels of the box."""
    levels = np.linspace(*field.bounds, LEVELS)
    n_blocks, size = _blocks(box)
    some = np.arange(len(data))
    most = int(np.prod(n_blocks)) * VOXELS_OF_A_BLOCK
    if len(some) > most:
        some = np.sort(np.random.default_rng(0).permutation(len(data))[:most])
    costs = _costs(data.some(some), levels)
    place = np.unravel_index(box.data[some], box.shape)
    block = np.ravel_multi_index(tuple(p // s for p, s in zip(place, size)), n_blocks)
    unary = np.zeros((int(np.prod(n_blocks)), LEVELS))
    np.add.at(unary, block, costs.T * (len(data) / len(some)))
    unary = np.minimum(unary - unary.min(axis=1, keepdims=True), CAP)
    spread = spread_of(field)
    assert field.start is not None
    unary += PREFERENCE * ((levels - field.start) / spread) ** 2
    found = levels[_most_likely(unary.reshape(*n_blocks, LEVELS), levels, STEP * spread)].reshape(-1)
    telling = (np.ptp(unary, axis=1) > SILENT)[block]
    if not telling.any():
        return np.full(box.shape, levels[np.argmin(unary.sum(0))])
    target, weights = np.zeros(box.size), np.zeros(box.size)
    at, values = box.data[some][telling], found[block[telling]]
    weights[at], target[at] = 1.0, values - values.mean()
    stiffness = (min(size) / 4) ** 4 * len(some) / len(data)  # smooths over a block
    where = weights.reshape(box.shape)
    change, _ = solve_linear(box, where, stiffness, where * target.reshape(box.shape), rtol=1e-3)
    return np.clip(values.mean() + change, *field.bounds)


def spread_of(field: Parameter) -> float:
    """Return the standard deviation of a field within an image: that of its prior."""
    if field.prior is not None:
        return abs(sum(field.prior.mean) / 2) * max(field.prior.spread)
    return 0.1 * (abs(field.start) if field.start else max(abs(b) for b in field.bounds))


def _blocks(box: Box) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how many blocks there are along each axis, and their size in voxels: about cubes."""
    edge = max(n * h for n, h in zip(box.shape, box.spacing)) / BLOCKS
    size = tuple(max(round(edge / h), 1) for h in box.spacing)
    return tuple(-(-n // s) for n, s in zip(box.shape, size)), size


def _costs(data: Voxels, levels: Array) -> Array:
    """Return the negative log-likelihood of the voxels (V) for each level of the field, (L, V)."""
    costs = np.empty((len(levels), len(data)))
    fit = None
    for i, level in enumerate(levels):
        fit = data.fit(np.full(len(data), level), fit)
        costs[i] = fit.f
    return costs


def _most_likely(unary: Array, levels: Array, step: float) -> NDArray[np.intp]:
    """Return the level of each block (*n_blocks) that makes Σ unary + Σ (difference of neighbours)²/2 step² least.

    Min-sum message passing (Felzenszwalb & Huttenlocher 2006, doi:10.1007/s11263-006-7899-4).
    """
    pairwise = 0.5 * ((levels[:, None] - levels[None]) / step) ** 2
    axes = [a for a in range(unary.ndim - 1) if unary.shape[a] > 1]
    into = {(a, side): np.zeros_like(unary) for a in axes for side in (0, 1)}  # from the neighbour below or above
    belief = unary
    for _ in range(4 * max(unary.shape[:-1])):
        new = {}
        for a, side in into:
            without = belief - into[a, 1 - side]  # what a block tells its neighbour is not what that one told it
            message = (without[..., None, :] + pairwise).min(-1)
            message -= message.min(-1, keepdims=True)
            moved = np.zeros_like(message)
            ahead, behind = [slice(None)] * unary.ndim, [slice(None)] * unary.ndim
            ahead[a], behind[a] = slice(1, None), slice(None, -1)
            if side == 0:
                moved[tuple(ahead)] = message[tuple(behind)]
            else:
                moved[tuple(behind)] = message[tuple(ahead)]
            new[a, side] = 0.5 * (moved + into[a, side])
        into = new
        belief = unary + sum(into.values())
    return belief.argmin(-1)
