"""Numba kernels that climb: from tasks (voxel, node of T, flips) to maxima over T, on many lanes at once.

Tasks are sorted by node, so that all lanes of a group share its polynomials. What turns out to continue elsewhere (at
the node beside it, on the edge of the cone, with another number of flips) becomes a task of the next round; what fits
no pattern is odd, for `careful`.
"""

from __future__ import annotations

import numpy as np

from rimap.estimators.nlls.conic.kernel_arguments import (
    BEST_FLIPS,
    BEST_THETA,
    BEST_X,
    BEST_Y,
    FIT,
    NODE,
    PLACE,
    T_BOUND,
    Chunk,
    Cone,
    Plan,
    Queues,
    Task,
)
from rimap.estimators.nlls.conic.polynomials import INSIDE, UPPER, Array, compiled, copy, poly, poly0
from rimap.estimators.nlls.conic.scan_kernels import (
    FINE,
    FIRST,
    FLIPS,
    FRESH,
    HINT,
    KEY,
    SEEN,
    VOXEL,
    other_flips,
    push,
)
from rimap.estimators.nlls.conic.tables import EDGE_X, EDGE_Y

#: Tasks that are done side by side.
GROUP = 64
#: A step so small that it is the last.
REST = 1e-5
#: A group of lanes is a flat array Z of rows of GROUP: 16 coefficients and what a climb gives. (With the
#: distances of its rows known, nothing has to be checked before vectors are used.) What a climb gives: θ (and where to
#: begin, 0 for any), squared length, x, y, the last step, x·e_y − y·e_x of the unconstrained maximum, and to second
#: order from the node: how far up, and from where.
THETA, LENGTH, X, Y, STEP, DEPTH, PROMISE, START = range(16, 24)
#: The first rows of the coefficients of x and of y in Z, and the first places of those of the edge in E.
OF_X, OF_Y = 0, 8
#: Rows of the scratch W of `_far_flips`, GROUP values each: x and y; x² + y² with one flip less and with the flips at
#: hand; how many numbers of flips are a maximum; and what such a maximum must come up to.
FAR_X, FAR_Y, FAR_BEFORE, FAR_HERE, FAR_COUNT, FAR_NEED = range(6)
FAR_ROWS = 6


@compiled(fast=True, from_python=False)
def lane(Z: Array, i: int, v: int, t: float) -> tuple[float, float, float]:
    """Return what `poly` does for the polynomial of lane v that starts at row i of Z."""
    f = Z[(i + 7) * GROUP + v]
    f1 = f
    f = f * t + Z[(i + 6) * GROUP + v]
    f2 = f1
    f1 = f1 * t + f
    f = f * t + Z[(i + 5) * GROUP + v]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + Z[(i + 4) * GROUP + v]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + Z[(i + 3) * GROUP + v]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + Z[(i + 2) * GROUP + v]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + Z[(i + 1) * GROUP + v]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + Z[i * GROUP + v]
    return f, f1, 2 * f2


@compiled(fast=True, from_python=False)
def _combine(C: Array, S: Array, Z: Array) -> None:
    """Write the coefficients of x and y to the first 16 rows of Z for signed images S (N·GROUP); C (N, 16), N % 4 =
    0.
    """
    for o in range(0, 16, 4):
        g = Z[o * GROUP : (o + 4) * GROUP]
        for v in range(4 * GROUP):
            g[v] = 0.0
        for image in range(0, C.shape[0], 4):
            a0, a1, a2, a3 = C[image, o], C[image + 1, o], C[image + 2, o], C[image + 3, o]
            b0, b1, b2, b3 = C[image, o + 1], C[image + 1, o + 1], C[image + 2, o + 1], C[image + 3, o + 1]
            c0, c1, c2, c3 = C[image, o + 2], C[image + 1, o + 2], C[image + 2, o + 2], C[image + 3, o + 2]
            d0, d1, d2, d3 = C[image, o + 3], C[image + 1, o + 3], C[image + 2, o + 3], C[image + 3, o + 3]
            s = S[image * GROUP : (image + 4) * GROUP]
            for v in range(GROUP):
                t0, t1, t2, t3 = s[v], s[GROUP + v], s[2 * GROUP + v], s[3 * GROUP + v]
                g[v] += a0 * t0 + a1 * t1 + a2 * t2 + a3 * t3
                g[GROUP + v] += b0 * t0 + b1 * t1 + b2 * t2 + b3 * t3
                g[2 * GROUP + v] += c0 * t0 + c1 * t1 + c2 * t2 + c3 * t3
                g[3 * GROUP + v] += d0 * t0 + d1 * t1 + d2 * t2 + d3 * t3


@compiled(fast=True, from_python=False)
def _open(Z: Array) -> bool:
    """Return whether a lane has not come to rest. (Within the loop of the steps, this would keep it from vectors.)"""
    count = 0.0
    for v in range(GROUP):
        count += 1.0 if abs(Z[STEP * GROUP + v]) >= REST else 0.0
    return count > 0


@compiled(fast=True, from_python=False)
def _inside(Z: Array, E: Array, lo: float, hi: float) -> None:
    """Climb x² + y² by Newton's iteration in every lane of Z; E (16) are the coefficients of the edge.

    Half of its slope is x x′ + y y′, half of its curvature x′² + x x″ + y′² + y y″ (of `tables`: ‖S‖² − RSS).
    """
    for v in range(GROUP):
        c0, c1, c2, d0, d1, d2 = (
            Z[OF_X * GROUP + v],
            Z[(OF_X + 1) * GROUP + v],
            Z[(OF_X + 2) * GROUP + v],
            Z[OF_Y * GROUP + v],
            Z[(OF_Y + 1) * GROUP + v],
            Z[(OF_Y + 2) * GROUP + v],
        )
        f, g = c0 * c0 + d0 * d0, c0 * c1 + d0 * d1
        h = c1 * c1 + 2 * c0 * c2 + d1 * d1 + 2 * d0 * d2
        t = -g / min(h, -1e-300)
        t = min(max(t if h < 0 else (lo if g < 0 else hi), lo), hi)
        Z[PROMISE * GROUP + v], Z[START * GROUP + v] = f + t * (2 * g + t * h), f
        Z[THETA * GROUP + v] = Z[THETA * GROUP + v] if Z[THETA * GROUP + v] != 0 else t
    for v in range(GROUP):
        Z[STEP * GROUP + v] = 1.0
    for _ in range(8):
        for v in range(GROUP):
            t = Z[THETA * GROUP + v]
            x, x1, x2 = lane(Z, OF_X, v, t)
            y, y1, y2 = lane(Z, OF_Y, v, t)
            g, h = x * x1 + y * y1, x1 * x1 + x * x2 + y1 * y1 + y * y2
            step = -g / min(h, -1e-300)
            step = step if h < 0 else (1.0 if g > 0 else -1.0)
            # what is at rest stays so, whatever the other lanes do
            going = 1.0 if abs(Z[STEP * GROUP + v]) >= REST else 0.0
            dt = going * (min(max(t + step, lo), hi) - t)
            Z[THETA * GROUP + v], Z[STEP * GROUP + v] = t + dt, dt
        if not _open(Z):
            break
    for v in range(GROUP):
        t = Z[THETA * GROUP + v]
        x, y = lane(Z, OF_X, v, t)[0], lane(Z, OF_Y, v, t)[0]
        Z[X * GROUP + v], Z[Y * GROUP + v], Z[LENGTH * GROUP + v] = x, y, x * x + y * y
        Z[DEPTH * GROUP + v] = x * poly0(E, OF_Y, t) - y * poly0(E, OF_X, t)


@compiled(fast=True, from_python=False)
def _along(Z: Array, E: Array, lo: float, hi: float) -> None:
    """Climb the projection x cos + y sin on the upper edge of the cone, whose direction (cos, sin) depends on T."""
    e0, e1, e2 = E[OF_X], E[OF_X + 1], E[OF_X + 2]
    u0, u1, u2 = E[OF_Y], E[OF_Y + 1], E[OF_Y + 2]
    for v in range(GROUP):
        c0, c1, c2, d0, d1, d2 = (
            Z[OF_X * GROUP + v],
            Z[(OF_X + 1) * GROUP + v],
            Z[(OF_X + 2) * GROUP + v],
            Z[OF_Y * GROUP + v],
            Z[(OF_Y + 1) * GROUP + v],
            Z[(OF_Y + 2) * GROUP + v],
        )
        w = c0 * e0 + d0 * u0
        g = c1 * e0 + c0 * e1 + d1 * u0 + d0 * u1
        h = 2 * (c2 * e0 + c1 * e1 + c0 * e2 + d2 * u0 + d1 * u1 + d0 * u2)
        t = -g / min(h, -1e-300)
        t = min(max(t if h < 0 else (lo if g < 0 else hi), lo), hi)
        p = max(w + t * (g + 0.5 * t * h), 0.0)
        Z[PROMISE * GROUP + v], Z[START * GROUP + v] = p * p, max(w, 0.0) * max(w, 0.0)
        Z[THETA * GROUP + v] = Z[THETA * GROUP + v] if Z[THETA * GROUP + v] != 0 else t
    for v in range(GROUP):
        Z[STEP * GROUP + v] = 1.0
    for _ in range(8):
        for v in range(GROUP):
            t = Z[THETA * GROUP + v]
            x, x1, x2 = lane(Z, OF_X, v, t)
            y, y1, y2 = lane(Z, OF_Y, v, t)
            a, a1, a2 = poly(E, OF_X, t)
            b, b1, b2 = poly(E, OF_Y, t)
            g = x1 * a + x * a1 + y1 * b + y * b1
            h = x2 * a + 2 * x1 * a1 + x * a2 + y2 * b + 2 * y1 * b1 + y * b2
            step = -g / min(h, -1e-300)
            step = step if h < 0 else (1.0 if g > 0 else -1.0)
            going = 1.0 if abs(Z[STEP * GROUP + v]) >= REST else 0.0
            dt = going * (min(max(t + step, lo), hi) - t)
            Z[THETA * GROUP + v], Z[STEP * GROUP + v] = t + dt, dt
        if not _open(Z):
            break
    for v in range(GROUP):
        t = Z[THETA * GROUP + v]
        x, x1, x2 = lane(Z, OF_X, v, t)
        y, y1, y2 = lane(Z, OF_Y, v, t)
        a, b = poly0(E, OF_X, t), poly0(E, OF_Y, t)
        w, q = x * a + y * b, a * a + b * b
        Z[DEPTH * GROUP + v] = x * b - y * a
        w = max(w, 0.0)
        Z[LENGTH * GROUP + v], Z[X * GROUP + v], Z[Y * GROUP + v] = w * w / q, w * a / q, w * b / q


@compiled(fast=True, from_python=False)
def _far_flips(S: Array, nodes: Array, edge: Array, order: Array, flips: int, T: Array, W: Array) -> None:
    """Count for each lane over how many numbers of flips x² + y² at a node is a maximum and as large as needed.

    S (N·GROUP) are images of any sign: their modulus is taken. W (FAR_ROWS·GROUP), in single precision, has what is
    needed in its row FAR_NEED, and afterwards the counts in FAR_COUNT; T (N·GROUP) is scratch.
    """
    N = nodes.shape[1] - 1
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    ex, ey = edge[0], edge[1]
    for v in range(N * GROUP):
        T[v] = np.float32(abs(S[v]))
    for v in range(GROUP):
        W[FAR_X * GROUP + v] = W[FAR_Y * GROUP + v] = zero
        W[FAR_BEFORE * GROUP + v] = W[FAR_COUNT * GROUP + v] = zero
    for n in range(0, N, 4):
        n1, n2, n3 = min(n + 1, N), min(n + 2, N), min(n + 3, N)
        a0, a1, a2, a3 = nodes[0, n], nodes[0, n1], nodes[0, n2], nodes[0, n3]
        b0, b1, b2, b3 = nodes[1, n], nodes[1, n1], nodes[1, n2], nodes[1, n3]
        t0 = T[n * GROUP : (n + 1) * GROUP]
        m1, m2, m3 = min(n1, N - 1), min(n2, N - 1), min(n3, N - 1)
        t1, t2 = T[m1 * GROUP : (m1 + 1) * GROUP], T[m2 * GROUP : (m2 + 1) * GROUP]
        t3 = T[m3 * GROUP : (m3 + 1) * GROUP]
        for v in range(GROUP):
            s0, s1, s2, s3 = t0[v], t1[v], t2[v], t3[v]
            W[FAR_X * GROUP + v] += a0 * s0 + a1 * s1 + a2 * s2 + a3 * s3
            W[FAR_Y * GROUP + v] += b0 * s0 + b1 * s1 + b2 * s2 + b3 * s3
    for v in range(GROUP):
        x, y = W[FAR_X * GROUP + v], W[FAR_Y * GROUP + v]
        W[FAR_HERE * GROUP + v] = x * x + y * y if min(y, x * ey - y * ex) > zero else zero
    for m in range(flips + 1):
        n = order[min(m, flips - 1)]
        a, b = two * nodes[0, n], two * nodes[1, n]
        t, last = T[n * GROUP : (n + 1) * GROUP], zero if m == flips else one
        for v in range(GROUP):
            s = t[v]
            x, y = W[FAR_X * GROUP + v] - a * s, W[FAR_Y * GROUP + v] - b * s
            before, here = W[FAR_BEFORE * GROUP + v], W[FAR_HERE * GROUP + v]
            after = last * (x * x + y * y) if min(y, x * ey - y * ex) > zero else zero
            W[FAR_COUNT * GROUP + v] += one if here >= max(W[FAR_NEED * GROUP + v], max(before, after)) else zero
            W[FAR_X * GROUP + v], W[FAR_Y * GROUP + v] = x, y
            W[FAR_BEFORE * GROUP + v], W[FAR_HERE * GROUP + v] = here, after


@compiled(from_python=False)
def sort(tasks: Array, n: int, keys: int, begin: Array, index: Array) -> None:
    """Write to `index` the tasks in the order of their keys; those of key i begin at begin[i]."""
    for i in range(keys + 2):
        begin[i] = 0
    for i in range(n):
        begin[tasks[i, KEY] + 2] += 1
    for i in range(keys + 1):
        begin[i + 1] += begin[i]
    for i in range(n):
        key = tasks[i, KEY] + 1
        index[begin[key]] = i
        begin[key] += 1


@compiled()
def climb(queues: Queues, n: int, odds: int, chunk: Chunk, cone: Cone, plan: Plan) -> tuple[int, int]:
    """Do n tasks: keep what is better than `best`, write to `then` what is to be done next, to `odd` what fits no
    pattern.

    Returns how many of either. Of fresh tasks, flips that are far apart are looked for too, up to `goal`; `low` bounds
    what the lower edge gives. Voxels that this cannot do are marked in `left`.
    """
    tasks, index, then, odd = queues.tasks, queues.index, queues.then, queues.odd
    rows, total, goal, low, best, left = chunk.rows, chunk.total, chunk.goal, chunk.low, chunk.best, chunk.left
    basis, order, rank = cone.padded, cone.nodes.order, cone.rank
    scalars, limits = cone.around.scalars, cone.around.limits
    lean, last, reach, plane, edge = cone.lean, cone.nodes.last, cone.reach, cone.nodes.plane, cone.nodes.edge
    flips, has_field, span = plan.flips, plan.has_field, plan.span
    J, N = rank.shape
    begin = np.zeros(2 * J + 2, np.int64)
    sort(tasks, n, 2 * J, begin, index)
    T, W = np.zeros(N * GROUP, np.float32), np.zeros(FAR_ROWS * GROUP, np.float32)
    who, turned = np.zeros(GROUP, np.int64), np.zeros(GROUP, np.int64)
    was = best[:, FIT].copy()  # what this round finds makes no difference to it, so that the order does not
    power, record = np.zeros(GROUP), np.zeros(GROUP)
    found = np.zeros(N + 2, np.int64)
    Z, images, E = np.zeros(24 * GROUP), np.zeros(basis.shape[1] * GROUP), np.zeros(16)
    R, S = Z.reshape(24, GROUP), images.reshape(basis.shape[1], GROUP)
    around = np.zeros(2 * span, np.int64)
    more = 0
    for key in range(2 * J):
        j, on_edge = key // 2, key % 2
        C, lo, high = basis[j], limits[j, 0], limits[j, 1]
        copy(scalars[j, EDGE_X], E[OF_X:OF_Y])
        copy(scalars[j, EDGE_Y], E[OF_Y:])
        for group in range(begin[key], begin[key + 1], GROUP):
            n_lanes = min(GROUP, begin[key + 1] - group)
            for v in range(GROUP):
                i = index[group + min(v, n_lanes - 1)]
                who[v], turned[v], R[THETA, v] = tasks[i, VOXEL], tasks[i, FLIPS], tasks[i, HINT] / FINE
                power[v], record[v] = total[who[v]], was[who[v]]  # here many can be under way at once
            for v in range(0, n_lanes, 4):
                r0, r1, r2, r3 = rows[who[v]], rows[who[v + 1]], rows[who[v + 2]], rows[who[v + 3]]
                for o in range(N):
                    S[o, v], S[o, v + 1], S[o, v + 2], S[o, v + 3] = r0[o], r1[o], r2[o], r3[o]
            for o in range(N):
                place, s = rank[j, o], S[o]
                for v in range(GROUP):
                    s[v] = -s[v] if place < turned[v] else s[v]
            _combine(C, images, Z)
            if on_edge:
                _along(Z, E, lo, high)
            else:
                _inside(Z, E, lo, high)
            fresh = False
            for v in range(n_lanes):
                fresh |= tasks[index[group + v], FIRST] >= FRESH
            if fresh and flips and last[j] > 0:
                factor = np.float32(1) / (np.float32(1) + np.float32(4) * reach[j])
                for v in range(GROUP):
                    W[FAR_NEED * GROUP + v] = goal[tasks[index[group + min(v, n_lanes - 1)], VOXEL]] * factor
                _far_flips(images, plane[j], edge[j], order[j], last[j], T, W)
                for v in range(n_lanes):
                    i = index[group + v]
                    if W[FAR_COUNT * GROUP + v] > 1 and tasks[i, FIRST] >= FRESH:
                        voxel = tasks[i, VOXEL]
                        many = other_flips(
                            rows[voxel], j, tasks[i, FLIPS], last[j], W[FAR_NEED * GROUP + v], cone.nodes, found
                        )
                        for o in range(many):
                            more = push(then, more, Task(2 * j, voxel, found[o], 0, 1 << (found[o] % 31)), 0.0, left)
            for v in range(n_lanes):
                i = index[group + v]
                voxel, k, first, seen = (
                    tasks[i, VOXEL],
                    tasks[i, FLIPS],
                    tasks[i, FIRST] % FRESH,
                    np.int64(tasks[i, SEEN]),
                )
                if left[voxel]:
                    continue
                rest = max(power[v] - R[PROMISE, v], 0.0)
                if not first and R[PROMISE, v] + 0.5 * (R[PROMISE, v] - R[START, v]) + 0.05 * rest < record[v]:
                    continue
                theta, x, y, fit, depth = R[THETA, v], R[X, v], R[Y, v], R[LENGTH, v], R[DEPTH, v]
                beyond = theta <= lo + 1e-12 or theta >= high - 1e-12
                if not (beyond or abs(R[STEP, v]) < REST) or (on_edge and not fit > 0):
                    odds = push(odd, odds, Task(key, voxel, k, first, seen), theta, left)
                    continue
                astray = on_edge and depth > 1e-9
                if on_edge:
                    if astray:  # rather inside; but another number of flips may keep to the edge
                        more = push(then, more, Task(key - 1, voxel, k, first, seen), theta, left)
                elif has_field and not (y > 0 and depth > 0):
                    if y <= 0 and low[voxel] < record[v]:  # B beyond its lower bound, which gives no better fit
                        continue
                    if y > 0:
                        more = push(then, more, Task(key + 1, voxel, k, first, seen), theta, left)
                    else:
                        odds = push(odd, odds, Task(key, voxel, k, first, seen), theta, left)
                    continue
                elif not (has_field or x > 0):
                    odds = push(odd, odds, Task(key, voxel, k, first, seen), theta, left)
                    continue
                if beyond and abs(theta) > 1e-9:  # that is for the node beside it
                    if first or fit > record[v]:
                        beside = key + (2 if theta > 0 else -2)
                        more = push(then, more, Task(beside, voxel, k, first, seen), 0.0, left)
                    continue
                if fit > record[v] and fit > best[voxel, FIT] and not astray:  # a lane before may have been better
                    best[voxel, FIT], best[voxel, NODE], best[voxel, BEST_THETA] = fit, j, theta
                    best[voxel, BEST_X], best[voxel, BEST_Y], best[voxel, BEST_FLIPS] = x, y, k
                    best[voxel, PLACE], best[voxel, T_BOUND] = UPPER if on_edge else INSIDE, 1.0 if beyond else 0.0
                if not flips:
                    continue
                spare = 0.005 * max(power[v] - fit, 0.0)
                row = rows[voxel]
                count = 0
                for side in range(2):
                    change = pull = f = 0.0
                    for r in range(span):
                        place = k + r if side else k - 1 - r
                        if place < 0 or place >= flips:
                            break
                        o = order[j, place]
                        pull += row[o] * lean[j, o]
                        if f > 0 and 4 * (change - f * row[o] + pull * pull) + spare <= 0:
                            break  # the model is further from zero there than at the image before
                        f = x * poly0(C[o], 0, theta) + y * poly0(C[o], 8, theta)
                        f = f if side else -f
                        change -= f * row[o]
                        turns = k + r + 1 if side else k - 1 - r
                        bit = 1 << (turns % 31)
                        if 4 * (change + pull * pull) + spare > 0 and not seen & bit:
                            seen |= bit
                            around[count] = turns
                            count += 1
                for r in range(count):
                    more = push(then, more, Task(key, voxel, around[r], 0, seen), theta, left)
    return more, odds
