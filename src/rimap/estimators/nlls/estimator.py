"""Voxelwise nonlinear least squares, to the global optimum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.allowed_numbers import COUNT, refuse_other_number
from rimap.errors import InputError
from rimap.estimators.base import Estimator, Progress, settings_of_options
from rimap.estimators.checks.final_checks import Fit, Usual, air_in, judged, planes_of, standing
from rimap.estimators.checks.missing_values import Screened, screened
from rimap.estimators.nlls import grid
from rimap.estimators.nlls.calibration import calibrated
from rimap.estimators.nlls.conic import search as conic
from rimap.estimators.nlls.conic.tables import suits
from rimap.estimators.nlls.covariance import covariance_for
from rimap.estimators.nlls.reduced_model import Reduced
from rimap.estimators.nlls.threads import Floats, Out, Voxels, Work, part_of_total, share
from rimap.estimators.sigma import SAMPLE, estimate_sigma, freedom, sampled
from rimap.estimators.slice_axis import slices_last
from rimap.estimators.table import levels
from rimap.likelihood import Gaussian, Noise, cramer_rao_sd
from rimap.maps import has
from rimap.processors import cores
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

#: Voxels whose standard deviations are found at a time.
CHUNK = 4096
#: Background is found before it is fitted in volumes with so many times the voxels that determine σ.
_LARGE = 8

#: What is known of the parameters, by name: a number or a map (*X).
Held = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NLLS(Estimator):
    """Least squares in every voxel by itself: κ̂ = argmin Σₙ (Sₙ − fₙ(κ))² within the box of the parameters.

    The global optimum is found. If the model is linear in its field, or has none to estimate, T and the polarity of the
    images are searched, and the rest is a linear problem. For magnitude images without negative values, Σ(S − |f|)² is
    the least over all polarities of Σ(±S − f)². Images with negative values (noise added after the modulus) are
    searched over the polarities that the model itself has. For any other model the whole box of T and the field is
    searched on a grid, and Newton steps lead from its best nodes to the optimum, with the amplitudes solved within
    their bounds (variable projection).

    Standard deviations are those of the Cramér-Rao bound at the estimate; at a bound they are NaN.

    Parameters
    ----------
    threads
        How many; by default as many as there are processors.
    fixed
        Parameters that are known and alike everywhere, by name, in their unit: ``{"B": 2.0}``. They are not estimated.
        For one that differs between voxels use ``given`` of the series.
    bounds
        Other bounds than those of the model, by name, in the unit of the parameter: ``{"T1": (200, 3000)}``.

    Raises
    ------
    InputError
        For parameters that the model does not have, values outside of their bounds, or an attempt to fix the relaxation
        time.

    References
    ----------
    Barral et al. 2010, doi:10.1002/mrm.22497: the reduced-dimension search over T1 and polarity. Golub & Pereyra 1973,
    doi:10.1137/0710036: variable projection.

    Examples
    --------
    >>> from rimap import InversionRecovery, WeightedSeries
    >>> model = InversionRecovery(tau=[50, 200, 500, 1000, 2500])
    >>> images = model.signal([[100.0], [1.9], [800.0]])
    >>> maps = NLLS().estimate(WeightedSeries(images=images, model=model))
    >>> {name: float(value[0].round(2)) for name, value in maps.items()}
    {'A': 100.0, 'B': 1.9, 'T1': 800.0}
    >>> NLLS(fixed={"B": 1.9}).estimate(WeightedSeries(images=images, model=model)).sd["B"]
    array([nan])
    """

    threads: int | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    name: ClassVar[str] = "nlls"
    title: ClassVar[str] = "Nonlinear least squares"

    def __post_init__(self) -> None:
        if self.threads is not None:
            refuse_other_number("threads", self.threads, COUNT, whole=True)
        for name in ("fixed", "bounds"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name}: expected a value for each parameter by name, got {getattr(self, name)!r}.")
        object.__setattr__(
            self, "fixed", {str(key): _number(f"fixed {key}", value) for key, value in dict(self.fixed).items()}
        )
        bounds = {str(key): _pair(f"bounds of {key}", value) for key, value in dict(self.bounds).items()}
        object.__setattr__(self, "bounds", bounds)

    @slices_last
    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series, with standard deviations, residual and σ."""
        screen = screened(self._restricted(series), threads=self.threads)
        held = self._known(screen.series)
        air = _Air.of(screen, held, self.threads)
        maps, rms = _fit(screen.series, held, self.threads, progress, air.left_out if air else None)
        if air and not has(maps.status[air.known], (Status.OK, Status.AT_BOUND)).all():  # then it was not found rightly
            air = None
            maps, rms = _fit(screen.series, held, self.threads, progress)
        return self._finish(screen, maps, rms, out=maps.sd_kappa, air=air.where if air else None)

    def piece(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a slab: those of the whole, cut, up to `finish`."""
        series = self._restricted(series)
        return _fit(series, self._known(series), self.threads, progress)[0]

    def finish(self, series: WeightedSeries, maps: ParameterMaps) -> ParameterMaps:
        """Return the maps of the whole with what needs the whole: σ, the standard deviations, warnings."""
        series = self._restricted(series)
        screen = screened(series, threads=self.threads)
        if screen.series is not series:
            maps = _without_values(maps, ~np.isfinite(screen.census.power))
        return self._finish(screen, maps)

    def _restricted(self, series: WeightedSeries) -> WeightedSeries:
        """Return the series with a model that has the bounds of this estimator."""
        if not self.bounds:
            return series
        model = series.model.with_bounds(self.bounds)
        return series if model == series.model else replace(series, model=model)

    def _known(self, series: WeightedSeries) -> dict[str, Any]:
        """Return what is known of the parameters: given with the series, taken as given by the model, or fixed here."""
        model = series.model
        for name, value in self.fixed.items():
            possible = [parameter.name for parameter in model.parameters if parameter != model.time]
            if name not in possible:
                raise InputError(f"fixed: expected {' or '.join(possible)} for {model.title.lower()}, got {name!r}.")
            if name in series.given:
                raise InputError(f"fixed: {name} is given with the series already. Leave one of the two out.")
            low, high = model.parameters[model.index(name)].bounds
            if not low <= value <= high:
                raise InputError(f"fixed {name}: expected a value of {low:g} to {high:g}, got {value:g}.")
        return series.held | dict(self.fixed)

    def _finish(
        self,
        screen: Screened,
        maps: ParameterMaps,
        rms: Floats | None = None,
        out: Floats | None = None,
        air: NDArray[np.bool_] | None = None,
    ) -> ParameterMaps:
        series, held = screen.series, self._known(screen.series)
        noise, source, found = noise_of(series, maps, rms, held)
        covariance = covariance_for(series.model, maps, noise, held) if series.model.derived else None
        maps = replace(
            maps,
            sd_kappa=sd_for(series.model, maps, noise, out, held),
            covariance=covariance,
            noise=noise,
            sigma_source=source,
            estimator=self.name,
            settings=settings_of_options(self),
        )
        screen = screen._replace(series=replace(series, given={**series.given, **self.fixed}))  # the checks ask it
        return judged(screen, maps, Fit(series.model.n_images - freedom(series, held)), found, air)


def _without_values(maps: ParameterMaps, where: NDArray[np.bool_]) -> ParameterMaps:
    """Return the maps without values where an image has none."""
    where = where & (maps.status != Status.OUTSIDE_MASK)
    changed = {name: getattr(maps, name).copy() for name in ("kappa", "sd_kappa", "residual", "status")}
    for name in ("kappa", "sd_kappa", "residual"):
        changed[name][..., where] = np.nan
    changed["status"][where] = Status.NOT_FINITE
    return replace(maps, **changed)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InputError(f"{name}: expected one number, got {value!r}. Give a map with the series (given=…).")
    return number


def _pair(name: str, value: Any) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected two numbers (low, high), got {value!r}.") from None
    if not low < high:
        raise InputError(f"{name}: expected (low, high) with low < high, got ({low:g}, {high:g}).")
    return low, high


def least_squares(
    series: WeightedSeries, *, threads: int | None = None, progress: Progress | None = None
) -> ParameterMaps:
    """Return the least-squares maps of a series; their `sd_kappa` are for σ = 1."""
    return _fit(series, series.held, threads, progress)[0]


@dataclass(frozen=True, eq=False)
class _Air:
    """Voxels of a large volume that will have no value, because they are background, found before they are fitted.

    Noise has many optima: a voxel of air takes up to ten times as long as one of tissue (inversion recovery). What is
    background follows from σ and the level of the object, and these from the fits of a few planes and voxels.

    Parameters
    ----------
    where
        (*X) the background.
    left_out
        (*X) that part of it whose fits determine nothing.
    known
        (*X) the voxels that were taken to have an estimate.
    """

    where: NDArray[np.bool_]
    left_out: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, screen: Screened, held: Held, threads: int | None) -> _Air | None:
        """Return the background, `None` if the volume is small, or all its fits have a say in what that is."""
        series, census = screen.series, screen.census
        model, noise = series.model, series.noise or Gaussian()
        if math.prod(census.shape) < _LARGE * SAMPLE or planes_of(census) is None or not model.amplitudes:
            return None
        # A voxel with negative values may have no positive amplitude, and so a status that only its fit can say. Where
        # a given map has no value, there is none either.
        maps_known = any(np.ndim(value) for value in (noise.sigma, *held.values()))
        if model.is_signed or (census.smallest < 0).any() or maps_known:
            return None
        known = series.selected & (census.power > 0) & (census.power < np.inf)
        first = np.zeros(known.shape, bool)
        first.reshape(-1)[standing(census, known)] = True
        first.reshape(-1)[sampled(known)] = True
        maps, rms = _fit(series, held, threads, None, known & ~first)
        if not has(maps.status[known], (Status.OK, Status.AT_BOUND)).all():
            return None
        source, corrected = series.sigma_source, []

        def to_be_corrected(sigma: float) -> float:
            corrected.append(sigma)  # by simulations at the estimates of all voxels
            return sigma

        if noise.sigma is None:
            sigma, source = estimate_sigma(series, maps, rms, held, to_be_corrected)
            noise = type(noise)(sigma=sigma)
        if corrected or not np.isfinite(np.asarray(noise.sigma, float)):
            return None
        maps = replace(maps, noise=noise, sigma_source=source)
        fit = Fit(model.n_images - freedom(series, held))
        air = air_in(series, maps, Usual.of(census, maps, fit), census)
        left_out = air & known & ~first
        return cls(air, left_out, known) if left_out.any() else None


def _fit(
    series: WeightedSeries,
    held: Held,
    threads: int | None,
    progress: Progress | None,
    left_out: NDArray[np.bool_] | None = None,
) -> tuple[ParameterMaps, Floats | None]:
    """Return the maps, and the root mean square of the images (*X).

    Voxels that are `left_out` (*X) have the status of those that were fitted, and no value.
    """
    model, voxels = series.model, Voxels.of(series)
    if left_out is not None:
        voxels = replace(voxels, mask=voxels.mask & ~voxels.flatten(left_out))
    M, mask = voxels.images.shape[1], voxels.mask
    if model.time.bounds[0] <= 0 or not np.isfinite(model.time.bounds[1]):
        raise InputError(f"bounds of {model.time.name}: expected two positive numbers, got {model.time.bounds}.")
    numbers = {name: float(value) for name, value in held.items() if np.ndim(value) == 0}
    given = {name: voxels.flatten(np.asarray(value)) for name, value in held.items() if np.ndim(value) > 0}
    fields = given.pop(model.field.name, None) if model.field is not None else None
    free = [amplitude for amplitude in model.amplitudes if amplitude.name not in held]
    free += [model.field] if model.field is not None and model.field.name not in held else []
    free.append(model.time)
    Q, everywhere = len(free), bool(mask.all())
    values = np.empty((2 * Q + 1, M)) if everywhere else np.full((2 * Q + 1, M), np.nan)  # new memory costs time
    status, rms = np.full(M, Status.OUTSIDE_MASK, np.uint8), np.zeros(M, voxels.images.dtype)
    out = Out(values[:Q], values[Q : 2 * Q], values[2 * Q], status, rms)
    done, total = 0, M if everywhere else int(mask.sum())
    for chosen, known in _parts(model, given, None if everywhere else np.flatnonzero(mask), out):
        work, size = _search(model, numbers | known, fields, voxels.images, out)
        many = M if chosen is None else len(chosen)
        chunks = (
            np.arange(index, min(index + size, M)) if chosen is None else chosen[index : index + size]
            for index in range(0, many, size)
        )
        share(work, chunks, min(threads or cores(), -(-many // size)), part_of_total(progress, done, total))
        done += many
    if progress and done < total:
        progress(total, total)
    _leave_out_unknown_sigma(series, voxels, out)
    if left_out is not None:
        out.status[voxels.flatten(left_out)] = Status.OK
    kappa, deviation = _in_order(model, free, out, held, voxels)
    maps = ParameterMaps(
        kappa=voxels.unflatten(kappa),
        model=model,
        status=voxels.unflatten(status),
        sd_kappa=voxels.unflatten(deviation),
        residual=voxels.unflatten(out.residual),
        affine=series.affine,
        estimator=NLLS.name,
    )
    return maps, voxels.unflatten(rms)


def _leave_out_unknown_sigma(series: WeightedSeries, voxels: Voxels, out: Out) -> None:
    """Give voxels where a map of σ has no value their status, and no estimate."""
    sigma = None if series.noise is None else series.noise.sigma
    if sigma is None or np.ndim(sigma) == 0:
        return
    unknown = ~np.isfinite(voxels.flatten(np.asarray(sigma))) & voxels.mask
    out.status[unknown] = Status.NOT_FINITE
    out.kappa[:, unknown] = out.sd[:, unknown] = out.residual[unknown] = np.nan


def _parts(
    model: SignalModel, given: Mapping[str, Floats], chosen: NDArray[np.int64] | None, out: Out
) -> list[tuple[NDArray[np.int64] | None, dict[str, float]]]:
    """Return the voxels (`None` for all) that share the known parameters of one table, and these parameters.

    A given map of a parameter that is not the field is rounded to levels. Voxels without a value get their status.
    """
    parts: list[tuple[NDArray[np.int64] | None, dict[str, float]]] = [(chosen, {})]
    for name, values in given.items():
        middles, level, *_ = levels(values, model, name)
        split: list[tuple[NDArray[np.int64] | None, dict[str, float]]] = []
        for voxels, known in parts:
            voxels = np.arange(len(values)) if voxels is None else voxels
            unknown = voxels[level[voxels] < 0]
            out.status[unknown], out.residual[unknown] = Status.NOT_FINITE, np.nan
            out.kappa[:, unknown] = out.sd[:, unknown] = np.nan
            for i in np.unique(level[voxels[level[voxels] >= 0]]):
                split.append((voxels[level[voxels] == i], known | {name: float(middles[i])}))
        parts = split
    return parts


def _search(
    model: SignalModel, numbers: Mapping[str, float], fields: Floats | None, images: Floats, out: Out
) -> tuple[Work, int]:
    """Return the search that suits the model, and how many voxels a thread takes at a time."""
    if fields is None and (reduced := Reduced.of(model, numbers)) is not None and suits(reduced):
        return conic.cone_search(reduced, images, out), conic.chunk_for(len(images))
    size = grid.CHUNK if fields is None else grid.LINE_CHUNK
    return grid.grid_search(model, numbers, fields, images, out), size


def _in_order(model: SignalModel, free: list[Any], out: Out, held: Held, voxels: Voxels) -> tuple[Floats, Floats]:
    """Return κ and its standard deviations (Q, M) in the order of the model, with what is known."""
    place = {p.name: i for i, p in enumerate(free)}
    order = [place.get(parameter.name, -1) for parameter in model.parameters]
    if order == list(range(len(free))):
        return out.kappa, out.sd
    kappa, deviation = np.full((len(order), len(out.status)), np.nan), np.full((len(order), len(out.status)), np.nan)
    has_value = np.isfinite(out.kappa[place[model.time.name]])
    for q, (parameter, i) in enumerate(zip(model.parameters, order)):
        if i >= 0:
            kappa[q], deviation[q] = out.kappa[i], out.sd[i]
            continue
        value = np.asarray(held[parameter.name], dtype=float)
        kappa[q] = np.where(has_value, voxels.flatten(value) if value.ndim else value, np.nan)
    return kappa, deviation


def noise_of(
    series: WeightedSeries, maps: ParameterMaps, rms: Floats | None = None, held: Held | None = None
) -> tuple[Noise, str, tuple[str, ...]]:
    """Return the noise with its σ, the origin of σ, and warnings.

    `rms` (*X) and `held` are those of `estimate_sigma`.
    """
    noise = series.noise or Gaussian()
    if noise.sigma is not None:
        return noise, series.sigma_source, ()
    known = series.held if held is None else held

    def refit(voxels: WeightedSeries, known: Held) -> ParameterMaps:
        return _fit(voxels, known, 1, None)[0]

    def calibrated_at(sigma: float) -> float:
        return calibrated(series, maps, sigma, known, refit, rms)

    sigma, source = estimate_sigma(series, maps, rms, known, calibrated_at)
    if np.isfinite(sigma):
        return type(noise)(sigma=sigma), source, ()
    return noise, source, (
        f"The noise level is not known: {series.model.n_images} images and {len(series.model.parameters) - len(known)} "
        f"parameters "
        "leave no residual, and there is no background. Give --sigma for standard deviations.",
    )  # fmt: skip


def sd_for(
    model: SignalModel, maps: ParameterMaps, noise: Noise, out: Floats | None = None, held: Held | None = None
) -> NDArray[np.float64]:
    """Return the standard deviations (Q, *X) for a noise, from those in `maps`, which are for Gaussian noise of σ = 1.

    The result is written into `out` (Q, *X) if this is possible. Standard deviations of `held` parameters are NaN.
    """
    assert maps.sd_kappa is not None
    if noise.sigma is None:
        return np.full_like(maps.kappa, np.nan)
    if isinstance(noise, Gaussian):
        return np.asarray(np.multiply(maps.sd_kappa, noise.sigma, out=out))
    deviation = np.full(maps.kappa.shape, np.nan)
    flat, kappa = deviation.reshape(len(deviation), -1), maps.kappa.reshape(len(deviation), -1)
    valid = np.flatnonzero(maps.status == Status.OK)
    for voxels in np.array_split(valid, len(valid) // CHUNK + 1):
        sigma = noise.sigma if np.ndim(noise.sigma) == 0 else noise.sigma.reshape(-1)[voxels]
        flat[:, voxels] = cramer_rao_sd(model, type(noise)(sigma=sigma), kappa[:, voxels], held=held)
    return flat.reshape(deviation.shape)
