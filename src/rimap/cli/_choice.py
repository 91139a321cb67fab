"""Which estimator maps a series, and why."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rimap.cli._options import one_of
from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.estimators import Estimator


#: The networks that have passed their tests, by sequence.
_PASSED = {"ir": "t1"}


def default_estimator(sequence: str, options: Mapping[str, Any] = MappingProxyType({})) -> tuple[str, str]:
    """Return the estimator that maps a sequence where none is named, and why.

    An option that belongs to one estimator names it.

    This is the one place that decides it. A network becomes the default where it has passed its tests for the
    sequence: for T1, bias at every SNR and small structures (`python -m benchmarks.bench_t1 rim:t1`).
    """
    if "network" in options:
        from rimap.estimators.shipped import metadata_of, path_of

        return metadata_of(path_of(options["network"]))["kind"], "what --network is"
    if "lambda_B" in options:
        return "mle", "what --lambda-b belongs to"
    if sequence in _PASSED:
        return (
            "rim",
            f"the default: network {_PASSED[sequence]} has passed its tests; --estimator mle or nlls for others",
        )
    return "mle", f"the default; no network has passed its tests for {sequence} yet"


def estimator_names() -> list[str]:
    """Return the names that `--estimator` takes."""
    return sorted(_known())


@cache
def _known() -> dict[str, type[Estimator]]:
    """Return the estimators, looked up once: a data set has many series."""
    from rimap.estimators import estimators

    return estimators()


def build(name: str, options: dict[str, Any], *, threads: int | None = None) -> Estimator:
    """Return the estimator `name` with the options that were given, on `threads` cores if it can be told.

    Raises
    ------
    InputError
        For an option that this estimator does not have.
    """
    found = _known()
    cls = found[one_of(name, sorted(found), "--estimator")]
    known = inspect.signature(cls).parameters
    for option in options:
        if option not in known:
            typed = "--" + option.lower().replace("_", "-")
            having = [n for n, c in sorted(found.items()) if option in inspect.signature(c).parameters]
            hint = f" It belongs to {', '.join(having)}." if having else ""
            raise InputError(f"{typed}: the estimator {cls.name} has no such option.{hint} Leave it out.")
    if threads is not None and "threads" in known:
        options = options | {"threads": threads}
    return cls(**options)
