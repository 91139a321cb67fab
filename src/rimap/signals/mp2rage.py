"""MP2RAGE: two gradient-echo trains after an inversion; T1 from both images, or from their uniform combination
UNIT1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, namespace
from rimap.errors import InputError
from rimap.signals.base import TIME, Cycle, FieldPrior, Parameter, SignalModel, Values, setting

#: A usual scan at 3 T, times in ms.
_PROTOCOL: Mapping[str, Any] = MappingProxyType(
    {
        "ti": (700.0, 2500.0),
        "flip_angle": (4.0, 5.0),
        "tr": 5000.0,
        "tr_excitation": 7.0,
        "number_shots": (64.0, 88.0),
    }
)
_UNI_PROTOCOL: Mapping[str, Any] = MappingProxyType(
    {
        **{key: value for key, value in _PROTOCOL.items() if key not in ("ti", "flip_angle")},
        "ti": (700.0,),
        "ti_second": 2500.0,
        "flip_angle": 4.0,
        "flip_angle_second": 5.0,
    }
)
#: T1 (ms) at which it is looked up where UNIT1 rises and falls.
LOOK_UP_T1_MS = np.geomspace(1.0, 10_000.0, 2001)

_AMPLITUDE = Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map", meaning="amplitude")
_B1 = Parameter(
    "B1",
    "1",
    (0.3, 2.0),
    "field",
    treatment="given",
    start=1.0,
    suffix="TB1map",
    prior=FieldPrior(mean=(0.85, 1.1), spread=(0.0, 0.12)),
    meaning="actual over nominal flip angle of the readout",
)
_T1 = Parameter(
    "T1", "ms", (50.0, 8_000.0), "time", start=1200.0, suffix="T1map", meaning="longitudinal relaxation time"
)


@dataclass(frozen=True)
class Timing:
    """When the pulses of one cycle of MP2RAGE are played out. All times in ms, angles in rad.

    Parameters
    ----------
    inversion_times
        From the inversion to the centre of k-space of each train.
    flips
        Flip angle of each train.
    spacing
        Time between the pulses of a train.
    cycle
        Time from inversion to inversion.
    before, after
        Pulses of a train before the centre of k-space, and from the centre on.
    efficiency
        Mz after the inversion is −efficiency times what it was before.
    """

    inversion_times: tuple[float, float]
    flips: tuple[float, float]
    spacing: float
    cycle: float
    before: float
    after: float
    efficiency: float

    @property
    def delays(self) -> tuple[float, float, float]:
        """From the inversion to the first train, between the trains, and from the second train to the next
        inversion.
        """
        first, second = self.inversion_times
        whole = (self.before + self.after) * self.spacing
        return (
            first - self.before * self.spacing,
            second - first - whole,
            self.cycle - second - self.after * self.spacing,
        )

    def check(self) -> None:
        """Refuse trains that overlap.

        Raises
        ------
        InputError
            With what does not fit.
        """
        if not 0 < self.efficiency <= 1:
            raise InputError(f"inversion_efficiency: expected more than 0 and at most 1, got {self.efficiency:g}.")
        what = ("the inversion and the first train", "the trains", "the second train and the next inversion")
        for delay, where in zip(self.delays, what):
            if delay < -0.5:  # times in sidecars are rounded
                raise InputError(
                    f"expected time between {where}, got {delay:g} ms. Check the inversion times, tr, tr_excitation "
                    f"({self.spacing:g} ms) and number_shots ({self.before:g} before and {self.after:g} after the "
                    f"centre): "
                    "tr is the time from inversion to inversion."
                )

    def signals(self, B1: Array, T1: Array) -> tuple[Array, Array]:
        """Return both signals for M0 = 1 in the steady state of the cycle, each (*X)."""
        trains = [_Train(self, flip * B1, T1) for flip in self.flips]
        waits = [_wait(max(delay, 0.0), T1) for delay in self.delays]
        invert = (-self.efficiency + 0 * T1, 0 * T1)
        cycle = (invert, waits[0], trains[0].whole, waits[1], trains[1].whole, waits[2])
        slope, offset = _in_turn(*cycle)
        steady = offset / (1 - slope)  # Mz before the inversion, the same in every cycle: Marques 2010, Eq. 1
        first, second = (_in_turn(*cycle[:k], trains[(k - 2) // 2].to_centre) for k in (2, 4))
        return (
            (first[0] * steady + first[1]) * trains[0].sine,
            (second[0] * steady + second[1]) * trains[1].sine,
        )


#: Mz → slope·Mz + offset, what an interval does to the longitudinal magnetisation.
Change = tuple[Array, Array]


def _in_turn(*changes: Change) -> Change:
    slope: Array = 1.0
    offset: Array = 0.0
    for a, b in changes:
        slope, offset = a * slope, a * offset + b
    return slope, offset


def _wait(delay: float, T1: Array) -> Change:
    array_api = namespace(T1)
    return array_api.exp(-delay / T1), -array_api.expm1(-delay / T1)


class _Train:
    """A train of pulses: what it does to Mz as a whole, and up to the pulse at the centre of k-space."""

    def __init__(self, timing: Timing, flip: Array, T1: Array) -> None:
        array_api = namespace(flip, T1)
        recovered = -array_api.expm1(-timing.spacing / T1)
        half = array_api.sin(flip / 2)
        decayed = recovered + (1 - recovered) * 2 * half * half  # 1 − cos α E, without cancellation
        logarithm = array_api.log1p(-decayed)

        def pulses(count: float) -> Change:
            return array_api.exp(count * logarithm), -array_api.expm1(count * logarithm) * recovered / decayed

        self.sine = array_api.sin(flip)
        self.whole = pulses(timing.before + timing.after)
        self.to_centre = pulses(timing.before)


def _shots(number: Any) -> tuple[float, float]:
    """Return the pulses before and after the centre: as given, or half of one number each."""
    values = [float(v) for v in np.atleast_1d(number)]
    return (values[0] / 2, values[0] / 2) if len(values) == 1 else (values[0], values[1])


def _cycle_settings(read_from: str = "") -> tuple[Any, Any, Any, Any]:
    """Declare TR, the time between excitations, the number of shots, and the efficiency of the inversion."""
    return (
        setting(
            "repetition time from inversion to inversion",
            "TR",
            bids="RepetitionTimePreparation",
            per_image=False,
            plausible=(500.0, 30_000.0),
            read_from=read_from,
        ),
        setting(
            "repetition time of the excitations",
            "TRe",
            bids=("RepetitionTimeExcitation", "EchoSpacing"),
            per_image=False,
            plausible=(0.5, 100.0),
            read_from=read_from,
        ),
        setting(
            "number of shots",
            "n",
            "1",
            bids="NumberShots",
            per_image=False,
            lengths=(1, 2),
            plausible=(1.0, 2_000.0),
            read_from=read_from,
        ),
        setting("inversion efficiency", "eff", "1", default=0.96, per_image=False, plausible=(0.3, 1.0)),
    )


_TR, _TR_EXCITATION, _NUMBER_SHOTS, _EFFICIENCY = _cycle_settings()
_UNI_TR, _UNI_TR_EXCITATION, _UNI_NUMBER_SHOTS, _UNI_EFFICIENCY = _cycle_settings("inv-1_MP2RAGE")


def _inversion_time(number: int, **options: Any) -> Any:
    return setting(
        f"inversion time {number}",
        f"TI{number}",
        bids="InversionTime",
        plausible=(20.0, 10_000.0),
        read_from=f"inv-{number}_MP2RAGE",
        **options,
    )


def _flip_angle(number: int) -> Any:
    return setting(
        f"flip angle {number}",
        f"α{number}",
        "deg",
        bids="FlipAngle",
        per_image=False,
        plausible=(0.5, 45.0),
        read_from=f"inv-{number}_MP2RAGE",
    )


@dataclass(frozen=True)
class MP2RAGE(SignalModel):
    """The two images INV1 and INV2 with their sign, in the steady state of the cycle.

    Every cycle of length TR has an adiabatic inversion and two trains of n pulses with small flip angles. Between
    pulses Mz recovers with T1; a pulse leaves cos(B1 α) of it. The signal is Mz sin(B1 α) at the pulse at the centre of
    k-space.

    Parameters
    ----------
    ti
        Inversion time of each image (N), from the inversion to the centre of k-space, ms: two different ones.
    flip_angle
        Nominal flip angle of each image, degrees; one value if they are equal.
    tr
        Time from inversion to inversion, ms.
    tr_excitation
        Time between the pulses of a train, ms.
    number_shots
        Pulses of a train: (before, after) the centre of k-space, or one number of which half are before it.
    inversion_efficiency
        1 for a perfect inversion; 0.96 for usual adiabatic pulses.
    signed
        The images have their sign. A pair of moduli does not determine T1 and is refused.

    Raises
    ------
    InputError
        For settings that are negative or not finite, trains that overlap, other than two inversion times, or images
        without their sign.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.

    Examples
    --------
    >>> model = MP2RAGE(ti=[700, 2500], flip_angle=[4, 5], tr=5000, tr_excitation=7.1, number_shots=[40, 80])
    >>> model.signal([[1000.0], [1.0], [1200.0]])[:, 0].round(1)
    array([-2.7, 58.1])
    """

    ti: Values = setting("inversion time", "TI", bids="InversionTime", entity="inv", plausible=(20.0, 10_000.0))
    flip_angle: Values = setting("flip angle", "α", "deg", bids="FlipAngle", per_image=None, plausible=(0.5, 45.0))
    tr: float = _TR
    tr_excitation: float = _TR_EXCITATION
    number_shots: Values = _NUMBER_SHOTS
    inversion_efficiency: float = _EFFICIENCY
    signed: bool = True

    name: ClassVar[str] = "mp2rage"
    title: ClassVar[str] = "MP2RAGE"
    formula: ClassVar[str] = r"S_k = A\,\sin(B_1\alpha_k)\,M_z(TI_k; B_1, T_1),\quad M_z\ \text{in the steady state}"
    reference: ClassVar[str] = "Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002"
    bids_suffix: ClassVar[str] = "MP2RAGE"
    parameters: ClassVar[tuple[Parameter, ...]] = (_AMPLITUDE, _B1, _T1)
    changes_sign: ClassVar[bool] = True
    typical_protocol: ClassVar[Mapping[str, Any]] = _PROTOCOL
    cycle: ClassVar[Cycle] = Cycle(all_images=True, shots=60, also_chosen=("flip_angle",))

    @classmethod
    def examples(cls) -> list[MP2RAGE]:
        """Return two scans to test it with."""
        return [cls(**_PROTOCOL), cls(**{**_PROTOCOL, "tr": 6000.0, "ti": (800.0, 2700.0), "number_shots": 160.0})]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.signed:
            raise InputError(
                "MP2RAGE: expected images with their sign (magnitude and phase, or the real part), got moduli, which "
                "do not determine T1. Use the UNIT1 image with --sequence mp2rage-uni."
            )
        if len(set(self.conditions)) != 2:
            raise InputError(
                f"MP2RAGE: expected images at two inversion times, got {len(set(self.conditions))}: "
                f"{', '.join(f'{t:g}' for t in self.times)} ms."
            )
        self._timing.check()

    @property
    def _timing(self) -> Timing:
        return _timing_of(
            tuple(sorted(set(self.conditions))),
            self.tr,
            self.tr_excitation,
            self.number_shots,
            self.inversion_efficiency,
        )

    def shape(self, B1: Array, T1: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X)."""
        timing = self._timing
        both = timing.signals(B1, T1)
        return namespace(B1, T1).stack([both[timing.inversion_times.index(t)] for t in self.times])


def _timing_of(
    conditions: tuple[tuple[float, ...], ...], cycle: float, spacing: float, number_shots: Any, efficiency: float
) -> Timing:
    (first, alpha), (second, beta) = conditions
    before, after = _shots(number_shots)
    flips = (float(np.deg2rad(alpha)), float(np.deg2rad(beta)))
    return Timing((first, second), flips, spacing, cycle, before, after, efficiency)


@dataclass(frozen=True)
class UniformMP2RAGE(SignalModel):
    """UNIT1, the uniform combination S₁S₂/(S₁² + S₂²) of the two images, between −½ and ½.

    Proton density, T2*, and the receive field divide out: there is no amplitude, and T1 is the only unknown. UNIT1
    determines it where it falls with T1, from its maximum to its minimum (at the nominal flip angles); that is the box
    of T1.

    Parameters
    ----------
    ti
        First inversion time of each UNIT1 image (N; N is 1 but for repeats), ms.
    ti_second
        Second inversion time, ms.
    flip_angle, flip_angle_second
        Nominal flip angles of the two trains, degrees.
    tr, tr_excitation, number_shots, inversion_efficiency
        As in `MP2RAGE`.

    Raises
    ------
    InputError
        For settings that are negative or not finite, or trains that overlap.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002. B1: Marques & Gruetter 2013,
    doi:10.1371/journal.pone.0069294.

    Examples
    --------
    >>> model = UniformMP2RAGE(ti=700, ti_second=2500, flip_angle=4, flip_angle_second=5, tr=5000, tr_excitation=7.1,
    ...                        number_shots=[40, 80])
    >>> model.signal([[1.0], [1200.0]])[:, 0].round(3)      # B1, T1
    array([-0.047])
    """

    ti: Values = _inversion_time(1)
    ti_second: float = _inversion_time(2, per_image=False)
    flip_angle: float = _flip_angle(1)
    flip_angle_second: float = _flip_angle(2)
    tr: float = _UNI_TR
    tr_excitation: float = _UNI_TR_EXCITATION
    number_shots: Values = _UNI_NUMBER_SHOTS
    inversion_efficiency: float = _UNI_EFFICIENCY

    name: ClassVar[str] = "mp2rage-uni"
    title: ClassVar[str] = "MP2RAGE, uniform image"
    formula: ClassVar[str] = r"S = \frac{S_1 S_2}{S_1^2 + S_2^2}"
    reference: ClassVar[str] = "Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002"
    bids_suffix: ClassVar[str] = "UNIT1"
    normalised_range: ClassVar[tuple[float, float] | None] = (-0.5, 0.5)
    parameters: ClassVar[tuple[Parameter, ...]] = (_B1, _T1)
    typical_protocol: ClassVar[Mapping[str, Any]] = _UNI_PROTOCOL
    cycle: ClassVar[Cycle] = Cycle(all_images=True, shots=60)

    @classmethod
    def examples(cls) -> list[UniformMP2RAGE]:
        """Return a scan to test it with."""
        return [cls(**_UNI_PROTOCOL)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.times)) != 1:
            raise InputError(
                f"ti: expected the same first inversion time for all UNIT1 images, got {self.times.tolist()} ms."
            )
        self._timing.check()
        if self.time.name not in {name for name, *_ in self.box}:
            falling = _falling(self._timing)
            boxed = tuple(
                replace(parameter, bounds=falling, start=None) if parameter.role == TIME else parameter
                for parameter in self.parameters
            )
            object.__setattr__(self, "parameters", boxed)

    @property
    def _timing(self) -> Timing:
        conditions = ((float(self.times[0]), self.flip_angle), (self.ti_second, self.flip_angle_second))
        return _timing_of(conditions, self.tr, self.tr_excitation, self.number_shots, self.inversion_efficiency)

    def shape(self, B1: Array, T1: Array) -> Array:  # type: ignore[override]
        """Return UNIT1, (N, *X)."""
        uniform = _combined(*self._timing.signals(B1, T1))
        return namespace(B1, T1).stack([uniform] * self.n_images)


def _combined(first: Array, second: Array) -> Array:
    return first * second / (first * first + second * second)


@lru_cache(maxsize=32)
def _falling(timing: Timing) -> tuple[float, float]:
    """Return the T1 (ms) between which UNIT1 falls from its maximum to its minimum, at the nominal flip angles."""
    uniform = _combined(*timing.signals(np.ones(1), LOOK_UP_T1_MS))
    least = int(uniform.argmin())
    most = int(uniform[: least + 1].argmax())
    return float(LOOK_UP_T1_MS[most]), float(LOOK_UP_T1_MS[least])


def uniform_image(first: Array, second: Array, *, beta: float = 0.0) -> NDArray[np.float64]:
    """Return UNIT1 (*X) of two images, signed or complex: Re(S₁* S₂)/(|S₁|² + |S₂|²), between −½ and ½.

    Parameters
    ----------
    first, second
        INV1 and INV2 (*X).
    beta
        Robust background: (Re(S₁* S₂) − β)/(|S₁|² + |S₂|² + 2β) tends to −½ if there is no signal, in place of noise
        between −½ and ½. It lowers UNIT1 of tissue by about β(1 + 2 UNIT1)/(S₁² + S₂²), so it is for pictures and
        masks, not for T1.

    References
    ----------
    O'Brien et al. 2014, doi:10.1371/journal.pone.0099676.

    >>> uniform_image([-10.0, 0.1], [33.3, 0.1]).round(2)
    array([-0.28,  0.5 ])
    >>> uniform_image([-10.0, 0.1], [33.3, 0.1], beta=10).round(2)
    array([-0.28, -0.5 ])
    """
    S1, S2 = np.asarray(first), np.asarray(second)
    power = abs(S1) ** 2 + abs(S2) ** 2 + 2 * beta
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((np.real(np.conj(S1) * S2) - beta) / power, dtype=float)


def from_scanner(values: Array, *, levels: int = 4095) -> NDArray[np.float64]:
    """Return a uniform image (any shape) with values between −½ and ½.

    Scanners store it as 12-bit integers from 0 to 4095. Other values are returned unchanged.

    >>> from_scanner([0, 4095]).tolist()
    [-0.5, 0.5]
    """
    S = np.asarray(values, dtype=float)
    stored = np.isfinite(S).any() and np.nanmin(S) >= 0 and np.nanmax(S) > 1
    return S / levels - 0.5 if stored else S
