"""Two maps of the same thing, or the repeats in a derivative: differences, agreement, and the calibration of the
standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note, ordered
from rimap.errors import InputError
from rimap.evaluation.agreement import LEVELS, Agreement, Calibration, agreement, calibration, z_scores
from rimap.io.companion_images import NoImage
from rimap.io.map_images import MapImage
from rimap.io.masks import read_mask
from rimap.io.path_redaction import without_folders
from rimap.io.voxel_grid import affine_of, same_grid
from rimap.maps import Status
from rimap.report.statistics import COUNTED
from rimap.workflow.pairing import REPEATS, Key, key_of, maker_of, maps_to_compare, names_of
from rimap.workflow.region_images import Region, images_of_regions, read_regions
from rimap.workflow.rois import counted_values, split_layout, status_of

Row = dict[str, Any]
#: The region of all voxels that both maps describe.
WHOLE = "whole"
#: Standard deviations count as calibrated if they differ from those observed by at most this factor.
_CALIBRATED = 1.5


@dataclass(frozen=True, eq=False)
class Pair:
    """Two maps that were compared.

    Parameters
    ----------
    first, second
        The maps; differences are second minus first.
    names
        The names of the maps; with a folder if their files have the same name.
    values
        (2, *X) in the unit of the maps; NaN where one of them has no value that counts.
    z
        (*X), the differences over their standard deviations; `None` if the maps have none.
    inside
        (*X), the voxels that are compared.
    regions
        The labelled regions.
    rows
        One for each region, and one of the medians of all labelled regions if there are three or more.
    calibration
        The calibration over the whole; `None` if there is no z.
    """

    first: MapImage
    second: MapImage
    names: tuple[str, str]
    values: NDArray[np.float64]
    z: NDArray[np.float64] | None
    inside: NDArray[np.bool_]
    regions: tuple[Region, ...]
    rows: tuple[Row, ...]
    calibration: Calibration | None

    @property
    def label(self) -> str:
        """The names of both maps, as shown to the user."""
        return f"{self.names[1]} − {self.names[0]}"

    @property
    def medians(self) -> dict[tuple[str, str], tuple[float, float]]:
        """The medians of both maps in each region, by its label and name."""
        return {
            (row["label"], row["name"]): (row["median_first"], row["median_second"])
            for row in self.rows
            if row["level"] == "voxels"
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What was compared.

    Parameters
    ----------
    pairs
        The pairs of maps.
    over_repeats
        The agreement of the voxels of each region over all repeats of a subject, if there are three or more.
    over_subjects
        The agreement of the medians of each region over subjects, if several have repeats.
    notes
        What the user should know.
    """

    pairs: tuple[Pair, ...]
    over_repeats: tuple[Row, ...]
    over_subjects: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[Row]:
        """The table: each pair by region, then each region over all repeats, and over subjects."""
        return [*(row for pair in self.pairs for row in pair.rows), *self.over_repeats, *self.over_subjects]


def compare(
    first: Path | str,
    second: Path | str | None = None,
    labels: Path | str | Sequence[Path | str] = (),
    *,
    names: Sequence[str] = (),
    include: Sequence[Status | str] = (),
) -> Comparison:
    """Compare two maps, the maps of two folders, or all repeats in one folder.

    Parameters
    ----------
    first, second
        Two maps (NIfTI), or two folders whose maps are paired by their BIDS entities. Without `second`, a folder in
        which maps differ in ``ses-`` or ``run-``: all pairs of repeats.
    labels
        Regions, as in `rois`; on the grid of the first map of each pair. By default the ``_dseg`` image beside it, if
        there is one.
    names
        The maps to take from folders; relaxation times and rates by default.
    include
        Quality flags whose voxels count besides ok and at bound.

    Raises
    ------
    InputError
        If there are no pairs, or two maps are on different grids or show different things.

    Examples
    --------
    >>> rimap.compare("scan.nii.gz", "rescan.nii.gz").rows[0]["within_cv_percent"]  # doctest: +SKIP
    1.8
    """
    counting = (*COUNTED, *(status_of(s) for s in include))
    where = [split_layout(text)[1] for text in ([labels] if isinstance(labels, (Path, str)) else labels)]
    couples, notes = maps_to_compare(Path(first), None if second is None else Path(second), names)
    pairs = []
    for a, b in couples:
        try:
            pair, said = _compared(a, b, where, counting)
        except InputError as error:
            if len(couples) == 1:
                raise
            notes.append(f"{b.label} and {a.label} were left out. {without_folders(str(error))}")
            continue
        pairs.append(pair)
        notes += said
    if not pairs:
        raise InputError(f"none of {len(couples)} pairs can be compared. {notes[-1]}")
    return Comparison(
        pairs=tuple(pairs),
        over_repeats=tuple(_over_repeats(pairs)),
        over_subjects=tuple(_over_subjects(pairs)),
        notes=ordered(notes),
    )


def _compared(a: MapImage, b: MapImage, where: Sequence[Path], counting: Sequence[Status]) -> tuple[Pair, list[str]]:
    _refuse_other_grids(a, b)
    if (a.name, a.unit) != (b.name, b.unit):
        raise InputError(
            f"{a.label} and {b.label}: expected two maps of the same thing, got {a.name} ({a.unit or 'no unit'}) and "
            f"{b.name} ({b.unit or 'no unit'})."
        )
    if a.path.resolve() == b.path.resolve():
        raise InputError(f"{a.path}: expected two maps, got the same map twice.")
    (x, _, notes), (y, _, more) = counted_values(a, counting), counted_values(b, counting)
    notes = [*notes, *more]
    both = np.stack([x, y])
    both[:, ~np.isfinite(both).all(axis=0)] = np.nan
    inside, said = _inside(a, b)
    notes += said
    regions: list[Region] = []
    try:
        for image in images_of_regions(a, where):
            found, said = read_regions(image, a)
            regions += found
            notes += said
    except NoImage:
        if where:
            raise
    deviation = [m.sd() if m.name == m.quantity else None for m in (a, b)]
    z = None if deviation[0] is None or deviation[1] is None else z_scores(both[0], both[1], deviation[0], deviation[1])
    if not np.isfinite(both[0][inside]).any():
        raise InputError(
            f"{a.label} and {b.label}: no voxel has a value that counts in both maps. --include counts those of other "
            f"statuses."
        )
    called = names_of(a, b)
    same_images = "Sources" in a.about and a.about["Sources"] == b.about.get("Sources")
    if same_images:
        notes.append(
            f"{called[0]} and {called[1]} are from the same images: their noise is the same, and z does not test the "
            f"standard deviations."
        )
    elif np.array_equal(both[0], both[1], equal_nan=True):
        notes.append(
            f"{called[0]} and {called[1]} have the same values in all voxels: one is a copy of the other, not a repeat."
        )
        same_images = True
    rows = [_row(a, called, WHOLE, "", both[:, inside], None if z is None else z[inside])]
    for region in regions:
        here = region.inside
        rows.append(_row(a, called, str(region.label), region.name, both[:, here], None if z is None else z[here]))
    labelled = rows[1:]
    if len(labelled) >= 3:
        medians = np.array([[r["median_first"], r["median_second"]] for r in labelled])
        rows.append(_about(a, called, "regions", "medians of the regions", "") | _figures(agreement(medians), medians))
    whole = None if z is None else calibration(z[inside])
    if whole is not None and not same_images and not 1 / _CALIBRATED < whole.robust_sd < _CALIBRATED:
        too = "small" if whole.robust_sd > 1 else "large"
        notes.append(
            f"{called[1]} and {called[0]}: the standard deviations are too {too}: the differences are "
            f"{whole.robust_sd:.2g} times as large as these predict. Motion, misalignment and drift contribute to the "
            "differences, but not to the standard deviations."
        )
    return Pair(a, b, called, both, z, inside, tuple(regions), tuple(rows), whole), notes


def _refuse_other_grids(a: MapImage, b: MapImage) -> None:
    one, other = a.file(), b.file()
    what = ""
    if one.shape != other.shape:
        what = f"{' × '.join(map(str, one.shape))} and {' × '.join(map(str, other.shape))} voxels"
    elif one.oriented and other.oriented and not same_grid(one.affine, other.affine, one.shape):
        what = "the same number of voxels at other places (affines)"
    if what:
        raise InputError(
            f"{a.path.name} and {b.path.name}: expected maps on one grid, got {what}. Register and resample the second "
            f"map to the first with your "
            "registration software; if they need no registration, nibabel.processing.resample_from_to(second, first) "
            "resamples."
        )


def _inside(a: MapImage, b: MapImage) -> tuple[NDArray[np.bool_], list[str]]:
    """Return the voxels that both runs describe: those in both foreground masks, or all voxels if there are no
    masks.
    """
    file = a.file()
    inside, found = np.ones(file.shape, bool), 0
    for m in (a, b):
        if (path := m.described()) is not None:
            inside &= read_mask(path, file.shape, affine_of(file))
            found += 1
    if found < 2:
        return inside, [
            note("The row 'whole' describes all voxels with a value in both maps: not both have a foreground mask.")
        ]
    return inside, []


def _about(m: MapImage, called: tuple[str, str], level: str, label: str, name: str) -> Row:
    return {
        "level": level,
        "first": called[0],
        "second": called[1],
        "map": m.name,
        "unit": m.unit,
        "label": label,
        "name": name,
    }


def _row(
    m: MapImage,
    called: tuple[str, str],
    label: str,
    name: str,
    values: NDArray[np.float64],
    z: NDArray[np.float64] | None,
) -> Row:
    good = values[:, np.isfinite(values).all(axis=0)].T
    row = _about(m, called, "voxels", label, name) | _figures(agreement(good), good)
    return row | _of_z(None if z is None else calibration(z))


def _figures(found: Agreement, values: NDArray[np.float64]) -> Row:
    """Return the columns of an agreement of values (n, 2); NaN columns of z are added."""
    good = values[np.isfinite(values).all(axis=1)]
    medians = np.median(good, axis=0) if len(good) else np.full(2, np.nan)
    middle = float(good.mean()) if len(good) else float("nan")
    low, high = found.limits
    return {
        "n": found.n,
        "repeats": found.repeats,
        "median_first": float(medians[0]),
        "median_second": float(medians[1]),
        "bias": found.bias,
        "bias_percent": 100 * found.bias / middle if middle else float("nan"),
        "sd_difference": found.sd_difference,
        "limit_low": low,
        "limit_high": high,
        "within_sd": found.within_sd,
        "within_cv_percent": found.within_cv_percent,
        "repeatability_coefficient": found.repeatability_coefficient,
        "icc": found.icc,
        **_of_z(None),
    }


def _of_z(found: Calibration | None) -> Row:
    nan = float("nan")
    return {
        "z_n": found.n if found else 0,
        "z_mean": found.mean if found else nan,
        "z_sd": found.sd if found else nan,
        "z_robust_sd": found.robust_sd if found else nan,
        "z_share_95": found.shares[LEVELS.index(0.95)] if found else nan,
    }


def _over_repeats(pairs: Sequence[Pair]) -> Iterator[Row]:
    """Yield the agreement of the voxels of each region over three or more repeats of one subject."""
    groups: dict[tuple[Key, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((key_of(pair.first, REPEATS), maker_of(pair.first)), []).append(pair)
    for members in groups.values():
        images: dict[Path, NDArray[np.float64]] = {}
        for pair in members:
            for m, x in zip((pair.first, pair.second), pair.values):
                if m.path in images:  # a value counts if it does in every pair
                    x = np.where(np.isfinite(images[m.path]), x, np.nan)
                images[m.path] = x
        if len(images) < 3 or len({image.shape for image in images.values()}) > 1:
            continue
        first = members[0]
        parts = [
            (WHOLE, "", first.inside),
            *((str(region.label), region.name, region.inside) for region in first.regions),
        ]
        for label, name, inside in parts:
            values = np.stack([image[inside] for image in images.values()], axis=1)
            called = (f"{first.first.label} and {len(images) - 1} repeats", "")
            yield _about(first.first, called, "repeats", label, name) | _figures(agreement(values), values[:, :2])


def _over_subjects(pairs: Sequence[Pair]) -> Iterator[Row]:
    """Yield the agreement of the medians of each region over subjects that have the same number of repeats."""
    medians: dict[tuple[str, str, str, str, str], dict[Key, dict[Path, float]]] = {}
    makers = {maker_of(pair.first) for pair in pairs}
    for pair in pairs:
        maker = maker_of(pair.first)
        for (label, name), (x, y) in pair.medians.items():
            of = medians.setdefault((pair.first.name, pair.first.unit, label, name, maker), {})
            repeats = of.setdefault(key_of(pair.first, REPEATS), {})
            repeats |= {pair.first.path: x, pair.second.path: y}
    for (map_name, unit, label, name, maker), subjects in medians.items():
        numbers = [len(subject) for subject in subjects.values()]
        k = max(set(numbers), key=numbers.count)
        values = np.array([list(subject.values()) for subject in subjects.values() if len(subject) == k], dtype=float)
        if len(values) < 2:
            continue
        about = {
            "level": "subjects",
            "first": maker if len(makers) > 1 else "",
            "second": "",
            "map": map_name,
            "unit": unit,
            "label": label,
            "name": name,
        }
        figures = _figures(agreement(values), values[:, :2])
        yield about | figures
