"""Who hears of a run while it is going on; by default nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

#: Called with (done, of how many).
Progress = Callable[[int, int], None]


def _ignore(text: str) -> None:
    """Do nothing with a message."""


@contextmanager
def _no_progress(label: str) -> Iterator[Progress | None]:
    """Report no progress."""
    yield None


@dataclass(frozen=True)
class Listener:
    """What a run tells while it is going on.

    Parameters
    ----------
    progress
        Called with the name of a series; a context that gives what to call with (done, of how many), or `None`.
    say
        Called with a line about what has been done.
    warn
        Called with a line about what could not be done, or is done in another way than was asked for.
    """

    progress: Callable[[str], AbstractContextManager[Progress | None]] = _no_progress
    say: Callable[[str], None] = _ignore
    warn: Callable[[str], None] = _ignore


SILENT = Listener()
