"""Signals agree with published formulas, written here with the standard library; models refuse what they should."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rimap import InputError, InversionRecovery, T2Decay
from rimap.signals import SignalModel
from rimap.signals.gradient_echo import GradientEcho, GradientEchoWithOffset
from rimap.signals.look_locker import MOLLI, LookLocker
from rimap.signals.model_options import knows_polarity, other_options, polarity, polarity_if_unknown
from rimap.signals.saturation_recovery import SaturationRecovery
from rimap.signals.variable_flip_angle import LEAST_LARGEST_FLIP_DEG, VariableFlipAngle

exp, sin, cos = math.exp, math.sin, math.cos
TI, TE, FLIP = (50.0, 400.0, 1100.0, 2500.0), (10.0, 20.0, 40.0, 80.0), (3.0, 10.0, 25.0)

CASES: list[tuple[SignalModel, dict[str, float], Callable[[float], float]]] = [
    (InversionRecovery(tau=TI), {"A": 7.0, "B": 1.9, "T1": 900.0}, lambda t: abs(7 * (1 - 1.9 * exp(-t / 900)))),
    (
        InversionRecovery(tau=TI, tr=3000.0, signed=True),
        {"A": 7.0, "B": 1.9, "T1": 900.0},
        lambda t: 7 * (1 - 1.9 * exp(-t / 900) + 0.9 * exp(-3000 / 900)),
    ),
    (SaturationRecovery(tau=TI), {"A": 7.0, "F": 1.1, "T1": 900.0}, lambda t: abs(7 * (1 - 1.1 * exp(-t / 900)))),
    (T2Decay(tau=TE), {"A": 7.0, "T2": 60.0}, lambda t: 7 * exp(-t / 60)),
    (GradientEcho(te=TE), {"A": 7.0, "T2star": 30.0}, lambda t: 7 * exp(-t / 30)),
    (GradientEchoWithOffset(te=TE), {"A": 7.0, "T2star": 30.0, "C": 2.0}, lambda t: 7 * exp(-t / 30) + 2),
    (LookLocker(ti=TI), {"A": 7.0, "B": 2.6, "T1star": 600.0}, lambda t: abs(7 * (1 - 2.6 * exp(-t / 600)))),
    (MOLLI(ti=TI), {"A": 7.0, "B": 2.6, "T1star": 600.0}, lambda t: abs(7 * (1 - 2.6 * exp(-t / 600)))),
    (
        VariableFlipAngle(flip_angle=FLIP, tr=15.0),
        {"A": 7.0, "B1": 0.9, "T1": 900.0},
        lambda a: (
            7 * sin(0.9 * math.radians(a)) * (1 - exp(-15 / 900)) / (1 - cos(0.9 * math.radians(a)) * exp(-15 / 900))
        ),
    ),
]
cases = pytest.mark.parametrize(
    ("model", "values", "formula"), CASES, ids=[f"{type(c[0]).__name__}{k}" for k, c in enumerate(CASES)]
)


def maps_of(model: SignalModel, values: dict[str, float]) -> np.ndarray:
    return np.array([[values[p.name]] for p in model.parameters])


@cases
def test_the_signal_is_the_formula(
    model: SignalModel, values: dict[str, float], formula: Callable[[float], float]
) -> None:
    found = model.signal(maps_of(model, values))
    np.testing.assert_allclose(found[:, 0], [formula(float(t)) for t in model.times], rtol=1e-12)


@cases
def test_partials_are_slopes_of_the_formula(model: SignalModel, values: dict[str, float], formula: Any) -> None:
    """Of the whole signal, by central differences."""
    kappa = maps_of(model, values)
    found = model.partials(kappa)
    for q in range(len(kappa)):
        step = np.zeros_like(kappa)
        step[q] = 1e-5 * kappa[q]
        slope = (model.signal(kappa + step) - model.signal(kappa - step)) / (2 * step[q])
        np.testing.assert_allclose(np.asarray(found)[:, q], slope, rtol=1e-5, atol=1e-9 * abs(slope).max())


def test_one_repetition_time_for_each_image() -> None:
    model = InversionRecovery(tau=TI, tr=(1000.0, 2000.0, 3000.0, 4000.0), signed=True)
    expected = [1 - 2 * exp(-t / 800) + exp(-r / 800) for t, r in zip(TI, (1000, 2000, 3000, 4000))]
    np.testing.assert_allclose(model.signal(np.array([[1.0], [2.0], [800.0]]))[:, 0], expected, rtol=1e-12)


def test_a_model_without_tr_sees_the_effective_parameters() -> None:
    kappa = np.array([[7.0], [1.9], [900.0]])
    with_tr = InversionRecovery(tau=TI, tr=2600.0, signed=True).signal(kappa)
    without = InversionRecovery(tau=TI, signed=True).signal(InversionRecovery.effective(kappa, tr=2600.0))
    np.testing.assert_allclose(without, with_tr, rtol=1e-12)


@pytest.mark.parametrize(("tr", "refused"), [(2500.0, True), (2500.1, False), ((300.0, 3000.0, 3000.0, 2000.0), True)])
def test_tr_exceeds_ti(tr: Any, refused: bool) -> None:
    if refused:
        with pytest.raises(InputError, match="expected TR longer than TI"):
            InversionRecovery(tau=TI, tr=tr)
    else:
        assert InversionRecovery(tau=TI, tr=tr).tr == (tr,) * 4


def test_the_rate_is_the_inverse_of_the_time_in_seconds() -> None:
    for model in (GradientEcho(te=TE), GradientEchoWithOffset(te=TE)):
        (rate,) = model.derived
        assert rate.formula(model, {"T2star": np.array([25.0])}) == pytest.approx(40.0) and rate.unit == "1/s"


def test_look_locker_is_corrected_by_b_or_by_the_readout() -> None:
    maps = {"T1star": np.array([600.0]), "B": np.array([2.5])}
    plain, known = LookLocker(ti=TI), LookLocker(ti=TI, readout_flip_angle=5.0, readout_tr=6.0)
    assert plain.readout_rate_per_ms is None
    rate = -math.log(cos(math.radians(5))) / 6
    assert known.readout_rate_per_ms == pytest.approx(rate, rel=1e-12)
    assert plain.derived[0].formula(plain, maps) == pytest.approx(600 * 1.5)
    assert known.derived[0].formula(known, maps) == pytest.approx(1 / (1 / 600 - rate))


def test_a_correction_that_gives_no_positive_time_gives_none() -> None:
    plain, known = LookLocker(ti=TI), LookLocker(ti=TI, readout_flip_angle=5.0, readout_tr=6.0)
    maps = {"T1star": np.array([600.0, 600.0, 600.0]), "B": np.array([0.5, 1.0, 1.5])}
    np.testing.assert_allclose(plain.derived[0].formula(plain, maps), [np.nan, np.nan, 300.0])
    assert known.readout_rate_per_ms is not None
    longest = 1 / known.readout_rate_per_ms
    maps = {"T1star": np.array([longest, 2 * longest]), "B": np.ones(2)}
    assert np.isnan(known.derived[0].formula(known, maps)).all()


@pytest.mark.parametrize(
    "settings", [{"readout_flip_angle": 5.0}, {"readout_tr": 6.0}, {"readout_flip_angle": 90.0, "readout_tr": 6.0}]
)
def test_half_a_readout_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"expected readout_flip_angle and readout_tr together|expected less than 90°"):
        LookLocker(ti=TI, **settings)
    assert LookLocker(ti=TI, readout_flip_angle=59.0, readout_tr=6.0).readout_flip_angle == 59.0


def test_radians_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected degrees, got at most 0\.44"):
        VariableFlipAngle(flip_angle=[0.05, 0.17, 0.44], tr=15.0)
    least = LEAST_LARGEST_FLIP_DEG
    assert VariableFlipAngle(flip_angle=[least / 4, least / 2, least], tr=15.0).times.max() == least


def test_only_signals_that_change_sign_know_a_polarity() -> None:
    assert knows_polarity(InversionRecovery) and knows_polarity(LookLocker(ti=TI)) and not knows_polarity(T2Decay)
    assert polarity(True) == {"signed": True} and polarity(False) == {"signed": False}
    assert not polarity_if_unknown(InversionRecovery) and not polarity_if_unknown(T2Decay)
    assert other_options(InversionRecovery) == [] and other_options(T2Decay) == []

    @dataclass
    class RealPart:
        signed: bool = True

    @dataclass
    class Magnitude:
        signed: bool = False
        other: bool = True

    assert polarity_if_unknown(RealPart) and not polarity_if_unknown(Magnitude)


def test_look_locker_shortens_t1_by_the_readout() -> None:
    """1/T1* = 1/T1 - ln(cos alpha)/TR; by that of a usual readout if it is not known."""
    times, T1 = [100.0, 600.0, 1100.0, 1600.0], np.array([900.0])
    found = LookLocker(ti=times, readout_flip_angle=8.0, readout_tr=6.0).apparent_values(T1)
    T1star = 1 / (1 / 900.0 - math.log(math.cos(math.radians(8.0))) / 6.0)
    np.testing.assert_allclose(found["T1star"], T1star)
    np.testing.assert_allclose(found["B"], 1 + 900.0 / T1star)
    usual = LookLocker(ti=times).apparent_values(T1)["T1star"]
    assert 0.2 * 900 < usual < 900 and usual != found["T1star"]
