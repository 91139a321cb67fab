"""What a signal model declares and what follows from it: parameters, priors, settings, bounds, subsets, linearity."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import rimap
from rimap import InputError
from rimap.arrays import Array, column, namespace
from rimap.signals import signal_models
from rimap.signals.base import (
    Derived,
    FieldPrior,
    Parameter,
    SignalModel,
    Values,
    axis_of,
    image_suffix,
    main_of,
    predicting,
    setting,
    unpack,
)
from rimap.signals.gradient_echo import GradientEchoWithOffset
from rimap.signals.look_locker import LookLocker
from rimap.signals.model_checks import fault_of_declarations
from rimap.signals.settings import Setting, settings_of, unit_symbol, with_unit

TI = (50.0, 400.0, 1100.0, 2500.0)
IR, DECAY = rimap.InversionRecovery(tau=TI), rimap.T2Decay(tau=(10.0, 20.0, 40.0))
SCAN = rimap.MP2RAGE(ti=(700, 2500), flip_angle=(4, 5), tr=5000, tr_excitation=7.1, number_shots=(40, 80))
TRAIN = rimap.MultiEchoSpinEcho(te=10.0 * np.arange(1, 6), profile="hard")


# Priors and parameters.


def test_a_prior_has_defaults() -> None:
    prior = FieldPrior(mean=(1.0, 3.0), spread=(0.0, 0.2))
    assert prior.middle == 2.0 and prior.deviation == pytest.approx(np.hypot(2 / np.sqrt(12), 0.4))
    assert FieldPrior(mean=(1.0, 3.0), typical=0.0).middle == 0.0 and FieldPrior(mean=(1, 3), sd=0.0).deviation == 0.0
    assert FieldPrior(mean=(1.0, 3.0), typical=5.0, spread=(0.5, 0.1)).deviation == pytest.approx(
        np.hypot(2 / np.sqrt(12), 0.5)
    )


def parameter(role: str = "field", bounds: tuple[float, float] = (2.0, 12.0), **more: Any) -> Parameter:
    return Parameter("P", "1", bounds, role, **more)


def test_a_parameter_has_defaults() -> None:
    time = parameter("time", (2.0, 50.0))
    assert time.transform == "log" and time.start == pytest.approx(10.0)
    field = parameter()
    assert field.transform == "linear" and field.start == 7.0
    assert parameter(transform="log", bounds=(2.0, 50.0)).start == pytest.approx(10.0)
    assert parameter("time", (2.0, 50.0), transform="linear", start=3.0).start == 3.0
    amplitude = parameter("amplitude", (0.0, np.inf))
    assert amplitude.start is None and amplitude.amplitude and not field.amplitude and amplitude.transform == "linear"
    assert parameter(treatment="smooth").smooth and parameter(treatment="given").given
    assert not field.smooth and not field.given and not parameter(treatment="smooth").given


def test_what_a_field_is_like_without_a_prior() -> None:
    prior = parameter().in_a_scan
    assert prior.mean == pytest.approx((5.0, 9.0)) and prior.typical == 7.0
    own = FieldPrior(mean=(3.0, 4.0))
    assert parameter(prior=own).in_a_scan is own


def test_where_a_parameter_is_searched() -> None:
    prior = FieldPrior(mean=(4.0, 6.0), sd=0.5)
    assert parameter(prior=prior).searched == (3.5, 6.5)
    assert parameter(prior=FieldPrior(mean=(2.1, 11.9), sd=0.5)).searched == (2.0, 12.0)
    assert parameter(prior=prior, search=(3.0, 20.0)).searched == (3.0, 12.0)
    assert parameter("time", search=(1.0, 5.0)).searched == (2.0, 5.0) and parameter("time").searched == (2.0, 12.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"role": "angle"}, "expected role amplitude, time, field, got 'angle'"),
        ({"treatment": "fixed"}, "expected treatment smooth, given, free, got 'fixed'"),
        ({"transform": "sqrt"}, "expected transform log, linear, got 'sqrt'"),
        ({"bounds": (2.0, 2.0)}, "low < high"),
        ({"bounds": (3.0, 2.0)}, "low < high"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        parameter(**options)


# A model with everything that the others have only in part.


@dataclass(frozen=True)
class Everything(SignalModel):
    """S = |A (1 − F e^(−t/T)) + C G|, with a field that is not linear in general."""

    t: Values = setting("time", "t", bids="Time")
    each: Values = setting("each", "e", "1", default=None, per_image=None)
    two: Any = setting("two", "w", "1", default=None, per_image=False, lengths=(1, 2))
    one: Any = setting("one", "o", "1", default=3.0, per_image=False)
    claims: bool = True
    bent: bool = False

    name: ClassVar[str] = "every-thing 2"
    title: ClassVar[str] = "Everything"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("T", "ms", (10.0, 1000.0), "time"),
        Parameter("F", "1", (0.0, 2.0), "field"),
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude"),
    )
    linear_in_field: ClassVar[bool] = True

    def shape(self, T: Array, F: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1."""
        return 1 - (F * F if self.bent else F) * namespace(T).exp(-column(self.t, T) / T)


def everything(**more: Any) -> Everything:
    return Everything(**({"t": (10.0, 20.0, 40.0)} | more))


def test_settings_are_brought_to_the_number_of_images() -> None:
    model = everything(each=5.0, two=(1.0, 2.0), one=[4])
    assert (
        model.each == (5.0, 5.0, 5.0) and model.two == (1.0, 2.0) and model.one == 4.0 and model.t == (10.0, 20.0, 40.0)
    )
    assert everything(each=(1, 2, 3)).each == (1.0, 2.0, 3.0) and everything().each is None
    assert everything(two=7.0).two == (7.0,)
    assert everything(each=(1, 2, 3)).conditions == [(10.0, 1.0), (20.0, 2.0), (40.0, 3.0)]
    assert everything().conditions == [(10.0,), (20.0,), (40.0,)] and everything().n_images == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"each": (1.0, 2.0)}, "each: expected one value, or one for each of the 3 images, got 2"),
        ({"two": (1.0, 2.0, 3.0)}, "two: expected one or 2 values, got 3"),
        ({"one": (1.0, 2.0)}, "one: expected one value, got 2"),
        ({"t": ()}, "t: expected numbers in ms, got none"),
        (
            {"t": (10.0, 20.0)},
            r"Everything has 3 parameters \(T, F, A\): expected images at 3 or more .* got 2 \(2 images\)",
        ),
        ({"t": (10.0, 10.0, 20.0)}, r"got 2 \(3 images\)"),
        ({"t": None}, "t: expected numbers in ms"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        everything(**options)


def test_a_given_parameter_needs_no_image() -> None:
    assert rimap.VariableFlipAngle(flip_angle=(3, 20), tr=15).n_images == 2
    with pytest.raises(InputError, match=r"2 parameters \(A, T1\)"):
        rimap.VariableFlipAngle(flip_angle=(3,), tr=15)


def test_parts_of_a_model() -> None:
    model = everything()
    assert model.time.name == "T" and model.time_index == 0 and model.index("A") == 2 and model.axis.name == "t"
    assert (
        model.field is not None
        and model.field.name == "F"
        and model.main is model.time
        and main_of(Everything).name == "T"
    )
    assert [p.name for p in model.amplitudes] == ["A"] and [p.name for p in model.nonlinear] == ["T", "F"]
    assert model.times.dtype == float and axis_of(Everything).title == "time" and DECAY.field is None
    vfa = rimap.VariableFlipAngle(flip_angle=(3, 20), tr=15)
    assert vfa.field is not None and vfa.field.name == "B1"  # the given one, if there is no other
    assert TRAIN.field is not None and TRAIN.field.name == "B1"  # not the given T1
    main = LookLocker(ti=TI).main
    assert isinstance(main, Derived) and main.name == "T1" == main_of(LookLocker).name
    assert main_of(rimap.GradientEcho).name == "T2star"  # its derived map is not the main one
    assert rimap.GradientEcho(te=(5, 10)).main.name == "T2star"


def test_polarity() -> None:
    signed = dataclasses.replace(IR, signed=True)
    assert IR.magnitude and not IR.is_signed and signed.is_signed and not signed.magnitude
    assert not DECAY.magnitude and not DECAY.is_signed and not SCAN.magnitude


def test_the_suffix_of_images() -> None:
    assert (
        image_suffix(IR) == "IRT1" and image_suffix(LookLocker) == "IRT1" and image_suffix(Everything) == "everything2"
    )


def test_a_model_at_other_values_of_its_axis() -> None:
    assert rimap.InversionRecovery.at(TI, tr=9000.0) == rimap.InversionRecovery(tau=TI, tr=9000.0)
    subset = rimap.InversionRecovery(tau=TI, tr=(3000, 4000, 5000, 6000), signed=True).subset([3, 0, 2])
    assert subset.times.tolist() == [2500, 50, 1100] and subset.tr == (6000.0, 3000.0, 5000.0) and subset.is_signed
    assert IR.subset([0, 1, 2]).tr is None


def test_settings_of_a_prediction() -> None:
    with_tr = rimap.InversionRecovery(tau=TI, tr=9000.0)
    one = with_tr.with_settings(tau=(700.0,))
    assert one.n_images == 1 and one.tr == (9000.0,)
    np.testing.assert_allclose(
        one.signal([[1.0], [1.9], [900.0]]), with_tr.at((700.0, 1, 2), tr=9000.0).signal([[1.0], [1.9], [900.0]])[:1]
    )
    both = with_tr.with_settings(tau=(700.0, 800.0), tr=(1000.0, 2000.0))
    assert both.tr == (1000.0, 2000.0) and isinstance(both, rimap.InversionRecovery)
    assert with_tr.with_settings(tr=5000.0).tr == (5000.0,) * 4 and IR.with_settings(tau=(9.0, 20.0)).tr is None
    each = rimap.InversionRecovery(tau=TI, tr=(3000, 4000, 5000, 6000))
    with pytest.raises(InputError, match="tr: expected one value, or one for each of the 2 images, got 4"):
        each.with_settings(tau=(700.0, 800.0))
    for name in ("te", "box"):
        with pytest.raises(InputError, match=f"settings: expected some of tau, tr, signed, got '{name}'"):
            IR.with_settings(**{name: 1.0})
    assert predicting(rimap.T2Decay)(tau=[5.0]).n_images == 1
    narrow = IR.with_bounds({"B": (1.0, 2.0)}).with_settings(tau=(100.0,))
    assert narrow.parameters[1].bounds == (1.0, 2.0)


def test_bounds() -> None:
    narrow = IR.with_bounds({"T1": (100.0, 900.0)})
    assert (
        narrow.time.bounds == (100.0, 900.0)
        and narrow.time.start == pytest.approx(300.0)
        and IR.time.bounds[1] == 10_000
    )
    inside = IR.with_bounds({"T1": (1000.0, 2000.0)})
    assert inside.time.start == 1000.0 and IR.with_bounds({"T1": (500.0, 1000.0)}).time.start == 1000.0
    assert IR.with_bounds({}) is IR and IR.with_bounds({"A": (0.0, 5.0)}).parameters[0].start is None
    twice = narrow.with_bounds({"B": (1.0, 2.0)}).with_bounds({"T1": (200.0, 300.0)})
    assert [p.bounds for p in twice.parameters[1:]] == [(1.0, 2.0), (200.0, 300.0)] and len(twice.box) == 2
    with pytest.raises(InputError, match="bounds: expected one of A, B, T1, got 'T2'"):
        IR.with_bounds({"T2": (1.0, 2.0)})


# Signals.


def test_signals_are_sums_of_amplitudes_times_columns() -> None:
    model = GradientEchoWithOffset(te=(5.0, 15.0, 30.0))
    A, T, C = np.array([[7.0, 3.0], [20.0, 40.0], [2.0, 1.0]])
    E = np.exp(-np.array(model.te)[:, None] / T)
    np.testing.assert_allclose(model.signal([A, T, C]), A * E + C)
    d = np.asarray(model.partials([A, T, C]))
    np.testing.assert_allclose(d, np.stack([E, A * E * np.array(model.te)[:, None] / T**2, np.ones_like(E)], axis=1))
    assert model.columns({"T2star": T}).shape == (3, 2, 2) and DECAY.columns({"T2": T}).shape == (3, 1, 2)
    np.testing.assert_array_equal(model.amplitude(np.stack([A, T, C])), A)
    np.testing.assert_allclose(model.initial_guess([[-9.0], [4.0], [5.0]])[:, 0], [9.0, model.time.start, 0.0])


def test_the_derivative_of_a_modulus_has_its_sign() -> None:
    kappa = np.array([[100.0], [1.9], [900.0]])
    signed = dataclasses.replace(IR, signed=True)
    f, d = np.asarray(signed.signal(kappa)), np.asarray(signed.partials(kappa))
    np.testing.assert_allclose(IR.signal(kappa), abs(f))
    np.testing.assert_allclose(IR.partials(kappa), d * np.sign(f)[:, None])
    assert (f < 0).any() and (f > 0).any()


def test_a_model_without_an_amplitude() -> None:
    uniform = rimap.UniformMP2RAGE(
        ti=700, ti_second=2500, flip_angle=4, flip_angle_second=5, tr=5000, tr_excitation=7.1, number_shots=(40, 80)
    )
    kappa = np.array([[1.0, 0.9], [900.0, 1500.0]])
    np.testing.assert_array_equal(uniform.amplitude(kappa), [1.0, 1.0])
    slopes = uniform.shape_partials(B1=kappa[0], T1=kappa[1])
    np.testing.assert_array_equal(uniform.partials(kappa), np.stack([slopes["B1"], slopes["T1"]], axis=1))
    np.testing.assert_array_equal(uniform.signal(kappa), uniform.shape(B1=kappa[0], T1=kappa[1]))
    assert not uniform.separable


def test_a_claim_of_linearity_is_tried() -> None:
    assert everything().separable and not everything(bent=True).separable and IR.separable and DECAY.separable
    assert not TRAIN.separable and not GradientEchoWithOffset(te=(5.0, 15.0, 30.0)).separable
    assert not rimap.VariableFlipAngle(flip_angle=(3, 20), tr=15).separable
    T = np.array([100.0, 700.0])
    phi = np.asarray(IR.basis(T))
    E = np.exp(-np.array(TI)[:, None] / T)
    np.testing.assert_allclose(phi, np.stack([1 + 0 * E, -E], axis=1), atol=1e-12)
    np.testing.assert_allclose(DECAY.basis(T)[:, 0], np.exp(-np.array(DECAY.tau)[:, None] / T))


def test_a_hidden_setting_needs_a_model_that_knows_what_it_does() -> None:
    with pytest.raises(InputError, match="T2 decay: expected no hidden setting, got tr"):
        rimap.T2Decay.effective(np.ones((2, 1)), tr=900.0)


def test_maps_are_split_by_parameter() -> None:
    both = unpack([[1, 2], [3, 4]], 2)
    assert len(both) == 2 and both[1].tolist() == [3.0, 4.0] and both[0].dtype == float
    tensors = unpack([torch.ones(3), torch.zeros(3)], 2)
    assert all(torch.is_tensor(t) for t in tensors) and torch.is_tensor(unpack(torch.ones(2, 3), 2)[0])
    with pytest.raises(InputError, match=r"kappa: expected 2 maps along its first axis, got the shape \(3, 1\)"):
        unpack(np.ones((3, 1)), 2)
    assert list(IR.by_name([[1.0], [2.0], [3.0]])) == ["A", "B", "T1"]


# Settings.


ECHO = Setting("te", "echo time", "TE", "ms", ("EchoTime", "TE"), 1000.0, plausible=(1.0, 5000.0))


@pytest.mark.parametrize("bad", [["a"], [np.nan], [np.inf], [1.0, -1.0], object()])
def test_values_that_are_no_numbers_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="te: expected numbers in ms"):
        ECHO.checked(bad)


def test_values_are_a_tuple_of_numbers() -> None:
    assert (
        ECHO.checked([[10], [20]]) == (10.0, 20.0)
        and ECHO.checked(7) == (7.0,)
        and ECHO.checked([0.0, 9.0]) == (0.0, 9.0)
    )
    assert ECHO.checked([]) == () and ECHO.checked([0.0]) == (0.0,)


@pytest.mark.parametrize(
    ("values", "refused"), [((0.999,), True), ((1.0,), False), ((0.1, 0.9), True), ((0.1, 5.0), False), ((0.0,), False)]
)
def test_another_unit_is_known_by_the_largest_value(values: tuple[float, ...], refused: bool) -> None:
    if not refused:
        ECHO.refuse_other_unit(values, "te")
        return
    with pytest.raises(InputError, match=f"got at most {max(values):g} ms"):
        ECHO.refuse_other_unit(iter(values), "te")
    dataclasses.replace(ECHO, factor=1.0).refuse_other_unit(values, "te")


@pytest.mark.parametrize(
    ("given_as", "values", "remedy"),
    [
        ("te", (0.01, 0.02), r"te=\[10, 20\]\.$"),
        ("--times-ms", (0.01, 0.02, 0.03), r"--times-ms 10 20 30\.$"),
        ("--set te", (0.01, 0.02, 0.03, 0.04), r"--set te=10,20,30,…\.$"),
    ],
)
def test_the_right_unit_is_given_in_the_same_way(given_as: str, values: tuple[float, ...], remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        ECHO.refuse_other_unit(values, given_as)


def test_sidecars_have_their_own_unit_and_fields() -> None:
    assert ECHO.in_sidecar(139.0) == 0.139 and ECHO.from_sidecar(0.139) == 139.0 and ECHO.from_sidecar(1.1) == 1100.0
    assert ECHO.in_sidecar(1000 / 3) == 0.333333333333
    assert ECHO.sidecar_field == "EchoTime" and ECHO.sidecar_fields == ("EchoTime", "TE")
    own = Setting("slice_ratio", "slice ratio", "r", "1")
    assert own.sidecar_field == "SliceRatio" and own.sidecar_fields == ("SliceRatio",)
    assert ECHO.drawn_from == (1.0, 5000.0) and dataclasses.replace(ECHO, usual=(5.0, 100.0)).drawn_from == (5.0, 100.0)
    assert ECHO.text(10.0) == "TE 10 ms" and with_unit(2.0, "1") == "2" and with_unit(1.23456789, "ms") == "1.23457 ms"
    assert [unit_symbol(unit) for unit in ("1", "deg", "ms")] == ["", "°", "ms"]


def test_a_declared_setting() -> None:
    declared = settings_of(Everything)
    assert (
        list(declared) == ["t", "each", "two", "one"] and declared["t"].name == "t" and declared["t"].factor == 1000.0
    )
    assert declared["t"].required and not declared["each"].required and declared["each"].factor == 1.0
    assert declared["t"].bids == ("Time",) and declared["each"].bids == ()
    field = setting("x", "X", factor=2.0, bids=("A", "B"))
    found = next(iter(field.metadata.values()))
    assert found.factor == 2.0 and found.bids == ("A", "B")


# What is no model.


def model_with(*parameters: Any, base: type = Everything) -> Any:
    return type("Other", (base,), {"parameters": parameters[0] if len(parameters) == 1 else parameters})


TIME, AMPLITUDE = Parameter("T", "ms", (1.0, 9.0), "time"), Parameter("A", "a.u.", (0.0, 9.0), "amplitude")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Everything, ""),
        (model_with(TIME, AMPLITUDE), ""),
        (model_with([TIME, AMPLITUDE]), "expected a tuple of Parameter as its parameters"),
        (model_with(TIME, "A"), "expected a tuple of Parameter as its parameters"),
        (model_with(TIME, AMPLITUDE, AMPLITUDE), "a name of its own for each parameter, got T, A, A"),
        (model_with(AMPLITUDE, dataclasses.replace(AMPLITUDE, name="B")), "one parameter with the role time"),
        (model_with(TIME, dataclasses.replace(TIME, name="B"), AMPLITUDE), "got time, time, amplitude"),
        (model_with(TIME, dataclasses.replace(TIME, name="B", role="field")), ""),  # no amplitude: of no unit
    ],
)
def test_what_every_command_needs_of_a_model(model: Any, says: str) -> None:
    fault = fault_of_declarations(model)
    assert says in fault and bool(says) == bool(fault)


def test_a_model_needs_a_setting_of_each_image() -> None:
    @dataclass(frozen=True)
    class Alone(SignalModel):
        one: float = setting("one", "o", per_image=False)
        parameters = (TIME, AMPLITUDE)

    assert "a setting with a value for each image" in fault_of_declarations(Alone)
    assert signal_models()["ir"] is rimap.InversionRecovery


def test_the_amplitude_of_a_model_without_one_is_one() -> None:
    model = signal_models()["mp2rage-uni"](**signal_models()["mp2rage-uni"].typical_protocol)
    kappa = np.full((len(model.parameters), 2, 3), 700.0)
    np.testing.assert_array_equal(model.amplitude(kappa), np.ones((2, 3)))
    np.testing.assert_array_equal(rimap.T2Decay(tau=[10, 20]).amplitude(np.stack([[5.0, 6.0], [80.0, 90.0]])), [5, 6])
