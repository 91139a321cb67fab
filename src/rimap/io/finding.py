"""Which files make a series: `find_series` for all, `read` for one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.bids import (
    BidsName,
    absolute,
    is_nifti,
    map_suffixes,
    model_of_suffix,
    models,
    natural,
    nifti_files,
    strip_nii,
)
from rimap.io.grouping import numbering, series_of, series_of_some
from rimap.io.nifti import open_nifti
from rimap.io.series_files import SeriesFiles
from rimap.likelihood import Noise
from rimap.series import WeightedSeries

#: Suffixes of images that are no images of a series, besides those of maps.
_NO_IMAGES = ("mask", "dseg", "labels")


def find_series(
    inputs: Path | str | Sequence[Path | str],
    *,
    participant_labels: Sequence[str] = (),
    sessions: Sequence[str] = (),
    runs: Sequence[str] = (),
    sequence: str | None = None,
    series: Sequence[str] = (),
) -> list[SeriesFiles]:
    """Return every series that the inputs hold.

    Parameters
    ----------
    inputs
        Folders (a BIDS data set, a part of one, loose files, or DICOM), 4-D NIfTI files, the 3-D NIfTI files of a series, or
        DICOM files. One file of a BIDS series stands for all of it; several stand for themselves.
    participant_labels, sessions, runs
        Only these, with or without ``sub-``, ``ses-``, ``run-``; all if empty.
    sequence
        A signal model by name: only its series; for loose files, what they are.
    series
        Of DICOM: numbers of the series to map, several joined by commas for one made of several. The only one if empty.

    Raises
    ------
    InputError
        Where an input is missing or holds no series, or a label is not there.
    """
    paths = [Path(p) for p in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    if not paths:
        raise InputError("no input: give a BIDS folder, a 4-D NIfTI file or several 3-D ones.")
    if sequence is not None and sequence not in models():
        raise InputError(f"no sequence {sequence!r}; rimap has {', '.join(sorted(models()))}.")
    wanted = {
        "sub": [_label("sub", s) for s in participant_labels],
        "ses": [_label("ses", s) for s in sessions],
        "run": [_label("run", s) for s in runs],
    }
    found: list[SeriesFiles] = []
    loose: list[Path] = []
    named: list[Path] = []
    dicom, others = _apart(paths, always=bool(series))
    if dicom:
        from rimap.io.dicom import find_dicom

        found += find_dicom(dicom, series=series, sequence=sequence)
    elif series:
        raise InputError("--series is for DICOM; there is none. Leave it out.")
    for path in others:
        if path.is_dir():
            found += _in_folder(path, wanted["sub"], sequence)
        elif not path.exists():
            raise InputError(f"{path}: there is no such file or folder.")
        elif not is_nifti(path):
            raise InputError(f"{path} is neither NIfTI (.nii or .nii.gz) nor DICOM.")
        elif numbering(path, sequence) is not None:
            named.append(path)
        else:
            loose.append(path)
    found += series_of_some(named, sequence)
    found += _loose(loose, sequence)
    found = _unique(found)
    for entity, labels in wanted.items():
        for label in labels:
            if not any(same_label(entity, s.entities.get(entity), label) for s in found):
                there = sorted({s.entities[entity] for s in found if entity in s.entities})
                having = (
                    ", ".join(f"{entity}-{x}" for x in there[:12]) + " …" * (len(there) > 12)
                    or f"no {entity}- in any name: leave that option out"
                )
                raise InputError(f"no series with {entity}-{label} in {paths[0]}; there is {having}.")
    matching = [
        s
        for s in found
        if all(not labels or any(same_label(e, s.entities.get(e), x) for x in labels) for e, labels in wanted.items())
    ]
    if sequence is not None:
        of_sequence = [replace(s, sequence=sequence) for s in matching if s.can_be(sequence)]
        if matching and not of_sequence:
            raise InputError(
                f"no series of --sequence {sequence} in {paths[0]}; there are {_listing(matching)}. Leave --sequence out."
            )
        matching = of_sequence
    if not matching:
        raise InputError(f"no series in {paths[0]} has all of the labels that were asked for.")
    return matching


def read(
    path: Path | str | Sequence[Path | str],
    *,
    times_ms: Iterable[float] | None = None,
    tr_ms: float | Iterable[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    sequence: str | None = None,
    series: str | None = None,
    mask: Any = None,
    noise: Noise | None = None,
    skip_first: int = 0,
    signed: bool | None = None,
) -> WeightedSeries:
    """Read one series: a BIDS folder or one file of its series, a 4-D NIfTI, a list of 3-D NIfTIs, or DICOM.

    Parameters
    ----------
    path
        What to read. Where it holds several series, give a file of the one that is meant, or its `sequence`.
    series
        Number of the DICOM series, or several joined by commas.
    times_ms
        Values of the setting that differs between the images, if it is a time, in the order of the images, ms; from the
        sidecars if left out.
    tr_ms
        The setting ``tr``: the repetition time, one or one for each image, ms; from the sidecars if left out.
    settings
        Any setting of the signal model by name (``{"flip_angle": (3, 20)}``), one value or one for each image, in the unit
        of the setting: ms, degrees. What is left out comes from the sidecars.
    given
        Parameters that are known, by name: a file, a number, or an array (*X). Without a file for B1, that of the data set
        (TB1map of the same subject and session) is used if there is one.
    sequence
        A signal model by name, if suffix and sidecars do not say it or are to be read as another one.
    mask
        A file, an array (*X), a tensor or a nibabel image.
    noise
        `Gaussian(…)` or `Rician(…)`.
    skip_first
        Leave out the images of this many shortest times (1 for the first echo of a MESE), repeats of them as well.
    signed
        Whether inversion recovery images keep their polarity. Left out: as ``part-`` says, and without it as the
        images look. `False` takes the modulus.

    Returns
    -------
    WeightedSeries
        Images (N, *X), their model with times in ms, mask and affine.

    Raises
    ------
    InputError
        Where there is not exactly one series, or its files do not fit together.
    """
    paths = [path] if isinstance(path, (str, Path)) else path
    if not isinstance(paths, Sequence) or not all(isinstance(p, (str, Path)) for p in paths):
        raise InputError(
            f"read takes paths; {type(path).__name__} came. Give images in memory to rimap.WeightedSeries, with their model."
        )
    found = find_series(paths, sequence=sequence, series=() if series is None else (series,))
    if len(found) > 1:
        first = found[0].images[0]
        raise InputError(
            f"{len(found)} series in {path}: {_listing(found)}. Choose one by any file of it, as in "
            f"read({str(first)!r}), or take all with find_series."
        )
    return found[0].load(
        times_ms=times_ms,
        tr_ms=tr_ms,
        settings=settings,
        given=given,
        sequence=sequence,
        mask=mask,
        noise=noise,
        skip_first=skip_first,
        signed=signed,
    )


def _listing(series: Sequence[SeriesFiles]) -> str:
    labels = [s.label for s in series]
    return ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")


def _label(entity: str, label: str) -> str:
    return str(label).removeprefix(f"{entity}-")


def same_label(entity: str, value: str | None, label: str) -> bool:
    """Tell whether the value of an entity is the label that was asked for: run-1 is run-01."""
    if value is None:
        return False
    if entity == "run" and value.isdigit() and label.isdigit():
        return int(value) == int(label)
    return value == label


def _apart(paths: Sequence[Path], *, always: bool) -> tuple[list[Path], list[Path]]:
    """Return the DICOM files of the inputs, and the other inputs.

    A folder that holds NIfTI is one of DICOM only where DICOM is asked for (`always`).
    """
    from rimap.io.dicom_headers import dicom_files

    dicom: list[Path] = []
    others: list[Path] = []
    for path in paths:
        may_be = path.exists() and not is_nifti(path)
        if may_be and path.is_dir() and not always:
            may_be = next(nifti_files(absolute(path)), None) is None
        files = dicom_files(path) if may_be else []
        dicom += files
        if not files:
            others.append(path)
    return list(dict.fromkeys(dicom)), others


def _in_folder(folder: Path, subjects: Sequence[str], sequence: str | None) -> list[SeriesFiles]:
    root = absolute(folder)
    files = list(nifti_files(root, subjects)) or list(nifti_files(root))
    named = [f for f in files if (name := BidsName.parse(f.name)) and model_of_suffix(name.suffix, sequence)]
    if named:
        return series_of(named, sequence)
    here = [f for f in files if f.parent == root and not strip_nii(f).endswith((*map_suffixes(), *_NO_IMAGES))]
    if here and not any(f.is_dir() for f in root.glob("sub-*")):
        return _loose(sorted(here, key=lambda f: natural(f.name)), sequence)
    if not files:
        entries = [e for e in root.iterdir() if not e.name.startswith(".")]
        what = "holds no NIfTI file and no DICOM" if entries else "is empty"
        raise InputError(f"{folder} {what}. Give a BIDS folder, NIfTI files or a folder of DICOM.")
    from rimap.io.dicom_headers import dicom_files

    if dicom_files(root):  # whose folder may be named after the patient
        raise InputError(
            "the folder holds DICOM, and NIfTI files that are no series. Name the series of DICOM with --series, or move the NIfTI "
            "files away."
        )
    several = sorted({m.bids_suffix for m in models().values()} - {""})
    known = " or ".join([", ".join(several[:-1]), several[-1]] if len(several) > 1 else several)
    suffixes = sorted({getattr(BidsName.parse(f.name), "suffix", f.name) for f in files})
    raise InputError(
        f"{folder} holds no {known} series (found: {', '.join(suffixes[:6])}{' …' if len(suffixes) > 6 else ''}). "
        "Give the files of the series themselves, with --sequence."
    )


def _loose(files: Sequence[Path], sequence: str | None) -> list[SeriesFiles]:
    """Each 4-D file is a series; the 3-D ones make one together."""
    if not files:
        return []
    whole = [f for f in files if open_nifti(f).n_volumes > 1]
    single = [f for f in files if f not in whole]
    series = [SeriesFiles((f,), {}, "", strip_nii(f), None, f.name, sequence=sequence) for f in whole]
    if single:
        stem = _common(single)
        label = single[0].name if len(single) == 1 else f"{stem} ({len(single)} files)"
        series.append(SeriesFiles(tuple(single), {}, "", stem, None, label, sequence=sequence))
    return series


def _common(files: Sequence[Path]) -> str:
    """Return what the names of several files share: TI_0050.nii, TI_0400.nii gives TI."""
    names = [strip_nii(f) for f in files]
    if len(names) == 1:
        return names[0]
    shared = os.path.commonprefix(names)  # noqa: RUF071 - character by character is what is meant
    return re.sub(r"[\W_\d]+$", "", shared) or files[0].parent.resolve().name or names[0]


def _unique(series: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    seen: dict[tuple[Path, ...], SeriesFiles] = {}
    for s in series:
        seen.setdefault(tuple(absolute(f) for f in s.images), s)
    return list(seen.values())
