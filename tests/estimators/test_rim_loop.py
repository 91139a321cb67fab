"""What the data say at an estimate, the start, and the arithmetic around the cell: known answers."""

from __future__ import annotations

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.estimators.rim.data_term import SignalTable, data_sums
from rimap.estimators.rim.initial_estimate import likelihood_start
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import (
    FIELD_WIDTHS,
    GENERAL,
    PAPER,
    Quadratic,
    RIMConfig,
    box,
    cell_inputs,
    from_state,
    moved,
    pooled_field_steps,
    to_state,
)

MODELS = {
    "ir": rimap.InversionRecovery(tau=[100, 300, 600, 1200, 2500]),
    "signed": rimap.InversionRecovery(tau=[100, 300, 600, 1200, 2500], signed=True),
    "tr": rimap.InversionRecovery(tau=[100, 300, 600, 1200], tr=2000.0),
    "t2": rimap.T2Decay(tau=[10, 30, 60, 120]),
}


def drawn(model, M=400, seed=0):
    rng = np.random.default_rng(seed)
    kappa = [rng.uniform(0.4, 1.0, M), rng.uniform(1.5, 2.0, M), np.exp(rng.uniform(4, 8.2, M))]
    kappa = np.stack(kappa if len(model.parameters) == 3 else [kappa[0], kappa[2]])
    S = abs(model.signal(kappa)) + 0.03 * abs(rng.standard_normal((model.n_images, M)))
    return kappa * rng.uniform(0.9, 1.1, kappa.shape), S


@pytest.mark.parametrize("rician", [False, True], ids=["gaussian", "rician"])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_table_is_the_definition(name, rician):
    model = MODELS[name]
    if name == "signed" and rician:
        pytest.skip("signed data are never Rician")
    kappa, S = drawn(model)
    sigma = np.full(S.shape[1], 0.05, np.float32) if rician else None
    fast = SignalTable.of(model).sums(np.ascontiguousarray(S.T, np.float32), kappa.astype(np.float32), sigma)
    slow = data_sums(model, S, kappa, sigma)
    for a, b in zip(fast, slow):
        assert abs(a - b).max() < 1e-4 * abs(b).max()


@pytest.mark.parametrize("noise", [rimap.Gaussian(sigma=0.1), rimap.Rician(sigma=0.1)], ids=["gaussian", "rician"])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_gradient_is_that_of_the_likelihood(name, noise):
    model = MODELS[name]
    kappa, S = drawn(model)
    rician = isinstance(noise, rimap.Rician)
    g = data_sums(model, S, kappa, 0.1 if rician else None).g / 0.1**2
    expected = rimap.gradient(model, noise, S, kappa)
    expected[-1] = expected[-1] * kappa[-1]  # in log T
    np.testing.assert_allclose(g, expected, rtol=1e-7, atol=1e-7 * abs(expected).max())


@pytest.mark.parametrize("config", [PAPER, GENERAL], ids=["paper", "general"])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_damped_step_is_that_of_linear_algebra(name, config):
    model = MODELS[name]
    kappa, S = drawn(model, 50)
    Q = len(kappa)
    q = Quadratic.of(config, Layout.of(model), kappa, data_sums(model, S, kappa), np.full(50, 0.03))
    for free in ([*range(Q)], [0, Q - 1]):
        step, variance = q.solve(free)
        for m in range(50):
            H = np.array([[q.H[min(i, j), max(i, j)][m] for j in free] for i in free])
            H += np.diag([q.damping[i][m] for i in free])
            np.testing.assert_allclose(
                [s[m] for s in step], -np.linalg.solve(H, [q.g[i][m] for i in free]), rtol=1e-5, atol=1e-9
            )
            np.testing.assert_allclose([v[m] for v in variance], 0.03**2 * np.diag(np.linalg.inv(H)), rtol=1e-5)


@pytest.mark.parametrize("config", [PAPER, GENERAL], ids=["paper", "general"])
def test_coordinates_there_and_back(config):
    kappa, _ = drawn(MODELS["ir"])
    layout = Layout.of(MODELS["ir"])
    there = to_state(config, layout, kappa)
    np.testing.assert_allclose(from_state(config, layout, there), kappa, rtol=1e-12)


@pytest.mark.parametrize("config", [PAPER, GENERAL], ids=["paper", "general"])
def test_no_update_leaves_the_domain(config):
    model = MODELS["ir"]
    kappa, _ = drawn(model)
    layout = Layout.of(model)
    u = to_state(config, layout, kappa)
    for sign in (-1, 1):
        new = moved(config, u, np.full_like(u, sign * 50.0), [1.0] * 3, box(config, layout))
        k = from_state(config, layout, new)
        assert (k[0] >= 0).all() and (k[1] >= 0).all() and (k[2] > 0.99).all()
        assert np.isfinite(model.signal(k)).all()


def test_an_unknown_choice_is_refused():
    with pytest.raises(InputError, match="expected one of state, gradient"):
        RIMConfig(inputs=("state", "gradiant"))


@pytest.mark.parametrize("snr", [10, 30, 100])
def test_the_start_finds_a_smooth_B(snr):
    model = rimap.PROTOCOLS["IV_T1"]
    rng = np.random.default_rng(0)
    size, sigma = 64, 0.65 / snr
    y, x = np.mgrid[:size, :size] / size
    tissue = ((x * 6).astype(int) + (y * 6).astype(int)) % 2
    kappa = np.stack([np.where(tissue, 0.85, 0.65), 1.8 + 0.12 * (x + y - 1), np.where(tissue, 1400.0, 780.0)])
    S = (model.signal(kappa) + sigma * rng.standard_normal((31, size, size)))[:, None].astype(np.float32)
    data = DataTerm(model, S, np.full((1, 1, 1), sigma, np.float32), False)
    _, B, T = likelihood_start(data.problem)[:, 0]
    assert np.median(abs(B - kappa[1])) < {10: 0.06, 30: 0.03, 100: 0.02}[snr]
    assert np.median(abs(T / kappa[2] - 1)) < {10: 0.07, 30: 0.03, 100: 0.02}[snr]


def field_steps(kappa, truth, sigma=0.01):
    """Return the pooled steps of B (2, 25, 25) at estimates κ of images without noise, in units of B."""
    model = rimap.InversionRecovery(tau=np.linspace(140, 940, 31))
    layout = Layout.of(model)
    S = model.signal(truth).astype(np.float32)[:, None]
    data = DataTerm(model, S, np.full((1, 1, 1), sigma, np.float32), False)
    carried = kappa.astype(np.float32)[:, None]
    sums = data(carried)
    quadratic = Quadratic.of(PAPER, layout, carried, sums, data.problem.sigma)
    u = to_state(PAPER, layout, carried)
    config = RIMConfig(inputs=("state", "field_step"))
    assert len(cell_inputs(config, u, sums, quadratic, 31)) == config.channels(layout) == 3 + len(FIELD_WIDTHS)
    steps = pooled_field_steps(PAPER, sums, quadratic, 31)
    one_in_b = np.array([0.0, 1.0, 0.0]).reshape(3, 1, 1, 1)
    in_b = (to_state(PAPER, layout, carried + one_in_b) - u)[1, 0, 0, 0]
    return np.stack(steps)[:, 0] / in_b


def tissue(B):
    flat = np.ones((25, 25))
    return np.stack([0.65 * flat, B * flat, 780 * flat])


def test_the_pooled_step_finds_what_a_field_lacks():
    """Where A and T1 have adapted to a B that is 0.03 too low, the pooled step is 0.03 within a tenth."""
    model = rimap.InversionRecovery(tau=np.linspace(140, 940, 31))
    truth, S = tissue(1.84), model.signal(tissue(1.84)[:, 0, 0])
    grid = [(a, t) for a in np.linspace(0.65, 0.69, 41) for t in np.linspace(780, 820, 81)]
    A, T = min(grid, key=lambda x: float(((model.signal(np.array([x[0], 1.81, x[1]])) - S) ** 2).sum()))
    kappa = tissue(1.81) * np.array([A / 0.65, 1, T / 780])[:, None, None]
    np.testing.assert_allclose(field_steps(kappa, truth)[:, 12, 12], 0.03, rtol=0.1)


def test_a_voxel_that_has_not_converged_does_not_move_the_field():
    truth, kappa = tissue(1.84), tissue(1.84)
    kappa[2, 10:13, 10:13] = 2500.0  # its own step of B is wrong by far
    assert abs(field_steps(kappa, truth)[1]).max() < 0.01
