"""Look-Locker and MOLLI: |A (1 − B e^(−t/T1*))|, and the T1 that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap.arrays import Array, column, namespace
from rimap.errors import InputError
from rimap.signals.base import Cycle, Derived, FieldPrior, Parameter, SignalModel, Values, setting

#: A usual spoiled readout, flip angle and repetition time: it halves the T1 of grey matter at 3 T.
USUAL_FLIP_ANGLE_DEG, USUAL_TR_MS = 6.0, 8.0


def _readout_rate(flip_angle_deg: float, tr_ms: float) -> float:
    """Return −ln(cos α)/TR, 1/ms."""
    return float(-np.log(np.cos(np.deg2rad(flip_angle_deg))) / tr_ms)


def _corrected_T1(model: LookLocker, maps: Mapping[str, Array]) -> Array:
    """Return T1: from the flip angle of the readout where it is known, else T1*(B − 1); NaN where that is not
    positive.
    """
    T1star, B = maps["T1star"], maps["B"]
    array_api = namespace(T1star, B)
    rate = model.readout_rate_per_ms
    if rate is not None:
        remaining = 1 - rate * T1star  # 1/T1 = 1/T1* − (−ln cos α)/TR
        T1 = T1star / array_api.where(array_api.real(remaining) > 0, remaining, array_api.nan + 0 * remaining)
        return T1 + 0 * B
    T1 = T1star * (B - 1)
    return array_api.where(array_api.real(B) > 1, T1, array_api.nan + 0 * T1)


@dataclass(frozen=True)
class LookLocker(SignalModel):
    """S = |A (1 − B e^(−t/T1*))|: images along one recovery after an inversion, read by a train of small flip angles.

    The readout pulses drive the magnetisation to a steady state A < M0 with a shortened time T1* < T1, and the perfect
    inversion to −M0 makes B = 1 + M0/A = 1 + T1/T1*. So T1 = T1* (B − 1), independent of the flip angle. B follows
    the tissue: it is larger where T1 is longer, and it is estimated separately in every voxel.

    If the flip angle α and the repetition time TR of a spoiled train are known, 1/T1 = 1/T1* + ln(cos α)/TR. This does
    not need a perfect inversion, but the actual flip angle.

    The CINE inversion recovery of Sabidussi et al. 2021, doi:10.1016/j.media.2021.102220, is such a sequence: the "T1"
    of its three-parameter fit is T1*.

    Parameters
    ----------
    ti
        Times after the inversion (N), ms.
    readout_flip_angle
        Flip angle α of the readout pulses, degrees, if T1 is to follow from it: of spoiled readouts, not of balanced
        ones.
    readout_tr
        Time TR between readout pulses, ms; needed with `readout_flip_angle`.
    signed
        The images keep their polarity (real part): no modulus.

    Raises
    ------
    InputError
        For times that are negative or not finite, fewer distinct times than parameters, or one of the two settings of
        the readout without the other.

    References
    ----------
    Look & Locker 1970, doi:10.1063/1.1684482. Deichmann & Haase 1992, doi:10.1016/0022-2364(92)90347-A.

    Deviations
    ----------
    Deichmann and Haase assume that the readout pulses follow each other within a time TR ≪ T1*. T1*(B − 1) is then
    right to TR/T1*. B is not smooth as the B of a plain inversion recovery is: it has the contrast of T1.

    Examples
    --------
    >>> model = LookLocker(ti=[50, 300, 800, 2000])
    >>> T1 = model.derived[0].formula(model, {"T1star": np.array([600.0]), "B": np.array([3.0])})
    >>> float(T1[0])
    1200.0
    """

    ti: Values = setting(
        "inversion time", "TI", bids="InversionTime", entity="inv", plausible=(20.0, 100_000.0), usual=(20.0, 6_000.0)
    )
    readout_flip_angle: float | None = setting(
        "flip angle of the readout", "α", "deg", default=None, per_image=False, plausible=(0.5, 60.0)
    )
    readout_tr: float | None = setting(
        "repetition time of the readout",
        "TR",
        default=None,
        per_image=False,
        plausible=(0.5, 1_000.0),
    )
    # No sidecar field: the FlipAngle of a sidecar may be that of the inversion, or of a balanced readout.
    signed: bool = False

    name: ClassVar[str] = "look-locker"
    title: ClassVar[str] = "Look-Locker"
    formula: ClassVar[str] = (
        r"S = \left|A\left(1 - B\,e^{-t/T_1^*}\right)\right|,\quad T_1 = T_1^*(B - 1)"
        r"\ \text{or}\ \frac{1}{T_1} = \frac{1}{T_1^*} + \frac{\ln\cos\alpha}{TR}"
    )
    reference: ClassVar[str] = "Deichmann & Haase 1992, doi:10.1016/0022-2364(92)90347-A"
    also_reads: ClassVar[tuple[str, ...]] = ("IRT1",)
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", meaning="amplitude of the steady state of the readout"),
        Parameter(
            "B",
            "1",
            (0.0, 10.0),
            "field",
            treatment="free",
            start=2.5,
            prior=FieldPrior(mean=(1.8, 4.0), spread=(0.0, 0.2)),
            meaning="1 + T1/T1* after a perfect inversion",
        ),
        Parameter(
            "T1star",
            "ms",
            (1.0, 10_000.0),
            "time",
            start=600.0,
            tissue="T1",
            meaning="time of the recovery under the readout, T1*",
        ),
    )
    derived: ClassVar[tuple[Derived, ...]] = (
        Derived("T1", "ms", _corrected_T1, suffix="T1map", meaning="longitudinal relaxation time", main=True),
    )
    linear_in_field: ClassVar[bool] = True
    cycle: ClassVar[Cycle] = Cycle(all_images=True, shots=16, recovery=4.0)
    changes_sign: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.readout_flip_angle is None) != (self.readout_tr is None):
            raise InputError(
                "expected readout_flip_angle and readout_tr together, got one of them. Without both, T1 is T1*(B − 1)."
            )
        if self.readout_flip_angle is not None and self.readout_flip_angle >= 90:
            raise InputError(f"readout_flip_angle: expected less than 90°, got {self.readout_flip_angle:g}.")

    @property
    def readout_rate_per_ms(self) -> float | None:
        """−ln(cos α)/TR, by which the readout shortens T1*: 1/T1* = 1/T1 + this; `None` if it is not known."""
        if self.readout_flip_angle is None or self.readout_tr is None:
            return None
        return _readout_rate(self.readout_flip_angle, self.readout_tr)

    def apparent_values(self, T1: Array) -> dict[str, Array]:
        """Return T1* (*X), ms, and B (*X) of tissue with T1 (*X), ms, after a perfect inversion, by name.

        They follow from the settings of the readout, or from those of a usual one.
        """
        rate = self.readout_rate_per_ms or _readout_rate(USUAL_FLIP_ANGLE_DEG, USUAL_TR_MS)
        shortened = 1 + rate * T1  # T1/T1*
        return {"T1star": T1 / shortened, "B": 1 + shortened}

    def shape(self, B: Array, T1star: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1 before the modulus, (N, *X)."""
        return 1 - B * namespace(B, T1star).exp(-column(self.ti, T1star) / T1star)


@dataclass(frozen=True)
class MOLLI(LookLocker):
    """Look-Locker with the images of several inversions, sorted by their times after the inversion (MOLLI, ShMOLLI).

    Parameters, exceptions and the correction T1 = T1* (B − 1) are those of `LookLocker`.

    References
    ----------
    Messroghli et al. 2004, doi:10.1002/mrm.20110.
    """

    name: ClassVar[str] = "molli"
    title: ClassVar[str] = "MOLLI"
    reference: ClassVar[str] = "Messroghli et al. 2004, doi:10.1002/mrm.20110"
