"""The one exception for what a user can mend, and a word for its messages."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message says what was expected, what came and what to do.

    The command line prints it and exits with status 2; anything else that is raised is a defect of rimap.
    """


def count_of(n: int, what: str) -> str:
    """Return a number of things in words.

    >>> count_of(1, "image"), count_of(31, "image")
    ('1 image', '31 images')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


class PluginWarning(UserWarning):
    """A signal model or an estimator of another package cannot be used; the text says which and why."""
