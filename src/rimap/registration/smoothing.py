"""Gaussian smoothing in NumPy: a look at the images for motion does not import SciPy, which takes as long as the look
itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rimap.registration.rigid_transforms import Floats

#: The kernel ends after so many standard deviations.
_TRUNCATED = 4.0


def smoothed(image: NDArray[np.floating], widths: Sequence[float], *, mirrored: bool = True) -> Floats:
    """Return an image smoothed with Gaussians, of the type of the image: `scipy.ndimage.gaussian_filter`.

    Parameters
    ----------
    image
        (*X).
    widths
        Standard deviation along each axis, voxels; an axis with 0 is not smoothed.
    mirrored
        What is beyond the border: the image mirrored there, or its border value.
    """
    for axis, width in enumerate(widths):
        if width > 1e-15:
            image = _along(image, axis, float(width), "symmetric" if mirrored else "edge")
    return np.asarray(image)


def _along(image: NDArray[np.floating], axis: int, width: float, beyond: str) -> NDArray[np.floating]:
    reach = int(_TRUNCATED * width + 0.5)
    weights = np.exp(-0.5 / width**2 * np.arange(reach + 1) ** 2)
    weights /= 2 * weights[1:].sum() + weights[0]
    n = image.shape[axis]
    around = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
    wide = np.moveaxis(np.pad(image.astype(float), around, mode=beyond), axis, 0)  # type: ignore[call-overload]
    total = weights[0] * wide[reach : reach + n]
    for k in range(reach, 0, -1):
        total += weights[k] * (wide[reach - k : reach - k + n] + wide[reach + k : reach + k + n])
    return np.asarray(np.moveaxis(total, 0, axis), dtype=image.dtype)
