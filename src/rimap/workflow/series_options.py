"""Options of a request that refer to names: scan settings, known parameters, fixed parameters and bounds.

A data set may contain series of several sequences. A named option applies to the series whose model has that name, and
at least one model must have it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rimap.errors import InputError, did_you_mean
from rimap.workflow.request import Request

if TYPE_CHECKING:
    from rimap.signals import SignalModel


def settings_for(request: Request, model: type[SignalModel]) -> dict[str, Any]:
    """Return the settings that the user gave for series of a model."""
    return {name: value for name, value in request.settings.items() if name in setting_names(model)}


def given_for(request: Request, model: type[SignalModel]) -> dict[str, Path | float]:
    """Return the known parameters that the user gave for series of a model.

    A field that the model takes as given (B1) is known if it is held fixed.

    Raises
    ------
    InputError
        For a field that is both given and fixed.
    """
    known = {name: value for name, value in request.given.items() if name in known_names(model)}
    held = {name: value for name, value in request.fixed.items() if name in _given(model)}
    if both := sorted({*known} & {*held}):
        raise InputError(f"--fixed {both[0]}: --given {both[0]} says its values. Leave one of the two out.")
    return known | held


def constraints_for(request: Request, model: type[SignalModel]) -> dict[str, dict[str, Any]]:
    """Return the `fixed` and `bounds` of the user that apply to series of a model."""
    found: dict[str, dict[str, Any]] = {
        "fixed": {
            name: value
            for name, value in request.fixed.items()
            if name in _nonlinear(model) and name not in _given(model)
        },
        "bounds": {name: value for name, value in request.bounds.items() if name in _nonlinear(model)},
    }
    return {option: values for option, values in found.items() if values}


def check_names(request: Request, models: Collection[type[SignalModel]]) -> None:
    """Refuse names that no model has, and files that do not exist.

    Raises
    ------
    InputError
        The message suggests the nearest valid name.
    """
    titles = " and ".join(sorted(model.title.lower() for model in models))
    for option, what, names, valid in (
        ("--set", "a setting", request.settings, _all(setting_names(model) for model in models)),
        ("--given", "a parameter that can be known", request.given, _all(known_names(model) for model in models)),
        ("--fixed", "a parameter", request.fixed, _all(_nonlinear(model) for model in models)),
        ("--bounds", "a parameter", request.bounds, _all(_nonlinear(model) for model in models)),
    ):
        for name in names:
            if name not in valid:
                raise InputError(
                    f"{option} {name}: expected {what} of {titles} ({', '.join(valid) or 'it has none'}), got {name!r}."
                    f"{did_you_mean(name, valid)}"
                )
    for name, value in request.given.items():
        if isinstance(value, Path) and not value.is_file():
            raise InputError(f"--given {name}={value}: expected a number or a file, got neither.")
    for name, (low, high) in request.bounds.items():
        if not low < high:
            raise InputError(f"--bounds {name}: expected LOW,HIGH with LOW below HIGH, got {low:g},{high:g}.")


def named_by(request: Request, model: type[SignalModel], other: type[SignalModel]) -> str:
    """Return the first option of the user that `model` has and `other` does not, "" if there is none."""
    options = (
        Option("--set ", request.settings, setting_names),
        Option("--given ", request.given, known_names),
        Option("--fixed ", request.fixed, _nonlinear),
        Option("--bounds ", request.bounds, _estimated),
    )
    return first_named(options, model, other)


class Option(NamedTuple):
    """An option that takes names: its spelling, the names that the user gave, and the names that a model accepts."""

    written: str
    names: Iterable[str]
    of_model: Callable[[type[SignalModel]], Collection[str]]


def first_named(options: Iterable[Option], model: type[SignalModel], other: type[SignalModel]) -> str:
    """Return the first given name, with its option, that `model` has and `other` does not; "" if there is none."""
    for option in options:
        for name in option.names:
            if name in option.of_model(model) and name not in option.of_model(other):
                return f"{option.written}{name}"
    return ""


def recorded(request: Request, model: type[SignalModel]) -> dict[str, Any]:
    """Return the results of `settings_for` and `given_for`, one entry each, for the record of a series."""
    return {
        **{
            f"set {name}": repr(value) if is_dataclass(value) else value
            for name, value in settings_for(request, model).items()
        },
        **{f"given {name}": value for name, value in given_for(request, model).items()},
    }


def _given(model: type[SignalModel]) -> list[str]:
    """Return the parameters that a model takes as given."""
    return [parameter.name for parameter in model.parameters if parameter.given]


def setting_names(model: type[SignalModel]) -> list[str]:
    from rimap.signals.model_options import other_options
    from rimap.signals.settings import settings_of

    return [*settings_of(model), *other_options(model)]


def _nonlinear(model: type[SignalModel]) -> list[str]:
    return [parameter.name for parameter in model.parameters if not parameter.amplitude]


def _estimated(model: type[SignalModel]) -> list[str]:
    return [parameter.name for parameter in model.parameters if not parameter.amplitude and not parameter.given]


def known_names(model: type[SignalModel]) -> list[str]:
    """Return the names of parameters that can be known beforehand: all but amplitudes and the relaxation time
    itself.
    """
    time = next(parameter.name for parameter in model.parameters if parameter.role == "time")
    return [name for name in _nonlinear(model) if name != time]


def _all(names: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for several in names for name in several))
