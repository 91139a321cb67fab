"""Numba kernels of the general search: the whole box of (T, F) on a coarse grid, then descents from its best places."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rimap.estimators.nlls.descent import Box, Scratch, covariance_of, descend, scratch
from rimap.estimators.nlls.polarity import begin, compass, follow, turn
from rimap.estimators.nlls.variable_projection import (
    AMPLITUDE,
    FREE,
    RSS,
    Grid,
    best_amplitudes,
    kernel,
    shape_at,
)
from rimap.estimators.table_kernels import at_field, interval

Array = Any

OK, AT_BOUND, NO_SIGNAL, NOT_FINITE, NOT_CONVERGED = 0, 1, 2, 3, 4
#: Voxels side by side in the scan.
LANES = 64
#: Places from which a voxel is descended, at most.
MOST_STARTS = 24
#: Columns of a start: its place, how much of ‖S‖² it explains, and how much a place between nodes may explain.
START_U, START_F, EXPLAINED, PROMISE = range(4)
#: What a place between the nodes gains is at most this many times what its distance says.
RESERVE = np.float32(4)
#: A fit that is better by less than this share of ‖S‖² is the same one: the field nearer to its usual value is then taken.
TIE = 1e-10


class Coarse(NamedTuple):
    """The coarse grid, F outside and u inside: n_F · n_u = G nodes, G a multiple of four with zeros at the end.

    `atoms` (K, G, N): orthonormal columns q₁, q₂ of the shape, N a multiple of four; `factor` (3, G) with g₁ = r₁₁ q₁ and
    g₂ = r₁₂ q₁ + r₂₂ q₂; `reach` (G,) the squared sine of the largest angle to a place nearer to no other node.
    """

    atoms: Array
    factor: Array
    reach: Array
    u: Array
    F: Array


class Line(NamedTuple):
    """The coarse nodes along u for a field that each voxel has for itself: `powers` as in the table, each (J, K, N, 1, G)."""

    powers: Any
    reach: Array
    u: Array


class Problem(NamedTuple):
    """What is estimated: bounds of the amplitudes (2, 2), which of them are open, their unit, the box, and the bounds of T."""

    amplitudes: Array
    open_amplitudes: tuple[bool, bool]
    has_unit: bool
    magnitude: bool
    box: Box
    T_bounds: tuple[float, float]
    usual_F: float
    n_free: float


class Rows(NamedTuple):
    """Where the fit goes; see `sharing.Out`."""

    kappa: Array
    sd: Array
    residual: Array
    status: Array
    rms: Array


@kernel
def load(images: Array, voxel: int, has_unit: bool, S: Array) -> tuple[int, float, float]:
    """Write the images of a voxel to S (N), divided by the largest modulus; return a status, that modulus, and ‖S‖²."""
    N, size, finite = images.shape[0], 0.0, True
    for n in range(N):
        value = float(images[n, voxel])
        S[n] = value
        finite = finite and math.isfinite(value)
        size = max(size, abs(value))
    if not finite:
        return NOT_FINITE, 0.0, 0.0
    if size == 0.0:
        return NO_SIGNAL, 0.0, 0.0
    size, total = size if has_unit else 1.0, 0.0
    for n in range(N):
        S[n] /= size
        total += S[n] * S[n]
    return OK, size, total


@kernel
def product(atoms: Array, block: Array, P: Array) -> None:
    """Write atoms (G, N) times block (N, LANES) to P (G, LANES); G and N are multiples of four."""
    for g in range(0, atoms.shape[0], 4):
        p0, p1, p2, p3 = P[g], P[g + 1], P[g + 2], P[g + 3]
        for v in range(LANES):
            p0[v] = p1[v] = p2[v] = p3[v] = np.float32(0)
        for n in range(0, atoms.shape[1], 4):
            a0, a1, a2, a3 = atoms[g, n], atoms[g, n + 1], atoms[g, n + 2], atoms[g, n + 3]
            b0, b1, b2, b3 = atoms[g + 1, n], atoms[g + 1, n + 1], atoms[g + 1, n + 2], atoms[g + 1, n + 3]
            c0, c1, c2, c3 = atoms[g + 2, n], atoms[g + 2, n + 1], atoms[g + 2, n + 2], atoms[g + 2, n + 3]
            d0, d1, d2, d3 = atoms[g + 3, n], atoms[g + 3, n + 1], atoms[g + 3, n + 2], atoms[g + 3, n + 3]
            s0, s1, s2, s3 = block[n], block[n + 1], block[n + 2], block[n + 3]
            for v in range(LANES):
                t0, t1, t2, t3 = s0[v], s1[v], s2[v], s3[v]
                p0[v] += a0 * t0 + a1 * t1 + a2 * t2 + a3 * t3
                p1[v] += b0 * t0 + b1 * t1 + b2 * t2 + b3 * t3
                p2[v] += c0 * t0 + c1 * t1 + c2 * t2 + c3 * t3
                p3[v] += d0 * t0 + d1 * t1 + d2 * t2 + d3 * t3


@kernel
def explain_one(coarse: Coarse, low: Array, high: Array, P: Array, R: Array) -> None:
    """Turn S·q (G, LANES) into what one bounded amplitude explains of ‖S‖², a (2 S·q − a), and R into the promise."""
    for g in range(coarse.u.shape[0]):
        unit, more = coarse.factor[0, g], RESERVE * coarse.reach[g]
        p, r = P[g], R[g]
        for v in range(LANES):
            along = p[v]
            a = min(max(along, low[v] * unit), high[v] * unit)
            explained = a * (along + along - a)
            p[v], r[v] = explained, explained + more * a * a


@kernel
def explain_two(coarse: Coarse, scale: Array, amplitudes: Array, P: Array, R: Array) -> None:
    """Do the same for two amplitudes, from S·q₁ in P and S·q₂ in R."""
    box = np.zeros((2, 2))
    for g in range(coarse.u.shape[0]):
        r11, r12, r22 = float(coarse.factor[0, g]), float(coarse.factor[1, g]), float(coarse.factor[2, g])
        for v in range(LANES):
            x, y = float(P[g, v]), float(R[g, v])
            for k in range(2):
                for side in range(2):
                    box[k, side] = amplitudes[k, side] / scale[v] if scale[v] > 0 else 0.0
            a2 = y / r22 if r22 > 0 else 0.0
            a1 = (x - r12 * a2) / r11 if r11 > 0 else 0.0
            explained = x * x + y * y
            if not (box[0, 0] <= a1 <= box[0, 1] and box[1, 0] <= a2 <= box[1, 1]):
                m1, m2, g11, g12, g22 = r11 * x, r12 * x + r22 * y, r11 * r11, r11 * r12, r12 * r12 + r22 * r22
                a1, a2 = best_amplitudes(m1, m2, g11, g12, g22, box)
                explained = a1 * (2 * m1 - a1 * g11 - 2 * a2 * g12) + a2 * (2 * m2 - a2 * g22)
            P[g, v], R[g, v] = explained, explained + RESERVE * coarse.reach[g] * (x * x + y * y)


@kernel
def best_nodes(
    P: Array, R: Array, shape: tuple[int, int], need: Array, total: Array, free: float, count: Array
) -> None:
    """Write to `need` (LANES) what a node must promise, 3σ² below the best one, and count the maxima that do."""
    n_F, n_u = shape
    for v in range(LANES):
        need[v], count[v] = P[0, v], np.int32(0)
    for g in range(1, n_F * n_u):
        for v in range(LANES):
            need[v] = max(need[v], P[g, v])
    for v in range(LANES):
        need[v] -= np.float32(3 / free) * max(total[v] - need[v], np.float32(0))
    for f in range(n_F):
        above, below = max(f - 1, 0) * n_u, min(f + 1, n_F - 1) * n_u
        for i in range(n_u):
            left, right, here = max(i - 1, 0), min(i + 1, n_u - 1), f * n_u
            p, r = P[here + i], R[here + i]
            p0, p1, p2, p3 = P[here + left], P[here + right], P[above + i], P[below + i]
            p4, p5, p6, p7 = P[above + left], P[above + right], P[below + left], P[below + right]
            for v in range(LANES):
                around = max(max(max(p0[v], p1[v]), max(p2[v], p3[v])), max(max(p4[v], p5[v]), max(p6[v], p7[v])))
                count[v] += np.int32(1) if (p[v] >= around) & (r[v] >= need[v]) else np.int32(0)


@kernel
def _is_peak(P: Array, v: int, f: int, i: int, n_F: int, n_u: int) -> bool:
    here = P[f * n_u + i, v]
    for a in range(max(f - 1, 0), min(f + 2, n_F)):
        for b in range(max(i - 1, 0), min(i + 2, n_u)):
            if P[a * n_u + b, v] > here:
                return False
    return True


@kernel
def _between(before: float, here: float, after: float) -> float:
    """Return where a parabola through three values has its maximum, −½ to ½ steps from the middle."""
    bend = before - 2 * here + after
    return min(max(0.5 * (before - after) / bend, -0.5), 0.5) if bend < 0 else 0.0


@kernel
def _at(nodes: Array, i: int, stride: int, n: int, part: float) -> float:
    """Return the place `part` of a step after node i of n, which are `stride` apart in `nodes`."""
    to = min(i + 1, n - 1) if part > 0 else max(i - 1, 0)
    return float(nodes[i * stride] + abs(part) * (nodes[to * stride] - nodes[i * stride]))


@kernel
def _add(starts: Array, many: int, start: tuple[float, float, float, float]) -> int:
    """Insert a start in the order of what it explains, the most first; the last is dropped if there are too many."""
    if many == starts.shape[0] and starts[many - 1, EXPLAINED] >= start[2]:
        return many
    i = min(many, starts.shape[0] - 1)
    while i > 0 and starts[i - 1, EXPLAINED] < start[2]:
        starts[i] = starts[i - 1]
        i -= 1
    starts[i, 0], starts[i, 1], starts[i, 2], starts[i, 3] = start
    return many + 1 if many < starts.shape[0] else many


@kernel
def starts_on_grid(
    P: Array, R: Array, v: int, coarse: Coarse, shape: tuple[int, int], need: float, starts: Array
) -> int:
    """Write the maxima of lane v that promise enough to `starts` (MOST_STARTS, 4); return how many."""
    n_F, n_u = shape
    many = 0
    for f in range(n_F):
        for i in range(n_u):
            g = f * n_u + i
            if R[g, v] < need or not _is_peak(P, v, f, i, n_F, n_u):
                continue
            here = P[g, v]
            du = _between(P[f * n_u + max(i - 1, 0), v], here, P[f * n_u + min(i + 1, n_u - 1), v])
            dF = _between(P[max(f - 1, 0) * n_u + i, v], here, P[min(f + 1, n_F - 1) * n_u + i, v])
            u, F = _at(coarse.u, i, 1, n_u, du), _at(coarse.F, f, n_u, n_F, dF)
            many = _add(starts, many, (u, F, float(here), float(R[g, v])))
    return many


@kernel
def scan_line(S: Array, line: Line, grid: Grid, F: float, box: Array, magnitude: bool, sums: Array) -> None:
    """Write what each node of u explains of ‖S‖² at the field F to sums[0], and what it promises to sums[1] (4, G)."""
    j, x = interval(F, grid.low_F, grid.step_F, grid.n_F)
    p = line.powers
    explained, promise, along, square = sums[0], sums[1], sums[2], sums[3]
    sums[:] = 0.0
    for n in range(S.shape[0]):
        s = S[n]
        for g in range(line.u.shape[0]):
            value = at_field(p, x, j, 0, n, 0, g)
            value = abs(value) if magnitude else value
            along[g] += s * value
            square[g] += value * value
    for g in range(line.u.shape[0]):
        norm = max(square[g], 1e-300)
        a = min(max(along[g] / norm, box[0, 0]), box[0, 1])
        explained[g] = a * (2 * along[g] - a * norm)
        promise[g] = explained[g] + RESERVE * line.reach[g] * a * a * norm


@kernel
def scan_line_of_two(S: Array, line: Line, grid: Grid, F: float, box: Array, shape: Array, sums: Array) -> None:
    """Do what `scan_line` does for two amplitudes."""
    for g in range(line.u.shape[0]):
        shape_at(grid, line.u[g], F, shape)
        m1 = m2 = g11 = g12 = g22 = 0.0
        for n in range(S.shape[0]):
            m1, m2 = m1 + S[n] * shape[0, n], m2 + S[n] * shape[1, n]
            g11, g12 = g11 + shape[0, n] * shape[0, n], g12 + shape[0, n] * shape[1, n]
            g22 += shape[1, n] * shape[1, n]
        a1, a2 = best_amplitudes(m1, m2, g11, g12, g22, box)
        size = a1 * (a1 * g11 + 2 * a2 * g12) + a2 * a2 * g22
        sums[0, g] = 2 * (a1 * m1 + a2 * m2) - size
        sums[1, g] = sums[0, g] + RESERVE * line.reach[g] * size


@kernel
def starts_on_line(sums: Array, line: Line, F: float, total: float, free: float, starts: Array) -> int:
    """Write the maxima along u that promise enough to `starts` (MOST_STARTS, 4); return how many."""
    n, explained, promise = line.u.shape[0], sums[0], sums[1]
    top = explained[0]
    for g in range(1, n):
        top = max(top, explained[g])
    need = top - 3 / free * max(total - top, 0.0)
    many = 0
    for g in range(n):
        before, here, after = explained[max(g - 1, 0)], explained[g], explained[min(g + 1, n - 1)]
        if here >= before and here >= after and promise[g] >= need:
            u = _at(line.u, g, 1, n, _between(before, here, after))
            many = _add(starts, many, (u, F, here, promise[g]))
    return many


@kernel
def fit(S: Array, total: float, starts: Array, many: int, grid: Grid, problem: Problem, amplitudes: Array, work: Scratch) -> bool:  # fmt: skip
    """Descend from the starts; the best place and its facts go to `work`. Returns whether that descent converged."""
    box, converged = problem.box, False
    best = np.inf
    best_u, best_F = starts[0, START_U], starts[0, START_F]
    facts = work.best
    negative = False
    for n in range(S.shape[0]):
        negative |= S[n] < 0
    for i in range(many):
        if i > 0 and starts[i, PROMISE] < total - best:
            continue  # no place near it can do better
        work.place[0], work.place[1] = starts[i, START_U], starts[i, START_F]
        if problem.magnitude:
            begin(S, grid, work)
            good = follow(S, grid, box, amplitudes, work)
            if negative:
                compass(S, grid, box, amplitudes, work)
        else:
            good = descend(S, grid, box, amplitudes, work)
        rss, u, F = work.facts[RSS], work.place[0], work.place[1]
        same = abs(rss - best) <= TIE * total
        nearer = abs(F - problem.usual_F) < abs(best_F - problem.usual_F) - 1e-6 * box.cell_F
        if (rss < best and not same) or (same and nearer):
            best, best_u, best_F, converged = rss, u, F, good
            facts[:] = work.facts
            if problem.magnitude:
                work.best_target[:] = work.target
    work.place[0], work.place[1] = best_u, best_F
    work.facts[:] = facts
    if problem.magnitude and not negative:
        work.target[:] = work.best_target
        turn(S, grid, box, amplitudes, work)
    return converged


@kernel
def write(o: int, size: float, converged: bool, K: int, problem: Problem, work: Scratch, rows: Rows) -> None:
    """Write the fit of voxel o, whose images were divided by `size`, and its standard deviations for σ = 1."""
    facts, box = work.facts, problem.box
    u, F, N = work.place[0], work.place[1], work.residual.shape[0]
    if K == 1 and problem.open_amplitudes[0] and not facts[AMPLITUDE] > 0 and problem.amplitudes[0, 0] == 0:
        skip(o, NO_SIGNAL, rows)  # the amplitude is zero: nothing tells T
        return
    at_bound = u <= box.low_u or u >= box.high_u or (box.moves_F and (box.low_F >= F or box.high_F <= F))
    row = 0
    for k in range(K):
        if problem.open_amplitudes[k]:
            rows.kappa[row, o] = facts[AMPLITUDE + k] * size
            at_bound |= facts[FREE + k] == 0
            row += 1
    if box.moves_F:
        rows.kappa[row, o] = F
        row += 1
    T = min(max(math.exp(u), problem.T_bounds[0]), problem.T_bounds[1])
    T = problem.T_bounds[0] if u <= box.low_u else (problem.T_bounds[1] if u >= box.high_u else T)
    rows.kappa[row, o] = T
    rows.residual[o] = math.sqrt(facts[RSS] / N) * size
    Q = 0 if at_bound else covariance_of(facts, K, box.moves_F, problem.open_amplitudes, work.matrix)
    for q in range(row + 1):
        if Q == 0:
            rows.sd[q, o] = np.nan
        else:
            unit = T / size if q == row else (1 / size if box.moves_F and q == row - 1 else 1.0)
            rows.sd[q, o] = math.sqrt(work.matrix[1, q, q]) * unit
    rows.status[o] = NOT_CONVERGED if not converged else (AT_BOUND if Q == 0 else OK)
    if not converged:
        rows.sd[: row + 1, o] = np.nan


@kernel
def skip(o: int, status: int, rows: Rows) -> None:
    """Write that voxel o has no estimate."""
    rows.status[o], rows.residual[o] = status, np.nan
    for q in range(rows.kappa.shape[0]):
        rows.kappa[q, o] = rows.sd[q, o] = np.nan


@kernel
def bounds_for(problem: Problem, size: float, amplitudes: Array) -> None:
    """Write the bounds of the amplitudes (2, 2) in units of the images of this voxel."""
    for k in range(2):
        for side in range(2):
            amplitudes[k, side] = problem.amplitudes[k, side] / size


@kernel
def fit_on_grid(images: Array, voxels: Array, coarse: Coarse, shape: tuple[int, int], grid: Grid, problem: Problem, rows: Rows) -> None:  # fmt: skip
    """Fit `voxels` of images (N, M) by a scan of the coarse grid (n_F, n_u) and descents from its best nodes."""
    N, K = images.shape[0], grid.powers[0].shape[3]
    G, padded = coarse.atoms.shape[1], coarse.atoms.shape[2]
    P, R = np.zeros((G, LANES), np.float32), np.zeros((G, LANES), np.float32)
    S, block = np.zeros((LANES, N)), np.zeros((padded, LANES), np.float32)
    kind, scale, power = np.zeros(LANES, np.int64), np.zeros(LANES), np.zeros(LANES)
    low, high, total = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    need, count = np.zeros(LANES, np.float32), np.zeros(LANES, np.int32)
    starts, amplitudes, work = np.zeros((MOST_STARTS, 4)), np.zeros((2, 2)), scratch(K, N)
    for first in range(0, voxels.shape[0], LANES):
        m = min(LANES, voxels.shape[0] - first)
        for v in range(LANES):
            kind[v], scale[v], power[v] = NO_SIGNAL, 0.0, 0.0
            if v < m:
                kind[v], scale[v], power[v] = load(images, voxels[first + v], problem.has_unit, S[v])
            good = kind[v] == OK
            for n in range(N):
                block[n, v] = np.float32(S[v, n]) if good else np.float32(0)
            total[v] = np.float32(power[v])
            size = scale[v] if good else 1.0
            low[v], high[v] = np.float32(problem.amplitudes[0, 0] / size), np.float32(problem.amplitudes[0, 1] / size)
        product(coarse.atoms[0], block, P)
        if K == 1:
            explain_one(coarse, low, high, P, R)
        else:
            product(coarse.atoms[1], block, R)
            explain_two(coarse, scale, problem.amplitudes, P, R)
        best_nodes(P, R, shape, need, total, problem.n_free, count)
        for v in range(m):
            o = voxels[first + v]
            if kind[v] != OK:
                rows.rms[o] = 0.0
                skip(o, kind[v], rows)
                continue
            rows.rms[o] = math.sqrt(power[v] / N) * scale[v]
            bounds_for(problem, scale[v], amplitudes)
            many = starts_on_grid(P, R, v, coarse, shape, need[v], starts)
            converged = fit(S[v], power[v], starts, many, grid, problem, amplitudes, work)
            write(o, scale[v], converged, K, problem, work, rows)


@kernel
def fit_on_line(images: Array, voxels: Array, fields: Array, line: Line, grid: Grid, problem: Problem, rows: Rows) -> None:  # fmt: skip
    """Fit `voxels` of images (N, M) whose field is known in each of them, `fields` (M,): a scan along u, then descents."""
    N, K = images.shape[0], grid.powers[0].shape[3]
    S, sums = np.zeros(N), np.zeros((4, line.u.shape[0]))
    starts, amplitudes, work = np.zeros((MOST_STARTS, 4)), np.zeros((2, 2)), scratch(K, N)
    for i in range(voxels.shape[0]):
        o = voxels[i]
        kind, size, total = load(images, o, problem.has_unit, S)
        F = fields[o]
        rows.rms[o] = math.sqrt(total / N) * size
        if kind == OK and not math.isfinite(F):
            kind = NOT_FINITE
        if kind != OK:
            skip(o, kind, rows)
            continue
        bounds_for(problem, size, amplitudes)
        if K == 1:
            scan_line(S, line, grid, F, amplitudes, problem.magnitude, sums)
        else:
            scan_line_of_two(S, line, grid, F, amplitudes, work.shape, sums)
        many = starts_on_line(sums, line, F, total, problem.n_free, starts)
        converged = fit(S, total, starts, many, grid, problem, amplitudes, work)
        write(o, size, converged, K, problem, work, rows)
