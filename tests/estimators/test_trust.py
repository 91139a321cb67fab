"""Statuses that the images decide: the quick part of `python -m benchmarks.bench_trust`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.bench_trust import FAULTS, gains
from benchmarks.trust_scenes import TE8, TI4, TI6, TI9, correlated, head, inversion, like_ge

import rimap
from rimap.estimators.checks.background import background
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.missing_values import screened
from rimap.series import Status

MODELS = {"TI9": inversion(TI9), "TI4": inversion(TI4), "T2": rimap.T2Decay(tau=TE8), "signed": inversion(signed=True)}


@pytest.mark.parametrize("snr", [4, 15, 40])
@pytest.mark.parametrize("name", MODELS)
def test_air_is_background_tissue_is_kept_and_sigma_is_right(name: str, snr: int) -> None:
    scene = head(MODELS[name], size=72)
    images = scene.noisy(snr, rician=name != "signed")
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, MODELS[name]))
    assert (maps.status[scene.air] != rimap.Status.OK).mean() >= 0.99
    assert (maps.status[scene.tissue] != rimap.Status.NO_SIGNAL).mean() >= 0.999
    assert (maps.status[~scene.air] == rimap.Status.OFF_MODEL).mean() <= 0.001
    assert maps.noise.sigma == pytest.approx(0.65 / snr, rel=0.1)
    assert np.isnan(maps.kappa[:, maps.status == rimap.Status.NO_SIGNAL]).all()


@pytest.mark.parametrize("snr", [4, 8, 15, 40])
@pytest.mark.parametrize("name", ["TI4", "TI6", "TI9", "T2"])
def test_sigma_without_air_is_right(name: str, snr: int) -> None:
    model = MODELS[name] if name in MODELS else inversion(TI6)
    scene = head(model, size=72, planes=1)
    images = scene.noisy(snr)[:, ~scene.air]
    n = int(np.sqrt(images.shape[1]))
    images = images[:, : n * n].reshape(-1, n, n)
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model))
    assert maps.sigma_source == "residuals"
    assert maps.noise.sigma == pytest.approx(0.65 / snr, rel=0.1)


@pytest.mark.parametrize("estimator", [rimap.MLE(threads=1), rimap.RIM(threads=1)], ids=lambda e: e.name)
@pytest.mark.parametrize("noise", [None, rimap.Rician()], ids=["gaussian", "rician"])
def test_air_is_background_for_every_estimator_and_noise(estimator: Any, noise: Any) -> None:
    scene = head(MODELS["TI4"], size=48, planes=1)
    maps = estimator.estimate(rimap.WeightedSeries(scene.noisy(15), MODELS["TI4"], noise=noise))
    assert (maps.status[scene.air] != rimap.Status.OK).mean() >= 0.98
    assert (maps.status[scene.tissue] != rimap.Status.NO_SIGNAL).all()


@pytest.mark.parametrize("noise", ["rician", "after the modulus"])
def test_weak_tissue_is_no_background(noise: str) -> None:
    """SNR 3, where single voxels of an inversion recovery have hardly more power than air."""
    model = rimap.PROTOCOLS["IV_T1"]
    T = np.where(np.arange(64) < 32, 800.0, 1300.0) + np.zeros((64, 1))
    kappa = np.stack([np.where(T < 1000, 0.65, 0.85), np.full(T.shape, 1.9), T])
    rng, sigma = np.random.default_rng(1), 0.65 / 3
    clean = model.signal(kappa)
    images = clean + sigma * rng.standard_normal(clean.shape)
    if noise == "rician":
        images = np.hypot(images, sigma * rng.standard_normal(clean.shape))
    series = rimap.WeightedSeries(images.astype(np.float32), model, rimap.Gaussian(sigma=sigma))
    status = rimap.NLLS(threads=1).estimate(series).status
    assert (status == rimap.Status.NO_SIGNAL).mean() < 0.001


@pytest.mark.parametrize("how", ["zeroed", "scaled down", "scaled up", "whole numbers"])
def test_air_of_any_scale(how: str) -> None:
    scene = head(MODELS["TI9"])
    images = like_ge(scene.noisy(15), scene.air, how)
    unit = 2 / np.median(scene.noisy(15)[:, scene.air]) if how == "whole numbers" else 1.0
    found = background(Census.of(images), 0.65 / 15 * unit, signed=False, usable=np.ones(scene.air.shape, bool))
    assert (found | (images == 0).all(0))[scene.air].mean() >= 0.99 and found[scene.tissue].mean() <= 0.001


@pytest.mark.parametrize("how", ["hann", "factor 1.5", "factor 2"])
def test_air_of_correlated_noise_is_background(how: str) -> None:
    scene = head(MODELS["TI9"], size=72)
    images = correlated(scene, how, 0.65 / 15)
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, scene.model))
    assert (maps.status[scene.air] != rimap.Status.OK).mean() >= 0.99
    assert (maps.status[scene.tissue] != rimap.Status.NO_SIGNAL).mean() >= 0.999


def test_a_dark_hole_of_one_voxel_is_background() -> None:
    scene = head(MODELS["TI9"], size=48, planes=1)
    clean, hole = scene.images.copy(), np.zeros(scene.air.shape, bool)
    hole[14:34:5, 14:34:5] = True
    clean[:, hole] = 0
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(scene.noisy(15, images=clean), scene.model))
    assert (maps.status[hole] == rimap.Status.NO_SIGNAL).mean() >= 0.9
    assert not (maps.status[scene.tissue & ~hole] == rimap.Status.NO_SIGNAL).any()


@pytest.mark.parametrize("whole", [False, True], ids=["floats", "whole numbers"])
@pytest.mark.parametrize("images_of", ["one", "all", "scaled"])
@pytest.mark.parametrize("value", [50, 100])
@pytest.mark.parametrize("name", ["TI6", "T2"])
def test_areas_of_one_value_are_no_measurement(name: str, value: float, images_of: str, whole: bool) -> None:
    model = inversion(TI6) if name == "TI6" else MODELS["T2"]
    scene = head(model, size=48)
    good = scene.noisy(30) * 300
    good = np.round(good) if whole else good
    for place in ((slice(20, 23),), (20,), (slice(0, 18), slice(0, 18)), (slice(None), slice(None), 1)):
        images, where = good.copy(), np.zeros(scene.air.shape, bool)
        where[place] = True
        for image in images[[3]] if images_of == "one" else images:
            image[where] = value
        images[3][where] = value
        if images_of == "scaled":
            images *= np.linspace(0.7, 1.4, len(images)).reshape(-1, 1, 1, 1)
        screen = screened(rimap.WeightedSeries(images.astype(np.float32), model))
        gone = ~np.isfinite(screen.series.images).all(0)
        assert gone[where].all() and gone[~where].mean() <= 0.001
        named = ("image 4 (",) if images_of == "one" else ("images 1 to ", "images 2 to ")
        assert any(w.startswith(named) and "filled with one value" in w for w in screen.missing.advice(model))


def test_a_drawn_object_has_no_filled_areas() -> None:
    model = inversion(TI6)
    T = np.where(np.arange(40) < 20, 800.0, 1300.0) + np.zeros((40, 1))
    images = model.signal(np.stack([np.ones(T.shape), np.full(T.shape, 1.9), T])).astype(np.float32)
    assert not screened(rimap.WeightedSeries(images, model)).missing.filled.any()


@pytest.mark.parametrize("name", FAULTS)
def test_values_that_were_not_measured_are_marked(name: str) -> None:
    scene = head(inversion(TI6), size=72, planes=1)
    images, where = FAULTS[name](scene.noisy(30) * 1000, scene)
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, scene.model))
    where = where & scene.tissue
    assert (maps.status[where] != rimap.Status.OK).mean() >= 0.9
    assert (maps.status[scene.tissue & ~where] == rimap.Status.OK).mean() >= 0.999


def test_zeros_of_a_negative_image_are_not_clipped_values() -> None:
    scene = head(inversion(TI6, signed=True), size=56, planes=1)
    images = scene.noisy(30, rician=False) * 1000
    where = np.zeros(scene.T.shape, bool)
    where[20:23] = True
    images[0][where] = 0
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, scene.model))
    assert not any("clipped" in w for w in maps.warnings)
    assert not np.isfinite(maps["T1"][where & scene.tissue]).any()
    assert (maps.status[scene.tissue & ~where] == rimap.Status.OK).mean() >= 0.999


@pytest.mark.parametrize("name", ["ir", "t2"])
def test_an_artefact_brighter_than_the_object_is_marked_alone(name: str) -> None:
    """It is no signal that tells what is dark, what is noise or what is usual."""
    scene = head(inversion(TI6) if name == "ir" else rimap.T2Decay(tau=TE8), size=56, planes=1)
    images = scene.noisy(30)
    where = np.zeros(scene.T.shape, bool)
    where[20:23] = True
    images[3][where] = 10
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, scene.model))
    assert (maps.status[where & scene.tissue] != rimap.Status.OK).all()
    assert (maps.status[scene.tissue & ~where] == rimap.Status.OK).mean() >= 0.999


@pytest.mark.parametrize("snr", [8, 30])
def test_a_list_of_voxels_is_judged_without_neighbours(snr: int) -> None:
    scene = head(inversion(TI6), size=72, planes=1)
    rng = np.random.default_rng(2)
    order = rng.permutation(np.flatnonzero(scene.air | scene.tissue))
    air, tissue, T = (a.reshape(-1)[order] for a in (scene.air, scene.tissue, scene.T))
    images = scene.noisy(snr).reshape(6, -1)[:, order]
    spoilt = tissue & (rng.random(len(order)) < 0.02)
    images[2, spoilt] *= 4
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, scene.model))
    assert (maps.status[air] != rimap.Status.OK).mean() >= 0.98
    assert (maps.status[tissue] != rimap.Status.NO_SIGNAL).mean() >= 0.999
    if snr == 30:
        right = abs(maps["T1"] / T - 1) < 0.15
        assert ((maps.status != rimap.Status.OK) | right)[spoilt].mean() > 0.9  # some are near their null there
    alone = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images[:, tissue], scene.model))
    assert not (alone.status == rimap.Status.NO_SIGNAL).any()


def test_what_was_not_measured_is_found_in_a_list_of_voxels() -> None:
    scene = head(inversion(TI6), size=72, planes=1)
    images = scene.noisy(30).reshape(6, -1)[:, scene.tissue.reshape(-1)]
    images[4, ::50] = 0
    missing = screened(rimap.WeightedSeries(images, scene.model)).missing
    assert missing.zero[4] == len(images[4, ::50])


def test_zeros_near_a_null_are_measurements() -> None:
    scene = head(inversion(TI6), size=72, planes=1)
    whole = np.round(scene.noisy(40) * 100).astype(np.float32)  # zero at the null of some tissue
    assert ((whole == 0) & scene.tissue).any()
    missing = screened(rimap.WeightedSeries(whole, scene.model)).missing
    assert missing.zero.sum() + missing.clipped.sum() + missing.negative.sum() <= 2


def test_gains_that_differ_are_told_and_equal_ones_are_not() -> None:
    assert all(figure.holds for figure in gains((rimap.NLLS(threads=1),)))


def test_repeats_with_other_gains_are_told() -> None:
    model = inversion((50.0, 50.0, 400.0, 400.0, 1200.0, 1200.0, 4000.0, 4000.0))
    scene = head(model, size=48, planes=1)
    images = scene.noisy(40)[:, 8:40, 8:40]  # no air to speak of
    images[1::2] *= 1.1
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model))
    assert any("repeated images show a ratio of 1.1" in w for w in maps.warnings)


def test_as_many_images_as_parameters_is_said() -> None:
    model = inversion((50.0, 800.0, 4000.0))
    scene = head(model, size=48, planes=1)
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(scene.noisy(40), model))
    assert any(w.startswith("There are as many images as parameters (3)") for w in maps.warnings)


@pytest.mark.parametrize(
    "estimator", [rimap.NLLS(threads=1), rimap.MLE(threads=1), rimap.RIM(threads=1)], ids=lambda e: e.name
)
def test_poorly_determined_is_said_with_and_without_standard_deviations(estimator: Any) -> None:
    model = inversion((20.0, 40.0, 60.0, 80.0))
    kappa = np.ones((3, 32, 32)) * np.reshape([1.0, 1.9, 3000.0], (3, 1, 1))
    images = model.signal(kappa) + np.random.default_rng(0).normal(0, 0.15, (4, 32, 32))
    maps = estimator.estimate(rimap.WeightedSeries(abs(images), model, noise=rimap.Gaussian(sigma=0.15)))
    assert any("is poorly determined" in w for w in maps.warnings)


@pytest.mark.parametrize("name", ["t2", "megre", "vfa"])
@pytest.mark.parametrize("estimator", [rimap.NLLS(threads=1), rimap.MLE(threads=1)], ids=lambda e: e.name)
def test_poorly_determined_is_said_for_every_sequence(estimator: Any, name: str) -> None:
    model, sigma = {
        "t2": (rimap.T2Decay(tau=(5.0, 10.0, 15.0, 20.0)), 0.05),
        "megre": (rimap.GradientEcho(te=(1.0, 2.0, 3.0, 4.0)), 0.05),
        "vfa": (rimap.VariableFlipAngle(flip_angle=(3.0, 4.0, 5.0), tr=15.0), 0.002),
    }[name]
    values = {"T2": 300.0, "T2star": 60.0, "T1": 1200.0, "A": 1.0, "B1": 1.0}
    kappa = np.ones((len(model.parameters), 32, 32)) * np.reshape(
        [values[p.name] for p in model.parameters], (-1, 1, 1)
    )
    images = abs(model.signal(kappa) + np.random.default_rng(0).normal(0, sigma, (model.n_images, 32, 32)))
    maps = estimator.estimate(rimap.WeightedSeries(images, model))
    assert any("is poorly determined" in w for w in maps.warnings)


def test_everywhere_at_a_bound_is_poorly_determined() -> None:
    model = rimap.T2Decay(tau=(5.0, 10.0, 15.0, 20.0))
    images = np.random.default_rng(0).normal(1, 0.01, (4, 32, 32))
    images += np.array([0.0, 0.02, 0.04, 0.06])[:, None, None]  # no decay at all
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model))
    assert any("of the voxels are at a bound of its range" in w for w in maps.warnings)


def test_a_signal_in_one_image_is_not_air() -> None:
    """A voxel that decays within the first echo has the power of noise over sixty images."""
    rng = np.random.default_rng(3)
    model, sigma = rimap.GradientEcho(te=[2.0, *np.linspace(12.0, 80.0, 59)]), 20.0
    A, T = np.zeros((64, 64)), np.full((64, 64), 40.0)
    A[8:56, 8:56] = 1000.0
    A[10:54:4, 10:54:4], T[10:54:4, 10:54:4] = 6 * sigma * np.exp(2 / 1.5), 1.5
    real, imaginary = sigma * rng.standard_normal((2, model.n_images, *A.shape))
    images = np.hypot(model.signal(np.stack([A, T])) + real, imaginary).astype(np.float32)
    noise = rimap.Rician(sigma=sigma)
    status = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model, noise)).status
    clear = (T < 2) & (images[0] > 5.8 * sigma)
    assert clear.sum() > 50 and not (status[clear] == Status.NO_SIGNAL).any()
    assert (status[A == 0] == Status.NO_SIGNAL).mean() > 0.98
