"""The probability of a residual is exact for Gaussian noise, has few false alarms, and is relative to the scan."""

from __future__ import annotations

import numpy as np
import pytest

from rimap.estimators.checks.residual_probability import IMPROBABLE, chance_of_residual, contradicts, usual_misfit


@pytest.mark.parametrize("free", [1, 3, 28])
def test_chances_of_noise_are_uniform(free: int) -> None:
    squares = 9.0 * np.random.default_rng(0).chisquare(free, 200_000)
    chances = chance_of_residual(squares, 3.0, free)
    assert np.quantile(chances, [0.001, 0.1, 0.5, 0.9]) == pytest.approx([0.001, 0.1, 0.5, 0.9], abs=0.003)
    assert contradicts(squares, 3.0, free).mean() < 3 * IMPROBABLE
    assert contradicts(squares, 3.0, free, limit=0.01).mean() == pytest.approx(0.01, rel=0.1)


def test_a_voxel_that_contradicts_is_found_whatever_the_scale() -> None:
    rng = np.random.default_rng(0)
    squares = rng.chisquare(6, 2000)
    squares[:10] += 200
    for unit in (1e-6, 1.0, 1e6):
        found = contradicts(squares * unit**2, np.full(2000, unit), 6)
        assert found[:10].all() and found[10:].mean() < 0.003


def test_what_a_model_leaves_everywhere_is_usual() -> None:
    rng = np.random.default_rng(0)
    squares = 5.0 * rng.chisquare(6, 2000)
    assert usual_misfit(squares, 1.0, 6) == pytest.approx(5, rel=0.03)
    assert contradicts(squares, 1.0, 6).mean() < 0.003
    assert usual_misfit(0.1 * squares, 1.0, 6) == 1.0  # a σ that is too large does not make good voxels improbable
    assert not contradicts(0.01 * squares, 1.0, 6).any()


def test_unknown_residuals_and_no_degrees_of_freedom_say_nothing() -> None:
    assert np.isnan(chance_of_residual([np.nan, 1.0], [1.0, np.nan], 3)).all()
    assert not contradicts([np.nan, 1e9, 1.0], [1.0, np.nan, 1.0], 3).any()
    assert not contradicts([1e9, 1e9], 1.0, 0).any()
    assert contradicts([], 1.0, 3).shape == (0,)


def test_one_degree_of_freedom_is_enough_and_none_is_not() -> None:
    """The median of χ² with one degree of freedom is 0.4549."""
    squares = np.full(100, 3 * 0.454936)
    assert usual_misfit(squares, 1.0, 1) == pytest.approx(3, rel=1e-4)
    assert usual_misfit(squares, 1.0, 0) == 1.0 and usual_misfit(np.array([]), 1.0, 1) == 1.0
    assert usual_misfit(np.full(100, 0.1), 1.0, 1) == 1.0  # never less than the noise
    assert not contradicts(np.full(3, 1e6), 1.0, 0).any()
