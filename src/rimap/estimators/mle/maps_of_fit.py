"""From the best fit of every voxel to maps: values, standard deviations, covariances, residual and status."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.mle.field_solver import Solution
from rimap.estimators.mle.information import (
    A_ALONG_F,
    COV_AU,
    INFO_F,
    SQUARES,
    U_ALONG_F,
    VAR_A,
    VAR_U,
)
from rimap.estimators.mle.several_amplitudes import Found
from rimap.estimators.mle.voxels import Voxels
from rimap.likelihood import Noise
from rimap.series import Status, WeightedSeries
from rimap.signals.base import Parameter

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scale:
    """The voxels (V) of the series (flat indices), σ there, and the unit in which their data are: σ, but not below a
    share of the signal.
    """

    voxels: NDArray[np.intp]
    sigma: Any
    unit: Any


@dataclass(frozen=True, eq=False)
class Answer:
    """Maps of all voxels (M): κ and its standard deviations (Q, M), residual and status (M), covariance (Q(Q+1)/2, M)
    or none.
    """

    kappa: Array
    sd: Array
    residual: Array
    status: NDArray[np.uint8]
    covariance: Array | None

    @classmethod
    def empty(cls, series: WeightedSeries, status: NDArray[np.uint8]) -> Answer:
        """Return maps of NaN, except for parameters that are known; `status` (*X) has the quality flags."""
        parameters = series.model.parameters
        Q, M = len(parameters), status.size
        kappa = np.full((Q, M), np.nan)
        for row, parameter in enumerate(parameters):
            if parameter.name in series.held:
                known = np.broadcast_to(series.held[parameter.name], series.shape).reshape(-1)
                kappa[row] = np.where(status == Status.OUTSIDE_MASK, np.nan, known)
        covariance = np.full((Q * (Q + 1) // 2, M), np.nan) if series.model.derived else None
        return cls(kappa, np.full((Q, M), np.nan), np.full(M, np.nan), status, covariance)

    def take(self, series: WeightedSeries, found: Found) -> None:
        """Take what was found voxel by voxel."""
        done = np.isfinite(found.kappa).all(0)
        self.kappa[:, done] = found.kappa[:, done]
        Q = len(self.kappa)
        diagonal = [row for row, (i, j) in enumerate(zip(*np.triu_indices(Q))) if i == j]
        self.sd[:, done] = np.sqrt(found.covariance[diagonal][:, done])
        self.residual[done] = np.sqrt(found.squares[done] / series.model.n_images)
        self.status[:] = found.status
        if self.covariance is not None:
            covariance = found.covariance[:, done]
            known = np.isnan(covariance) & np.isfinite(self.sd[:, done]).any(0)
            self.covariance[:, done] = np.where(known, 0.0, covariance)


def write(
    answer: Answer, series: WeightedSeries, field: Parameter | None, data: Voxels, scale: Scale, found: Solution,
    noise: Noise,
) -> None:  # fmt: skip
    """Write the maps of the voxels with data."""
    model, fit, voxels = series.model, found.fit, scale.voxels
    a, t = model.index(model.amplitudes[0].name), model.index(model.time.name)
    lo, hi = model.time.bounds
    T = np.clip(np.exp(fit.u), lo, hi)
    answer.kappa[a, voxels], answer.kappa[t, voxels] = fit.A * scale.unit, T
    columns = data.information(fit, noise)
    at_bound = (fit.A <= 0) | (lo * (1 + 1e-9) >= T) | (hi * (1 - 1e-9) <= T)
    variance: Any = 0.0
    if field is not None:
        f = model.index(field.name)
        assert found.field is not None
        answer.kappa[f] = np.where(answer.status != Status.OUTSIDE_MASK, found.field.reshape(-1), np.nan)
        alone = np.isscalar(found.variance) and found.variance == math.inf
        with np.errstate(divide="ignore"):
            own = columns[:, INFO_F]
            variance = np.where(own > 0, 1 / own, np.inf) if alone else found.variance
        low, high = field.bounds
        at_bound |= (low >= fit.F) | (high <= fit.F)
    # σ is in `unit` throughout, and so is A: κ in the unit of the parameters has these errors
    ratio = scale.sigma / scale.unit
    errors = {a: scale.sigma, t: ratio * T}
    second: dict[tuple[int, int], Any] = {
        (a, a): columns[:, VAR_A] + columns[:, A_ALONG_F] ** 2 * variance,
        (a, t): columns[:, COV_AU] + columns[:, A_ALONG_F] * columns[:, U_ALONG_F] * variance,
        (t, t): columns[:, VAR_U] + columns[:, U_ALONG_F] ** 2 * variance,
    }
    if field is not None:
        errors[f] = ratio
        second |= {(f, f): variance, (a, f): columns[:, A_ALONG_F] * variance, (t, f): columns[:, U_ALONG_F] * variance}
    undetermined = at_bound | ~np.isfinite(np.broadcast_to(sum(second[error, error] for error in errors), len(voxels)))
    for q, error in errors.items():
        with np.errstate(invalid="ignore"):
            deviation = np.sqrt(second[q, q]) * error
        answer.sd[q, voxels] = np.where(at_bound | ~np.isfinite(deviation), np.nan, deviation)
    if answer.covariance is not None:
        pairs = [(i, j) for i in range(len(answer.kappa)) for j in range(i, len(answer.kappa))]
        for row, (i, j) in enumerate(pairs):
            value = second.get((i, j), second.get((j, i), 0.0)) * errors.get(i, 0.0) * errors.get(j, 0.0)
            answer.covariance[row, voxels] = np.where(undetermined, np.nan, value)
    answer.residual[voxels] = np.sqrt(columns[:, SQUARES] / model.n_images) * scale.unit
    answer.status[voxels[at_bound]] = Status.AT_BOUND
    converged = np.broadcast_to(found.converged, len(voxels))
    stopped = voxels[~converged]
    answer.status[stopped[answer.status[stopped] == Status.OK]] = Status.NOT_CONVERGED
