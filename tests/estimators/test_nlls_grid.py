"""The general search of NLLS: the global optimum for models that are not linear in their field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.bench_sequences import SCANS, Scan, simulated
from benchmarks.dense import dense_grid

from rimap import NLLS, WeightedSeries
from rimap.estimators.nlls.estimator import least_squares
from rimap.estimators.nlls.grid import _axes
from rimap.estimators.table import ShapeTable
from rimap.series import Status
from rimap.signals.multi_echo_spin_echo import MultiEchoSpinEcho

BY_NAME = {scan.sequence: scan for scan in SCANS}
TRAIN = BY_NAME["mese"]
SHORT = {"te": tuple(range(8, 136, 8))}
GENERAL = {
    "megre-offset": BY_NAME["megre-offset"],
    "vfa": BY_NAME["vfa"],
    "mp2rage": BY_NAME["mp2rage"],
    "mp2rage-uni": BY_NAME["mp2rage-uni"],
    "mese, sinc": replace(TRAIN, settings=SHORT),
    # The echoes of hard pulses are alike for B1 and 2 − B1: there are two optima, and a saddle between them.
    "mese, hard": replace(TRAIN, settings=SHORT | {"profile": "hard"}),
}


@pytest.mark.parametrize("snr", [10, 100])
@pytest.mark.parametrize("name", GENERAL)
def test_no_voxel_is_far_from_the_global_optimum(name: str, snr: int) -> None:
    """Where two fields explain the images nearly alike, the better one is found."""
    scan: Scan = GENERAL[name]
    series, _ = simulated(scan, 250, snr, seed=snr)
    maps, S = least_squares(series), np.asarray(series.images, dtype=float)
    found = ((S - series.model.signal(maps.kappa)) ** 2).sum(0)
    least = dense_grid(series.model, S, dict(series.held), n_T=160, n_F=96)
    excess = (found - least) / float(series.noise.sigma) ** 2
    assert np.isfinite(excess).all()
    assert excess.max() < 1


def test_values_near_zero_of_images_without_amplitude_are_no_background() -> None:
    series, _ = simulated(GENERAL["mp2rage-uni"], 250, 10, seed=10)
    assert not (NLLS().estimate(series).status == Status.NO_SIGNAL).any()


def test_a_symmetric_train_does_not_end_on_its_saddle() -> None:
    """At B1 = 1 the gradient along B1 vanishes for hard pulses, and the optimum is beside it."""
    model = MultiEchoSpinEcho(te=SHORT["te"], profile="hard")
    B1 = np.array([0.9, 0.93, 0.96, 1.04, 1.08])
    images = model.signal(np.stack([np.full(5, 100.0), B1, np.full(5, 1000.0), np.full(5, 80.0)]))
    maps = NLLS().estimate(WeightedSeries(images=images, model=model))
    assert abs(maps["B1"] - 1) == pytest.approx(abs(B1 - 1), abs=2e-3)
    assert maps["T2"] == pytest.approx(80.0, rel=1e-3)
    assert (maps.status == Status.OK).all()


def test_slabs_and_calls_share_the_coarse_grid() -> None:
    """The second call gives the same maps to the last digit: what is kept between calls is not changed by them."""
    series, _ = simulated(GENERAL["mese, sinc"], 200, 30)
    first, second = (NLLS().estimate(series) for _ in range(2))
    assert np.array_equal(first.kappa, second.kappa, equal_nan=True)


def test_times_without_a_visible_signal_are_not_searched() -> None:
    """At a T2 of 0.5 ms the table has only interpolation errors, which an amplitude of 10⁹ would fit to anything."""
    model = TRAIN.model
    table = ShapeTable.of(model, {"T1": 1000.0})
    u, _ = _axes(table, True)
    T = np.append(np.exp(u[[0, -1]]), 5000.0)
    size = np.linalg.norm(model.shape(B1=np.ones(3), T1=np.full(3, 1000.0), T2=T), axis=0)
    assert 1e-6 < size[0] / size[2] < 1e-3 and T[1] == pytest.approx(model.time.bounds[1])
    T2 = np.array([0.6, 2.0, 2.5, 3.0, 18.0, 4000.0])
    images = model.signal(np.stack([np.full(6, 100.0), np.full(6, 0.9), np.full(6, 1000.0), T2]))
    maps = NLLS().estimate(WeightedSeries(images=images, model=model))
    assert maps["T2"][1:] == pytest.approx(T2[1:], rel=0.01)
    assert maps["T2"][0] < 1.5 and maps.status[0] != Status.OK
