"""By how much the noise floor biases T to first order, and from where on it is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

import rimap
from rimap import Gaussian, Rician, SignalModel
from rimap.advice import percent
from rimap.estimators.checks import noise_floor as module
from rimap.estimators.checks.noise_floor import excess, noise_floor_warnings
from rimap.series import ParameterMaps, Status

Floats = NDArray[np.float64]
IR = rimap.InversionRecovery(tau=(50, 200, 500, 1000, 2000, 4000), tr=15000)
T2 = rimap.T2Decay(tau=12.0 * np.arange(1, 9))
VFA = rimap.VariableFlipAngle(flip_angle=(3, 8, 15, 25), tr=15.0)
KAPPA = {"ir": (100.0, 1.95, 850.0), "t2": (100.0, 60.0), "vfa": (2000.0, 0.9, 900.0)}
SIGMA = 12.0


def scan(
    model: SignalModel, sigma: Any = SIGMA, shape: tuple[int, ...] = (20, 20), **more: Any
) -> tuple[Any, ParameterMaps]:
    """Return a series and maps whose voxels are alike."""
    kappa = np.ones((len(model.parameters), *shape)) * np.reshape(KAPPA[model.name], (-1,) + (1,) * len(shape))
    options: dict[str, Any] = {"noise": Gaussian(sigma=sigma), "estimator": "nlls", "status": np.zeros(shape, np.uint8)}
    maps = ParameterMaps(kappa=kappa, model=model, **(options | more))
    return rimap.WeightedSeries(abs(np.asarray(model.signal(kappa))) + 1, model), maps


def mean_excess(m: Floats) -> Floats:
    """Return the mean of a Rician magnitude less its signal, σ = 1."""
    laguerre = special.hyp1f1(-0.5, 1, -(np.minimum(m, 30) ** 2) / 2)
    return np.where(m < 10, np.sqrt(np.pi / 2) * laguerre - m, 0.5 / np.maximum(m, 1))


def bias(model: SignalModel, sigma: float = SIGMA) -> float:
    """Return the relative error of T to first order: the solution of a least-squares program."""
    kappa = np.array(KAPPA[model.name])[:, None]
    free = [q for q, p in enumerate(model.parameters) if not p.given]
    J, f = np.asarray(model.partials(kappa))[:, free, 0], np.asarray(model.signal(kappa))[:, 0]
    step, *_ = np.linalg.lstsq(J / np.linalg.norm(J, axis=0), sigma * mean_excess(abs(f) / sigma), rcond=None)
    step /= np.linalg.norm(J, axis=0)
    row = free.index(model.index(model.time.name))
    return float(abs(step[row] / kappa[free[row], 0]))


@pytest.mark.parametrize("model", [IR, T2, VFA], ids=lambda m: m.name)
@pytest.mark.parametrize("sigma", [SIGMA, 4.0])
def test_it_is_said_where_t_is_off_by_more_than_the_limit(model: SignalModel, sigma: float) -> None:
    expected = bias(model, sigma)
    for of_sigma in (sigma, np.full((20, 20), sigma)):
        series, maps = scan(model, of_sigma)
        assert noise_floor_warnings(series, maps, 1.003 * expected) == ()
        (text,) = noise_floor_warnings(series, maps, 0.997 * expected)
        assert f"{model.time.name} is off by about {percent(expected)} % in the median voxel" in text
        f = abs(np.asarray(model.signal(np.array(KAPPA[model.name])[:, None])))
        assert f"{(f < 3 * sigma).sum()} of {model.n_images} images are below 3 σ" in text
        assert f"at an SNR of {KAPPA[model.name][0] / sigma:.2g} (σ = {sigma:.3g})" in text


def relative(series: Any, maps: ParameterMaps) -> float:
    """Return by which part T of the median voxel is off, as the check finds it."""
    at = np.arange(maps.status.size)
    return float(np.median(module._seen(series, maps, np.full(at.size, SIGMA), at)[3]))


def varied(model: SignalModel, **more: Any) -> tuple[Any, ParameterMaps]:
    """Return `scan` with a time that differs between the voxels."""
    series, maps = scan(model, **more)
    maps.kappa[-1] *= np.random.default_rng(0).uniform(0.6, 1.6, maps.kappa[-1].shape)
    return series, maps


def test_what_is_known_absorbs_nothing_of_the_floor() -> None:
    """Whether it is given with the series or fixed by an option: T as of a model that has only A and T."""
    series, maps = varied(IR)
    kappa = maps.kappa.reshape(3, -1)
    J, f = np.asarray(IR.partials(kappa))[:, [0, 2]], np.asarray(IR.signal(kappa))
    expected = []
    for v in range(kappa.shape[1]):
        floor = SIGMA * mean_excess(abs(f[:, v]) / SIGMA)
        step, *_ = np.linalg.lstsq(J[..., v], floor, rcond=None)
        expected.append(abs(step[1] / kappa[2, v]))
    assert relative(replace(series, given={"B": 1.95}), maps) == pytest.approx(np.median(expected), rel=1e-3)
    assert relative(series, maps) > 1.5 * np.median(expected)


@pytest.mark.parametrize("settings", [{"lambda_B": 500.0}, {}])
def test_a_smooth_field_absorbs_of_the_floor_what_all_voxels_share(settings: dict[str, Any]) -> None:
    """T to first order of one least-squares program for all voxels, with one change of B."""
    series, maps = varied(IR, estimator="mle", settings=settings, shape=(6, 6))
    kappa = maps.kappa.reshape(3, -1)
    J, f, V = np.asarray(IR.partials(kappa)), np.asarray(IR.signal(kappa)), kappa.shape[1]
    whole = np.zeros((len(f), V, 2 * V + 1))
    for v in range(V):
        whole[:, v, 2 * v : 2 * v + 2], whole[:, v, -1] = J[:, [0, 2], v], J[:, 1, v]
    size = np.linalg.norm(whole, axis=(0, 1))
    floor = SIGMA * mean_excess(abs(f) / SIGMA)
    step, *_ = np.linalg.lstsq((whole / size).reshape(-1, 2 * V + 1), floor.reshape(-1), rcond=None)
    T = (step / size)[1:-1:2]
    assert relative(series, maps) == pytest.approx(np.median(abs(T / kappa[2])), rel=1e-3)


def test_a_field_that_is_not_smoothed_is_one_of_each_voxel() -> None:
    free = relative(*varied(IR))
    assert relative(*varied(IR, estimator="mle", settings={"lambda_B": 0.0})) == free
    series, _ = varied(IR)
    alone = rimap.MLE(threads=1, lambda_B=0).estimate(replace(series, images=series.images + 0.5, noise=Gaussian()))
    assert alone.settings["lambda_B"] == 0
    known = rimap.MLE(threads=1, lambda_B=0, fixed={"B": 1.95}).estimate(series)
    assert "lambda_B" not in known.settings


@pytest.mark.parametrize("estimator", [rimap.NLLS, rimap.MLE])
def test_a_fixed_field_is_known_to_the_checks(estimator: Any) -> None:
    rng = np.random.default_rng(0)
    f = np.asarray(IR.signal(np.ones((3, 400)) * np.reshape([100.0, 1.95, 850.0], (3, 1))))
    S = np.hypot(f + rng.normal(0, 20.0, f.shape), rng.normal(0, 20.0, f.shape))
    given, fixed = (
        [w for w in found.warnings if "noise floor" in w]
        for found in (
            estimator(threads=1).estimate(rimap.WeightedSeries(S, IR, given={"B": 1.95})),
            estimator(threads=1, fixed={"B": 1.95}).estimate(rimap.WeightedSeries(S, IR)),
        )
    )
    free = [w for w in rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(S, IR)).warnings if "noise floor" in w]
    assert given == fixed != free and free


def test_the_limit_is_five_per_cent() -> None:
    low, high = (next(s for s in np.linspace(0.1, 20, 2000) if bias(T2, s) > b) for b in (0.048, 0.052))
    assert noise_floor_warnings(*scan(T2, low)) == () and len(noise_floor_warnings(*scan(T2, high))) == 1


def test_what_has_no_noise_floor() -> None:
    (text,) = noise_floor_warnings(*scan(T2))
    assert text.endswith("Use --noise rician --estimator mle.")
    (text,) = noise_floor_warnings(*scan(T2, estimator="mle"))
    assert text.endswith("Use --noise rician.")
    assert len(noise_floor_warnings(*scan(T2, noise=Rician(sigma=SIGMA)))) == 1  # least squares take no notice of it
    assert noise_floor_warnings(*scan(T2, noise=Rician(sigma=SIGMA), estimator="mle")) == ()
    assert noise_floor_warnings(*scan(T2, noise=None)) == () == noise_floor_warnings(*scan(T2, noise=Gaussian()))
    signed = replace(IR, signed=True)
    assert noise_floor_warnings(*scan(signed), 1e-4) == () and len(noise_floor_warnings(*scan(IR), 1e-4)) == 1


def test_many_negative_values_are_those_of_signed_images() -> None:
    for model, said in ((T2, 0), (IR, 1)):
        for many, told in ((20, 1), (21, said)):  # of 400 voxels: a twentieth may have wrapped
            series, maps = scan(model)
            images = series.images.copy()
            images.reshape(len(images), -1)[np.arange(many) % len(images), np.arange(many)] = -1
            assert len(noise_floor_warnings(replace(series, images=images), maps, 1e-4)) == told
    some = np.arange(400) < 30
    series, maps = scan(T2, status=np.where(some, 2, 0).astype(np.uint8).reshape(20, 20))
    images = series.images.copy()
    images[2, some.reshape(20, 20)] = -1  # voxels without a value
    assert len(noise_floor_warnings(replace(series, images=images), maps)) == 1


def told(maps: ParameterMaps, series: Any, limit: float = 0.001) -> float:
    (text,) = noise_floor_warnings(series, maps, limit)
    return float(text.split("off by about ")[1].split(" %")[0])


@pytest.mark.parametrize(("share", "counts"), [(0.39, False), (0.41, True)])
def test_voxels_with_signal_decide(share: float, counts: bool) -> None:
    """Of those with 0.4 of the brightest, and more."""
    series, maps = scan(T2)
    faint = np.arange(400).reshape(20, 20) % 3 > 0  # two thirds
    maps.kappa[0][faint] = share * 100
    bright_one, faint_one = bias(T2), bias(T2, SIGMA / share)
    assert told(maps, series) == pytest.approx(100 * (faint_one if counts else bright_one), rel=0.06)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_the_unit_of_the_images_does_not_matter(unit: float) -> None:
    series, maps = scan(T2)
    faint = np.arange(400).reshape(20, 20) % 3 > 0
    maps.kappa[0][faint] = 30.0
    kappa = maps.kappa * np.array([unit, 1.0])[:, None, None]
    scaled = replace(maps, kappa=kappa, noise=Gaussian(sigma=unit * SIGMA))
    assert told(scaled, replace(series, images=unit * series.images)) == told(maps, series)


def test_one_voxel_is_enough() -> None:
    assert len(noise_floor_warnings(*scan(T2, shape=(1,)))) == 1


def test_only_voxels_with_a_value_and_a_sigma_count() -> None:
    status = np.full((20, 20), int(Status.OK), np.uint8)
    other = np.arange(400).reshape(20, 20) % 3 > 0
    for flag in Status:
        status[other] = int(flag)
        series, maps = scan(T2, status=status)
        maps.kappa[1][other] = 20.0
        counts = flag in (Status.OK, Status.AT_BOUND, Status.OUTSIDE_TRAINING)
        assert (told(maps, series) > 1.1 * 100 * bias(T2)) == counts, flag
    sigma = np.where(other, np.nan, SIGMA)
    series, maps = scan(T2, sigma)
    maps.kappa[1][other] = 20.0
    assert told(maps, series) == pytest.approx(100 * bias(T2), rel=0.06)
    empty = scan(T2, status=np.full((20, 20), int(Status.NO_SIGNAL), np.uint8))
    assert noise_floor_warnings(*empty) == ()


def test_a_few_voxels_show_that_nothing_needs_a_closer_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their quartiles: the median is below the limit by three standard errors, or all voxels are looked at."""
    looked: list[int] = []
    seen = module._seen

    def counted(series: Any, maps: Any, sigma: Any, at: Any) -> Any:
        looked.append(len(at))
        return seen(series, maps, sigma, at)

    monkeypatch.setattr(module, "_seen", counted)
    series, maps = scan(T2, shape=(60, 60))
    T = maps.kappa[1]
    T[...] = np.random.default_rng(0).uniform(50, 70, T.shape)
    _, _, _, off = seen(series, maps, np.full(100, SIGMA), np.arange(0, 3600, 36))
    lower, middle, upper = np.sort(off)[[99 // 4, 99 // 2, 99 * 3 // 4]]
    edge = middle + 3 * (upper - lower) / 10
    noise_floor_warnings(series, maps, 0.98 * edge)
    assert len(looked) == 2 and looked[0] <= 100 < looked[1] <= 500
    looked.clear()
    noise_floor_warnings(series, maps, 1.06 * edge)
    assert len(looked) == 1


def test_the_excess_of_a_magnitude_over_its_signal() -> None:
    m = np.array([0.0, 0.3, 1.0, 2.0, 5.0, 9.9])
    np.testing.assert_allclose(excess(m), mean_excess(m), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(excess(-m), excess(m))
    assert excess(np.array([200.0]))[0] == pytest.approx(0.5 / 200, rel=1e-3)
    assert excess(np.array([1e9]))[0] == pytest.approx(excess(np.array([1e3]))[0]) == pytest.approx(5e-4, rel=1e-3)
