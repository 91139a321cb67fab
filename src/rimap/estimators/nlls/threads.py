"""How the voxels of a volume are shared among threads: the kernels release the GIL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Progress
from rimap.processors import cores
from rimap.series import WeightedSeries

Floats = NDArray[Any]
#: What is done with some voxels (flat indices, sorted).
Work = Callable[[NDArray[np.int64]], None]


@dataclass(frozen=True, eq=False)
class Voxels:
    """The voxels of a series in a row, without a copy if its images are in C or in Fortran order.

    Parameters
    ----------
    images
        (N, M).
    mask
        (M,).
    X
        The spatial shape, reversed if `turned`.
    turned
        Whether the axes are reversed.
    """

    images: Floats
    mask: NDArray[np.bool_]
    X: tuple[int, ...]
    turned: bool

    @classmethod
    def of(cls, series: WeightedSeries) -> Voxels:
        """Return the voxels of a series."""
        return cls.of_images(series.images, series.selected)

    @classmethod
    def of_images(cls, images: Floats, mask: NDArray[np.bool_]) -> Voxels:
        """Return the voxels of images (N, *X) with a mask (*X)."""
        backwards = (0, *range(images.ndim - 1, 0, -1))
        turned = not images.flags.c_contiguous and images.transpose(backwards).flags.c_contiguous
        if turned:
            images, mask = images.transpose(backwards), mask.T
        row = np.ascontiguousarray(images).reshape(len(images), -1)
        return cls(row, mask.reshape(-1), mask.shape, turned)

    def flatten(self, a: NDArray[Any]) -> NDArray[Any]:
        """Return a map (*X) as (M,)."""
        return np.ascontiguousarray(a.T if self.turned else a).reshape(-1)

    def equal_neighbours(self) -> NDArray[np.int64]:
        """Return in each image (N) how many values other than zero equal the next one along an axis of a plane."""
        from rimap.estimators.checks.image_count_kernels import count_equal  # numba is slow to import

        found = np.zeros(len(self.images), np.int64)
        X = self.X[::-1] if self.turned else self.X
        behind = int(np.prod(X[2:]))
        for step in {1, X[0]} if self.turned else {behind, behind * int(np.prod(X[1:2]))}:
            count_equal(self.images, step, found)
        return found

    def unflatten(self, a: NDArray[Any]) -> NDArray[Any]:
        """Return (M,) or (Q, M) as maps."""
        a = a.reshape(a.shape[:-1] + self.X)
        if not self.turned:
            return a
        return np.ascontiguousarray(a.T if a.ndim == len(self.X) else a.transpose(0, *range(a.ndim - 1, 0, -1)))


@dataclass(frozen=True, eq=False)
class Out:
    """Where the fit of M voxels goes, as rows in the order (amplitudes, field, time) of what is estimated.

    Parameters
    ----------
    kappa, sd
        (Q, M), standard deviations for σ = 1.
    residual
        (M,) root mean square of S − f.
    status
        (M,).
    rms
        (M,) root mean square of the images.
    """

    kappa: Floats
    sd: Floats
    residual: Floats
    status: NDArray[np.uint8]
    rms: Floats


def share(
    work: Work, chunks: Iterator[NDArray[np.int64]], threads: int, progress: Callable[[int], None] | None
) -> None:
    """Map the chunks (indices of voxels) on this thread and others; `progress` gets the number of finished voxels."""
    done, lock = 0, threading.Lock()

    def drain(progress: Callable[[int], None] | None = None) -> None:
        nonlocal done
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            work(chunk)
            with lock:
                done += len(chunk)
            if progress:
                progress(done)

    if threads == 1:
        drain(progress)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        futures = [pool.submit(drain) for _ in range(threads - 1)]
        try:
            drain(progress)
            for future in futures:
                future.result()
        finally:  # after an interrupt there is nothing more to do
            chunks = iter(())
    if progress:
        progress(done)


@contextmanager
def field_threads(threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Yield the threads that find a smooth field, one for each processor by default; its transforms use as many."""
    from scipy import fft  # slow to import

    number = threads or cores()
    with ThreadPoolExecutor(number) as pool, fft.set_workers(number):
        yield pool


def part_of_total(progress: Progress | None, before: int, total: int) -> Callable[[int], None] | None:
    """Return the progress of a part that begins after `before` of `total` voxels."""
    return progress and (lambda done: progress(before + done, total))
