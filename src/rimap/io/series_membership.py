"""The judge of what belongs together: which images are one series, and which are not of any, by what is said of them.

Loose NIfTI files, BIDS files and DICOM images are described alike (`About`): part, map or image, sequence, series
number and settings. Images make a series if they differ in the settings that the images of one signal model may differ
in, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from rimap.errors import InputError, count_of
from rimap.io.bids import models, strip_nii
from rimap.io.image_type import IMAGINARY, MAGNITUDE, PART_WORDS, PHASE, REAL, ImageType, a_part, image_type_of_sidecar
from rimap.io.protocol_runs import runs
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.model_options import knows_polarity
from rimap.signals.settings import REPETITION_FIELDS, settings_of

#: Settings that differ by less, relative, are one that was rounded or that changes no image.
_SAME, _SAME_REPETITION = 2e-3, 0.02
#: The same as differences: degrees, and milliseconds.
_AT_LEAST = {"deg": 0.3, "ms": 0.3}
#: Why a sidecar is of no series.
NO_IMAGE = "whose image does not exist"
#: Reasons why an image is left out.
_NOT_OF_THE_SERIES = "its settings, image type or scan are not those of the series"
_STOPPED = "of a scan that was stopped; a complete one with the same settings is used"
#: Fewer distinct values of the axis make no series by themselves: for flip angles, and for times.
_FEWEST_FLIPS, _FEWEST_TIMES = 2, 3


@dataclass(frozen=True)
class About:
    """What is said of one image.

    Parameters
    ----------
    path
        Its file.
    kind
        Part, map or image, and variant.
    sequence
        What else of the scan must agree: scanning sequence, acquisition type, shape.
    settings
        The sidecar fields that signal models read, by name: numbers, in the unit of the sidecar.
    number
        The number of its scanner series, `None` if it is not known.
    stack
        Whether the file is a series of its own: several volumes with a value each.
    n_volumes
        The number of volumes of the file.
    """

    path: Path
    kind: ImageType
    sequence: tuple[Any, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
    number: int | None = None
    stack: bool = False
    n_volumes: int = 1


@dataclass(frozen=True)
class Group:
    """Images that are one series.

    Parameters
    ----------
    images
        Its images, in the order in which they were given.
    part
        Their part.
    companions
        The phase of each magnitude image, or the imaginary part of each real one; may be empty.
    instead_of
        The magnitude of each image, if the images are real parts that are used in place of them.
    notes
        What the user should know.
    """

    images: tuple[About, ...]
    part: str
    companions: tuple[About, ...] = ()
    instead_of: tuple[About, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """Which images are a series together, and which are of none, with the reason."""

    groups: tuple[Group, ...]
    left_out: tuple[tuple[About, str], ...] = ()


def about_sidecar(path: Path, sidecar: Mapping[str, Any], shape: tuple[int, ...], n_volumes: int) -> About:
    """Return what a sidecar, and the name that dcm2niix gave, say of an image.

    Parameters
    ----------
    shape, n_volumes
        Of the header of the image.
    """
    fields = _fields()
    settings = {f: float(value) for f, value in sidecar.items() if f in fields and _is_number(value)}
    number: Any = sidecar.get("SeriesNumber")
    codes = sidecar.get("ScanningSequence")
    sequence = (shape, _code(codes), _code(sidecar.get("MRAcquisitionType")))
    each = any(isinstance(sidecar.get(field), list) for field in fields)
    axis_known = any(axis in settings for axis in _axes())
    return About(
        path=path,
        kind=image_type_of_sidecar(sidecar, strip_nii(path)),
        sequence=sequence,
        settings=settings,
        number=int(number) if _is_number(number) else None,
        stack=n_volumes > 1 and (each or not axis_known),
        n_volumes=n_volumes,
    )


def describes_image(sidecar: Mapping[str, Any]) -> bool:
    """Return whether a JSON file is the sidecar of an image of some signal model, by its fields."""
    return not _fields().isdisjoint(sidecar)


def judge(images: Sequence[About], sequence: str | None = None) -> Judgement:
    """Return the series that images make, and those that belong to none.

    Parameters
    ----------
    images
        Images that may be of several scans, of all parts.
    sequence
        The signal model that the user named: only what its images may differ in makes a series.

    Raises
    ------
    InputError
        If there is no magnitude and no real part, or if the parts of one image contradict each other.
    """
    # The normalised image of MP2RAGE is derived, and is what is mapped.
    keeps = sequence is not None and models()[sequence].normalised_range is not None
    derived = [] if keeps else [image for image in images if image.kind.derived]
    acquired = [image for image in images if image not in derived]
    left_out = [(a, f"a map or another derived image ({a.kind.derived})") for a in derived]
    if not acquired:
        raise InputError(
            f"{images[0].path.name}: expected weighted images, got only maps or derived ones "
            f"({images[0].kind.derived}). Give the "
            "images of the series."
        )
    parts: dict[str, list[About]] = {}
    for a in acquired:
        parts.setdefault(a.kind.part, []).append(a)
    main = [*parts.get(MAGNITUDE, ()), *parts.get("", ())]
    others = {part: list(parts.get(part, ())) for part in (REAL, PHASE, IMAGINARY)}
    if not main:
        main, others[REAL] = others[REAL], []
    if not main:
        raise InputError(
            f"{acquired[0].path.name}: expected magnitude images or real parts, got only "
            f"{' and '.join(PART_WORDS[part] for part in parts)}. Add the magnitude or the real part."
        )
    groups, rest, stopped = _split(main, sequence)
    left_out += [(a, _NOT_OF_THE_SERIES) for a in rest] + [(a, _STOPPED) for a in stopped]
    judged = []
    for group in groups:
        whole, used = with_companions(group, others, sequence)
        if whole.instead_of:
            whole, used = _with_those_alone(whole, used, others, main, sequence)
        judged.append(whole)
        for part in others:
            others[part] = [a for a in others[part] if a not in used]
    alone = [a for a in others[REAL] if not any(_of_one_image(a, b) for b in main)]
    if alone:  # of another scan, of which there is no magnitude
        more, _, _ = _split(alone, sequence, groups_only=True)
        for group in more:
            whole, used = with_companions(group, others, sequence)
            judged.append(whole)
            for part in others:
                others[part] = [a for a in others[part] if a not in (*used, *group.images)]
    for part, some in others.items():
        left_out += [(a, _why_no_series_has(a, part, main)) for a in some]
    return Judgement(tuple(judged), tuple(left_out))


def _with_those_alone(
    group: Group, used: list[About], others: Mapping[str, Sequence[About]], main: Sequence[About], sequence: str | None
) -> tuple[Group, list[About]]:
    """Return a series of real parts with those of its images that have no magnitude, and which of `others` it uses."""
    alone = [a for a in others[REAL] if a not in used and not any(_of_one_image(a, b) for b in main)]
    found, _, _ = _split([*group.images, *alone], sequence, groups_only=True)
    more = next((some for some in found if all(a in some.images for a in group.images)), group)
    if len(more.images) == len(group.images):
        return group, used
    imaginary = _beside(more, others[IMAGINARY])
    companions = tuple(imaginary) if len(imaginary) == len(more.images) else ()
    return replace(group, images=more.images, companions=companions), [*more.images, *companions]


def _why_no_series_has(image: About, part: str, main: Sequence[About]) -> str:
    """Return why an image that is no magnitude is left out."""
    if any(_of_one_image(image, a) for a in main):
        return f"{a_part(part)} that no series needs"
    return f"{a_part(part)} whose magnitude image does not exist"


def without_copies(
    images: Sequence[About], same: Callable[[About, About], bool]
) -> tuple[list[About], list[tuple[About, About]]]:
    """Return images without those that are another one twice, and each copy with the image that it is a copy of.

    Parameters
    ----------
    images
        Images of all parts.
    same
        Whether two images have the same values. It is asked only of images of one part and scan whose settings agree.
    """
    kept: list[About] = []
    copies: list[tuple[About, About]] = []
    for image in images:
        original = next((b for b in kept if _may_be_copy(image, b) and same(image, b)), None)
        if original is None:
            kept.append(image)
        else:
            copies.append((image, original))
    return kept, copies


def _may_be_copy(a: About, b: About) -> bool:
    """Return whether the metadata of two images do not distinguish them."""
    x, y = a.kind, b.kind
    silent = not (x.part or x.variant) or not (y.part or y.variant)  # without an image type
    return (
        not (a.stack or b.stack)  # each is a series of its own, with maps of its own
        and x.derived == y.derived
        and (silent or (x.part, x.variant) == (y.part, y.variant))
        and a.n_volumes == b.n_volumes
        and all(p is None or q is None or p == q for p, q in zip(a.sequence, b.sequence))
        and _agree(a.settings, b.settings)
    )


def of_other_settings(images: Sequence[About], model: type[SignalModel]) -> tuple[list[About], str]:
    """Return the images that are named as of a series and have other settings than most of it, and what differs, in
    words.

    They are returned if they are few (at most a third); if more differ, only the words are: nobody knows which ones are
    meant.
    """
    groups = sorted(
        _alike([replace(image, sequence=(), kind=ImageType("", "", ())) for image in images], _free(model)), key=len
    )
    if len(groups) < 2:
        return [], ""
    main, paths = groups[-1], {a.path for a in groups[-1]}
    odd = [image for image in images if image.path not in paths]
    usual = {f: value for a in main for f, value in a.settings.items() if f not in _free(model)}
    shown = [
        f"{f} {a.settings[f]:g}, not {value:g}"
        for a in odd[:1]
        for f, value in usual.items()
        if f in a.settings and not _same(f, a.settings[f], value)
    ]
    words = f"{', '.join(shown)} as in the others" if shown else "other settings than the others"
    few = len(odd) <= len(images) / 3 and _distinct(main, axis_of(model).bids) >= _fewest(model)
    return (odd if few else []), words


def listed(left_out: Sequence[tuple[Path, str]], most: int = 12) -> list[str]:
    """Return a note for each reason why images were not used, with their names."""
    reasons: dict[str, list[str]] = {}
    for path, reason in left_out:
        reasons.setdefault(reason, []).append(path.name)
    return [
        f"{count_of(len(names), 'sidecar' if reason == NO_IMAGE else 'image')} {_done_with(reason)}, {reason}: "
        f"{', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")
        for reason, names in reasons.items()
    ]


def _done_with(reason: str) -> str:
    """Return what happens to an image: a map is not mapped, but may still be used."""
    if reason == NO_IMAGE:
        return "not used"
    return "not mapped" if reason.startswith("a map") else "left out"


def _fields() -> frozenset[str]:
    """Return the sidecar fields of all settings, and the repetition times."""
    return frozenset(bids_key for m in models().values() for s in settings_of(m).values() for bids_key in s.bids) | set(
        REPETITION_FIELDS
    )


def _axes() -> frozenset[str]:
    return frozenset(bids_key for m in models().values() for bids_key in axis_of(m).bids)


def _code(value: Any) -> Any:
    return tuple(sorted(map(str, value))) if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _split(
    images: Sequence[About], sequence: str | None, *, groups_only: bool = False
) -> tuple[list[Group], list[About], list[About]]:
    """Return the series of images of one part, the images that are of none, and those of a scan that was stopped and
    run again.

    Parameters
    ----------
    groups_only
        Whether images whose settings make no series are none; else they are one series together, whose reader says what
        lacks.
    """
    left = [image for image in images if not image.stack]
    groups = [Group((image,), image.kind.part) for image in images if image.stack]
    stopped: list[About] = []
    if not groups_only and (len(left) < 2 or not any(a.settings for a in left)):
        return ([*groups, _group(left, images)] if left else groups), [], []
    while len(left) > 1:
        best: tuple[tuple[int, int], list[About], type[SignalModel]] | None = None
        for model in _possible(sequence):
            free = _free(model)
            for some in _alike(left, free):
                n = _distinct(some, axis_of(model).bids)
                rank = (len(some), -len(free))
                if n >= _fewest(model) and (best is None or rank > best[0]):
                    best = (rank, some, model)
        if best is None:
            break
        _, some, model = best
        some = _of_one_repetition(some, model)
        of_runs, parts = _runs(some, model, images)
        groups, stopped = [*groups, *of_runs], [*stopped, *parts]
        left = [a for a in left if a not in some]
    if not groups and not groups_only:  # what they lack is for their reader to say
        together = [a for a in left if a.n_volumes == 1]
        apart = [_group([a], images) for a in left if a.n_volumes > 1]
        return [*apart, *([_group(together, images)] if together else [])], [], []
    return groups, left, stopped


def _possible(sequence: str | None) -> list[type[SignalModel]]:
    return [models()[sequence]] if sequence else [m for m in models().values() if m.bids_suffix]


def _free(model: type[SignalModel]) -> frozenset[str]:
    """Return the sidecar fields that may differ between the images of a model."""
    own = {bids_key for s in settings_of(model).values() if s.per_image is not False for bids_key in s.bids}
    return frozenset(own | set(REPETITION_FIELDS) if own & set(REPETITION_FIELDS) else own)


def _fewest(model: type[SignalModel]) -> int:
    return (
        _FEWEST_FLIPS
        if axis_of(model).unit == "deg" or len(_free(model) - set(REPETITION_FIELDS)) > 1
        else _FEWEST_TIMES
    )


def _alike(images: Sequence[About], free: frozenset[str]) -> list[list[About]]:
    """Return images that may differ in `free` fields and agree in all others; a field that one lacks contradicts
    nothing.
    """
    groups: list[tuple[list[About], dict[str, float], list[Any]]] = []
    for image in sorted(images, key=lambda a: -len(a.settings)):
        fixed = {f: value for f, value in image.settings.items() if f not in free}
        if image.settings:  # an inversion pulse is not there if nothing is said of it
            fixed |= {
                preparation: 0.0
                for preparation in _preparations()
                if preparation not in free and preparation not in fixed
            }
        said = bool(image.kind.variant or image.kind.part)  # an image type that says nothing contradicts nothing
        facts = [image.kind.variant if said else None, *image.sequence]
        fitting = [
            group
            for group in groups
            if _agree(fixed, group[1])
            and all(fact is None or y is None or fact == y for fact, y in zip(facts, group[2]))
        ]
        if fitting:
            members, known, settled = max(fitting, key=lambda g: len(g[0]))
            members.append(image)
            known.update({f: value for f, value in fixed.items() if f not in known})
            settled[:] = [x if x is not None else y for x, y in zip(settled, facts)]
        else:
            groups.append(([image], dict(fixed), facts))
    return [members for members, _, _ in groups]


def _agree(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return all(_same(f, a[f], b[f]) for f in a.keys() & b.keys())


def _same(name: str, x: float, y: float) -> bool:
    share = _SAME_REPETITION if name in REPETITION_FIELDS else _SAME
    return abs(x - y) <= max(_least_differences(tuple(models().values())).get(name, 0.0), share * max(abs(x), abs(y)))


@cache
def _least_differences(every_model: tuple[type[SignalModel], ...]) -> Mapping[str, float]:
    """Return how far values of a sidecar field may be apart and still be the same, by the unit of its setting."""
    every = [s for m in every_model for s in settings_of(m).values()]
    return {bids_key: _AT_LEAST.get(s.unit, 0.0) / s.factor for s in every for bids_key in s.bids}


def _preparations() -> set[str]:
    """Return the fields with the time after a pulse that turns or saturates the signal: images without it are of
    another scan.
    """
    return {bids_key for m in models().values() if knows_polarity(m) for bids_key in axis_of(m).bids}


def _distinct(images: Sequence[About], axis: Sequence[str]) -> int:
    return len({round(v, 9) for image in images if (v := _value(image, axis)) is not None})


def _value(a: About, axis: Sequence[str]) -> float | None:
    return next((a.settings[f] for f in axis if f in a.settings), None)


def _of_one_repetition(images: list[About], model: type[SignalModel]) -> list[About]:
    """Return the images without those of other scanner series that have another repetition time than a whole series of
    one.

    The repetition time may grow with the times of a series, so that it is a setting that may differ. If a series has
    one, an image with another is of another scan, such as a structural image with an inversion pulse.
    """
    by_number: dict[int | None, list[About]] = {}
    for image in images:
        by_number.setdefault(image.number, []).append(image)
    main = max(by_number.values(), key=len)
    if None in by_number or len(by_number) < 2 or _distinct(main, axis_of(model).bids) < _fewest(model):
        return images
    usual = {f: main[0].settings[f] for f in REPETITION_FIELDS if f in main[0].settings}
    if not all(_agree({f: image.settings[f] for f in usual if f in image.settings}, usual) for image in main):
        return images
    return [a for a in images if _agree({f: a.settings[f] for f in usual if f in a.settings}, usual)]


def _runs(images: Sequence[About], model: type[SignalModel], among: Sequence[About]) -> tuple[list[Group], list[About]]:
    """Return a series for each run of a protocol, and the images of a run that was stopped."""
    axis = axis_of(model).bids
    found, stopped, again = runs(
        images,
        number=lambda a: a.number,
        value=lambda a: _value(a, axis),
        enough=lambda some: _distinct(some, axis) >= _fewest(model),
    )
    groups = [_group(run, among) for run in found]
    if again:
        names = ", ".join(a.path.name for a in again[:6]) + (" …" if len(again) > 6 else "")
        what = "time" if axis_of(model).unit == "ms" else axis_of(model).title
        note = (
            f"images of several scans have the same {what} and are used as repeats: {names}. Leave some out if they "
            "are no repeats"
        )
        groups = [replace(group, notes=(*group.notes, note)) for group in groups]
    return groups, stopped


def _group(images: Sequence[About], among: Sequence[About]) -> Group:
    """Return a series, its images in the order in which they were given: values that a user types go by it."""
    parts = [image.kind.part for image in images]
    return Group(tuple(a for a in among if a in images), max(set(parts), key=parts.count))


def with_companions(
    group: Group, others: Mapping[str, Sequence[About]], sequence: str | None
) -> tuple[Group, list[About]]:
    """Return a series with the phase, or the other parts, of its images, and which of `others` it uses."""
    wanted: Sequence[str] = {REAL: (IMAGINARY,)}.get(group.part, (PHASE, REAL))
    if not _polarity_matters(group, sequence):
        return group, []
    for part in wanted:
        beside = _beside(group, others[part])
        if part == REAL and beside and _lack_sidecars(beside, group):
            note = f"the {PART_WORDS[part]}s of the images have no sidecars with their settings: they were not used"
            group = replace(group, notes=(*group.notes, note))
        elif len(beside) == len(group.images):
            if part == REAL:  # signed: better than its modulus
                signed = replace(group, images=tuple(beside), part=REAL)
                imaginary = _beside(signed, others[IMAGINARY])
                all_have = len(imaginary) == len(beside)
                whole = replace(signed, companions=tuple(imaginary) if all_have else (), instead_of=group.images)
                note = (
                    f"the real parts are used in place of {count_of(len(beside), 'magnitude image')}: "
                    f"{', '.join(image.path.name for image in group.images)}"
                )
                return replace(whole, notes=(*group.notes, note)), [*beside, *whole.companions]
            return replace(group, companions=tuple(beside)), beside
        elif beside:
            note = f"only {len(beside)} of {len(group.images)} images have their {PART_WORDS[part]}: it was not used"
            group = replace(group, notes=(*group.notes, note))
    return group, []


def _lack_sidecars(parts: Sequence[About], group: Group) -> bool:
    """Return whether parts that would be read in place of images do not say what the sidecars of those say."""
    return any(not a.settings for a in parts) and all(a.settings for a in group.images)


def _polarity_matters(group: Group, sequence: str | None) -> bool:
    if group.part == REAL:
        return True
    if sequence:
        return knows_polarity(models()[sequence])
    varying = {axis for axis in _axes() if _distinct(group.images, (axis,)) > 1 or group.images[0].stack}
    return any(knows_polarity(m) and varying & set(axis_of(m).bids) for m in models().values())


def _beside(group: Group, pool: Sequence[About]) -> list[About]:
    """Return what of a part belongs to each image, the nearest series and the likest name first; fewer if some have
    none.
    """
    chosen: list[About] = []
    for image in group.images:
        fitting = [o for o in pool if o not in chosen and _of_one_image(image, o)]
        if fitting:
            chosen.append(min(fitting, key=_nearness(image)))
    return chosen


def _of_one_image(a: About, b: About) -> bool:
    """Return whether two parts may be those of one image: they are in one place and have the same settings."""
    return a.sequence[:1] == b.sequence[:1] and _agree(a.settings, b.settings)


def _nearness(a: About) -> Callable[[About], tuple[float, bool, int]]:
    def apart(o: About) -> tuple[float, bool, int]:
        x, y = strip_nii(a.path), strip_nii(o.path)
        shared = next((k for k, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
        far = abs(a.number - o.number) if a.number is not None and o.number is not None else 0
        earlier = a.number is not None and o.number is not None and o.number < a.number  # parts follow their magnitude
        return float(far), earlier, -shared

    return apart
