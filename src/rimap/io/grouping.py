"""Which files with BIDS names make a series: those that differ in the numbering of its images, and in the part, alone.

The entities that number the images are those of the settings that the signal model declares (``inv``, ``echo``,
``flip``). Files that differ in any other entity, another numbering among them, are of different series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rimap.errors import InputError
from rimap.io.bids import (
    BidsName,
    absolute,
    compose,
    dataset_of,
    is_nifti,
    model_of_suffix,
    models,
    natural,
    numbering_of,
)
from rimap.io.series_files import SeriesFiles
from rimap.signals.options import knows_polarity

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


def series_of(files: Sequence[Path], sequence: str | None) -> list[SeriesFiles]:
    """Return the series that files with BIDS names make.

    Raises
    ------
    InputError
        For files that cannot be of one series.
    """
    groups = _by_key(files, sequence)
    return [replace(_series(f, sequence), siblings=_siblings(key, groups)) for key, f in groups.items()]


def series_of_some(files: Sequence[Path], sequence: str | None) -> list[SeriesFiles]:
    """Return the series of some files: one file of a series stands for all of it, several stand for themselves."""
    series = []
    for key, members in _by_key(files, sequence).items():
        around = [f for f in sorted(members[0].parent.iterdir()) if is_nifti(f) and not f.name.startswith(".")]
        beside = _by_key([f for f in around if numbering(f, sequence) is not None], sequence)
        files_of_series = beside[key] if len(members) == 1 else members
        series.append(replace(_series(files_of_series, sequence), siblings=_siblings(key, beside)))
    return series


def _key(path: Path, numbered_by: Sequence[str]) -> _Key:
    name = BidsName.parse(path.name)
    assert name is not None
    shared = tuple(sorted((k, v) for k, v in name.entities.items() if k not in (*numbered_by, "part")))
    return (absolute(path.parent), shared, name.suffix)


def _by_key(files: Sequence[Path], sequence: str | None) -> dict[_Key, list[Path]]:
    groups: dict[_Key, list[Path]] = {}
    for f in files:
        groups.setdefault(_key(f, numbering(f, sequence) or ()), []).append(f)
    return groups


def _siblings(key: _Key, groups: Iterable[_Key]) -> tuple[str, ...]:
    """Return the suffixes of the series beside this one that have its entities."""
    return tuple(sorted({suffix for folder, shared, suffix in groups if (folder, shared) == key[:2]} - {key[2]}))


def _series(files: Sequence[Path], sequence: str | None) -> SeriesFiles:
    """Return the series of files whose names differ by number and part alone."""
    numbered_by = numbering(files[0], sequence) or ()
    parts: dict[str, dict[_Number, Path]] = {}
    for f in files:
        name = BidsName.parse(f.name)
        assert name is not None
        number = tuple(name.entities.get(e, "") for e in numbered_by)
        images = parts.setdefault(name.entities.get("part", ""), {})
        if number in images:
            raise InputError(f"{images[number].name} and {f.name} are the same image twice. Remove one of them.")
        images[number] = f
    _, shared, suffix = _key(files[0], numbered_by)
    entities = dict(shared)
    label = compose(entities, suffix).replace("_", " ")
    part, other = _parts(parts, label, model_of_suffix(suffix, sequence) or (models()[sequence] if sequence else None))
    images = parts[part]
    if other and parts[other].keys() != images.keys():
        odd = min(parts[other].keys() ^ images.keys(), key=_order)
        what = " ".join(f"{e}-{v}" for e, v in zip(numbered_by, odd) if v) or "one"
        raise InputError(
            f"{label}: {len(images)} images of {f'part-{part}' if part else 'magnitude'} and {len(parts[other])} of "
            f"part-{other}; {what} lacks one of them. Add or remove it."
        )
    _check_numbers(images, numbered_by, label)
    order = sorted(images, key=_order)
    ordered = [(p.split("-", 1)[0], p.split("-", 1)[1]) for p in compose(entities, "").split("_") if p]
    return SeriesFiles(
        images=tuple(images[n] for n in order),
        entities=dict(ordered),
        suffix=suffix,
        stem="_".join("-".join(x) for x in ordered) or suffix,
        dataset=dataset_of(files[0]),
        label=label,
        part=part,
        companions=tuple(parts[other][n] for n in order) if other else (),
        sequence=sequence
        if model_of_suffix(suffix) is None or model_of_suffix(suffix, sequence) != model_of_suffix(suffix)
        else None,
    )


def _parts(parts: Iterable[str], label: str, model: object) -> tuple[str, str]:
    """Return the part that is mapped and the one that gives its polarity, "" if there is none."""
    parts = list(parts)
    if "real" in parts:
        return "real", "imag" if "imag" in parts else ""
    if "mag" in parts or "" in parts:
        part, other = ("mag" if "mag" in parts else ""), ("phase" if "phase" in parts else "")
    else:
        raise InputError(
            f"{label} has only {' and '.join(f'part-{p}' for p in parts)}. Add the magnitude or the real part."
        )
    return part, other if model is not None and knows_polarity(model) else ""


def _check_numbers(images: Iterable[_Number], numbered_by: Sequence[str], label: str) -> None:
    """Refuse a series of which some images have a number and others have none: a stack beside its images."""
    for entity, values in zip(numbered_by, zip(*images)):
        if "" in values and any(values):
            raise InputError(
                f"{label}: expected {entity}- in the names of all images or of none, got {sum(not v for v in values)} of "
                f"{len(values)} without it. Is the series there twice, as one file and image by image? Remove one of them."
            )


def _order(number: _Number) -> list[list[tuple[int, int, str]]]:
    return [natural(n) for n in number]
