"""Voxels on a border hold two tissues: their signal is a sum that one relaxation time does not describe, and no fault."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]

#: Relaxation times and fractions of the mixtures that are tried, and quantiles of the field over the object.
_TIMES, _FRACTIONS, _FIELD = 20, 9, (0.02, 0.25, 0.5, 0.75, 0.98)
#: Mixtures have relaxation times between these quantiles of those of the object, a factor wider on either side.
_QUANTILES, _WIDER = (0.02, 0.98), 3.0
_CHUNK = 5_000


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
    for i in range(0, len(at), _CHUNK):
        where = np.unravel_index(at[i : i + _CHUNK], series.shape)
        S = np.stack([image[where] for image in series.images], axis=1).astype(float)
        power = np.maximum((S**2).sum(1), 1e-300)
        best = np.maximum(S @ shapes, 0).max(1) ** 2
        left[i : i + _CHUNK] = np.clip(1 - best / power, 0, 1)
    return left


def _mixtures(model: SignalModel, series: WeightedSeries, maps: ParameterMaps) -> Floats | None:
    """Return the signals of mixtures with norm 1, (N, number of mixtures)."""
    good = np.flatnonzero((maps.status == Status.OK) & np.isfinite(maps.kappa).all(0))
    good = good[:: -(-len(good) // 20_000) or 1]
    if len(good) < 10:
        return None
    kappa = maps.kappa.reshape(len(maps.kappa), -1)[:, good]
    T = kappa[model.index(model.time.name)]
    low, high = np.quantile(T, _QUANTILES)
    low, high = max(low / _WIDER, model.time.bounds[0]), min(high * _WIDER, model.time.bounds[1])
    times = np.geomspace(low, high, _TIMES)
    settings: list[dict[str, Any]] = [{}]
    for p in model.nonlinear:
        if p is model.time:
            continue
        values = kappa[model.index(p.name)]
        levels = np.unique(np.quantile(values, _FIELD)) if p is model.field else [float(np.median(values))]
        settings = [{**s, p.name: float(v)} for s in settings for v in levels]
    fractions = np.linspace(0, 1, _FRACTIONS + 2)[:-1]
    first, second = np.triu_indices(_TIMES, 1)
    found = []
    for known in settings:
        g = np.asarray(model.shape(**{model.time.name: times, **{k: np.full_like(times, v) for k, v in known.items()}}))
        mixed = g[:, first, None] * fractions + g[:, second, None] * (1 - fractions)
        found.append(mixed.reshape(len(g), -1))
    shapes = np.concatenate(found, axis=1)
    shapes = abs(shapes) if model.magnitude else shapes
    return np.asarray(shapes / np.maximum(np.linalg.norm(shapes, axis=0), 1e-300))
