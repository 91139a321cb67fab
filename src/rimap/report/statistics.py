"""Statistics of a map over a mask or over labelled regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.map_display import Quantity, as_stored, quantities_of, values_of
from rimap.series import ParameterMaps, Status

#: Quality flags whose values enter the statistics. Values at a bound are included, because leaving them out would hide
#: a tail.
COUNTED = (Status.OK, Status.AT_BOUND)

#: The columns with the statistics of a region, and their descriptions.
FIGURES = {
    "voxels": "Voxels of the region",
    "n": "Voxels of the region with a value (status ok or at a bound)",
    "median": "Median over the region",
    "q25": "First quartile",
    "q75": "Third quartile",
    "iqr": "Interquartile range",
    "mean": "Mean",
    "sd": "Standard deviation between voxels",
}
#: Those columns that are numbers of voxels. The others have the unit of the map.
COUNTS = ("voxels", "n")


@dataclass(frozen=True)
class Statistics:
    """Statistics of one map, in its unit; NaN if no voxel counts."""

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
    deviation = float(x.std(ddof=1)) if x.size > 1 else float("nan")
    return Statistics(x.size, float(median), float(q25), float(q75), float(x.mean()), deviation)


def counted(maps: ParameterMaps) -> NDArray[np.bool_]:
    """Return which voxels (*X) enter the statistics: those that were estimated or are at a bound."""
    return np.isin(maps.status, COUNTED)


def known_parameters(maps: ParameterMaps) -> set[str]:
    """Return the names of the parameters that were known and not estimated.

    These are the known parameters of the model, and those for which the estimator gives no standard deviation although
    it gives one for the relaxation time.
    """
    known = {parameter.name for parameter in maps.model.parameters if parameter.given}
    if maps.sd_kappa is None or not np.isfinite(maps.sd[maps.model.time.name]).any():
        return known
    return known | {
        parameter.name for parameter in maps.model.parameters if not np.isfinite(maps.sd[parameter.name]).any()
    }


def statistics_of(maps: ParameterMaps, where: NDArray[np.bool_]) -> dict[str, Statistics]:
    """Return the statistics of every map, also of derived ones, over the voxels of `where` (*X) that count, by name."""
    where = where & counted(maps)
    return {q.name: describe(stored_values(q, maps, where)) for q in quantities_of(maps.model)}


def stored_values(q: Quantity, maps: ParameterMaps, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the values of a map at voxels, in the unit of its file."""
    return as_stored(q, values_of(q, maps.model, maps)[where])


def share_column(status: Status) -> str:
    """Return the name of the column with the share of a quality flag.

    >>> share_column(Status.OK)
    'share_ok'
    """
    return f"share_{status.name.lower()}"


def about_figures(units: Mapping[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Return the descriptions of the columns of a region, its shares among them, for the JSON file of a table.

    Parameters
    ----------
    units
        The unit of the columns with values of the map: ``{"Units": "ms"}``; none by default.
    """
    more: dict[str, str] = dict(units or {})
    about = {key: {"Description": text} | ({} if key in COUNTS else more) for key, text in FIGURES.items()}
    for s in Status:
        about[share_column(s)] = {"Description": f"Share of the voxels of the region: {s.meaning}", "Units": "1"}
    return about


def figures_of(
    values: NDArray[Any], status: NDArray[Any], where: NDArray[np.bool_], counting: Sequence[Status] = COUNTED
) -> dict[str, Any]:
    """Return the columns with the figures of a region: number of voxels, statistics of those that count, shares.

    Parameters
    ----------
    values, status, where
        (*X): a map in the unit of its file, its quality flags, and the voxels of the region.
    counting
        The quality flags whose values count.
    """
    here = status[where]
    s = describe(values[where][np.isin(here, counting)])
    figures = {name: int(where.sum()) if name == "voxels" else getattr(s, name) for name in FIGURES}
    return figures | shares(here)


def shares(status: NDArray[Any]) -> dict[str, float]:
    """Return the share of each quality flag among voxels, by column name.

    >>> shares(np.array([0, 0, 1, 7]))["share_at_bound"]
    0.25
    """
    return {share_column(s): float(np.mean(status == s)) if status.size else float("nan") for s in Status}


def roi_table(
    maps: ParameterMaps, labels: NDArray[Any], names: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """Return one row for each label: the figures of the main map and of the relaxation time behind it (`figures_of`).

    Parameters
    ----------
    labels
        (*X), whole numbers; 0 is no region.
    names
        Names of the labels.

    Raises
    ------
    InputError
        If the labels have another shape than the maps, are not whole numbers, or are all zero.
    """
    labels = np.asarray(labels)
    if labels.shape != maps.status.shape:
        raise InputError(
            f"labels: expected the shape of the maps {maps.status.shape}, got {labels.shape}. Resample the labels to "
            f"the images."
        )
    values = np.unique(labels[np.isfinite(labels) & (labels != 0)])
    if not values.size:
        raise InputError("labels: expected at least one region, got only zeros.")
    if (values != np.round(values)).any():
        raise InputError(
            "labels: expected whole numbers, got fractions. Resample label images with nearest-neighbour interpolation."
        )
    rows, main, time = [], maps.model.main, maps.model.time
    stored = {q.name: (q.unit, as_stored(q, values_of(q, maps.model, maps))) for q in (main, time)}
    for value in values:
        for name, (unit, x) in stored.items():
            about = {"label": int(value), "name": (names or {}).get(int(value), ""), "map": name, "unit": unit}
            rows.append(about | figures_of(x, maps.status, labels == value))
    return rows
