"""Statistics of a map over a mask or over labelled regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.series import ParameterMaps, Status

#: Statuses whose value counts: at a bound it is kept, since leaving it out would hide the tail it stands for.
COUNTED = (Status.OK, Status.AT_BOUND)


@dataclass(frozen=True)
class Statistics:
    """Of the values of one map, in its unit; NaN where no voxel counts."""

    n: int
    median: float
    q25: float
    q75: float
    mean: float
    sd: float

    @property
    def iqr(self) -> float:
        """The interquartile range."""
        return self.q75 - self.q25


def describe(values: NDArray[Any]) -> Statistics:
    """Return the statistics of the finite values.

    >>> describe(np.array([1.0, 2.0, 3.0, np.nan]))
    Statistics(n=3, median=2.0, q25=1.5, q75=2.5, mean=2.0, sd=1.0)
    """
    x = np.asarray(values, dtype=float).ravel()
    x = x[np.isfinite(x)]
    if not x.size:
        return Statistics(0, *(float("nan"),) * 5)
    q25, median, q75 = np.quantile(x, [0.25, 0.5, 0.75])
    sd = float(x.std(ddof=1)) if x.size > 1 else float("nan")
    return Statistics(x.size, float(median), float(q25), float(q75), float(x.mean()), sd)


def counted(maps: ParameterMaps) -> NDArray[np.bool_]:
    """Return where (*X) the values count: estimated, or kept at a bound."""
    return np.isin(maps.status, COUNTED)


def statistics_of(maps: ParameterMaps) -> dict[str, Statistics]:
    """Return the statistics of every map over the voxels that count, by parameter name."""
    where = counted(maps)
    return {name: describe(maps[name][where]) for name in maps}


def roi_table(
    maps: ParameterMaps, labels: NDArray[Any], names: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """Return one row for each label and relaxation time: n, median, IQR, mean and SD in ms.

    Parameters
    ----------
    labels
        (*X), whole numbers; 0 is no region.
    names
        What to call them.

    Raises
    ------
    InputError
        Where the labels have another shape than the maps, or there is none.
    """
    labels = np.asarray(labels)
    if labels.shape != maps.status.shape:
        raise InputError(
            f"the labels have shape {labels.shape} and the maps {maps.status.shape}. Resample the labels to the images."
        )
    values = np.unique(labels[np.isfinite(labels) & (labels != 0)])
    if not values.size:
        raise InputError("the labels are all zero: no region is marked.")
    if (values != np.round(values)).any():
        raise InputError("labels must be whole numbers; fractions came. Was the label image interpolated?")
    where, rows = counted(maps), []
    for value in values:
        region = labels == value
        for p in (p for p in maps.model.parameters if p.unit == "ms"):
            s = describe(maps[p.name][region & where])
            rows.append(
                {
                    "label": int(value),
                    "name": (names or {}).get(int(value), ""),
                    "map": p.name,
                    "unit": p.unit,
                    "voxels": int(region.sum()),
                    "n": s.n,
                    "median": s.median,
                    "iqr": s.iqr,
                    "mean": s.mean,
                    "sd": s.sd,
                }
            )
    return rows
