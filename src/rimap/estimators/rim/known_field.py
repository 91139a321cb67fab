"""What the data of a slice say, for mapping: the sums at any estimate, and A and T of maximum likelihood for a given B.

The second is `start.at_B`, compiled.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.rim.data_term import (
    SignalTable,
    Sums,
    bessel_ratio_table,
    data_sums,
    in_chunks,
    place,
    sums_of_voxel,
)
from rimap.estimators.rim.start import N_STEPS_KNOWN_B, N_T, ODD, PRIOR_LOG_T, at_B, quietened
from rimap.kernels import njit
from rimap.signals.base import SignalModel

F32 = NDArray[np.float32]
_CHUNK = 4096


class DataTerm:
    """The `Sums` of images (N, b, h, w) at any κ (Q, b, h, w): from a table, where the model has one."""

    def __init__(self, model: SignalModel, S: F32, sigma: F32, rician: bool, executor: Executor | None = None) -> None:
        self.model, self.S, self.sigma, self.rician, self.executor = model, S, sigma, rician, executor
        if model.separable:
            self.table = SignalTable.of(model)
            self.voxels = self.table.voxels(S)
            self.sigmas = np.broadcast_to(sigma, S.shape[1:]).reshape(-1) if rician else None

    def __call__(self, kappa: F32) -> Sums:
        if not self.model.separable:
            return data_sums(self.model, self.S, kappa, self.sigma if self.rician else None)
        flat = np.ascontiguousarray(kappa.reshape(len(kappa), -1), np.float32)
        found = self.table.sums(self.voxels, flat, self.sigmas, executor=self.executor)
        return Sums(*(x.reshape(x.shape[:-1] + self.S.shape[1:]) for x in found))

    def at_B(self, B: F32, *, alone: bool = False) -> F32:
        """Return κ (3, 1, h, w) of maximum likelihood for B (1, h, w); `alone`, whatever T the neighbourhood has."""
        if not self.model.separable:
            return np.asarray(at_B(self.model, self.S, B, self.sigma, self), np.float32)
        return at_known_B(self.table, self.S, self.voxels, B, self.sigma, self.rician, alone, self.executor)


def at_known_B(
    table: SignalTable,
    S: F32,
    voxels: F32,
    B: F32,
    sigma: F32,
    rician: bool,
    alone: bool = False,
    executor: Executor | None = None,
) -> F32:
    """Return κ (3, 1, h, w), as `start.at_B` does.

    Parameters
    ----------
    table
        Of the signal model.
    S, voxels
        The images (N, 1, h, w), and what `table.voxels` makes of them.
    B
        (1, h, w).
    sigma
        Broadcast against B.
    """
    s2 = np.asarray(sigma**2 + 0 * S[0], np.float32)
    smooth, s2_smooth = (S, s2) if alone else quietened(S, s2)
    around = voxels if smooth is S else table.voxels(smooth)
    lo, hi = np.log(table.model.parameters[-1].bounds)
    grid = np.linspace(max(lo, np.log(2.0)), hi, N_T)
    phi = np.asarray(table.model.basis(np.exp(grid)), np.float32)  # (N, 2, G)
    gram = np.stack([(phi[:, i] * phi[:, j]).sum(0) for i, j in ((0, 0), (0, 1), (1, 1))])
    prior = ((grid - np.log(1000.0)) ** 2 / PRIOR_LOG_T**2).astype(np.float32)
    own, near, b = s2.reshape(-1), np.ascontiguousarray(np.broadcast_to(s2_smooth, s2.shape)).reshape(-1), B.reshape(-1)
    out = np.empty((3, len(voxels)), np.float32)

    def run(start: int) -> None:
        k = slice(start, start + _CHUNK)
        _fit(
            table.values, table.low, table.step, phi, gram, np.float32(grid[0]), np.float32(grid[1] - grid[0]), prior,
            voxels[k], around[k], own[k], near[k], b[k], np.float32(lo), np.float32(hi), N_STEPS_KNOWN_B, rician,
            table.model.magnitude, bessel_ratio_table(), out[:, k],
        )  # fmt: skip

    in_chunks(run, range(0, len(voxels), _CHUNK), executor)
    return out.reshape(3, *B.shape)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _fit(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    values, low, step, phi, gram, u0, du, prior, S, around, s2, s2_around, B, lo, hi, n_steps, rician, modulus, ratio,
    out,
):  # fmt: skip
    N, G = phi.shape[0], N_T
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    last = np.float32(values.shape[0] - 1.001)
    centre, weak = np.float32(np.log(1000.0)), np.float32(1 / PRIOR_LOG_T**2)
    Z, Y, D = np.empty(G, np.float32), np.empty(G, np.float32), np.empty(G, np.float32)
    for m in range(S.shape[0]):
        b = B[m]
        for k in range(G):
            Z[k] = zero
            Y[k] = zero
            D[k] = gram[0, k] + b * (np.float32(2) * gram[1, k] + b * gram[2, k]) + np.float32(1e-12)
        for n in range(N):
            s, t = S[m, n], around[m, n]
            if modulus:
                for k in range(G):
                    M = abs(phi[n, 0, k] + b * phi[n, 1, k])
                    Z[k] += s * M
                    Y[k] += t * M
            else:
                for k in range(G):
                    M = phi[n, 0, k] + b * phi[n, 1, k]
                    Z[k] += s * M
                    Y[k] += t * M
        a, c = one / s2[m], one / s2_around[m]
        for k in range(G):
            Z[k] = max(Z[k], zero) ** 2 / D[k] * a - prior[k]
            Y[k] = max(Y[k], zero) ** 2 / D[k] * c - prior[k]
        best = near = 0
        for k in range(G):
            if Z[k] > Z[best]:
                best = k
            if Y[k] > Y[near]:
                near = k
        k = min(max(best if Z[best] > Z[near] + np.float32(ODD) else near, 1), G - 2)
        curve = min(Z[k - 1] - np.float32(2) * Z[k] + Z[k + 1], np.float32(-1e-6))
        shift = min(max(half * (Z[k - 1] - Z[k + 1]) / curve, -one), one)
        u = min(max(u0 + (np.float32(k) + shift) * du, lo), hi)
        inverse = a
        i, w = place(u, low, step, last)
        gA, _, gT, AA, _, AT, _, _, TT, _ = sums_of_voxel(values, i, w, one, b, S[m], inverse, False, modulus, ratio)
        A = max((AA - gA) / (AA + np.float32(1e-12)), zero)
        ridge = s2[m] * weak
        for _ in range(n_steps):
            i, w = place(u, low, step, last)
            gA, _, gT, AA, _, AT, _, _, TT, _ = sums_of_voxel(values, i, w, A, b, S[m], inverse, rician, modulus, ratio)
            gT += ridge * (u - centre)
            AA = np.float32(1.001) * AA + np.float32(1e-6) * s2[m]
            TT = np.float32(1.001) * TT + ridge
            det = AA * TT - AT * AT
            dA, dT = (TT * gA - AT * gT) / det, (AA * gT - AT * gA) / det
            A = min(max(A - dA, half * A), np.float32(2) * A)
            u = min(max(u - min(max(dT, -half), half), lo), hi)
        out[0, m], out[1, m], out[2, m] = A, b, np.exp(u)
