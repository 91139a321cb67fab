"""The smooth field of a whole series, to begin at, where each voxel for itself says too little about its own.

A network sees a neighbourhood of a few voxels. The slow shape of a field, which all voxels of a slice determine
together, it cannot determine from a neighbourhood, nor from a voxel whether the field is smooth there or like it is
not.

This is Eq. 2 as `MLE` solves it, with the λ_B that the data ask for, but quickly: Newton steps of which the first few
see every fourth voxel, on a grid for the field that is half as fine as the images (`FieldGrid`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_least
from rimap.estimators.mle.estimator import PRECISION
from rimap.estimators.mle.field_smoothness import (
    DEFAULT_LAMBDA_B,
    LADDER,
    LEAST_SHARED,
    SUPPORTED_ALIKE,
    of_least_cost,
    without_air,
)
from rimap.estimators.mle.field_votes import dispersion
from rimap.estimators.mle.shared_residuals import variance_inflation
from rimap.estimators.nlls.threads import field_threads
from rimap.estimators.noise_correlation import window_of
from rimap.estimators.possible_values import folded
from rimap.estimators.rim.averaging import average_of_alike
from rimap.estimators.rim.field_grid import FieldGrid, Information, every_so_many, fine, unit_of, usual_excess
from rimap.estimators.rim.initial_estimate import field_grid
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.network_input import known_at, neutral, part_of_series, slices
from rimap.likelihood import Gaussian, Rician
from rimap.series import WeightedSeries

F32 = NDArray[np.float32]
Array = NDArray[np.float64]
#: Along both axes of a slice: of how many voxels one is looked at first, and how much coarser the grid of the field is.
COARSER = 2
#: Voxels along an axis from which on the grid is coarser.
LARGE_ENOUGH = 64
#: Newton steps on every fourth voxel, of each further step of the ladder of λ_B, with the noise of magnitudes, and on
#: all voxels.
STEPS, STEPS_OF_A_RUNG, STEPS_UNFOLDED, STEPS_OF_ALL = 3, 1, 2, 3
#: In standard deviations of the field: a change after which the next one is far smaller.
CLOSE = 0.015
#: How many voxels determine the one field to begin with.
N_FIRST = 500
#: Of fewer voxels λ_B is not chosen from the data.
FEWEST = 200
#: What stands for an infinite λ_B: the field is then one value, or a plane.
STIFFEST = 1e9


class WholeField(NamedTuple):
    """The smooth field (*X) of a series, the λ_B of its penalty, and its standard deviation (*X); `None` of a rough
    one.
    """

    field: F32
    lambda_B: float
    sd: F32 | None = None


def smooth_field(
    series: WeightedSeries, *, threads: int | None, rough: bool = False, lambda_B: float | None = None
) -> WholeField:
    """Return the smooth field (*X) of maximum likelihood; `rough`, of every fourth voxel.

    Parameters
    ----------
    series
        Its noise has a σ.
    lambda_B
        The weight of its penalty, as of `MLE`; `None` to choose it from the data by AIC.
    """
    coarser, sd = _coarser(series), None
    with field_threads(threads) as pool:
        some = _without_air(every_so_many(series, coarser))
        field = _one_field(some, pool)
        if lambda_B is None and some.selected.sum() >= FEWEST and len(series.shape) > 1:
            field, lambda_B = _chosen(FieldGrid(some, coarser, 1, pool), series, field)
        else:
            lambda_B = DEFAULT_LAMBDA_B if lambda_B is None else min(lambda_B, STIFFEST)
            field = _newton(FieldGrid(some, coarser, 1, pool), field, lambda_B, STEPS).field
        if folded(series) and not isinstance(series.noise, Rician):
            series, some = _as_magnitudes(series), _as_magnitudes(some)
            field = _newton(FieldGrid(some, coarser, 1, pool), field, lambda_B, STEPS_UNFOLDED).field
        if not rough:
            steps = STEPS_OF_ALL if coarser > 1 else 0
            grid = FieldGrid(_without_air(series), coarser, coarser, pool)
            field, padded, here = _newton(grid, field, lambda_B, steps)
            sd = fine(grid.sd(padded, here, lambda_B), series.shape, coarser)
    return WholeField(fine(field, series.shape, coarser, binned=not rough), lambda_B, sd)


def _as_magnitudes(series: WeightedSeries) -> WeightedSeries:
    """Return the series with the noise of magnitudes."""
    return replace(series, noise=Rician((series.noise or Gaussian()).sigma))


def _without_air(series: WeightedSeries) -> WeightedSeries:
    """Return the series with a mask of the voxels that determine the field."""
    sigma = np.broadcast_to((series.noise or Gaussian()).sigma, series.shape)[series.selected]
    squares, bright = np.zeros(len(sigma)), np.array(series.selected)
    for image in series.images:
        squares += np.square(image[bright], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        bright[bright] = without_air(squares / len(series.images) / np.square(sigma))
    return replace(series, mask=bright) if bright.any() else series


def _coarser(series: WeightedSeries) -> int:
    """Return every how many voxels along a slice a field is looked for: 1 where those have no signal."""
    if len(series.shape) < 2 or min(series.shape[:2]) < LARGE_ENOUGH:
        return 1
    on_grid = slice(None, None, COARSER)
    return COARSER if _with_signal(series, (on_grid, on_grid)).any() else 1


def _with_signal(series: WeightedSeries, where: tuple[slice, ...] = ()) -> NDArray[np.bool_]:
    """Return which of the voxels ``[where]`` are selected, finite in all images and not zero in all of them."""
    images = series.images[(slice(None), *where)]
    return np.asarray(series.selected[where] & np.isfinite(images).all(0) & images.any(0))


class _Newton(NamedTuple):
    """The field after Newton steps; that on the box before the last one, and what the data say there."""

    field: Array
    padded: Array
    here: Information


def _newton(grid: FieldGrid, field: Array, lambda_B: float, steps: int) -> _Newton:
    """Return the field on the grid after Newton steps; without a step, what the data say about it."""
    padded = before = grid.padded(field)
    here = grid.at(padded)
    if not here.w.any():
        typical = np.full(grid.shape, Layout.of(grid.series.model).typical_field)
        return _Newton(typical, grid.padded(typical), here)
    for step in range(steps):
        if step:
            here = grid.at(padded, here)
        before = padded
        padded, changed = grid.step(padded, here, lambda_B)
        if changed < CLOSE:
            break
    return _Newton(grid.cropped(padded), before, here)


class _Rung(NamedTuple):
    """A step of the ladder of λ_B: half the AIC, λ_B, and the field on the box."""

    cost: float
    lambda_B: float
    padded: Array


def _chosen(grid: FieldGrid, series: WeightedSeries, field: Array) -> tuple[Array, float]:
    """Return the field on the grid for the λ_B of least AIC, and that λ_B.

    Parameters
    ----------
    grid
        Its voxels are some of `series`.
    """
    start = grid.padded(field)
    here = grid.at(start)
    if not here.w.any():
        return np.full(grid.shape, Layout.of(grid.series.model).typical_field), DEFAULT_LAMBDA_B
    padded, here = _stiffest(grid, start, here)
    excess = usual_excess(grid.series, here)
    excess *= dispersion(here.g / grid.each, here.w / grid.each, excess)
    best = _least(grid, padded, here, excess)
    if best.lambda_B < DEFAULT_LAMBDA_B and folded(series) and not isinstance(series.noise, Rician):
        # Near zero, magnitudes differ from a signal with Gaussian noise: no evidence for a field that bends.
        other = _chosen(replace(grid, series=_as_magnitudes(grid.series)), _as_magnitudes(series), field)
        return other if other[1] > best.lambda_B else (grid.cropped(best.padded), best.lambda_B)
    if best.lambda_B < DEFAULT_LAMBDA_B and (shared := _shared(grid, series, best.padded)) > LEAST_SHARED:
        best = _least(grid, padded, here, excess * shared, bends=True)
    return grid.cropped(best.padded), min(best.lambda_B, STIFFEST)


def _stiffest(grid: FieldGrid, padded: Array, here: Information) -> tuple[Array, Information]:
    """Return the stiffest field (*box), from which the ladder begins, and what the data say there."""
    for step in range(STEPS):
        padded, changed = grid.step(padded, here, LADDER[0])
        here = grid.at(padded, here if step < STEPS - 1 and changed > CLOSE else None)
        if changed < CLOSE:
            break
    return padded, here


def _least(grid: FieldGrid, padded: Array, here: Information, excess: float, *, bends: bool = False) -> _Rung:
    """Return the step of the ladder (∞, 10⁶ … 10³) with the least AIC, of which `MLE` says more.

    Each voxel that is looked at stands for k. A field follows the noise of what it was fitted to, so k times its −log p
    is too low for that of all voxels, by (k − 1) (tr S − ½ tr S²), S the matrix that smooths. In d dimensions, and with
    a penalty on the Laplacian, tr S² is 1 − d/4 of tr S, the degrees of freedom of the field.

    Parameters
    ----------
    padded, here
        The stiffest field, and what the data say there.
    excess
        By which factor residuals exceed the noise throughout: −log p counts less by it.
    bends
        Whether the field is known not to be one value everywhere.
    """
    k, d = grid.each, sum(length > 1 for length in grid.shape)
    per_freedom = 1 + (k - 1) * 0.5 * (1 + d / 4)
    counts, best, costs = here.say, _one_value(grid, padded, here, excess), dict[float, float]()
    for lambda_B in LADDER:
        for _ in range(STEPS_OF_A_RUNG if costs else 0):
            padded, _ = grid.step(padded, here, lambda_B)
            # Every cost is that after a search of all T: a search that starts at the last T would lower it by itself.
            here = grid.at(padded)
        dof = grid.box.degrees_of_freedom(here.w.reshape(-1), grid.penalty(lambda_B))
        # The field of one value is judged at its optimum. So each step of the ladder is judged where its next Newton
        # step leads.
        ahead, _ = grid.step(padded, here, lambda_B)
        left = _second_order(here, grid.cropped(ahead) - grid.cropped(padded))
        cost = (k * grid.minus_log_p(here, counts) + left) / excess + per_freedom * dof
        costs[lambda_B] = cost
        # One value has to be better than the first step.
        if cost < best.cost - SUPPORTED_ALIKE or (len(costs) == 1 and (bends or cost < best.cost + SUPPORTED_ALIKE)):
            best = _Rung(cost, lambda_B, padded)
        elif len(costs) > 1:
            break
    return best._replace(lambda_B=of_least_cost(costs, best.lambda_B))


def _second_order(here: Information, change: Array) -> float:
    """Return by how much −log p changes with the field, to second order."""
    return float((here.g * change + 0.5 * here.w * change**2).sum())


def _one_value(grid: FieldGrid, padded: Array, here: Information, excess: float) -> _Rung:
    """Return the field that is one value everywhere, by the second-order expansion around a field."""
    total = float(here.w.sum())
    change = float((here.w * (field := grid.cropped(padded)) - here.g).sum()) / total - field
    cost = grid.each * grid.minus_log_p(here, here.say)
    cost += _second_order(here, change)
    return _Rung(cost / excess + 1.0, math.inf, grid.padded(field + change))


def _shared(grid: FieldGrid, series: WeightedSeries, padded: Array) -> float:
    """Return by which factor the variance of a sum over neighbours exceeds that of independent residuals, in a part of
    a slice.
    """
    usable = _with_signal(series)
    window = list(window_of(usable))
    field = fine(grid.cropped(padded), series.shape, grid.coarser, binned=False)
    if len(window) > 2:
        window[2] = _one_plane(usable, window)
    part, unit = part_of_series(series, tuple(window)), unit_of(series)
    whole = FieldGrid(part, 1, 1, grid.pool)
    here, layout = whole.at(whole.padded(field[tuple(window)].astype(float))), Layout.of(part.model)
    kappa = np.asarray(layout.kappa_of(here.carried.astype(float), layout.known_of(part.held)))
    kappa[[parameter.amplitude for parameter in part.model.parameters]] *= unit_of(part) / unit
    voxels = np.flatnonzero(here.say)
    S = np.moveaxis(part.images, 0, -1).reshape(-1, part.model.n_images)[voxels] / unit
    noise = part.noise or Gaussian()
    of_unit = type(noise)(noise.typical_sigma(part.selected) / unit)
    return variance_inflation(part, S, kappa.reshape(len(kappa), -1)[:, voxels], voxels, of_unit)


def _one_plane(usable: NDArray[np.bool_], window: list[slice]) -> slice:
    """Return the plane of a window nearest to its middle that has at least half as many usable voxels as any."""
    count = usable[tuple(window)].sum((0, 1))
    enough = np.flatnonzero(2 * count >= count.max())
    plane = window[2].start + int(enough[abs(enough - len(count) // 2).argmin()])
    return slice(plane, plane + 1)


def _one_field(series: WeightedSeries, pool: Executor) -> Array:
    """Return the one field that is best for some strong voxels, everywhere."""
    unit, noise = unit_of(series), series.noise or Gaussian()
    flat = series.images.reshape(len(series.images), -1)
    usable = at_least(np.flatnonzero(series.selected.reshape(-1)), 4 * N_FIRST)
    S = neutral(flat[:, usable], unit)
    power = (S**2).sum(0)
    lit = power > 0  # not those without signal, as where a slice was blanked
    strong = at_least(np.flatnonzero(power >= np.median(power[lit] if lit.any() else power)), N_FIRST)
    S = np.ascontiguousarray(S[:, None, :, None][:, :, strong])
    known = {
        name: np.reshape(value, -1)[usable][strong][None, :, None] if np.ndim(value) else value
        for name, value in known_at(series, ...).items()
    }
    sigma = np.full((1, 1, 1), max(noise.typical_sigma(series.selected) / unit, PRECISION), np.float32)
    data = DataTerm(series.model, S, sigma, isinstance(noise, Rician), pool, known=known)
    grid, cost = field_grid(Layout.of(series.model)), []
    for value in grid:
        carried = data.at_field(np.full(S.shape[1:], value, np.float32), alone=True)
        cost.append(float(np.minimum(data(carried).sse / sigma**2, 1e4).sum()))
    return np.full(series.shape, float(grid[int(np.argmin(cost))]))


def folds(times: NDArray[Any], n: int, least: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return `n` pairs of image numbers (a part, all others), spread over the times.

    One pair of all images, where fewer than `least` distinct times would be left.
    """
    order = np.argsort(times, kind="stable")
    pairs = [(order[f::n], np.sort(np.delete(order, np.s_[f::n]))) for f in range(n)]
    if n > 1 and min(len(np.unique(times[others])) for _, others in pairs) >= least:
        return pairs
    return [(order, order)]


def smooth_field_of_alike(
    series: WeightedSeries,
    guides: Sequence[tuple[NDArray[np.intp], F32]],
    field: F32,
    *,
    threads: int | None,
    lambda_B: float = DEFAULT_LAMBDA_B,
) -> WholeField:
    """Return the smooth field of the series averaged, slice by slice, over voxels that are alike, from a field
    nearby.

    Neighbouring averages share their voxels: the penalty is raised as much as noise is lowered, so that the field is
    smoothed as over independent voxels.

    Parameters
    ----------
    guides
        For each part of the images its image numbers and the estimate (P, *X) that says which voxels are alike there.
        If noise is high, an estimate from the other images (cross-fitting): voxels chosen by their own noise keep it in
        their average, and an inversion efficiency is then too low by up to 0.05 at SNR 3.
    """
    coarser, noise = _coarser(series), series.noise or Gaussian()
    grid = _without_air(every_so_many(series, coarser))
    images = np.empty(grid.images.shape, np.float32)
    factor = np.ones(grid.shape)
    rician_sigma = noise.typical_sigma(series.selected) if folded(series) else 0.0
    for slice_ in slices(series.shape):
        S, where = series.images[(slice(None), *slice_)], series.selected[slice_]
        flat = S.reshape(len(S), S.shape[1], -1)
        out = np.empty((len(S), *(-(-length // coarser) for length in flat.shape[1:])), np.float32)
        left = np.zeros(out.shape[1:])
        for part, carried in guides:
            T, A, usable = (x.reshape(flat.shape[1:]) for x in (carried[-1][slice_], carried[0][slice_], where))
            out[part], less = average_of_alike(flat[part], T, A, usable, every=coarser, rician_sigma=rician_sigma)
            left += less.astype(float) ** 2 * (len(part) / len(S))
        images[(slice(None), *slice_)] = out.reshape(images[(slice(None), *slice_)].shape)
        factor[slice_] = np.sqrt(left).reshape(factor[slice_].shape)
    if not images.any():  # a given σ exceeds the signal
        return WholeField(field, lambda_B)
    sigma = np.asarray((grid.noise or noise).sigma, dtype=float) * factor
    first = (field[(slice(None, None, coarser),) * 2] if coarser > 1 else field).astype(float)
    shared = float(np.median(factor[grid.selected]) ** -2)
    with field_threads(threads) as pool:
        alone = FieldGrid(grid, coarser, 1, pool)
        follow = alone.at(alone.padded(first)).say
        quieter = replace(grid, images=images, noise=Gaussian(sigma=sigma), mask=grid.selected & follow)
        averaged = FieldGrid(quieter, coarser, 1, pool, all_have_a_say=True)
        found = _newton(averaged, first, lambda_B * shared, STEPS)
        sd = averaged.sd(found.padded, found.here, lambda_B * shared, shared)
    whole, whole_sd = (fine(values, series.shape, coarser, binned=False) for values in (found.field, sd))
    return WholeField(whole, lambda_B, whole_sd)
