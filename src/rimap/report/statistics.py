"""Statistics of a map over a mask or over labelled regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.quantities import quantities_of, values_of
from rimap.series import ParameterMaps, Status, WeightedSeries

#: Quality flags whose values enter the statistics. Values at a bound do: leaving them out would hide a tail.
COUNTED = (Status.OK, Status.AT_BOUND)


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
    sd = float(x.std(ddof=1)) if x.size > 1 else float("nan")
    return Statistics(x.size, float(median), float(q25), float(q75), float(x.mean()), sd)


def counted(maps: ParameterMaps) -> NDArray[np.bool_]:
    """Return which voxels (*X) enter the statistics: those that were estimated or are at a bound."""
    return np.isin(maps.status, COUNTED)


def known_parameters(maps: ParameterMaps) -> set[str]:
    """Return the names of the parameters that were known and not estimated.

    These are the ones that the model takes as given, and those for which the estimator gives no standard deviation
    although it gives one for the relaxation time.
    """
    known = {p.name for p in maps.model.parameters if p.given}
    if maps.sd_kappa is None or not np.isfinite(maps.sd[maps.model.time.name]).any():
        return known
    return known | {p.name for p in maps.model.parameters if not np.isfinite(maps.sd[p.name]).any()}


def foreground(images: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the foreground (*X) of images (N, *X).

    It is Otsu's threshold on the square root of the root mean square over the images. All voxels are foreground if the
    threshold leaves out or keeps almost nothing, or if what it leaves out is not much darker: it would split the tissue.
    Figures and pictures use it; maps are made everywhere.

    References
    ----------
    Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    power = np.zeros(images.shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):
        for image in images:  # one at a time: the squares of a large volume would not fit
            power += np.square(image, dtype=np.float64)
    x = np.where(np.isfinite(power), power, 0.0) ** 0.25
    if not np.ptp(x) > 1e-6 * x.max():
        return np.ones(x.shape, bool)  # the same everywhere
    counts, edges = np.histogram(x, bins=256)
    centres, n = (edges[1:] + edges[:-1]) / 2, np.cumsum(counts)
    total = np.cumsum(counts * centres)
    below, above = n[:-1], n[-1] - n[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    bright = x > edges[1:-1][np.argmax(np.nan_to_num(apart))]
    split = 0.01 < bright.mean() < 0.95 and np.mean(x[~bright] ** 2) < 0.35 * np.mean(x[bright] ** 2)
    return np.asarray(bright if split else np.ones_like(bright))


def region(series: WeightedSeries) -> tuple[NDArray[np.bool_], str]:
    """Return the voxels (*X) that the figures describe, and their name in words: the mask, else the foreground."""
    if series.mask is not None:
        return series.selected, "in the mask"
    bright = foreground(series.images)
    return bright, "where there is signal" if not bright.all() else "of all voxels"


def statistics_of(maps: ParameterMaps, where: NDArray[np.bool_]) -> dict[str, Statistics]:
    """Return the statistics of every map, also of derived ones, over the voxels of `where` (*X) that count, by name."""
    where = where & counted(maps)
    return {q.name: describe(values_of(q, maps.model, maps)[where]) for q in quantities_of(maps.model)}


def shares(status: NDArray[Any]) -> dict[str, float]:
    """Return the share of each quality flag among voxels, by column name: ``at_bound`` is the one at bound.

    >>> shares(np.array([0, 0, 1, 7]))["off_model"]
    0.25
    """
    return {s.name.lower(): float(np.mean(status == s)) if status.size else float("nan") for s in Status}


def roi_table(
    maps: ParameterMaps, labels: NDArray[Any], names: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """Return one row for each label: n, median, IQR, mean and SD of the main map and of the relaxation time behind it.

    The share of each quality flag among the voxels of the label follows.

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
            f"labels: expected the shape of the maps {maps.status.shape}, got {labels.shape}. Resample the labels to the images."
        )
    values = np.unique(labels[np.isfinite(labels) & (labels != 0)])
    if not values.size:
        raise InputError("labels: expected at least one region, got zeros only.")
    if (values != np.round(values)).any():
        raise InputError(
            "labels: expected whole numbers, got fractions. Resample label images with nearest-neighbour interpolation."
        )
    where, rows = counted(maps), []
    main, time = maps.model.main, maps.model.time
    for value in values:
        region = labels == value
        for q in (main,) if main == time else (main, time):
            s = describe(values_of(q, maps.model, maps)[region & where])
            rows.append(
                {
                    "label": int(value),
                    "name": (names or {}).get(int(value), ""),
                    "map": q.name,
                    "unit": q.unit,
                    "voxels": int(region.sum()),
                    "n": s.n,
                    "median": s.median,
                    "iqr": s.iqr,
                    "mean": s.mean,
                    "sd": s.sd,
                    **shares(maps.status[region]),
                }
            )
    return rows
