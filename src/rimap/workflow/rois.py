"""Statistics of regions of existing maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import Weight, note, ordered, unreliable, weight_of
from rimap.errors import InputError, count_of, one_of
from rimap.evaluation.references import (
    LAYOUTS,
    TOLERANCE_PERCENT,
    References,
    layout_of,
    read_references,
    references_of,
)
from rimap.io.bids import strip_nii
from rimap.io.map_images import MapImage, map_images
from rimap.io.path_redaction import without_folders
from rimap.maps import Status
from rimap.report.statistics import COUNTED, about_figures, figures_of, share_column
from rimap.workflow.region_images import images_of_regions, read_regions
from rimap.workflow.summary import wrapped

Row = dict[str, Any]
#: Name that stands for the array of spheres whose values fit best.
ANY_ARRAY = "nist"
#: Array that this name excludes, because its spheres have nearly the same values as those of nist-t1.
NOT_TRIED = ("nist-t1-v2",)
#: A median bias above this is not a measurement error but the wrong references, %.
_WRONG_PERCENT = 40.0
#: Quality flags of voxels whose values do not count by default.
_WITH_VALUE = (Status.NOT_CONVERGED, Status.OUTSIDE_TRAINING, Status.OFF_MODEL)
#: Reference values whose ratio to the medians is this factor or its inverse, within a factor of 2, are in another unit
#: (s and ms).
_OTHER_UNIT = 1000.0
#: Relaxation times of tissue and phantoms, ms: medians outside this range are in another unit.
_SHORTEST_T1_MS, _SHORTEST_T2_MS, _LONGEST_MS = 5.0, 0.1, 20_000.0
#: Rows that are printed; the table in the file has all.
_MOST_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class RegionTable:
    """The statistics of regions.

    Parameters
    ----------
    rows
        One for each map and region, by column.
    notes
        What the user should know about the statistics.
    maps
        The maps.
    refused
        Maps that could not be measured, for example because they have no labels: the name and the reason.
    judged
        Whether there are reference values.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    maps: tuple[MapImage, ...]
    refused: tuple[tuple[str, str], ...] = ()
    judged: bool = False

    def columns(self) -> dict[str, dict[str, str]]:
        """Return the descriptions of the columns, for the JSON file of the table."""
        return columns(judged=self.judged)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """Reference values for regions, and the tolerance.

    Parameters
    ----------
    reference
        The name of an array of spheres (``nist-t1``; ``nist`` for the one that fits best), or a table with the columns
        label and reference.
    field_T
        The field strength of the scanner in T, for an array; from the sidecar of the map by default.
    temperature_C
        The temperature of the phantom in °C.
    tolerance_percent
        The largest bias with which a region passes.
    """

    reference: str | Path | None = None
    field_T: float | None = None
    temperature_C: float = 20.0
    tolerance_percent: float = TOLERANCE_PERCENT

    def __post_init__(self) -> None:
        """Refuse invalid numbers.

        Raises
        ------
        InputError
            If the tolerance or the field strength is not positive.
        """
        for value, option, unit in (
            (self.tolerance_percent, "--tolerance", "%"),
            (self.field_T, "--field-strength", "T"),
        ):
            if value is not None and not value > 0:
                raise InputError(f"{option}: expected a positive number, got {value:g} {unit}.")

    def of(self, m: MapImage, medians: Mapping[int, float], named: str = "") -> References | None:
        """Return the references of a map; `None` if there are none for it.

        Parameters
        ----------
        medians
            The measured medians by label: ``nist`` is the array whose values are nearest.
        named
            The array that was specified with the labels.
        """
        wanted = named or (str(self.reference) if self.reference is not None else "")
        if not wanted or m.name != m.quantity:
            return None
        if not named and wanted.lower() not in (*LAYOUTS, ANY_ARRAY):
            return read_references(wanted, m.name)
        rate = m.name.startswith("R")
        time = f"T{m.name[1:]}" if rate else m.name
        layouts = (
            [y for y in LAYOUTS.values() if y.name not in NOT_TRIED] if wanted == ANY_ARRAY else [layout_of(wanted)]
        )
        layouts = [y for y in layouts if time in y.maps]
        if not layouts:
            return None
        field = field_of(m) if self.field_T is None else self.field_T
        found = [references_of(y, time, field, self.temperature_C) for y in layouts]
        found = [r.inverted() for r in found] if rate else found
        return min(found, key=lambda r: _distance(r, medians))


def _distance(references: References, medians: Mapping[int, float]) -> float:
    """Return the median difference of log values; infinite if no label has both a reference and a median."""
    off = [
        abs(np.log(median / references.values[n]))
        for n, median in medians.items()
        if n in references.values and median > 0
    ]
    return float(np.median(off)) if off else float("inf")


def rois(
    maps: Path | str | Sequence[Path | str],
    labels: Path | str | Sequence[Path | str] = (),
    *,
    names: Sequence[str] = (),
    rates: bool = False,
    threshold: float | None = None,
    include: Sequence[Status | str] = (),
    judging: Judging | None = None,
) -> RegionTable:
    """Return statistics of regions of existing maps.

    Parameters
    ----------
    maps
        Maps (NIfTI), or folders of them: the output of `rimap map` or `rimap bids`, or maps of other software.
    labels
        Label images, probability images, BIDS folders, or patterns such as ``seg/sub-{sub}_dseg.nii.gz``. A prefix such
        as ``nist-t1:`` specifies the spheres of a phantom. By default the ``_dseg`` or ``_probseg`` image next to each
        map.
    names
        The maps to take from folders (T1, R1, B, sd, all); relaxation times and rates by default.
    rates
        Also compute the rate of each relaxation time.
    threshold
        The lowest probability of a voxel in a region; 0.5 by default.
    include
        Quality flags whose voxels count besides ok and at bound: ``off_model``.
    judging
        Reference values to compare with.

    Raises
    ------
    InputError
        If there are no maps or no labels, an image cannot be read, or labels are on another grid than a map.

    Examples
    --------
    >>> rimap.rois("out", "labels.nii.gz").rows[0]["median"]  # doctest: +SKIP
    812.4
    """
    judging = judging or Judging()
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"--threshold: expected a probability above 0 and up to 1, got {threshold:g}.")
    counting = (*COUNTED, *(status_of(s) for s in include))
    where = [split_layout(text) for text in _several(labels)]
    found = map_images(_several(maps), names, rates=rates)
    rows: list[Row] = []
    notes: list[str] = []
    refused: list[tuple[str, str]] = []
    for m in found:
        try:
            more, said = _of_map(m, where, threshold, counting, judging)
        except InputError as error:
            if len(found) == 1:
                raise
            refused.append((m.label, without_folders(str(error).removeprefix(f"{m.label}: "))))
            continue
        rows += more
        notes += said
    if not rows:
        raise InputError(f"none of {len(found)} maps could be measured. {refused[0][0]}: {refused[0][1]}")
    notes += without_value(rows)
    judged = any("reference" in row for row in rows)
    if not judged and judging != Judging():
        notes.append(
            "Field strength, temperature and tolerance were not used, because the maps have no reference values. Give "
            "--reference."
        )
    if judged:
        rows = [{**{c: float("nan") for c in ("reference", "bias_percent")}, "verdict": "", **row} for row in rows]
        rows = [{c: row[c] for c in [*(k for k in row if k not in _JUDGED), *_JUDGED]} for row in rows]
    return RegionTable(rows=tuple(rows), notes=ordered(notes), maps=tuple(found), refused=tuple(refused), judged=judged)


def _of_map(
    m: MapImage,
    where: Sequence[tuple[str, Path]],
    threshold: float | None,
    counting: Sequence[Status],
    judging: Judging,
) -> tuple[list[Row], list[str]]:
    """Return the rows of one map, and notes; `where` has an array ("" for none) and a file, folder or pattern each."""
    rows: list[Row] = []
    images = images_of_regions(m, [path for _, path in where])
    values, status, notes = counted_values(m, counting)
    for number, image in enumerate(images):
        regions, said = read_regions(image, m, threshold)
        more: list[Row] = []
        for region in regions:
            figures = figures_of(values, status, region.inside, counting)
            more.append({**whose(m), "regions": image.name, "label": region.label, "name": region.name, **figures})
        references = judging.of(m, {row["label"]: row["median"] for row in more}, where[number][0] if where else "")
        if references is not None:
            said = [*said, note(f"Reference values: {references.source}."), *references.notes]
            said += judge(more, references, judging, image)
        rows += more
        notes += said
    return rows, notes


def judge(rows: list[Row], references: References, judging: Judging, image: Path) -> list[str]:
    """Add the reference, the relative bias of the median and the verdict to rows, and return notes.

    Raises
    ------
    InputError
        If no label has a reference value, or the reference values are in another unit.
    """
    if not set(references.values) & {row["label"] for row in rows}:
        raise InputError(
            f"{image}: expected labels that are the numbers of the spheres or of the reference table, got none that is."
        )
    for row in rows:
        row |= judged(row["median"], references.values.get(row["label"]), judging.tolerance_percent)
    _refuse_other_unit(rows, references)
    biases = np.array([row["bias_percent"] for row in rows])
    typical = float(np.nanmedian(biases)) if np.isfinite(biases).any() else 0.0
    if abs(typical) > _WRONG_PERCENT:
        return [
            f"Half of the regions of {rows[0]['series']} are {abs(typical):.0f} % or more "
            f"{'above' if typical > 0 else 'below'} the reference values. Check that the references are for this "
            "phantom, map and field strength."
        ]
    return []


def _refuse_other_unit(rows: Sequence[Row], references: References) -> None:
    """Refuse reference values that are about 1,000 times the medians, or a thousandth (seconds instead of ms)."""
    ratios = [row["median"] / row["reference"] for row in rows if row["median"] > 0 and row["reference"] > 0]
    if not ratios or not rows[0]["unit"]:
        return
    typical = float(np.median(ratios))
    if abs(abs(np.log(typical)) - np.log(_OTHER_UNIT)) < np.log(2):
        more = "larger" if typical < 1 else "smaller"
        raise InputError(
            f"{references.source}: expected reference values in {rows[0]['unit']}, got values that are about 1,000 "
            f"times {more} than the medians of {rows[0]['series']}. Give them in {rows[0]['unit']}."
        )


def status_of(name: Status | str) -> Status:
    """Return a quality flag by its name.

    Raises
    ------
    InputError
        If there is no flag with that name.

    >>> status_of("off_model").name
    'OFF_MODEL'
    """
    if isinstance(name, Status):
        return name
    names = [s.name.lower() for s in Status]
    return Status[one_of(name.replace(" ", "_").replace("-", "_"), names, "--include").upper()]


def without_value(rows: Sequence[Row]) -> list[str]:
    """Return a note on regions in which no voxel counts, with the most frequent quality flag."""
    empty = [row for row in rows if not row["n"] and row["voxels"]]
    if not empty:
        return []
    flags = [max(Status, key=lambda s: row[share_column(s)]) for row in empty]
    most = max(set(flags), key=flags.count)
    name = most.name.lower()
    remedy = f" Use --include {name} to count them." if most in _WITH_VALUE else ""
    return [
        (
            f"{count_of(len(empty), 'region')} without a voxel that counts: most voxels have the quality flag "
            f"{name.replace('_', ' ')}.{remedy}"
        )
    ]


def counted_values(
    m: MapImage, counting: Sequence[Status] = COUNTED
) -> tuple[NDArray[np.float64], NDArray[np.uint8], list[str]]:
    """Return the values (*X) of a map that count, its quality flags, and notes. Without flags, all finite values count.

    Zeros of relaxation times and rates do not count, because other software writes them in voxels without an estimate.
    """
    values, status, notes = m.values(), m.status(), list(m.notes)
    if m.of_time is not None:
        notes += m.of_time.notes
    relaxation = m.name[:1] in "TR" and m.unit in ("ms", "1/s")
    if status is None:
        valid = np.isfinite(values) & ((values > 0) if relaxation else True)
        status = np.where(valid, Status.OK, Status.NO_SIGNAL).astype(np.uint8)
        what = "all finite values except zeros count" if relaxation else "all finite values count"
        notes.append(note(f"There is no map of quality flags next to the map, so {what}."))
    counted = np.where(np.isin(status, counting), values, np.nan)
    return counted, status, [*notes, *(_about_unit(m, counted) if relaxation else [])]


def _about_unit(m: MapImage, values: NDArray[np.float64]) -> list[str]:
    """Return a warning if the relaxation times or rates of a map are none that tissue or a phantom has."""
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return []
    median = float(np.median(known))
    time_ms = median if m.unit == "ms" else 1000 / median
    shortest = _SHORTEST_T1_MS if m.quantity[1:2] == "1" else _SHORTEST_T2_MS
    if shortest <= time_ms <= _LONGEST_MS:
        return []
    return [
        unreliable(
            f"{m.label}: the median of {m.name} is {median:.6g} {m.unit}, which no tissue has. Check the unit of the "
            f"map (Units in its sidecar)."
        )
    ]


def whose(m: MapImage) -> Row:
    """Return the columns that identify the map of a row."""
    return {
        "participant_id": f"sub-{m.entities['sub']}" if "sub" in m.entities else "",
        "session_id": f"ses-{m.entities['ses']}" if "ses" in m.entities else "",
        "series": strip_nii(m.path),
        "map": m.name,
        "unit": m.unit,
    }


#: Columns of regions with reference values.
_JUDGED = ("reference", "bias_percent", "verdict")


def judged(median: float, reference: float | None, tolerance_percent: float) -> Row:
    """Return the reference, the relative bias of the median in %, and pass or fail.

    >>> judged(95.0, 100.0, 10.0)
    {'reference': 100.0, 'bias_percent': -5.0, 'verdict': 'pass'}
    """
    if reference is None:
        return {"reference": float("nan"), "bias_percent": float("nan"), "verdict": ""}
    bias = 100 * (median / reference - 1)
    verdict = "no value" if not np.isfinite(bias) else "pass" if abs(bias) <= tolerance_percent else "fail"
    return {"reference": reference, "bias_percent": bias, "verdict": verdict}


def columns(*, judged: bool = False) -> dict[str, dict[str, str]]:
    """Return the descriptions of the columns of a table of regions."""
    about = {
        "participant_id": {"Description": "Subject, if the name of the map has one"},
        "session_id": {"Description": "Session, if the name of the map has one"},
        "series": {"Description": "Name of the map, without extension"},
        "map": {"Description": "Parameter of the map; sd T1 is the standard deviation of T1"},
        "unit": {
            "Description": "Unit of the median, the quartiles, the mean, the standard deviation and the reference"
        },
        "regions": {"Description": "Name of the image with the regions"},
        "label": {"Description": "Value in the label image, or number of the volume of a probability image"},
        "name": {"Description": "Name of the region"},
        **about_figures(),
    }
    if judged:
        about |= {
            "reference": {"Description": "Reference value"},
            "bias_percent": {"Description": "Median minus reference, relative to the reference", "Units": "%"},
            "verdict": {
                "Description": "pass if the bias is within the tolerance, fail if not, no value if no voxel counts"
            },
        }
    return about


def split_layout(text: Path | str) -> tuple[str, Path]:
    """Return the array of spheres in the prefix of a file, "" if there is none, and the file.

    >>> split_layout("nist-t1:spheres.nii.gz")
    ('nist-t1', PosixPath('spheres.nii.gz'))
    """
    before, colon, after = str(text).partition(":")
    if colon and after and before.lower().startswith("nist"):
        return (ANY_ARRAY if before.lower() == ANY_ARRAY else layout_of(before).name), Path(after)
    return "", Path(text)


def field_of(m: MapImage) -> float | None:
    """Return the field strength in T from the sidecar of a map, `None` if it has none."""
    value = m.about.get("MagneticFieldStrength")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None


def lines(table: RegionTable) -> Iterator[str]:
    """Yield the table for a terminal: a heading for each map, then its regions."""
    from rimap.map_display import shown_name
    from rimap.report.number_formats import number

    width = max([6, *(len(_region(row)) for row in table.rows)])
    width = min(width, 40)
    before = None
    for row in table.rows[:_MOST_ROWS]:
        if (row["series"], row["map"]) != before:
            before = (row["series"], row["map"])
            unit = f", {row['unit']}" if row["unit"] else ""
            yield f"{row['series']}: {shown_name(row['map'])}{unit}"
            head = f"  {'region':<{width}}{'n':>9}{'median':>10}{'IQR':>10}{'mean':>10}{'SD':>10}{'ok':>9}"
            yield head + (f"{'reference':>11}{'bias':>10}" if table.judged else "")
        figures = "".join(f"{number(row[c], n):>10}" for c, n in (("median", 4), ("iqr", 3), ("mean", 4), ("sd", 3)))
        text = f"  {_region(row):<{width}}{row['n']:>9,}{figures}{100 * row[share_column(Status.OK)]:>7.1f} %"
        if table.judged:
            bias = "" if row["bias_percent"] != row["bias_percent"] else f"{row['bias_percent']:+.1f} %"
            text += f"{number(row['reference'], 4):>11} {bias:>9}  {row['verdict']}"
        yield text.rstrip()
    if len(table.rows) > _MOST_ROWS:
        yield f"… and {len(table.rows) - _MOST_ROWS} more rows in the table (-o)"
    if table.judged:
        counted = [row["verdict"] for row in table.rows if row["verdict"]]
        yield f"{counted.count('pass')} of {count_of(len(counted), 'region')} with a reference value pass."
    yield from told([f"{name} was left out. {reason}" for name, reason in table.refused])
    yield from told(table.notes)


def told(notes: Sequence[str]) -> Iterator[str]:
    """Yield notes and warnings for a terminal."""
    for text in notes:
        yield wrapped("note:" if weight_of(text) == Weight.NOTE else "warning:", text)


def _region(row: Row) -> str:
    return f"{row['label']} {row['name']}".strip()


def _several(given: Path | str | Sequence[Path | str]) -> list[Path | str]:
    return [given] if isinstance(given, (Path, str)) else list(given)
