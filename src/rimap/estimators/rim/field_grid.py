"""A smooth field on a grid that may be coarser than the images: what the data say about it, and Newton steps.

Amplitudes and T are those of `DataTerm.at_field`, so that what is left is a function of the field alone. Voxels that
contradict the model have no say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.checks.residual_probability import contradicts, usual_misfit
from rimap.estimators.checks.wrong_areas import HALF, MOST_FREE, with_their_areas
from rimap.estimators.mle.estimator import PRECISION
from rimap.estimators.mle.field import Box, FieldState, finest_edge, mean_squared_error
from rimap.estimators.mle.field_smoothness import weight_of
from rimap.estimators.mle.field_votes import LESS, LIMIT, NONE
from rimap.estimators.mle.linear_system import solve_linear
from rimap.estimators.possible_values import possible_at
from rimap.estimators.rim.elimination import Triangle, eliminated
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.network_input import known_at, neutral, part_of_series, slices
from rimap.estimators.sigma import freedom
from rimap.likelihood import Gaussian, Rician
from rimap.series import WeightedSeries
from rimap.signals.base import Parameter

F32 = NDArray[np.float32]
Array = NDArray[np.float64]
#: In standard deviations of the field: the largest change in a step.
LARGEST_CHANGE = 1.0
#: In units of σ, what a magnitude of zero, as of whole numbers, stands for.
LEAST_MAGNITUDE = 1e-3
#: From so many slices on each thread takes a slice at a time.
MANY_SLICES = 16
#: Edge of a square of voxels that has a usual deviation: this quantile, over that of deviations that are noise alone.
NEAR, SHARE, OF_SHARE = 8, 0.8, 1.2816


@dataclass(frozen=True, eq=False)
class Information:
    """What the data say about a field at one field, with the best amplitudes and T of each voxel.

    Parameters
    ----------
    g, w
        First and second derivatives of −log p in the field, summed to the grid, of the voxels that have a say.
    squares, own
        (*X) χ² of each voxel at this field, and with the field that suits it best.
    say
        (*X), which voxels have one: those that do not contradict the model.
    carried
        (P, *X), the estimates.
    """

    g: Array
    w: Array
    squares: Array
    own: Array
    say: NDArray[np.bool_]
    carried: F32


@dataclass(frozen=True, eq=False)
class FieldGrid:
    """Where a field is looked for.

    Parameters
    ----------
    series
        Every voxel (`binned` = `coarser`) or, with `binned` = 1, those on the grid alone: each then stands for all
        around it.
    coarser
        Along both axes of a slice, how much coarser the grid is than the images of which λ_B is given.
    all_have_a_say
        Also voxels that contradict the model. If noise is less than the error of the model itself (in averages), most
        would.
    """

    series: WeightedSeries
    coarser: int
    binned: int
    pool: Executor
    all_have_a_say: bool = False
    _kept: dict[int, DataTerm] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return tuple(-(-length // self.binned) if i < 2 else length for i, length in enumerate(self.series.shape))

    @cached_property
    def parameter(self) -> Parameter:
        """The field."""
        field = Layout.of(self.series.model).field
        assert field is not None
        return field

    @cached_property
    def _by_slice(self) -> bool:
        """Whether a thread takes whole slices; otherwise all share the voxels of a slice."""
        return len(self.series.shape) > 2 and self.series.shape[2] >= MANY_SLICES

    @cached_property
    def _unit(self) -> float:
        return unit_of(self.series)

    @cached_property
    def _voxel_size(self) -> tuple[float, ...]:
        return tuple(v * (self.binned if i < 2 else 1) for i, v in enumerate(self.series.voxel_size))

    @cached_property
    def box(self) -> Box:
        """Around the whole grid: its data are all points."""
        return Box.around(np.ones(self.shape, bool), self._voxel_size)

    @property
    def each(self) -> int:
        """For how many voxels each one that is looked at stands."""
        return self.coarser**2 if self.binned == 1 else 1

    def penalty(self, lambda_B: float) -> float:
        """Return the weight of the penalty per point, in its finest edge."""
        edges = self._voxel_size
        of_images = [edge / self.coarser if i < 2 else edge for i, edge in enumerate(edges)]
        edge = finest_edge(self.shape, edges) / finest_edge(self.shape, of_images)
        return weight_of(self.parameter, lambda_B) * self.coarser**2 / edge**4

    def padded(self, field: Array) -> Array:
        """Return a field of the grid on the larger box, extended at its edges."""
        box = self.box
        return np.pad(field, [(i.start, length - i.stop) for i, length in zip(box.inner, box.shape)], mode="edge")

    def cropped(self, padded: Array) -> Array:
        """Return the part of a field of the box that belongs to the grid."""
        return self.box.crop(padded, self.shape)

    @cached_property
    def _possible(self) -> NDArray[np.bool_]:
        """(*X), which voxels have values that can be measured; whether negative ones are an exception, all decide."""
        found = np.ones(self.series.shape, bool)
        found[self.series.selected] = possible_at(self.series, np.flatnonzero(self.series.selected))
        return found

    def at(self, padded: Array, near: Information | None = None) -> Information:
        """Return what the data say about a field (*box); if it is close to that of `near`, T is not searched again."""
        series, field, each = self.series, self.cropped(padded), self.each
        g, w = np.zeros(field.shape), np.zeros(field.shape)
        squares, own = np.full(series.shape, np.nan), np.full(series.shape, np.nan)
        say = np.zeros(series.shape, bool)
        carried = np.zeros((len(Layout.of(series.model).carried), *series.shape), np.float32)
        _ = self._possible  # once, before the threads

        def add(number: int, slice_: Any) -> None:
            selected = series.selected[slice_]
            if not selected.any():
                return
            here = fine(field[slice_], selected.shape, self.binned)[selected]
            rows = (slice(None), *slice_)
            found = _of_voxels(
                self._data_of(number, slice_), here, None if near is None else near.carried[rows][:, selected]
            )
            credible = found.say & self._possible[slice_][selected]
            for whole, part in ((squares, found.squares), (own, found.own), (say, credible)):
                whole[slice_][selected] = part
            if freedom(series) <= MOST_FREE:
                half = HALF // (self.coarser // self.binned)  # a step of a grid of every second voxel is two voxels
                say[slice_] &= ~with_their_areas(selected & ~say[slice_], selected, half)
            weight = (
                np.where(selected, 1.0, 0.0) if self.all_have_a_say else _among_neighbours(found, selected, say[slice_])
            )
            for out, values in ((g, found.g), (w, found.w)):
                of_slice = np.zeros(selected.shape)
                of_slice[selected] = weight[selected] * values
                out[slice_] = each * binned(of_slice, out[slice_].shape, self.binned)
            carried[rows][:, selected] = found.carried

        for _ in (self.pool.map if self._by_slice else map)(add, *zip(*enumerate(slices(series.shape)))):
            pass
        return Information(g, w, squares, own, say, carried)

    def _data_of(self, number: int, k: Any) -> DataTerm:
        """Return the data of the selected voxels of a slice, in units of the root mean square of all images."""
        if number in self._kept:
            return self._kept[number]
        series, unit, selected = self.series, self._unit, self.series.selected[k]
        S = neutral(series.images[(slice(None), *k)][:, selected], unit)
        noise = series.noise or Gaussian()
        sigma_map = np.asarray(noise.sigma, float)
        given = (sigma_map[k][selected] if sigma_map.ndim else sigma_map) / unit
        usable = np.isfinite(given) & (given > 0)
        sigma = np.where(usable, np.maximum(given, PRECISION), 1.0).astype(np.float32).reshape(1, 1, -1)
        known = {
            name: value[selected].reshape(1, 1, -1) if np.ndim(value) else value
            for name, value in known_at(series, k).items()
        }
        rician = isinstance(series.noise, Rician)
        pool = None if self._by_slice else self.pool
        data = DataTerm(series.model, S[:, None, None], sigma, rician, pool, known=known)
        if self.binned == 1:  # of some voxels, so that they do not take much memory
            self._kept[number] = data
        return data

    def minus_log_p(self, here: Information, counts: NDArray[np.bool_]) -> float:
        """Return −log p, without a constant, of the voxels that count, at their best amplitudes and T."""
        if not isinstance(self.series.noise, Rician):
            return 0.5 * float(here.squares[counts].sum())
        model, layout = self.series.model, Layout.of(self.series.model)
        known = {
            name: np.asarray(value)[counts] if np.ndim(value) else value for name, value in self.series.held.items()
        }
        kappa = np.asarray(layout.kappa_of(here.carried[:, counts], layout.known_of(known)))
        sigma = np.asarray(self.series.noise.sigma, float)
        noise = Rician((sigma[counts] if sigma.ndim else sigma) / self._unit)
        # The likelihood of a magnitude of exactly zero is zero, whatever the signal: it stands for a small one.
        S = neutral(self.series.images[:, counts], self._unit)
        S = np.maximum(S, LEAST_MAGNITUDE * np.broadcast_to(noise.sigma, S.shape[1:]))
        return float(noise.nll(S, model.signal(kappa)).sum())

    def sd(self, padded: Array, here: Information, lambda_B: float, shared: float = 1.0) -> Array:
        """Return the standard deviation of the field (*shape), smoothing included.

        Parameters
        ----------
        padded, here
            A field before the last Newton step, and what the data say there. That step counts as an error.
        shared
            For how many voxels, by their averages, the data of each one stand: so much less do all of them say.
        """
        state = FieldState(here.g.reshape(-1) / shared, here.w.reshape(-1) / shared)
        square = mean_squared_error(self.box, padded, state, self.penalty(lambda_B) / shared, self.parameter.bounds)
        limit = self.parameter.in_a_scan.deviation
        return np.minimum(np.sqrt(np.maximum(square, 0.0)), limit).reshape(self.shape)

    def step(self, padded: Array, here: Information, lambda_B: float) -> tuple[Array, float]:
        """Return the field (*box) after a Newton step, and its largest change in standard deviations of the field."""
        box, penalty = self.box, self.penalty(lambda_B)
        rhs = -box.scatter(here.g.reshape(-1)) - penalty * box.laplacian(box.laplacian(padded))
        change, _ = solve_linear(box.scatter(here.w.reshape(-1)), penalty * box.mu**2, rhs, rtol=0.03)
        deviation = self.parameter.in_a_scan.deviation
        change = np.clip(change, -LARGEST_CHANGE * deviation, LARGEST_CHANGE * deviation)
        return np.clip(padded + change, *self.parameter.bounds), float(abs(change).max() / deviation)


def _among_neighbours(found: Information, selected: NDArray[np.bool_], say: NDArray[np.bool_]) -> Array:
    """Return the weights (*X) of the voxels of a slice: less than 1 where they ask for another field than those around.

    As in `field_votes`, a voxel has less influence by its deviation over the usual one. The usual one is the largest of
    the 3 × 3 squares of `NEAR` voxels around: where a field is smoothed too much, many neighbours deviate alike.

    Parameters
    ----------
    found
        Of the selected voxels.
    selected, say
        (*X) of the slice. A voxel without a say has the weight 0.
    """
    off = np.full(selected.shape, np.nan)
    mean = float(found.w.mean())
    if not mean > 0 or len(selected.shape) < 2:
        return say.astype(float)
    off[selected] = np.abs(found.g) / np.sqrt(np.maximum(found.w, 0.05 * mean))
    rows, columns = (-(-length // NEAR) for length in selected.shape)
    squares = np.full((rows * NEAR, columns * NEAR), np.nan)
    squares[: selected.shape[0], : selected.shape[1]] = np.where(say, off, np.nan)
    squares = squares.reshape(rows, NEAR, columns, NEAR).swapaxes(1, 2).reshape(rows, columns, -1)
    known = np.isfinite(squares).any(2)
    usual = np.ones((rows + 2, columns + 2))
    usual[1:-1, 1:-1][known] = np.maximum(_quantiles(squares[known], SHARE) / OF_SHARE, 1.0)
    usual = np.max([usual[i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=0)
    usual = np.repeat(np.repeat(usual, NEAR, 0), NEAR, 1)[: selected.shape[0], : selected.shape[1]]
    with np.errstate(invalid="ignore"):
        weight = np.where(off > NONE * usual, 0.0, np.minimum(1.0, LESS * usual / np.maximum(off, 1e-12)))
    return np.where(say, weight, 0.0)


def _quantiles(rows: Array, q: float) -> Array:
    """Return what ``np.nanquantile(rows, q, axis=1)`` returns, which takes twenty times as long."""
    rows = np.sort(rows, axis=1)  # NaN comes last
    place = q * (np.count_nonzero(~np.isnan(rows), axis=1) - 1)
    low = place.astype(int)
    row = np.arange(len(rows))
    below, above = rows[row, low], rows[row, np.minimum(low + 1, rows.shape[1] - 1)]
    return np.asarray(below + np.where(place > low, (place - low) * (above - below), 0.0))


def _of_voxels(data: DataTerm, field: F32, near: F32 | None) -> Information:
    """Return what voxels (V) say at a field (V), from scratch or from estimates (P, V) for one nearby."""
    model, sigma = data.model, data.problem.sigma
    begin = None if near is None else near[:, None, None]
    carried = data.at_field(np.ascontiguousarray(field[None, None]), alone=True, near=begin)
    sums, layout = data(carried), Layout.of(model)
    n_amplitudes, n_parameters = layout.n_amplitudes, len(layout.carried)
    pairs = [(i, j) for i in range(n_parameters) for j in range(i, n_parameters)]
    H: Triangle = {pair: x.astype(float) for pair, x in zip(pairs, sums.H)}
    g: Mapping[int, Array] = {index: sums.g[index].astype(float) for index in range(n_parameters)}
    for index in range(n_amplitudes):
        H, g = eliminated(H, g, index, H[index, index] + 1e-6 * sigma**2)
    low, high = model.time.bounds
    inside = (carried[-1] > 1.001 * low) & (carried[-1] < 0.999 * high)  # at a bound T does not follow the field
    of_time = sums.H[-1].astype(float)
    H, g = eliminated(
        H, g, n_parameters - 1, np.where(inside, H[n_parameters - 1, n_parameters - 1], np.inf) + 1e-3 * of_time + 1e-12
    )
    w, slope = np.maximum(H[n_amplitudes, n_amplitudes], 0.0), g[n_amplitudes]
    if layout.in_log_of_field:  # from the logarithm to the field itself
        w, slope = w / carried[n_amplitudes] ** 2, slope / carried[n_amplitudes]
    slope, w = slope / sigma**2, w / sigma**2
    squares = (sums.sse / sigma**2).astype(float)
    own = squares - np.where(w > 0, slope**2 / np.maximum(w, 1e-12), 0.0)
    say = ~contradicts(own, 1.0, model.n_images - n_parameters, limit=LIMIT)
    slope, w, squares, own, say = (np.reshape(x, field.shape) for x in (slope, w, squares, own, say))
    return Information(slope, w, squares, own, say, carried.reshape(n_parameters, *field.shape))


def usual_excess(series: WeightedSeries, here: Information) -> float:
    """Return by which factor χ² is too large throughout, whatever the field."""
    layout = Layout.of(series.model)
    return usual_misfit(here.own, 1.0, series.model.n_images - len(layout.carried))


def every_so_many(series: WeightedSeries, coarser: int) -> WeightedSeries:
    """Return the series with one of so many voxels along both axes of a slice."""
    if coarser == 1:
        return series
    affine = np.eye(4) if series.affine is None else np.array(series.affine)
    affine[:, :2] *= coarser
    return replace(part_of_series(series, (slice(None, None, coarser),) * 2), affine=affine)


def unit_of(series: WeightedSeries) -> float:
    """Return the root mean square of the images, of those voxels of the mask that are looked at.

    It is 1 for a model without an amplitude, which fits the images as they are.
    """
    if not series.model.amplitudes:
        return 1.0
    every = tuple(slice(None, None, 4 if length > 32 else 1) for length in series.shape)
    some, inside = series.images[(slice(None), *every)], series.selected[every]
    some = some[:, inside] if inside.any() else some
    values = some[np.isfinite(some)].astype(float)
    return float(np.sqrt(np.mean(values**2))) or 1.0 if len(values) else 1.0


def binned(values: Array, shape: tuple[int, ...], of_each: int) -> Array:
    """Return sums of values (*X) over squares of `of_each` × `of_each` voxels in the first two axes."""
    if of_each == 1:
        return values
    full = np.zeros([length * of_each for length in shape])
    full[tuple(slice(length) for length in values.shape)] = values
    return np.asarray(full.reshape(shape[0], of_each, shape[1], of_each).sum((1, 3)))


def fine(field: Array, shape: tuple[int, ...], coarser: int, *, binned: bool = True) -> F32:
    """Return the field on the voxels (*shape) by linear interpolation between the points of its grid: the middles of
    squares of `coarser` × `coarser` voxels, or else (not `binned`) one of so many voxels along both axes.
    """
    first = (coarser - 1) / 2 if binned else 0.0
    for axis in range(2) if coarser > 1 else ():
        x = np.clip((np.arange(shape[axis]) - first) / coarser, 0, field.shape[axis] - 1)
        i = np.minimum(x.astype(int), max(field.shape[axis] - 2, 0))
        t = (x - i).reshape((-1,) + (1,) * (field.ndim - 1 - axis))
        field = (1 - t) * field.take(i, axis) + t * field.take(np.minimum(i + 1, field.shape[axis] - 1), axis)
    return np.asarray(field, np.float32)
