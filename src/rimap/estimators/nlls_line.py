"""Numba kernels for models without B: one maximum over T, found on all lanes of a block at once."""

from __future__ import annotations

import math

import numpy as np

from rimap.estimators.nlls_finish import small_exp
from rimap.estimators.nlls_polynomials import LANES, OK, Array, compiled

#: The first of the rows in which `_climb_lanes` leaves what it finds.
OUT = 32


@compiled(fast=True)
def _scan_line(S: Array, nodes: Array, W: Array, x: Array, where: Array, peaks: Array) -> None:
    """Write the node of the longest projection (LANES) and how many maxima there are; W (4·LANES), x (LANES) scratch."""
    J, N = nodes.shape[0], S.shape[0] - 1
    zero, one = np.float32(0), np.float32(1)
    for v in range(LANES):
        W[v] = W[3 * LANES + v] = zero  # before, maxima
        W[LANES + v] = -one  # the best
        W[2 * LANES + v] = one  # rising
        where[v] = 0
    for jj in range(0, J + 1, 2):
        j = min(jj, J - 1)
        for v in range(LANES):
            x[v] = zero
        for n in range(0, N, 3):
            m, r = min(n + 1, N), min(n + 2, N)  # row N is zero
            a, b, c = nodes[j, 0, n], nodes[j, 0, m], nodes[j, 0, r]
            s0, s1, s2 = S[n], S[m], S[r]
            for v in range(LANES):
                x[v] += a * s0[v] + b * s1[v] + c * s2[v]
        for v in range(LANES):
            p = max(x[v], zero)
            rising = one if p > W[v] else zero
            W[3 * LANES + v] += max(W[2 * LANES + v] - rising, zero)
            W[2 * LANES + v] = rising
            W[v] = p
            better = p > W[LANES + v]
            W[LANES + v] = p if better else W[LANES + v]
            where[v] = np.int32(j) if better else where[v]
    for v in range(LANES):
        peaks[v] = W[3 * LANES + v] + W[2 * LANES + v]


@compiled(fast=True)
def _climb_lanes(S: Array, where: Array, limits: Array, basis: Array, scalars: Array, at: Array, width: Array, Z: Array) -> None:  # fmt: skip
    """Find the maximum near the node `where` in every lane, with T and its standard deviation.

    `at` (J, 2) are T and 1/r₀₀ at the nodes. Writes 1 where it is found strictly between the bounds, squared length,
    A, T, their standard deviations to rows OUT and following of Z (40·LANES), the rest of which is scratch; for scale 1.
    (Z is flat: the distances of its rows are then known, and nothing has to be checked before vectors are used.)
    """
    N = basis.shape[1]
    for v in range(LANES):
        j = where[v]
        C, L0, L1 = basis[j], scalars[j, 2], scalars[j, 5]
        c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = 0.0
        for n in range(N):
            s = float(S[n, v])
            c0 += s * C[n, 0]
            c1 += s * C[n, 1]
            c2 += s * C[n, 2]
            c3 += s * C[n, 3]
            c4 += s * C[n, 4]
            c5 += s * C[n, 5]
            c6 += s * C[n, 6]
            c7 += s * C[n, 7]
        (
            Z[v],
            Z[LANES + v],
            Z[2 * LANES + v],
            Z[3 * LANES + v],
            Z[4 * LANES + v],
            Z[5 * LANES + v],
            Z[6 * LANES + v],
            Z[7 * LANES + v],
        ) = c0, c1, c2, c3, c4, c5, c6, c7
        for i in range(1, 8):
            Z[(8 + i) * LANES + v] = L0[i]
        for i in range(8):
            Z[(16 + i) * LANES + v] = L1[i]
        Z[24 * LANES + v], Z[25 * LANES + v], Z[26 * LANES + v], Z[27 * LANES + v], Z[8 * LANES + v] = (
            limits[j, 0],
            limits[j, 1],
            at[j, 0],
            width[j],
            at[j, 1],
        )
    for v in range(LANES):
        lo, hi = Z[24 * LANES + v], Z[25 * LANES + v]
        c1, c2, c3, c4, c5, c6, c7 = (
            Z[LANES + v],
            Z[2 * LANES + v],
            Z[3 * LANES + v],
            Z[4 * LANES + v],
            Z[5 * LANES + v],
            Z[6 * LANES + v],
            Z[7 * LANES + v],
        )
        x = min(max(-0.5 * c1 / c2 if c2 < 0 else 0.0, lo), hi)
        step, curve = 1.0, -1.0
        for _ in range(5):
            f1 = c1 + x * (2 * c2 + x * (3 * c3 + x * (4 * c4 + x * (5 * c5 + x * (6 * c6 + x * 7 * c7)))))
            curve = 2 * c2 + x * (6 * c3 + x * (12 * c4 + x * (20 * c5 + x * (30 * c6 + x * 42 * c7))))
            step = -f1 / curve if curve < 0 else 1.0
            x = min(max(x + step, lo), hi)
        y = Z[v] + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * (c6 + x * c7))))))
        found = (abs(step) < 1e-5) & (x > lo) & (x < hi) & (curve < 0) & (y > 0)
        Z[(OUT + 0) * LANES + v] = 1.0 if found else 0.0
        Z[28 * LANES + v], Z[29 * LANES + v] = x, y
    for v in range(LANES):
        x, y, width_v = Z[28 * LANES + v], Z[29 * LANES + v], Z[27 * LANES + v]
        b1, b2, b3, b4, b5, b6, b7 = (
            Z[9 * LANES + v],
            Z[10 * LANES + v],
            Z[11 * LANES + v],
            Z[12 * LANES + v],
            Z[13 * LANES + v],
            Z[14 * LANES + v],
            Z[15 * LANES + v],
        )
        log_r = x * (b1 + x * (b2 + x * (b3 + x * (b4 + x * (b5 + x * (b6 + x * b7))))))
        slope = b1 + x * (2 * b2 + x * (3 * b3 + x * (4 * b4 + x * (5 * b5 + x * (6 * b6 + x * 7 * b7)))))
        slope = slope / width_v
        T, r0 = Z[26 * LANES + v] * small_exp(x * width_v), Z[8 * LANES + v] * small_exp(-log_r)
        b0, b1, b2, b3, b4, b5, b6, b7 = (
            Z[16 * LANES + v],
            Z[17 * LANES + v],
            Z[18 * LANES + v],
            Z[19 * LANES + v],
            Z[20 * LANES + v],
            Z[21 * LANES + v],
            Z[22 * LANES + v],
            Z[23 * LANES + v],
        )
        D = y * y * (b0 + x * (b1 + x * (b2 + x * (b3 + x * (b4 + x * (b5 + x * (b6 + x * b7)))))))
        good = 1.0 if min(D, 1 - max(abs(log_r), abs(x * width_v))) > 0 else 0.0
        D = 1 / max(D, 1e-300)
        Z[(OUT + 0) * LANES + v] *= good
        Z[(OUT + 1) * LANES + v], Z[(OUT + 2) * LANES + v], Z[(OUT + 3) * LANES + v] = y * y, y * r0, T
        Z[(OUT + 4) * LANES + v] = r0 * math.sqrt(1 + y * y * slope * slope * D)
        Z[(OUT + 5) * LANES + v] = T * math.sqrt(D)


@compiled()
def fit_line(blocks: Array, kind: Array, scale: Array, total: Array, voxels: Array, nodes: Array, limits: Array, basis: Array, scalars: Array, t: Array, width: Array, kappa: Array, sd: Array, residual: Array, status: Array, again: Array) -> int:  # fmt: skip
    """Write what `finish` writes for voxels with one maximum between the bounds of T; the others to `again`.

    Returns how many those are.
    """
    J, N = basis.shape[0], basis.shape[1]
    W, x = np.zeros(4 * LANES, np.float32), np.zeros(LANES, np.float32)
    where, peaks = np.zeros(LANES, np.int32), np.zeros(LANES, np.float32)
    Z, at = np.zeros(40 * LANES), np.zeros((J, 2))
    lanes = Z[OUT * LANES :].reshape(8, LANES)
    for j in range(J):
        at[j, 0], at[j, 1] = math.exp(t[j]), math.exp(-scalars[j, 2, 0])
    count = 0
    for b in range(blocks.shape[0]):
        S, first = blocks[b], b * LANES
        _scan_line(S, nodes, W, x, where, peaks)
        _climb_lanes(S, where, limits, basis, scalars, at, width, Z)
        for v in range(LANES):
            rss = total[first + v] - lanes[1, v]
            lanes[6, v] = math.sqrt(max(rss, 0.0) / N) * scale[first + v]
            lanes[0, v] = lanes[0, v] if rss > 1e-6 * total[first + v] else 0.0  # too few digits: for `finish`
            lanes[7, v] = 1 / scale[first + v] if scale[first + v] > 0 else 0.0
        for v in range(min(LANES, voxels.shape[0] - first)):
            i = first + v
            if kind[i] <= 0 and peaks[v] <= 1 and lanes[0, v] > 0:
                o = voxels[i]
                kappa[0, o], kappa[1, o] = lanes[2, v] * scale[i], lanes[3, v]
                sd[0, o], sd[1, o] = lanes[4, v], lanes[5, v] * lanes[7, v]
                residual[o] = lanes[6, v]
                status[o] = OK
            else:
                again[count] = i
                count += 1
    return count
