"""Slices that were excited one after another after one inversion: each has times of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rimap.advice import note
from rimap.errors import InputError
from rimap.io.nifti import NiftiFile
from rimap.signals import SignalModel
from rimap.signals.model_options import knows_polarity
from rimap.signals.settings import REPETITION_FIELDS

#: When each slice was excited, in s from the beginning of the volume (BIDS), and along which axis slices are counted.
_TIMING, _DIRECTION = "SliceTiming", "SliceEncodingDirection"
#: rimap's own field: what is added to the time of the image in each slice, in s, whatever the sequence.
_DELAYS = "SliceDelays"
#: Its value is 2D or 3D. Only slices of 2D scans have times of their own.
_ACQUISITION = "MRAcquisitionType"
#: Where a sidecar says that a volume is read by echo-planar imaging, slice by slice.
_SEQUENCE_FIELDS = (
    "ScanningSequence",
    "PulseSequenceType",
    "SequenceName",
    "PulseSequenceDetails",
    "PulseSequenceName",
)
#: Scanning sequences that read a slice at once.
_PLANAR = ("EP", "EPI", "ECHO PLANAR", "ECHO-PLANAR", "EPFID", "EPSE")
#: Slices that are nearer than this, in ms, are of one time.
_SAME_MS = 0.5
#: No slice is excited later than this after the image's time, in s, if the repetition time is unknown: the signal has
#: recovered long before, and larger numbers are milliseconds. What rounding adds, relative.
_LONGEST_S, _ROUNDED = 15.0, 0.01


@dataclass(frozen=True)
class SliceDelays:
    """How much later than the time of an image its slices were excited.

    Parameters
    ----------
    axis
        The axis of the volume across which slices follow each other.
    delays_ms
        For each slice, ms; the least is 0 unless the sidecar gives delays itself.
    """

    axis: int
    delays_ms: tuple[float, ...]

    def groups(self) -> list[tuple[float, list[int]]]:
        """Return each delay, ms, with the slices that have it."""
        found: list[tuple[float, list[int]]] = []
        for k in np.argsort(self.delays_ms, kind="stable"):
            if not found or self.delays_ms[k] - found[-1][0] > _SAME_MS:
                found.append((self.delays_ms[k], []))
            found[-1][1].append(int(k))
        return found


def slice_delays(
    files: Sequence[NiftiFile], metadata: Sequence[Mapping[str, Any]], model: type[SignalModel]
) -> tuple[SliceDelays | None, list[str]]:
    """Return the delays of slices after a preparation that they share, `None` if there are none, and notes.

    Parameters
    ----------
    files, metadata
        The images and their sidecars.
    model
        Only a signal that recovers after a pulse depends on when a slice is read.

    Raises
    ------
    InputError
        If the images have different delays, or another number of slices than the sidecars, or if delays exceed the
        repetition time.
    """
    if not knows_polarity(model):
        return None, []
    field = next((f for f in (_DELAYS, _TIMING) if any(m.get(f) is not None for m in metadata)), None)
    if field is None:
        return None, []
    if field == _TIMING and any(m.get(_ACQUISITION) == "3D" for m in metadata):
        return None, [note(f"{field} of the sidecars was not used, because the acquisition is three-dimensional")]
    first: Any = metadata[0].get(field)
    values: list[Any] = [m.get(field) for m in metadata]
    if not all(isinstance(value, list) and value and all(_is_number(x) for x in value) for value in values):
        raise InputError(
            f"{files[0].path.name}: expected {field} in all sidecars, numbers in s, got others. Correct the sidecars."
        )
    if any(len(value) != len(first) or not np.allclose(value, first, atol=_SAME_MS / 1000) for value in values):
        raise InputError(
            f"{files[0].path.name}: expected one {field} for all images of the series, got several. Map them one at a "
            f"time, or remove the field."
        )
    if len({_axis(m.get(_DIRECTION)) for m in metadata}) > 1:
        raise InputError(
            f"{files[0].path.name}: expected one {_DIRECTION} for all images of the series, got several. Correct the "
            f"sidecars."
        )
    repetition = max(
        (float(m[f]) for m in metadata for f in REPETITION_FIELDS if _is_number(m.get(f))), default=_LONGEST_S
    )
    if max(map(abs, first)) > repetition * (1 + _ROUNDED):
        known = any(_is_number(m.get(f)) for m in metadata for f in REPETITION_FIELDS)
        limit = f"within the repetition time of {repetition:g} s" if known else f"at most {repetition:g} s"
        raise InputError(
            f"{files[0].path.name}: expected {field} in s, {limit}, got up to "
            f"{max(map(abs, first)):g}. If these are ms, divide them by 1000 in the sidecars."
        )
    axis, backwards = _axis(metadata[0].get(_DIRECTION))
    shape = (*files[0].shape, 1, 1)[:3]
    if len(first) != shape[axis]:
        raise InputError(
            f"{files[0].path.name}: expected {shape[axis]} values of {field}, one for each slice, got {len(first)}. "
            f"Correct the sidecars."
        )
    delays = 1000 * np.asarray(first[::-1] if backwards else first, float)
    delays -= delays.min() if field == _TIMING else 0.0
    spread = float(np.ptp(delays))
    if spread <= _SAME_MS and abs(delays).max() <= _SAME_MS:
        return None, []
    planar = _is_planar(metadata[0])
    if field == _TIMING and planar is False:
        return None, [
            f"{field} of the sidecars was not used, because this is no echo-planar imaging: each slice is taken to "
            f"have a preparation of its own. If all slices share one, write {_DELAYS} (s after the time of the image, "
            f"for each slice)"
        ]
    latest = round(float(delays.max()), 1)
    text = f"slices have times of their own, up to {latest:g} ms after those of the images ({field} of the sidecars)"
    found = SliceDelays(axis, tuple(float(delay) for delay in delays))
    if field == _TIMING and planar is None:
        return found, [
            f"{text}. Nothing says that this is echo-planar imaging: if each slice has a preparation of its own, "
            f"remove {field}"
        ]
    return found, [note(text)]


def _axis(direction: Any) -> tuple[int, bool]:
    text = str(direction or "k")
    return "ijk".find(text[0]) if text[0] in "ijk" else 2, text.endswith("-")


def _is_planar(sidecar: Mapping[str, Any]) -> bool | None:
    """Return whether a sidecar says that its image is echo-planar, `None` if it says nothing of the sequence."""
    said = [sidecar[f] for f in _SEQUENCE_FIELDS if sidecar.get(f)]
    words = " ".join(str(x) for v in said for x in (v if isinstance(v, list) else [v])).upper()
    if not words:
        return None
    tokens = set(words.replace("\\", " ").replace("_", " ").replace("/", " ").replace("*", " ").split())
    return any(p in tokens or (len(p) > 3 and p in words) for p in _PLANAR)


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e5
