"""`rimap models`."""

from __future__ import annotations

from typing import Any


def command() -> None:
    """List the estimators, the networks that ship, and the sequences."""
    from rimap.cli._choice import default_estimator
    from rimap.estimators import estimators
    from rimap.estimators.shipped import metadata_of, shipped
    from rimap.signals import signal_models

    sequences = signal_models()
    default = {default_estimator(name)[0] for name in sequences}
    print("Estimators (--estimator):")
    for name, estimator in sorted(estimators().items()):
        print(f"  {name:<8} {estimator.title}{' (default)' if name in default else ''}")
    print("Networks (--network):")
    for name, path in shipped().items():
        about = metadata_of(path)
        print(f"  {name:<14} {about['kind']}, {about['sequence']}: {about.get('description') or about['name']}")
        print(f"  {'':<14} {_training(about)}; {about['parameters']:,} parameters, {path.stat().st_size / 1e3:,.0f} kB")
        if figures := about.get("figures"):
            print(f"  {'':<14} {', '.join(f'{k} {v:g}' for k, v in figures.items())}")
    if not shipped():
        print("  none in this installation; `rimap train` makes one")
    print("Sequences (--sequence):")
    for name, model in sorted(sequences.items()):
        parameters = ", ".join(p.name for p in model.parameters)
        print(f"  {name:<8} {model.title}: {parameters}; BIDS {model.bids_suffix}, times from {model.bids_time}")


def _training(about: dict[str, Any]) -> str:
    """Return what a network was trained on, in words."""
    from rimap.signals import signal_models

    seen, T = about["trained_on"], signal_models()[about["sequence"]].parameters[-1].name

    def span(values: Any, unit: str = "") -> str:
        low, high = values
        return f"{low:g}{unit}" if low == high else f"{low:g}–{high:g}{unit}"

    return (
        f"trained on {span(seen['n_images'])} images at {span(seen['time_range_ms'], ' ms')}, "
        f"{T} {span(seen['T_ms'], ' ms')}, σ {span(seen['sigma'])} of A in CSF, {about['iterations']:,} iterations"
    )
