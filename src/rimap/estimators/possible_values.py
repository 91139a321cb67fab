"""Which voxels have values that can be measured: the magnitude of a signal is not negative."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_least
from rimap.likelihood import Rician
from rimap.series import WeightedSeries

#: If more of the voxels have negative values, the processing made them (denoising), and the values are used.
MOST_NEGATIVE = 0.1
#: Up to this share may have them because they have wrapped or have the wrong sign.
WRAPPED = 0.05


def possible(values: NDArray[Any], *, magnitude: bool) -> NDArray[np.bool_]:
    """Return which voxels have values (N, *X) that can be measured: a magnitude is not negative.

    Near its zero crossing, the signal of an inversion recovery hides a wrong sign in its noise; many voxels together
    would move the field.
    """
    every = np.ones(values.shape[1:], bool)
    if not magnitude:
        return every
    negative = np.asarray((values < 0).any(0))
    return ~negative if few(negative) else every


def possible_at(series: WeightedSeries, voxels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return `possible` of the voxels (flat indices) of a series.

    If none of a fourth of the voxels has negative values, the others are not looked at.
    """
    negative = np.zeros(len(voxels), bool)
    if series.model.magnitude and negative_at(series, at_least(voxels, len(voxels) // 4 + 1)).any():
        negative = negative_at(series, voxels)
    return ~negative if few(negative) else np.ones(len(voxels), bool)


def negative_at(series: WeightedSeries, voxels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which of the voxels (flat indices) have a negative value in any image."""
    negative, where = np.zeros(len(voxels), bool), np.unravel_index(voxels, series.shape)
    for image in series.images:
        negative |= (image.reshape(-1)[voxels] if image.flags.c_contiguous else image[where]) < 0
    return negative


def folded(series: WeightedSeries) -> bool:
    """Return whether the modulus folds the noise of the images near zero, whatever it is taken for.

    That is the case for Rician noise, and for magnitudes of a signal that changes its sign. Air beside a mask shows it
    best; voxels that were set to zero show nothing.
    """
    if isinstance(series.noise, Rician) or not series.model.magnitude:
        return isinstance(series.noise, Rician)
    negative = (series.images < 0).any(0)
    return few(negative[series.images.any(0)], WRAPPED) if negative.any() else True


def few(negative: NDArray[np.bool_], most: float = MOST_NEGATIVE) -> bool:
    """Return whether so few voxels have negative values that the others are magnitudes with their usual noise."""
    return bool(negative.mean() <= most)
