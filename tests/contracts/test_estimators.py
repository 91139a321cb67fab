"""What every estimator that needs no trained network must hold, on every signal model: the checks of rimap.testing."""

from __future__ import annotations

import pytest

from rimap.estimators import Estimator, estimators
from rimap.signals import SignalModel
from rimap.testing import ESTIMATOR_CHECKS, EstimatorCase
from rimap.testing.property_checks import Check, DoesNotApply

from .cases import ESTIMATED

#: What has a `load` needs a trained network: test_networks.py.
READY = {name: cls for name, cls in sorted(estimators().items()) if not hasattr(cls, "load")}
#: What an estimator does not hold yet: (estimator, check), or (estimator, model). Whoever makes it hold takes it out.
NOT_YET: set[tuple[str, str]] = set()


@pytest.mark.parametrize("check", ESTIMATOR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("model", ESTIMATED.values(), ids=ESTIMATED)
@pytest.mark.parametrize("cls", READY.values(), ids=READY)
def test_contract(
    cls: type[Estimator], model: SignalModel, check: Check[EstimatorCase], request: pytest.FixtureRequest
) -> None:
    if {(cls.name, check.__name__), (cls.name, model.name)} & NOT_YET:
        request.applymarker(pytest.mark.xfail(strict=False, reason="the estimators do not hold this yet"))
    try:
        check(EstimatorCase(cls(), model), 0)
    except DoesNotApply as reason:
        pytest.skip(str(reason))
