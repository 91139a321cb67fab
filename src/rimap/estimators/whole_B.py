"""The B of a whole series, from which the iterations of a RIM begin.

B is determined by all voxels together (Eq. 2), so it is found once for the whole series and never slab by slab. At low
SNR the maximum of the likelihood over A and T of every noisy voxel is biased in B. On images averaged over the voxels
that a first pass found alike it is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from rimap.estimators.alike import average_of_alike
from rimap.estimators.mle import DEFAULT_LAMBDA_B, smooth_B_start
from rimap.estimators.network_input import slices
from rimap.likelihood import Gaussian, Rician
from rimap.series import WeightedSeries

F32 = NDArray[np.float32]


def smooth_B(series: WeightedSeries, *, threads: int | None, lambda_B: float = DEFAULT_LAMBDA_B) -> F32:
    """Return the smooth B (*X) of maximum likelihood; where it is not known, that of the nearest voxel where it is.

    Parameters
    ----------
    series
        Its noise has a σ.
    """
    B = smooth_B_start(series, lambda_B=lambda_B, threads=threads)[1]
    unknown = ~np.isfinite(B)
    if unknown.all():
        return np.full(B.shape, 1.9, np.float32)
    if unknown.any():
        nearest = distance_transform_edt(unknown, return_distances=False, return_indices=True)
        B = B[tuple(nearest)]
    return np.asarray(B, np.float32)


def smooth_B_of_alike(series: WeightedSeries, kappa: Any, *, threads: int | None) -> F32:
    """Return the smooth B (*X) of the series averaged, slice by slice, over voxels that are alike in κ (Q, *X).

    Neighbouring averages share their voxels: the penalty is raised as much as noise is lowered, so that B is smoothed
    as over independent voxels.
    """
    noise = series.noise or Gaussian()
    images = np.empty(series.images.shape, np.float32)
    factor = np.ones(series.shape)
    for k in slices(series.shape):
        S = series.images[(slice(None), *k)]
        shape = S.shape[1:]
        flat = S.reshape(len(S), shape[0], -1)
        T, A, where = (x[k].reshape(flat.shape[1:]) for x in (kappa[-1], kappa[0], series.selected))
        rician_sigma = float(np.nanmedian(noise.sigma)) if isinstance(noise, Rician) else 0.0
        mean, less = average_of_alike(flat, T, A, where, rician_sigma=rician_sigma)
        images[(slice(None), *k)], factor[k] = mean.reshape(S.shape), less.reshape(shape)
    quieter = replace(series, images=images, noise=Gaussian(sigma=np.asarray(noise.sigma, dtype=float) * factor))
    shared = float(np.median(factor[series.selected]) ** -2)
    return smooth_B(quieter, threads=threads, lambda_B=DEFAULT_LAMBDA_B * shared)
