"""What every signal model and every estimator must hold, as functions for the tests of other packages.

>>> import rimap
>>> from rimap.testing import check_signal_model
>>> check_signal_model(rimap.T2Decay(tau=[10, 20, 40, 80]))

Both functions raise a `ContractError`, which is an `AssertionError`, whose text names each property that does not hold
and by how much. They need NumPy alone; what compares with torch is left out if torch is not installed.
"""

from __future__ import annotations

from rimap.testing.estimators import ESTIMATOR_CHECKS, EstimatorCase, Tolerance, check_estimator
from rimap.testing.example_models import draw, example_models
from rimap.testing.property_checks import ContractError, Outcome
from rimap.testing.signals import SIGNAL_CHECKS, check_signal_model, signal_model_outcomes

__all__ = [
    "ESTIMATOR_CHECKS",
    "SIGNAL_CHECKS",
    "ContractError",
    "EstimatorCase",
    "Outcome",
    "Tolerance",
    "check_estimator",
    "check_signal_model",
    "draw",
    "example_models",
    "signal_model_outcomes",
]
