"""The best field of a series, and A and T of every voxel for it: each way in which a field can be known, free or
smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Progress
from rimap.estimators.mle.field import Box, Objective, Until, mean_squared_error, minimise
from rimap.estimators.mle.field_smoothness import (
    DEFAULT_LAMBDA_B,
    LADDER,
    LEAST_SHARED,
    SUPPORTED_ALIKE,
    of_least_cost,
    weight_of,
    without_air,
)
from rimap.estimators.mle.field_votes import dispersion, follow_the_model, say_among_neighbours
from rimap.estimators.mle.initial_field import LikelyField
from rimap.estimators.mle.partitions import Partitions
from rimap.estimators.mle.shared_residuals import variance_inflation
from rimap.estimators.mle.voxels import Fit, Voxels
from rimap.estimators.nlls.estimator import NLLS
from rimap.estimators.possible_values import folded, possible
from rimap.estimators.sigma import freedom
from rimap.likelihood import Gaussian, Rician
from rimap.series import WeightedSeries
from rimap.signals.base import Parameter

Array = NDArray[np.float64]

#: The least gain in log-likelihood, over the whole volume, for which the iterations continue: this and 3e-4 for each
#: degree of freedom of the field (some 100 in a slice of 256 × 256 at the default weight).
TOLERANCE = 0.1
#: How much more than that while a weight is chosen.
ROUGH = 5.0
#: A voxel whose weight among its neighbours is below this has less say; above it all have the same. It is found again
#: while the weight of one changes by `CHANGED`, so many times.
HEARD, CHANGED, HEARINGS = 0.5, 0.3, 2


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
        Weight of the penalty: 0 for a field of its own in every voxel, infinite for one value, `None` to choose it from
        the data.
    """
    V = len(data)
    if field is None:
        known = series.held.get(series.model.field.name, 0.0) if series.model.field is not None else 0.0
        F = np.asarray(known, dtype=float).reshape(-1)[parts.voxels] if np.ndim(known) else np.zeros(V)
        return Solution(None, data.fit(F, None, True, thorough=True), 0.0, True, None)
    if lambda_B == 0:
        fit, converged = _each_its_own(series, data, parts.voxels, field)
        own = np.full(series.selected.size, np.nan)
        own[parts.voxels] = fit.F
        return Solution(own.reshape(series.shape), fit, math.inf, converged, 0.0)
    return _smooth(series, data, parts, field, lambda_B, progress)


@dataclass(frozen=True, eq=False)
class _Path:
    """The minimisation of Eq. 2 for one weight after the other.

    Parameters
    ----------
    data
        Voxels, with the weight that each has.
    information
        Of a voxel on the field.
    excess
        By which factor residuals exceed the noise throughout. The likelihood counts less by it where λ is chosen
        (quasi-likelihood): what the model cannot explain must not bend the field.
    likely
        What blocks of voxels say about the field, if Newton's method needs that to start.
    watch
        As of `minimise`.
    """

    box: Box
    data: Voxels
    field: Parameter
    information: float
    excess: float
    likely: LikelyField | None
    watch: Callable[[float, float], None] | None

    def _half_AIC(self, fit: Fit, lambda_B: float) -> float:
        """Return ½ AIC: −log p/excess, and how many values the field is free to take with the information that the fit
        has on it.
        """
        return fit.total / self.excess + self.box.degrees_of_freedom(fit.w, weight_of(self.field, lambda_B))

    def _dispersion(self, fit: Fit) -> float:
        """Return by which factor voxels differ more than their residuals do in what they ask of the field."""
        g, w = (self.box.scatter(values) for values in (fit.g, fit.w))
        return dispersion(g, w, self.excess)

    def to(self, lambda_B: float, start: Array, fit: Fit | None, *, search: bool) -> tuple[Array, Fit, bool]:
        """Return the field (*box), the fit and whether it converged, from a start and the fit there if it is known."""
        weight = weight_of(self.field, lambda_B)
        dof = self.box.degrees_of_freedom(np.full(len(self.data), self.information), weight)
        objective = Objective(self.data.fit, weight, self.field.bounds, local_curvature=not self.data.linear_in_field)
        until = Until((TOLERANCE + 3e-4 * dof) * (1.0 if search else ROUGH), search=search)
        return minimise(self.box, objective, start, until, state=fit, watch=self.watch if search else None)

    def heard(self, fit: Fit, lambda_B: float) -> tuple[_Path, Fit] | None:
        """Return the path with the weights of voxels by what their neighbours say, and the fit; `None` if they change
        little.
        """
        now = np.ones(len(self.data)) if self.data.weight is None else self.data.weight
        raw = fit.weighed(np.divide(1.0, now, out=np.zeros_like(now), where=now > 0))
        say = say_among_neighbours(self.box, raw, weight_of(self.field, lambda_B))
        if say.min() >= HEARD:
            say = np.ones(len(say))
        say[now == 0] = 0.0
        if np.abs(say - now).max() < CHANGED:
            return None
        return replace(self, data=self.data.weighed(say)), raw.weighed(say)

    def chosen(self, start: Array, fit: Fit | None, *, bends: bool = False) -> tuple[_Path, float, Array, Fit]:
        """Return the path with its weights, λ_B, and the field and the fit near its optimum.

        AIC = −2 log p + 2 dof is found on a ladder (10⁶ … 10³) down to where it rises, and for one value everywhere. A
        weaker smoothing than 10⁶, and one value, have to lower it by 2: what differs by less is supported alike
        (Burnham & Anderson 2004, doi:10.1177/0049124104268644).
        λ_B is where a parabola through the best step and its neighbours is least.

        Parameters
        ----------
        bends
            Whether the field is known not to be one value.
        """
        path, lambda_B = self, DEFAULT_LAMBDA_B
        F, fit, _ = path.to(lambda_B, start, fit, search=False)
        if again := path.heard(fit, lambda_B):
            path, fit = again
            F, fit, _ = path.to(lambda_B, F, fit, search=False)
        path = replace(path, excess=path.excess * path._dispersion(fit))
        costs = {lambda_B: path._half_AIC(fit, lambda_B)}
        best = (costs[lambda_B], lambda_B, F, fit)
        if not bends:
            one = path.data.fit(np.full(len(path.data), _best_one(fit)))
            if one.total / path.excess + 1.0 < best[0] - SUPPORTED_ALIKE:
                best = (one.total / path.excess + 1.0, math.inf, F, one)
        for lambda_B in LADDER[1:]:
            if path.likely is None:
                F, fit, _ = path.to(lambda_B, F, fit, search=False)
            else:  # what was smoothed too much may have left the best minimum
                start = path.likely.smoothed(weight_of(self.field, lambda_B))
                F, fit, _ = path.to(lambda_B, start, None, search=False)
            costs[lambda_B] = path._half_AIC(fit, lambda_B)
            if costs[lambda_B] > best[0] - SUPPORTED_ALIKE:
                break
            best = (costs[lambda_B], lambda_B, F, fit)
        return path, of_least_cost(costs, best[1]), best[2], best[3]


def _best_one(fit: Fit) -> float:
    """Return the one field that is best for all voxels, by the second-order expansion around a field."""
    w = np.maximum(fit.w, 0.0)
    total = float(w.sum())
    return float((w * fit.F - fit.g).sum()) / total if total > 0 else float(fit.F.mean())


def _smooth(
    series: WeightedSeries, data: Voxels, parts: Partitions, field: Parameter, lambda_B: float | None,
    progress: Progress | None,
) -> Solution:  # fmt: skip
    """Return the smooth field of Eq. 2, or the one value if λ_B is infinite; λ_B is chosen from the data if it is
    `None`.
    """
    chosen = np.zeros(series.selected.size, bool)
    chosen[parts.voxels] = True
    box = Box.around(chosen.reshape(series.shape), series.voxel_size)
    box = replace(box, data=box.data[parts.order])
    bright = without_air(np.einsum("vn,vn->v", data.S, data.S) / data.S.shape[1])
    if bright.all():
        found = _of_voxels(series, box, data, parts, field, lambda_B, progress)
        fit = found.fit
    else:  # air is fitted once, with the field that is found without it
        some, dark = np.flatnonzero(bright), np.flatnonzero(~bright)
        part = replace(parts, voxels=parts.voxels[some], order=parts.order[some])
        there = replace(box, data=box.data[some])
        found = _of_voxels(series, there, data.some(some), part, field, lambda_B, progress)
        F = np.clip(found.field.reshape(-1)[box.data], *field.bounds)
        fit = found.fit.among(some, data.some(dark).fit(F[dark], None, True).weighed(np.zeros(len(dark))), dark)
    if math.isinf(found.lambda_B):
        total = float(np.maximum(fit.w, 0).sum())
        variance = 1 / total if total > 0 else math.inf
        return Solution(np.full(series.shape, fit.F[0]), fit, variance, True, math.inf)
    error = mean_squared_error(box, found.field, fit, weight_of(field, found.lambda_B), field.bounds)
    smooth = np.clip(box.crop(found.field, series.shape), *field.bounds)
    return Solution(smooth, fit, error, found.converged, found.lambda_B)


class _Found(NamedTuple):
    """The field (*box), the fit of the voxels with their weights, whether it converged, and λ_B."""

    field: Array
    fit: Fit
    converged: bool
    lambda_B: float


def _of_voxels(
    series: WeightedSeries, box: Box, data: Voxels, parts: Partitions, field: Parameter, lambda_B: float | None,
    progress: Progress | None,
) -> _Found:  # fmt: skip
    """Return the smooth field that voxels determine; parameters as of `_smooth`, the box with its data."""
    weight = weight_of(field, DEFAULT_LAMBDA_B if lambda_B is None else lambda_B)
    likely, free = None, freedom(series)
    if data.linear_in_field or math.isinf(weight):
        best = data.best_constant(field.bounds, sample=True, preferred=field.start)
        start = np.full(box.shape, best.F[0])
    else:
        likely = LikelyField.of(box, data, field)
        start = likely.smoothed(weight)
    fit: Fit | None = data.fit(start.reshape(-1)[box.data])
    assert fit is not None
    follow, excess = follow_the_model(data, fit, field.bounds, free)
    follow &= possible(data.S.T, magnitude=series.model.magnitude)
    if not follow.all():
        say = follow.astype(float)
        data, fit = data.weighed(say), fit.weighed(say)
        if likely is not None:
            likely = LikelyField.of(box, data, field)
            start, fit = likely.smoothed(weight), None
    information = float(np.maximum(best.w, 0).mean()) if likely is None else likely.mean_information
    first = []

    def watch(J: float, promise: float) -> None:
        first.append(max(promise, 1.0))
        if progress:
            done = math.log(first[0] / max(promise, TOLERANCE)) / math.log(first[0] / TOLERANCE)
            progress(int(min(max(100 * done, 0), 99)), 100)

    path = _Path(box, data, field, information, excess, likely, watch)
    if lambda_B is None:
        path, lambda_B, start, fit = _chosen(series, parts, path, start, fit)
    if math.isinf(lambda_B):
        assert fit is not None
        return _one_field(path, fit)
    F, fit, converged = path.to(lambda_B, start, fit, search=True)
    for _ in range(HEARINGS):
        if (again := path.heard(fit, lambda_B)) is None:
            break
        path, fit = again
        F, fit, converged = path.to(lambda_B, F, fit, search=True)
    return _Found(F, fit, converged, lambda_B)


def _chosen(
    series: WeightedSeries, parts: Partitions, begun: _Path, start: Array, fit: Fit | None
) -> tuple[_Path, float, Array, Fit]:
    """Return what `_Path.chosen` finds with what is no evidence for a field that bends taken into account."""
    path, lambda_B, F, found = begun.chosen(start, fit)
    data, field = path.data, path.field
    of_one_amplitude = len(series.model.amplitudes) == 1
    if lambda_B < DEFAULT_LAMBDA_B and of_one_amplitude and not data.rician and folded(series):
        # Near zero, magnitudes differ from a signal with Gaussian noise.
        of_magnitudes = replace(begun, data=replace(begun.data, rician=True))
        del found  # a fit takes as much memory as the images
        lambda_B = max(lambda_B, _chosen(series, parts, of_magnitudes, start, None)[1])
        F, found, _ = path.to(min(lambda_B, DEFAULT_LAMBDA_B), start, None, search=False)
        return path, lambda_B, F, found
    if lambda_B < DEFAULT_LAMBDA_B:
        heard = np.arange(len(data)) if data.weight is None else np.flatnonzero(data.weight)
        maps = _maps(series, data, parts, field, found)[:, heard]
        noise = Rician(1.0) if data.rician else Gaussian(1.0)  # of images in units of σ
        shared = variance_inflation(series, data.S[heard], maps, parts.voxels[heard], noise)
        if shared > LEAST_SHARED:
            return replace(begun, excess=begun.excess * shared).chosen(start, fit, bends=True)
    return path, lambda_B, F, found


def _maps(series: WeightedSeries, data: Voxels, parts: Partitions, field: Parameter, fit: Fit) -> Array:
    """Return κ (Q, V) of a fit, amplitudes in the unit of its images."""
    model = series.model
    if len(model.amplitudes) > 1:
        return data.kappa(fit)
    found = {model.amplitudes[0].name: fit.A, field.name: fit.F, model.time.name: np.exp(fit.u)}

    def known(name: str) -> Array:
        value = np.asarray(series.held[name], float)
        return np.full(len(fit.F), float(value)) if value.ndim == 0 else value.reshape(-1)[parts.voxels]

    return np.stack(
        [found[parameter.name] if parameter.name in found else known(parameter.name) for parameter in model.parameters]
    )


def _one_field(path: _Path, fit: Fit) -> _Found:
    """Return the solution with one value of the field, from a fit that is near it."""
    for _ in range(1 + HEARINGS):
        w = np.maximum(fit.w, 0.0)
        at = float((w * fit.F).sum() / w.sum()) if w.any() else float(fit.F.mean())
        fit = path.data.constant_from(at, path.field.bounds, fit)
        if (again := path.heard(fit, math.inf)) is None:
            break
        path, fit = again
    return _Found(np.full(path.box.shape, fit.F[0]), fit, True, math.inf)


def _each_its_own(
    series: WeightedSeries, data: Voxels, voxels: NDArray[np.intp], field: Parameter
) -> tuple[Fit, NDArray[np.bool_]]:
    """Return the fit with a field of its own in every voxel, and where it converged: Newton's method, from least
    squares.
    """
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
