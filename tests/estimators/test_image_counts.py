"""What is counted once for all checks, beside plain NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.trust_scenes import TI4, head, inversion
from scipy.ndimage import maximum_filter, uniform_filter

import rimap
from rimap.estimators.checks.background import background
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.neighbour_planes import Planes
from rimap.estimators.sigma import dark_below, quantile


def images(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Return five images with zeros, a pile at the largest value of one, NaN and ∞."""
    S = np.random.default_rng(0).standard_normal((5, *shape)).astype(dtype)
    S[:, ::7] = 0
    S[1] = np.minimum(S[1], 0.5)
    S[2].flat[3], S[3].flat[5] = np.nan, np.inf
    return S


def stored(S: np.ndarray, order: str) -> np.ndarray:
    """Return images (N, *X) one after another, each in C or in Fortran order."""
    backwards = (0, *range(S.ndim - 1, 0, -1))
    return (
        np.ascontiguousarray(S.transpose(backwards)).transpose(backwards) if order == "F" else np.ascontiguousarray(S)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(70_001,), (40, 37), (12, 11, 5)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_census_is_that_of_numpy(shape: tuple[int, ...], order: str, dtype: type) -> None:
    S = stored(images(shape, dtype), order)
    flat = S.reshape(len(S), -1)
    found = Census.of(S, threads=2)
    assert found.shape == shape
    np.testing.assert_allclose(found.power, np.square(S, dtype=float).mean(0), rtol=1e-14)
    np.testing.assert_array_equal(found.brightest, np.nanmax(abs(S), 0))
    np.testing.assert_array_equal(found.voxels.unflatten(found.zeros), (S == 0).sum(0))
    np.testing.assert_array_equal(found.zeros_of, (flat == 0).sum(1))
    np.testing.assert_array_equal(found.largest, np.nanmax(flat, 1))
    np.testing.assert_array_equal(found.smallest, np.nanmin(flat, 1))
    np.testing.assert_array_equal(found.at_largest, [(x == np.nanmax(x)).sum() for x in flat])


@pytest.mark.parametrize("shape", [(9, 8), (3, 3), (9, 8, 4), (3, 20, 2)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("half", [1, 2])
def test_sums_and_maxima_over_neighbours_in_a_plane(shape: tuple[int, ...], order: str, half: int) -> None:
    S = stored(np.random.default_rng(0).random((3, *shape)), order)
    planes = Planes.of(Census.of(S).voxels)
    assert planes is not None
    size = [2 * half + 1] * 2 + [1] * (len(shape) - 2)
    sums = planes.as_map(planes.sums(planes.of_map(S[0]), half))
    np.testing.assert_allclose(sums, size[0] ** 2 * uniform_filter(S[0], size, mode="constant"))
    maxima = planes.as_map(planes.maxima(planes.of_map(S[0]), half))
    np.testing.assert_array_equal(maxima, maximum_filter(S[0], size))
    where = planes.of_map(S[1] > 0.5)
    assert planes.count(where, half).sum() == pytest.approx(planes.sums(where, half).sum())


@pytest.mark.parametrize("order", ["C", "F"])
def test_images_around_a_voxel(order: str) -> None:
    S = stored(np.random.default_rng(0).random((4, 7, 6, 2)), order)
    planes = Planes.of(Census.of(S).voxels)
    assert planes is not None
    where = S[0] > 0.2
    chosen = planes.of_map(where)
    found = planes.images_around(chosen, planes.count(chosen), 4)
    square = (slice(2, 5), slice(1, 4), 1)  # around voxel (3, 2, 1)
    values = S[(slice(None), *square)][:, where[square]]
    mean = values.mean(1)
    expected = [mean.mean(), mean.var(ddof=1), ((values - mean[:, None]) ** 2).sum(), (values.mean(0) ** 2).sum()]
    np.testing.assert_allclose([planes.as_map(row)[3, 2, 1] for row in found], expected)


def test_air_does_not_depend_on_the_order_in_memory_or_on_planes_beside() -> None:
    scene = head(inversion(TI4), size=48, planes=2)
    S, usable = scene.noisy(15), np.ones(scene.air.shape, bool)
    found = background(Census.of(S), 0.65 / 15, signed=False, usable=usable)
    assert found[scene.air].mean() > 0.98
    turned = background(Census.of(stored(S, "F")), 0.65 / 15, signed=False, usable=usable)
    np.testing.assert_array_equal(found, turned)


def test_threads_change_nothing() -> None:
    scene = head(inversion(TI4), size=48, planes=2)
    one, two = (rimap.NLLS(threads=n).estimate(rimap.WeightedSeries(scene.noisy(10), scene.model)) for n in (1, 2))
    np.testing.assert_array_equal(one.status, two.status)
    assert one.warnings == two.warnings


@pytest.mark.parametrize("q", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantile_is_that_of_numpy(q: float, dtype: type) -> None:
    x = np.random.default_rng(0).gamma(1.0, size=20_011).astype(dtype)
    assert quantile(x, q) == pytest.approx(float(np.quantile(x, q)), rel=1e-6)


def test_dark_values_are_told_from_bright_ones() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(1, 0.1, 3000), rng.normal(10, 1, 2000)])
    limit = dark_below(x)
    assert (x[:3000] < limit).mean() > 0.99 and (x[3000:] > limit).all()
    assert dark_below(np.ones(100)) == pytest.approx(0.1)
