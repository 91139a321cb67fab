"""Numba kernels of the general search: the whole box of (T, F) on a coarse grid, then descents from its best places."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rimap.estimators.nlls.descent import Box, Known, Scratch, copy, covariance_of, descend
from rimap.estimators.nlls.polarity import begin, compass, follow, turn
from rimap.estimators.nlls.variable_projection import (
    AMPLITUDE,
    FREE,
    RSS,
    SECOND_AMPLITUDE,
    Grid,
    best_amplitudes,
    kernel,
    shape_at,
)
from rimap.estimators.table_kernels import at_field, interval

Array = Any

#: Values of `rimap.maps.Status` as plain numbers, because kernels cannot read an enumeration.
OK, AT_BOUND, NO_SIGNAL, NOT_FINITE, NOT_CONVERGED = 0, 1, 2, 3, 4
#: Voxels side by side in the scan: long rows, since a loop over a row has a cost of its own.
LANES = 128
#: Places from which a voxel is descended, at most.
MOST_STARTS = 24
#: Columns of a start: its place, how much of ‖S‖² it explains, and how much a place between nodes may explain.
START_U, START_F, EXPLAINED, PROMISE = range(4)
#: Numbers that describe where a descent starts.
START_WIDTH = 4
#: What a place between the nodes gains is at most this many times what its distance says.
RESERVE = np.float32(4)
#: What a place between the nodes gains is also at most this share of the fall to the lowest neighbour.
FALL_RESERVE = np.float32(1)
#: What is within this many σ² of the best is worth a descent.
NEED = 3.0
#: Along the ridge of a field, where parabolas are more accurate: the error of what they add, and that of the whole,
#: relative.
RIDGE_RESERVE, RIDGE_ERROR = 0.5, 1e-4
#: Neighbours along the ridge that differ by no more than this, relative, are level.
LEVEL = 4e-4
#: A parabola that adds more than this part to what its node explains has too few nodes to be believed.
CREDIBLE = 0.02
#: A fit that is better by less than this share of ‖S‖² is the same one: the field nearer to its usual value is then
#: taken.
TIE = 1e-10


class Coarse(NamedTuple):
    """The coarse grid, F outside and u inside: n_F · n_u = G nodes, G a multiple of four with zeros at the end.

    `basis` (R, N): what the images are projected on first; `atoms` (K, G, R): orthonormal columns q₁, q₂ of the shape
    in that basis (R and N are multiples of four); `ranks` (K, G/4): how many columns of each four rows count, multiples
    of four; `factor` (3, G) with g₁ = r₁₁ q₁ and g₂ = r₁₂ q₁ + r₂₂ q₂; `reach` (G,) the squared sine of the largest
    angle to a place nearer to no other node.
    """

    basis: Array
    atoms: Array
    ranks: Array
    factor: Array
    reach: Array
    u: Array
    F: Array
    shape: tuple[int, int]


class Line(NamedTuple):
    """The coarse nodes along u for a field that each voxel has for itself: `powers` as in the table, each (J, K, N, 1,
    G).
    """

    powers: Any
    reach: Array
    u: Array
    S: Array
    sums: Array
    starts: Array


def line_of(powers: Array, reach: Array, u: Array) -> Line:
    """Return a line with new arrays for one thread: images, sums along u, and starts."""
    return Line(
        powers, reach, u, np.zeros(powers[0].shape[2]), np.zeros((4, len(u))), np.zeros((MOST_STARTS, START_WIDTH))
    )


class Lanes(NamedTuple):
    """What a thread writes to while it scans LANES voxels: what nodes explain (G, LANES), images, starts, …

    Of two amplitudes `R` (G, LANES) has what a node promises; of one it follows from what the node explains.
    """

    P: Array
    R: Array
    promise: Array
    S: Array
    block: Array
    kind: Array
    scale: Array
    power: Array
    low: Array
    high: Array
    total: Array
    need: Array
    many: Array
    peak: Array
    starts: Array
    compressed: Array
    ridge: Array
    ridge_u: Array
    ridge_gain: Array


def lanes_for(coarse: Coarse, N: int) -> Lanes:
    """Return new arrays for N images."""
    (_, G, rank), (_, padded), n_F = coarse.atoms.shape, coarse.basis.shape, coarse.shape[0]
    single, K = np.zeros((5, LANES), np.float32), coarse.atoms.shape[0]
    ridge = np.zeros((3, n_F, LANES), np.float32)
    return Lanes(
        P=np.zeros((G, LANES), np.float32),
        R=np.zeros((G if K > 1 else 1, LANES), np.float32),
        promise=single[4],
        S=np.zeros((LANES, N)),
        block=np.zeros((padded, LANES), np.float32),
        kind=np.zeros(LANES, np.int64),
        scale=np.zeros(LANES),
        power=np.zeros(LANES),
        low=single[0],
        high=single[1],
        total=single[2],
        need=single[3],
        many=np.zeros(LANES, np.int64),
        peak=np.zeros(LANES, np.uint8),
        starts=np.zeros((LANES, MOST_STARTS, START_WIDTH)),
        compressed=np.zeros((rank, LANES), np.float32),
        ridge=ridge[0],
        ridge_u=ridge[1],
        ridge_gain=ridge[2],
    )


class Problem(NamedTuple):
    """What is estimated: bounds of the amplitudes (2, 2), which of them are open, their unit, the box, and the bounds
    of T.
    """

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
    for image in range(N):
        value = float(images[image, voxel])
        S[image] = value
        finite = finite and math.isfinite(value)
        size = max(size, abs(value))
    if not finite:
        return NOT_FINITE, 0.0, 0.0
    if size == 0.0:
        return NO_SIGNAL, 0.0, 0.0
    size, total = size if has_unit else 1.0, 0.0
    for image in range(N):
        S[image] /= size
        total += S[image] * S[image]
    return OK, size, total


@kernel
def product_of_four(atoms: Array, rank: int, block: Array, P: Array) -> None:
    """Write the first `rank` columns of atoms (4, N) times block (N, LANES) to P (4, LANES); `rank` is a multiple of
    four.
    """
    p0, p1, p2, p3 = P[0], P[1], P[2], P[3]
    for lane in range(LANES):
        p0[lane] = p1[lane] = p2[lane] = p3[lane] = np.float32(0)
    for n in range(0, rank, 4):
        a0, a1, a2, a3 = atoms[0, n], atoms[0, n + 1], atoms[0, n + 2], atoms[0, n + 3]
        b0, b1, b2, b3 = atoms[1, n], atoms[1, n + 1], atoms[1, n + 2], atoms[1, n + 3]
        c0, c1, c2, c3 = atoms[2, n], atoms[2, n + 1], atoms[2, n + 2], atoms[2, n + 3]
        d0, d1, d2, d3 = atoms[3, n], atoms[3, n + 1], atoms[3, n + 2], atoms[3, n + 3]
        s0, s1, s2, s3 = block[n], block[n + 1], block[n + 2], block[n + 3]
        for lane in range(LANES):
            t0, t1, t2, t3 = s0[lane], s1[lane], s2[lane], s3[lane]
            p0[lane] += a0 * t0 + a1 * t1 + a2 * t2 + a3 * t3
            p1[lane] += b0 * t0 + b1 * t1 + b2 * t2 + b3 * t3
            p2[lane] += c0 * t0 + c1 * t1 + c2 * t2 + c3 * t3
            p3[lane] += d0 * t0 + d1 * t1 + d2 * t2 + d3 * t3


@kernel
def project(basis: Array, block: Array, compressed: Array) -> None:
    """Write basis (R, N) times block (N, LANES) to `compressed` (R, LANES); R and N are multiples of four."""
    for g in range(0, basis.shape[0], 4):
        product_of_four(basis[g : g + 4], basis.shape[1], block, compressed[g : g + 4])


@kernel
def product(atoms: Array, ranks: Array, block: Array, P: Array) -> None:
    """Write atoms (G, R) times block (R, LANES) to P (G, LANES), of each four atoms as many columns as `ranks` (G/4)
    says.
    """
    for g in range(0, atoms.shape[0], 4):
        product_of_four(atoms[g : g + 4], ranks[g // 4], block, P[g : g + 4])


@kernel
def explain_one(coarse: Coarse, lanes: Lanes) -> None:
    """Write what one bounded amplitude explains of ‖S‖² at each node, a (2 S·q − a), to P, and the most of it to
    `need`.

    Four nodes at a time, while their S·q are in the cache.
    """
    P, low, high, most = lanes.P, lanes.low, lanes.high, lanes.need
    for lane in range(LANES):
        most[lane] = -np.float32(np.inf)
    for g in range(0, coarse.atoms.shape[1], 4):
        product_of_four(coarse.atoms[0, g : g + 4], coarse.ranks[0, g // 4], lanes.compressed, P[g : g + 4])
        for index in range(g, min(g + 4, coarse.u.shape[0])):
            unit, p = coarse.factor[0, index], P[index]
            for lane in range(LANES):
                along = p[lane]
                a = min(max(along, low[lane] * unit), high[lane] * unit)
                p[lane] = a * (along + along - a)
                most[lane] = max(most[lane], p[lane])


@kernel
def explain_two(coarse: Coarse, scale: Array, amplitudes: Array, box: Array, P: Array, R: Array) -> None:
    """Do the same for two amplitudes, from S·q₁ in P and S·q₂ in R; `box` (2, 2) is scratch."""
    for node in range(coarse.u.shape[0]):
        r11, r12, r22 = float(coarse.factor[0, node]), float(coarse.factor[1, node]), float(coarse.factor[2, node])
        for lane in range(LANES):
            x, y = float(P[node, lane]), float(R[node, lane])
            for index in range(2):
                for side in range(2):
                    box[index, side] = amplitudes[index, side] / scale[lane] if scale[lane] > 0 else 0.0
            a2 = y / r22 if r22 > 0 else 0.0
            a1 = (x - r12 * a2) / r11 if r11 > 0 else 0.0
            explained = x * x + y * y
            if not (box[0, 0] <= a1 <= box[0, 1] and box[1, 0] <= a2 <= box[1, 1]):
                m1, m2, g11, g12, g22 = r11 * x, r12 * x + r22 * y, r11 * r11, r11 * r12, r12 * r12 + r22 * r22
                a1, a2 = best_amplitudes(m1, m2, g11, g12, g22, box)
                explained = a1 * (2 * m1 - a1 * g11 - 2 * a2 * g12) + a2 * (2 * m2 - a2 * g22)
            P[node, lane], R[node, lane] = explained, explained + RESERVE * coarse.reach[node] * (x * x + y * y)


@kernel
def most_explained(P: Array, G: int, most: Array) -> None:
    """Write the most that a node explains to `most` (LANES)."""
    for lane in range(LANES):
        most[lane] = P[0, lane]
    for node in range(1, G):
        for lane in range(LANES):
            most[lane] = max(most[lane], P[node, lane])


@kernel
def needed(total: Array, free: float, need: Array) -> None:
    """Turn the most that a node explains (LANES) into what a node must promise to be worth a descent: 3σ² less."""
    for lane in range(LANES):
        need[lane] -= np.float32(NEED / free) * max(total[lane] - need[lane], np.float32(0))


@kernel
def _between(before: float, here: float, after: float) -> float:
    """Return where a parabola through three values has its maximum, −½ to ½ steps from the middle."""
    bend = before - 2 * here + after
    return min(max(0.5 * (before - after) / bend, -0.5), 0.5) if bend < 0 else 0.0


@kernel
def _at(nodes: Array, here: int, before: int, after: int, part: float) -> float:
    """Return the place that is `part` of a step (−½ to ½) from the node `here` towards one of its neighbours."""
    to = after if part > 0 else before
    return float(nodes[here] + abs(part) * (nodes[to] - nodes[here]))


@kernel
def _add(starts: Array, many: int, start: tuple[float, float, float, float]) -> int:
    """Insert a start in the order of what it explains, the most first; the last is dropped if there are too many."""
    if many == starts.shape[0] and starts[many - 1, EXPLAINED] >= start[2]:
        return many
    i = min(many, starts.shape[0] - 1)
    while i > 0 and starts[i - 1, EXPLAINED] < start[2]:
        for c in range(4):
            starts[i, c] = starts[i - 1, c]
        i -= 1
    starts[i, 0], starts[i, 1], starts[i, 2], starts[i, 3] = start
    return many + 1 if many < starts.shape[0] else many


@kernel
def ridge_along_u(P: Array, coarse: Coarse, lanes: Lanes) -> None:
    """Write for each F the most that a place along u explains, by parabolas between nodes, and that place in steps of
    u.
    """
    n_F, n_u = coarse.shape
    for cell_F in range(n_F):
        top, place, gain = lanes.ridge[cell_F], lanes.ridge_u[cell_F], lanes.ridge_gain[cell_F]
        for lane in range(LANES):
            top[lane] = -np.float32(np.inf)
        for index in range(n_u):
            before, here, after = (
                P[cell_F * n_u + max(index - 1, 0)],
                P[cell_F * n_u + index],
                P[cell_F * n_u + min(index + 1, n_u - 1)],
            )
            for lane in range(LANES):
                slope, bend = after[lane] - before[lane], before[lane] + after[lane] - here[lane] - here[lane]
                is_top = (bend < 0) & (here[lane] >= before[lane]) & (here[lane] >= after[lane])
                part = np.float32(-0.5) * slope / bend if is_top else np.float32(0)
                more = np.float32(0.25) * slope * part
                better = here[lane] + more > top[lane]
                top[lane] = here[lane] + more if better else top[lane]
                place[lane] = np.float32(index) + part if better else place[lane]
                gain[lane] = more if better else gain[lane]


@kernel
def _along_nodes(nodes: Array, place: float, n: int) -> float:
    """Return the value at a place in steps between nodes (n)."""
    i = min(int(place), n - 2)
    return float(nodes[i] + (place - i) * (nodes[i + 1] - nodes[i]))


@kernel
def _ends_here(ridge: Array, f: int, v: int, need: float, level: float) -> bool:
    """Return whether a level part of the ridge (n_F, LANES), of four nodes or more and above what is needed, ends at f.

    It is level where neighbours differ by no more than `level`.
    """
    for direction in (-1, 1):
        outside, inside = f - direction, f + 3 * direction
        if inside < 0 or inside >= ridge.shape[0]:
            continue
        ends = outside < 0 or outside >= ridge.shape[0]
        ends = ends or ridge[outside, v] < need or abs(ridge[outside, v] - ridge[f, v]) > level
        for step in range(1, 4):
            here, before = ridge[f + step * direction, v], ridge[f + (step - 1) * direction, v]
            ends &= here >= need and abs(here - before) <= level
        if ends:
            return True
    return False


@kernel
def starts_on_ridge(coarse: Coarse, free: float, lanes: Lanes) -> None:
    """Write the maxima along F of what the ridge explains to `lanes.starts`, and to `lanes.many` how many there are.

    Where the ridge is level, to the error of the parabolas, its maxima mean nothing: both ends of such a part are
    starts, too.
    """
    n_F, n_u = coarse.shape
    for lane in range(LANES):
        best = -math.inf
        for cell_F in range(n_F):
            doubtful = lanes.ridge_gain[cell_F, lane] - CREDIBLE * lanes.ridge[cell_F, lane]
            best = max(best, lanes.ridge[cell_F, lane] - max(doubtful, 0.0))
        need = best - NEED * max(lanes.total[lane] - best, 0.0) / free - RIDGE_ERROR * best
        lanes.many[lane] = 0
        for cell_F in range(n_F):
            low, high = max(cell_F - 1, 0), min(cell_F + 1, n_F - 1)
            before, here, after = lanes.ridge[low, lane], lanes.ridge[cell_F, lane], lanes.ridge[high, lane]
            if here < before or here < after:
                if here >= need and _ends_here(lanes.ridge, cell_F, lane, need, LEVEL * best):
                    u = _along_nodes(coarse.u, lanes.ridge_u[cell_F, lane], n_u)
                    lanes.many[lane] = _add(
                        lanes.starts[lane], lanes.many[lane], (u, coarse.F[cell_F * n_u], here, math.inf)
                    )
                continue
            part = _between(before, here, after)
            gain = 0.25 * part * (after - before)
            explained = here + gain
            promise = explained + RIDGE_RESERVE * (gain + lanes.ridge_gain[cell_F, lane]) + RIDGE_ERROR * here
            if promise < need:
                continue
            to = high if part > 0 else low
            place = lanes.ridge_u[cell_F, lane] + abs(part) * (lanes.ridge_u[to, lane] - lanes.ridge_u[cell_F, lane])
            u = _along_nodes(coarse.u, place, n_u)
            F = _at(coarse.F, cell_F * n_u, low * n_u, high * n_u, part)
            lanes.many[lane] = _add(lanes.starts[lane], lanes.many[lane], (u, F, explained, promise))


@kernel
def starts_on_grid(P: Array, R: Array, coarse: Coarse, lanes: Lanes) -> None:
    """Add the maxima among neighbouring nodes that are not on the ridge to `lanes.starts`, if they promise enough."""
    n_F, n_u = coarse.shape
    peak, starts, many, need = lanes.peak, lanes.starts, lanes.many, lanes.need
    one_amplitude = R.shape[0] == 1
    for cell_F in range(n_F):
        above, here, below = max(cell_F - 1, 0) * n_u, cell_F * n_u, min(cell_F + 1, n_F - 1) * n_u
        ridge = lanes.ridge_u[cell_F]
        for index in range(n_u):
            left, right = max(index - 1, 0), min(index + 1, n_u - 1)
            p, r = P[here + index], lanes.promise if one_amplitude else R[here + index]
            if one_amplitude:
                # The more, the larger the part a² of the images along the node: what it explains if a is free, less if
                # a is at its upper bound, and low² g·g if it is at its lower one.
                unit, more = coarse.factor[0, here + index], RESERVE * coarse.reach[here + index]
                for lane in range(LANES):
                    least = lanes.low[lane] * unit
                    r[lane] = p[lane] + more * max(p[lane], least * least)
            worth = np.float32(0)
            for lane in range(LANES):
                beside = (
                    r[lane] - need[lane] if abs(ridge[lane] - np.float32(index)) > np.float32(1) else -np.float32(1)
                )
                worth += np.float32(1) if beside >= 0 else np.float32(0)
            if worth == 0:
                continue
            for lane in range(LANES):
                beside = (r[lane] >= need[lane]) & (abs(ridge[lane] - np.float32(index)) > np.float32(1))
                peak[lane] = np.uint8(1) if beside else np.uint8(0)
            p0, p1, p2, p3 = P[here + left], P[here + right], P[above + index], P[below + index]
            p4, p5, p6, p7 = P[above + left], P[above + right], P[below + left], P[below + right]
            found = 0
            for lane in range(LANES):
                around = max(
                    max(max(p0[lane], p1[lane]), max(p2[lane], p3[lane])),
                    max(max(p4[lane], p5[lane]), max(p6[lane], p7[lane])),
                )
                lowest = min(
                    min(min(p0[lane], p1[lane]), min(p2[lane], p3[lane])),
                    min(min(p4[lane], p5[lane]), min(p6[lane], p7[lane])),
                )
                # A parabola gains less than an eighth of the fall to its lowest neighbour; a ridge across the nodes
                # gains more.
                is_peak = (
                    (peak[lane] > 0) & (p[lane] >= around) & (p[lane] + FALL_RESERVE * (p[lane] - lowest) >= need[lane])
                )
                peak[lane] = np.uint8(1) if is_peak else np.uint8(0)
                found += 1 if is_peak else 0
            for lane in range(LANES if found else 0):
                if peak[lane]:
                    u = _at(coarse.u, here + index, here + left, here + right, _between(p0[lane], p[lane], p1[lane]))
                    F = _at(coarse.F, here + index, above + index, below + index, _between(p2[lane], p[lane], p3[lane]))
                    many[lane] = _add(starts[lane], many[lane], (u, F, float(p[lane]), float(r[lane])))


@kernel
def scan_line(S: Array, line: Line, grid: Grid, F: float, box: Array, magnitude: bool, sums: Array) -> None:
    """Write what each node of u explains of ‖S‖² at the field F to sums[0], and what it promises to sums[1] (4, G)."""
    j, x = interval(F, grid.low_F, grid.step_F, grid.n_F)
    p = line.powers
    explained, promise, along, square = sums[0], sums[1], sums[2], sums[3]
    for node in range(line.u.shape[0]):
        along[node] = square[node] = 0.0
    for image in range(S.shape[0]):
        s, values = S[image], promise  # (a loop writes to one array, so that it runs on vectors)
        for node in range(line.u.shape[0]):
            values[node] = at_field(p, x, j, 0, image, 0, node)
        for node in range(line.u.shape[0]):
            square[node] += values[node] * values[node]
        for node in range(line.u.shape[0]):
            along[node] += s * (abs(values[node]) if magnitude else values[node])
    for node in range(line.u.shape[0]):
        norm = max(square[node], 1e-300)
        a = min(max(along[node] / norm, box[0, 0]), box[0, 1])
        explained[node] = a * (2 * along[node] - a * norm)
        promise[node] = explained[node] + RESERVE * line.reach[node] * a * a * norm


@kernel
def scan_line_of_two(S: Array, line: Line, grid: Grid, F: float, work: Scratch, sums: Array) -> None:
    """Do what `scan_line` does for two amplitudes."""
    shape, box = work.shape, work.amplitudes
    for node in range(line.u.shape[0]):
        shape_at(grid, line.u[node], F, shape)
        m1 = m2 = g11 = g12 = g22 = 0.0
        for image in range(S.shape[0]):
            m1, m2 = m1 + S[image] * shape[0, image], m2 + S[image] * shape[1, image]
            g11, g12 = g11 + shape[0, image] * shape[0, image], g12 + shape[0, image] * shape[1, image]
            g22 += shape[1, image] * shape[1, image]
        a1, a2 = best_amplitudes(m1, m2, g11, g12, g22, box)
        size = a1 * (a1 * g11 + 2 * a2 * g12) + a2 * a2 * g22
        sums[0, node] = 2 * (a1 * m1 + a2 * m2) - size
        sums[1, node] = sums[0, node] + RESERVE * line.reach[node] * size


@kernel
def starts_on_line(sums: Array, line: Line, F: float, total: float, free: float, starts: Array) -> int:
    """Write the maxima along u that promise enough to `starts` (MOST_STARTS, 4); return how many."""
    n, explained, promise = line.u.shape[0], sums[0], sums[1]
    top = explained[0]
    for g in range(1, n):
        top = max(top, explained[g])
    need = top - NEED / free * max(total - top, 0.0)
    many = 0
    for g in range(n):
        before, here, after = explained[max(g - 1, 0)], explained[g], explained[min(g + 1, n - 1)]
        if here >= before and here >= after and promise[g] >= need:
            u = _at(line.u, g, max(g - 1, 0), min(g + 1, n - 1), _between(before, here, after))
            many = _add(starts, many, (u, F, here, promise[g]))
    return many


@kernel
def fit(S: Array, total: float, starts: Array, many: int, grid: Grid, problem: Problem,
        work: Scratch) -> bool:  # fmt: skip
    """Descend from the starts; the best place and its facts go to `work`. Returns whether that descent converged."""
    box, converged = problem.box, False
    best, optima = np.inf, 0
    best_u, best_F = starts[0, START_U], starts[0, START_F]
    negative = False
    for image in range(S.shape[0]):
        negative |= S[image] < 0
    for index in range(many):
        if index > 0 and starts[index, PROMISE] < total - best:
            continue  # no place near it can do better
        # Inside the box: at its edge a symmetric shape has no gradient, be it a minimum or a maximum.
        u, F, inside_u, inside_F = starts[index, START_U], starts[index, START_F], 0.25 * box.cell_u, 0.25 * box.cell_F
        u = min(max(u, box.low_u + inside_u), box.high_u - inside_u)
        F = min(max(F, box.low_F + inside_F), box.high_F - inside_F) if box.moves_F else F
        work.place[0], work.place[1] = u, F
        if problem.magnitude:
            begin(S, grid, work)
            good = follow(S, grid, box, work)
            if negative:
                compass(S, grid, box, work)
        else:
            known = Known(starts, optima, best + TIE * total, best * (1 + NEED / problem.n_free))
            good = descend(S, grid, box, known, work)
        rss, u, F = work.facts[RSS], work.place[0], work.place[1]
        if good:  # the rows of earlier starts are not read any more
            starts[optima, START_U], starts[optima, START_F] = u, F
            optima += 1
        same = abs(rss - best) <= TIE * total
        nearer = abs(F - problem.usual_F) < abs(best_F - problem.usual_F) - 1e-6 * box.cell_F
        if (rss < best and not same) or (same and nearer and good):
            best, best_u, best_F, converged = rss, u, F, good
            copy(work.facts, work.facts_best)
            if problem.magnitude:
                copy(work.target, work.target_best)
    work.place[0], work.place[1] = best_u, best_F
    copy(work.facts_best, work.facts)
    if problem.magnitude and not negative:
        copy(work.target_best, work.target)
        turn(S, grid, box, work)
    return converged


@kernel
def residual_of(S: Array, total: float, grid: Grid, magnitude: bool, work: Scratch) -> float:
    """Return ‖S − f‖²: as it was found, or anew if too few digits are left of the difference of ‖S‖² and ‖f‖²."""
    facts = work.facts
    if facts[RSS] > 1e-6 * total:
        return float(facts[RSS])
    shape_at(grid, work.place[0], work.place[1], work.shape)
    rss, last = 0.0, work.shape.shape[0] - 1
    for image in range(S.shape[0]):
        f = facts[AMPLITUDE] * work.shape[0, image] + facts[SECOND_AMPLITUDE] * work.shape[last, image]
        rss += (S[image] - (abs(f) if magnitude else f)) ** 2
    return rss


@kernel
def write(o: int, loaded: tuple[Array, float, float], converged: bool, grid: Grid, problem: Problem, work: Scratch,
          rows: Rows) -> None:  # fmt: skip
    """Write the fit of voxel o and its standard deviations for σ = 1; `loaded` are its images, ‖S‖² and their unit."""
    (S, total, size), K = loaded, grid.powers[0].shape[3]
    facts, box = work.facts, problem.box
    u, F = work.place[0], work.place[1]
    if K == 1 and problem.open_amplitudes[0] and not facts[AMPLITUDE] > 0 and problem.amplitudes[0, 0] == 0:
        skip(o, NO_SIGNAL, rows)  # the amplitude is zero: nothing determines T
        return
    at_bound = u <= box.low_u or u >= box.high_u or (box.moves_F and (box.low_F >= F or box.high_F <= F))
    row = 0
    for index in range(K):
        if problem.open_amplitudes[index]:
            rows.kappa[row, o] = facts[AMPLITUDE + index] * size
            at_bound |= facts[FREE + index] == 0
            row += 1
    if box.moves_F:
        rows.kappa[row, o] = F
        row += 1
    T = min(max(math.exp(u), problem.T_bounds[0]), problem.T_bounds[1])
    for bound in problem.T_bounds:  # the end of what is searched may be inside the bounds
        T = bound if abs(T - bound) < 1e-9 * bound else T
    rows.kappa[row, o] = T
    rows.residual[o] = math.sqrt(residual_of(S, total, grid, problem.magnitude, work) / S.shape[0]) * size
    Q = 0 if at_bound else covariance_of(facts, K, box.moves_F, problem.open_amplitudes, work.matrix)
    for q in range(row + 1):
        if Q == 0 or not converged:
            rows.sd[q, o] = np.nan
        else:
            unit = T / size if q == row else (1 / size if box.moves_F and q == row - 1 else 1.0)
            rows.sd[q, o] = math.sqrt(work.matrix[1, q, q]) * unit
    rows.status[o] = NOT_CONVERGED if not converged else (AT_BOUND if Q == 0 else OK)


@kernel
def skip(o: int, status: int, rows: Rows) -> None:
    """Write that voxel o has no estimate."""
    rows.status[o], rows.residual[o] = status, np.nan
    for index in range(rows.kappa.shape[0]):
        rows.kappa[index, o] = rows.sd[index, o] = np.nan


@kernel
def bounds_for(problem: Problem, size: float, amplitudes: Array) -> None:
    """Write the bounds of the amplitudes (2, 2) in units of the images of this voxel."""
    for index in range(2):
        for side in range(2):
            amplitudes[index, side] = problem.amplitudes[index, side] / size


@kernel
def load_lanes(images: Array, voxels: Array, first: int, problem: Problem, lanes: Lanes) -> int:
    """Load up to LANES voxels from the one at `first`; return how many. Lanes without a voxel are zero."""
    n_lanes = min(LANES, voxels.shape[0] - first)
    for lane in range(LANES):
        lanes.kind[lane], lanes.scale[lane], lanes.power[lane] = NO_SIGNAL, 0.0, 0.0
        if lane < n_lanes:
            found = load(images, voxels[first + lane], problem.has_unit, lanes.S[lane])
            lanes.kind[lane], lanes.scale[lane], lanes.power[lane] = found
        good = lanes.kind[lane] == OK
        for image in range(images.shape[0]):
            lanes.block[image, lane] = np.float32(lanes.S[lane, image]) if good else np.float32(0)
        size = lanes.scale[lane] if good else 1.0
        lanes.total[lane] = np.float32(lanes.power[lane])
        lanes.low[lane] = np.float32(problem.amplitudes[0, 0] / size)
        lanes.high[lane] = np.float32(problem.amplitudes[0, 1] / size)
    return int(n_lanes)


@kernel
def fit_on_grid(images: Array, voxels: Array, coarse: Coarse, grid: Grid, problem: Problem, lanes: Lanes, work: Scratch,
                rows: Rows) -> None:  # fmt: skip
    """Fit `voxels` of images (N, M) by a scan of the coarse grid and descents from its best nodes."""
    N, K, P, R = images.shape[0], grid.powers[0].shape[3], lanes.P, lanes.R
    for first in range(0, voxels.shape[0], LANES):
        n_lanes = load_lanes(images, voxels, first, problem, lanes)
        project(coarse.basis, lanes.block, lanes.compressed)
        if K == 1:
            explain_one(coarse, lanes)
        else:
            product(coarse.atoms[0], coarse.ranks[0], lanes.compressed, P)
            product(coarse.atoms[1], coarse.ranks[1], lanes.compressed, R)
            explain_two(coarse, lanes.scale, problem.amplitudes, work.amplitudes, P, R)
            most_explained(P, coarse.shape[0] * coarse.shape[1], lanes.need)
        needed(lanes.total, problem.n_free, lanes.need)
        ridge_along_u(P, coarse, lanes)
        starts_on_ridge(coarse, problem.n_free, lanes)
        starts_on_grid(P, R, coarse, lanes)
        for lane in range(n_lanes):
            o, S, total, size = voxels[first + lane], lanes.S[lane], lanes.power[lane], lanes.scale[lane]
            rows.rms[o] = math.sqrt(total / N) * size
            if lanes.kind[lane] != OK:
                skip(o, lanes.kind[lane], rows)
                continue
            bounds_for(problem, size, work.amplitudes)
            converged = fit(S, total, lanes.starts[lane], lanes.many[lane], grid, problem, work)
            write(o, (S, total, size), converged, grid, problem, work, rows)


@kernel
def fit_on_line(images: Array, voxels: Array, fields: Array, line: Line, grid: Grid, problem: Problem, work: Scratch,
                rows: Rows) -> None:  # fmt: skip
    """Fit `voxels` of images (N, M) whose field is known in each of them, `fields` (M,): a scan along u, then
    descents.
    """
    N, K, S, sums, starts = images.shape[0], grid.powers[0].shape[3], line.S, line.sums, line.starts
    for index in range(voxels.shape[0]):
        o = voxels[index]
        kind, size, total = load(images, o, problem.has_unit, S)
        F = fields[o]
        rows.rms[o] = math.sqrt(total / N) * size
        if kind == OK and not math.isfinite(F):
            kind = NOT_FINITE
        if kind != OK:
            skip(o, kind, rows)
            continue
        bounds_for(problem, size, work.amplitudes)
        if K == 1:
            scan_line(S, line, grid, F, work.amplitudes, problem.magnitude, sums)
        else:
            scan_line_of_two(S, line, grid, F, work, sums)
        many = starts_on_line(sums, line, F, total, problem.n_free, starts)
        converged = fit(S, total, starts, many, grid, problem, work)
        write(o, (S, total, size), converged, grid, problem, work, rows)
