"""Numba kernels: the least squares of one voxel at one place (u, F), amplitudes solved, with gradient and curvature.

S ≈ Σₖ Aₖ gₖ(u, F), u = log T. For given (u, F) the amplitudes are a bounded linear problem, so ½‖S − Σ Aₖ gₖ‖² is a
function of (u, F) alone (Golub & Pereyra 1973, doi:10.1137/0710036). Its gradient is −r·f′, with r the residual and f′
the derivative of the fit at fixed amplitudes, and its Hessian is the Schur complement of the free amplitudes in the
Hessian of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from rimap.estimators.table import ShapeTable
from rimap.estimators.table_kernels import (
    FAST,
    curvature_of,
    hermite,
    interval,
    nodes_along,
    nodes_at,
    nodes_bend,
    slope_of,
    value_of,
)
from rimap.kernels import njit

Array = Any
Kernel = TypeVar("Kernel", bound=Callable[..., Any])

#: What is written about a place: the residual sum of squares, the amplitudes, whether each is free (1) or at a bound
#: (0), the gradient, the Hessian, the products gₖ·gₗ, gₖ·f′ and f′·f′, and of one amplitude S·g, S·g′, S·g″ and g·g″.
(
    RSS, AMPLITUDE, SECOND_AMPLITUDE, FREE, SECOND_FREE, GRADIENT_U, GRADIENT_F, HESSIAN_UU, HESSIAN_UF, HESSIAN_FF,
    GRAM_11, GRAM_12, GRAM_22, CROSS_1U, CROSS_2U, CROSS_1F, CROSS_2F, SQUARE_UU, SQUARE_UF, SQUARE_FF,
    IMAGES_G, IMAGES_U, IMAGES_F, IMAGES_UU, IMAGES_UF, IMAGES_FF, G_UU_PRODUCT, G_UF_PRODUCT, G_FF_PRODUCT,
) = range(29)  # fmt: skip
#: Numbers that `evaluate` leaves of a place (u, F).
N_FACTS = 29
#: Rows of the scratch of `evaluate`: columns and their derivatives in (u, F).
G, G_U, G_UU, G_F, G_UF, G_FF = range(6)
#: Rows of the table: the shape, its slopes and their mixed derivatives.
N_ROWS = 6
#: Two columns whose squared sine is below this are one: the amplitudes are then found on the edges of their box.
COLLINEAR = 1e-13


def kernel(function: Kernel) -> Kernel:
    """Compile; sums may be reordered, so that they run on vectors. Such a kernel makes no array."""
    return cast("Kernel", njit(fastmath=FAST, error_model="numpy", counts_references=False)(function))


class Grid(NamedTuple):
    """A `ShapeTable` as kernels read it; `n_u` and `n_F` count intervals."""

    powers: Any
    low_u: float
    step_u: float
    n_u: int
    low_F: float
    step_F: float
    n_F: int

    @classmethod
    def of(cls, table: ShapeTable) -> Grid:
        """Return the arrays and numbers of a table."""
        return cls(table.powers, table.low_u, table.step_u, table.n_u - 1, table.low_F, table.step_F, table.n_intervals)


@kernel
def shape_at(grid: Grid, u: float, F: float, out: Array) -> None:
    """Write the columns gₖ to `out` (K, N)."""
    k, t = interval(u, grid.low_u, grid.step_u, grid.n_u)
    j, x = interval(F, grid.low_F, grid.step_F, grid.n_F)
    w, p = hermite(t, grid.step_u), grid.powers
    for c in range(out.shape[0]):
        for n in range(out.shape[1]):
            out[c, n] = value_of(w, nodes_at(p, x, j, k, c, n))


@kernel
def shapes_at(grid: Grid, u: Array, F: Array, out: Array) -> None:
    """Write the columns gₖ at M places to `out` (M, K, N)."""
    for index in range(u.shape[0]):
        shape_at(grid, u[index], F[index], out[index])


@kernel
def columns_at(grid: Grid, u: float, F: float, with_F: bool, D: Array) -> None:
    """Write the columns and their derivatives to D (N_ROWS, K, N); those in F only `with_F`."""
    k, t = interval(u, grid.low_u, grid.step_u, grid.n_u)
    j, x = interval(F, grid.low_F, grid.step_F, grid.n_F)
    w, p, per_F = hermite(t, grid.step_u), grid.powers, 1 / grid.step_F
    for c in range(D.shape[1]):
        g, g_u, g_uu = D[G, c], D[G_U, c], D[G_UU, c]
        g_F, g_uF, g_FF = D[G_F, c], D[G_UF, c], D[G_FF, c]
        for image in range(D.shape[2]):
            here = nodes_at(p, x, j, k, c, image)
            g[image] = value_of(w, here)
            g_u[image] = slope_of(w, here)
            g_uu[image] = curvature_of(w, here)
        if with_F:
            for image in range(D.shape[2]):
                along_F = nodes_along(p, x, j, k, c, image)
                g_F[image] = per_F * value_of(w, along_F)
                g_uF[image] = per_F * slope_of(w, along_F)
                bend = nodes_bend(p, x, j, k, c, image)
                g_FF[image] = per_F * per_F * value_of(w, bend)


@kernel
def best_amplitude(along: float, square: float, low: float, high: float) -> float:
    """Return the A within its bounds that minimises A² g·g − 2 A S·g, from S·g and g·g."""
    return min(max(along / square if square > 0 else 0.0, low), high)


@kernel
def best_amplitudes(m1: float, m2: float, g11: float, g12: float, g22: float, box: Array) -> tuple[float, float]:
    """Return the two amplitudes within their box (2, 2) that minimise ‖S − A₁g₁ − A₂g₂‖², from mₖ = S·gₖ and gₖₗ =
    gₖ·gₗ.

    The problem is convex: if the solution without bounds is outside the box, the best one is on an edge.
    """
    det = g11 * g22 - g12 * g12
    if det > COLLINEAR * g11 * g22:
        a1, a2 = (m1 * g22 - m2 * g12) / det, (m2 * g11 - m1 * g12) / det
        if box[0, 0] <= a1 <= box[0, 1] and box[1, 0] <= a2 <= box[1, 1]:
            return a1, a2
    best, b1, b2 = math.inf, box[0, 0], box[1, 0]
    for edge in range(4):
        side = edge % 2
        if edge < 2:
            a1 = box[0, side]
            a2 = best_amplitude(m2 - g12 * a1, g22, box[1, 0], box[1, 1])
        else:
            a2 = box[1, side]
            a1 = best_amplitude(m1 - g12 * a2, g11, box[0, 0], box[0, 1])
        if not (math.isfinite(a1) and math.isfinite(a2)):
            continue
        cost = a1 * (a1 * g11 + 2 * a2 * g12 - 2 * m1) + a2 * (a2 * g22 - 2 * m2)
        if cost < best:
            best, b1, b2 = cost, a1, a2
    return b1, b2


@kernel
def facts_at(S: Array, total: float, grid: Grid, place: tuple[float, float], box: Array, with_F: bool, columns: Array,
             facts: Array) -> None:  # fmt: skip
    """Write what `facts` (N_FACTS) lists of the place (u, F), from images S (N) with ‖S‖² = `total`.

    `box` (2, 2) bounds the amplitudes. `columns` (N_ROWS, K, N) is scratch; derivatives in F are found only `with_F`.
    """
    if columns.shape[1] == 1:
        if with_F:
            _sums_along_both(S, grid, place, facts)
        else:
            _sums_along_u(S, grid, place, facts)
        _one_amplitude(total, box, facts)
    else:
        columns_at(grid, place[0], place[1], with_F, columns)
        _two_amplitudes(S, columns, box, with_F, facts)


@kernel
def _sums_along_u(S: Array, grid: Grid, place: tuple[float, float], facts: Array) -> None:
    """Write the products of S, g and its derivatives in u. (No array is written within the loop: it runs on
    vectors.)
    """
    k, t = interval(place[0], grid.low_u, grid.step_u, grid.n_u)
    j, x = interval(place[1], grid.low_F, grid.step_F, grid.n_F)
    w, p = hermite(t, grid.step_u), grid.powers
    Sg = gg = Su = gu = uu = Suu = guu = 0.0
    for image in range(S.shape[0]):
        here = nodes_at(p, x, j, k, 0, image)
        s = S[image]
        g = value_of(w, here)
        g_u = slope_of(w, here)
        g_uu = curvature_of(w, here)
        Sg, gg, Su, gu = Sg + s * g, gg + g * g, Su + s * g_u, gu + g * g_u
        uu, Suu, guu = uu + g_u * g_u, Suu + s * g_uu, guu + g * g_uu
    facts[IMAGES_G], facts[GRAM_11], facts[IMAGES_U], facts[CROSS_1U] = Sg, gg, Su, gu
    facts[SQUARE_UU], facts[IMAGES_UU], facts[G_UU_PRODUCT] = uu, Suu, guu


@kernel
def _sums_along_both(S: Array, grid: Grid, place: tuple[float, float], facts: Array) -> None:
    """Write the products of S, g and its derivatives in u and F in the same way."""
    k, t = interval(place[0], grid.low_u, grid.step_u, grid.n_u)
    j, x = interval(place[1], grid.low_F, grid.step_F, grid.n_F)
    w, p, per_F = hermite(t, grid.step_u), grid.powers, 1 / grid.step_F
    Sg = gg = Su = gu = uu = Suu = guu = SF = gF = uF = FF = SuF = guF = SFF = gFF = 0.0
    for image in range(S.shape[0]):
        here = nodes_at(p, x, j, k, 0, image)
        s = S[image]
        g = value_of(w, here)
        g_u = slope_of(w, here)
        g_uu = curvature_of(w, here)
        along_F = nodes_along(p, x, j, k, 0, image)
        g_F = value_of(w, along_F)
        g_uF = slope_of(w, along_F)
        bend = nodes_bend(p, x, j, k, 0, image)
        g_FF = value_of(w, bend)
        Sg, gg, Su, gu = Sg + s * g, gg + g * g, Su + s * g_u, gu + g * g_u
        uu, Suu, guu = uu + g_u * g_u, Suu + s * g_uu, guu + g * g_uu
        SF, gF, uF, FF = SF + s * g_F, gF + g * g_F, uF + g_u * g_F, FF + g_F * g_F
        SuF, guF, SFF, gFF = SuF + s * g_uF, guF + g * g_uF, SFF + s * g_FF, gFF + g * g_FF
    facts[IMAGES_G], facts[GRAM_11], facts[IMAGES_U], facts[CROSS_1U] = Sg, gg, Su, gu
    facts[SQUARE_UU], facts[IMAGES_UU], facts[G_UU_PRODUCT] = uu, Suu, guu
    square = per_F * per_F
    facts[IMAGES_F], facts[CROSS_1F], facts[SQUARE_UF], facts[SQUARE_FF] = (
        SF * per_F,
        gF * per_F,
        uF * per_F,
        FF * square,
    )
    facts[IMAGES_UF], facts[G_UF_PRODUCT] = SuF * per_F, guF * per_F
    facts[IMAGES_FF], facts[G_FF_PRODUCT] = SFF * square, gFF * square


@kernel
def _one_amplitude(total: float, box: Array, facts: Array) -> None:
    """Solve the amplitude and write the rest of the facts, from the products of S, g and its derivatives."""
    along, square = facts[IMAGES_G], facts[GRAM_11]
    a = best_amplitude(along, square, box[0, 0], box[0, 1])
    free = box[0, 0] < a < box[0, 1] and square > 0
    facts[RSS] = max(total - a * (2 * along - a * square), 0.0)
    facts[AMPLITUDE], facts[SECOND_AMPLITUDE], facts[FREE], facts[SECOND_FREE] = a, 0.0, 1.0 if free else 0.0, 0.0
    # r·g′ with the residual r = S − A g
    r_u, r_F = facts[IMAGES_U] - a * facts[CROSS_1U], facts[IMAGES_F] - a * facts[CROSS_1F]
    r_uu = facts[IMAGES_UU] - a * facts[G_UU_PRODUCT]
    r_uF, r_FF = facts[IMAGES_UF] - a * facts[G_UF_PRODUCT], facts[IMAGES_FF] - a * facts[G_FF_PRODUCT]
    facts[GRADIENT_U], facts[GRADIENT_F] = -a * r_u, -a * r_F
    # From the products of g and g′ to those of g and f′ = A g′.
    facts[CROSS_1U], facts[CROSS_1F] = a * facts[CROSS_1U], a * facts[CROSS_1F]
    facts[SQUARE_UU] *= a * a
    facts[SQUARE_UF] *= a * a
    facts[SQUARE_FF] *= a * a
    # The Schur complement of A: H − (g·f′ − r·g′)²/g·g.
    per, h_u, h_F = 1 / square if free else 0.0, facts[CROSS_1U] - r_u, facts[CROSS_1F] - r_F
    facts[HESSIAN_UU] = facts[SQUARE_UU] - a * r_uu - per * h_u * h_u
    facts[HESSIAN_UF] = facts[SQUARE_UF] - a * r_uF - per * h_u * h_F
    facts[HESSIAN_FF] = facts[SQUARE_FF] - a * r_FF - per * h_F * h_F


@kernel
def _dot(a: Array, b: Array) -> float:
    total = 0.0
    for n in range(a.shape[0]):
        total += a[n] * b[n]
    return total


@kernel
def _two_amplitudes(S: Array, D: Array, box: Array, with_F: bool, facts: Array) -> None:
    """Solve two amplitudes and write all facts, from the columns and derivatives D (N_ROWS, 2, N)."""
    g1, g2 = D[G, 0], D[G, 1]
    g11, g12, g22 = _dot(g1, g1), _dot(g1, g2), _dot(g2, g2)
    a1, a2 = best_amplitudes(_dot(S, g1), _dot(S, g2), g11, g12, g22, box)
    free1 = box[0, 0] < a1 < box[0, 1] and g11 > 0
    free2 = box[1, 0] < a2 < box[1, 1] and g22 > 0
    rss = ru = rF = ruu = ruF = rFF = suu = suF = sFF = c1u = c2u = c1F = c2F = q1u = q2u = q1F = q2F = 0.0
    u1, u2, uu1, uu2 = D[G_U, 0], D[G_U, 1], D[G_UU, 0], D[G_UU, 1]
    for image in range(S.shape[0]):
        residual = S[image] - a1 * g1[image] - a2 * g2[image]
        f_u, f_uu = a1 * u1[image] + a2 * u2[image], a1 * uu1[image] + a2 * uu2[image]
        rss += residual * residual
        ru += residual * f_u
        ruu += residual * f_uu
        suu += f_u * f_u
        c1u += g1[image] * f_u
        q1u += residual * u1[image]
        c2u += g2[image] * f_u
        q2u += residual * u2[image]
    if with_F:
        F1, F2, uF1, uF2, FF1, FF2 = (
            D[G_F, 0], D[G_F, 1], D[G_UF, 0], D[G_UF, 1], D[G_FF, 0], D[G_FF, 1],
        )  # fmt: skip
        for image in range(S.shape[0]):
            residual = S[image] - a1 * g1[image] - a2 * g2[image]
            f_u, f_F = a1 * u1[image] + a2 * u2[image], a1 * F1[image] + a2 * F2[image]
            rF += residual * f_F
            ruF += residual * (a1 * uF1[image] + a2 * uF2[image])
            rFF += residual * (a1 * FF1[image] + a2 * FF2[image])
            suF += f_u * f_F
            sFF += f_F * f_F
            c1F += g1[image] * f_F
            q1F += residual * F1[image]
            c2F += g2[image] * f_F
            q2F += residual * F2[image]
    facts[RSS], facts[AMPLITUDE], facts[SECOND_AMPLITUDE] = rss, a1, a2
    facts[FREE], facts[SECOND_FREE] = 1.0 if free1 else 0.0, 1.0 if free2 else 0.0
    facts[GRADIENT_U], facts[GRADIENT_F] = -ru, -rF
    facts[GRAM_11], facts[GRAM_12], facts[GRAM_22] = g11, g12, g22
    facts[CROSS_1U], facts[CROSS_2U], facts[CROSS_1F], facts[CROSS_2F] = c1u, c2u, c1F, c2F
    facts[SQUARE_UU], facts[SQUARE_UF], facts[SQUARE_FF] = suu, suF, sFF
    # The Schur complement of the free amplitudes: H − Cᵀ (gₖ·gₗ)⁻¹ C. C is gₖ·f′ for Gauss-Newton, and gₖ·f′ − r·gₖ′
    # for Newton.
    i11 = i12 = i22 = 0.0
    if free1 and free2:
        det = max(g11 * g22 - g12 * g12, 1e-300)
        i11, i12, i22 = g22 / det, -g12 / det, g11 / det
    elif free1:
        i11 = 1 / g11
    elif free2:
        i22 = 1 / g22
    h1u, h2u, h1F, h2F = c1u - q1u, c2u - q2u, c1F - q1F, c2F - q2F
    facts[HESSIAN_UU] = suu - ruu - i11 * h1u * h1u - 2 * i12 * h1u * h2u - i22 * h2u * h2u
    facts[HESSIAN_UF] = suF - ruF - i11 * h1u * h1F - i12 * (h1u * h2F + h2u * h1F) - i22 * h2u * h2F
    facts[HESSIAN_FF] = sFF - rFF - i11 * h1F * h1F - 2 * i12 * h1F * h2F - i22 * h2F * h2F
