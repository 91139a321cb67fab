"""Numba kernels: damped Newton steps of one voxel in (u, F) within the box, and what the optimum is worth."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rimap.estimators.nlls.variable_projection import (
    CROSS_1F,
    CROSS_1U,
    CROSS_2F,
    CROSS_2U,
    GRADIENT_F,
    GRADIENT_U,
    GRAM_11,
    GRAM_12,
    GRAM_22,
    HESSIAN_FF,
    HESSIAN_UF,
    HESSIAN_UU,
    N_FACTS,
    N_ROWS,
    RSS,
    SQUARE_FF,
    SQUARE_UF,
    SQUARE_UU,
    Grid,
    facts_at,
    kernel,
)

Array = Any

#: Newton steps of a descent at most.
MOST_STEPS = 40
#: A step of this many cells of the coarse grid ends a descent: Newton's next one would be of its square.
SMALL_STEP = 2e-4
#: A Newton step of this many cells is taken without looking at where it leads.
UNSEEN_STEP = 2e-5
#: A matrix is singular where so little of a parameter's information is its own.
SINGULAR = 1e-13
#: Relative change of the sum of squares that is rounding.
ROUNDING = 4e-15
#: A valley is at most this many times as deep as its curvature says, for a start that is half a cell from its bottom.
TRUST_IN_DEPTH = 4.0
#: The longest step, cells of the coarse grid: along a flat ridge the next optimum can be far.
LONGEST_STEP = 3.0
#: A step that ends within this many cells of a known optimum leads to it.
SAME_VALLEY = 0.3
#: How many cells from its start another valley begins.
FARTHEST = 4.0
#: How far a descent that ends on a saddle is moved along F, in cells, before it continues.
NUDGE = 0.25
#: Least curvature that counts, relative to the largest.
LEAST_CURVATURE = 1e-10


class Box(NamedTuple):
    """Where (u, F) may be, and the size of a cell of the coarse grid."""

    low_u: float
    high_u: float
    low_F: float
    high_F: float
    cell_u: float
    cell_F: float
    moves_F: bool


class Known(NamedTuple):
    """The optima that earlier descents have reached: the `found` first rows (u, F, …) of `places`.

    `least` is the lowest sum of squares, `above_noise` the smallest sum that noise distinguishes from it; both are
    infinite before the first descent.
    """

    places: Array
    found: int
    least: float
    above_noise: float


class Scratch(NamedTuple):
    """What a thread writes to while it fits one voxel.

    `place` (u, F) and its `facts`, those of a trial, the best ones so far with their target; the `target` S or ±S;
    columns with their derivatives (N_ROWS, K, N); `shape` (K, N); `matrix` (2, 4, 4) an information matrix and its
    inverse; `amplitudes` (2, 2) their bounds; `turned` (4, ·) rows of what `polarity.turn` keeps.
    """

    place: Array
    facts: Array
    facts_trial: Array
    facts_best: Array
    target: Array
    target_best: Array
    columns: Array
    shape: Array
    matrix: Array
    amplitudes: Array
    turned: Array


def scratch(K: int, N: int) -> Scratch:
    """Return new arrays for K columns of N images."""
    return Scratch(
        place=np.zeros(2),
        facts=np.zeros(N_FACTS),
        facts_trial=np.zeros(N_FACTS),
        facts_best=np.zeros(N_FACTS),
        target=np.zeros(N),
        target_best=np.zeros(N),
        columns=np.zeros((N_ROWS, K, N)),
        shape=np.zeros((K, N)),
        matrix=np.zeros((2, 4, 4)),
        amplitudes=np.zeros((2, 2)),
        turned=np.zeros((4, max(N, N_FACTS))),
    )


@kernel
def copy(source: Array, target: Array) -> None:
    """Copy as many values as both have."""
    for index in range(min(source.shape[0], target.shape[0])):
        target[index] = source[index]


@kernel
def newton_step(facts: Array, damping: float, box: Box, held: tuple[bool, bool]) -> tuple[float, float]:
    """Return the step in units of cells that lowers the quadratic model, at most LONGEST_STEP long; `held` stay where
    they are.

    Directions of negative curvature are followed downhill: the eigenvalues λ of the Hessian become |λ| + damping.
    """
    gu, a = facts[GRADIENT_U] * box.cell_u, facts[HESSIAN_UU] * box.cell_u**2
    if held[1]:
        du = 0.0 if held[0] else -gu / max(abs(a) + damping, 1e-300)
        return min(max(du, -1.0), 1.0), 0.0
    gF, d = facts[GRADIENT_F] * box.cell_F, facts[HESSIAN_FF] * box.cell_F**2
    if held[0]:
        return 0.0, min(max(-gF / max(abs(d) + damping, 1e-300), -1.0), 1.0)
    b = facts[HESSIAN_UF] * box.cell_u * box.cell_F
    det = (a + damping) * (d + damping) - b * b
    if a > 0 and d > 0 and det > LEAST_CURVATURE * (a + d) ** 2:
        du, dF = (gF * b - gu * (d + damping)) / det, (gu * b - gF * (a + damping)) / det
    else:
        middle, spread = 0.5 * (a + d), math.hypot(0.5 * (a - d), b)
        large, small = abs(middle + spread), abs(middle - spread)
        floor = LEAST_CURVATURE * max(large, small) + 1e-300 + damping
        angle = (
            0.5 * math.atan2(2 * b, a - d) if b != 0 or a != d else 0.0
        )  # of the eigenvector of the first eigenvalue
        c, s = math.cos(angle), math.sin(angle)
        along, across = -(c * gu + s * gF) / (large + floor), -(c * gF - s * gu) / (small + floor)
        du, dF = c * along - s * across, s * along + c * across
    shorter = LONGEST_STEP / max(abs(du), abs(dF), LONGEST_STEP)
    return shorter * du, shorter * dF


@kernel
def _is_known(u: float, F: float, known: Known, box: Box) -> bool:
    """Return whether (u, F) is the place of a known optimum."""
    for index in range(known.found):
        away_F = abs(F - known.places[index, 1]) / box.cell_F if box.moves_F else 0.0
        if max(abs(u - known.places[index, 0]) / box.cell_u, away_F) < SAME_VALLEY:
            return True
    return False


@kernel
def descend(S: Array, grid: Grid, box: Box, known: Known, work: Scratch) -> bool:
    """Lower ‖S − Σ Aₖ gₖ(u, F)‖² from work.place[:2], which becomes the optimum; its facts are in work.facts.

    It gives up in a `known` valley, in one that is not as deep by its curvature, and above the noise far from where it
    began: each valley of the coarse grid has a start of its own. Returns whether it converged.
    """
    u, F = work.place[0], work.place[1]
    begin_u, begin_F = u, F
    facts, trial = work.facts, work.facts_trial
    total = 0.0
    for image in range(S.shape[0]):
        total += S[image] * S[image]
    facts_at(S, total, grid, (u, F), work.amplitudes, box.moves_F, work.columns, facts)
    damping, nudged = 0.0, False
    for _ in range(MOST_STEPS):
        gu, gF = facts[GRADIENT_U], facts[GRADIENT_F]
        u_is_held = (u <= box.low_u and gu > 0) or (u >= box.high_u and gu < 0)
        F_is_held = not box.moves_F or (box.low_F >= F and gF > 0) or (box.high_F <= F and gF < 0)
        du, dF = newton_step(facts, damping, box, (u_is_held, F_is_held))
        u1 = min(max(u + du * box.cell_u, box.low_u), box.high_u)
        F1 = min(max(F + dF * box.cell_F, box.low_F), box.high_F) if box.moves_F else F
        in_a_valley = facts[HESSIAN_UU] > 0 and (
            not box.moves_F or facts[HESSIAN_UU] * facts[HESSIAN_FF] > facts[HESSIAN_UF] ** 2
        )
        on_a_saddle = not (u_is_held or F_is_held or in_a_valley)
        size = max(abs(u1 - u) / box.cell_u, abs(F1 - F) / box.cell_F)
        if size == 0.0 and not (on_a_saddle and not nudged):
            work.place[0], work.place[1] = u, F
            return True
        # A whole Newton step s lowers the sum of squares by −g·s, to second order.
        whole = in_a_valley and max(abs(du), abs(dF)) < LONGEST_STEP and damping == 0.0
        depth = facts[RSS] + TRUST_IN_DEPTH * (gu * du * box.cell_u + gF * dF * box.cell_F)
        far = max(abs(u1 - begin_u) / box.cell_u, abs(F1 - begin_F) / box.cell_F)
        hopeless = whole and (depth > known.least or _is_known(u1, F1, known, box))
        if hopeless or (far > FARTHEST and facts[RSS] > known.above_noise):
            work.place[0], work.place[1] = u, F
            return False
        if whole and size < UNSEEN_STEP:
            work.place[0], work.place[1] = u1, F1
            return True
        facts_at(S, total, grid, (u1, F1), work.amplitudes, box.moves_F, work.columns, trial)
        if trial[RSS] <= facts[RSS] + ROUNDING * total:
            copy(trial, facts)
            u, F = u1, F1
            damping = 0.2 * damping if damping > 1e-12 * total else 0.0
            if size < SMALL_STEP:
                if on_a_saddle and not nudged:  # a symmetric shape has no gradient between its two valleys
                    nudged = True
                    F = min(max(F + NUDGE * box.cell_F, box.low_F), box.high_F)
                    facts_at(S, total, grid, (u, F), work.amplitudes, box.moves_F, work.columns, facts)
                    continue
                work.place[0], work.place[1] = u, F
                return True
        else:
            if size < SMALL_STEP:  # no better place is near: rounding is all that is left
                work.place[0], work.place[1] = u, F
                return True
            scale = max(abs(facts[HESSIAN_UU]) * box.cell_u**2, abs(facts[HESSIAN_FF]) * box.cell_F**2, 1e-12 * total)
            damping = max(8 * damping, 0.5 * scale)
    work.place[0], work.place[1] = u, F
    return False


@kernel
def covariance_of(facts: Array, K: int, moves_F: bool, open_amplitudes: tuple[bool, bool], matrix: Array) -> int:
    """Write the inverse information of (A₁, A₂, F, u) for σ = 1 to matrix[1] (4, 4); return how many parameters it has.

    Their order is that of what is estimated: open amplitudes, the field if it moves, u. Returns 0 if the matrix is
    singular.
    """
    M, inverse = matrix[0], matrix[1]
    first, second = open_amplitudes[0], open_amplitudes[1] and K == 2
    a, b = 0, int(first)  # the places of A₁, A₂, F and u
    f = b + int(second)
    t = f + int(moves_F)
    M[t, t] = facts[SQUARE_UU]
    if moves_F:
        M[f, f], M[f, t] = facts[SQUARE_FF], facts[SQUARE_UF]
    if first:
        M[a, f], M[a, t], M[a, a] = facts[CROSS_1F], facts[CROSS_1U], facts[GRAM_11]
    if second:
        M[b, f], M[b, t], M[b, b] = facts[CROSS_2F], facts[CROSS_2U], facts[GRAM_22]
    if first and second:
        M[a, b] = facts[GRAM_12]
    return t + 1 if invert(M, t + 1, inverse) else 0


@kernel
def invert(M: Array, n: int, inverse: Array) -> bool:
    """Write the inverse of the symmetric M (its upper triangle, n × n), whatever the units; false if it is singular."""
    if n == 2:  # of an amplitude and u, most often: in closed form
        a, d, rest = M[0, 0], M[1, 1], 1 - M[0, 1] * M[0, 1] / max(M[0, 0] * M[1, 1], 1e-300)
        if not (a > 0 and d > 0 and rest > SINGULAR):
            return False
        inverse[0, 0], inverse[1, 1] = 1 / (a * rest), 1 / (d * rest)
        inverse[0, 1] = inverse[1, 0] = -M[0, 1] / (a * d * rest)
        return True
    scale = inverse[:, n - 1]  # scratch until that column is written
    for i in range(n):
        if not M[i, i] > 0:
            return False
        scale[i] = 1 / math.sqrt(M[i, i])
    d = (scale[0], scale[1], scale[2], scale[3])
    for i in range(n):
        for j in range(i, n):
            M[i, j] *= d[i] * d[j]
    # Cholesky: M = Rᵀ R, R in place.
    for i in range(n):
        for k in range(i):
            M[i, i] -= M[k, i] * M[k, i]
        if not M[i, i] > SINGULAR:
            return False
        M[i, i] = math.sqrt(M[i, i])
        for j in range(i + 1, n):
            for k in range(i):
                M[i, j] -= M[k, i] * M[k, j]
            M[i, j] /= M[i, i]
    for c in range(n):  # Rᵀ y = e_c, R x = y
        for i in range(n):
            total = 1.0 if i == c else 0.0
            for k in range(i):
                total -= M[k, i] * inverse[k, c]
            inverse[i, c] = total / M[i, i]
        for i in range(n - 1, -1, -1):
            total = inverse[i, c]
            for k in range(i + 1, n):
                total -= M[i, k] * inverse[k, c]
            inverse[i, c] = total / M[i, i]
    for i in range(n):
        for j in range(n):
            inverse[i, j] *= d[i] * d[j]
    return True
