"""Images averaged over the voxels that a first estimate found alike: noise falls, borders between tissues stay."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.kernels import njit

F32 = NDArray[np.float32]
_REACH = 5  # pixels
_WIDTH = 3.0  # pixels, standard deviation
_LIKE = 0.06  # of log T and log A: voxels that differ by this much count 0.6
#: Weights below this are left out: their voxels are not alike.
_LEAST = 0.05


def average_of_alike(
    images: F32,
    T: NDArray[Any],
    A: NDArray[Any],
    where: NDArray[np.bool_],
    *,
    every: int = 1,
    rician_sigma: float = 0.0,
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
    every
        Averages are wanted of one of so many voxels along both axes: (N, ⌈h/every⌉, ⌈w/every⌉) and so on.
    rician_sigma
        σ of magnitude images at low SNR. Squares are averaged then, and their bias 2σ² taken away; 0: for Gaussian
        noise, whose plain mean has no bias.
    """
    usable = where & np.isfinite(images).all(0) & (T > 0) & (A > 0)
    log_T, log_A = (np.log(np.where(usable, x, 1.0)).astype(np.float32) / np.float32(_LIKE) for x in (T, A))
    S = np.ascontiguousarray(np.moveaxis(np.where(usable, images, 0), 0, -1), dtype=np.float32)
    if rician_sigma:
        S **= 2
    factor = np.ones((-(-S.shape[0] // every), -(-S.shape[1] // every)), np.float32)
    mean = np.zeros((*factor.shape, S.shape[2]), np.float32)
    y = np.arange(-_REACH, _REACH + 1)
    apart = ((y[:, None] ** 2 + y**2) / _WIDTH**2).astype(np.float32)
    _average(S, log_T, log_A, usable, (apart, np.float32(-2 * np.log(_LEAST))), every, mean, factor)
    if rician_sigma:
        mean = np.sqrt(np.maximum(mean - np.float32(2 * rician_sigma**2), 0))
    return np.ascontiguousarray(np.moveaxis(mean, -1, 0)), factor


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _average(S, log_T, log_A, usable, distance, every, mean, factor):  # type: ignore[no-untyped-def]
    apart, most = distance  # squares of the distance in space, and the largest square of the whole distance that counts
    h, w, N = S.shape
    for y in range(0, h, every):
        for x in range(0, w, every):
            if not usable[y, x]:
                continue
            total, squares = np.float32(0), np.float32(0)
            out = mean[y // every, x // every]
            for i in range(max(0, y - _REACH), min(h, y + _REACH + 1)):
                for j in range(max(0, x - _REACH), min(w, x + _REACH + 1)):
                    if not usable[i, j]:
                        continue
                    dT, dA = log_T[i, j] - log_T[y, x], log_A[i, j] - log_A[y, x]
                    d = apart[i - y + _REACH, j - x + _REACH] + dT * dT + dA * dA
                    if d > most:
                        continue
                    weight = np.exp(np.float32(-0.5) * d)
                    total += weight
                    squares += weight * weight
                    for image in range(N):
                        out[image] += weight * S[i, j, image]
            for image in range(N):
                out[image] /= total
            factor[y // every, x // every] = np.sqrt(squares) / total
