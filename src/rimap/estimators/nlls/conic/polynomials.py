"""What the kernels of the voxelwise search share: how they are compiled, and polynomials in θ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from rimap.kernels import njit

#: Voxels side by side in a block.
LANES = 64
#: Values of `rimap.maps.Status` as plain numbers, because kernels cannot read an enumeration.
OK, AT_BOUND, NO_SIGNAL, NOT_FINITE = 0, 1, 2, 3

#: Position of an estimate on the cone.
INSIDE, LOWER, UPPER, KINK = 0, 1, 2, 3

Array = Any
F = TypeVar("F", bound=Callable[..., Any])

#: Sums may be reordered, and the compiler may assume that no value is NaN or infinite.
_FAST = {"nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc"}


def compiled(*, fast: bool = False, from_python: bool = True) -> Callable[[F], F]:
    """Compile a kernel; `fast` lets it reorder sums (its images must be finite). `from_python` is as of `njit`.

    Python's check for division by zero is off: it would keep loops from being vectorised.
    """
    return cast(
        "Callable[[F], F]",
        njit(error_model="numpy", fastmath=_FAST if fast else False, from_python=from_python),
    )


@compiled(fast=True, from_python=False)
def poly(c: Array, i: int, t: float) -> tuple[float, float, float]:
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


@compiled(fast=True, from_python=False)
def poly1(c: Array, i: int, t: float) -> tuple[float, float]:
    """Return value and derivative at θ of the polynomial of degree 7 that starts at c[i]."""
    c0, c1, c2, c3, c4, c5, c6, c7 = c[i], c[i + 1], c[i + 2], c[i + 3], c[i + 4], c[i + 5], c[i + 6], c[i + 7]
    f = c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * (c5 + t * (c6 + t * c7))))))
    f1 = c1 + t * (2 * c2 + t * (3 * c3 + t * (4 * c4 + t * (5 * c5 + t * (6 * c6 + t * 7 * c7)))))
    return f, f1


@compiled(fast=True, from_python=False)
def poly0(c: Array, i: int, t: float) -> float:
    """Return the value at θ of the polynomial of degree 7 that starts at c[i]."""
    c0, c1, c2, c3, c4, c5, c6, c7 = c[i], c[i + 1], c[i + 2], c[i + 3], c[i + 4], c[i + 5], c[i + 6], c[i + 7]
    return float(c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * (c5 + t * (c6 + t * c7)))))))


@compiled(fast=True, from_python=False)
def combine(C: Array, s: Array, out: Array) -> None:
    """Write the coefficients (16,) of x and y for the signed images s (N + pad): Σₙ sₙ C[n]; C (N, 16)."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0  # scalars stay in vector registers, an array would not
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = 0.0
    for image in range(C.shape[0]):
        v = s[image]
        a0 += v * C[image, 0]
        a1 += v * C[image, 1]
        a2 += v * C[image, 2]
        a3 += v * C[image, 3]
        a4 += v * C[image, 4]
        a5 += v * C[image, 5]
        a6 += v * C[image, 6]
        a7 += v * C[image, 7]
        b0 += v * C[image, 8]
        b1 += v * C[image, 9]
        b2 += v * C[image, 10]
        b3 += v * C[image, 11]
        b4 += v * C[image, 12]
        b5 += v * C[image, 13]
        b6 += v * C[image, 14]
        b7 += v * C[image, 15]
    out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a0, a1, a2, a3, a4, a5, a6, a7
    out[8], out[9], out[10], out[11], out[12], out[13], out[14], out[15] = b0, b1, b2, b3, b4, b5, b6, b7


@compiled(from_python=False)
def copy(source: Array, target: Array) -> None:
    """Write the first values of `source` to all of `target`. (To compile `target[:] = source` takes three seconds.)"""
    for i in range(target.shape[0]):
        target[i] = source[i]
