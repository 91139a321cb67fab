"""Saturation recovery: A (1 − e^(−τ/T1)). A signal model of your own is one file like this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rimap import Parameter, SignalModel
from rimap.arrays import Array, column, floating, namespace
from rimap.signals.base import unpack


@dataclass(frozen=True)
class SaturationRecovery(SignalModel):
    """S = A (1 − e^(−τ/T1)): spin echoes with several repetition times, or a delay after a perfect saturation.

    Parameters
    ----------
    tau
        Repetition times, or delays after saturation, (N), ms.
    """

    name: ClassVar[str] = "sr"  # what --sequence takes
    title: ClassVar[str] = "Saturation recovery"
    bids_suffix: ClassVar[str] = "SRT1"  # BIDS has no suffix for it: one of our own
    bids_time: ClassVar[str] = "RepetitionTime"  # the sidecar's field with the times, in seconds
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), suffix="M0map"),
        Parameter("T1", "ms", (1.0, 10_000.0), scale=1000.0, suffix="T1map"),
    )

    def signal(self, kappa: Any) -> Array:
        """Return the images (N, *X) of κ = (A, T1)."""
        A, T1 = unpack(kappa, 2)
        return A * (1 - namespace(T1).exp(-column(self.tau, T1) / T1))

    def partials(self, kappa: Any) -> Array:
        """Return ∂S/∂A, ∂S/∂T1, (N, 2, *X)."""
        A, T1 = unpack(kappa, 2)
        xp, tau = namespace(T1), column(self.tau, T1)
        E = xp.exp(-tau / T1)
        return xp.stack([1 - E + 0 * A, -A * E * tau / T1**2], axis=1)

    def initial_guess(self, images: Any) -> Array:
        """Return A = maximum over the images, T1 = 1000 ms."""
        S = floating(images)
        xp = namespace(S)
        A = xp.max(abs(S), axis=0)
        return xp.stack([A, 0 * A + 1000.0])

    def basis(self, T: Any) -> Array:
        """Return φ₀ = 1 − e^(−τ/T1), (N, 1, *X): the signal for A = 1."""
        T = floating(T)
        return 1 - namespace(T).exp(-column(self.tau, T) / T)[:, None]
