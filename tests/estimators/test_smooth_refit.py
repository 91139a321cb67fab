"""Voxels that are fitted again with a smooth field: each step against a least-squares program, and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap import InversionRecovery
from rimap.estimators.checks import smooth_refit as module
from rimap.estimators.checks.smooth_refit import orthonormal, refit, weights

Floats = NDArray[np.float64]
MODEL = InversionRecovery(tau=(50.0, 200.0, 400.0, 800.0, 1500.0, 2500.0, 4000.0), tr=9000.0, signed=True)
A, B, T1 = 0, 1, 2
PLACES = np.indices((8, 9)).reshape(2, -1).astype(float)
V = PLACES.shape[1]


def parabola() -> Floats:
    """Return a field that varies slowly over the object."""
    x, y = PLACES / 4 - 1
    return np.asarray(1.9 - 0.06 * x**2 + 0.05 * y + 0.03 * x * y)


def truth(field: Floats | None = None) -> Floats:
    rng = np.random.default_rng(0)
    return np.stack([rng.uniform(50, 200, V), parabola() if field is None else field, rng.uniform(500, 1500, V)])


def images(kappa: Floats) -> Floats:
    return np.asarray(MODEL.signal(kappa), float)


def test_a_field_that_is_a_parabola_is_found_with_all_other_parameters() -> None:
    """From fits in which the field of each voxel is off by a tenth, without noise."""
    kappa = truth()
    rng = np.random.default_rng(1)
    start = kappa * np.stack([rng.uniform(0.95, 1.05, V), rng.uniform(0.95, 1.05, V), rng.uniform(0.93, 1.07, V)])
    before = start.copy()
    found, own = refit(MODEL, images(kappa), start, [A, B, T1], PLACES)
    assert own == [A, T1]
    np.testing.assert_array_equal(start, before)
    np.testing.assert_allclose(found, kappa, rtol=2e-4)


def test_a_field_that_is_known_is_not_fitted() -> None:
    kappa = truth()
    found, own = refit(MODEL, images(kappa), kappa, [A, T1], PLACES)
    assert found is kappa and own == [A, T1]


def test_a_field_stays_within_its_bounds() -> None:
    model = MODEL.with_bounds({"B": (1.0, 1.9)})
    kappa = truth(1.88 + 0.02 * PLACES[0])
    found, _ = refit(model, images(kappa), np.stack([kappa[A], np.full(V, 1.8), kappa[T1]]), [A, B, T1], PLACES)
    assert found[B].max() == 1.9 and found[B].min() < 1.9


def counted(monkeypatch: pytest.MonkeyPatch, changes: list[float]) -> tuple[Floats, int]:
    """Return the field after the constant of its parabola changed by these numbers, and how many of them were used."""
    steps: list[Floats] = []
    left = iter(changes)

    def change(*_: object) -> Floats:
        return np.array([next(left), 0.0, 0.0, 0.0, 0.0, 0.0])

    def step(model: object, S: object, kappa: Floats, own: object) -> Floats:
        steps.append(kappa[B].copy())
        return kappa

    monkeypatch.setattr(module, "_change", change)
    monkeypatch.setattr(module, "_step", step)
    kappa = truth(np.full(V, 1.5))
    found, _ = refit(MODEL, images(kappa), kappa, [A, B, T1], PLACES)
    return found[B], len(steps)


def test_the_other_parameters_follow_each_change_of_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come first, and the iterations end when the field changes by less than 0.03 standard deviations."""
    deviation = MODEL.parameters[B].in_a_scan.deviation
    large, small = 0.0301 * deviation, 0.0299 * deviation
    for changes, steps in (([small], 2), ([large, small], 3), ([-large, -small], 3), ([large] * 9, 8)):
        with monkeypatch.context() as patch:
            field, used = counted(patch, changes)
        assert used == steps
        np.testing.assert_allclose(field, 1.5 + sum(changes[: steps - 1]))


def test_a_change_of_the_field_is_that_of_one_weighted_least_squares_program() -> None:
    """In which each voxel has its own A and T1, and outliers count less."""
    kappa = truth()
    S = images(kappa) + np.random.default_rng(2).normal(0, 1.0, (7, V))
    S[:, 5] += 60 * (-1) ** np.arange(7)
    start = kappa.copy()
    start[B] = 1.85
    phi = module._parabolas(PLACES)
    found = module._change(MODEL, S, start, ([A, T1], B), phi)
    J, f = np.asarray(MODEL.partials(start)), images(start)
    Q = np.stack(orthonormal(J[:, [A, T1]]))
    rest = S - f
    rest = rest - sum(q * (q * rest).sum(0) for q in Q)
    weight = np.sqrt(weights(f, rest))
    rows, right = [], []
    for v in range(V):
        own = J[:, [A, T1], v]
        outside = np.eye(7) - own @ np.linalg.pinv(own)
        rows.append(weight[v] * np.outer(outside @ J[:, B, v], phi[:, v]))
        right.append(weight[v] * outside @ (S - f)[:, v])
    expected, *_ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert abs(start[B] + found @ phi - parabola()).max() < 0.5 * abs(start[B] - parabola()).max()


def test_a_step_is_that_of_gauss_and_newton_within_the_bounds() -> None:
    kappa = truth()
    S, start = images(kappa), kappa.copy()
    start[A] *= 1.02
    start[T1] *= 0.98
    found = module._step(MODEL, S, start, [A, T1])
    J = np.asarray(MODEL.partials(start))[:, [A, T1]]
    for v in range(V):
        step, *_ = np.linalg.lstsq(J[..., v], (S - images(start))[:, v], rcond=None)
        np.testing.assert_allclose(found[[A, T1], v] - start[[A, T1], v], step, rtol=1e-4)
    np.testing.assert_array_equal(found[B], start[B])
    narrow = MODEL.with_bounds({"T1": (1.0, 900.0)})
    start[T1] = np.minimum(start[T1], 890.0)
    assert module._step(narrow, S, start, [A, T1])[T1].max() == 900.0
    wide = MODEL.with_bounds({"T1": (800.0, 9000.0)})
    start[T1] = 810.0
    assert module._step(wide, S, start, [A, T1])[T1].min() == 800.0


def test_a_step_that_is_too_long_is_shortened_or_left_out() -> None:
    """Far from the optimum, the whole step or three tenths of it is taken, whichever has the smaller residual."""
    kappa = truth()
    S = images(kappa)
    start = kappa.copy()
    start[T1] = np.linspace(60, 6000, V)
    found = module._step(MODEL, S, start, [A, T1])
    J = np.asarray(MODEL.partials(start))[:, [A, T1]]
    taken: set[float] = set()
    for v in range(V):
        step, *_ = np.linalg.lstsq(J[..., v], (S - images(start))[:, v], rcond=None)
        squares = {}
        for part in (0.0, 1.0, 0.3):
            new = start[:, [v]].copy()
            new[[A, T1], 0] += part * step
            for q in (A, T1):
                new[q] = np.clip(new[q], *MODEL.parameters[q].bounds)
            squares[part] = (float(((S[:, [v]] - images(new)) ** 2).sum()), new)
        best = min(squares, key=lambda part: squares[part][0])
        taken.add(best)
        np.testing.assert_allclose(found[:, v], squares[best][1][:, 0], rtol=1e-3)
    assert {1.0, 0.3} <= taken


def test_a_matrix_of_two_parameters_with_the_same_effect_can_be_inverted() -> None:
    H = np.array([[[4.0, 4.0], [4.0, 4.0]], [[1.0, 0.0], [0.0, 9.0]]])
    np.testing.assert_allclose(
        module._regular(H) - H, 1e-6 * np.array([np.diag([4.0, 4.0]), np.diag([1.0, 9.0])]), rtol=1e-6
    )
    assert np.isfinite(np.linalg.inv(module._regular(np.zeros((3, 2, 2))))).all()


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_weights_are_relative_to_the_signal_and_an_outlier_has_less(unit: float) -> None:
    """Half of the weight at a residual whose power is nine times that of the median voxel."""
    f = unit * np.array([[1.0, 2.0, 1.0, 4.0, 2.0], [1.0, 2.0, -1.0, 4.0, 2.0]])
    share = np.array([0.1, 0.1, 0.1, 0.3, 1e-9])
    found = weights(f, share * f)
    power = (f**2).mean(0)
    np.testing.assert_allclose(found * power, [0.9, 0.9, 0.9, 0.5, 1.0], rtol=1e-6)
    exact = weights(f, 0 * f)
    np.testing.assert_allclose(exact * power, 1.0)
    assert np.isfinite(weights(0 * f, 0 * f)).all()


def test_a_parabola_over_places_in_a_line_has_no_other_direction() -> None:
    """Nor has a single slice one across it: a direction without extent would make the problem singular."""
    line = np.stack([np.arange(9.0), np.full(9, 3.0), np.full(9, 7.0)])
    phi = module._parabolas(line)
    x = (np.arange(9.0) - 4) / 4
    np.testing.assert_allclose(phi, [np.ones(9), x, x**2], atol=1e-12)
    x, y = (PLACES - PLACES.mean(1, keepdims=True)) / np.array([[3.5], [4.0]])
    np.testing.assert_allclose(module._parabolas(PLACES), [np.ones(V), x, y, x * x, x * y, y * y], atol=1e-12)


def test_an_orthonormal_basis() -> None:
    J = np.random.default_rng(0).normal(size=(6, 3, 20))
    J[:, 2] = J[:, 1] + 1e-7 * J[:, 2]  # nearly the same
    Q = np.stack(orthonormal(J), axis=1)
    np.testing.assert_allclose(np.einsum("nqv,npv->vqp", Q, Q), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-9)
    of_J = np.einsum("nqv,nv->qv", Q, J[:, 1])
    np.testing.assert_allclose(np.einsum("nqv,qv->nv", Q, of_J), J[:, 1], rtol=1e-9)
    assert np.isfinite(orthonormal(np.zeros((6, 2, 3)))).all()


def test_parabolas_hold_every_second_order_polynomial_whatever_the_unit() -> None:
    places = np.random.default_rng(1).uniform(-30.0, 90.0, (2, 50))
    x, y = places
    wanted = 3 + 0.2 * x - y + 0.05 * x * y - 0.01 * y**2
    basis = module._parabolas(places)
    left = wanted - basis.T @ np.linalg.lstsq(basis.T, wanted, rcond=None)[0]
    assert len(basis) == 6 and abs(left).max() < 1e-9 * abs(wanted).max()
