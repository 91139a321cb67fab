"""The outcome of each series: its result, or the reason of its failure."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rimap.errors import InputError
from rimap.workflow.writing import Result

if TYPE_CHECKING:
    from rimap.io import SeriesFiles

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A series or subject without a map, and the reason; `bug` if the reason is not in the data."""

    label: str
    reason: str
    bug: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", self.reason.removeprefix(f"{self.label}: "))


#: The result of a series, or its failure.
Outcome = tuple["SeriesFiles", Result | Failure]


def attempt(label: str, result: Callable[[], T]) -> T | Failure:
    """Return the result of a series, or its failure."""
    from rimap.parallel import ProcessLost

    try:
        return result()
    except (InputError, ProcessLost) as error:
        return Failure(label, in_one_line(error))
    except CancelledError:
        return Failure(label, "the cluster was closed before this series was mapped.")
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # an exception of distributed, which may not be installed
            return Failure(label, "its worker was killed several times, possibly because it ran out of memory.")
        if os.environ.get("RIMAP_DEBUG") == "1":
            traceback.print_exception(error)
        return Failure(label, f"bug in rimap: {type(error).__name__}: {in_one_line(error)[:200]}", bug=True)


def in_one_line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split())
