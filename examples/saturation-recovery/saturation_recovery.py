"""Saturation recovery: A (1 − e^(−τ/T1)). A signal model of your own is one file like this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap import Parameter, SignalModel, setting
from rimap.arrays import Array, column, namespace


@dataclass(frozen=True)
class SaturationRecovery(SignalModel):
    """S = A (1 − e^(−τ/T1)): spin echoes with several repetition times, or a delay after a perfect saturation.

    Parameters
    ----------
    tau
        Repetition times, or delays after saturation, (N), ms.
    """

    tau: tuple[float, ...] = setting("delay", "TD", bids="RepetitionTime", entity="inv", plausible=(10.0, 100_000.0))

    name: ClassVar[str] = "my-sr"  # what --sequence takes
    title: ClassVar[str] = "Saturation recovery"
    bids_suffix: ClassVar[str] = "SRT1"  # BIDS has no suffix for it: one of our own
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map"),
        Parameter("T1", "ms", (1.0, 10_000.0), "time", start=1000.0, suffix="T1map"),
    )

    def shape(self, T1: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X)."""
        return 1 - namespace(T1).exp(-column(self.tau, T1) / T1)
