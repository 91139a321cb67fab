"""`rimap models`."""

from __future__ import annotations


def command() -> None:
    """List the estimators and the sequences that this installation knows."""
    from rimap.cli._choice import default_estimator
    from rimap.estimators import estimators
    from rimap.signals import signal_models

    sequences, found = signal_models(), estimators()
    default = {default_estimator(name)[0] for name in sequences}
    print("Estimators (--estimator):")
    for name, estimator in sorted(found.items()):
        print(f"  {name:<8} {estimator.title}{' (default)' if name in default else ''}")
    print("Sequences (--sequence):")
    for name, model in sorted(sequences.items()):
        parameters = ", ".join(p.name for p in model.parameters)
        print(f"  {name:<8} {model.title}: {parameters}; BIDS {model.bids_suffix}, times from {model.bids_time}")
