"""What the residuals of neighbours share counts against the evidence for a field; white noise shares nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import rimap
from rimap.estimators.mle.shared_residuals import variance_inflation
from rimap.likelihood import Noise

MODEL = rimap.InversionRecovery(tau=[50, 150, 300, 500, 800, 1200, 1800, 2600, 4000])
KAPPA = np.stack([np.full((72, 64), 1.0), np.full((72, 64), 1.9), np.full((72, 64), 900.0)])


def inflation(errors: np.ndarray, noise: Noise | None = None, kappa: np.ndarray = KAPPA) -> float:
    """Return the variance inflation of a series whose residuals are these (N, X, Y)."""
    images = MODEL.signal(kappa) + errors
    series, voxels = rimap.WeightedSeries(images, MODEL), np.arange(72 * 64)
    rows, maps = images.reshape(len(images), -1).T, kappa.reshape(3, -1)
    return variance_inflation(series, rows, maps, voxels, noise or rimap.Gaussian(1.0))


def test_white_noise_is_not_inflated() -> None:
    assert inflation(0.02 * np.random.default_rng(0).standard_normal((9, 72, 64))) == 1.0


def test_zero_filled_noise_is_inflated_by_the_voxels_that_share_a_value() -> None:
    """Noise of half the resolution: correlations of 0.64 and 0 at lags 1 and 2 along both axes."""
    white = np.random.default_rng(1).standard_normal((9, 72, 64))
    spectrum = np.fft.fftn(white, axes=(1, 2))
    for axis in (1, 2):
        f = np.abs(np.fft.fftfreq(white.shape[axis]))
        spectrum *= (f < 0.25).reshape([-1 if a == axis else 1 for a in range(3)])
    found = inflation(0.02 * np.fft.ifftn(spectrum, axes=(1, 2)).real)
    assert found == pytest.approx((1 + 2 * 0.6366) ** 2, rel=0.1)


def test_the_mean_of_magnitudes_is_no_error_that_neighbours_share() -> None:
    """A fifth of the noise remains of a signal; the mean of its magnitude is 1.26 times σ."""
    rng, sigma = np.random.default_rng(5), 0.1
    kappa = KAPPA * np.array([0.02, 1.0, 1.0])[:, None, None]
    signal = MODEL.signal(kappa)
    errors = (
        np.hypot(signal + sigma * rng.standard_normal(signal.shape), sigma * rng.standard_normal(signal.shape)) - signal
    )
    assert inflation(errors, rimap.Rician(sigma), kappa) == 1.0
    assert inflation(errors, rimap.Gaussian(sigma), kappa) > 10


def test_an_error_of_the_model_that_a_region_shares_takes_its_evidence_away() -> None:
    rng = np.random.default_rng(2)
    pattern = rng.standard_normal(9)[:, None, None] * (1 + 0.2 * gaussian_filter(rng.standard_normal((72, 64)), 6))
    assert inflation(0.05 * pattern + 0.02 * rng.standard_normal((9, 72, 64))) > 20


def test_the_field_of_zero_filled_images_is_as_smooth_as_that_of_others() -> None:
    """Without the inflation, correlated noise passes for a field: λ_B was at the end of its ladder."""
    rng = np.random.default_rng(3)
    x = np.linspace(-1, 1, 96)
    kappa = np.stack([np.ones((96, 96)), 1.9 - 0.1 * x**2 + np.zeros((96, 1)), np.full((96, 96), 900.0)])
    white = rng.standard_normal((9, 96, 96))
    spectrum = np.fft.fftn(white, axes=(1, 2))
    low = np.abs(np.fft.fftfreq(96)) < 0.25
    noise = 0.03 * 2 * np.fft.ifftn(spectrum * low[:, None] * low, axes=(1, 2)).real
    series = rimap.WeightedSeries(MODEL.signal(kappa) + noise, MODEL, rimap.Gaussian(sigma=0.03))
    assert rimap.MLE(threads=1).estimate(series).settings["lambda_B"] >= 1e4
