"""Independent measurements of the same voxels: repeated scans, repeats inside a scan, or the odd and even images of one
scan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.evaluation.scans import with_sigma
from rimap.foreground import AUTO
from rimap.io.reading_options import Reading
from rimap.io.series_files import SeriesFiles
from rimap.io.series_search import find_series
from rimap.io.voxel_grid import same_grid
from rimap.series import WeightedSeries

#: Kinds of independent measurements, from the most to the least independent.
SCANS, REPEATS, HALVES = "repeated scans", "repeats inside the scan", "odd against even images"


@dataclass(frozen=True, eq=False)
class Measurements:
    """Two or more independent measurements of one object, on one grid and with one mask.

    Parameters
    ----------
    label
        What was scanned.
    kind
        `SCANS`, `REPEATS` or `HALVES`.
    series
        One for each measurement.
    """

    label: str
    kind: str
    series: tuple[WeightedSeries, ...]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where maps are compared, (*X)."""
        return self.series[0].selected


def groups_of(paths: Sequence[Path], sequence: str | None) -> dict[str, list[SeriesFiles]]:
    """Return the series of each object by a label: those of one subject and sequence, whatever their session and run.

    Series without a subject (loose files) are one object for each sequence.
    """
    found: dict[str, list[SeriesFiles]] = defaultdict(list)
    for path in paths:
        for files in find_series(path, sequence=sequence):
            kept = {e: value for e, value in files.entities.items() if e not in ("ses", "run")}
            kind = files.model_class(sequence).name
            label = " ".join([*(f"{e}-{value}" for e, value in kept.items()), kind])
            found[label].append(files)
    return dict(found)


def measurements_of(label: str, files: Sequence[SeriesFiles], sequence: str | None, mask: Path | None) -> Measurements:
    """Return the measurements of one object: its scans, or the parts into which one scan can be divided.

    Raises
    ------
    InputError
        If scans are not on one grid, or a single scan has too few images for two measurements.
    """
    how = Reading(sequence=sequence, mask=mask or AUTO)
    if len(files) > 1:
        scans = [with_sigma(file.load(how)) for file in files]
        _check_grid(scans, files)
        return Measurements(label, SCANS, tuple(replace(scan, mask=scans[0].selected) for scan in scans))
    series = with_sigma(files[0].load(how))
    repeats = repeats_of(series)
    if repeats:
        return Measurements(label, REPEATS, repeats)
    return Measurements(label, HALVES, halves_of(series))


def repeats_of(series: WeightedSeries) -> tuple[WeightedSeries, ...]:
    """Return the repeats of a scan that has every image equally often, each as a scan; () for other scans."""
    conditions = series.model.conditions
    at: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for n, condition in enumerate(conditions):
        at[condition].append(n)
    counts = {len(found) for found in at.values()}
    if counts in ({1}, set()) or len(counts) > 1:
        return ()
    return tuple(series.subset([found[index] for found in at.values()]) for index in range(counts.pop()))


def halves_of(series: WeightedSeries) -> tuple[WeightedSeries, WeightedSeries]:
    """Return the odd and the even images along the axis: two measurements without motion between them.

    Raises
    ------
    InputError
        If one half does not determine the parameters of the model.
    """
    model = series.model
    order = np.argsort(model.times, kind="stable")
    try:
        return series.subset(np.sort(order[0::2])), series.subset(np.sort(order[1::2]))
    except InputError as refused:
        needed = sum(not parameter.given for parameter in model.parameters)
        raise InputError(
            f"{series.source or model.title}: expected {2 * needed} or more images at different values of "
            f"{model.axis.title} for two halves with {needed} unknowns each, got {len(set(model.conditions))}. Give "
            f"repeated scans instead. ({refused})"
        ) from None


def _check_grid(scans: Sequence[WeightedSeries], files: Sequence[SeriesFiles]) -> None:
    first = scans[0]
    for scan, file in zip(scans, files):
        if scan.shape != first.shape:
            raise InputError(
                f"{file.label}: expected the shape {first.shape} of {files[0].label}, got {scan.shape}. Register the "
                f"scans to one grid."
            )
        if (
            scan.affine is not None
            and first.affine is not None
            and not same_grid(scan.affine, first.affine, scan.shape)
        ):
            raise InputError(
                f"{file.label}: expected the place in the scanner of {files[0].label}, got another one (the affines "
                f"differ by more "
                "than a tenth of a voxel). Register the scans to one grid."
            )
