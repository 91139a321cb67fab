"""Which axis is that of slices does not matter for a volume of one slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import rimap
from rimap.evaluation.resolution import resolution

MODEL = rimap.InversionRecovery(tau=(50.0, 300.0, 800.0, 1600.0, 3500.0))


def slice_(snr: float = 30.0) -> rimap.WeightedSeries:
    """One slice (Y, Z, 1), whose B bends and whose rows and columns differ, with a map of σ."""
    y, z = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 32), indexing="ij")
    kappa = np.stack([np.ones_like(y), 1.85 - 0.05 * y**2, 900 + 500 * (abs(z) < 0.5)])
    images = MODEL.signal(kappa) + np.random.default_rng(0).standard_normal((5, 40, 32)) / snr
    affine = np.diag([2.0, 3.0, 1.0, 1.0])
    mask = (y**2 + z**2 < 0.9)[..., None]
    sigma = np.full((40, 32, 1), 1 / snr)
    return rimap.WeightedSeries(images[..., None], MODEL, rimap.Gaussian(sigma=sigma), mask=mask, affine=affine)


def turned(series: rimap.WeightedSeries, order: tuple[int, int, int]) -> rimap.WeightedSeries:
    return replace(
        series,
        images=series.images.transpose(0, *(1 + axis for axis in order)),
        mask=series.mask.transpose(order),
        noise=rimap.Gaussian(sigma=series.noise.sigma.transpose(order)),
        affine=series.affine[:, [*order, 3]],
    )


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1)])
@pytest.mark.parametrize("estimator", [rimap.MLE(threads=1), rimap.NLLS(threads=1), rimap.RIM(threads=1)])
def test_a_slice_has_the_same_maps_whichever_axis_it_has_one_voxel_along(
    estimator: rimap.MLE | rimap.NLLS | rimap.RIM, order: tuple[int, int, int]
) -> None:
    series = slice_()
    other = turned(series, order)
    whole, found = estimator.estimate(series), estimator.estimate(other)
    for name in ("status", "kappa", "sd_kappa", "residual"):
        expected = getattr(whole, name)
        before = expected.ndim - 3
        expected = expected.transpose(*range(before), *(before + axis for axis in order))
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)
    np.testing.assert_array_equal(found.affine, other.affine)
    assert found.noise.sigma.shape == other.shape
    assert found.warnings == whole.warnings
    assert (found.correlation is None) == (whole.correlation is None)
    if estimator.smooths:
        assert resolution(other, found, estimator) == resolution(series, whole, estimator)


def test_a_sigma_outside_the_mask_does_not_matter() -> None:
    series = slice_(snr=8.0)
    expected = rimap.RIM(threads=1).estimate(series)
    for outside in (1e-3, 3.0, np.nan):
        sigma = np.where(series.mask, series.noise.sigma, outside)
        found = rimap.RIM(threads=1).estimate(replace(series, noise=rimap.Gaussian(sigma=sigma)))
        np.testing.assert_array_equal(found.kappa, expected.kappa)
        assert found.warnings == expected.warnings


@pytest.mark.parametrize("thickness", [0.5, 1.0, 8.0])
def test_the_thickness_of_one_slice_does_not_matter(thickness: float) -> None:
    series = slice_()
    thick = replace(series, affine=np.diag([2.0, 3.0, thickness, 1.0]))
    for estimator in (rimap.MLE(threads=1, lambda_B=1e4), rimap.RIM(threads=1)):
        np.testing.assert_array_equal(estimator.estimate(thick).kappa, estimator.estimate(series).kappa)
