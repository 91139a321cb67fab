"""Which estimator maps a series, and why."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rimap.errors import InputError, one_of
from rimap.workflow.request import Request

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.io import SeriesFiles
    from rimap.signals import SignalModel

#: The networks that have passed their tests, by sequence.
_PASSED = {"ir": "t1"}


def default_estimator(model: type[SignalModel], options: Mapping[str, Any] = MappingProxyType({})) -> tuple[str, str]:
    """Return the estimator that maps series of a model if the user names none, and why.

    An option that belongs to one estimator names it. A network becomes the default once it has passed its tests for the
    sequence: for T1, bias at every SNR and small structures (`python -m benchmarks.bench_t1 rim:t1`).
    """
    if "network" in options:
        from rimap.estimators.shipped import metadata_of, path_of

        return metadata_of(path_of(options["network"]))["kind"], "the estimator of --network"
    if "lambda_B" in options:
        return "mle", "the estimator that has --lambda-b"
    title = model.title.lower()
    if model.name in _PASSED:
        return "rim", f"default for {title}: network {_PASSED[model.name]}; --estimator mle or nlls for others"
    return "mle", f"default for {title}"


def chosen(request: Request, model: type[SignalModel]) -> tuple[Estimator, str]:
    """Return the estimator of a request for series of a model, and why it is that one.

    Raises
    ------
    InputError
        For an option that this estimator does not have, or noise that it cannot take.
    """
    options = dict(request.estimator_options)
    if request.estimator is None:
        name, why = default_estimator(model, options)
        if name in ("mle", "nlls"):
            options.pop("sd_draws", None)  # they give the bound: T2 beside T1 in one data set is no reason to refuse
    else:
        name, why = one_of(request.estimator, estimator_names(), "--estimator"), "as requested"
    if name == "nlls" and (request.noise or "").strip().lower() == "rician":
        raise InputError(
            "--noise rician: nlls is least squares, which assumes Gaussian noise. Use --estimator mle, or leave --noise out."
        )
    return build(name, options, threads=request.threads), why


def estimator_of(request: Request, files: SeriesFiles) -> Estimator:
    """Return the estimator of a request for a series."""
    return chosen(request, files.model_class(request.sequence))[0]


def estimator_names() -> list[str]:
    """Return the names that `--estimator` takes."""
    return sorted(_known())


def sequences() -> list[str]:
    """Return the names that `--sequence` takes."""
    from rimap.signals import signal_models

    return sorted(signal_models())


@cache
def _known() -> dict[str, type[Estimator]]:
    """Return the estimators, found once: a data set has many series."""
    from rimap.estimators import estimators

    return estimators()


def build(name: str, options: dict[str, Any], *, threads: int | None = None) -> Estimator:
    """Return the estimator `name` with the options that were given, on `threads` cores if it has that option.

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
