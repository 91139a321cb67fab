"""Times in milliseconds that must be seconds: the slip that makes every map a thousandth."""

from __future__ import annotations

from collections.abc import Sequence

from rimap.errors import InputError
from rimap.signals.base import SignalModel

#: Where the longest time is below these, times in milliseconds are seconds (ms).
LEAST_MS = {"InversionTime": 10.0, "EchoTime": 1.0}


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
    if 0 < max(times_ms) < LEAST_MS.get(model.bids_time, 0.0):
        in_ms = [f"{t * 1000:g}" for t in times_ms[:3]] + ["…"] * (len(times_ms) > 3)
        given = f"{name} {' '.join(in_ms)}" if name.startswith("-") else f"{name} = [{', '.join(in_ms)}]"
        raise InputError(
            f"the longest of {name} is {max(times_ms):g} ms, too short for {model.title.lower()}. Are these seconds? "
            f"Then give them in milliseconds: {given}"
        )
