"""`rimap models`."""

from __future__ import annotations

from typing import Any


def command() -> None:
    """List the estimators, the networks that ship and what each was trained for, and the sequences."""
    from rimap.cli._choice import default_estimator
    from rimap.estimators import estimators
    from rimap.estimators.shipped import metadata_of, shipped
    from rimap.signals import signal_models

    sequences, found = signal_models(), estimators()
    default = {default_estimator(name)[0] for name in sequences}
    print("Estimators (--estimator):")
    for name, estimator in sorted(found.items()):
        print(f"  {name:<8} {estimator.title}{' (default)' if name in default else ''}")
    print("Networks (--network, for rim and resnet):")
    for name, path in shipped().items():
        for line in described(metadata_of(path), path.stat().st_size):
            print(f"  {name:<14} {line}" if line.startswith("*") else f"  {'':<14}   {line}")
    if not shipped():
        print("  none ships with this installation; `rimap train` makes one")
    print("Sequences (--sequence):")
    for name, model in sorted(sequences.items()):
        parameters = ", ".join(p.name for p in model.parameters)
        print(f"  {name:<8} {model.title}: {parameters}; BIDS {model.bids_suffix}, times from {model.bids_time}")


def described(about: dict[str, Any], size: int) -> list[str]:
    """Return what an exported network says about itself, in lines; the first begins with a star."""
    seen = about["trained_on"]
    low, high = seen["time_range_ms"]
    fewest, most = seen["n_images"]
    images = f"{fewest} images" if fewest == most else f"{fewest} to {most} images"
    times = f"{images} at {low:g} to {high:g} ms" if seen["times_ms"] else f"any {images} between {low:g} and {high:g} ms"
    extra = [w for w, there in (("with and without TR", seen["tr"]), ("signed too", seen["signed"])) if there]
    lines = [
        f"* {about['kind']} for {about['sequence']}: {about['description'] or about['name']}",
        f"trained on {', '.join([times, *extra])}; T {seen['T_ms'][0]:g} to {seen['T_ms'][1]:g} ms",
        f"noise {' or '.join(seen['noise'])}, sigma {seen['sigma'][0]:g} to {seen['sigma'][1]:g} of A in CSF",
        f"{about['iterations']} iterations on {seen['anatomies']} anatomies; {about['parameters']:,} parameters, "
        f"{size / 1e6:.2f} MB",
    ]
    if (f := about.get("figures")) and "error_pct" in f:
        lines.append(
            f"validation: median error of T {f['error_pct']:.1f} %, median bias {f.get('bias_pct', 0):+.1f} %"
        )
    return lines
