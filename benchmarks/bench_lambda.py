"""The paper's own sweep of λ_B: T1 error and outliers of the MLE on slices of the training anatomies.

    python -m benchmarks.bench_lambda [--fields [--network NAME]] [--anatomies FOLDER] [--out docs/lambda]

With --fields, instead: the λ_B that is chosen from the data in fields as scanners have them (`benchmarks.fields`); with
--network NAME as well, that of the field from which a network starts, and its error of T1 beside the MLE's. With
--heads NAME: the errors of T1 and B of both in heads with partial volume at all borders, of magnitudes in air.

Slices of training anatomies, truth as in rimap.simulation.subjects (T smooth inside a tissue), 31 inversion times of
IV_T1, Gaussian noise of σ = 0.65/SNR added after the modulus, B smooth over a range of 10 % or constant. The same
noise for every λ_B. Writes the table (lambda.csv) and the figure; prints the table.
"""

from __future__ import annotations

import argparse
import csv
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks import fields
from rimap import MLE, PROTOCOLS, Gaussian
from rimap.estimators.mle.field_smoothness import DEFAULT_LAMBDA_B
from rimap.estimators.mle.voxels import Voxels
from rimap.estimators.table import ShapeTable
from rimap.simulation.anatomies import brain_mask, load_anatomy
from rimap.simulation.subjects import simulate_series, simulate_subject

LAMBDAS = (0, 1, 5, 10, 50, 100, 500, 1e3, 1e4, 1e5, 3e5, 1e6, 3e6, 1e7, 1e8, math.inf)
SNRS = (3, 5, 10, 30, 100)
ANATOMIES = ("brainweb03_brain", "brainweb07_brain")
MODEL = PROTOCOLS["IV_T1"]
KINDS: tuple[Literal["smooth", "constant"], ...] = ("smooth", "constant")
COLUMNS = ("B", "SNR", "lambda_B", "GM RMSE %", "WM RMSE %", "brain RMSE ms", "outliers %", "B RMSE")


def slices(folder: Path) -> list[NDArray[Any]]:
    """Return one axial slice of each anatomy, cut to the brain."""
    out = []
    for name in ANATOMIES:
        labels = load_anatomy(folder / f"{name}.nii.gz")
        plane = labels[:, :, int(0.72 * labels.shape[2])]
        inside = np.argwhere(brain_mask(plane))
        (a, b), (c, d) = inside.min(0), inside.max(0) + 1
        out.append(plane[a:c, b:d])
    return out


def measures(T1: NDArray[Any], B: NDArray[Any], truth: NDArray[Any], labels: NDArray[Any]) -> list[float]:
    """Return the columns after λ_B; an outlier is a T1 that is off by more than half of its value."""
    mask, r = brain_mask(labels), T1 / truth[2] - 1
    return [
        100 * float(np.sqrt(np.mean(r[labels == 2] ** 2))),
        100 * float(np.sqrt(np.mean(r[labels == 3] ** 2))),
        float(np.sqrt(np.mean((T1 - truth[2])[mask] ** 2))),
        100 * float(np.mean(abs(r[mask]) > 0.5)),
        float(np.sqrt(np.mean((B - truth[1])[mask] ** 2))),
    ]


def best_single_B(images: NDArray[Any], sigma: float, truth: NDArray[Any], labels: NDArray[Any]) -> list[float]:
    """Return the measures of the one B whose T1 error is least: nobody can know it."""
    voxels = np.flatnonzero(brain_mask(labels))
    rows = []
    with ThreadPoolExecutor(1) as pool:
        data = Voxels.of(images, voxels, sigma, ShapeTable.of(MODEL), Gaussian(sigma=sigma), pool)
        for B in np.linspace(1.75, 1.95, 11):
            T1 = np.full(labels.size, np.nan)
            T1[voxels] = np.exp(data.fit(np.full(len(voxels), B), None, True).u)
            rows.append(measures(T1.reshape(labels.shape), np.full(labels.shape, B), truth, labels))
    return min(rows, key=lambda row: row[2])


def sweep(folder: Path, n: int) -> list[list[Any]]:
    """Return the rows of the table: means over the slices."""
    rows: list[list[Any]] = []
    planes = slices(folder)[:n]
    for kind in KINDS:
        for snr in SNRS:
            found: dict[Any, list[list[float]]] = {x: [] for x in (*LAMBDAS, "best single B")}
            for i, labels in enumerate(planes):
                rng = np.random.default_rng(100 + i)
                truth = simulate_subject(labels, MODEL, rng, field_map=kind)
                series = simulate_series(truth, MODEL, Gaussian(sigma=0.65 / snr), rng, mask=brain_mask(labels))
                for x in LAMBDAS:
                    maps = MLE(lambda_B=x, threads=1).estimate(series)
                    found[x].append(measures(maps["T1"], maps["B"], truth, labels))
                found["best single B"].append(best_single_B(series.images, 0.65 / snr, truth, labels))
            for x, values in found.items():
                rows.append([kind, snr, x, *(round(v, 4) for v in np.mean(values, axis=0))])
                print("  ".join(f"{v!s:>12}" for v in rows[-1]), flush=True)
    return rows


def figure(rows: list[list[Any]], path: Path) -> None:
    """Draw the error and the outliers against λ_B, one line for each SNR."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(9, 6.5), sharex=True, layout="constrained")
    ticks = {x: i for i, x in enumerate(LAMBDAS)}
    for column, kind in enumerate(KINDS):
        for snr in SNRS:
            mine = [r for r in rows if r[0] == kind and r[1] == snr and r[2] != "best single B"]
            at = [ticks[r[2]] for r in mine]
            axes[0, column].semilogy(at, [max(r[3], r[4]) for r in mine], "o-", ms=3, label=f"SNR {snr}")
            axes[1, column].plot(at, [r[6] for r in mine], "o-", ms=3)
        axes[0, column].set_title(f"B {'smooth, range 10 %' if kind == 'smooth' else 'constant'}")
        axes[1, column].set_xticks(
            range(len(LAMBDAS)), ["∞" if math.isinf(x) else f"{x:g}" for x in LAMBDAS], rotation=60
        )
        axes[1, column].set_xlabel("λ_B")
        for ax in axes[:, column]:
            ax.axvline(ticks[DEFAULT_LAMBDA_B], color="0.7", lw=6, zorder=0)
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("T1 RMSE, %: the worse of GM and WM")
    axes[1, 0].set_ylabel("T1 off by more than half, %")
    axes[0, 0].legend(fontsize=8)
    fig.savefig(path, dpi=110)


def main() -> None:
    """Run the sweep and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(__file__).resolve().parents[2] / "shared" / "data" / "anatomies" / "train"
    parser.add_argument("--anatomies", type=Path, default=data)
    parser.add_argument("--slices", type=int, default=len(ANATOMIES), help="how many of the slices")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "lambda")
    parser.add_argument("--fields", action="store_true", help="the λ_B that is chosen from the data, in five fields")
    parser.add_argument("--network", help="with --fields: this network instead, beside the MLE")
    parser.add_argument("--heads", metavar="NETWORK", help="instead, MLE and this network in heads with partial volume")
    options = parser.parse_args()
    if options.heads:
        fields.main_of_heads(options.heads)
        return
    if options.fields and options.network:
        fields.main_of_network(options.network)
        return
    if options.fields:
        fields.main()
        return
    if not options.anatomies.is_dir():
        print(f"skipped: no anatomies at {options.anatomies}")
        return
    print("  ".join(f"{c:>12}" for c in COLUMNS))
    rows = sweep(options.anatomies, options.slices)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "lambda.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    figure(rows, options.out / "lambda.png")


if __name__ == "__main__":
    main()
