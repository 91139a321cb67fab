"""Numba kernels that turn maxima into κ and its standard deviations."""

from __future__ import annotations

import math

import numpy as np

from rimap.estimators.nlls.conic.climb_kernels import BEST_THETA, BEST_X, BEST_Y, FIT, GROUP, NODE, PLACE, T_BOUND
from rimap.estimators.nlls.conic.kernel_arguments import Chunk, Cone, Maps, Plan, Scale
from rimap.estimators.nlls.conic.polynomials import (
    AT_BOUND,
    INSIDE,
    LOWER,
    NO_SIGNAL,
    OK,
    UPPER,
    Array,
    compiled,
    poly0,
    poly1,
)

#: Below this share of u₁, the tables cannot distinguish B from its lower bound.
DIM = 1e-6


@compiled()
def finish_one(result: Array, to: Scale, plan: Plan, scale: float, kappa: Array, sd: Array) -> int:
    """Turn a search result into κ and its standard deviations for σ = 1; return the status."""
    scalars, t, width, b0, b1 = to.scalars, to.t, to.width, plan.low_F, plan.high_F
    j, theta, x, y, place = int(result[1]), result[2], result[3], result[4], int(result[5])
    Q = kappa.shape[0]
    sd[:] = np.nan
    if not result[0] > 0:
        kappa[:] = np.nan
        return NO_SIGNAL
    C = scalars[j]
    at_bound = result[6] != 0.0
    T = math.exp(t[j] + theta * width[j])
    kappa[Q - 1] = T
    l0, l01 = poly1(C[2], 0, theta)
    r0, l01 = math.exp(-l0), l01 / width[j]
    alpha = poly1(C[5], 0, theta)[0]
    if not plan.has_field:
        kappa[0] = x * r0 * scale
        D = x * x * alpha
        if at_bound or not D > 0:
            return AT_BOUND
        sd[1] = T / math.sqrt(D) / scale
        sd[0] = r0 * math.sqrt(1 + x * x * l01 * l01 / D)
        return OK
    l1, l11 = poly1(C[3], 0, theta)
    q, q1 = poly1(C[4], 0, theta)
    l11, q1 = l11 / width[j], q1 / width[j]
    r1 = math.exp(-l1)
    if place == LOWER or (place == INSIDE and y < DIM * abs(x)):
        kappa[0], kappa[1] = x * r0 * scale, b0
        return AT_BOUND
    if place == UPPER:
        kappa[0], kappa[1] = (x * r0 / (1 + (b1 - b0) * q) if abs(x) > abs(y) else y * r1 / (b1 - b0)) * scale, b1
        return AT_BOUND
    A = x * r0 - y * q * r1
    B = b0 + y * r1 / A
    kappa[0], kappa[1] = A * scale, min(max(B, b0), b1)
    omega = poly1(C[8], 0, theta)[0]
    D = x * x * alpha + 2 * x * y * poly1(C[6], 0, theta)[0] + y * y * poly1(C[7], 0, theta)[0]
    if at_bound or not D > 0 or not A > 0:
        return AT_BOUND
    vt, B = 1 / D, B - b0
    A_t = -x * l01 * r0 - y * q1 * r1 + y * q * l11 * r1
    C_t = -y * l11 * r1
    Ax, Ay = r0, -q * r1
    At = A_t - Ax * y * omega + Ay * x * omega
    Bx, By = -B * Ax / A, (r1 - B * Ay) / A
    Bt = (C_t - B * A_t) / A - Bx * y * omega + By * x * omega
    sd[0] = math.sqrt(Ax * Ax + Ay * Ay + At * At * vt)
    sd[1] = math.sqrt(Bx * Bx + By * By + Bt * Bt * vt) / scale
    sd[2] = T * math.sqrt(vt) / scale
    return OK


@compiled(fast=True)
def small_exp(x: float) -> float:
    """Return e^x for |x| ≤ 1 to 1e-11, without a branch."""
    z = 0.125 * x
    p = 1 + z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5 * (1 + z / 6 * (1 + z / 7))))))
    p = p * p
    p = p * p
    return p * p


@compiled(fast=True)
def _line_lanes(C: Array, t: float, width: float, Z: Array) -> None:
    """Do what `_lanes` does for a model without B."""
    T0, g0 = math.exp(t), math.exp(-C[16])
    for lane in range(GROUP):
        theta, x, size = Z[lane], Z[GROUP + lane], Z[5 * GROUP + lane]
        l0, l01 = poly1(C, 16, theta)
        l01, l0 = l01 / width, l0 - C[16]
        T, r0 = T0 * small_exp(width * theta), g0 * small_exp(-l0)
        D = x * x * poly0(C, 40, theta)
        bound = (Z[4 * GROUP + lane] != 0) | (not D > 0)
        vt = 1 / max(D, 1e-300)
        Z[6 * GROUP + lane], Z[8 * GROUP + lane] = x * r0 * size, T
        Z[9 * GROUP + lane], Z[11 * GROUP + lane] = r0 * math.sqrt(1 + x * x * l01 * l01 * vt), T * math.sqrt(vt) / size
        Z[12 * GROUP + lane], Z[13 * GROUP + lane] = 1.0 if bound else 0.0, max(abs(l0), abs(width * theta))


@compiled(fast=True)
def _lanes(C: Array, t: float, width: float, b0: float, b1: float, Z: Array) -> None:
    """Do what `finish_one` does for lanes of one node, inside the cone or on its upper edge; C (9·8) its scalars.

    The rows of Z (14·GROUP): θ, x, y, 1 on the upper edge, 1 at a bound of T, scale; then what is written: A, B, T,
    their standard deviations, 1 at a bound, the largest exponent that was taken. (Z is flat: the distances of its rows
    are then known, and nothing has to be checked before vectors are used.)
    """
    T0, g0, g1, per, per_B = math.exp(t), math.exp(-C[16]), math.exp(-C[24]), 1 / width, 1 / (b1 - b0)
    for lane in range(GROUP):
        theta, x, y, size = Z[lane], Z[GROUP + lane], Z[2 * GROUP + lane], Z[5 * GROUP + lane]
        l0, l01 = poly1(C, 16, theta)
        l1, l11 = poly1(C, 24, theta)
        q, q1 = poly1(C, 32, theta)
        l0, l1, l01, l11, q1 = l0 - C[16], l1 - C[24], l01 * per, l11 * per, q1 * per
        T, r0, r1 = T0 * small_exp(width * theta), g0 * small_exp(-l0), g1 * small_exp(-l1)
        Z[13 * GROUP + lane] = max(abs(l0), max(abs(l1), abs(width * theta)))
        low = y < DIM * abs(x)
        A = x * r0 - (0.0 if low else y) * q * r1
        safe = 1 / max(A, 1e-300)  # (to divide by a choice of two would keep the loop from vectors)
        B = y * r1 * safe  # above its lower bound
        D = x * x * poly0(C, 40, theta) + 2 * x * y * poly0(C, 48, theta) + y * y * poly0(C, 56, theta)
        edge = Z[3 * GROUP + lane] != 0
        bound = edge | (Z[4 * GROUP + lane] != 0) | (not D > 0) | (not A > 0) | low
        omega, vt = poly0(C, 64, theta), 1 / max(D, 1e-300)
        A_t = -x * l01 * r0 - y * q1 * r1 + y * q * l11 * r1
        C_t = -y * l11 * r1
        Ax, Ay = r0, -q * r1
        At = A_t - Ax * y * omega + Ay * x * omega
        Bx, By = -B * Ax * safe, (r1 - B * Ay) * safe
        Bt = (C_t - B * A_t) * safe - Bx * y * omega + By * x * omega
        by_x, by_y = x * r0 / (1 + (b1 - b0) * q), y * r1 * per_B
        on_edge = by_x if abs(x) > abs(y) else by_y
        per_size = 1 / size
        Z[6 * GROUP + lane] = (on_edge if edge else A) * size
        Z[7 * GROUP + lane] = b1 if edge else (b0 if low else min(b0 + B, b1))
        Z[8 * GROUP + lane] = T
        Z[9 * GROUP + lane] = math.sqrt(Ax * Ax + Ay * Ay + At * At * vt)
        Z[10 * GROUP + lane] = math.sqrt(Bx * Bx + By * By + Bt * Bt * vt) * per_size
        Z[11 * GROUP + lane] = T * math.sqrt(vt) * per_size
        Z[12 * GROUP + lane] = 1.0 if bound else 0.0


@compiled()
def residual_of(row: Array, C: Array, found: Array, total: float, flips: int) -> float:
    """Return the root mean square residual of what was `found`: ‖S‖² − x² − y² as long as that has digits enough."""
    N, theta, x, y = row.shape[0], found[BEST_THETA], found[BEST_X], found[BEST_Y]
    rss = total - found[FIT]
    if rss < 1e-6 * total:
        rss = 0.0
        for image in range(N):
            f = x * poly0(C[image], 0, theta) + y * poly0(C[image], 8, theta)
            rss += (row[image] - (abs(f) if flips else f)) ** 2
    return math.sqrt(rss / N)


@compiled()
def finish(ids: Array, chunk: Chunk, cone: Cone, plan: Plan, maps: Maps) -> None:
    """Write the maps of those voxels of `ids` of which `best` holds a maximum.

    What has no estimate gets its status; what is `left` is passed over.
    """
    voxels, rows, scale, total, kind = chunk.voxels, chunk.rows, chunk.scale, chunk.total, chunk.kind
    best, left, basis, scalars, t, width = (
        chunk.best,
        chunk.left,
        cone.around.basis,
        cone.scale.scalars,
        cone.scale.t,
        cone.scale.width,
    )
    kappa, deviation, residual, status, has_field = maps.kappa, maps.sd, maps.residual, maps.status, plan.has_field
    J, Q, n_lanes = t.shape[0], kappa.shape[0], ids.shape[0]
    begin, index = np.zeros(J + 2, np.int64), np.zeros(n_lanes, np.int64)
    Z = np.zeros(14 * GROUP)
    L, R = Z[: 6 * GROUP].reshape(6, GROUP), Z[6 * GROUP :].reshape(8, GROUP)
    result, k_out, sd_out = np.zeros(8), np.zeros(Q), np.zeros(Q)
    for i in ids:
        if kind[i] > 0:
            o = voxels[i]
            status[o], residual[o] = kind[i], np.nan
            for row in range(Q):
                kappa[row, o] = deviation[row, o] = np.nan
        elif not left[i]:
            begin[int(best[i, NODE]) + 2] += 1
    for j in range(J + 1):
        begin[j + 1] += begin[j]
    for i in ids:
        if kind[i] <= 0 and not left[i]:
            j = int(best[i, NODE]) + 1
            index[begin[j]] = i
            begin[j] += 1
    for j in range(J):
        for group in range(begin[j], begin[j + 1], GROUP):
            many = min(GROUP, begin[j + 1] - group)
            for lane in range(GROUP):
                i = index[group + min(lane, many - 1)]
                L[0, lane], L[1, lane], L[2, lane] = best[i, BEST_THETA], best[i, BEST_X], best[i, BEST_Y]
                L[3, lane], L[4, lane], L[5, lane] = 1.0 if best[i, PLACE] == UPPER else 0.0, best[i, T_BOUND], scale[i]
            if has_field:
                _lanes(scalars[j].reshape(-1), t[j], width[j], plan.low_F, plan.high_F, Z)
            else:
                _line_lanes(scalars[j].reshape(-1), t[j], width[j], Z)
            for lane in range(many):
                i = index[group + lane]
                o, size = voxels[i], scale[i]
                residual[o] = residual_of(rows[i], basis[j], best[i], total[i], plan.flips) * size
                if R[7, lane] > 1 or best[i, PLACE] == LOWER:
                    result[:] = best[i]
                    status[o] = finish_one(result, cone.scale, plan, size, k_out, sd_out)
                    for row in range(Q):
                        kappa[row, o], deviation[row, o] = k_out[row], sd_out[row]
                    continue
                bound = R[6, lane] != 0
                kappa[0, o], kappa[Q - 1, o] = R[0, lane], R[2, lane]
                deviation[0, o], deviation[Q - 1, o] = (np.nan, np.nan) if bound else (R[3, lane], R[5, lane])
                if has_field:
                    kappa[1, o], deviation[1, o] = R[1, lane], np.nan if bound else R[4, lane]
                status[o] = AT_BOUND if bound else OK
