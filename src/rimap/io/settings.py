"""What the scanner was set to: each setting that a signal model declares, from the sidecars or from the user.

Sidecars have the units of BIDS (seconds, degrees); what is returned is in the unit of the setting (ms, degrees).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rimap.errors import InputError, count_of
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.model_options import other_options
from rimap.signals.settings import REPETITION_TIME, Setting, settings_of

#: A setting that all images share may be written with this relative difference: some scanners round it for each image.
_ROUNDING = 1e-3
#: Units as messages name them, in rimap and in a sidecar.
_IN_RIMAP = {"ms": "milliseconds", "deg": "degrees"}
#: Units of BIDS, by ours.
_IN_SIDECARS = {"ms": "seconds", "deg": "degrees"}
#: Units that are mistaken for the right one: for values that are too large, and for those that are too small.
_TOO_LARGE = {"ms": (("milliseconds", 1e-3), ("microseconds", 1e-6))}
#: What a value that is too small may have been given in, and the factor to our unit.
_TOO_SMALL = {"deg": ("radians", 180 / math.pi)}
#: No scan has a smaller angle than this, in degrees, beside larger ones: some sidecars have radians. (0 measures the
#: noise.)
_LEAST_ANGLE_DEG = 0.5


@dataclass(frozen=True)
class Files:
    """The files of a series, as far as settings need to know them.

    Parameters
    ----------
    images
        Their paths.
    counts
        The number of volumes of each.
    metadata
        The sidecar of each.
    elsewhere
        The sidecars that have a setting in place of those, by the name of the setting.
    """

    images: Sequence[Path]
    counts: Sequence[int]
    metadata: Sequence[Mapping[str, Any]]
    elsewhere: Mapping[str, Sequence[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)

    def of(self, setting: Setting) -> Files:
        """Return the files with the sidecars that have a setting."""
        found = self.elsewhere.get(setting.name)
        return self if found is None else replace(self, metadata=found)

    @property
    def n_images(self) -> int:
        """N, the number of volumes of all files."""
        return sum(self.counts)


def settings_from_sidecars(
    images: Sequence[Path],
    counts: Sequence[int],
    metadata: Sequence[Mapping[str, Any]],
    model: type[SignalModel],
    known: Mapping[str, Sequence[float]] | None = None,
    elsewhere: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """Return the settings of a series from its sidecars, and notes on what was not used.

    Parameters
    ----------
    images, counts, metadata
        The files, the number of volumes of each and its sidecar. A file of several volumes has an array of values, or
        one value that its volumes share. (A value of the axis is shared only by repeats, that is if there are several
        files.)
    model
        What declares the settings.
    known
        Settings that the user gave, in rimap's unit: these are not read.
    elsewhere
        For each image, the sidecar that has a setting in place of its own, by the name of the setting.

    Returns
    -------
    settings
        By name, in the unit of the setting: a value for each image, or one value. Optional settings that the sidecars
        lack are left out.
    notes
        What the user should know.

    Raises
    ------
    InputError
        For a required setting that a sidecar lacks, for values that are no numbers, negative or in another unit, and
        where their number is not that of the images.
    """
    files, known = Files(images, counts, metadata, elsewhere or {}), dict(known or {})
    found: dict[str, tuple[float, ...]] = {}
    notes: list[str] = []
    for setting in settings_of(model).values():
        if setting.name in known:
            continue
        values, why = _from_files(setting, files.of(setting), model, {**found, **known})
        if values is not None:
            found[setting.name] = values
        notes += [why] if why else []
    return found, notes


def settings_from_user(
    settings: Mapping[str, Any], n_images: int, model: type[SignalModel], label: str
) -> dict[str, tuple[float, ...]]:
    """Return settings that the user gave, by name, checked.

    Parameters
    ----------
    settings
        Values by name of a setting of the model, in its unit (ms, degrees): one, or one for each image in the order of
        the images.
    n_images
        N.
    label
        The series, for messages.

    Raises
    ------
    InputError
        For a name that the model does not have, values that are no numbers, negative, or in another unit, and where
        their number is not that of the images.
    """
    declared = settings_of(model)
    return {
        name: _checked(_declared(declared, name, model), values, n_images, model, label)
        for name, values in settings.items()
    }


def split_settings(
    settings: Mapping[str, Any] | None,
    model: type[SignalModel],
    *,
    times_ms: Iterable[float] | None = None,
    tr_ms: float | Iterable[float] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the user set, by name: settings of the model, and its other options (the profile of a pulse).

    `times_ms` are those of the axis, and `tr_ms` is the setting ``tr`` where the model has one.

    Raises
    ------
    InputError
        For a name that the model does not have, a setting that is given twice, and times of an axis that is not one of
        times.
    """
    declared, axis = settings_of(model), axis_of(model)
    options = set(other_options(model))
    given = dict(settings or {})
    if times_ms is not None:
        if axis.unit != "ms":
            raise InputError(
                f"--times-ms: the images of {model.title.lower()} differ in the {axis.title}, not in a time. Use --set "
                f"{axis.name}=VALUES, in {_IN_RIMAP.get(axis.unit, axis.unit)}."
            )
        _add(given, axis.name, times_ms, "--times-ms")
    if tr_ms is not None and REPETITION_TIME in declared:
        _add(given, REPETITION_TIME, tr_ms, "--tr-ms")
    mine = {name: values for name, values in given.items() if name not in options}
    for name in mine:
        _declared(declared, name, model)
    return mine, {name: value for name, value in given.items() if name in options}


def option_of(setting: Setting, model: type[SignalModel]) -> str:
    """Return the option of the command line that sets a setting: ``--times-ms``, ``--tr-ms`` or ``--set NAME``."""
    if setting.unit == "ms":
        if setting.name == axis_of(model).name:
            return "--times-ms"
        if setting.name == REPETITION_TIME:
            return "--tr-ms"
    return f"--set {setting.name}"


def sidecar_field(setting: Setting, metadata: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the field that all sidecars have, the preferred one first; `None` if there is none."""
    return next(
        (
            sidecar_field
            for sidecar_field in setting.sidecar_fields
            if metadata and all(m.get(sidecar_field) is not None for m in metadata)
        ),
        None,
    )


def _add(given: dict[str, Any], name: str, values: Any, option: str) -> None:
    if name in given:
        raise InputError(f"{option} and --set {name}: expected one of them, got both. Leave one out.")
    given[name] = values


def _declared(declared: Mapping[str, Setting], name: str, model: type[SignalModel]) -> Setting:
    if name not in declared:
        raise InputError(
            f"--set {name}: expected a setting of {model.title.lower()} ({', '.join(declared)}), got {name!r}. Correct "
            f"the "
            "name, or leave it out."
        )
    return declared[name]


def _checked(setting: Setting, values: Any, n_images: int, model: type[SignalModel], label: str) -> tuple[float, ...]:
    option = option_of(setting, model)
    what = f"numbers in {_IN_RIMAP.get(setting.unit, 'no unit')}"
    try:
        given = list(values) if isinstance(values, (list, tuple)) else np.asarray(values, dtype=float).reshape(-1)
        numbers = tuple(float(v) for v in given)
    except (TypeError, ValueError):
        raise InputError(f"{option}: expected {what}, got {values!r}.") from None
    if not numbers:
        raise InputError(f"{option}: expected {what}, got no {_kind(setting)}s. Give one for each image.")
    for number in numbers:
        if not math.isfinite(number) or number < 0:
            raise InputError(f"{option}: expected {what}, finite and not negative, got {number:g}.")
    allowed = {True: (n_images,), False: setting.lengths, None: (1, n_images)}[setting.per_image]
    if len(numbers) not in allowed:
        if setting.per_image is not True:
            more = "" if setting.per_image is False else f", or one for each of the {n_images} images"
            raise InputError(
                f"{label}: {option}: expected one {setting.symbol}{more}, got {count_of(len(numbers), 'value')}."
            )
        raise InputError(
            f"{count_of(len(numbers), _kind(setting))}, {count_of(n_images, 'image')}: {option} must have one value "
            f"for each image of {label}, in the order of the images. Check that no {_kind(setting)} or image is "
            f"missing."
        )
    setting.refuse_other_unit(numbers, option)
    if max(numbers) > setting.plausible[1]:
        raise InputError(
            f"{option}: expected {what}, at most {setting.plausible[1]:g}, got {max(numbers):g}. Correct the "
            f"{_kind(setting)}s."
        )
    return numbers


def _from_files(
    setting: Setting, files: Files, model: type[SignalModel], known: Mapping[str, Sequence[float]]
) -> tuple[tuple[float, ...] | None, str]:
    """Return the values of a setting, `None` if it is to be left out, and a note, "" if there is nothing to say."""
    present = [
        sidecar_field
        for sidecar_field in setting.sidecar_fields
        if all(m.get(sidecar_field) is not None for m in files.metadata)
    ]
    why = ""
    for field in present:
        values = _read(setting, field, files, model)
        shorter = _not_longer(setting, values, known)
        if shorter is None:
            _refuse_too_small(setting, field, values, files, model)
            return values, ""
        title = settings_of(model)[setting.longer_than].title
        why = (
            f"{field} is {shorter:g} {setting.unit}, not longer than the {title}: it is the time between readouts and "
            "was not used"
        )
        why += f". {setting.if_shorter}" if setting.if_shorter else ""
    if setting.required:
        raise _missing(setting, files, model)
    some = next(
        (
            sidecar_field
            for sidecar_field in setting.sidecar_fields
            if any(m.get(sidecar_field) is not None for m in files.metadata)
        ),
        None,
    )
    if not present and some is not None:
        lacking = next(image for image, m in zip(files.images, files.metadata) if m.get(some) is None)
        why = f"{some} is not in all sidecars ({lacking.name} lacks it) and was not used"
    return None, why


def _not_longer(setting: Setting, values: Sequence[float], known: Mapping[str, Sequence[float]]) -> float | None:
    """Return the least value where one does not exceed that of the setting it must exceed, else `None`."""
    others = known.get(setting.longer_than)
    if not setting.longer_than or others is None:
        return None
    several = values if len(values) == len(others) else list(values)[:1] * len(others)
    return None if all(v > other for v, other in zip(several, others)) else min(values)


def _read(setting: Setting, field: str, files: Files, model: type[SignalModel]) -> tuple[float, ...]:
    """Return the values that the sidecars have, in the unit of the setting: one for each image."""
    is_axis = setting.name == axis_of(model).name
    found: list[float] = []
    shared: list[tuple[float, ...]] = []
    for path, count, meta in zip(files.images, files.counts, files.metadata):
        values = _own(setting, field, numbers_in(meta[field], field, path, setting), files, model)
        _refuse_too_large(setting, field, values, path, model)
        if setting.per_image is False:
            shared.append(_shared(setting, field, values, path))
            continue
        if len(values) == 1 and count > 1 and (len(files.images) > 1 or not is_axis):
            values = values * count
        if len(values) != count:
            raise InputError(
                f"{count_of(len(values), _kind(setting))}, {count_of(count, 'image')}: {field} in the sidecar of "
                f"{path.name} must have one value for each of its {count} volumes. Correct the sidecar, or give "
                f"{option_of(setting, model)}."
            )
        found += [setting.from_sidecar(value) for value in values]
    for several in shared:
        if len(several) != len(shared[0]) or not np.allclose(several, shared[0], rtol=_ROUNDING, atol=0):
            raise InputError(
                f"{files.images[0].name}: expected one {setting.title} for all images, got {field} "
                f"{_listed(setting, shared[0])} and {_listed(setting, several)}. Map them one at a time, or give "
                f"{option_of(setting, model)}."
            )
    return shared[0] if shared else tuple(found)


def _shared(setting: Setting, field: str, values: Sequence[float], path: Path) -> tuple[float, ...]:
    """Return the value that all images share, from one sidecar: one number, unless the setting has several."""
    # (n, n) pulses before and after the centre are not n in all: fewer values only where that many cannot be.
    distinct = values if len(values) in setting.lengths or len(set(values)) > 1 else values[:1]
    if len(distinct) not in setting.lengths:
        lengths = " or ".join(map(str, setting.lengths))
        raise InputError(
            f"{path.name}: expected {lengths} value{'s' * (setting.lengths != (1,))} of {field} for all images, got "
            f"{len(distinct)} in "
            "its sidecar. Correct the sidecar."
        )
    return tuple(setting.from_sidecar(v) for v in distinct)


def _listed(setting: Setting, values: Sequence[float]) -> str:
    return ", ".join(f"{setting.in_sidecar(value):g}" for value in values)


def numbers_in(value: object, field: str, path: Path, setting: Setting) -> list[float]:
    """Return the number, or the array of numbers, of a sidecar field.

    Raises
    ------
    InputError
        For anything that is not a finite number, or a negative one.
    """
    unit = _IN_SIDECARS.get(setting.unit, "no unit")
    values: list[Any] = value if isinstance(value, list) else [value]
    for v in values:
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not abs(v) < 1e300:
            raise InputError(
                f"{path.name}: expected {field} in {unit}, a number, got {_short(v)} in its sidecar. Correct the "
                "sidecar."
            )
        if v < 0:
            raise InputError(
                f"{path.name}: expected {field} in {unit}, got {v:g} in its sidecar; it cannot be negative. Correct it."
            )
    return [float(value) for value in values]


def _refuse_too_large(
    setting: Setting, field: str, values: Sequence[float], path: Path, model: type[SignalModel]
) -> None:
    largest = max(values, default=0.0)
    if largest * setting.factor <= setting.plausible[1]:
        return
    least, most = setting.plausible
    candidates = _TOO_LARGE.get(setting.unit, ())
    fitting = [x for x in candidates if least <= largest * x[1] * setting.factor <= most]
    other, factor = fitting[0] if fitting else ("", 1.0)
    remedy = f"If these are {other}, write {largest * factor:g} there, or" if other else "Correct it, or"
    raise InputError(
        f"{path.name}: expected {field} in {_IN_SIDECARS.get(setting.unit, 'no unit')}, got {largest:g} in its "
        f"sidecar. {remedy} give {option_of(setting, model)}."
    )


def _refuse_too_small(
    setting: Setting, field: str, values: Sequence[float], files: Files, model: type[SignalModel]
) -> None:
    other, factor = _TOO_SMALL.get(setting.unit, ("", 1.0))
    if other and len(values) == len(files.images):
        for path, value in zip(files.images, values):
            if 0 < value < _LEAST_ANGLE_DEG <= max(values):
                raise InputError(
                    f"{path.name}: expected {field} in {_IN_SIDECARS[setting.unit]}, got {value:g} in its sidecar, "
                    f"where others have up to {max(values):g}. If it is in {other}, write {value * factor:.3g} there."
                )
    largest = max(values, default=0.0)
    if not 0 < largest < setting.plausible[0]:
        return
    written = largest / setting.factor
    remedy = f"If these are {other}, write {written * factor:.3g} there, or" if other else "Correct it, or"
    raise InputError(
        f"{files.images[0].name}: expected {field} in {_IN_SIDECARS.get(setting.unit, 'no unit')}, got at most "
        f"{written:g} in the sidecars, which is too small. {remedy} give {option_of(setting, model)}."
    )


def _own(setting: Setting, field: str, values: list[float], files: Files, model: type[SignalModel]) -> list[float]:
    """Return the value of this setting from a sidecar that has those of several images (UNIT1: of INV1 and INV2).

    Raises
    ------
    InputError
        If the sidecar of the image itself has one value for all of them: the other ones are not known.
    """
    sharing = [s.name for s in settings_of(model).values() if s.read_from and field in s.sidecar_fields]
    several = {s.read_from for s in settings_of(model).values() if s.name in sharing}
    if setting.name not in sharing or len(several) < 2 or setting.name in files.elsewhere:
        return values
    if len(values) == len(sharing):
        return [values[sharing.index(setting.name)]]
    if len(values) == 1:
        raise InputError(
            f"{files.images[0].name}: expected {field} of {' and '.join(sorted(several))}, got one value in its "
            f"sidecar. Add the sidecars of these images, write {len(sharing)} values there, or give "
            f"{' and '.join(f'--set {name}=VALUE' for name in sharing)}."
        )
    return values


def _missing(setting: Setting, files: Files, model: type[SignalModel]) -> InputError:
    option = option_of(setting, model)
    by_name = f"--set {setting.name}=VALUES"
    remedy = f"{option} ({by_name})" if option.endswith("-ms") else by_name
    most = max(setting.sidecar_fields, key=lambda f: sum(m.get(f) is not None for m in files.metadata))
    lacking = next((image for image, m in zip(files.images, files.metadata) if m.get(most) is None), files.images[0])
    where = f" or that of {setting.read_from}" if setting.read_from else ""
    return InputError(
        f"{lacking.name}: no {most} in its sidecar{where}, or no sidecar. Add {most} "
        f"({_IN_SIDECARS.get(setting.unit, 'no unit')}), or give "
        f"{remedy}."
    )


def _kind(setting: Setting) -> str:
    """Return what one value is called: ``time``, ``flip angle``."""
    return "time" if setting.unit == "ms" else setting.title


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a number of more than 20 digits"
    return text if len(text) <= 60 else f"{text[:57]}…"
