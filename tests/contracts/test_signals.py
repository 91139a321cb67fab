"""What every signal model must hold: the public checks of rimap.testing, on parameters that hypothesis draws."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rimap.signals import SignalModel
from rimap.testing import SIGNAL_CHECKS
from rimap.testing.property_checks import Check, DoesNotApply

from .cases import MODELS, WITHOUT_EXAMPLES


@pytest.mark.parametrize("check", SIGNAL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_contract(model: SignalModel, check: Check[SignalModel], seed: int) -> None:
    try:
        check(model, seed)
    except DoesNotApply as reason:
        pytest.skip(str(reason))


def test_the_settings_of_the_built_in_models_are_in_bids() -> None:
    for model in MODELS.values():
        assert model.axis.bids or not type(model).__module__.startswith("rimap.")


def test_every_model_has_examples() -> None:
    """From its declarations, or from its own classmethod `examples`."""
    assert WITHOUT_EXAMPLES == {}
