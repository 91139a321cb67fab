"""Choose the estimator that maps a series, and give the reason."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rimap.errors import InputError, one_of
from rimap.workflow.request import Request
from rimap.workflow.series_options import constraints_for

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.io import SeriesFiles
    from rimap.signals import SignalModel

#: Options that only one estimator has, so that they choose it, with their names on the command line.
_TYPED = {"lambda_B": "--lambda-b", "fixed": "--fixed", "bounds": "--bounds"}


def default_estimator(model: type[SignalModel], options: Mapping[str, Any] = MappingProxyType({})) -> tuple[str, str]:
    """Return the estimator that maps series of a model if the user names none, and why.

    The first choice is a shipped network that has passed its tests for the sequence (bias at every SNR and small
    structures: `python -m benchmarks.bench_t1 rim:universal`). Otherwise the choice is maximum likelihood if the model
    has a smooth field, or if its signal decays so that late images reach the noise floor, and least squares for all
    other models. An option that belongs to one estimator takes precedence.
    """
    from rimap.estimators.network_files import metadata_of, passed_network, path_of

    if "network" in options:
        return metadata_of(path_of(options["network"]))["kind"], "the kind of --network"
    title = model.title.lower()
    without_network = "mle" if _is_smooth(model) or _decays(model) else "nlls"
    network = passed_network(model.name)
    if network is not None:
        typed = [typed for option, typed in _TYPED.items() if option in options]
        if not typed:
            return network.kind, f"default for {title}: network {network.name}; --estimator mle or nlls for others"
        return without_network, f"default for {title} with {' and '.join(typed)}"
    if "lambda_B" in options:
        return "mle", f"the only estimator with {_TYPED['lambda_B']}"
    return without_network, f"default for {title}"


def _is_smooth(model: type[SignalModel]) -> bool:
    """Return whether a model has a field that is estimated as a smooth one (Eq. 2)."""
    return any(parameter.smooth for parameter in model.parameters)


def _decays(model: type[SignalModel]) -> bool:
    """Return whether the signal decays towards the noise floor of magnitude images: a positive signal over a time."""
    from rimap.signals.base import axis_of

    measured = any(parameter.amplitude for parameter in model.parameters)
    return measured and axis_of(model).unit == "ms" and not model.changes_sign


def chosen(request: Request, model: type[SignalModel]) -> tuple[Estimator, str]:
    """Return the estimator of a request for series of a model, and why it is that one.

    Raises
    ------
    InputError
        If the estimator lacks an option, or does not support the noise model.
    """
    options = {**request.estimator_options, **constraints_for(request, model)}
    if request.estimator is None:
        name, why = default_estimator(model, options)
        if request.denoise and needs_network(name) and "network" not in options:
            name = "mle" if _is_smooth(model) or _decays(model) else "nlls"
            why = f"default for {model.title.lower()} with --denoise"
        if name in ("mle", "nlls"):
            options.pop(
                "sd_draws", None
            )  # nlls and mle always give them: do not refuse them for T2 if T1 in the same data set has a network
    else:
        name, why = _class(request.estimator).name, "as requested"
    if request.denoise and needs_network(name):
        raise InputError(
            f"--denoise: {name} is a network. It expects the noise of the scanner and averages neighbours itself. Use "
            f"--estimator mle or "
            "nlls, or leave --denoise out."
        )
    if name == "nlls" and (request.noise or "").strip().lower() == "rician":
        raise InputError(
            "--noise rician: nlls is a least-squares fit and assumes Gaussian noise. Use --estimator mle, or leave "
            "--noise out."
        )
    return build(name, options, threads=request.threads), why


def suited(request: Request, estimator: Estimator, why: str, model: SignalModel) -> tuple[Estimator, str]:
    """Return the estimator for a series whose settings are known, and why.

    It differs from the default estimator of the model if that cannot map this series. An estimator that the user chose
    is kept.
    """
    from rimap.estimators.checks.training_range import unsuited
    from rimap.estimators.network_files import default_network, for_model, metadata_of, path_of

    options = {**request.estimator_options, **constraints_for(request, type(model))}
    if request.estimator is not None or "network" in options or "lambda_B" in options:
        return estimator, why
    smooth = (
        model.field is not None
        and model.field.smooth
        and model.field.name not in {**request.given, **options.get("fixed", {})}
    )
    unknown = [
        setting
        for setting in model.settings.values()
        if setting.unknown_in_field and getattr(model, setting.name) is None
    ]
    rician = (request.noise or "").strip().lower() == "rician"
    if smooth and unknown and not rician and estimator.name != "nlls":
        return _other(request, "nlls", options), (
            f"{unknown[0].symbol} is not known, so {model.field.name if model.field else 'the field'} follows the "
            f"tissue and cannot "
            "be smoothed; --estimator for others"
        )
    if hasattr(estimator, "network"):
        about = for_model(metadata_of(path_of(estimator.network or default_network(model.name, estimator.name))), model)
        if reasons := unsuited(about, model):
            return without_network(request, model, f"network {about['name']} was trained for {reasons[0]}")
    return estimator, why


def without_network(request: Request, model: SignalModel, why: str) -> tuple[Estimator, str]:
    """Return the default estimator that is not a network, and why."""
    options = {**request.estimator_options, **constraints_for(request, type(model))}
    name = "mle" if _is_smooth(type(model)) or _decays(type(model)) else "nlls"
    return _other(request, name, options), why


def _other(request: Request, name: str, options: Mapping[str, Any]) -> Estimator:
    return build(name, {key: value for key, value in options.items() if key != "sd_draws"}, threads=request.threads)


def estimator_of(request: Request, files: SeriesFiles) -> Estimator:
    """Return the estimator of a request for a series."""
    return chosen(request, files.model_class(request.sequence))[0]


def needs_network(estimator: str) -> bool:
    """Return whether an estimator is a network, which maps the sequences that it was trained for."""
    found = _named(estimator)
    return found is not None and "network" in inspect.signature(found).parameters


def estimator_names() -> list[str]:
    """Return the names that `--estimator` takes."""
    return sorted(_known())


def sequence_named(text: str | None) -> str | None:
    """Return rimap's name of a sequence that the user specified by name, BIDS suffix, title or map, in upper or lower
    case.

    >>> sequence_named("IRT1"), sequence_named("Inversion-Recovery")
    ('ir', 'ir')

    Raises
    ------
    InputError
        If no sequence has that name, or several have.
    """
    from rimap.signals import signal_models

    if text is None:
        return None
    models, typed = signal_models(), text.strip().lower()
    if typed in models:
        return typed
    for called in (_suffixes, _titles, _maps):
        fitting = sorted(name for name, model in models.items() if typed in called(model))
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise InputError(
                f"--sequence {text}: expected the name of one sequence, got one that {', '.join(fitting)} share. Give "
                f"one of these."
            )
    return one_of(text, sorted(models), "--sequence")


def _suffixes(model: type[SignalModel]) -> set[str]:
    return {model.bids_suffix.lower()}


def _titles(model: type[SignalModel]) -> set[str]:
    return {model.title.lower(), model.title.lower().replace(" ", "-")}


def _maps(model: type[SignalModel]) -> set[str]:
    times = [parameter for parameter in model.parameters if parameter.role == "time"][:1]
    return {p.name.lower() for p in times} | {(p.suffix or "").lower() for p in times}


@cache
def _named(name: str) -> type[Estimator] | None:
    """Return the estimator of this name, `None` if there is none."""
    from rimap.estimators import estimator_named

    return estimator_named(name)


def _class(name: str) -> type[Estimator]:
    """Return the estimator that `--estimator` names.

    Raises
    ------
    InputError
        If there is none.
    """
    return _named(name) or _known()[one_of(name, estimator_names(), "--estimator")]


@cache
def _known() -> dict[str, type[Estimator]]:
    """Return the estimators. They are found only once, because a data set has many series."""
    from rimap.estimators import estimators

    return estimators()


def build(name: str, options: dict[str, Any], *, threads: int | None = None) -> Estimator:
    """Return the estimator `name` with the given options, on `threads` cores if it has that option.

    Raises
    ------
    InputError
        If the estimator lacks an option.
    """
    cls = _class(name)
    known = inspect.signature(cls).parameters
    for option in options:
        if option not in known:
            typed = "--" + option.lower().replace("_", "-")
            having = [n for n, c in sorted(_known().items()) if option in inspect.signature(c).parameters]
            hint = f" It belongs to {', '.join(having)}." if having else ""
            raise InputError(f"{typed}: the estimator {cls.name} has no such option.{hint} Leave it out.")
    if threads is not None and "threads" in known:
        options = options | {"threads": threads}
    return cls(**options)
