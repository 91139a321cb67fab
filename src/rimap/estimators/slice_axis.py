"""Volumes of one slice that do not have it as their last axis, such as a sagittal slice of 1 × Y × Z."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rimap.likelihood import Noise
from rimap.series import ParameterMaps, WeightedSeries

Estimate = TypeVar("Estimate", bound=Callable[..., ParameterMaps])
Order = tuple[int, ...]


def slices_last(estimate: Estimate) -> Estimate:
    """Decorate the `estimate` of an estimator: an axis of one voxel comes last, as that of slices does everywhere.

    Networks, λ_B and the correlation of noise belong to the plane of the first two axes, and a plane that is one voxel
    wide has no neighbours.
    """

    @functools.wraps(estimate)
    def in_slices(self: Any, series: WeightedSeries, **options: Any) -> ParameterMaps:
        order = order_of(series.shape)
        if order == tuple(sorted(order)):
            return estimate(self, series, **options)
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        maps = {name: _turned(value, order) for name, value in own.items() if np.shape(value) == series.shape}
        found = estimate(replace(self, **maps), turned_series(series, order), **options)
        return turned_maps(found, tuple(int(axis) for axis in np.argsort(order)))

    return in_slices  # type: ignore[return-value]


def order_of(shape: tuple[int, ...]) -> Order:
    """Return the order of the axes in which those of one voxel come last.

    >>> order_of((1, 256, 192)), order_of((256, 192, 1)), order_of((64, 48))
    ((1, 2, 0), (0, 1, 2), (0, 1))
    """
    return tuple(sorted(range(len(shape)), key=lambda axis: shape[axis] == 1))


def turned_series(series: WeightedSeries, order: Order) -> WeightedSeries:
    """Return the series with its axes in another order."""
    if order == tuple(sorted(order)):
        return series
    return replace(
        series,
        images=_turned(series.images, order),
        mask=None if series.mask is None else _turned(series.mask, order),
        noise=_turned_noise(series.noise, order),
        affine=_turned_affine(series.affine, order),
        given={name: _turned(value, order) if np.ndim(value) else value for name, value in series.given.items()},
    )


def turned_maps(maps: ParameterMaps, order: Order) -> ParameterMaps:
    """Return the maps with their axes in another order."""
    if order == tuple(sorted(order)):
        return maps
    correlation = maps.correlation
    if correlation is not None:
        correlation = replace(correlation, axes=tuple(correlation.axes[axis] for axis in order))
    return replace(
        maps,
        kappa=_turned(maps.kappa, order),
        status=_turned(maps.status, order),
        sd_kappa=None if maps.sd_kappa is None else _turned(maps.sd_kappa, order),
        residual=None if maps.residual is None else _turned(maps.residual, order),
        covariance=None if maps.covariance is None else _turned(maps.covariance, order),
        sd_derived={name: _turned(value, order) for name, value in maps.sd_derived.items()},
        noise=_turned_noise(maps.noise, order),
        affine=_turned_affine(maps.affine, order),
        correlation=correlation,
    )


def _turned(values: NDArray[Any], order: Order) -> NDArray[Any]:
    """Return values (…, *X) with the axes of X in another order."""
    before = values.ndim - len(order)
    return np.ascontiguousarray(np.transpose(values, (*range(before), *(before + axis for axis in order))))


def _turned_noise(noise: Noise | None, order: Order) -> Noise | None:
    return noise if noise is None or np.ndim(noise.sigma) == 0 else type(noise)(_turned(noise.sigma, order))


def _turned_affine(affine: NDArray[Any] | None, order: Order) -> NDArray[Any] | None:
    return None if affine is None else np.asarray(affine)[:, [*order, *range(len(order), 4)]]
