"""NLLS beside other packages, on the same voxels in the same run: voxels per second and median error.

    python -m benchmarks.bench_peers

Those that are not installed are skipped. They are no dependency of rimap: use an environment of its own, as in
docs/peers.md. Each gets as many voxels as it does in about 10 s of processor time, at its own defaults except for the
model, which is that of the data: three parameters for inversion recovery, no offset for T2.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from benchmarks.bench_nlls import images
from benchmarks.bench_sequences import SCANS, simulated
from rimap import NLLS, PROTOCOLS, SignalModel, WeightedSeries

Floats = NDArray[np.float64]
#: From a series of images (N, n) to T in ms (n,); raises ImportError where the package is missing.
Fit = Callable[[WeightedSeries], Floats]

SECONDS, MOST = 10.0, 4000


def _times_last(series: WeightedSeries) -> Floats:
    """Return the images with a line of voxels and the images along the last axis, (n, 1, N)."""
    return np.ascontiguousarray(np.asarray(series.images, dtype=float).T[:, None])


def qmri_ir(series: WeightedSeries) -> Floats:
    """Fit with qmri (seconds)."""
    fit = importlib.import_module("qmri.relaxometry.t1").fit_ir
    found = fit(_times_last(series)[:, :, None], series.model.times / 1000, 1e3, model="classical").t1
    return 1000 * np.asarray(found, dtype=float).reshape(-1)


def qmri_t2(series: WeightedSeries) -> Floats:
    """Fit with qmri (seconds)."""
    fit = importlib.import_module("qmri.relaxometry.t2").fit
    found = fit(_times_last(series)[:, :, None], series.model.times / 1000, model="reduced", skip_echoes=0).t2
    return 1000 * np.asarray(found, dtype=float).reshape(-1)


def qmrpy_ir(series: WeightedSeries) -> Floats:
    """Fit with qmrpy."""
    kind = importlib.import_module("qmrpy.models.t1").T1InversionRecovery
    return np.asarray(kind(ti_ms=series.model.times).fit_image(_times_last(series)).params["t1_ms"]).reshape(-1)


def qmrpy_t2(series: WeightedSeries) -> Floats:
    """Fit with qmrpy."""
    kind = importlib.import_module("qmrpy.models.t2").T2Mono
    return np.asarray(kind(te_ms=series.model.times).fit_image(_times_last(series)).params["t2_ms"]).reshape(-1)


def qmrpy_vfa(series: WeightedSeries) -> Floats:
    """Fit with qmrpy, whose model has one B1: voxel by voxel."""
    kind = importlib.import_module("qmrpy.models.t1").T1VFA
    model, S, B1 = series.model, np.asarray(series.images), np.asarray(series.given["B1"])
    flips, tr = model.times, model.tr[0]  # type: ignore[attr-defined]
    fits = [kind(flip_angle_deg=flips, tr_ms=tr, b1=float(b)).fit(s) for s, b in zip(S.T, B1)]
    return np.array([_of(fit, "t1_ms") for fit in fits])


def qmrpy_megre(series: WeightedSeries) -> Floats:
    """Fit with qmrpy."""
    kind = importlib.import_module("qmrpy.models.t2star").T2StarMonoR2(te_ms=series.model.times)
    return np.array([_of(kind.fit(s), "t2star_ms") for s in np.asarray(series.images, dtype=float).T])


def qmrpy_mese(series: WeightedSeries) -> Floats:
    """Fit with qmrpy's dictionary of echo trains: hard pulses, a grid of T2 and B1."""
    te = series.model.times
    kind = importlib.import_module("qmrpy.models.t2").T2EMC(
        n_te=len(te), te_ms=float(te[0]), b1_grid=np.linspace(0.7, 1.0, 16)
    )
    return np.array([_of(kind.fit(s), "t2_ms") for s in np.asarray(series.images, dtype=float).T])


def _of(fit: object, name: str) -> float:
    """Return a value of a fit, which is a mapping or has one."""
    values = fit if isinstance(fit, dict) else getattr(fit, "params")  # noqa: B009
    return float(values[name])


def ukat_ir(series: WeightedSeries) -> Floats:
    """Fit with ukat."""
    kind = importlib.import_module("ukat.mapping.t1").T1
    S = _times_last(series)[:, :, None]
    return np.asarray(kind(S, series.model.times, np.eye(4), parameters=3, multithread=False).t1_map).reshape(-1)


def ukat_t2(series: WeightedSeries) -> Floats:
    """Fit with ukat."""
    kind = importlib.import_module("ukat.mapping.t2").T2
    S = _times_last(series)[:, :, None]
    return np.asarray(kind(S, series.model.times, np.eye(4), multithread=False).t2_map).reshape(-1)


def ukat_megre(series: WeightedSeries) -> Floats:
    """Fit with ukat, whose exponential fit is its accurate one."""
    kind = importlib.import_module("ukat.mapping.t2star").T2Star
    S = _times_last(series)[:, :, None]
    return np.asarray(kind(S, series.model.times, np.eye(4), method="2p_exp", multithread=False).t2star_map).reshape(-1)


def ukat_mese(series: WeightedSeries) -> Floats:
    """Fit with ukat's StimFit, with its own slice profile."""
    module = importlib.import_module("ukat.mapping.t2_stimfit")
    te = series.model.times
    model = module.StimFitModel(mode="selective")
    model.opt |= {"esp": (te[1] - te[0]) / 1000, "etl": len(te), "T1": 1.0}
    return np.asarray(module.T2StimFit(_times_last(series)[:, :, None], np.eye(4), model).t2_map).reshape(-1)


def dosma_ir(series: WeightedSeries) -> Floats:
    """Fit with DOSMA's curve_fit."""
    fit = importlib.import_module("dosma.core.fitting").curve_fit
    formula = lambda t, a, b, T: abs(a * (1 - b * np.exp(-t / T)))  # noqa: E731
    return np.asarray(fit(formula, series.model.times, np.asarray(series.images), p0=(1, 2, 1000))[0])[:, -1]


def dosma_t2(series: WeightedSeries) -> Floats:
    """Fit with DOSMA's curve_fit."""
    fit = importlib.import_module("dosma.core.fitting").curve_fit
    formula = lambda t, a, T: a * np.exp(-t / T)  # noqa: E731
    return np.asarray(fit(formula, series.model.times, np.asarray(series.images), p0=(1, 100))[0])[:, -1]


def fit_scipy(series: WeightedSeries) -> Floats:
    """Fit with curve_fit from the paper's initial guess; what is given is known to it."""
    model, S = series.model, np.asarray(series.images, dtype=float)
    T, guess, held = np.full(S.shape[1], np.nan), model.initial_guess(S), series.held
    free = [q for q, p in enumerate(model.parameters) if p.name not in held]
    known = {model.index(k): np.broadcast_to(np.asarray(v, dtype=float), S.shape[1:]) for k, v in held.items()}
    place = free.index(model.index(model.time.name))
    for v in range(S.shape[1]):

        def signal(_: object, *free_values: float, voxel: int = v) -> Floats:
            kappa = np.empty(len(model.parameters))
            kappa[free] = free_values
            for q, values in known.items():
                kappa[q] = values[voxel]
            return np.asarray(model.signal(kappa))

        with contextlib.suppress(RuntimeError):
            T[v] = curve_fit(signal, model.times, S[:, v], p0=guess[free, v])[0][place]
    return T


def fit_rimap(series: WeightedSeries) -> Floats:
    """Fit with NLLS, one thread."""
    return np.asarray(NLLS(threads=1).estimate(series)[series.model.time.name])


#: By package and sequence.
PEERS: dict[str, dict[str, Fit]] = {
    "scipy curve_fit, lm": dict.fromkeys(("ir", "t2", "vfa", "megre", "mese"), fit_scipy),
    "qmri": {"ir": qmri_ir, "t2": qmri_t2},
    "qmrpy": {"ir": qmrpy_ir, "t2": qmrpy_t2, "vfa": qmrpy_vfa, "megre": qmrpy_megre, "mese": qmrpy_mese},
    "ukat": {"ir": ukat_ir, "t2": ukat_t2, "megre": ukat_megre, "mese": ukat_mese},
    "DOSMA": {"ir": dosma_ir, "t2": dosma_t2},
}


def _quiet(fit: Fit, series: WeightedSeries) -> tuple[Floats, float]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        start = time.process_time()
        T = fit(series)
        return T, time.process_time() - start


def compare(title: str, series: WeightedSeries, truth: Floats) -> None:
    """Print the table of a series."""
    model = series.model
    fit_rimap(series)
    seconds = min(_quiet(fit_rimap, series)[1] for _ in range(3))
    ours = fit_rimap(series)

    def error(T: Floats) -> float:
        T = np.where(np.isfinite(T) & (T > 0), T, np.inf)  # no answer is a wrong one
        return 100 * float(np.median(abs(T / truth[: len(T)] - 1)))

    print(f"\n{title}, {model.n_images} images, SNR 30")
    print(f"| {'':22} | voxels/s | median error | NLLS on the same voxels | voxels |\n|---|---|---|---|---|")
    rate = len(truth) / seconds
    print(f"| {'rimap NLLS, 1 thread':22} | {rate:,.0f} | {error(ours):.1f} % | | {len(truth):,} |", flush=True)
    for peer, fits in PEERS.items():
        if model.name not in fits:
            continue
        fit = fits[model.name]
        try:
            _quiet(fit, _first(series, 8))  # imported and compiled
            _, first = _quiet(fit, _first(series, 8))
            n = int(np.clip(8 * SECONDS / max(first, 1e-3), 8, MOST))
            T, seconds = _quiet(fit, _first(series, n))
        except Exception as problem:  # a peer may fail in any way
            reason = (str(problem).splitlines() or [""])[0][:90]
            print(f"| {peer:22} | skipped: {type(problem).__name__}: {reason} | | | |")
            continue
        print(
            f"| {peer:22} | {n / seconds:,.1f} | {error(T):.1f} % | {error(ours[:n]):.1f} % | {n:,} |",
            flush=True,
        )


def _first(series: WeightedSeries, n: int) -> WeightedSeries:
    """Return the first n voxels of a series (N, V)."""
    given = {name: np.asarray(values)[:n] for name, values in series.given.items()}
    return WeightedSeries(images=np.asarray(series.images)[:, :n], model=series.model, noise=series.noise, given=given)


def main() -> None:
    """Print the tables."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("IV_T1", "IV_T2"):
        model: SignalModel = PROTOCOLS[name]
        kappa, S = images(model, 200_000, 30, "rician")
        compare(f"{model.title}, {name}", WeightedSeries(images=S, model=model), kappa[model.index(model.time.name)])
    for scan in SCANS:
        if scan.sequence in ("vfa", "megre", "mese"):
            series, truth = simulated(scan, 100_000, 30)
            compare(scan.model.title, series, truth[scan.model.time.name])


if __name__ == "__main__":
    main()
