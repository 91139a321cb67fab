"""Find the series of inversion times, echo times or flip angles in a folder of DICOM, and convert the chosen one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import advice
from rimap.errors import InputError, count_of
from rimap.io.bids import models
from rimap.io.dicom_convert import PrivateFolder, convert, phase_turn, require
from rimap.io.dicom_copies import once
from rimap.io.dicom_grouping import (
    SYMBOLS,
    Candidate,
    NotThere,
    candidates,
    check_complete,
    model_of,
    note_on_others,
    refuse_incomplete,
    together,
)
from rimap.io.dicom_headers import Frame, read_headers
from rimap.io.dicom_volumes import Volume, volumes_of
from rimap.io.image_type import PART_WORDS
from rimap.io.series_files import SeriesFiles
from rimap.signals.settings import unit_symbol


def find_dicom(
    files: Sequence[Path], *, series: Sequence[str] = (), sequence: str | None = None
) -> tuple[list[SeriesFiles], list[tuple[str, InputError]]]:
    """Convert the series in DICOM files to NIfTI, in a temporary folder. Return them, and what was refused.

    Files of several patients are series of each: subject 1, 2, … in the order of their first files. One that has no
    series, or several of which `series` chooses none, does not keep the others from being mapped.

    Parameters
    ----------
    series
        What to map: numbers as the list of series has them; several joined by commas are one series together. The
        only series there is if left out.
    sequence
        A signal model by name: only series that it reads.

    Raises
    ------
    InputError
        If there is no series at all, or several of one patient and `series` does not choose; if files are missing or
        damaged; if dcm2niix or pydicom is not installed.
    """
    require()
    frames, notes = read_headers(files)
    subjects = by_subject(frames)
    if len(subjects) == 1:
        return _of_subject(frames, notes, series, sequence), []
    found: list[SeriesFiles] = []
    refused: list[tuple[str, InputError]] = []
    absent: list[tuple[str, InputError]] = []
    for n, own in enumerate(subjects, 1):
        label = f"subject {n}"
        where = f"{label} of {len(subjects)}: {own[0].source.where} is the first of its files"
        try:
            of_this = _of_subject(own, [*notes, advice.note(where)], series, sequence)
        except InputError as error:
            (absent if isinstance(error, NotThere) else refused).append((label, error))
            continue
        found += [
            replace(
                files,
                stem=f"subject-{n:02}_{files.stem}",
                label=f"{label}, {files.label}",
                origin=tuple(o.replace("dicom:", f"dicom:subject-{n:02}/", 1) for o in files.origin),
            )
            for files in of_this
        ]
    if not found:
        label, why = (refused or absent)[0]
        raise InputError(f"none of the {len(subjects)} subjects in the DICOM files can be mapped. {label}: {why}")
    if absent:
        labels = ", ".join(label for label, _ in absent)
        left_out = advice.note(f"{labels} left out: without any of the chosen series.")
        found = [replace(files, notes=(*files.notes, left_out)) for files in found]
    return found, refused


def by_subject(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return the frames of each patient, in the order of their first files.

    A study belongs to one patient: frames without identification are those of the patient of their study, if there is
    one. A study without any is a patient of its own, if there are others who have one.
    """
    of_study: dict[str, set[str]] = {}
    for frame in frames:
        if frame.source.patient:
            of_study.setdefault(frame.source.study, set()).add(frame.source.patient)
    if not of_study:
        return [list(frames)]
    subjects: dict[str, list[Frame]] = {}
    for frame in frames:
        known = of_study.get(frame.source.study, set())
        key = frame.source.patient or (next(iter(known)) if len(known) == 1 else f"study {frame.source.study}")
        subjects.setdefault(key, []).append(frame)
    return list(subjects.values())


def _of_subject(
    frames: Sequence[Frame], notes: Sequence[str], series: Sequence[str], sequence: str | None
) -> list[SeriesFiles]:
    """Return the series of one patient."""
    named = [int(word) for text in series for word in re.findall(r"\d+", text)]
    units, about_copies = once(volumes_of(frames), named)
    notes = [*notes, *about_copies]
    found = candidates(units)
    if sequence is not None:
        wanted = [c for c in found if _reads(sequence, c)]
        if found and not wanted and not series:
            raise NotThere(
                f"the DICOM files hold no series for --sequence {sequence}; leave it out for\n"
                + "\n".join(map(_row, found))
            )
        found = wanted
    chosen = [_chosen(text, found, units) for text in series] if series else _only(found, units, sequence)
    every = found if sequence is None else candidates(units)
    for candidate in chosen:
        check_complete(candidate)
        refuse_incomplete(candidate, every, units)
    notes += note_on_others(chosen, units)
    return [_converted(replace(c, notes=(*c.notes, *notes)), sequence) for c in chosen]


def _only(found: Sequence[Candidate], units: Sequence[Sequence[Volume]], sequence: str | None) -> list[Candidate]:
    if len(found) == 1:
        return list(found)
    if found:
        raise InputError(
            f"expected one series, got {len(found)} series in the DICOM files that can be mapped. Choose with --series "
            "(repeatable):\n" + "\n".join(_row(c) for c in found)
        )
    what = f" for --sequence {sequence}" if sequence else ""
    if sum(len(u) for u in units) == 1:
        raise InputError(
            "expected images of several inversion or echo times, got one image. Give the folder with all of them."
        )
    rows = [_row(Candidate("", tuple(u), str(max(u[0].number, 0)))) for u in units if u]
    more = f"\n  … and {len(rows) - 20} more" if len(rows) > 20 else ""
    raise InputError(
        f"expected a series of three or more inversion or echo times, or of two or more flip angles{what}, got none in "
        "the DICOM files. If the headers lack the times, specify the series with --series (numbers separated by "
        "commas are one series), --sequence and --times-ms; the times are then those of the images in the order of "
        "--series, and within a series in that of acquisition:\n" + "\n".join(rows[:20]) + more
    )


def _chosen(text: str, found: Sequence[Candidate], units: Sequence[Sequence[Volume]]) -> Candidate:
    """Return what one ``--series`` asks for."""
    words = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    if len(words) == 1:
        exact = [c for c in found if c.key == words[0].lower()]
        holding = [c for c in found if words[0].isdigit() and int(words[0]) in c.numbers]
        if exact or len(holding) == 1:
            return (exact or holding)[0]
        if holding:
            raise InputError(
                f"--series {words[0]}: expected one series, got several with this number. Choose from:\n"
                + "\n".join(map(_row, holding))
            )
    if not words or not all(word.isdigit() for word in words):
        known = f"; there {'is' if len(found) == 1 else 'are'} {', '.join(c.key for c in found)}" if found else ""
        raise InputError(f"--series: expected a number from the list of series, or numbers separated by commas{known}.")
    return together(units, [int(word) for word in words])


def _row(c: Candidate) -> str:
    """Return a line of the list of series. It alone has a description, and that without words of the patient."""
    times = c.times
    shown = _listed(times, 8)
    time = f"{_symbol(c.kind)} {shown} {unit_symbol(SYMBOLS[c.kind][1])}" if c.kind else "no time differs"
    if not c.kind:
        every = {k: sorted({t for volume in c.volumes if (t := volume.time(k)) is not None}) for k in ("ti", "te")}
        known = [f"{_symbol(key)} {_listed(value, 4)} ms" for key, value in every.items() if value]
        time = ", ".join(known) or "no times"
    derived = ", derived" if "DERIVED" in c.volumes[0].first.variant else ""
    part = derived + (f", {PART_WORDS[c.part]}" if c.part in PART_WORDS else "")
    with_part = f" with {PART_WORDS[c.companion]}" if c.companion else ""
    numbers = f" (series {_numbers(c)})" if len(c.numbers) > 1 else ""
    source = c.volumes[0].first.source
    return (
        f"  --series {c.key:<6} {count_of(len(c.volumes), 'image')}{with_part}{part}, {time}, "
        f"{_described(source.description, source.secrets)}{numbers}"
    )


def _symbol(kind: str) -> str:
    return SYMBOLS[kind][0]


def _listed(values: Sequence[float], most: int) -> str:
    if len(values) <= most:
        return ", ".join(f"{value:g}" for value in values)
    return f"{values[0]:g}, {values[1]:g} … {values[-1]:g}"


def _described(description: str, secrets: Iterable[str]) -> str:
    text = "".join(x if x.isprintable() else " " for x in description)
    for word in sorted(secrets, key=len, reverse=True):
        text = re.sub(re.escape(word), "…", text, flags=re.IGNORECASE)
    return f"“{text[:40]}{'…' if len(text) > 40 else ''}”" if text else "no description"


def _numbers(c: Candidate) -> str:
    numbers = [str(max(number, 0)) for number in c.numbers]
    return ", ".join(numbers) if len(numbers) <= 8 else f"{numbers[0]}, {numbers[1]} … {numbers[-1]}"


def _sequence(c: Candidate) -> str:
    """Return the name of the signal model of what differs between the images, "" if there is none."""
    model = model_of(c.kind, c.gradient)
    return "" if model is None else model.name


def _reads(sequence: str, c: Candidate) -> bool:
    """Return whether a signal model can read a candidate."""
    own = _sequence(c)
    return own == sequence or (own != "" and models()[own].bids_suffix in models()[sequence].also_reads)


def _converted(c: Candidate, sequence: str | None) -> SeriesFiles:
    """Convert a candidate; sidecars have its times and its scanner, and nothing else of the headers."""
    folder = PrivateFolder()
    try:
        names = [f"image-{n:03}" for n in range(1, len(c.volumes) + 1)]
        beside = [f"{name}_{c.companion}" for name in names] if c.companions else []
        third = [f"{name}_imag" for name in names] if c.imaginary else []
        made = convert((*c.volumes, *c.companions, *c.imaginary), [*names, *beside, *third], folder.path)
        images, companions, imaginary = made[: len(names)], made[len(names) : 2 * len(names)], made[2 * len(names) :]
        for path, volume in zip(images, c.volumes):
            path.with_suffix(".json").write_text(json.dumps(_sidecar(volume)))
        if imaginary:
            for real, path in zip(companions, imaginary):
                _rewrite(real, partial(np.arctan2, _values(path)))
        elif c.companion == "real" and c.part != "real":
            for path in companions:
                _sign_as_phase(path)
        elif c.companion == "phase":
            for path, volume in zip(companions, c.companions):
                if turn := phase_turn(volume.first):
                    _rewrite(path, partial(np.multiply, np.float32(2 * np.pi / turn)))
    except BaseException:
        folder.remove()
        raise
    numbers = c.numbers
    together_with = sorted({v.number for v in (*c.companions, *c.imaginary)} - set(numbers))
    stem = f"series-{c.key}" + (f"to{numbers[-1]}" if len(numbers) > 1 and "-" not in c.key else "")
    notes = list(c.notes)
    if together_with:
        notes.append(advice.note(f"{PART_WORDS[c.companion]} from series {', '.join(map(str, together_with))}"))
    return SeriesFiles(
        images=tuple(images),
        entities={},
        suffix="",
        stem=stem,
        dataset=None,
        label=f"DICOM series {_numbers(c)}",
        part="mag" if c.part == "" and c.companions else c.part,
        companions=tuple(companions),
        sequence=_sequence(c) or sequence,
        origin=tuple(f"dicom:series-{max(n, 0)}" for n in sorted({*numbers, *together_with})),
        notes=tuple(notes),
        holder=folder,
    )


def _sidecar(volume: Volume) -> dict[str, Any]:
    times = {"InversionTime": volume.ti, "EchoTime": volume.te, "RepetitionTime": volume.tr}
    settings: dict[str, Any] = {key: float(f"{value / 1000:.12g}") for key, value in times.items() if value is not None}
    if volume.flip is not None:
        settings["FlipAngle"] = volume.flip
    if volume.first.gradient:
        settings["ScanningSequence"] = "GR"
    return settings | dict(volume.first.source.scanner)


def _sign_as_phase(path: Path) -> None:
    """Turn a real part into a phase of 0 or π: it gives the polarity, the magnitude image gives the size."""
    _rewrite(path, lambda real: np.where(real < 0, np.float32(np.pi), np.float32(0)))


def _values(path: Path) -> NDArray[Any]:
    import nibabel as nib

    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def _rewrite(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    import nibabel as nib

    image: Any = nib.load(path)
    new = nib.Nifti1Image(change(_values(path)).astype(np.float32), image.affine)
    path.unlink()
    nib.save(new, path)
