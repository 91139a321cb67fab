"""Numba kernel: messages between neighbouring blocks (`initial_field`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rimap.kernels import njit

Array = Any


@njit(error_model="numpy")
def write_messages(without: Array, pairwise: Array, messages: Array) -> None:
    """Write min over k of (without[·, k] + pairwise[k, l]), less the least of them, for each block and level l.

    Felzenszwalb & Huttenlocher 2006 (doi:10.1007/s11263-006-7899-4), Eq. 2.
    """
    n_blocks, n_levels = without.shape
    for block in range(n_blocks):
        message = messages[block]
        for level in range(n_levels):
            message[level] = np.inf
        for of in range(n_levels):
            said, step = without[block, of], pairwise[of]
            for level in range(n_levels):
                message[level] = min(message[level], said + step[level])
        least = np.inf
        for level in range(n_levels):
            least = min(least, message[level])
        for level in range(n_levels):
            message[level] -= least
