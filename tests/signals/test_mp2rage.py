"""MP2RAGE: an independent simulation of the cycle, pulse by pulse, and what UNIT1 determines."""

from __future__ import annotations

import numpy as np
import pytest

from rimap import InputError
from rimap.signals.mp2rage import MP2RAGE, UniformMP2RAGE, from_scanner, uniform_image

from .properties import check

PROTOCOLS = {
    "3 T": {
        "ti": (700.0, 2500.0),
        "flip_angle": (4.0, 5.0),
        "tr": 5000.0,
        "tr_excitation": 7.1,
        "number_shots": (40.0, 80.0),
    },
    "7 T": {"ti": (900.0, 2750.0), "flip_angle": (5.0, 3.0), "tr": 5500.0, "tr_excitation": 6.0, "number_shots": 176.0},
}


def uniform(protocol: dict, **options: float) -> UniformMP2RAGE:
    """Return the model of UNIT1 for the settings of the two images."""
    (first, second), (alpha, beta) = protocol["ti"], protocol["flip_angle"]
    rest = {k: v for k, v in protocol.items() if k not in ("ti", "flip_angle")}
    return UniformMP2RAGE(ti=first, ti_second=second, flip_angle=alpha, flip_angle_second=beta, **rest, **options)


def simulated(protocol: dict, T1: float, B1: float = 1.0, efficiency: float = 0.96) -> tuple[float, float]:
    """Return both signals after many cycles: Mz alone, in the order in which the scanner acts on it."""
    shots = np.atleast_1d(protocol["number_shots"])
    before, after = (int(shots[0]), int(shots[1])) if len(shots) == 2 else (int(shots[0] / 2),) * 2
    step, S, Mz = protocol["tr_excitation"], [0.0, 0.0], 1.0

    def recover(Mz: float, time: float) -> float:
        return 1 + (Mz - 1) * np.exp(-time / T1)

    for _ in range(60):
        clock, Mz = 0.0, -efficiency * Mz
        for k, (ti, flip) in enumerate(zip(protocol["ti"], protocol["flip_angle"])):
            start = ti - before * step
            Mz, clock = recover(Mz, start - clock), start
            for pulse in range(before + after):
                if pulse == before:
                    S[k] = Mz * np.sin(np.deg2rad(flip) * B1)
                Mz = recover(Mz * np.cos(np.deg2rad(flip) * B1), step)
                clock += step
        Mz = recover(Mz, protocol["tr"] - clock)
    return S[0], S[1]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_properties(name: str) -> None:
    check(MP2RAGE(**PROTOCOLS[name]))
    check(uniform(PROTOCOLS[name]))


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(("T1", "B1", "efficiency"), [(800.0, 1.0, 0.96), (1350.0, 0.8, 1.0), (3800.0, 1.2, 0.9)])
def test_the_signals_are_those_of_the_simulated_cycle(name: str, T1: float, B1: float, efficiency: float) -> None:
    protocol = PROTOCOLS[name]
    first, second = simulated(protocol, T1, B1, efficiency)
    model = MP2RAGE(**protocol, inversion_efficiency=efficiency)
    np.testing.assert_allclose(np.asarray(model.signal([[1.0], [B1], [T1]]))[:, 0], [first, second], rtol=1e-9)
    S = float(uniform(protocol, inversion_efficiency=efficiency).signal([[B1], [T1]])[0, 0])
    assert pytest.approx(first * second / (first**2 + second**2), rel=1e-9) == S


@pytest.mark.parametrize("name", PROTOCOLS)
def test_unit1_falls_with_t1_over_the_whole_box(name: str) -> None:
    model = uniform(PROTOCOLS[name])
    low, high = model.time.bounds
    assert low < 600 and high > 3500
    T1 = np.geomspace(low, high, 300)
    S = np.asarray(model.signal([np.ones(300), T1]))[0]
    assert (np.diff(S) < 0).all() and S[0] == pytest.approx(0.5, abs=0.02) and S[-1] == pytest.approx(-0.5, abs=0.02)
    narrow = model.with_bounds({"T1": (700.0, 2000.0)})
    assert narrow.time.bounds == (700.0, 2000.0)


def test_t1_depends_on_b1_as_published() -> None:
    """At 3 T an error of 10 % in B1 changes T1 by a few per cent: Marques & Gruetter 2013."""
    model, T1 = uniform(PROTOCOLS["3 T"]), np.geomspace(500, 3000, 2000)
    at_one, at_less = (np.asarray(model.signal([np.full(2000, b), T1]))[0] for b in (1.0, 0.9))
    for truth in (850.0, 1350.0):
        S = np.interp(truth, T1, at_less)
        found = np.interp(-S, -at_one, T1)
        assert 0.005 < abs(found / truth - 1) < 0.10


def test_the_uniform_model_has_no_amplitude() -> None:
    model = uniform(PROTOCOLS["3 T"])
    assert model.amplitudes == () and model.n_images == 1 and not model.separable and not model.magnitude
    kappa = np.array([[1.0, 0.9], [900.0, 1500.0]])
    assert model.partials(kappa).shape == (1, 2, 2) and model.initial_guess(np.zeros((1, 2))).shape == (2, 2)
    assert model.columns(model.by_name(kappa)).shape == (1, 1, 2)


def test_repeats_and_the_order_of_the_images_are_free() -> None:
    protocol = dict(PROTOCOLS["3 T"])
    model = MP2RAGE(**protocol)
    turned = MP2RAGE(**{**protocol, "ti": (2500.0, 700.0, 2500.0), "flip_angle": (5.0, 4.0, 5.0)})
    kappa = [[1.0], [1.0], [1100.0]]
    np.testing.assert_allclose(turned.signal(kappa), np.asarray(model.signal(kappa))[[1, 0, 1]], rtol=1e-14)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"signed": False}, "mp2rage-uni"),
        ({"ti": (700.0, 700.0), "flip_angle": 4.0}, "distinct|two inversion times"),
        ({"ti": (100.0, 2500.0)}, "between the inversion and the first train, got -184 ms"),
        ({"ti": (700.0, 1200.0)}, "between the trains"),
        ({"tr": 2600.0}, "next inversion"),
        ({"number_shots": (1, 2, 3)}, "one or 2 values"),
        ({"inversion_efficiency": 96.0}, "at most 1"),
        ({"tr": 5.0}, "If these are seconds"),
    ],
)
def test_what_cannot_be_is_refused(change: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        MP2RAGE(**{**PROTOCOLS["3 T"], **change})


@pytest.mark.parametrize(("shift", "fits"), [(0.49, True), (0.51, False)])
def test_trains_may_touch_and_times_are_rounded(shift: float, fits: bool) -> None:
    """To half a millisecond: of 40 pulses before the centre and 80 after it, every 7.1 ms."""
    before, after, step = 40, 80, 7.1
    touching = {
        "the inversion and the first train": {"ti": (before * step - shift, 2500.0)},
        "the trains": {"ti": (700.0, 700.0 + (before + after) * step - shift)},
        "the second train and the next inversion": {"tr": 2500.0 + after * step - shift},
    }
    for where, change in touching.items():
        settings = {**PROTOCOLS["3 T"], **change}
        if fits:
            S = MP2RAGE(**settings).signal([[1.0], [1.0], [1200.0]])
            exact = MP2RAGE(
                **{
                    **settings,
                    **{
                        k: tuple(np.add(v, (shift, 0) if "first" in where else (0, shift))) if k == "ti" else v + shift
                        for k, v in change.items()
                    },
                }
            )
            np.testing.assert_allclose(S, exact.signal([[1.0], [1.0], [1200.0]]), rtol=2e-3)
        else:
            with pytest.raises(InputError, match=f"expected time between {where}, got -0.51 ms"):
                MP2RAGE(**settings)


@pytest.mark.parametrize(("efficiency", "refused"), [(0.0, True), (0.01, False), (1.0, False), (1.01, True)])
def test_the_efficiency_of_the_inversion(efficiency: float, refused: bool) -> None:
    if refused:
        with pytest.raises(InputError, match="inversion_efficiency: expected more than 0 and at most 1"):
            MP2RAGE(**PROTOCOLS["3 T"], inversion_efficiency=efficiency)
    else:
        assert MP2RAGE(**PROTOCOLS["3 T"], inversion_efficiency=efficiency).inversion_efficiency == efficiency


def test_a_third_inversion_time_is_refused() -> None:
    with pytest.raises(InputError, match=r"images at two inversion times, got 3: 700, 2500, 900 ms"):
        MP2RAGE(**{**PROTOCOLS["3 T"], "ti": (700.0, 2500.0, 900.0), "flip_angle": (4.0, 5.0, 4.0)})
    with pytest.raises(InputError, match=r"the same first inversion time for all UNIT1 images, got \[700.0, 800.0\]"):
        uniform({**PROTOCOLS["3 T"], "ti": ((700.0, 800.0), 2500.0)})
    both = uniform({**PROTOCOLS["3 T"], "ti": ((700.0, 700.0), 2500.0)})
    assert both.n_images == 2 and np.ptp(np.asarray(both.signal([[1.0], [1000.0]]))) == 0


def test_the_box_of_unit1_is_from_its_maximum_to_its_minimum() -> None:
    model = uniform(PROTOCOLS["3 T"])
    T1 = np.geomspace(1.0, 10_000.0, 2001)
    S = np.asarray(model.signal([np.ones(2001), T1]))[0]
    least = int(S.argmin())
    assert model.time.bounds == pytest.approx((T1[S[: least + 1].argmax()], T1[least]))
    low, high = model.time.bounds
    assert model.time.start == pytest.approx(np.sqrt(low * high))
    assert model.with_bounds({"B1": (0.5, 1.5)}).time.bounds == model.time.bounds


def test_unit1_from_complex_images_has_the_polarity_of_their_phase() -> None:
    phase = np.exp(1j * np.array([0.3, 2.0, -1.0]))
    first, second = np.array([-20.0, 5.0, 30.0]), np.array([50.0, 40.0, 35.0])
    expected = first * second / (first**2 + second**2)
    np.testing.assert_allclose(uniform_image(first * phase, second * phase), expected, rtol=1e-12)
    np.testing.assert_allclose(uniform_image(first, second), expected, rtol=1e-12)
    assert np.isnan(uniform_image([0.0], [0.0])[0])


def test_the_robust_background_leaves_bright_tissue_and_darkens_air() -> None:
    rng = np.random.default_rng(0)
    air = uniform_image(rng.normal(size=1000), rng.normal(size=1000), beta=100.0)
    assert (air < -0.4).all()
    plain, robust = uniform_image(-200.0, 600.0), uniform_image(-200.0, 600.0, beta=100.0)
    assert robust == pytest.approx(plain, abs=1e-3)


def test_integers_of_a_scanner_are_recognised() -> None:
    np.testing.assert_allclose(from_scanner([0, 2047.5, 4095]), [-0.5, 0.0, 0.5])
    np.testing.assert_allclose(from_scanner([-0.3, 0.2]), [-0.3, 0.2])
    np.testing.assert_allclose(from_scanner([0.0, 1.0]), [0.0, 1.0])
    np.testing.assert_allclose(from_scanner([-0.1, 1.1]), [-0.1, 1.1])
    np.testing.assert_allclose(from_scanner([np.nan, 0.0, 1.01]), [np.nan, -0.5, 1.01 / 4095 - 0.5])
    np.testing.assert_allclose(from_scanner([0, 255], levels=255), [-0.5, 0.5])
    assert np.isnan(from_scanner([np.nan, np.nan])).all()
