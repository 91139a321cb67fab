"""Inversion recovery: |A (1 − B e^(−τ/T1))|, with the term of a finite repetition time where TR is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from rimap.arrays import Array, column, floating, namespace
from rimap.errors import InputError
from rimap.signals.base import Parameter, SignalModel, Times, _as_times, unpack


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

    tr: float | Times | None = None
    signed: bool = False

    name: ClassVar[str] = "ir"
    title: ClassVar[str] = "Inversion recovery"
    bids_suffix: ClassVar[str] = "IRT1"
    bids_time: ClassVar[str] = "InversionTime"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), suffix="M0map"),
        Parameter("B", "1", (0.0, 3.0), smooth=True),
        Parameter("T1", "ms", (1.0, 10_000.0), scale=1000.0, suffix="T1map"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tr is None:
            return
        tr = _as_times(self.tr, "TR")
        if len(tr) == 1:
            tr = tr * self.n_images
        if len(tr) != self.n_images:
            raise InputError(f"TR must be one value or one for each of the {self.n_images} images; {len(tr)} came.")
        for t, r in zip(self.times, tr):
            if r <= t:
                raise InputError(
                    f"TR must be longer than TI; TR {r:g} ms came with TI {t:g} ms. TR is the time from one inversion "
                    "to the next; leave it out if only the time between readouts is known."
                )
        object.__setattr__(self, "tr", tr)

    @property
    def magnitude(self) -> bool:
        """Whether the modulus is taken."""
        return not self.signed

    def subset(self, keep: Any) -> InversionRecovery:
        """Return the model of the images `keep` (indices)."""
        tr = None if self.tr is None else tuple(np.asarray(self.tr)[keep])
        return replace(self, tau=tuple(self.times[keep]), tr=tr)

    def _exponentials(self, T1: Array) -> tuple[Array, Array]:
        exp = namespace(T1).exp
        E = exp(-column(self.tau, T1) / T1)
        E_TR = 0 * E if self.tr is None else exp(-column(self.tr, T1) / T1)
        return E, E_TR

    def signal(self, kappa: Any) -> Array:
        """Return the images (N, *X) of κ = (A, B, T1)."""
        A, B, T1 = unpack(kappa, 3)
        E, E_TR = self._exponentials(T1)
        S = A * (1 - B * E + (B - 1) * E_TR)  # §4.1
        return S if self.signed else abs(S)

    def partials(self, kappa: Any) -> Array:
        """Return ∂S/∂A, ∂S/∂B, ∂S/∂T1, (N, 3, *X)."""
        A, B, T1 = unpack(kappa, 3)
        xp = namespace(A)
        E, E_TR = self._exponentials(T1)
        M = 1 - B * E + (B - 1) * E_TR
        dB = A * (E_TR - E)
        dT1 = -A * B * E * column(self.tau, T1) / T1**2
        if self.tr is not None:
            dT1 = dT1 + A * (B - 1) * E_TR * column(self.tr, T1) / T1**2
        d = xp.stack([M + 0 * A, dB, dT1], axis=1)
        return d if self.signed else xp.where((A * M < 0)[:, None], -d, d)

    def initial_guess(self, images: Any) -> Array:
        """Return A = maximum over the images, B = 2, T1 = 1000 ms (§4.4.4)."""
        S = floating(images)
        xp = namespace(S)
        A = xp.max(abs(S), axis=0)
        return xp.stack([A, 0 * A + 2.0, 0 * A + 1000.0])

    def basis(self, T: Any) -> Array:
        """Return φ₀ = 1 − e^(−TR/T1) and φ₁ = e^(−TR/T1) − e^(−τ/T1), (N, 2, *X)."""
        T = floating(T)
        E, E_TR = self._exponentials(T)
        return namespace(T).stack([1 - E_TR, E_TR - E], axis=1)
