"""How many processors there are for this process, and how they are shared."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

#: Voxels of all planes that a network maps at the same time: they take memory (docs/files.md).
VOXELS_AT_ONCE = 160_000


def cores() -> int:
    """Return how many processors this process may use: a scheduler or a container may leave it a part of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def planes_at_once(shape: Sequence[int], threads: int) -> int:
    """Return how many planes of a volume (*X) a network maps at the same time, each with its share of the threads."""
    planes = shape[2] if len(shape) > 2 else 1
    return max(1, min(threads, planes, VOXELS_AT_ONCE // max(math.prod(shape[:2]), 1)))
