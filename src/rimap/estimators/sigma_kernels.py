"""Numba kernels: what `sigma` counts in many values."""

from __future__ import annotations

from typing import Any

from rimap.kernels import njit

Array = Any


@njit(error_model="numpy")
def histogram(x: Array, edges: Array, counts: Array) -> None:
    """Count x in bins of equal width, as `numpy.histogram` does: a bin has its lower edge, and the last one both."""
    n = counts.shape[0]
    low, width, scale = edges[0], edges[n] - edges[0], edges.dtype.type(n)
    for value in x:
        i = min(int((value - low) / width * scale), n - 1)
        if value < edges[i]:
            i -= 1
        elif value >= edges[i + 1] and i < n - 1:
            i += 1
        counts[i] += 1


@njit(error_model="numpy")
def between(x: Array, low: float, high: float, found: Array) -> tuple[int, int]:
    """Write the values from `low` to `high` to `found`; return how many there are, and how many are less."""
    below, number = 0, 0
    for value in x:
        below += value < low
        found[number] = value
        number += low <= value <= high
    return number, below


@njit(error_model="numpy")
def split_sums(x: Array, limit: float) -> tuple[float, int, float]:
    """Return the sum and the number of the values up to a limit, and the sum of all."""
    below, number, total = 0.0, 0, 0.0
    for value in x:
        total += value
        if value <= limit:
            below += value
            number += 1
    return below, number, total
