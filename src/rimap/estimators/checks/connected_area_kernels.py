"""Numba kernel: connected areas by union-find (Galler & Fischer 1964, doi:10.1145/364099.364331)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rimap.kernels import njit

Array = Any


@njit(error_model="numpy")
def root_of(parent: Array, i: int) -> int:
    """Return the representative of the set of i, and halve the path to it."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(error_model="numpy")
def large_areas(where: Array, fewest: int, parent: Array, found: Array) -> None:
    """Write which voxels of `where` (A, B, C) are in an area of at least `fewest`, side by side or diagonally.

    Parameters
    ----------
    parent
        (A·B·C), a work array.
    found
        (A, B, C), false before.
    """
    A, B, C = where.shape
    for a in range(A):
        for b in range(B):
            for c in range(C):
                if not where[a, b, c]:
                    continue
                here = (a * B + b) * C + c
                mine = here
                parent[here] = here
                # Those that were seen before this one: in earlier planes, earlier rows, and to the left.
                for p in range(max(a - 1, 0), a + 1):
                    for q in range(max(b - 1, 0), min(b + 2, B) if p < a else b + 1):
                        row = (p * B + q) * C
                        for r in range(max(c - 1, 0), min(c + 2, C) if p < a or q < b else c):
                            if where[p, q, r]:
                                other = root_of(parent, row + r)
                                if other < mine:
                                    parent[mine] = other
                                    mine = other
                                elif other > mine:
                                    parent[other] = mine
    size = np.zeros(A * B * C, np.int64)
    for a in range(A):
        for b in range(B):
            for c in range(C):
                if where[a, b, c]:
                    size[root_of(parent, (a * B + b) * C + c)] += 1
    for a in range(A):
        for b in range(B):
            for c in range(C):
                found[a, b, c] = where[a, b, c] and size[root_of(parent, (a * B + b) * C + c)] >= fewest
