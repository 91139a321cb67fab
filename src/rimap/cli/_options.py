"""Turn what was typed into values, with messages that say what was expected."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rimap.errors import InputError


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return the numbers of a list that commas or spaces part.

    >>> numbers("50, 400 1100", "--times-ms")
    (50.0, 400.0, 1100.0)
    """
    if text is None:
        return None
    words = [w for w in re.split(r"[,;\s]+", text.strip()) if w]
    if not words:
        raise InputError(f'{option}: numbers in ms were expected, as in {option} "50,400,1100"; none came.')
    try:
        values = tuple(float(w) for w in words)
    except ValueError:
        raise InputError(
            f'{option}: numbers in ms were expected, as in {option} "50,400,1100"; {text!r} came.'
        ) from None
    if not all(math.isfinite(v) for v in values):
        raise InputError(f"{option}: finite numbers in ms were expected; {text!r} came.")
    return values


def labels(values: Iterable[str] | None, prefix: str) -> tuple[str, ...]:
    """Return labels without their prefix; one value may hold several.

    >>> labels(["sub-01", "02,03"], "sub-")
    ('01', '02', '03')
    """
    words = [w for v in values or () for w in re.split(r"[,\s]+", v.strip()) if w]
    return tuple(w.removeprefix(prefix) for w in words)


def one_of(value: str, valid: Sequence[str], option: str) -> str:
    """Return the value if it is valid, in lower case; else refuse it and name the nearest.

    >>> one_of("MLE", ["mle", "nlls"], "--estimator")
    'mle'
    """
    if (low := value.strip().lower()) in valid:
        return low
    near = difflib.get_close_matches(low, valid, 1, 0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise InputError(f"{option}: one of {', '.join(valid)} was expected; {value!r} came.{hint}")


def sequence(text: str | None) -> str | None:
    """Return the name that rimap has for what users call a sequence; others are left to `one_of`.

    >>> sequence("T1"), sequence("MESE"), sequence("flair")
    ('ir', 't2', 'flair')
    """
    if text is None:
        return None
    low = text.strip().lower()
    return {"t1": "ir", "irt1": "ir", "t1map": "ir", "inversion-recovery": "ir", "mese": "t2", "t2map": "t2"}.get(
        low, low
    )


def sigma_or_file(text: str | None) -> float | Path | None:
    """Return σ as a number, or the file that holds a map of it."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise InputError(
            f"--sigma: a positive number in the unit of the images, or a NIfTI file of it, was expected; {text!r} came."
        ) from None
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"--sigma must be positive, in the unit of the images; {text} came.")
    return value
