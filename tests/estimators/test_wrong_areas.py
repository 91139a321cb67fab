"""An area in which many voxels contradict the model is wrong as a whole, and others are as if it were masked out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.trust_scenes import TI9, head, inversion

import rimap
from rimap.estimators.checks.wrong_areas import HALF, with_their_areas
from rimap.maps import Status

FOUR = (100.0, 300.0, 900.0, 2700.0)
EVERY = np.ones((20, 20), bool)


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


def test_good_voxels_that_lie_together_stay_amid_wrong_ones() -> None:
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


def test_one_wrapped_column_does_not_mark_its_neighbours() -> None:
    scene = head(inversion(), size=48, planes=1)
    images = scene.noisy(30)
    images[0, 22:24] *= 0.3  # two rows, of which 40 % of the neighbours of a third are
    status = rimap.NLLS().estimate(rimap.WeightedSeries(images, scene.model)).status
    assert (status[22:24][scene.tissue[22:24]] == Status.OFF_MODEL).mean() > 0.95
    assert (status[20:22][scene.tissue[20:22]] == Status.OFF_MODEL).mean() < 0.02


@pytest.mark.parametrize(("tau", "snr"), [(FOUR, 15), (FOUR, 30), ((80.0, 240.0, 500.0, 1000.0, 2000.0), 30)])
@pytest.mark.parametrize("fault", ["none", "sign"])
def test_sigma_of_few_images_without_air_is_right(tau: Any, snr: float, fault: str) -> None:
    scene = head(inversion(tau), size=72, planes=2)
    images = np.where(scene.air, np.nan, scene.noisy(snr)).astype(np.float32)
    if fault != "none":
        images, _ = _spoilt(scene, images, fault)
    sigma = rimap.NLLS().estimate(rimap.WeightedSeries(images, scene.model)).noise.sigma
    assert sigma == pytest.approx(0.65 / snr, rel=0.1)
