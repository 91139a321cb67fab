"""What the user should know about a series and its maps: sentences with a weight, the heaviest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any


class Weight(IntEnum):
    """How much a sentence matters."""

    NOTE = 0
    """What was done, or where a number is from: nothing is wrong."""
    CAUTION = 1
    """Something to check, or that limits what the maps can be used for."""
    UNRELIABLE = 2
    """The maps, or a part of them, are wrong or probably wrong: do not rely on them."""


class Advice(str):
    """A sentence for the user with its weight. Plain strings count as cautions.

    Examples
    --------
    >>> Advice("B1 is from sub-01_TB1map.nii.gz", Weight.NOTE).weight.name
    'NOTE'
    """

    __slots__ = ("weight",)
    weight: Weight

    def __new__(cls, text: str, weight: Weight = Weight.CAUTION) -> Advice:
        """Return the sentence with its weight."""
        made = super().__new__(cls, text)
        made.weight = weight
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return what a copy is made from."""
        return (str(self), self.weight)


def note(text: str) -> Advice:
    """Return a sentence about what was done: nothing is wrong."""
    return Advice(text, Weight.NOTE)


def unreliable(text: str) -> Advice:
    """Return a sentence about maps that should not be relied on."""
    return Advice(text, Weight.UNRELIABLE)


def weight_of(text: str) -> Weight:
    """Return the weight of a sentence."""
    return text.weight if isinstance(text, Advice) else Weight.CAUTION


def percent(share: float) -> str:
    """Return a share in per cent, to two digits and never as a power of ten.

    >>> percent(1.0), percent(0.998), percent(0.1234), percent(0.00123)
    ('100', '100', '12', '0.12')
    """
    value = 100 * share
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.2g}"


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def ordered(texts: Iterable[str]) -> tuple[str, ...]:
    """Return each sentence once, the heaviest first; those of one weight stay in their order.

    >>> ordered(["check the times", note("TR is from the sidecars"), unreliable("the times are reversed")])[0]
    'the times are reversed'
    """
    return tuple(sorted(dict.fromkeys(texts), key=lambda text: -weight_of(text)))


def warnings_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the sentences that are warnings, the heaviest first."""
    return tuple(text for text in ordered(texts) if weight_of(text) > Weight.NOTE)


def notes_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the sentences that are notes."""
    return tuple(text for text in ordered(texts) if weight_of(text) == Weight.NOTE)
