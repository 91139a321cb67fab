"""Numba kernel: the inverse information of voxels whose parameters are known."""

from __future__ import annotations

import math
from typing import Any

from rimap.estimators.nlls.descent import Scratch, covariance_of
from rimap.estimators.nlls.variable_projection import Grid, facts_at, kernel

Array = Any


@kernel
def covariances(grid: Grid, A: Array, F: Array, T: Array, open_amplitudes: tuple[bool, bool], moves_F: bool,
                chosen: tuple[Array, Array, Scratch], out: Array) -> None:  # fmt: skip
    """Write the covariance for σ = 1 of amplitudes A (K, M), field F and time T (M) to `out`, packed by rows.

    `chosen` has the voxels, the place in κ of each estimated parameter in the order (amplitudes, F, T), and scratch.
    """
    (voxels, order, work), K = chosen, grid.powers[0].shape[3]
    rows = round((math.sqrt(8 * out.shape[0] + 1) - 1) / 2)  # Q of Q (Q + 1)/2
    for i in range(voxels.shape[0]):
        o = voxels[i]
        for k in range(K):
            work.amplitudes[k, 0] = work.amplitudes[k, 1] = A[k, o]
        facts_at(work.target, 0.0, grid, (math.log(T[o]), F[o]), work.amplitudes, moves_F, work.columns, work.facts)
        Q = covariance_of(work.facts, K, moves_F, open_amplitudes, work.matrix)
        for i in range(Q):
            unit_i = T[o] if i == Q - 1 else 1.0
            for j in range(Q):
                p, q = order[i], order[j]
                if p <= q:  # row p of the upper triangle begins after rows of length Q, Q − 1, …
                    at = p * rows - p * (p - 1) // 2 + q - p
                    out[at, o] = work.matrix[1, i, j] * unit_i * (T[o] if j == Q - 1 else 1.0)
