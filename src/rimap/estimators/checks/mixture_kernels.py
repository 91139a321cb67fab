"""Numba kernel: the signals of voxels that hold two tissues."""

from __future__ import annotations

import math
from typing import Any

from rimap.kernels import njit

Array = Any


@njit(error_model="numpy")
def mix(shapes: Array, fractions: Array, magnitude: bool, out: Array) -> None:
    """Write w g(T₁) + (1 − w) g(T₂) with norm 1 for every pair T₁ < T₂ and every w; its modulus for magnitude images.

    Parameters
    ----------
    shapes
        (K, N), g at K relaxation times.
    fractions
        w, (W).
    out
        (K (K − 1)/2 · W, N).
    """
    K, N = shapes.shape
    row = 0
    for i in range(K):
        for j in range(i + 1, K):
            for fraction in fractions:
                mixed, power = out[row], 0.0
                for n in range(N):
                    x = fraction * shapes[i, n] + (1 - fraction) * shapes[j, n]
                    mixed[n] = abs(x) if magnitude else x
                for n in range(N):
                    power += mixed[n] * mixed[n]
                size = 1 / max(math.sqrt(power), 1e-300)
                for n in range(N):
                    mixed[n] *= size
                row += 1
