"""Saturation recovery: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from rimap import InputError
from rimap.signals.saturation_recovery import SaturationRecovery

from .properties import check

TAU = (30.0, 100.0, 300.0, 800.0, 2000.0, 5000.0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_properties(signed: bool, seed: int) -> None:
    check(SaturationRecovery(tau=TAU, signed=signed), seed)


def test_it_is_the_recovery_after_a_pulse_of_any_angle() -> None:
    model = SaturationRecovery(tau=TAU, signed=True)
    for angle in (75.0, 90.0, 99.0):
        Mz = np.cos(np.deg2rad(angle))
        expected = 1 + (Mz - 1) * np.exp(-np.array(TAU) / 1200.0)
        found = np.asarray(model.signal([[1.0], [1 - Mz], [1200.0]]))[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_pulse_of_more_than_90_degrees_inverts_a_little() -> None:
    kappa = [[1.0], [1.15], [1200.0]]
    signed, magnitude = (SaturationRecovery(tau=TAU, signed=s).signal(kappa)[:, 0] for s in (True, False))
    assert signed[0] < 0 and magnitude[0] == -signed[0]


def test_it_is_linear_in_its_smooth_field() -> None:
    model = SaturationRecovery(tau=TAU)
    assert (
        model.separable and model.field is not None and model.field.smooth and model.basis([800.0]).shape == (6, 2, 1)
    )


def test_seconds_are_refused() -> None:
    with pytest.raises(InputError, match="If these are seconds"):
        SaturationRecovery(tau=[0.1, 0.5, 2.0, 5.0])
