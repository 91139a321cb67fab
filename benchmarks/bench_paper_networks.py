"""Do the paper's RIMs for T1 follow B, and do they reach the paper's accuracy? Four figures for each network.

python -m benchmarks.bench_paper_networks                     the shipped RIMs with fixed times, and maximum likelihood
python -m benchmarks.bench_paper_networks rim:a.onnx rim:b.onnx --draws 4
python -m benchmarks.bench_paper_networks --information       how little the gradient depends on B

For each estimator it prints, as the mean over B = 1.6, 1.7 … 2.0 in a slice of a brain that no network was trained on,

    slope of B     how much of a change of B the median of grey and white matter follows, at SNR 30 and 100; ideally 1
    bias of T1     least and greatest median of grey and of white matter over these B, in %, at SNR 100
    phantom        mean |bias| and mean CV, in %, over the NIST spheres whose T1 is within HP_T1, at SNR 20 and B = 1.9
    hypo point     median bias of single voxels of 400 ms in grey matter at SNR 10, in %

The standard deviation of the noise is 0.65/SNR. The first two and the last use the times that a network was trained
for, the phantom uses HP_T1 for each, as in the paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.bench_t1 import ANATOMY
from rimap import PROTOCOLS, Gaussian, InversionRecovery, WeightedSeries
from rimap.estimators.base import Estimator
from rimap.estimators.network_files import metadata_of, path_of, shipped
from rimap.evaluation.accuracy import REFERENCE_SIGNAL, crop
from rimap.evaluation.metrics import coefficient_of_variation, relative_bias
from rimap.evaluation.named_estimators import named
from rimap.evaluation.structures import disc, place, with_structures
from rimap.signals.base import SignalModel
from rimap.simulation.anatomies import load_anatomy
from rimap.simulation.subjects import simulate_subject
from rimap.simulation.tissues import BRAIN_LABELS, GM, WM

Array = NDArray[np.float64]
FIELDS = (1.6, 1.7, 1.8, 1.9, 2.0)
SLICE, SIZE = 70, 96
#: T1 of the spheres of the phantom's T1 array at 3 T in ms, longest first, and of the water around them.
SPHERES_MS = (1989.0, 1454.0, 984.1, 706.0, 496.7, 351.5, 247.1, 175.3, 125.9, 89.0, 62.7, 44.5, 30.8, 21.7)
WATER_MS, PHANTOM_FIELD = 3000.0, 1.9
#: Radius of a sphere and distance of their centres, in pixels of 0.82 mm.
RADIUS, DISTANCE = 9, 24
INVERSION_SNRS, PHANTOM_SNR, POINT_SNR = (30.0, 100.0), 20.0, 10.0


@dataclass(frozen=True)
class Figures:
    """What is printed of one estimator."""

    slopes: tuple[float, ...]
    grey: tuple[float, float]
    white: tuple[float, float]
    phantom_bias: float
    phantom_cv: float
    hypo_point: float


def maps_of(estimator: Estimator, model: SignalModel, kappa: Array, snr: float, draws: int) -> Array:
    """Return the maps (C, Q, X, Y) of several noise draws of a truth."""
    sigma = REFERENCE_SIGNAL / snr
    found = []
    for draw in range(draws):
        rng = np.random.default_rng([draw, round(snr), model.n_images])
        S = model.signal(kappa) + sigma * rng.standard_normal((model.n_images, *kappa.shape[1:]))
        series = WeightedSeries(S.astype(np.float32), model, Gaussian(sigma=sigma), mask=kappa[0] > 0)
        found.append(np.asarray(estimator.estimate(series).kappa, float))
    return np.stack(found)


def labels_of(anatomy: Path) -> NDArray[np.uint8]:
    """Return the middle of a slice, brain tissues alone."""
    labels = crop(load_anatomy(anatomy)[:, :, SLICE])
    labels = np.where(np.isin(labels, BRAIN_LABELS), labels, 0).astype(np.uint8)
    x, y = (max(0, (n - SIZE) // 2) for n in labels.shape)
    return labels[x : x + SIZE, y : y + SIZE]


def brain(labels: NDArray[np.uint8], model: SignalModel, field: float) -> Array:
    """Return the truth κ (3, X, Y) with one B and a smooth texture of 6 %, the same for every B."""
    return simulate_subject(labels, model, np.random.default_rng(7), field_map="constant", field_mean=field)


def phantom() -> tuple[Array, dict[float, NDArray[np.bool_]]]:
    """Return the truth κ (3, X, Y) of the T1 array in water, and where each sphere is."""
    shape = (4 * DISTANCE,) * 2
    kappa = np.stack([np.full(shape, 1.0), np.full(shape, PHANTOM_FIELD), np.full(shape, WATER_MS)])
    where = {}
    for i, T1 in enumerate(SPHERES_MS):
        centre = [DISTANCE * (k + 0.5) for k in divmod(i, 4)]
        kappa[2][disc(shape, centre, RADIUS)] = T1
        where[T1] = disc(shape, centre, RADIUS - 1)
    return kappa, where


def judged(spec: str, protocol: SignalModel, labels: NDArray[np.uint8], draws: int) -> Figures:
    """Return the figures of an estimator."""
    estimator = named(spec, threads=1)
    slopes, extremes = [], {GM: [], WM: []}  # type: ignore[var-annotated]
    tissue = np.isin(labels, (GM, WM))
    for snr in INVERSION_SNRS:
        medians = []
        for field in FIELDS:
            kappa = brain(labels, protocol, field)
            found = maps_of(estimator, protocol, kappa, snr, 1)[0]
            medians.append(float(np.nanmedian(found[1][tissue])))
            if snr == INVERSION_SNRS[-1]:
                for label, values in extremes.items():
                    values.append(100 * float(np.nanmedian(found[2][labels == label] / kappa[2][labels == label] - 1)))
        slopes.append(float(np.polyfit(FIELDS, medians, 1)[0]))
    hp = PROTOCOLS["HP_T1"]
    kappa, spheres = phantom()
    found = maps_of(estimator, hp, kappa, PHANTOM_SNR, draws)[:, 2]
    within = [where for T1, where in spheres.items() if hp.times.min() <= T1 <= hp.times.max()]
    bias, cv = relative_bias(found, kappa[2]), coefficient_of_variation(found)
    kappa = brain(labels, protocol, 1.85)
    placed = place(labels, np.random.default_rng(3))
    points = maps_of(estimator, protocol, with_structures(kappa, protocol, placed), POINT_SNR, draws)[:, 2]
    inside = placed.inside["hypo_point"] > 0
    return Figures(
        tuple(slopes),
        (min(extremes[GM]), max(extremes[GM])),
        (min(extremes[WM]), max(extremes[WM])),
        float(np.mean([abs(np.nanmean(bias[where])) for where in within])),
        float(np.mean([np.nanmean(cv[where]) for where in within])),
        float(np.nanmedian(relative_bias(points[:, inside], 400.0))),
    )


def information() -> None:
    """Print for each tissue the gradient that remains if B is 0.1 too low, with A and T1 at their best values for it.

    Gradients are as a cell of the paper's design reads them: of half the sum of squares, T1 in seconds, A of CSF = 1.
    """
    model = PROTOCOLS["IV_T1"]
    tau = model.times[:, None] / 1000

    def signal(p: Array) -> Array:
        return np.asarray(abs(p[0] * (1 - p[1] * np.exp(-tau[:, 0] / p[2]))))

    def derivatives(p: Array) -> Array:
        E = np.exp(-tau / p[2])
        sign = np.sign(1 - p[1] * E)
        return np.asarray(sign * np.concatenate([1 - p[1] * E, -p[0] * E, -p[0] * p[1] * E * tau / p[2] ** 2], 1))

    print(
        f"{'tissue':<8}{'share of dS/dB that':>21}{'SD of B, a voxel,':>19}{'bias of T1':>12}{'gradient of B':>15}"
        f"{'its noise':>11}{'at the start':>14}\n"
        f"{'':<8}{'A, T1 do not explain':>21}{'SNR 30':>19}{'%':>12}{'B 0.1 too low':>15}{'SNR 30':>11}"
    )
    sigma = REFERENCE_SIGNAL / 30
    for name, A, T in (("GM", 0.85, 1.4), ("WM", 0.65, 0.78), ("CSF", 1.0, 3.5)):
        truth = np.array([A, 1.84, T])
        S, J = signal(truth), derivatives(truth)
        explained = J[:, [0, 2]] @ np.linalg.lstsq(J[:, [0, 2]], J[:, 1], rcond=None)[0]
        share = np.linalg.norm(J[:, 1] - explained) / np.linalg.norm(J[:, 1])
        sd = sigma * np.sqrt(np.linalg.inv(J.T @ J)[1, 1])
        off = least_squares(lambda x, S=S: signal(np.array([x[0], 1.74, x[1]])) - S, [A, T]).x
        best, start = np.array([off[0], 1.74, off[1]]), np.array([S.max(), 2.0, 1.0])
        gradient, first = (derivatives(p).T @ (signal(p) - S) for p in (best, start))
        noise = sigma * np.linalg.norm(J[:, 1])
        print(
            f"{name:<8}{share:>21.4f}{sd:>19.2f}{100 * (off[1] / T - 1):>12.1f}"
            f"{gradient[1]:>15.5f}{noise:>11.3f}{first[1]:>14.2f}"
        )


def protocol_of(spec: str) -> SignalModel:
    """Return the signal model at the times of a network; at those of IV_T1 for other estimators."""
    kind, _, name = spec.partition(":")
    times = metadata_of(path_of(name))["trained_on"].get("times_ms") if kind == "rim" else None
    return InversionRecovery(tau=times) if times else PROTOCOLS["IV_T1"]


def default_estimators() -> list[str]:
    """Return the RIMs for inversion recovery with fixed times that ship, and maximum likelihood."""
    about: dict[str, Any] = {name: metadata_of(path) for name, path in shipped().items()}
    own = [n for n, a in about.items() if a["kind"] == "rim" and a["sequence"] == "ir" and a["trained_on"]["times_ms"]]
    return ["mle", *(f"rim:{name}" for name in own)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each estimator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("estimators", nargs="*", help="as in rimap evaluate: mle, rim:NAME, rim:FILE.onnx")
    parser.add_argument("--anatomy", type=Path, default=ANATOMY)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--information", action="store_true", help="what the gradient says of B, instead")
    args = parser.parse_args(arguments)
    if args.information:
        information()
        return
    labels = labels_of(args.anatomy)
    print(
        f"{'estimator':<30}{'slope of B, SNR 30, 100':>24}{'T1 of GM, %':>18}{'of WM, %':>18}"
        f"{'phantom: |bias|, CV, %':>25}{'hypo point, %':>15}"
    )
    for spec in args.estimators or default_estimators():
        f = judged(spec, protocol_of(spec), labels, args.draws)
        print(
            f"{spec[-29:]:<30}{f.slopes[0]:>17.2f}{f.slopes[1]:>7.2f}{f.grey[0]:>10.1f}{f.grey[1]:>8.1f}"
            f"{f.white[0]:>10.1f}{f.white[1]:>8.1f}{f.phantom_bias:>17.1f}{f.phantom_cv:>8.1f}{f.hypo_point:>15.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
