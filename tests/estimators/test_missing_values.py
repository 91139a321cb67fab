"""Values that were not measured: the definition written out with loops, and its limits one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import rimap
from rimap.advice import Weight, weight_of
from rimap.estimators.checks import missing_values as module
from rimap.estimators.checks.clipping import Clipping
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.missing_values import Missing, Screened, Whole, sample_of_planes, screened

Floats = NDArray[np.float64]
TE = (10.0, 20.0, 40.0, 80.0)
DECAY = rimap.T2Decay(tau=TE)
SIGNED = rimap.InversionRecovery(tau=(50.0, 400.0, 1100.0, 2500.0), signed=True)
SHAPE = (16, 18, 3)
OBJECT = (slice(3, 13), slice(3, 15))


def images(seed: int = 0) -> Floats:
    """Return four images of an object of 100, 90, 80 and 70 in air of 1, without two equal values."""
    S = np.random.default_rng(seed).uniform(0.5, 1.5, (4, *SHAPE))
    S[:, *OBJECT] *= np.array([100.0, 90, 80, 70])[:, None, None, None] * np.linspace(0.9, 1.1, 10)[:, None, None]
    return S


def screen(S: Any, model: Any = DECAY, **more: Any) -> Screened:
    return screened(rimap.WeightedSeries(S, model, **more), threads=1)


# Zeros.


def expected_of_zero(where: Any, image: Floats, thing: Any, rms: Floats, usual: float) -> tuple[float, float]:
    """Return what is expected of an image in a voxel, and the least beside it, as shares of the root mean square."""
    i, j, k = where
    there = thing & (image != 0)
    expected = usual
    for edge in (5, 15, 45):
        half = edge // 2
        square = (slice(max(i - half, 0), i + half + 1), slice(max(j - half, 0), j + half + 1), k)
        if there[square].sum() >= 3:
            expected = abs(image[square])[there[square]].sum() / rms[square][there[square]].sum()
            break
    beside = [
        abs(image[a, b, k]) / rms[a, b, k]
        for a, b in itertools.product(range(i - 1, i + 2), range(j - 1, j + 2))
        if 0 <= a < image.shape[0] and 0 <= b < image.shape[1] and there[a, b, k]
    ]
    return expected, min(beside, default=np.inf)


@pytest.mark.parametrize("pile", [True, False])
@pytest.mark.parametrize("step", [0.001, 0.03])
@pytest.mark.parametrize("filled", [0.97, 0.1])
def test_zeros_where_signal_is_expected(pile: bool, step: float, filled: float) -> None:
    rng = np.random.default_rng(1)
    rms = rng.uniform(0.5, 2, (20, 24, 3))
    image = rng.choice([-1, 1], rms.shape) * rng.uniform(0, 0.9, (20, 1, 1)) * rms * rng.uniform(0.3, 1, rms.shape)
    image[rng.random(rms.shape) > filled] = 0
    image[2:6, 4:9, 1] = image[:3, :3, 0] = image[-4:, 20:, 2] = 0
    image[..., 2] *= rng.random((20, 24)) < 0.9
    thing = rng.random(rms.shape) < 0.95
    bright = np.zeros(rms.shape, bool)
    for where in np.argwhere(thing & (image == 0)):
        expected, beside = expected_of_zero(where, image, thing, rms, 0.4)
        strong = expected > 0.15 and beside > 0.15 and min(expected, beside) * rms[tuple(where)] > 16 * step
        bright[tuple(where)] = strong or (pile and expected > 0.05)
    labels, _ = ndimage.label(bright, np.ones((3, 3, 3)))
    large = bright & (np.bincount(labels.reshape(-1))[labels] >= 6)
    found = module._not_reached(image, thing, rms, 0.4, step, pile)
    np.testing.assert_array_equal(found, large)


def test_zeros_of_a_slice_are_those_of_a_volume_of_one_plane() -> None:
    S = images()[..., 0]
    S[1, 5:9, 5:9] = 0
    flat, deep = screen(S), screen(S[..., None])
    assert flat.missing.zero.tolist() == deep.missing.zero.tolist() == [0, 16, 0, 0]
    np.testing.assert_array_equal(flat.series.images, deep.series.images[..., 0])


@pytest.mark.parametrize(
    ("usual", "step", "pile", "found"),
    [(0.5, 0.01, True, True), (0.15, 0.01, True, False), (0.5, 0.01, False, False), (0.5, 0.5 / 16, True, False)],
)
def test_zeros_of_a_list_have_no_neighbours(usual: float, step: float, pile: bool, found: bool) -> None:
    image, thing, rms = np.ones(9), np.ones(9, bool), np.full(9, 0.2)
    step = step * 0.2
    image[4] = image[6] = 0
    thing[6] = False
    where = module._not_reached(image, thing, rms, usual, step, pile)
    assert np.flatnonzero(where).tolist() == ([4] if found else [])
    assert not module._not_reached(np.ones(9), thing, rms, usual, step, pile).any()


def test_an_area_without_signal_has_no_value_and_the_rest_keeps_its_own() -> None:
    S = images()
    S[2, 4:7, 5:8, 1] = 0
    S[1, 10, 10, 0] = 0  # one voxel: a measurement
    S[0, 0, 0, 0] = 0  # in air
    found = screen(S)
    assert found.missing.zero.tolist() == [0, 0, 9, 0] and found.missing.voxels == 360
    assert not found.missing.clipped.any() and not found.missing.negative.any() and found.missing.doubtful is None
    expected = S.copy()
    expected[2, 4:7, 5:8, 1] = np.nan
    np.testing.assert_array_equal(found.series.images, expected)
    assert np.isnan(found.census.power).sum() == 9  # it is that of the images without these values


def test_nothing_is_missing_in_good_images() -> None:
    S = images()
    found = screen(S)
    np.testing.assert_array_equal(found.series.images, S)
    assert found.missing.zero.tolist() == [0] * 4 and found.missing.voxels == 0
    np.testing.assert_array_equal(found.census.largest, S.reshape(4, -1).max(1))


def test_if_nothing_would_be_left_the_images_stay() -> None:
    S = images()
    S[2][S[2] > 10] = 0
    S[0][S[2] != 0] = np.nan  # what is left has no value in another image
    found = screen(S)
    np.testing.assert_array_equal(found.series.images, S)


@pytest.mark.parametrize(
    ("zeros", "again", "expected"),
    [(5, 99, False), (6, 99, True), (6, 1, False), (6, 9, False), (6, 10, True)],
)
def test_zero_stands_out_from_ten_small_values(zeros: int, again: int, expected: bool) -> None:
    """If it is there six times, and no other of the ten smallest values occurs twice (`again` is which)."""
    others = np.arange(1.0, 60.0)
    others[again if again < 40 else 58 : (again if again < 40 else 58) + 2] = others[again if again < 40 else 58]
    assert module._is_pile(zeros, others[::-1].copy()) == expected


def test_values_are_only_compared_with_the_smallest_ones() -> None:
    others = np.concatenate([np.arange(1.0, 10_003.0), np.full(9, 2e4)])
    assert module._is_pile(6, others) and not module._is_pile(6, np.concatenate([others, [3.0]]))
    assert module._is_pile(6, np.ones(1)) and not module._is_pile(6, np.ones(2))


def test_what_an_image_has_of_the_root_mean_square() -> None:
    image, rms, thing = np.array([0.0, -2.0, 4.0, 9.0]), np.array([1.0, 4.0, 8.0, 1.0]), np.array([1, 1, 1, 0], bool)
    assert module._zeros_of(image, thing, rms) == (0.5, 2.0, False)
    assert module._zeros_of(np.zeros(4), thing, rms) == (0.0, 0.0, False)
    many = np.concatenate([np.zeros(6), np.arange(1.0, 21.0)])
    assert module._zeros_of(many, np.ones(26, bool), np.full(26, 10.5)) == (1.0, 1.0, True)


# The root mean square, and planes that stand for a volume.


def test_the_root_mean_square_is_that_of_images_that_are_not_zero() -> None:
    S = np.array([[3.0, 3.0, 0.0, np.nan, 5.0, -3.0], [4.0, 0.0, 0.0, 1.0, 5.0, 3.0]])
    mask = np.array([1, 1, 1, 1, 0, 1], bool)
    series = rimap.WeightedSeries(S, rimap.T2Decay(tau=(10, 20)), mask=mask)
    np.testing.assert_allclose(module._rms(series), [np.sqrt(12.5), 3.0, 0.0, 0.0, 0.0, 3.0])
    np.testing.assert_array_equal(module._rms(series), module._rms(series, Census.of(series.images, 1)))


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        (1, [0]),
        (24, list(range(24))),
        (25, list(range(1, 25, 2))),
        (48, list(range(1, 48, 2))),
        (49, list(range(1, 49, 3))),
    ],
)
def test_planes_that_stand_for_a_volume(planes: int, expected: list[int]) -> None:
    assert np.asarray(sample_of_planes((5, 4, planes))).tolist() == expected


def test_a_slice_and_a_list_stand_for_themselves() -> None:
    assert sample_of_planes((5, 4)) == sample_of_planes((50,)) == slice(None)


def deep(planes: int = 50) -> Floats:
    """Return images of many planes, of which every second one is sampled."""
    rng = np.random.default_rng(2)
    S = rng.uniform(0.5, 1.5, (4, 8, 8, planes))
    S[:, 2:6, 2:6] *= 100
    return S


def test_a_sample_is_of_planes_that_can_be_used() -> None:
    S = deep()
    series = rimap.WeightedSeries(S, DECAY, mask=np.ones(S.shape[1:], bool), affine=np.eye(4))
    sample = module._sampled(series)
    np.testing.assert_array_equal(sample.images, S[..., sample_of_planes(S.shape[1:])])
    assert sample.mask is not None and sample.mask.shape == sample.shape and sample.affine is None
    assert module._sampled(rimap.WeightedSeries(S[..., :24], DECAY)).shape == (8, 8, 24)
    beside = np.zeros(S.shape[1:], bool)
    beside[..., 0] = True  # no plane of the sample
    assert module._sampled(rimap.WeightedSeries(S, DECAY, mask=beside)).shape == S.shape[1:]
    S[0, ..., sample_of_planes(S.shape[1:])] = np.nan
    assert module._sampled(rimap.WeightedSeries(S, DECAY)).shape == S.shape[1:]


@pytest.mark.parametrize("planes", [20, 50])
def test_slabs_are_judged_as_the_whole_is(planes: int) -> None:
    S = deep(planes)
    S[1, 3:6, 2:6, 7] = 0
    S[2, 2, 2, 15] = -300
    top = np.quantile(S[3, 2:6, 2:6], 0.97)
    S[3] = np.minimum(S[3], top)
    whole_series = rimap.WeightedSeries(S, DECAY)
    slabs = [rimap.WeightedSeries(S[..., k : k + 10], DECAY) for k in range(0, planes, 10)]
    whole = Whole.of(module._sampled(whole_series), lambda: slabs)
    direct, parts = screened(whole_series, threads=1), [screened(slab, whole, threads=1) for slab in slabs]
    np.testing.assert_array_equal(np.concatenate([p.series.images for p in parts], -1), direct.series.images)
    total = parts[0].missing
    for part in parts[1:]:
        total = total + part.missing
    assert total.zero.tolist() == direct.missing.zero.tolist() == [0, 12, 0, 0]
    assert total.negative.tolist() == direct.missing.negative.tolist() == [0, 0, 1, 0]
    assert total.clipped.tolist() == direct.missing.clipped.tolist() and total.clipped[3] >= 6
    assert [not c for c in total.clipped.tolist()] == [True, True, True, False]


def test_of_nothing_nothing_is_known() -> None:
    assert Whole.of(None, list) == Whole(0.0, Clipping(), (), ())
    S = images()
    S[1, 5:9, 5:9] = 0
    found = screened(rimap.WeightedSeries(S, DECAY), Whole.of(None, list), threads=1)
    np.testing.assert_array_equal(found.series.images, S)


def test_an_area_that_is_filled_with_one_value_has_none() -> None:
    S = images()
    S[2, 4:8, 5:9, 1] = 41.25
    found = screen(S)
    assert found.missing.filled.tolist() == [0, 0, 16, 0] and not found.missing.zero.any()
    np.testing.assert_array_equal(np.isnan(found.series.images), S == 41.25)
    slabs = [rimap.WeightedSeries(S[..., k : k + 1], DECAY) for k in range(3)]
    whole = Whole.of(rimap.WeightedSeries(S, DECAY), lambda: slabs)
    assert whole.fills == ((), (), (41.25,), ())
    parts = [screened(slab, whole, threads=1) for slab in slabs]
    np.testing.assert_array_equal(np.concatenate([p.series.images for p in parts], -1), found.series.images)


# Clipped and wrapped values.


@pytest.mark.parametrize(("number", "much"), [(10, False), (40, True)])
def test_clipped_values(number: int, much: bool) -> None:
    """Of 360 voxels. Few have no value; many keep it, and are doubtful."""
    S = images()
    level = np.sort(S[0].reshape(-1))[-number]
    S[0] = np.minimum(S[0], level)
    found, where = screen(S), S[0] == level
    assert found.missing.clipped.tolist() == [number, 0, 0, 0]
    if much:
        assert found.missing.doubtful is not None
        np.testing.assert_array_equal(found.missing.doubtful, where)
        np.testing.assert_array_equal(found.series.images, S)
    else:
        assert found.missing.doubtful is None
        np.testing.assert_array_equal(
            np.isnan(found.series.images), where[None] & (np.arange(4) == 0)[:, None, None, None]
        )


@pytest.mark.parametrize(("factor", "wrapped"), [(-0.98, False), (-1.02, True)])
def test_a_magnitude_far_below_zero_has_wrapped(factor: float, wrapped: bool) -> None:
    """By the median of the object's root mean square."""
    S = images()
    rms = np.median(np.sqrt((S[:, *OBJECT] ** 2).mean(0)))
    S[1, 6, 7, 1] = S[2, 8, 9, 0] = factor * rms
    found = screen(S)
    assert found.missing.negative.tolist() == ([0, 1, 1, 0] if wrapped else [0] * 4)
    assert np.isnan(found.series.images).sum() == 2 * wrapped
    assert np.isnan(found.series.images[1, 6, 7, 1]) == wrapped
    assert not screen(S, SIGNED).missing.negative.any()
    S[2, 4:7, 5:8, 1] = 0  # there is something to look for
    found = screen(S, SIGNED).missing
    assert found.zero.tolist() == [0, 0, 9, 0] and not found.negative.any()


@pytest.mark.parametrize(("number", "wrapped"), [(7, True), (8, False)])
def test_many_negative_magnitudes_have_not_wrapped(number: int, wrapped: bool) -> None:
    """One in fifty of 360 voxels at most."""
    S = images()
    S[1, 5, 4 : 4 + number, 1] = -500
    assert screen(S).missing.negative[1] == number * wrapped


@pytest.mark.parametrize(("number", "wrapped"), [(3, True), (5, False)])
def test_voxels_with_negative_magnitudes_count_together(number: int, wrapped: bool) -> None:
    """One in fifty of 360 voxels at most, whichever image is negative."""
    S = images()
    S[1, 5, 4 : 4 + number, 1] = S[3, 7, 4 : 4 + number, 0] = -500
    assert screen(S).missing.negative.tolist() == [0, number * wrapped, 0, number * wrapped]


@pytest.mark.parametrize(("low", "wrapped"), [(30.0, True), (50.0, False)])
def test_values_are_far_below_those_that_noise_makes_negative(low: float, wrapped: bool) -> None:
    """Noise that was added after the modulus: one value in twenty is −`low`; 200 is more than five times 30."""
    S = images()
    some = np.zeros((10, 12, 3), bool)
    some.reshape(-1)[::20] = True
    S[3, *OBJECT][some] = -low
    S[3, 8, 8, 1] = -200
    assert screen(S).missing.negative.tolist() == [0, 0, 0, int(wrapped)]


# What is said.


def missing(**counts: list[int]) -> Missing:
    none = np.zeros(4, np.int64)
    kinds = ("zero", "clipped", "negative", "filled")
    return Missing(*(np.array(counts.get(kind, none)) for kind in kinds), voxels=10_000)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("zero", "zero in"),
        ("clipped", "clipped in"),
        ("negative", "far below zero in"),
        ("filled", "filled with one value in"),
    ],
)
def test_what_is_missing_is_said(kind: str, words: str) -> None:
    (text,) = missing(**{kind: [9, 10, 0, 0]}).advice(DECAY)
    assert text.startswith(f"image 2 (TE 20 ms) is {words} 10 ") and weight_of(text) is Weight.CAUTION


@pytest.mark.parametrize(
    ("counts", "named", "weight"),
    [
        ([9, 10, 500, 500], "images 2 to 4 are zero in up to 500 voxels", Weight.CAUTION),
        ([10, 9, 501, 400], "images 1, 3 and 4 are zero in up to 501 voxels", Weight.UNRELIABLE),
        ([10, 10, 9, 12], "images 1, 2 and 4 are zero in up to 12 voxels", Weight.CAUTION),
    ],
)
def test_images_with_the_same_fault_are_one_warning(counts: list[int], named: str, weight: Weight) -> None:
    (text,) = missing(zero=counts).advice(DECAY)
    assert text.startswith(named) and weight_of(text) is weight


def test_few_voxels_of_a_small_object_are_not_worth_a_warning() -> None:
    few = Missing(np.array([4, 5]), *np.zeros((3, 2), int), voxels=200)
    assert len(few.advice(DECAY)) == 1 and Missing.none(4).advice(DECAY) == () and Missing.none(4).zero.shape == (4,)


def test_parts_add_up() -> None:
    one, other = (
        missing(zero=[1, 2, 3, 4], clipped=[5, 6, 7, 8]),
        missing(zero=[1, 1, 1, 1], negative=[9, 0, 0, 2], filled=[0, 3, 0, 0]),
    )
    both = one + other
    assert both.zero.tolist() == [2, 3, 4, 5] and both.clipped.tolist() == [5, 6, 7, 8]
    assert both.negative.tolist() == [9, 0, 0, 2] and both.voxels == 20_000
    assert both.filled.tolist() == [0, 3, 0, 0]


# Values far beyond those of the object.


@pytest.mark.parametrize("number", [1, 20])
@pytest.mark.parametrize("size", [1e6, 1e20, 3e38])
def test_extreme_values_are_no_measurement_and_move_no_other_voxel(size: float, number: int) -> None:
    rng = np.random.default_rng(5)
    S, bad = images().astype(np.float32), np.zeros(SHAPE, bool)
    bad.reshape(-1)[rng.choice(bad.size, number, replace=False)] = True
    wrong = S.copy()
    wrong[rng.integers(0, 4, number), *np.nonzero(bad)] = size * rng.choice([-1, 1], number)
    found = screen(wrong, rimap.T2Decay(tau=TE))
    np.testing.assert_array_equal(~np.isfinite(found.series.images).all(0), bad)
    assert found.missing.extreme == number and found.missing.largest == pytest.approx(size)
    (text,) = (text for text in found.missing.advice(DECAY) if "times those of the object" in text)
    what = "1 voxel has a value of" if number == 1 else f"{number} voxels have values of up to"
    assert text.startswith(f"{what} {size:.2g}, ")
    S[:, bad] = np.nan
    for estimator in (rimap.NLLS(threads=1), rimap.MLE(threads=1)):
        one, other = (estimator.estimate(rimap.WeightedSeries(values, DECAY)) for values in (wrong, S))
        assert one.noise.sigma == other.noise.sigma
        np.testing.assert_array_equal(one.kappa, other.kappa)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("fault", ["zero", "clipped", "negative", "filled", "extreme"])
def test_the_unit_of_the_images_does_not_matter(fault: str, unit: float) -> None:
    S = images()
    if fault == "zero":
        S[2, 4:7, 5:8, 1] = 0
    elif fault == "clipped":
        S[0] = np.minimum(S[0], np.sort(S[0].reshape(-1))[-12])
    elif fault == "negative":
        S[1, 6, 7, 1] = -300
    elif fault == "filled":
        S[2, 4:8, 5:9, 1] = 41.25
    else:
        S[3, 0, 0, 0] = 1e6
    one, other = screen(S), screen(unit * S)
    np.testing.assert_array_equal(np.isnan(other.series.images), np.isnan(one.series.images))
    assert np.isnan(one.series.images).any() and other.missing.voxels == one.missing.voxels
    assert other.missing.largest == pytest.approx(unit * one.missing.largest)
    for kind in ("zero", "clipped", "negative", "filled"):
        counts = getattr(one.missing, kind)
        assert getattr(other.missing, kind).tolist() == counts.tolist() and bool(counts.any()) == (kind == fault)


def test_an_object_in_air_of_almost_nothing_is_not_extreme() -> None:
    S = np.random.default_rng(2).uniform(0.5, 1.5, (4, 40, 40)) * 1e-6
    S[:, 4:10, 5:11] *= 1e9
    found = screen(S)
    assert found.missing.extreme == 0 and np.isfinite(found.series.images).all()
    S[2, 6, 7] = 1e8  # but a voxel far beyond the object is
    assert screen(S).missing.extreme == 1


def test_zeros_around_an_object_do_not_make_it_extreme() -> None:
    S = np.zeros((4, 40, 40), np.float32)
    S[:, 4:9, 5:10] = np.random.default_rng(2).uniform(0.5, 1.5, (4, 5, 5))
    found = screen(S)
    assert found.missing.extreme == 0
    S[1, 6, 7] = 1e5
    assert screen(S).missing.extreme == 1


@pytest.mark.parametrize("value", [30.0, 300.0, 3e4, 3e9])
def test_a_filled_area_brighter_than_the_object_is_found_without_air(value: float) -> None:
    S = np.random.default_rng(4).uniform(50, 150, (4, 30, 30))
    S[:, 8:18, 9:19] = value
    gone = ~np.isfinite(screen(S).series.images).all(0)
    assert gone[8:18, 9:19].all() and gone.sum() == 100
