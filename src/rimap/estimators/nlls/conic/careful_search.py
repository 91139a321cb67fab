"""Numba kernels of the careful search, a voxel at a time: what `climb_kernels` leaves, and images with negative values.

`tables` has the geometry, `search` the method.
"""

from __future__ import annotations

import math

import numpy as np

from rimap.estimators.nlls.conic.finish_kernels import finish_one, residual_of
from rimap.estimators.nlls.conic.kernel_arguments import (
    BEST_THETA,
    BEST_X,
    BEST_Y,
    FIT,
    NODE,
    PLACE,
    T_BOUND,
    Around,
    Chunk,
    Cone,
    Found,
    Maps,
    Plan,
    Profile,
)
from rimap.estimators.nlls.conic.polynomials import (
    INSIDE,
    KINK,
    LANES,
    LOWER,
    UPPER,
    Array,
    combine,
    compiled,
    copy,
    poly0,
    poly1,
)
from rimap.estimators.nlls.conic.scan_kernels import (
    FLIPS,
    KEY,
    SCAN_ROWS,
    VOXEL,
    best_of,
    gather,
    other_flips,
    scan_block,
)
from rimap.estimators.nlls.conic.tables import EDGE_X, EDGE_Y, TERMS

#: What `_value` writes of the projection on a sector: its squared length, half the derivative of that in θ, the
#: projection itself, and where it is (0 inside, 1 on the lower edge, 2 on the upper edge).
LENGTH, HALF_SLOPE, AT_X, AT_Y, AT_PLACE = range(5)
#: What `_profile` writes of the best projection at one T: its squared length (`LENGTH`), then these.
PROFILE_X, PROFILE_Y, PROFILE_PLACE, PROFILE_FLIPS = range(1, 5)
#: Both edges of a sector as `_edges` writes them: cosine and sine, each with its derivative in θ.
(
    LOWER_COS, LOWER_COS_1, LOWER_SIN, LOWER_SIN_1, UPPER_COS, UPPER_COS_1, UPPER_SIN, UPPER_SIN_1,
) = range(8)  # fmt: skip
#: Columns of a result that a search writes: FIT to T_BOUND.
N_RESULTS = 7


@compiled(fast=True, from_python=False)
def _sign(row: Array, order: Array, k: int, s: Array) -> None:
    """Write the images with the first k of `order` flipped to s."""
    N = row.shape[0]
    for m in range(k):
        s[order[m]] = -row[order[m]]
    for m in range(k, N):
        s[order[m]] = row[order[m]]


@compiled(from_python=False)
def _crossing(image: Array, direction: Array) -> None:
    """Write the direction (16) in which the signal in an image, whose coefficients are given, is zero."""
    for i in range(TERMS):
        direction[i] = -image[TERMS + i]
        direction[TERMS + i] = image[i]


@compiled(from_python=False)
def _edges(low: Array, high: Array, bound: Array, kinks: bool, t: float, e: Array) -> None:
    """Write lower and upper edge of a sector at θ, each with its derivative, to `e` (8,).

    `low` and `high` (16,) are cosine and sine (of any length); `bound` (16,) is the edge of the box: no sector reaches
    beyond it.
    """
    if not kinks:
        e[LOWER_COS], e[LOWER_COS_1], e[LOWER_SIN], e[LOWER_SIN_1] = 1.0, 0.0, 0.0, 0.0
        e[UPPER_COS], e[UPPER_COS_1] = poly1(bound, 0, t)
        e[UPPER_SIN], e[UPPER_SIN_1] = poly1(bound, TERMS, t)
        return
    e[LOWER_COS], e[LOWER_COS_1] = poly1(low, 0, t)
    e[LOWER_SIN], e[LOWER_SIN_1] = poly1(low, TERMS, t)
    e[UPPER_COS], e[UPPER_COS_1] = poly1(high, 0, t)
    e[UPPER_SIN], e[UPPER_SIN_1] = poly1(high, TERMS, t)
    bx, bx1 = poly1(bound, 0, t)
    by, by1 = poly1(bound, TERMS, t)
    if e[UPPER_COS] * by - e[UPPER_SIN] * bx < 0:
        e[UPPER_COS], e[UPPER_COS_1], e[UPPER_SIN], e[UPPER_SIN_1] = bx, bx1, by, by1


@compiled(from_python=False)
def _value(c: Array, low: Array, high: Array, bound: Array, kinks: bool, t: float, e: Array, out: Array) -> None:
    """Write `LENGTH` to `AT_PLACE` of the projection (x, y) of the images on a sector of the cone at θ.

    Inside of the sector, its squared length is x² + y²; on an edge with the direction e it is (x, y)·e squared over e².
    """
    x, x1 = poly1(c, 0, t)
    y, y1 = poly1(c, TERMS, t)
    _edges(low, high, bound, kinks, t, e)
    out[LENGTH] = out[HALF_SLOPE] = out[AT_X] = out[AT_Y] = 0.0
    out[AT_PLACE] = 1.0
    if (
        kinks and e[LOWER_COS] * e[UPPER_SIN] - e[LOWER_SIN] * e[UPPER_COS] < 0
    ):  # no B within its bounds makes the images change sign so
        return
    if e[LOWER_COS] * y - e[LOWER_SIN] * x > 0 and x * e[UPPER_SIN] - y * e[UPPER_COS] > 0:
        out[LENGTH], out[HALF_SLOPE], out[AT_X], out[AT_Y], out[AT_PLACE] = x * x + y * y, x * x1 + y * y1, x, y, 0.0
        return
    for index in range(0, 8, 4):
        ux, ux1, uy, uy1 = e[index], e[index + 1], e[index + 2], e[index + 3]
        w, q = x * ux + y * uy, ux * ux + uy * uy
        if w > 0 and w * w > out[LENGTH] * q:
            w1, q1 = x1 * ux + x * ux1 + y1 * uy + y * uy1, 2 * (ux * ux1 + uy * uy1)
            out[LENGTH], out[HALF_SLOPE] = w * w / q, (w / q) * (w1 - 0.5 * w * q1 / q)
            out[AT_X], out[AT_Y], out[AT_PLACE] = w * ux / q, w * uy / q, 1.0 + index / 4


@compiled(from_python=False)
def _ascend(s: Array, j: int, n_low: int, n_high: int, cone: Around, bufs: Array, out: Array, passed: Array) -> None:
    """Climb from node j to the maximum over T of the projection on a sector of the cone; the signs of s stay.

    At the maximum of x² + y², x x′ + y y′ = 0. The sector lies between the zero crossings of the images n_low and
    n_high, -1 for the edges of the cone. Writes `FIT` to `T_BOUND` to `out`. Sets `passed` (J, or 0 to keep no record)
    at the nodes from which a climb with these signs ends in the same way; where one has passed before, it ends with a
    squared length of -1.
    """
    basis, scalars, limits = cone.basis, cone.scalars, cone.limits
    J = limits.shape[0]
    c, low, high, bound, e, now, then = bufs[0], bufs[1], bufs[2], bufs[3], bufs[4], bufs[5], bufs[6]
    direction = 0
    F_before = -1.0
    for _ in range(2 * J):
        combine(basis[j], s, c)
        copy(scalars[j, EDGE_X], bound[:TERMS])
        copy(scalars[j, EDGE_Y], bound[TERMS:])
        low[:] = 0.0
        low[0] = 1.0
        copy(bound, high)
        if n_low >= 0:
            _crossing(basis[j, n_low], low)
        if n_high >= 0:
            _crossing(basis[j, n_high], high)
        kinks = n_high >= 0 or n_low >= 0
        _value(c, low, high, bound, kinks, 0.0, e, now)
        if now[LENGTH] < F_before:  # a step too far
            break
        F_before = now[LENGTH]
        joins = False
        if passed.shape[0] > 0:
            joins = passed[j] > 0
            passed[j] = 1
        out[FIT], out[NODE], out[BEST_THETA], out[BEST_X], out[BEST_Y], out[PLACE], out[T_BOUND] = (
            now[LENGTH],
            j,
            0.0,
            now[AT_X],
            now[AT_Y],
            now[AT_PLACE],
            0.0,
        )
        g = now[HALF_SLOPE]
        side = 1 if g > 0 else 0
        end = limits[j, side]
        if g == 0.0 or end == 0.0:
            out[T_BOUND] = 0.0 if g == 0.0 else 1.0
            out[FIT] = -1.0 if joins else out[FIT]
            break
        _value(c, low, high, bound, kinks, end, e, then)
        toward = 1 if side else -1
        onward = then[HALF_SLOPE] * g > 0 and then[LENGTH] > now[LENGTH]
        turns_back = onward and direction == -toward  # one that begins at this node does not
        if joins and not turns_back:
            out[FIT] = -1.0
            break
        if onward and not turns_back:
            j += toward
            direction = toward
            continue
        if turns_back and passed.shape[0] > 0:
            passed[j] = 1 if joins else 0
        # The maximum lies between θ = 0 and `end`: bisection and false position in turn.
        a, b, ga, gb = 0.0, end, g, then[HALF_SLOPE]
        if ga * gb > 0:
            gb = -ga
        kept = 0
        for i in range(60):
            mid = (a * gb - b * ga) / (gb - ga) if i < 40 else 0.5 * (a + b)
            if not min(a, b) < mid < max(a, b):
                mid = 0.5 * (a + b)
            _value(c, low, high, bound, kinks, mid, e, now)
            if now[LENGTH] > out[FIT]:
                out[FIT], out[BEST_THETA], out[BEST_X], out[BEST_Y], out[PLACE] = (
                    now[LENGTH],
                    mid,
                    now[AT_X],
                    now[AT_Y],
                    now[AT_PLACE],
                )
            if now[LENGTH] == 0.0:
                now[HALF_SLOPE] = -1e-3 * ga
            if abs(now[HALF_SLOPE]) < 1e-12 * now[LENGTH]:
                break
            if now[HALF_SLOPE] * ga > 0:  # the end that stays counts half: the Illinois variant of false position
                a, ga = mid, now[HALF_SLOPE]
                gb = 0.5 * gb if kept == 1 else gb
                kept = 1
            else:
                b, gb = mid, now[HALF_SLOPE]
                ga = 0.5 * ga if kept == 2 else ga
                kept = 2
            if abs(b - a) < 1e-9:
                break
        break
    if out[PLACE] == 1.0 and n_low >= 0:
        out[PLACE] = KINK
    if out[PLACE] == 2.0 and n_high >= 0:
        out[PLACE] = KINK


@compiled(from_python=False)
def _could_surpass(out: Array, s: Array, j: int, cone: Around, bufs: Array) -> bool:
    """Return whether the signs s, at the T of `out`, come near enough to its squared length to be worth a climb."""
    basis, scalars, limits = cone.basis, cone.scalars, cone.limits
    c, low, high, e, now = bufs[0], bufs[1], bufs[2], bufs[4], bufs[5]
    combine(basis[j], s, c)
    low[:] = 0.0
    low[0] = 1.0
    copy(scalars[j, EDGE_X], high[:TERMS])
    copy(scalars[j, EDGE_Y], high[TERMS:])
    _value(c, low, high, high, False, out[BEST_THETA], e, now)
    best = worst = now[LENGTH]
    for side in range(2):  # its value at the ends of the node's range, and halfway
        for part in range(1, 3):
            _value(c, low, high, high, False, limits[j, side] * part / 2, e, now)
            best, worst = max(best, now[LENGTH]), min(worst, now[LENGTH])
    return bool(best + 0.1 * (best - worst) > out[FIT])


@compiled(from_python=False)
def _settle(
    row: Array,
    s: Array,
    at: tuple[int, int],
    exact: bool,
    cone: Around,
    plan: Plan,
    room: tuple[Array, Array],
    out: Array,
) -> None:
    """Climb from (node, flips), then with up to `span` flips more or fewer as long as that helps.

    `room` has scratch (8, 16), and what the first climb sets as `_ascend` does (J, or 0 to keep no record).
    """
    order, flips, span, N = cone.order, plan.flips, plan.span, row.shape[0]
    (j, k), (bufs, passed) = at, room
    trial, no_record = bufs[7], passed[:0]
    _sign(row, order[j], k, s)
    below, above = order[j, k - 1] if exact and k > 0 else -1, order[j, k] if exact and k < flips else -1
    _ascend(s, j, below, above, cone, bufs, out, passed)
    if not flips or out[FIT] < 0:
        return
    home, tried = k, 0
    for _ in range(2 * N):
        moved = False
        for step in range(2 * span):
            change = -1 - step // 2 if step % 2 else 1 + step // 2
            k = home + change
            if k < 0 or k > N or change == -tried:
                continue
            i = int(out[NODE])
            _sign(row, order[i], k, s)
            if not exact and not _could_surpass(out, s, i, cone, bufs):
                continue
            below, above = order[i, k - 1] if exact and k > 0 else -1, order[i, k] if exact and k < flips else -1
            _ascend(s, i, below, above, cone, bufs, trial, no_record)
            if trial[FIT] > out[FIT] * (1 + 1e-14):
                copy(trial, out[:N_RESULTS])
                home, tried, moved = k, change, True
                break
        if not moved:
            break


@compiled(from_python=False)
def _profile(S: Array, j: int, theta: float, cone: Around, flips: int, scratch: Profile, out: Array) -> None:
    """Write `LENGTH` to `PROFILE_FLIPS` of the best projection over A and F for one T and images S of any sign.

    Between two flips the signs are those of the model, so each sector of the cone is a linear problem of its own.
    """
    basis, order, perm, u0, u1 = cone.basis[j], cone.order[j], scratch.perm, scratch.first, scratch.second
    ex, ey = poly0(cone.scalars[j, EDGE_X], 0, theta), poly0(cone.scalars[j, EDGE_Y], 0, theta)
    N = basis.shape[0]
    x = y = 0.0
    for n in range(N):
        u0[n] = poly0(basis[n], 0, theta)
        u1[n] = poly0(basis[n], TERMS, theta)
        x += u0[n] * S[n]
        y += u1[n] * S[n]
        perm[n] = order[n]
    if theta != 0.0:
        for i in range(1, N):  # by u₁/u₀: sorted but for crossings
            p, n_lanes = perm[i], i - 1
            while n_lanes >= 0 and u1[perm[n_lanes]] * u0[p] > u1[p] * u0[perm[n_lanes]]:
                perm[n_lanes + 1] = perm[n_lanes]
                n_lanes -= 1
            perm[n_lanes + 1] = p
    out[:] = 0.0
    if x > 0:
        out[LENGTH], out[PROFILE_X], out[PROFILE_PLACE] = x * x, x, LOWER
    lx, ly = 1.0, 0.0
    for k in range(flips + 1):
        final = k == flips
        hx, hy = ex, ey
        if not final:
            n = perm[k]
            norm = math.hypot(u0[n], u1[n])
            if norm > 0:
                hx, hy = -u1[n] / norm, u0[n] / norm
            else:
                hx, hy = lx, ly
            if hx * ey - hy * ex <= 0:  # beyond the upper bound of B
                hx, hy, final = ex, ey, True
        if lx * y - ly * x > 0 and x * hy - y * hx > 0 and x * x + y * y > out[LENGTH]:
            out[LENGTH], out[PROFILE_X], out[PROFILE_Y], out[PROFILE_PLACE], out[PROFILE_FLIPS] = (
                x * x + y * y,
                x,
                y,
                INSIDE,
                k,
            )
        w = x * hx + y * hy
        if w > 0 and w * w > out[LENGTH]:
            out[LENGTH], out[PROFILE_X], out[PROFILE_Y], out[PROFILE_PLACE], out[PROFILE_FLIPS] = (
                w * w,
                w * hx,
                w * hy,
                UPPER if final else KINK,
                k,
            )
        if final:
            break
        x -= 2 * u0[n] * S[n]
        y -= 2 * u1[n] * S[n]
        lx, ly = hx, hy


@compiled(from_python=False)
def _search_all(row: Array, cone: Around, flips: int, scratch: Profile, bufs: Array, out: Array) -> None:
    """Maximise the exact profile over T by a dense scan: the last resort, where the order of the flips changes."""
    fine, J, limits = 12, cone.limits.shape[0], cone.limits
    p = bufs[0]
    out[FIT] = -1.0
    for j in range(J - 1):
        for i in range(fine + (j == J - 2)):
            theta = limits[j, 1] * i / fine
            _profile(row, j, theta, cone, flips, scratch, p)
            if p[LENGTH] > out[FIT]:
                out[FIT], out[NODE], out[BEST_THETA], out[BEST_X], out[BEST_Y], out[PLACE] = (
                    p[LENGTH],
                    j,
                    theta,
                    p[PROFILE_X],
                    p[PROFILE_Y],
                    p[PROFILE_PLACE],
                )
    j, centre, span = int(out[NODE]), out[BEST_THETA], limits[int(out[NODE]), 1] / fine
    while span > 1e-9:
        for side in range(-1, 2, 2):
            theta = min(max(centre + side * span, limits[j, 0]), limits[j, 1])
            _profile(row, j, theta, cone, flips, scratch, p)
            if p[LENGTH] > out[FIT]:
                out[FIT], out[BEST_THETA], out[BEST_X], out[BEST_Y], out[PLACE] = (
                    p[LENGTH],
                    theta,
                    p[PROFILE_X],
                    p[PROFILE_Y],
                    p[PROFILE_PLACE],
                )
        if out[BEST_THETA] == centre:
            span *= 0.5
        centre = out[BEST_THETA]
    theta = out[BEST_THETA]
    out[T_BOUND] = 1.0 if (j == 0 and theta <= 0.0) or (j == J - 2 and theta >= limits[j, 1]) else 0.0


@compiled()
def settle(tasks: Array, n: int, chunk: Chunk, cone: Cone, plan: Plan) -> None:
    """Do n tasks of `climb_kernels` with care; keep what is better than `best`.

    A voxel of air may have a task at each node, all without flips: those that lead to the same maximum are done once.
    """
    best, J, N = chunk.best, cone.around.basis.shape[0], cone.around.basis.shape[1]
    row, s, bufs, trial = np.zeros(N), np.zeros(N), np.zeros((8, 16)), np.zeros(16)
    passed = np.zeros((best.shape[0], J), np.uint8)
    top = np.zeros(best.shape[0], np.int64)
    for task in range(n):
        top[tasks[task, VOXEL]] = task
    for turn in range(2):  # the highest T of each voxel, then all from low to high: climbs seldom pass a node twice
        for task in range(n):
            voxel, j, k = tasks[task, VOXEL], tasks[task, KEY] // 2, tasks[task, FLIPS]
            if (turn == 0) != (top[voxel] == task) or (k == 0 and passed[voxel, j]):
                continue
            copy(chunk.rows[voxel], row)
            _settle(row, s, (j, k), False, cone.around, plan, (bufs, passed[voxel, : J if k == 0 else 0]), trial)
            if trial[FIT] > best[voxel, FIT]:
                copy(trial, best[voxel, :N_RESULTS])


@compiled()
def search(ids: Array, chunk: Chunk, cone: Cone, plan: Plan, maps: Maps) -> None:
    """Fit the voxels `ids` of the chunk with care, and write what `finish_kernels` writes."""
    rows, scale, voxels, flips = chunk.rows, chunk.scale, chunk.voxels, plan.flips
    basis, reach, last = cone.around.basis, cone.reach, cone.nodes.last
    kappa, deviation, residual, status = maps.kappa, maps.sd, maps.residual, maps.status
    J, N, Q = cone.scale.t.shape[0], basis.shape[1], kappa.shape[0]
    S = np.zeros((N + 1, LANES), np.float32)
    W = np.zeros(SCAN_ROWS * LANES, np.float32)
    P, K = np.zeros((J, LANES), np.float32), np.zeros((J, LANES), np.float32)
    power, top, flipped = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    low = np.zeros(LANES, np.float32)
    where, rivals, here = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32), np.zeros(LANES, np.int64)
    row, s, perm = np.zeros(N), np.zeros(N), np.zeros(N + 2, np.int64)
    found, scratch = Found(top, flipped, where, rivals), Profile(perm, np.zeros(N), np.zeros(N))
    bufs, best, trial, p = np.zeros((8, 16)), np.zeros(16), np.zeros(16), np.zeros(16)
    k_out, sd_out, no_record = np.zeros(Q), np.zeros(Q), np.zeros(0, np.uint8)
    for b in range(0, ids.shape[0], LANES):
        n_lanes = min(LANES, ids.shape[0] - b)
        for lane in range(LANES):
            here[lane] = ids[b + lane] if lane < n_lanes else -1
        gather(rows, here, flips > 0, S)
        for lane in range(LANES):
            power[lane] = np.float32(0)
        for image in range(N):
            for lane in range(LANES):
                power[lane] += S[image, lane] * S[image, lane]
        scan_block(S, cone.nodes, flips, reach, W, P, K, low)
        best_of(P, K, reach, power, max(N - Q, 1), found)
        for lane in range(n_lanes):
            i = voxels[here[lane]]
            total, negative = 0.0, 0.0
            for image in range(N):
                value = float(rows[here[lane], image])
                row[image] = value
                total += value * value
                negative += min(value, 0.0) * value
            exact = flips > 0 and negative > 0
            threshold = float(power[lane])
            if exact:
                threshold -= 4 * negative
            best[FIT] = -1.0
            j = int(where[lane])
            first, turns = j, int(flipped[lane])
            # The best node, then any rival: the nodes are walked from the best one on.
            for turn in range(J if rivals[lane] > 1 or exact else 1):
                j = first + turn if first + turn < J else first + turn - J
                k = int(K[j, lane])
                if turn:
                    pj = P[j, lane]
                    if pj * (1 + 4 * reach[j]) < threshold:
                        continue
                    peak = (j == 0 or P[j - 1, lane] <= pj) and (j == J - 1 or P[j + 1, lane] <= pj)
                    if not (peak or k != turns or exact):
                        continue
                if exact:
                    if P[j, lane] * (1 + 4 * reach[j]) < best[FIT]:  # what is clipped at zero fits no worse
                        continue
                    _profile(row, j, 0.0, cone.around, flips, scratch, p)
                    _settle(row, s, (j, int(p[PROFILE_FLIPS])), True, cone.around, plan, (bufs, no_record), trial)
                    if trial[FIT] > best[FIT]:
                        copy(trial, best[:N_RESULTS])
                    continue
                _settle(row, s, (j, k), False, cone.around, plan, (bufs, no_record), trial)
                if trial[FIT] > best[FIT]:
                    copy(trial, best[:N_RESULTS])
                if flips and rivals[lane] > 1:  # flips that are far apart may do nearly as well
                    need = threshold / (1 + 4 * reach[j])
                    others = other_flips(rows[here[lane]], j, k, min(flips, last[j]), need, cone.nodes, perm)
                    for o in range(others):
                        _settle(row, s, (j, perm[o]), False, cone.around, plan, (bufs, no_record), trial)
                        if trial[FIT] > best[FIT]:
                            copy(trial, best[:N_RESULTS])
            fit = best[FIT]
            if exact:  # the signs that were assumed against those of the model
                j, theta = int(best[NODE]), best[BEST_THETA]
                fit = total
                for image in range(N):
                    f = best[BEST_X] * poly0(basis[j, image], 0, theta) + best[BEST_Y] * poly0(
                        basis[j, image], TERMS, theta
                    )
                    fit -= (row[image] - abs(f)) ** 2
                if fit < best[FIT] - 1e-9 * total:
                    _search_all(row, cone.around, flips, scratch, bufs, best)
                    fit = best[FIT]
            best[FIT], size = fit, scale[here[lane]]
            status[i] = finish_one(best, cone.scale, plan, size, k_out, sd_out)
            for q in range(Q):
                kappa[q, i] = k_out[q]
                deviation[q, i] = sd_out[q]
            residual[i] = residual_of(rows[here[lane]], basis[int(best[NODE])], best, total, flips) * size
