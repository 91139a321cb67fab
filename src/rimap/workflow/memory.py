"""How much memory a series needs, and how much is available."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rimap.errors import InputError
from rimap.processors import cores, planes_at_once
from rimap.workflow.memory_limits import left_by_control_groups

if TYPE_CHECKING:
    from rimap.estimators import Estimator

#: Bytes for Python and the libraries, and for threads and buffers.
BASE = 352 << 20
#: Bytes per voxel, per voxel and image, and per voxel of a plane. They were measured (docs/files.md).
_NEEDS = {"nlls": (180, 8), "mle": (540, 12), "rim": (210, 14), "resnet": (300, 16)}
#: Bytes of a network per voxel of a plane: fixed, and for each image.
_PLANE = {"rim": (1500, 20), "resnet": (10_000, 40)}
#: Bytes of a unit, by its letter.
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def needed(estimator: str, shape: Sequence[int], images: int, *, draws: bool = False, threads: int = 0) -> int:
    """Return an upper estimate of the bytes for mapping a whole series of this shape, including its report.

    Parameters
    ----------
    draws
        Whether standard deviations are estimated from noise draws (`--sd-draws`).
    threads
        Of the estimator; 0 for all cores.
    """

    own, each = _NEEDS.get(estimator, _NEEDS["mle"])
    plane, each_of_plane = _PLANE.get(estimator, (0, 0))
    whole = math.prod(shape) * (own + each * images + (60 + 6 * images) * draws)
    at_once = planes_at_once(shape, threads or cores()) if estimator == "rim" else 1
    return BASE + whole + at_once * math.prod(shape[:2]) * (plane + each_of_plane * images)


def needed_by(estimator: Estimator, shape: Sequence[int], images: int) -> int:
    """Return `needed` for an estimator with its options."""
    draws, threads = getattr(estimator, "sd_draws", 0) > 0, getattr(estimator, "threads", None) or 0
    return needed(estimator.name, shape, images, draws=draws, threads=threads)


def slab_voxels(limit: int, voxels: int, images: int) -> int:
    """Return how many voxels a slab, and the part that the report shows, may have to stay within a memory limit.

    One byte for each voxel of the volume is also in memory.
    """
    own, each = _NEEDS["nlls"]
    return max(0, limit - BASE - 2 * voxels) // (own + each * images)


def available() -> int:
    """Return the bytes that this process may take: free memory, or less if a control group or job has a limit."""
    free = [1 << 62]
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text()
        free.append(int(re.findall(r"^MemAvailable:\s*(\d+) kB", text, re.M)[0]) << 10)
    free += left_by_control_groups()
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            free.append(max(0, soft - pages * os.sysconf("SC_PAGE_SIZE")))
    free += _of_a_dask_worker()
    if len(free) == 1:
        with suppress(ValueError, OSError, AttributeError):
            free.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(free)


def _of_a_dask_worker() -> list[int]:
    """Return the memory limit of a task of a Dask worker, [] outside such a task."""
    if "distributed" not in sys.modules:
        return []
    from distributed import get_worker

    with suppress(ValueError, AttributeError):
        worker = get_worker()
        if limit := worker.memory_manager.memory_limit:
            return [max(0, int(limit) - int(worker.monitor.get_process_memory())) // max(1, worker.state.nthreads)]
    return []


def size(text: str, option: str) -> int:
    """Return a number of bytes.

    >>> size("1.5 GiB", "--memory")
    1610612736

    Raises
    ------
    InputError
        If the text is not a number with K, M, G or T.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    bytes_ = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if not 0 < bytes_ < 1 << 62:
        raise InputError(f"{option}: expected a size such as 2GiB or 800M, got {text!r}.")
    return int(bytes_)


def shown(n: int) -> str:
    """Return a size in words.

    >>> shown(1610612736)
    '1.5 GiB'
    """
    unit = min(int(math.log2(max(n, 1)) // 10), 4)
    return f"{n / (1 << (10 * unit)):.{0 if unit < 3 else 1}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"
