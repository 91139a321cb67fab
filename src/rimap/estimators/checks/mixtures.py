"""Voxels on a border hold two tissues: their signal is a sum that one relaxation time does not describe, and no
fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_most
from rimap.estimators.sigma import quantile
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]

#: Relaxation times and fractions of the mixtures that are tried, and quantiles of the field over the object.
_TIMES, _FRACTIONS, _FIELD = 20, 9, (0.02, 0.25, 0.5, 0.75, 0.98)
#: Mixtures have relaxation times between these quantiles of those of the object, a factor wider on either side.
_QUANTILES, _WIDER = (0.02, 0.98), 3.0
#: Voxels at a time, so that the products with all mixtures stay small.
_CHUNK = 5_000
#: Number of voxels that are used.
_SAMPLE = 4_000


def unexplained(series: WeightedSeries, maps: ParameterMaps, at: NDArray[np.intp]) -> Floats:
    """Return the share (V) of the power of voxels `at` (flat indices) that no mixture of two tissues explains.

    Tried are all pairs of relaxation times that occur in the object, in steps. Zero if the model has not one amplitude.
    """
    model = series.model
    if len(model.amplitudes) != 1 or not len(at):
        return np.ones(len(at))
    shapes = _mixtures(model, series, maps)
    if shapes is None:
        return np.ones(len(at))
    left = np.ones(len(at))
    for index in range(0, len(at), _CHUNK):
        where = np.unravel_index(at[index : index + _CHUNK], series.shape)
        S = np.stack([image[where] for image in series.images], axis=1).astype(float)
        power = np.maximum((S**2).sum(1), 1e-300)
        best = np.maximum((shapes @ S.T).max(0), 0) ** 2
        left[index : index + _CHUNK] = np.clip(1 - best / power, 0, 1)
    return left


def _mixtures(model: SignalModel, series: WeightedSeries, maps: ParameterMaps) -> Floats | None:
    """Return the signals of mixtures with norm 1, (number of mixtures, N)."""
    from rimap.estimators.checks.mixture_kernels import mix  # numba is slow to import

    good = at_most(np.flatnonzero(has(maps.status, (Status.OK,))), _SAMPLE)
    kappa = np.asarray(maps.kappa.reshape(len(maps.kappa), -1)[:, good], float)
    if not np.isfinite(kappa).all():
        kappa = kappa[:, np.isfinite(kappa).all(0)]
    if kappa.shape[1] < 10:
        return None
    T = kappa[model.index(model.time.name)]
    low, high = (quantile(T, q) for q in _QUANTILES)
    low, high = max(low / _WIDER, model.time.bounds[0]), min(high * _WIDER, model.time.bounds[1])
    times = np.geomspace(low, high, _TIMES)
    settings: list[dict[str, Any]] = [{}]
    for parameter in model.nonlinear:
        if parameter is model.time:
            continue
        values = kappa[model.index(parameter.name)]
        levels = sorted({quantile(values, q) for q in (_FIELD if parameter is model.field else (0.5,))})
        settings = [{**setting, parameter.name: float(level)} for setting in settings for level in levels]
    fractions = np.linspace(0, 1, _FRACTIONS + 2)[:-1]
    found = np.empty((len(settings), _TIMES * (_TIMES - 1) // 2 * len(fractions), model.n_images))
    for mixed, known in zip(found, settings):
        g = np.asarray(
            model.shape(**{model.time.name: times, **{key: np.full_like(times, value) for key, value in known.items()}})
        )
        mix(np.ascontiguousarray(g.T, float), fractions, bool(model.magnitude), mixed)
    return found.reshape(-1, model.n_images)
