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
    for lane in range(LANES):
        W[lane] = one  # rising
        W[LANES + lane] = W[2 * LANES + lane] = zero  # how often: it rises, it turns
    for index in range(0, K, 4):
        for image in range(0, N, 3):
            keep = zero if image == 0 else one
            a0, a1, a2 = slopes[index, image], slopes[index, image + 1], slopes[index, image + 2]
            b0, b1, b2 = slopes[index + 1, image], slopes[index + 1, image + 1], slopes[index + 1, image + 2]
            c0, c1, c2 = slopes[index + 2, image], slopes[index + 2, image + 1], slopes[index + 2, image + 2]
            d0, d1, d2 = slopes[index + 3, image], slopes[index + 3, image + 1], slopes[index + 3, image + 2]
            s0, s1, s2 = S[image], S[min(image + 1, N)], S[min(image + 2, N)]
            for lane in range(LANES):
                t0, t1, t2 = s0[lane], s1[lane], s2[lane]
                X[lane] = keep * X[lane] + a0 * t0 + a1 * t1 + a2 * t2
                X[LANES + lane] = keep * X[LANES + lane] + b0 * t0 + b1 * t1 + b2 * t2
                X[2 * LANES + lane] = keep * X[2 * LANES + lane] + c0 * t0 + c1 * t1 + c2 * t2
                X[3 * LANES + lane] = keep * X[3 * LANES + lane] + d0 * t0 + d1 * t1 + d2 * t2
        for lane in range(LANES):
            p = one if X[lane] > zero else zero
            q = one if X[LANES + lane] > zero else zero
            r = one if X[2 * LANES + lane] > zero else zero
            s = one if X[3 * LANES + lane] > zero else zero
            W[2 * LANES + lane] += abs(p - W[lane]) + abs(q - p) + abs(r - q) + abs(s - r)
            W[LANES + lane] += p + q + r + s
            W[lane] = s
    for lane in range(LANES):
        once = one if W[2 * LANES + lane] == one else zero
        where[lane] = np.int32(once * W[LANES + lane] - one)


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
        for image in range(0, C.shape[0], 3):
            a0, a1, a2 = C[image, o], C[image + 1, o], C[image + 2, o]
            b0, b1, b2 = C[image, o + 1], C[image + 1, o + 1], C[image + 2, o + 1]
            c0, c1, c2 = C[image, o + 2], C[image + 1, o + 2], C[image + 2, o + 2]
            d0, d1, d2 = C[image, o + 3], C[image + 1, o + 3], C[image + 2, o + 3]
            s = S[image * GROUP : (image + 3) * GROUP]
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
        y = Z[7 * GROUP + v]
        y = y * x + Z[6 * GROUP + v]
        y = y * x + Z[5 * GROUP + v]
        y = y * x + Z[4 * GROUP + v]
        y = y * x + Z[3 * GROUP + v]
        y = y * x + Z[2 * GROUP + v]
        y = y * x + Z[GROUP + v]
        y = y * x + Z[v]
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
    """Climb the group of interval k and write its maps; those without a maximum go to `again`, now `count`; return how
    many that are.
    """
    S, who, many, Z, again = groups.images[k], groups.who[k], groups.full[k], groups.climbed, groups.again
    voxels, rows, scale, total = chunk.voxels, chunk.rows, chunk.scale, chunk.total
    kappa, deviation, residual, status = to.kappa, to.sd, to.residual, to.status
    N = rows.shape[1]
    for lane in range(GROUP):
        i = who[lane] if lane < many else who[0]
        Z[TOTAL * GROUP + lane], Z[SCALE * GROUP + lane] = total[i], scale[i]
    _peaks(line.basis[k], line.maps[k], S, float(N), Z)
    for lane in range(many):
        i = who[lane]
        if Z[FOUND * GROUP + lane] > 0:
            o = voxels[i]
            kappa[0, o], kappa[1, o] = Z[A * GROUP + lane], Z[T * GROUP + lane]
            deviation[0, o], deviation[1, o] = Z[SD_A * GROUP + lane], Z[SD_T * GROUP + lane]
            residual[o] = Z[RESIDUAL * GROUP + lane]
            status[o] = OK
        else:
            for image in range(N):
                rows[i, image] = S[image * GROUP + lane]
            again[count] = i
            count += 1
    return count


@compiled()
def fit_line(images: Array, blocks: Array, chunk: Chunk, line: Line, to: Maps, again: Array) -> int:
    """Load the voxels and write what `finish` writes where one maximum lies between the bounds of T; the others to
    `again`.

    Returns how many those are; `rows` holds them alone. `blocks` need hold no more than PIECE voxels.
    """
    voxels, rows, scale, total, kind = chunk.voxels, chunk.rows, chunk.scale, chunk.total, chunk.kind
    kappa, deviation, residual, status = to.kappa, to.sd, to.residual, to.status
    basis, exact = line.basis, line.exact
    N, K, n_lanes = images.shape[0], basis.shape[0], voxels.shape[0]
    X, W, here = np.zeros(4 * LANES, np.float32), np.zeros(3 * LANES, np.float32), np.zeros(LANES, np.int32)
    # The voxels of each interval are collected until the group is full.
    groups, who, full = (
        np.zeros((K, basis.shape[1] * GROUP), np.float32),
        np.zeros((K, GROUP), np.int64),
        np.zeros(K, np.int64),
    )
    to_climb = Groups(groups, who, full, np.zeros(17 * GROUP), again)
    count = 0
    for piece in range(0, n_lanes, PIECE):
        end = min(piece + PIECE, n_lanes)
        load(images, voxels[piece:end], blocks, rows[:0], scale[piece:], total[piece:], kind[piece:], to.rms)
        for first in range(piece, end, LANES):
            S = blocks[(first - piece) // LANES]
            _bracket(S, line.slopes, X, W, here)
            for lane in range(min(LANES, n_lanes - first)):
                i, k = first + lane, here[lane]
                if kind[i] > 0:
                    o = voxels[i]
                    status[o], residual[o] = kind[i], np.nan
                    kappa[0, o] = kappa[1, o] = deviation[0, o] = deviation[1, o] = np.nan
                elif k < 0 or not exact[k]:
                    for image in range(N):
                        rows[i, image] = S[image, lane]
                    again[count] = i
                    count += 1
                else:
                    group, place = groups[k], full[k]
                    for image in range(0, N, 3):
                        s0, s1, s2 = S[image, lane], S[min(image + 1, N), lane], S[min(image + 2, N), lane]
                        (
                            group[image * GROUP + place],
                            group[(image + 1) * GROUP + place],
                            group[(image + 2) * GROUP + place],
                        ) = (
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
