"""What an estimator is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.advice import ordered
from rimap.arrays import places, stride
from rimap.errors import InputError
from rimap.likelihood import cramer_rao_sd
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

#: Called with (voxels or slices done, of how many).
Progress = Callable[[int, int], None]
#: Number of voxels that determine a median standard deviation that has to be computed for it.
_FEW = 2_000
#: Number of voxels that determine a median that is known everywhere.
_MANY = 8_000
#: How the warning on large standard deviations begins, after the name of the parameter.
_POOR = "is poorly determined"


def part_of(progress: Progress | None, i: int, n: int) -> Progress | None:
    """Return the progress of part i of n."""
    return progress and (lambda done, total: progress(i * total + done, n * total))


class Estimator(ABC):
    """From a `WeightedSeries` to `ParameterMaps`. A subclass is one file of this folder."""

    name: ClassVar[str]
    """What `--estimator` takes."""
    title: ClassVar[str]
    halo: int | None = 0
    """Voxels that a slab must reach beyond its own to give the map of the whole; `None`: solve whole."""
    smooths: ClassVar[bool] = False
    """Whether the time of a voxel depends on its neighbours, so that small structures lose contrast."""

    @abstractmethod
    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series. The mask selects what is reported."""


def constrained(
    series: WeightedSeries, fixed: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]
) -> WeightedSeries:
    """Return the series with the fixed parameters of an estimator, and with other bounds of the estimated ones.

    Raises
    ------
    InputError
        For a parameter that the model does not have or that the series gives already, and for bounds of an amplitude:
        the signal is linear in it.
    """
    for amplitude in series.model.amplitudes:
        if amplitude.name in bounds:
            others = " or ".join(q.name for q in series.model.nonlinear)
            raise InputError(f"bounds: expected {others}, got {amplitude.name!r}, which is an amplitude.")
    for name in fixed:
        if name in series.given:
            raise InputError(f"fixed: {name} is given with the series already. Leave one of the two out.")
    if not fixed and not bounds:
        return series
    return replace(series, model=series.model.with_bounds(bounds), given={**series.given, **fixed})


def estimated_rows(series: WeightedSeries, maps: ParameterMaps) -> tuple[list[int], list[int]]:
    """Return positions in κ of what was estimated in each voxel by itself, and of what voxels share: smooth fields."""
    by_itself = maps.estimator == "nlls" or (maps.estimator == "mle" and maps.settings.get("lambda_B") == 0)
    rows: tuple[list[int], list[int]] = ([], [])
    for row, parameter in enumerate(series.model.parameters):
        if parameter.name not in series.held:
            rows[parameter.smooth and not by_itself].append(row)
    return rows


def by_time(model: SignalModel) -> NDArray[np.intp]:
    """Return the positions of the images by time, and of images at one time by their other settings."""
    conditions, times = model.conditions, model.times
    return np.array(sorted(range(model.n_images), key=lambda image: (times[image], conditions[image])), np.intp)


def settings_of_options(estimator: Estimator) -> dict[str, Any]:
    """Return the options of an estimator (a dataclass) for sidecars and reports: maps are named, not copied."""
    options = fields(estimator)  # type: ignore[arg-type]  # every estimator is a dataclass
    found = {field.name: getattr(estimator, field.name) for field in options}
    for name in ("fixed", "bounds"):
        if not found.get(name):
            found.pop(name, None)
    if "fixed" in found:
        found["fixed"] = {key: float(value) if np.ndim(value) == 0 else "map" for key, value in found["fixed"].items()}
    return found


def model_warnings(model: SignalModel) -> tuple[str, ...]:
    """Return what the user should know about the model, whatever the estimator."""
    return tuple(
        f"{setting.symbol} is not known, so the model has no {setting.symbol} term: {setting.if_unknown}. Give the "
        f"{setting.title} ({', '.join([*setting.bids[:1], f'or the setting {setting.name}'])})."
        for setting in model.settings.values()
        if setting.if_unknown and getattr(model, setting.name) is None
    )


def brightness(model: SignalModel) -> float:
    """Return the brightest signal for an amplitude of 1 at the declared start; 1 if it is half of that or more."""
    g = np.abs(
        model.columns({parameter.name: np.asarray(parameter.start, dtype=float) for parameter in model.nonlinear})[:, 0]
    ).max()
    return 1.0 if g >= 0.5 else float(g)


def with_conditioning(series: WeightedSeries, maps: ParameterMaps) -> ParameterMaps:
    """Return maps that were given other standard deviations, with the warning of those in place of an earlier one."""
    others = (warning for warning in maps.warnings if not warning.startswith(f"{series.model.time.name} {_POOR}"))
    return replace(maps, warnings=ordered((*others, *conditioning_warnings(series, maps))))


def as_many_as_parameters(model: SignalModel, estimated: int) -> tuple[str, ...]:
    """Return a warning if a voxel has as many images as estimated parameters."""
    if model.n_images > estimated:
        return ()
    return (
        f"There are as many images as parameters ({model.n_images}): the fit passes through every measured value, so "
        f"all noise is in {model.time.name}, and no residual shows whether the images follow the model. Acquire more "
        f"images.",
    )


def _with_bound(series: WeightedSeries, maps: ParameterMaps) -> ParameterMaps:
    """Return some voxels of maps without standard deviations, with the Cramér-Rao bound for known smooth fields."""
    flat = places(maps.status.size, stride(maps.status.size, _FEW))
    kappa, noise = np.asarray(maps.kappa.reshape(len(maps.kappa), -1)[:, flat], float), maps.noise
    assert noise is not None
    if np.ndim(noise.sigma):
        noise = type(noise)(sigma=np.where(np.isfinite(s := np.reshape(noise.sigma, -1)[flat]), s, 1.0))
    held = {*series.held, *(parameter.name for parameter in series.model.parameters if parameter.smooth)}
    some = maps.status.reshape(-1)[flat]
    some = np.where(some == Status.OUTSIDE_TRAINING, np.uint8(Status.OK), some)
    with np.errstate(all="ignore"):
        deviation = cramer_rao_sd(series.model, noise, np.where(np.isfinite(kappa), kappa, 1.0), held=held)
    return replace(maps, kappa=kappa, status=some, sd_kappa=deviation, residual=None, noise=noise, covariance=None)


def conditioning_warnings(series: WeightedSeries, maps: ParameterMaps, limit: float = 0.2) -> tuple[str, ...]:
    """Return a warning where the median standard deviation of T exceeds 20 % of T, or T is at a bound, and why it
    does.
    """
    noise = maps.noise
    if maps.residual is None or noise is None or noise.sigma is None:
        return ()
    if maps.sd_kappa is None:
        maps = _with_bound(series, maps)  # some voxels, and their noise
    model, p, noise = series.model, series.model.time, maps.noise
    assert maps.sd_kappa is not None and noise is not None and noise.sigma is not None
    at = model.index(p.name)
    flat = places(maps.status.size, stride(maps.status.size, _MANY))
    sigma = np.broadcast_to(np.reshape(noise.sigma, -1), maps.status.size)[flat]
    kappa = maps.kappa.reshape(len(maps.kappa), -1)[:, flat]
    deviation, status = maps.sd_kappa[at].reshape(-1)[flat], maps.status.reshape(-1)[flat]
    T, A = kappa[at], model.amplitude(kappa) * brightness(model)
    with np.errstate(invalid="ignore"):
        at_bound = has(status, (Status.AT_BOUND,)) & (3 * sigma < A)  # as poor as can be: nothing says how far beyond
        use = has(status, (Status.OK,)) & np.isfinite(deviation) & (3 * sigma < A) | at_bound
        relative = np.where(at_bound, np.inf, deviation / T)[use]
    if 2 * (relative > limit).sum() < max(use.sum(), 1):
        return ()
    from rimap.estimators.sigma import quantile  # scipy is slow to import

    middle_sd = float(np.median(relative))
    if middle_sd <= limit:
        return ()
    share = f"{100 * at_bound.sum() / use.sum():.0f} % of the voxels"
    how = (
        f"its standard deviation is {100 * middle_sd:.0f} % in the median voxel"
        if np.isfinite(middle_sd)
        else f"{share} are at a bound of its range, or of that of another parameter"
    )
    declared = next(q.bounds for q in type(model).parameters if q.name == p.name)
    if p.bounds != declared and not np.isfinite(middle_sd):
        return (
            f"{p.name} {_POOR}: {share} with signal are at a bound, and its range was limited to "
            f"{p.bounds[0]:g} to {p.bounds[1]:g} {p.unit}. Give a wider one.",
        )
    times, middle = model.times, quantile(T[use], 0.5)
    snr = quantile(A[use] / sigma[use], 0.5)
    reasons = [f"the SNR is {snr:.3g}"]
    if model.axis.unit == p.unit and times.max() < 2 * middle:
        reasons.append(
            f"the longest time, {times.max():g} ms, is only {times.max() / middle:.2g} of the median {p.name}"
        )
    if model.axis.unit == p.unit and times.min() > middle / 2:
        reasons.append(f"the shortest time, {times.min():g} ms, is {times.min() / middle:.2g} of the median {p.name}")
    return (
        f"{p.name} is poorly determined: {how}, because "
        f"{' and '.join(reasons)} with {model.n_images} images. Images at other times, or more of them, help.",
    )
