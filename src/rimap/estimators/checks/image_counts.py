"""What several checks ask of every voxel and of every image, counted in one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.nlls.threads import Voxels, share
from rimap.processors import cores

#: Voxels that a thread takes at a time.
_CHUNK = 1 << 15


@dataclass(frozen=True, eq=False)
class Census:
    """What the images of a series hold, without any judgement.

    Parameters
    ----------
    voxels
        The images (N, M), in a row.
    mean_square
        (M), the mean square over the images; not finite if an image is not.
    peak
        (M), maxₙ |Sₙ| of the images that are numbers.
    zeros
        (M), in how many images a voxel is zero.
    zeros_of, at_largest
        (N), in how many voxels an image is zero, or has its largest value.
    largest, smallest
        (N), of the values that are numbers.
    """

    voxels: Voxels
    mean_square: NDArray[np.float64]
    peak: NDArray[Any]
    zeros: NDArray[np.uint16]
    zeros_of: NDArray[np.int64]
    at_largest: NDArray[np.int64]
    largest: NDArray[np.float64]
    smallest: NDArray[np.float64]

    @classmethod
    def of(cls, images: NDArray[Any], threads: int | None = None) -> Census:
        """Count the images (N, *X)."""
        from rimap.estimators.checks import image_count_kernels as kernels  # numba is slow to import

        voxels = Voxels.of_images(images, np.ones(images.shape[1:], bool))
        rows = voxels.images
        N, M = rows.shape
        mean_square, peak, zeros = np.zeros(M), np.zeros(M, rows.dtype), np.zeros(M, np.uint16)
        parts = []

        def work(ends: NDArray[np.int64]) -> None:
            found = np.empty((N, 4))
            kernels.count(rows, int(ends[0]), int(ends[1]), mean_square, peak, zeros, found)
            parts.append(found)

        chunks = (np.array([index, min(index + _CHUNK, M)]) for index in range(0, M, _CHUNK))
        share(work, chunks, min(threads or cores(), -(-M // _CHUNK)), None)
        of_image = np.stack(parts)
        largest = of_image[:, :, kernels.LARGEST].max(0)
        at_largest = of_image[:, :, kernels.AT_LARGEST]
        at_largest = np.where(of_image[:, :, kernels.LARGEST] == largest, at_largest, 0).sum(0)
        return cls(
            voxels=voxels, mean_square=mean_square, peak=peak, zeros=zeros,
            zeros_of=of_image[:, :, kernels.ZEROS].sum(0).astype(np.int64), at_largest=at_largest.astype(np.int64),
            largest=largest, smallest=of_image[:, :, kernels.SMALLEST].min(0),
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        """X, the spatial shape."""
        return self.voxels.X[::-1] if self.voxels.turned else self.voxels.X

    @cached_property
    def power(self) -> NDArray[np.float64]:
        """(*X), the mean square over the images; not finite if an image is not."""
        return self.voxels.unflatten(self.mean_square)

    @cached_property
    def brightest(self) -> NDArray[Any]:
        """(*X), the largest |S| over the images."""
        return self.voxels.unflatten(self.peak)
