"""The kernels of the MLE against dense searches, finite differences and SciPy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import minimize

from rimap.estimators.mle.rician import bessel
from rimap.estimators.mle.voxels import Voxels
from rimap.estimators.table import ShapeTable
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.signals.base import SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.signals.t2_decay import T2Decay

V = 250
TAU = tuple(PROTOCOLS["IV_T1"].times)
MODELS = {
    "magnitude": InversionRecovery(tau=TAU),
    "signed": InversionRecovery(tau=(50, 100, 200, 500, 2000, 4000), signed=True),
    "tr": InversionRecovery(tau=(100, 600, 200, 50, 400, 800, 800), tr=(1000, 1800, 1100, 1000, 1300, 2000, 2000)),
    "t2": T2Decay(tau=(10, 20, 40, 80, 160, 320)),
}


def _voxels(model: SignalModel, noise: Noise, seed: int = 0) -> tuple[Voxels, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    ir = len(model.parameters) == 3
    T = np.exp(rng.uniform(np.log(250), np.log(2500), V)) if ir else np.exp(rng.uniform(np.log(20), np.log(400), V))
    B = rng.uniform(1.6, 2.0, V) if ir else np.zeros(V)
    kappa = np.stack([np.ones(V), B, T] if ir else [np.ones(V), T])
    S = noise.sample(model.signal(kappa), rng)
    return Voxels.of(S, np.arange(V), noise.sigma, ShapeTable.of(model), noise, _Now()), B


class _Now(ThreadPoolExecutor):
    """Runs at once."""

    def __init__(self) -> None:
        pass

    def map(self, f, *items, **_):  # type: ignore[no-untyped-def,override]
        return map(f, *items)


def _dense(voxels: Voxels, model: SignalModel, B: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least ½χ² of each voxel over 8,000 T."""
    S = voxels.S.astype(float)
    best = np.full(V, np.inf)
    lo, hi = model.parameters[-1].bounds
    for T in np.geomspace(lo, hi, 8_000):
        phi = model.basis(T)
        M = phi[:, 0] + (B[:, None] * phi[:, 1] if phi.shape[1] == 2 else 0)
        M = np.broadcast_to(abs(M) if model.magnitude else M, S.shape)
        c, d = np.maximum((S * M).sum(1), 0), (M * M).sum(1)
        best = np.minimum(best, 0.5 * ((S * S).sum(1) - c**2 / d))
    return best


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("snr", [5, 30])
def test_no_voxel_is_in_a_wrong_minimum(name: str, snr: float) -> None:
    model = MODELS[name]
    voxels, B = _voxels(model, Gaussian(sigma=0.65 / snr), seed=snr)
    fit = voxels.fit(B, None, True)
    excess = fit.f - _dense(voxels, model, B)
    assert (excess > 1e-4).mean() < (0.002 if snr > 10 else 0.01)
    assert excess.max() < 0.2


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.65 / 20), Rician(sigma=0.65 / 20)], ids=["gaussian", "rician"])
@pytest.mark.parametrize("name", ["magnitude", "signed", "tr"])
def test_derivatives_in_B(name: str, noise: Noise) -> None:
    if name == "signed" and isinstance(noise, Rician):
        return
    voxels, B = _voxels(MODELS[name], noise)
    fit, e = voxels.fit(B), 2e-4
    up, down = voxels.fit(B + e, fit), voxels.fit(B - e, fit)
    smooth = abs((up.f - fit.f) - (fit.f - down.f)) < 2 * e**2 * abs(fit.w) + 1e-5  # no jump of T or polarity
    assert smooth.mean() > 0.98
    assert ((up.f - down.f) / (2 * e))[smooth] == pytest.approx(fit.g[smooth], rel=0.02, abs=0.5)
    curve = (up.g - down.g) / (2 * e)
    assert np.quantile(abs(curve - fit.w) / (1 + abs(fit.w)), 0.95) < 0.05


def test_data_below_zero_hold_T_at_a_null() -> None:
    """Noise added after the modulus gives −s|M|, a valley with a sharp bottom: g is the derivative along it."""
    model = MODELS["magnitude"]
    voxels, B = _voxels(model, Gaussian(sigma=0.65 / 10))
    assert (voxels.S < 0).any(1).mean() > 0.3
    fit, e = voxels.fit(B), 2e-4
    up, down = voxels.fit(B + e, fit), voxels.fit(B - e, fit)
    assert np.quantile(abs((up.f - down.f) / (2 * e) - fit.g), 0.98) < 0.3
    again = voxels.fit(B, fit, True)
    assert again.f == pytest.approx(fit.f, abs=1e-6)
    assert again.g == pytest.approx(fit.g, abs=1e-2)


def test_bessel_functions() -> None:
    z = np.concatenate([[0.0], np.geomspace(1e-8, 1e7, 20_001)])
    ratio, log_i0e = bessel(z)
    assert abs(ratio - special.i1e(z) / special.i0e(z)).max() < 1e-9
    assert abs(log_i0e - np.log(special.i0e(z))).max() < 1e-9


@pytest.mark.parametrize("name", ["magnitude", "t2"])
def test_rician_optimum_against_scipy(name: str) -> None:
    model = MODELS[name]
    voxels, B = _voxels(model, Rician(sigma=0.65 / 6))
    fit = voxels.fit(B)
    noise = Rician(sigma=1.0)
    for v in range(0, V, 20):

        def nll(x: NDArray[np.float64], v: int = v) -> float:
            kappa = [x[0], B[v], np.exp(x[1])] if len(model.parameters) == 3 else [x[0], np.exp(x[1])]
            return float(noise.nll(voxels.S[v].astype(float), model.signal(np.array(kappa)[:, None])[:, 0]).sum())

        lo, hi = np.log(model.parameters[-1].bounds)
        best = min(
            minimize(nll, [fit.A[v] * a, np.clip(fit.u[v] + b, lo, hi)], bounds=[(0, None), (lo, hi)]).fun
            for a in (0.8, 1.2)
            for b in (-0.5, 0.0, 0.5)
        )
        assert nll(np.array([fit.A[v], fit.u[v]])) < best + 1e-4


def test_information_is_that_of_the_likelihood() -> None:
    from rimap.likelihood import cramer_rao_sd

    for noise in (Gaussian(sigma=0.05), Rician(sigma=0.05)):
        model = MODELS["magnitude"]
        voxels, B = _voxels(model, noise)
        fit = voxels.fit(B)
        var_A, var_u, _, dA, du, own, _ = voxels.information(fit, noise).T
        kappa = np.stack([fit.A, B, np.exp(fit.u)])
        sd = cramer_rao_sd(model, type(noise)(sigma=1.0), kappa)
        ok = np.isfinite(var_u) & np.isfinite(sd).all(0) & (own > 1e-3)
        assert (1 / np.sqrt(own))[ok] == pytest.approx(sd[1][ok], rel=0.02)
        assert (np.sqrt(var_u + du**2 / own) * kappa[2])[ok] == pytest.approx(sd[2][ok], rel=0.02)
        assert np.sqrt(var_A + dA**2 / own)[ok] == pytest.approx(sd[0][ok], rel=0.02)


def test_table_is_exact() -> None:
    for model in MODELS.values():
        table = ShapeTable.of(model)
        T = np.exp(table.u[:-1] + table.step_u / 2)
        phi = model.basis(T)
        for F in (0.0, 1.0, 3.0):
            true = phi[:, 0] + (F * phi[:, 1] if phi.shape[1] == 2 else 0)
            assert abs(table.evaluate(T, F)[0][:, 0] - true).max() < 1e-8 * (1 + F)


def test_best_constant() -> None:
    voxels, _ = _voxels(MODELS["magnitude"], Gaussian(sigma=0.65 / 50))
    fit = voxels.best_constant((0.0, 3.0))
    for b in np.linspace(0, 3, 61):
        assert voxels.fit(np.full(V, b)).total > fit.total - 0.2
    assert len(np.unique(fit.F)) == 1
