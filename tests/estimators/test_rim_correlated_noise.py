"""Standard deviations of a network where neighbouring voxels share their noise, as in interpolated images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.bench_intervals import interpolated

import rimap
from rimap.correlation import NoiseCorrelation
from rimap.estimators.rim.correlated_noise import inflation

FILLED = tuple(float(x) for x in np.sinc(np.arange(1, 5) / 2))
MODEL = rimap.T2Decay(tau=[10, 25, 40, 60, 90, 130, 180, 250])


def test_noise_that_no_voxel_shares_changes_nothing() -> None:
    ratio = np.linspace(0.1, 3, 30).astype(np.float32)
    np.testing.assert_array_equal(inflation(ratio, NoiseCorrelation(((), ()))), 1)
    np.testing.assert_array_equal(inflation(ratio, NoiseCorrelation(((), (), FILLED))), 1)  # across slices


def test_a_voxel_by_itself_has_its_own_noise_whatever_others_have() -> None:
    np.testing.assert_allclose(inflation(np.float32([1.0, 2.5]), NoiseCorrelation((FILLED, FILLED))), 1, atol=0.01)
    assert np.isnan(inflation(np.float32([np.nan]), NoiseCorrelation((FILLED, FILLED)))).sum() == 0


@pytest.mark.parametrize("width", [0.5, 1.0, 1.6])
@pytest.mark.parametrize("axes", [(FILLED, FILLED), (FILLED, ())])
def test_a_gaussian_mean_of_correlated_noise_scatters_as_much(
    width: float, axes: tuple[tuple[float, ...], ...]
) -> None:
    correlation = NoiseCorrelation(axes)
    noise = correlation.coloured(np.random.default_rng(0).standard_normal((40, 64, 64)), (0, 1))
    kernel = np.exp(-0.5 * (np.arange(-32, 32) / width) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    mean = np.fft.irfft2(np.fft.rfft2(noise) * np.fft.rfft2(np.fft.ifftshift(kernel)), (64, 64))
    alone = np.sqrt((kernel**2).sum())
    assert inflation(np.float32(alone), correlation) == pytest.approx(mean.std() / alone, rel=0.04)


@pytest.mark.parametrize("snr", [10.0, 40.0])
def test_intervals_in_interpolated_images_contain_the_truth(snr: float) -> None:
    y, x = np.mgrid[:64, :64] / 64
    kappa = np.stack([0.7 + 0.1 * x, 80 + 20 * np.sin(4 * y) + 10 * x])
    series = interpolated(MODEL, kappa, 0.65 / snr, 2.0, draw=0)
    maps = rimap.RIM.load("universal").estimate(series)
    assert maps.sd is not None and maps.correlation is not None and maps.correlation.voxels == pytest.approx(4, rel=0.2)
    held = abs(maps["T2"] - kappa[1]) < 1.96 * maps.sd["T2"]
    assert 0.9 <= held.mean() <= 0.995
    white = interpolated(MODEL, kappa, 0.65 / snr, 1.0, draw=0)
    scatter = rimap.RIM.load("universal").estimate(white)
    assert scatter.sd is not None and np.median(maps.sd["T2"] / scatter.sd["T2"]) > 1.15


def test_images_that_were_denoised_have_no_known_correlation() -> None:
    series = interpolated(MODEL, np.stack([np.full((48, 48), 0.7), np.full((48, 48), 80.0)]), 0.03, 2.0, draw=0)
    known, unknown = (rimap.RIM.load("universal").estimate(replace(series, denoised=how)) for how in ("", "MP-PCA"))
    assert known.correlation is not None and unknown.correlation is None
