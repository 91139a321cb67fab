"""Numba kernels of the voxelwise search; `separable` has the geometry, `nlls` the method.

A block is LANES voxels side by side, so that the search over nodes and flips runs on whole vector registers. All
release the GIL, so that threads share the work. Compiled code is kept on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

LANES = 64
OK, AT_BOUND, NO_SIGNAL, NOT_FINITE = 0, 1, 2, 3

#: Where on the cone an estimate lies.
INSIDE, LOWER, UPPER, KINK = 0, 1, 2, 3

Array = Any
F = TypeVar("F", bound=Callable[..., Any])

_FAST = {"nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc"}


def compiled(*, fast: bool = False) -> Callable[[F], F]:
    """Compile a kernel; `fast` lets it reorder sums (its images must be finite)."""
    return cast("Callable[[F], F]", njit(nogil=True, cache=True, fastmath=_FAST if fast else False))


@compiled()
def load(images: Array, voxels: Array, blocks: Array, scale: Array, kind: Array) -> None:
    """Copy `voxels` of images (N, M) to `blocks` (n, N, LANES), each divided by its largest modulus `scale`.

    `kind`: 0, or -1 where a value is negative, or the status of a voxel that has no estimate.
    """
    N = images.shape[0]
    for b in range(blocks.shape[0]):
        block = blocks[b]
        here = voxels[b * LANES : (b + 1) * LANES]
        high, low, finite = np.zeros(LANES), np.zeros(LANES), np.ones(LANES, np.bool_)
        for n in range(N):
            for v in range(here.shape[0]):
                value = float(images[n, here[v]])
                block[n, v] = value
                finite[v] &= math.isfinite(value)
                high[v] = max(high[v], value)
                low[v] = min(low[v], value)
            for v in range(here.shape[0], LANES):
                block[n, v] = 0.0
        for v in range(here.shape[0]):
            size = max(high[v], -low[v])
            good = finite[v] and size > 0
            kind[b * LANES + v] = (-1 if low[v] < 0 else 0) if good else (NO_SIGNAL if finite[v] else NOT_FINITE)
            scale[b * LANES + v] = size if good else 0.0
            high[v] = 1 / size if good else 0.0
        for n in range(N):
            for v in range(LANES):
                block[n, v] = block[n, v] * high[v] if high[v] > 0 else 0.0


@compiled(fast=True)
def _scan(S: Array, nodes: Array, edge: Array, upper: Array, last: Array, order: Array, flips: int, W: Array, P: Array, K: Array) -> None:  # fmt: skip
    """Write for each node and lane the longest squared projection on the cone over all flips, and their number.

    S (N + 1, LANES), its last row zero; nodes (J, 2, N + 1), upper (J, N), order (J, N + 4), padded with
    zeros and N; W (4·LANES) scratch; P and K (J, LANES).
    """
    J, N = upper.shape
    zero = np.float32(0)
    for j in range(J):
        ex, ey = edge[j, 0], edge[j, 1]
        for v in range(4 * LANES):
            W[v] = zero
        for n in range(N):
            a, b, e, s0 = nodes[j, 0, n], nodes[j, 1, n], upper[j, n], S[n]
            for v in range(LANES):
                s = s0[v]
                W[v] += a * s
                W[LANES + v] += b * s
                W[2 * LANES + v] += e * s
        k = np.float32(last[j])
        for v in range(LANES):
            x, y, e = W[v], W[LANES + v], max(W[2 * LANES + v], zero)
            d = x * ey - y * ex
            score = x * x + y * y if min(y, d) > zero else zero
            score = max(score, max(x, zero) * max(x, zero))
            higher = e * e > score
            W[2 * LANES + v] = e * e if higher else score
            W[3 * LANES + v] = k if higher else zero
        for g in range(0, flips, 4):
            n0, n1, n2, n3 = order[j, g], order[j, g + 1], order[j, g + 2], order[j, g + 3]
            a0, a1, a2, a3 = nodes[j, 0, n0], nodes[j, 0, n1], nodes[j, 0, n2], nodes[j, 0, n3]
            b0, b1, b2, b3 = nodes[j, 1, n0], nodes[j, 1, n1], nodes[j, 1, n2], nodes[j, 1, n3]
            s0, s1, s2, s3 = S[n0], S[n1], S[n2], S[n3]
            k0 = np.float32(g + 1)
            k1, k2, k3 = k0 + np.float32(1), k0 + np.float32(2), k0 + np.float32(3)
            for v in range(LANES):
                x, y, p, q = W[v], W[LANES + v], W[2 * LANES + v], W[3 * LANES + v]
                s = s0[v] + s0[v]
                x -= a0 * s
                y -= b0 * s
                f = x * x + y * y if min(y, x * ey - y * ex) > zero else zero
                q = k0 if f > p else q
                p = max(f, p)
                s = s1[v] + s1[v]
                x -= a1 * s
                y -= b1 * s
                f = x * x + y * y if min(y, x * ey - y * ex) > zero else zero
                q = k1 if f > p else q
                p = max(f, p)
                s = s2[v] + s2[v]
                x -= a2 * s
                y -= b2 * s
                f = x * x + y * y if min(y, x * ey - y * ex) > zero else zero
                q = k2 if f > p else q
                p = max(f, p)
                s = s3[v] + s3[v]
                x -= a3 * s
                y -= b3 * s
                f = x * x + y * y if min(y, x * ey - y * ex) > zero else zero
                q = k3 if f > p else q
                p = max(f, p)
                W[v], W[LANES + v], W[2 * LANES + v], W[3 * LANES + v] = x, y, p, q
        p_row, k_row = P[j], K[j]
        for v in range(LANES):
            p_row[v] = W[2 * LANES + v]
            k_row[v] = W[3 * LANES + v]


@compiled(fast=True)
def _scan_line(S: Array, nodes: Array, W: Array, where: Array) -> bool:
    """Write the node of the longest projection for a model without B; tell whether all lanes rise to one maximum."""
    J, N = nodes.shape[0], S.shape[0] - 1
    zero, one = np.float32(0), np.float32(1)
    for v in range(LANES):
        W[v] = W[3 * LANES + v] = zero  # before, maxima
        W[LANES + v] = -one  # the best
        W[2 * LANES + v] = one  # rising
        where[v] = 0
    x = np.empty(LANES, np.float32)
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
    most = zero
    for v in range(LANES):
        most = max(most, W[3 * LANES + v] + W[2 * LANES + v])
    return bool(most <= one)


@compiled(fast=True)
def _best(
    P: Array,
    K: Array,
    reach: Array,
    J: int,
    power: Array,
    free: float,
    top: Array,
    flipped: Array,
    where: Array,
    rivals: Array,
) -> None:
    """Write the best P (LANES), its flips and node, and how many others could surpass it between nodes."""
    for v in range(LANES):
        top[v] = np.float32(-1)
        where[v] = np.int32(0)
        rivals[v] = np.int32(0)
    for j in range(J):
        here, turns = P[j], K[j]
        for v in range(LANES):
            better = here[v] > top[v]
            top[v] = here[v] if better else top[v]
            flipped[v] = turns[v] if better else flipped[v]
            where[v] = np.int32(j) if better else where[v]
    for v in range(LANES):  # what a node must come up to: three σ² below the best
        power[v] = top[v] - np.float32(3 / free) * max(power[v] - top[v], np.float32(0))
    for j in range(J):
        before, here, after, turns = P[max(j - 1, 0)], P[j], P[min(j + 1, J - 1)], K[j]
        factor = np.float32(1) + np.float32(4) * reach[j]
        for v in range(LANES):
            peak = (here[v] >= before[v]) & (here[v] >= after[v])
            rival = (here[v] * factor > power[v]) & (peak | (turns[v] != flipped[v]))
            rivals[v] += np.int32(1) if rival else np.int32(0)


@compiled(fast=True)
def _combine(C: Array, s: Array, out: Array) -> None:
    """Write the coefficients (16,) of x and y for the signed images s (N + pad): Σₙ sₙ C[n]; C (N, 16)."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0  # scalars stay in vector registers, an array would not
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = 0.0
    for n in range(C.shape[0]):
        v = s[n]
        a0 += v * C[n, 0]
        a1 += v * C[n, 1]
        a2 += v * C[n, 2]
        a3 += v * C[n, 3]
        a4 += v * C[n, 4]
        a5 += v * C[n, 5]
        a6 += v * C[n, 6]
        a7 += v * C[n, 7]
        b0 += v * C[n, 8]
        b1 += v * C[n, 9]
        b2 += v * C[n, 10]
        b3 += v * C[n, 11]
        b4 += v * C[n, 12]
        b5 += v * C[n, 13]
        b6 += v * C[n, 14]
        b7 += v * C[n, 15]
    out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a0, a1, a2, a3, a4, a5, a6, a7
    out[8], out[9], out[10], out[11], out[12], out[13], out[14], out[15] = b0, b1, b2, b3, b4, b5, b6, b7


@compiled(fast=True)
def _poly(c: Array, i: int, t: float) -> tuple[float, float, float]:
    """Return value and two derivatives at θ of the polynomial of degree 7 that starts at c[i]."""
    f = c[i + 7]
    f1 = f
    f = f * t + c[i + 6]
    f2 = f1
    f1 = f1 * t + f
    f = f * t + c[i + 5]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + c[i + 4]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + c[i + 3]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + c[i + 2]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + c[i + 1]
    f2 = f2 * t + f1
    f1 = f1 * t + f
    f = f * t + c[i]
    return f, f1, 2 * f2


@compiled(fast=True)
def _poly1(c: Array, i: int, t: float) -> tuple[float, float]:
    """Return value and derivative at θ of the polynomial of degree 7 that starts at c[i]."""
    f = c[i] + t * (c[i + 1] + t * (c[i + 2] + t * (c[i + 3] + t * (c[i + 4] + t * (c[i + 5] + t * (c[i + 6] + t * c[i + 7]))))))  # fmt: skip
    f1 = c[i + 1] + t * (2 * c[i + 2] + t * (3 * c[i + 3] + t * (4 * c[i + 4] + t * (5 * c[i + 5] + t * (6 * c[i + 6] + t * 7 * c[i + 7])))))  # fmt: skip
    return f, f1


@compiled(fast=True)
def _promise(c: Array, lo: float, hi: float) -> tuple[float, float]:
    """Return the θ within [lo, hi] at which x² + y² is largest to second order, and that value."""
    F = c[0] * c[0] + c[8] * c[8]
    g = c[0] * c[1] + c[8] * c[9]
    h = c[1] * c[1] + 2 * c[0] * c[2] + c[9] * c[9] + 2 * c[8] * c[10]
    t = -g / h if h < 0 else (lo if g < 0 else hi)
    t = min(max(t, lo), hi)
    return t, F + t * (2 * g + t * h)


@compiled(fast=True)
def _newton(c: Array, t: float, lo: float, hi: float) -> tuple[float, float, float, float, int]:
    """Return (θ, squared length, x, y, where) by Newton's iteration.

    `where`: 0 at a maximum, -1 or 1 at the lower or upper limit with the maximum beyond, 2 not converged.
    """
    for _ in range(12):
        x, x1, x2 = _poly(c, 0, t)
        y, y1, y2 = _poly(c, 8, t)
        g = x * x1 + y * y1
        h = x1 * x1 + x * x2 + y1 * y1 + y * y2
        step = -g / h if h < 0 else (1.0 if g > 0 else -1.0)
        if abs(step) < 1e-6:  # so near that this step ends it
            x, y = x + x1 * step, y + y1 * step
            return t + step, x * x + y * y, x, y, 0
        new = min(max(t + step, lo), hi)
        if new == t:
            return t, x * x + y * y, x, y, -1 if t == lo else 1
        t = new
    return t, 0.0, 0.0, 0.0, 2


@compiled(fast=True)
def _quick_line(block: Array, v: int, j: int, basis: Array, limits: Array, out: Array) -> bool:
    """Find the maximum near node j for a model without B, for lane v of a block; `out` as of `_ascend`."""
    N = basis.shape[1]
    for _ in range(4):
        C = basis[j]
        c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = 0.0
        for n in range(N):
            s = block[n, v]
            c0 += s * C[n, 0]
            c1 += s * C[n, 1]
            c2 += s * C[n, 2]
            c3 += s * C[n, 3]
            c4 += s * C[n, 4]
            c5 += s * C[n, 5]
            c6 += s * C[n, 6]
            c7 += s * C[n, 7]
        lo, hi = limits[j, 0], limits[j, 1]
        t = min(max(-0.5 * c1 / c2 if c2 < 0 else (1.0 if c1 > 0 else -1.0), lo), hi)
        beyond = 2
        for _ in range(8):
            x1 = c1 + t * (2 * c2 + t * (3 * c3 + t * (4 * c4 + t * (5 * c5 + t * (6 * c6 + t * 7 * c7)))))
            x2 = 2 * c2 + t * (6 * c3 + t * (12 * c4 + t * (20 * c5 + t * (30 * c6 + t * 42 * c7))))
            step = -x1 / x2 if x2 < 0 else (1.0 if x1 > 0 else -1.0)
            new = min(max(t + step, lo), hi)
            if abs(step) < 1e-5:  # so near that this step ends it
                t, beyond = new, 0
                break
            if new == t:
                beyond = -1 if t == lo else 1
                break
            t = new
        if beyond == 2:
            return False
        at_bound = 0.0
        if beyond:
            if (lo if beyond < 0 else hi) != 0.0:
                j += beyond
                continue
            at_bound = 1.0
        x = c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * (c5 + t * (c6 + t * c7))))))
        out[0], out[1], out[2], out[3], out[4], out[5], out[6] = x * x, j, t, x, 0.0, 0.0, at_bound
        return bool(x > 0)
    return False


@compiled(fast=True)
def _line_lanes(block: Array, where: Array, limits: Array, basis: Array, scalars: Array, t: Array, width: Array, G: Array, out: Array) -> None:  # fmt: skip
    """Do what `_quick_line` and `_finish` do for a model without B, on all lanes at once.

    `out` (8, LANES): 1 where it is found strictly between the bounds, squared length, A, T, their standard deviations,
    sum of squares; for scale 1. G (32, LANES) is scratch.
    """
    N = basis.shape[1]
    for v in range(LANES):
        j = where[v]
        C, L0, L1 = basis[j], scalars[j, 2], scalars[j, 5]
        c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = 0.0
        for n in range(N):
            s = block[n, v]
            c0 += s * C[n, 0]
            c1 += s * C[n, 1]
            c2 += s * C[n, 2]
            c3 += s * C[n, 3]
            c4 += s * C[n, 4]
            c5 += s * C[n, 5]
            c6 += s * C[n, 6]
            c7 += s * C[n, 7]
        G[0, v], G[1, v], G[2, v], G[3, v], G[4, v], G[5, v], G[6, v], G[7, v] = c0, c1, c2, c3, c4, c5, c6, c7
        for i in range(8):
            G[8 + i, v] = L0[i]
            G[16 + i, v] = L1[i]
        G[24, v], G[25, v], G[26, v], G[27, v] = limits[j, 0], limits[j, 1], t[j], width[j]
    for v in range(LANES):
        out[6, v] = 0.0
    for n in range(N):
        for v in range(LANES):
            out[6, v] += block[n, v] * block[n, v]
    for v in range(LANES):
        lo, hi = G[24, v], G[25, v]
        c1, c2, c3, c4, c5, c6, c7 = G[1, v], G[2, v], G[3, v], G[4, v], G[5, v], G[6, v], G[7, v]
        x = min(max(-0.5 * c1 / c2 if c2 < 0 else 0.0, lo), hi)
        step, curve = 1.0, -1.0
        for _ in range(4):
            f1 = c1 + x * (2 * c2 + x * (3 * c3 + x * (4 * c4 + x * (5 * c5 + x * (6 * c6 + x * 7 * c7)))))
            curve = 2 * c2 + x * (6 * c3 + x * (12 * c4 + x * (20 * c5 + x * (30 * c6 + x * 42 * c7))))
            step = -f1 / curve if curve < 0 else 1.0
            x = min(max(x + step, lo), hi)
        y = G[0, v] + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * (c6 + x * c7))))))
        found = (abs(step) < 1e-5) & (x > lo) & (x < hi) & (curve < 0) & (y > 0)
        out[0, v] = 1.0 if found else 0.0
        G[28, v], G[29, v] = x, y
    for v in range(LANES):
        x = G[28, v]
        b0, b1, b2, b3, b4, b5, b6, b7 = G[8, v], G[9, v], G[10, v], G[11, v], G[12, v], G[13, v], G[14, v], G[15, v]
        G[30, v] = -(b0 + x * (b1 + x * (b2 + x * (b3 + x * (b4 + x * (b5 + x * (b6 + x * b7)))))))
        slope = b1 + x * (2 * b2 + x * (3 * b3 + x * (4 * b4 + x * (5 * b5 + x * (6 * b6 + x * 7 * b7)))))
        G[31, v] = slope / G[27, v]
        out[3, v] = G[26, v] + x * G[27, v]
    for v in range(LANES):
        G[30, v] = math.exp(G[30, v])
        out[3, v] = math.exp(out[3, v])
    for v in range(LANES):
        x, y, r0, slope = G[28, v], G[29, v], G[30, v], G[31, v]
        b0, b1, b2, b3, b4, b5, b6, b7 = G[16, v], G[17, v], G[18, v], G[19, v], G[20, v], G[21, v], G[22, v], G[23, v]
        D = y * y * (b0 + x * (b1 + x * (b2 + x * (b3 + x * (b4 + x * (b5 + x * (b6 + x * b7)))))))
        positive = D > 0
        D = D if positive else 1.0
        out[0, v] = out[0, v] if positive else 0.0
        out[1, v] = y * y
        out[2, v] = y * r0
        out[4, v] = r0 * math.sqrt(1 + y * y * slope * slope / D)
        out[5, v] = out[3, v] / math.sqrt(D)


@compiled(fast=True)
def _sign(row: Array, order: Array, k: int, s: Array) -> None:
    """Write the images with the first k of `order` flipped to s."""
    N = row.shape[0]
    for m in range(k):
        s[order[m]] = -row[order[m]]
    for m in range(k, N):
        s[order[m]] = row[order[m]]


@compiled(fast=True)
def _inside(C: Array, x: float, y: float, theta: float, has_B: int) -> bool:
    """Tell whether (x, y) lies strictly within the cone; C (9, 8) are the scalars of the node."""
    if not has_B:
        return x > 0
    return y > 0 and x * _poly1(C[1], 0, theta)[0] - y * _poly1(C[0], 0, theta)[0] > 0


@compiled(fast=True)
def _quick(row: Array, s: Array, j: int, k: int, flips: int, span: int, rest: float, goal: float, has_B: int, order: Array, basis: Array, scalars: Array, limits: Array, c: Array, d: Array, out: Array) -> int:  # fmt: skip
    """Find the maximum near node j with k flips, or up to `span` more or fewer as long as that helps, within the cone.

    `out` as of `_ascend`.

    Returns 0 where it is found, 1 where it is not, 2 where it could not reach the squared length `goal`.
    """
    for attempt in range(8):
        _sign(row, order[j], k, s)
        _combine(basis[j], s, c)
        lo, hi = limits[j, 0], limits[j, 1]
        theta, promise = _promise(c, lo, hi)
        spare = 0.005 * max(rest - promise, 0.0)
        slack = 0.5 * (promise - c[0] * c[0] - c[8] * c[8]) + 0.05 * max(rest - promise, 0.0)
        if attempt == 0 and promise + slack < goal:
            return 2
        theta, length, x, y, beyond = _newton(c, theta, lo, hi)
        if beyond == 2:
            return 1
        at_bound = 0.0
        if beyond:
            if (lo if beyond < 0 else hi) != 0.0:
                if goal > 0:  # that is for the node beside it, unless an edge of the cone comes first
                    return 2 if _inside(scalars[j], x, y, theta, has_B) else 1
                j += beyond
                continue
            at_bound = 1.0
        if not _inside(scalars[j], x, y, theta, has_B):
            return 1
        out[0], out[1], out[2], out[3], out[4], out[5], out[6] = length, j, theta, x, y, 0.0, at_bound
        change = 0
        for side in range(-1, 2, 2):
            for i in range(16):
                d[i] = c[i]
            for r in range(span):
                m = k - 1 - r if side < 0 else k + r
                if m < 0 or m >= flips:
                    break
                n = order[j, m]
                twice = 2 * s[n]
                B = basis[j, n]
                for i in range(16):
                    d[i] -= twice * B[i]
                x, x1, x2 = _poly(d, 0, out[2])
                y, y1, y2 = _poly(d, 8, out[2])
                g, h = x * x1 + y * y1, x1 * x1 + x * x2 + y1 * y1 + y * y2
                gain = g * g / -h if h < 0 else rest  # to second order, from where the first maximum is
                reached = x * x + y * y + 1.5 * gain
                if span == 2 and flips > 12 and reached + 0.3 * (rest - promise) < out[0]:
                    break  # far below: one more flip will not make up for it
                if reached + spare > out[0]:
                    start = min(max(out[2] - g / h, lo), hi) if h < 0 else (hi if g > 0 else lo)
                    theta, length, x, y, beyond = _newton(d, start, lo, hi)
                    if length > out[0] * (1 + 1e-13):
                        change = side * (r + 1)
                        out[0] = length
        if change == 0:
            return 0
        k += change
    return 1


@compiled(fast=True)
def _other_flips(row: Array, j: int, k: int, flips: int, need: float, basis: Array, C: Array, order: Array, found: Array) -> int:  # fmt: skip
    """Write to `found` the numbers of flips, other than k, whose x² + y² at node j is a maximum over them and ≥ `need`.

    Returns how many. C (9, 8) are the scalars of the node.
    """
    x = y = 0.0
    for n in range(row.shape[0]):
        x += basis[n, 0] * row[n]
        y += basis[n, 8] * row[n]
    ex, ey = C[0, 0], C[1, 0]
    count, before, here = 0, -1.0, -1.0
    for m in range(flips + 2):
        after = -1.0
        if m <= flips:
            after = x * x + y * y if y > 0 and x * ey - y * ex > 0 else -1.0
            if m < flips:
                n = order[m]
                x -= 2 * basis[n, 0] * row[n]
                y -= 2 * basis[n, 8] * row[n]
        if here >= need and here >= before and here >= after and m - 1 != k and m > 0:
            found[count] = m - 1
            count += 1
        before, here = here, after
    return count


@compiled()
def _edges(low: Array, high: Array, bound: Array, kinks: bool, t: float, e: Array) -> None:
    """Write lower and upper edge of a sector at θ, each with its derivative, to `e` (8,).

    `low` and `high` (16,) are cosine and sine (of any length); `bound` (16,) is the edge of the box: no sector reaches
    beyond it.
    """
    if not kinks:
        e[0], e[1], e[2], e[3] = 1.0, 0.0, 0.0, 0.0
        e[4], e[5] = _poly1(bound, 0, t)
        e[6], e[7] = _poly1(bound, 8, t)
        return
    e[0], e[1] = _poly1(low, 0, t)
    e[2], e[3] = _poly1(low, 8, t)
    e[4], e[5] = _poly1(high, 0, t)
    e[6], e[7] = _poly1(high, 8, t)
    bx, bx1 = _poly1(bound, 0, t)
    by, by1 = _poly1(bound, 8, t)
    if e[4] * by - e[6] * bx < 0:
        e[4], e[5], e[6], e[7] = bx, bx1, by, by1


@compiled()
def _value(c: Array, low: Array, high: Array, bound: Array, kinks: bool, t: float, e: Array, out: Array) -> None:
    """Write (squared length, half its derivative, x, y, 0 inside | 1 lower | 2 upper edge) of the projection on a sector."""
    x, x1 = _poly1(c, 0, t)
    y, y1 = _poly1(c, 8, t)
    _edges(low, high, bound, kinks, t, e)
    out[0] = out[1] = out[2] = out[3] = 0.0
    out[4] = 1.0
    if kinks and e[0] * e[6] - e[2] * e[4] < 0:  # no B within its bounds makes the images change sign so
        return
    if e[0] * y - e[2] * x > 0 and x * e[6] - y * e[4] > 0:
        out[0], out[1], out[2], out[3], out[4] = x * x + y * y, x * x1 + y * y1, x, y, 0.0
        return
    for i in range(0, 8, 4):
        ux, ux1, uy, uy1 = e[i], e[i + 1], e[i + 2], e[i + 3]
        w, q = x * ux + y * uy, ux * ux + uy * uy
        if w > 0 and w * w > out[0] * q:
            w1, q1 = x1 * ux + x * ux1 + y1 * uy + y * uy1, 2 * (ux * ux1 + uy * uy1)
            out[0], out[1] = w * w / q, (w / q) * (w1 - 0.5 * w * q1 / q)
            out[2], out[3], out[4] = w * ux / q, w * uy / q, 1.0 + i / 4


@compiled()
def _ascend(s: Array, j: int, n_low: int, n_high: int, basis: Array, scalars: Array, t: Array, limits: Array, bufs: Array, out: Array) -> None:  # fmt: skip
    """Climb from node j to the maximum over T of the projection on a sector of the cone; the signs of s stay.

    The sector lies between the zero crossings of the images n_low and n_high, -1 for the edges of the cone. Writes
    (squared length, node, θ, x, y, place, whether T is at a bound) to `out`.
    """
    J = t.shape[0]
    c, low, high, bound, e, now, then = bufs[0], bufs[1], bufs[2], bufs[3], bufs[4], bufs[5], bufs[6]
    direction = 0
    F_before = -1.0
    for _ in range(2 * J):
        _combine(basis[j], s, c)
        bound[:8] = scalars[j, 0]
        bound[8:] = scalars[j, 1]
        low[:] = 0.0
        low[0] = 1.0
        high[:] = bound
        if n_low >= 0:
            low[:8] = -basis[j, n_low, 8:]
            low[8:] = basis[j, n_low, :8]
        if n_high >= 0:
            high[:8] = -basis[j, n_high, 8:]
            high[8:] = basis[j, n_high, :8]
        kinks = n_high >= 0 or n_low >= 0
        _value(c, low, high, bound, kinks, 0.0, e, now)
        if now[0] < F_before:  # a step too far
            break
        F_before = now[0]
        out[0], out[1], out[2], out[3], out[4], out[5], out[6] = now[0], j, 0.0, now[2], now[3], now[4], 0.0
        g = now[1]
        side = 1 if g > 0 else 0
        if g == 0.0:
            break
        end = limits[j, side]
        if end == 0.0:
            out[6] = 1.0
            break
        _value(c, low, high, bound, kinks, end, e, then)
        toward = 1 if side else -1
        if then[1] * g > 0 and then[0] > now[0] and direction != -toward:
            j += toward
            direction = toward
            continue
        # The maximum lies between θ = 0 and `end`: bisection and false position in turn.
        a, b, ga, gb = 0.0, end, g, then[1]
        if ga * gb > 0:
            gb = -ga
        kept = 0
        for i in range(60):
            mid = (a * gb - b * ga) / (gb - ga) if i < 40 else 0.5 * (a + b)
            if not min(a, b) < mid < max(a, b):
                mid = 0.5 * (a + b)
            _value(c, low, high, bound, kinks, mid, e, now)
            if now[0] > out[0]:
                out[0], out[2], out[3], out[4], out[5] = now[0], mid, now[2], now[3], now[4]
            if now[0] == 0.0:
                now[1] = -1e-3 * ga
            if abs(now[1]) < 1e-12 * now[0]:
                break
            if now[1] * ga > 0:  # the end that stays counts half: the Illinois variant of false position
                a, ga = mid, now[1]
                gb = 0.5 * gb if kept == 1 else gb
                kept = 1
            else:
                b, gb = mid, now[1]
                ga = 0.5 * ga if kept == 2 else ga
                kept = 2
            if abs(b - a) < 1e-9:
                break
        break
    if out[5] == 1.0 and n_low >= 0:
        out[5] = KINK
    if out[5] == 2.0 and n_high >= 0:
        out[5] = KINK


@compiled()
def _could_surpass(out: Array, s: Array, j: int, basis: Array, scalars: Array, limits: Array, bufs: Array) -> bool:
    """Tell whether the signs s, at the T of `out`, come near enough to its squared length to be worth a climb."""
    c, low, high, e, now = bufs[0], bufs[1], bufs[2], bufs[4], bufs[5]
    _combine(basis[j], s, c)
    low[:] = 0.0
    low[0] = 1.0
    high[:8] = scalars[j, 0]
    high[8:] = scalars[j, 1]
    _value(c, low, high, high, False, out[2], e, now)
    best = worst = now[0]
    for side in range(2):  # its value at the ends of the node's range, and halfway
        for part in range(1, 3):
            _value(c, low, high, high, False, limits[j, side] * part / 2, e, now)
            best, worst = max(best, now[0]), min(worst, now[0])
    return bool(best + 0.1 * (best - worst) > out[0])


@compiled()
def _settle(row: Array, s: Array, j: int, k: int, N: int, flips: int, span: int, exact: bool, order: Array, basis: Array, scalars: Array, t: Array, limits: Array, bufs: Array, out: Array) -> None:  # fmt: skip
    """Climb from node j with k flips, then with up to `span` more or fewer as long as that helps."""
    trial = bufs[7]
    _sign(row, order[j], k, s)
    _ascend(s, j, order[j, k - 1] if exact and k > 0 else -1, order[j, k] if exact and k < flips else -1, basis, scalars, t, limits, bufs, out)  # fmt: skip
    if not flips:
        return
    home, tried = k, 0
    for _ in range(2 * N):
        moved = False
        for step in range(2 * span):
            change = -1 - step // 2 if step % 2 else 1 + step // 2
            k = home + change
            if k < 0 or k > N or change == -tried:
                continue
            i = int(out[1])
            _sign(row, order[i], k, s)
            if not exact and not _could_surpass(out, s, i, basis, scalars, limits, bufs):
                continue
            _ascend(s, i, order[i, k - 1] if exact and k > 0 else -1, order[i, k] if exact and k < flips else -1, basis, scalars, t, limits, bufs, trial)  # fmt: skip
            if trial[0] > out[0] * (1 + 1e-14):
                out[:7] = trial[:7]
                home, tried, moved = k, change, True
                break
        if not moved:
            break


@compiled()
def _profile(S: Array, basis: Array, theta: float, ex: float, ey: float, order: Array, perm: Array, flips: int, u0: Array, u1: Array, out: Array) -> None:  # fmt: skip
    """Write the best (squared length, x, y, place, flips) over A and B for one T and images S of any sign.

    Between two flips the signs are those of the model, so each sector of the cone is a linear problem of its own.
    """
    N = basis.shape[0]
    x = y = 0.0
    for n in range(N):
        u0[n] = _poly1(basis[n], 0, theta)[0]
        u1[n] = _poly1(basis[n], 8, theta)[0]
        x += u0[n] * S[n]
        y += u1[n] * S[n]
        perm[n] = order[n]
    if theta != 0.0:
        for i in range(1, N):  # by u₁/u₀: sorted but for crossings
            p, m = perm[i], i - 1
            while m >= 0 and u1[perm[m]] * u0[p] > u1[p] * u0[perm[m]]:
                perm[m + 1] = perm[m]
                m -= 1
            perm[m + 1] = p
    out[:] = 0.0
    if x > 0:
        out[0], out[1], out[3] = x * x, x, LOWER
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
        if lx * y - ly * x > 0 and x * hy - y * hx > 0 and x * x + y * y > out[0]:
            out[0], out[1], out[2], out[3], out[4] = x * x + y * y, x, y, INSIDE, k
        w = x * hx + y * hy
        if w > 0 and w * w > out[0]:
            out[0], out[1], out[2], out[3], out[4] = w * w, w * hx, w * hy, UPPER if final else KINK, k
        if final:
            break
        x -= 2 * u0[n] * S[n]
        y -= 2 * u1[n] * S[n]
        lx, ly = hx, hy


@compiled()
def _search_all(row: Array, flips: int, order: Array, basis: Array, scalars: Array, t: Array, limits: Array, u0: Array, u1: Array, perm: Array, bufs: Array, out: Array) -> None:  # fmt: skip
    """Maximise the exact profile over T by a dense scan: the last resort, where the order of the flips changes."""
    fine, J = 12, t.shape[0]
    p = bufs[0]
    out[0] = -1.0
    for j in range(J - 1):
        for i in range(fine + (j == J - 2)):
            theta = limits[j, 1] * i / fine
            _profile(row, basis[j], theta, _poly(scalars[j, 0], 0, theta)[0], _poly(scalars[j, 1], 0, theta)[0], order[j], perm, flips, u0, u1, p)  # fmt: skip
            if p[0] > out[0]:
                out[0], out[1], out[2], out[3], out[4], out[5] = p[0], j, theta, p[1], p[2], p[3]
    j, centre, span = int(out[1]), out[2], limits[int(out[1]), 1] / fine
    while span > 1e-9:
        for side in range(-1, 2, 2):
            theta = min(max(centre + side * span, limits[j, 0]), limits[j, 1])
            _profile(row, basis[j], theta, _poly(scalars[j, 0], 0, theta)[0], _poly(scalars[j, 1], 0, theta)[0], order[j], perm, flips, u0, u1, p)  # fmt: skip
            if p[0] > out[0]:
                out[0], out[2], out[3], out[4], out[5] = p[0], theta, p[1], p[2], p[3]
        if out[2] == centre:
            span *= 0.5
        centre = out[2]
    theta = out[2]
    out[6] = 1.0 if (j == 0 and theta <= 0.0) or (j == J - 2 and theta >= limits[j, 1]) else 0.0


@compiled()
def _finish(result: Array, scalars: Array, t: Array, width: Array, b0: float, b1: float, has_B: int, scale: float, kappa: Array, sd: Array) -> int:  # fmt: skip
    """Turn a search result into κ and its standard deviations for σ = 1; return the status."""
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
    l0, l01 = _poly1(C[2], 0, theta)
    r0, l01 = math.exp(-l0), l01 / width[j]
    alpha = _poly1(C[5], 0, theta)[0]
    if not has_B:
        kappa[0] = x * r0 * scale
        D = x * x * alpha
        if at_bound or not D > 0:
            return AT_BOUND
        sd[1] = T / math.sqrt(D) / scale
        sd[0] = r0 * math.sqrt(1 + x * x * l01 * l01 / D)
        return OK
    l1, l11 = _poly1(C[3], 0, theta)
    q, q1 = _poly1(C[4], 0, theta)
    l11, q1 = l11 / width[j], q1 / width[j]
    r1 = math.exp(-l1)
    if place == LOWER:
        kappa[0], kappa[1] = x * r0 * scale, b0
        return AT_BOUND
    if place == UPPER:
        kappa[0], kappa[1] = (x * r0 / (1 + (b1 - b0) * q) if abs(x) > abs(y) else y * r1 / (b1 - b0)) * scale, b1
        return AT_BOUND
    A = x * r0 - y * q * r1
    B = b0 + y * r1 / A
    kappa[0], kappa[1] = A * scale, min(max(B, b0), b1)
    omega = _poly1(C[8], 0, theta)[0]
    D = x * x * alpha + 2 * x * y * _poly1(C[6], 0, theta)[0] + y * y * _poly1(C[7], 0, theta)[0]
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


@compiled()
def search(blocks: Array, scale: Array, kind: Array, voxels: Array, t: Array, width: Array, limits: Array, basis: Array, scalars: Array, order: Array, nodes: Array, edge: Array, upper: Array, last: Array, reach: Array, b0: float, b1: float, has_B: int, flips: int, span: int, kappa: Array, sd: Array, rss: Array, status: Array) -> None:  # fmt: skip
    """Fit what `load` loaded.

    Writes κ (Q, M), standard deviations for σ = 1 (Q, M), residual sums of squares (M) and status (M) at `voxels`.
    `order` and `nodes` are padded as `_scan` wants them.
    """
    J, N, Q = t.shape[0], basis.shape[1], kappa.shape[0]
    S = np.zeros((N + 1, LANES), np.float32)
    W = np.zeros(4 * LANES, np.float32)
    P, K = np.zeros((J, LANES), np.float32), np.zeros((J, LANES), np.float32)
    power, top, flipped = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    where, rivals = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
    row, s, u0, u1, perm = np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N, np.int64)
    bufs, c, d, best, trial, p = np.zeros((8, 16)), np.zeros(16), np.zeros(16), np.zeros(16), np.zeros(16), np.zeros(16)
    k_out, sd_out = np.zeros(Q), np.zeros(Q)
    G, lanes = np.zeros((32, LANES)), np.zeros((8, LANES))
    for b in range(blocks.shape[0]):
        block = blocks[b]
        for n in range(N):
            for v in range(LANES):
                value = np.float32(max(block[n, v], 0.0) if flips else block[n, v])
                S[n, v] = value
                power[v] = value * value if n == 0 else power[v] + value * value
        one_peak = not has_B and _scan_line(S, nodes, W, where)
        if one_peak:
            rivals[:] = 1
            _line_lanes(block, where, limits, basis, scalars, t, width, G, lanes)
        else:
            _scan(S, nodes, edge, upper, last, order, flips, W, P, K)
            _best(P, K, reach, J, power, max(N - Q, 1), top, flipped, where, rivals)
        for v in range(min(LANES, voxels.shape[0] - b * LANES)):
            i = voxels[b * LANES + v]
            if kind[b * LANES + v] > 0:
                status[i] = kind[b * LANES + v]
                continue
            if one_peak and lanes[0, v] > 0:
                size = scale[b * LANES + v]
                kappa[0, i], kappa[1, i] = lanes[2, v] * size, lanes[3, v]
                sd[0, i], sd[1, i] = lanes[4, v], lanes[5, v] / size
                rss[i] = max(lanes[6, v] - lanes[1, v], 0.0) * size * size
                status[i] = OK
                continue
            total, negative = 0.0, 0.0
            for n in range(N):
                value = block[n, v]
                row[n] = value
                total += value * value
                negative += min(value, 0.0) * value
            exact = flips > 0 and negative > 0
            threshold = float(power[v])
            if exact:
                threshold -= 4 * negative
            best[0] = -1.0
            j = int(where[v])
            first = j
            # The best node, then any rival: the nodes are walked from the best one on.
            for turn in range(J if rivals[v] > 1 or exact else 1):
                j = first + turn if first + turn < J else first + turn - J
                if turn:
                    pj = P[j, v]
                    if pj * (1 + 4 * reach[j]) < threshold:
                        continue
                    peak = (j == 0 or P[j - 1, v] <= pj) and (j == J - 1 or P[j + 1, v] <= pj)
                    if not (peak or K[j, v] != flipped[v] or exact):
                        continue
                k = int(K[j, v])
                if exact:
                    if P[j, v] * (1 + 4 * reach[j]) < best[0]:  # what is clipped at zero fits no worse
                        continue
                    _profile(row, basis[j], 0.0, scalars[j, 0, 0], scalars[j, 1, 0], order[j], perm, flips, u0, u1, p)
                    _settle(row, s, j, int(p[4]), N, flips, span, True, order, basis, scalars, t, limits, bufs, trial)
                else:
                    found = 0
                    if has_B or turn or not _quick_line(block, v, j, basis, limits, trial):
                        found = _quick(row, s, j, k, flips, span, total, best[0], has_B, order, basis, scalars, limits, c, d, trial)  # fmt: skip
                    if found == 2:
                        trial[0] = -1.0
                    if found == 1:
                        _settle(row, s, j, k, N, flips, span, False, order, basis, scalars, t, limits, bufs, trial)
                    if flips and rivals[v] > 1:  # flips that are far apart may do nearly as well
                        if trial[0] > best[0]:
                            best[:7] = trial[:7]
                        need = threshold / (1 + 4 * reach[j])
                        for i_other in range(
                            _other_flips(row, j, k, flips, need, basis[j], scalars[j], order[j], perm)
                        ):
                            m = perm[i_other]
                            found = _quick(row, s, j, m, flips, span, total, best[0], has_B, order, basis, scalars, limits, c, d, trial)  # fmt: skip
                            if found == 1:
                                _settle(row, s, j, m, N, flips, span, False, order, basis, scalars, t, limits, bufs, trial)  # fmt: skip
                            if found < 2 and trial[0] > best[0]:
                                best[:7] = trial[:7]
                        continue
                if trial[0] > best[0]:
                    best[:7] = trial[:7]
            fit = best[0]
            if exact:  # the signs that were assumed against those of the model
                j, theta = int(best[1]), best[2]
                fit = total
                for n in range(N):
                    f = best[3] * _poly(basis[j, n], 0, theta)[0] + best[4] * _poly(basis[j, n], 8, theta)[0]
                    fit -= (row[n] - abs(f)) ** 2
                if fit < best[0] - 1e-9 * total:
                    _search_all(row, flips, order, basis, scalars, t, limits, u0, u1, perm, bufs, best)
                    fit = best[0]
            size = scale[b * LANES + v]
            status[i] = _finish(best, scalars, t, width, b0, b1, has_B, size, k_out, sd_out)
            for q in range(Q):
                kappa[q, i] = k_out[q]
                sd[q, i] = sd_out[q]
            rss[i] = max(total - fit, 0.0) * size * size
