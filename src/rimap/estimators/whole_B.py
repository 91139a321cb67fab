"""The B of a whole series, from which the iterations of a RIM begin.

B is determined by all voxels together (Eq. 2), so it is found once for the whole series and never slab by slab. At low
SNR the maximum of the likelihood over A and T of every noisy voxel is biased in B. On images averaged over the voxels
that a first pass found alike it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def folds(times: NDArray[Any], n: int, least: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return `n` pairs of image numbers (a part, all others), spread over the times.

    One pair of all images, where fewer than `least` distinct times would be left.
    """
    order = np.argsort(times, kind="stable")
    pairs = [(order[f::n], np.sort(np.delete(order, np.s_[f::n]))) for f in range(n)]
    if n > 1 and min(len(np.unique(times[others])) for _, others in pairs) >= least:
        return pairs
    return [(order, order)]


def smooth_B_of_alike(
    series: WeightedSeries, guides: Sequence[tuple[NDArray[np.intp], Any]], *, threads: int | None
) -> F32:
    """Return the smooth B (*X) of the series averaged, slice by slice, over voxels that are alike.

    Neighbouring averages share their voxels: the penalty is raised as much as noise is lowered, so that B is smoothed
    as over independent voxels.

    Parameters
    ----------
    guides
        For each part of the images its image numbers and the κ (Q, *X) that says which voxels are alike there.
        Where noise is high, a κ of the other images (cross-fitting): voxels chosen by their own noise keep it in
        their average, and B is then too low by up to 0.05 at SNR 3.
    """
    noise = series.noise or Gaussian()
    images = np.empty(series.images.shape, np.float32)
    factor = np.ones(series.shape)
    rician_sigma = float(np.nanmedian(noise.sigma)) if isinstance(noise, Rician) else 0.0
    for k in slices(series.shape):
        S, where = series.images[(slice(None), *k)], series.selected[k]
        shape, left = S.shape[1:], 0.0
        flat = S.reshape(len(S), shape[0], -1)
        out = np.empty(flat.shape, np.float32)
        for part, kappa in guides:
            T, A, usable = (x.reshape(flat.shape[1:]) for x in (kappa[-1][k], kappa[0][k], where))
            out[part], less = average_of_alike(flat[part], T, A, usable, rician_sigma=rician_sigma)
            left = left + less.astype(float) ** 2 * (len(part) / len(S))
        images[(slice(None), *k)], factor[k] = out.reshape(S.shape), np.sqrt(left).reshape(shape)
    quieter = replace(series, images=images, noise=Gaussian(sigma=np.asarray(noise.sigma, dtype=float) * factor))
    shared = float(np.median(factor[series.selected]) ** -2)
    return smooth_B(quieter, threads=threads, lambda_B=DEFAULT_LAMBDA_B * shared)
