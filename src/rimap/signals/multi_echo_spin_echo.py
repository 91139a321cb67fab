"""Multi-echo spin echo with stimulated echoes: the extended phase graph of a CPMG train, over the slice profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from rimap.arrays import Array, namespace
from rimap.errors import InputError
from rimap.signals.base import Cycle, FieldPrior, Parameter, SignalModel, Values, setting
from rimap.signals.extended_phase_graph import SliceRule, train
from rimap.signals.slice_profile import PROFILES, SliceProfile, profile_of

__all__ = ["PROFILES", "MultiEchoSpinEcho"]

#: How far an echo time may be from a multiple of the echo spacing, in echo spacings: sidecars round.
ROUNDING = 0.05
#: The longest train; a longer one means that the echo spacing is wrong.
MOST_ECHOES = 512


@dataclass(frozen=True)
class MultiEchoSpinEcho(SignalModel):
    """Echoes of one train of refocusing pulses: spin echoes and all stimulated echoes.

    S = A Σ_z w(z) eₙ(α(z), T1, T2), where α(z) is the refocusing angle across the slice for a transmit field B1, w the
    excited magnetisation, and eₙ the nth echo by the extended phase graph. If α is 180° everywhere, S = A e^(−TE/T2).
    A is the magnetisation just after the excitation.

    Parameters
    ----------
    te
        Echo times (N), ms: n times the echo spacing, for some or all echoes n = 1, 2, … of the train.
    refocusing_angle
        Nominal angle of the refocusing pulses, degrees; BIDS has no field for it.
    echo_spacing
        Time between echoes, ms. If it is left out, the echo times must be evenly spaced, and their step is the echo
        spacing.
    profile
        ``hard`` (no slice selection), ``sinc``, ``gauss``, a `SliceProfile`, or refocusing angles across the slice in
        degrees. `PROFILES` are the candidates among which `rimap map` chooses if none is given.

    Raises
    ------
    InputError
        For echo times that are not multiples of the echo spacing, fewer distinct ones than parameters, or another
        profile.

    References
    ----------
    Hennig 1988, doi:10.1016/0022-2364(88)90128-X. Lebel & Wilman 2010, doi:10.1002/mrm.22487. Slice profiles: Milford
    et al. 2015, doi:10.1371/journal.pone.0145255.

    Deviations
    ----------
    T1 is given (1 s if no map is), because a train does not determine it. The magnetisation before the excitation is in
    equilibrium or alike in all voxels of a tissue: this is part of A.

    Examples
    --------
    >>> model = MultiEchoSpinEcho(te=[10, 20, 30, 40], profile="hard")
    >>> model.signal([[1.0], [1.0], [1000.0], [50.0]])[:, 0].round(3)      # A, B1, T1, T2: the mono-exponential decay
    array([0.819, 0.67 , 0.549, 0.449])
    >>> model.signal([[1.0], [0.8], [1000.0], [50.0]])[:, 0].round(3)      # B1 = 0.8: the first echo is low
    array([0.741, 0.688, 0.506, 0.466])
    """

    te: Values = setting(
        "echo time",
        "TE",
        bids="EchoTime",
        entity="echo",
        one_excitation=True,
        plausible=(1.0, 5_000.0),
        usual=(6.0, 320.0),
        even=True,
    )
    refocusing_angle: float = setting(
        "refocusing angle", "α", "deg", default=180.0, per_image=False, plausible=(10.0, 360.0)
    )
    echo_spacing: float | None = setting("echo spacing", "ΔTE", default=None, per_image=False, plausible=(0.5, 1_000.0))
    profile: Any = "sinc"

    name: ClassVar[str] = "mese"
    title: ClassVar[str] = "Multi-echo spin echo"
    formula: ClassVar[str] = r"S_n = A\,\sum_z w(z)\,\mathrm{EPG}_n\left(B_1\alpha(z), T_1, T_2\right)"
    reference: ClassVar[str] = (
        "Hennig 1988, doi:10.1016/0022-2364(88)90128-X; Lebel & Wilman 2010, doi:10.1002/mrm.22487"
    )
    also_reads: ClassVar[tuple[str, ...]] = ("MESE",)
    gradient_echo: ClassVar[bool | None] = False
    cycle: ClassVar[Cycle] = Cycle(all_images=True, shots=64, length_ms=2500.0)
    chosen_over: ClassVar[str] = "t2"
    candidates: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"profile": profile} for profile in PROFILES)
    if_first_is_skipped: ClassVar[str] = (
        "The first echo need not be left out for this model, because it includes the stimulated echoes; that echo "
        "determines B1 best. Leave --skip-first out."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map", meaning="amplitude after the excitation"),
        Parameter(
            "B1",
            "1",
            (0.4, 1.6),
            "field",
            treatment="smooth",
            start=0.95,
            suffix="TB1map",
            prior=FieldPrior(mean=(0.8, 1.1), spread=(0.0, 0.12)),
            meaning="actual over nominal flip angle",
            physical=(0.5, 1.5),
            if_unphysical="are the refocusing angle, the profile of the pulses and the echo times right?",
            usual=(0.8, 1.2),
            if_unusual="The echoes determine the actual refocusing angle; B1 is that angle over the nominal one. Check "
            "the nominal "
            "angle, 180° unless you set it (--set refocusing_angle=DEGREES), and the slice profile (--set "
            "profile=NAME). T2 depends on the profile, and little on the nominal angle.",
        ),
        Parameter(
            "T1",
            "ms",
            (1.0, 10_000.0),
            "field",
            treatment="given",
            transform="log",
            start=1000.0,
            meaning="longitudinal relaxation time, which is not estimated",
        ),
        Parameter("T2", "ms", (0.5, 5000.0), "time", start=100.0, suffix="T2map", meaning="transverse relaxation time"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "profile", profile_of(self.profile))
        spacing = _step(self.te) if self.echo_spacing is None else self.echo_spacing
        object.__setattr__(self, "echo_spacing", spacing)  # `subset` keeps it: the train stays whole
        if not 0 < self.refocusing_angle <= 360:
            raise InputError(f"refocusing_angle: expected degrees up to 360, got {self.refocusing_angle:g}.")
        numbers = self.times / spacing
        if (abs(numbers - numbers.round()) > ROUNDING * np.maximum(1, numbers / 16)).any() or numbers.min() < 0.5:
            raise InputError(
                f"te: expected multiples of the echo spacing of {spacing:g} ms, got {_list(self.times)} ms. "
                "Set echo_spacing, or use T2Decay for echoes of separate scans."
            )
        if numbers.max() > MOST_ECHOES:
            raise InputError(
                f"echo_spacing: expected trains of up to {MOST_ECHOES} echoes, got {numbers.max():.0f} "
                f"(spacing {spacing:g} ms). Check the echo times."
            )

    @property
    def echo_numbers(self) -> tuple[int, ...]:
        """Which echo of the train each image is, from 1."""
        return _numbers(tuple(self.times), float(self.echo_spacing or 0))

    def shape(self, B1: Array, T1: Array, T2: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X).

        B1 may have other axes than T1 and T2, against which it broadcasts: this is fast on grids.
        """
        assert isinstance(self.profile, SliceProfile) and self.echo_spacing is not None
        array_api, n = namespace(B1, T1, T2), max(self.echo_numbers)
        rule = SliceRule.of(self.profile, float(self.refocusing_angle), n)
        E1, E2 = array_api.exp(-self.echo_spacing / T1), array_api.exp(-self.echo_spacing / T2)
        echoes = train(rule, B1, E1, E2, n)
        return echoes[[number - 1 for number in self.echo_numbers]]


@lru_cache(maxsize=64)
def _numbers(times: tuple[float, ...], spacing: float) -> tuple[int, ...]:
    return tuple(round(t / spacing) for t in times)


def _step(te: Values) -> float:
    """Return the echo spacing of evenly spaced echo times, whose first one is a multiple of it.

    Raises
    ------
    InputError
        If they are not.
    """
    times = np.unique(np.asarray(te, dtype=float))
    step = float((times[-1] - times[0]) / (len(times) - 1)) if len(times) > 1 else float(times[0])
    first = times[0] / step if step else 0.0
    expected = times[0] + step * np.arange(len(times))
    if not step or (abs(times - expected) > ROUNDING * step).any() or first < 0.5 or abs(first - round(first)) > 0.15:
        raise InputError(
            f"te: expected the evenly spaced echoes of one train (n times the echo spacing), got {_list(times)} ms. "
            "Set echo_spacing if some echoes are missing, or use T2Decay for echoes of separate scans."
        )
    # The last echo determines the spacing best: each time is rounded, and so is a spacing from a difference.
    return float(times[-1] / round(times[-1] / step))


def _list(times: Any) -> str:
    shown = [f"{t:g}" for t in times]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:5], "…"])
