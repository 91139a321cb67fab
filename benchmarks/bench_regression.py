"""Is rimap as fast as another version of its source, and are the maps the same? One core, in one run.

    python -m benchmarks.bench_regression --before ../base/src [--runs 7] [--only nlls]

Each version runs in a process of its own, and the two take turns: other work on the machine slows both down alike. The
ratio is the processor time of the other version over that of this one: above 1, this one is faster. Each is the least
over the turns. The maps are compared in the voxels that both versions estimated.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rimap

#: Least ratio that is asked.
ASKED = 0.95
#: Relative difference up to which maps are the same.
SAME = 1e-4
#: λ_B of the MLE: both versions do the same work.
LAMBDA_B = 1e6
#: Cases: estimator, protocol, and which images (`write_images`).
CASES: dict[str, tuple[str, str, str]] = {
    "NLLS, IR (31 TIs), list of tissue": ("nlls", "IV_T1", "tissue"),
    "NLLS, IR (31 TIs), slice of tissue": ("nlls", "IV_T1", "square"),
    "NLLS, IR (31 TIs), head in air": ("nlls", "IV_T1", "head"),
    "NLLS, T2 (6 TEs), list of tissue": ("nlls", "IV_T2", "tissue"),
    "NLLS, T2 (6 TEs), slice of tissue": ("nlls", "IV_T2", "square"),
    "NLLS, T2 (6 TEs), head in air": ("nlls", "IV_T2", "head"),
    "MLE, IR (31 TIs), slice of tissue": ("mle", "IV_T1", "brain"),
    "MLE, IR (31 TIs), head in air": ("mle", "IV_T1", "head"),
    "RIM t1, IR (31 TIs), head in air": ("rim", "IV_T1", "head"),
}
SNR, VOXELS, SIZE = 30.0, 100_000, 256


def write_images(folder: Path, protocol: str, kind: str) -> Path:
    """Write the images of a case, which both versions read, with σ; return the file."""
    from benchmarks import bench_mle, bench_nlls, bench_rim

    file = folder / f"{protocol}_{kind}.npz"
    if file.exists():
        return file
    model, sigma = rimap.PROTOCOLS[protocol], 0.0
    if kind in ("tissue", "square"):
        images = bench_nlls.images(model, VOXELS if kind == "tissue" else SIZE**2, SNR, "rician")[1]
        images = images if kind == "tissue" else images.reshape(-1, SIZE, SIZE)
    elif kind == "brain":
        series, _ = bench_mle.slice_of_brain(SIZE)
        images, sigma = series.images, bench_mle.NOISE.sigma
    else:
        series = bench_rim.series(model, SNR)
        images, sigma = series.images, 0.65 / SNR
    np.savez(file, images=np.ascontiguousarray(images, np.float32), sigma=sigma)
    return file


def serve() -> None:
    """Run the estimates that each input line asks for (a case and files) and print seconds of processor time."""
    ready: dict[str, tuple[Any, Any]] = {}
    for line in sys.stdin:
        name, file, out = line.rstrip("\n").split("\t")
        if name not in ready:
            kind, protocol, _ = CASES[name]
            data = np.load(file)
            sigma = float(data["sigma"])
            noise = rimap.Gaussian(sigma=sigma) if sigma and kind != "nlls" else None
            series = rimap.WeightedSeries(images=data["images"], model=rimap.PROTOCOLS[protocol], noise=noise)
            estimators: dict[str, Any] = {
                "nlls": lambda: rimap.NLLS(threads=1),
                "mle": lambda: rimap.MLE(threads=1, lambda_B=LAMBDA_B),
                "rim": lambda: rimap.RIM(threads=1, network="t1"),
            }
            ready[name] = series, estimators[kind]()
            maps = ready[name][1].estimate(series)  # compiled or loaded
            np.savez(out, kappa=maps.kappa, status=maps.status)
        series, estimator = ready[name]
        begun = time.process_time()
        estimator.estimate(series)
        print(f"seconds {time.process_time() - begun}", flush=True)


class Version:
    """A process in which one version of the source runs."""

    def __init__(self, source: Path, out: Path) -> None:
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        out.mkdir()
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **threads, "PYTHONPATH": str(source.resolve())},
        )  # fmt: skip

    def seconds(self, case: str, file: Path) -> float:
        """Return the processor time of one estimate."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{case}\t{file}\t{self.maps_of(case)}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        sys.exit(f"{case}: the version in {self.out.name!r} has ended.")

    def maps_of(self, case: str) -> Path:
        """Return the file of the maps of a case."""
        return self.out / f"{list(CASES).index(case)}.npz"

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def difference(before: NDArray[Any], now: NDArray[Any]) -> tuple[float, float]:
    """Return the median relative difference of κ (Q, *X), and the share of voxels where one exceeds `SAME`."""
    both = np.isfinite(before).all(0) & np.isfinite(now).all(0)
    if not both.any():
        return float("nan"), float("nan")
    a, b = before[:, both], now[:, both]
    off = abs(b - a) / np.maximum(abs(a), 1e-30)
    return float(np.median(off)), float((off > SAME).any(0).mean())


def main() -> None:
    """Time both versions and print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="folder that holds the other version of the package (its src)")
    parser.add_argument("--runs", type=int, default=7, help="turns of each version")
    parser.add_argument("--only", default="", help="a part of the name of the cases that run")
    parser.add_argument("--images", type=Path, help="folder in which the simulated images are kept for another time")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    if args.before is None:
        print("no other version to compare with: name the src of another checkout with --before")
        return
    here = Path(rimap.__file__).parents[1]
    chosen = [name for name in CASES if args.only.lower() in name.lower()]
    print(
        f"{'case':<38}{'before ms':>11}{'now ms':>10}{'ratio':>8}   >= {ASKED:g}    maps: median difference, share "
        f"above {SAME:g}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = [Version(args.before, folder / "before"), Version(here, folder / "now")]
        for case in chosen:
            file = write_images(args.images or folder, *CASES[case][1:])
            for version in versions:
                version.seconds(case, file)  # not counted
            times = np.array([[version.seconds(case, file) for version in versions] for _ in range(args.runs)])
            before, now = 1000 * times.min(axis=0)
            maps = [np.load(version.maps_of(case))["kappa"] for version in versions]
            median, share = difference(maps[0], maps[1])
            ratio = before / now
            holds = "yes" if ratio >= ASKED else "no"
            print(
                f"{case:<38}{before:11.1f}{now:10.1f}{ratio:8.2f}   {holds:<10}{median:10.1e}{100 * share:9.3f} %",
                flush=True,
            )
        for version in versions:
            version.close()


if __name__ == "__main__":
    main()
