"""The one table: it gives the shape of the model and its derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from rimap import InputError, InversionRecovery, SignalModel, T2Decay
from rimap.estimators.table import ShapeTable, levels

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


def test_levels_are_near_the_values_of_a_given_map() -> None:
    values = np.array([[500.0, 1000.0, 4000.0], [np.nan, 510.0, 0.0]])
    middles, where = levels(values)
    known = where >= 0
    np.testing.assert_array_equal(known, [True, True, True, False, True, False])
    np.testing.assert_allclose(middles[where[known]], values.reshape(-1)[known], rtol=0.026)
    np.testing.assert_array_equal(levels(np.full(4, 1234.0))[0], [1234.0])


def test_a_second_unknown_field_is_refused() -> None:
    with pytest.raises(InputError, match="got also"):
        ShapeTable.of(_TwoFields(tau=(10, 20, 40, 80)))


class _TwoFields(T2Decay):
    parameters = (
        *T2Decay.parameters,
        type(T2Decay.parameters[0])("F", "1", (0.0, 1.0), "field"),
        type(T2Decay.parameters[0])("G", "1", (0.0, 1.0), "field"),
    )
