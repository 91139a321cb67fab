"""NLLS beside scipy's curve_fit in the same run, and its optimum beside a dense search.

    python -m benchmarks.bench_nlls [--voxels 100000] [--dense 100000]

Seconds are of processor time where one thread works, so that other work on the machine disturbs little; of the
clock for two threads.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from benchmarks.dense import dense_search
from rimap import NLLS, PROTOCOLS, Gaussian, Rician, SignalModel, WeightedSeries

Floats = NDArray[np.float64]


def tissue(model: SignalModel, n: int, rng: np.random.Generator) -> Floats:
    """Return maps (Q, n): A = 1, B 1.6 to 2, T1 300 to 2500 ms or T2 20 to 300 ms."""
    if len(model.parameters) == 3:
        return np.stack([np.ones(n), rng.uniform(1.6, 2.0, n), rng.uniform(300, 2500, n)])
    return np.stack([np.ones(n), rng.uniform(20, 300, n)])


def images(model: SignalModel, n: int, snr: float, kind: str, seed: int = 0) -> tuple[Floats, Floats]:
    """Return maps and images; `kind` rician, or gaussian: noise added after the modulus, so that S < 0 occurs."""
    rng = np.random.default_rng(seed)
    kappa = tissue(model, n, rng)
    noise = Rician(sigma=1 / snr) if kind == "rician" else Gaussian(sigma=1 / snr)
    return kappa, noise.sample(model.signal(kappa), rng)


def best_of(times: int, work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the shortest of several runs, s."""
    seconds = []
    for _ in range(times):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)


#: What a user would hand to curve_fit: the plain formula, its Jacobian left to scipy.
FORMULAS: dict[str, Callable[..., Floats]] = {
    "ir": lambda tau, A, B, T1: np.abs(A * (1 - B * np.exp(-tau / T1))),
    "t2": lambda tau, A, T2: A * np.exp(-tau / T2),
}


def scipy_rate(model: SignalModel, S: Floats, bounded: bool) -> float:
    """Return voxels per second of curve_fit on the plain formula, from the paper's initial guess (§4.4.4)."""
    limits = np.array([p.bounds for p in model.parameters]).T
    guess = model.initial_guess(S)
    tau, formula = model.times, FORMULAS[model.name]

    def one(v: int) -> None:
        with contextlib.suppress(RuntimeError, ValueError):
            how = {"bounds": limits} if bounded else {"method": "lm"}
            curve_fit(formula, tau, S[:, v], p0=guess[:, v], **how)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return S.shape[1] / best_of(2, lambda: [one(v) for v in range(S.shape[1])], time.process_time)


def speed(name: str, n: int) -> None:
    """Print the table of speeds of a protocol."""
    model = PROTOCOLS[name]
    _, S = images(model, n, 30, "rician")
    series = WeightedSeries(images=S.astype(np.float32), model=model)
    for threads in (1, 2):
        NLLS(threads=threads).estimate(series)  # compiled or loaded
    one = n / best_of(5, lambda: NLLS(threads=1).estimate(series), time.process_time)
    one, two = (NLLS(threads=threads) for threads in (1, 2))
    clock = [n / best_of(5, partial(estimator.estimate, series), time.perf_counter) for estimator in (one, two)]
    lm, box = (scipy_rate(model, S[:, :250], bounded) for bounded in (False, True))
    print(f"\n{model.title}, {name}: {model.n_images} images, SNR 30, {n:,} voxels")
    print(f"  {'curve_fit, lm':28}{lm:14,.0f} voxels/s")
    print(f"  {'curve_fit, bounded':28}{box:14,.0f} voxels/s")
    print(f"  {'NLLS, 1 thread':28}{one:14,.0f} voxels/s   {one / lm:7,.0f}x lm   {one / box:7,.0f}x bounded")
    print(f"  {'NLLS, 2 threads (clock)':28}{clock[1]:14,.0f} voxels/s   {clock[1] / clock[0]:7.2f}x one (clock)")


def optimum(name: str, n: int) -> None:
    """Print how many voxels have a sum of squares more than σ² above that of a dense search."""
    model = PROTOCOLS[name]
    for kind in ("rician", "gaussian"):
        for snr in (10, 30, 100):
            _, S = images(model, n, snr, kind, seed=snr)
            noise = Gaussian(sigma=1 / snr)
            maps = NLLS().estimate(WeightedSeries(images=S, model=model, noise=noise))
            excess = (((S - model.signal(maps.kappa)) ** 2).sum(0) - dense_search(model, S, n_T=250)) * snr**2
            below = (S < 0).any(0).mean()
            print(
                f"  {name:6} {kind:9} SNR {snr:3}: {(excess > 1).sum():4} of {n:,} voxels more than sigma^2 above"
                f" (largest {excess.max():6.3f}; {100 * below:.0f} % have an image below zero)",
                flush=True,
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=200_000)
    parser.add_argument("--dense", type=int, default=10_000, help="voxels compared with the dense search")
    options = parser.parse_args()
    for name in ("IV_T1", "IV_T2"):
        speed(name, options.voxels)
    print("\nOptimum beside a dense search")
    for name in ("IV_T1", "IV_T2"):
        optimum(name, options.dense)


if __name__ == "__main__":
    main()
