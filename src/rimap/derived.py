"""Derived maps and their standard deviations, from the maps of the parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import derivative
from rimap.signals.base import Derived, SignalModel

Array = NDArray[np.float64]


def derived_map(model: SignalModel, what: Derived, kappa: NDArray[Any]) -> NDArray[Any]:
    """Return a derived map (*X) from κ (Q, *X); NaN where its formula has no value."""
    with np.errstate(all="ignore"):
        return np.asarray(what.formula(model, model.by_name(kappa)))


def depends_on(model: SignalModel, what: Derived) -> list[str]:
    """Return the parameters that are estimated and that a derived map depends on, by name."""
    start = [parameter.start if parameter.start is not None else 1.0 for parameter in model.parameters]
    slopes = _slopes(model, what, np.array(start, dtype=float))
    return [
        parameter.name for row, parameter in enumerate(model.parameters) if slopes[row] != 0 and not parameter.given
    ]


def derived_sd(
    model: SignalModel,
    what: Derived,
    kappa: NDArray[Any],
    sd: NDArray[Any] | None,
    covariance: NDArray[Any] | None = None,
) -> Array:
    """Return the standard deviation (*X) of a derived map by the delta method, √(∇ᵀ C ∇) with the gradient of its
    formula.

    Parameters
    ----------
    kappa
        (Q, *X).
    sd
        (Q, *X) standard deviations of κ. Without `covariance` they are enough for a formula of one parameter; of
        several, the standard deviation is NaN.
    covariance
        (Q (Q + 1)/2, *X), the upper triangle of each voxel's covariance, row by row. A parameter without variance in
        any voxel is known, and adds nothing.
    """
    kappa = np.asarray(kappa, dtype=float)
    unknown = np.full(kappa.shape[1:], np.nan)
    variances = None if sd is None else np.square(np.asarray(sd, dtype=float))
    second = None if covariance is None else _by_pair(np.asarray(covariance, dtype=float), len(kappa))
    slopes = _slopes(model, what, kappa)
    matters = [q for q, slope in slopes.items() if np.any(slope != 0) and not _is_known(q, model, variances, second)]
    if second is None:
        if variances is None or len(matters) > 1:
            return unknown
        second = {(matter, matter): variances[matter] for matter in matters}
    with np.errstate(invalid="ignore"):
        variance = 0 * derived_map(model, what, kappa).astype(float)  # NaN where the map is
        for i, j in itertools.combinations_with_replacement(matters, 2):
            variance = variance + (1 if i == j else 2) * slopes[i] * slopes[j] * second[i, j]
        return np.asarray(np.where(variance > 0, np.sqrt(variance), unknown))


def _slopes(model: SignalModel, what: Derived, kappa: Array) -> dict[int, Array]:
    """Return the derivative of the formula in each parameter (*X), by its row."""
    maps = model.by_name(kappa)
    function: Callable[..., Any] = lambda **named: what.formula(model, named)  # noqa: E731
    with np.errstate(all="ignore"):
        return {model.index(name): np.asarray(derivative(function, maps, name)) for name in maps}


def _by_pair(covariance: Array, Q: int) -> dict[tuple[int, int], Array]:
    return dict(zip(itertools.combinations_with_replacement(range(Q), 2), covariance))


def _is_known(q: int, model: SignalModel, variances: Array | None, second: dict[tuple[int, int], Array] | None) -> bool:
    """Return whether a parameter was not estimated: it was given, or has no variance in any voxel where others have
    one.
    """
    if model.parameters[q].given:
        return True
    if second is not None:
        return not np.isfinite(second[q, q]).any() and any(np.isfinite(v).any() for v in second.values())
    return variances is not None and not np.isfinite(variances[q]).any() and bool(np.isfinite(variances).any())
