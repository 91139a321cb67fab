"""Signal models: one file each, found by looking into this folder."""

from __future__ import annotations

from rimap.discovery import classes_in
from rimap.signals.base import AMPLITUDE, TIME, Parameter, SignalModel
from rimap.signals.settings import settings_of

__all__ = ["Parameter", "SignalModel", "signal_models"]


def signal_models() -> dict[str, type[SignalModel]]:
    """Return every signal model, by the name that `--sequence` takes.

    >>> sorted(signal_models())
    ['ir', 'look-locker', 'megre', 'megre-offset', 'mese', 'molli', 'mp2rage', 'mp2rage-uni', 'sr', 't2', 'vfa']
    """
    return classes_in("rimap.signals", SignalModel, _fault)  # type: ignore[type-abstract]


def _fault(model: type[SignalModel]) -> str:
    """Return what every command needs of a signal model and this one lacks, "" if nothing."""
    parameters = getattr(model, "parameters", None)
    if not isinstance(parameters, tuple) or not all(isinstance(parameter, Parameter) for parameter in parameters):
        return f"expected a tuple of Parameter as its parameters, got {parameters!r}"
    names, roles = [parameter.name for parameter in parameters], [parameter.role for parameter in parameters]
    if len(set(names)) < len(names):
        return f"expected a name of its own for each parameter, got {', '.join(names)}"
    if roles.count(TIME) != 1 or AMPLITUDE not in roles:
        return f"expected one parameter with the role time and one or more amplitudes, got {', '.join(roles)}"
    if not any(s.per_image for s in settings_of(model).values()):
        return "expected a setting with a value for each image (is @dataclass(frozen=True) missing?)"
    return ""
