"""Where the search for a smooth field starts: near the best of all its minima, for signals that depend on the field in
any way.

A refocusing pulse of 160° and one of 200° give almost the same echoes: for a field that enters nonlinearly the
likelihood of a voxel has several minima, and Newton's method stays at the one where it starts. So the likelihood is
summed over blocks of voxels, for some values of the field, and the smoothest combination of likely values is found by
message passing between neighbouring blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.mle.field import Box
from rimap.estimators.mle.field_smoothness import spread_of
from rimap.estimators.mle.linear_system import solve_linear
from rimap.estimators.mle.message_kernels import write_messages
from rimap.signals.base import Parameter

if TYPE_CHECKING:
    from rimap.estimators.mle.voxels import Voxels

Array = NDArray[np.float64]

#: Values of the field at which the likelihood is evaluated, over its bounds, and into how many each interval is divided
#: then.
LEVELS, FINER = 25, 3
#: About how many blocks along the longest axis, and how many voxels of each block are looked at (on average).
BLOCKS, VOXELS_OF_A_BLOCK = 12, 100
#: By how much a block's value may differ from its neighbour's: this share of the field's spread in an image, for each
#: of `BLOCKS` along the longest axis.
STEP = 0.3
#: The most that a block may say against a value, in units of the log-likelihood: a block that contradicts the model has
#: little say.
CAP = 200.0
#: What the distance from `field.start` costs a block, in units of the field's spread: it decides between values that
#: are equally likely, and nothing else.
PREFERENCE = 0.02
#: A block whose values differ in likelihood by less than this is ignored.
SILENT = 1.0


@dataclass(frozen=True, eq=False)
class LikelyField:
    """What blocks of voxels say about the field.

    Parameters
    ----------
    box
        Of the field.
    bounds, usual
        Of its values, and the one if nothing is known.
    target, information
        (*box.shape) the likely value at voxels with data, and how well it is determined there; 0 elsewhere.
    """

    box: Box
    bounds: tuple[float, float]
    usual: float
    target: Array
    information: Array

    @classmethod
    def of(cls, box: Box, data: Voxels, field: Parameter) -> LikelyField:
        """Return the most likely combination of values; `data` are the voxels of the box."""
        n_blocks, size = _blocks(box)
        many = int(np.prod(n_blocks))
        some = np.arange(len(data))
        if len(some) > many * VOXELS_OF_A_BLOCK:
            some = np.sort(np.random.default_rng(0).permutation(len(data))[: many * VOXELS_OF_A_BLOCK])
        place = np.unravel_index(box.data[some], box.shape)
        block = np.ravel_multi_index(tuple(p // s for p, s in zip(place, size)), n_blocks)
        assert field.start is not None
        levels, unary = _costs(data.some(some), block, many, field)
        unary *= len(data) / len(some)
        unary = np.minimum(unary - unary.min(axis=1, keepdims=True), CAP)
        telling = np.ptp(unary, axis=1) > SILENT
        spread = spread_of(field)
        unary += PREFERENCE * ((levels - field.start) / spread) ** 2
        best = _most_likely(unary.reshape(*n_blocks, len(levels)), levels, STEP * spread).reshape(-1)
        inner, step = np.clip(best, 1, len(levels) - 2), levels[1] - levels[0]
        before, at, after = (unary[np.arange(many), inner + k] for k in (-1, 0, 1))
        information = np.maximum((before - 2 * at + after) / step**2, 0.0) * telling
        of_a_voxel = information / np.maximum(np.bincount(block, minlength=many), 1)
        target, W = np.zeros(box.size), np.zeros(box.size)
        target[box.data[some]], W[box.data[some]] = levels[best][block], of_a_voxel[block]
        return cls(box, field.bounds, field.start, target.reshape(box.shape), W.reshape(box.shape))

    @property
    def mean_information(self) -> float:
        """What a voxel with data says about the field, on average."""
        return float(self.information.sum() / max(len(self.box.data), 1))

    def smoothed(self, weight: float) -> Array:
        """Return the field (*box.shape) that minimises Σ information/2 (F − target)² + λ/2‖ΔF‖², for the weight λ."""
        total = float(self.information.sum())
        if total <= 0:
            return np.full(self.box.shape, self.usual)
        middle = float((self.information * self.target).sum()) / total
        rhs = self.information * (self.target - middle)
        change, _ = solve_linear(self.information, weight * self.box.mu**2, rhs, rtol=1e-2)
        return np.clip(middle + change, *self.bounds)


def _blocks(box: Box) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how many blocks there are along each axis, and their size in voxels: about cubes."""
    edge = max(n * spacing for n, spacing in zip(box.shape, box.spacing)) / BLOCKS
    size = tuple(max(round(edge / spacing), 1) for spacing in box.spacing)
    return tuple(-(-n // s) for n, s in zip(box.shape, size)), size


def _costs(data: Voxels, block: NDArray[np.intp], n_blocks: int, field: Parameter) -> tuple[Array, Array]:
    """Return levels of the field and the negative log-likelihood of each block for each of them, (n_blocks, L).

    T is followed from the usual value of the field to either side: at values where the images barely depend on it, T is
    lost.
    """
    from scipy.interpolate import CubicHermiteSpline  # slow to import

    coarse = np.linspace(*field.bounds, LEVELS)
    values, slopes = np.empty((2, n_blocks, LEVELS))
    middle = int(np.argmin(abs(coarse - (field.start or 0.0))))
    usual = data.fit(np.full(len(data), coarse[middle]))
    for side in (range(middle, LEVELS), range(middle - 1, -1, -1)):
        fit = usual
        for i in side:
            fit = data.fit(np.full(len(data), coarse[i]), fit)
            values[:, i] = np.bincount(block, fit.f, n_blocks)
            slopes[:, i] = np.bincount(block, fit.g, n_blocks)
    levels = np.linspace(*field.bounds, FINER * (LEVELS - 1) + 1)
    return levels, CubicHermiteSpline(coarse, values, slopes, axis=1)(levels)


def _most_likely(unary: Array, levels: Array, step: float) -> NDArray[np.intp]:
    """Return the level of each block (*n_blocks) that makes Σ unary + Σ (difference of neighbours)²/2 step² least.

    Min-sum message passing (Felzenszwalb & Huttenlocher 2006, doi:10.1007/s11263-006-7899-4).
    """
    pairwise = 0.5 * ((levels[:, None] - levels[None]) / step) ** 2
    axes = [a for a in range(unary.ndim - 1) if unary.shape[a] > 1]
    into = {(axis, side): np.zeros_like(unary) for axis in axes for side in (0, 1)}  # from the neighbour below or above
    belief = unary
    for _ in range(3 * max(unary.shape[:-1])):
        new = {}
        for a, side in into:
            without = belief - into[a, 1 - side]  # the message to a neighbour excludes what that neighbour sent
            message = np.empty_like(without)
            write_messages(without.reshape(-1, len(levels)), pairwise, message.reshape(-1, len(levels)))
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
    return np.asarray(belief.argmin(-1))
