"""What is compiled for mapping gives what the lines for torch and NumPy give."""

from __future__ import annotations

import numpy as np
import pytest

import rimap
from rimap.estimators.rim import initial_estimate
from rimap.estimators.rim.averaging import average_of_alike
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.neighbour_sums import gaussian_sum
from rimap.estimators.rim.whole_field import smooth_field, smooth_field_of_alike

MODELS = {
    "ir": rimap.InversionRecovery(tau=[100, 300, 600, 1200, 2500]),
    "signed": rimap.InversionRecovery(tau=[100, 300, 600, 1200, 2500], signed=True),
    "tr": rimap.InversionRecovery(tau=[100, 300, 600, 1200], tr=2000.0),
}


def slice_of(model, sigma, shape=(40, 37), seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / 40
    kappa = np.stack([0.7 + 0.2 * x, 1.75 + 0.1 * y, np.where((x > 0.5) ^ (y > 0.4), 1300.0, 700.0)])
    S = model.signal(kappa) + sigma * rng.standard_normal((model.n_images, *shape))
    return S[:, None].astype(np.float32), kappa[1][None].astype(np.float32)


@pytest.mark.parametrize("width", [0.7, 1.4, 5.0])
def test_a_gaussian_sum_in_single_precision_is_the_matrix_product(width):
    C = np.random.default_rng(0).standard_normal((2, 9, 30))
    np.testing.assert_allclose(gaussian_sum(C.astype(np.float32), width), gaussian_sum(C, width), atol=3e-5)


@pytest.mark.parametrize("sigma", [0.003, 0.1])
def test_quietened_images_are_the_matrix_product(sigma):
    S, _ = slice_of(MODELS["ir"], sigma)
    s2 = np.full(S.shape[1:], sigma**2, np.float32)
    for fast, slow in zip(
        initial_estimate.quietened(S, s2), initial_estimate.quietened(S.astype(float), s2.astype(float))
    ):
        np.testing.assert_allclose(fast, slow, atol=2e-5 * abs(slow).max())


@pytest.mark.parametrize("rician", [False, True], ids=["gaussian", "rician"])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_start_at_a_known_B_is_that_of_training(name, rician):
    model = MODELS[name]
    if name == "signed" and rician:
        pytest.skip("signed data are never Rician")
    S, B = slice_of(model, 0.03)
    sigma = np.full((1, 1, 1), 0.03, np.float32)
    data = DataTerm(model, abs(S) if rician else S, sigma, rician)
    fast, slow = data.at_field(B), initial_estimate.at_field(data.problem, B)
    np.testing.assert_array_equal(fast[1], B)
    for q in (0, 2):
        off = abs(fast[q] / slow[q] - 1)
        assert np.median(off) < 1e-4
        assert (off > 1e-2).mean() < 0.01  # B is rounded in the search of the other: some voxels fall into another T


@pytest.mark.parametrize("masked", [False, True])
def test_the_B_of_a_whole_series_on_its_coarser_grid(masked):
    model, sigma = rimap.PROTOCOLS["IV_T1"], 0.005
    y, x = np.mgrid[:72, :67] / 70
    kappa = np.stack([0.7 + 0.2 * x, 1.75 + 0.15 * y - 0.05 * x, np.where((6 * x).astype(int) % 2, 1300.0, 700.0)])
    S = model.signal(kappa) + sigma * np.random.default_rng(0).standard_normal((31, *y.shape))
    mask = np.hypot(x - 0.5, y - 0.5) < 0.4 if masked else None
    series = rimap.WeightedSeries(
        images=300 * S.astype(np.float32), model=model, noise=rimap.Gaussian(sigma=300 * sigma), mask=mask
    )
    for rough in (False, True):
        B = smooth_field(series, threads=1, rough=rough).field
        assert np.median(abs(B - kappa[1])[mask if masked else ...]) < (0.02 if rough else 0.012)
    once_more = smooth_field_of_alike(series, [(np.arange(31), kappa)], B, threads=1).field
    assert np.median(abs(once_more - kappa[1])[mask if masked else ...]) < 0.012


def test_averages_of_every_other_voxel_are_those_of_all():
    rng = np.random.default_rng(0)
    T, A = np.exp(6 + 0.05 * rng.standard_normal((2, 21, 18)))
    images, where = rng.standard_normal((4, 21, 18)).astype(np.float32), rng.random((21, 18)) > 0.2
    full, some = (average_of_alike(images, T, A, where, every=n) for n in (1, 2))
    np.testing.assert_array_equal(full[0][:, ::2, ::2], some[0])
    np.testing.assert_array_equal(full[1][::2, ::2], some[1])
    assert (full[1][where] < 1).all() and (full[1][~where] == 1).all()


class _WithoutAmplitude(rimap.InversionRecovery):
    """1 − B e^(−t/T1): images in absolute units."""

    name = "without-amplitude"
    parameters = rimap.InversionRecovery.parameters[1:]


@pytest.mark.parametrize("level", [1.0, 0.2])
def test_the_field_of_a_model_without_an_amplitude_is_that_of_images_in_their_own_unit(level):
    """Neither images nor estimates are scaled, also where residuals of neighbours are compared for λ_B."""
    y, x = np.mgrid[:40, :40] / 40
    B = 1.6 + 0.25 * level * np.cos(6 * y) * np.sin(5 * x)
    model = _WithoutAmplitude(tau=[50, 150, 400, 900, 1800, 3500], signed=True)
    images = model.signal(np.stack([B, np.full(B.shape, 800.0)]))
    images += 0.01 * np.random.default_rng(0).standard_normal(images.shape)
    series = rimap.WeightedSeries(images, model, noise=rimap.Gaussian(0.01))
    found = smooth_field(series, threads=1)
    assert found.lambda_B < 1e6
    assert np.std(found.field - B) < 0.004
