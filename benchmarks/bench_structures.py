"""How much of a small or faint structure an estimator keeps, beside how well the data themselves could show it.

python -m benchmarks.bench_structures rim:t1                       TI31, TI9, TI6, TI4 at SNR 5, 10, 20, 30
python -m benchmarks.bench_structures rim:t1 mle --draws 2 --protocols TI9 --snrs 20

Known structures are put into white matter (T1 of 800 ms, A of 0.65, B of 1.9 that bends by 2 %): single voxels of 400
ms, 1200 ms and ±25 %, discs of radius 0 to 4 voxels with a contrast of ±10, ±25 and +60 %, and stripes of ±5 % with
periods of 2 to 20 voxels. For each it prints

    kept       the share of the contrast in T1 that is left, mean over draws and copies
    RMSE/MLE   the root mean square error inside the structure, over that of the regularised MLE
    d'         contrast / (Cramér-Rao SD of a voxel with B known) x square root of its number of voxels (of one stripe):
               how well the data could show it (Wagner & Brown 1985, doi:10.1088/0031-9155/30/6/001)

and PASS or FAIL: at d' >= 10 at least 0.9 of the contrast, at d' >= 6 at least 0.7, RMSE at most 1.1 of the MLE's; a
single voxel that is off by five of its own SDs keeps at least 0.8.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rimap import Gaussian, InversionRecovery, WeightedSeries, cramer_rao_sd
from rimap.evaluation.named_estimators import named
from rimap.signals.paper_protocols import PROTOCOLS

Array = NDArray[np.float64]

PROTOCOLS_MS = {
    "TI31": PROTOCOLS["IV_T1"].times,
    "TI9": np.array([50, 150, 300, 500, 800, 1200, 1800, 2600, 4000.0]),
    "TI6": np.array([50, 200, 500, 1000, 2000, 4000.0]),
    "TI4": np.array([40, 400, 1200, 4000.0]),
}
SNRS = (5.0, 10.0, 20.0, 30.0)
#: σ of an SNR, as in the paper: A of white matter over SNR.
AMPLITUDE = 0.65
WHITE_MATTER_MS = 800.0
RADII = (0, 1, 2, 3, 4)
CONTRASTS = (-0.25, -0.10, 0.10, 0.25, 0.60)
POINTS_MS = {"400 ms": 400.0, "1200 ms": 1200.0}
PERIODS = (2, 4, 6, 10, 20)
STRIPE_CONTRAST = 0.05
PERIODS_OF = {f"stripes period {p}": p for p in PERIODS}
#: Edge of the square that each structure has to itself, and of how many voxels a ring around it is compared with.
CELL, COPIES = 16, 3
#: d' from which on a share of the contrast must be left.
LIMITS = ((10.0, 0.9), (6.0, 0.7))
POINT_SDS, POINT_KEPT = 5.0, 0.8
LARGEST_RMSE = 1.1


@dataclass(frozen=True)
class Structure:
    """One known structure: a name, where it is, and its contrast relative to the surroundings."""

    name: str
    radius: int
    contrast: float
    inside: NDArray[np.bool_]
    around: NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """What was found of one kind of structure."""

    estimator: str
    protocol: str
    snr: float
    structure: str
    voxels: int
    contrast: float
    d_prime: float
    kept: float
    rmse: float
    rmse_mle: float

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or nothing if the data themselves do not show it clearly."""
        if self.voxels == 1 and self.d_prime >= POINT_SDS and self.kept < POINT_KEPT:
            return "FAIL"
        for least, share in LIMITS:
            if self.d_prime >= least:
                return "PASS" if self.kept >= share and self.rmse <= LARGEST_RMSE * self.rmse_mle else "FAIL"
        return ""


def disc(radius: int) -> NDArray[np.bool_]:
    """Return a disc in the middle of a cell: one voxel for radius 0."""
    d = np.arange(CELL) - CELL // 2
    return np.asarray(d[:, None] ** 2 + d**2 <= (radius + 0.1) ** 2)


def phantom() -> tuple[Array, list[Structure]]:
    """Return T1 (h, w), ms, and the structures in it."""
    kinds = [(f"disc r={r} {c:+.0%}", r, c) for r in RADII for c in CONTRASTS]
    kinds += [(f"voxel {name}", 0, T / WHITE_MATTER_MS - 1) for name, T in POINTS_MS.items()]
    n = len(kinds) * COPIES
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    T1 = np.full(((rows + 6) * CELL, columns * CELL), WHITE_MATTER_MS)
    structures = []
    for i, (name, radius, contrast) in enumerate(kinds * COPIES):
        y, x = (i // columns) * CELL, (i % columns) * CELL
        inside, cell = np.zeros(T1.shape, bool), np.zeros(T1.shape, bool)
        inside[y : y + CELL, x : x + CELL] = disc(radius)
        cell[y : y + CELL, x : x + CELL] = ~disc(radius + 2)
        T1[inside] *= 1 + contrast
        structures.append(Structure(name, radius, contrast, inside, cell))
    width = T1.shape[1] // len(PERIODS)
    for k, period in enumerate(PERIODS):  # ridges and valleys of a square wave
        x0, y0 = k * width + 2, (rows + 1) * CELL
        up = (np.arange(width - 4) // max(period // 2, 1)) % 2 == 0
        ridge, valley = np.zeros(T1.shape, bool), np.zeros(T1.shape, bool)
        ridge[y0 : y0 + 4 * CELL, x0 : x0 + width - 4] = up
        valley[y0 : y0 + 4 * CELL, x0 : x0 + width - 4] = ~up
        T1[ridge] *= 1 + STRIPE_CONTRAST
        T1[valley] *= 1 - STRIPE_CONTRAST
        structures.append(Structure(f"stripes period {period}", -1, 2 * STRIPE_CONTRAST, ridge, valley))
    return T1, structures


def series_of(T1: Array, times: Array, snr: float, draw: int) -> tuple[WeightedSeries, Array]:
    """Return the noisy series and its truth κ."""
    h, w = T1.shape
    x = np.linspace(-1, 1, w) + 0 * T1
    B = 1.9 * (1 - 0.02 * x**2)
    model = InversionRecovery(tau=times)
    kappa = np.stack([np.full((h, w), AMPLITUDE), B, T1])
    sigma = AMPLITUDE / snr
    rng = np.random.default_rng([draw, int(10 * snr), len(times)])
    images = model.signal(kappa) + sigma * rng.standard_normal((len(times), h, w))
    return WeightedSeries(images.astype(np.float32), model, Gaussian(sigma=sigma)), kappa


def judged(specs: Sequence[str], protocol: str, snr: float, draws: int) -> Iterator[Row]:
    """Yield the rows of all estimators for one protocol and noise level."""
    T1, structures = phantom()
    times = PROTOCOLS_MS[protocol]
    found: dict[str, list[Array]] = {spec: [] for spec in dict.fromkeys(["mle", *specs])}
    for draw in range(draws):
        series, _ = series_of(T1, times, snr, draw)
        for spec in found:
            found[spec].append(np.asarray(named(spec).estimate(series)["T1"], dtype=float))
    model, noise = InversionRecovery(tau=times), Gaussian(sigma=AMPLITUDE / snr)
    for name in dict.fromkeys(s.name for s in structures):
        group = [s for s in structures if s.name == name]
        one = group[0]
        T = WHITE_MATTER_MS * (1 + (one.contrast if one.radius >= 0 else 0.0))
        sd = cramer_rao_sd(model, noise, [[AMPLITUDE], [1.9], [T]], held=("B",))[2, 0]
        voxels = (
            int(one.inside.sum()) if one.radius >= 0 else int(one.inside.any(1).sum()) * max(PERIODS_OF[name] // 2, 1)
        )
        step = WHITE_MATTER_MS * one.contrast
        d_prime = abs(step) / sd * np.sqrt(voxels)
        figures = {}
        for spec, maps in found.items():
            kept = [
                (np.nanmean(m[s.inside]) - np.nanmean(m[s.around])) / (T1[s.inside].mean() - T1[s.around].mean())
                for m in maps
                for s in group
            ]
            errors = [np.nanmean(((m - T1)[s.inside] / T1[s.inside]) ** 2) for m in maps for s in group]
            figures[spec] = float(np.mean(kept)), float(np.sqrt(np.mean(errors)))
        for spec in specs:
            kept, rmse = figures[spec]
            yield Row(spec, protocol, snr, name, voxels, one.contrast, float(d_prime), kept, rmse, figures["mle"][1])


def main() -> None:
    """Print a table for each estimator, protocol and SNR, and how many structures fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("estimators", nargs="+")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS_MS))
    parser.add_argument("--snrs", default=",".join(f"{s:g}" for s in SNRS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None, help="write the rows there as well")
    args = parser.parse_args()
    rows: list[Row] = []
    for protocol in args.protocols.split(","):
        for snr in map(float, args.snrs.split(",")):
            part = list(judged(args.estimators, protocol, snr, args.draws))
            rows += part
            for spec in args.estimators:
                print(f"\n{spec}, {protocol}, SNR {snr:g}")
                print(f"{'structure':<20}{'voxels':>7}{'d′':>7}{'kept':>7}{'RMSE %':>8}{'/ MLE':>7}")
                for r in part:
                    if r.estimator == spec:
                        ratio = r.rmse / r.rmse_mle
                        print(
                            f"{r.structure:<20}{r.voxels:>7}{r.d_prime:>7.1f}{r.kept:>7.2f}{100 * r.rmse:>8.2f}"
                            f"{ratio:>7.2f}  {r.verdict}"
                        )
    for spec in args.estimators:
        clear = [r for r in rows if r.estimator == spec and r.verdict]
        failed = sum(r.verdict == "FAIL" for r in clear)
        print(f"\n{spec}: {len(clear) - failed} of {len(clear)} structures that the data show clearly are kept")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([asdict(r) | {"verdict": r.verdict} for r in rows], indent=1))


if __name__ == "__main__":
    main()
