"""Designs: optima that are known, the scan time, and what the present protocol is said to measure."""

from __future__ import annotations

import numpy as np
import pytest

import rimap
from rimap import Goal, InputError, InversionRecovery, VariableFlipAngle, design
from rimap.planning.design import Protocol
from rimap.planning.measurable_range import repeats_note, what_it_measures, why_undetermined
from rimap.planning.precision import relative_sd, tissue_of
from rimap.planning.protocols import cycles_ms, minutes_of
from rimap.signals import signal_models
from rimap.signals.base import predicting

RRSG = InversionRecovery(tau=[50, 400, 1100, 2500], tr=2550)
#: A range of each relaxation time that its sequences are for, ms.
RANGES = {"T1": (600.0, 1600.0), "T2": (40.0, 150.0), "T2star": (15.0, 60.0)}


def range_of(sequence: str) -> tuple[float, float]:
    kind = signal_models()[sequence]
    main = next((d.name for d in kind.derived if d.main), None)
    return RANGES[main or next(p.name for p in kind.parameters if p.role == "time")]


def test_two_echo_times_are_1_28_T2_apart_with_averages_where_they_count() -> None:
    """With the best share of averages (1 : 3.6) the spacing is 1.28 T2; with as many of both it is 1.11 T2."""
    T2 = 80.0
    common = {"sequence": "t2", "T_ms": (T2, T2), "minutes": 60, "separate": True, "limits": (1.0, 500.0)}
    found = design(Goal(images=9, repetition_ms=2000, **common)).best.model.times
    first, second = np.unique(found)
    assert (found == first).sum() == 2
    assert (second - first) / T2 == pytest.approx(1.28, abs=0.02)
    pair = design(Goal(images=2, repetition_ms=2000, **common)).best.model.times
    assert np.diff(pair)[0] / T2 == pytest.approx(1.11, abs=0.01)


@pytest.mark.parametrize(("T1", "tr"), [(800.0, 8.0), (1000.0, 15.0), (1500.0, 5.0)])
def test_the_two_ideal_flip_angles_give_71_per_cent_of_the_ernst_signal(T1: float, tr: float) -> None:
    """Deoni et al. 2003, doi:10.1002/mrm.10407."""
    goal = Goal(sequence="vfa", T_ms=(T1, T1), minutes=5, images=2, settings={"tr": tr}, limits=(0.5, 60.0))
    model = design(goal).best.model
    angles = VariableFlipAngle(flip_angle=np.linspace(0.5, 60, 2000), tr=tr)
    ernst = angles.signal(tissue_of(angles, np.array([T1]))).max()
    assert model.signal(tissue_of(model, np.array([T1])))[:, 0] / ernst == pytest.approx([0.71, 0.71], abs=0.01)
    assert model.times[0] < np.rad2deg(np.arccos(np.exp(-tr / T1))) < model.times[1]


@pytest.mark.parametrize("treatment", ["free", "smooth"])
def test_six_inversion_times_beat_the_rrsg_protocol_at_equal_scan_time(treatment: str) -> None:
    found = design(Goal(sequence="ir", T_ms=(600, 1600), images=6, treatment=treatment), RRSG)
    assert found.minutes == pytest.approx(minutes_of(RRSG, found.goal))
    assert found.best.minutes * found.best.averages <= found.minutes * (1 + 1e-9)
    assert found.best.model.n_images == 6
    assert found.present is not None and found.best.worst < found.present.worst
    print(  # noqa: T201
        f"B {treatment}: worst SD of T1 {100 * found.present.worst:.2f} % -> {100 * found.best.worst:.2f} %"
    )


@pytest.mark.parametrize("sequence", sorted(set(signal_models()) - {"mp2rage-uni"}))
def test_every_sequence_has_a_design_that_fits_its_scan_time(sequence: str) -> None:
    kind = signal_models()[sequence]
    images = None if kind.cycle.all_images else 4
    found = design(Goal(sequence=sequence, T_ms=range_of(sequence), minutes=6, images=images))
    best = found.best
    assert 0 < best.mean <= best.worst < 0.5
    assert best.averages >= 1 and best.averages == round(best.averages)
    assert best.averages * best.minutes <= 6 * (1 + 1e-9)
    low, high = found.goal.range_of_axis
    assert (best.model.times >= low - 1e-9).all() and (best.model.times <= high + 1e-9).all()
    one = cycles_ms(best.model, found.goal)
    assert best.model.axis.unit != "ms" or (one >= best.model.times.max() * kind.cycle.all_images).all()
    assert np.isfinite(best.sd(found.T_ms)).any()


def test_the_bound_is_that_of_the_likelihood() -> None:
    """The bound is `rimap.cramer_rao_sd` for a free field, that for a fixed field if given, and near this if smooth."""
    T = np.array([500.0, 1000, 2000])
    kappa, noise = tissue_of(RRSG, T), rimap.Gaussian(0.02)
    sd = {
        how: relative_sd(RRSG, noise, T, Goal(sequence="ir", T_ms=(500, 2000), treatment=how)) * T
        for how in ("free", "given", "smooth")
    }
    q = RRSG.time_index
    np.testing.assert_allclose(sd["free"], rimap.cramer_rao_sd(RRSG, noise, kappa)[q], rtol=1e-6)
    held = rimap.cramer_rao_sd(RRSG, noise, kappa, held=["B"])[q]
    np.testing.assert_allclose(sd["given"], held, rtol=1e-6)
    assert (sd["smooth"] > held).all()
    np.testing.assert_allclose(sd["smooth"], held, rtol=0.1)


def test_a_derived_map_is_judged_by_the_delta_method() -> None:
    """T1 = T1* (B − 1): at B = 2.9 a T1 of 950 ms has T1* = 500 ms, and SD follows from both and their covariance."""
    model = rimap.LookLocker(ti=np.arange(100, 3000, 200))
    kappa = tissue_of(model, np.array([950.0]))
    assert kappa[model.time_index] == pytest.approx(500, rel=1e-4) and kappa[model.index("B")] == pytest.approx(2.9)
    F = rimap.fisher_information(model, rimap.Gaussian(0.02), kappa)[..., 0]
    slope = np.zeros(3)
    slope[model.index("B")], slope[model.time_index] = 500, 1.9
    expected = np.sqrt(slope @ np.linalg.inv(F) @ slope) / 950
    goal = Goal(sequence="look-locker", T_ms=(600, 1600))
    assert relative_sd(model, rimap.Gaussian(0.02), np.array([950.0]), goal)[0] == pytest.approx(expected, rel=1e-4)


def test_more_time_and_a_higher_snr_help_as_they_must() -> None:
    base = Goal(sequence="ir", T_ms=(600, 1600), minutes=2.72, images=4)
    first = Protocol(base, RRSG, 1.0, 2.72, cycles_ms(RRSG, base), 0.02)
    twice = Protocol(base, RRSG, 4.0, 2.72, cycles_ms(RRSG, base), 0.02)
    quiet = Protocol(base, RRSG, 1.0, 2.72, cycles_ms(RRSG, base), 0.01)
    assert first.worst == pytest.approx(2 * twice.worst) and first.worst == pytest.approx(2 * quiet.worst)


def test_what_a_protocol_cannot_measure_is_said() -> None:
    goal = Goal(sequence="ir", T_ms=(600, 1600), images=5, minutes=3)
    two = predicting(InversionRecovery)(tau=[100, 800])
    found = design(goal, two)
    assert found.present is not None and not np.isfinite(found.present.worst)
    assert "3 unknowns" in why_undetermined(two, goal) and "it has 2" in what_it_measures(found, found.present)
    assert repeats_note(InversionRecovery(tau=[20, 20, 600, 1500]), goal).startswith(
        "The best protocol has 3 different images"
    )
    assert repeats_note(RRSG, goal) == ""
    long = design(Goal(sequence="ir", T_ms=(600, 4000), images=4), RRSG)
    assert long.present is not None and "Between 600 and 4000 ms" in what_it_measures(long, long.present)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sequence": "irr"}, "expected one of"),
        ({"T_ms": (1600, 600)}, "LOW-HIGH"),
        ({"minutes": 0}, "minutes"),
        ({"snr": -1}, "snr"),
        ({"images": 0}, "whole number"),
        ({"treatment": "wild"}, "expected one of free, smooth, given"),
        ({"sequence": "t2", "treatment": "smooth"}, "has no field"),
        ({"sequence": "mp2rage-uni"}, "amplitude"),
        ({"settings": {"ttr": 3}}, "Did you mean tr"),
        ({"assumed": {"B1": 1.0}}, "expected one of B, got 'B1'"),
        ({"T_ms": (0.6, 1.6)}, "milliseconds: 600-1600"),
        ({"assumed": {"B": 4.0}}, "between 0 and 3"),
        ({"sequence": "vfa", "limits": (200.0, 300.0)}, "between 1° and 180°"),
        ({"criterion": "best"}, "expected one of worst, mean"),
        ({"images": 2.5}, r"images: expected a whole number above 0, got 2\.5"),
        ({"shots": "16"}, "shots: expected a whole number above 0, got '16'"),
        ({"minutes": "5"}, "minutes: expected a number above 0"),
        ({"T_ms": 800}, r"T: expected two numbers \(low, high\), got 800"),
        ({"T_ms": (600, 900, 1600)}, "T: expected two numbers"),
        ({"limits": (600,)}, "limits: expected two numbers"),
        ({"assumed": {"B": "2"}}, "between 0 and 3, got '2'"),
    ],
)
def test_a_goal_that_cannot_be_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Goal(**{"sequence": "ir", "T_ms": (600, 1600), "minutes": 5, **wrong})


def test_a_scan_time_that_nothing_fits_is_refused() -> None:
    with pytest.raises(InputError, match="more minutes"):
        design(Goal(sequence="ir", T_ms=(600, 1600), minutes=0.1))
    with pytest.raises(InputError, match="minutes"):
        design(Goal(sequence="ir", T_ms=(600, 1600)))
    with pytest.raises(InputError, match="expected 3 or more"):
        design(Goal(sequence="ir", T_ms=(600, 1600), minutes=5, images=2))
    with pytest.raises(InputError, match="expected 2, which every scan of mp2rage has"):
        design(Goal(sequence="mp2rage", T_ms=(600, 1600), minutes=5, images=3))
    with pytest.raises(InputError, match="fit the limits and the length of a cycle"):
        design(Goal(sequence="megre", T_ms=(15, 60), minutes=1, images=20, repetition_ms=80, limits=(10.0, 60.0)))
    with pytest.raises(InputError, match="got one of t2"):
        design(Goal(sequence="ir", T_ms=(600, 1600), minutes=3), rimap.T2Decay(tau=[10, 20]))
