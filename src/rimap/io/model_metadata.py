"""A signal model as the fields of a sidecar, and back: each declared setting under its field, in the unit of BIDS."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rimap.errors import InputError
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.model_options import knows_polarity, other_options, polarity
from rimap.signals.settings import WITH_ARRAYS, Setting, settings_of

#: The field for whether images keep their polarity, and those for what else a model is made with.
_SIGNED, _OPTIONS, _BOUNDS = "SignedImages", "SignalModelOptions", "ParameterBounds"
#: The class of an option that is an object.
_CLASS = "Class"


def settings_metadata(model: SignalModel) -> dict[str, Any]:
    """Return the fields of a sidecar for all that a signal model was made with.

    A setting that differs between the images is an array: under its own field if BIDS takes one there, else under the
    plural of the field (InversionTimes).
    """
    axis = axis_of(type(model)).name
    found: dict[str, Any] = {}
    for setting in settings_of(type(model)).values():
        value, name = getattr(model, setting.name), field_of(setting, type(model))
        if value is None:
            continue
        values = [setting.in_sidecar(v) for v in np.atleast_1d(value).tolist()]
        if setting.per_image is False:
            found[name] = values[0] if len(values) == 1 else values
        elif setting.name != axis and len(set(values)) == 1:
            found[name] = values[0]
        elif name in setting.bids and not (name in WITH_ARRAYS and min(values) > 0):
            found[plural(name)] = values
        else:
            found[name] = values
    if knows_polarity(model):
        found[_SIGNED] = model.is_signed
    options = {name: getattr(model, name) for name in other_options(model)}
    if options:
        found[_OPTIONS] = {name: _as_json(value) for name, value in options.items()}
    if model.box:
        found[_BOUNDS] = {name: [low, high] for name, low, high in model.box}
    return found


def model_from_metadata(model: type[SignalModel], about: Mapping[str, Any], where: str) -> SignalModel:
    """Return the signal model that `settings_metadata` describes.

    Parameters
    ----------
    about
        The sidecar.
    where
        The name of the sidecar, for messages.

    Raises
    ------
    InputError
        If a required setting is missing, or a value cannot be.
    """
    options: dict[str, Any] = {}
    for setting in settings_of(model).values():
        values = _read(setting, model, about, where)
        if values is not None:
            options[setting.name] = values
        elif setting.required:
            raise InputError(f"{where}: expected {field_of(setting, model)}, got none. Map the series again.")
    if knows_polarity(model):
        options |= polarity(about.get(_SIGNED) is True)
    bounds = about.get(_BOUNDS)
    if isinstance(bounds, dict):
        options["box"] = tuple((str(name), float(bound[0]), float(bound[1])) for name, bound in bounds.items())
    others = about.get(_OPTIONS)
    others = (
        {key: value for key, value in others.items() if key in other_options(model)} if isinstance(others, dict) else {}
    )
    if not others:
        return model(**options)
    plain = model(**options)
    return dataclasses.replace(plain, **{key: _from_json(value, getattr(plain, key)) for key, value in others.items()})


def _as_json(value: Any) -> Any:
    """Return an option of a model as JSON: an object (a slice profile) by its class and its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {_CLASS: type(value).__name__} | {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value)
        }
    return value


def _from_json(value: Any, default: Any) -> Any:
    """Return an option from JSON. An object must be of a class like that of the default: a sidecar runs no other
    code.
    """
    if isinstance(value, list):
        return tuple(_from_json(v, None) for v in value)
    if not isinstance(value, dict) or _CLASS not in value:
        return value
    alike: dict[str, Any] = {}
    for base in type(default).__mro__[1:-1]:
        subclasses: list[Any] = base.__subclasses__()
        alike |= {subclass.__name__: subclass for subclass in subclasses}
    found = alike.get(str(value[_CLASS]))
    if found is None:
        raise InputError(f"expected an option of class {' or '.join(sorted(alike)) or 'none'}, got {value[_CLASS]!r}.")
    return found(**{key: _from_json(v, None) for key, v in value.items() if key != _CLASS})


def field_of(setting: Setting, model: type[SignalModel]) -> str:
    """Return the field that a setting has in the sidecar of a map.

    Settings that are read from the same field of different images (the inversion times of UNIT1) are numbered.
    """
    same = [s.name for s in settings_of(model).values() if s.sidecar_field == setting.sidecar_field]
    number = str(same.index(setting.name) + 1) if len(same) > 1 else ""
    return f"{setting.sidecar_field}{number}"


def plural(field: str) -> str:
    """Return the name of a field that has a value for each image.

    >>> plural("InversionTime"), plural("RepetitionTimePreparation")
    ('InversionTimes', 'RepetitionTimesPreparation')
    """
    return re.sub(r"Time(?=[A-Z]|$)", "Times", field) if re.search(r"Time(?=[A-Z]|$)", field) else f"{field}s"


def _read(
    setting: Setting, model: type[SignalModel], about: Mapping[str, Any], where: str
) -> float | Sequence[float] | None:
    own = field_of(setting, model)
    names = (own, *(setting.bids if own in setting.bids else ()))
    fields = [f for name in names for f in (name, plural(name))]
    field = next((field for field in fields if about.get(field) is not None), None)
    if field is None:
        return None
    value = about[field]
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise InputError(f"{where}: expected numbers in {field}, got {str(value)[:60]}. Map the series again.")
    found = tuple(setting.from_sidecar(value) for value in values)
    return found[0] if setting.per_image is False and len(found) == 1 else found
