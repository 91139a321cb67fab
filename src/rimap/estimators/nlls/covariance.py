"""The covariance of every voxel: the inverse information at the estimate, for derived maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.table import ShapeTable, levels
from rimap.likelihood import Gaussian, Noise, cramer_rao_covariance
from rimap.series import ParameterMaps, Status
from rimap.signals.base import SignalModel

#: Voxels whose information is computed at a time.
CHUNK = 4096


def covariance_for(
    model: SignalModel, maps: ParameterMaps, noise: Noise, held: Mapping[str, Any]
) -> NDArray[np.float64] | None:
    """Return the covariance of κ (Q (Q + 1)/2, *X), the upper triangle row by row; NaN where it is not known.

    Parameters
    ----------
    held
        What was not estimated, by name, a number or a map (*X): its rows are NaN.
    """
    if noise.sigma is None:
        return None
    Q = len(model.parameters)
    out = np.full((Q * (Q + 1) // 2, *maps.status.shape), np.nan)
    flat, kappa = out.reshape(len(out), -1), maps.kappa.reshape(Q, -1)
    valid = np.flatnonzero(maps.status == Status.OK)
    if isinstance(noise, Gaussian) and len(model.amplitudes) <= 2:
        for voxels, known in _tables(model, held, valid):
            _from_table(model, known, held, kappa, voxels, flat)
        out *= np.square(noise.sigma)
        return out
    for voxels in np.array_split(valid, len(valid) // CHUNK + 1):
        sigma = noise.sigma if np.ndim(noise.sigma) == 0 else np.asarray(noise.sigma).reshape(-1)[voxels]
        found = cramer_rao_covariance(model, type(noise)(sigma=sigma), kappa[:, voxels], held=held)
        flat[:, voxels] = packed(found)
    return out


def _tables(
    model: SignalModel, held: Mapping[str, Any], voxels: NDArray[np.intp]
) -> list[tuple[NDArray[np.intp], dict[str, float]]]:
    """Return the voxels of each table, and the numbers that are known there: a given map that is no field has
    levels.
    """
    parts = [(voxels, {key: float(value) for key, value in held.items() if np.ndim(value) == 0})]
    for name, values in held.items():
        if np.ndim(values) == 0 or (model.field is not None and name == model.field.name):
            continue
        middles, level, *_ = levels(values, model, name)
        parts = [
            (some[level[some] == i], known | {name: float(middles[i])})
            for some, known in parts
            for i in np.unique(level[some])
            if i >= 0
        ]
    return parts


def _from_table(
    model: SignalModel,
    known: Mapping[str, float],
    held: Mapping[str, Any],
    kappa: NDArray[Any],
    voxels: NDArray[np.intp],
    out: NDArray[np.float64],
) -> None:
    """Write the covariance for σ = 1 of some voxels, from the table of the series."""
    from rimap.estimators.nlls.covariance_kernels import covariances  # numba is slow to import
    from rimap.estimators.nlls.descent import scratch
    from rimap.estimators.nlls.variable_projection import Grid

    names = [amplitude.name for amplitude in model.amplitudes]
    table = ShapeTable.of(model, {key: value for key, value in known.items() if key not in names})
    time, field = model.index(model.time.name), model.field
    F = kappa[model.index(field.name)] if table.has_field and field is not None else np.zeros(kappa.shape[1])
    moves = table.has_field and field is not None and field.name not in held
    is_open = [name not in held for name in names] + [False, False]
    places = [model.index(name) for name in names if name not in held]
    places += [model.index(field.name)] if moves and field is not None else []
    A = np.ascontiguousarray(kappa[[model.index(name) for name in names]]) if names else np.ones((1, kappa.shape[1]))
    order = np.array([*places, time])
    pair = (bool(is_open[0]), bool(is_open[1]))
    covariances(
        Grid.of(table), A, F, kappa[time], pair, bool(moves), (voxels, order, scratch(*table.powers[0].shape[3:])), out
    )


def packed(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper triangle row by row, (Q (Q + 1)/2, *X), of covariances (Q, Q, *X)."""
    return np.ascontiguousarray(covariance[np.triu_indices(len(covariance))])
