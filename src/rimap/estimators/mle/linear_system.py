"""The linear system of a Newton step for a smooth field: (W + λΔ²) x = r on a box with mirrored edges.

In the modes of the cosine transform λΔ² is diagonal, and W, what the voxels say about the field, is not: it is large in
tissue and next to nothing in air. The lowest modes, those that are smooth enough to be at home in air, are therefore
solved exactly, as a small dense system, and conjugate gradients do the rest.

If λ is large, only a band of low modes follows the voxels. It is solved on a grid that is just fine enough for products
of its modes; one step of Jacobi's method from there finds the others.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

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
#: modes are not dense. Those that are stiff along one axis alone can be found last, from all others.
STIFF = 4.0
#: They are if the others fit on a grid with no more than this share of the points of the box, and for a relative
#: residual not below this.
LARGEST_GRID, BAND_RTOL = 0.5, 1e-2


def solve_linear(
    W: Array, penalty: Array, rhs: Array, *, rtol: float = 1e-2, max_iterations: int = 500
) -> tuple[Array, int]:
    """Return the solution of (W + λΔ²) x = rhs, and how many iterations of conjugate gradients it took.

    Without any data (W = 0) the solution is zero.

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
    """
    if not W.any():
        return np.zeros(rhs.shape), 0
    # An axis of one voxel doubles the time of the transforms.
    W, penalty, right = (np.atleast_1d(np.squeeze(a)) for a in (W, penalty, rhs))
    mean, until = float(W.sum() / max((W > 0).sum(), 1)), (rtol, max_iterations)
    real: Any = np.float32 if rtol >= SINGLE_RTOL else np.float64
    information, modes = W.astype(real), fft.dctn(right.astype(real), norm="ortho")
    some = min(max(FEWEST_MODES, min(W.size // VOXELS_PER_MODE, MOST_MODES)), W.size)
    band, grid = _band(penalty, STIFF * mean)
    if rtol < BAND_RTOL or math.prod(grid) > LARGEST_GRID * W.size:
        x, iteration = _solve_modes(information, penalty, modes, (mean, some), until)
        return np.asarray(fft.idctn(x, norm="ortho")).reshape(rhs.shape), iteration
    # Modes of the band, times W, have no frequency that the grid does not show.
    part = tuple(slice(length) for length in grid)
    on_grid = fft.dctn(information, norm="ortho")[part] * real((math.prod(grid) / W.size) ** 0.5)
    stiffness = np.full(grid, np.inf)
    stiffness[band] = penalty[band]
    found, iteration = _solve_modes(
        fft.idctn(on_grid, norm="ortho"), stiffness, modes[part].copy(), (mean, some), until
    )
    x = np.zeros_like(modes)
    x[band] = found[band]
    modes -= fft.dctn(information * fft.idctn(x, norm="ortho"), norm="ortho", overwrite_x=True)
    modes /= (mean + penalty).astype(real)
    modes[band] = found[band]
    return np.asarray(fft.idctn(modes, norm="ortho", overwrite_x=True)).reshape(rhs.shape), iteration


def _band(penalty: Array, stiff: float) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Return the modes whose penalty along an axis is not above `stiff`, and the shape of a grid that shows the squares
    of these modes.
    """
    band, grid = [], []
    for axis, length in enumerate(penalty.shape):
        along = penalty[tuple(slice(None) if a == axis else 0 for a in range(penalty.ndim))]
        some = int(np.count_nonzero(along <= stiff))
        points = fft.next_fast_len(2 * some, real=True)
        band.append(slice(some if points < length else length))
        grid.append(min(points, length))
    return tuple(band), tuple(grid)


def _solve_modes(
    information: Any, penalty: Array, residual: Any, dense: tuple[float, int], until: tuple[float, int]
) -> tuple[Any, int]:
    """Return the modes of the solution by conjugate gradients, and how many iterations it took.

    Parameters
    ----------
    information, penalty
        (*grid); modes with an infinite penalty are zero.
    residual
        (*grid) the modes of the right side; overwritten.
    dense
        The mean information of a voxel, and how many modes are solved exactly.
    until
        Relative residual, and iterations at most.
    """
    real, (mean, some), (rtol, max_iterations) = residual.dtype.type, dense, until
    low, inverse = _dense(information.astype(float), penalty, STIFF * mean, some)
    low_inverse, gain = inverse.astype(real), (1 / (mean + penalty)).astype(real)
    stiffness = np.where(np.isfinite(penalty), penalty, 0).astype(real)
    x: Any = np.zeros_like(residual)
    # New memory for each product would take as long as the product.
    direction, preconditioned, product = (np.zeros_like(residual) for _ in range(3))
    rho = first = 0.0
    iteration = 0
    for iteration in range(max_iterations + 1):
        np.multiply(gain, residual, out=preconditioned)
        preconditioned.reshape(-1)[low] = low_inverse @ residual.reshape(-1)[low]
        new = _dot(residual, preconditioned)
        first = first or new
        if first == 0 or new < rtol**2 * first or iteration == max_iterations:
            break
        direction *= real(new / rho if rho else 0.0)
        direction += preconditioned
        seen = fft.idctn(direction, norm="ortho")
        seen *= information
        curved = fft.dctn(seen, norm="ortho", overwrite_x=True)
        curved += np.multiply(stiffness, direction, out=product)
        rho = new
        step = real(rho / _dot(direction, curved))
        x += np.multiply(step, direction, out=product)
        residual -= np.multiply(step, curved, out=product)
    return x, iteration


def _dense(W: Array, penalty: Array, stiff: float, some: int) -> tuple[NDArray[np.intp], Array]:
    """Return the flat indices of `some` modes with the least penalty, and the inverse of W + λΔ² among them."""
    flat, some = penalty.reshape(-1), min(some, penalty.size)
    low = np.argpartition(flat, some - 1)[:some]
    low = low[flat[low] <= stiff]
    matrix = _among_modes(W, low)
    matrix[np.diag_indices(len(low))] += flat[low]
    return low, np.asarray(np.linalg.inv(matrix), float)


def _among_modes(W: Array, modes: NDArray[np.intp]) -> Array:
    """Return Σ W φₘ φₙ over the box for the cosine modes (K) given by their flat indices.

    Along each axis 2 cos(a) cos(b) = cos(a − b) + cos(a + b), so that each entry is a sum of cosine coefficients of W.
    """
    coefficients = fft.dctn(W) / 2**W.ndim
    norm, index = np.ones(len(modes)), np.unravel_index(modes, W.shape)
    terms = []
    for axis, (length, m) in enumerate(zip(W.shape, index)):
        front = np.moveaxis(coefficients, axis, 0)[: 2 * int(m.max(initial=0)) + 1]
        if 2 * m.max(initial=0) >= length:  # cos(π (2i + 1) k / 2n) is odd around k = n
            front = np.concatenate([front, np.zeros_like(front[:1]), -front[:0:-1]])
        coefficients = np.moveaxis(front, 0, axis)
        norm *= np.sqrt(np.where(m > 0, 2.0, 1.0) / length)
        terms.append((abs(m[:, None] - m), m[:, None] + m))
    total = sum(coefficients[chosen] for chosen in product(*terms))
    return np.asarray(total * norm[:, None] * norm / 2**W.ndim)


def _dot(a: Any, b: Any) -> float:
    """Return Σ ab, without the threads of BLAS: they wait for each other longer than they compute."""
    return float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1)))
