"""How well a network does on any sequence, beside maximum likelihood: scatter, bias, contrast, structures, intervals.

python -m benchmarks.bench_networks rim:universal                          all protocols, SNR 5, 10, 30
python -m benchmarks.bench_networks rim:a.onnx --protocols vfa,megre --snrs 10 --draws 6

For each protocol and SNR it prints

    smooth      CV over the MLE's, bias and slope of the relaxation time in grey and white matter of an anatomy that no
                network was trained on, with a smooth texture of 6 %; the worse tissue
    texture     root mean square error over the MLE's where every voxel differs by 3 %
    structures  of those that the data show clearly (d' of 6 and of 10 on, see bench_structures) how many keep 0.7 and
                0.9 of their contrast with an error of at most 1.1 times the MLE's
    coverage    how many of 100 voxels have the truth inside their 95 % interval: smooth, texture, structures of d' >= 6

SNR is that of the brightest image: the standard deviation of the noise is 0.65 / SNR times the signal of a sequence
with little of it (small flip angles). The field of a sequence that takes it as given is given without an error.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rimap
from benchmarks.bench_structures import (
    AMPLITUDE,
    LARGEST_RMSE,
    LIMITS,
    PROTOCOLS_MS,
    WHITE_MATTER_MS,
    Structure,
    phantom,
)
from benchmarks.bench_t1 import ANATOMY
from rimap import Gaussian, WeightedSeries, cramer_rao_sd
from rimap.evaluation.accuracy import crop
from rimap.evaluation.metrics import coefficient_of_variation, relative_bias, relative_rmse, slope
from rimap.evaluation.named_estimators import named
from rimap.likelihood import HALF_OF_95
from rimap.signals.base import SignalModel
from rimap.simulation.anatomies import load_anatomy
from rimap.simulation.recipe import signal_level
from rimap.simulation.subjects import FIELD_SHARE, simulate_subject
from rimap.simulation.tissues import BRAIN_LABELS, GM, WM, table_of

Array = NDArray[np.float64]
SLICE, SEED, TEXTURE = 70, 7, 0.03

MODELS: dict[str, SignalModel] = {
    **{name: rimap.InversionRecovery(tau=times) for name, times in PROTOCOLS_MS.items()},
    "t2": rimap.T2Decay(tau=[10, 25, 40, 60, 90, 130, 180, 250]),
    "vfa": rimap.VariableFlipAngle(flip_angle=[3, 6, 10, 15, 20], tr=15.0),
    "megre": rimap.GradientEcho(te=np.arange(1, 13) * 4.0),
    "sr": rimap.SaturationRecovery(tau=[100, 300, 600, 1000, 1600, 2500, 4000, 8000]),
    "mese": rimap.MultiEchoSpinEcho(te=np.arange(1, 17) * 10.0),
    "look-locker": rimap.LookLocker(ti=np.arange(12) * 220.0 + 60),
}


@dataclass(frozen=True)
class Scene:
    """A truth κ (Q, *X), where it is judged, and structures in it."""

    kappa: Array
    inside: dict[str, NDArray[np.bool_]]
    structures: tuple[Structure, ...] = ()


def brain() -> NDArray[Any]:
    """Return the labels of a slice of the brain that no network was trained on."""
    labels = crop(load_anatomy(ANATOMY)[:, :, SLICE])
    return np.where(np.isin(labels, BRAIN_LABELS), labels, 0)


def scenes(model: SignalModel) -> dict[str, Scene]:
    """Return the truths for a signal model."""
    labels = brain()
    tissues = {"GM": labels == GM, "WM": labels == WM}
    rng = np.random.default_rng(SEED)
    smooth = simulate_subject(labels, model, rng)
    flat = simulate_subject(labels, model, np.random.default_rng(SEED), texture="none")
    rough = flat.copy()
    for q, p in enumerate(model.parameters):
        if p.amplitude or q == model.time_index:
            rough[q] *= 1 + TEXTURE * rng.standard_normal(labels.shape)
    T1, structures = phantom()
    base, tissue = np.empty((len(model.parameters), *T1.shape)), float(table_of(model.time)[0][WM])
    for q, p in enumerate(model.parameters):
        if q == model.time_index:
            base[q] = T1 / WHITE_MATTER_MS * tissue
        else:
            base[q] = AMPLITUDE if p.amplitude else FIELD_SHARE * float(p.start or 0.0)
    whole = {"all": np.ones(T1.shape, bool)}
    return {
        "smooth": Scene(smooth, tissues),
        "texture": Scene(rough, tissues),
        "structures": Scene(base, whole, tuple(structures)),
    }


def series_of(model: SignalModel, kappa: Array, sigma: float, draw: int) -> WeightedSeries:
    """Return the noisy series of a truth."""
    rng = np.random.default_rng([draw, round(1e6 * sigma), model.n_images])
    images = model.signal(kappa) + sigma * rng.standard_normal((model.n_images, *kappa.shape[1:]))
    given = {p.name: kappa[q] for q, p in enumerate(model.parameters) if p.given}
    mask = kappa[model.index(model.amplitudes[0].name)] > 0
    return WeightedSeries(images.astype(np.float32), model, Gaussian(sigma=sigma), mask=mask, given=given)


@dataclass(frozen=True)
class Found:
    """The time and its standard deviation (C, *X) that an estimator found of a scene."""

    time: Array
    sd: Array

    def coverage(self, truth: Array, where: NDArray[np.bool_]) -> float:
        """Return the share of 95 % intervals that hold the truth."""
        held = abs(self.time - truth) <= HALF_OF_95 * self.sd
        known = np.isfinite(self.sd) & np.isfinite(self.time) & where
        return float(held[known].mean()) if known.any() else float("nan")


def found(spec: str, model: SignalModel, scene: Scene, sigma: float, draws: int) -> Found:
    """Return what an estimator finds in several noise draws of a scene."""
    return found_in(spec, (series_of(model, scene.kappa, sigma, draw) for draw in range(draws)))


def found_in(spec: str, scans: Iterable[WeightedSeries]) -> Found:
    """Return what an estimator finds in several series of one truth."""
    times, sds = [], []
    for series in scans:
        maps, row = named(spec).estimate(series), series.model.time_index
        times.append(np.asarray(maps.kappa[row], float))
        nothing = np.full(times[-1].shape, np.nan)
        sds.append(nothing if maps.sd_kappa is None else np.asarray(maps.sd_kappa[row], float))
    return Found(np.stack(times), np.stack(sds))


def of_tissues(a: Found, b: Found, scene: Scene, truth: Array) -> dict[str, float]:
    """Return the figures of the worse tissue of an estimator `a` beside those of maximum likelihood `b`."""
    out: dict[str, list[float]] = {"CV": [], "bias": [], "slope": [], "RMSE": []}
    for where in scene.inside.values():
        known = where & np.isfinite(a.time).all(0) & np.isfinite(b.time).all(0)
        e, m, t = a.time[:, known], b.time[:, known], truth[known]
        out["CV"].append(np.median(coefficient_of_variation(e)) / np.median(coefficient_of_variation(m)))
        out["bias"].append(abs(float(np.median(relative_bias(e, t)))))
        out["RMSE"].append(np.median(relative_rmse(e, t)) / np.median(relative_rmse(m, t)))
        out["slope"].append(-slope(e, t))
    return {k: float(max(v)) for k, v in out.items()} | {"slope": -float(max(out["slope"]))}


def of_structures(a: Found, b: Found, scene: Scene, model: SignalModel, sigma: float) -> tuple[list[bool], float]:
    """Return of each structure that the data show clearly whether it is kept, and the coverage inside those."""
    truth, q = scene.kappa[model.time_index], model.time_index
    # A smooth field is known from all voxels together. The B of a Look-Locker train is another in each voxel.
    held = tuple(p.name for p in model.parameters if p.smooth or p.given)
    verdicts, where = [], np.zeros(truth.shape, bool)
    for name in dict.fromkeys(s.name for s in scene.structures):
        group = [s for s in scene.structures if s.name == name]
        one = group[0]
        y, x = np.argwhere(one.inside)[0]
        sd = cramer_rao_sd(model, Gaussian(sigma=sigma), scene.kappa[:, y, x][:, None], held=held)[q, 0]
        step = np.mean([truth[s.inside].mean() - truth[s.around].mean() for s in group])
        voxels = one.inside.sum() if one.radius >= 0 else max(one.inside.sum() // max(one.inside.any(0).sum(), 1), 1)
        d_prime = abs(step) / sd * np.sqrt(voxels)
        limit = next((share for least, share in LIMITS if d_prime >= least), None)
        if limit is None:
            continue
        kept = np.mean([np.nanmean(a.time[:, s.inside]) - np.nanmean(a.time[:, s.around]) for s in group]) / step
        errors = [np.sqrt(np.mean([np.nanmean((f.time - truth)[:, s.inside] ** 2) for s in group])) for f in (a, b)]
        verdicts.append(bool(kept >= limit and errors[0] <= LARGEST_RMSE * errors[1]))
        for s in group:
            where |= s.inside
    return verdicts, a.coverage(truth, where)


def rows(specs: Sequence[str], protocol: str, snr: float, draws: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of each estimator for one protocol and noise level."""
    model = MODELS[protocol]
    sigma = signal_level(model.name) * AMPLITUDE / snr
    truths = scenes(model)
    maximum = {name: found("mle", model, s, sigma, draws) for name, s in truths.items()}
    for spec in specs:
        own = {name: found(spec, model, s, sigma, draws) for name, s in truths.items()}
        smooth, texture, structures = (truths[n] for n in ("smooth", "texture", "structures"))
        q = model.time_index
        figures = of_tissues(own["smooth"], maximum["smooth"], smooth, smooth.kappa[q])
        rough = of_tissues(own["texture"], maximum["texture"], texture, texture.kappa[q])
        verdicts, in_structures = of_structures(own["structures"], maximum["structures"], structures, model, sigma)
        everywhere = np.logical_or.reduce(list(smooth.inside.values()))
        yield {
            "estimator": spec, "protocol": protocol, "SNR": snr, **figures, "texture RMSE": rough["RMSE"],
            "kept": sum(verdicts), "clear": len(verdicts),
            "covers smooth": own["smooth"].coverage(smooth.kappa[q], everywhere),
            "covers texture": own["texture"].coverage(texture.kappa[q], everywhere),
            "covers structures": in_structures,
        }  # fmt: skip


def asked(about: str | None, protocols: Iterable[str], snrs: str, draws: int) -> argparse.Namespace:
    """Return what the command line asks for, from these defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("estimators", nargs="+")
    parser.add_argument("--protocols", default=",".join(protocols))
    parser.add_argument("--snrs", default=snrs)
    parser.add_argument("--draws", type=int, default=draws)
    return parser.parse_args()


def main() -> None:
    """Print a line for each estimator, protocol and SNR."""
    args = asked(__doc__, MODELS, "5,10,30", 6)
    print(
        f"{'estimator':<28}{'protocol':<12}{'SNR':>5}{'CV/MLE':>8}{'bias %':>8}{'slope':>7}{'RMSE':>6}{'texture':>9}"
        f"{'structures':>12}{'covers: smooth':>16}{'texture':>9}{'structures':>12}"
    )
    for protocol in args.protocols.split(","):
        for snr in map(float, args.snrs.split(",")):
            for r in rows(args.estimators, protocol, snr, args.draws):
                print(
                    f"{r['estimator'][-27:]:<28}{protocol:<12}{snr:>5g}{r['CV']:>8.2f}{r['bias']:>8.2f}"
                    f"{r['slope']:>7.2f}{r['RMSE']:>6.2f}{r['texture RMSE']:>9.2f}{r['kept']:>7d} of {r['clear']:<2d}"
                    f"{100 * r['covers smooth']:>14.1f} "
                    f"{100 * r['covers texture']:>9.1f}{100 * r['covers structures']:>11.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
