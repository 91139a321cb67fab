"""Variable flip angle: spoiled gradient echoes in the steady state, with the measured transmit field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap.arrays import Array, column, namespace
from rimap.errors import InputError
from rimap.signals.base import Cycle, FieldPrior, Parameter, SignalModel, Values, setting

#: A largest flip angle below this one was given in radians: nobody measures T1 with it.
LEAST_LARGEST_FLIP_DEG = 1.0


@dataclass(frozen=True)
class VariableFlipAngle(SignalModel):
    """S = A sin(B1 α) (1 − E) / (1 − E cos(B1 α)) with E = e^(−TR/T1), the signal of a spoiled gradient echo at its
    Ernst state.

    T1 is wrong by about twice the relative error of the flip angle, so B1 is given as a map wherever one was measured.
    The decay with T2* is the same in all images and belongs to A.

    Parameters
    ----------
    flip_angle
        Nominal flip angles (N), degrees.
    tr
        Repetition time from excitation to excitation, ms: one value, or one for each image.

    Raises
    ------
    InputError
        For settings that are negative or not finite, fewer distinct ones than parameters, or flip angles in radians.

    References
    ----------
    Fram et al. 1987, doi:10.1016/0730-725X(87)90021-X. Deoni et al. 2003, doi:10.1002/mrm.10407.

    Examples
    --------
    >>> model = VariableFlipAngle(flip_angle=[3, 20], tr=15)
    >>> model.signal([[1000.0], [1.0], [1000.0]])[:, 0].round(2)
    array([47.98, 68.54])
    """

    flip_angle: Values = setting(
        "flip angle",
        "α",
        "deg",
        bids="FlipAngle",
        entity="flip",
        plausible=(LEAST_LARGEST_FLIP_DEG, 180.0),
        usual=(2.0, 30.0),
    )
    tr: Values = setting(
        "repetition time",
        "TR",
        bids=("RepetitionTimeExcitation", "RepetitionTime"),
        per_image=None,
        plausible=(1.0, 2_000.0),  # 3 to 30 ms in milliseconds, taken for seconds, are longer
        usual=(4.0, 30.0),
    )

    name: ClassVar[str] = "vfa"
    title: ClassVar[str] = "Variable flip angle"
    formula: ClassVar[str] = r"S = A\,\sin(B_1\alpha)\,\frac{1 - e^{-TR/T_1}}{1 - \cos(B_1\alpha)\,e^{-TR/T_1}}"
    reference: ClassVar[str] = "Fram et al. 1987, doi:10.1016/0730-725X(87)90021-X"
    bids_suffix: ClassVar[str] = "VFA"
    cycle: ClassVar[Cycle] = Cycle(shots=4000)
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map", meaning="amplitude"),
        Parameter(
            "B1",
            "1",
            (0.3, 2.0),
            "field",
            treatment="given",
            start=1.0,
            suffix="TB1map",
            prior=FieldPrior(mean=(0.85, 1.1), spread=(0.0, 0.12)),
            meaning="actual over nominal flip angle",
        ),
        Parameter(
            "T1", "ms", (1.0, 10_000.0), "time", start=1000.0, suffix="T1map", meaning="longitudinal relaxation time"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.times.max() < LEAST_LARGEST_FLIP_DEG:
            raise InputError(
                f"flip_angle: expected degrees, got at most {self.times.max():g}. If these are radians, multiply by "
                f"180/π."
            )

    def shape(self, B1: Array, T1: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X)."""
        array_api = namespace(B1, T1)
        flip = column(np.deg2rad(np.asarray(self.flip_angle)), B1) * B1
        recovered = -array_api.expm1(-column(self.tr, T1) / T1)  # 1 − E, without cancellation where TR ≪ T1
        half = array_api.sin(flip / 2)
        # 1 − E cos α = (1 − E) + E (1 − cos α), and 1 − cos α = 2 sin²(α/2)
        return array_api.sin(flip) * recovered / (recovered + (1 - recovered) * 2 * half * half)
