"""Quantiles and neighbours without SciPy are those of SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, special

from rimap.estimators.checks.connected_areas import areas
from rimap.estimators.quantiles import chi2_quantile, f_quantile


@pytest.mark.parametrize("free", [1, 2, 3, 5, 8, 12, 37, 64, 200, 2000])
@pytest.mark.parametrize("q", [1e-9, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-9])
def test_quantiles_of_chi_squared_are_those_of_scipy(q: float, free: int) -> None:
    upper = 2 * special.gammainccinv(free / 2, 1 - q)
    expected = 2 * special.gammaincinv(free / 2, q) if q < 0.5 else upper
    assert chi2_quantile(q, free) == pytest.approx(expected, rel=2e-12)


def test_quantiles_at_the_ends() -> None:
    assert chi2_quantile(0.0, 3) == 0.0 and chi2_quantile(1.0, 3) == np.inf
    assert np.isnan(chi2_quantile(1.5, 3)) and np.isnan(chi2_quantile(0.5, 0))


@pytest.mark.parametrize("images", [2, 3, 6, 19, 32, 400])
def test_quantiles_of_the_ratio_of_variances_are_those_of_scipy(images: int) -> None:
    for over in range(1, 9):
        under = (images - 1) * over
        assert f_quantile(0.999, over, under) == pytest.approx(special.fdtri(over, under, 0.999), rel=1e-9)


@pytest.mark.parametrize("shape", [(40, 30), (1, 50), (12, 10, 7), (9, 8, 1)])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
def test_areas_are_those_of_a_labelled_volume(shape: tuple[int, ...], share: float) -> None:
    where = np.random.default_rng(7).random(shape) < share
    groups, _ = ndimage.label(where, np.ones((3,) * where.ndim))
    for fewest in (1, 2, 6, 40):
        large = np.bincount(groups.reshape(-1)) >= fewest
        large[0] = False
        assert np.array_equal(areas(where, fewest), large[groups])


def test_an_area_that_winds_is_one_area() -> None:
    spiral = np.zeros((41, 41), bool)
    for ring in range(0, 20, 2):
        spiral[ring, ring : 41 - ring] = spiral[40 - ring, ring : 41 - ring] = True
        spiral[ring : 41 - ring, ring] = spiral[ring : 41 - ring, 40 - ring] = True
        spiral[ring + 1, ring] = False
        spiral[ring + 2, ring + 1] = True
    assert np.array_equal(areas(spiral, int(spiral.sum())), spiral)
