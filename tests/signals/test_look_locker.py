"""Look-Locker: an independent simulation of the train, pulse by pulse, and both ways from T1* to T1."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap import InputError
from rimap.signals.look_locker import MOLLI, LookLocker

from .properties import check

TI = (40.0, 120.0, 300.0, 700.0, 1300.0, 2200.0, 3500.0)


def train(T1: float, flip_deg: float, tr: float, n: int, inversion: float = -1.0) -> tuple[NDArray[np.float64], ...]:
    """Return time after the inversion and Mz before each of `n` pulses: flip, spoil, recover."""
    cosine, E = np.cos(np.deg2rad(flip_deg)), np.exp(-tr / T1)
    Mz, values = inversion, []
    for _ in range(n):
        values.append(Mz)
        Mz = 1 + (Mz * cosine - 1) * E
    return np.arange(n) * tr, np.array(values)


@pytest.mark.parametrize(
    "model",
    [
        LookLocker(ti=TI),
        LookLocker(ti=TI, signed=True),
        LookLocker(ti=TI, readout_flip_angle=5.0, readout_tr=10.0),
        MOLLI(ti=TI),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_properties(model: LookLocker, seed: int) -> None:
    check(model, seed)


@pytest.mark.parametrize("T1", [300.0, 900.0, 1600.0, 4000.0])
@pytest.mark.parametrize(("flip", "tr"), [(3.0, 8.0), (5.0, 5.0), (8.0, 20.0)])
def test_the_train_is_the_model_and_both_ways_give_its_T1(T1: float, flip: float, tr: float) -> None:
    t, Mz = train(T1, flip, tr, 400)
    # Every pulse multiplies the distance to the steady state by cos α E: exactly a three-parameter recovery.
    T1star = 1 / (1 / T1 - np.log(np.cos(np.deg2rad(flip))) / tr)
    A = (1 - np.exp(-tr / T1)) / (1 - np.exp(-tr / T1) * np.cos(np.deg2rad(flip)))
    B = 1 + 1 / A
    pick = np.linspace(1, 399, 9).astype(int)
    model = LookLocker(ti=t[pick], signed=True, readout_flip_angle=flip, readout_tr=tr)
    np.testing.assert_allclose(np.asarray(model.signal([[A], [B], [T1star]]))[:, 0], Mz[pick], rtol=1e-9, atol=1e-12)
    maps = {"T1star": np.array([T1star]), "B": np.array([B])}
    derived = model.derived[0]
    assert derived.main and derived.suffix == "T1map"
    assert float(derived.formula(model, maps)[0]) == pytest.approx(T1, rel=1e-9)  # from the flip angle: exact
    blind = LookLocker(ti=t[pick], signed=True)
    # T1*(B − 1) holds for TR ≪ T1*; the error is half of TR/T1* at most.
    assert float(derived.formula(blind, maps)[0]) == pytest.approx(T1, rel=0.6 * tr / T1star)
    assert float(derived.formula(blind, maps)[0]) == pytest.approx(T1, rel=0.05)


def test_an_imperfect_inversion_is_no_matter_if_the_readout_is_known() -> None:
    T1, flip, tr = 1200.0, 6.0, 10.0
    t, Mz = train(T1, flip, tr, 300, inversion=-0.8)
    T1star = 1 / (1 / T1 - np.log(np.cos(np.deg2rad(flip))) / tr)
    slope = np.polyfit(t[:200], np.log(abs(Mz[:200] - train(T1, flip, tr, 20_000)[1][-1])), 1)[0]
    assert -1 / slope == pytest.approx(T1star, rel=1e-6)
    maps = {"T1star": np.array([T1star]), "B": np.array([1.6])}
    known = LookLocker(ti=t[[5, 50, 200]], readout_flip_angle=flip, readout_tr=tr)
    assert float(known.derived[0].formula(known, maps)[0]) == pytest.approx(T1, rel=1e-9)


def test_there_is_no_T1_if_B_is_not_above_one() -> None:
    model = LookLocker(ti=TI)
    T1 = model.derived[0].formula(model, {"T1star": np.array([500.0, 500.0, 500.0]), "B": np.array([0.9, 1.0, 1.1])})
    assert np.isnan(T1[:2]).all() and T1[2] == pytest.approx(50.0)
    # A T1* longer than what the readout alone allows has no T1 either.
    known = LookLocker(ti=TI, readout_flip_angle=8.0, readout_tr=5.0)
    T1 = known.derived[0].formula(known, {"T1star": np.array([400.0, 600.0]), "B": np.array([2.5, 2.5])})
    assert np.isfinite(T1[0]) and np.isnan(T1[1])


def test_it_is_linear_in_B_and_B_is_free() -> None:
    """B = 1 + T1/T1* follows the tissue: smoothing it would blur T1."""
    model = LookLocker(ti=TI)
    assert model.separable and model.field is not None and model.field.treatment == "free"
    assert model.time.name == "T1star" and MOLLI(ti=TI).name == "molli"


def test_half_of_the_readout_is_refused() -> None:
    with pytest.raises(InputError, match="together"):
        LookLocker(ti=TI, readout_flip_angle=5.0)


@pytest.mark.parametrize("readout", [{}, {"readout_flip_angle": 10.0, "readout_tr": 5.0}])
def test_the_apparent_values_of_a_tissue_give_its_T1(readout: dict[str, float]) -> None:
    model, T1 = LookLocker(ti=[50, 300, 800, 2000], **readout), np.array([500.0, 1000.0, 1400.0, 4000.0])
    found = model.apparent_values(T1)
    np.testing.assert_allclose(model.derived[0].formula(model, found), T1, rtol=1e-12)
    np.testing.assert_allclose(found["T1star"] * (found["B"] - 1), T1, rtol=1e-12)
    assert (found["T1star"] < T1).all()
    assert np.diff(found["T1star"]).min() > 0 and np.diff(found["B"]).min() > 0
