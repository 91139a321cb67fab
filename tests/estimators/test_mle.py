"""The regularised MLE: what Eq. 2 promises, and what must hold of it on brains."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import minimize as lbfgs

from rimap.errors import InputError
from rimap.estimators.mle import field_solver as mle
from rimap.estimators.mle.estimator import MLE
from rimap.estimators.mle.field import Box, minimise
from rimap.estimators.mle.field_smoothness import DEFAULT_LAMBDA_B
from rimap.estimators.mle.voxels import Fit, Voxels
from rimap.estimators.nlls.estimator import NLLS
from rimap.estimators.rim.whole_field import smooth_field
from rimap.estimators.table import ShapeTable
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.signals.t2_decay import T2Decay
from rimap.simulation.anatomies import brain_mask, digital_brain, load_anatomy
from rimap.simulation.subjects import simulate_series, simulate_subject

MODEL = PROTOCOLS["IV_T1"]
SHAPE = (24, 20)


def _truth(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[np.float64]:
    """Return κ with tissue of 700–1500 ms and a B that is a smooth hill."""
    rng = np.random.default_rng(seed)
    r2 = sum(np.linspace(-1, 1, n).reshape((-1,) + (1,) * (len(shape) - 1 - i)) ** 2 for i, n in enumerate(shape))
    return np.stack([rng.uniform(0.8, 1.2, shape), 1.92 - 0.02 * r2 + np.zeros(shape), rng.uniform(700, 1500, shape)])


def _series(noise: Noise, seed: int = 0, shape: tuple[int, ...] = SHAPE, **kwargs: Any) -> WeightedSeries:
    rng = np.random.default_rng(seed)
    model = kwargs.pop("model", MODEL)
    return WeightedSeries(images=noise.sample(model.signal(_truth(shape)), rng), model=model, noise=noise, **kwargs)


# ---- Eq. 2


def test_scaling_images_and_sigma_changes_nothing() -> None:
    sigma = 0.65 / 20
    series = _series(Gaussian(sigma=sigma))
    a = MLE().estimate(series)
    b = MLE().estimate(WeightedSeries(images=series.images * 512.0, model=MODEL, noise=Gaussian(sigma=sigma * 512)))
    assert b["T1"] == pytest.approx(a["T1"], rel=1e-6)
    assert b["B"] == pytest.approx(a["B"], rel=1e-6)
    assert b["A"] == pytest.approx(a["A"] * 512, rel=1e-6)
    assert b.sd["T1"] == pytest.approx(a.sd["T1"], rel=1e-5)


def test_noisier_data_are_smoothed_more() -> None:
    """The same images, said to be noisier: B is smoother."""
    series = _series(Gaussian(sigma=0.65 / 30))
    rough = []
    for sigma in (0.65 / 30, 0.65 / 10, 0.65 / 3):
        B = MLE(lambda_B=1e3).estimate(series.with_noise(Gaussian(sigma=sigma)))["B"]
        rough.append(abs(np.diff(B, 2, axis=0)).mean())
    assert rough[0] > 1.2 * rough[1] > 1.44 * rough[2]


def test_lambda_from_none_to_infinite() -> None:
    series = _series(Gaussian(sigma=0.65 / 100))
    free, one = MLE(lambda_B=0.0).estimate(series), MLE(lambda_B=math.inf).estimate(series)
    assert np.array_equal(free.kappa, NLLS().estimate(series).kappa)
    assert np.ptp(one["B"]) == 0
    stiff = MLE(lambda_B=1e13).estimate(series)["B"]
    assert stiff == pytest.approx(one["B"], abs=2e-3)
    rms = [float(np.std(MLE(lambda_B=x).estimate(series)["B"])) for x in (1.0, 1e3, 1e6, 1e9)]
    assert rms == sorted(rms, reverse=True)


def test_B_stays_where_the_data_determine_it() -> None:
    noise = Gaussian(sigma=0.65 / 1000)
    maps = MLE().estimate(_series(noise))
    assert abs(maps["B"] - _truth()[1]).max() < 0.01
    assert np.sqrt(np.mean((maps["T1"] / _truth()[2] - 1) ** 2)) < 0.005


def test_voxels_without_information_take_B_from_around_them() -> None:
    images = np.array(_series(Gaussian(sigma=0.65 / 100)).images)
    hole = (slice(8, 13), slice(7, 12))
    images[(slice(None), *hole)] = 0.0
    images[3, 2, 2] = np.nan
    images[5, 20, 3] = np.inf
    series = WeightedSeries(images=images, model=MODEL, noise=Gaussian(sigma=0.65 / 100))
    maps = MLE(lambda_B=DEFAULT_LAMBDA_B).estimate(series)
    assert (maps.status[hole] == Status.NO_SIGNAL).all()
    assert maps.status[2, 2] == maps.status[20, 3] == Status.NOT_FINITE
    for name in ("A", "T1"):
        assert np.isnan(maps[name][hole]).all() and np.isnan(maps[name][2, 2])
    assert abs(maps["B"] - _truth()[1]).max() < 0.04  # in the hole too
    assert np.isnan(maps.sd["T1"][hole]).all()


def test_mask_with_holes_and_several_components() -> None:
    mask = np.zeros((40, 40), bool)
    mask[3:15, 3:15] = True
    mask[7:9, 7:9] = False  # a hole
    mask[22:38, 20:37] = True  # a second component
    mask[5, 30] = True  # a single voxel
    truth = _truth((40, 40))
    noise = Gaussian(sigma=0.65 / 50)
    images = noise.sample(MODEL.signal(truth), np.random.default_rng(0))
    images[:, ~mask] = 1e6  # what is not in the mask does not count
    maps = MLE().estimate(WeightedSeries(images=images, model=MODEL, noise=noise, mask=mask))
    assert np.isnan(maps.kappa[:, ~mask]).all()
    assert (maps.status[~mask] == Status.OUTSIDE_MASK).all()
    assert (maps.status[mask] == Status.OK).all()
    assert abs(maps["B"] - truth[1])[mask].max() < 0.05
    assert abs(maps["T1"] / truth[2] - 1)[5, 30] < 0.15  # alone, its T1 would be off by some 20 %


def test_the_box_of_B_is_respected() -> None:
    images = np.random.default_rng(0).standard_normal((MODEL.n_images, 10, 10))
    for weight in (1.0, DEFAULT_LAMBDA_B, math.inf):
        maps = MLE(lambda_B=weight).estimate(WeightedSeries(images=images, model=MODEL, noise=Gaussian(sigma=0.05)))
        assert maps["B"].min() >= 0 and maps["B"].max() <= 3
        assert maps["T1"].min() >= 1 and maps["T1"].max() <= 10_000
        assert np.isnan(maps.sd["T1"][maps.status == Status.AT_BOUND]).all()


# ---- shapes, kinds of input


@pytest.mark.parametrize("shape", [(40,), (12, 10), (8, 6, 5), (12, 10, 1)])
def test_one_to_three_dimensions(shape: tuple[int, ...]) -> None:
    maps = MLE().estimate(_series(Gaussian(sigma=0.65 / 200), shape=shape))
    assert maps["T1"].shape == shape
    assert np.sqrt(np.mean((maps["T1"] / _truth(shape)[2] - 1) ** 2)) < 0.03


def test_thick_slices_share_less() -> None:
    """Slices whose B differ: thick ones may, those of 1 mm are smoothed together."""
    truth = _truth((10, 10, 4))
    truth[1] = 1.8 + 0.05 * (-1.0) ** np.arange(4)
    noise = Gaussian(sigma=0.65 / 50)
    images = noise.sample(MODEL.signal(truth), np.random.default_rng(0))
    step = []
    for thickness in (1.0, 12.0):
        affine = np.diag([1.0, 1.0, thickness, 1.0])
        maps = MLE().estimate(WeightedSeries(images=images, model=MODEL, noise=noise, affine=affine))
        step.append(abs(np.diff(maps["B"], axis=2)).mean())
    assert step[0] < 0.04 and step[1] > 1.5 * step[0]


def test_map_of_sigma_weighs() -> None:
    """Where the data are said to be bad, B comes from elsewhere."""
    truth = _truth()
    images = np.asarray(MODEL.signal(truth))
    images[:, :, 10:] = MODEL.signal(np.stack([truth[0], 0 * truth[1] + 1.5, truth[2]]))[:, :, 10:]
    sigma = np.full(SHAPE, 0.02)
    sigma[:, 10:] = 2.0
    sigma[0, 0] = np.nan
    maps = MLE().estimate(WeightedSeries(images=images, model=MODEL, noise=Gaussian(sigma=sigma)))
    assert maps["B"][:, 12:].min() > 1.7
    assert maps.status[0, 0] == Status.NOT_FINITE


def test_integers_threads_and_the_order_of_images() -> None:
    series = _series(Gaussian(sigma=0.65 / 50))
    images = np.round(np.clip(np.asarray(series.images) * 2000, 0, None)).astype(np.uint16)
    noise = Gaussian(sigma=2000 * 0.65 / 50)
    maps = MLE(threads=1).estimate(WeightedSeries(images=images, model=MODEL, noise=noise))
    two = MLE(threads=2).estimate(WeightedSeries(images=images, model=MODEL, noise=noise))
    assert np.array_equal(maps.kappa, two.kappa)
    order = np.random.default_rng(0).permutation(MODEL.n_images)
    other = MLE().estimate(WeightedSeries(images=images[order], model=MODEL.subset(order), noise=noise))
    assert other["T1"] == pytest.approx(maps["T1"], rel=1e-3)


def test_signed_data_repeated_times_and_tr() -> None:
    signed = InversionRecovery(tau=(50, 100, 200, 500, 2000, 4000, 500), signed=True)
    maps = MLE().estimate(_series(Gaussian(sigma=0.65 / 200), model=signed))
    assert np.median(abs(maps["T1"] / _truth()[2] - 1)) < 0.01
    tr = InversionRecovery(tau=(50, 200, 500, 900, 1500), tr=2000)
    maps = MLE().estimate(_series(Gaussian(sigma=0.65 / 200), model=tr))
    assert np.median(abs(maps["T1"] / _truth()[2] - 1)) < 0.02


def test_progress_ends() -> None:
    calls: list[tuple[int, int]] = []
    MLE().estimate(_series(Gaussian(sigma=0.05)), progress=lambda *a: calls.append(a))
    assert calls[-1][0] == calls[-1][1]


# ---- T2, and Rician noise


def _t2(noise: Noise, n: int = 3000) -> tuple[WeightedSeries, NDArray[np.float64]]:
    model = T2Decay(tau=(10, 20, 40, 80, 160, 320))
    kappa = np.stack([np.ones(n), np.full(n, 60.0)])
    return WeightedSeries(
        images=noise.sample(model.signal(kappa), np.random.default_rng(0)), model=model, noise=noise
    ), kappa


def test_T2_with_gaussian_noise_is_least_squares() -> None:
    series, _ = _t2(Gaussian(sigma=0.05), 200)
    maps = MLE().estimate(series)
    assert np.array_equal(maps.kappa, NLLS().estimate(series).kappa, equal_nan=True)
    assert maps.estimator == "mle" and "lambda_B" not in maps.settings  # there is no field to smooth


def test_rician_likelihood_takes_the_bias_of_the_noise_floor_away() -> None:
    series, kappa = _t2(Rician(sigma=0.1))
    rice, gauss = MLE().estimate(series), NLLS().estimate(series.with_noise(Gaussian(sigma=0.1)))
    assert np.median(gauss["T2"] / kappa[1]) > 1.08
    assert np.median(rice["T2"] / kappa[1]) == pytest.approx(1, abs=0.02)
    assert rice["T2"].std() / np.median(rice.sd["T2"]) < 1.3


def test_rician_with_B_of_its_own_is_at_a_stationary_point() -> None:
    from rimap.likelihood import gradient

    noise = Rician(sigma=0.65 / 30)
    series = _series(noise, shape=(8, 8))
    maps = MLE(lambda_B=0.0).estimate(series)
    ok = maps.status == Status.OK
    slope = np.asarray(gradient(MODEL, noise, series.images, maps.kappa)) * maps.sd_kappa
    assert ok.mean() > 0.5
    assert np.quantile(abs(slope[:, ok]), 0.9) < 0.1  # in units of standard deviations


def test_rician_noise_and_a_smooth_B() -> None:
    maps = MLE().estimate(_series(Rician(sigma=0.65 / 30), shape=(48, 48)))
    assert np.median(maps["T1"] / _truth((48, 48))[2]) == pytest.approx(1, abs=0.01)
    assert abs(maps["B"] - _truth((48, 48))[1]).max() < 0.06


# ---- σ


def test_sigma_is_estimated_where_it_is_not_given() -> None:
    series = _series(Gaussian(sigma=0.65 / 20))
    maps = MLE().estimate(WeightedSeries(images=series.images, model=MODEL))
    assert maps.noise is not None and maps.noise.sigma == pytest.approx(0.65 / 20, rel=0.05)
    assert maps.sigma_source == "residuals"
    few = InversionRecovery(tau=(50, 500, 2000), signed=True)
    with pytest.raises(InputError, match="--sigma"):
        MLE().estimate(WeightedSeries(images=few.signal(_truth()), model=few))


def test_options_are_checked() -> None:
    for bad in (-1.0, math.nan):
        with pytest.raises(InputError, match="lambda_B"):
            MLE(lambda_B=bad)
    with pytest.raises(InputError, match="threads"):
        MLE(threads=0)


def _draws(noise: Noise, shape: tuple[int, int], n: int) -> list[ParameterMaps]:
    return [MLE().estimate(_series(noise, seed, shape)) for seed in range(n)]


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.65 / 30), Rician(sigma=0.65 / 30)], ids=["gaussian", "rician"])
def test_standard_deviations_are_those_of_repeated_scans(noise: Noise) -> None:
    draws = _draws(noise, (40, 40), 16)
    for name, tolerance in (("T1", 0.15), ("A", 0.1), ("B", 0.4)):
        found = np.stack([d[name] for d in draws]).std(0, ddof=1)
        said = np.mean([d.sd[name] for d in draws], axis=0)
        inner = (slice(8, -8), slice(8, -8))
        assert np.mean(said[inner]) / np.mean(found[inner]) == pytest.approx(1, abs=tolerance)


# ---- the optimum, and the brain


def _filled(labels: NDArray[Any], n: int) -> NDArray[Any]:
    """Return a slice of n × n that is brain throughout, by repetition."""
    return np.tile(labels, (n // labels.shape[0] + 1, n // labels.shape[1] + 1))[:n, :n]


def test_objective_against_a_slow_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 × 256 × 31 at SNR 30: no more than 1 above L-BFGS from two other starts, run until nothing moves.

    The slow solver searches every T anew at every step, and knows no second derivative.
    """
    labels = _filled(digital_brain((64, 72, 48))[16:48, 18:54, 24], 256)
    labels[labels == 0] = 3
    rng = np.random.default_rng(0)
    truth = simulate_subject(labels, MODEL, rng)
    noise = Gaussian(sigma=0.65 / 30)
    series = simulate_series(truth, MODEL, noise, rng, mask=np.ones(labels.shape, bool))
    kept = []
    monkeypatch.setattr(mle, "minimise", lambda *a, **k: kept.append(minimise(*a, **k)) or kept[0])
    maps = MLE(lambda_B=DEFAULT_LAMBDA_B, threads=2).estimate(series)
    box = Box.around(np.ones(labels.shape, bool), (1.0, 1.0))
    scale = 1 / np.sqrt(150.0 + DEFAULT_LAMBDA_B * box.mu**2)

    with ThreadPoolExecutor(2) as pool:
        data = Voxels.of(series.images, np.arange(labels.size), noise.sigma, ShapeTable.of(MODEL), noise, pool)

        def objective(z: NDArray[np.float64], near: Fit | None = None) -> tuple[float, NDArray[np.float64]]:
            B = fft.idctn(z.reshape(box.shape) * scale, norm="ortho")
            fit, LB = data.fit(np.clip(B.reshape(-1)[box.data], 0, 3), near, True), box.laplacian(B)
            G = box.scatter(fit.g) + DEFAULT_LAMBDA_B * box.laplacian(LB)
            return fit.total + DEFAULT_LAMBDA_B / 2 * (LB**2).sum(), (fft.dctn(G, norm="ortho") * scale).reshape(-1)

        def coordinates(B: NDArray[np.float64]) -> NDArray[np.float64]:
            return (fft.dctn(B, norm="ortho") / scale).reshape(-1)

        start = np.pad(truth[1], [(i.start, n - i.stop) for i, n in zip(box.inner, box.shape)], mode="edge")
        slow = [
            lbfgs(objective, coordinates(B), jac=True, method="L-BFGS-B", options={"maxiter": 25, "ftol": 5e-8}).fun
            for B in (np.full(box.shape, 1.7), start)
        ]
        found = objective(coordinates(kept[0][0]), kept[0][1])[0]  # T at the best of the search and of the maps
    assert found < min(slow) + 1
    # Eq. 2 as it is written: χ²/2 of the maps, and the penalty
    half = ((series.images.astype(float) - MODEL.signal(maps.kappa)) ** 2).sum() / noise.sigma**2 / 2
    penalty = DEFAULT_LAMBDA_B / 2 * (box.laplacian(kept[0][0]) ** 2).sum()
    assert half + penalty == pytest.approx(found, abs=0.1)


@pytest.fixture(scope="module")
def brain(shared_data: Path) -> NDArray[Any]:
    labels = load_anatomy(shared_data / "anatomies" / "train" / "brainweb05_brain.nii.gz")
    slab = labels[:, :, labels.shape[2] // 2]
    inside = np.argwhere(brain_mask(slab))
    (a, b), (c, d) = inside.min(0), inside.max(0) + 1
    return np.asarray(slab[a:c, b:d])


def _rmse(labels: NDArray[Any], b_map: Any, snr: float, weight: float, seed: int = 3) -> float:
    rng = np.random.default_rng(seed)
    truth = simulate_subject(labels, MODEL, rng, field_map=b_map)
    series = simulate_series(truth, MODEL, Gaussian(sigma=0.65 / snr), rng, mask=brain_mask(labels))
    T1 = MLE(lambda_B=weight).estimate(series)["T1"]
    return float(np.sqrt(np.mean((T1 - truth[2])[brain_mask(labels)] ** 2)))


def test_brain_slice_with_a_smooth_B(brain: NDArray[Any]) -> None:
    assert _rmse(brain, "smooth", 10, DEFAULT_LAMBDA_B) < _rmse(brain, "smooth", 10, math.inf)


@pytest.mark.parametrize("snr", [10, 30])
def test_brain_slice_with_a_constant_B(brain: NDArray[Any], snr: float) -> None:
    assert _rmse(brain, "constant", snr, DEFAULT_LAMBDA_B) < 1.15 * _rmse(brain, "constant", snr, math.inf)


def test_the_quick_B_of_the_RIM_is_close_to_that_of_the_end(brain: NDArray[Any]) -> None:
    rng = np.random.default_rng(0)
    truth = simulate_subject(brain, MODEL, rng)
    series = simulate_series(truth, MODEL, Gaussian(sigma=0.65 / 30), rng, mask=brain_mask(brain))
    start, end = smooth_field(series, threads=1).field, MLE().estimate(series)["B"]
    assert np.sqrt(np.mean((start - end)[brain_mask(brain)] ** 2)) < 0.005
