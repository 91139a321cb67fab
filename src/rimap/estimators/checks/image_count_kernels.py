"""Numba kernel: one pass over the images, for what several checks ask of every voxel and of every image."""

from __future__ import annotations

from typing import Any

import numpy as np

from rimap.kernels import njit

Array = Any

#: Voxels whose sums stay in the cache while all images are read, and of them those that are compared side by side.
BLOCK, LANES = 1024, 64
#: Columns of what is counted in an image: values that are zero, that equal the largest one; the largest and the
#: smallest value.
ZEROS, AT_LARGEST, LARGEST, SMALLEST = range(4)


@njit(error_model="numpy")
def count(images: Array, first: int, last: int, power: Array, peak: Array, zeros: Array, of_image: Array) -> None:
    """Write Σₙ Sₙ²/N and maxₙ |Sₙ| of the voxels from `first` to `last`, in how many images they are zero, and counts
    of images.

    NaN counts in the power alone. The squares are summed in the order of the images.

    Parameters
    ----------
    images
        (N, M).
    power, peak, zeros
        (M), zero before.
    of_image
        (N, 4), of these voxels.
    """
    N, one, none = images.shape[0], peak.dtype.type(1), peak.dtype.type(0)
    largest, smallest = np.empty((N, LANES), peak.dtype), np.empty((N, LANES), peak.dtype)
    many = np.zeros((N, LANES), peak.dtype)  # of the type of the images: side by side in a register
    largest[...], smallest[...] = -np.inf, np.inf
    empty = np.zeros(N, np.int64)
    for a in range(first, last, BLOCK):
        b = min(a + BLOCK, last)
        total, size, unfilled = power[a:b], peak[a:b], zeros[a:b]
        for n in range(N):
            row = images[n, a:b]
            for i in range(row.shape[0]):
                total[i] += np.float64(row[i]) * np.float64(row[i])
            for i in range(row.shape[0]):
                x = abs(row[i])
                size[i] = x if x > size[i] else size[i]
            nothing = 0
            for i in range(row.shape[0]):
                nothing += 1 if row[i] == none else 0
            if nothing:
                empty[n] += nothing
                for i in range(row.shape[0]):
                    unfilled[i] += row[i] == none
            high, low, times = largest[n], smallest[n], many[n]
            for c in range(0, row.shape[0], LANES):
                part = row[c : c + LANES]
                for v in range(part.shape[0]):
                    x = part[v]
                    again = one if x == high[v] else none
                    times[v] = one if x > high[v] else times[v] + again
                    high[v] = x if x > high[v] else high[v]
                    low[v] = x if x < low[v] else low[v]
        for i in range(total.shape[0]):
            total[i] /= N
    for n in range(N):
        of_image[n, ZEROS] = empty[n]
        # In loops: what loads a kernel with methods of arrays imports scipy.linalg, which takes longer than to load all
        # kernels.
        high, low = largest[n], smallest[n]
        top, bottom, times_in_all = high[0], low[0], 0.0
        for v in range(1, LANES):
            top = high[v] if high[v] > top else top
            bottom = low[v] if low[v] < bottom else bottom
        for v in range(LANES):
            times_in_all += many[n, v] if high[v] == top else none
        of_image[n, LARGEST], of_image[n, SMALLEST], of_image[n, AT_LARGEST] = top, bottom, times_in_all


@njit(error_model="numpy")
def count_equal(images: Array, step: int, found: Array) -> None:
    """Add how many values of each image (N, M), other than zero, equal the one `step` before."""
    none = images.dtype.type(0)
    for n in range(images.shape[0]):
        row, equal = images[n], 0
        for i in range(step, row.shape[0]):
            equal += 1 if (row[i] == row[i - step]) & (row[i] != none) else 0
        found[n] += equal
