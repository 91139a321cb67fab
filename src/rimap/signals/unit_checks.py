"""Times in milliseconds that must be seconds: the slip that makes every map a thousandth."""

from __future__ import annotations

from collections.abc import Sequence

from rimap.signals.base import SignalModel, axis_of


def refuse_seconds(times_ms: Sequence[float], model: type[SignalModel], name: str) -> None:
    """Refuse times that were meant to be milliseconds and look like seconds.

    Parameters
    ----------
    name
        What they are called where they were given: ``--times-ms``, ``times_ms``.

    Raises
    ------
    InputError
        With the same times in milliseconds.
    """
    axis_of(model).refuse_other_unit(times_ms, name)
