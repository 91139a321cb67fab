"""How improbable the residual of a voxel is for its noise: whether noise alone can have left it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, at_most
from rimap.estimators.sigma import chi2, quantile

#: A residual that noise alone exceeds in less than this share of voxels contradicts the model.
IMPROBABLE = 1e-4
#: At most so many voxels say what is usual in a scan.
SAMPLE = 20_000


def chance_of_residual(squares: Array, sigma: Array, free: int) -> NDArray[np.float64]:
    """Return the probability (V) that noise alone leaves as large a sum of squared residuals: that of χ² ≥ squares/σ².

    Parameters
    ----------
    squares
        (V) Σ (S − E S)² over the images of a voxel at its best fit, where E S is the mean of the noise model: the
        signal for Gaussian noise, and more than the signal for Rician noise.
    sigma
        A number or (V), in the unit of the images.
    free
        Degrees of freedom, at least 1: images less estimated parameters.

    Returns
    -------
    NaN where a residual or σ is not known.

    Examples
    --------
    >>> chance_of_residual([4.0, 4.0, 40.0], [1.0, 2.0, 1.0], 3).round(4)
    array([0.2615, 0.8013, 0.    ])
    """
    # scipy is slow to import: only this function needs it
    from scipy.special import gammaincc

    return np.asarray(gammaincc(free / 2, _ratio(squares, sigma) / 2))


def contradicts(
    squares: Array, sigma: Array, free: int, *, limit: float = IMPROBABLE, usual: float | None = None
) -> NDArray[np.bool_]:
    """Return which voxels (V) have a residual that is improbable for σ, and far larger than is usual in this scan.

    If the model or σ is only roughly right everywhere, the residuals of all voxels exceed the noise. So σ counts as
    larger by what the median voxel exceeds its expectation (`usual_misfit`), never as smaller.

    Parameters
    ----------
    squares, sigma, free
        As of `chance_of_residual`; without degrees of freedom nothing contradicts.
    limit
        The chance below which a residual is improbable.
    usual
        `usual_misfit` of the scan, that of these voxels by default.

    Examples
    --------
    >>> contradicts([4.0, 4.0, 40.0], 1.0, 3)
    array([False, False,  True])
    """
    ratio = _ratio(squares, sigma)
    if free < 1:
        return np.zeros(ratio.shape, bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            ratio > chi2(1 - limit, free) * (usual_misfit(squares, sigma, free) if usual is None else usual)
        )


def usual_misfit(squares: Array, sigma: Array, free: int) -> float:
    """Return by which factor the χ² of the median voxel exceeds its expectation, at least 1.

    Parameters
    ----------
    squares
        (V,), sum of squared residuals of each voxel.
    sigma
        σ of each voxel (V,), or a number.
    free
        Degrees of freedom of a voxel.
    """
    ratio = _ratio(squares, sigma).reshape(-1)
    known = np.isfinite(ratio)
    ratio = at_most(ratio if known.all() else ratio[known], SAMPLE)
    if not len(ratio) or free < 1:
        return 1.0
    return max(1.0, quantile(ratio, 0.5) / chi2(0.5, free))


def _ratio(squares: Any, sigma: Any) -> NDArray[np.float64]:
    """Return χ² (V)."""
    with np.errstate(all="ignore"):
        return np.asarray(np.asarray(squares, float) / np.asarray(sigma, float) ** 2)
