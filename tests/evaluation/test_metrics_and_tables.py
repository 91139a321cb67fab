"""Metrics, repeats in pieces, tables that are read as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rimap.errors import InputError
from rimap.evaluation.experiment import Settings
from rimap.evaluation.metrics import coefficient_of_variation, relative_bias, relative_rmse
from rimap.evaluation.repeated_estimates import Repeats
from rimap.evaluation.simulated_slices import repeats_of, repeats_said
from rimap.evaluation.tables import Row, read_table, spread, write_table


@given(st.integers(2, 12), st.integers(1, 11), st.integers(0, 1000))
def test_repeats_in_pieces_are_the_metrics_of_all(n: int, cut: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    e = 800 + 50 * rng.standard_normal((n, 3, 7))
    truth = 800 + 100 * rng.random((3, 7))
    k = min(cut, n - 1)
    r = Repeats.merge([Repeats.of(e[:k]), Repeats.of(e[k:])])
    np.testing.assert_allclose(r.bias(truth), relative_bias(e, truth), atol=1e-9)
    np.testing.assert_allclose(r.cv, coefficient_of_variation(e), rtol=1e-9)
    np.testing.assert_allclose(r.rmse(truth), relative_rmse(e, truth), rtol=1e-9)
    back = Repeats.from_arrays(r.arrays())
    np.testing.assert_allclose(back.cv, r.cv, rtol=1e-5)
    assert back.n == n


def test_a_voxel_without_an_answer_once_has_none() -> None:
    e = np.ones((4, 1, 2))
    e[2, 0, 1] = np.nan
    r = Repeats.of(e)
    assert np.isfinite(r.mean[0, 0]) and np.isnan(r.mean[0, 1])
    assert r.nan.tolist() == [0, 1]


def test_spread_counts_what_is_missing() -> None:
    s = spread([np.nan, 1, 2, 3])
    assert (s["q0"], s["q50"], s["q100"], s["n"], s["nan"]) == (1, 2, 3, 4, 0.25)
    assert np.isnan(spread([])["q50"])


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"estimator": "rim:a, b", "snr": 3.0, "q50": 1.25}, {"estimator": "mle", "snr": 5.0, "p": float("inf")}]
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == rows
    with pytest.raises(InputError, match="no table"):
        read_table(tmp_path / "other.csv")


def test_some_methods_have_a_tenth_of_many_draws_and_tables_say_so() -> None:
    settings = Settings()
    specs = ("mle", "rim:universal", "nlls", "global_b", "resnet:resnet_t2", "mppca+nlls")
    assert [repeats_of(settings, 100, 3, spec) for spec in specs] == [100, 100, 10, 10, 10, 10]
    assert repeats_of(Settings(repeats=10), 100, 3, "mppca+nlls") == 10
    rows: list[Row] = [
        {"estimator": "mle", "repeats": 100},
        {"estimator": "global_b", "repeats": 10},
        {"estimator": "mppca+nlls", "repeats": 10},
    ]
    assert repeats_said(rows) == "C = 100 (MLE, one B: 10; MP-PCA, NLLS: 10)"
    assert repeats_said(rows[:1]) == "C = 100"
