"""The one exception for input that the user can correct, and words for its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Bad input: the message says what was expected, what rimap got and what to do.

    The command line prints it and exits with status 2. Any other exception is a bug of rimap.
    """


class NoiseLevelError(InputError):
    """The noise level is not known, and this estimator needs it."""


def count_of(n: int, what: str) -> str:
    """Return a number of things in words.

    >>> count_of(1, "image"), count_of(31, "image")
    ('1 image', '31 images')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def one_of(value: str, valid: Sequence[str], what: str) -> str:
    """Return the value in lower case if it is valid; else refuse it and name the nearest valid one.

    Parameters
    ----------
    what
        What the message calls the value: an option, a field of a file.

    >>> one_of("MLE", ["mle", "nlls"], "--estimator")
    'mle'
    """
    if (low := value.strip().lower()) in valid:
        return low
    raise InputError(f"{what}: expected one of {', '.join(valid)}, got {value!r}.{did_you_mean(low, valid)}")


def did_you_mean(value: str, valid: Iterable[str]) -> str:
    """Return a question that names the valid value nearest to a wrong one, "" if none is near.

    >>> did_you_mean("flip_angel", ["te", "flip_angle"])
    ' Did you mean flip_angle?'
    """
    near = difflib.get_close_matches(value, list(valid), 1, 0.4)
    return f" Did you mean {near[0]}?" if near else ""


class PluginWarning(UserWarning):
    """A signal model or an estimator of another package cannot be used; the text says which and why."""
