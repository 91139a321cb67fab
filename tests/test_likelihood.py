"""Noise: densities, scores, samples, information, and the bound that follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rimap import InputError, InversionRecovery, T2Decay
from rimap.likelihood import (
    Gaussian,
    Noise,
    Rician,
    cramer_rao_covariance,
    cramer_rao_sd,
    fisher_information,
    gradient,
    inverse_information,
)

NOISES = [Gaussian(sigma=2.5), Rician(sigma=2.5)]  # 2 would hide a square: 2² = 2 × 2
kinds = pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.name)


def _grid(noise: Noise, f: float) -> np.ndarray:
    low = 1e-9 if isinstance(noise, Rician) else f - 30.0
    return np.linspace(low, f + 30.0, 20_001)


@kinds
@pytest.mark.parametrize("f", [0.0, 0.7, 3.0, 25.0, 300.0])
def test_the_density_integrates_to_one_and_has_the_information_it_says(noise: Noise, f: float) -> None:
    S = _grid(noise, f)
    S = S[S > 0] if isinstance(noise, Rician) else S
    p = np.exp(-noise.nll(S, np.full_like(S, f)))
    assert np.trapezoid(p, S) == pytest.approx(1, abs=1e-6)
    score = noise.score(S, np.full_like(S, f))
    assert np.trapezoid(p * score, S) == pytest.approx(0, abs=1e-6)
    information = np.trapezoid(p * score**2, S)
    assert float(noise.information(np.array([f]))[0]) == pytest.approx(information, rel=2e-3, abs=1e-6)


@kinds
def test_the_score_is_the_derivative_of_the_nll(noise: Noise) -> None:
    rng = np.random.default_rng(0)
    S, f0 = 10 * rng.random(200) + 0.1, 20 * rng.random(200)
    f = torch.tensor(f0, requires_grad=True)
    nll = noise.nll(torch.tensor(S), f)
    (derivative,) = torch.autograd.grad(nll.sum(), f)
    np.testing.assert_allclose(derivative.numpy(), noise.score(S, f0), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(nll.detach().numpy(), noise.nll(S, f0), rtol=1e-10)
    np.testing.assert_allclose(noise.score(torch.tensor(S), f).detach().numpy(), noise.score(S, f0), rtol=1e-10)


def test_samples_have_the_moments_of_their_distribution() -> None:
    rng, n = np.random.default_rng(1), 400_000
    for f in (0.0, 3.0, 40.0):
        S = Gaussian(sigma=2.0).sample(np.full(n, f), rng)
        assert S.mean() == pytest.approx(f, abs=0.02) and S.std() == pytest.approx(2.0, rel=0.01)
        S = Rician(sigma=2.0).sample(np.full(n, f), rng)
        assert (S >= 0).all() and (S**2).mean() == pytest.approx(f**2 + 8, rel=0.01)
    rayleigh = Rician(sigma=2.0).sample(np.zeros(n), rng)
    assert rayleigh.mean() == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.01)


def test_rician_becomes_gaussian_at_high_snr() -> None:
    S, f = np.array([990.0, 1000.0, 1015.0]), np.full(3, 1000.0)
    np.testing.assert_allclose(Rician(sigma=10.0).nll(S, f), Gaussian(sigma=10.0).nll(S, f), atol=0.02)
    assert Rician(sigma=1.0).information(np.array([1e5]))[0] == pytest.approx(1.0)
    assert Rician(sigma=1.0).nll(np.array([0.0, -1.0]), np.ones(2)).tolist() == [np.inf, np.inf]


@kinds
def test_sigma_may_be_a_map(noise: Noise) -> None:
    rng = np.random.default_rng(2)
    sigma, f = 1 + rng.random((4, 5)), 10 * rng.random((3, 4, 5))
    S = f + rng.random(f.shape)
    mapped = type(noise)(sigma=sigma)
    single = type(noise)(sigma=sigma[2, 3])
    np.testing.assert_allclose(mapped.nll(S, f)[:, 2, 3], single.nll(S[:, 2, 3], f[:, 2, 3]))
    np.testing.assert_allclose(mapped.information(f)[:, 2, 3], single.information(f[:, 2, 3]))


@kinds
def test_bad_sigma_is_refused(noise: Noise) -> None:
    for sigma in (0.0, -1.0, np.nan, np.inf, np.zeros((2, 2)), np.array([1.0, 0.0]), np.array([np.nan, np.nan])):
        with pytest.raises(InputError, match="sigma: expected a positive number"):
            type(noise)(sigma=sigma)
    assert type(noise)(sigma=[0.5, np.nan]).sigma.tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    with pytest.raises(InputError, match="no sigma yet"):
        type(noise)().nll(np.ones(1), np.ones(1))


@kinds
def test_the_gradient_is_that_of_autograd(noise: Noise) -> None:
    model = InversionRecovery(tau=[50, 400, 1100, 2500], tr=3000)
    kappa = np.array([[100.0, 80.0], [1.9, 1.7], [900.0, 1400.0]])
    S = noise.sample(model.signal(kappa * 1.05), np.random.default_rng(3))
    tensor = torch.tensor(kappa, requires_grad=True)
    (expected,) = torch.autograd.grad(noise.nll(torch.tensor(S), model.signal(tensor)).sum(), tensor)
    np.testing.assert_allclose(gradient(model, noise, S, kappa), expected.numpy(), rtol=1e-7)
    F = fisher_information(model, noise, kappa)
    assert F.shape == (3, 3, 2)
    np.testing.assert_allclose(F, np.swapaxes(F, 0, 1))


def test_the_bound_of_a_known_case() -> None:
    # One exponential at two times: log(S1/S2) = (t2 − t1)/T, error propagation gives the bound.
    model, T, A, sigma = T2Decay(tau=[10, 60]), 50.0, 100.0, 0.5
    f = model.signal(np.array([A, T]))
    expected = T**2 / 50 * sigma * np.hypot(1 / f[0], 1 / f[1])
    assert cramer_rao_sd(model, Gaussian(sigma=sigma), np.array([[A], [T]]))[1, 0] == pytest.approx(expected)
    assert np.isnan(cramer_rao_sd(model, Gaussian(sigma=sigma), np.array([[0.0], [T]]))).any()


@pytest.mark.parametrize("f", [0.0, 0.3, 0.9, 1.7, 3.0, 19.0, 25.0, 199.0, 300.0, 3000.0])
def test_the_mean_is_that_of_the_density(f: float) -> None:
    noise = Rician(sigma=2.5)
    S = _grid(noise, f)
    S = S[S > 0]
    expected = np.trapezoid(S * np.exp(-noise.nll(S, np.full_like(S, f))), S)
    assert noise.mean([f, -f]) == pytest.approx(expected, rel=1e-5)
    assert Gaussian(sigma=2.5).mean([f, -f]).tolist() == [f, -f]


def test_a_signal_and_its_opposite_have_the_same_information() -> None:
    f = np.array([0.1, 1.0, 4.0])
    for noise in NOISES:
        np.testing.assert_allclose(noise.information(-f), noise.information(f))
    assert Rician(sigma=2.0).score(np.array([3.0]), np.array([-1.0])) == pytest.approx(
        -Rician(sigma=2.0).score(np.array([3.0]), np.array([1.0]))
    )


def test_the_bound_is_the_inverse_of_the_information_of_what_is_unknown() -> None:
    model, noise = InversionRecovery(tau=[50, 400, 1100, 2500], tr=3000), Rician(sigma=2.0)
    kappa = np.array([[100.0, 80.0], [1.9, 1.7], [900.0, 1400.0]])
    F = fisher_information(model, noise, kappa)
    found = cramer_rao_covariance(model, noise, kappa)
    for voxel in range(2):
        np.testing.assert_allclose(found[..., voxel], np.linalg.inv(F[..., voxel]), rtol=1e-6)
    held = cramer_rao_covariance(model, noise, kappa, held=["B"])
    free = [0, 2]
    for voxel in range(2):
        expected = np.linalg.inv(F[np.ix_(free, free)][..., voxel])
        np.testing.assert_allclose(held[np.ix_(free, free)][..., voxel], expected, rtol=1e-6)
    assert np.isnan(held[1]).all() and np.isnan(held[:, 1]).all()
    assert (cramer_rao_sd(model, noise, kappa, held=["B"])[free] < cramer_rao_sd(model, noise, kappa)[free]).all()


def test_two_images_at_one_time_do_not_count_twice() -> None:
    """Their information is singular, but finite."""
    model, noise = InversionRecovery(tau=[400, 1100, 1100.0000001], tr=3000), Gaussian(sigma=1.0)
    kappa = np.array([[100.0], [1.9], [900.0]])
    assert np.isfinite(fisher_information(model, noise, kappa)).all()
    assert np.isnan(cramer_rao_covariance(model, noise, kappa)).all()
    assert np.isfinite(cramer_rao_sd(model, noise, kappa, held=["B"])[[0, 2]]).all()


def test_what_the_other_parameters_hide_is_not_determined() -> None:
    """The variance of each of two parameters with a correlation of r grows by 1/(1 − r²), whatever their units are."""
    units = np.array([1e-6, 1e4])
    r = np.array([0.0, 0.9, np.sqrt(1 - 1e-11), 1 - 1e-14, 1.0, np.nan])
    F = np.array([[[1, x], [x, 1]] for x in r]) * units[:, None] * units
    inverse = inverse_information(F)
    np.testing.assert_allclose(
        np.einsum("kii->ki", inverse[:3]) * units**2, np.repeat(1 / (1 - r[:3, None] ** 2), 2, axis=1), rtol=1e-3
    )
    assert np.isnan(inverse[3:]).all()
    np.testing.assert_array_equal(inverse[:3], inverse_information(F[:3]))  # a singular neighbour changes nothing
    np.testing.assert_array_equal(inverse_information(F.reshape(2, 3, 2, 2)), inverse.reshape(2, 3, 2, 2))
    np.testing.assert_array_equal(inverse_information(F[1]), inverse[1])
    assert np.isnan(inverse_information(np.ones((1, 4, 3, 3)))).all() and np.isnan(inverse_information(F[5])).all()


@pytest.mark.parametrize("sigma", ["x", [1, "x"], object(), {"sigma": 1}])
@pytest.mark.parametrize("kind", [Gaussian, Rician])
def test_a_sigma_that_is_no_number_is_refused(kind, sigma):
    with pytest.raises(InputError, match="sigma: expected a positive number"):
        kind(sigma=sigma)


@pytest.mark.parametrize("noise", [Gaussian, Rician])
def test_a_part_of_a_map_of_sigma_may_have_no_value(noise: type[Noise]) -> None:
    """A slab of air beside a masked map of σ is no error."""
    sigma = np.array([[np.nan, np.nan], [2.0, 4.0]])
    whole = noise(sigma=sigma)
    np.testing.assert_array_equal(whole.at((0,)).sigma, sigma[0])
    assert np.isnan(whole.at((0,)).typical_sigma())
    assert type(whole.at((1,))) is noise and whole.at((1,)).typical_sigma() == 3.0
    assert noise(sigma=2.0).at((1,)).sigma == 2.0


def test_a_sample_is_the_signal_and_sigma_times_normal_values() -> None:
    f = np.array([[1.0, 2.0], [3.0, 4.0]])
    normal = np.random.default_rng(4).standard_normal(f.shape)
    np.testing.assert_allclose(Gaussian(sigma=0.5).sample(f, np.random.default_rng(4)), f + 0.5 * normal)


@pytest.mark.parametrize("noise", [Gaussian, Rician])
def test_what_a_masked_map_of_sigma_hides_is_unknown(noise: type[Noise]) -> None:
    values = np.ma.masked_equal([2.0, 99.0], 99.0)
    np.testing.assert_array_equal(noise(values).sigma, [2.0, np.nan])
    with pytest.raises(InputError, match="expected a positive number"):
        noise(np.array([2.0 + 1j]))
