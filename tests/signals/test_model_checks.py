"""A signal model that contradicts itself is refused before its images are mapped; one that does not is never."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import make_dataclass, replace
from typing import Any

import numpy as np
import pytest

import rimap
from rimap import Parameter, T2Decay
from rimap.arrays import column, namespace
from rimap.errors import InputError
from rimap.signals.model_checks import refuse_contradictions

TAU = (10.0, 20.0, 40.0, 80.0, 160.0)
AMPLITUDE, TIME = T2Decay.parameters
FIELD = Parameter("q", "1", (0.5, 1.5), "field", "free", start=1.0)


def model(shape: Callable[..., Any] | None = None, **changed: Any) -> Any:
    """Return a model of another package: T2 decay, with something changed."""
    own = {"shape": shape, "shape_partials": rimap.SignalModel.shape_partials} if shape else {}
    return type("Other", (T2Decay,), {"name": "other", "__module__": "other"} | own | changed)(tau=TAU)


def decay(self: Any, T2: Any) -> Any:
    return namespace(T2).exp(-column(self.tau, T2) / T2)


def slope(factor: float) -> Callable[..., Any]:
    return lambda self, T2: {"T2": factor * T2Decay.shape_partials(self, T2)["T2"]}


def _in_place(self: Any, T2: Any) -> Any:
    T2 *= 1.01
    return decay(self, T2)


def _raises(self: Any, T2: Any) -> Any:
    raise ZeroDivisionError("of its own")


def with_parameters(*parameters: Parameter, **changed: Any) -> Any:
    return model(parameters=parameters, **changed)


NOISE = np.random.default_rng(0)
CONTRADICTIONS = {
    "a derivative of twice the size": (model(shape_partials=slope(2)), "derivative in T2 is wrong by up to 100 %"),
    "a derivative that is 1 % off": (model(shape_partials=slope(1.01)), "derivative in T2 is wrong by up to 1 %"),
    "a derivative of the other sign": (model(shape_partials=slope(-1)), "derivative in T2 is wrong by up to 200 %"),
    "a derivative that is NaN": (model(shape_partials=slope(np.nan)), "derivative in T2 is wrong by up to nan %"),
    "a derivative of one image": (
        model(shape_partials=lambda self, T2: {"T2": T2Decay.shape_partials(self, T2)["T2"][:1]}),
        r"expected \(5, 8\) as its derivative in T2, got \(1, 8\)",
    ),
    "a derivative of another name": (
        model(shape_partials=lambda self, T2: {"T1": T2Decay.shape_partials(self, T2)["T2"]}),
        "expected derivatives in T2 from its shape_partials, got T1",
    ),
    "an array of derivatives": (
        model(shape_partials=lambda self, T2: T2Decay.shape_partials(self, T2)["T2"]),
        "from its shape_partials, got ndarray",
    ),
    "a modulus without derivatives": (model(lambda self, T2: abs(decay(self, T2))), "use no abs or float in it"),
    "too few images": (model(lambda self, T2: decay(self, T2)[1:]), r"expected \(5, 8\) .* got \(4, 8\)"),
    "images last": (model(lambda self, T2: decay(self, T2).T), r"expected \(5, 8\) .* got \(8, 5\)"),
    "two columns of one amplitude": (
        model(lambda self, T2: np.stack([decay(self, T2)] * 2, axis=1)),
        r"expected \(5, 8\) .* got \(5, 2, 8\)",
    ),
    "one column of two amplitudes": (
        with_parameters(AMPLITUDE, TIME, replace(AMPLITUDE, name="C", suffix=None)),
        r"expected \(5, 2, 8\) .* got \(5, 8\)",
    ),
    "a list": (model(lambda self, T2: list(decay(self, T2))), "expected a NumPy array from its shape, got list"),
    "complex numbers": (model(lambda self, T2: (1 + 1j) * decay(self, T2)), "real numbers from its shape"),
    "NaN at a bound": (
        model(lambda self, T2: decay(self, T2) * (T2 - 5000) / (T2 - 5000), shape_partials=slope(1)),
        "not finite everywhere within its bounds",
    ),
    "NaN in a part of the box": (
        model(lambda self, T2: np.where(T2.real > 300, np.nan, decay(self, T2)), shape_partials=slope(1)),
        "not finite everywhere within its bounds",
    ),
    "an error": (model(_raises), "its shape raised ZeroDivisionError: of its own"),
    "another argument": (model(lambda self, T1: decay(self, T1)), "its shape raised TypeError"),
    "a change of what it gets": (model(_in_place), "changes the arrays that it gets"),
    "random numbers": (
        model(lambda self, T2: decay(self, T2) * NOISE.uniform(0.9, 1.1)),
        "two calls of its shape with the same values",
    ),
    "neighbours": (model(lambda self, T2: decay(self, T2) / T2.mean()), "depends on the other voxels"),
    "zero": (model(lambda self, T2: 0 * decay(self, T2)), "its shape is zero everywhere"),
    "no dependence on the time": (model(lambda self, T2: 1 + 0 * decay(self, T2)), "does not depend on T2"),
    "a sign that is not declared": (
        model(lambda self, T2: 1 - 2 * decay(self, T2)),
        "negative in some images, which it does not declare",
    ),
    "a declared sign without the option": (model(changes_sign=True), "expected a field signed: bool = False"),
    "a signal of its own": (
        model(signal=lambda self, kappa: 5 + T2Decay.signal(self, kappa)),
        "not the sum of amplitude times shape",
    ),
    "a time without an upper bound": (
        with_parameters(AMPLITUDE, replace(TIME, bounds=(1.0, np.inf))),
        "bounds of T2 that are positive and finite",
    ),
    "a time from zero": (
        with_parameters(AMPLITUDE, replace(TIME, bounds=(0.0, 9000.0))),
        "bounds of T2 that are positive and finite",
    ),
    "a field without an upper bound": (
        with_parameters(AMPLITUDE, TIME, replace(FIELD, bounds=(0.0, np.inf))),
        "expected finite bounds of q",
    ),
    "a start outside the bounds": (
        with_parameters(AMPLITUDE, replace(TIME, start=9e9)),
        "a start of T2 within its bounds",
    ),
    "two fields to estimate": (
        with_parameters(AMPLITUDE, TIME, FIELD, replace(FIELD, name="p")),
        "expected one field to estimate, the others given, got q, p",
    ),
    "two names that are one": (
        with_parameters(AMPLITUDE, replace(TIME, name="A")),
        "a name of its own for each parameter, got A, A",
    ),
    "two maps in one file": (
        with_parameters(AMPLITUDE, replace(TIME, suffix=AMPLITUDE.suffix)),
        "a suffix of its own for each map",
    ),
    "a folder in a name": (with_parameters(replace(AMPLITUDE, name="A/B"), TIME), "got 'A/B'"),
    "a name that no file can have": (model(name="my model/2"), "got 'my model/2'"),
}


@pytest.mark.parametrize(("contradictory", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_in_words_before_anything_is_mapped(contradictory: Any, says: str) -> None:
    images = np.random.default_rng(1).uniform(1, 2, (5, 6, 6))
    with pytest.raises(InputError, match=f"signal model .*{says}") as refusal:
        rimap.WeightedSeries(images, contradictory)
    assert "check_signal_model" in str(refusal.value)
    assert len(str(refusal.value)) < 320


def test_a_class_without_a_setting_is_refused_in_words() -> None:
    lacking = make_dataclass("Lacking", [], bases=(rimap.SignalModel,), frozen=True, namespace={
        "name": "lacking", "title": "Lacking", "parameters": (AMPLITUDE, TIME), "shape": decay,
    })  # fmt: skip
    with pytest.raises(InputError, match=r"expected a setting with a value for each image, got none"):
        lacking()


def test_a_smaller_box_and_other_settings_change_nothing() -> None:
    sound = model()
    for other in (sound, sound.with_bounds({"T2": (20.0, 30.0)}), sound.subset([0, 2, 4]), replace(sound, tau=(1, 2))):
        assert refuse_contradictions(other) is None


def test_a_design_refuses_a_contradiction_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    contradictory = type(model(decay, shape_partials=slope(2.0)))
    monkeypatch.setattr("rimap.planning.goal.signal_models", lambda: {"other": contradictory})
    with pytest.raises(InputError, match="signal model other: "):
        rimap.design(rimap.Goal(sequence="other", T_ms=(40.0, 150.0), minutes=5, images=5))
