"""What is known of the voxels of a series before anything is estimated: given maps, and the tables that follow from
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators.table import ShapeTable, levels
from rimap.likelihood import Noise
from rimap.series import Status, WeightedSeries

Array = NDArray[np.float64]


def usable(series: WeightedSeries, noise: Noise) -> NDArray[np.uint8]:
    """Return the status (M) before anything is estimated."""
    finite, signal = np.ones(series.shape, bool), np.zeros(series.shape, bool)
    for image in series.images:
        finite &= np.isfinite(image)
        signal |= image != 0
    for value in (noise.sigma, *series.held.values()):
        if np.ndim(value):
            finite &= np.isfinite(value)
    status = np.full(series.shape, Status.OK, np.uint8)
    status[~signal] = Status.NO_SIGNAL
    status[~finite] = Status.NOT_FINITE
    status[~series.selected] = Status.OUTSIDE_MASK
    return status.reshape(-1)


@dataclass(frozen=True, eq=False)
class Partitions:
    """The voxels in an order in which those with the same known values follow each other, and the table of each such
    run.

    Parameters
    ----------
    voxels
        (V) flat indices into the series.
    order
        (V) where they are among the voxels that were given.
    tables
        (table, number of voxels) of each run.
    """

    voxels: NDArray[np.intp]
    order: NDArray[np.intp]
    tables: list[tuple[ShapeTable, int]]

    @classmethod
    def of(cls, series: WeightedSeries, voxels: NDArray[np.intp]) -> Partitions:
        """Sort voxels (V, flat indices) by the given maps of the series.

        The map of the field itself needs no partition: the field is an axis of the table. Other maps are rounded to
        levels.

        Raises
        ------
        InputError
            If the model has no amplitude, or a second field that is not known.
        """
        model = series.model
        if not model.amplitudes:
            raise InputError(
                f"a smooth {model.field.name if model.field is not None else 'field'} needs a model with an amplitude; "
                f"{model.title} "
                "has none. Give a map of the field, or lambda_B = 0 for one of its own in each voxel."
            )
        numbers = {name: float(value) for name, value in series.held.items() if np.ndim(value) == 0}
        field = model.field
        maps = {n: value for n, value in series.held.items() if np.ndim(value) and (field is None or n != field.name)}
        if not maps:
            return cls(voxels, np.arange(len(voxels)), [(ShapeTable.of(model, numbers), len(voxels))])
        rounded = {name: levels(np.asarray(value).reshape(-1)[voxels], model, name) for name, value in maps.items()}
        middles, places = zip(*((of_map.middles, of_map.where) for of_map in rounded.values()))
        if any((where < 0).any() for where in places):
            raise InputError(
                f"expected a value of {', '.join(maps)} in every voxel that is mapped, got some without one."
            )
        kinds, kind = np.unique(np.stack(places), axis=1, return_inverse=True)
        order = np.argsort(kind.reshape(-1), kind="stable")
        counts = np.bincount(kind.reshape(-1), minlength=kinds.shape[1])
        tables = []
        for column, count in zip(kinds.T, counts):
            values = {name: float(middle[i]) for name, middle, i in zip(maps, middles, column)}
            tables.append((ShapeTable.of(model, numbers | values), int(count)))
        return cls(voxels[order], order, tables)
