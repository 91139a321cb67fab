"""Volumes that share one value of the axis: repeats, or something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rimap import advice
from rimap.errors import InputError
from rimap.io.nifti import NiftiFile
from rimap.io.settings import numbers_in, sidecar_field
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.settings import Setting, with_unit

#: Mean magnitudes of repeats of an image differ by less than this factor.
_LARGEST_RATIO_OF_REPEATS = 1.5


def note_on_repeats(
    files: Sequence[NiftiFile], metadata: Sequence[Mapping[str, Any]], model: type[SignalModel]
) -> list[str]:
    """Return a note if the volumes of a file, or several files, share one value, so that they count as repeats.

    Raises
    ------
    InputError
        Where its volumes are too different to be repeats: magnitude and phase, echoes, a noise scan.
    """
    axis = axis_of(model)
    field = sidecar_field(axis, metadata)
    if len(files) < 2 or field is None:
        return []
    once = {k: numbers_in(m[field], field, file.path, axis) for k, (file, m) in enumerate(zip(files, metadata))}
    several = [key for key, values in once.items() if files[key].n_volumes > len(values) == 1]
    if not several:
        return _of_files(list(once.values()), axis)
    file = files[min(several, key=once.__getitem__)]
    levels = [float(np.abs(np.nan_to_num(volume, posinf=0, neginf=0)).mean(dtype=float)) for volume in file.volumes()]
    if max(levels) > _LARGEST_RATIO_OF_REPEATS * min(levels):
        raise InputError(
            f"{file.path.name}: expected repeats, because its sidecar has one {field} for {file.n_volumes} volumes, "
            f"got mean magnitudes from {min(levels):.3g} to {max(levels):.3g}: so these are not repeats, but possibly "
            "phase, echoes or a noise scan. Keep one volume in each file, or give each its value in the sidecar."
        )
    what = "time" if axis.unit == "ms" else axis.title
    return [advice.note(f"{max(file.n_volumes for file in files)} volumes for each {what} count as repeats")]


def _of_files(values: Sequence[Sequence[float]], axis: Setting) -> list[str]:
    """Return a note if files of one image each share a value of the axis."""
    if any(len(value) != 1 for value in values):
        return []
    again = {v: value for v, value in Counter(round(value[0], 9) for value in values).items() if value > 1}
    if not again:
        return []
    shown = ", ".join(f"{n} at {with_unit(v * axis.factor, axis.unit)}" for v, n in list(again.items())[:6]) + (
        " …" if len(again) > 6 else ""
    )
    return [advice.note(f"images of one {'time' if axis.unit == 'ms' else axis.title} count as repeats: {shown}")]
