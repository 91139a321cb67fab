"""Sums over the neighbourhood of every voxel, the same for NumPy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, floating, is_torch
from rimap.kernels import njit

_REACH = 3.0  # standard deviations


def gaussian_sum(C: Array, width: float) -> Array:
    """Return Σ G(|x − y|) C(y) over the last two axes (…, h, w), G(0) = 1, of standard deviation `width` (pixels)."""
    if not is_torch(C) and C.dtype == np.float32:
        return convolved(C, np.exp(-0.5 * (np.arange(int(_REACH * width) + 1) / width) ** 2))

    def matrix(n: int) -> Array:
        d = (np.arange(n)[:, None] - np.arange(n)) / width
        return floating(np.where(abs(d) <= _REACH, np.exp(-0.5 * d**2), 0.0), C)

    G, K = matrix(C.shape[-2]), matrix(C.shape[-1])
    return G @ C @ K


def convolved(C: NDArray[np.float32], half: NDArray[Any]) -> NDArray[np.float32]:
    """Return C (…, h, w) convolved along its last two axes with `half` (r + 1) and its mirror image; zero beyond."""
    out = np.empty(C.shape, np.float32)
    _convolve(
        np.ascontiguousarray(C).reshape(-1, *C.shape[-2:]), half.astype(np.float32), out.reshape(-1, *C.shape[-2:])
    )
    return out


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _convolve(C, half, out):  # type: ignore[no-untyped-def]
    K, h, w = C.shape
    r = half.shape[0] - 1
    row = np.zeros(w + 2 * r, np.float32)
    for index in range(K):
        for y in range(h):
            middle = row[r : r + w]
            for x in range(w):
                middle[x] = half[0] * C[index, y, x]
            d = 1
            while d <= r:
                g, up, down = half[d], y >= d, y + d < h
                if d < r and d + 1 <= y < h - d - 1:  # two at a time
                    g2 = half[d + 1]
                    for x in range(w):
                        middle[x] += g * (C[index, y - d, x] + C[index, y + d, x]) + g2 * (
                            C[index, y - d - 1, x] + C[index, y + d + 1, x]
                        )
                    d += 1
                elif up and down:
                    for x in range(w):
                        middle[x] += g * (C[index, y - d, x] + C[index, y + d, x])
                elif up:
                    for x in range(w):
                        middle[x] += g * C[index, y - d, x]
                elif down:
                    for x in range(w):
                        middle[x] += g * C[index, y + d, x]
                d += 1
            for x in range(w):
                out[index, y, x] = half[0] * row[r + x]
            d = 1
            while d <= r:
                g = half[d]
                if d < r:
                    g2 = half[d + 1]
                    for x in range(w):
                        out[index, y, x] += g * (row[r + x - d] + row[r + x + d]) + g2 * (
                            row[r + x - d - 1] + row[r + x + d + 1]
                        )
                    d += 1
                else:
                    for x in range(w):
                        out[index, y, x] += g * (row[r + x - d] + row[r + x + d])
                d += 1
