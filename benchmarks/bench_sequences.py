"""NLLS for every sequence: voxels per second, the optimum of a dense search, and the truth where well determined.

    python -m benchmarks.bench_sequences [--only vfa,megre] [--voxels 300000] [--dense 10000] [--snrs 100]

Seconds are of processor time on one thread. The signal-to-noise ratio (SNR) is that of the brightest image of the
middle voxel.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dense import dense_grid, dense_search
from rimap import NLLS, Gaussian, Rician, SignalModel, WeightedSeries
from rimap.likelihood import cramer_rao_sd
from rimap.signals import signal_models

Floats = NDArray[np.float64]
SNRS = (10, 30, 100)
#: A voxel whose Cramér-Rao standard deviation is below this, relative, has to be right to it (0.5 %).
WELL_DETERMINED = 0.005


@dataclass(frozen=True)
class Scan:
    """A usual scan of a sequence, and what is in it: uniform ranges of the parameters, by name; T in ms on a log scale.

    `asked` is the least number of voxels per second that is asked of NLLS on one core, 0 for none.
    """

    sequence: str
    settings: Mapping[str, Any]
    ranges: Mapping[str, tuple[float, float]]
    asked: float = 0.0
    given: tuple[str, ...] = field(default=())

    @property
    def model(self) -> SignalModel:
        """The signal model of the scan."""
        kind = signal_models()[self.sequence]
        return kind(**({} if self.settings else kind.typical_protocol), **self.settings)

    def maps(self, n: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Return n voxels, (n,) by name."""
        found: dict[str, Floats] = {}
        for p in self.model.parameters:
            low, high = self.ranges.get(p.name, (1.0, 1.0))
            values = rng.uniform(low, high, n)
            found[p.name] = low * (high / low) ** ((values - low) / (high - low)) if p == self.model.time else values
        return found


T1, T2, T2STAR, B1 = (300.0, 2500.0), (20.0, 300.0), (5.0, 100.0), (0.75, 1.15)
SCANS = (
    Scan("ir", {"tau": (50, 100, 200, 400, 700, 1100, 1700, 2500, 4000)}, {"B": (1.6, 2.0), "T1": T1}),
    Scan("t2", {"tau": (10, 20, 40, 60, 90, 130)}, {"T2": T2}),
    Scan("sr", {"tau": (100, 300, 600, 1000, 1600, 2500, 5000)}, {"F": (0.8, 1.05), "T1": T1}),
    Scan("megre", {"te": tuple(range(4, 52, 4))}, {"T2star": T2STAR}, asked=1e6),
    Scan("megre-offset", {"te": tuple(range(3, 63, 5))}, {"T2star": T2STAR, "C": (0.0, 0.3)}, asked=1e5),
    Scan("vfa", {"flip_angle": (3, 8, 15, 25), "tr": 15}, {"B1": B1, "T1": T1}, asked=1e6, given=("B1",)),
    Scan(
        "mese",
        {"te": tuple(range(10, 330, 10))},
        {"B1": B1, "T1": (1000.0, 1000.0), "T2": T2},
        asked=1e5,
    ),
    Scan(
        "look-locker",
        {"ti": tuple(range(50, 3250, 200))},
        {"B": (1.8, 4.0), "T1star": (200.0, 1200.0)},
    ),
    Scan(
        "molli",
        {"ti": (100, 180, 260, 1100, 1180, 2100, 2180, 3100, 3180, 4100, 4180)},
        {"B": (1.8, 3.0), "T1star": (300.0, 1500.0)},
    ),
    Scan("mp2rage", {}, {"B1": B1, "T1": (400.0, 3500.0)}, given=("B1",)),
    Scan("mp2rage-uni", {}, {"B1": B1, "T1": (800.0, 3000.0)}, given=("B1",)),
)


def simulated(scan: Scan, n: int, snr: float, seed: int = 0) -> tuple[WeightedSeries, dict[str, Floats]]:
    """Return images (N, n) of n voxels, with what is given, and their truth by name."""
    model, rng = scan.model, np.random.default_rng(seed)
    truth = scan.maps(n, rng)
    kappa = np.stack([truth[p.name] for p in model.parameters])
    middle = np.stack([np.median(row, keepdims=True) for row in kappa])
    sigma = float(abs(model.signal(middle)).max() / snr)
    # A modulus is taken of images without a sign; echoes and steady states are magnitude images, too.
    can_be_negative = model.is_signed or not model.amplitudes or (model.changes_sign and not model.magnitude)
    noise = Gaussian(sigma=sigma) if can_be_negative else Rician(sigma=sigma)
    images = noise.sample(model.signal(kappa), rng)
    given = {name: truth[name] for name in scan.given}
    return WeightedSeries(images=images, model=model, noise=Gaussian(sigma=sigma), given=given), truth


def speed(scan: Scan, n: int) -> str:
    """Return voxels per second of processor time on one thread, and what is asked."""
    series, _ = simulated(scan, n, 30)
    NLLS(threads=1).estimate(series)  # compiled or loaded, and its table made
    rate = n / best_of(3, lambda: NLLS(threads=1).estimate(series))
    verdict = "" if not scan.asked else f" (asked {scan.asked:,.0f}{'' if rate >= scan.asked else ': NOT reached'})"
    return f"{rate:12,.0f} voxels/s{verdict}"


def best_of(times: int, work: Callable[[], object]) -> float:
    """Return the shortest processor time of several runs, s."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def optimum(scan: Scan, n: int, snr: float) -> str:
    """Return how many voxels exceed the sum of squares of a dense search by more than σ², and which lack a value."""
    series, _ = simulated(scan, n, snr, seed=snr)
    model, sigma = series.model, float(series.noise.sigma)
    maps = NLLS().estimate(series)
    S = np.asarray(series.images, dtype=float)
    linear = model.separable and not scan.given
    least = dense_search(model, S, n_T=250) if linear else dense_grid(model, S, dict(series.held))
    excess = (((S - model.signal(maps.kappa)) ** 2).sum(0) - least) / sigma**2
    missing = int((~np.isfinite(excess)).sum())
    return f"SNR {snr:3}: {int((excess > 1).sum())} above (largest {np.nanmax(excess):6.3f}), {missing} without a value"


def truth_found(scan: Scan) -> str:
    """Return median and 99th percentile of the error of T at SNR 1000, where its Cramér-Rao SD is well below 0.5 %."""
    series, truth = simulated(scan, 20_000, 1000, seed=1)
    model, maps = series.model, NLLS().estimate(series)
    kappa = np.stack([truth[p.name] for p in model.parameters])
    sd = cramer_rao_sd(model, series.noise, kappa, held=series.held)
    lines = []
    for p in (model.time, *(d for d in model.derived if d.main)):
        if p == model.time:
            true, relative = truth[p.name], sd[model.index(p.name)] / truth[p.name]
        else:
            true = np.asarray(p.formula(model, truth))
            relative = maps.sd[p.name] / true
        well = relative < WELL_DETERMINED
        if not well.any():
            lines.append(f"{p.name}: no voxel is determined to 0.5 %")
            continue
        wrong = maps[p.name][well] / true[well] - 1
        z = wrong / relative[well]
        lines.append(
            f"{p.name}: {well.sum():,} voxels, mean error {100 * wrong.mean():+.3f} %, "
            f"99 % within {100 * np.quantile(abs(wrong), 0.99):.2f} % and {np.quantile(abs(z), 0.99):.1f} SD"
        )
    return "; ".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="sequences, with commas between")
    parser.add_argument("--voxels", type=int, default=300_000, help="voxels that are timed")
    parser.add_argument("--snrs", default=",".join(map(str, SNRS)), help="of the dense search, with commas between")
    parser.add_argument("--dense", type=int, default=10_000, help="voxels compared with the dense search, 0 for none")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    for scan in SCANS:
        if only and scan.sequence not in only:
            continue
        print(f"\n{scan.model.title} ({scan.sequence}), {scan.model.n_images} images", flush=True)
        print(f"  {speed(scan, options.voxels)}", flush=True)
        print(f"  truth at SNR 1000: {truth_found(scan)}", flush=True)
        for snr in map(int, options.snrs.split(",")) if options.dense else ():
            print(f"  {optimum(scan, options.dense, snr)} of {options.dense:,} voxels", flush=True)
    closed_forms()


def closed_forms() -> None:
    """Print NLLS beside the closed form of VFA and T2*: they agree at high SNR, and NLLS is less biased at SNR 10."""
    print("\nBeside the closed forms (Rician noise; flip angles and echo times as above)")
    for name, formula, title in (("vfa", despot1, "DESPOT1"), ("megre", log_linear, "log-linear")):
        scan = next(s for s in SCANS if s.sequence == name)
        for snr in (100_000, 10):
            series, truth = simulated(scan, 50_000, snr, seed=2)
            T = truth[scan.model.time.name]
            closed, ours = formula(series), NLLS().estimate(series)[scan.model.time.name]
            fine = np.isfinite(closed) & (closed > 0)
            apart = np.quantile(abs(ours[fine] / closed[fine] - 1), 0.95)
            bias = [100 * (np.nanmedian(np.where(fine, t / T, np.nan)) - 1) for t in (ours, closed)]
            print(
                f"  {name:6} SNR {snr:6,}: 95 % of voxels within {100 * apart:.2f} % of {title}; median bias of NLLS "
                f"{bias[0]:+.2f} %, of {title} {bias[1]:+.2f} % ({100 * (1 - fine.mean()):.1f} % of voxels without a "
                "value)",
                flush=True,
            )


def despot1(series: WeightedSeries) -> Floats:
    """Return T1 (V,) by the line S/sin α = E S/tan α + A (1 − E) (Deoni et al. 2003, doi:10.1002/mrm.10407)."""
    S, model = np.asarray(series.images), series.model
    flip = np.deg2rad(model.times)[:, None] * np.asarray(series.given["B1"])
    y, x = S / np.sin(flip), S / np.tan(flip)
    dx = x - x.mean(0)
    slope = (dx * y).sum(0) / (dx * dx).sum(0)
    with np.errstate(all="ignore"):
        T = -model.tr[0] / np.log(slope)  # type: ignore[attr-defined]
    return np.where((slope > 0) & (slope < 1), T, np.nan)


def log_linear(series: WeightedSeries) -> Floats:
    """Return T2* (V,) by a straight line through log S."""
    S, t = np.asarray(series.images), series.model.times[:, None]
    with np.errstate(all="ignore"):
        y = np.log(S)
    dt = t - t.mean()
    return np.asarray(-(dt * dt).sum() / (dt * y).sum(0))


if __name__ == "__main__":
    main()
