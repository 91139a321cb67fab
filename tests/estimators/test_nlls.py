"""NLLS: the optimum is global, the standard deviations are right, and failure is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from benchmarks.dense import dense_search

import rimap
from rimap import (
    MLE,
    NLLS,
    PROTOCOLS,
    RIM,
    Gaussian,
    InputError,
    InversionRecovery,
    Parameter,
    Rician,
    SignalModel,
    Status,
    T2Decay,
    WeightedSeries,
    cramer_rao_sd,
    setting,
)
from rimap.arrays import column, namespace
from rimap.estimators.nlls.estimator import least_squares

TI = [50, 100, 200, 400, 600, 800]
GROWING_TR = [1000, 1060, 1160, 1460, 1860, 2460]
MODELS = {
    "paper": PROTOCOLS["IV_T1"],
    "short TR": InversionRecovery(tau=TI, tr=1000),
    "growing TR": InversionRecovery(tau=TI, tr=GROWING_TR),
    "order of signs depends on T1": InversionRecovery(tau=TI, tr=[2460, 1000, 1860, 1060, 1160, 1460]),
    "four": InversionRecovery(tau=[50, 400, 1100, 2500], tr=2550),
    "signed": InversionRecovery(tau=[50, 400, 1100, 2500], tr=2550, signed=True),
    "repeats": InversionRecovery(tau=[50, 50, 400, 400, 1100, 2500, 2500]),
    "T2": PROTOCOLS["IV_T2"],
}


def _simulate(model: SignalModel, n: int, sigma: float, *, modulus: bool, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    T = np.exp(rng.uniform(np.log(80), np.log(4000), n)) / (10 if len(model.parameters) == 2 else 1)
    B = [rng.uniform(1.5, 2.1, n)] if len(model.parameters) == 3 else []
    kappa = np.stack([rng.uniform(0.7, 1.2, n), *B, T])
    S = model.signal(kappa) + sigma * rng.standard_normal((model.n_images, n))
    return kappa, abs(S) if modulus and model.magnitude else S


@pytest.mark.parametrize("modulus", [True, False], ids=["non-negative", "noise after the modulus"])
@pytest.mark.parametrize("snr", [10, 30, 100])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_no_voxel_is_far_from_the_global_optimum(model: SignalModel, snr: int, modulus: bool) -> None:
    _, S = _simulate(model, 600, 1 / snr, modulus=modulus)
    maps = least_squares(WeightedSeries(images=S, model=model, noise=Gaussian(sigma=1 / snr)))
    rss = ((S - model.signal(maps.kappa)) ** 2).sum(0)
    np.testing.assert_allclose(maps.residual, np.sqrt(rss / model.n_images), rtol=1e-3, atol=1e-5)
    excess = (rss - dense_search(model, S, n_T=250)) * snr**2
    assert excess.max() < 1, f"{(excess > 1).sum()} voxels"


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_noiseless_images_give_the_truth_back(model: SignalModel) -> None:
    kappa, S = _simulate(model, 400, 0.0, modulus=False)
    maps = NLLS().estimate(WeightedSeries(images=S, model=model))
    error = abs(maps.kappa[-1] / kappa[-1] - 1)
    assert np.median(error) < 1e-6
    # Where a short T leaves two images without recovery, both polarities fit: the other one may be found.
    assert ((error < 1e-4) | (kappa[-1] < 150)).all() and (maps.residual < 1e-4).all()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_standard_deviations_are_those_of_the_cramer_rao_bound(model: SignalModel) -> None:
    _, S = _simulate(model, 400, 0.02, modulus=True)
    maps = NLLS().estimate(WeightedSeries(images=S, model=model, noise=Gaussian(sigma=0.02)))
    ok = maps.status == Status.OK
    assert ok.mean() > 0.4
    expected = cramer_rao_sd(model, Gaussian(sigma=0.02), maps.kappa[:, ok])
    known = np.isfinite(expected)  # where the matrix is not singular to double precision
    np.testing.assert_allclose(maps.sd_kappa[:, ok][known], expected[known], rtol=1e-4)
    assert np.isnan(maps.sd_kappa[:, ~ok]).all()


def test_the_bound_is_reached_at_high_snr() -> None:
    model, truth = InversionRecovery(tau=[50, 200, 500, 900, 1500, 2500]), np.array([100.0, 1.9, 800.0])
    rng = np.random.default_rng(5)
    S = Rician(sigma=1.0).sample(np.repeat(model.signal(truth)[:, None], 20_000, 1), rng)
    maps = NLLS().estimate(WeightedSeries(images=S, model=model, noise=Gaussian(sigma=1.0)))
    bound = cramer_rao_sd(model, Gaussian(sigma=1.0), truth[:, None])[:, 0]
    np.testing.assert_allclose(maps.kappa.std(1), bound, rtol=0.05)
    np.testing.assert_allclose(np.median(maps.sd_kappa, 1), bound, rtol=0.03)
    assert (abs(maps.kappa.mean(1) - truth) < 0.25 * bound).all()


def test_rician_noise_widens_the_standard_deviations_at_low_snr() -> None:
    model = T2Decay(tau=[10, 20, 40, 80, 160, 320])
    S = Rician(sigma=0.1).sample(
        np.repeat(model.signal(np.array([1.0, 60.0]))[:, None], 500, 1), np.random.default_rng(0)
    )
    gauss, rice = (
        NLLS().estimate(WeightedSeries(images=S, model=model, noise=n(sigma=0.1))) for n in (Gaussian, Rician)
    )
    np.testing.assert_array_equal(gauss.kappa, rice.kappa)
    assert isinstance(rice.noise, Rician) and (rice.sd["T2"] > gauss.sd["T2"]).mean() > 0.99
    ok = rice.status == Status.OK
    np.testing.assert_allclose(rice.sd_kappa[:, ok], cramer_rao_sd(model, Rician(sigma=0.1), rice.kappa[:, ok]))


def test_bounds_are_kept_and_said() -> None:
    model = InversionRecovery(tau=[50, 200, 500, 900, 1500, 2500])
    truth = np.array([[1.0, 1.0, 1.0, 1.0], [3.4, 0.0, 1.9, 1.9], [800.0, 800.0, 12_000.0, 800.0]])
    maps = NLLS().estimate(WeightedSeries(images=model.signal(truth), model=model, noise=Gaussian(sigma=0.01)))
    assert maps.status.tolist() == [Status.AT_BOUND] * 3 + [Status.OK]
    assert maps["B"][0] == 3 and maps["B"][1] == 0 and maps["T1"][2] == pytest.approx(10_000)
    assert np.isnan(maps.sd_kappa[:, :3]).all() and np.isfinite(maps.sd_kappa[:, 3]).all()


@pytest.mark.parametrize("background", [False, True])
def test_sigma_is_found(background: bool) -> None:
    model, sigma, rng = InversionRecovery(tau=TI, tr=1000), 5.0, np.random.default_rng(0)
    A = np.full((60, 60), 200.0)
    A[:20] = 0.0 if background else 200.0
    f = model.signal(np.stack([A, 0 * A + 1.9, 0 * A + 500.0]))
    series = WeightedSeries(images=Rician(sigma=sigma).sample(f, rng), model=model)
    maps = NLLS().estimate(series)
    assert maps.sigma_source == "residuals" and maps.noise.sigma == pytest.approx(sigma, rel=0.06)
    # As many images as parameters: no residual is left.
    few = NLLS().estimate(series.subset([0, 2, 5]))
    if background:
        assert few.sigma_source == "background" and few.noise.sigma == pytest.approx(sigma, rel=0.05)
    else:
        assert few.sigma_source == "unknown" and np.isnan(few.sd_kappa).all()
        assert any("noise level is not known" in w for w in few.warnings)


def test_warnings_say_why() -> None:
    model = InversionRecovery(tau=[100, 150, 200, 250])
    truth = np.repeat(np.array([[1.0], [1.95], [1500.0]]), 500, 1)
    S = abs(model.signal(truth) + 0.05 * np.random.default_rng(0).standard_normal((4, 500)))
    maps = NLLS().estimate(WeightedSeries(images=S, model=model, noise=Gaussian(sigma=0.05)))
    assert any("TR is not known" in w for w in maps.warnings)
    assert any("poorly determined" in w and "longest time, 250 ms" in w for w in maps.warnings)
    good = InversionRecovery(tau=[50, 300, 900, 2500], tr=8000)
    maps = NLLS().estimate(WeightedSeries(images=good.signal(truth), model=good, noise=Gaussian(sigma=0.01)))
    assert maps.warnings == ()


def test_threads_change_nothing() -> None:
    _, S = _simulate(MODELS["paper"], 9000, 0.03, modulus=True)
    series = WeightedSeries(images=S.astype(np.float32), model=MODELS["paper"])
    one, two = NLLS(threads=1).estimate(series), NLLS(threads=2).estimate(series)
    np.testing.assert_array_equal(one.kappa, two.kappa)
    with pytest.raises(InputError, match="threads"):
        NLLS(threads=0)


@pytest.mark.parametrize("name", ["paper", "T2"])
def test_the_order_of_voxels_changes_nothing(name: str) -> None:
    _, S = _simulate(MODELS[name], 3000, 0.05, modulus=True)
    order = np.random.default_rng(1).permutation(3000)
    maps, turned = (
        NLLS().estimate(WeightedSeries(images=images, model=MODELS[name], noise=Gaussian(sigma=0.05)))
        for images in (S, S[:, order])
    )
    np.testing.assert_array_equal(maps.kappa[:, order], turned.kappa)
    np.testing.assert_array_equal(maps.sd_kappa[:, order], turned.sd_kappa)


@pytest.mark.parametrize("name", ["paper", "short TR", "T2"])
def test_pure_noise_has_a_global_optimum_too(name: str) -> None:
    model, rng = MODELS[name], np.random.default_rng(0)
    S = np.hypot(*rng.standard_normal((2, model.n_images, 300)))
    maps = least_squares(WeightedSeries(images=S, model=model, noise=Gaussian(sigma=1.0)))
    rss = ((S - model.signal(maps.kappa)) ** 2).sum(0)
    assert (rss - dense_search(model, S, n_T=250)).max() < 1


@dataclass(frozen=True)
class Offset(SignalModel):
    """A e^(−τ/T) + C: what a contributor might add, with no basis."""

    te: tuple[float, ...] = setting("echo time", "TE", bids="EchoTime", entity="echo")

    name: ClassVar[str] = "offset"
    title: ClassVar[str] = "Decay with an offset"
    bids_suffix: ClassVar[str] = "MEGRE"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude"),
        Parameter("C", "a.u.", (0.0, np.inf), "amplitude"),
        Parameter("T2star", "ms", (1.0, 2000.0), "time", start=100.0),
    )

    def shape(self, T2star: Any) -> Any:
        xp, te = namespace(T2star), column(self.te, T2star)
        return xp.stack([xp.exp(-te / T2star), 1 + 0 * te + 0 * T2star], axis=1)


def test_a_model_without_a_basis_is_fitted_too() -> None:
    model, rng = Offset(te=[5, 10, 20, 40, 80, 160, 320]), np.random.default_rng(0)
    truth = np.stack([rng.uniform(50, 100, (4, 5)), rng.uniform(2, 10, (4, 5)), rng.uniform(20, 120, (4, 5))])
    images = model.signal(truth)
    images[:, 0, 0], images[1, 0, 1] = 0, np.nan
    maps = NLLS().estimate(WeightedSeries(images=images, model=model, noise=Gaussian(sigma=0.1)))
    assert maps.status[0, 0] == Status.NO_SIGNAL and maps.status[0, 1] == Status.NOT_FINITE
    ok = maps.status == Status.OK
    assert ok.sum() == 18
    np.testing.assert_allclose(maps.kappa[:, ok], truth[:, ok], rtol=1e-4)
    np.testing.assert_allclose(maps.sd_kappa[:, ok], cramer_rao_sd(model, Gaussian(sigma=0.1), truth[:, ok]), rtol=1e-2)


def test_the_slow_road_finds_what_the_fast_one_finds() -> None:
    @dataclass(frozen=True)
    class Hidden(InversionRecovery):
        linear_in_field: ClassVar[bool] = False

    fast, slow = MODELS["short TR"], Hidden(tau=TI, tr=1000)
    _, S = _simulate(fast, 150, 0.01, modulus=True)
    a, b = (NLLS().estimate(WeightedSeries(images=S, model=m, noise=Gaussian(sigma=0.01))) for m in (fast, slow))
    assert not slow.separable
    assert (b.residual < a.residual + 1e-3).mean() > 0.95


def test_sigma_of_images_in_another_order_is_the_same() -> None:
    """Also at a low SNR, where it comes from simulated images: their noise follows the times, not the array."""
    times = np.array([50.0, 300.0, 800.0, 800.0, 1800.0, 4000.0])
    kappa = np.ones((3, 20, 20)) * np.reshape([1.0, 1.9, 900.0], (3, 1, 1))
    kappa[2] *= np.linspace(0.6, 1.5, 20)
    model = rimap.InversionRecovery(tau=times)
    images = rimap.Rician(sigma=0.2).sample(model.signal(kappa), np.random.default_rng(0))
    one, *others = (
        rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images[p], rimap.InversionRecovery(tau=times[p]))).noise
        for p in (np.arange(6), np.arange(6)[::-1], np.array([4, 0, 3, 5, 1, 2]))
    )
    assert one is not None
    assert [noise.sigma for noise in others if noise is not None] == pytest.approx([one.sigma] * 2, rel=1e-6)


@pytest.mark.parametrize("value", ["x", [1, "x"], object(), np.array([1.0, 2.0])])
@pytest.mark.parametrize(
    ("kind", "option"),
    [(NLLS, "threads"), (NLLS, "fixed"), (NLLS, "bounds"), (MLE, "lambda_B"), (MLE, "threads"), (RIM, "sd_draws")],
)
def test_options_of_another_kind_are_refused(kind, option, value):
    with pytest.raises(InputError, match=f"{option}: expected"):
        kind(**{option: value})
