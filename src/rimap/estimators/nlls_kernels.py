"""Numba kernels of the voxelwise search; see `separable` for the geometry and `nlls` for the method.

All release the GIL and take a block of voxels, so that threads share the work. Compiled code is kept on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

_FAST = {"nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc"}
LANES = 64

OK, AT_BOUND, NO_SIGNAL, NOT_FINITE = 0, 1, 2, 3
_ANGLE = 1e-10  # within which an estimate counts as lying on an edge of the cone

Array = Any
F = TypeVar("F", bound=Callable[..., Any])


def compiled(*, fast: bool = False) -> Callable[[F], F]:
    """Compile a kernel; `fast` lets it reorder sums (its images must be finite)."""
    return cast("Callable[[F], F]", njit(nogil=True, cache=True, fastmath=_FAST if fast else False))


@compiled(fast=True)
def _coarse(S: Array, U: Array, edge: Array, order: Array, stride: int, flips: int, best: Array, where: Array, x: Array, y: Array) -> None:  # fmt: skip
    """Find for each lane of S (N, LANES) the node and number of flips with the longest projection.

    `U` (J, 2, N), `edge` (J, 2), `order` (J, N). Writes the squared length to `best` and node·(N + 1) + flips to `where`.
    """
    J, N = U.shape[0], U.shape[2]
    for v in range(LANES):
        best[v] = np.float32(-1)
        where[v] = 0
    for jj in range(0, J + stride - 1, stride):
        j = min(jj, J - 1)
        ex, ey = edge[j, 0], edge[j, 1]
        for v in range(LANES):
            x[v] = np.float32(0)
            y[v] = np.float32(0)
        for n in range(N):
            a, b = U[j, 0, n], U[j, 1, n]
            for v in range(LANES):
                x[v] += a * S[n, v]
                y[v] += b * S[n, v]
        for k in range(flips + 1):
            if k:
                n = order[j, k - 1]
                a, b = np.float32(2) * U[j, 0, n], np.float32(2) * U[j, 1, n]
            else:
                n, a, b = 0, np.float32(0), np.float32(0)
            code = np.int32(j * (N + 1) + k)
            for v in range(LANES):
                s = S[n, v]
                xv = x[v] - a * s
                yv = y[v] - b * s
                x[v] = xv
                y[v] = yv
                d = xv * ey - yv * ex
                e = max(max(xv, xv * ex + yv * ey), np.float32(0))
                inside = xv * xv + yv * yv
                score = inside if min(yv, d) >= np.float32(0) else e * e
                better = score > best[v]
                best[v] = score if better else best[v]
                where[v] = code if better else where[v]


@compiled(fast=True)
def _dots(vectors: Array, j: int, s: Array, out: Array) -> None:
    """Write ⟨u₀, s⟩, its two derivatives and those of u₁ to `out` (6,)."""
    a0 = a1 = a2 = b0 = b1 = b2 = 0.0
    V = vectors[j]
    for n in range(s.shape[0]):
        sn = s[n]
        a0 += V[0, n] * sn
        a1 += V[1, n] * sn
        a2 += V[2, n] * sn
        b0 += V[3, n] * sn
        b1 += V[4, n] * sn
        b2 += V[5, n] * sn
    out[0], out[1], out[2], out[3], out[4], out[5] = a0, a1, a2, b0, b1, b2


@compiled()
def _project(x: float, x1: float, y: float, y1: float, ex: float, ex1: float, ey: float, ey1: float) -> tuple[float, float]:  # fmt: skip
    """Return the squared length of the projection of (x, y) on the cone and half its derivative."""
    if y >= 0 and x * ey - y * ex >= 0:
        return x * x + y * y, x * x1 + y * y1
    w = x * ex + y * ey
    if x >= w:
        return (x * x, x * x1) if x > 0 else (0.0, 0.0)
    return (w * w, w * (x1 * ex + x * ex1 + y1 * ey + y * ey1)) if w > 0 else (0.0, 0.0)


@compiled()
def _hermite(h: float, f: Array, g: Array, c: Array) -> None:
    """Write the coefficients in θ of the quintic through (f, f′, f″) and (g, g′, g″) of a cell of width h to `c`."""
    f1, f2, g1, g2 = h * f[1], h * h * f[2] * 0.5, h * g[1], h * h * g[2] * 0.5
    r0 = g[0] - f[0] - f1 - f2
    r1 = g1 - f1 - 2 * f2
    r2 = g2 - f2
    c[0], c[1], c[2] = f[0], f1, f2
    c[3] = 10 * r0 - 4 * r1 + r2
    c[4] = -15 * r0 + 7 * r1 - 2 * r2
    c[5] = 6 * r0 - 3 * r1 + r2


@compiled()
def _poly(c: Array, t: float) -> tuple[float, float, float]:
    """Return value and two derivatives of the quintic `c` at θ."""
    f = c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * c[5]))))
    f1 = c[1] + t * (2 * c[2] + t * (3 * c[3] + t * (4 * c[4] + t * 5 * c[5])))
    f2 = 2 * c[2] + t * (6 * c[3] + t * (12 * c[4] + t * 20 * c[5]))
    return f, f1, f2


@compiled()
def _in_cell(cx: Array, cy: Array, cex: Array, cey: Array, ga: float, gb: float) -> tuple[float, float]:
    """Return (θ, squared length) of the maximum within a cell whose half-derivatives at the ends are ga > 0 > gb.

    Newton's iteration, kept inside a bracket.
    """
    lo, hi = 0.0, 1.0
    t = ga / (ga - gb)
    F = 0.0
    for _ in range(30):
        x, x1, x2 = _poly(cx, t)
        y, y1, y2 = _poly(cy, t)
        ex, ex1, ex2 = _poly(cex, t)
        ey, ey1, ey2 = _poly(cey, t)
        if y >= 0 and x * ey - y * ex >= 0:
            F = x * x + y * y
            g = x * x1 + y * y1
            g1 = x1 * x1 + x * x2 + y1 * y1 + y * y2
        else:
            w = x * ex + y * ey
            if x >= w:
                if x <= 0:
                    return t, 0.0
                F, g, g1 = x * x, x * x1, x1 * x1 + x * x2
            else:
                if w <= 0:
                    return t, 0.0
                w1 = x1 * ex + x * ex1 + y1 * ey + y * ey1
                w2 = x2 * ex + 2 * x1 * ex1 + x * ex2 + y2 * ey + 2 * y1 * ey1 + y * ey2
                F, g, g1 = w * w, w * w1, w1 * w1 + w * w2
        if g > 0:
            lo = t
        else:
            hi = t
        step = g / g1 if g1 < 0 else -1e9 * g
        new = t - step
        if not lo < new < hi:
            new = 0.5 * (lo + hi)
        if abs(new - t) < 1e-9:
            t = new
            break
        t = new
    return t, F


@compiled()
def _climb(vectors: Array, scalars: Array, t: Array, s: Array, j: int, mid: Array, cells: Array, result: Array) -> None:
    """Climb from node j to the maximum over T for the signed images s; `mid` (6,) are its dots there.

    Writes (squared length, cell, θ, x, y, edge cosine, edge sine) to `result`.
    """
    J = t.shape[0]
    F, g = _project(mid[0], mid[1], mid[3], mid[4], scalars[j, 0, 0], scalars[j, 0, 1], scalars[j, 1, 0], scalars[j, 1, 1])  # fmt: skip
    here, there = cells[4], cells[5]
    here[:6] = mid[:6]
    move = 1 if g > 0 else -1
    while True:
        i = j + move
        if i < 0 or i >= J or g == 0.0:  # at a bound of T, or flat
            result[0], result[1], result[2] = F, j - (1 if j == J - 1 else 0), (1.0 if j == J - 1 else 0.0)
            result[3], result[4] = here[0], here[3]
            result[5], result[6] = scalars[j, 0, 0], scalars[j, 1, 0]
            return
        _dots(vectors, i, s, there)
        Fi, gi = _project(there[0], there[1], there[3], there[4], scalars[i, 0, 0], scalars[i, 0, 1], scalars[i, 1, 0], scalars[i, 1, 1])  # fmt: skip
        if gi * move > 0 and Fi >= F:
            j, F, g = i, Fi, gi
            here[:] = there[:]
            continue
        break
    a = min(i, j)
    h = t[a + 1] - t[a]
    left, right = (here, there) if move > 0 else (there, here)
    _hermite(h, left[:3], right[:3], cells[0])
    _hermite(h, left[3:6], right[3:6], cells[1])
    _hermite(h, scalars[a, 0], scalars[a + 1, 0], cells[2])
    _hermite(h, scalars[a, 1], scalars[a + 1, 1], cells[3])
    ga, gb = (g, gi) if move > 0 else (gi, g)
    if not (ga > 0 and gb < 0):  # more than one maximum in the cell: near the better end
        ga, gb = (1e-3, -1.0) if (move > 0) else (1.0, -1e-3)
    theta, F = _in_cell(cells[0], cells[1], cells[2], cells[3], ga, gb)
    result[0], result[1], result[2] = F, a, theta
    result[3], result[4] = _poly(cells[0], theta)[0], _poly(cells[1], theta)[0]
    result[5], result[6] = _poly(cells[2], theta)[0], _poly(cells[3], theta)[0]


@compiled()
def _profile(S: Array, u0: Array, u1: Array, order: Array, ex: float, ey: float, flips: int) -> tuple[float, float, float]:  # fmt: skip
    """Return the best squared length over A and B for one T and images S of any sign, with its (x, y).

    Between two flips the signs are those of the model, so each sector of the cone is a linear problem of its own.
    """
    x = y = 0.0
    for n in range(S.shape[0]):
        x += u0[n] * S[n]
        y += u1[n] * S[n]
    best, bx, by = 0.0, 0.0, 0.0
    if x > 0:  # edge B = lower bound
        best, bx, by = x * x, x, 0.0
    lx, ly = 1.0, 0.0
    for k in range(flips + 1):
        last = k == flips
        n = -1 if last else order[k]
        hx, hy = ex, ey
        if not last:
            norm = math.hypot(u0[n], u1[n])
            if norm > 0:
                hx, hy = -u1[n] / norm, u0[n] / norm
                if hx * ey - hy * ex <= 0:  # beyond the upper bound of B
                    hx, hy, last = ex, ey, True
            else:
                hx, hy = lx, ly
        if lx * y - ly * x >= 0 and x * hy - y * hx >= 0:
            F = x * x + y * y
            if best < F:
                best, bx, by = F, x, y
        w = x * hx + y * hy
        if w > 0 and w * w > best:
            best, bx, by = w * w, w * hx, w * hy
        if last:
            break
        x -= 2 * u0[n] * S[n]
        y -= 2 * u1[n] * S[n]
        lx, ly = hx, hy
    return best, bx, by


@compiled(fast=True)
def _blend(vectors: Array, a: int, theta: float, h: float, u0: Array, u1: Array) -> None:
    """Write u₀ and u₁ at θ of cell a."""
    q, q3, q4, q5 = theta, theta**3, theta**4, theta**5
    w0 = 1 - 10 * q3 + 15 * q4 - 6 * q5
    w1 = h * (q - 6 * q3 + 8 * q4 - 3 * q5)
    w2 = h * h * (q * q / 2 - 1.5 * q3 + 1.5 * q4 - 0.5 * q5)
    w3 = 10 * q3 - 15 * q4 + 6 * q5
    w4 = h * (-4 * q3 + 7 * q4 - 3 * q5)
    w5 = h * h * (0.5 * q3 - q4 + 0.5 * q5)
    V, W = vectors[a], vectors[a + 1]
    for n in range(u0.shape[0]):
        u0[n] = w0 * V[0, n] + w1 * V[1, n] + w2 * V[2, n] + w3 * W[0, n] + w4 * W[1, n] + w5 * W[2, n]
        u1[n] = w0 * V[3, n] + w1 * V[4, n] + w2 * V[5, n] + w3 * W[3, n] + w4 * W[4, n] + w5 * W[5, n]


@compiled()
def _profile_at(S: Array, vectors: Array, scalars: Array, order: Array, t: Array, pos: float, flips: int, u0: Array, u1: Array, perm: Array, c: Array) -> tuple[float, float, float, float, float]:  # fmt: skip
    """`_profile` at the position cell + θ."""
    a = min(int(pos), t.shape[0] - 2)
    theta, h = pos - a, t[a + 1] - t[a]
    _blend(vectors, a, theta, h, u0, u1)
    for n in range(perm.shape[0]):
        perm[n] = order[a, n]
    for i in range(1, perm.shape[0]):  # insertion sort by u₁/u₀: sorted but for crossings
        p, m = perm[i], i - 1
        while m >= 0 and u1[perm[m]] * u0[p] > u1[p] * u0[perm[m]]:
            perm[m + 1] = perm[m]
            m -= 1
        perm[m + 1] = p
    _hermite(h, scalars[a, 0], scalars[a + 1, 0], c)
    ex = _poly(c, theta)[0]
    _hermite(h, scalars[a, 1], scalars[a + 1, 1], c)
    ey = _poly(c, theta)[0]
    F, x, y = _profile(S, u0, u1, perm, ex, ey, flips)
    return F, x, y, ex, ey


@compiled()
def _search_exact(S: Array, vectors: Array, scalars: Array, order: Array, t: Array, flips: int, F_node: Array, u0: Array, u1: Array, perm: Array, c: Array, result: Array) -> None:  # fmt: skip
    """Maximise the exact profile over T for images with negative values; same `result` as `_climb`."""
    J = t.shape[0]
    top, mean = 0.0, 0.0
    for j in range(J):
        F_node[j] = _profile(S, vectors[j, 0], vectors[j, 3], order[j], scalars[j, 0, 0], scalars[j, 1, 0], flips)[0]
        top = max(top, F_node[j])
    for n in range(S.shape[0]):
        mean += S[n] * S[n]
    rest = max(mean - top, 0.0)
    margin = 8.0 * rest / max(S.shape[0] - 3, 1) + 0.02 * rest
    best, best_pos = -1.0, 0.0
    for j in range(J - 1):
        if max(F_node[j], F_node[j + 1]) < top - margin:
            continue
        # Two inner points, then a golden section around the best of the four.
        top_pos, top_F = float(j), F_node[j]
        if F_node[j + 1] > top_F:
            top_pos, top_F = j + 1.0, F_node[j + 1]
        for i in range(1, 4):
            pos = j + i / 4
            F = _profile_at(S, vectors, scalars, order, t, pos, flips, u0, u1, perm, c)[0]
            if top_F < F:
                top_pos, top_F = pos, F
        if top_F < max(best, top) - margin * 0.5:
            continue
        lo, hi = max(top_pos - 0.25, 0.0), min(top_pos + 0.25, J - 1.0)
        p, q = lo + 0.381966 * (hi - lo), lo + 0.618034 * (hi - lo)
        Fp = _profile_at(S, vectors, scalars, order, t, p, flips, u0, u1, perm, c)[0]
        Fq = _profile_at(S, vectors, scalars, order, t, q, flips, u0, u1, perm, c)[0]
        while hi - lo > 1e-8:
            if Fp >= Fq:
                hi, q, Fq = q, p, Fp
                p = lo + 0.381966 * (hi - lo)
                Fp = _profile_at(S, vectors, scalars, order, t, p, flips, u0, u1, perm, c)[0]
            else:
                lo, p, Fp = p, q, Fq
                q = lo + 0.618034 * (hi - lo)
                Fq = _profile_at(S, vectors, scalars, order, t, q, flips, u0, u1, perm, c)[0]
        pos, F = (p, Fp) if Fp >= Fq else (q, Fq)
        if top_F >= F:
            pos, F = top_pos, top_F
        if best < F:
            best, best_pos = F, pos
    F, x, y, ex, ey = _profile_at(S, vectors, scalars, order, t, best_pos, flips, u0, u1, perm, c)
    a = min(int(best_pos), J - 2)
    result[0], result[1], result[2], result[3], result[4], result[5], result[6] = F, a, best_pos - a, x, y, ex, ey


@compiled()
def _finish(result: Array, scalars: Array, t: Array, b0: float, b1: float, has_B: int, scale: float, kappa: Array, sd: Array, c: Array) -> int:  # fmt: skip
    """Turn a search result into κ and its standard deviations for σ = 1; return the status."""
    a, theta, x, y, ex, ey = int(result[1]), result[2], result[3], result[4], result[5], result[6]
    Q = kappa.shape[0]
    if not result[0] > 0:
        kappa[:] = np.nan
        sd[:] = np.nan
        return NO_SIGNAL
    h = t[a + 1] - t[a]
    J = t.shape[0]
    bound = (a == 0 and theta <= 1e-9) or (a == J - 2 and theta >= 1 - 1e-9)
    T = math.exp(t[a] + theta * h)
    kappa[Q - 1] = T
    _hermite(h, scalars[a, 2], scalars[a + 1, 2], c)
    l0, l01, _ = _poly(c, theta)
    if not has_B:
        A = x * math.exp(-l0) * scale
        kappa[0] = A
        _hermite(h, scalars[a, 5], scalars[a + 1, 5], c)
        D = x * x * _poly(c, theta)[0]
        if bound or D <= 0:
            sd[:] = np.nan
        else:
            st = 1 / math.sqrt(D)
            sd[Q - 1] = T * st / scale
            sd[0] = math.exp(-l0) * math.sqrt(1 + (x * l01 / h * st) ** 2)
        return AT_BOUND if bound else OK
    _hermite(h, scalars[a, 3], scalars[a + 1, 3], c)
    l1, l11, _ = _poly(c, theta)
    _hermite(h, scalars[a, 4], scalars[a + 1, 4], c)
    q, q1, _ = _poly(c, theta)
    l01, l11, q1 = l01 / h, l11 / h, q1 / h
    r0, r1 = math.exp(-l0), math.exp(-l1)
    size = math.hypot(x, y)
    cross = (x * ey - y * ex) / size
    low, high = y / size <= _ANGLE, cross <= _ANGLE
    if low or high:
        bound = True
        if low and x > 0 and not (high and x * ex + y * ey > x):
            x, y, B = max(x, 0.0), 0.0, b0
            A = x * r0
        else:
            w = x * ex + y * ey
            x, y, B = w * ex, w * ey, b1
            A = max(x * r0 - y * q * r1, 0.0)
    else:
        A = x * r0 - y * q * r1
        B = b0 + y * r1 / A
        B = min(max(B, b0), b1)
    kappa[0], kappa[1] = A * scale, B
    if bound or A <= 0:
        sd[:] = np.nan
        return AT_BOUND
    _hermite(h, scalars[a, 5], scalars[a + 1, 5], c)
    alpha = _poly(c, theta)[0]
    _hermite(h, scalars[a, 6], scalars[a + 1, 6], c)
    beta = _poly(c, theta)[0]
    _hermite(h, scalars[a, 7], scalars[a + 1, 7], c)
    gamma = _poly(c, theta)[0]
    _hermite(h, scalars[a, 8], scalars[a + 1, 8], c)
    omega = _poly(c, theta)[0]
    D = x * x * alpha + 2 * x * y * beta + y * y * gamma
    if not D > 0:
        sd[:] = np.nan
        return AT_BOUND
    vt = 1 / D
    C = B - b0
    A_t = -x * l01 * r0 - y * q1 * r1 + y * q * l11 * r1
    C_t = -y * l11 * r1
    Ax, Ay = r0, -q * r1
    At = A_t - Ax * y * omega + Ay * x * omega
    Bx, By = -C * Ax / A, (r1 - C * Ay) / A
    Bt = (C_t - C * A_t) / A - Bx * y * omega + By * x * omega
    sd[0] = math.sqrt(Ax * Ax + Ay * Ay + At * At * vt)
    sd[1] = math.sqrt(Bx * Bx + By * By + Bt * Bt * vt) / scale
    sd[2] = T * math.sqrt(vt) / scale
    return OK


@compiled()
def load(images: Array, voxels: Array, rows: Array, scale: Array, kind: Array) -> None:
    """Copy `voxels` of images (N, M) to `rows` (n, N), each divided by its largest modulus `scale`.

    `kind`: 0, or -1 where a value is negative, or the status of a voxel that has no estimate.
    """
    N = images.shape[0]
    for v in range(voxels.shape[0]):
        i = voxels[v]
        high, low, finite = 0.0, 0.0, True
        for n in range(N):
            value = float(images[n, i])
            finite = finite and math.isfinite(value)
            high, low = max(high, value), min(low, value)
            rows[v, n] = value
        size = max(high, -low)
        scale[v] = size
        kind[v] = (-1 if low < 0 else 0) if finite and size > 0 else (NO_SIGNAL if finite else NOT_FINITE)
        factor = 1 / size if kind[v] <= 0 else 0.0
        for n in range(N):
            rows[v, n] = rows[v, n] * factor if kind[v] <= 0 else 0.0


@compiled()
def search(rows: Array, scale: Array, kind: Array, voxels: Array, vectors: Array, scalars: Array, order: Array, t: Array, U: Array, edge: Array, stride: int, b0: float, b1: float, has_B: int, flips: int, kappa: Array, sd: Array, rss: Array, status: Array) -> None:  # fmt: skip
    """Fit what `load` loaded.

    Writes κ (Q, M), standard deviations for σ = 1 (Q, M), residual sums of squares (M) and status (M) at `voxels`.
    """
    N, J = rows.shape[1], t.shape[0]
    S32 = np.zeros((N, LANES), np.float32)
    best, where = np.zeros(LANES, np.float32), np.zeros(LANES, np.int32)
    lx, ly = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    s, s_best = np.zeros(N), np.zeros(N)
    mid, cells = np.zeros(6), np.zeros((6, 6))
    result, top = np.zeros(7), np.zeros(7)
    F_node, u0, u1, perm, c = np.zeros(J), np.zeros(N), np.zeros(N), np.zeros(N, np.int64), np.zeros(6)
    k_out, sd_out = np.zeros(kappa.shape[0]), np.zeros(kappa.shape[0])
    for start in range(0, voxels.shape[0], LANES):
        n_lanes = min(LANES, voxels.shape[0] - start)
        for v in range(n_lanes):
            for n in range(N):
                S32[n, v] = np.float32(rows[start + v, n])
        _coarse(S32, U, edge, order, stride, flips, best, where, lx, ly)
        for v in range(n_lanes):
            i = voxels[start + v]
            if kind[start + v] > 0:
                status[i] = kind[start + v]
                for q in range(kappa.shape[0]):
                    kappa[q, i] = np.nan
                    sd[q, i] = np.nan
                rss[i] = np.nan
                continue
            row = rows[start + v]
            total = 0.0
            for n in range(N):
                total += row[n] * row[n]
            if kind[start + v] < 0 and flips:
                _search_exact(row, vectors, scalars, order, t, flips, F_node, u0, u1, perm, c, top)
            else:
                j = where[v] // (N + 1)
                k = where[v] - j * (N + 1)
                for n in range(N):
                    s[n] = row[n]
                for m in range(k):
                    s[order[j, m]] = -s[order[j, m]]
                _dots(vectors, j, s, mid)
                _climb(vectors, scalars, t, s, j, mid, cells, top)
                if flips:
                    s_best[:] = s
                    improved = True
                    rounds = 0
                    while improved and rounds < N:
                        improved = False
                        rounds += 1
                        j = int(top[1] + 0.5 * (top[2] > 0.5) + 0.5)
                        k_now = k
                        for side in range(-1, 2, 2):
                            m = k_now - 1 if side < 0 else k_now
                            if m < 0 or m >= N:
                                continue
                            n = order[j, m]
                            s[:] = s_best
                            s[n] = -s[n]
                            _dots(vectors, j, s, mid)
                            _climb(vectors, scalars, t, s, j, mid, cells, result)
                            if result[0] > top[0] * (1 + 1e-14):
                                top[:] = result
                                k = k_now + side
                                improved = True
                                u0[:] = s
                        if improved:
                            s_best[:] = u0
            status[i] = _finish(top, scalars, t, b0, b1, has_B, scale[start + v], k_out, sd_out, c)
            for q in range(kappa.shape[0]):
                kappa[q, i] = k_out[q]
                sd[q, i] = sd_out[q]
            rss[i] = max(total - top[0], 0.0) * scale[start + v] * scale[start + v]
