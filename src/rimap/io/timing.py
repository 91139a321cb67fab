"""Times of a series from its sidecars (seconds) or from the user (milliseconds), and the repetition time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rimap.errors import InputError, count_of
from rimap.io.nifti import NiftiFile
from rimap.signals import SignalModel
from rimap.signals.base import axis_of, bids_time
from rimap.signals.units import refuse_seconds

_LONGEST_TR_S = 100.0
#: Mean magnitudes of repeats of an image differ by less than this factor.
_MOST_APART = 1.5


def numbers(value: Any, field: str, path: Path) -> list[float]:
    """Return the number, or the array of numbers, of a sidecar field.

    Raises
    ------
    InputError
        For anything that is not a finite number, or a negative one.
    """
    values = value if isinstance(value, list) else [value]
    for v in values:
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not abs(v) < 1e300:
            raise InputError(f"{path.name}: its sidecar has {field} {_short(v)}; a number in seconds was expected.")
        if v < 0:
            raise InputError(f"{path.name}: its sidecar has {field} {v:g} s; times cannot be negative.")
    return [float(v) for v in values]


def times_from_sidecars(
    images: Sequence[Path], counts: Sequence[int], metadata: Sequence[Mapping[str, Any]], model: type[SignalModel]
) -> list[float]:
    """Return the time of each image, ms.

    Parameters
    ----------
    images, counts, metadata
        The files, the number of volumes of each and its sidecar. A file of several volumes has an array of times, or
        one time that all of them share (repeats) where there are several files.

    Raises
    ------
    InputError
        For missing, negative or surprising times, and where their number is not that of the images.
    """
    field = bids_time(model)
    tau: list[float] = []
    for path, count, meta in zip(images, counts, metadata):
        if meta.get(field) is None:
            raise InputError(
                f"{path.name}: no {field} in its sidecar, or no sidecar. Add {field} (seconds), or give --times-ms."
            )
        values = numbers(meta[field], field, path)
        axis = axis_of(model)
        limit = axis.plausible[1] / axis.factor
        if max(values, default=0.0) > limit:
            raise InputError(
                f"{path.name}: {field} is {max(values):g} in its sidecar, where BIDS has seconds. Are these "
                f"milliseconds? Then write {max(values) / 1000:g} there, or give --times-ms."
            )
        if len(values) == 1 and count > 1 and len(images) > 1:
            values = values * count
        if len(values) != count:
            raise InputError(
                f"{count_of(len(values), 'time')}, {count_of(count, 'image')}: {field} in the sidecar of {path.name} must have one value for "
                f"each of its {count} volumes. Correct the sidecar, or give --times-ms."
            )
        tau += [v * 1000 for v in values]
    return [_tidy(t) for t in tau]


def about_repeats(
    files: Sequence[NiftiFile], metadata: Sequence[Mapping[str, Any]], model: type[SignalModel]
) -> list[str]:
    """Return a note where volumes of a file share the one time of its sidecar; one such file is looked at.

    Raises
    ------
    InputError
        Where its volumes are too different to be repeats: magnitude and phase, echoes, a noise scan.
    """
    if len(files) < 2:
        return []
    once = {k: numbers(m[bids_time(model)], bids_time(model), f.path) for k, (f, m) in enumerate(zip(files, metadata))}
    several = [k for k, times in once.items() if files[k].n_volumes > len(times) == 1]
    if not several:
        return []
    file = files[min(several, key=once.__getitem__)]
    levels = [float(np.abs(np.nan_to_num(v, posinf=0, neginf=0)).mean(dtype=float)) for v in file.volumes()]
    if max(levels) > _MOST_APART * min(levels):
        raise InputError(
            f"{file.path.name}: one {bids_time(model)} in its sidecar and {file.n_volumes} volumes, which are no repeats: their "
            f"mean magnitudes go from {min(levels):.3g} to {max(levels):.3g}. Phase, echoes or a noise scan? Keep one volume in "
            "each file, or give each its time in the sidecar."
        )
    return [f"{max(f.n_volumes for f in files)} volumes for each time are taken as repeats"]


def times_from_user(times_ms: Iterable[float], n_images: int, model: type[SignalModel], label: str) -> list[float]:
    """Return times given in ms, checked against the number of images.

    Raises
    ------
    InputError
        Where their number is not that of the images, one is negative, or they look like seconds.
    """
    try:
        tau = [float(t) for t in times_ms]
    except (TypeError, ValueError):
        raise InputError(f"--times-ms must be numbers in milliseconds; {times_ms!r} came.") from None
    if not tau:
        raise InputError("no times: --times-ms is empty. Give one time in milliseconds for each image.")
    if len(tau) != n_images:
        raise InputError(
            f"{count_of(len(tau), 'time')}, {count_of(n_images, 'image')}: --times-ms must have one value for each image of "
            f"{label}, in the order of the images. Check that no time or image is missing."
        )
    for t in tau:
        if not math.isfinite(t) or t < 0:
            raise InputError(f"times must be finite and not negative; --times-ms has {t:g}.")
    refuse_seconds(tau, model, "--times-ms")
    return tau


def repetition_time(
    images: Sequence[Path], counts: Sequence[int], metadata: Sequence[Mapping[str, Any]], tau: Sequence[float]
) -> tuple[tuple[float, ...] | None, str]:
    """Return the TR of each image in ms, or `None`, and a note where that calls for one.

    RepetitionTimePreparation of every sidecar, else RepetitionTime of every sidecar. A TR that is not longer than the
    time of its image is one between readouts (Look-Locker, turbo field echo) and is not used.

    Raises
    ------
    InputError
        For a TR that is no number, negative, or more than 100 s.
    """
    for field in ("RepetitionTimePreparation", "RepetitionTime"):
        if any(m.get(field) is None for m in metadata):
            continue
        tr: list[float] = []
        for path, count, meta in zip(images, counts, metadata):
            values = numbers(meta[field], field, path)
            if max(values, default=0.0) > _LONGEST_TR_S:
                raise InputError(
                    f"{path.name}: {field} is {max(values):g} in its sidecar, where BIDS has seconds. Are these "
                    f"milliseconds? Then write {max(values) / 1000:g} there, or give --tr-ms."
                )
            if len(values) not in (1, count):
                raise InputError(
                    f"{path.name}: {len(values)} values of {field}, {count} images. Give one, or one for each image."
                )
            tr += [_tidy(v * 1000) for v in (values if len(values) == count else values * count)]
        if all(r > t for r, t in zip(tr, tau)):
            return tuple(tr), ""
        shortest = min(tr)
        if field == "RepetitionTimePreparation" and all(m.get("RepetitionTime") is not None for m in metadata):
            continue
        return None, (
            f"{field} is {shortest:g} ms, not longer than the inversion time: it is the time between readouts and was "
            "not used. T1 from such a readout (Look-Locker) is an apparent one, T1*."
        )
    return None, ""  # the estimator warns of a model without TR


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "of more than 20 digits"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _tidy(ms: float) -> float:
    """Undo the rounding of seconds × 1000 (0.139 s gives 139 ms, not 139.00000000000003)."""
    return float(f"{ms:.12g}")
