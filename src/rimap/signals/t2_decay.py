"""Transverse decay: A e^(−τ/T2), for T2-prepared and spin-echo series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap.arrays import Array, column, namespace
from rimap.signals.base import Cycle, Parameter, SignalModel, Values, setting


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

    tau: Values = setting(
        "echo time",
        "TE",
        bids="EchoTime",
        entity="echo",
        one_excitation=True,
        plausible=(1.0, 5_000.0),
        usual=(5.0, 1_000.0),
    )

    name: ClassVar[str] = "t2"
    title: ClassVar[str] = "T2 decay"
    formula: ClassVar[str] = r"S = A\,e^{-TE/T_2}"
    reference: ClassVar[str] = "Sabidussi et al. 2021, doi:10.1016/j.media.2021.102220"
    bids_suffix: ClassVar[str] = "MESE"
    gradient_echo: ClassVar[bool | None] = False
    cycle: ClassVar[Cycle] = Cycle(all_images=True, shots=64, length_ms=2500.0)
    if_misfit: ClassVar[str] = "a first echo that is too low has stimulated echoes after it (--skip-first 1)"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map", meaning="amplitude"),
        Parameter(
            "T2",
            "ms",
            (0.5, 5000.0),
            "time",
            start=100.0,
            suffix="T2map",
            search=(2.0, 5000.0),
            meaning="transverse relaxation time",
        ),
    )

    def shape(self, T2: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X)."""
        return namespace(T2).exp(-column(self.tau, T2) / T2)  # §4.1

    def shape_partials(self, T2: Array) -> dict[str, Array]:  # type: ignore[override]
        """Return the derivative (N, *X) of `shape` with respect to T2 (*X), 1/ms."""
        return {"T2": self.shape(T2) * column(self.tau, T2) / T2**2}
