"""How far a slice-selective pulse turns the magnetisation across the slice, for every transmit field B1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError

Floats = NDArray[np.float64]

#: Time steps of a pulse: each is a rotation about a constant axis.
PULSE_STEPS = 96
#: Positions across half of the slice.
POSITIONS = 121
#: How far out they go, in nominal thicknesses of the excited slice: pulses of a low time-bandwidth product have wide
#: flanks.
REACH = 1.6
#: A pulse that turns nothing excites no slice: its profile is the limit of small angles.
_LEAST_B1 = 1e-6
#: Time-bandwidth product of the excitation.
EXCITATION_TIME_BANDWIDTH = 3.0


class SliceProfile(ABC):
    """The refocusing angle and the excited magnetisation across the slice."""

    @abstractmethod
    def across(self, B1: Floats, refocusing_angle: float) -> tuple[Floats, Floats]:
        """Return cos α and the weight at each position, each (Z, M), for transmit fields B1 (M,).

        α is the angle of the refocusing pulse there; `refocusing_angle` its nominal value in degrees. The weights are
        the transverse magnetisation after the excitation; they add up to 1 for each B1.
        """


@dataclass(frozen=True)
class Hard(SliceProfile):
    """The same angle everywhere: non-selective pulses, or a profile that is not known."""

    def across(self, B1: Floats, refocusing_angle: float) -> tuple[Floats, Floats]:
        """Return cos(B1 α), (1, M), and weights of 1."""
        return np.cos(np.deg2rad(refocusing_angle) * B1)[None], np.ones((1, len(B1)))


@dataclass(frozen=True)
class Angles(SliceProfile):
    """Refocusing angles at positions across the slice that were simulated or measured elsewhere.

    Parameters
    ----------
    degrees
        Refocusing angle at each position for B1 = 1 (Z), degrees. B1 scales them.
    weights
        Transverse magnetisation after the excitation at each position (Z); the same everywhere if left out.
    """

    degrees: tuple[float, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        degrees, weights = (tuple(float(v) for v in x) for x in (self.degrees, self.weights))
        object.__setattr__(self, "degrees", degrees)
        object.__setattr__(self, "weights", weights)
        if not degrees or not np.isfinite(degrees).all() or (weights and len(weights) != len(degrees)):
            raise InputError(
                f"profile: expected refocusing angles in degrees and as many weights, got {len(degrees)} angles and "
                f"{len(weights)} weights."
            )
        if weights and not (min(weights) >= 0 < sum(weights)):
            raise InputError("profile: expected weights that are not negative, with a sum above zero.")

    def across(self, B1: Floats, refocusing_angle: float) -> tuple[Floats, Floats]:
        """Return cos(B1 α) and the weights; the nominal angle plays no part."""
        cosine = np.cos(np.deg2rad(np.array(self.degrees))[:, None] * B1)
        weights = np.array(self.weights or (1.0,) * len(self.degrees))
        return cosine, np.broadcast_to((weights / weights.sum())[:, None], cosine.shape)


@dataclass(frozen=True)
class Shaped(SliceProfile):
    """Pulses whose envelope is known, played out with a slice gradient: their rotations are multiplied step by step.

    Parameters
    ----------
    time_bandwidth
        Time-bandwidth product of the refocusing pulse: low values have wide flanks.
    thickness_ratio
        Nominal thickness of the refocused slice over that of the excited one.
    """

    time_bandwidth: float
    thickness_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name, least, greatest in (("time_bandwidth", 0.5, 20.0), ("thickness_ratio", 0.5, 5.0)):
            value = float(getattr(self, name))
            if not least <= value <= greatest:
                raise InputError(f"profile: expected {name} between {least:g} and {greatest:g}, got {value:g}.")
            object.__setattr__(self, name, value)

    @abstractmethod
    def envelope(self, time: Floats, time_bandwidth: float) -> Floats:
        """Return the amplitude (n,) of the pulse at times (n,) from −½ to ½ of its duration."""

    def across(self, B1: Floats, refocusing_angle: float) -> tuple[Floats, Floats]:
        """Return cos α = 1 − 2|b|² and the excited magnetisation 2a*b across the slice, each (number of B1, positions).

        a and b are the Cayley–Klein parameters of the pulse.
        """
        z = np.linspace(0, REACH, POSITIONS)  # the profiles are symmetric
        refocused = self._rotation(B1 * np.deg2rad(refocusing_angle), z / self.thickness_ratio, self.time_bandwidth)
        excited = self._rotation(np.maximum(B1, _LEAST_B1) * np.pi / 2, z, EXCITATION_TIME_BANDWIDTH)
        # What is in phase after the gradient has been rewound; a pulse that is symmetric in time leaves little else.
        rewind = np.exp(-1j * np.pi * EXCITATION_TIME_BANDWIDTH * z)[:, None]
        weights = np.real(2j * np.conj(excited[0]) * excited[1] * rewind)
        weights[0] /= 2  # the middle counts for one side only
        return np.asarray(1 - 2 * abs(refocused[1]) ** 2), np.asarray(weights / weights.sum(0))

    def _rotation(self, flip: Floats, z: Floats, time_bandwidth: float) -> tuple[NDArray[np.complex128], ...]:
        """Return a and b (Z, M) of a pulse with flip angles `flip` (M,) in rad at positions z (Z,) in nominal
        thicknesses.
        """
        time = (np.arange(PULSE_STEPS) + 0.5) / PULSE_STEPS - 0.5
        envelope = self.envelope(time, time_bandwidth)
        turn_z = (2 * np.pi * time_bandwidth * z / PULSE_STEPS)[:, None]  # by the gradient, in one step
        a: NDArray[np.complex128] = np.ones((len(z), len(flip)), complex)
        b: NDArray[np.complex128] = np.zeros((len(z), len(flip)), complex)
        for share in envelope / envelope.sum():
            turn_x = (share * flip)[None]
            angle = np.sqrt(turn_x**2 + turn_z**2)
            half = 0.5 * np.sinc(angle / (2 * np.pi))  # sin(angle/2)/angle
            step_a, step_b = np.cos(angle / 2) - 1j * turn_z * half, -1j * turn_x * half
            a, b = step_a * a - np.conj(step_b) * b, step_b * a + np.conj(step_a) * b
        return a, b


@dataclass(frozen=True)
class Sinc(Shaped):
    """A sinc with a Hann window, the usual slice-selective pulse; the excitation has the same form."""

    def envelope(self, time: Floats, time_bandwidth: float) -> Floats:
        """Return sinc(tb·t) (1 + cos 2πt)/2 at the times t (n,)."""
        return np.asarray(np.sinc(time_bandwidth * time) * (0.5 + 0.5 * np.cos(2 * np.pi * time)), dtype=float)


@dataclass(frozen=True)
class Gauss(Shaped):
    """A Gaussian pulse, whose profile is nearly a Gaussian; the excitation has the same form."""

    def envelope(self, time: Floats, time_bandwidth: float) -> Floats:
        """Return e^(−(π tb t)²/(4 ln 2)): the Fourier transform has a full width at half maximum of tb."""
        return np.asarray(np.exp(-((np.pi * time_bandwidth * time) ** 2) / (4 * np.log(2))), dtype=float)


#: The candidates when the data choose the profile. Time-bandwidth product and thickness ratio have similar effects:
#: both change the share of the slice that is refocused badly. The candidates are spread evenly over this share.
PROFILES: tuple[SliceProfile, ...] = (
    Hard(),
    Sinc(1.5, 1.35),
    Sinc(2.0, 1.3),
    Sinc(2.0, 1.2),
    Sinc(2.0, 1.1),
    Sinc(3.0, 1.2),
    Sinc(3.0, 1.0),
    Gauss(2.0, 1.0),
)

#: Pulses by the name that a setting takes.
_BY_NAME: dict[str, SliceProfile] = {"hard": Hard(), "sinc": Sinc(2.0, 1.3), "gauss": Gauss(2.0, 1.0)}


def profile_of(value: object) -> SliceProfile:
    """Return a profile from an object, a name (hard, sinc, gauss), or refocusing angles in degrees.

    Raises
    ------
    InputError
        For anything else.

    >>> profile_of("hard")
    Hard()
    >>> profile_of([180, 170, 120, 40])
    Angles(degrees=(180.0, 170.0, 120.0, 40.0), weights=())
    """
    if isinstance(value, SliceProfile):
        return value
    if isinstance(value, str):
        if value in _BY_NAME:
            return _BY_NAME[value]
    else:
        try:
            return Angles(tuple(np.asarray(value, dtype=float).reshape(-1).tolist()))
        except (TypeError, ValueError):
            pass
    raise InputError(f"profile: expected {', '.join(_BY_NAME)}, or refocusing angles in degrees, got {value!r}.")
