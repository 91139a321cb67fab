"""Slices that were acquired at different times: each group of slices is estimated with its own times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rimap.foreground import foreground
from rimap.maps import Status

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.io.slice_times import SliceDelays
    from rimap.maps import ParameterMaps
    from rimap.series import WeightedSeries
    from rimap.workflow.listener import Progress

#: Slices are mapped if this share of them is foreground, and give warnings if they have this part of what the median
#: slice has.
_LEAST_SHARE, _SHARE_FOR_WARNINGS = 0.01, 0.5


def estimate_by_delay(
    estimator: Estimator, series: WeightedSeries, delays: SliceDelays, progress: Progress | None
) -> ParameterMaps:
    """Return the maps of a series whose slices are read at different times after one preparation.

    The field is smooth within slices of the same delay, but not between different delays. Slices at the edge of the
    object hold little but air, of which an estimate by itself knows neither the noise nor the field: no map is made of
    slices without foreground, and only slices with much of it give warnings.

    Parameters
    ----------
    series
        The series with the times of the images. The times of a slice are later by its delay.
    """
    axis = min(delays.axis, len(series.shape) - 1)
    groups = [(delay, planes, (slice(None),) * axis + (planes,)) for delay, planes in delays.groups()]
    groups = [
        (delay, planes, index)
        for delay, planes, index in groups
        if series.selected[index].any() and np.isfinite(series.images[(slice(None), *index)]).any()
    ]
    thing = foreground(series.images) & series.selected
    size = {tuple(planes): int(thing[index].sum()) for _, planes, index in groups}
    full = [
        (d, planes, index) for d, planes, index in groups if size[tuple(planes)] >= _LEAST_SHARE * thing[index].size
    ]
    parts: list[tuple[list[int], ParameterMaps]] = []
    for n, (delay, planes, index) in enumerate(full or groups, 1):
        parts.append((planes, estimator.estimate(_part(series, index, delay))))
        if progress:
            progress(n, len(full or groups))
    parts.sort(key=lambda part: -size[tuple(part[0])])
    enough = _SHARE_FOR_WARNINGS * float(np.median([size[tuple(planes)] for planes, _ in parts]))
    told = [maps.warnings for planes, maps in parts if size[tuple(planes)] >= enough]
    maps = _joined(series, parts, axis, told)
    status = maps.status.copy()
    for _, _, index in [group for group in groups if full and group not in full]:
        status[index] = np.where(series.selected[index], int(Status.NO_SIGNAL), status[index])
    return replace(maps, status=status)


def _part(series: WeightedSeries, index: Any, delay: float) -> WeightedSeries:
    """Return some slices, with their times."""
    axis = series.model.axis.name
    later: dict[str, Any] = {axis: tuple(float(t) + delay for t in np.atleast_1d(getattr(series.model, axis)))}
    noise = None if series.noise is None else series.noise.at(index)
    return replace(
        series,
        images=series.images[(slice(None), *index)],
        model=replace(series.model, **later),
        mask=None if series.mask is None else series.mask[index],
        noise=noise,
        given={name: value[index] if np.ndim(value) else value for name, value in series.given.items()},
    )


def _joined(
    series: WeightedSeries,
    parts: Sequence[tuple[list[int], ParameterMaps]],
    axis: int,
    warnings: Sequence[Sequence[str]],
) -> ParameterMaps:
    """Return the maps of all slices, with these warnings. A slice without voxels to map counts as outside the mask."""
    first = parts[0][1]

    def whole(name: str, fill: float, dtype: Any = None) -> Any:
        arrays = [getattr(maps, name) for _, maps in parts]
        if any(array is None for array in arrays):
            return None
        front = arrays[0].shape[: arrays[0].ndim - len(series.shape)]
        out = np.full((*front, *series.shape), fill, dtype or arrays[0].dtype)
        for (planes, _), values in zip(parts, arrays):
            after = len(series.shape) - 1 - axis
            at: Any = (..., *((slice(None),) * axis), planes, *((slice(None),) * after))
            out[at] = values
        return out

    noise = first.noise
    if noise is not None and noise.sigma is not None:
        sigma = np.full(series.shape, np.nan)
        for planes, maps in parts:
            own = None if maps.noise is None else maps.noise.sigma
            here: Any = ((slice(None),) * axis) + (planes,)
            sigma[here] = np.nan if own is None else own
        noise = type(noise)(sigma=sigma)
    told: dict[str, str] = {}
    for some in warnings:
        for text in some:  # with other figures in each slice
            told.setdefault(re.sub(r"[\d.,]+", "#", text), text)
    return replace(
        first,
        kappa=whole("kappa", np.nan),
        model=series.model,
        status=whole("status", Status.OUTSIDE_MASK),
        sd_kappa=whole("sd_kappa", np.nan),
        residual=whole("residual", np.nan),
        covariance=whole("covariance", np.nan),
        noise=noise,
        warnings=tuple(told.values()),
        affine=series.affine,
    )
