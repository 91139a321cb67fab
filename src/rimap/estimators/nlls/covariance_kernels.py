"""Numba kernel: the inverse information of voxels whose parameters are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rimap.estimators.nlls.descent import covariance_of, scratch
from rimap.estimators.nlls.variable_projection import Grid, columns_at, evaluate, kernel

Array = Any


@kernel
def covariances(grid: Grid, A: Array, F: Array, T: Array, open_amplitudes: tuple[bool, bool], moves_F: bool, chosen: tuple[Array, Array], out: Array) -> None:  # fmt: skip
    """Write the covariance for σ = 1 of amplitudes A (K, M), field F and time T (M) to `out`, packed by rows.

    `chosen` has the voxels, and the place in κ of each estimated parameter in the order (amplitudes, F, T).
    """
    (voxels, order), (K, N) = chosen, grid.powers[0].shape[3:]
    rows = round((math.sqrt(8 * out.shape[0] + 1) - 1) / 2)  # Q of Q (Q + 1)/2
    nothing, work, amplitudes = np.zeros(N), scratch(K, N), np.zeros((2, 2))
    for o in voxels:
        for k in range(K):
            amplitudes[k, :] = A[k, o]
        columns_at(grid, math.log(T[o]), F[o], moves_F, work.columns)
        evaluate(nothing, work.columns, amplitudes, moves_F, work.residual, work.facts)
        Q = covariance_of(work.facts, K, moves_F, open_amplitudes, work.matrix)
        for i in range(Q):
            unit_i = T[o] if i == Q - 1 else 1.0
            for j in range(Q):
                p, q = order[i], order[j]
                if p <= q:  # row p of the upper triangle begins after rows of length Q, Q − 1, …
                    at = p * rows - p * (p - 1) // 2 + q - p
                    out[at, o] = work.matrix[1, i, j] * unit_i * (T[o] if j == Q - 1 else 1.0)
