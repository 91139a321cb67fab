"""Agreement: published and computed answers."""

from __future__ import annotations

import numpy as np
import pytest

from rimap.evaluation.agreement import LEVELS, agreement, calibration, icc, z_scores

#: Six targets, four judges: Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420, Table 2.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)


def test_icc_of_a_published_table() -> None:
    assert icc(SHROUT_FLEISS) == pytest.approx(0.29, abs=0.005)


def test_within_subject_variation_and_repeatability_are_those_of_the_simulation() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(500, 1500, (20_000, 1))
    cv = 0.02
    for repeats in (2, 4):
        found = agreement(truth * (1 + cv * rng.standard_normal((len(truth), repeats))))
        assert found.within_cv_percent == pytest.approx(2.0, rel=0.02)
        sd = cv * np.sqrt((truth**2).mean())
        assert found.within_sd == pytest.approx(sd, rel=0.02)
        assert found.repeatability_coefficient == pytest.approx(1.96 * np.sqrt(2) * sd, rel=0.02)
        assert found.icc == pytest.approx(truth.var() / (truth.var() + sd**2), abs=0.002)


def test_limits_hold_95_percent_of_the_differences() -> None:
    rng = np.random.default_rng(1)
    first = rng.uniform(50, 100, 50_000)
    second = first + 3 + 2 * rng.standard_normal(first.size)
    found = agreement(np.stack([first, second], axis=1))
    low, high = found.limits
    assert found.bias == pytest.approx(3, abs=0.05) and found.sd_difference == pytest.approx(2, rel=0.02)
    assert ((second - first > low) & (second - first < high)).mean() == pytest.approx(0.95, abs=0.005)


def test_a_bias_is_part_of_repeatability_and_lowers_absolute_agreement() -> None:
    x = np.random.default_rng(2).uniform(1, 2, 100)
    same, apart = (agreement(np.stack([x, x + d], axis=1)) for d in (0.0, 0.5))
    assert same.within_sd == 0 and same.icc == pytest.approx(1)
    assert apart.sd_difference == pytest.approx(0, abs=1e-12) and apart.within_sd == pytest.approx(0.5 / np.sqrt(2))
    assert apart.icc < 0.8


def test_what_cannot_be_said_is_nan() -> None:
    few = agreement(np.array([[1.0, 2.0], [np.nan, 1.0]]))
    assert few.n == 1 and few.bias == 1 and np.isnan(few.sd_difference) and np.isnan(few.icc)
    assert np.isnan(agreement(np.empty((0, 2))).within_sd)
    assert calibration(np.array([np.nan, 1.0])).n == 1 and np.isnan(calibration(np.array([1.0])).sd)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_calibration_shows_by_how_much_standard_deviations_are_wrong(factor: float) -> None:
    rng = np.random.default_rng(3)
    sd = rng.uniform(5, 20, (2, 40_000))
    x = 1000 + sd * rng.standard_normal(sd.shape)
    found = calibration(z_scores(x[0], x[1], sd[0] * factor, sd[1] * factor))
    assert found.sd == pytest.approx(1 / factor, rel=0.02) and found.robust_sd == pytest.approx(1 / factor, rel=0.03)
    if factor == 1:
        np.testing.assert_allclose(found.shares, LEVELS, atol=0.01)
