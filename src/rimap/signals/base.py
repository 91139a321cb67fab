"""What a signal model is: the scanner's settings are its fields, the tissue's parameters its arguments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, namespace
from rimap.errors import InputError

#: Times in ms: anything that iterates over numbers; kept as a tuple.
Times = Iterable[float]


@dataclass(frozen=True)
class Parameter:
    """One tissue parameter, beside the formula that uses it.

    Parameters
    ----------
    name
        The paper's letter: ``A``, ``B``, ``T1``, ``T2``.
    unit
        ``ms``, or ``a.u.`` (that of the images), or ``1``.
    bounds
        The box in which it is estimated, in `unit`; either may be infinite.
    scale
        The value that a network sees as 1 (1000 ms for T1 and T2).
    suffix
        BIDS suffix of its map, or `None` where BIDS has none.
    smooth
        Whether it varies slowly in space whatever the tissue (B does: it belongs to the pulse).
    """

    name: str
    unit: str
    bounds: tuple[float, float]
    scale: float = 1.0
    suffix: str | None = None
    smooth: bool = False


@dataclass(frozen=True)
class SignalModel(ABC):
    """A model of the signal of one voxel, S = |A (φ₀(T) + B φ₁(T))|, at the times `tau` (ms).

    A subclass is one file: it declares its parameters and gives the signal, the partial derivatives and
    the initial guess. All take NumPy arrays or torch tensors.

    A model that also gives `basis` is separable (linear in A and A·B for given T, which is its last
    parameter): the global search of `NLLS` and `MLE` then works on it as it is.
    """

    tau: Times

    name: ClassVar[str]
    title: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]]
    bids_suffix: ClassVar[str]
    """Suffix of the weighted images in BIDS: IRT1, MESE."""
    bids_time: ClassVar[str]
    """Sidecar field with the time, in seconds: InversionTime, EchoTime."""

    @abstractmethod
    def signal(self, kappa: Any) -> Array:
        """Return the images (N, *X) of the maps `kappa` (Q, *X)."""

    @abstractmethod
    def partials(self, kappa: Any) -> Array:
        """Return the derivatives of the signal in each parameter, (N, Q, *X)."""

    @abstractmethod
    def initial_guess(self, images: Any) -> Array:
        """Return where an iteration starts, (Q, *X), from the images (N, *X) (§4.4.4)."""

    def basis(self, T: Any) -> Array:
        """Return φ (N, K, *T.shape) with S = |A (φ₀(T) + B φ₁(T))|, K = Q − 1, before any modulus."""
        raise NotImplementedError(f"{type(self).__name__} is not separable")

    @property
    def separable(self) -> bool:
        """Whether the model gives `basis`."""
        return type(self).basis is not SignalModel.basis

    @property
    def magnitude(self) -> bool:
        """Whether the signal is a modulus whose polarity is lost."""
        return False

    @property
    def n_images(self) -> int:
        """N, the number of images."""
        return len(self.times)

    @property
    def times(self) -> NDArray[np.float64]:
        """τ as an array (N,), ms."""
        return np.asarray(self.tau, dtype=float)

    def subset(self, keep: Any) -> SignalModel:
        """Return the model of the images `keep` (indices)."""
        from dataclasses import replace

        return replace(self, tau=tuple(self.times[keep]))

    def index(self, name: str) -> int:
        """Return the position of the parameter `name` in κ."""
        return [p.name for p in self.parameters].index(name)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", _as_times(self.tau, "tau"))
        if (distinct := len(set(self.times))) < (Q := len(self.parameters)):
            raise InputError(
                f"{self.title} has {Q} parameters ({', '.join(p.name for p in self.parameters)}) and needs images "
                f"at {Q} or more distinct times; {distinct} came ({self.n_images} images). Add images at other times."
            )


def _as_times(times: Any, what: str) -> tuple[float, ...]:
    try:
        values = tuple(float(t) for t in np.asarray(times, dtype=float).reshape(-1))
    except (TypeError, ValueError):
        raise InputError(f"{what} must be numbers in ms; {times!r} came.") from None
    for t in values:
        if not math.isfinite(t) or t < 0:
            raise InputError(
                f"{what} must be finite and not negative, in ms; {t:g} came. Check the sidecars or --times-ms."
            )
    return values


def unpack(kappa: Any, n: int) -> tuple[Array, ...]:
    """Split κ (Q, *X) into its maps, as floating-point arrays."""
    from rimap.arrays import floating, is_torch

    if not is_torch(kappa) and isinstance(kappa, (tuple, list)) and any(is_torch(k) for k in kappa):
        kappa = namespace(*kappa).stack(list(kappa))
    kappa = floating(kappa)
    if kappa.shape[0] != n:
        raise InputError(f"kappa must have {n} maps along its first axis; its shape is {tuple(kappa.shape)}.")
    return tuple(kappa[q] for q in range(n))
