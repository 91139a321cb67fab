"""The one table: it gives the shape of the model and its derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rimap import InputError, InversionRecovery, SignalModel, T2Decay
from rimap.arrays import column
from rimap.estimators.checks.rounded_maps import rounding_warnings
from rimap.estimators.table import LEVEL_TOLERANCE, REFUSED_ERROR, ShapeTable, levels
from rimap.series import WeightedSeries
from rimap.signals.base import Parameter

MODELS = {
    "IR": InversionRecovery(tau=(50, 150, 400, 1100, 3000)),
    "IR with TR": InversionRecovery(tau=(50, 150, 400, 1100, 3000), tr=4000),
    "T2": T2Decay(tau=(10, 20, 40, 80, 160)),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_it_gives_the_shape_and_its_derivatives(model: SignalModel) -> None:
    rng = np.random.default_rng(0)
    T = np.exp(rng.uniform(*np.log(model.time.bounds), 300))
    at = {model.time.name: T}
    if model.field is not None:
        at[model.field.name] = rng.uniform(*model.field.bounds, 300)
    slopes = model.shape_partials(**at)
    g, along_u, along_F = ShapeTable.of(model).evaluate(T, at.get(model.field.name, 0.0) if model.field else 0.0)
    np.testing.assert_allclose(g[:, 0], model.shape(**at), atol=3e-9)
    np.testing.assert_allclose(along_u[:, 0], slopes[model.time.name] * T, atol=1e-6)
    if model.field is not None:
        np.testing.assert_allclose(along_F[:, 0], slopes[model.field.name], atol=3e-9)


def test_a_known_field_leaves_no_axis() -> None:
    model = MODELS["IR"]
    table = ShapeTable.of(model, {"B": 1.7})
    T = np.array([300.0, 900.0])
    assert not table.has_field and table.n_intervals == 1
    np.testing.assert_allclose(table.evaluate(T)[0][:, 0], model.shape(B=1.7 + 0 * T, T1=T), atol=3e-9)


def of_bounds(low: float, high: float, rate: float) -> SignalModel:
    """Return a decay whose amplitude follows a given parameter W at a rate."""
    W = Parameter("W", "Hz", (low, high), "field", treatment="given", start=high / 2)
    B1 = Parameter("B1", "1", (0.5, 1.5), "field", treatment="given", start=1.0)
    kind = type("Following", (_Following,), {"parameters": (*T2Decay.parameters, B1, W), "rate": rate})
    return kind(tau=(10, 20, 50))


@pytest.mark.parametrize(("low", "rate"), [(1.0, 0.0), (1.0, 0.1), (0.0, 0.02), (-50.0, 0.02), (-50.0, 0.1)])
def test_levels_are_near_the_values_of_a_given_map_whatever_their_sign(low: float, rate: float) -> None:
    """So near that the signal changes by a quarter of a per cent at most; a map without a value has no level."""
    model = of_bounds(low, 50.0, rate)
    values = np.append(np.random.default_rng(0).uniform(low, 50.0, 300), np.nan)
    middles, where, step, _ = levels(values, model, "W")
    np.testing.assert_array_equal(where >= 0, np.isfinite(values))
    off = abs(middles[where[:-1]] - values[:-1])
    assert off.max() <= (0.026 * 50 if low > 0 else 0.051 * (50 - low) / 2)
    amplitude, rounded = (1 + np.sin(rate * W) for W in (values[:-1], middles[where[:-1]]))
    assert abs(amplitude - rounded).max() <= 1.1 * LEVEL_TOLERANCE * amplitude.max() and step > 0
    np.testing.assert_array_equal(levels(np.full(4, low), model, "W").middles, [low])


def test_a_map_that_the_levels_cannot_follow_is_reported() -> None:
    values = np.linspace(-40.0, 40.0, 60)
    for rate, told in ((0.02, False), (2.0, True)):
        series = WeightedSeries(np.ones((3, 60)), of_bounds(-50.0, 50.0, rate), given={"W": values})
        texts = rounding_warnings(series)
        assert len(texts) == told and all("map of W is rounded to steps of" in text for text in texts)


class _Following(T2Decay):
    name, rate = "following", 0.0
    shape_partials = SignalModel.shape_partials

    def shape(self, B1: Any, W: Any, T2: Any) -> Any:  # type: ignore[override]
        t = column(self.tau, T2)
        return np.exp(-t / T2) * (1 + np.sin(self.rate * W)) * B1


def test_a_second_unknown_field_is_refused() -> None:
    with pytest.raises(InputError, match="got also"):
        ShapeTable.of(_TwoFields(tau=(10, 20, 40, 80)))


@pytest.mark.parametrize("cycles", [1, 3, 10, 30, 45, 60, 100, 400])
def test_a_table_follows_the_shape_or_is_refused(cycles: int) -> None:
    """A shape that turns with the field: never a table that is wrong without a word."""
    field = Parameter("F", "Hz", (-10.0 * cycles, 10.0 * cycles), "field", start=0.0)
    kind = type("Turns", (_Turns,), {"parameters": (*T2Decay.parameters, field)})
    model = kind(tau=(10, 20, 50))  # the longest time sees as many cycles as the box has
    try:
        table = ShapeTable.of(model)
    except InputError:
        table = None
    assert table is not None or cycles >= 30
    if table is None:
        with pytest.raises(InputError, match=r"changes too often .*--bounds F="):
            ShapeTable.of(model)
        return
    assert cycles < 100
    rng = np.random.default_rng(0)
    F, T2 = rng.uniform(*field.bounds, 400), np.exp(rng.uniform(*np.log(model.time.bounds), 400))
    np.testing.assert_allclose(table.evaluate(T2, F)[0][:, 0], model.shape(F=F, T2=T2), atol=1.5 * REFUSED_ERROR)


class _Turns(T2Decay):
    name = "turns"

    def shape(self, F: Any, T2: Any) -> Any:  # type: ignore[override]
        t = column(self.tau, T2)
        return np.exp(-t / T2) * np.cos(2 * np.pi * F * t / 1000.0)


class _TwoFields(T2Decay):
    parameters = (
        *T2Decay.parameters,
        type(T2Decay.parameters[0])("F", "1", (0.0, 1.0), "field"),
        type(T2Decay.parameters[0])("G", "1", (0.0, 1.0), "field"),
    )
