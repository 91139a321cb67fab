"""Voxels that contradict the model do not move the field for others; fields beyond what is physical are reported."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.trust_scenes import TI6, head, inversion
from numpy.typing import NDArray

from rimap import MLE, PROTOCOLS, RIM, Gaussian, InversionRecovery, Rician, WeightedSeries
from rimap.estimators import Estimator
from rimap.estimators.mle.field_smoothness import LADDER, of_least_cost
from rimap.estimators.mle.field_votes import dispersion
from rimap.estimators.possible_values import possible
from rimap.likelihood import Noise

TAU = (50, 150, 400, 1100, 2500, 4500)
N = 32


def _series(noise: Noise, *, signed: bool = False) -> tuple[WeightedSeries, NDArray[np.float64]]:
    y, x = np.meshgrid(np.linspace(-1, 1, N), np.linspace(-1, 1, N), indexing="ij")
    model = InversionRecovery(tau=TAU, signed=signed)
    T1 = 900 + 300 * (x > 0) + 100 * y
    images = noise.sample(
        model.signal(np.stack([0 * x + 1, 1.92 - 0.04 * (x**2 + y**2), T1])), np.random.default_rng(0)
    )
    return WeightedSeries(images=images.astype(np.float32), model=model, noise=noise), T1


def _wrapped(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    at = np.random.default_rng(1).random((N, N)) < 0.01
    images[-1][at] -= 2.0
    return at


def _wrong_sign(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    at = np.zeros((N, N), bool)
    at[4:8, 20:24] = True
    images[3][at] *= -1
    return at


def _bright_block(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    at = np.zeros((N, N), bool)
    at[12:15, 9:12] = True
    images[4][at] = 4.0
    return at


def _metal(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    y, x = np.indices((N, N))
    at = np.hypot(y - 20, x - 12) < 3.5
    images[:, at] = np.random.default_rng(2).uniform(0, 1.5, (len(TAU), at.sum())).astype(np.float32)
    return at


@pytest.mark.parametrize("weight", [None, 1e6, math.inf])
@pytest.mark.parametrize("fault", [_wrapped, _wrong_sign, _bright_block, _metal])
@pytest.mark.parametrize(("noise", "signed"), [(Gaussian(0.01), False), (Gaussian(0.01), True), (Rician(0.01), False)])
def test_wrong_voxels_do_not_move_others(weight: float | None, fault: object, noise: Noise, signed: bool) -> None:
    if fault is _wrong_sign and not signed:
        pytest.skip("magnitude images have no sign")
    series, _ = _series(noise, signed=signed)
    good = MLE(lambda_B=weight).estimate(series)["T1"]
    images = np.array(series.images)
    at = fault(images)  # type: ignore[operator]
    if not signed:
        images = abs(images)
    spoilt = MLE(lambda_B=weight).estimate(WeightedSeries(images=images, model=series.model, noise=noise))["T1"]
    moved = np.abs(spoilt / good - 1)[~at]
    assert np.quantile(moved, 0.99) < 0.01
    assert (moved > 0.02).mean() < 0.005


def test_a_field_beyond_what_is_physical_is_reported() -> None:
    model = InversionRecovery(tau=TAU)
    rng = np.random.default_rng(0)
    noise = Gaussian(0.005)

    def told(B: float | NDArray[np.float64]) -> str:
        shape = (16, 16)
        kappa = np.stack([np.ones(shape), np.broadcast_to(B, shape), rng.uniform(600, 1400, shape)])
        images = noise.sample(model.signal(kappa), rng)
        return " ".join(MLE().estimate(WeightedSeries(images=images, model=model, noise=noise)).warnings)

    assert "is this an inversion recovery" not in told(1.9)
    assert "in the median voxel" in told(2.4) and "in the median voxel" in told(0.5)
    region = np.full((16, 16), 1.9)
    region[:, 10:] = 2.5
    assert "in this region" in told(region)


def test_what_was_chosen_is_said() -> None:
    series, _ = _series(Gaussian(0.02))
    said = [text for text in MLE().estimate(series).warnings if "AIC" in text]
    assert len(said) == 1
    assert (
        "was chosen from the data by AIC: --lambda-b " in said[0] or "AIC found no evidence that it varies" in said[0]
    )
    assert not any("AIC" in text for text in MLE(lambda_B=1e5).estimate(series).warnings)


def test_negative_magnitudes_that_noise_could_hide_have_no_say() -> None:
    """At its zero crossing a signal of either sign is within the noise; a whole region of them would move the field."""
    scene = head(inversion(TI6), size=48, planes=1)
    images = scene.noisy(30)
    good = MLE().estimate(WeightedSeries(images=images, model=scene.model))
    x, y = np.indices(scene.T.shape[:2])
    at = (np.hypot(x - 30, y - 30) < 5)[..., None]  # white matter, whose signal is nearly zero at 500 ms
    images[2][at] *= -1
    spoilt = MLE().estimate(WeightedSeries(images=images, model=scene.model))
    moved = abs(spoilt["T1"] / good["T1"] - 1)[scene.tissue & ~at]
    assert np.quantile(moved, 0.99) < 0.01


def test_negative_values_all_over_magnitude_images_are_no_exception() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, (4, 50, 50))
    assert possible(values, magnitude=True).all() and possible(values, magnitude=False).all()
    values[:, 5:] = abs(values[:, 5:])
    assert (possible(values, magnitude=True) == (values >= 0).all(0)).all()
    assert possible(values, magnitude=False).all()


def test_votes_that_differ_by_noise_or_by_a_field_that_bends_are_not_dispersed() -> None:
    rng = np.random.default_rng(2)
    white, bend = rng.standard_normal((40, 50)), np.linspace(-3, 3, 50)
    w = rng.uniform(1.0, 3.0, white.shape)

    def of(votes: NDArray[np.float64], w: NDArray[np.float64] = w, excess: float = 1.0) -> float:
        return dispersion(votes * np.sqrt(abs(w)), w, excess)

    assert of(white) == pytest.approx(1.0, abs=0.05)
    assert of(0.5 * white + bend) == 1.0
    assert of(1.4 * white, excess=1.4**2) == pytest.approx(1.0, abs=0.05)
    air = rng.random(white.shape) < 0.2
    assert of(np.where(air, 100.0, 1.4 * white), np.where(air, 1e-3, w)) == pytest.approx(1.4**2, rel=0.1)
    assert of(1.4 * white, np.where(air, -1.0, w)) == pytest.approx(1.4**2, rel=0.1)
    assert of(white, 0 * w) == of(9.0 * white[:5, :5], w[:5, :5]) == 1.0


@pytest.mark.parametrize("estimator", [MLE(threads=1), RIM(threads=1)], ids=["mle", "rim"])
@pytest.mark.parametrize(
    ("tau", "snr"),
    [(PROTOCOLS["IV_T1"].tau, 30), ((80.0, 240.0, 500.0, 1000.0, 2000.0), 60)],
    ids=["magnitudes near zero", "partial volume"],
)
def test_what_noise_and_mixtures_of_tissues_ask_for_is_no_field_that_bends(
    estimator: Estimator, tau: tuple[float, ...], snr: float
) -> None:
    scene = head(inversion(tau), size=128, planes=1)
    maps = estimator.estimate(WeightedSeries(scene.noisy(snr, rician=True), scene.model))
    B = np.broadcast_to(1.9 * (1 + 0.02 * np.linspace(-1, 1, 128))[:, None, None], scene.T.shape)
    assert np.sqrt(np.mean(np.square(maps["B"] - B)[scene.tissue])) < 0.012


@pytest.mark.parametrize("costs", [(10, 8.9, 8.0), (10, 8.95, 7.951), (10, 9, 8), (12, 8, 8.5), (9, 8, 12)])
def test_lambda_B_is_between_the_best_step_and_the_next(costs: tuple[float, ...]) -> None:
    """A parabola through costs that barely bend has its minimum far away, where nothing was computed."""
    ladder = dict(zip(LADDER, costs))
    for best in LADDER[:3]:
        following = LADDER[LADDER.index(best) + 1]
        assert following <= of_least_cost(ladder, best) <= best
