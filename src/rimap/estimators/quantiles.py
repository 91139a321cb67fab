"""Quantiles of χ² and of the ratio of variances (F), without SciPy: importing it takes longer than a slice takes to
map.
"""

from __future__ import annotations

import math
from functools import cache

#: The series ends where its terms no longer change a float64.
_EXACT = 1e-16
#: Terms at most, which is never reached for degrees of freedom that images have.
_MOST_STEPS = 2000


@cache
def chi2_quantile(q: float, free: int) -> float:
    """Return the quantile q (0 to 1) of χ² with `free` degrees of freedom, exact to 1e-12 of itself.

    References
    ----------
    DiDonato & Morris 1986, doi:10.1145/22721.23109 (the incomplete gamma function and its inverse).

    Examples
    --------
    >>> round(chi2_quantile(0.95, 3), 4)
    7.8147
    """
    if free < 1:
        return math.nan
    if not 0 < q < 1:
        return 0.0 if q == 0 else math.inf if q == 1 else math.nan
    a = free / 2
    low, high = 0.0, max(1.0, 2 * a)
    while _lower_gamma(a, high) < q:
        low, high = high, 2 * high
    x = (low + high) / 2
    for _ in range(_MOST_STEPS):
        below, above = _gamma_shares(a, x)
        excess = below - q if q < 0.5 else (1 - q) - above
        low, high = (low, x) if excess > 0 else (x, high)
        density = math.exp((a - 1) * math.log(x) - x - math.lgamma(a))
        step = excess / density if density > 0 else math.inf
        newer = x - step if low < x - step < high else (low + high) / 2
        if abs(newer - x) <= 4 * _EXACT * newer or newer in (low, high):
            return 2 * newer
        x = newer
    return 2 * x


@cache
def f_quantile(q: float, over: int, under: int) -> float:
    """Return the quantile q (0 to 1) of the ratio of two variances of `over` and `under` degrees of freedom.

    References
    ----------
    Abramowitz & Stegun 1964, 26.5.8 and 26.6.2.

    Examples
    --------
    >>> round(f_quantile(0.95, 3, 10), 4)
    3.7083
    """
    low, high = 0.0, 1.0
    while _f_above(high, over, under) > 1 - q:
        low, high = high, 2 * high
    for _ in range(200):
        x = (low + high) / 2
        if x in (low, high):
            break
        low, high = (x, high) if _f_above(x, over, under) > 1 - q else (low, x)
    return (low + high) / 2


def _gamma_shares(a: float, x: float) -> tuple[float, float]:
    """Return the regularised incomplete gamma functions P(a, x) and Q(a, x) = 1 − P, the smaller one without
    cancellation.
    """
    if x < a + 1:
        below = _series(a, x)
        return below, 1 - below
    above = _fraction(a, x)
    return 1 - above, above


def _lower_gamma(a: float, x: float) -> float:
    return _gamma_shares(a, x)[0]


def _series(a: float, x: float) -> float:
    term = total = 1 / a
    for n in range(1, _MOST_STEPS):
        term *= x / (a + n)
        total += term
        if term < total * _EXACT:
            break
    return total * math.exp(a * math.log(x) - x - math.lgamma(a))


def _fraction(a: float, x: float) -> float:
    """Return Q(a, x) from its continued fraction (Lentz)."""
    b = x + 1 - a
    c, d = math.inf, 1 / b
    total = d
    for n in range(1, _MOST_STEPS):
        numerator = n * (a - n)
        b += 2
        d = 1 / (b + numerator * d)
        c = b + numerator / c
        total *= c * d
        if abs(c * d - 1) < 2 * _EXACT:
            break
    return total * math.exp(a * math.log(x) - x - math.lgamma(a))


def _f_above(x: float, over: int, under: int) -> float:
    """Return the chance that a ratio exceeds x: the regularised incomplete beta function."""
    return _beta_share(under / 2, over / 2, under / (under + over * x))


def _beta_share(a: float, b: float, x: float) -> float:
    if not 0 < x < 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function (Lentz)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    total = d
    for index in range(1, _MOST_STEPS):
        for numerator in (
            index * (b - index) * x / ((a + 2 * index - 1) * (a + 2 * index)),
            -(a + index) * (a + b + index) * x / ((a + 2 * index) * (a + 2 * index + 1)),
        ):
            d, c = 1 / (1 + numerator * d), 1 + numerator / c
            total *= c * d
        if abs(c * d - 1) < 2 * _EXACT:
            break
    return total
