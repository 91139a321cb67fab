"""The regularised MLE on a 256 × 256 slice of 31 images at SNR 30: seconds, and its objective beside a slow solver's.

    python -m benchmarks.bench_mle [--volume]

Seconds are of processor time on one thread, so that other work on the machine disturbs little. With --volume also the
time and the memory of a volume of 256 × 256 × 60 × 31 (some minutes).
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import minimize as lbfgs

from rimap import MLE, NLLS, PROTOCOLS, Gaussian, Rician, WeightedSeries
from rimap.estimators.mle import field_solver as mle
from rimap.estimators.mle.field import Box, minimise
from rimap.estimators.mle.field_smoothness import DEFAULT_LAMBDA_B
from rimap.estimators.mle.voxels import Voxels
from rimap.estimators.rim.whole_field import smooth_field
from rimap.estimators.table import ShapeTable
from rimap.simulation.anatomies import digital_brain
from rimap.simulation.subjects import simulate_series, simulate_subject

MODEL = PROTOCOLS["IV_T1"]
NOISE = Gaussian(sigma=0.65 / 30)


def slice_of_brain(n: int = 256) -> tuple[WeightedSeries, NDArray[np.float64]]:
    """Return a series that is tissue throughout, and its truth."""
    rng = np.random.default_rng(0)
    labels = digital_brain((64, 72, 48))[16:48, 18:54, 24]
    labels = np.tile(labels, (n // labels.shape[0] + 1, n // labels.shape[1] + 1))[:n, :n]
    labels[labels == 0] = 3
    truth = simulate_subject(labels, MODEL, rng)
    return simulate_series(truth, MODEL, NOISE, rng, mask=np.ones(labels.shape, bool)), truth


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Return the least processor time."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def slow_solver(series: WeightedSeries, truth: NDArray[np.float64]) -> tuple[float, float]:
    """Return the objective of the estimate, and the least that L-BFGS finds from two other starts."""
    kept: list[Any] = []

    def keep(*args: Any, **options: Any) -> Any:
        kept.append(minimise(*args, **options))
        return kept[0]

    mle.minimise = keep
    try:
        MLE(lambda_B=DEFAULT_LAMBDA_B, threads=1).estimate(series)
    finally:
        mle.minimise = minimise
    box = Box.around(series.selected, series.voxel_size)
    scale = 1 / np.sqrt(150.0 + DEFAULT_LAMBDA_B * box.mu**2)
    with ThreadPoolExecutor(2) as pool:
        data = Voxels.of(series.images, np.arange(series.selected.size), NOISE.sigma, ShapeTable.of(MODEL), NOISE, pool)

        def objective(z: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            B = fft.idctn(z.reshape(box.shape) * scale, norm="ortho")
            fit, LB = data.fit(np.clip(B.reshape(-1)[box.data], 0, 3), None, True), box.laplacian(B)
            G = box.scatter(fit.g) + DEFAULT_LAMBDA_B * box.laplacian(LB)
            return fit.total + DEFAULT_LAMBDA_B / 2 * (LB**2).sum(), (fft.dctn(G, norm="ortho") * scale).reshape(-1)

        def coordinates(B: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(fft.dctn(B, norm="ortho") / scale).reshape(-1)

        start = np.pad(truth[1], [(i.start, n - i.stop) for i, n in zip(box.inner, box.shape)], mode="edge")
        slow = min(
            float(
                lbfgs(
                    objective, coordinates(B), jac=True, method="L-BFGS-B", options={"maxiter": 60, "ftol": 1e-12}
                ).fun
            )
            for B in (np.full(box.shape, 1.7), start)
        )
        return objective(coordinates(kept[0][0]))[0], slow


def volume(slices: int = 60) -> None:
    """Print time and memory of a volume."""
    series, _ = slice_of_brain()
    images = np.repeat(series.images[..., None], slices, axis=-1)
    images += NOISE.sigma * np.random.default_rng(1).standard_normal(images.shape, dtype=np.float32)
    series = WeightedSeries(images=images, model=MODEL, noise=Gaussian(sigma=NOISE.sigma * math.sqrt(2)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    MLE().estimate(series)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{'volume of 256 × 256 × ' + str(slices):<44}{time.perf_counter() - start:8.1f} s of the clock")
    print(f"{'memory above what it took to make the images':<44}{(peak - before) / 2**20:8.2f} GiB")
    print(f"{'images':<44}{images.nbytes / 2**30:8.2f} GiB")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", action="store_true")
    options = parser.parse_args()
    series, truth = slice_of_brain()
    rician = series.with_noise(Rician(sigma=NOISE.sigma))
    for name, work in {
        "MLE, Gaussian (target 3 s, goal 1 s)": lambda: MLE(threads=1).estimate(series),
        "MLE, Rician": lambda: MLE(threads=1).estimate(rician),
        "MLE with one B (lambda_B = inf)": lambda: MLE(threads=1, lambda_B=math.inf).estimate(series),
        "smooth_field, with which the RIM begins": lambda: smooth_field(series, threads=1),
        "NLLS, for comparison": lambda: NLLS(threads=1).estimate(series),
    }.items():
        print(f"{name:<44}{seconds(work):8.2f} s", flush=True)
    found, slow = slow_solver(series, truth)
    print(f"{'objective above the slow solver (target < 1)':<44}{found - slow:8.3f}")
    if options.volume:
        volume()


if __name__ == "__main__":
    main()
