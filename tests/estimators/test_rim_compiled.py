"""What is compiled for mapping gives what the lines for torch and NumPy give."""

from __future__ import annotations

import numpy as np
import pytest

import rimap
from rimap.estimators import start
from rimap.estimators.neighbours import gaussian_sum
from rimap.estimators.rim import DataTerm

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
    for fast, slow in zip(start.quietened(S, s2), start.quietened(S.astype(float), s2.astype(float))):
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
    fast, slow = data.at_B(B), start.at_B(model, data.S, B, sigma, data)
    np.testing.assert_array_equal(fast[1], B)
    for q in (0, 2):
        off = abs(fast[q] / slow[q] - 1)
        assert np.median(off) < 1e-4
        assert (off > 1e-2).mean() < 0.01  # B is rounded in the search of the other: some voxels fall into another T
