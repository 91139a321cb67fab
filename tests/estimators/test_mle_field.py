"""The box, its penalty and the linear solver, against dense linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rimap.estimators.mle import linear_system
from rimap.estimators.mle.field import Box, Objective, Until, minimise
from rimap.estimators.mle.linear_system import solve_linear


def _box(shape: tuple[int, ...] = (7, 5), size: tuple[float, ...] | None = None) -> Box:
    return Box.around(np.ones(shape, bool), size or (1.0,) * len(shape), margin=3)


def _matrix(box: Box) -> np.ndarray:
    unit = np.eye(box.size).reshape(-1, *box.shape)
    return np.stack([box.laplacian(e).reshape(-1) for e in unit], axis=1)


@pytest.mark.parametrize(
    ("shape", "size"), [((6,), (1.0,)), ((7, 5), (2.0, 1.0)), ((3, 4, 2), (1.0, 1.0, 3.0)), ((4, 1), (1.0, 9.0))]
)
def test_the_cosine_transform_diagonalises_the_laplacian(shape: tuple[int, ...], size: tuple[float, ...]) -> None:
    box = _box(shape, size)
    B = np.random.default_rng(0).standard_normal(box.shape)
    assert box.filter(B, -box.mu) == pytest.approx(box.laplacian(B), abs=1e-10)


def test_the_laplacian_is_symmetric_and_knows_constants() -> None:
    box = _box((3, 2))
    L = _matrix(box)
    assert pytest.approx(L.T) == L
    assert abs(L.sum(1)).max() < 1e-12


def test_thick_slices_are_coupled_less() -> None:
    box = _box((6, 6), (1.0, 3.0))
    B = np.zeros(box.shape)
    B[5, 5] = 1.0
    L = box.laplacian(B)
    assert L[4, 5] / L[5, 4] == pytest.approx(9.0)


def test_solver_against_dense_algebra() -> None:
    rng = np.random.default_rng(1)
    box = _box((5, 4))
    W = box.scatter(rng.uniform(0, 5, len(box.data)))
    rhs = box.scatter(rng.standard_normal(len(box.data)))
    L = _matrix(box)
    for weight in (0.1, 30.0):
        dense = np.linalg.solve(np.diag(W.reshape(-1)) + weight * L @ L, rhs.reshape(-1))
        x, _ = solve_linear(W, weight * box.mu**2, rhs, rtol=1e-10)
        assert x.reshape(-1) == pytest.approx(dense, rel=1e-6, abs=1e-8)


def test_a_rough_solution_is_as_good_as_asked() -> None:
    rng = np.random.default_rng(2)
    box = _box((40, 30))
    W, rhs = box.scatter(rng.uniform(0, 5, len(box.data))), box.scatter(rng.standard_normal(len(box.data)))
    exact, _ = solve_linear(W, 300.0 * box.mu**2, rhs, rtol=1e-10)
    rough, iterations = solve_linear(W, 300.0 * box.mu**2, rhs, rtol=1e-2)
    off = rough - exact
    energy = (off * (W * off + 300.0 * box.laplacian(box.laplacian(off)))).sum()
    assert energy < 0.02**2 * (exact * rhs).sum() and iterations < 60


@pytest.mark.parametrize(("shape", "size"), [((90, 70), (1.0, 1.0)), ((40, 36, 10), (1.0, 1.5, 4.0))])
def test_a_stiff_field_is_solved_in_few_modes_as_well_as_in_all(
    shape: tuple[int, ...], size: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    box, seen = Box.around(np.ones(shape, bool), size), list[tuple[int, ...]]()
    inside = np.hypot.reduce(np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in box.shape), indexing="ij")) < 1
    W = inside * rng.uniform(5, 10, box.shape)
    rhs = W * (0.1 * np.linspace(-1, 1, box.shape[0]).reshape(-1, *(1,) * (len(shape) - 1)))
    rhs += np.sqrt(W) * rng.standard_normal(box.shape)
    solved = linear_system._System.solved

    def watched(self: linear_system._System, *args: Any) -> Any:
        seen.append(self.information.shape)
        return solved(self, *args)

    monkeypatch.setattr(linear_system._System, "solved", watched)
    for weight in (1e4, 1e6):
        penalty = weight * box.mu**2
        exact, _ = solve_linear(W, penalty, rhs, rtol=1e-12)
        assert np.allclose(W * exact + weight * box.laplacian(box.laplacian(exact)), rhs, atol=1e-6 * abs(rhs).max())
        found, _ = solve_linear(W, penalty, rhs, rtol=0.03)
        assert np.prod(seen[-2]) < linear_system.LARGEST_GRID * box.size and seen[-1] == box.shape
        off = found - exact
        energy = (off * (W * off + weight * box.laplacian(box.laplacian(off)))).sum()
        assert energy < 0.04**2 * (exact * rhs).sum()


@pytest.mark.parametrize("shape", [(48, 40), (24, 20, 12), (60, 1)])
def test_air_does_not_slow_the_solver(shape: tuple[int, ...]) -> None:
    """Most of a box of a head is air, where voxels say next to nothing about the field."""
    rng = np.random.default_rng(3)
    box = Box.around(np.ones(shape, bool), (1.0,) * len(shape))
    W, middle = np.full(box.shape, 1e-6), tuple(slice(n // 3, -(-2 * n // 3)) for n in box.shape)
    W[middle] = rng.uniform(50, 100, W[middle].shape)
    rhs = W * rng.standard_normal(box.shape)
    for weight in (1e3, 1e5):
        penalty = weight * box.mu**2
        exact, _ = solve_linear(W, penalty, rhs, rtol=1e-12)
        assert np.allclose(W * exact + weight * box.laplacian(box.laplacian(exact)), rhs, atol=1e-6 * abs(rhs).max())
        found, iterations = solve_linear(W, penalty, rhs, rtol=0.03)
        off = found - exact
        energy = (off * (W * off + weight * box.laplacian(box.laplacian(off)))).sum()
        assert iterations <= 15 and energy < 0.04**2 * (exact * rhs).sum()


def test_of_a_few_strong_voxels_the_low_modes_are_nearly_dependent_and_the_solution_is_found() -> None:
    rng = np.random.default_rng(6)
    box = Box.around(np.ones((128, 128), bool), (1.0, 1.0))
    W = np.zeros(box.shape)
    W[20:30, 20:30] = W[-40:-30, -40:-30] = 3e6
    rhs, penalty = W * (0.1 + 0.01 * rng.standard_normal(box.shape)), 1e3 * box.mu**2
    exact, _ = solve_linear(W, penalty, rhs, rtol=1e-10)
    found, iterations = solve_linear(W, penalty, rhs, rtol=0.03)
    off = found - exact
    energy = (off * (W * off + 1e3 * box.laplacian(box.laplacian(off)))).sum()
    assert iterations > 0 and energy < 0.04**2 * (exact * rhs).sum()


def test_without_data_a_field_stays_where_it_is() -> None:
    box = Box.around(np.ones((20, 20), bool), (1.0, 1.0))
    found, _ = solve_linear(np.zeros(box.shape), 1e3 * box.mu**2, np.zeros(box.shape))
    assert not found.any()


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e308])
def test_values_that_overflow_leave_a_field_where_it_is(value: float) -> None:
    box = Box.around(np.ones((20, 20), bool), (1.0, 1.0))
    W = np.full(box.shape, 1.0)
    W[3:9, 4] = value
    with np.errstate(over="ignore"):
        found, _ = solve_linear(W, 1e3 * box.mu**2, np.ones(box.shape))
    assert not found.any()


def test_crop_finds_the_images_in_the_box() -> None:
    mask = np.zeros((60, 9), bool)
    mask[40:43, 2:5] = True
    box = Box.around(mask, (1.0, 1.0))
    B = box.crop(box.scatter(np.arange(1.0, 10.0)), mask.shape)
    assert B[mask].tolist() == list(range(1, 10))
    assert B.shape == mask.shape
    assert box.shape[0] < 60  # the box is around the mask, not around the images


def test_variance_is_that_of_the_solution() -> None:
    rng = np.random.default_rng(3)
    box = _box((20, 20))
    w = np.full(len(box.data), 4.0)
    W = np.full(box.shape, 4.0)
    W.reshape(-1)[box.data] = w
    L = _matrix(box)
    H = np.linalg.inv(np.diag(W.reshape(-1)) + 50.0 * L @ L)
    exact = np.diag(H @ np.diag(W.reshape(-1)) @ H)[box.data]
    middle = box.variance(w, 50.0).reshape(20, 20)[8:12, 8:12]
    assert middle == pytest.approx(exact.reshape(20, 20)[8:12, 8:12], rel=0.25)
    assert box.variance(w * 0, 1.0).min() == np.inf
    assert box.variance(rng.uniform(1, 2, 400), 0.0).max() <= 1.0


class _Quadratic:
    def __init__(self, B: np.ndarray, w: np.ndarray, target: np.ndarray) -> None:
        self.g, self.w, self.total = w * (B - target), w, float((0.5 * w * (B - target) ** 2).sum())


@pytest.mark.parametrize("weight", [3.0, 3000.0])
def test_minimise_evaluates_within_the_bounds_and_holds_the_field_where_the_data_do(weight: float) -> None:
    rng = np.random.default_rng(4)
    box = _box((12, 12))
    w, target = rng.uniform(0, 50, len(box.data)), rng.uniform(-1, 4, len(box.data))
    seen = []

    def fit(b: np.ndarray, near: object, search: bool) -> _Quadratic:
        seen.append((b.min(), b.max()))
        return _Quadratic(b, w, target)

    objective = Objective(fit, weight, (0.0, 3.0))
    B, state, converged = minimise(box, objective, np.full(box.shape, 1.5), Until(tolerance=1e-8))
    assert converged and min(low for low, _ in seen) >= 0 and max(high for _, high in seen) <= 3
    assert state.g == pytest.approx(w * (np.clip(B.reshape(-1)[box.data], 0, 3) - target))
    at = B.reshape(-1)[box.data]
    beyond = np.where((at < 0) | (at > 3), np.maximum(w, w.mean()) * (at - np.clip(at, 0, 3)), 0.0)
    G = box.scatter(state.g + beyond) + weight * box.laplacian(box.laplacian(B))
    assert abs(G).max() < 0.05 * abs(state.g).max()


def test_a_field_at_its_bound_takes_few_steps() -> None:
    """Data at a corner only, and rising towards it: the field would be beyond its bounds in most of the box."""
    mask = np.zeros((60, 60), bool)
    mask[:20, :20] = True
    box = Box.around(mask, (1.0, 1.0))
    y, x = np.mgrid[:20, :20]
    target, w = (2.0 + 0.06 * (x + y)).reshape(-1), np.full(400, 100.0)
    steps: list[float] = []
    _, state, converged = minimise(
        box,
        Objective(lambda b, near, search: _Quadratic(b, w, target), 1e4, (0.0, 3.0)),
        np.full(box.shape, 1.5),
        Until(tolerance=1e-6),
        watch=lambda J, promise: steps.append(promise),
    )
    assert converged and len(steps) <= 8
    inside = target < 2.8
    assert np.median(np.abs(state.g[inside] / w[inside])) < 0.02
