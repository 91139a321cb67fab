"""Functions that the kernels of all estimators share: the position of a point in the table of a series, and
interpolation.
"""

from __future__ import annotations

from typing import NamedTuple

from numba.extending import overload

from rimap.arrays import Array
from rimap.estimators.table import SLOPE, VALUE, hermite_weights
from rimap.kernels import njit

#: Sums may be reordered; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}

#: The weights of cubic Hermite interpolation, compiled.
hermite = njit(nogil=True, cache=True, fastmath=FAST, inline="always")(hermite_weights)


@njit(nogil=True, cache=True, fastmath=FAST, inline="always")
def interval(x, low, step, n):  # type: ignore[no-untyped-def]
    """Return the interval of x among n intervals that begin at `low`, and how far x is past its beginning (in
    steps).
    """
    place = (x - low) / step
    j = min(max(int(place), 0), n - 1)
    return j, place - j


def at_field(powers: Array, x: Array, j: Array, k: Array, row: int, column: int, n: Array) -> Array:
    """Return Σₚ powers[p][j, k, row, column, n] xᵖ: for kernels, which compile it for each number of powers."""
    raise NotImplementedError("for kernels")


def along_field(powers: Array, x: Array, j: Array, k: Array, row: int, column: int, n: Array) -> Array:
    """Return the derivative of `at_field` in x."""
    raise NotImplementedError("for kernels")


def bend_of_field(powers: Array, x: Array, j: Array, k: Array, row: int, column: int, n: Array) -> Array:
    """Return the second derivative of `at_field` in x."""
    raise NotImplementedError("for kernels")


@overload(at_field, inline="always")
def _at_field(powers, x, j, k, row, column, n):  # type: ignore[no-untyped-def]
    if powers.count == 1:
        return lambda powers, x, j, k, row, column, n: powers[0][j, k, row, column, n]
    if powers.count == 2:
        return lambda powers, x, j, k, row, column, n: (
            powers[0][j, k, row, column, n] + x * powers[1][j, k, row, column, n]
        )
    return lambda powers, x, j, k, row, column, n: (
        powers[0][j, k, row, column, n]
        + x
        * (
            powers[1][j, k, row, column, n]
            + x * (powers[2][j, k, row, column, n] + x * powers[3][j, k, row, column, n])
        )
    )


@overload(along_field, inline="always")
def _along_field(powers, x, j, k, row, column, n):  # type: ignore[no-untyped-def]
    if powers.count == 1:
        return lambda powers, x, j, k, row, column, n: 0.0
    if powers.count == 2:
        return lambda powers, x, j, k, row, column, n: powers[1][j, k, row, column, n]
    return lambda powers, x, j, k, row, column, n: (
        powers[1][j, k, row, column, n]
        + x * (2 * powers[2][j, k, row, column, n] + 3 * x * powers[3][j, k, row, column, n])
    )


@overload(bend_of_field, inline="always")
def _bend_of_field(powers, x, j, k, row, column, n):  # type: ignore[no-untyped-def]
    if powers.count < 4:
        return lambda powers, x, j, k, row, column, n: 0.0
    return lambda powers, x, j, k, row, column, n: (
        2 * powers[2][j, k, row, column, n] + 6 * x * powers[3][j, k, row, column, n]
    )


class Nodes(NamedTuple):
    """A function of u at the two nodes around a point: its values, and its derivatives in u times the step."""

    value_0: float
    value_1: float
    slope_0: float
    slope_1: float


@njit(fastmath=FAST, inline="always")
def nodes_at(powers, x, j, k, column, n):  # type: ignore[no-untyped-def]
    """Return the shape g of image n at nodes k and k + 1 of u, where the field is x steps into its interval j."""
    return Nodes(
        at_field(powers, x, j, k, VALUE, column, n),
        at_field(powers, x, j, k + 1, VALUE, column, n),
        at_field(powers, x, j, k, SLOPE, column, n),
        at_field(powers, x, j, k + 1, SLOPE, column, n),
    )


@njit(fastmath=FAST, inline="always")
def nodes_along(powers, x, j, k, column, n):  # type: ignore[no-untyped-def]
    """Return ∂g/∂F, per step of F, as `nodes_at` does g."""
    return Nodes(
        along_field(powers, x, j, k, VALUE, column, n),
        along_field(powers, x, j, k + 1, VALUE, column, n),
        along_field(powers, x, j, k, SLOPE, column, n),
        along_field(powers, x, j, k + 1, SLOPE, column, n),
    )


@njit(fastmath=FAST, inline="always")
def nodes_bend(powers, x, j, k, column, n):  # type: ignore[no-untyped-def]
    """Return ∂²g/∂F², per step of F squared, as `nodes_at` does g."""
    return Nodes(
        bend_of_field(powers, x, j, k, VALUE, column, n),
        bend_of_field(powers, x, j, k + 1, VALUE, column, n),
        bend_of_field(powers, x, j, k, SLOPE, column, n),
        bend_of_field(powers, x, j, k + 1, SLOPE, column, n),
    )


@njit(fastmath=FAST, inline="always")
def value_of(weights, at):  # type: ignore[no-untyped-def]
    """Return the value between two nodes by cubic Hermite interpolation, with the weights of `hermite`."""
    return weights.v0 * at.value_0 + weights.v1 * at.value_1 + weights.s0 * at.slope_0 + weights.s1 * at.slope_1


@njit(fastmath=FAST, inline="always")
def slope_of(weights, at):  # type: ignore[no-untyped-def]
    """Return the derivative in u of `value_of`."""
    return weights.dv * (at.value_0 - at.value_1) + weights.ds0 * at.slope_0 + weights.ds1 * at.slope_1


@njit(fastmath=FAST, inline="always")
def curvature_of(weights, at):  # type: ignore[no-untyped-def]
    """Return the second derivative in u of `value_of`."""
    return weights.ddv * (at.value_0 - at.value_1) + weights.dds0 * at.slope_0 + weights.dds1 * at.slope_1


class ShapeAt(NamedTuple):
    """The shape g of an image at a point (u, F), with its derivatives in u and F; those in F are per step of F."""

    g: float
    g_u: float
    g_uu: float
    g_F: float
    g_uF: float


@njit(fastmath=FAST, inline="always")
def shape_at(weights, powers, x, j, k, n):  # type: ignore[no-untyped-def]
    """Return the shape of image n, and its derivatives; the arguments are those of `nodes_at`."""
    here, along_F = nodes_at(powers, x, j, k, 0, n), nodes_along(powers, x, j, k, 0, n)
    return ShapeAt(
        value_of(weights, here),
        slope_of(weights, here),
        curvature_of(weights, here),
        value_of(weights, along_F),
        slope_of(weights, along_F),
    )


class Second(NamedTuple):
    """The second derivatives of a voxel's objective in A, u = log T and F."""

    AA: float
    Au: float
    AF: float
    uu: float
    uF: float
    FF: float


@njit(fastmath=FAST, inline="always")
def schur(H, u_is_free):  # type: ignore[no-untyped-def]
    """Return the curvature that is left for F when A and u follow it (the Schur complement), and dA/dF and du/dF.

    u stays where it is if it is not free (at a bound) or not at a minimum.
    """
    if not H.AA > 0:
        return 0.0, 0.0, 0.0
    uu, uF, FF = H.uu - H.Au * H.Au / H.AA, H.uF - H.Au * H.AF / H.AA, H.FF - H.AF * H.AF / H.AA
    du = 0.0
    if u_is_free and uu > 0:
        du = -uF / uu
        FF += uF * du
    return FF, -(H.AF + H.Au * du) / H.AA, du
