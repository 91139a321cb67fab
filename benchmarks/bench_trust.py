"""Trust: what a map says of itself, measured on simulated scans. A table: figure, asked, measured, holds.

    python -m benchmarks.bench_trust [PART ...]

Each engineer adds figures as a function that yields `Figure`s and is listed in `PARTS`.
"""

from __future__ import annotations

import csv
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, shift

import rimap
from benchmarks.fields import LADDER, fields, series_of
from benchmarks.random_faults import spoilt_scans
from benchmarks.trust_scenes import (
    TE8,
    TI4,
    TI6,
    TI9,
    Head,
    correlated,
    head,
    inversion,
    like_ge,
    of_coils,
    zero_filled,
)
from rimap import PROTOCOLS
from rimap.advice import Weight, weight_of
from rimap.likelihood import HALF_OF_95

ESTIMATORS: tuple[Any, ...] = (rimap.NLLS(), rimap.MLE(), rimap.RIM())


@dataclass(frozen=True)
class Figure:
    """A figure: what it is, what is asked in words, what was measured, and whether that holds."""

    name: str
    asked: str
    measured: str
    holds: bool


def estimated(estimator: Any, images: Any, model: Any, noise: Any = None) -> Any:
    """Return the maps of images (N, *X)."""
    return estimator.estimate(rimap.WeightedSeries(images, model, noise=noise))


def air(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """Air is background, tissue is kept, σ is right, and good voxels follow the model."""
    models = {"TI9": inversion(), "TI4": inversion(TI4), "T2": rimap.T2Decay(tau=TE8)}
    for name, model in models.items():
        scene = head(model)
        for snr in (4, 15, 40):
            noises = (None, rimap.Rician())
            yield from _of_air(f"{name}, SNR {snr}", scene, scene.noisy(snr), 0.65 / snr, estimators, noises)
    scene = head(models["TI9"])
    for how in ("zeroed", "scaled down", "scaled up", "whole numbers"):
        plain = scene.noisy(15)
        sigma = 0.65 / 15 * (2 / np.median(plain[:, scene.air]) if how == "whole numbers" else 1)
        yield from _of_air(f"TI9, SNR 15, air {how}", scene, like_ge(plain, scene.air, how), sigma, estimators)


def _of_air(
    name: str, scene: Head, images: Any, sigma: float, estimators: tuple[Any, ...], noises: tuple[Any, ...] = (None,)
) -> Iterator[Figure]:
    for estimator in estimators:
        for noise in (None,) if estimator.name == "nlls" else noises:
            maps = estimated(estimator, images, scene.model, noise)
            kind = f"{estimator.name}{', rician' if noise else ''}: {name}"
            gone = float(np.mean(maps.status[scene.air] != rimap.Status.OK))
            kept = float(np.mean(maps.status[scene.tissue] != rimap.Status.NO_SIGNAL))
            off = float(np.mean(maps.status[~scene.air] == rimap.Status.OFF_MODEL))
            found = float(np.nanmedian(maps.noise.sigma)) / sigma - 1
            yield Figure(f"air, {kind}", ">= 99 % not ok", f"{100 * gone:.2f} %", gone >= 0.99)
            yield Figure(f"tissue, {kind}", ">= 99.9 % kept", f"{100 * kept:.3f} %", kept >= 0.999)
            yield Figure(f"false alarms, {kind}", "<= 0.1 % off model", f"{100 * off:.3f} %", off <= 0.001)
            yield Figure(f"sigma, {kind}", "within 10 %", f"{100 * found:+.1f} %", abs(found) <= 0.1)


def air_of_filtered(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """Air whose noise is correlated (interpolated, filtered, partial k-space) is background too."""
    models = {"TI9": inversion(), "T2": rimap.T2Decay(tau=TE8)}
    for name, model in models.items():
        scene = head(model, size=72)
        for how in ("factor 1.5", "factor 2", "factor 2, 3-D", "hann", "raised cosine", "partial"):
            images = correlated(scene, how.replace(",", ""), 0.65 / 15)
            yield from _of_air(f"{name}, SNR 15, {how}", scene, images, 0.65 / 15, estimators)


def air_of_coils() -> Iterator[Figure]:
    """Air of the root of squares of many coils, which is far brighter than σ, is background; tissue is kept."""
    for name, model in {"TI9": inversion(), "TI4": inversion(TI4), "T2": rimap.T2Decay(tau=TE8)}.items():
        scene = head(model, size=72, planes=1)
        for coils, snr in itertools.product((4, 16, 32), (15, 30)):
            maps = estimated(rimap.NLLS(), of_coils(scene, coils, 0.65 / snr), model)
            gone = float(np.mean(maps.status[scene.air] != rimap.Status.OK))
            kept = float(np.mean(maps.status[scene.tissue] != rimap.Status.NO_SIGNAL))
            kind = f"nlls: {name}, {coils} coils, SNR {snr}"
            yield Figure(f"air, {kind}", ">= 98 % not ok", f"{100 * gone:.2f} %", gone >= 0.98)
            yield Figure(f"tissue, {kind}", ">= 99.9 % kept", f"{100 * kept:.3f} %", kept >= 0.999)


def noise_level() -> Iterator[Figure]:
    """σ is right with and without air, for any number of images."""
    models = {f"{len(tau)} inversion times": inversion(tau) for tau in (TI4, TI6, TI9, PROTOCOLS["IV_T1"].tau)}
    models |= {f"{n} echoes": rimap.T2Decay(tau=tuple(np.geomspace(10, 150, n))) for n in (4, 6, 9, 31)}
    for name, model in models.items():
        scene = head(model, size=72, planes=1)
        for snr in (4, 15, 40):
            whole = scene.noisy(snr)
            object_alone = whole[:, ~scene.air]
            n = int(np.sqrt(object_alone.shape[1]))
            for where, images in (("air", whole), ("no air", object_alone[:, : n * n].reshape(-1, n, n))):
                maps = estimated(rimap.NLLS(), images, model)
                found = float(maps.noise.sigma) / (0.65 / snr) - 1
                yield Figure(
                    f"sigma, {name}, SNR {snr}, {where}", "within 10 %", f"{100 * found:+.1f} %", abs(found) <= 0.1
                )


def faults(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """Values that were not measured are found, and do not change other voxels."""
    scene = head(inversion(TI6))
    good = scene.noisy(30) * 1000
    of_good = {e.name: estimated(e, good, scene.model) for e in estimators}
    for name, spoil in FAULTS.items():
        images, where = spoil(good.copy(), scene)
        where = where & scene.tissue
        for estimator in estimators:
            before, maps = of_good[estimator.name], estimated(estimator, images, scene.model)
            marked = float(
                np.mean((maps.status != rimap.Status.OK)[where] | (abs(maps["T1"] / scene.T - 1) < 0.15)[where])
            )
            others = scene.tissue & ~where
            moved = float(np.nanmedian(abs(maps["T1"][others] / before["T1"][others] - 1)))
            kind = f"{estimator.name}: {name}"
            yield Figure(f"marked or T1 within 15 %, {kind}", ">= 99 %", f"{100 * marked:.2f} %", marked >= 0.99)
            yield Figure(f"others move, {kind}", "<= 1 % (median)", f"{100 * moved:.2f} %", moved <= 0.01)


def _columns(S: Any, scene: Head) -> tuple[Any, Any]:
    where = np.zeros(scene.T.shape, bool)
    where[28:31] = True
    S[2][where] = 0
    return S, where


def _masked(S: Any, scene: Head) -> tuple[Any, Any]:
    x, y = np.indices(scene.T.shape[:2]) / scene.T.shape[0] - 0.5
    where = (np.hypot(x, y) > 0.33)[..., None] & np.ones(scene.T.shape, bool)
    S[4][where] = 0
    return S, where


def _clipped(S: Any, scene: Head) -> tuple[Any, Any]:
    limit = np.quantile(S[-1][scene.tissue], 0.98)
    where = (limit <= S).any(0)
    return np.minimum(S, limit), where


def _clipped_apart(S: Any, scene: Head) -> tuple[Any, Any]:
    limits = np.quantile(S[:, scene.tissue], 0.99, axis=1).reshape(-1, 1, 1, 1)
    return np.minimum(S, limits), (limits <= S).any(0)


def _clipped_once(S: Any, scene: Head) -> tuple[Any, Any]:
    where = np.quantile(S[3][scene.tissue], 0.95) <= S[3]
    S[3] = np.minimum(S[3], S[3][where].min())
    return S, where


def _wrapped(S: Any, scene: Head) -> tuple[Any, Any]:
    whole = np.round(S * (32767 / np.quantile(S[-1][scene.tissue], 0.99)))
    return whole.astype(np.int64).astype(np.uint16).view(np.int16).astype(np.float32), (whole > 32767).any(0)


def _bright(S: Any, scene: Head) -> tuple[Any, Any]:
    where = np.zeros(scene.T.shape, bool)
    where[20:24, 40:44] = True
    S[3][where] *= 4
    return S, where


def _filled(value: float, images_of: str, place: Any) -> Callable[[Any, Head], tuple[Any, Any]]:
    def spoil(S: Any, scene: Head) -> tuple[Any, Any]:
        where = np.zeros(scene.T.shape, bool)
        where[place] = True
        for image in S[3:4] if images_of == "one image" else S:
            image[where] = value
        if images_of == "all images, scaled":
            S *= np.linspace(0.7, 1.4, len(S)).reshape(-1, 1, 1, 1)
        return S, where

    return spoil


FAULTS: dict[str, Callable[[Any, Head], tuple[Any, Any]]] = {
    "columns zero in one image": _columns,
    "mask of one image": _masked,
    "clipped": _clipped,
    "clipped, each image at another value": _clipped_apart,
    "one image clipped": _clipped_once,
    "wrapped whole numbers": _wrapped,
    "four times too bright in one image": _bright,
}
#: Areas that are filled with a value near the signal (1,000): columns, a corner, a slice.
PLACES = {"columns": (slice(28, 31),), "corner": (slice(0, 44), slice(0, 44)), "slice": (..., 1)}


def fills(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """Areas of one value have no map and a warning, and other tissue keeps its own."""
    scene = head(inversion(TI6))
    good = scene.noisy(30) * 1000
    for whole in (False, True):
        for value in (50, 300):
            for images_of in ("one image", "all images", "all images, scaled"):
                for name, place in PLACES.items():
                    images, where = _filled(value, images_of, place)(np.round(good) if whole else good.copy(), scene)
                    for estimator in estimators[:1] if (whole, value) != (True, 300) else estimators:
                        maps = estimated(estimator, images, scene.model)
                        gone = float(np.mean(np.isnan(maps["T1"][where])))
                        kept = float(np.mean(np.isfinite(maps["T1"][scene.tissue & ~where])))
                        told = any("filled with one value" in w for w in maps.warnings)
                        number = "whole numbers" if whole else "floats"
                        kind = f"{estimator.name}: {name} of {value} in {images_of}, {number}"
                        text = f"{100 * gone:.1f}, {100 * kept:.2f} %{'' if told else ', silent'}"
                        yield Figure(
                            f"filled, {kind}", "100, >= 99.9 % kept", text, gone == 1 and kept >= 0.999 and told
                        )


#: What happens to one value of a single voxel.
SINGLE: dict[str, Callable[[Any], Any]] = {
    "x 0": lambda x: 0 * x,
    "x 0.25": lambda x: x / 4,
    "x 4": lambda x: x * 4,
    "wrapped": lambda x: np.where(x > 500, x - 1024, x),
    "other sign": lambda x: -x,
}


def single_voxels(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """Single voxels with one wrong value carry a flag where T moves by more than three standard deviations."""
    for name, model in {"TI6": inversion(TI6), "TI9": inversion(), "T2": rimap.T2Decay(tau=TE8)}.items():
        scene, T = head(model, size=72), model.time.name
        good = scene.noisy(30) * 1000
        sd = estimated(rimap.NLLS(), good, model).sd[T].reshape(-1)
        rng = np.random.default_rng(3)
        tissue = np.flatnonzero(scene.tissue)
        at = rng.permutation(tissue)[: len(tissue) // 25]
        number = rng.integers(0, len(good), len(at))
        for estimator in estimators:
            before = estimated(estimator, good, model)[T].reshape(-1)[at]
            for how, change in SINGLE.items():
                images = good.copy().reshape(len(good), -1)
                images[number, at] = change(images[number, at])
                maps = estimated(estimator, images.reshape(good.shape), model)
                moved = abs(maps[T].reshape(-1)[at] - before) > 3 * sd[at]
                ok = maps.status.reshape(-1)[at] == rimap.Status.OK
                wrong = moved | ~np.isfinite(maps[T].reshape(-1)[at])
                missed = int((moved & ok).sum())
                share = 1 - missed / max(int(wrong.sum()), 1)
                kind = f"{estimator.name}: {name}, one value {how}"
                text = f"{100 * share:.1f} % of {wrong.sum()}"
                yield Figure(f"flagged, {kind}", ">= 97 % of > 3 SD", text, share >= 0.97)


def gains(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """Gains that differ by 10 % cause a warning; equal gains do not."""
    for tau, snr in ((TI9, 15), (TI6, 40)):
        scene = head(inversion(tau))
        plain = scene.noisy(snr)
        later = (np.arange(len(tau)) >= len(tau) // 2)[:, None, None, None]
        for estimator in estimators:
            for name, factor, wanted in (("equal", 1.0, False), ("second half x 1.1", 1.1, True)):
                images = (plain * np.where(later, factor, 1.0)).astype(np.float32)
                told = any("gain" in w for w in estimated(estimator, images, scene.model).warnings)
                kind = f"gains, {estimator.name}: {name}, {len(tau)} images, SNR {snr}"
                yield Figure(kind, "warning" if wanted else "silent", "warning" if told else "silent", told == wanted)
    yield from _one_gain(estimators[:2])


def _one_gain(estimators: tuple[Any, ...]) -> Iterator[Figure]:
    """A gain of 1.15 in a single image causes a warning, with air and without it."""
    for name, tau in {"TI4": TI4, "TI6": TI6}.items():
        scene = head(inversion(tau), size=64, planes=1)
        plain = scene.noisy(30)
        for where, place in {"air": slice(None), "no air": slice(18, 46)}.items():
            for number in (None, *range(len(tau))):
                factor = np.where(np.arange(len(tau)) == number, 1.15, 1.0).reshape(-1, 1, 1, 1)
                images = (plain * factor)[:, place, place].astype(np.float32)
                for estimator in estimators:
                    warnings = estimated(estimator, images, scene.model).warnings
                    told = any("another gain" in w or "gain differs" in w for w in warnings)
                    wanted = number is not None
                    kind = f"gains, {estimator.name}: {name}, {where}, " + (
                        f"image {number + 1} x 1.15" if number is not None else "equal"
                    )
                    text = "warning" if told else "silent"
                    yield Figure(kind, "warning" if wanted else "silent", text, told == wanted)


def drifts(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """Without air, irregular gains of 10 % cause a warning (a steady drift looks like another T, and cannot)."""
    for name, model in {"TI9": inversion(), "TI6": inversion(TI6), "T2": rimap.T2Decay(tau=TE8)}.items():
        scene = head(model, size=64, planes=1)
        plain = scene.noisy(30)[:, 18:46, 18:46]
        for seed in range(4):
            factor = 1 + np.random.default_rng(seed).uniform(-0.1, 0.1, len(plain)) * (seed > 0)
            images = (plain * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
            for estimator in estimators:
                told = any(
                    "another gain" in w or "gain differs" in w for w in estimated(estimator, images, model).warnings
                )
                kind = f"irregular gains, {estimator.name}: {name}, {'equal' if not seed else f'draw {seed}'}, no air"
                wanted = seed > 0
                yield Figure(kind, "warning" if wanted else "silent", "warning" if told else "silent", told == wanted)


def trained_box() -> Iterator[Figure]:
    """A field far outside the training of the default network is not called ok if T is wrong."""
    for B in (0.6, 0.8, 1.2):
        scene = head(inversion(TI9), B=B)
        maps = estimated(rimap.RIM(), scene.noisy(30), scene.model)
        ok = scene.tissue & (maps.status == rimap.Status.OK)
        wrong = float(np.mean(abs(maps["T1"][ok] / scene.T[ok] - 1) > 0.15)) if ok.any() else 0.0
        share = float(ok.sum() / scene.tissue.sum())
        told = any("B" in w and "rely" in w for w in maps.warnings)
        yield Figure(
            f"B = {B}, default network",
            "T1 right, or a warning",
            f"{100 * share:.0f} % ok, {100 * wrong:.1f} % of them off by > 15 %, "
            f"{'a warning' if told else 'no warning'}",
            wrong < 0.02 or told,
        )


#: Draws of a scan that determine its true scatter, and the median of χ² over its degrees of freedom, 7.
_DRAWS, _MEDIAN = 8, 6.346 / 7


def interpolated() -> Iterator[Figure]:
    """Standard deviations from interpolated images agree with repeated scans; the noise correlation is detected."""
    model = inversion(TI9)
    sigma = 0.65 / 20
    for factor, size in ((1.0, 72), (4 / 3, 72), (2.0, 48)):
        scene = head(replace(model, signed=True), size=size, planes=1)
        scans = [zero_filled(scene.images, factor, sigma, seed=n) for n in range(_DRAWS)]
        place = (np.arange(scans[0].shape[1]) / factor).astype(int)
        tissue = scene.tissue[np.ix_(place, place, [0])]
        for estimator in (rimap.NLLS(), rimap.MLE(), rimap.RIM(sd_draws=8)):
            drawn = estimator if estimator.name != "rim" else rimap.RIM()
            first = estimated(estimator, scans[0], model)
            T = np.stack([first["T1"], *(estimated(drawn, scan, model)["T1"] for scan in scans[1:])])
            use = tissue & np.isfinite(T).all(0) & np.isfinite(first.sd["T1"])
            found = float(np.sqrt(_MEDIAN / np.median(T[:, use].var(0, ddof=1) / first.sd["T1"][use] ** 2)))
            kind = f"{estimator.name}: zero-filled x {factor:.2f}"
            yield Figure(f"SD over scatter, {kind}", "0.8 to 1.2", f"{found:.2f}", 0.8 <= found <= 1.2)
            error = float(np.nanmedian(first.noise.sigma)) / sigma - 1
            yield Figure(f"sigma, {kind}", "within 10 %", f"{100 * error:+.1f} %", abs(error) <= 0.1)
            factors = first.correlation.factors[:2]
            close = all(abs(f / factor - 1) < 0.05 for f in factors)
            yield Figure(f"factor, {kind}", "within 5 %", " x ".join(f"{f:.2f}" for f in factors), close)
            told = any("gain" in w for w in first.warnings)
            yield Figure(f"gains, {kind}", "silent", "warning" if told else "silent", not told)


#: Draws of the noise over which the errors of a field are pooled: those of one draw differ from the next by a tenth.
DRAWS_OF_A_FIELD = 3


def field() -> Iterator[Figure]:
    """The smoothness of B comes from the data: T1 is near the best of the ladder, and the intervals hold the truth."""
    for name, times, snr in itertools.product(fields(8), ("TI9", "TI31"), (10, 15, 30)):
        scans = [series_of(name, times, snr, n=64, seed=seed) for seed in range(DRAWS_OF_A_FIELD)]
        start = time.process_time()
        chosen = [rimap.MLE(threads=1).estimate(series) for series, _ in scans]
        middle = time.process_time()
        given = [[rimap.MLE(lambda_B=b, threads=1).estimate(series) for series, _ in scans] for b in LADDER]
        slower = (middle - start) / (time.process_time() - middle) * len(LADDER)
        truth = np.stack([T1 for _, T1 in scans])

        def error(maps: Any, truth: Any = truth) -> float:
            return 100 * float(np.sqrt(np.nanmean((np.stack([m["T1"] for m in maps]) / truth - 1) ** 2)))

        T1, sd = np.stack([m["T1"] for m in chosen]), np.stack([m.sd["T1"] for m in chosen])
        held = 100 * float(np.mean((abs(T1 - truth) < HALF_OF_95 * sd)[np.isfinite(sd)]))
        network = error([rimap.RIM().estimate(series) for series, _ in scans])
        mle, ratio = error(chosen), error(chosen) / min(map(error, given))
        kind = f"B {name}, {times}, SNR {snr}"
        yield Figure(f"mle, time, {kind}", "<= 2 x one lambda", f"{slower:.1f} x", slower <= 2)
        yield Figure(f"mle, RMSE of T1, {kind}", "<= 1.1 x best lambda", f"{ratio:.2f} x", ratio <= 1.1)
        yield Figure(f"mle, 95 % intervals, {kind}", "hold 88 to 97 %", f"{held:.1f} %", 88 <= held <= 97)
        yield Figure(
            f"rim to mle, RMSE of T1, {kind}", "<= 1.2 x", f"{network:.1f} to {mle:.1f} %", network <= 1.2 * mle
        )


#: How far a network reads, in voxels. Closer ones lose neighbours: their change is compared with their SD.
REACH = 6


def wrong_regions(estimators: tuple[Any, ...] = ESTIMATORS[1:]) -> Iterator[Figure]:
    """Voxels that contradict the model say nothing about others: these are as if the voxels were masked out."""
    protocols: dict[str, tuple[Any, float, float]] = {
        "6 TIs, SNR 30, magnitudes": (inversion(TI6), 30, 0.05),
        "6 TIs, SNR 30, signed": (inversion(TI6, signed=True), 30, 0.05),
        "4 TIs to 2.7 s, SNR 20, magnitudes": (inversion((100, 300, 900, 2700)), 20, 0.08),
        "4 TIs to 4 s, SNR 10, magnitudes": (inversion(TI4), 10, 0.05),
        "5 TIs to 2 s, SNR 40, magnitudes": (inversion((80, 240, 500, 1000, 2000)), 40, 0.03),
        "9 TIs, SNR 15, signed": (inversion(TI9, signed=True), 15, 0.08),
        "31 TIs, SNR 20, magnitudes": (inversion(PROTOCOLS["IV_T1"].tau), 20, 0.05),
    }
    for protocol, (model, snr, texture) in protocols.items():
        scene = head(model, size=72, planes=2, texture=texture)
        good = scene.noisy(snr, rician=not model.is_signed) * 1000
        x, y, _ = np.indices(scene.T.shape)
        rng = np.random.default_rng(2)
        places = {
            "12 wrapped voxels": rng.permutation(np.flatnonzero(scene.tissue))[:12],
            "metal": np.flatnonzero(np.hypot(x - 21, y - 36) < 7.5),
            "a wrong sign": np.flatnonzero(np.hypot(x - 45, y - 45) < 7.5),
        }
        for name, at in places.items():
            images = good.copy().reshape(len(good), -1)
            if name == "metal":
                images[:, at] = abs(rng.normal(0, 300, images[:, at].shape)) * np.linspace(3, 0.2, len(images))[:, None]
            else:
                images[2 if name == "a wrong sign" else -1, at] *= -1
            bad = np.zeros(scene.T.shape, bool)
            bad.reshape(-1)[at] = True
            series = rimap.WeightedSeries(images.reshape(good.shape), model)
            yield from _of_wrong_region(f"{name}, {protocol}", scene, series, bad, estimators)


def _of_wrong_region(
    name: str, scene: Head, series: rimap.WeightedSeries, bad: NDArray[np.bool_], estimators: tuple[Any, ...]
) -> Iterator[Figure]:
    """Compare the maps of all other voxels with those of a scan in which the bad ones are masked out."""
    others = scene.tissue & ~bad
    far = others & (distance_transform_edt(~bad) > REACH)
    for estimator in estimators:
        with_them, without = (estimator.estimate(replace(series, mask=mask)) for mask in (None, ~bad))
        T1, SD, truth = with_them["T1"], without.sd["T1"], scene.T
        change, kind = abs(T1 - without["T1"]), f"{estimator.name}: {name}"
        beyond = float(np.nanmean((change > SD)[others]))
        yield Figure(f"others move by > 1 SD, {kind}", "<= 1 %", f"{100 * beyond:.2f} %", beyond <= 0.01)
        where = far if estimator.name == "rim" else others
        moved = float(np.nanmean((change > 0.01 * without["T1"])[where]))
        if series.model.n_images > 4:  # from four images, the choice of lambda changes by chance
            yield Figure(f"others move by > 1 %, {kind}", "<= 1 %", f"{100 * moved:.2f} %", moved <= 0.01)
        off = (abs(T1 - truth) > 0.2 * truth) & (abs(T1 - truth) > 4 * with_them.sd["T1"])
        wrong = float(np.mean((off & (with_them.status == rimap.Status.OK))[bad & scene.tissue]))
        yield Figure(f"wrong but ok, {kind}", "<= 3 %", f"{100 * wrong:.1f} %", wrong <= 0.03)


#: So many voxels may be wrong without a warning.
MOST_UNREPORTED = 5


def random_faults(estimators: tuple[Any, ...] = ESTIMATORS, seeds: range = range(56)) -> Iterator[Figure]:
    """After a random fault, voxels that are ok are right, or a new warning appears; unchanged voxels stay ok."""
    for scan in spoilt_scans(seeds):
        model = scan.scene.model
        given = {parameter.name: 1.0 for parameter in model.parameters if parameter.given}
        for estimator in estimators:
            good, bad = (
                estimator.estimate(rimap.WeightedSeries(images, model, given=given)) for images in (scan.good, scan.bad)
            )
            tissue, time, kind = scan.scene.tissue, model.time.name, f"{estimator.name}: {scan.name}"
            fine = (good.status == rimap.Status.OK) & tissue
            error = abs(bad[time] - good[time])
            wrong = fine & (bad.status == rimap.Status.OK) & (error > 0.1 * good[time]) & (error > 4 * bad.sd[time])
            elsewhere, unchanged = tissue & ~scan.where, fine & (scan.good == scan.bad).all(0)
            warned = bool(_kinds(bad.warnings) - _kinds(good.warnings))
            unreliable = any("do not rely on these maps" in text for text in bad.warnings)
            share = float(wrong[elsewhere].mean()) if elsewhere.any() else 0.0
            yield Figure(f"elsewhere, {kind}", "<= 1 % wrong", f"{100 * share:.2f} %", share <= 0.01 or unreliable)
            n = int(wrong.sum())
            text = f"{n} of {np.count_nonzero(scan.where & tissue)}, {'warning' if warned else 'silent'}"
            yield Figure(f"there, {kind}", "right, or a warning", text, warned or n <= MOST_UNREPORTED)
            lost = float((bad.status != rimap.Status.OK)[unchanged].mean()) if unchanged.any() else 0.0
            yield Figure(f"unchanged, {kind}", "<= 1 % not ok", f"{100 * lost:.2f} %", lost <= 0.01 or unreliable)


def _kinds(warnings: tuple[str, ...]) -> set[str]:
    """Return warnings without their numbers."""
    return {re.sub(r"[\d.,]+", "#", text) for text in warnings}


def unphysical_field() -> Iterator[Figure]:
    """A field that no scanner makes is reported, by every estimator."""
    for B in (1.9, 2.4):
        scene = head(inversion(TI9), B=B, size=48, planes=1)
        for estimator in ESTIMATORS:
            warnings = estimated(estimator, scene.noisy(30), scene.model).warnings
            told = any(w.startswith("B (") and "rely" in w for w in warnings)
            text = "warning" if told else "silent"
            yield Figure(f"B = {B}, {estimator.name}", "warning" if B > 2.05 else "silent", text, told == (B > 2.05))


#: Real scans and inputs that failed on version 0.1.0, beside the repository.
SHARED = Path(__file__).resolve().parents[2] / "shared"


def real_scans() -> Iterator[Figure]:
    """The signed phantom is right; the echoes of one train do not move."""
    from rimap.io import find_series, read_labels
    from rimap.io.reading_options import Reading
    from rimap.registration import find_motion, motion_warnings

    if not (SHARED / "data").is_dir():
        return
    name = "sub-siemensSignedplateT1"
    folder = SHARED / "data" / "nist_phantom"
    regions = folder / "derivatives" / "rois" / name / "anat"
    with (regions / f"{name}_desc-spheresT1_reference.tsv").open() as file:
        reference = {int(r["sphere"]): float(r["reference_ms"]) for r in csv.DictReader(file, delimiter="\t")}
    series = next(iter(find_series(folder / name))).load(Reading())
    labels = read_labels(regions / f"{name}_desc-spheresT1_dseg.nii.gz", series.shape, series.affine)
    maps = rimap.RIM().estimate(series)
    errors = [np.median(maps["T1"][labels == k]) / T - 1 for k, T in reference.items() if 80 <= T <= 750]
    worst = max(errors, key=abs)
    yield Figure("signed phantom, 80 to 750 ms, default", "within 6 %", f"{100 * worst:+.1f} %", abs(worst) <= 0.06)
    kidney = next(iter(find_series(SHARED / "data" / "kidney_mese_philips"))).load(Reading(skip_first=1))
    told = bool(motion_warnings(kidney, find_motion(kidney)))
    yield Figure("motion, kidney, one train", "silent", "warning" if told else "silent", not told)


def motion() -> Iterator[Figure]:
    """A head that moved by 1.5 mm in one image or from one on is found; one that did not move is not."""
    from rimap.registration import find_motion, motion_warnings

    for name, model in {"TI6": inversion(TI6), "TI9": inversion()}.items():
        scene = head(model, size=96, planes=1)
        for how in ("still", "one image", "from one image on"):
            images = scene.images.copy()
            for n in {"still": (), "one image": (3,), "from one image on": range(3, len(images))}[how]:
                images[n] = shift(images[n], (0.75, 0, 0), order=3, mode="nearest")  # 1.5 mm
            series = rimap.WeightedSeries(scene.noisy(30, images=images), model, affine=np.diag([2.0, 2.0, 4.0, 1.0]))
            told = bool(motion_warnings(series, find_motion(series)))
            text, wanted = "warning" if told else "silent", how != "still"
            yield Figure(f"motion, {name}: {how}", "warning" if wanted else "silent", text, told == wanted)


def choices() -> Iterator[Figure]:
    """A series whose TR is unknown falls back to nlls, and so does no other; a series of odd times has some default."""
    from rimap.workflow.estimator_choice import chosen, suited
    from rimap.workflow.request import Request

    for name, model, wanted in (
        ("TR known", inversion(), ("rim",)),
        ("TR unknown", rimap.InversionRecovery(tau=TI9), ("nlls",)),
        ("45 times", inversion(np.geomspace(10, 8000, 45)), ("mle", "nlls")),
        ("times of 0, 10 ms and 8 s", inversion((0.0, 10.0, 300.0, 1000.0, 3000.0, 8000.0)), ("mle", "nlls")),
    ):
        request = Request(inputs=".", out=".")
        estimator, _ = suited(request, *chosen(request, type(model)), model)
        maps = estimator.estimate(rimap.WeightedSeries(head(model, size=48, planes=1).noisy(30), model))
        right = estimator.name in wanted and bool((maps.status == rimap.Status.OK).any())
        yield Figure(f"default, {name}", f"{' or '.join(wanted)}, some voxels ok", estimator.name, right)


def order_of_warnings(estimators: tuple[Any, ...] = ESTIMATORS) -> Iterator[Figure]:
    """What makes maps wrong comes before what should be checked, and that before notes."""
    scene = head(inversion(TI6, signed=False), size=64, planes=1)
    good = scene.noisy(15)
    late = np.where(np.arange(len(good)) > 2, 1.2, 1.0).reshape(-1, 1, 1, 1)
    bad = {
        "gains": good * late,
        "reversed times": good[::-1],
        "a field of 2.4": head(inversion(TI6), size=64, planes=1, B=2.4).noisy(4),
        "clipped": np.minimum(good, np.quantile(good[-1], 0.9)),
    }
    for name, images in bad.items():
        for estimator in estimators:
            weights = [weight_of(w) for w in estimated(estimator, images.astype(np.float32), scene.model).warnings]
            right = weights == sorted(weights, reverse=True) and weights[:1] == [Weight.UNRELIABLE]
            text = ", ".join(w.name.lower() for w in weights) or "none"
            yield Figure(f"warnings, {estimator.name}: {name}", "heaviest first", text, right)


#: Tests over generated folders and inputs.
PROPERTIES = {
    "every NIfTI file is a source, named, or the run is refused": "tests/io/test_series_membership.py"
    "::test_every_file_is_a_source_or_named_or_the_run_is_refused",
    "every DICOM file is a source, named, or the run is refused": "tests/io/test_sources_of_any_folder.py"
    "::test_every_dicom_file_is_a_source_or_named_or_the_run_is_refused",
}


def properties() -> Iterator[Figure]:
    """No file of generated folders is lost without a word."""
    root = Path(__file__).resolve().parents[1]
    for name, test in PROPERTIES.items():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
        code = subprocess.run(command, capture_output=True, check=False, cwd=root).returncode
        yield Figure(name, "exit status 0", str(code), code == 0)


def scripts() -> Iterator[Figure]:
    """Every input that failed on version 0.1.0 is handled."""
    every = sorted((SHARED / "faults").glob("F*.py"))

    def run(script: Path) -> int:
        return subprocess.run([sys.executable, str(script)], capture_output=True, check=False).returncode

    with ThreadPoolExecutor(2) as pool:
        for script, code in zip(every, pool.map(run, every)):
            yield Figure(script.stem, "exit status 0", str(code), code == 0)


PARTS: tuple[Callable[[], Iterator[Figure]], ...] = (
    air,
    air_of_filtered,
    air_of_coils,
    noise_level,
    faults,
    fills,
    single_voxels,
    gains,
    drifts,
    trained_box,
    interpolated,
    field,
    wrong_regions,
    random_faults,
    unphysical_field,
    motion,
    choices,
    order_of_warnings,
    properties,
    real_scans,
    scripts,
)


def main() -> None:
    """Print the table; the last line says how many hold."""
    names = sys.argv[1:]
    known = [part.__name__ for part in PARTS]
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"{__doc__}\nParts: {', '.join(known)}. Got {', '.join(unknown)}.")
    figures = []
    for part in PARTS:
        if names and part.__name__ not in names:
            continue
        for figure in part():
            figures.append(figure)
            print(
                f"{figure.name:64s} {figure.asked:22s} {figure.measured:>12s}  {'yes' if figure.holds else 'NO'}",
                flush=True,
            )
    print(f"{sum(f.holds for f in figures)} of {len(figures)} hold")


if __name__ == "__main__":
    main()
