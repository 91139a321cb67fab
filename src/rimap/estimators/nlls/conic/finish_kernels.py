"""Numba kernels that turn maxima (x, y, θ) into κ and its standard deviations.

With the triangular factor R of (ψ₀, φ₁) = (u₀, u₁) R, where ψ₀ = φ₀ + F_low φ₁, the amplitudes at the maximum are
(A, A (F − F_low)) = R⁻¹ (x, y), so A = x/r₀₀ − y r₀₁/(r₀₀ r₁₁) and A (F − F_low) = y/r₁₁. Standard deviations are those
of the variable projection of A and A F (Golub & Pereyra 1973, doi:10.1137/0710036): in the plane of u₀ and u₁ the
variance is σ², and that of log T is σ²/(α x² + 2 β x y + γ y²), with which A and F also change (`tables`).
"""

from __future__ import annotations

import math

import numpy as np

from rimap.estimators.nlls.conic.climb_kernels import GROUP, OF_X, OF_Y
from rimap.estimators.nlls.conic.kernel_arguments import (
    BEST_COLUMNS,
    BEST_THETA,
    BEST_X,
    BEST_Y,
    FIT,
    NODE,
    PLACE,
    T_BOUND,
    Chunk,
    Cone,
    Maps,
    Plan,
    Scale,
)
from rimap.estimators.nlls.conic.polynomials import (
    AT_BOUND,
    INSIDE,
    LOWER,
    NO_SIGNAL,
    OK,
    UPPER,
    Array,
    compiled,
    copy,
    poly0,
    poly1,
)
from rimap.estimators.nlls.conic.tables import ALPHA, BETA, GAMMA, LOG_R0, LOG_R1, OMEGA, RATIO, TERMS

#: Below this share of u₁, the tables cannot distinguish B from its lower bound.
DIM = 1e-6
#: Rows of Z in `_lanes`, GROUP values each. Input: θ, x, y, 1 on the upper edge, 1 at a bound of T, and the scale.
#: Output: A, B, T, their standard deviations, 1 at a bound, and the largest exponent that was taken.
ROW_THETA, ROW_X, ROW_Y, ROW_ON_EDGE, ROW_T_AT_BOUND, ROW_SIZE = range(6)
ROW_A, ROW_B, ROW_T, ROW_SD_A, ROW_SD_B, ROW_SD_T, ROW_AT_A_BOUND, ROW_EXPONENT = range(6, 14)
ROWS = 14


@compiled(from_python=False)
def finish_one(result: Array, to: Scale, plan: Plan, scale: float, kappa: Array, sd: Array) -> int:
    """Turn a search result into κ and its standard deviations for σ = 1; return the status."""
    scalars, t, width, low_F, high_F = to.scalars, to.t, to.width, plan.low_F, plan.high_F
    j, theta, x, y, place = int(result[NODE]), result[BEST_THETA], result[BEST_X], result[BEST_Y], int(result[PLACE])
    Q = kappa.shape[0]
    sd[:] = np.nan
    if not result[FIT] > 0:
        kappa[:] = np.nan
        return NO_SIGNAL
    C = scalars[j]
    at_bound = result[T_BOUND] != 0.0
    T = math.exp(t[j] + theta * width[j])
    kappa[Q - 1] = T
    log_r0, log_r0_t = poly1(C[LOG_R0], 0, theta)
    r0, log_r0_t = math.exp(-log_r0), log_r0_t / width[j]  # r0 is 1/r₀₀
    alpha = poly0(C[ALPHA], 0, theta)
    if not plan.has_field:
        kappa[0] = x * r0 * scale
        information = x * x * alpha
        if at_bound or not information > 0:
            return AT_BOUND
        sd[1] = T / math.sqrt(information) / scale
        sd[0] = r0 * math.sqrt(1 + x * x * log_r0_t * log_r0_t / information)
        return OK
    log_r1, log_r1_t = poly1(C[LOG_R1], 0, theta)
    ratio, ratio_t = poly1(C[RATIO], 0, theta)
    log_r1_t, ratio_t = log_r1_t / width[j], ratio_t / width[j]
    r1 = math.exp(-log_r1)
    if place == LOWER or (place == INSIDE and y < DIM * abs(x)):
        kappa[0], kappa[1] = x * r0 * scale, low_F
        return AT_BOUND
    if place == UPPER:
        along_x, along_y = x * r0 / (1 + (high_F - low_F) * ratio), y * r1 / (high_F - low_F)
        kappa[0], kappa[1] = (along_x if abs(x) > abs(y) else along_y) * scale, high_F
        return AT_BOUND
    A = x * r0 - y * ratio * r1
    F = low_F + y * r1 / A
    kappa[0], kappa[1] = A * scale, min(max(F, low_F), high_F)
    omega = poly0(C[OMEGA], 0, theta)
    information = x * x * alpha + 2 * x * y * poly0(C[BETA], 0, theta) + y * y * poly0(C[GAMMA], 0, theta)
    if at_bound or not information > 0 or not A > 0:
        return AT_BOUND
    variance_t, above = 1 / information, F - low_F
    # (x, y) turn by ω as T changes, and the factor R changes with T
    A_x, A_y = r0, -ratio * r1
    R_changes_A = -x * log_r0_t * r0 - y * ratio_t * r1 + y * ratio * log_r1_t * r1
    A_t = R_changes_A - A_x * y * omega + A_y * x * omega
    F_x, F_y = -above * A_x / A, (r1 - above * A_y) / A
    F_t = (-y * log_r1_t * r1 - above * R_changes_A) / A - F_x * y * omega + F_y * x * omega
    sd[0] = math.sqrt(A_x * A_x + A_y * A_y + A_t * A_t * variance_t)
    sd[1] = math.sqrt(F_x * F_x + F_y * F_y + F_t * F_t * variance_t) / scale
    sd[2] = T * math.sqrt(variance_t) / scale
    return OK


@compiled(fast=True, from_python=False)
def small_exp(x: float) -> float:
    """Return e^x for |x| ≤ 1 to 1e-11, without a branch."""
    z = 0.125 * x
    p = 1 + z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5 * (1 + z / 6 * (1 + z / 7))))))
    p = p * p
    p = p * p
    return p * p


@compiled(fast=True, from_python=False)
def _line_lanes(C: Array, t: float, width: float, Z: Array) -> None:
    """Do what `_lanes` does for a model without B."""
    T0, g0 = math.exp(t), math.exp(-C[LOG_R0 * TERMS])
    for lane in range(GROUP):
        theta, x, size = Z[ROW_THETA * GROUP + lane], Z[ROW_X * GROUP + lane], Z[ROW_SIZE * GROUP + lane]
        l0, l01 = poly1(C, LOG_R0 * TERMS, theta)
        l01, l0 = l01 / width, l0 - C[LOG_R0 * TERMS]
        T, r0 = T0 * small_exp(width * theta), g0 * small_exp(-l0)
        D = x * x * poly0(C, ALPHA * TERMS, theta)
        bound = (Z[ROW_T_AT_BOUND * GROUP + lane] != 0) | (not D > 0)
        vt = 1 / max(D, 1e-300)
        Z[ROW_A * GROUP + lane], Z[ROW_T * GROUP + lane] = x * r0 * size, T
        Z[ROW_SD_A * GROUP + lane] = r0 * math.sqrt(1 + x * x * l01 * l01 * vt)
        Z[ROW_SD_T * GROUP + lane] = T * math.sqrt(vt) / size
        Z[ROW_AT_A_BOUND * GROUP + lane] = 1.0 if bound else 0.0
        Z[ROW_EXPONENT * GROUP + lane] = max(abs(l0), abs(width * theta))


@compiled(fast=True, from_python=False)
def _lanes(C: Array, t: float, width: float, b0: float, b1: float, Z: Array) -> None:
    """Do what `finish_one` does for lanes of one node, inside the cone or on its upper edge; C (9·8) its scalars.

    Z (ROWS·GROUP) is flat: the distances of its rows are then known, and nothing has to be checked before vectors are
    used.
    """
    T0, g0, g1 = math.exp(t), math.exp(-C[LOG_R0 * TERMS]), math.exp(-C[LOG_R1 * TERMS])
    per, per_B = 1 / width, 1 / (b1 - b0)
    for lane in range(GROUP):
        theta, x = Z[ROW_THETA * GROUP + lane], Z[ROW_X * GROUP + lane]
        y, size = Z[ROW_Y * GROUP + lane], Z[ROW_SIZE * GROUP + lane]
        l0, l01 = poly1(C, LOG_R0 * TERMS, theta)
        l1, l11 = poly1(C, LOG_R1 * TERMS, theta)
        q, q1 = poly1(C, RATIO * TERMS, theta)
        l0, l1, l01, l11, q1 = l0 - C[LOG_R0 * TERMS], l1 - C[LOG_R1 * TERMS], l01 * per, l11 * per, q1 * per
        T, r0, r1 = T0 * small_exp(width * theta), g0 * small_exp(-l0), g1 * small_exp(-l1)
        Z[ROW_EXPONENT * GROUP + lane] = max(abs(l0), max(abs(l1), abs(width * theta)))
        low = y < DIM * abs(x)
        A = x * r0 - (0.0 if low else y) * q * r1
        safe = 1 / max(A, 1e-300)  # (to divide by a choice of two would keep the loop from vectors)
        B = y * r1 * safe  # above its lower bound
        D = (
            x * x * poly0(C, ALPHA * TERMS, theta)
            + 2 * x * y * poly0(C, BETA * TERMS, theta)
            + y * y * poly0(C, GAMMA * TERMS, theta)
        )
        edge = Z[ROW_ON_EDGE * GROUP + lane] != 0
        bound = edge | (Z[ROW_T_AT_BOUND * GROUP + lane] != 0) | (not D > 0) | (not A > 0) | low
        omega, vt = poly0(C, OMEGA * TERMS, theta), 1 / max(D, 1e-300)
        A_t = -x * l01 * r0 - y * q1 * r1 + y * q * l11 * r1
        C_t = -y * l11 * r1
        Ax, Ay = r0, -q * r1
        At = A_t - Ax * y * omega + Ay * x * omega
        Bx, By = -B * Ax * safe, (r1 - B * Ay) * safe
        Bt = (C_t - B * A_t) * safe - Bx * y * omega + By * x * omega
        by_x, by_y = x * r0 / (1 + (b1 - b0) * q), y * r1 * per_B
        on_edge = by_x if abs(x) > abs(y) else by_y
        per_size = 1 / size
        Z[ROW_A * GROUP + lane] = (on_edge if edge else A) * size
        Z[ROW_B * GROUP + lane] = b1 if edge else (b0 if low else min(b0 + B, b1))
        Z[ROW_T * GROUP + lane] = T
        Z[ROW_SD_A * GROUP + lane] = math.sqrt(Ax * Ax + Ay * Ay + At * At * vt)
        Z[ROW_SD_B * GROUP + lane] = math.sqrt(Bx * Bx + By * By + Bt * Bt * vt) * per_size
        Z[ROW_SD_T * GROUP + lane] = T * math.sqrt(vt) * per_size
        Z[ROW_AT_A_BOUND * GROUP + lane] = 1.0 if bound else 0.0


@compiled(from_python=False)
def residual_of(row: Array, C: Array, found: Array, total: float, flips: int) -> float:
    """Return the root mean square residual of what was `found`: ‖S‖² − x² − y² as long as that has digits enough."""
    N, theta, x, y = row.shape[0], found[BEST_THETA], found[BEST_X], found[BEST_Y]
    rss = total - found[FIT]
    if rss < 1e-6 * total:
        rss = 0.0
        for image in range(N):
            f = x * poly0(C[image], OF_X, theta) + y * poly0(C[image], OF_Y, theta)
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
    Z = np.zeros(ROWS * GROUP)
    R = Z.reshape(ROWS, GROUP)
    result, k_out, sd_out = np.zeros(BEST_COLUMNS), np.zeros(Q), np.zeros(Q)
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
                R[ROW_THETA, lane], R[ROW_X, lane], R[ROW_Y, lane] = (
                    best[i, BEST_THETA],
                    best[i, BEST_X],
                    best[i, BEST_Y],
                )
                R[ROW_ON_EDGE, lane] = 1.0 if best[i, PLACE] == UPPER else 0.0
                R[ROW_T_AT_BOUND, lane], R[ROW_SIZE, lane] = best[i, T_BOUND], scale[i]
            if has_field:
                _lanes(scalars[j].reshape(-1), t[j], width[j], plan.low_F, plan.high_F, Z)
            else:
                _line_lanes(scalars[j].reshape(-1), t[j], width[j], Z)
            for lane in range(many):
                i = index[group + lane]
                o, size = voxels[i], scale[i]
                residual[o] = residual_of(rows[i], basis[j], best[i], total[i], plan.flips) * size
                if R[ROW_EXPONENT, lane] > 1 or best[i, PLACE] == LOWER:
                    copy(best[i], result)
                    status[o] = finish_one(result, cone.scale, plan, size, k_out, sd_out)
                    for row in range(Q):
                        kappa[row, o], deviation[row, o] = k_out[row], sd_out[row]
                    continue
                bound = R[ROW_AT_A_BOUND, lane] != 0
                kappa[0, o], kappa[Q - 1, o] = R[ROW_A, lane], R[ROW_T, lane]
                deviation[0, o], deviation[Q - 1, o] = (
                    (np.nan, np.nan) if bound else (R[ROW_SD_A, lane], R[ROW_SD_T, lane])
                )
                if has_field:
                    kappa[1, o], deviation[1, o] = R[ROW_B, lane], np.nan if bound else R[ROW_SD_B, lane]
                status[o] = AT_BOUND if bound else OK
