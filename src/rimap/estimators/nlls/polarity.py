"""Numba kernels: magnitude images of a model that changes sign, S ≈ |Σ Aₖ gₖ|.

For S ≥ 0, Σ(S − |f|)² is the least over all polarities p = ±1 of Σ(p S − f)², and for each of them the problem is
smooth. The polarity of the best fit is found by following the sign of the fit, and by turning images that are near
zero: turning image n changes the sum of squares by 4 Sₙ|fₙ| − 4 Sₙ² hₙ, with hₙ its leverage, as long as the model is
linear.
"""

from __future__ import annotations

import math
from typing import Any

from rimap.estimators.nlls.descent import Box, Known, Scratch, copy, covariance_of, descend
from rimap.estimators.nlls.variable_projection import (
    AMPLITUDE,
    G_F,
    G_U,
    RSS,
    SECOND_AMPLITUDE,
    G,
    Grid,
    columns_at,
    facts_at,
    kernel,
    shape_at,
)

Array = Any

#: How often the polarity may follow the fit, and how often polarities beside the best one are tried.
FOLLOW_ROUNDS, TURN_ROUNDS = 12, 24
#: How much farther than its leverage says an image may pull the fit.
RESERVE = 2.5
#: The images nearest to zero are also turned together, up to this many.
MOST_TOGETHER = 5
#: The search without derivatives ends at this share of a cell.
LEAST_SHARE = 1e-7


@kernel
def follow(S: Array, grid: Grid, box: Box, work: Scratch) -> bool:
    """Descend with the polarity of `work.target`, then with that of the fit, until it stays; return whether it
    converged.
    """
    converged = True
    for _ in range(FOLLOW_ROUNDS):
        converged = descend(work.target, grid, box, Known(work.turned, 0, math.inf, math.inf), work)
        if not _take_polarity(S, grid, work):
            return converged
    _settle_here(S, grid, box, work)
    return converged


@kernel
def _take_polarity(S: Array, grid: Grid, work: Scratch) -> bool:
    """Give `work.target` the polarity of the fit at `work.place`; return whether that changes it."""
    shape_at(grid, work.place[0], work.place[1], work.shape)
    a1, a2 = work.facts[AMPLITUDE], work.facts[SECOND_AMPLITUDE]
    changed, last = False, work.shape.shape[0] - 1
    for image in range(S.shape[0]):
        f = a1 * work.shape[0, image] + a2 * work.shape[last, image]
        signed = -S[image] if f < 0 else S[image]
        changed |= f != 0 and signed != work.target[image]
        work.target[image] = signed
    return changed


@kernel
def _settle_here(S: Array, grid: Grid, box: Box, work: Scratch) -> None:
    """Write the facts of |Σ Aₖ gₖ| at `work.place`, with the polarity of the first column."""
    begin(S, grid, work)
    total = 0.0
    for image in range(S.shape[0]):
        total += S[image] * S[image]
    facts_at(
        work.target, total, grid, (work.place[0], work.place[1]), work.amplitudes, box.moves_F, work.columns, work.facts
    )


@kernel
def begin(S: Array, grid: Grid, work: Scratch) -> None:
    """Give `work.target` the polarity of the first column at `work.place`."""
    shape_at(grid, work.place[0], work.place[1], work.shape)
    for image in range(S.shape[0]):
        work.target[image] = -S[image] if work.shape[0, image] < 0 else S[image]


@kernel
def turn(S: Array, grid: Grid, box: Box, work: Scratch) -> None:
    """Turn images near zero, alone and together, as long as that lowers the sum of squares; S ≥ 0."""
    N, ratio, polarity, facts = S.shape[0], work.turned[0], work.turned[1], work.turned[2]
    for _ in range(TURN_ROUNDS):
        u, F, rss = work.place[0], work.place[1], work.facts[RSS]
        copy(work.facts, facts)
        copy(work.target, polarity)
        if not _reach(S, grid, box, work, ratio):
            return
        better = False
        for attempt in range(N + MOST_TOGETHER - 1):
            copy(polarity, work.target)
            if attempt < N:
                if not ratio[attempt] < 1:
                    continue
                work.target[attempt] = -work.target[attempt]
            elif not _turn_nearest(ratio, attempt - N + 2, work.target):
                continue
            work.place[0], work.place[1] = u, F
            follow(S, grid, box, work)
            if work.facts[RSS] < rss * (1 - 1e-9):
                better = True
                break
        if not better:
            copy(polarity, work.target)
            copy(facts, work.facts)
            work.place[0], work.place[1] = u, F
            return


@kernel
def _turn_nearest(ratio: Array, many: int, target: Array) -> bool:
    """Turn the `many` images of the least ratio together, if all of them are worth it."""
    limit = -1.0
    for _ in range(many):  # the least ratio above the last one
        following = math.inf
        for image in range(target.shape[0]):
            if limit < ratio[image] < following:
                following = ratio[image]
        limit = following
    if not limit < 1:
        return False
    for image in range(target.shape[0]):
        if ratio[image] <= limit:
            target[image] = -target[image]
    return True


@kernel
def _reach(S: Array, grid: Grid, box: Box, work: Scratch, ratio: Array) -> bool:
    """Write |fₙ|/(Sₙ hₙ), with a reserve: what exceeds 1 is not worth turning. False if the leverage is not known."""
    K, N = work.shape.shape
    Q = covariance_of(work.facts, K, box.moves_F, (True, True), work.matrix)
    if Q == 0:
        return False
    columns_at(grid, work.place[0], work.place[1], box.moves_F, work.columns)
    D, C = work.columns, work.matrix[1]
    a1, a2, last = work.facts[AMPLITUDE], work.facts[SECOND_AMPLITUDE], K - 1
    J = work.turned[3]
    for image in range(N):
        J[0], J[last] = D[G, 0, image], D[G, last, image]
        if box.moves_F:
            J[Q - 2] = a1 * D[G_F, 0, image] + a2 * D[G_F, last, image]
        J[Q - 1] = a1 * D[G_U, 0, image] + a2 * D[G_U, last, image]
        leverage = 0.0
        for i in range(Q):
            for j in range(Q):
                leverage += J[i] * C[i, j] * J[j]
        f = a1 * D[G, 0, image] + a2 * D[G, last, image]
        pull = RESERVE * min(leverage, 1.0) * S[image]
        ratio[image] = abs(f) / pull if pull > 0 else math.inf
    return True


@kernel
def compass(S: Array, grid: Grid, box: Box, work: Scratch) -> None:
    """Lower Σ(S − |f|)² without derivatives: where S < 0 its minimum may be at a kink."""
    _settle_here(S, grid, box, work)
    u, F, rss, share = work.place[0], work.place[1], work.facts[RSS], 0.25
    while share > LEAST_SHARE:
        better = False
        for way in range(4 if box.moves_F else 2):
            step = share if way % 2 else -share
            work.place[0] = min(max(u + (step * box.cell_u if way < 2 else 0.0), box.low_u), box.high_u)
            work.place[1] = (
                min(max(F + (step * box.cell_F if way > 1 else 0.0), box.low_F), box.high_F) if way > 1 else F
            )
            _settle_here(S, grid, box, work)
            if work.facts[RSS] < rss:
                u, F, rss, better = work.place[0], work.place[1], work.facts[RSS], True
                break
        if not better:
            share *= 0.5
    work.place[0], work.place[1] = u, F
    _settle_here(S, grid, box, work)
