"""Compare the maps of every network that ships with those of another version of the source, on the same images.

python -m benchmarks.same_maps --before ../base/src        largest and median relative difference of each map

Each version maps in a process of its own. The images have one slice of squares of several relaxation times with a
smooth field, three noise levels, Gaussian and Rician noise, signed images, and a known repetition time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import rimap
from rimap.estimators.network_files import ANY_SEQUENCE, metadata_of, shipped
from rimap.signals.base import SignalModel

SIZE = 72
TAU_MS = (40.0, 120.0, 300.0, 600.0, 1100.0, 1900.0, 3000.0, 4400.0)
TE_MS = (8.0, 16.0, 30.0, 55.0, 100.0, 180.0)


def cases() -> dict[str, tuple[str, SignalModel, str, float]]:
    """Return (network, signal model, noise, SNR) of each case, by name."""
    found: dict[str, tuple[str, SignalModel, str, float]] = {}
    for name, path in shipped().items():
        about = metadata_of(path)
        for sequence in ("ir", "t2") if about["sequence"] == ANY_SEQUENCE else (about["sequence"],):
            seen = about["trained_on"].get(sequence, about["trained_on"])
            kind, tau = {"ir": (rimap.InversionRecovery, TAU_MS), "t2": (rimap.T2Decay, TE_MS)}[sequence]
            if times := tuple(seen["times_ms"]):
                found[f"{name} SNR 20"] = (name, kind(tau=times), "Gaussian", 20.0)
                continue
            for noise, snr in (("Gaussian", 100.0), ("Gaussian", 10.0), ("Rician", 4.0)):
                found[f"{name} {sequence} {noise} SNR {snr:g}"] = (name, kind(tau=tau), noise, snr)
            if seen["signed"] and sequence == "ir":
                signed = kind(tau=tau, signed=True, tr=6000.0)
                found[f"{name} signed, TR known, SNR 30"] = (name, signed, "Gaussian", 30.0)
    return found


def truth(quantity: str) -> np.ndarray:
    """Return κ (Q, X, Y) with a smooth field where the model has one, and air around it."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    square = ((x * 5).astype(int) + 2 * (y * 4).astype(int)) % 5
    long = np.array([400.0, 800.0, 1000.0, 1400.0, 3000.0])[square]
    A = np.where(np.hypot(x - 0.5, y - 0.5) < 0.48, 0.6 + 0.08 * square, 0.0)
    return np.stack([A, 1.8 + 0.15 * (x - y * y), long] if quantity == "ir" else [A, long / 12])


def write_images(folder: Path) -> None:
    """Write the images of each case, which both versions read."""
    for i, (_, model, noise, snr) in enumerate(cases().values()):
        rng = np.random.default_rng(i)
        images = getattr(rimap, noise)(sigma=0.65 / snr).sample(model.signal(truth(model.name)), rng)
        np.save(folder / f"{i}.npy", images.astype(np.float32))


def map_images(folder: Path, out: Path) -> None:
    """Map the images with the version that is imported."""
    out.mkdir(exist_ok=True)
    for i, (network, model, noise, snr) in enumerate(cases().values()):
        series = rimap.WeightedSeries(np.load(folder / f"{i}.npy"), model, getattr(rimap, noise)(sigma=0.65 / snr))
        kind = {"rim": rimap.RIM, "resnet": rimap.ResNet}[metadata_of(shipped()[network])["kind"]]
        maps = kind(network=network, threads=1).estimate(series)
        np.savez(out / f"{i}.npz", kappa=maps.kappa, status=maps.status)


def main() -> None:
    """Map with both versions and print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="folder that holds the other version of the package (its src)")
    parser.add_argument("--map", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.map:
        map_images(Path(args.map[0]), Path(args.map[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        here = Path(rimap.__file__).parents[1]
        for source, out in ((args.before, "before"), (here, "now")):
            subprocess.run(
                [sys.executable, __file__, "--map", name, str(folder / out)],
                check=True,
                env={**os.environ, "PYTHONPATH": str(Path(source).resolve())},
            )
        worst = 0.0
        print(f"{'case':<34}{'largest':>10}{'median':>10}{'99.9 %':>10}   voxels of another status")
        for i, case in enumerate(cases()):
            a, b = (np.load(folder / out / f"{i}.npz") for out in ("before", "now"))
            off = abs(b["kappa"] - a["kappa"]) / np.where(a["kappa"] == 0, 1, abs(a["kappa"]))
            tissue = truth(cases()[case][1].name)[0] > 0  # air is rounding of noise
            off = off[np.isfinite(a["kappa"]) & np.isfinite(b["kappa"]) & tissue]
            worst = max(worst, float(off.max()))
            print(
                f"{case:<34}{off.max():10.1e}{np.median(off):10.1e}{np.quantile(off, 0.999):10.1e}   "
                f"{int((a['status'] != b['status']).sum())}"
            )
        print(f"largest: {worst:.1e}")


if __name__ == "__main__":
    main()
