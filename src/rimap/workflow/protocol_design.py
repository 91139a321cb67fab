"""The input and output of `rimap design`: the present protocol from options or files, and the files that are
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.atomic import as_bytes
from rimap.io.reading_options import Reading
from rimap.io.series_search import find_series
from rimap.planning.design import Design
from rimap.planning.goal import Goal
from rimap.report.design_page import page
from rimap.report.design_text import as_json, precision_tsv, protocol_tsv
from rimap.signals import signal_models
from rimap.signals.base import SignalModel, axis_of, predicting
from rimap.signals.settings import REPETITION_TIME, settings_of
from rimap.workflow.tables import write_new

#: Files that a design writes into its folder.
FILES = ("design.html", "design.json", "design.tsv", "protocol.tsv")


def present_from_files(
    path: Path, sequence: str | None, settings: Mapping[str, Any], times_ms: tuple[float, ...] | None
) -> SignalModel:
    """Return the protocol of a series that was scanned: its signal model with all settings.

    Raises
    ------
    InputError
        If there is not exactly one series, or its settings are not known.
    """
    found = find_series(path, sequence=sequence)
    if len(found) > 1:
        raise InputError(
            f"{path}: expected one series, got {len(found)} "
            f"({', '.join(f.label for f in found[:6])}{', …' if len(found) > 6 else ''}). "
            "Give a file of one series, or --sequence."
        )
    (files,) = found
    return files.open(Reading(times_ms=times_ms, settings=settings or None, sequence=sequence)).model


def present_from_options(
    sequence: str, settings: Mapping[str, Any], times_ms: tuple[float, ...] | None
) -> SignalModel | None:
    """Return the protocol that the options describe, `None` if they lack the values that differ between the images.

    The protocol may have fewer images than the model has parameters. The design then reports what it cannot measure.

    Raises
    ------
    InputError
        If the model refuses the settings.
    """
    kind = signal_models().get(sequence)
    if kind is None:
        return None
    axis = axis_of(kind)
    values: dict[str, Any] = dict(settings)
    if times_ms is not None:
        if axis.unit != "ms":
            raise InputError(f"--times-ms: {sequence} varies the {axis.title}, not a time. Give --set {axis.name}=….")
        values[axis.name] = times_ms
    if axis.name not in values:
        return None
    known = {field.name for field in fields(kind) if field.init}
    values = {name: value for name, value in values.items() if name in known}
    for s in settings_of(kind).values():
        if s.required and s.name not in values:
            values[s.name] = kind.typical_protocol.get(s.name) or float(
                f"{(s.drawn_from[0] * s.drawn_from[1]) ** 0.5:.2g}"
            )
    try:
        return kind(**values)
    except InputError:
        return predicting(kind)(**values)


def settings_of_goal(
    kind: type[SignalModel], present: SignalModel | None, settings: Mapping[str, Any], kept: tuple[str, ...]
) -> dict[str, Any]:
    """Return the settings that a design does not choose: those of the user, and those kept from the present protocol.

    Raises
    ------
    InputError
        If the value of a setting to keep is not known.
    """
    axis = axis_of(kind)
    found = dict(settings)
    if present is not None:
        known = {s.name: getattr(present, s.name) for s in settings_of(kind).values()}
        found = {name: value for name, value in known.items() if not _follows(present, name)} | found
        found |= {
            name: getattr(present, name)
            for name in (field.name for field in fields(kind))
            if name not in found and name != "box"
        }
    declared = settings_of(kind)
    chosen = {axis.name, *kind.cycle.also_chosen}
    chosen |= {REPETITION_TIME} if declared.get(REPETITION_TIME) and declared[REPETITION_TIME].longer_than else set()
    for name in kept:
        if found.get(name) is None or name == axis.name:
            raise InputError(f"--keep {name}: expected a setting that the present protocol has a value of, got none.")
    for name in settings:
        if present is None and name in chosen and name not in kept:
            title = declared[name].title
            raise InputError(
                f"expected a present protocol with the {title} that was given ({name}), got none, and a design chooses "
                f"the {title}. Fix it with --keep {name}, or give the {axis.title}s of the present protocol."
            )
    out = {name: value for name, value in found.items() if value is not None and (name not in chosen or name in kept)}
    return {
        name: _one(value) if name in declared and declared[name].per_image is not False else value
        for name, value in out.items()
    }


def _follows(present: SignalModel, name: str) -> bool:
    """Return whether a setting follows from the others, as the echo spacing follows from the echo times."""
    if settings_of(present)[name].required or getattr(present, name) is None:
        return False
    values = {
        field.name: getattr(present, field.name)
        for field in fields(present)
        if field.init and field.name not in (name, "box")
    }
    try:
        return bool(getattr(type(present)(**values), name) == getattr(present, name))
    except InputError:
        return False


def _one(value: Any) -> Any:
    """Return a single value if all images share it, because a design may have another number of images."""
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    return values[0] if len(set(values)) == 1 else max(values)


def write_design(
    found: Design, out: Path, limit_percent: float, command: str = "", *, overwrite: bool = False
) -> list[Path]:
    """Write the page, the tables and the JSON file, all or none; return their paths.

    Raises
    ------
    InputError
        If the folder cannot be written, or if one of the files exists and `overwrite` is false.
    """
    texts = (page(found, limit_percent, command), as_json(found, command), precision_tsv(found), protocol_tsv(found))
    return write_new({out / name: as_bytes(text) for name, text in zip(FILES, texts)}, overwrite=overwrite)


__all__ = ["Goal", "present_from_files", "present_from_options", "settings_of_goal", "write_design"]
