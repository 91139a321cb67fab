"""The spatial correlation of the noise of a series, from a part of the residuals of a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import ordered
from rimap.correlation import NoiseCorrelation, correlation_of
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

#: The part of a series that is looked at: so many voxels along the axes of a plane,
_WINDOW = 72
#: of a volume of several planes fewer, and so many planes,
_SMALLER, _PLANES = 64, 9
#: and so many images, evenly over their times.
_IMAGES = 5
#: A magnitude counts if it exceeds the residuals (root mean square) by this factor: below, the modulus folds the noise.
_ABOVE_NOISE = 3.0


def window_of(where: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the part of a volume (*X) around the middle of `where`, as large as is looked at."""
    several = where.ndim > 2 and where.shape[2] > 1
    edges = [_SMALLER if several else _WINDOW] * 2 + [_PLANES] * (where.ndim - 2)
    out = []
    for axis, (edge, length) in enumerate(zip(edges, where.shape)):
        count = np.cumsum(where.sum(tuple(a for a in range(where.ndim) if a != axis)))
        middle = int(np.searchsorted(count, count[-1] / 2))
        start = int(np.clip(middle - edge // 2, 0, max(0, length - edge)))
        out.append(slice(start, min(start + edge, length)))
    return tuple(out)


def estimated_in(status: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which voxels (*X) have residuals that show the noise, by their quality flags (*X)."""
    return np.asarray(status <= int(Status.AT_BOUND))


def correlation_in(
    images: NDArray[Any], kappa: NDArray[Any], good: NDArray[np.bool_], model: SignalModel, estimated: int
) -> NoiseCorrelation | None:
    """Return the correlation in the residuals of a window; `None` if they have no degrees of freedom.

    Parameters
    ----------
    images, kappa, good
        (N, *X), (Q, *X) and (*X): the images of the window, the maps, and which voxels count.
    estimated
        How many parameters of each voxel the residuals have lost.
    """
    N = model.n_images
    if estimated >= N or good.ndim < 2:
        return None
    good = good & np.isfinite(images).all(0) & np.isfinite(kappa).all(0)
    if not good.any():
        return None
    some = np.unique(np.linspace(0, N - 1, min(_IMAGES, N)).round().astype(int))
    some = np.argsort(model.times, kind="stable")[some]
    predicted = np.asarray(model.subset(some).signal(np.where(good, kappa, 1.0).astype(float)))
    residuals = np.where(good, images[some] - predicted, 0.0)
    counts = np.broadcast_to(good, residuals.shape)
    if not model.is_signed:
        counts = counts & (
            np.abs(predicted) > _ABOVE_NOISE * np.sqrt(np.sum(residuals**2) / (len(some) * np.count_nonzero(good)))
        )
    return correlation_of(residuals, counts, (N - estimated) * len(some) / N)


def noise_correlation(series: WeightedSeries, maps: ParameterMaps, estimated: int) -> NoiseCorrelation | None:
    """Return the correlation in the residuals of maps; `None` if they have no degrees of freedom or the images were
    denoised.
    """
    if series.denoised or maps.residual is None or maps.status.ndim < 2 or estimated >= series.model.n_images:
        return None
    good = estimated_in(maps.status)
    if not good.any():
        return None
    window = window_of(good)
    at = (slice(None), *window)
    return correlation_in(series.images[at], maps.kappa[at], good[window], series.model, estimated)


def with_correlation(maps: ParameterMaps, found: NoiseCorrelation | None) -> ParameterMaps:
    """Return maps that say how their noise is correlated."""
    if found is None:
        return maps
    return replace(maps, correlation=found, warnings=ordered((*maps.warnings, *found.notes)))
