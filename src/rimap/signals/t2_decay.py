"""Transverse decay: A e^(−τ/T2), for T2-prepared and spin-echo series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rimap.arrays import Array, column, floating, namespace
from rimap.signals.base import Parameter, SignalModel, unpack


@dataclass(frozen=True)
class T2Decay(SignalModel):
    """S = A e^(−τ/T2). A ≥ 0, so a modulus would change nothing.

    Parameters
    ----------
    tau
        Echo or T2-preparation times (N), ms.

    Raises
    ------
    InputError
        For times that are negative or not finite, or fewer distinct times than parameters.

    References
    ----------
    Sabidussi et al. 2021, §4.1, doi:10.1016/j.media.2021.102220.
    """

    name: ClassVar[str] = "t2"
    title: ClassVar[str] = "T2 decay"
    bids_suffix: ClassVar[str] = "MESE"
    bids_time: ClassVar[str] = "EchoTime"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), suffix="M0map"),
        Parameter("T2", "ms", (0.5, 5000.0), scale=1000.0, suffix="T2map"),
    )

    def signal(self, kappa: Any) -> Array:
        """Return the images (N, *X) of κ = (A, T2)."""
        A, T2 = unpack(kappa, 2)
        return A * namespace(T2).exp(-column(self.tau, T2) / T2)  # §4.1

    def partials(self, kappa: Any) -> Array:
        """Return ∂S/∂A, ∂S/∂T2, (N, 2, *X)."""
        A, T2 = unpack(kappa, 2)
        xp = namespace(A)
        tau = column(self.tau, T2)
        E = xp.exp(-tau / T2)
        return xp.stack([E + 0 * A, A * E * tau / T2**2], axis=1)

    def initial_guess(self, images: Any) -> Array:
        """Return A = maximum over the images, T2 = 100 ms (§4.4.4)."""
        S = floating(images)
        xp = namespace(S)
        A = xp.max(abs(S), axis=0)
        return xp.stack([A, 0 * A + 100.0])

    def basis(self, T: Any) -> Array:
        """Return φ₀ = e^(−τ/T2), (N, 1, *X)."""
        T = floating(T)
        return namespace(T).exp(-column(self.tau, T) / T)[:, None]
