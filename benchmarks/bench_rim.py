"""Seconds and memory to map a slice with a RIM, against the target: 256 × 256, 31 images, J = 6, one core, 1.2 s.

    python -m benchmarks.bench_rim [NETWORK …]

Processor seconds (best of five), which other work on the machine disturbs less than the wall clock. Without a network
it times both designs with random weights: the time does not depend on them.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import rimap
from rimap.estimators.rim import RIM
from rimap.estimators.shipped import metadata_of, path_of


def series(size: int, model: rimap.SignalModel, snr: float = 30.0) -> rimap.WeightedSeries:
    """Return a disc of two tissues with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size - 0.5
    tissue = np.hypot(x, y) < 0.45
    inner = np.hypot(x, y) < 0.3
    A = np.where(tissue, np.where(inner, 0.65, 0.85), 0.0)
    T = np.where(inner, 780.0, 1400.0)
    kappa = [A, np.full_like(A, 1.9), T] if len(model.parameters) == 3 else [A, T / 12]
    sigma = 0.65 / snr
    S = model.signal(np.stack(kappa)) + sigma * rng.standard_normal((model.n_images, size, size))
    return rimap.WeightedSeries(images=S.astype(np.float32), model=model, noise=rimap.Gaussian(sigma=sigma))


def measure(network: str | Path, size: int = 256) -> None:
    """Print the time of one network."""
    about = metadata_of(path_of(network))
    model = rimap.PROTOCOLS["IV_T1" if about["sequence"] == "ir" else "IV_T2"]
    data, rim = series(size, model), RIM(network=str(network), threads=1)
    _, ready = rim.prepare(data)
    rim.estimate(ready)  # compiles the kernels
    best = np.inf
    for _ in range(5):
        begun = time.process_time()
        rim.estimate(data)
        best = min(best, time.process_time() - begun)
    rim, ready = rim.prepare(data)
    loop = np.inf
    for _ in range(5):
        begun = time.process_time()
        rim.estimate(ready)
        loop = min(loop, time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{about['name']:<14} {size}×{size}×{model.n_images}: {best:.2f} s, of which scale {best - loop:.2f} s; "
        f"peak memory of the process {peak:.2f} GiB"
    )


def untrained(folder: Path) -> list[Path]:
    """Export both designs with random weights."""
    from rimap.training.loop import build_network, export
    from rimap.training.recipe import training_recipe

    paths = []
    for name, document in {
        "paper": {"variant": "paper", "protocol": "IV_T1"},
        "general": {"sequence": "ir"},
        "general_32": {"sequence": "ir", "rim": {"features": 32}},
        "paper_t2": {"variant": "paper", "protocol": "IV_T2"},
    }.items():
        recipe = training_recipe({"name": name, **document})
        export(recipe, build_network(recipe), folder / f"{name}.onnx", 0, None)
        paths.append(folder / f"{name}.onnx")
    return paths


def main() -> None:
    """Time the networks that are named, or both designs."""
    with tempfile.TemporaryDirectory() as folder:
        for network in sys.argv[1:] or untrained(Path(folder)):
            measure(network)


if __name__ == "__main__":
    main()
