"""Which images of DICOM files make a series of inversion times, echo times or flip angles."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from rimap.errors import InputError, count_of
from rimap.io.dicom_headers import Frame
from rimap.io.dicom_volumes import SAME_FLIP_DEG, Volume, overlap, same_slices
from rimap.io.image_type import PART_WORDS
from rimap.signals.settings import with_unit

#: What images of a series differ in (a field of `Frame`), by the sidecar field of the setting.
FIELDS = {"ti": "InversionTime", "te": "EchoTime", "flip": "FlipAngle"}
#: What people call it, and its unit.
SYMBOLS = {"ti": ("TI", "ms"), "te": ("TE", "ms"), "flip": ("flip angle", "deg")}
#: Fewer distinct values make no series by themselves; ask for them with --series.
_FEWEST = {"ti": 3, "te": 3, "flip": 2}


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
        return any(v.first.gradient for v in self.volumes)

    @property
    def numbers(self) -> list[int]:
        """Series numbers in ascending order."""
        return sorted({v.number for v in self.volumes})

    @property
    def times(self) -> list[float]:
        """Distinct times (ms) or flip angles (degrees), ascending."""
        return sorted({t for v in self.volumes if (t := v.time(self.kind or "ti")) is not None})

    @property
    def sources(self) -> list[Frame]:
        """All slices that are read."""
        return [f for v in (*self.volumes, *self.companions, *self.imaginary) for f in v.frames]


def candidates(units: Sequence[Sequence[Volume]]) -> list[Candidate]:
    """Return the images that go together, each set with its own key: those in one series, then one series per time."""
    found: list[Candidate] = []
    single: list[list[Volume]] = []
    for unit in units:
        if len({(v.ti, v.te, v.flip) for v in unit}) == 1:
            single.append(list(unit))
        else:
            found += _in_one(unit)
    for kind in FIELDS:
        found += _across(single, kind)
    main = [c for c in found if c.part in ("", "mag")]
    # a real part, with or without the imaginary one, stands for itself only where there is no magnitude
    main += [c for c in found if c.part == "real" and not any(_same_images(c, m) for m in main)]
    pool = [v for unit in units for v in unit]
    return with_keys([with_companions(c, pool) for c in main])


def with_companions(candidate: Candidate, pool: Iterable[Volume]) -> Candidate:
    """Add the phase, or else the real part, of magnitude images, and the imaginary one of real ones."""
    wanted = {"real": ("imag",)}.get(candidate.part, ("phase", "real") if candidate.kind == "ti" else ())
    pool = list(pool)
    notes = candidate.notes
    for part in wanted:
        chosen = _beside(candidate, pool, part)
        if len(chosen) == len(candidate.volumes):
            imaginary = _beside(candidate, pool, "imag") if candidate.part != "real" and part == "real" else []
            whole = imaginary if len(imaginary) == len(chosen) else []
            return replace(candidate, companions=tuple(chosen), companion=part, imaginary=tuple(whole), notes=notes)
        if chosen and candidate.kind == "ti":
            notes = (
                *notes,
                f"only {len(chosen)} of {len(candidate.volumes)} images have their {PART_WORDS[part]}: it was not used",
            )
    return replace(candidate, notes=notes)


def _beside(candidate: Candidate, pool: Sequence[Volume], part: str) -> list[Volume]:
    """Return what of a part belongs to each image, the nearest series first; fewer where some have none."""
    chosen: list[Volume] = []
    for v in candidate.volumes:
        fitting = [o for o in pool if o.first.part == part and _companion(v, o) and o not in chosen]
        if fitting:
            chosen.append(min(fitting, key=lambda o: (abs(o.number - v.number), o.number < v.number)))
    return chosen


def together(units: Sequence[Sequence[Volume]], numbers: Sequence[int]) -> Candidate:
    """Return the images of these scanner series as one series, in order of time, or as given where no time differs.

    Raises
    ------
    InputError
        Where a number is not there, or the images differ in both times.
    """
    chosen: list[Volume] = []
    for n in numbers:
        of_number = [u for u in units if u and max(u[0].number, 0) == n and u[0].first.part not in ("phase", "imag")]
        if not of_number:
            there = sorted({max(u[0].number, 0) for u in units if u})
            raise InputError(f"--series {n}: no such series; there are {', '.join(map(str, there))}.")
        best = next((u for part in ("mag", "", "real") for u in of_number if u[0].first.part == part), of_number[0])
        chosen += best
    varied = [kind for kind in FIELDS if len({v.time(kind) for v in chosen} - {None}) > 1]
    text = ",".join(map(str, numbers))
    if len(varied) > 1:
        raise InputError(
            f"--series {text}: expected images that differ in one setting, got several ({' and '.join(FIELDS[k] for k in varied)}). "
            "Choose series that differ in one of them."
        )
    kind = varied[0] if varied else ""
    if kind and any(v.time(kind) is None for v in chosen):
        raise InputError(f"--series {text}: some of the images have no {FIELDS[kind]}. Leave out their series.")
    if kind:
        chosen.sort(key=lambda v: v.time(kind) or 0.0)
    candidate = Candidate(kind, tuple(chosen), "-".join(map(str, dict.fromkeys(numbers))))
    return with_companions(candidate, [v for u in units for v in u])


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
    if not most.first.position and len({v.time(candidate.kind or "ti") for v in candidate.volumes}) < len(
        candidate.volumes
    ):
        raise InputError(
            f"series {most.number}: its headers do not say where the slices are. Export the original images."
        )
    for v in both:
        if len(v.frames) != len(most.frames):
            time = (
                f" at {with_unit(t, SYMBOLS[candidate.kind][1])}"
                if candidate.kind and (t := v.time(candidate.kind)) is not None
                else ""
            )
            raise InputError(
                f"series {v.number}: the image{time} has {len(v.frames)} of {len(most.frames)} slices. Files are missing, or each "
                "slice has times of its own, which rimap cannot map. Export the whole series."
            )
        if not same_slices(v, most):
            raise InputError(
                f"series {v.number} and {most.number} have slices at different places. Choose with --series."
            )
    heights = [f.height for f in most.frames]
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
            f"series {max(v.number, 0)}: an image has {what}, and the others have. A map without it would look right: export the series "
            "again, or remove the image."
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


def _in_one(unit: Sequence[Volume]) -> list[Candidate]:
    """Return the series within one scanner series: over TI for each TE, over TE for each TI, over the flip angle for both."""
    found = []
    for kind in FIELDS:
        if not _makes_a_series(kind, unit[0].first):
            continue
        for fixed in dict.fromkeys(_others(v, kind) for v in unit):
            volumes = [v for v in unit if _others(v, kind) == fixed and v.time(kind) is not None]
            for tr in dict.fromkeys(v.tr for v in volumes) if kind != "ti" else [None]:
                same_tr = [v for v in volumes if kind == "ti" or v.tr == tr]
                found += _candidate(kind, same_tr)
    return found


def _makes_a_series(kind: str, frame: Frame) -> bool:
    """Tell whether images that differ in this alone can be mapped: flip angles of gradient echoes, times of all."""
    return kind != "flip" or frame.gradient


def _others(volume: Volume, kind: str) -> tuple[float | None, ...]:
    """Return what must be the same in images that differ in one kind."""
    return tuple(volume.time(k) for k in FIELDS if k != kind)


def _candidate(kind: str, volumes: Sequence[Volume]) -> list[Candidate]:
    if len({v.time(kind) for v in volumes}) < _FEWEST[kind]:
        return []
    ordered = sorted(volumes, key=lambda v: v.time(kind) or 0.0)
    repeated = [t for t, n in Counter(v.time(kind) for v in ordered).items() if n > 1]
    across = len({v.number for v in ordered}) > 1
    notes: tuple[str, ...] = ()
    if repeated and across:
        which = sorted({v.number for v in ordered if v.time(kind) in repeated})
        notes = (
            f"several series have the same time ({', '.join(map(str, which))}) and all are used; choose with --series, "
            "the numbers separated by commas",
        )
    elsewhere = sorted({v.first.ti_from for v in ordered} - {""}) if kind == "ti" else []
    if elsewhere:
        notes = (
            *notes,
            f"no field of the headers has the inversion times; they are from {' and '.join(elsewhere)}: check them",
        )
    return [Candidate(kind, tuple(ordered), notes=notes)]


def _across(single: Sequence[Sequence[Volume]], kind: str) -> list[Candidate]:
    """Return the series of times in scanner series of one time each."""
    groups: list[list[Sequence[Volume]]] = []
    for unit in single:
        if unit[0].time(kind) is None or not _makes_a_series(kind, unit[0].first):
            continue
        group = next((g for g in groups if _alike(g[0][0], unit[0], kind)), None)
        if group is None:
            groups.append([unit])
        else:
            group.append(unit)
    found = []
    for group in groups:
        count = Counter(unit[0].time(kind) for unit in group)
        repeats = set(count.values())
        if len(repeats) == 1 and max(repeats) > 1:  # the whole protocol, run again
            seen: Counter[float | None] = Counter()
            runs: dict[int, list[Volume]] = {}
            for unit in group:
                time = unit[0].time(kind)
                runs.setdefault(seen[time], []).extend(unit)
                seen[time] += 1
            for run in runs.values():
                found += _candidate(kind, run)
        else:
            found += _candidate(kind, [v for unit in group for v in unit])
    return found


def _alike(a: Volume, b: Volume, kind: str) -> bool:
    """Tell whether images of different scanner series can differ in this time alone."""
    x, y = a.first, b.first
    return (
        (x.source.study, x.part, x.variant, x.sequence) == (y.source.study, y.part, y.variant, y.sequence)
        and all(_same(k, a, b) for k in FIELDS if k != kind)
        and (kind == "ti" or _same_time(a.tr, b.tr))
        and overlap(a, b)
    )


def _companion(a: Volume, b: Volume) -> bool:
    same_times = all(_same(k, a, b) for k in FIELDS)
    return a.first.source.study == b.first.source.study and same_times and same_slices(a, b)


def _same_images(a: Candidate, b: Candidate) -> bool:
    return len(a.volumes) == len(b.volumes) and all(_companion(v, w) for v, w in zip(a.volumes, b.volumes))


def _same(kind: str, a: Volume, b: Volume) -> bool:
    """Tell whether two images have the same time or flip angle."""
    x, y = a.time(kind), b.time(kind)
    if kind != "flip":
        return _same_time(x, y)
    return x is y is None or (x is not None and y is not None and abs(x - y) <= SAME_FLIP_DEG)


def _same_time(a: float | None, b: float | None) -> bool:
    return a is b is None or (a is not None and b is not None and abs(a - b) <= 0.01 + 1e-3 * abs(a))
