"""Images that are in DICOM files twice: exported again under other UIDs, in other files, or with another scale."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError, count_of
from rimap.io.dicom_convert import scaling
from rimap.io.dicom_grouping import Described
from rimap.io.dicom_headers import Frame, quietly
from rimap.io.dicom_volumes import Volume, close
from rimap.io.image_copies import Print
from rimap.io.series_membership import About, without_copies


def once(units: Sequence[Sequence[Volume]], wanted: Sequence[int] = ()) -> tuple[list[list[Volume]], list[str]]:
    """Return the images without those that are there twice, and a note on the copies.

    Parameters
    ----------
    units
        The images of each scanner series.
    wanted
        Numbers of series that the user named: of two copies those are kept.

    Raises
    ------
    InputError
        If the user named two series that hold the same images.
    """
    every = [v for unit in units for v in unit]
    order = sorted(every, key=lambda v: (-len(v.frames), v.number not in wanted, "DERIVED" in v.first.variant))
    described = Described(tuple(order), whatever_scan=True)
    kept, copies = without_copies(described.abouts, _SameSlices(described))
    there = {id(v) for v in described.of(kept)}
    pairs = [(described.of([a])[0], described.of([b])[0]) for a, b in copies]
    for number in wanted:
        originals = {b.number for a, b in pairs if a.number == number}
        if originals and not any(v.number == number for v in every if id(v) in there):
            raise InputError(
                f"--series: expected series that differ, got {number} and {min(originals)}, which contain the same "
                "images. Choose one of them."
            )
    left = [[v for v in unit if id(v) in there] for unit in units]
    return [unit for unit in left if unit], _note(pairs)


def _note(pairs: Sequence[tuple[Volume, Volume]]) -> list[str]:
    if not pairs:
        return []
    number = count_of(len(pairs), "DICOM image")
    inside = sum(a.number == b.number for a, b in pairs)
    if inside == len(pairs):
        return [f"{number} left out, copies of others in {_series([a for a, _ in pairs])}"]
    return [
        f"{number} left out, copies of others: {_series([a for a, _ in pairs])}, the same as "
        f"{_series([b for _, b in pairs])}"
    ]


def _series(volumes: Sequence[Volume]) -> str:
    numbers = sorted({max(volume.number, 0) for volume in volumes})
    return "series " + ", ".join(map(str, numbers[:12])) + (" …" if len(numbers) > 12 else "")


class _SameSlices:
    """Whether the slices of an image are all slices of another; each file is read once, and only if that can be."""

    def __init__(self, described: Described) -> None:
        self._volumes = {about.path: volume for about, volume in zip(described.abouts, described.volumes)}
        self._slices: dict[int, NDArray[Any]] = {}

    def __call__(self, a: About, b: About) -> bool:
        one, other = self._volumes[a.path], self._volumes[b.path]
        beside = [
            next((g for g in other.frames if close(frame.position, g.position, 0.02)), None) for frame in one.frames
        ]
        if any(g is None for g in beside):
            return False
        prints = [
            Print.of((self._values(frame) for frame in frames if frame is not None), len(one.frames))
            for frames in (one.frames, beside)
        ]
        return prints[0].is_copy_of(prints[1])

    def _values(self, frame: Frame) -> NDArray[Any]:
        if id(frame) not in self._slices:
            self._slices[id(frame)] = _values(frame)
        return self._slices[id(frame)]


def _values(frame: Frame) -> NDArray[Any]:
    """Return the values (rows, columns) of a slice, NaN if they cannot be read; who converts it says why."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    unknown = np.full(frame.shape, np.nan, np.float32)
    with quietly(), contextlib.suppress(Exception):
        whole = pydicom.dcmread(frame.source.path, force=True)
        several = int(whole.get("NumberOfFrames") or 1) > 1
        stored = pixel_array(whole, index=frame.index if several else None)
        slope, inter = scaling(whole, frame.index)
        return (np.asarray(stored, float) * slope + inter).astype(np.float32)
    return unknown
