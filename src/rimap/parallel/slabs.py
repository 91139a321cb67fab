"""One estimator over slabs of a series, on any executor: the maps of the whole, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Progress
from rimap.series import ParameterMaps, WeightedSeries

#: A slab of more bytes than this is cut again: it travels to another machine.
_LARGEST = 8_000_000


@runtime_checkable
class Cuttable(Protocol):
    """An estimator whose voxels know nothing of each other but in a last step that costs little.

    ``finish(series, piece(series))`` is ``estimate(series)``, and `piece` of a slab is that slab of `piece`.
    """

    def piece(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a slab, before what needs the whole."""
        ...

    def finish(self, series: WeightedSeries, maps: ParameterMaps) -> ParameterMaps:
        """Return the maps of the whole from those of its slabs, put together."""
        ...


_Arrays = tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None, NDArray[np.uint8]]


def estimate(
    estimator: Cuttable, series: WeightedSeries, executor: Executor, pieces: int, *, progress: Progress | None = None
) -> ParameterMaps:
    """Return the maps of a series, its slabs mapped on an executor.

    Parameters
    ----------
    executor
        Threads, processes or the workers of a cluster.
    pieces
        How many slabs, if the last axis has as many planes.
    """
    size, n_planes = series.images.nbytes, series.shape[-1]
    starts = boundaries(series, min(n_planes, max(pieces, -(-size // _LARGEST))))
    slabs = [cut(series, a, b) for a, b in itertools.pairwise(starts)]
    futures = [executor.submit(_piece, estimator, slab) for slab in slabs]
    try:
        for future in as_completed(futures):
            future.result()
            if progress:
                done = sum(future.done() for future in futures)
                progress(done, len(futures))
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    kappa, deviation, residual, status = zip(*(future.result() for future in futures))
    maps = ParameterMaps(
        kappa=np.concatenate(kappa, axis=-1),
        model=series.model,
        status=np.concatenate(status, axis=-1),
        sd_kappa=None if deviation[0] is None else np.concatenate(deviation, axis=-1),
        residual=None if residual[0] is None else np.concatenate(residual, axis=-1),
        affine=series.affine,
    )
    return estimator.finish(series, maps)


def cut(series: WeightedSeries, a: int, b: int) -> WeightedSeries:
    """Return the planes a to b of the last axis of a series."""
    noise = None if series.noise is None else series.noise.at((..., slice(a, b)))
    mask = None if series.mask is None else series.mask[..., a:b]
    given = {name: value[..., a:b] if np.ndim(value) else value for name, value in series.given.items()}
    return replace(series, images=series.images[..., a:b], mask=mask, noise=noise, given=given)


def boundaries(series: WeightedSeries, n: int) -> Sequence[int]:
    """Return where to cut the last axis into at most `n` slabs, each a series in its own right: with something in
    it.
    """
    images, axes = series.images, tuple(range(series.images.ndim - 1))
    signs = [
        series.selected.any(axes[:-1]),
        np.isfinite(images).any(axes),
        (images != 0).any(axes),  # NaN as well, as a series has it
        *(np.isfinite(value).any(axes[:-1]) for value in series.given.values() if np.ndim(value)),
    ]
    n_planes = series.shape[-1]
    wanted = [round(index * n_planes / n) for index in range(1, n)]
    found = [0]
    for k in wanted:
        if all(sign[found[-1] : k].any() and sign[k:].any() for sign in signs):
            found.append(k)
    return [*found, n_planes]


def _piece(estimator: Cuttable, series: WeightedSeries) -> _Arrays:
    """Return plain arrays: they travel."""
    maps = estimator.piece(series)
    return maps.kappa, maps.sd_kappa, maps.residual, maps.status
