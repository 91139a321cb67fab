"""A smooth field in a box: the penalty λ/2·‖ΔB‖² and the minimisation of a sum over voxels plus that penalty.

The field B lives on a box around the voxels with data, somewhat larger than they are. Its Laplacian is taken over
the whole box, with mirrored (Neumann) edges, so the edges of a mask, its holes and the gaps between its components
are places without data and nothing else: there B is what the penalty makes of its surroundings. The box diagonalises
the penalty by the cosine transform, which is what makes the solver fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from rimap.estimators.mle.linear_system import solve_linear

Array = NDArray[np.float64]

#: How far the box reaches beyond the data, in units of the finest voxel edge: B then need not level out at their edge.
MARGIN = 16
#: Relative residual of the solution of a Newton step whose result is refined further.
ROUGH_RTOL = 0.1
#: Conjugate gradients that a Newton step takes at most: more bring less than the next step does.
MOST_ITERATIONS = 40


def finest_edge(shape: Sequence[int], voxel_size: Sequence[float]) -> float:
    """Return the shortest edge of a voxel along the axes that have neighbours: the thickness of one slice is none.

    >>> finest_edge((64, 48, 1), (2.0, 2.0, 0.5)), finest_edge((64, 48, 9), (2.0, 2.0, 0.5))
    (2.0, 0.5)
    """
    return min([edge for n, edge in zip(shape, voxel_size) if n > 1] or voxel_size)


@dataclass(frozen=True, eq=False)
class Box:
    """The box of a field.

    Parameters
    ----------
    shape
        Of the box.
    corner
        Of the images' first voxel in the box: negative where the box begins inside the images.
    data
        (V) flat indices in the box of the voxels with data.
    mu
        (*shape) eigenvalues of −Δ.
    spacing
        Voxel sizes along the axes, in units of the smallest one.
    """

    shape: tuple[int, ...]
    window: tuple[slice, ...]
    inner: tuple[slice, ...]
    data: NDArray[np.intp]
    mu: Array
    spacing: tuple[float, ...]

    @classmethod
    def around(cls, voxels: NDArray[np.bool_], voxel_size: tuple[float, ...], *, margin: float = MARGIN) -> Box:
        """Return the box around the true voxels of a mask (*X), whose edges are `voxel_size` long."""
        size = np.asarray(voxel_size) / finest_edge(voxels.shape, voxel_size)
        shape, window, inner = [], [], []
        for axis, n in enumerate(voxels.shape):
            line = np.flatnonzero(voxels.any(axis=tuple(a for a in range(voxels.ndim) if a != axis)))
            low, high = int(line[0]), int(line[-1]) + 1
            reach = 0 if n == 1 else max(round(margin / size[axis]), 1)
            full = fft.next_fast_len(high - low + 2 * reach, real=True) if n > 1 else 1
            before = (full - (high - low)) // 2
            shape.append(full)
            window.append(slice(low, high))
            inner.append(slice(before, before + high - low))
        boxed = np.zeros(shape, bool)
        boxed[tuple(inner)] = voxels[tuple(window)]
        eigenvalues = np.zeros(shape)
        for axis, (n, h) in enumerate(zip(shape, size)):
            line = (2 - 2 * np.cos(np.pi * np.arange(n) / n)) / h**2
            eigenvalues += line.reshape((-1,) + (1,) * (len(shape) - 1 - axis))
        return cls(
            tuple(shape), tuple(window), tuple(inner), np.flatnonzero(boxed), eigenvalues, tuple(float(s) for s in size)
        )

    @property
    def size(self) -> int:
        """Number of voxels of the box."""
        return int(np.prod(self.shape))

    def laplacian(self, B: Array) -> Array:
        """Return ΔB (*shape): mirrored at the edges."""
        out, room = np.zeros_like(B), np.empty(B.size, B.dtype)  # new memory for each axis would take as long
        for axis, h in enumerate(self.spacing):
            if B.shape[axis] > 1:
                before, after = [slice(None)] * B.ndim, [slice(None)] * B.ndim
                before[axis], after[axis] = slice(None, -1), slice(1, None)
                shape = B[tuple(after)].shape
                differences = room[: math.prod(shape)].reshape(shape)
                np.subtract(B[tuple(after)], B[tuple(before)], out=differences)
                differences /= h**2
                out[tuple(before)] += differences
                out[tuple(after)] -= differences
        return out

    def scatter(self, values: Array) -> Array:
        """Return the field (*shape) that has `values` (V) at the data and zero elsewhere."""
        out = np.zeros(self.size)
        out[self.data] = values
        return out.reshape(self.shape)

    def crop(self, B: Array, shape: tuple[int, ...]) -> Array:
        """Return B (*shape) on the images, the values at its edges beyond the box."""
        pads = []
        for n, full, window, inner in zip(shape, self.shape, self.window, self.inner):
            offset = inner.start - window.start  # position in the box = position in the image + offset
            pads.append(np.clip(np.arange(n) + offset, 0, full - 1))
        return np.asarray(B[np.ix_(*pads)])

    def spread(self, w: Array, lambda_B: float, of: Callable[[float, Array], Array]) -> Array:
        """Return at the data (V) the mean over the modes of `of`(w, λμ²), for the information w around the voxel
        everywhere.
        """
        W = np.maximum(w, 0.0)
        mean = float(W.mean())
        near = self.filter(self.scatter(W), mean / (mean + lambda_B * self.mu**2)).reshape(-1)[self.data]
        near = np.maximum(near, 1e-3 * mean)
        # far from the edges of the box: the modes of even order, which are those of a torus
        penalty = lambda_B * self.mu[tuple(slice(None, None, 2) for _ in self.shape)] ** 2
        share = np.ones(())
        for length in penalty.shape:
            share = np.multiply.outer(share, np.where(np.arange(length) > 0, 2.0, 1.0))
        share /= share.sum()
        levels = np.geomspace(near.min() * 0.999, near.max() * 1.001, 12)
        spread = np.array([(share * of(level, penalty)).sum() for level in levels])
        return np.asarray(np.exp(np.interp(np.log(near), np.log(levels), np.log(np.maximum(spread, 1e-300)))))

    def variance(self, w: Array, lambda_B: float) -> Array:
        """Return how much the solution varies with the noise at the data (V), for information w (V) on B: w/(w +
        λμ²)².
        """
        if not (w > 0).any():
            return np.full(len(w), np.inf)
        return self.spread(w, lambda_B, lambda level, penalty: level / (level + penalty) ** 2)

    def degrees_of_freedom(self, w: Array, lambda_B: float) -> float:
        """Return how many values B is free to take at the data, for information w (V) on it: the trace of W (W +
        λΔ²)⁻¹.
        """
        if not (w > 0).any():
            return 0.0
        of_one = self.spread(w, lambda_B, lambda level, penalty: 1 / (level + penalty))
        return float((np.maximum(w, 0.0) * of_one).sum())

    def around_each(self, values: Array, lambda_B: float, information: float | None = None) -> Array:
        """Return at the data (V) the mean of `values` (V) over the distance to which the solution is smoothed, not
        below 0.

        `information` is what a voxel says on B, on average: the mean of the values if they are that.
        """
        mean = float(values.mean()) if information is None else information
        if not mean > 0:
            return np.maximum(values, 0.0)
        if math.isinf(lambda_B):
            return np.full(len(values), max(float(values.mean()), 0.0))
        gain = mean / (mean + lambda_B * self.mu**2)
        sums, counts = (
            self.filter(self.scatter(a), gain).reshape(-1)[self.data] for a in (values, np.ones(len(values)))
        )
        return np.asarray(np.maximum(sums / np.maximum(counts, 0.05), 0.0))

    def filter(self, field: Array, gain: Array) -> Array:
        """Return `field` with each cosine mode multiplied by `gain` (*shape)."""
        long = tuple(length for length in self.shape if length > 1) or (
            1,
        )  # an axis of one voxel doubles the time of the transforms
        modes = fft.dctn(field.reshape(long), norm="ortho")
        modes *= gain.reshape(long)
        return np.asarray(fft.idctn(modes, norm="ortho", overwrite_x=True)).reshape(self.shape)


class State(Protocol):
    """Where a fit of the voxels stands: what `minimise` reads of it."""

    @property
    def g(self) -> Array:
        """(V) derivatives in B."""

    @property
    def w(self) -> Array:
        """(V) second derivatives."""

    @property
    def total(self) -> float:
        """Sum over the voxels."""


S = TypeVar("S", bound=State)


@dataclass(frozen=True, eq=False)
class Objective(Generic[S]):
    """Σ f(B) + λ/2·‖ΔB‖², of a field B: what voxels say about it, and that it is smooth.

    The voxels are evaluated within `bounds`. Beyond them f continues as a parabola, and B has no bounds where it has no
    data: a solver that has to follow a bound takes ten times as many steps.

    Parameters
    ----------
    fit
        (B at the data (V), the state that is near or none, whether to search over all T) -> state.
    lambda_B
        λ, the weight of the penalty.
    bounds
        Of B.
    local_curvature
        Whether the curvature is averaged over neighbours rather than cut off at zero voxel by voxel: better if the
        signal is not linear in B, where that of many voxels is negative.
    """

    fit: Callable[[Array, S | None, bool], S]
    lambda_B: float
    bounds: tuple[float, float]
    local_curvature: bool = False


@dataclass(frozen=True)
class Until:
    """When a minimisation ends.

    Parameters
    ----------
    tolerance
        It has converged when neither a Newton step nor a search anew brings as much as this.
        (f has kinks, where T or a polarity jumps: the gradient alone does not detect them.)
    search
        Whether the end must withstand a search over all T. Without it, the result is a sufficient starting point.
    max_iterations
        Newton steps at most; it has not converged then.
    """

    tolerance: float = 0.1
    search: bool = True
    max_iterations: int = 100


def minimise(
    box: Box,
    objective: Objective[S],
    start: Array,
    until: Until,
    *,
    state: S | None = None,
    watch: Callable[[float, float], None] | None = None,
) -> tuple[Array, S, bool]:
    """Minimise an objective over fields, by Newton's method.

    Parameters
    ----------
    start
        (*shape) of the box.
    state
        The state at `start`, if it is known.
    watch
        Called with the objective and what the next step promises.

    Returns
    -------
    B (*shape), which may be beyond the bounds, the state at the next B within them, and whether it converged.
    """
    fit, lambda_B, bounds = objective.fit, objective.lambda_B, objective.bounds
    tolerance, search = until.tolerance, until.search
    low, high = bounds
    B = start

    def at(B: Array) -> Array:
        return B.reshape(-1)[box.data]

    def penalty(B: Array) -> float:
        return 0.5 * lambda_B * float((box.laplacian(B) ** 2).sum())

    rtol = 0.03 if search else ROUGH_RTOL
    state = fit(np.clip(at(B), low, high), None, False) if state is None else state
    least = float(np.maximum(state.w, 0.0).mean())
    here = _beyond(state, at(B), bounds, least)
    objective_here, searched, t = here.total + penalty(B), False, 1.0
    for _ in range(until.max_iterations):
        G = box.scatter(here.g) + lambda_B * box.laplacian(box.laplacian(B))
        w = box.around_each(here.w, lambda_B) if objective.local_curvature else np.maximum(here.w, 0.0)
        step, _ = solve_linear(box.scatter(w), lambda_B * box.mu**2, -G, rtol=rtol, max_iterations=MOST_ITERATIONS)
        promise = -0.5 * float((G * step).sum())
        if watch is not None:
            watch(objective_here, promise)
        gain = 0.0
        if promise > tolerance:
            t = min(1.0, 3 * t)
            for _ in range(5):
                trial = B + t * step
                new = fit(np.clip(at(trial), low, high), state, False)
                there = _beyond(new, at(trial), bounds, least)
                gain = objective_here - there.total - penalty(trial)
                if gain > 0:
                    B, objective_here, state, here = trial, objective_here - gain, new, there
                    break
                t *= 0.3
            if not search and t == 1.0 and abs(promise - gain) < tolerance:
                break  # the next step brings about as little as this one differs from its promise
        if gain < tolerance:
            if searched or not search:
                break
            state = fit(np.clip(at(B), low, high), state, True)
            before, here = here.total, _beyond(state, at(B), bounds, least)
            if before - here.total < tolerance:  # nothing new: the next step would bring what this one brought
                break
            objective_here, searched = here.total + penalty(B), True
        else:
            searched = False
    else:
        return B, state, False
    return B, state, True


class FieldState(NamedTuple):
    """A `State` that is known by its numbers, as that of a field beyond its bounds."""

    g: Array
    w: Array
    total: float = 0.0


def _beyond(state: State, F: Array, bounds: tuple[float, float], least: float) -> FieldState:
    """Return the state, found with F (V) within bounds, for F itself: beyond them a parabola with curvature `least` or
    more.
    """
    past = F - np.clip(F, *bounds)
    if not past.any():
        return FieldState(state.g, state.w, state.total)
    outside = past != 0
    w = np.where(outside, np.maximum(state.w, least), state.w)
    g = np.where(outside, state.g + w * past, state.g)
    return FieldState(g, w, state.total + float((state.g * past + 0.5 * w * past**2)[outside].sum()))


def mean_squared_error(box: Box, B: Array, state: State, lambda_B: float, bounds: tuple[float, float]) -> Array:
    """Return that of the solution B (*shape) at the data (V): the variance of noise and the square of what smoothing
    takes off.

    The bias is estimated by a Newton step with a tenth of the penalty: the change of B, minus the change that noise
    alone would cause, is what the penalty held back. It is at least half of what one expects for a penalty that suits
    the field, which is the prior variance that the data leave (Nychka 1988, doi:10.1080/01621459.1988.10478711).
    """
    w = np.maximum(state.w, 0.0)
    if not w.any():
        return np.full(len(w), np.inf)
    variance, less = box.variance(w, lambda_B), lambda_B / 10
    here = _beyond(state, B.reshape(-1)[box.data], bounds, float(w.mean()))
    G = box.scatter(here.g) + less * box.laplacian(box.laplacian(B))
    step, _ = solve_linear(box.scatter(w), less * box.mu**2, -G, rtol=ROUGH_RTOL, max_iterations=MOST_ITERATIONS)
    square = box.around_each(step.reshape(-1)[box.data].astype(float) ** 2, lambda_B, float(w.mean()))
    noise = box.spread(w, lambda_B, lambda level, p: level * (1 / (level + p / 10) - 1 / (level + p)) ** 2)
    expected = box.spread(w, lambda_B, lambda level, p: p / (level + p) ** 2)
    return np.asarray(variance + np.maximum(square - noise, 0.5 * expected))
