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
from rimap import NLLS, PROTOCOLS, SignalModel, WeightedSeries

Floats = NDArray[np.float64]
#: From images (N, n) and their model to T in ms (n,); raises ImportError where the package is missing.
Fit = Callable[[Floats, SignalModel], Floats]

SECONDS, MOST = 10.0, 4000


def fit_qmri(S: Floats, model: SignalModel) -> Floats:
    """Fit with qmri (seconds)."""
    t, signal = model.times / 1000, np.ascontiguousarray(S.T[:, None, None])
    if model.name == "ir":
        result = importlib.import_module("qmri.relaxometry.t1").fit_ir(signal, t, 1e3, model="classical").t1
    else:
        result = importlib.import_module("qmri.relaxometry.t2").fit(signal, t, model="reduced", skip_echoes=0).t2
    return 1000 * np.asarray(result, dtype=float).reshape(-1)


def fit_qmrpy(S: Floats, model: SignalModel) -> Floats:
    """Fit with qmrpy."""
    signal = np.ascontiguousarray(S.T[:, None])
    if model.name == "ir":
        fit = importlib.import_module("qmrpy.models.t1").T1InversionRecovery(ti_ms=model.times).fit_image(signal)
    else:
        fit = importlib.import_module("qmrpy.models.t2").T2Mono(te_ms=model.times).fit_image(signal)
    return np.asarray(fit.params[f"{model.parameters[-1].name.lower()}_ms"], dtype=float).reshape(-1)


def fit_ukat(S: Floats, model: SignalModel) -> Floats:
    """Fit with ukat."""
    signal = np.ascontiguousarray(S.T[:, None, None, :])
    if model.name == "ir":
        T1 = importlib.import_module("ukat.mapping.t1").T1
        return np.asarray(T1(signal, model.times, np.eye(4), parameters=3, multithread=False).t1_map).reshape(-1)
    T2 = importlib.import_module("ukat.mapping.t2").T2
    return np.asarray(T2(signal, model.times, np.eye(4), multithread=False).t2_map).reshape(-1)


def fit_dosma(S: Floats, model: SignalModel) -> Floats:
    """Fit with DOSMA's curve_fit."""
    dosma = importlib.import_module("dosma.core.fitting")
    if model.name == "ir":
        popt, _ = dosma.curve_fit(lambda t, a, b, T: abs(a * (1 - b * np.exp(-t / T))), model.times, S, p0=(1, 2, 1000))
    else:
        popt, _ = dosma.curve_fit(lambda t, a, T: a * np.exp(-t / T), model.times, S, p0=(1, 100))
    return np.asarray(popt, dtype=float)[:, -1]


def fit_scipy(S: Floats, model: SignalModel) -> Floats:
    """Fit with curve_fit from the paper's initial guess."""
    T, guess = np.full(S.shape[1], np.nan), model.initial_guess(S)
    for v in range(S.shape[1]):
        with contextlib.suppress(RuntimeError):
            T[v] = curve_fit(lambda _, *k: model.signal(np.array(k)), model.times, S[:, v], p0=guess[:, v])[0][-1]
    return T


def fit_rimap(S: Floats, model: SignalModel) -> Floats:
    """Fit with NLLS, one thread."""
    return NLLS(threads=1).estimate(WeightedSeries(images=S, model=model)).kappa[-1]


PEERS: dict[str, Fit] = {
    "scipy curve_fit, lm": fit_scipy,
    "qmri": fit_qmri,
    "qmrpy": fit_qmrpy,
    "ukat": fit_ukat,
    "DOSMA": fit_dosma,
}


def _quiet(fit: Fit, S: Floats, model: SignalModel) -> tuple[Floats, float]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        start = time.process_time()
        T = fit(S, model)
        return T, time.process_time() - start


def compare(name: str) -> None:
    """Print the table of a protocol."""
    model = PROTOCOLS[name]
    kappa, S = images(model, 200_000, 30, "rician")
    fit_rimap(S, model)
    seconds = min(_quiet(fit_rimap, S, model)[1] for _ in range(3))
    ours, truth = fit_rimap(S, model), kappa[-1]

    def error(T: Floats) -> float:
        T = np.where(np.isfinite(T) & (T > 0), T, np.inf)  # no answer is a wrong one
        return 100 * float(np.median(abs(T / truth[: len(T)] - 1)))

    print(f"\n{model.title}, {name}, {model.n_images} images, SNR 30")
    print(f"| {'':22} | voxels/s | median error | NLLS on the same voxels | voxels |\n|---|---|---|---|---|")
    rate = S.shape[1] / seconds
    print(f"| {'rimap NLLS, 1 thread':22} | {rate:,.0f} | {error(ours):.1f} % | | {S.shape[1]:,} |", flush=True)
    for peer, fit in PEERS.items():
        try:
            _, first = _quiet(fit, S[:, :8], model)
            n = int(np.clip(8 * SECONDS / max(first, 1e-3), 8, MOST))
            T, seconds = _quiet(fit, S[:, :n], model)
        except Exception as problem:  # a peer may fail in any way
            print(f"| {peer:22} | skipped: {type(problem).__name__}: {str(problem).splitlines()[0][:90]} | | | |")
            continue
        print(
            f"| {peer:22} | {n / seconds:,.1f} | {error(T):.1f} % | {error(ours[:n]):.1f} % | {n:,} |",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("IV_T1", "IV_T2"):
        compare(name)


if __name__ == "__main__":
    main()
