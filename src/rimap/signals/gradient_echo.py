"""Multi-echo gradient echo: A e^(−TE/T2*), and the same with a constant offset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rimap.arrays import Array, column, namespace
from rimap.signals.base import Cycle, Derived, Parameter, SignalModel, Values, setting

MILLISECONDS_PER_SECOND = 1000.0


def _rate(model: SignalModel, maps: Mapping[str, Array]) -> Array:
    """Return R2* = 1/T2* in 1/s."""
    return MILLISECONDS_PER_SECOND / maps["T2star"]


_AMPLITUDE = Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="S0map", meaning="amplitude at TE = 0")
_TIME = Parameter(
    "T2star",
    "ms",
    (0.5, 2000.0),
    "time",
    start=30.0,
    suffix="T2starmap",
    meaning="effective transverse relaxation time",
)
#: What usually explains residuals, for the warning.
_IF_MISFIT = (
    "near air the main field varies across a voxel, and fat beside water beats with it: no T2* describes either decay"
)
#: A typical scan: 192 lines of k-space, 130 ms each.
_CYCLE = Cycle(all_images=True, shots=192, length_ms=130.0)
_R2STAR = Derived("R2star", "1/s", _rate, suffix="R2starmap", meaning="effective transverse relaxation rate")


def _echo_time() -> Any:
    return setting(
        "echo time",
        "TE",
        bids="EchoTime",
        entity="echo",
        one_excitation=True,
        plausible=(1.0, 1_000.0),
        usual=(2.0, 100.0),
    )


@dataclass(frozen=True)
class GradientEcho(SignalModel):
    """S = A e^(−TE/T2*). A ≥ 0, so a modulus would change nothing.

    Fat and water are in phase at all echo times, or fat is suppressed: the model has no term for their beat.

    Parameters
    ----------
    te
        Echo times (N), ms.

    Raises
    ------
    InputError
        For times that are negative or not finite, or fewer distinct times than parameters.

    References
    ----------
    Chavhan et al. 2009, doi:10.1148/rg.295095034.

    Examples
    --------
    >>> model = GradientEcho(te=[5, 15, 30])
    >>> model.signal([[100.0], [30.0]])[:, 0].round(1)
    array([84.6, 60.7, 36.8])
    """

    te: Values = _echo_time()

    name: ClassVar[str] = "megre"
    title: ClassVar[str] = "Multi-echo gradient echo"
    formula: ClassVar[str] = r"S = A\,e^{-TE/T_2^*}"
    reference: ClassVar[str] = "Chavhan et al. 2009, doi:10.1148/rg.295095034"
    bids_suffix: ClassVar[str] = "MEGRE"
    gradient_echo: ClassVar[bool | None] = True
    cycle: ClassVar[Cycle] = _CYCLE
    if_misfit: ClassVar[str] = _IF_MISFIT
    parameters: ClassVar[tuple[Parameter, ...]] = (_AMPLITUDE, _TIME)
    derived: ClassVar[tuple[Derived, ...]] = (_R2STAR,)

    def shape(self, T2star: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X)."""
        return namespace(T2star).exp(-column(self.te, T2star) / T2star)

    def shape_partials(self, T2star: Array) -> dict[str, Array]:  # type: ignore[override]
        """Return the derivative (N, *X) of `shape` with respect to T2* (*X), 1/ms."""
        return {"T2star": self.shape(T2star) * column(self.te, T2star) / T2star**2}


@dataclass(frozen=True)
class GradientEchoWithOffset(SignalModel):
    """S = A e^(−TE/T2*) + C, for a second component that does not decay within the echoes, or a noise floor.

    If the offset is only the noise floor of magnitude images, `GradientEcho` with Rician noise describes it with one
    parameter less.

    Parameters
    ----------
    te
        Echo times (N), ms.

    Raises
    ------
    InputError
        For times that are negative or not finite, or fewer distinct times than parameters.

    References
    ----------
    Ghugre et al. 2006, doi:10.1002/jmri.20467 (the offset is needed where T2* is short).

    Examples
    --------
    >>> model = GradientEchoWithOffset(te=[5, 15, 30, 60])
    >>> model.signal([[100.0], [30.0], [10.0]])[:, 0].round(1)
    array([94.6, 70.7, 46.8, 23.5])
    """

    te: Values = _echo_time()

    name: ClassVar[str] = "megre-offset"
    title: ClassVar[str] = "Multi-echo gradient echo with an offset"
    formula: ClassVar[str] = r"S = A\,e^{-TE/T_2^*} + C"
    reference: ClassVar[str] = "Ghugre et al. 2006, doi:10.1002/jmri.20467"
    also_reads: ClassVar[tuple[str, ...]] = ("MEGRE",)
    gradient_echo: ClassVar[bool | None] = True
    cycle: ClassVar[Cycle] = _CYCLE
    if_misfit: ClassVar[str] = _IF_MISFIT
    parameters: ClassVar[tuple[Parameter, ...]] = (
        _AMPLITUDE,
        _TIME,
        Parameter("C", "a.u.", (0.0, np.inf), "amplitude", meaning="offset"),
    )
    derived: ClassVar[tuple[Derived, ...]] = (_R2STAR,)

    def shape(self, T2star: Array) -> Array:  # type: ignore[override]
        """Return the columns of A and C for amplitudes of 1, (N, 2, *X)."""
        array_api = namespace(T2star)
        decay = array_api.exp(-column(self.te, T2star) / T2star)
        return array_api.stack([decay, 1 + 0 * decay], axis=1)
