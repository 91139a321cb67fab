"""Signal models: one file each, found by looking into this folder."""

from __future__ import annotations

from rimap.discovery import classes_in
from rimap.signals.base import Parameter, SignalModel
from rimap.signals.model_checks import fault_of_declarations

__all__ = ["Parameter", "SignalModel", "signal_models"]


def signal_models() -> dict[str, type[SignalModel]]:
    """Return every signal model, by the name that `--sequence` takes.

    >>> sorted(signal_models())
    ['ir', 'look-locker', 'megre', 'megre-offset', 'mese', 'molli', 'mp2rage', 'mp2rage-uni', 'sr', 't2', 'vfa']
    """
    return classes_in("rimap.signals", SignalModel, fault_of_declarations)  # type: ignore[type-abstract]
