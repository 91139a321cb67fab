"""An area in which many voxels contradict the model is wrong as a whole, and others are as if it were masked out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.trust_scenes import TI9, head, inversion

import rimap
from rimap.estimators.checks.final_checks import flag_wrong_areas
from rimap.estimators.checks.wrong_areas import HALF, with_their_areas
from rimap.estimators.rim.field_grid import FieldGrid, Information, _among_neighbours, _quantiles
from rimap.maps import Status

FOUR = (100.0, 300.0, 900.0, 2700.0)
EVERY = np.ones((20, 20), bool)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_quantiles_of_rows_are_those_of_numpy(share: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=(60, 64))
    rows[rng.random(rows.shape) < np.linspace(0, 0.95, 60)[:, None]] = np.nan
    rows[:, 7] = 1.0
    np.testing.assert_allclose(_quantiles(rows, share), np.nanquantile(rows, share, axis=1), rtol=1e-12)


def test_a_straight_border_of_a_wrong_area_stays_where_it_is() -> None:
    off = np.zeros((20, 20), bool)
    off[:, :8] = True
    assert (with_their_areas(off, EVERY) == off).all()
    assert (with_their_areas(off.T, EVERY) == off.T).all()


def test_voxels_that_fit_by_chance_in_a_wrong_area_are_found_and_voxels_alone_are_not() -> None:
    rng = np.random.default_rng(0)
    area = np.zeros((40, 40), bool)
    area[10:25, 10:25] = True
    off = area & (rng.random(area.shape) < 0.7)
    found = with_their_areas(off, np.ones_like(area))
    assert found[12:23, 12:23].mean() > 0.98 > 0.75 > off[12:23, 12:23].mean()
    assert not found[~area].any()
    single = rng.random((40, 40)) < 0.05
    assert (with_their_areas(single, np.ones_like(single)) == single).all()


@pytest.mark.parametrize("turned", [np.flipud, np.fliplr, np.transpose])
def test_areas_are_the_same_from_every_side(turned: Any) -> None:
    off = np.random.default_rng(3).random((30, 30)) < np.linspace(0.1, 0.8, 30)
    found = with_their_areas(off, np.ones_like(off))
    assert found.sum() > off.sum()
    np.testing.assert_array_equal(with_their_areas(turned(off), np.ones_like(off)), turned(found))


def test_adjacent_good_voxels_stay_amid_wrong_ones() -> None:
    x, y = np.indices((20, 20))
    good = np.hypot(x - 10, y - 10) < 4
    assert (with_their_areas(~good, EVERY) == ~good).all()
    line = np.ones_like(good)
    line[8:10] = False  # two rows hold no square of three
    assert with_their_areas(line, EVERY)[:, 2:-2].all()
    line[10] = False
    assert (with_their_areas(line, EVERY) == line).all()


def test_neighbours_are_in_the_slice_and_those_that_are_known() -> None:
    off = np.zeros((12, 12, 2), bool)
    off[::2, :, 0] = True  # of a voxel between, 10 of 24 neighbours contradict; of one in a row of them, 14
    off[5, 2:10:2, 0] = True
    found = with_their_areas(off, np.ones_like(off))
    assert found[5, 2:10, 0].all() and not found[..., 1].any()
    known = np.ones((12, 12), bool)
    known[5, 7] = False  # neither in an area nor a neighbour
    assert not with_their_areas(off[..., 0], known)[5, 7]
    assert (with_their_areas(off[..., 0], off[..., 0]) == off[..., 0]).all()
    eight = np.zeros((12, 12), bool)
    eight[4, 4:7] = eight[6, 4:7] = True  # six of the eight neighbours of (5, 5), and six of its 24
    assert (with_their_areas(eight, EVERY[:12, :12]) == eight).all()
    assert with_their_areas(eight, EVERY[:12, :12], half=1)[5, 5]
    assert (with_their_areas(eight, EVERY[:12, :12], half=0) == eight).all()
    assert HALF == 2 and not with_their_areas(np.zeros(5, bool), np.ones(5, bool)).any()
    of_list = np.array([True, False, True])
    assert (with_their_areas(of_list, np.ones(3, bool)) == of_list).all()


def _spoilt(scene: Any, images: Any, fault: str) -> tuple[Any, Any]:
    x, y, _ = np.indices(scene.T.shape)
    bad = (np.hypot(x - 21, y - 36) if fault == "metal" else np.hypot(x - 45, y - 45)) < 7.5
    out, rng = images.copy(), np.random.default_rng(1)
    if fault == "metal":
        out[:, bad] = abs(rng.normal(0, 0.5, out[:, bad].shape))
    else:
        out[2, bad] *= -1
    return out, bad


@pytest.mark.parametrize("estimator", [rimap.MLE(), rimap.RIM()], ids=lambda one: one.name)
@pytest.mark.parametrize(
    ("tau", "signed", "snr", "fault"),
    [
        (FOUR, False, 20, "metal"),
        (FOUR, False, 20, "sign"),
        ((80.0, 240.0, 500.0, 1000.0, 2000.0), False, 40, "sign"),
        (TI9, True, 15, "metal"),
        (rimap.PROTOCOLS["IV_T1"].tau, False, 20, "sign"),
    ],
)
def test_others_are_as_if_the_wrong_area_was_masked_out(
    estimator: Any, tau: Any, signed: bool, snr: float, fault: str
) -> None:
    scene = head(inversion(tau, signed=signed), size=72, planes=1)
    images, bad = _spoilt(scene, scene.noisy(snr, rician=not signed) * 1000, fault)
    series = rimap.WeightedSeries(images, scene.model)
    with_it, without = (estimator.estimate(replace(series, mask=mask)) for mask in (None, ~bad))
    others = scene.tissue & ~bad
    change = abs(with_it["T1"] - without["T1"])[others]
    assert np.nanmean(change > without.sd["T1"][others]) < 0.02
    wrong = abs(with_it["T1"] / scene.T - 1)[bad] > 0.2
    wrong &= abs(with_it["T1"] - scene.T)[bad] > 4 * with_it.sd["T1"][bad]
    assert (wrong & (with_it.status[bad] == Status.OK)).mean() < 0.03
    assert (with_it.status[others] == Status.OK).mean() > (without.status[others] == Status.OK).mean() - 0.005


def test_of_few_images_an_area_of_metal_is_flagged_and_no_unchanged_voxel_is() -> None:
    for tau in (FOUR, TI9):
        scene = head(inversion(tau), size=72, planes=1)
        good = scene.noisy(20)
        images, bad = _spoilt(scene, good, "metal")
        one, other = (rimap.NLLS().estimate(rimap.WeightedSeries(S, scene.model)).status for S in (images, good))
        inner = bad & scene.tissue
        assert (one[inner] != Status.OK).mean() > 0.95
        assert ((one != other) & ~bad & scene.tissue).mean() < 0.001


def test_with_many_images_right_voxels_amid_wrong_ones_stay() -> None:
    scene = head(inversion(TI9), size=72, planes=1)
    good, wrong = scene.noisy(30), np.random.default_rng(0).random(scene.T.shape) < 0.5
    images = good.copy()
    images[0, wrong] *= 0.3
    status = rimap.NLLS().estimate(rimap.WeightedSeries(images, scene.model, noise=rimap.Gaussian(0.65 / 30))).status
    assert (status[wrong & scene.tissue] == Status.OFF_MODEL).mean() > 0.85
    assert (status[~wrong & scene.tissue] == Status.OK).mean() > 0.99


def test_the_field_of_a_network_has_no_say_of_metal_that_fits_by_chance() -> None:
    scene = head(inversion(FOUR), size=48, planes=1, texture=0.08)
    x, y, _ = np.indices(scene.T.shape)
    bad, images = np.hypot(x - 14, y - 24) < 5, scene.noisy(20) * 1000
    images[:, bad] = abs(np.random.default_rng(2).normal(0, 300, images[:, bad].shape)) * [[3.0], [2.0], [1.0], [0.2]]
    series = rimap.WeightedSeries(images, scene.model, noise=rimap.Gaussian(0.65 / 20 * 1000))
    with ThreadPoolExecutor(1) as pool:
        grid = FieldGrid(series, 1, 1, pool)
        here = grid.at(grid.padded(np.full(series.shape, 1.9)))
    assert here.say[bad].mean() < 0.06 and here.say[scene.tissue & ~bad].mean() > 0.99


def test_single_voxels_that_ask_for_another_field_have_less_weight_and_a_region_keeps_it() -> None:
    rng = np.random.default_rng(0)
    w = np.full((32, 32), 100.0)
    g = 10.0 * rng.standard_normal((32, 32))  # deviations of one standard deviation
    g[4, 4], g[20, 5] = 300.0, -60.0  # of thirty, and of six
    g[16:, 16:] += 150.0  # a region in which all deviate by fifteen
    every = np.ones((32, 32), bool)
    empty = np.zeros(0)
    found = Information(g.ravel(), w.ravel(), empty, empty, every.ravel(), empty)
    say = every.copy()
    say[3, 3] = False
    weight = _among_neighbours(found, every, say)
    assert weight[4, 4] == 0 and 0.4 < weight[20, 5] < 0.9 and weight[3, 3] == 0
    assert (weight[16:, 16:] > 0.95).all()
    usual = np.ones_like(every)
    usual[16:, 16:] = False
    usual[[4, 20, 3], [4, 5, 3]] = False
    assert (weight[usual] > 0.9).all()


def test_areas_are_those_of_few_degrees_of_freedom() -> None:
    status = np.random.default_rng(0).choice([0, 7], (30, 30), p=[0.5, 0.5]).astype(np.uint8)
    whole, more = status.copy(), status.copy()
    flag_wrong_areas(whole, 2)
    assert (whole != status).any()
    flag_wrong_areas(more, 3)
    assert (more == status).all()


def test_the_order_of_memory_does_not_matter() -> None:
    off = np.random.default_rng(0).random((30, 30, 2)) < 0.5
    found = with_their_areas(off, np.ones_like(off))
    assert (found != off).any()
    assert (with_their_areas(np.asfortranarray(off), np.ones_like(off)) == found).all()


def test_a_noisier_region_does_not_make_sigma_that_of_the_quiet_one() -> None:
    scene = head(inversion(TI9), size=72, planes=1)
    loud = np.indices(scene.T.shape)[0] > 40
    rng, sigma = np.random.default_rng(0), 0.65 / 40
    noise = rng.normal(0, sigma, (2, *scene.images.shape)) * np.where(loud, 3, 1)
    images = np.hypot(scene.images + noise[0], noise[1])
    images[:, scene.air] = np.nan
    found = rimap.NLLS().estimate(rimap.WeightedSeries(images.astype(np.float32), scene.model)).noise.sigma
    assert found > 1.1 * sigma


@pytest.mark.parametrize(("tau", "snr"), [(FOUR, 15), (FOUR, 30), ((80.0, 240.0, 500.0, 1000.0, 2000.0), 30)])
@pytest.mark.parametrize("fault", ["none", "sign"])
def test_sigma_of_few_images_without_air_is_right(tau: Any, snr: float, fault: str) -> None:
    scene = head(inversion(tau), size=72, planes=2)
    images = np.where(scene.air, np.nan, scene.noisy(snr)).astype(np.float32)
    if fault != "none":
        images, _ = _spoilt(scene, images, fault)
    sigma = rimap.NLLS().estimate(rimap.WeightedSeries(images, scene.model)).noise.sigma
    assert sigma == pytest.approx(0.65 / snr, rel=0.1)
