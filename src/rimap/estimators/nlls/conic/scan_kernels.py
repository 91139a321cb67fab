"""Numba kernels that load images and scan the nodes of T over all flips: where is a search worth its while?

A block is LANES voxels side by side, so that the scan runs on whole vector registers, in single precision. What it
finds are tasks for `climb`.
"""

from __future__ import annotations

import math

import numpy as np

from rimap.estimators.nlls.conic.kernel_arguments import BEST_FLIPS, FIT, NODE, Chunk, Cone, Found, Nodes, Plan, Task
from rimap.estimators.nlls.conic.polynomials import LANES, NO_SIGNAL, NOT_FINITE, Array, compiled, copy

#: Columns of a task: 2 × its node (+ 1: on the upper edge of the cone), its voxel, its flips, whether it is the first
#: of its voxel, which flips have been tried around it (bit k modulo 31), how long it may become,
#: and the θ to begin with, 0 for any.
KEY, VOXEL, FLIPS, FIRST, SEEN, MOST, HINT = range(7)
#: MOST and HINT are kept in units of 2⁻²².
FINE = 2.0**22
#: Added to FIRST where flips that are far apart are to be looked for too.
FRESH = 2
#: Voxels that are read at a time.
PIECE = 8 * LANES
#: Offset that marks the upper edge of the cone, as opposed to its inside, among numbers of flips.
ON_EDGE = np.float32(0.25)
#: Rows of the scratch W of `scan_block`, LANES values each: x and y with the flips at hand, the largest x² + y² so far
#: (at first the projection on the upper edge), its flips, and x·e_y − y·e_x.
SCAN_X, SCAN_Y, SCAN_BEST, SCAN_FLIPS, SCAN_DEPTH = range(5)
SCAN_ROWS = 5


@compiled()
def load(
    images: Array, voxels: Array, blocks: Array, rows: Array, scale: Array, total: Array, kind: Array, rms: Array
) -> None:
    """Copy `voxels` (sorted) of images (N, M), each divided by its largest modulus `scale`.

    They come twice: `blocks` (n, N + 1, LANES), whose last row is zero, and `rows` (n·LANES, N), which may be empty.
    `total` is their sum of squares, after rounding. `kind`: 0, or -1 where a value is negative, or the status of a
    voxel that has no estimate. `rms` (M) is the root mean square of the images, or 0.
    """
    N, M = images.shape[0], voxels.shape[0]
    start = voxels[0]
    straight = voxels[M - 1] - start == M - 1
    high, low, odd = np.zeros(PIECE, images.dtype), np.zeros(PIECE, images.dtype), np.zeros(PIECE, images.dtype)
    per, sum2, share = np.zeros(LANES), np.zeros(LANES), 1 / N
    for piece in range(0, M, PIECE):  # what the cache keeps until it is read again
        many = min(PIECE, M - piece)
        for v in range(many):
            high[v] = low[v] = odd[v] = 0
        for n in range(N):  # image by image: memory likes to be read in long runs
            image = images[n]
            if straight:
                here = image[start + piece : start + piece + many]
                for v in range(many):
                    value = here[v]
                    odd[v] += value - value  # NaN once a value is not finite
                    high[v] = value if value > high[v] else high[v]
                    low[v] = value if value < low[v] else low[v]
            else:
                for v in range(many):
                    value = image[voxels[piece + v]]
                    odd[v] += value - value
                    high[v] = value if value > high[v] else high[v]
                    low[v] = value if value < low[v] else low[v]
        for part in range(0, many, LANES):
            first = piece + part
            block, n_lanes = blocks[first // LANES], min(LANES, M - first)
            sizes, kinds = scale[first : first + LANES], kind[first : first + LANES]
            for v in range(LANES):
                sum2[v] = per[v] = sizes[v] = 0.0
                kinds[v] = NO_SIGNAL
            up, down, off = high[part : part + n_lanes], low[part : part + n_lanes], odd[part : part + n_lanes]
            for v in range(n_lanes):
                size = max(float(up[v]), -float(down[v]))
                finite = off[v] == 0
                good = finite and size > 0
                kinds[v] = (-1 if down[v] < 0 else 0) if good else (NO_SIGNAL if finite else NOT_FINITE)
                sizes[v] = size if good else 0.0
                per[v] = (1.0 if good else 0.0) / (size if good else 1.0)
            for n in range(N):
                target, image = block[n], images[n]
                if straight:
                    here = image[start + first : start + first + n_lanes]
                    for v in range(n_lanes):
                        rounded = np.float32(float(here[v]) * per[v]) if per[v] > 0 else np.float32(0)
                        target[v] = rounded
                        sum2[v] += float(rounded) * float(rounded)
                else:
                    for v in range(n_lanes):
                        rounded = np.float32(float(image[voxels[first + v]]) * per[v]) if per[v] > 0 else np.float32(0)
                        target[v] = rounded
                        sum2[v] += float(rounded) * float(rounded)
                for v in range(n_lanes, LANES):
                    target[v] = np.float32(0)
            for v in range(LANES):
                block[N, v] = np.float32(0)
            powers, lengths = total[first : first + LANES], per
            for v in range(LANES):
                powers[v], lengths[v] = sum2[v], math.sqrt(sum2[v] * share) * sizes[v]
            if straight:
                here = rms[start + first : start + first + n_lanes]
                for v in range(n_lanes):
                    here[v] = lengths[v]
            else:
                for v in range(n_lanes):
                    rms[voxels[first + v]] = lengths[v]
            for v in range(n_lanes if rows.shape[0] > 0 else 0):
                row = rows[first + v]
                for n in range(N):
                    row[n] = block[n, v]


@compiled()
def gather(rows: Array, ids: Array, clip: bool, S: Array) -> None:
    """Copy LANES of `rows`, -1 for none, side by side to S (N + 1, LANES); negative values become zero if `clip`."""
    N = rows.shape[1]
    zero = np.float32(0)
    for lane in range(LANES):
        if ids[lane] < 0:
            for image in range(N):
                S[image, lane] = zero
        else:
            row = rows[ids[lane]]
            for image in range(N):
                S[image, lane] = max(row[image], zero) if clip else row[image]
        S[N, lane] = zero


@compiled(fast=True, from_python=False)
def scan_block(S: Array, cone: Nodes, flips: int, drift: Array, W: Array, P: Array, K: Array, low: Array) -> None:
    """Write for each node and lane the longest squared projection on the cone over all flips, and their number.

    With the images signed for k flips, x = ⟨S, u₀⟩ and y = ⟨S, u₁⟩, and one flip more subtracts 2 Sₙ u₀ₙ and 2 Sₙ u₁ₙ.
    Flips beyond those of the upper edge of the cone cannot be the best ones. S (N + 1, LANES), its last row zero; W
    (SCAN_ROWS·LANES) scratch; P and K (J, LANES). `low` (LANES) becomes what the lower edge may come to, growing by
    `drift` (J) between nodes.
    """
    nodes, edge, upper, last, order = cone.plane, cone.edge, cone.upper, cone.last, cone.order
    J, N = upper.shape[0], upper.shape[1] - 1
    zero = np.float32(0)
    for v in range(LANES):
        low[v] = zero
    for j in range(J):
        A, B, D, E = nodes[j, 0], nodes[j, 1], nodes[j, 2], upper[j]
        for v in range(SCAN_ROWS * LANES):
            W[v] = zero
        for image in range(0, N, 4):
            n1, n2, n3 = min(image + 1, N), min(image + 2, N), min(image + 3, N)
            a0, a1, a2, a3 = A[image], A[n1], A[n2], A[n3]
            b0, b1, b2, b3 = B[image], B[n1], B[n2], B[n3]
            e0, e1, e2, e3 = E[image], E[n1], E[n2], E[n3]
            s0, s1, s2, s3 = S[image], S[n1], S[n2], S[n3]
            for v in range(LANES):
                t0, t1, t2, t3 = s0[v], s1[v], s2[v], s3[v]
                W[SCAN_X * LANES + v] += a0 * t0 + a1 * t1 + a2 * t2 + a3 * t3
                W[SCAN_Y * LANES + v] += b0 * t0 + b1 * t1 + b2 * t2 + b3 * t3
                W[SCAN_BEST * LANES + v] += e0 * t0 + e1 * t1 + e2 * t2 + e3 * t3
        k = np.float32(last[j]) + ON_EDGE
        ex, ey, more = edge[j, 0], edge[j, 1], np.float32(1) + np.float32(4) * drift[j]
        for v in range(LANES):
            x, y, e = W[SCAN_X * LANES + v], W[SCAN_Y * LANES + v], max(W[SCAN_BEST * LANES + v], zero)
            d = x * ey - y * ex
            score = x * x + y * y if min(y, d) > zero else zero
            below = max(x, zero) * max(x, zero)
            low[v] = max(low[v], below * more)
            score = max(score, below)
            higher = e * e > score
            W[SCAN_BEST * LANES + v] = e * e if higher else score
            W[SCAN_FLIPS * LANES + v] = k if higher else zero
            W[SCAN_DEPTH * LANES + v] = d
        two = np.float32(2)
        for g in range(0, min(flips, last[j]), 4):
            n0, n1, n2, n3 = order[j, g], order[j, g + 1], order[j, g + 2], order[j, g + 3]
            a0, a1, a2, a3 = two * A[n0], two * A[n1], two * A[n2], two * A[n3]
            b0, b1, b2, b3 = two * B[n0], two * B[n1], two * B[n2], two * B[n3]
            d0, d1, d2, d3 = two * D[n0], two * D[n1], two * D[n2], two * D[n3]
            s0, s1, s2, s3 = S[n0], S[n1], S[n2], S[n3]
            k0 = np.float32(g + 1)
            k1, k2, k3 = k0 + np.float32(1), k0 + np.float32(2), k0 + np.float32(3)
            for v in range(LANES):
                x, y, d = W[SCAN_X * LANES + v], W[SCAN_Y * LANES + v], W[SCAN_DEPTH * LANES + v]
                p, q = W[SCAN_BEST * LANES + v], W[SCAN_FLIPS * LANES + v]
                s = s0[v]
                x -= a0 * s
                y -= b0 * s
                d -= d0 * s
                f = x * x + y * y if min(y, d) > zero else zero
                q = k0 if f > p else q
                p = max(f, p)
                s = s1[v]
                x -= a1 * s
                y -= b1 * s
                d -= d1 * s
                f = x * x + y * y if min(y, d) > zero else zero
                q = k1 if f > p else q
                p = max(f, p)
                s = s2[v]
                x -= a2 * s
                y -= b2 * s
                d -= d2 * s
                f = x * x + y * y if min(y, d) > zero else zero
                q = k2 if f > p else q
                p = max(f, p)
                s = s3[v]
                x -= a3 * s
                y -= b3 * s
                d -= d3 * s
                f = x * x + y * y if min(y, d) > zero else zero
                q = k3 if f > p else q
                p = max(f, p)
                W[SCAN_X * LANES + v], W[SCAN_Y * LANES + v], W[SCAN_DEPTH * LANES + v] = x, y, d
                W[SCAN_BEST * LANES + v], W[SCAN_FLIPS * LANES + v] = p, q
        p_row, k_row = P[j], K[j]
        for v in range(LANES):
            p_row[v] = W[SCAN_BEST * LANES + v]
            k_row[v] = W[SCAN_FLIPS * LANES + v]


@compiled(fast=True, from_python=False)
def best_of(P: Array, K: Array, reach: Array, power: Array, free: float, found: Found) -> None:
    """Write the best P (LANES), its flips and node, and how many others could surpass it between nodes.

    `power` is the sum of squares; it becomes what a node must come up to.
    """
    top, flipped, where, rivals = found.top, found.flipped, found.where, found.rivals
    J = P.shape[0]
    for lane in range(LANES):
        top[lane] = np.float32(-1)
        flipped[lane] = np.float32(0)
        where[lane] = np.int32(0)
        rivals[lane] = np.int32(0)
    for index in range(J):
        here, turns = P[index], K[index]
        for lane in range(LANES):
            better = here[lane] > top[lane]
            top[lane] = here[lane] if better else top[lane]
            flipped[lane] = turns[lane] if better else flipped[lane]
            where[lane] = np.int32(index) if better else where[lane]
    for lane in range(LANES):  # three σ² below the best
        power[lane] = top[lane] - np.float32(3 / free) * max(power[lane] - top[lane], np.float32(0))
    for index in range(J):
        before, here, after, turns = P[max(index - 1, 0)], P[index], P[min(index + 1, J - 1)], K[index]
        factor = np.float32(1) + np.float32(4) * reach[index]
        for lane in range(LANES):
            peak = (here[lane] >= before[lane]) & (here[lane] >= after[lane])
            other = abs(turns[lane] - flipped[lane]) >= np.float32(0.5)
            rival = (here[lane] * factor > power[lane]) & (peak | other)
            rivals[lane] += np.int32(1) if rival else np.int32(0)


@compiled(fast=True, from_python=False)
def other_flips(row: Array, j: int, k: int, flips: int, need: float, cone: Nodes, found: Array) -> int:
    """Write to `found` the numbers of flips, other than k, whose x² + y² at node j is a maximum over them and ≥ `need`.

    Returns how many.
    """
    nodes, edge, order = cone.plane, cone.edge, cone.order
    x = y = 0.0
    for n in range(row.shape[0]):
        x += nodes[j, 0, n] * row[n]
        y += nodes[j, 1, n] * row[n]
    ex, ey = edge[j, 0], edge[j, 1]
    count, before, here = 0, -1.0, -1.0
    for m in range(flips + 2):
        after = -1.0
        if m <= flips:
            after = x * x + y * y if y > 0 and x * ey - y * ex > 0 else -1.0
            if m < flips:
                n = order[j, m]
                x -= 2 * nodes[j, 0, n] * row[n]
                y -= 2 * nodes[j, 1, n] * row[n]
        if here >= need and here >= before and here >= after and m - 1 != k and m > 0:
            found[count] = m - 1
            count += 1
        before, here = here, after
    return count


@compiled(from_python=False)
def push(tasks: Array, n: int, new: Task, theta: float, left: Array) -> int:
    """Add a task and return how many there are now; if there is no room for it, the voxel is `left`."""
    if n == tasks.shape[0]:
        left[new.voxel] = 1
        return n
    task = tasks[n]
    task[KEY], task[VOXEL], task[FLIPS], task[FIRST], task[SEEN] = new.key, new.voxel, new.flips, new.first, new.seen
    task[HINT] = int(theta * FINE)
    return n + 1


@compiled()
def scan(
    blocks: Array, ids: Array, chunk: Chunk, cone: Cone, plan: Plan, singles: Array, mains: Array, rivals: Array
) -> tuple[int, int, int]:
    """Write the task of the best node of each voxel (of `ids`, -1 for none) to `singles`, or to `mains` where others
    may do as well.

    Those go to `rivals`, and what a node must come up to, to `goal`; `low` is as of `scan_block`. Returns how many.
    Voxels that this cannot do are marked in `left`.
    """
    kind, goal, low, left, reach = chunk.kind, chunk.goal, chunk.low, chunk.left, cone.reach
    flips, free = plan.flips, plan.free
    J, N = cone.nodes.upper.shape[0], cone.nodes.upper.shape[1] - 1
    W = np.zeros(SCAN_ROWS * LANES, np.float32)
    P, K = np.zeros((J, LANES), np.float32), np.zeros((J, LANES), np.float32)
    power, top, flipped = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    where, count = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
    found = Found(top, flipped, where, count)
    bottom = np.zeros(LANES, np.float32)
    s = n_lanes = r = 0
    for b in range(blocks.shape[0]):
        S = blocks[b]
        for lane in range(LANES):
            power[lane] = np.float32(0)
        for image in range(N):
            for lane in range(LANES):
                power[lane] += S[image, lane] * S[image, lane]
        scan_block(S, cone.nodes, flips, cone.drift, W, P, K, bottom)
        best_of(P, K, reach, power, free, found)
        for lane in range(LANES):
            i = ids[b * LANES + lane]
            if i < 0:
                continue
            goal[i], low[i] = power[lane], bottom[lane]
            if kind[i] > 0:
                continue
            if (flips > 0 and kind[i] < 0) or not top[lane] > 0:
                left[i] = 1
                continue
            best, k_best = where[lane], int(flipped[lane])
            key = 2 * best + (1 if flipped[lane] - k_best > 0 else 0)
            if count[lane] < 2:
                s = push(singles, s, Task(key, i, k_best, 1, 1 << (k_best % 31)), 0.0, left)
                continue
            n_lanes = push(mains, n_lanes, Task(key, i, k_best, 1 + FRESH, 1 << (k_best % 31)), 0.0, left)
            for j in range(J):
                p, k = P[j, lane], int(K[j, lane])
                if p * (1 + 4 * reach[j]) < power[lane] or j == best:
                    continue
                if k != k_best or ((j == 0 or P[j - 1, lane] <= p) and (j == J - 1 or P[j + 1, lane] <= p)):
                    if r < rivals.shape[0]:
                        rivals[r, MOST] = int(min(p * (1 + 4 * reach[j]) * FINE, 2e9))
                    edge = 1 if K[j, lane] - k > 0 else 0
                    r = push(rivals, r, Task(2 * j + edge, i, k, FRESH, 1 << (k % 31)), 0.0, left)
    return s, n_lanes, r


@compiled()
def weed(rivals: Array, r: int, best: Array, total: Array, free: float, span: int, tasks: Array, n: int) -> int:
    """Add to n tasks those rivals that are neither too short nor where the best one has looked; return how many."""
    for i in range(r):
        rival = rivals[i]
        found = best[rival[VOXEL]]
        near = abs(rival[KEY] // 2 - int(found[NODE])) <= 1 and abs(rival[FLIPS] - int(found[BEST_FLIPS])) <= span
        if near or rival[MOST] / FINE < found[FIT] - max(total[rival[VOXEL]] - found[FIT], 0.0) / free:
            continue
        if n < tasks.shape[0]:
            copy(rival, tasks[n])
            n += 1
    return n
