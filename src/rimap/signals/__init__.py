"""Signal models: one file each, found by looking into this folder."""

from __future__ import annotations

from rimap.discovery import classes_in
from rimap.signals.base import Parameter, SignalModel

__all__ = ["Parameter", "SignalModel", "signal_models"]


def signal_models() -> dict[str, type[SignalModel]]:
    """Return every signal model, by the name that `--sequence` takes.

    >>> sorted(signal_models())
    ['ir', 't2']
    """
    return classes_in("rimap.signals", SignalModel)  # type: ignore[type-abstract]
