"""Whether magnitudes near the null of a signal leave its polarity open, so that standard deviations are too small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import places, stride
from rimap.estimators.base import estimated_rows
from rimap.likelihood import HALF_OF_95, Gaussian, cramer_rao_sd
from rimap.maps import Status
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals.base import SignalModel

#: Voxels that are simulated and fitted again.
_VOXELS = 600
#: An image near its null has a signal below so many σ, in more than this share of the voxels.
_NEAR_NULL, _SHARE = 3.0, 0.05
#: Times at which each voxel is fitted again: so many, from so many times below its own to as far above.
_TIMES, _REACH = 193, 8.0
#: 95 % intervals that contain the truth less often than this are reported.
_COVERS = 0.88


def uncertain_polarity(series: WeightedSeries, maps: ParameterMaps) -> tuple[str, ...]:
    """Return a warning if intervals are too short, found by a simulation at the values of some voxels.

    The standard deviation is that of one polarity. If noise can reverse that of an image, two values fit about as well,
    and the scatter is that between both. Not for a field that each voxel estimates: its standard deviation is so large
    that it contains both values. What noise does to a smooth field is left out, so that still fewer intervals contain
    the truth.
    """
    model, noise = series.model, maps.noise
    if not (model.magnitude and model.changes_sign) or len(model.amplitudes) != 1 or type(noise) is not Gaussian:
        return ()
    known = {*series.held, *(model.parameters[row].name for row in estimated_rows(series, maps)[1])}
    if model.field is not None and model.field.name not in known:
        return ()
    ok = np.flatnonzero(maps.status.reshape(-1) == Status.OK)
    if noise.sigma is None or not len(ok):
        return ()
    some = ok[places(len(ok), stride(len(ok), _VOXELS))]
    kappa = np.asarray(maps.kappa.reshape(len(maps.kappa), -1)[:, some], float)
    sigma = np.asarray(noise.sigma if np.ndim(noise.sigma) == 0 else noise.sigma.reshape(-1)[some])
    signal = np.asarray(model.signal(kappa), float)
    near = (abs(signal) < _NEAR_NULL * sigma).any(0) & (abs(signal).max(0) > _NEAR_NULL * sigma)
    if near.mean() <= _SHARE:
        return ()
    images = abs(signal + sigma * np.random.default_rng(0).standard_normal(signal.shape))
    row = model.time_index
    found = _best_times(model, images, kappa)
    with np.errstate(all="ignore"):
        deviation = cramer_rao_sd(model, Gaussian(sigma), kappa, held=tuple(known))[row]
    usable = np.isfinite(found) & np.isfinite(deviation)
    covers = float((abs(found - kappa[row]) <= HALF_OF_95 * deviation)[usable].mean()) if usable.any() else 1.0
    if covers >= _COVERS:
        return ()
    return (
        "The polarity of images near their null is uncertain at this noise, so that standard deviations are too small: "
        f"95 % intervals of {model.time.name} contain the truth in at most {100 * covers:.0f} % of the voxels. Use "
        "--noise rician, or images that keep their polarity.",
    )


def _best_times(model: SignalModel, images: NDArray[np.float64], kappa: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the time (V,) that fits magnitudes (N, V) best, with any amplitude and all other parameters as in κ.

    On a grid in log T, by a parabola through the best node and its neighbours.
    """
    row = model.time_index
    log_step = np.linspace(-np.log(_REACH), np.log(_REACH), _TIMES)
    values = np.repeat(kappa[:, :, None], _TIMES, axis=2)
    values[row] *= np.exp(log_step)
    values[model.index(model.amplitudes[0].name)] = 1.0
    shapes = abs(np.asarray(model.signal(values), float))  # (N, V, times)
    with np.errstate(all="ignore"):
        explained = np.nan_to_num((images[:, :, None] * shapes).sum(0) ** 2 / (shapes**2).sum(0))
    voxel, best = np.arange(explained.shape[0]), np.clip(explained.argmax(1), 1, _TIMES - 2)
    below, here, above = (explained[voxel, best + step] for step in (-1, 0, 1))
    curvature = below - 2 * here + above
    shift = np.divide(0.5 * (below - above), curvature, out=np.zeros_like(here), where=curvature < 0)
    step = log_step[1] - log_step[0]
    return np.asarray(kappa[row] * np.exp(log_step[best] + step * np.clip(shift, -1, 1)))
