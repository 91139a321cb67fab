"""Errors of maps: bias and CV (Eqs. 7 and 8 of the paper), the root mean square error, and the slope.

All functions take repeated estimates (C, *X) and the truth (*X), in the same unit. NaN stays NaN.

References
----------
Sabidussi et al. 2021, §4.5, doi:10.1016/j.media.2021.102220.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array


def relative_bias(estimates: Array, truth: Array) -> NDArray[np.float64]:
    """Return the mean of (κ̂ − κ)/κ over the repeats, in % (*X) (Eq. 7).

    >>> relative_bias([[110.0], [100.0]], [100.0])
    array([5.])
    """
    return np.asarray(np.mean((np.asarray(estimates, float) - truth) / truth, axis=0) * 100)  # Eq. 7


def coefficient_of_variation(estimates: Array) -> NDArray[np.float64]:
    """Return SD over mean of the repeats, in % (*X) (Eq. 8); the SD has C − 1 degrees of freedom.

    >>> coefficient_of_variation([[90.0], [110.0]]).round(2)
    array([14.14])
    """
    e = np.asarray(estimates, float)
    return np.asarray(e.std(axis=0, ddof=1) / e.mean(axis=0) * 100)  # Eq. 8


def relative_rmse(estimates: Array, truth: Array) -> NDArray[np.float64]:
    """Return the root mean square over the repeats of (κ̂ − κ)/κ, in % (*X)."""
    e = np.asarray(estimates, float)
    return np.asarray(np.sqrt(np.mean(((e - truth) / truth) ** 2, axis=0)) * 100)


def slope(estimates: Array, truth: Array) -> float:
    """Return the slope of the mean of the estimates (C, *X) over the truth (*X), across voxels.

    A slope of 1 keeps all contrast, a slope of 0 none of it.

    >>> slope([[1.0, 1.5, 2.0]], [1.0, 2.0, 3.0])
    0.5
    """
    e, t = np.asarray(estimates, float).mean(axis=0).ravel(), np.asarray(truth, float).ravel()
    t = t - t.mean()
    return float(t @ (e - e.mean()) / (t @ t))
