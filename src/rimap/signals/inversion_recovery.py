"""Inversion recovery: |A (1 − B e^(−τ/T1))|, with the term of a finite repetition time where TR is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap.arrays import Array, column, namespace
from rimap.errors import InputError
from rimap.signals.base import FieldPrior, Parameter, SignalModel, Values, setting


@dataclass(frozen=True)
class InversionRecovery(SignalModel):
    """S = |A (1 − B e^(−τ/T1) + (B − 1) e^(−TR/T1))|; without `tr` the last term is left out (TR ≫ T1).

    Parameters
    ----------
    tau
        Inversion times (N), ms.
    tr
        Repetition time, ms: from inversion to inversion, one value or one for each image. Never the time
        between the readouts of a Look-Locker train.
    signed
        The images keep their polarity (real part): no modulus.

    Raises
    ------
    InputError
        For times that are negative or not finite, fewer distinct times than parameters, or TR ≤ TI.

    References
    ----------
    Sabidussi et al. 2021, §4.1, doi:10.1016/j.media.2021.102220. The TR term: Barral et al. 2010,
    doi:10.1002/mrm.22497.

    Examples
    --------
    >>> model = InversionRecovery(tau=[50, 400, 1100, 2500])
    >>> model.signal([[1.0], [2.0], [1000.0]])[:, 0].round(3)
    array([0.902, 0.341, 0.334, 0.836])
    """

    tau: Values = setting(
        "inversion time", "TI", bids="InversionTime", entity="inv", plausible=(10.0, 30_000.0), usual=(20.0, 5_000.0)
    )
    tr: Values | None = setting(
        "repetition time",
        "TR",
        default=None,
        bids=("RepetitionTimePreparation", "RepetitionTime"),
        per_image=None,
        plausible=(100.0, 100_000.0),
        longer_than="tau",
        if_unknown="T1 is right where TR exceeds 5 T1, and B takes up the rest",
        unknown_in_field=True,
        if_shorter="T1 from such a readout (Look-Locker) is an apparent one, T1*.",
    )
    signed: bool = False

    name: ClassVar[str] = "ir"
    title: ClassVar[str] = "Inversion recovery"
    formula: ClassVar[str] = r"S = \left|A\left(1 - B\,e^{-TI/T_1} + (B-1)\,e^{-TR/T_1}\right)\right|"
    reference: ClassVar[str] = "Barral et al. 2010, doi:10.1002/mrm.22497"
    bids_suffix: ClassVar[str] = "IRT1"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map", meaning="amplitude"),
        Parameter(
            "B",
            "1",
            (0.0, 3.0),
            "field",
            treatment="smooth",
            start=2.0,
            prior=FieldPrior(mean=(1.5, 2.05), typical=1.9, sd=0.2),
            search=(1.0, 2.3),
            meaning="inversion efficiency; 2 is a perfect inversion",
            physical=(1.0, 2.1),
            if_unphysical="is this an inversion recovery, and are its times and its repetition time right?",
        ),
        Parameter(
            "T1",
            "ms",
            (1.0, 10_000.0),
            "time",
            start=1000.0,
            suffix="T1map",
            search=(2.0, 10_000.0),
            meaning="longitudinal relaxation time",
        ),
    )
    hideable: ClassVar[tuple[str, ...]] = ("tr",)
    linear_in_field: ClassVar[bool] = True
    changes_sign: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for t, r in zip(self.times, () if self.tr is None else np.asarray(self.tr)):
            if r <= t:
                raise InputError(
                    f"tr: expected TR longer than TI, got TR {r:g} ms with TI {t:g} ms. TR is the time from one "
                    f"inversion to "
                    "the next; leave it out if you know only the time between readouts."
                )

    def _exponentials(self, T1: Array) -> tuple[Array, Array]:
        exp = namespace(T1).exp
        E = exp(-column(self.tau, T1) / T1)
        E_TR = 0 * E if self.tr is None else exp(-column(self.tr, T1) / T1)
        return E, E_TR

    @classmethod
    def effective(cls, kappa: Array, **hidden: float) -> Array:
        """Return the (A, B, T1) (3, *X) that a model without TR sees of a scan with ``tr`` (ms).

        A(1 − B e^(−τ/T1) + (B − 1) e^(−TR/T1)) = A′(1 − B′ e^(−τ/T1)), A′ = A·g, B′ = B/g, g = 1 + (B − 1) e^(−TR/T1).
        """
        A, B, T1 = kappa
        array_api = namespace(A, B, T1)
        g = 1 + (B - 1) * array_api.exp(-hidden["tr"] / T1)
        return array_api.stack([A * g, B / g, T1])

    def shape(self, B: Array, T1: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1 before the modulus, (N, *X)."""
        E, E_TR = self._exponentials(T1)
        return 1 - B * E + (B - 1) * E_TR  # §4.1

    def shape_partials(self, B: Array, T1: Array) -> dict[str, Array]:  # type: ignore[override]
        """Return the derivatives (N, *X) of `shape` with respect to B and T1 (*X)."""
        E, E_TR = self._exponentials(T1)
        dT1 = -B * E * column(self.tau, T1) / T1**2
        if self.tr is not None:
            dT1 = dT1 + (B - 1) * E_TR * column(self.tr, T1) / T1**2
        return {"B": E_TR - E + 0 * B, "T1": dT1}
