"""Which files with BIDS names make a series: those that differ in the numbering of its images, and in the part, alone.

The entities that number the images are those of the settings that the signal model declares (``inv``, ``echo``,
``flip``). Files that differ in any other entity, another numbering among them, are of different series.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rimap.errors import InputError, count_of
from rimap.io.bids import (
    BidsName,
    Sidecars,
    absolute,
    compose,
    dataset_of,
    is_image,
    model_of_suffix,
    models,
    natural,
    numbering_of,
)
from rimap.io.image_type import IMAGINARY, MAGNITUDE, PART_WORDS, PHASE, REAL, a_part, image_type_of_sidecar
from rimap.io.search_result import Found, LeftOut
from rimap.io.series_files import SeriesFiles
from rimap.io.series_membership import About, about_sidecar, of_other_settings
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.model_options import knows_polarity

#: Entities that people number images with in place of inv-, echo- or flip-.
_NOT_NUMBERING = ("acq", "run", "rec", "desc", "dir", "task", "ce", "inv", "echo", "flip")

#: Folder, shared entities, suffix: what the files of one BIDS series have in common.
_Key = tuple[Path, tuple[tuple[str, str], ...], str]
#: The values of the numbering entities of an image, "" for one that its name lacks.
_Number = tuple[str, ...]


def numbering(path: Path, sequence: str | None) -> tuple[str, ...] | None:
    """Return the entities that number the images of this file's series; `None` if it is of no BIDS series.

    Parameters
    ----------
    sequence
        The signal model that the user named: it may read other suffixes.
    """
    name = BidsName.parse(path.name)
    if name is None:
        return None
    model = model_of_suffix(name.suffix, sequence)
    if model is None and sequence is not None:
        entities = numbering_of(models()[sequence])
        return entities if set(entities) & name.entities.keys() else None
    return None if model is None else numbering_of(model)


def series_of(files: Sequence[Path], sequence: str | None) -> Found:
    """Group files with BIDS names into series. Return the series, the refused ones, and images that no series needs."""
    return _found(_by_key(files, sequence), sequence, {})


def series_of_some(files: Sequence[Path], sequence: str | None) -> Found:
    """Return the series of some files: one file of a series stands for all of it, several stand for themselves."""
    groups = _by_key(files, sequence)
    beside: dict[_Key, list[Path]] = {}
    for key, members in groups.items():
        around = [
            path for path in sorted(members[0].parent.iterdir()) if is_image(path) and not path.name.startswith(".")
        ]
        beside |= _by_key([f for f in around if numbering(f, sequence) is not None], sequence)
        if len(members) == 1:
            groups[key] = beside[key]
    return _found(groups, sequence, beside)


def _found(groups: dict[_Key, list[Path]], sequence: str | None, beside: Mapping[_Key, list[Path]]) -> Found:
    sidecars = Sidecars()
    series: list[SeriesFiles] = []
    refused: list[tuple[str, InputError]] = []
    left_out: list[LeftOut] = []
    renamed = _numbered_by_another(groups, sequence, sidecars)
    refused += [(_label(keys[0], but=entity), error) for keys, entity, error in renamed]
    for key, members in groups.items():
        if any(key in keys for keys, _, _ in renamed):
            continue
        try:
            one, unused = _series(members, sequence, sidecars)
        except InputError as error:
            refused.append((_label(key), error))
            continue
        series.append(replace(one, siblings=_siblings(key, beside or groups)))
        left_out += unused
    return Found(tuple(series), tuple(refused), tuple(left_out))


def _label(key: _Key, but: str = "") -> str:
    return compose({k: v for k, v in key[1] if k != but}, key[2]).replace("_", " ")


def series_key(path: Path, numbered_by: Sequence[str]) -> _Key:
    """Return what the files of one series have in common."""
    name = BidsName.parse(path.name)
    assert name is not None
    shared = tuple(sorted((key, value) for key, value in name.entities.items() if key not in (*numbered_by, "part")))
    return (absolute(path.parent), shared, name.suffix)


def _by_key(files: Sequence[Path], sequence: str | None) -> dict[_Key, list[Path]]:
    groups: dict[_Key, list[Path]] = {}
    for file in files:
        groups.setdefault(series_key(file, numbering(file, sequence) or ()), []).append(file)
    return groups


def _siblings(key: _Key, groups: Iterable[_Key]) -> tuple[str, ...]:
    """Return the suffixes of the series beside this one that have its entities."""
    return tuple(sorted({suffix for folder, shared, suffix in groups if (folder, shared) == key[:2]} - {key[2]}))


def _numbered_by_another(
    groups: Mapping[_Key, list[Path]], sequence: str | None, sidecars: Sidecars
) -> list[tuple[list[_Key], str, InputError]]:
    """Return images numbered by the wrong entity (acq-TI50, run-1), so that each would be a series of one image."""
    single = {key: files[0] for key, files in groups.items() if len(files) == 1}
    found: list[tuple[list[_Key], str, InputError]] = []
    for entity in _NOT_NUMBERING:
        alike: dict[object, list[_Key]] = {}
        for key in single:
            if entity in dict(key[1]) and not any(key in keys for keys, _, _ in found):
                alike.setdefault((key[0], tuple(x for x in key[1] if x[0] != entity), key[2]), []).append(key)
        for keys in alike.values():
            if len(keys) < 2:
                continue
            files = sorted((single[key] for key in keys), key=lambda f: natural(f.name))
            model = _model(keys[0][2], sequence)
            values = [] if model is None else [_axis_value(file, model, sidecars) for file in files]
            if model is None or None in values or len(set(values)) < 2 or not numbering_of(model):
                continue
            number = numbering_of(model)[0]
            shown = ", ".join(file.name for file in files[:3]) + (" …" if len(files) > 3 else "")
            error = InputError(
                f"{entity}- numbers the images of one series of {model.title.lower()} ({shown}), but BIDS uses "
                f"{number}- for this. Rename them to {number}-1, {number}-2 … instead of {entity}-, with their "
                "sidecars."
            )
            found.append((keys, entity, error))
    return found


def _axis_values(paths: Sequence[Path], model: type[SignalModel] | None, sidecars: Sidecars) -> list[float | None]:
    """Return the value of the axis of each image, in the unit of the signal model."""
    if model is None:
        return [None] * len(paths)
    values = [_axis_value(path, model, sidecars) for path in paths]
    return [None if value is None else axis_of(model).from_sidecar(value) for value in values]


def _axis_value(path: Path, model: type[SignalModel], sidecars: Sidecars) -> float | None:
    """Return the one value of the axis that an image has by its sidecar."""
    try:
        about = sidecars(path, dataset_of(path))
    except InputError:
        return None
    value = next((about[bids_key] for bids_key in axis_of(model).bids if bids_key in about), None)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _model(suffix: str, sequence: str | None) -> type[SignalModel] | None:
    return model_of_suffix(suffix, sequence) or (models()[sequence] if sequence else None)


def _series(files: Sequence[Path], sequence: str | None, sidecars: Sidecars) -> tuple[SeriesFiles, list[LeftOut]]:
    """Return the series of files whose names differ by number and part alone, and the images that it does not need."""
    numbered_by = numbering(files[0], sequence) or ()
    key = series_key(files[0], numbered_by)
    entities, suffix, label = dict(key[1]), key[2], _label(key)
    parts: dict[str, dict[_Number, Path]] = {}
    unsaid: list[Path] = []
    for file in files:
        name = BidsName.parse(file.name)
        assert name is not None
        number = tuple(name.entities.get(e, "") for e in numbered_by)
        part = _part_of(file, name, label, sidecars)
        unsaid += [file] if not part else []
        images = parts.setdefault(part or MAGNITUDE, {})
        if number in images:
            raise InputError(
                f"{file.name}: expected each image once, got a duplicate of {images[number].name}. Remove one of them."
            )
        images[number] = file
    part, other, notes = _parts(parts, label, _model(suffix, sequence), numbered_by)
    images = parts[part]
    _check_numbers(images, numbered_by, label)
    images, odd, about = _without_odd(images, _model(suffix, sequence), sidecars)
    notes += about
    order = sorted(images, key=_order)
    said = MAGNITUDE if part == MAGNITUDE and set(images.values()) - set(unsaid) else ""
    if said and unsaid and part == MAGNITUDE:
        notes.append(
            f"{len(unsaid)} of {len(images)} images do not say which part they are: taken as magnitude "
            f"({unsaid[0].name})"
        )
    notes += _gaps(order, numbered_by, _axis_values([images[n] for n in order], _model(suffix, sequence), sidecars))
    notes += _without_image(key, numbered_by, parts)
    ordered = [(part.split("-", 1)[0], part.split("-", 1)[1]) for part in compose(entities, "").split("_") if part]
    own = model_of_suffix(suffix)
    companions = tuple(parts[other][n] for n in order) if other else ()
    series = SeriesFiles(
        images=tuple(images[n] for n in order),
        entities=dict(ordered),
        suffix=suffix,
        stem="_".join("-".join(x) for x in ordered) or suffix,
        dataset=dataset_of(files[0]),
        label=label,
        part=part if part != MAGNITUDE else said,
        companions=companions,
        sequence=sequence if own is None or model_of_suffix(suffix, sequence) != own else None,
        notes=tuple(notes),
    )
    used = {*series.sources, *odd}
    return series, [(file, "a part of the signal that the series does not need") for file in files if file not in used]


def _without_odd(
    images: dict[_Number, Path], model: type[SignalModel] | None, sidecars: Sidecars
) -> tuple[dict[_Number, Path], list[Path], list[str]]:
    """Return the images that have the settings of most of them, the few that have others, and notes."""
    if model is None:
        return images, [], []
    known: list[About] = []
    for path in images.values():
        with contextlib.suppress(InputError):  # who reads the series says what is wrong with the sidecar
            known.append(about_sidecar(path, sidecars(path, dataset_of(path)), (), 1))
    odd, words = of_other_settings(known, model) if len(known) == len(images) else ([], "")
    if not words:
        return images, [], []
    if not odd:
        return (
            images,
            [],
            [f"the images differ in more than the {axis_of(model).title}: {words}. Check that they are of one series"],
        )
    paths = [a.path for a in odd]
    names = ", ".join(path.name for path in paths[:6]) + (f" and {len(paths) - 6} more" if len(paths) > 6 else "")
    note = f"{count_of(len(paths), 'image')} left out, of another scan by {words}: {names}"
    return {n: image for n, image in images.items() if image not in paths}, paths, [note]


def _part_of(path: Path, name: BidsName, label: str, sidecars: Sidecars) -> str:
    """Return the part of an image: as its name says, else its sidecar.

    Raises
    ------
    InputError
        For a map among images, and for an image that is named as another part than it is.
    """
    named = name.entities.get("part", "")
    try:
        about = sidecars(path, dataset_of(path))
    except InputError:
        return named  # who reads the series says what is wrong with the sidecar
    kind = image_type_of_sidecar(about, "")
    model = model_of_suffix(name.suffix)
    made_by_scanner = model is not None and model.normalised_range is not None  # from other images, and mapped
    if kind.derived and not made_by_scanner:
        raise InputError(
            f"{label}: expected acquired images, got {path.name}, a map or another derived image according to its "
            f"sidecar ({kind.derived}). Remove it, or correct the sidecar."
        )
    if named == MAGNITUDE and kind.part in PART_WORDS:
        raise InputError(
            f"{label}: {path.name}: expected a magnitude image (part-mag), got {a_part(kind.part)} according to "
            "its sidecar. Correct one of them."
        )
    return named or (kind.part if kind.part in PART_WORDS else "")


def _parts(
    parts: Mapping[str, Mapping[_Number, Path]], label: str, model: type[SignalModel] | None, numbered_by: Sequence[str]
) -> tuple[str, str, list[str]]:
    """Return the part that is mapped, the one that gives its polarity ("" if there is none), and notes.

    Raises
    ------
    InputError
        If there is neither a magnitude nor a real part, or if no part has all of the images.
    """
    most = {n for some in parts.values() for n in some}
    notes: list[str] = []
    if len(parts.get(REAL, ())) >= len(parts.get(MAGNITUDE, ())) > 0 or (REAL in parts and MAGNITUDE not in parts):
        part, other = REAL, IMAGINARY if IMAGINARY in parts else ""
    elif MAGNITUDE in parts:
        part, other = MAGNITUDE, PHASE if PHASE in parts and model is not None and knows_polarity(model) else ""
        if REAL in parts:
            notes.append(
                f"only {len(parts[REAL])} of {len(parts[MAGNITUDE])} images have their real part: it was left out"
            )
    else:
        raise InputError(
            f"{label} has only {' and '.join(f'part-{part}' for part in parts)}. Add the magnitude or the real part."
        )
    if other and parts[other].keys() < parts[part].keys():
        notes.append(
            f"only {len(parts[other])} of {len(parts[part])} images have their {PART_WORDS[other]}: it was not used"
        )
        most, other = {n for p, some in parts.items() if p != other for n in some}, ""
    for one, than in ((part, most), (other, set(parts[part]))):
        if one and parts[one].keys() != than:
            odd = min(parts[one].keys() ^ than, key=_order)
            what = " ".join(f"{e}-{v}" for e, v in zip(numbered_by, odd) if v) or "one"
            counts = " and ".join(f"{len(some)} of part-{p}" for p, some in sorted(parts.items()))
            raise InputError(
                f"{label}: expected the same images of each part, got {counts}; {what} lacks one of them. Add or "
                "remove it."
            )
    return part, other, notes


def _gaps(numbers: Sequence[_Number], numbered_by: Sequence[str], values_ms: Sequence[float | None]) -> list[str]:
    """Return a note if whole numbers are missing between those of the images.

    Parameters
    ----------
    values_ms
        The time of each image, or another value of the axis: names that have it in place of a number have no gaps.
    """
    notes = []
    for entity, values in zip(numbered_by, zip(*numbers)):
        there = {int(value) for value in values if value.isdecimal()}
        if len(there) < len(set(values)) or not there:
            continue
        missing = sorted(set(range(min(*there, 1), max(there))) - there)
        by_value = all(x is not None and abs(int(v) - x) <= 1 for v, x in zip(values, values_ms))
        if missing and not by_value:
            shown = ", ".join(f"{entity}-{n}" for n in missing[:6]) + (" …" if len(missing) > 6 else "")
            notes.append(
                f"{shown} {'is' if len(missing) == 1 else 'are'} missing, although there is {entity}-{max(there)}"
            )
    return notes


def _without_image(key: _Key, numbered_by: Sequence[str], parts: Mapping[str, Mapping[_Number, Path]]) -> list[str]:
    """Return a note if a sidecar of one image of a series, or of one part of it, has no image."""
    named = [(n, BidsName.parse(path.name)) for some in parts.values() for n, path in some.items()]
    there = {(n, name.entities.get("part", "")) for n, name in named if name is not None}
    numbers = {n for n, _ in there}
    lonely = []
    for path in sorted(key[0].iterdir()):
        name = BidsName.parse(path.name) if path.suffix == ".json" and not path.name.startswith(".") else None
        if name is None or series_key(path, numbered_by) != key:
            continue
        number, part = tuple(name.entities.get(e, "") for e in numbered_by), name.entities.get("part", "")
        if any(number) and (number not in numbers or (part and (number, part) not in there)):
            lonely.append(path.name)
    if not lonely:
        return []
    return [
        f"{', '.join(lonely[:6])}{' …' if len(lonely) > 6 else ''}: no image belongs to "
        f"{'this sidecar' if len(lonely) == 1 else 'these sidecars'}"
    ]


def _check_numbers(images: Iterable[_Number], numbered_by: Sequence[str], label: str) -> None:
    """Refuse a series of which some images have a number and others have none: a stack beside its images."""
    for entity, values in zip(numbered_by, zip(*images)):
        if "" in values and any(values):
            raise InputError(
                f"{label}: expected {entity}- in the names of all images or of none, got "
                f"{sum(not value for value in values)} of {len(values)} without it. Possibly the series is stored "
                "twice, as one file and as single images. Remove one of them."
            )


def _order(number: _Number) -> list[list[tuple[int, int, str]]]:
    return [natural(n) for n in number]
