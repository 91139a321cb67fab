"""Two signal models of a laboratory, as a package of its own would have them: several amplitudes, several settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rimap import Parameter, SignalModel, setting
from rimap.arrays import Array, column, namespace


@dataclass(frozen=True)
class OffsetDecay(SignalModel):
    """S = A e^(−TE/T2*) + C: gradient echoes on a constant offset, with the time between the two linear amplitudes."""

    te: tuple[float, ...] = setting("echo time", "TE", bids="EchoTime", entity="echo", plausible=(1.0, 1000.0))

    name: ClassVar[str] = "lab-offset"
    title: ClassVar[str] = "T2* decay with an offset"
    bids_suffix: ClassVar[str] = "LABMEGRE"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("C", "a.u.", (0.0, np.inf), "amplitude"),
        Parameter("T2star", "ms", (1.0, 1000.0), "time", start=30.0, suffix="T2starmap"),
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map"),
    )

    def shape(self, T2star: Array) -> Array:  # type: ignore[override]
        """Return one column for each amplitude, (N, 2, *X), in the order of the parameters."""
        xp = namespace(T2star)
        decay = xp.exp(-column(self.te, T2star) / T2star)
        return xp.stack([1 + 0 * decay, decay], axis=1)


@dataclass(frozen=True)
class SpoiledEchoes(SignalModel):
    """S = A sin(B1 α) (1 − E)/(1 − cos(B1 α) E), E = e^(−TR/T1); an angle and a TR for each image; B1 is given."""

    flip_angle: tuple[float, ...] = setting(
        "flip angle", "FA", "deg", bids="FlipAngle", entity="flip", plausible=(1.0, 90.0)
    )
    tr: tuple[float, ...] = setting("repetition time", "TR", bids="RepetitionTimeExcitation", plausible=(5.0, 500.0))

    name: ClassVar[str] = "lab-spoiled"
    title: ClassVar[str] = "Spoiled gradient echoes"
    bids_suffix: ClassVar[str] = "LABVFA"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("B1", "1", (0.5, 1.5), "field", treatment="given", start=1.0, suffix="TB1map"),
        Parameter("T1", "ms", (10.0, 6000.0), "time", start=1000.0, suffix="T1map"),
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map"),
    )

    def shape(self, B1: Array, T1: Array) -> Array:  # type: ignore[override]
        """Return the signal for A = 1, (N, *X)."""
        xp = namespace(B1, T1)
        E = xp.exp(-column(self.tr, T1) / T1)
        angle = column(np.deg2rad(self.flip_angle), B1) * B1
        return xp.sin(angle) * (1 - E) / (1 - xp.cos(angle) * E)
