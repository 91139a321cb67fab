"""How long does a run take from the command to the prompt? One slice, a whole head, many small subjects, the first run.

    python -m benchmarks.bench_start                          all goals
    python -m benchmarks.bench_start slice --runs 7           one part: slice, first, head or bids

Each run is a process of its own. "Clock" is the time by the clock, "work" the time of the processors (user and system),
which other work on the machine disturbs less. Both are also given as multiples of those of `python -c "import numpy,
nibabel"`, which takes turns with the runs. Figures are medians over the runs. The last column is
each figure divided by its goal: at most 1.00 holds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

import rimap

try:
    import resource
except ImportError:  # Windows
    sys.exit("bench_start: expected a system that counts the time of processors (Linux or macOS)")

IMPORTS = ("-c", "import numpy, nibabel")
TI_MS = (50.0, 150.0, 400.0, 900.0, 1800.0, 4000.0)
#: Goals: seconds by the clock on two cores, and as a multiple of importing numpy and nibabel (0: none).
SLICE = {"nlls": (1.0, 4.0), "rim": (1.5, 6.0)}
HEAD = {"nlls": 5.0, "mle": 20.0, "rim": 20.0}
FIRST_S, SERIES_PER_CORE_SECOND = 15.0, 3.0
SLICE_SHAPE, HEAD_SHAPE, SMALL_SHAPE = (192, 256, 1), (181, 217, 60), (32, 32, 4)
SUBJECTS = 40


@dataclass(frozen=True)
class Spent:
    """What a process took, s: by the clock, and of processors (user and system)."""

    clock: float
    work: float


def run(*words: str | Path, **environment: str) -> Spent:
    """Return what `python words` took; its output is shown only if it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | environment
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=env, check=False)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stderr}")
    return Spent(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def middle(many: list[Spent]) -> Spent:
    """Return the medians."""
    return Spent(statistics.median(s.clock for s in many), statistics.median(s.work for s in many))


def images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return magnitude images (*shape, N), int16, of an ellipsoid of tissues in air, two thirds of the volume."""
    x = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij"))
    radius = np.sqrt((x**2).sum(0))
    T1 = np.select([radius < 0.3, radius < 0.6, radius < 0.75], [900.0, 1400.0, 3500.0], 500.0)
    kappa = np.stack([700.0 * (radius < 1.0) * (1 + 0.2 * x[0]), 1.85 + 0.1 * x[1], T1])
    clean, rng = np.asarray(rimap.InversionRecovery(tau=TI_MS).signal(kappa)), np.random.default_rng(seed)
    noisy = [np.hypot(image + rng.normal(0, 15, shape), rng.normal(0, 15, shape)) for image in clean]
    return np.stack(noisy, -1).round().astype(np.int16)


def write(path: Path, values: np.ndarray) -> Path:
    """Write images as a compressed NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path


def mapping(path: Path, out: Path, estimator: str) -> tuple[str | Path, ...]:
    """Return the words of `python` that map a file, from nothing."""
    shutil.rmtree(out, ignore_errors=True)
    times = ",".join(f"{t:g}" for t in TI_MS)
    return ("-m", "rimap", "map", path, "--sequence", "ir", "--times-ms", times, "--estimator", estimator, "-o", out)


def show(name: str, spent: Spent, goal: str, of_goal: dict[str, float], more: str = "") -> None:
    """Print a line of the table; `of_goal` are figures divided by their goals."""
    holds = ", ".join(f"{part} {ratio:.2f}" for part, ratio in of_goal.items())
    print(
        f"{name:<20} clock {spent.clock:7.2f} s   work {spent.work:7.2f} s   {more:<56} goal {goal}: {holds}",
        flush=True,
    )


def bench_slice(folder: Path, runs: int) -> None:
    """One slice, kernels compiled: against importing numpy and nibabel."""
    path = write(folder / "slice.nii.gz", images(SLICE_SHAPE))
    for estimator, (goal, ratio) in SLICE.items():
        run(*mapping(path, folder / "out", estimator))  # compiles and writes bytecode
        pairs = [(run(*IMPORTS), run(*mapping(path, folder / "out", estimator))) for _ in range(runs)]
        base, spent = middle([b for b, _ in pairs]), middle([s for _, s in pairs])
        times = statistics.median(s.clock / b.clock for b, s in pairs)
        work = statistics.median(s.work / b.work for b, s in pairs)
        show(
            f"slice, {estimator}",
            spent,
            f"{goal:g} s, {ratio:g} × importing",
            {"clock": spent.clock / goal, "multiple by the clock": times / ratio, "by work": work / ratio},
            f"{times:.1f} × importing by the clock, {work:.1f} × by work ({base.clock:.2f}, {base.work:.2f} s)",
        )


def bench_first(folder: Path, runs: int) -> None:
    """One slice by nlls, and nothing compiled yet: first against second run of a copy of the package."""
    del runs  # each would take as long
    path, source = write(folder / "slice.nii.gz", images(SLICE_SHAPE)), folder / "source"
    shutil.copytree(Path(rimap.__file__).parent, source / "rimap", ignore=shutil.ignore_patterns("__pycache__"))
    places = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    kept = {"PYTHONPATH": places, "NUMBA_CACHE_DIR": str(folder / "compiled")}
    cold, warm = (run(*mapping(path, folder / "out", "nlls"), **kept) for _ in range(2))
    spent = Spent(cold.clock - warm.clock, cold.work - warm.work)
    show(
        "first run, compiling", spent, f"{FIRST_S:g} s", {"clock": spent.clock / FIRST_S, "work": spent.work / FIRST_S}
    )


def bench_head(folder: Path, runs: int, estimators: list[str]) -> None:
    """A whole head in air, 6 images of int16, compressed."""
    path = write(folder / "head.nii.gz", images(HEAD_SHAPE))
    for estimator in estimators:
        small = write(folder / "slice.nii.gz", images(SLICE_SHAPE))
        run(*mapping(small, folder / "out", estimator))
        spent = middle([run(*mapping(path, folder / "out", estimator)) for _ in range(runs)])
        size = sum(f.stat().st_size for f in (folder / "out").rglob("*") if f.is_file()) / 1e6
        of_goal = {"clock": spent.clock / HEAD[estimator], "work of two cores": spent.work / 2 / HEAD[estimator]}
        show(f"head, {estimator}", spent, f"{HEAD[estimator]:g} s on two cores", of_goal, f"files of {size:.0f} MB")


def bench_bids(folder: Path, runs: int) -> None:
    """`rimap bids` over many small subjects: what a series costs beyond the first few."""
    import json

    data = folder / "bids"
    for subject in range(SUBJECTS):
        values = images(SMALL_SHAPE, subject)
        for n, time_ms in enumerate(TI_MS):
            stem = data / f"sub-{subject:03}" / "anat" / f"sub-{subject:03}_inv-{n + 1}_IRT1"
            write(stem.with_name(stem.name + ".nii.gz"), values[..., n])
            stem.with_name(stem.name + ".json").write_text(json.dumps({"InversionTime": time_ms / 1000}))
    (data / "dataset_description.json").write_text(json.dumps({"Name": "small", "BIDSVersion": "1.9.0"}))
    few = [f"{n:03}" for n in range(2)]

    def bids(*more: str) -> Spent:
        shutil.rmtree(folder / "maps", ignore_errors=True)
        return run("-m", "rimap", "bids", data, folder / "maps", "participant", "--estimator", "nlls", *more)

    bids()
    pairs = [(bids("--participant-label", *few), bids()) for _ in range(runs)]
    work = statistics.median(whole.work - start.work for start, whole in pairs)
    spent = middle([whole for _, whole in pairs])
    rate = (SUBJECTS - len(few)) / work
    show(
        "bids, nlls",
        spent,
        f"{SERIES_PER_CORE_SECOND:g} series/s per core",
        {"time of a series": SERIES_PER_CORE_SECOND / rate},
        f"{rate:.1f} series per core second once warm",
    )


def main() -> None:
    """Print each goal with what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="slice, first, head, bids; all if left out")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which the median is shown")
    parser.add_argument("--estimator", action="append", choices=list(HEAD), help="for head; all if left out")
    options = parser.parse_args()
    parts = options.parts or ["slice", "first", "bids", "head"]
    if unknown := set(parts) - {"slice", "first", "bids", "head"}:
        parser.error(f"expected slice, first, bids or head, got {', '.join(sorted(unknown))}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cores} core{'s' if cores != 1 else ''}; medians of {options.runs} runs", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in parts:
            if part == "slice":
                bench_slice(folder, options.runs)
            elif part == "first":
                bench_first(folder, options.runs)
            elif part == "bids":
                bench_bids(folder, options.runs)
            else:
                bench_head(folder, options.runs, options.estimator or list(HEAD))


if __name__ == "__main__":
    main()
