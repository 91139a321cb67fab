"""The fields of a signal model that are no settings of the scanner: its bounds, whether images keep their polarity, and
others.

No other file names them.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

from rimap.signals.settings import settings_of

#: The field with the bounds that were changed.
BOX = "box"
#: The field that says whether images keep their polarity (real part), if the signal of a model can be negative.
POLARITY = "signed"


def knows_polarity(model: DataclassInstance | type[DataclassInstance]) -> bool:
    """Return whether the images of a model (class or object) may keep their polarity: whether it has that option."""
    return any(field.name == POLARITY for field in fields(model))


def polarity(signed: bool) -> dict[str, Any]:
    """Return the option of a model that says whether its images keep their polarity."""
    return {POLARITY: signed}


def polarity_if_unknown(model: DataclassInstance | type[DataclassInstance]) -> bool:
    """Return whether the images of a model (class or object) keep their polarity by default."""
    return any(field.name == POLARITY and field.default is True for field in fields(model))


def other_options(model: DataclassInstance | type[DataclassInstance]) -> list[str]:
    """Return the names of the other options of a model (class or object): the profile of a pulse, say."""
    return [field.name for field in fields(model) if field.name not in (*settings_of(model), BOX, POLARITY)]
