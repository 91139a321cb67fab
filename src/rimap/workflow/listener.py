"""Report the progress and messages of a run while it is running. By default nothing is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

#: A function of (done, total).
Progress = Callable[[int, int], None]


def _ignore(text: str) -> None:
    """Do nothing with a message."""


@contextmanager
def _no_progress(label: str) -> Iterator[Progress | None]:
    """Report no progress."""
    yield None


@dataclass(frozen=True)
class Listener:
    """Functions that a run calls while it is running.

    Parameters
    ----------
    progress
        Called with the name of a series. Returns a context manager that yields a function of (done, total), or `None`.
    say
        Called with a line about what has been done.
    warn
        Called with a line about something that failed, or that is done in another way than requested.
    """

    progress: Callable[[str], AbstractContextManager[Progress | None]] = _no_progress
    say: Callable[[str], None] = _ignore
    warn: Callable[[str], None] = _ignore


#: For callers who do not listen.
SILENT = Listener()
