"""Seconds and memory to map a slice with a RIM: 256 × 256, 31 images, one core; target 1.2 s (goal 0.6 s), 1 GiB.

python -m benchmarks.bench_rim                        both designs, with random weights: time does not depend on them
python -m benchmarks.bench_rim t1 runs/a.onnx         networks by name or file
python -m benchmarks.bench_rim t1 --volume 20         and the memory of a volume of 20 slices (a minute)

Processor seconds after start-up (best of three), which other work on the machine disturbs less than the wall clock,
beside the regularised MLE and NLLS in the same run. There is no mask: background is mapped too. Memory is the peak of a
process of its own above what it held, images included, before mapping.
"""

# ruff: noqa: E402 - the number of threads is set before NumPy is imported
from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for name in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
):  # before NumPy: processor time is of one core
    os.environ.setdefault(name, "1")

import numpy as np

import rimap
from rimap.estimators.base import Estimator
from rimap.estimators.network_files import metadata_of, path_of
from rimap.simulation.anatomies import digital_brain
from rimap.simulation.subjects import simulate_subject

SIZE = 256


def series(model: rimap.SignalModel, snr: float, slices: int = 0) -> rimap.WeightedSeries:
    """Return a slice of the built-in head, magnitude, with noise (σ = 0.65/SNR), or so many with noise of their own."""
    rng = np.random.default_rng(0)
    volume = digital_brain((192, 216, 144))
    labels = volume[:, :, int(np.isin(volume, (1, 2, 3, 8)).sum((0, 1)).argmax())]
    pad = [((SIZE - n) // 2, SIZE - n - (SIZE - n) // 2) for n in labels.shape]
    signal = model.signal(simulate_subject(np.pad(labels, pad), model, rng)).astype(np.float32)
    sigma = 0.65 / snr
    images = np.empty((*signal.shape, max(slices, 1)), np.float32)
    for z in range(images.shape[-1]):
        real, imaginary = np.float32(sigma) * rng.standard_normal((2, *signal.shape), np.float32)
        images[..., z] = np.hypot(signal + real, imaginary)
    return rimap.WeightedSeries(
        images=images if slices else images[..., 0], model=model, noise=rimap.Gaussian(sigma=sigma)
    )


def seconds(estimator: Estimator, data: rimap.WeightedSeries, repeats: int = 3) -> float:
    """Return the least processor time of so many runs after a first."""
    estimator.estimate(data)
    best = np.inf
    for _ in range(repeats):
        begun = time.process_time()
        estimator.estimate(data)
        best = min(best, time.process_time() - begun)
    return best


def model_of(network: str) -> rimap.SignalModel:
    """Return the protocol that a network is timed on."""
    return rimap.PROTOCOLS["IV_T1" if metadata_of(path_of(network))["sequence"] == "ir" else "IV_T2"]


def held() -> float:
    """Return what the process holds now, GiB."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**30


def print_peak(network: str, snr: float, slices: int) -> None:
    """Print what mapping takes at its peak above what was held before, GiB."""
    data = series(model_of(network), snr, slices)
    before = held()
    rimap.RIM(network=network, threads=1).estimate(data)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before)


def peak(network: str, snr: float, slices: int = 0) -> float:
    """Return the figure of `print_peak` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_rim", network, "--peak", f"{snr:g}", str(slices)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(network: str, snrs: list[float]) -> None:
    """Print a line for each SNR."""
    model, name = model_of(network), metadata_of(path_of(network))["name"]
    print(f"\n{name}, {SIZE} × {SIZE} × {model.n_images}:  RIM s    MLE s   NLLS s   RIM/MLE  RIM/NLLS   peak GiB")
    for snr in snrs:
        data = series(model, snr)
        rim, mle, nlls = (
            seconds(e, data)
            for e in (rimap.RIM(network=network, threads=1), rimap.MLE(threads=1), rimap.NLLS(threads=1))
        )
        print(
            f"{'SNR ' + format(snr, 'g'):<22} {rim:9.2f} {mle:8.2f} {nlls:8.3f} {rim / mle:9.2f} {rim / nlls:9.1f} "
            f"{peak(network, snr):10.2f}",
            flush=True,
        )


def untrained(folder: Path) -> list[str]:
    """Export both designs with random weights."""
    from rimap.training.loop import build_network, export
    from rimap.training.recipe import training_recipe

    paths = []
    for name, document in {
        "paper": {"variant": "paper", "protocol": "IV_T1"},
        "general": {"sequence": "ir"},
        "paper_t2": {"variant": "paper", "protocol": "IV_T2"},
    }.items():
        recipe = training_recipe({"name": name, **document})
        export(recipe, build_network(recipe), folder / f"{name}.onnx", 0, None)
        paths.append(str(folder / f"{name}.onnx"))
    return paths


def main() -> None:
    """Time the networks that are named, or both designs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="names or files")
    parser.add_argument("--snrs", default="200,30,10,5")
    parser.add_argument("--volume", type=int, default=0, help="slices of a volume whose memory is measured too")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(args.networks[0], float(args.peak[0]), int(args.peak[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        for network in args.networks or untrained(Path(folder)):
            measure(network, [float(s) for s in args.snrs.split(",")])
            if args.volume:
                shape = f"{SIZE} × {SIZE} × {args.volume}"
                print(f"volume of {shape}, SNR 30: peak {peak(network, 30.0, args.volume):.2f} GiB above its images")


if __name__ == "__main__":
    main()
