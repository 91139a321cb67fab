"""What holds for every signal model whatever its settings; the tests of a sequence call it with their own models."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from rimap.signals import SignalModel


def draw(model: SignalModel, n: int, seed: int = 0) -> NDArray[np.float64]:
    """Return κ (Q, n) inside the box, a little away from its sides."""
    rng = np.random.default_rng(seed)
    rows = []
    for p in model.parameters:
        low, high = p.bounds
        u = rng.uniform(0.2, 0.8, n)
        if not np.isfinite(high):
            rows.append(0.5 + u)
        elif p.transform == "log":
            rows.append(low * (high / low) ** u)
        else:
            rows.append(low + (high - low) * u)
    return np.stack(rows)


def check(model: SignalModel, seed: int = 0) -> None:
    """Assert all properties of one model."""
    kappa = draw(model, 6, seed)
    f, d = np.asarray(model.signal(kappa)), np.asarray(model.partials(kappa))
    assert f.shape == (model.n_images, 6)
    assert d.shape == (model.n_images, len(model.parameters), 6)
    _slopes_are_those_of_finite_differences(model, kappa, f, d)
    _torch_gives_what_numpy_gives(model, kappa, f, d)
    np.testing.assert_allclose(model.signal(kappa.reshape(-1, 2, 3)), f.reshape(-1, 2, 3), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(model.signal(kappa[:, 2]), f[:, 2], rtol=1e-12, atol=1e-14)
    single = np.asarray(model.signal(kappa.astype(np.float32)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, f, atol=2e-5 * abs(f).max())
    order = np.random.default_rng(seed).permutation(model.n_images)
    np.testing.assert_allclose(model.subset(order).signal(kappa), f[order], rtol=1e-12, atol=1e-14)
    scaled = kappa.copy()
    scaled[[model.index(p.name) for p in model.amplitudes]] *= 1e3
    if model.amplitudes:
        np.testing.assert_allclose(model.signal(scaled), 1e3 * f, rtol=1e-12)
    assert dataclasses.replace(model) == model and hash(dataclasses.replace(model)) == hash(model)
    assert model.name and model.title and model.formula and "doi:" in model.reference and model.axis.bids
    _finite_in_the_whole_box(model)
    for derived in model.derived:
        values = np.asarray(derived.formula(model, model.by_name(kappa)))
        assert values.shape == (6,) and np.isfinite(values).any(), derived.name


def _slopes_are_those_of_finite_differences(
    model: SignalModel, kappa: NDArray[np.float64], f: NDArray[np.float64], d: NDArray[np.float64]
) -> None:
    steady = abs(f) > 1e-3 * abs(f).max() if model.magnitude else np.full(f.shape, True)  # a modulus has a corner
    for q in range(len(kappa)):
        h = 1e-5 * kappa[q]
        up, down = kappa.copy(), kappa.copy()
        up[q] += h
        down[q] -= h
        numeric = (np.asarray(model.signal(up)) - np.asarray(model.signal(down))) / (2 * h)
        assert (abs(numeric - d[:, q]) * kappa[q] / abs(f).max())[steady].max() < 1e-6, model.parameters[q].name


def _torch_gives_what_numpy_gives(
    model: SignalModel, kappa: NDArray[np.float64], f: NDArray[np.float64], d: NDArray[np.float64]
) -> None:
    tensor = torch.tensor(kappa, requires_grad=True)
    g = model.signal(tensor)
    np.testing.assert_allclose(g.detach().numpy(), f, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(model.partials(tensor).detach().numpy(), d, rtol=1e-8, atol=1e-11)
    (gradient,) = torch.autograd.grad(g.sum(), tensor)
    np.testing.assert_allclose(gradient.numpy(), d.sum(0), rtol=1e-8, atol=1e-11)


def _finite_in_the_whole_box(model: SignalModel) -> None:
    corners = [[p.bounds[0], p.bounds[1] if np.isfinite(p.bounds[1]) else 1e6] for p in model.parameters]
    kappa = np.stack([c.reshape(-1) for c in np.meshgrid(*corners, indexing="ij")])
    assert np.isfinite(model.signal(kappa)).all() and np.isfinite(model.partials(kappa)).all()
