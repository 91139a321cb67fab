"""The linear system of a Newton step for a smooth field: (W + λΔ²) x = r on a box with mirrored edges.

In the modes of the cosine transform λΔ² is diagonal, and W, what the voxels say about the field, is not: it is large in
tissue and next to nothing in air. The lowest modes, those that are smooth enough to be at home in air, are therefore
solved exactly, as a small dense system, and conjugate gradients do the rest.

If λ is large, only a band of low modes follows the voxels. It is solved first, on a grid that is just fine enough for
products of its modes; all modes then need few iterations, or one.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]
#: Relative residual that single precision reaches with certainty, in less than half of the time.
SINGLE_RTOL = 1e-3
#: Modes of the dense system: one for so many voxels of the box, between these limits. In a slice more than the least
#: take longer to set up than the iterations that they save; in a volume five times as many take less than half as long.
VOXELS_PER_MODE, FEWEST_MODES, MOST_MODES = 2500, 100, 800
#: A mode whose penalty exceeds so many times the mean information of a voxel is stiff: the voxels barely move it. Stiff
#: modes are not dense.
STIFF = 4.0
#: Of `_dense`, for each precision of the result.
RIDGE = {np.float32: 3e-7, np.float64: 0.0}
#: Modes that are not stiff along any axis are solved first, if a grid with no more than this share of the points of the
#: box can show them.
LARGEST_GRID = 0.5


def solve_linear(
    W: Array, penalty: Array, rhs: Array, *, rtol: float = 1e-2, max_iterations: int = 500
) -> tuple[Array, int]:
    """Return the solution of (W + λΔ²) x = rhs, and how many iterations of conjugate gradients it took.

    Without any data (W = 0), or with values that overflow, the solution is zero.

    Parameters
    ----------
    W
        (*box) information of each voxel of the box, zero if it has no data.
    penalty
        (as W) eigenvalues of λΔ²: those of the modes of the cosine transform.
    rhs
        (as W).
    rtol
        Relative residual, in the norm of the inverse of the preconditioner.
    max_iterations
        At most, for the low modes and again for all.
    """
    with np.errstate(over="ignore"):
        known = np.isfinite(W.sum() + abs(rhs).sum())
    if not W.any() or not known:
        return np.zeros(rhs.shape), 0
    # An axis of one voxel doubles the time of the transforms.
    W, penalty, right = (np.atleast_1d(np.squeeze(a)) for a in (W, penalty, rhs))
    mean = float(W.sum() / max((W > 0).sum(), 1))
    real: Any = np.float32 if rtol >= SINGLE_RTOL else np.float64
    information, residual = W.astype(real), fft.dctn(right.astype(real), norm="ortho")
    of_information = fft.dctn(information, norm="ortho")
    system = _System(information, penalty, mean, _dense(of_information, penalty, STIFF * mean, RIDGE[real]))
    x, iterations, until = np.zeros_like(residual), 0, (rtol**2 * system.size(residual), max_iterations)
    band, grid = _band(penalty, STIFF * mean)
    if math.prod(grid) <= LARGEST_GRID * W.size:
        part = tuple(slice(length) for length in grid)
        stiffness = np.full(grid, np.inf)
        stiffness[band] = penalty[band]
        # Products of W and modes of the band have no frequency that the grid does not show.
        on_grid = fft.idctn(of_information[part] * real((math.prod(grid) / W.size) ** 0.5), norm="ortho")
        narrow = _System(on_grid, stiffness, mean, system.dense)
        some, iterations = narrow.solved(np.zeros(grid, real), residual[part].copy(), until)
        x[band] = some[band]
        residual -= system.product(x)
    x, more = system.solved(x, residual, until)
    return np.asarray(fft.idctn(x, norm="ortho")).reshape(rhs.shape), iterations + more


def _band(penalty: Array, stiff: float) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Return the modes whose penalty along each axis is not above `stiff`, and the shape of a grid that shows the
    squares of these modes.
    """
    band, grid = [], []
    for axis, length in enumerate(penalty.shape):
        along = penalty[tuple(slice(None) if a == axis else 0 for a in range(penalty.ndim))]
        some = int(np.count_nonzero(along <= stiff))
        points = fft.next_fast_len(2 * some, real=True)
        band.append(slice(some if points < length else length))
        grid.append(min(points, length))
    return tuple(band), tuple(grid)


class _Dense(NamedTuple):
    """Modes (an index for each axis), and the inverse of W + λΔ² among them."""

    modes: tuple[NDArray[np.intp], ...]
    inverse: Array


class _System:
    """W + λΔ² in the modes of the cosine transform.

    Parameters
    ----------
    information
        (*grid) W, in the precision of the result.
    penalty
        (*grid) of the modes. Those with an infinite one are zero.
    mean
        Of W over the voxels that have data.
    dense
        The modes that the preconditioner solves exactly.
    """

    def __init__(self, information: Any, penalty: Array, mean: float, dense: _Dense) -> None:
        real = information.dtype
        self.information, self.dense = information, dense
        self._stiffness = penalty.astype(real)
        self._gain = self._stiffness + real.type(mean)
        np.reciprocal(self._gain, out=self._gain)
        self._stiffness[~np.isfinite(self._stiffness)] = 0
        self._low = np.ravel_multi_index(dense.modes, penalty.shape)
        self._inverse = dense.inverse.astype(real)
        # New memory for each product would take as long as the product.
        self._room, self._preconditioned = np.empty_like(information), np.empty_like(information)

    def product(self, x: Any) -> Any:
        """Return the modes of (W + λΔ²) x for those of x."""
        seen = fft.idctn(x, norm="ortho")
        seen *= self.information
        seen = fft.dctn(seen, norm="ortho", overwrite_x=True)
        seen += np.multiply(self._stiffness, x, out=self._room)
        return seen

    def preconditioned(self, residual: Any) -> Any:
        """Return about what solves for a residual."""
        np.multiply(self._gain, residual, out=self._preconditioned)
        self._preconditioned.reshape(-1)[self._low] = self._inverse @ residual.reshape(-1)[self._low]
        return self._preconditioned

    def size(self, residual: Any) -> float:
        """Return the square of a residual in the norm of the preconditioner."""
        return _dot(residual, self.preconditioned(residual))

    def solved(self, x: Any, residual: Any, until: tuple[float, int]) -> tuple[Any, int]:
        """Return the solution by conjugate gradients from x, and how many iterations it took.

        Parameters
        ----------
        x, residual
            They are overwritten. The residual is that of x.
        until
            The `size` of the residual, and iterations at most.
        """
        enough, max_iterations = until
        direction, rho, iteration = np.zeros_like(residual), 0.0, 0
        real = residual.dtype.type
        for iteration in range(max_iterations + 1):
            preconditioned = self.preconditioned(residual)
            new = _dot(residual, preconditioned)
            if new <= enough or iteration == max_iterations:
                break
            direction *= real(new / rho if rho else 0.0)
            direction += preconditioned
            curved = self.product(direction)
            rho = new
            step = real(rho / _dot(direction, curved))
            x += np.multiply(step, direction, out=self._room)
            curved *= step
            residual -= curved
        return x, iteration


def _dense(of_information: Any, penalty: Array, stiff: float, ridge: float) -> _Dense:
    """Return the modes with the least penalty, and the inverse of W + λΔ² among them, from the modes of W.

    `ridge`, relative to the matrix, is added to its diagonal, so that the inverse is positive definite in the precision
    of the result.
    """
    flat = penalty.reshape(-1)
    some = min(max(FEWEST_MODES, min(flat.size // VOXELS_PER_MODE, MOST_MODES)), flat.size)
    low = np.argpartition(flat, some - 1)[:some]
    low = low[flat[low] <= stiff]
    modes = np.unravel_index(low, penalty.shape)
    matrix = _among_modes(of_information, modes)
    matrix[np.diag_indices(len(low))] += flat[low]
    matrix[np.diag_indices(len(low))] += ridge * np.abs(matrix).sum(axis=1).max(initial=0.0)
    return _Dense(modes, np.asarray(np.linalg.inv(matrix), float))


def _among_modes(of_information: Any, modes: tuple[NDArray[np.intp], ...]) -> Array:
    """Return Σ W φₘ φₙ over the box for cosine modes (K), from the modes of W (*box).

    Along each axis 2 cos(a) cos(b) = cos(a − b) + cos(a + b), so that each entry is a sum of cosine coefficients of W.
    """
    coefficients, norm, terms = of_information, np.ones(len(modes[0])), []
    for axis, (length, m) in enumerate(zip(of_information.shape, modes)):
        front = np.moveaxis(coefficients, axis, -1)[..., : 2 * int(m.max(initial=0)) + 1].astype(float)
        front *= np.sqrt(length / np.where(np.arange(front.shape[-1]) > 0, 2.0, 1.0))  # Σ W cos of each coefficient
        if 2 * m.max(initial=0) >= length:  # cos(π (2i + 1) k / 2n) is odd around k = n
            front = np.concatenate([front, np.zeros_like(front[..., :1]), -front[..., :0:-1]], axis=-1)
        coefficients = np.moveaxis(front, -1, axis)
        norm *= np.sqrt(np.where(m > 0, 2.0, 1.0) / length)
        terms.append((abs(m[:, None] - m), m[:, None] + m))
    total = sum(coefficients[chosen] for chosen in product(*terms))
    return np.asarray(total * norm[:, None] * norm / 2 ** len(modes))


def _dot(a: Any, b: Any) -> float:
    """Return Σ ab, without the threads of BLAS: they wait for each other longer than they compute."""
    return float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1)))
