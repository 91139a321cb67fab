"""What the residuals of neighbours share: errors of the model, and noise that is correlated, are no evidence about a
field.

AIC takes the voxels for independent. Where the residuals of neighbours are alike, so are the errors of what they say
about the field, and a region has the evidence of fewer voxels than it holds. A likelihood of dependent values counts
less by the variance inflation of their sum (White 1982, doi:10.2307/1912526; Kneib & Greven 2010,
doi:10.1093/biomet/asq042, for AIC and smoothing).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.noise_correlation import window_of
from rimap.likelihood import Noise
from rimap.series import WeightedSeries

#: Lags (voxels) over which residuals are compared; what is shared less than this, or by chance, does not count.
LAGS, LEAST, SURE = 8, 0.1, 5.0


def variance_inflation(
    series: WeightedSeries, S: NDArray[Any], kappa: NDArray[Any], voxels: NDArray[np.intp], noise: Noise
) -> float:
    """Return by which factor the variance of a sum over neighbours exceeds that of independent residuals; 1 for white
    noise.

    Parameters
    ----------
    S, kappa
        (V, N) and (Q, V), the images and the maps, in one unit, at `voxels`, the flat indices of those with an
        estimate.
    noise
        In that unit, with one σ: the mean of a magnitude is above its signal.
    """
    there = np.zeros(series.shape, bool)
    there.reshape(-1)[voxels] = True
    if there.ndim < 2:
        return 1.0
    window = window_of(there)
    place = np.full(series.shape, -1)
    place.reshape(-1)[voxels] = np.arange(len(voxels))
    at = place[window]
    at = at if at.ndim == 2 else at[..., at.shape[-1] // 2]
    good = at >= 0
    some = at[good]
    residual = np.zeros((series.model.n_images, *at.shape))
    with np.errstate(all="ignore"):
        residual[:, good] = S[some].T - noise.mean(series.model.signal(kappa[:, some]))
    good &= np.isfinite(residual).all(0)
    residual[:, ~good] = 0.0
    # every voxel counts alike: a bright one that the model does not describe would rule the sums
    size = np.sqrt((residual**2).mean(0))
    residual[:, good] /= np.maximum(size[good], 1e-30)
    return float(np.prod([_along(residual, good, axis) for axis in range(2)]))


def _along(residual: NDArray[np.float64], good: NDArray[np.bool_], axis: int) -> float:
    """Return 1 + 2 Σ ρ(lag) along a spatial axis, as far as residuals are alike."""
    r, g = np.moveaxis(residual, axis + 1, -1), np.moveaxis(good, axis, -1)
    found, n = 1.0, g.shape[-1]
    for lag in range(1, min(LAGS, n - 1) + 1):
        both = g[..., lag:] & g[..., : n - lag]
        pairs = int(both.sum())
        if pairs < 100:
            break
        rho = float((r[..., lag:] * r[..., : n - lag]).mean(0)[both].mean())
        if rho < max(LEAST, SURE / np.sqrt(pairs * len(residual))):
            break
        found += 2 * rho
    return found
