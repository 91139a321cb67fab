"""Noise: negative log-likelihood, score, sampler; the gradient and the information that follow.

`L(κ) = Σₙ −log p(Sₙ | fₙ(κ), σ)`, Sabidussi et al. 2021, Eq. 1–2, doi:10.1016/j.media.2021.102220.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, bessel_e, floating, is_torch, namespace, to_numpy
from rimap.errors import InputError
from rimap.signals.base import SignalModel

#: A parameter is not determined if the other parameters multiply its variance by this factor or more. The information
#: is known to some 16 digits, so that a variance has at least three digits then.
LARGEST_INFLATION = 1e12
#: So many standard deviations on each side of the mean contain 95 % of a normal distribution.
HALF_OF_95 = 1.96


class Normals(Protocol):
    """Where noise is drawn from: a `numpy.random.Generator`, or values that are correlated in space."""

    def standard_normal(self, size: tuple[int, ...], /) -> Array:
        """Return values of mean 0 and variance 1 of this shape."""


@dataclass(frozen=True, eq=False)
class Noise(ABC):
    """The distribution of an image value S around the signal f.

    Parameters
    ----------
    sigma
        Standard deviation of the noise, in the unit of the images: a number, a map (*X) as an array, tensor or
        nibabel image, or `None` where it is to be estimated from the series.

    Raises
    ------
    InputError
        Where a σ is zero or negative. (A map may hold NaN where it is unknown; those voxels get no estimate.)
    """

    sigma: Any = None

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.sigma is None or is_torch(self.sigma) or hasattr(self.sigma, "dataobj"):  # WeightedSeries reads it
            return
        try:
            sigma = to_numpy(self.sigma)
            if sigma.dtype.kind == "c":
                raise TypeError("a complex number would lose its imaginary part")
            sigma = sigma.astype(float)
        except (TypeError, ValueError):
            raise InputError(
                f"sigma: expected a positive number or a map of them, in the unit of the images, got {self.sigma!r}."
            ) from None
        if not np.any(sigma > 0) or np.any(sigma <= 0) or (sigma.ndim == 0 and not np.isfinite(sigma)):
            worst = np.min(sigma, initial=np.inf, where=~np.isnan(sigma)) if not np.isnan(sigma).all() else np.nan
            raise InputError(f"sigma: expected a positive number in the unit of the images, got {worst:g}.")
        object.__setattr__(self, "sigma", float(sigma) if sigma.ndim == 0 else sigma)

    def at(self, index: Array) -> Self:
        """Return the noise of the voxels ``[index]``: of a map of σ the part there, which may have no value at all."""
        if np.ndim(self.sigma) == 0:
            return self
        part = copy.copy(self)  # the map as a whole was checked
        object.__setattr__(part, "sigma", np.asarray(self.sigma)[index])
        return part

    def typical_sigma(self, where: NDArray[np.bool_] | None = None) -> float:
        """Return σ, or the median of its map over the voxels `where` (*X) with a value: NaN if there is none.

        What a map of σ holds outside a mask says nothing about the images inside.
        """
        if np.ndim(self.sigma) == 0:
            return np.nan if self.sigma is None else float(self.sigma)
        inside = self.sigma if where is None else self.sigma[np.broadcast_to(where, np.shape(self.sigma))]
        known = inside[np.isfinite(inside)]
        return float(np.median(known)) if known.size else np.nan

    def _sigma(self, like: Array) -> Array:
        if self.sigma is None:
            raise InputError(
                f"{type(self).__name__}() has no sigma yet. Give one, as in {type(self).__name__}(sigma=20.0)."
            )
        return floating(self.sigma, like) if is_torch(like) else np.asarray(self.sigma, dtype=like.dtype)

    @abstractmethod
    def nll(self, S: Array, f: Array) -> Array:
        """Return −log p(S | f) (N, *X) of each value."""

    @abstractmethod
    def score(self, S: Array, f: Array) -> Array:
        """Return the derivative of `nll` in f, (N, *X)."""

    @abstractmethod
    def information(self, f: Array) -> Array:
        """Return the Fisher information of one value about f, (N, *X)."""

    def mean(self, f: Array) -> NDArray[Any]:
        """Return the expected images (N, *X) for the signal f: f itself, unless a noise model overrides this."""
        return np.asarray(f, dtype=float)

    @abstractmethod
    def sample(self, f: Array, rng: Normals) -> NDArray[Any]:
        """Return f (N, *X) with noise drawn from `rng`."""


class Gaussian(Noise):
    """S = f + ε, ε ~ N(0, σ²) (Eq. 1). Good for SNR above three.

    Examples
    --------
    >>> Gaussian(sigma=2.0).score([3.0], [1.0])
    array([-0.5])
    """

    name: ClassVar[str] = "gaussian"

    def nll(self, S: Array, f: Array) -> Array:
        """Return (S − f)²/2σ² + log σ√2π."""
        f = floating(f)
        sigma = self._sigma(f)
        return (floating(S, f) - f) ** 2 / (2 * sigma**2) + namespace(f).log(sigma * (2 * np.pi) ** 0.5)

    def score(self, S: Array, f: Array) -> Array:
        """Return (f − S)/σ²."""
        f = floating(f)
        return (f - floating(S, f)) / self._sigma(f) ** 2

    def information(self, f: Array) -> Array:
        """Return 1/σ²."""
        f = floating(f)
        return 0 * f + 1 / self._sigma(f) ** 2

    def sample(self, f: Array, rng: Normals) -> NDArray[Any]:
        """Return f + ε."""
        f = np.asarray(f, dtype=float)
        return np.asarray(f + self._sigma(f) * rng.standard_normal(f.shape))


class Rician(Noise):
    """S = |f + ε₁ + iε₂|: magnitude images. σ is that of each channel.

    −log p = −log(S/σ²) + (S − f)²/2σ² − log i0e(S f/σ²), infinite for S ≤ 0.

    References
    ----------
    Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618.

    Examples
    --------
    >>> float(Rician(sigma=1.0).nll([2.0], [0.0])[0])    # −log of a Rayleigh density
    1.306853
    """

    name: ClassVar[str] = "rician"

    def nll(self, S: Array, f: Array) -> Array:
        """Return −log(S/σ²) + (S − f)²/2σ² − log i0e(S f/σ²)."""
        f = floating(f)
        array_api, sigma = namespace(f), self._sigma(f)
        S, f = floating(S, f), abs(f)
        tiny = array_api.finfo(f.dtype).tiny
        logS = array_api.where(S > 0, array_api.log(array_api.where(S > 0, S, 1 + 0 * S)), -np.inf + 0 * S)
        z = array_api.where(S > 0, S, 0 * S) * f / sigma**2
        return -logS + 2 * array_api.log(sigma) + (S - f) ** 2 / (2 * sigma**2) - array_api.log(bessel_e(0, z) + tiny)

    def score(self, S: Array, f: Array) -> Array:
        """Return (|f| − S I₁/I₀(S|f|/σ²))/σ², with the sign of f."""
        f = floating(f)
        array_api, sigma = namespace(f), self._sigma(f)
        S, m = floating(S, f), abs(f)
        z = S * m / sigma**2
        return array_api.where(f < 0, -1.0 + 0 * f, 1.0 + 0 * f) * (m - S * bessel_e(1, z) / bessel_e(0, z)) / sigma**2

    def information(self, f: Array) -> Array:
        """Return E[score²], from a table in f/σ (σ⁻² at high SNR, less towards zero)."""
        f = floating(f)
        sigma = self._sigma(f)
        snr, info = _rician_information()
        ratio = abs(f) / sigma
        table = np.interp(np.asarray(ratio), snr, info)
        return floating(table, f) / sigma**2

    def mean(self, f: Array) -> NDArray[Any]:
        """Return σ √(π/2) L½(−f²/2σ²): |f| and up to 1.25 σ more."""
        f = np.abs(np.asarray(f, dtype=float))
        sigma = self._sigma(f)
        snr, excess = _rician_excess()
        return np.asarray(f + sigma * np.interp(f / sigma, snr, excess))

    def sample(self, f: Array, rng: Normals) -> NDArray[Any]:
        """Return |f + ε₁ + iε₂|."""
        f = np.asarray(f, dtype=float)
        sigma = self._sigma(f)
        return np.asarray(np.hypot(f + sigma * rng.standard_normal(f.shape), sigma * rng.standard_normal(f.shape)))


@cache
def _rician_information() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tabulate E[(S I₁/I₀ − m)²] for σ = 1 over m; it is m²(1 + O(m²)) near 0 and 1 − 1/2m² far out."""
    m = np.concatenate([np.linspace(0, 10, 401), np.geomspace(10.1, 1e4, 200)])
    x = np.linspace(-12, 12, 4801)
    S = np.maximum(m[:, None] + x, 0)
    z = S * m[:, None]
    p = S * np.exp(-(x**2) / 2) * bessel_e(0, z)
    score = m[:, None] - S * bessel_e(1, z) / bessel_e(0, z)
    return m, (p * score**2).sum(1) / p.sum(1)


@cache
def _rician_excess() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tabulate what the mean of a magnitude exceeds its signal m by, over m, for σ = 1; it is 1/2m far out."""
    m = np.concatenate([np.linspace(0, 10, 1001), np.geomspace(10.1, 1e4, 200)])
    z = np.minimum(m * m / 4, 2500.0)[:, None]
    # Bessel's integrals, by the midpoint rule: importing SciPy's functions would take longer than to map a slice.
    cosine = np.cos((np.arange(256) + 0.5) * np.pi / 256)
    falling = np.exp(z * (cosine - 1))
    mean = np.sqrt(np.pi / 2) * (falling * (1 + 2 * z * (1 + cosine))).mean(axis=1)
    return m, np.where(m < 100, mean - m, 0.5 / np.maximum(m, 1))


def gradient(model: SignalModel, noise: Noise, S: Array, kappa: Array) -> Array:
    """Return ∇κ L (Q, *X), the gradient of the negative log-likelihood (input of Eq. 4).

    Parameters
    ----------
    S
        Images (N, *X).
    kappa
        Maps (Q, *X), T in ms.
    """
    score = noise.score(S, model.signal(kappa))
    return (score[:, None] * model.partials(kappa)).sum(0)


def fisher_information(model: SignalModel, noise: Noise, kappa: Array) -> Array:
    """Return the Fisher information of κ, (Q, Q, *X): Σₙ I(fₙ) ∂fₙ/∂κᵢ ∂fₙ/∂κⱼ."""
    d = model.partials(kappa)
    info = noise.information(model.signal(kappa))
    return (info[:, None, None] * d[:, :, None] * d[:, None, :]).sum(0)


def inverse_information(F: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverses of information matrices (*X, q, q); NaN if singular (`LARGEST_INFLATION`) or not finite.

    The diagonal of the inverse of F, scaled to a unit diagonal, is the factor by which the other parameters multiply
    each variance. It needs no further decomposition, and does not depend on the units of the parameters.
    """
    with np.errstate(all="ignore"):
        d = np.sqrt(np.einsum("...ii->...i", F))
        unit = d[..., :, None] * d[..., None, :]
        scaled = F / unit
    bad = ~np.isfinite(scaled).all((-2, -1))
    scaled[bad] = np.eye(F.shape[-1])
    try:
        inverse = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:  # one of them is exactly singular, and numpy does not say which
        bad |= np.linalg.cond(scaled) > LARGEST_INFLATION
        scaled[bad] = np.eye(F.shape[-1])
        inverse = np.linalg.inv(scaled)
    inflation = np.einsum("...ii->...i", inverse)
    bad |= ~((inflation > 0) & (inflation < LARGEST_INFLATION)).all(-1)
    with np.errstate(all="ignore"):
        inverse = inverse / unit
    inverse[bad] = np.nan
    return np.asarray(inverse)


def cramer_rao_covariance(
    model: SignalModel, noise: Noise, kappa: Array, *, held: Iterable[str] | None = None
) -> NDArray[np.float64]:
    """Return the Cramér-Rao bound (Q, Q, *X) of each voxel: the smallest covariance of any unbiased estimator.

    NaN where the information is singular (at A = 0, for instance), and in rows and columns of what is known.

    Parameters
    ----------
    held
        Names of the parameters that are known; those that the model takes as given if left out.
    """
    known = {parameter.name for parameter in model.parameters if parameter.given} if held is None else set(held)
    free = [row for row, parameter in enumerate(model.parameters) if parameter.name not in known]
    F = np.asarray(fisher_information(model, noise, kappa), dtype=float)
    out = np.full(F.shape, np.nan)
    F = np.moveaxis(F[np.ix_(free, free)], (0, 1), (-2, -1))
    covariance = inverse_information(F)
    out[np.ix_(free, free)] = np.moveaxis(covariance, (-2, -1), (0, 1))
    return out


def cramer_rao_sd(
    model: SignalModel, noise: Noise, kappa: Array, *, held: Iterable[str] | None = None
) -> NDArray[np.float64]:
    """Return the smallest standard deviation (Q, *X) that an unbiased estimator can have, voxel by voxel.

    NaN where the information is singular, and for what is known; parameters as of `cramer_rao_covariance`.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(np.einsum("qq...->q...", cramer_rao_covariance(model, noise, kappa, held=held))))
