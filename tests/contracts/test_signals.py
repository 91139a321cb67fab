"""What every signal model must hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rimap import InputError
from rimap.signals import SignalModel

from .cases import MODELS, TAU, draw

pytestmark = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
seeds = settings(max_examples=8, deadline=None)(given(seed=st.integers(0, 2**32 - 1)))


def _steady(model: SignalModel, kappa: np.ndarray) -> np.ndarray:
    """Where no image is near a change of sign: a modulus has no derivative there."""
    f = model.signal(kappa)
    return abs(f) > 1e-3 * abs(f).max()


@seeds
def test_partials_are_those_of_finite_differences(model: SignalModel, seed: int) -> None:
    kappa = draw(model, (5,), seed)
    partials = model.partials(kappa)
    assert partials.shape == (len(TAU), len(kappa), 5)
    for q in range(len(kappa)):
        h = 1e-5 * kappa[q]
        up, down = kappa.copy(), kappa.copy()
        up[q] += h
        down[q] -= h
        numeric = (model.signal(up) - model.signal(down)) / (2 * h)
        scale = abs(model.signal(kappa)).max() / kappa[q]
        assert (abs(numeric - partials[:, q]) / scale)[_steady(model, kappa)].max() < 1e-6


@seeds
def test_partials_are_those_of_autograd_and_torch_gives_what_numpy_gives(model: SignalModel, seed: int) -> None:
    kappa = draw(model, (2, 3), seed)
    tensor = torch.tensor(kappa, requires_grad=True)
    f = model.signal(tensor)
    unit = abs(kappa[0]).max()  # near a zero crossing the rounding is that of A
    np.testing.assert_allclose(f.detach().numpy(), model.signal(kappa), rtol=1e-12, atol=1e-14 * unit)
    np.testing.assert_allclose(model.partials(tensor).detach().numpy(), model.partials(kappa), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(model.initial_guess(f).detach().numpy(), model.initial_guess(model.signal(kappa)))
    for n in range(len(f)):
        (gradient,) = torch.autograd.grad(f[n].sum(), tensor, retain_graph=True)
        np.testing.assert_allclose(gradient.numpy(), model.partials(kappa)[n], rtol=1e-9, atol=1e-12)


@seeds
def test_a_voxel_does_not_see_its_neighbours(model: SignalModel, seed: int) -> None:
    kappa = draw(model, (2, 3, 4), seed)
    f, d = model.signal(kappa), model.partials(kappa)
    assert f.shape == (len(TAU), 2, 3, 4)
    one = kappa[:, 1, 2, 3]
    np.testing.assert_allclose(model.signal(one), f[:, 1, 2, 3], rtol=1e-13)
    np.testing.assert_allclose(model.partials(one), d[:, :, 1, 2, 3], rtol=1e-12)
    assert model.signal(kappa.astype(np.float32)).dtype == np.float32


@seeds
def test_the_order_of_the_images_is_that_of_the_times(model: SignalModel, seed: int) -> None:
    kappa = draw(model, (4,), seed)
    order = np.random.default_rng(seed).permutation(len(TAU))
    shuffled = model.subset(order)
    np.testing.assert_allclose(shuffled.signal(kappa), model.signal(kappa)[order], rtol=1e-14)
    np.testing.assert_allclose(shuffled.partials(kappa), model.partials(kappa)[order], rtol=1e-14)


@seeds
def test_the_signal_scales_with_A(model: SignalModel, seed: int) -> None:
    kappa = draw(model, (4,), seed)
    scaled = kappa.copy()
    scaled[0] *= 1e6
    np.testing.assert_allclose(model.signal(scaled), 1e6 * model.signal(kappa), rtol=1e-12)
    images = model.signal(kappa)
    guess = model.initial_guess(images)
    assert guess.shape == kappa.shape
    np.testing.assert_allclose(model.initial_guess(7 * images)[0], 7 * guess[0])


@seeds
def test_the_basis_spans_the_signal(model: SignalModel, seed: int) -> None:
    if not model.separable:
        pytest.skip("the model gives no basis")
    kappa = draw(model, (4,), seed)
    phi = model.basis(kappa[-1])
    assert phi.shape == (len(TAU), len(kappa) - 1, 4)
    f = kappa[0] * (phi[:, 0] + (kappa[1] * phi[:, 1] if len(kappa) == 3 else 0))
    np.testing.assert_allclose(abs(f) if model.magnitude else f, model.signal(kappa), rtol=1e-10, atol=1e-14)


@seeds
def test_all_is_finite_in_the_whole_box(model: SignalModel, seed: int) -> None:
    kappa = draw(model, (50,), seed, inner=0.0)
    kappa[1:, 0] = [p.bounds[0] for p in model.parameters[1:]]
    kappa[1:, 1] = [p.bounds[1] for p in model.parameters[1:]]
    assert np.isfinite(model.signal(kappa)).all() and np.isfinite(model.partials(kappa)).all()
    if model.magnitude:
        assert (model.signal(kappa) >= 0).all()


def test_it_describes_itself(model: SignalModel) -> None:
    names = [p.name for p in model.parameters]
    assert len(set(names)) == len(names)
    assert model.name and model.title and model.bids_suffix and model.axis.bids
    assert all(p.bounds[0] < p.bounds[1] and p.unit for p in model.parameters)
    assert [model.index(n) for n in names] == list(range(len(names)))
    assert model.n_images == len(TAU)
    assert dataclasses.replace(model) == model and hash(dataclasses.replace(model)) == hash(model)


def test_impossible_times_are_refused(model: SignalModel) -> None:
    Q, settings_ = len(model.parameters), {"tr": None} if hasattr(model, "tr") else {}
    for tau in ([-1.0, *TAU[1:]], [np.nan, *TAU[1:]], [100.0] * 7, list(TAU[: Q - 1]), ["a"] * 7):
        with pytest.raises(InputError):
            dataclasses.replace(model, tau=tau, **settings_)
    repeats = dataclasses.replace(model, tau=[*TAU[:Q], *TAU[:Q]], **settings_)
    assert repeats.n_images == 2 * Q
