"""The best field of a series, and A and T of every voxel for it: each way in which a field can be known, free or smooth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Progress
from rimap.estimators.mle.field import Box, minimise
from rimap.estimators.mle.known import Partitions
from rimap.estimators.mle.start import LikelyField
from rimap.estimators.mle.voxels import Fit, Voxels
from rimap.estimators.mle.weight import DEFAULT_LAMBDA_B, weight_of
from rimap.estimators.nlls.estimator import NLLS
from rimap.likelihood import Gaussian
from rimap.series import WeightedSeries
from rimap.signals.base import Parameter

Array = NDArray[np.float64]

#: The least gain in log-likelihood, over the whole volume, for which the iterations go on: this and 3e-4 for each
#: degree of freedom of the field (some 100 in a slice of 256 × 256 at the default weight).
TOLERANCE = 0.1
#: How much more than that while a weight is chosen.
ROUGH = 5.0
#: By how many steps of ten λ_B may be below its default.
LADDER_STEPS = 3
#: How many voxels tell the one field from which the iterations start.
SAMPLE = 1000


@dataclass(frozen=True, eq=False)
class Solution:
    """The best field and what follows from it.

    Parameters
    ----------
    field
        (*X), or `None` if the model has none that is estimated.
    fit
        Of the voxels (V).
    variance
        (V) or a number: of the field. Infinite if each voxel has a field of its own.
    converged
        Whether the iterations did: for all, or (V).
    lambda_B
        Weight of the penalty, if there is a field.
    """

    field: Array | None
    fit: Fit
    variance: Array | float
    converged: bool | NDArray[np.bool_]
    lambda_B: float | None


def solve(
    series: WeightedSeries, data: Voxels, parts: Partitions, field: Parameter | None, lambda_B: float | None,
    progress: Progress | None,
) -> Solution:  # fmt: skip
    """Return the best field and fit.

    Parameters
    ----------
    field
        That is estimated, if any is.
    lambda_B
        Weight of the penalty: 0 for a field of its own in every voxel, infinite for one value, `None` to choose it from the data.
    """
    V = len(data)
    if field is None:
        known = series.held.get(series.model.field.name, 0.0) if series.model.field is not None else 0.0
        F = np.asarray(known, dtype=float).reshape(-1)[parts.voxels] if np.ndim(known) else np.zeros(V)
        return Solution(None, data.fit(F, None, True), 0.0, True, None)
    if lambda_B == 0:
        fit, converged = _each_its_own(series, data, parts.voxels, field)
        own = np.full(series.selected.size, np.nan)
        own[parts.voxels] = fit.F
        return Solution(own.reshape(series.shape), fit, math.inf, converged, 0.0)
    if lambda_B is not None and math.isinf(lambda_B):
        return _one_field(series, data, field, None)
    return _smooth(series, data, parts, field, lambda_B, progress)


@dataclass(frozen=True, eq=False)
class _Path:
    """The minimisation of Eq. 2 for one weight after the other.

    Parameters
    ----------
    information
        Of a voxel on the field.
    likely
        What blocks of voxels say about the field, if Newton's method needs that to start.
    watch
        As of `minimise`.
    """

    box: Box
    data: Voxels
    field: Parameter
    information: float
    likely: LikelyField | None
    watch: Callable[[float, float], None] | None

    def _half_AIC(self, fit: Fit, lambda_B: float, excess: float) -> float:
        """Return ½ AIC: −log p/excess, and how many values the field is free to take with the information that the fit has on it."""
        dof = self.box.degrees_of_freedom(max(float(fit.w.mean()), 0.0), weight_of(self.field, lambda_B))
        return fit.total / excess + dof

    def to(self, lambda_B: float, start: Array, fit: Fit | None, *, search: bool) -> tuple[Array, Fit, bool]:
        """Return the field (*box), the fit and whether it converged, from a start and the fit there if it is known."""
        weight = weight_of(self.field, lambda_B)
        return minimise(
            self.box,
            self.data.fit,
            start,
            weight,
            self.field.bounds,
            tolerance=(TOLERANCE + 3e-4 * self.box.degrees_of_freedom(self.information, weight))
            * (1.0 if search else ROUGH),
            watch=self.watch if search else None,
            local_curvature=not self.data.linear_in_field,
            state=fit,
            search=search,
        )

    def chosen(self, start: Array) -> tuple[float, Array, Fit]:
        """Return the λ_B of a ladder (∞, 10⁶ … 10³) with the least AIC = −2 log p + 2 dof, and the field and the fit near its optimum.

        The descent ends where AIC rises. If residuals exceed the noise
        throughout, the likelihood counts less (quasi-likelihood): what the model cannot explain must not bend the field.
        """
        lambda_B = DEFAULT_LAMBDA_B
        F, fit, _ = self.to(lambda_B, start, None, search=False)
        excess = 1.0
        if not self.data.rician:  # then f is χ²/2 of N values and about 2.5 parameters
            excess = max(1.0, float(np.median(2 * fit.f)) / max(self.data.S.shape[1] - 2.5, 0.5))
        best = (self._half_AIC(fit, lambda_B, excess), lambda_B, F, fit)
        if (one := _cost_of_one(fit) / excess + 1.0) < best[0]:
            best = (one, math.inf, F, fit)
        for _ in range(LADDER_STEPS):
            lambda_B /= 10
            if self.likely is None:
                F, fit, _ = self.to(lambda_B, F, fit, search=False)
            else:  # what was smoothed too much may have left the best minimum
                start = self.likely.smoothed(weight_of(self.field, lambda_B))
                F, fit, _ = self.to(lambda_B, start, None, search=False)
            if (cost := self._half_AIC(fit, lambda_B, excess)) > best[0]:
                break
            best = (cost, lambda_B, F, fit)
        return best[1:]


def _cost_of_one(fit: Fit) -> float:
    """Return Σ f for the best one field, by the second-order expansion around a field: exact if one field is right."""
    w = np.maximum(fit.w, 0.0)
    total = float(w.sum())
    if total <= 0:
        return fit.total
    F = float((w * fit.F - fit.g).sum()) / total
    return float((fit.f + fit.g * (F - fit.F) + 0.5 * w * (F - fit.F) ** 2).sum())


def _smooth(
    series: WeightedSeries, data: Voxels, parts: Partitions, field: Parameter, lambda_B: float | None,
    progress: Progress | None,
) -> Solution:  # fmt: skip
    """Return the smooth field of Eq. 2; its λ_B is chosen from the data if it is `None`."""
    chosen = np.zeros(series.selected.size, bool)
    chosen[parts.voxels] = True
    box = Box.around(chosen.reshape(series.shape), series.voxel_size)
    box = replace(box, data=box.data[parts.order])
    likely = None
    if data.linear_in_field:
        best = data.best_constant(field.bounds, sample=SAMPLE, preferred=field.start)
        start, information = np.full(box.shape, best.F[0]), float(np.maximum(best.w, 0).mean())
    else:
        likely = LikelyField.of(box, data, field)
        information = likely.mean_information
        start = likely.smoothed(weight_of(field, DEFAULT_LAMBDA_B if lambda_B is None else lambda_B))
    first = []

    def watch(J: float, promise: float) -> None:
        first.append(max(promise, 1.0))
        if progress:
            done = math.log(first[0] / max(promise, TOLERANCE)) / math.log(first[0] / TOLERANCE)
            progress(int(min(max(100 * done, 0), 99)), 100)

    path = _Path(box, data, field, information, likely, watch)
    fit: Fit | None = None
    if lambda_B is None:
        lambda_B, start, fit = path.chosen(start)
    if math.isinf(lambda_B):
        return _one_field(series, data, field, fit)
    F, fit, converged = path.to(lambda_B, start, fit, search=True)
    if progress:
        progress(100, 100)
    variance = box.variance(fit.w, weight_of(field, lambda_B))
    return Solution(box.crop(F, series.shape), fit, variance, converged, lambda_B)


def _one_field(series: WeightedSeries, data: Voxels, field: Parameter, near: Fit | None) -> Solution:
    """Return the solution with one value of the field, from a fit that is near it if there is one."""
    if near is None:
        fit = data.best_constant(field.bounds, preferred=field.start)
    else:
        w = np.maximum(near.w, 0.0)
        fit = data.constant_from(float((w * near.F).sum() / w.sum()), field.bounds, near)
    total = float(np.maximum(fit.w, 0).sum())
    variance = 1 / total if total > 0 else math.inf
    return Solution(np.full(series.shape, fit.F[0]), fit, variance, True, math.inf)


def _each_its_own(
    series: WeightedSeries, data: Voxels, voxels: NDArray[np.intp], field: Parameter
) -> tuple[Fit, NDArray[np.bool_]]:
    """Return the fit with a field of its own in every voxel, and where it converged: Newton's method, from least squares."""
    name, bounds = field.name, field.bounds
    start = NLLS(threads=1).estimate(series.with_noise(Gaussian(sigma=1.0)))[name].reshape(-1)[voxels]
    fit = data.fit(np.clip(np.nan_to_num(start, nan=sum(bounds) / 2), *bounds))
    reach = np.full(len(data), 0.1)
    moves: NDArray[np.bool_] = np.ones(len(data), bool)
    for _ in range(50):
        curve = np.where(fit.w > 0, fit.w, np.abs(fit.g) / reach + 1e-12)
        F = np.clip(fit.F + np.clip(-fit.g / curve, -reach, reach), *bounds)
        moves = np.abs(fit.g * (F - fit.F)) > 2e-4
        if not moves.any():
            break
        new = data.fit(F, fit)
        better = new.f < fit.f
        reach = np.where(better, np.minimum(2 * reach, 1.0), 0.3 * reach)
        fit = new.where(better, fit)
    return fit, np.logical_not(moves)
