"""Numba kernels: sums over the neighbours in a plane, for maps and for images.

Maps are (P, R, C): planes, rows, and what is stored side by side, where the neighbours in a row are `step` apart.
Beyond the edge there is nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rimap.kernels import njit

Array = Any

#: Columns of what `images_around` finds.
MEAN, VARIANCE, WITHIN, OF_VOXELS = range(4)


@njit(error_model="numpy", from_python=False)
def along_row(column: Array, step: int, half: int, to: Array) -> None:
    """Write the sum of each value and its neighbours in a row, `half` on either side."""
    C = column.shape[0]
    for c in range(C):  # `to[:] = column` would take three seconds to compile
        to[c] = column[c]
    for index in range(1, half + 1):
        if index * step < C:
            ahead, behind, first, last = (
                column[index * step :],
                column[: C - index * step],
                to[: C - index * step],
                to[index * step :],
            )
            for c in range(ahead.shape[0]):
                first[c] += ahead[c]
            for c in range(ahead.shape[0]):
                last[c] += behind[c]


@njit(error_model="numpy", from_python=False)
def largest_along_row(column: Array, step: int, half: int, to: Array) -> None:
    """Write the largest of each value and its neighbours in a row, `half` on either side."""
    C = column.shape[0]
    for c in range(C):  # `to[:] = column` would take three seconds to compile
        to[c] = column[c]
    for index in range(1, half + 1):
        for c in range(index * step, C):
            to[c] = max(to[c], column[c - index * step])
        for c in range(C - index * step):
            to[c] = max(to[c], column[c + index * step])


@njit(error_model="numpy")
def over_squares(x: Array, step: int, half: int, largest: bool, out: Array) -> None:
    """Write the sum of x over the (2 half + 1)² voxels around each one, or the largest one of x ≥ 0."""
    P, R, C = x.shape
    column = np.empty(C, out.dtype)
    for p in range(P):
        for r in range(R):
            column[:] = 0
            for index in range(max(r - half, 0), min(r + half + 1, R)):
                row = x[p, index]
                if largest:
                    for c in range(C):
                        column[c] = max(column[c], row[c])
                else:
                    for c in range(C):
                        column[c] += row[c]
            if largest:
                largest_along_row(column, step, half, out[p, r])
            else:
                along_row(column, step, half, out[p, r])


@njit(error_model="numpy")
def straight_lines(x: Array, around: Array, step: int, chosen: Array, limits: tuple[float, float]) -> None:
    """Drop from `chosen` (P, R, C) the voxels that are not in the middle of three in a straight line, dark on bright
    ground.

    The mean of the three is below the first limit, and that of the other six of 3 × 3 above the second; `around` is the
    sum of all nine.
    """
    P, R, C = x.shape
    for p in range(P):
        for r in range(R):
            here, to = x[p, r], chosen[p, r]
            for c in range(C):
                if not to[c]:
                    continue
                best = np.inf
                left, right = c >= step, c + step < C
                if left and right:
                    best = min(best, here[c - step] + here[c + step])
                if 0 < r < R - 1:
                    above, below = x[p, r - 1], x[p, r + 1]
                    best = min(best, above[c] + below[c])
                    if left and right:
                        best = min(best, above[c - step] + below[c + step], above[c + step] + below[c - step])
                three = best + here[c]
                to[c] = three < 3 * limits[0] and around[p, r, c] - three > 6 * limits[1]


@njit(error_model="numpy")
def images_around(images: Array, chosen: Array, count: Array, fewest: float, step: int, out: Array) -> None:
    """Write what the images are around each voxel that has `fewest` chosen ones among the 3 × 3 around it.

    With the mean mₙ of image n over these voxels v: the mean of mₙ over the images, their variance (N − 1), ΣₙΣᵥ (Sₙᵥ −
    mₙ)², and Σᵥ (Σₙ Sₙᵥ/N)².

    Parameters
    ----------
    images
        (N, P, R, C).
    chosen
        (P, R, C).
    count
        (P, R, C), how many of the 3 × 3 are chosen.
    out
        (4, P, R, C).
    """
    N, P, R, C = images.shape
    nothing = images.dtype.type(0)
    values, squares, share = np.empty(C), np.empty(C), np.empty(C)
    sums, powers = np.empty(C), np.empty(C)
    total, spread, within = np.empty(C), np.empty(C), np.empty(C)
    kept = np.zeros((3, N, C), images.dtype)  # the chosen values of three rows
    of_voxel = np.zeros((3, C))  # their mean over the images
    for p in range(P):
        last = -1  # the last row that is kept
        for r in range(R):
            most = count[p, r, 0]
            for c in range(
                1, C
            ):  # in a loop: a method of an array would import scipy.linalg (see `image_count_kernels`)
                most = max(most, count[p, r, c])
            if most < fewest:
                continue
            for k in range(max(last + 1, r - 1), min(r + 2, R)):
                use, sum_of = chosen[p, k], of_voxel[k % 3]
                sum_of[:] = 0
                for n in range(N):
                    row, to = images[n, p, k], kept[k % 3, n]
                    for c in range(C):
                        to[c] = row[c] if use[c] else nothing
                    for c in range(C):
                        sum_of[c] += to[c]
                for c in range(C):
                    sum_of[c] /= N
            last = min(r + 1, R - 1)
            above, below = (r - 1) % 3 if r > 0 else -1, (r + 1) % 3 if r < R - 1 else -1
            for c in range(C):
                share[c] = 1 / max(np.float64(count[p, r, c]), 1.0)
            total[:], spread[:], within[:] = 0, 0, 0
            for n in range(N):
                here = kept[r % 3, n]
                for c in range(C):
                    x = np.float64(here[c])
                    values[c], squares[c] = x, x * x
                if above >= 0:
                    beside = kept[above, n]
                    for c in range(C):
                        x = np.float64(beside[c])
                        values[c] += x
                        squares[c] += x * x
                if below >= 0:
                    beside = kept[below, n]
                    for c in range(C):
                        x = np.float64(beside[c])
                        values[c] += x
                        squares[c] += x * x
                along_row(values, step, 1, sums)
                along_row(squares, step, 1, powers)
                for c in range(C):
                    mean = sums[c] * share[c]
                    total[c] += mean
                    spread[c] += mean * mean
                    within[c] += powers[c] - sums[c] * mean
            values[:] = 0
            for k in range(max(r - 1, 0), min(r + 2, R)):
                for c in range(C):
                    values[c] += of_voxel[k % 3, c] ** 2
            along_row(values, step, 1, out[OF_VOXELS, p, r])
            for c in range(C):
                mean = total[c] / N
                out[MEAN, p, r, c] = mean
                out[VARIANCE, p, r, c] = (spread[c] - N * mean * mean) / (N - 1)
                out[WITHIN, p, r, c] = within[c]
