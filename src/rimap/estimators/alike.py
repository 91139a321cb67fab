"""Images averaged over the voxels that a first estimate found alike: noise falls, borders between tissues stay."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_REACH = 5  # pixels
_WIDTH = 3.0  # pixels, standard deviation
_LIKE = 0.06  # of log T and log A: voxels that differ by this much count 0.6
_LEAST = 0.05


def average_of_alike(
    images: F32, T: NDArray[Any], A: NDArray[Any], where: NDArray[np.bool_], *, rician_sigma: float = 0.0
) -> tuple[F32, F32]:
    """Return the averaged images (N, h, w) and the factor (h, w) by which their noise is less than that of one voxel.

    Parameters
    ----------
    images
        (N, h, w).
    T, A
        (h, w), an estimate in which noise is less than the contrast between tissues.
    where
        (h, w), the voxels to use; others get zeros and a factor of 1.
    rician_sigma
        σ of magnitude images at low SNR. Squares are averaged then, and their bias 2σ² taken away; 0: for Gaussian
        noise, whose plain mean has no bias.
    """
    usable = where & np.isfinite(images).all(0) & (T > 0) & (A > 0)
    log_T, log_A = (np.log(np.where(usable, x, 1.0)) for x in (T, A))
    S = np.ascontiguousarray(np.moveaxis(np.where(usable, images, 0), 0, -1), dtype=np.float32)
    if rician_sigma:
        S **= 2
    mean, factor = np.zeros_like(S), np.ones(S.shape[:2], np.float32)
    _average(S, log_T, log_A, usable, mean, factor)
    if rician_sigma:
        mean = np.sqrt(np.maximum(mean - np.float32(2 * rician_sigma**2), 0))
    return np.ascontiguousarray(np.moveaxis(mean, -1, 0)), factor


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _average(S: Any, log_T: Any, log_A: Any, usable: Any, mean: Any, factor: Any) -> None:
    h, w, N = S.shape
    for y in range(h):
        for x in range(w):
            if not usable[y, x]:
                continue
            total, squares = 0.0, 0.0
            for i in range(max(0, y - _REACH), min(h, y + _REACH + 1)):
                for j in range(max(0, x - _REACH), min(w, x + _REACH + 1)):
                    if not usable[i, j]:
                        continue
                    apart = ((i - y) ** 2 + (j - x) ** 2) / _WIDTH**2
                    apart += ((log_T[i, j] - log_T[y, x]) / _LIKE) ** 2 + ((log_A[i, j] - log_A[y, x]) / _LIKE) ** 2
                    weight = np.exp(-0.5 * apart)
                    if weight < _LEAST:
                        continue
                    total += weight
                    squares += weight * weight
                    for n in range(N):
                        mean[y, x, n] += np.float32(weight) * S[i, j, n]
            for n in range(N):
                mean[y, x, n] /= np.float32(total)
            factor[y, x] = np.sqrt(squares) / total
