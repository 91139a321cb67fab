"""The numbers that a key of a recipe or an option may have; each dataclass of a recipe declares them in one table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from rimap.errors import InputError


@dataclass(frozen=True)
class Allowed:
    """A range of finite numbers.

    Parameters
    ----------
    least, most
        Its ends, which belong to it.
    without_least, without_most
        Whether this end does not belong to it.
    ordered
        Whether a pair is [smallest, largest].
    """

    least: float = 0.0
    most: float = math.inf
    without_least: bool = False
    without_most: bool = False
    ordered: bool = False

    def has(self, value: object) -> bool:
        """Return whether a value is such a number."""
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(float(value)):
            return False
        number = float(value)
        above = number > self.least if self.without_least else number >= self.least
        return above and (number < self.most if self.without_most else number <= self.most)

    def __str__(self) -> str:
        if math.isinf(self.least):
            return "finite"
        least = f"above {self.least:g}" if self.without_least else f"{self.least:g} or more"
        if math.isinf(self.most):
            return least
        if self.without_least or self.without_most:
            return f"{least} and {'less than' if self.without_most else 'at most'} {self.most:g}"
        return f"{self.least:g} to {self.most:g}"


ANY = Allowed(-math.inf)
NOT_NEGATIVE, POSITIVE = Allowed(), Allowed(without_least=True)
#: Counts: of things that may be absent, and of those that a computation needs.
COUNT = Allowed(1.0)
SHARE = Allowed(0.0, 1.0)
RANGE, POSITIVE_RANGE = Allowed(ordered=True), Allowed(without_least=True, ordered=True)
#: torch and NumPy both take seeds up to this.
SEED = Allowed(0.0, 2.0**63 - 1024)


def numeric_fields(kind: type) -> Iterator[tuple[str, str]]:
    """Yield name and annotation of each field of a dataclass that holds numbers."""
    for f in fields(kind):
        annotation = str(f.type).replace("Range", "tuple[float, float]")
        if "float" in annotation or "int" in annotation:
            yield f.name, annotation


def refuse_other_numbers(values: object, allowed: Mapping[str, Allowed], table: str = "") -> None:
    """Refuse a dataclass with a number that its table does not allow.

    Parameters
    ----------
    allowed
        What each of its fields with numbers may have, by name.
    table
        The table of the recipe that it is, for the message.

    Raises
    ------
    InputError
        With what was expected.
    """
    for name, annotation in numeric_fields(type(values)):
        _refuse_other(f"{table}.{name}" if table else name, getattr(values, name), annotation, allowed[name])


def refuse_other_number(key: str, value: object, allowed: Allowed, *, whole: bool = False) -> None:
    """Refuse one number that is not allowed.

    Raises
    ------
    InputError
        With what was expected.
    """
    _refuse_other(key, value, "int" if whole else "float", allowed)


def _refuse_other(key: str, value: object, annotation: str, allowed: Allowed) -> None:
    if annotation.startswith("Mapping[str, "):
        if not isinstance(value, Mapping):
            raise InputError(f"{key}: expected a table of numbers by name, got {value!r}.")
        inner = annotation.removeprefix("Mapping[str, ").removesuffix("]")
        for name, x in value.items():
            _refuse_other(f"{key}.{name}", x, inner, allowed)
        return
    whole = "int" in annotation
    several: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    good = isinstance(value, (list, tuple)) == annotation.startswith("tuple")
    good &= all(allowed.has(x) and (isinstance(x, Integral) or not whole) for x in several)
    if "tuple" in annotation and "..." not in annotation:
        length = annotation.count(",") + 1
        good &= len(several) == length
        if allowed.ordered and good:
            good = several[0] <= several[1]
        number = "whole numbers" if whole else "numbers"
        what = "[smallest, largest]" if allowed.ordered else f"{length} {number}"
        what += f", each {allowed}"
    elif "tuple" in annotation:
        what = f"{'whole numbers' if whole else 'numbers'}, each {allowed}"
    else:
        what = f"{'a whole number' if whole else 'a number'}, {allowed}"
    if not good:
        raise InputError(f"{key}: expected {what}, got {_shown(value)}.")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, (list, tuple)) else repr(value)
