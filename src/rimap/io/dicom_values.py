"""Values of DICOM headers, whatever is wrong with them: a number, a text, a list, or nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

#: Keyword of an element, or group and number of its tag.
Name = str | tuple[int, int]
#: What a header holds: a text, a number, several of them, or whatever a vendor wrote there.
Value = Any


def first_item(group: Dataset | None, name: Name) -> Value:
    """Return the first item of a sequence, `None` if there is none."""
    if group is None:
        return None
    items = value_of(group, name) if isinstance(name, tuple) else group.get(name)
    try:
        return items[0] if items else None
    except (TypeError, IndexError, KeyError):
        return None


def value_of(group: Dataset, name: Name) -> Value:
    """Return the value of an element by its keyword or tag, `None` where it is missing."""
    element = group.get(name)
    return getattr(element, "value", element) if isinstance(name, tuple) else element


def as_list(value: Value) -> list[Value]:
    """Return the values of an element of one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, bytes, int, float)) or not hasattr(value, "__iter__") else list(value)


def text_of(group: Dataset, name: str) -> str:
    """Return the text of an element, "" where it is missing."""
    return str(group.get(name) or "").strip()


def as_float(value: Value) -> float | None:
    """Return a finite number, `None` for anything else."""
    try:
        x = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return x if math.isfinite(x) else None


def number_of(group: Dataset | None, name: Name) -> float | None:
    """Return the first number of an element, `None` if there is none."""
    if group is None:
        return None
    try:
        values = as_list(value_of(group, name))
    except Exception:  # a value that is no number
        return None
    return as_float(values[0]) if values else None


def numbers_of(value: Value, count: int) -> tuple[float, ...] | None:
    """Return `n` numbers, `None` if there are fewer, more, or other values."""
    found = [as_float(x) for x in as_list(value)]
    numbers = tuple(x for x in found if x is not None)
    return numbers if len(numbers) == len(found) == count else None


def whole(value: Value) -> int | None:
    """Return a whole number, `None` for what is no number."""
    x = as_float(value)
    return None if x is None else int(x)
