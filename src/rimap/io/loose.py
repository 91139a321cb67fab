"""Series of NIfTI files whose names say nothing: what their sidecars say decides."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rimap.errors import InputError
from rimap.io.bids import Sidecars, strip_nii
from rimap.io.found import LeftOut
from rimap.io.image_type import MAGNITUDE
from rimap.io.judge import About, Group, about_sidecar, judge, listed
from rimap.io.nifti import NiftiFile, open_nifti
from rimap.io.series_files import SeriesFiles


def loose_series(files: Sequence[Path], sequence: str | None) -> tuple[list[SeriesFiles], list[LeftOut]]:
    """Return the series that files make, and the files that belong to none, with the reason.

    A file of several volumes with a value each is a series. The others are one together, if their sidecars agree in all but
    what the images of a series differ in.

    Raises
    ------
    InputError
        For a file that is not NIfTI, and where there are only phases or only maps.
    """
    if not files:
        return [], []
    headers = {f: open_nifti(f) for f in files}
    judged = judge([_about(f, headers[f]) for f in files], sequence)
    left_out = [(a.path, reason) for a, reason in judged.left_out]
    groups = []
    for group in judged.groups:
        once, copies = _without_copies(group, headers)
        groups.append(once)
        left_out += copies
    notes = listed(left_out)
    named: list[SeriesFiles] = []
    for group in groups:
        paths = [a.path for a in group.images]
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
                companions=tuple(a.path for a in group.companions),
                sequence=sequence,
                notes=(*group.notes, *notes),
            )
        )
    return named, left_out


def common_stem(files: Sequence[Path]) -> str:
    """Return what the names of several files share: TI_0050.nii, TI_0400.nii gives TI."""
    names = [strip_nii(f) for f in files]
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
    return next(c for c in candidates if c not in taken)


def _without_copies(group: Group, headers: dict[Path, NiftiFile]) -> tuple[Group, list[LeftOut]]:
    """Return a series without images that are the same values twice, with the same settings, and those that were left out."""
    seen: dict[str, About] = {}
    sizes = [a.path.stat().st_size for a in group.images]
    kept, copies = [], []
    for k, a in enumerate(group.images):
        alike = [
            b
            for m, b in enumerate(group.images)
            if m != k and (a.settings == b.settings) and (a.settings or sizes[m] == sizes[k])
        ]
        content = (_content(headers[a.path]) if alike else None) or str(a.path)
        if content in seen:
            copies.append((a.path, f"the same image as {seen[content].path.name}"))
            copies += (
                [(group.companions[k].path, f"of the same image as {seen[content].path.name}")]
                if group.companions
                else []
            )
        else:
            seen[content] = a
            kept.append(k)
    if not copies:
        return group, []
    companions = tuple(group.companions[k] for k in kept) if group.companions else ()
    return replace(group, images=tuple(group.images[k] for k in kept), companions=companions), copies


def _content(file: NiftiFile) -> str | None:
    """Return a checksum of the values of an image, `None` for one that is the same everywhere."""
    digest, varies = hashlib.sha256(), False
    for volume in file.volumes():
        digest.update(volume.tobytes())
        varies |= bool((volume != volume.flat[0]).any())
    return digest.hexdigest() if varies else None
