"""What one subject costs in a study of many: core seconds, bytes read and written, memory (docs/cluster.md).

    python -m benchmarks.bench_cluster [--subjects 3] [--estimators nlls mle rim] [--shape 256 256 10] [--nprocs 1]

Makes a BIDS data set of inversion recovery (6 times; a head of three tissues in noise, int16, SNR 50 in white matter)
and maps it by `rimap bids … participant`, with and without a mask. Core seconds are user and system time of the
process and its children, by difference between all subjects and one, so that start-up is counted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from rimap import InversionRecovery

TIMES = (50.0, 400.0, 900.0, 1500.0, 2500.0, 4000.0)
TR = 6000.0
#: Semi-axes of the ellipsoids, A and T1 (ms) inside.
TISSUES = ((0.42, 0.95, 4000.0), (0.36, 0.85, 1600.0), (0.26, 0.65, 900.0), (0.09, 1.0, 4000.0))


def write_subject(root: Path, n: int, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    """Write the series and the mask of one subject."""
    anat = root / f"sub-{n:04d}" / "anat"
    anat.mkdir(parents=True)
    x, y, z = np.meshgrid(*((np.arange(k) - (k - 1) / 2) / k for k in shape), indexing="ij")
    radius = np.sqrt(x**2 + (0.85 * y) ** 2 + (0.4 * z) ** 2)
    A, T1, B = np.zeros(shape), np.full(shape, 1000.0), 1.9 + 0.08 * np.cos(3 * x) * np.cos(2 * y)
    for size, amplitude, time_constant in TISSUES:
        inside = radius < size
        A[inside], T1[inside] = 1000 * amplitude, time_constant * rng.uniform(0.97, 1.03)
    signal = InversionRecovery(tau=TIMES, tr=TR).signal(np.stack([A, B, T1]))
    affine = np.diag([0.9, 0.9, 5.0, 1.0])
    for k, (image, tau) in enumerate(zip(signal, TIMES), start=1):
        noisy = np.hypot(image + 13 * rng.standard_normal(shape), 13 * rng.standard_normal(shape))
        stem = f"sub-{n:04d}_inv-{k}_IRT1"
        nib.save(nib.Nifti1Image(noisy.round().astype(np.int16), affine), anat / f"{stem}.nii.gz")
        (anat / f"{stem}.json").write_text(json.dumps({"InversionTime": tau / 1000, "RepetitionTime": TR / 1000}))
    masks = root / "derivatives" / "masks" / f"sub-{n:04d}" / "anat"
    masks.mkdir(parents=True)
    nib.save(nib.Nifti1Image((A > 0).astype(np.uint8), affine), masks / f"sub-{n:04d}_desc-brain_mask.nii.gz")


def run(root: Path, out: Path, n: int, estimator: str, *options: str) -> tuple[float, float, float]:
    """Map the first n subjects; return wall time (s), core seconds and peak memory of a process (MB)."""
    labels = [x for k in range(n) for x in ("--participant-label", f"{k + 1:04d}")]
    command = [sys.executable, "-m", "rimap", "bids", str(root), str(out), "participant", "--estimator", estimator]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "--skip-bids-validation", "--quiet", *labels, *options])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def size(folder: Path, pattern: str = "*") -> int:
    return sum(f.stat().st_size for f in folder.rglob(pattern) if f.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 10))
    parser.add_argument("--estimators", nargs="+", default=["nlls", "mle", "rim"])
    parser.add_argument("--hours", type=float, default=10.0, help="a night")
    wanted = parser.parse_args()
    rng, N = np.random.default_rng(0), wanted.subjects
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bids"
        for n in range(N):
            write_subject(root, n + 1, tuple(wanted.shape), rng)
        (root / "dataset_description.json").write_text(json.dumps({"Name": "simulated", "BIDSVersion": "1.10.0"}))
        read = size(root, "sub-*_IRT1.*") / N
        shape = " × ".join(map(str, wanted.shape))
        print(f"{N} subjects of {shape} × {len(TIMES)}; read per subject {read / 1e6:.1f} MB (int16, gzip)\n")
        print(
            "| estimator | mask | core s per subject | start-up, core s | written per subject, MB | memory, MB | cores "
            "for 1,000 in a night |"
        )
        print("|---|---|---:|---:|---:|---:|---:|")
        for estimator in wanted.estimators:
            for mask in ("no", "brain"):
                options = ["--nprocs", "1"]
                options += ["--mask", str(root / "derivatives" / "masks")] if mask == "brain" else []
                outs = [Path(folder) / f"{estimator}-{mask}-{n}" for n in (1, N)]
                _, one, _ = run(root, outs[0], 1, estimator, *options)
                _, cpu, memory = run(root, outs[1], N, estimator, *options)
                each = (cpu - one) / (N - 1)
                written = size(outs[1]) / N
                cores = 1000 * each / 3600 / wanted.hours
                print(
                    f"| {estimator} | {mask} | {each:.1f} | {max(0.0, one - each):.1f} | {written / 1e6:.1f} | "
                    f"{memory:.0f} | {cores:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
