"""Saturation recovery: |A (1 − F e^(−τ/T1))|, with the efficiency of the saturation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap.arrays import Array, column, namespace
from rimap.signals.base import FieldPrior, Parameter, SignalModel, Values, setting


@dataclass(frozen=True)
class SaturationRecovery(SignalModel):
    """S = |A (1 − F e^(−τ/T1))|. F = 1 − cos θ for a saturation pulse of θ: 1 if it is perfect, more if it inverts a
    little.

    The delay runs from the saturation to the centre of k-space of its readout, and the magnetisation is saturated anew
    before every readout, so no repetition time enters.

    Parameters
    ----------
    tau
        Delays after saturation (N), ms.
    signed
        The images keep their polarity (real part): no modulus.

    Raises
    ------
    InputError
        For times that are negative or not finite, or fewer distinct times than parameters.

    References
    ----------
    Markley et al. 1971, doi:10.1063/1.1676626. Chow et al. 2014 (SASHA), doi:10.1002/mrm.24878.

    Examples
    --------
    >>> model = SaturationRecovery(tau=[100, 500, 1500, 5000])
    >>> model.signal([[1.0], [0.9], [1000.0]])[:, 0].round(3)
    array([0.186, 0.454, 0.799, 0.994])
    """

    tau: Values = setting(
        "saturation delay",
        "TS",
        bids=("SaturationTime", "InversionTime"),
        entity="inv",
        plausible=(10.0, 100_000.0),
        usual=(50.0, 8_000.0),
    )
    signed: bool = False

    name: ClassVar[str] = "sr"
    title: ClassVar[str] = "Saturation recovery"
    formula: ClassVar[str] = r"S = \left|A\left(1 - F\,e^{-TS/T_1}\right)\right|"
    also_reads: ClassVar[tuple[str, ...]] = ("IRT1",)
    reference: ClassVar[str] = "Markley et al. 1971, doi:10.1063/1.1676626"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map", meaning="amplitude"),
        Parameter(
            "F",
            "1",
            (0.3, 1.2),
            "field",
            treatment="smooth",
            start=1.0,
            prior=FieldPrior(mean=(0.7, 1.05), spread=(0.0, 0.08)),
            meaning="saturation efficiency; 1 is a perfect saturation",
            physical=(0.5, 1.15),
            if_unphysical="is this a saturation recovery, and are its times right?",
        ),
        Parameter(
            "T1", "ms", (1.0, 10_000.0), "time", start=1000.0, suffix="T1map", meaning="longitudinal relaxation time"
        ),
    )
    linear_in_field: ClassVar[bool] = True
    changes_sign: ClassVar[bool] = True

    def shape(self, F: Array, T1: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1 before the modulus, (N, *X)."""
        return 1 - F * namespace(F, T1).exp(-column(self.tau, T1) / T1)
