"""Standard deviations of what a network gives, by a parametric bootstrap (Efron & Tibshirani 1993, §6.5).

A network has no Cramér-Rao bound: it reads neighbours too. So the series is drawn again, the signal at the maps
that were found plus noise of the same kind and σ, and mapped again, some times. The spread of those maps is what the
noise does to a voxel.

It is the spread, not the bias. Detail that the network has smoothed away is not in the draws: where the truth is
rough the spread is somewhat larger than said (docs/choosing.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array
from rimap.correlation import NoiseCorrelation
from rimap.derived import derived_map
from rimap.errors import InputError
from rimap.estimators.base import Progress, part_of, with_conditioning
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.network_input import slices
from rimap.likelihood import Noise, fisher_information
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

F32 = NDArray[np.float32]
#: From so many draws on a voxel speaks for itself.
ENOUGH = 50
#: Fixed, so that maps do not change when they are made again.
_SEED = 2021
#: Planes beyond the first are numbered from here on.
_BEYOND = 1 << 20


def checked(n_draws: object) -> None:
    """Refuse numbers of draws that have no spread.

    Raises
    ------
    InputError
        For 1, less than 0, and what is no whole number.
    """
    if isinstance(n_draws, bool) or not isinstance(n_draws, Integral) or int(n_draws) < 0 or n_draws == 1:
        raise InputError(f"sd_draws: expected 2 or more draws, or 0 for no standard deviations, got {n_draws!r}.")


def with_sd(
    maps: ParameterMaps,
    series: WeightedSeries,
    kappa: F32,
    n_draws: int,
    again: Callable[[WeightedSeries, Progress | None], F32],
    *,
    planes: Array = None,
    progress: Progress | None = None,
) -> ParameterMaps:
    """Return the maps with the standard deviations over draws of the noise.

    NaN if there is no value and where it is at a bound. Below `ENOUGH` draws the variances, in units of the
    Cramér-Rao bound with the field known, are averaged over those of the 3 × 3 voxels in the plane that have one: 8
    draws then determine a standard deviation to 20 %, 16 draws to 14 %.

    Parameters
    ----------
    maps
        What is reported; its noise has a σ.
    kappa
        (Q, *X) in the unit of the images, as the network gave it: values outside the mask too, its neighbours.
    n_draws
        How often the series is drawn; each costs as much as mapping it.
    again
        Returns κ (Q, *X) of a drawn series, in the unit of the images.
    planes
        (*X) the number of each voxel's plane in the whole, for the same draws in a slab as there; counted if left out.
    progress
        Progress of the mapping, which is complete, and of its draws.
    """
    noise = maps.noise
    assert noise is not None
    layout = Layout.of(series.model)
    carried = [series.model.index(parameter.name) for parameter in layout.carried]
    scale = kappa.copy()  # what deviations are relative to: further amplitudes, which may be zero, to the first one
    if layout.n_amplitudes > 1:
        scale[carried[1 : layout.n_amplitudes]] = kappa[carried[0]]
    unit = np.where(np.isfinite(scale) & (scale != 0), scale, 1)
    spread, derived = Spread(kappa, unit), _Derived(series.model, kappa)
    for d in range(n_draws):
        found = again(drawn(series, kappa, noise, d, planes, maps.correlation), part_of(progress, 1 + d, 1 + n_draws))
        spread.add(found)
        derived.add(found)
    has = np.isfinite(maps.kappa).all(0) & (scale != 0).all(0) & (maps.status != Status.AT_BOUND)
    variance = spread.variance
    if n_draws < ENOUGH:
        bound = _bound(series.model, noise, np.where(np.isfinite(kappa), kappa, 1), unit)
        variance = np.stack([b * _averaged(v / b, has, n_draws - 1) for v, b in zip(variance, bound)])
    deviation = np.where(has, np.sqrt(variance) * abs(unit), np.nan).astype(kappa.dtype)
    deviation[[index for index in range(len(kappa)) if index not in carried]] = np.nan  # what is given has none
    maps = replace(
        maps, sd_kappa=deviation, sd_derived=derived.sd(has), settings={**maps.settings, "sd_draws": n_draws}
    )
    return with_conditioning(series, maps)


class Spread:
    """The variance over draws, in a unit: draw by draw, so that they are not held (Welford's algorithm).

    Parameters
    ----------
    centre, unit
        What draws are near to, and what their deviations from it are relative to: arrays of the shape of a draw.
    """

    def __init__(self, centre: NDArray[Any], unit: NDArray[Any]) -> None:
        self.centre, self.unit, self.n = centre, unit, 0
        self._mean, self._squares = np.zeros_like(centre), np.zeros_like(centre)

    def add(self, drawn: NDArray[Any]) -> None:
        """Add the maps (Q, *X) of a draw to the sums."""
        self.n += 1
        off = (drawn - self.centre) / self.unit
        step = off - self._mean
        self._mean += step / self.n
        self._squares += step * (off - self._mean)

    @property
    def variance(self) -> NDArray[Any]:
        """In `unit`²."""
        return self._squares / (self.n - 1)


class _Derived:
    """The spread of derived maps over draws: that of several parameters together does not follow from theirs."""

    def __init__(self, model: SignalModel, kappa: F32) -> None:
        self.model, self.spreads = model, {}
        for what in model.derived:
            centre = derived_map(model, what, kappa)
            unit = np.where(np.isfinite(centre) & (centre != 0), centre, 1)
            self.spreads[what.name] = Spread(centre, unit)

    def add(self, kappa: F32) -> None:
        """Count a draw of κ."""
        for what in self.model.derived:
            self.spreads[what.name].add(derived_map(self.model, what, kappa))

    def sd(self, has: NDArray[np.bool_]) -> dict[str, F32]:
        """Return the standard deviations (*X) by name, averaged as those of the parameters are; NaN if there is
        none.
        """
        found = {}
        for name, spread in self.spreads.items():
            variance, known = spread.variance, has & np.isfinite(spread.variance)
            if spread.n < ENOUGH:
                variance = _averaged(variance, known, spread.n - 1)
            found[name] = np.where(known, np.sqrt(variance) * abs(spread.unit), np.nan).astype(np.float32)
        return found


def drawn(
    series: WeightedSeries,
    kappa: F32,
    noise: Noise,
    draw: int,
    planes: Array = None,
    correlation: NoiseCorrelation | None = None,
) -> WeightedSeries:
    """Return a simulated series: the signal at κ (Q, *X) with noise. The same `draw` always has the same noise.

    Voxels without a finite value or signal do not change. The noise depends on the plane and on the rank of the time
    of an image, so neither slabs nor the order of the images change it. The noise of neighbours is correlated as in
    the measured images.
    """
    images = np.empty(series.images.shape, np.float32)
    order = np.argsort(series.model.times, kind="stable")
    rank = np.argsort(order)
    for index, slice_ in enumerate(slices(series.shape)):
        number = index if planes is None else int(np.asarray(planes)[slice_].flat[0])
        rng = _Normal(draw, number, correlation)
        at, sigma = _of_plane(noise, slice_)
        S = series.images[(slice(None), *slice_)]
        new = at.sample(series.model.signal(kappa[(slice(None), *slice_)])[order], rng)[rank]
        usable = np.isfinite(S).all(0) & (S != 0).any(0) & np.isfinite(new).all(0) & np.isfinite(sigma)
        images[(slice(None), *slice_)] = np.where(usable, new, S)
    return replace(series, images=images, noise=noise)


class _Normal:
    """Standard normal values of a plane, correlated in space: what a noise model draws from.

    Values along the slices are sums over adjacent planes, each with the values that it has itself.
    """

    def __init__(self, draw: int, number: int, correlation: NoiseCorrelation | None) -> None:
        self._correlation = None if correlation is None or correlation.is_white else correlation
        taps = np.ones(1) if self._correlation is None else self._correlation.taps(2)
        beside = range(number - len(taps) // 2, number + len(taps) // 2 + 1)
        self._planes = [
            (weight, np.random.default_rng([_SEED, draw, k if k >= 0 else _BEYOND - k]))
            for weight, k in zip(taps, beside)
        ]

    def standard_normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return values (N, *X) of a plane, N independent ones for each voxel."""
        if self._correlation is None:
            return self._planes[0][1].standard_normal(shape)
        white = np.sum([weight * rng.standard_normal(shape) for weight, rng in self._planes], axis=0)
        return self._correlation.coloured(white, range(min(2, len(shape) - 1)))


def numbered(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the number of each voxel's plane (*X), in no memory."""
    return np.broadcast_to(np.arange(shape[2]) if len(shape) == 3 else 0, shape)


def _bound(model: SignalModel, noise: Noise, kappa: F32, unit: F32) -> F32:
    """Return the variances in `unit`² that the bound allows with the field known, (Q, *X); 1 for what is known, and at
    most.
    """
    out = np.ones_like(kappa)
    layout = Layout.of(model)
    free = sorted(model.index(layout.carried[q].name) for q in layout.without_field)
    for slice_ in slices(kappa.shape[1:]):
        here = unit[(slice(None), *slice_)]
        F = fisher_information(model, _of_plane(noise, slice_)[0], kappa[(slice(None), *slice_)])[np.ix_(free, free)]
        F = np.moveaxis(F * here[free, None] * here[None, free], (0, 1), (-2, -1)) + np.eye(len(free))
        out[(free, *slice_)] = np.moveaxis(np.diagonal(np.linalg.inv(F), axis1=-2, axis2=-1), -1, 0)
    return out


def _of_plane(noise: Noise, k: Any) -> tuple[Noise, NDArray[Any]]:
    """Return the noise of a plane, and its σ as it is: NaN where it is not known."""
    sigma = np.asarray(noise.sigma if np.ndim(noise.sigma) == 0 else noise.sigma[k])
    return type(noise)(sigma=np.where(np.isfinite(sigma), sigma, 1.0)), sigma


def _averaged(values: F32, has: NDArray[np.bool_], freedom: int) -> F32:
    """Return geometric means, weighted 1 2 1 along each axis, over those of the 3 × 3 in the plane that have a
    variance.

    The logarithm of a variance of so many degrees of freedom is too low by log(f/2) − ψ(f/2); that is added.
    """
    # scipy is slow to import: only this function needs it
    from scipy.ndimage import correlate

    # scipy is slow to import: only this function needs it
    from scipy.special import digamma

    weight = np.multiply.outer((1.0, 2.0, 1.0), (1.0, 2.0, 1.0)) if has.ndim > 1 else np.array((1.0, 2.0, 1.0))
    weight = weight[..., None] if has.ndim > 2 else weight
    log = np.log(np.where(has, np.maximum(values, 1e-6), 1.0).astype(float))  # less is a matter of rounding
    total, n = (correlate(x.astype(float), weight, mode="constant") for x in (log, has))
    mean = total / np.maximum(n, 1) + np.log(freedom / 2) - digamma(freedom / 2)
    return np.asarray(np.exp(mean), np.float32)
