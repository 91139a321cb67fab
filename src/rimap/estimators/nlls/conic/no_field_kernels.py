"""Numba kernels for models without B: one maximum over T, from the change of sign of its slope.

Voxels whose maximum is in the same interval of T are climbed side by side: they share its polynomials.
"""

from __future__ import annotations

import math

import numpy as np

from rimap.estimators.nlls.conic.kernel_arguments import Chunk, Groups, Line, Maps
from rimap.estimators.nlls.conic.polynomials import LANES, OK, Array, compiled
from rimap.estimators.nlls.conic.scan_kernels import PIECE, load

#: Voxels that are climbed side by side.
GROUP = 64
#: The rows of a group: 8 coefficients, then total, scale, θ, whether the maximum is found, and the maps.
TOTAL, SCALE, THETA, FOUND, A, T, SD_A, SD_T, RESIDUAL = range(8, 17)


@compiled(fast=True)
def _bracket(S: Array, slopes: Array, X: Array, W: Array, where: Array) -> None:
    """Write the interval in which the slope of ⟨S, u⟩ turns from positive to negative, -1 if it turns more than once.

    S (N + 1, LANES), its last row zero; slopes (K, N + 2), K a multiple of four, padded with zeros; X (4·LANES) and W
    (3·LANES) scratch.
    """
    K, N = slopes.shape[0], S.shape[0] - 1
    zero, one = np.float32(0), np.float32(1)
    for v in range(LANES):
        W[v] = one  # rising
        W[LANES + v] = W[2 * LANES + v] = zero  # how often: it rises, it turns
    for k in range(0, K, 4):
        for n in range(0, N, 3):
            keep = zero if n == 0 else one
            a0, a1, a2 = slopes[k, n], slopes[k, n + 1], slopes[k, n + 2]
            b0, b1, b2 = slopes[k + 1, n], slopes[k + 1, n + 1], slopes[k + 1, n + 2]
            c0, c1, c2 = slopes[k + 2, n], slopes[k + 2, n + 1], slopes[k + 2, n + 2]
            d0, d1, d2 = slopes[k + 3, n], slopes[k + 3, n + 1], slopes[k + 3, n + 2]
            s0, s1, s2 = S[n], S[min(n + 1, N)], S[min(n + 2, N)]
            for v in range(LANES):
                t0, t1, t2 = s0[v], s1[v], s2[v]
                X[v] = keep * X[v] + a0 * t0 + a1 * t1 + a2 * t2
                X[LANES + v] = keep * X[LANES + v] + b0 * t0 + b1 * t1 + b2 * t2
                X[2 * LANES + v] = keep * X[2 * LANES + v] + c0 * t0 + c1 * t1 + c2 * t2
                X[3 * LANES + v] = keep * X[3 * LANES + v] + d0 * t0 + d1 * t1 + d2 * t2
        for v in range(LANES):
            p = one if X[v] > zero else zero
            q = one if X[LANES + v] > zero else zero
            r = one if X[2 * LANES + v] > zero else zero
            s = one if X[3 * LANES + v] > zero else zero
            W[2 * LANES + v] += abs(p - W[v]) + abs(q - p) + abs(r - q) + abs(s - r)
            W[LANES + v] += p + q + r + s
            W[v] = s
    for v in range(LANES):
        once = one if W[2 * LANES + v] == one else zero
        where[v] = np.int32(once * W[LANES + v] - one)


@compiled(fast=True)
def _peaks(C: Array, M: Array, S: Array, N: float, Z: Array) -> None:
    """Find the maximum in every lane of an interval, and what it makes of the maps, in rows of Z (17·GROUP).

    C (N + pad, 8), N + pad a multiple of three, are the coefficients of u and M (4, 8) those of the maps; S
    ((N + pad)·GROUP) images. (Z is flat: the distances of its rows are then known, and nothing has to be checked before
    vectors are used.)
    """
    for o in range(0, 8, 4):
        g = Z[o * GROUP : (o + 4) * GROUP]
        for v in range(4 * GROUP):
            g[v] = 0.0
        for n in range(0, C.shape[0], 3):
            a0, a1, a2 = C[n, o], C[n + 1, o], C[n + 2, o]
            b0, b1, b2 = C[n, o + 1], C[n + 1, o + 1], C[n + 2, o + 1]
            c0, c1, c2 = C[n, o + 2], C[n + 1, o + 2], C[n + 2, o + 2]
            d0, d1, d2 = C[n, o + 3], C[n + 1, o + 3], C[n + 2, o + 3]
            s = S[n * GROUP : (n + 3) * GROUP]
            for v in range(GROUP):
                t0, t1, t2 = float(s[v]), float(s[GROUP + v]), float(s[2 * GROUP + v])
                g[v] += a0 * t0 + a1 * t1 + a2 * t2
                g[GROUP + v] += b0 * t0 + b1 * t1 + b2 * t2
                g[2 * GROUP + v] += c0 * t0 + c1 * t1 + c2 * t2
                g[3 * GROUP + v] += d0 * t0 + d1 * t1 + d2 * t2
    for v in range(GROUP):
        c1, c2, c3, c4, c5, c6, c7 = (
            Z[GROUP + v],
            2 * Z[2 * GROUP + v],
            3 * Z[3 * GROUP + v],
            4 * Z[4 * GROUP + v],
            5 * Z[5 * GROUP + v],
            6 * Z[6 * GROUP + v],
            7 * Z[7 * GROUP + v],
        )
        # The slope at both ends and in the middle: where a parabola through them, on its side, crosses zero.
        even, uneven = c1 + c3 + c5 + c7, c2 + c4 + c6
        before, after = even - uneven, even + uneven
        left, right = before - c1, after - c1
        ratio = (after * right + before * left) / ((before - after) * left * right)
        x = min(max(-c1 * ratio if min(left, -right) > 0 else 0.0, -1.0), 1.0)
        step, curve = 1.0, -1.0
        for _ in range(3):
            f = c7
            curve = f
            f = f * x + c6
            curve = curve * x + f
            f = f * x + c5
            curve = curve * x + f
            f = f * x + c4
            curve = curve * x + f
            f = f * x + c3
            curve = curve * x + f
            f = f * x + c2
            curve = curve * x + f
            f = f * x + c1
            step = -f / curve if curve < 0 else 1.0
            x = min(max(x + step, -1.0), 1.0)
        Z[THETA * GROUP + v] = x
        Z[FOUND * GROUP + v] = 1.0 if (abs(step) < 1e-5) & (abs(x) < 1) & (curve < 0) else 0.0
    t0, t1, t2, t3, t4, t5, t6, t7 = M[0, 0], M[0, 1], M[0, 2], M[0, 3], M[0, 4], M[0, 5], M[0, 6], M[0, 7]
    a0, a1, a2, a3, a4, a5, a6, a7 = M[1, 0], M[1, 1], M[1, 2], M[1, 3], M[1, 4], M[1, 5], M[1, 6], M[1, 7]
    for v in range(GROUP):
        x = Z[THETA * GROUP + v]
        y = Z[v] + x * (
            Z[GROUP + v]
            + x * (Z[2 * GROUP + v] + x * (Z[3 * GROUP + v] + x * (Z[4 * GROUP + v] + x * (Z[5 * GROUP + v] + x * (Z[6 * GROUP + v] + x * Z[7 * GROUP + v])))))
        )  # fmt: skip
        size, rss = Z[SCALE * GROUP + v], Z[TOTAL * GROUP + v] - y * y
        Z[T * GROUP + v] = t0 + x * (t1 + x * (t2 + x * (t3 + x * (t4 + x * (t5 + x * (t6 + x * t7))))))
        Z[A * GROUP + v] = y * size * (a0 + x * (a1 + x * (a2 + x * (a3 + x * (a4 + x * (a5 + x * (a6 + x * a7)))))))
        Z[SD_T * GROUP + v] = 1 / (y * size)
        Z[RESIDUAL * GROUP + v] = math.sqrt(max(rss, 0.0) / N) * size
        exact = (rss > 1e-6 * Z[TOTAL * GROUP + v]) & (y > 0)  # else too few digits
        Z[FOUND * GROUP + v] = Z[FOUND * GROUP + v] if exact else 0.0
    t0, t1, t2, t3, t4, t5, t6, t7 = M[2, 0], M[2, 1], M[2, 2], M[2, 3], M[2, 4], M[2, 5], M[2, 6], M[2, 7]
    a0, a1, a2, a3, a4, a5, a6, a7 = M[3, 0], M[3, 1], M[3, 2], M[3, 3], M[3, 4], M[3, 5], M[3, 6], M[3, 7]
    for v in range(GROUP):
        x = Z[THETA * GROUP + v]
        Z[SD_A * GROUP + v] = t0 + x * (t1 + x * (t2 + x * (t3 + x * (t4 + x * (t5 + x * (t6 + x * t7))))))
        Z[SD_T * GROUP + v] *= a0 + x * (a1 + x * (a2 + x * (a3 + x * (a4 + x * (a5 + x * (a6 + x * a7))))))


@compiled()
def _write(k: int, groups: Groups, line: Line, chunk: Chunk, to: Maps, count: int) -> int:
    """Climb the group of interval k and write its maps; those without a maximum go to `again`, now `count`; return how many that are."""
    S, who, many, Z, again = groups.images[k], groups.who[k], groups.full[k], groups.climbed, groups.again
    voxels, rows, scale, total = chunk.voxels, chunk.rows, chunk.scale, chunk.total
    kappa, sd, residual, status = to.kappa, to.sd, to.residual, to.status
    N = rows.shape[1]
    for v in range(GROUP):
        i = who[v] if v < many else who[0]
        Z[TOTAL * GROUP + v], Z[SCALE * GROUP + v] = total[i], scale[i]
    _peaks(line.basis[k], line.maps[k], S, float(N), Z)
    for v in range(many):
        i = who[v]
        if Z[FOUND * GROUP + v] > 0:
            o = voxels[i]
            kappa[0, o], kappa[1, o] = Z[A * GROUP + v], Z[T * GROUP + v]
            sd[0, o], sd[1, o] = Z[SD_A * GROUP + v], Z[SD_T * GROUP + v]
            residual[o] = Z[RESIDUAL * GROUP + v]
            status[o] = OK
        else:
            for n in range(N):
                rows[i, n] = S[n * GROUP + v]
            again[count] = i
            count += 1
    return count


@compiled()
def fit_line(images: Array, blocks: Array, chunk: Chunk, line: Line, to: Maps, again: Array) -> int:
    """Load the voxels and write what `finish` writes where one maximum lies between the bounds of T; the others to `again`.

    Returns how many those are; `rows` holds them alone. `blocks` need hold no more than PIECE voxels.
    """
    voxels, rows, scale, total, kind = chunk.voxels, chunk.rows, chunk.scale, chunk.total, chunk.kind
    kappa, sd, residual, status = to.kappa, to.sd, to.residual, to.status
    basis, exact = line.basis, line.exact
    N, K, m = images.shape[0], basis.shape[0], voxels.shape[0]
    X, W, here = np.zeros(4 * LANES, np.float32), np.zeros(3 * LANES, np.float32), np.zeros(LANES, np.int32)
    # The voxels of each interval are collected until the group is full.
    groups, who, full = (
        np.zeros((K, basis.shape[1] * GROUP), np.float32),
        np.zeros((K, GROUP), np.int64),
        np.zeros(K, np.int64),
    )
    to_climb = Groups(groups, who, full, np.zeros(17 * GROUP), again)
    count = 0
    for piece in range(0, m, PIECE):
        end = min(piece + PIECE, m)
        load(images, voxels[piece:end], blocks, rows[:0], scale[piece:], total[piece:], kind[piece:], to.rms)
        for first in range(piece, end, LANES):
            S = blocks[(first - piece) // LANES]
            _bracket(S, line.slopes, X, W, here)
            for v in range(min(LANES, m - first)):
                i, k = first + v, here[v]
                if kind[i] > 0:
                    o = voxels[i]
                    status[o], residual[o] = kind[i], np.nan
                    kappa[0, o] = kappa[1, o] = sd[0, o] = sd[1, o] = np.nan
                elif k < 0 or not exact[k]:
                    for n in range(N):
                        rows[i, n] = S[n, v]
                    again[count] = i
                    count += 1
                else:
                    group, place = groups[k], full[k]
                    for n in range(0, N, 3):
                        s0, s1, s2 = S[n, v], S[min(n + 1, N), v], S[min(n + 2, N), v]
                        group[n * GROUP + place], group[(n + 1) * GROUP + place], group[(n + 2) * GROUP + place] = (
                            s0,
                            s1,
                            s2,
                        )
                    who[k, place] = i
                    full[k] = place + 1
                    if place + 1 == GROUP:
                        count = _write(k, to_climb, line, chunk, to, count)
                        full[k] = 0
    for k in range(K):
        if full[k] > 0:
            count = _write(k, to_climb, line, chunk, to, count)
    return count
