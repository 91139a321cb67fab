"""Small and faint structures: how clearly the data could show them is drawn, and their contrast follows from the noise.

A network learns to keep what it has seen. Structures whose contrast is drawn without regard to the noise are nearly all
obvious, so a network that saw only those takes a faint one for noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Range = tuple[float, float]

#: The largest contrast of a faint structure, as a logarithm: 2.5 times the time of its surroundings.
LARGEST_LOG_CONTRAST = float(np.log(2.5))
#: Share of the structures whose amplitude differs as well.
WITH_AMPLITUDE = 0.3


@dataclass(frozen=True)
class Faint:
    """What faint structures a patch gets.

    Parameters
    ----------
    blobs
        The largest number of discs and ellipses.
    radius
        Their radii in pixels, log-uniform; below 0.5 a single voxel.
    detectability
        d' = contrast / (Cramér-Rao SD of a voxel) × √(number of voxels), log-uniform: how well the data could show
        them.
    gratings
        Share of patches with stripes in a part of them.
    period
        Their period in pixels, log-uniform.
    """

    blobs: int = 12
    radius: Range = (0.35, 5.0)
    detectability: Range = (3.0, 25.0)
    gratings: float = 0.15
    period: Range = (2.0, 20.0)


def put_faint(
    amplitude: F32, time: F32, relative_sd: F32, where: NDArray[np.bool_], faint: Faint, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Multiply the time (and some of the amplitudes) of faint structures by their contrast, in place.

    Parameters
    ----------
    amplitude, time
        (h, w) maps of the truth.
    relative_sd
        (h, w) Cramér-Rao standard deviation of the time of a voxel, relative to it.
    where
        (h, w) tissue: nothing is changed elsewhere.

    Returns
    -------
    (h, w) where the structures are.
    """
    changed = np.zeros(where.shape, bool)
    for _ in range(rng.integers(1, faint.blobs + 1)):
        inside = _blob(where.shape, faint.radius, rng) & where
        _change(amplitude, time, relative_sd, inside, int(inside.sum()), faint, rng)
        changed |= inside
    if rng.random() < faint.gratings:
        ridges, valleys, stripe = _grating(where.shape, faint.period, rng)
        n = max(1, int((ridges & where).sum() // max(stripe, 1)))
        sign = _change(amplitude, time, relative_sd, ridges & where, n, faint, rng)
        time[valleys & where] *= np.float32(1 / sign)
        changed |= (ridges | valleys) & where
    return changed


def _change(
    amplitude: F32,
    time: F32,
    relative_sd: F32,
    inside: NDArray[np.bool_],
    voxels: int,
    faint: Faint,
    rng: np.random.Generator,
) -> float:
    """Change the voxels `inside`; return the factor of the time."""
    d_prime = float(np.exp(rng.uniform(*np.log(faint.detectability))))
    sign, other, share = rng.choice((-1.0, 1.0)), rng.uniform(-1.0, 1.0), rng.random()
    if not inside.any():
        return 1.0
    deviation = float(np.median(relative_sd[inside]))
    log_contrast = min(d_prime * deviation / max(voxels, 1) ** 0.5, LARGEST_LOG_CONTRAST)
    factor = float(np.exp(sign * log_contrast))
    time[inside] *= np.float32(factor)
    if share < WITH_AMPLITUDE:
        amplitude[inside] *= np.float32(np.exp(0.5 * other * log_contrast))
    return factor


def _blob(shape: tuple[int, ...], radius: Range, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return an ellipse; one voxel if it is small."""
    y0, x0 = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    low, high = np.log(radius)
    a, b = np.exp(rng.uniform(low, high, 2))
    angle = rng.uniform(0, np.pi)
    y, x = np.arange(shape[0])[:, None] - y0, np.arange(shape[1]) - x0
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    inside = np.asarray((u / a) ** 2 + (v / b) ** 2 < 1)
    if not inside.any():
        inside[min(int(y0), shape[0] - 1), min(int(x0), shape[1] - 1)] = True
    return inside


def _grating(
    shape: tuple[int, ...], period: Range, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """Return the ridges and the valleys of stripes in a rectangle, and how many stripes there are."""
    p = float(np.exp(rng.uniform(*np.log(period))))
    angle = float(rng.choice((0.0, np.pi / 2, rng.uniform(0, np.pi))))
    height, width = (int(rng.integers(length // 3, length + 1)) for length in shape)
    top, left = int(rng.integers(shape[0] - height + 1)), int(rng.integers(shape[1] - width + 1))
    box = np.zeros(shape, bool)
    box[top : top + height, left : left + width] = True
    along = np.cos(angle) * np.arange(shape[1]) + np.sin(angle) * np.arange(shape[0])[:, None]
    up = np.floor(2 * along / p + 1e-6) % 2 == 0
    return box & up, box & ~up, max(1, int(max(height, width) / p))
