"""Which DICOM images form a series of inversion times, echo times or flip angles, by the same rules as for NIfTI."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path

from rimap.errors import InputError, count_of
from rimap.io.bids import models
from rimap.io.dicom_headers import Frame
from rimap.io.dicom_volumes import Volume, overlap, same_slices
from rimap.io.image_type import IMAGINARY, MAGNITUDE, PART_WORDS, PHASE, REAL, ImageType
from rimap.io.series_membership import About, Group, judge, with_companions
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.settings import settings_of, with_unit

#: What images of a series differ in (a field of `Frame`), by the sidecar field of the setting.
FIELDS = {"ti": "InversionTime", "te": "EchoTime", "flip": "FlipAngle"}
#: What people call it, and its unit.
SYMBOLS = {"ti": ("TI", "ms"), "te": ("TE", "ms"), "flip": ("flip angle", "deg")}
#: Fewer distinct values make no series by themselves; ask for them with --series.
_FEWEST = {"ti": 3, "te": 3, "flip": 2}


class NotThere(InputError):
    """A patient has none of the series that were chosen."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Images that can be mapped together.

    Parameters
    ----------
    kind
        ``ti``, ``te`` or ``flip``, or "" if none of them differs.
    key
        What `--series` takes.
    companions
        Phase of each magnitude image, or imaginary part of each real one, or real part of each magnitude image; may be
        empty.
    companion
        ``phase``, ``imag`` or ``real``.
    imaginary
        Imaginary parts of companions that are real; may be empty.
    """

    kind: str
    volumes: tuple[Volume, ...]
    key: str = ""
    companions: tuple[Volume, ...] = ()
    companion: str = ""
    imaginary: tuple[Volume, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """Part of the volumes."""
        return self.volumes[0].first.part

    @property
    def gradient(self) -> bool:
        """Whether these are gradient echoes."""
        return any(volume.first.gradient for volume in self.volumes)

    @property
    def numbers(self) -> list[int]:
        """Series numbers in ascending order."""
        return sorted({volume.number for volume in self.volumes})

    @property
    def times(self) -> list[float]:
        """Distinct times (ms) or flip angles (degrees), ascending."""
        return sorted({t for volume in self.volumes if (t := volume.time(self.kind or "ti")) is not None})

    @property
    def sources(self) -> list[Frame]:
        """All slices that are read."""
        return [frame for v in (*self.volumes, *self.companions, *self.imaginary) for frame in v.frames]


@dataclass(frozen=True, eq=False)
class Described:
    """Images of DICOM as the judge sees them.

    Parameters
    ----------
    volumes
        The images.
    whatever_scan
        Whether nothing is said of their study and sequence: for copies, the values and the settings decide.
    """

    volumes: tuple[Volume, ...]
    whatever_scan: bool = False

    @cached_property
    def abouts(self) -> list[About]:
        """What is said of each image."""
        places: list[Volume] = []  # one for each place and study
        scans = sorted({(volume.number, volume.first.source.series) for volume in self.volumes})
        rank = {scan: n for n, scan in enumerate(scans)}  # numbers may be missing, or those of several series
        found = []
        for n, volume in enumerate(self.volumes):
            place = next((k for k, place in enumerate(places) if self._one_place(place, volume)), len(places))
            if place == len(places):
                places.append(volume)
            settings = {"InversionTime": volume.ti, "EchoTime": volume.te, "RepetitionTime": volume.tr}
            in_seconds = {name: setting / 1000 for name, setting in settings.items() if setting is not None}
            found.append(
                About(
                    path=Path(f"series {max(volume.number, 0)} image {n + 1}"),
                    kind=ImageType(volume.first.part, "", volume.first.variant),
                    sequence=(place,) if self.whatever_scan else (place, volume.first.sequence),
                    settings=in_seconds | ({} if volume.flip is None else {"FlipAngle": volume.flip}),
                    number=rank[volume.number, volume.first.source.series],
                )
            )
        return found

    def _one_place(self, a: Volume, b: Volume) -> bool:
        return (self.whatever_scan or a.first.source.study == b.first.source.study) and overlap(a, b)

    def about(self, volume: Volume) -> About:
        """Return what is said of an image."""
        return next(about for about, v in zip(self.abouts, self.volumes) if v is volume)

    def of(self, abouts: Sequence[About]) -> tuple[Volume, ...]:
        """Return images by what is said of them."""
        by_path = {about.path: volume for about, volume in zip(self.abouts, self.volumes)}
        return tuple(by_path[about.path] for about in abouts)


def model_of(kind: str, gradient: bool) -> type[SignalModel] | None:
    """Return the signal model of images that differ in a time or the flip angle; `None` if there is none.

    Of several sequences with inversion times the headers of most scans describe the one with the fewest settings.
    """
    fitting = [
        m
        for m in models().values()
        if m.bids_suffix and FIELDS.get(kind) in axis_of(m).bids and m.gradient_echo in (None, gradient)
    ]
    return min(fitting, key=lambda m: sum(s.required for s in settings_of(m).values()), default=None)


def candidates(units: Sequence[Sequence[Volume]]) -> list[Candidate]:
    """Return the images that go together, each set with its own key.

    Images of several inversion times and several echo times are a series over one for each of the other.
    """
    described = Described(tuple(v for unit in units for v in unit))
    found: list[Candidate] = []
    for kind in FIELDS:
        by_model: dict[type[SignalModel], list[About]] = {}
        for about, volume in zip(described.abouts, described.volumes):
            model = model_of(kind, volume.first.gradient)
            if model is not None and _makes_a_series(kind, volume.first):
                by_model.setdefault(model, []).append(about)
        for model, abouts in by_model.items():
            found += _judged(described, abouts, kind, model)
    return with_keys(found)


def _makes_a_series(kind: str, frame: Frame) -> bool:
    """Return whether images that differ in this alone can be mapped: flip angles of gradient echoes, times of all."""
    return kind != "flip" or frame.gradient


def _judged(described: Described, abouts: Sequence[About], kind: str, model: type[SignalModel]) -> list[Candidate]:
    """Return the series over one setting that the judge finds."""
    if not any(about.kind.part in (MAGNITUDE, "", REAL) for about in abouts):
        return []
    found = []
    for group in judge(abouts, model.name).groups:
        candidate = _candidate(described, group, kind)
        if len(candidate.times) >= _FEWEST[kind]:
            found.append(candidate)
    return found


def _candidate(described: Described, group: Group, kind: str) -> Candidate:
    """Return a series of the judge with its images in the order of their times; those without a time are none of it."""
    images = described.of(group.instead_of or group.images)
    beside = described.of(group.images if group.instead_of else group.companions)
    third = described.of(group.companions) if group.instead_of else ()
    notes = [note for note in group.notes if not note.startswith("the real parts are used")]
    if any(not same_slices(image, o) for image, o in zip(images, beside)):
        complete = sum(same_slices(image, o) for image, o in zip(images, beside))
        notes.append(_only(complete, len(images), beside[0].first.part))
        beside, third = (), ()
    order = sorted(
        (n for n, image in enumerate(images) if not kind or image.time(kind) is not None),
        key=lambda n: (images[n].time(kind) or 0.0) if kind else 0.0,
    )
    if kind == "ti" and (elsewhere := sorted({images[n].first.ti_from for n in order} - {""})):
        notes.append(
            f"no field of the headers has the inversion times; they are from {' and '.join(elsewhere)}: check them"
        )
    companion = "" if not beside else beside[0].first.part
    return Candidate(
        kind,
        tuple(images[n] for n in order),
        companions=tuple(beside[n] for n in order) if beside else (),
        companion=companion,
        imaginary=tuple(third[n] for n in order) if third else (),
        notes=tuple(notes),
    )


def _only(count: int, of: int, part: str) -> str:
    return f"only {count} of {of} images have their {PART_WORDS[part]}: it was not used"


def together(units: Sequence[Sequence[Volume]], numbers: Sequence[int]) -> Candidate:
    """Return the images of these scanner series as one series, in order of time, or as given where no time differs.

    Raises
    ------
    InputError
        Where a number is not there, or the images differ in both times.
    """
    chosen: list[Volume] = []
    for number in numbers:
        of_number = [
            u for u in units if u and max(u[0].number, 0) == number and u[0].first.part not in ("phase", "imag")
        ]
        if not of_number:
            there = sorted({max(u[0].number, 0) for u in units if u})
            raise NotThere(f"--series {number}: no such series; there are {', '.join(map(str, there))}.")
        best = next((u for part in ("mag", "", "real") for u in of_number if u[0].first.part == part), of_number[0])
        chosen += best
    varied = [kind for kind in FIELDS if len({v.time(kind) for v in chosen} - {None}) > 1]
    text = ",".join(map(str, numbers))
    if len(varied) > 1:
        raise InputError(
            f"--series {text}: expected images that differ in one setting, got several "
            f"({' and '.join(FIELDS[k] for k in varied)}). Choose series that differ in one of them."
        )
    kind = varied[0] if varied else ""
    if kind and any(v.time(kind) is None for v in chosen):
        raise InputError(f"--series {text}: some of the images have no {FIELDS[kind]}. Leave out their series.")
    described = Described(tuple(v for unit in units for v in unit))
    group = Group(tuple(map(described.about, chosen)), chosen[0].first.part)
    others = {p: [about for about in described.abouts if about.kind.part == p] for p in (REAL, PHASE, IMAGINARY)}
    others[group.part] = []
    model = model_of(kind, any(v.first.gradient for v in chosen))
    if model is not None:
        group, _ = with_companions(group, others, model.name)
    return replace(_candidate(described, group, kind), key="-".join(map(str, dict.fromkeys(numbers))))


def with_keys(found: Sequence[Candidate]) -> list[Candidate]:
    """Give each candidate its lowest series number, with a letter where several have it."""
    ordered = sorted(found, key=lambda c: (c.numbers, c.times))
    count = Counter(c.numbers[0] for c in ordered)
    keyed = []
    for number, same in groupby(ordered, key=lambda c: c.numbers[0]):
        name = str(max(number, 0))
        for n, c in enumerate(same):
            keyed.append(replace(c, key=name if count[number] == 1 else name + _letters(n)))
    return keyed


def _letters(n: int) -> str:
    return (_letters(n // 26 - 1) if n >= 26 else "") + string.ascii_lowercase[n % 26]


def check_complete(candidate: Candidate) -> None:
    """Refuse a series whose images have different slices, or slices at uneven distances.

    Raises
    ------
    InputError
        Saying which image lacks some.
    """
    both = (*candidate.volumes, *candidate.companions, *candidate.imaginary)
    most = max(both, key=lambda v: len(v.frames))
    if not most.first.position and len({volume.time(candidate.kind or "ti") for volume in candidate.volumes}) < len(
        candidate.volumes
    ):
        raise InputError(
            f"series {most.number}: expected slice positions in the headers, got none. Export the original images."
        )
    for v in both:
        if len(v.frames) != len(most.frames):
            time = (
                f" at {with_unit(t, SYMBOLS[candidate.kind][1])}"
                if candidate.kind and (t := v.time(candidate.kind)) is not None
                else ""
            )
            raise InputError(
                f"series {v.number}: the image{time} has {len(v.frames)} of {len(most.frames)} slices. Files are "
                "missing, or each slice has its own times, which rimap does not support. Export the whole series."
            )
        if not same_slices(v, most):
            raise InputError(
                f"series {v.number} and {most.number} have slices at different places. Choose with --series."
            )
    heights = [frame.height for frame in most.frames]
    steps = [b - a for a, b in pairwise(heights)]
    if steps and max(steps) > 1.1 * min(steps) + 0.02:
        raise InputError(
            f"series {most.number}: the distance between slices varies from {min(steps):.4g} to {max(steps):.4g} mm. "
            "A slice is missing: export the whole series."
        )


def refuse_incomplete(candidate: Candidate, every: Sequence[Candidate], units: Sequence[Sequence[Volume]]) -> None:
    """Refuse a series if images of its scanner series belong to no series: they lack the time, or have another size.

    Raises
    ------
    InputError
        Saying what is the matter with the first of them.
    """
    used = {id(v) for c in (*every, candidate) for v in (*c.volumes, *c.companions, *c.imaginary)}
    main, kind = candidate.volumes[0].first, candidate.kind
    for v in (v for unit in units for v in unit if id(v) not in used):
        first = v.first
        if v.number not in candidate.numbers or (first.part, first.variant) != (main.part, main.variant):
            continue
        if first.source.study != main.source.study or not kind:
            continue
        if v.time(kind) is None:
            what = f"no {FIELDS[kind]} that can be used"
        elif first.shape != main.shape:
            what = f"another size ({first.shape[0]} × {first.shape[1]}, not {main.shape[0]} × {main.shape[1]})"
        else:
            continue
        raise InputError(
            f"series {max(v.number, 0)}: one image has {what}, unlike the others. A map without it would look "
            "plausible: export the series again, or remove the image."
        )


def note_on_others(chosen: Sequence[Candidate], units: Sequence[Sequence[Volume]]) -> list[str]:
    """Return a note on the images of the files that no chosen series uses, by the number of their scanner series."""
    used = {id(v) for c in chosen for v in (*c.volumes, *c.companions, *c.imaginary)}
    others: Counter[int] = Counter(max(v.number, 0) for unit in units for v in unit if id(v) not in used)
    if not others:
        return []
    listed = ", ".join(f"{n} ({count_of(k, 'image')})" for n, k in sorted(others.items())[:12])
    return [
        f"not used of the DICOM files: series {listed}" + (f" and {len(others) - 12} more" if len(others) > 12 else "")
    ]
