"""Smooth random fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smooth_field(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a Gaussian random field (*shape) with zero mean and unit variance.

    Parameters
    ----------
    length
        Standard deviation of the Gaussian kernel, voxels: how far neighbours are alike.
    """
    kernels = [smooth_kernel(n, length) for n in shape]
    field = rng.standard_normal([kernel.shape[1] for kernel in kernels])
    for kernel in kernels:  # the first axis is consumed, its smooth version appended: after all axes the order is back
        field = np.tensordot(field, kernel, axes=(0, 1))
    return np.asarray((field - field.mean()) / field.std() if field.size > 1 else field)


def smooth_kernel(n: int, length: float) -> NDArray[np.float64]:
    """Return the matrix (n, m) that turns m white values into a smooth random line of n, unit variance.

    Gaussians of standard deviation `length` (voxels), one each 0.8 `length`, reaching 3 `length` beyond the ends.
    """
    step = max(0.8 * length, 1e-3)
    centre = np.arange(-3 * length, n - 1 + 3 * length + step, step) if n > 1 else np.zeros(1)
    K = np.exp(-0.5 * ((np.arange(n)[:, None] - centre) / max(length, 1e-3)) ** 2)
    return np.asarray(K / np.sqrt((K**2).sum(1, keepdims=True)))
