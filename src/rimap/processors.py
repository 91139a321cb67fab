"""How many processors there are for this process."""

from __future__ import annotations

import os


def cores() -> int:
    """Return how many processors this process may use: a scheduler or a container may leave it a part of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
