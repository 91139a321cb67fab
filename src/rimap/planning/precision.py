"""The smallest relative standard deviation of T: the Cramér-Rao bound for a free, a smooth or a given field."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import derivative
from rimap.likelihood import Noise, fisher_information, inverse_information
from rimap.planning.goal import Goal
from rimap.signals.base import FREE, GIVEN, SMOOTH, SignalModel

Array = NDArray[np.float64]

#: Number of voxels that share a smooth field, so that their information adds up. The bound barely depends on this
#: number.
VOXELS_OF_A_SMOOTH_FIELD = 100.0


def tissue_of(model: SignalModel, T: Array, assumed: Mapping[str, float] | None = None) -> Array:
    """Return κ (Q, K) of tissues whose main map has the values T (K,), for amplitudes of 1.

    Fields have the values in `assumed`, else their typical ones. Where the main map is derived, the relaxation time is
    that for which its formula gives T; NaN if there is none within the bounds.
    """
    T = np.asarray(T, dtype=float)
    kappa = np.ones((len(model.parameters), T.size))
    for q, parameter in enumerate(model.parameters):
        if parameter.role == "field":
            typical = parameter.in_a_scan.middle
            kappa[q] = (assumed or {}).get(parameter.name, typical)
    main, q = model.main, model.time_index
    if main is model.time:
        kappa[q] = T
        return kappa
    grid = np.geomspace(*model.time.bounds, 4001)
    at = np.repeat(kappa[:, :1], grid.size, axis=1)
    at[q] = grid
    found = main_values(model, at)
    good = np.isfinite(found) & (found > 0)
    order = np.argsort(found[good])
    kappa[q] = np.interp(T, found[good][order], grid[good][order], left=np.nan, right=np.nan)
    return kappa


def main_values(model: SignalModel, kappa: Array) -> Array:
    """Return the main map (K,) of κ (Q, K)."""
    formula = getattr(model.main, "formula", None)
    if formula is None:
        return np.asarray(kappa[model.time_index])
    with np.errstate(all="ignore"):
        return np.asarray(formula(model, model.by_name(kappa)), dtype=float)


def relative_sd(model: SignalModel, noise: Noise, T: Array, goal: Goal) -> Array:
    """Return the bound of the standard deviation of the main map over the map itself, (K,), at the values T (K,).

    NaN where the protocol does not determine it.

    Notes
    -----
    A given field is known. A free one is estimated in each voxel. A smooth one is estimated from all voxels of a
    neighbourhood: with the information F of one voxel, its entry of the field grows by (K − 1) times the Schur
    complement of the field in F, which is the information on it from each of K voxels with their own amplitude and T.
    """
    kappa = tissue_of(model, T, goal.assumed)
    with np.errstate(all="ignore"):
        information = np.moveaxis(np.asarray(fisher_information(model, noise, kappa), dtype=float), (0, 1), (-2, -1))
    field, treatment = goal.field, goal.field_treatment
    estimated = [
        row
        for row, parameter in enumerate(model.parameters)
        if not (parameter.given if field is None or parameter.name != field.name else treatment == GIVEN)
    ]
    F = information[..., estimated, :][..., :, estimated]
    if treatment == SMOOTH and field is not None:
        F = _with_neighbours(F, estimated.index(model.index(field.name)))
    covariance = inverse_information(F)
    slopes = _slopes(model, kappa)[estimated]
    with np.errstate(all="ignore"):
        variance = np.einsum("ik,kij,jk->k", slopes, covariance, slopes)
        return np.asarray(np.where(variance > 0, np.sqrt(variance), np.nan) / T)


def _slopes(model: SignalModel, kappa: Array) -> Array:
    """Return the derivative of the main map in each parameter, (Q, K)."""
    slopes = np.zeros_like(kappa)
    main = model.main
    if main is model.time:
        slopes[model.time_index] = 1.0
        return slopes
    formula = getattr(main, "formula", None)
    assert formula is not None
    maps = model.by_name(kappa)
    with np.errstate(all="ignore"):
        for name in maps:
            slopes[model.index(name)] = derivative(lambda **named: formula(model, named), maps, name)
    return slopes


def _with_neighbours(F: Array, f: int) -> Array:
    """Return the information (K, q, q) with the information of the neighbours on the field, whose row is `f`."""
    others = [index for index in range(F.shape[-1]) if index != f]
    inside = inverse_information(F[..., others, :][..., :, others])
    across = F[..., f, others]
    with np.errstate(all="ignore"):
        alone = F[..., f, f] - np.einsum("ki,kij,kj->k", across, inside, across)
    shared = F.copy()
    shared[..., f, f] += (VOXELS_OF_A_SMOOTH_FIELD - 1) * np.clip(np.nan_to_num(alone), 0, None)
    return shared


def brightest(model: SignalModel, T: float, goal: Goal) -> float:
    """Return the largest signal of the images of a protocol at T, for an amplitude of 1."""
    signal = np.abs(np.asarray(model.signal(tissue_of(model, np.array([T]), goal.assumed)), dtype=float))
    return float(np.nanmax(signal, initial=0.0))


__all__ = ["FREE", "GIVEN", "SMOOTH", "brightest", "relative_sd", "tissue_of"]
