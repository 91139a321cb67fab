"""How a property is checked: it holds, it does not (with numbers), or it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from rimap.arrays import Array

Subject = TypeVar("Subject")
#: A check of one property of a subject, with the seed of its random numbers. Its docstring says what holds.
Check = Callable[[Subject, int], None]


class ContractError(AssertionError):
    """A property does not hold; the text says which, and by how much."""


class DoesNotApply(Exception):
    """A property has no meaning for this subject; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """What the check of one property gave.

    Parameters
    ----------
    property
        What should hold, in words.
    failure
        Why it does not, "" if it holds.
    skipped
        Why it was not checked, "" if it was.
    """

    property: str
    failure: str = ""
    skipped: str = ""


def outcomes_of(checks: Iterable[Check[Subject]], subject: Subject, seeds: Iterable[int]) -> list[Outcome]:
    """Return the outcome of each check; a check that raises anything fails."""
    found, seeds = [], list(seeds)
    for check in checks:
        failure = skipped = ""
        for seed in seeds:
            try:
                check(subject, seed)
            except DoesNotApply as reason:
                skipped = str(reason)
                break
            except ContractError as error:
                failure = str(error)
                break
            except Exception as error:
                failure = f"it raised {type(error).__name__}: {error}"
                break
        found.append(Outcome(property_of(check), failure, skipped))
    return found


def property_of(check: Check[Any]) -> str:
    """Return what a check holds its subject to: the first sentence of its docstring."""
    return (check.__doc__ or check.__name__).split(".\n")[0].strip().rstrip(".")


def raise_failures(what: str, outcomes: Iterable[Outcome]) -> None:
    """Raise a `ContractError` that lists the properties that do not hold, if there are any."""
    failed = [f"- {outcome.property}: {outcome.failure}" for outcome in outcomes if outcome.failure]
    if failed:
        raise ContractError("\n".join([f"{what} breaks {len(failed)} of its contracts:", *failed]))


def hold(condition: Array, message: str) -> None:
    """Raise a `ContractError` unless the condition is true (for arrays: everywhere)."""
    if not np.all(condition):
        raise ContractError(message)


def same(found: Array, expected: Array, what: str, *, relative: float, absolute: float = 0.0) -> None:
    """Raise a `ContractError` unless two arrays agree, with NaN in the same places.

    Parameters
    ----------
    relative, absolute
        |found − expected| ≤ absolute + relative |expected|.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    hold(found.shape == expected.shape, f"{what}: expected the shape {expected.shape}, got {found.shape}")
    known = np.isfinite(expected)
    odd = np.isfinite(found) != known
    if odd.any():
        at = tuple(int(i) for i in np.argwhere(odd)[0])
        raise ContractError(f"{what}: expected {expected[at]:.6g} at {at}, got {found[at]:.6g}")
    excess = np.where(known, abs(found - expected) - absolute - relative * abs(expected), 0.0)
    if (excess > 0).any():
        at = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
        off = abs(found[at] - expected[at])
        raise ContractError(
            f"{what}: expected {expected[at]:.9g} at {at}, got {found[at]:.9g}; they differ by {off:.2g}, "
            f"{absolute + relative * abs(expected[at]):.2g} is allowed"
        )
