"""What the checks count and sum, on few voxels, against loops over all voxels: also where a row or a block ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap.estimators.checks import image_counts as module
from rimap.estimators.checks.image_count_kernels import (
    AT_LARGEST,
    BLOCK,
    LANES,
    LARGEST,
    SMALLEST,
    ZEROS,
    count,
    count_equal,
)
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.mixture_kernels import mix
from rimap.estimators.checks.neighbour_plane_kernels import (
    images_around,
    over_squares,
    straight_lines,
)
from rimap.estimators.checks.neighbour_planes import Planes

Floats = NDArray[np.float64]


def stored(S: Floats, order: str) -> Floats:
    """Return images (N, *X) one after another, each in C or in Fortran order."""
    backwards = (0, *range(S.ndim - 1, 0, -1))
    return (
        np.ascontiguousarray(S.transpose(backwards)).transpose(backwards) if order == "F" else np.ascontiguousarray(S)
    )


def squares(
    where: tuple[int, int, int], step: int, half: int, shape: tuple[int, int, int]
) -> list[tuple[int, int, int]]:
    """Return the places of the (2 half + 1)² voxels around a voxel, as far as they exist."""
    (p, r, c), (_, rows, columns) = where, shape
    around = range(-half, half + 1)
    found = [(p, r + down, c + across * step) for down in around for across in around]
    return [(p, i, j) for p, i, j in found if 0 <= i < rows and 0 <= j < columns]


def places(shape: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    return itertools.product(*map(range, shape))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("half", [1, 2])
@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 2, 3), (1, 1, 2), (1, 3, 4)])
def test_sums_and_largest_values_over_squares(shape: tuple[int, int, int], half: int, step: int) -> None:
    x = np.random.default_rng(0).random(shape) + 0.01
    sums, largest = np.full(shape, 7.0), np.full(shape, 7.0)
    over_squares(x, step, half, False, sums)
    over_squares(x, step, half, True, largest)
    for where in places(shape):
        values = [x[place] for place in squares(where, step, half, shape)]
        assert sums[where] == pytest.approx(sum(values), rel=1e-12)
        assert largest[where] == max(values)


def lines(x: Floats, where: tuple[int, int, int], step: int) -> Iterator[float]:
    """Yield the sum of the three voxels of each straight line that has the voxel in its middle."""
    p, r, c = where
    for down, across in ((0, step), (1, 0), (1, step), (1, -step)):
        ends = [(p, r + sign * down, c + sign * across) for sign in (-1, 1)]
        if all(0 <= i < x.shape[1] and 0 <= j < x.shape[2] for _, i, j in ends):
            yield float(x[where] + sum(x[end] for end in ends))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("limits", [(0.35, 0.4), (0.5, 0.2), (0.45, 0.55)])
def test_lines_that_are_dark_on_bright_ground(step: int, limits: tuple[float, float]) -> None:
    x = np.random.default_rng(1).random((2, 5, 8))
    around = np.empty(x.shape)
    over_squares(x, step, 1, False, around)
    chosen = np.random.default_rng(2).random(x.shape) < 0.9
    found = chosen.copy()
    straight_lines(x, around, step, found, limits)
    for where in places(x.shape):
        best = min(lines(x, where, step), default=np.inf)
        expected = chosen[where] and best < 3 * limits[0] and around[where] - best > 6 * limits[1]
        assert found[where] == expected
    assert 0 < found.sum() < chosen.sum()


def test_a_line_reaches_its_limits_only_beyond_them() -> None:
    x = np.full((1, 3, 3), 4.0)
    x[0, 1] = 1.0
    for dark, bright, expected in ((1.0, 3.0, False), (1.5, 4.0, False), (1.5, 3.0, True)):
        found = np.zeros(x.shape, bool)
        found[0, 1, 1] = True
        straight_lines(x, np.full(x.shape, 27.0), 1, found, (dark, bright))
        assert found[0, 1, 1] == expected


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("fewest", [1, 4, 6])
def test_what_images_are_around_a_voxel(step: int, fewest: int) -> None:
    shape, rng = (2, 5, 6), np.random.default_rng(3)
    S, chosen = rng.random((3, *shape)), rng.random(shape) < 0.7
    chosen[0, :2] = False  # a row that has too few around it comes first
    counted = np.zeros(shape, np.uint8)
    over_squares(chosen.view(np.uint8), step, 1, False, counted)
    out = np.zeros((4, *shape))
    images_around(S, chosen, counted, fewest, step, out)
    compared = 0
    for where in places(shape):
        inside = [place for place in squares(where, step, 1, shape) if chosen[place]]
        assert counted[where] == len(inside)
        if len(inside) < fewest:
            continue
        compared += 1
        values = np.array([[image[place] for place in inside] for image in S])
        mean = values.mean(1)
        within = ((values - mean[:, None]) ** 2).sum()
        expected = [mean.mean(), mean.var(ddof=1), within, (values.mean(0) ** 2).sum()]
        np.testing.assert_allclose(out[(slice(None), *where)], expected, rtol=1e-9, atol=1e-12)
    assert compared > 5


def test_rows_without_enough_chosen_voxels_are_left_out() -> None:
    chosen = np.zeros((1, 6, 4), bool)
    chosen[0, 0] = True
    counted, out = np.zeros(chosen.shape, np.uint8), np.zeros((4, *chosen.shape))
    over_squares(chosen.view(np.uint8), 1, 1, False, counted)
    images_around(np.ones((2, *chosen.shape)), chosen, counted, 3, 1, out)
    assert out[0, 0, 0, 1] == 1 and not out[:, 0, 2:].any()


@pytest.mark.parametrize("column", [1, 2, 3])
def test_a_single_voxel_with_enough_around_it_is_found_wherever_it_is(column: int) -> None:
    """Three rows and columns of chosen voxels have one voxel in their middle that has nine."""
    chosen = np.zeros((2, 5, 5), bool)
    chosen[1, 1:4, column - 1 : column + 2] = True
    S = np.random.default_rng(9).random((3, *chosen.shape))
    counted, out = np.zeros(chosen.shape, np.uint8), np.zeros((4, *chosen.shape))
    over_squares(chosen.view(np.uint8), 1, 1, False, counted)
    images_around(S, chosen, counted, 9, 1, out)
    mean = S[:, chosen].mean(1)
    np.testing.assert_allclose(out[:2, 1, 2, column], [mean.mean(), mean.var(ddof=1)])


@pytest.mark.parametrize("magnitude", [True, False])
def test_mixtures_are_those_of_all_pairs(magnitude: bool) -> None:
    shapes = np.random.default_rng(4).normal(size=(4, 3))
    fractions = np.array([0.0, 0.25, 0.7])
    out = np.zeros((4 * 3 // 2 * 3, 3))
    mix(shapes, fractions, magnitude, out)
    expected = []
    for one, other in itertools.combinations(shapes, 2):
        for w in fractions:
            mixed = w * one + (1 - w) * other
            mixed = abs(mixed) if magnitude else mixed
            expected.append(mixed / np.linalg.norm(mixed))
    np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_a_mixture_without_signal_is_zero() -> None:
    out = np.ones((1, 2))
    mix(np.zeros((2, 2)), np.zeros(1), True, out)
    np.testing.assert_array_equal(out, 0)
    mix(np.full((2, 2), 1e-160), np.zeros(1), True, out)  # the square is below the smallest float
    assert np.isfinite(out).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_of_some_voxels(dtype: type) -> None:
    """Of voxels from `first` to `last`, which are no whole blocks or lanes; the largest value is where they end."""
    M, first, last = BLOCK + LANES + 40, 3, BLOCK + LANES + 13
    S = np.random.default_rng(5).integers(-4, 4, (2, M)).astype(dtype)
    S[0, [first, first + 5, BLOCK + first, last - 1]] = 9
    S[1, [first + 1, last - 1]] = -9
    S[1, first + 9] = 2.5
    S[:, [first - 1, last]] = 50  # beside
    power, peak, zeros, of_image = np.zeros(M), np.zeros(M, dtype), np.zeros(M, np.uint16), np.full((2, 4), -1.0)
    count(S, first, last, power, peak, zeros, of_image)
    inside = S[:, first:last]
    np.testing.assert_allclose(power[first:last], (inside.astype(float) ** 2).mean(0))
    np.testing.assert_array_equal(peak[first:last], abs(inside).max(0))
    np.testing.assert_array_equal(zeros[first:last], (inside == 0).sum(0))
    for values in (power, peak, zeros):
        assert not values[:first].any() and not values[last:].any()
    for n in range(2):
        assert of_image[n, ZEROS] == (inside[n] == 0).sum()
        assert of_image[n, LARGEST] == inside[n].max() and of_image[n, SMALLEST] == inside[n].min()
        assert of_image[n, AT_LARGEST] == (inside[n] == inside[n].max()).sum()


def test_a_value_that_is_no_number_counts_in_the_power_alone() -> None:
    S = np.array([[1.0, np.nan, 3.0], [2.0, 5.0, 0.0]])
    power, peak, zeros, of_image = np.zeros(3), np.zeros(3), np.zeros(3, np.uint16), np.zeros((2, 4))
    count(S, 0, 3, power, peak, zeros, of_image)
    np.testing.assert_allclose(power, [2.5, np.nan, 4.5])
    assert peak.tolist() == [2, 5, 3] and zeros.tolist() == [0, 0, 1]
    assert of_image[0, LARGEST] == 3 and of_image[0, SMALLEST] == 1 and of_image[0, AT_LARGEST] == 1


@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.parametrize(("shape", "order"), [((7, 5, 4), "C"), ((7, 5, 4), "F"), ((50,), "C")])
def test_a_census_in_chunks_is_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], order: str, threads: int | None
) -> None:
    S = stored(np.random.default_rng(6).integers(-3, 3, (3, *shape)).astype(float), order)
    first, second, last = ((n,) * len(shape) for n in (0, 1, -1))
    S[(0, *first)] = S[(0, *last)] = 8
    S[(2, *second)] = -7
    monkeypatch.setattr(module, "_CHUNK", 16)
    found = Census.of(S, threads)
    assert found.shape == shape
    np.testing.assert_allclose(found.power, (S**2).mean(0))
    np.testing.assert_array_equal(found.brightest, abs(S).max(0))
    flat = S.reshape(3, -1)
    np.testing.assert_array_equal(found.zeros_of, (flat == 0).sum(1))
    np.testing.assert_array_equal(found.largest, flat.max(1))
    np.testing.assert_array_equal(found.smallest, flat.min(1))
    np.testing.assert_array_equal(found.at_largest, (flat == flat.max(1)[:, None]).sum(1))


@pytest.mark.parametrize("shape", [(3, 3), (3, 2), (2, 3), (3, 3, 1), (4, 5, 2), (9,), (2, 5, 6)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_planes_of_a_map(shape: tuple[int, ...], order: str) -> None:
    """A list and planes that are not 3 × 3 have none; sums are over the first two axes."""
    S = stored(np.random.default_rng(7).random((2, *shape)), order)
    planes = Planes.of(Census.of(S, 1).voxels)
    if len(shape) < 2 or min(shape[:2]) < 3:
        assert planes is None
        return
    assert planes is not None
    np.testing.assert_array_equal(planes.as_map(planes.of_map(S[0])), S[0])
    np.testing.assert_array_equal([planes.as_map(image) for image in planes.images], S)
    summed, largest = (planes.as_map(f(planes.of_map(S[0]))) for f in (planes.sums, planes.maxima))
    number = planes.as_map(planes.count(planes.of_map(S[1] > 0.5)))
    for i, j in itertools.product(range(shape[0]), range(shape[1])):
        near = (slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2))
        np.testing.assert_allclose(summed[i, j], S[0][near].sum((0, 1)))
        np.testing.assert_array_equal(largest[i, j], S[0][near].max((0, 1)))
        np.testing.assert_array_equal(number[i, j], (S[1][near] > 0.5).sum((0, 1)))
    everywhere = planes.of_map(np.ones(shape, bool))
    around = planes.images_around(everywhere, planes.count(everywhere), 1)
    assert around.shape == (4, *planes.shape)
    near = (slice(None), slice(0, 2), slice(0, 2))
    np.testing.assert_allclose(planes.as_map(around[0])[0, 0], S[near].mean((0, 1, 2)))
    dark = planes.on_a_line(planes.of_map(S[0]), planes.sums(planes.of_map(S[0])), (np.inf, -np.inf), everywhere)
    np.testing.assert_array_equal(planes.as_map(dark)[1, 1], True)
    corner = planes.as_map(dark)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corner.any() and everywhere.all()  # no line has a corner in its middle


def test_values_that_equal_the_one_some_voxels_before_are_counted_but_for_zeros() -> None:
    images = np.float32([[1, 1, 1, 0, 0, 2], [0.5, 1, 0.5, 1, 0.5, 1], [3, 2, 1, 3, 2, 1]])
    found = np.array([10, 0, 0])
    count_equal(images, 1, found)
    assert found.tolist() == [12, 0, 0]
    count_equal(images, 2, found)
    assert found.tolist() == [13, 4, 0]
    count_equal(images, 3, found)
    assert found.tolist() == [13, 4, 3]
