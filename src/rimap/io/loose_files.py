"""Series of NIfTI files whose names say nothing: what their sidecars say decides."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rimap.errors import InputError
from rimap.io.bids import Sidecars, strip_nii
from rimap.io.image_copies import Print
from rimap.io.image_type import MAGNITUDE
from rimap.io.nifti import NiftiFile, open_nifti
from rimap.io.search_result import LeftOut
from rimap.io.series_files import SeriesFiles
from rimap.io.series_membership import About, Group, about_sidecar, judge, listed, without_copies


def loose_series(files: Sequence[Path], sequence: str | None) -> tuple[list[SeriesFiles], list[LeftOut]]:
    """Return the series that files make, and the files that belong to none, with the reason.

    A file of several volumes with a value each is a series. The others are one together, if their sidecars agree in all
    but what the images of a series differ in.

    Raises
    ------
    InputError
        If a file is not NIfTI, or if there are only phase images or only maps.
    """
    if not files:
        return [], []
    headers = {file: open_nifti(file) for file in files}
    once, copies = without_copies([_about(file, headers[file]) for file in files], _SameValues(headers))
    judged = judge(once, sequence)
    left_out = [(a.path, f"the same image as {b.path.name}") for a, b in copies]
    left_out += [(a.path, reason) for a, reason in judged.left_out]
    notes = listed(left_out)
    named: list[SeriesFiles] = []
    for group in judged.groups:
        paths = [image.path for image in group.images]
        beside = [s.stem for s in named if s.images[0].parent == paths[0].parent]
        stem = _free_stem(common_stem(paths), group, beside)
        label = paths[0].name if len(paths) == 1 else f"{stem} ({len(paths)} files)"
        part = MAGNITUDE if group.companions and not group.part else group.part
        named.append(
            SeriesFiles(
                images=tuple(paths),
                entities={},
                suffix="",
                stem=stem,
                dataset=None,
                label=label,
                # The polarity of what is called a magnitude is what it looks like: signed images are often called so.
                part="" if part == MAGNITUDE and not group.companions else part,
                companions=tuple(companion.path for companion in group.companions),
                sequence=sequence,
                notes=(*group.notes, *notes),
            )
        )
    return named, left_out


def common_stem(files: Sequence[Path]) -> str:
    """Return what the names of several files share: TI_0050.nii, TI_0400.nii gives TI."""
    names = [strip_nii(file) for file in files]
    if len(names) == 1:
        return names[0]
    shared = os.path.commonprefix(names)  # noqa: RUF071 - character by character is what is meant
    return re.sub(r"[\W_\d]+$", "", shared) or files[0].parent.resolve().name or names[0]


def _about(path: Path, header: NiftiFile) -> About:
    try:
        sidecar = Sidecars()(path, None)
    except InputError:
        sidecar = {}  # who reads the series says what is wrong with it
    return about_sidecar(path, sidecar, header.shape, header.n_volumes)


def _free_stem(stem: str, group: Group, taken: Sequence[str]) -> str:
    """Return a stem that no other series has: with the number of the scanner series, or one that counts."""
    if stem not in taken:
        return stem
    number = group.images[0].number
    candidates = [
        *([f"{stem}_series-{number}"] if number is not None else []),
        *(f"{stem}_{n}" for n in range(2, len(taken) + 3)),
    ]
    return next(candidate for candidate in candidates if candidate not in taken)


class _SameValues:
    """Whether two images have the same values: each file is read once, and only if its settings are those of
    another.
    """

    def __init__(self, headers: dict[Path, NiftiFile]) -> None:
        self._headers = headers
        self._prints: dict[Path, Print] = {}

    def __call__(self, a: About, b: About) -> bool:
        one, other = self._headers[a.path], self._headers[b.path]
        if one.shape != other.shape:
            return False
        if not (a.settings or b.settings) and a.path.stat().st_size != b.path.stat().st_size:
            return False  # files without sidecars: to read them all would take long
        # Without settings, images that differ by a factor may be of two times: those of one T without noise are.
        rescaled = bool(a.settings and b.settings)
        return self._print(a.path).is_copy_of(self._print(b.path), rescaled=rescaled)

    def _print(self, path: Path) -> Print:
        if path not in self._prints:
            self._prints[path] = Print.of(self._headers[path].volumes(), self._headers[path].n_volumes)
        return self._prints[path]
