"""Phantoms: find the spheres of an array in existing maps, and compare them with reference values and over dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rimap.advice import note, ordered
from rimap.errors import InputError
from rimap.evaluation.references import LAYOUTS, Layout, References, layout_of, references_of
from rimap.evaluation.spheres import Array, find_array
from rimap.io.bids import strip_nii
from rimap.io.map_images import MapImage, map_images, named_as
from rimap.io.path_redaction import without_folders
from rimap.maps import Status
from rimap.report.statistics import COUNTED, figures_of
from rimap.slices import planes_of
from rimap.workflow.drift import Measured, Row, date_of, drift_of, in_groups, in_order
from rimap.workflow.rois import (
    NOT_TRIED,
    Judging,
    counted_values,
    field_of,
    judged,
    status_of,
    whose,
    without_value,
)

#: So many maps with one reason are named.
_MOST_NAMES = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomRun:
    """The result of measuring phantoms.

    Parameters
    ----------
    measured
        The maps with an array, in the order of their dates if all have one, or as they were given.
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
        """The maps that can be compared with each other, each group in the order of its dates."""
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
        raise InputError(f"none of {len(found)} maps could be measured. {_reasons(refused)}")
    notes += without_value([row for m in measured for row in m.rows])
    return PhantomRun(
        measured=tuple(in_order(measured)),
        refused=tuple(refused),
        notes=ordered(notes),
        tolerance_percent=judging.tolerance_percent,
    )


def _reasons(refused: Sequence[tuple[str, str]]) -> str:
    """Return why maps were not measured: each reason once, with the names of its maps."""
    maps: dict[str, list[str]] = {}
    for label, reason in refused:
        maps.setdefault(re.sub(r"^\S+\.nii(\.gz)?: ", "", reason), []).append(label)
    return " ".join(
        f"{', '.join(labels[:_MOST_NAMES])}{' …' if len(labels) > _MOST_NAMES else ''}: {reason}"
        for reason, labels in maps.items()
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
    missing = [sphere for sphere in array.spheres if sphere.problem]
    for problem in dict.fromkeys(s.problem for s in missing):
        numbers = ", ".join(str(s.number) for s in missing if s.problem == problem)
        notes.append(f"{m.label}: spheres without a measurement: {numbers} ({problem}).")
    if abs(array.placement.bias) > 0.2:
        notes.append(
            f"{m.label}: the values differ from the references by {100 * np.expm1(array.placement.bias):+.0f} % in all "
            f"spheres. Check the "
            "map, the field strength and the array."
        )
    if abs(array.placement.scale - 1) > 0.03:
        notes.append(
            f"{m.label}: distances between the spheres differ by {100 * (array.placement.scale - 1):+.1f} % from their "
            f"nominal values. "
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
                f"{m.path.name}: expected the spheres of {layouts[0].name}, got those of {layout.name}. Use --layout "
                f"{layout.name}."
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
