"""Warn of images that the model does not fit: a wrong order of the times, another gain, an empty image, a wrong σ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import percent, unreliable
from rimap.arrays import at_most, places
from rimap.estimators.base import estimated_rows
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.noise_floor import BRIGHT
from rimap.estimators.checks.receive_gains import Bright, gain_warnings
from rimap.estimators.sigma import chi2, quantile
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.settings import with_unit

#: Number of voxels that are used, and number of voxels from which they are drawn.
_SAMPLE, _AMONG = 1_200, 20_000
#: Noise differs from voxel to voxel, but a wrong image deviates from the model in the same way in all voxels with a
#: similar T. A warning needs this share of the power of the residuals in the means over groups of voxels with a similar
#: T, and means of this size in one image, relative to the maximum signal of a voxel. The third is the number of groups.
SHARE, SIZE, GROUPS = 0.25, 0.04, 8
#: Quality flags of voxels that show whether the images follow the model, including those that do not.
WITH_VALUE = (Status.OK, Status.AT_BOUND, Status.OUTSIDE_TRAINING, Status.OFF_MODEL)
#: Voxels that do not follow the model: fewer than this number and this share cause no warning; more than the last share
#: make the maps unreliable.
_FEWEST_OFF, FEW_OFF, MANY_OFF = 5, 0.001, 0.05
#: The largest factor by which the residuals may differ from their expectation for σ.
SIGMA = 2.0


@dataclass(frozen=True)
class Misfit:
    """The distribution of the residuals S − f in voxels of similar T.

    Parameters
    ----------
    size
        (N), root mean square over groups of the group's mean residual, in units of a voxel's brightest image.
    share
        Share of the power of the residuals that is in those means: nearly 0 for noise, 1 if all voxels of a group have
        the same residuals.
    """

    size: NDArray[np.float64]
    share: float


def misfit_warnings(
    series: WeightedSeries,
    maps: ParameterMaps,
    estimated: int,
    air: NDArray[np.bool_] | None = None,
    census: Census | None = None,
    *,
    farther: bool = False,
) -> tuple[str, ...]:
    """Return warnings where the images contradict the model or the σ that was given, in plain words.

    Parameters
    ----------
    series, maps
        The images and what was estimated from them.
    estimated
        Parameters of each voxel that its residuals have lost.
    air
        (*X), voxels without signal.
    census
        The census of the images, if it is known.
    farther
        Whether the estimator smooths, so that the residuals may have lost fewer parameters than that, or none.
    """
    at = _bright(maps, census or Census.of(series.images))
    if len(at) < 8:
        return ()
    model = series.model
    bright = _look(series, maps, at)
    sigma = _sigma_at(maps, at)
    residual = bright.S - bright.expected
    none = np.zeros(maps.status.shape, bool)
    shape = _shape(series, bright.S, misfit(bright.S, residual, bright.kappa[model.index(model.time.name)]))
    return (
        *shape,
        *gain_warnings(series, bright, none if air is None else air, from_fit=not shape),
        *_scatter(maps, residual, sigma, (model.n_images - estimated, model.n_images - (0 if farther else estimated))),
    )


def off_model_warnings(maps: ParameterMaps) -> tuple[str, ...]:
    """Return a warning if more than a few voxels do not follow the model."""
    off = int(np.count_nonzero(has(maps.status, (Status.OFF_MODEL,))))
    with_value = int(np.count_nonzero(has(maps.status, WITH_VALUE)))
    if off < max(_FEWEST_OFF, FEW_OFF * with_value):
        return ()
    many = off > MANY_OFF * with_value
    reason = maps.model.if_misfit
    told = unreliable if many else str
    return (
        told(
            f"{off:,} voxels ({percent(off / with_value)} % of those with a value) do not follow the model: noise does "
            f"not explain their values. Their status is off model; do not rely on their values. Look at their curves "
            f"in the report{reason and ': '}{reason}."
        ),
    )


def _look(series: WeightedSeries, maps: ParameterMaps, at: NDArray[np.intp]) -> Bright:
    """Return the images of voxels `at`, and what the maps and the noise let expect."""
    where: tuple[Any, ...] = np.unravel_index(at, series.shape)
    S = np.stack([np.asarray(image[where], float) for image in series.images])
    kappa = np.asarray(maps.kappa[(slice(None), *where)], float)
    with np.errstate(all="ignore"):
        f = np.asarray(series.model.signal(kappa))
        if maps.noise is not None and maps.noise.sigma is not None:
            sigma = maps.noise.sigma if np.ndim(maps.noise.sigma) == 0 else np.asarray(maps.noise.sigma)[where]
            f = type(maps.noise)(sigma=sigma).mean(f)
    return Bright(S, f, kappa, estimated_rows(series, maps)[0], np.array(where, float))


def _sigma_at(maps: ParameterMaps, at: NDArray[np.intp]) -> NDArray[np.float64]:
    sigma = np.nan if maps.noise is None or maps.noise.sigma is None else maps.noise.sigma
    return np.asarray(
        np.broadcast_to(np.asarray(sigma, float), maps.status.shape)[np.unravel_index(at, maps.status.shape)]
    )


def _bright(maps: ParameterMaps, census: Census) -> NDArray[np.intp]:
    """Return (some of) the voxels with a value and much signal."""
    status = maps.status.reshape(-1)
    some = places(status.size, max(status.size // _AMONG, 1))
    known = some[has(status[some], WITH_VALUE)]
    if len(known) < _SAMPLE < status.size:  # a small mask
        known = np.flatnonzero(has(status, WITH_VALUE))
        known = at_most(known, _AMONG)
    peak = census.brightest.reshape(-1)[known].astype(float)
    bright = known[peak > BRIGHT * quantile(peak, 0.98)] if len(known) else known
    return at_most(bright, _SAMPLE)


def misfit(S: NDArray[np.float64], residual: NDArray[np.float64], T: NDArray[np.float64]) -> Misfit:
    """Return the distribution of residuals (N, V) of images (N, V), in voxels with T (V)."""
    with np.errstate(all="ignore"):
        e = residual / abs(S).max(0)
    known = np.isfinite(e).all(0)
    e = e[:, known][:, np.argsort(T[known], kind="stable")]
    power = float(np.mean(e**2)) if e.size else 0.0
    if not power > 0:
        return Misfit(np.zeros(len(S)), 0.0)
    groups = np.array_split(e, max(1, min(GROUPS, e.shape[1] // 25)), axis=1)
    mean = np.stack([group.mean(1) for group in groups])
    return Misfit(np.sqrt((mean**2).mean(0)), float(np.mean(mean**2)) / power)


def _shape(series: WeightedSeries, S: NDArray[np.float64], found: Misfit) -> tuple[str, ...]:
    t, worst = series.model.times, int(np.argmax(found.size))
    if found.share < SHARE or found.size[worst] < SIZE:
        return ()
    hint = series.model.if_misfit and f"; {series.model.if_misfit}"
    if not series.model.is_signed and np.mean(S.min(0) < -0.2 * abs(S).max(0)) > 0.02:
        hint = "; bright voxels are negative at some times: signed images (real part) are --signed, or signed=True"
    return (
        unreliable(
            f"The images do not follow the model: the one at {with_unit(t[worst], series.model.axis.unit)} "
            f"deviates systematically from the fit, by {percent(found.size[worst])} % of a voxel's maximum signal. "
            "Check the times and their order, the sequence, and that no image is empty, has another gain or belongs to "
            f"another scan{hint}. Until then do not rely on these maps."
        ),
    )


def _scatter(
    maps: ParameterMaps, residual: NDArray[np.float64], sigma: NDArray[np.float64], free: tuple[int, int]
) -> tuple[str, ...]:
    """Return a warning if the residuals deny the given σ, whatever their degrees of freedom between two numbers."""
    if maps.sigma_source != "given" or free[0] < 1 or not np.isfinite(sigma).any():
        return ()
    most, least = (_ratio(residual, sigma, n) for n in free)
    ratio = most if most < 1 else max(least, 1.0)
    if not _denied(ratio):
        return ()
    return (
        f"The residuals are {ratio:.2g} times as large as the given σ predicts: the standard deviations are wrong by "
        "about this factor, or the images do not follow the model. Check σ: it is the noise of one image, in its unit.",
    )


def _denied(ratio: float) -> bool:
    """Return whether residuals deny σ; those of images without noise are zero, and do not."""
    return 1e-3 < ratio < np.inf and not 1 / SIGMA <= ratio <= SIGMA


def _ratio(residual: NDArray[np.float64], sigma: NDArray[np.float64], free: int) -> float:
    """Return by which factor the residuals (N, V) of the median voxel exceed what σ (V) predicts."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.nanmedian((residual**2).sum(0) / sigma**2) / chi2(0.5, free)))
