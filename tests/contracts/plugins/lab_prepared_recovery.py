"""A signal model of another package: recovery after a preparation pulse whose angle follows the transmit field.

This file is all that the package has: one smooth field, which enters the signal in a way that is not linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap import FieldPrior, Parameter, SignalModel, setting
from rimap.arrays import Array, column, namespace


@dataclass(frozen=True)
class PreparedRecovery(SignalModel):
    """S = A (1 − (1 − cos(F θ)) e^(−τ/T1)), with the nominal angle θ of the preparation and the transmit field F."""

    tau: tuple[float, ...] = setting(
        "recovery time", "TRec", bids="LabRecoveryTime", entity="inv", plausible=(10.0, 30_000.0), usual=(30.0, 6_000.0)
    )
    angle: float = setting("preparation angle", "θ", "deg", bids="LabAngle", per_image=False, plausible=(40.0, 90.0))

    name: ClassVar[str] = "lab-prepared"
    title: ClassVar[str] = "Prepared recovery"
    formula: ClassVar[str] = r"S = A\left(1 - (1 - \cos F\theta)\,e^{-\tau/T_1}\right)"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "T1", "ms", (10.0, 8000.0), "time", start=1000.0, suffix="T1map", meaning="longitudinal relaxation time"
        ),
        Parameter(
            "F",
            "1",
            (0.6, 1.3),
            "field",
            "smooth",
            start=1.0,
            prior=FieldPrior((0.85, 1.05), (0.0, 0.08)),
            meaning="transmit field",
        ),
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map", meaning="amplitude"),
    )

    def shape(self, F: Array, T1: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X)."""
        xp = namespace(F, T1)
        left = 1 - xp.cos(F * float(np.deg2rad(self.angle)))
        return 1 - left * xp.exp(-column(self.tau, T1) / T1)
