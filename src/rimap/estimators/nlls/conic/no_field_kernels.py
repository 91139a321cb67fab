"""Numba kernels for models without a field: one maximum over T, from the change of sign of its slope.

S = A φ(T), with the unit vector u = φ/‖φ‖: the residual sum of squares is ‖S‖² − ⟨S, u⟩², with A = ⟨S, u⟩/‖φ‖.

Voxels whose maximum is in the same interval of T are climbed side by side: they share its polynomials.
"""

from __future__ import annotations

import math

import numpy as np

from rimap.estimators.nlls.conic.kernel_arguments import Chunk, Groups, Line, Maps
from rimap.estimators.nlls.conic.polynomials import LANES, OK, Array, compiled, poly0
from rimap.estimators.nlls.conic.scan_kernels import PIECE, load

#: Voxels that are climbed side by side.
GROUP = 64
#: Rows of the scratch of `_bracket`: whether ⟨S, u⟩ rises, how often it has risen, and how often it has turned.
RISING, RISES, TURNS = range(3)
#: The rows of a group: 8 coefficients, then total, scale, θ, whether the maximum is found, and the maps.
TOTAL, SCALE, THETA, FOUND, A, T, SD_A, SD_T, RESIDUAL = range(8, 17)
#: How many rows those are.
N_GROUP_ROWS = 17
#: Rows of `LineTable.maps`: T, and where ⟨S, u⟩ = 1 of A, the standard deviations of A and T.
MAP_T, MAP_A, MAP_SD_A, MAP_SD_T = range(4)


@compiled(fast=True, from_python=False)
def _bracket(S: Array, slopes: Array, X: Array, W: Array, where: Array) -> None:
    """Write the interval in which the slope of ⟨S, u⟩ turns from positive to negative, -1 if it turns more than once.

    S (N + 1, LANES), its last row zero; slopes (K, N + 2), K a multiple of four, padded with zeros; X (4·LANES) and W
    (3·LANES) scratch.
    """
    K, N = slopes.shape[0], S.shape[0] - 1
    zero, one = np.float32(0), np.float32(1)
    for lane in range(LANES):
        W[RISING * LANES + lane] = one
        W[RISES * LANES + lane] = W[TURNS * LANES + lane] = zero
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
            W[TURNS * LANES + lane] += abs(p - W[RISING * LANES + lane]) + abs(q - p) + abs(r - q) + abs(s - r)
            W[RISES * LANES + lane] += p + q + r + s
            W[RISING * LANES + lane] = s
    for lane in range(LANES):
        once = one if W[TURNS * LANES + lane] == one else zero
        where[lane] = np.int32(once * W[RISES * LANES + lane] - one)


@compiled(fast=True, from_python=False)
def _peaks(C: Array, M: Array, S: Array, N: float, Z: Array) -> None:
    """Find the maximum in every lane of an interval, and its maps, in rows of Z (`N_GROUP_ROWS`·GROUP).

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
        # the coefficients of the slope
        c1, c2, c3, c4 = Z[GROUP + v], 2 * Z[2 * GROUP + v], 3 * Z[3 * GROUP + v], 4 * Z[4 * GROUP + v]
        c5, c6, c7 = 5 * Z[5 * GROUP + v], 6 * Z[6 * GROUP + v], 7 * Z[7 * GROUP + v]
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
    to_T, to_A, to_sd_A, to_sd_T = M[MAP_T], M[MAP_A], M[MAP_SD_A], M[MAP_SD_T]
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
        Z[T * GROUP + v] = poly0(to_T, 0, x)
        Z[A * GROUP + v] = y * size * poly0(to_A, 0, x)
        Z[SD_T * GROUP + v] = 1 / (y * size)
        Z[RESIDUAL * GROUP + v] = math.sqrt(max(rss, 0.0) / N) * size
        exact = (rss > 1e-6 * Z[TOTAL * GROUP + v]) & (y > 0)  # else too few digits
        Z[FOUND * GROUP + v] = Z[FOUND * GROUP + v] if exact else 0.0
    for v in range(GROUP):
        x = Z[THETA * GROUP + v]
        Z[SD_A * GROUP + v] = poly0(to_sd_A, 0, x)
        Z[SD_T * GROUP + v] *= poly0(to_sd_T, 0, x)


@compiled(from_python=False)
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
    groups = np.zeros((K, basis.shape[1] * GROUP), np.float32)
    who, full = np.zeros((K, GROUP), np.int64), np.zeros(K, np.int64)
    to_climb = Groups(groups, who, full, np.zeros(N_GROUP_ROWS * GROUP), again)
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
                        group[image * GROUP + place] = s0
                        group[(image + 1) * GROUP + place] = s1
                        group[(image + 2) * GROUP + place] = s2
                    who[k, place] = i
                    full[k] = place + 1
                    if place + 1 == GROUP:
                        count = _write(k, to_climb, line, chunk, to, count)
                        full[k] = 0
    for k in range(K):
        if full[k] > 0:
            count = _write(k, to_climb, line, chunk, to, count)
    return count
