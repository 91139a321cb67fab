"""`rimap models`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rimap.signals.base import Setting, SignalModel

#: Columns of the page of a sequence that is printed to a file.
_PAGE_WIDTH = 110
#: Figures of a validation in words, in the order in which they are printed.
_IN_WORDS = {
    "error_pct": "median error",
    "error_low_noise_pct": "at low noise",
    "error_mid_noise_pct": "at mid noise",
    "error_high_noise_pct": "at high noise",
    "start_error_pct": "after the first step",
    "bias_pct": "median bias",
}
#: Words of the names of figures in network files, and what is printed.
_BETTER_WORDS = {"worst CV / MLE's": "largest CV relative to that of the MLE:", "worst": "largest"}


def command(
    sequence: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A sequence: print its formula, settings, maps, commands and references."
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="NAME",
            help="Check the signal model of this sequence against its contracts, instead of listing.",
        ),
    ] = None,
) -> None:
    """List estimators, networks and sequences, or describe one.

    With --check, rimap checks one signal model instead.

    \b
    rimap models
    rimap models vfa
    rimap models --check vfa
    """
    if check is not None:
        _check(check)
        return
    if sequence is not None:
        _describe(sequence)
        return
    from rimap.estimators import estimators
    from rimap.estimators.network_files import metadata_of, shipped
    from rimap.signals import signal_models

    sequences = signal_models()
    default = _defaults(sequences)
    print("Estimators (--estimator):")
    for name, estimator in sorted(estimators().items()):
        print(f"  {name:<8} {estimator.title}{default.get(name, '')}")
    print("Networks (--network):")
    for name, path in shipped().items():
        about = metadata_of(path)
        print(f"  {name:<14} {about['kind']}, {_sequences(about)}: {about.get('description') or about['name']}")
        print(f"  {'':<14} {_training(about)}; {about['parameters']:,} parameters, {path.stat().st_size / 1e3:,.0f} kB")
        if figures := about.get("figures"):
            print(f"  {'':<14} {_figures(figures, about['kind'], _last(about))}")
    if not shipped():
        print("  none in this installation. `rimap train` trains one.")
    print("Sequences (--sequence):")
    width = max(map(len, sequences))
    for name, model in sorted(sequences.items()):
        print(f"  {name:<{width}} {_sequence(model)}")


def _describe(name: str) -> None:
    """Print the page of a sequence, formatted for a terminal."""
    from rich.console import Console
    from rich.markdown import Markdown

    from rimap.errors import one_of
    from rimap.signals import signal_models
    from rimap.workflow.sequence_page import sequence_page

    models = signal_models()
    page = sequence_page(models[one_of(name, sorted(models), "NAME")], terminal=True)
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else _PAGE_WIDTH)
    console.print(Markdown(page, hyperlinks=terminal))


def _check(name: str) -> None:
    """Print a line for each contract of a signal model, for each kind of settings that the model accepts."""
    from rimap.errors import InputError
    from rimap.signals import signal_models
    from rimap.testing import example_models, signal_model_outcomes

    sequences = signal_models()
    if name not in sequences:
        raise InputError(f"--check: expected one of {', '.join(sorted(sequences))}, got {name!r}.")
    broken = 0
    for label, model in example_models(sequences[name]).items():
        settings = ", ".join(_values(setting, getattr(model, setting.name)) for setting in model.settings.values())
        print(f"{model.title} ({name}){f', {label}' if label else ''}: {settings}")
        for outcome in signal_model_outcomes(model):
            mark = "FAILS" if outcome.failure else "–" if outcome.skipped else "holds"
            why = outcome.failure or outcome.skipped
            print(f"  {mark:<6} {outcome.property}{f': {why}' if why else ''}")
            broken += bool(outcome.failure)
    if broken:
        print(f"rimap: {name} breaks {broken} of its contracts.", file=sys.stderr)
        raise typer.Exit(1)


def _values(setting: Setting, value: Any) -> str:
    """Return a setting in words: ``TI 30 to 3000 ms``, ``no TR``."""
    if value is None:
        return f"no {setting.symbol}"
    from rimap.signals.settings import with_unit

    values = [value] if isinstance(value, float) else value
    low, high = min(values), max(values)
    return f"{setting.symbol} " + (f"{low:.6g} to " if low != high else "") + with_unit(high, setting.unit)


def _sequence(model: type[SignalModel]) -> str:
    """Return title, parameters and BIDS fields of a sequence."""
    from rimap.map_display import shown_name
    from rimap.signals.base import axis_of

    axis, parameters = (
        axis_of(model),
        ", ".join(
            map(shown_name, [*(parameter.name for parameter in model.parameters), *(d.name for d in model.derived)])
        ),
    )
    bids = f"; BIDS {model.bids_suffix}" * bool(model.bids_suffix) + f", {axis.title} from {axis.bids[0]}" * bool(
        axis.bids
    )
    bids += f" of {axis.read_from}" * bool(axis.read_from)
    return f"{model.title}: {parameters}{bids}"


def _time(model: type[SignalModel]) -> str:
    """Return the name of the relaxation time."""
    return next(parameter.name for parameter in model.parameters if parameter.role == "time")


def _defaults(sequences: Mapping[str, type[SignalModel]]) -> dict[str, str]:
    """Return, for each estimator name, the sequences that it is the default for."""
    from rimap.workflow.estimator_choice import default_estimator

    found: dict[str, list[str]] = {}
    for sequence, model in sequences.items():
        found.setdefault(default_estimator(model)[0], []).append(sequence)
    return {name: f" (default for {', '.join(sorted(names))})" for name, names in found.items()}


def _is_for_any(about: Mapping[str, Any]) -> bool:
    """Return whether a network accepts any sequence with one amplitude."""
    from rimap.estimators.network_files import ANY_SEQUENCE

    return bool(about["sequence"] == ANY_SEQUENCE)


def _sequences(about: Mapping[str, Any]) -> str:
    """Return the sequences that a network accepts: one, or any with one amplitude."""
    return "any sequence" if _is_for_any(about) else about["sequence"]


def _last(about: Mapping[str, Any]) -> str:
    """Return the relaxation time that a network maps."""
    from rimap.signals import signal_models

    return "T" if _is_for_any(about) else _time(signal_models()[about["sequence"]])


def _figures(figures: Mapping[str, float], kind: str, T: str) -> str:
    """Return the figures of a network: those of its validation in per cent, then others by what they are.

    >>> _figures({"validation_loss": 0.0323, "error_pct": 8.3109, "bias_pct": -0.8692}, "rim", "T1")
    'T1 in validation: median error 8.3 %, median bias -0.87 %'
    >>> _figures({"worst |bias| % at SNR 3": 2.03, "worst |bias| % at SNR 5": 1.5}, "rim", "T1")
    'largest |bias| 2.03 % (SNR 3), 1.5 % (SNR 5)'
    """
    words = dict(_IN_WORDS)
    if kind != "rim":
        del words["start_error_pct"]  # it has no steps
    validation = [f"{text} {figures[key]:.2g} %" for key, text in words.items() if key in figures]
    others = {key: value for key, value in figures.items() if key not in (*_IN_WORDS, "validation_loss")}
    return "; ".join(
        x for x in (f"{T} in validation: " * bool(validation) + ", ".join(validation), _by_name(others)) if x
    )


def _by_name(figures: Mapping[str, float]) -> str:
    """Return figures by their names, each with its condition (``at SNR 3`` in the key); a % in a name is the unit."""
    found: dict[str, list[str]] = {}
    for key, value in figures.items():
        name, _, condition = key.partition(" at ")
        unit, name = (" %", name.replace(" %", "", 1)) if " %" in name else ("", name)
        for word, better in _BETTER_WORDS.items():
            name = name.replace(word, better)
        found.setdefault(name, []).append(f"{value:g}{unit}" + (f" ({condition})" if condition else ""))
    return "; ".join(f"{name} {', '.join(values)}" for name, values in found.items())


def _training(about: dict[str, Any]) -> str:
    """Return what a network was trained on, in words."""
    iterations = f"{about['iterations']:,} iterations"
    if (about.get("recipe") or {}).get("init"):  # the file counts those of the last training
        iterations += " after an earlier training"
    if _is_for_any(about):
        return f"trained on {', '.join(sorted(about['trained_on']))}, {iterations}"
    seen, T = about["trained_on"], _last(about)

    def span(values: Any, unit: str = "") -> str:
        low, high = values
        return f"{low:g}{unit}" if low == high else f"{low:g}–{high:g}{unit}"

    of_time = seen.get("T_ms") or seen["parameters"].get(T)  # networks of 0.1.0 had the range of the time alone
    return (
        f"trained on {span(seen['n_images'])} images at {span(seen['time_range_ms'], ' ms')}, "
        + (f"{T} {span(of_time, ' ms')}, " if of_time else "")
        + f"σ {span(seen['sigma'])} of A in CSF, {iterations}"
    )
