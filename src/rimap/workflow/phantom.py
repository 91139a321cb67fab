"""Phantoms: find the spheres of an array in existing maps, and compare them with reference values and over dates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rimap.advice import note, ordered
from rimap.errors import InputError, count_of
from rimap.evaluation.references import LAYOUTS, Layout, References, layout_of, references_of
from rimap.evaluation.spheres import Array, find_array
from rimap.io.atomic import Content, as_bytes, write_together
from rimap.io.bids import strip_nii
from rimap.io.map_images import MapImage, map_images, named_as
from rimap.io.nifti_bytes import nifti_file
from rimap.io.path_redaction import without_folders
from rimap.io.provenance import to_json
from rimap.maps import Status
from rimap.report.statistics import COUNTED, figures_of
from rimap.slices import planes_of
from rimap.workflow.region_names import tsv
from rimap.workflow.rois import (
    NOT_TRIED,
    Judging,
    counted_values,
    field_of,
    judged,
    status_of,
    told,
    whose,
    without_value,
)
from rimap.workflow.rois import columns as columns_of_regions

Row = dict[str, Any]
_DATE = re.compile(r"(?<!\d)(20\d{2}|19\d{2})[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")


@dataclass(frozen=True, eq=False)
class Measured:
    """An array of spheres in a map.

    Parameters
    ----------
    map
        The map.
    layout
        The array.
    array
        Where it was found.
    rows
        One for each sphere.
    references
        The reference values of the spheres.
    date
        Acquisition date from the session or file name; `None` if these have no date.
    """

    map: MapImage
    layout: Layout
    array: Array
    rows: tuple[Row, ...]
    references: References
    date: date | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomRun:
    """The result of measuring phantoms.

    Parameters
    ----------
    measured
        The maps with an array, in the order of their dates, or as they were given.
    refused
        Maps without an array: the name and the reason.
    notes
        What the user should know.
    tolerance_percent
        The bias with which a sphere passes.
    """

    measured: tuple[Measured, ...]
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    tolerance_percent: float

    @property
    def rows(self) -> list[Row]:
        """One row for each map and sphere."""
        return [row for m in self.measured for row in m.rows]

    @property
    def groups(self) -> list[list[Measured]]:
        """The maps that can be compared with each other."""
        return in_groups(self.measured)

    @property
    def drift(self) -> list[Row]:
        """One row for each sphere in several maps: the change of its median."""
        return drift_of(self.measured)


def phantom(
    maps: Path | str | Sequence[Path | str],
    layout: str | None = None,
    *,
    include: Sequence[Status | str] = (),
    judging: Judging | None = None,
) -> PhantomRun:
    """Find the spheres of a phantom in maps of T1 or T2, and compare them with their references.

    Parameters
    ----------
    maps
        Maps (NIfTI), or folders of them. Several maps of one array are compared over their dates.
    layout
        ``nist-t1``, ``nist-t1-v2`` or ``nist-t2``. By default nist-t1 or nist-t2, whichever fits.
    include
        Quality flags whose voxels count besides ok and at bound: ``off_model``. The spheres are found from all values.
    judging
        Field strength, temperature and tolerance.

    Raises
    ------
    InputError
        If no map has such an array.

    Examples
    --------
    >>> rimap.phantom("sub-01_T1map.nii.gz", "nist-t1").rows[0]["bias_percent"]  # doctest: +SKIP
    -2.1
    """
    judging = judging or Judging()
    named = None if layout is None else layout_of(layout)
    counting = (*COUNTED, *(status_of(s) for s in include))
    found = map_images([maps] if isinstance(maps, (Path, str)) else list(maps))
    measured, refused, notes = [], [], []
    for m in found:
        try:
            one, said = _measure(m, named, judging, counting)
        except InputError as error:
            if len(found) == 1:
                raise
            refused.append((m.label, without_folders(str(error))))
            continue
        measured.append(one)
        notes += said
    if not measured:
        raise InputError(f"none of {len(found)} maps has an array of spheres. {refused[0][0]}: {refused[0][1]}")
    notes += without_value([row for m in measured for row in m.rows])
    in_order = sorted(measured, key=lambda m: m.date) if all(m.date for m in measured) else measured  # type: ignore[arg-type, return-value]
    return PhantomRun(
        measured=tuple(in_order),
        refused=tuple(refused),
        notes=ordered(notes),
        tolerance_percent=judging.tolerance_percent,
    )


def _measure(
    m: MapImage, named: Layout | None, judging: Judging, counting: Sequence[Status]
) -> tuple[Measured, list[str]]:
    known = sorted({name for layout in LAYOUTS.values() for name in layout.maps})
    if m.name not in known:
        if named is None or m.name != strip_nii(m.path):
            remedy = " Choose the array with --layout." if m.name == strip_nii(m.path) else ""
            raise InputError(f"{m.path.name}: expected a map of {' or '.join(known)}, got {m.name}.{remedy}")
        m = named_as(m, named.maps[0])
        said = [note(f"{m.path.name}: the file name does not say which map it is, so rimap assumes a map of {m.name}.")]
    else:
        said = []
    field = field_of(m) if judging.field_T is None else judging.field_T
    layouts = [named] if named else [y for y in LAYOUTS.values() if m.name in y.maps and y.name not in NOT_TRIED]
    values, status, notes = counted_values(m, counting)
    notes = [*said, *notes]
    array, layout, references = _found(m, layouts, field, judging.temperature_C)
    rows = []
    for sphere in array.spheres:
        inside = np.zeros((*values.shape, 1, 1)[:3], bool)
        inside[sphere.inside] = not sphere.problem
        figures = figures_of(values, status, inside.reshape(values.shape), counting)
        verdict = judged(figures["median"], references.values.get(sphere.number), judging.tolerance_percent)
        verdict["verdict"] = sphere.problem.split(":")[0] or verdict["verdict"]
        where = dict(zip("ijk", (round(c, 2) for c in sphere.centre)))
        rows.append({**whose(m), "array": layout.name, "label": sphere.number, **where, **figures, **verdict})
    notes.append(note(f"Reference values: {references.source}."))
    notes += references.notes
    missing = [s for s in array.spheres if s.problem]
    for problem in dict.fromkeys(s.problem for s in missing):
        numbers = ", ".join(str(s.number) for s in missing if s.problem == problem)
        notes.append(f"{m.label}: spheres without a measurement: {numbers} ({problem}).")
    if abs(array.placement.bias) > 0.2:
        notes.append(
            f"{m.label}: the values differ from the references by {100 * np.expm1(array.placement.bias):+.0f} % in all spheres. Check the "
            "map, the field strength and the array."
        )
    if abs(array.placement.scale - 1) > 0.03:
        notes.append(
            f"{m.label}: distances between the spheres differ by {100 * (array.placement.scale - 1):+.1f} % from their nominal values. "
            "Check the voxel size in the header."
        )
    return Measured(m, layout, array, tuple(rows), references, date_of(m)), notes


def _found(
    m: MapImage, layouts: Sequence[Layout], field: float | None, temperature: float
) -> tuple[Array, Layout, References]:
    """Return the array that fits a map best. If the specified one does not fit, the error names the one that does."""
    reasons: list[InputError] = []
    best: tuple[Array, Layout, References] | None = None
    for layout in layouts:
        try:
            references = references_of(layout, m.name, field, temperature)
            array = _search(m, references)
        except InputError as error:
            reasons.append(error)
            continue
        if best is None or array.placement.cost < best[0].placement.cost:
            best = (array, layout, references)
    if best is not None:
        return best
    if len(layouts) == 1 and m.name in layouts[0].maps and field is not None:
        others = [y for y in LAYOUTS.values() if m.name in y.maps and y.name not in (layouts[0].name, *NOT_TRIED)]
        for layout in others:
            try:
                _search(m, references_of(layout, m.name, field, 20.0))
            except InputError:
                continue
            raise InputError(
                f"{m.path.name}: expected the spheres of {layouts[0].name}, got those of {layout.name}. Use --layout {layout.name}."
            ) from None
    raise InputError(f"{m.path.name}: {reasons[0]}")


def _search(m: MapImage, references: References) -> Array:
    values = m.values()
    affine, edges = m.geometry()
    volume = values.reshape((*values.shape, 1, 1)[:3])
    known = [e if np.isfinite(e) and e > 0 else 1.0 for e in (*edges, 1.0, 1.0)[:3]]
    axes = [plane.axes[2] for plane in planes_of(affine, volume.shape)]
    if 1 not in volume.shape:
        axes += [index for index in range(3) if index not in axes]
    return find_array(volume, known, references.values, axes)


def date_of(m: MapImage) -> date | None:
    """Return the date in the session of a map (``ses-20240131``), or else in its file or folder name; `None` if there is none."""
    for text in (m.entities.get("ses", ""), m.path.name, m.path.parent.name):
        if found := _DATE.search(text):
            try:
                return datetime(*(int(part) for part in found.groups())).date()  # type: ignore[arg-type]
            except ValueError:
                continue
    return None


def in_groups(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Return groups of two or more maps that can be compared: those of one array with the same reference values."""
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for m in measured:
        groups.setdefault((m.layout.name, m.map.name, tuple(m.references.values.values())), []).append(m)
    return [members for members in groups.values() if len(members) > 1]


def drift_of(measured: Sequence[Measured]) -> list[Row]:
    """Return how the median of each sphere changes over the maps of one array: a row for each sphere.

    The spread is the standard deviation over the maps, the change is last minus first, both relative to the mean; the trend is
    the slope of a straight line over the dates, if each map has one.
    """
    rows: list[Row] = []
    for members in in_groups(measured):
        layout, name = members[0].layout.name, members[0].map.name
        days = [member.date.toordinal() for member in members if member.date is not None]
        dated = len(days) == len(members) and len(set(days)) > 1
        for n in range(1, 15):
            medians = np.array(
                [next(row["median"] for row in member.rows if row["label"] == n) for member in members], dtype=float
            )
            good = np.isfinite(medians)
            mean = float(medians[good].mean()) if good.any() else float("nan")
            spread = float(medians[good].std(ddof=1)) if good.sum() > 1 else float("nan")
            trend = float("nan")
            if dated and good.sum() > 1 and np.ptp(np.array(days)[good]):
                trend = float(np.polyfit(np.array(days, float)[good], medians[good], 1)[0]) * 365.25 / mean * 100
            ends = medians[good][[0, -1]] if good.sum() > 1 else np.array([np.nan, np.nan])
            rows.append(
                {
                    "array": layout,
                    "map": name,
                    "unit": "ms",
                    "label": n,
                    "maps": int(good.sum()),
                    "reference": members[0].references.values.get(n, float("nan")),
                    "mean": mean,
                    "spread_percent": 100 * spread / mean,
                    "change_percent": 100 * float(ends[1] - ends[0]) / mean,
                    "trend_percent_per_year": trend,
                    **{f"median_{k}": float(median) for k, median in enumerate(medians, start=1)},
                }
            )
    every = list(dict.fromkeys(c for row in rows for c in row))
    return [{c: row.get(c, float("nan")) for c in every} for row in rows]


def columns() -> dict[str, dict[str, str]]:
    """Return the descriptions of the columns of the table of spheres."""
    about = columns_of_regions(judged=True)
    for name in ("regions", "name"):
        del about[name]
    about["label"] = {"Description": "Number of the sphere"}
    about["verdict"] = {
        "Description": "pass if the bias is within the tolerance, fail if not, no value if no voxel counts, or why the sphere was not measured"
    }
    ordered_about: dict[str, dict[str, str]] = {}
    for name, text in about.items():
        if name == "label":
            ordered_about["array"] = {"Description": "Array of spheres"}
        ordered_about[name] = text
        if name == "label":
            for axis in "ijk":
                ordered_about[axis] = {
                    "Description": f"Index of the centre of the sphere along axis {axis} of the map, from 0"
                }
    return ordered_about


def drift_columns(n_maps: int, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the descriptions of the columns of the table of changes; `names` are those of the maps, in order."""
    about = {
        "array": {"Description": "Array of spheres"},
        "map": {"Description": "What the maps show"},
        "unit": {"Description": "Unit of the reference, the mean and the medians"},
        "label": {"Description": "Number of the sphere"},
        "maps": {"Description": "Number of maps with a value"},
        "reference": {"Description": "Reference value of the first map"},
        "mean": {"Description": "Mean of the medians over the maps"},
        "spread_percent": {
            "Description": "Standard deviation of the medians over the maps, relative to the mean",
            "Units": "%",
        },
        "change_percent": {"Description": "Last minus first median, relative to the mean", "Units": "%"},
        "trend_percent_per_year": {"Description": "Slope over the dates, relative to the mean", "Units": "%/year"},
    }
    about |= {f"median_{index}": {"Description": f"Median in {names[index - 1]}"} for index in range(1, n_maps + 1)}
    return about


def files_of(run: PhantomRun, out: Path, command: str = "") -> dict[Path, Content]:
    """Return the files of a run by path: tables, a page, and a label image of the spheres of each map."""
    from rimap.report.phantom import page

    files: dict[Path, Content] = {
        out / "phantom.tsv": as_bytes(tsv(run.rows)),
        out / "phantom.json": to_json(columns()),
    }
    if drift := run.drift:
        names = [m.map.label for m in run.measured]
        files[out / "phantom_drift.tsv"] = as_bytes(tsv(drift))
        files[out / "phantom_drift.json"] = to_json(drift_columns(max(_n_medians(r) for r in drift), names))
    for m in run.measured:
        header = m.map.file()
        labels = m.array.labels(header.shape)
        files[out / f"{_label_name(m.map, run)}"] = lambda x=labels, h=header.header: nifti_file(x, h)  # type: ignore[misc]
    files[out / "phantom.html"] = as_bytes(page(run, command=command))
    return files


def write(run: PhantomRun, out: Path | str, command: str = "") -> list[Path]:
    """Write tables, a page, and a label image of the spheres of each map into a folder, all or none.

    Returns
    -------
    The files.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    files = files_of(run, Path(out), command)
    write_together(files)
    return list(files)


def _label_name(m: MapImage, run: PhantomRun) -> str:
    """Return the name of the label image of a map. Maps with the same name in several folders are numbered."""
    same = [x.map.path for x in run.measured if strip_nii(x.map.path) == strip_nii(m.path)]
    number = f"-{same.index(m.path) + 1}" if len(same) > 1 else ""
    return f"{strip_nii(m.path)}_spheres{number}_dseg.nii.gz"


def _n_medians(row: Row) -> int:
    return sum(k.startswith("median_") for k in row)


def lines(run: PhantomRun) -> Iterator[str]:
    """Yield the run for a terminal: a table of spheres for each map, and of their changes if there are several."""
    from rimap.report.number_formats import number

    for m in run.measured:
        when = f", {m.date.isoformat()}" if m.date else ""
        yield f"{m.map.label}: {m.map.name}, ms, {m.layout.name}{when}"
        yield f"  {'sphere':>6}{'i':>8}{'j':>8}{'k':>6}{'n':>6}{'median':>9}{'IQR':>8}{'reference':>11}{'bias':>9}"
        for r in m.rows:
            bias = "–" if r["bias_percent"] != r["bias_percent"] else f"{r['bias_percent']:+.1f} %"
            where = f"{r['i']:>8.1f}{r['j']:>8.1f}{r['k']:>6.0f}"
            figures = (
                f"{r['n']:>6}{number(r['median'], 4):>9}{number(r['iqr']):>8}{number(r['reference'], 4):>11}{bias:>9}"
            )
            yield f"  {r['label']:>6}{where}{figures}  {r['verdict']}".rstrip()
    if drift := run.drift:
        yield "Changes over the maps, % of the mean"
        yield f"  {'array':<11}{'map':<5}{'sphere':>6}{'maps':>6}{'mean, ms':>10}{'spread':>9}{'change':>9}{'per year':>10}"
        for r in drift:
            shown = "".join(
                f"{'–' if r[c] != r[c] else format(r[c], '+.2f' if c != 'spread_percent' else '.2f'):>{w}}"
                for c, w in (("spread_percent", 9), ("change_percent", 9), ("trend_percent_per_year", 10))
            )
            yield f"  {r['array']:<11}{r['map']:<5}{r['label']:>6}{r['maps']:>6}{number(r['mean'], 4):>10}{shown}"
    verdicts = [row["verdict"] for row in run.rows]
    yield f"{verdicts.count('pass')} of {count_of(len(verdicts), 'sphere')} within {run.tolerance_percent:g} % of the reference."
    yield from told([f"{label} was left out. {reason}" for label, reason in run.refused])
    yield from told(run.notes)
