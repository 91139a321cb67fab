"""Images that the model does not fit: times in another order, another gain, an image that is empty, a σ that is not theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.checks.noise_floor import BRIGHT, WITH_VALUE
from rimap.estimators.sigma import chi2
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals.settings import with_unit

#: So many voxels tell, sought among so many.
_SAMPLE, _AMONG = 2_000, 50_000
#: Noise differs from voxel to voxel, and a wrong image from the model in the same way in those of a like T: so much of the
#: residuals' power is in the means of groups, and in one image they are as large as this part of a voxel's brightest.
SHARE, SIZE, GROUPS = 0.25, 0.04, 8
#: By which factor the residuals may differ from what σ lets expect.
SIGMA = 2.0


@dataclass(frozen=True)
class Misfit:
    """How the residuals S − f lie, in voxels of a like T.

    Parameters
    ----------
    size
        (N), root mean square over groups of the group's mean residual, in units of a voxel's brightest image.
    share
        Of the residuals' power that is in those means: next to nothing for noise, 1 where all voxels of a group have the
        same.
    """

    size: NDArray[np.float64]
    share: float


def misfit_warnings(series: WeightedSeries, maps: ParameterMaps) -> tuple[str, ...]:
    """Return warnings where the images contradict the model or the σ that was given, in plain words."""
    at = _bright(series, maps)
    if len(at) < 8:
        return ()
    model = series.model
    n_free = sum(p.name not in series.held for p in model.parameters)
    where: tuple[Any, ...] = np.unravel_index(at, series.shape)
    S = np.stack([np.asarray(image[where], float) for image in series.images])
    kappa = np.asarray(maps.kappa[(slice(None), *where)], float)
    with np.errstate(all="ignore"):
        residual = S - model.signal(kappa)
    sigma = np.nan if maps.noise is None or maps.noise.sigma is None else maps.noise.sigma
    sigma = np.broadcast_to(np.asarray(sigma, float), series.shape)[where]
    return (
        *_shape(series, S, misfit(S, residual, kappa[model.index(model.time.name)])),
        *_scatter(maps, residual, sigma, model.n_images - n_free),
    )


def _bright(series: WeightedSeries, maps: ParameterMaps) -> NDArray[np.intp]:
    """Return (some of) the voxels with a value and much signal."""
    status = maps.status.reshape(-1)
    step = status.size // _AMONG | 1  # odd, so that it does not run along an edge
    known = np.flatnonzero(np.isin(status[::step], WITH_VALUE)) * step
    if len(known) < _SAMPLE < status.size:  # a small mask
        known = np.flatnonzero(np.isin(status, WITH_VALUE))
        known = known[:: -(-len(known) // _AMONG) or 1]
    where = np.unravel_index(known, series.shape)
    peak = np.zeros(len(known))
    for image in series.images:
        peak = np.maximum(peak, abs(image[where]))
    bright = known[peak > BRIGHT * np.percentile(peak, 98)] if len(known) else known
    return bright[:: -(-len(bright) // _SAMPLE) or 1]


def misfit(S: NDArray[np.float64], residual: NDArray[np.float64], T: NDArray[np.float64]) -> Misfit:
    """Return how residuals (N, V) of images (N, V) lie, of voxels with T (V)."""
    with np.errstate(all="ignore"):
        e = residual / abs(S).max(0)
    known = np.isfinite(e).all(0)
    e = e[:, known][:, np.argsort(T[known], kind="stable")]
    power = float(np.mean(e**2)) if e.size else 0.0
    if not power > 0:
        return Misfit(np.zeros(len(S)), 0.0)
    groups = np.array_split(e, max(1, min(GROUPS, e.shape[1] // 25)), axis=1)
    mean = np.stack([g.mean(1) for g in groups])
    return Misfit(np.sqrt((mean**2).mean(0)), float(np.mean(mean**2)) / power)


def _shape(series: WeightedSeries, S: NDArray[np.float64], found: Misfit) -> tuple[str, ...]:
    t, worst = series.model.times, int(np.argmax(found.size))
    if found.share < SHARE or found.size[worst] < SIZE:
        return ()
    hint = ""
    if series.model.axis.entity == "echo":
        hint = "; a first echo that is too low has stimulated echoes after it (--skip-first 1)"
    elif not series.model.is_signed and np.mean(S.min(0) < -0.2 * abs(S).max(0)) > 0.02:
        hint = "; bright voxels are negative at some times: signed images (real part) are --signed, or signed=True"
    return (
        f"The images do not follow the model: the one at {with_unit(t[worst], series.model.axis.unit)} is off by {100 * found.size[worst]:.2g} % of a voxel's "
        "brightest, not by chance. Check the times and their order, the sequence, and that no image is empty, has another "
        f"gain or is of another scan{hint}. Until then do not rely on these maps.",
    )


def _scatter(
    maps: ParameterMaps, residual: NDArray[np.float64], sigma: NDArray[np.float64], free: int
) -> tuple[str, ...]:
    if maps.sigma_source != "given" or free < 1 or not np.isfinite(sigma).any():
        return ()
    with np.errstate(all="ignore"):
        ratio = np.sqrt(np.nanmedian((residual**2).sum(0) / sigma**2) / chi2(0.5, free))
    if 1 / SIGMA <= ratio <= SIGMA or not 1e-3 < ratio < np.inf:  # 0: images without noise
        return ()
    return (
        f"The residuals are {ratio:.2g} times what the σ that was given lets expect: standard deviations are off by "
        "about as much, or the images do not follow the model. Check σ, which is that of one image in its own unit.",
    )
