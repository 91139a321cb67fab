"""A signal model of which some parameters are known: what is left to search, in the order (A, F, T) of the kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reduced:
    """S = |A (φ₀(T) + F φ₁(T))|, or S = |A φ₀(T)| without a field to estimate.

    Parameters
    ----------
    model
        The model itself.
    held
        The parameters that are known, with one value in all voxels.
    """

    model: SignalModel
    held: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, model: SignalModel, held: Mapping[str, float]) -> Reduced | None:
        """Return what is left of a model, or `None` if it is not of this form."""
        reduced = cls(model, tuple(sorted((name, float(value)) for name, value in held.items())))
        return reduced if _is_separable(reduced) else None

    @property
    def has_field(self) -> bool:
        """Whether a field is estimated."""
        return self.model.field is not None and self.model.field.name not in dict(self.held)

    @property
    def n_parameters(self) -> int:
        """How many parameters are estimated."""
        return 2 + self.has_field

    @property
    def magnitude(self) -> bool:
        """Whether the polarity of the images is unknown."""
        return self.model.magnitude

    @property
    def T_bounds(self) -> tuple[float, float]:
        """The box of T, ms."""
        return self.model.time.bounds

    @property
    def F_bounds(self) -> tuple[float, float]:
        """The box of the field, (0, 0) without one."""
        return self.model.field.bounds if self.model.field is not None and self.has_field else (0.0, 0.0)

    def shape(self, T: Floats, F: Floats | float = 0.0) -> Floats:
        """Return the signal for A = 1 before the modulus, (N, *X)."""
        maps = {name: value + 0 * T for name, value in self.held} | {self.model.time.name: T}
        if self.model.field is not None and self.has_field:
            maps[self.model.field.name] = F + 0 * T
        return np.asarray(
            self.model.shape(**{parameter.name: maps[parameter.name] for parameter in self.model.nonlinear}),
            dtype=float,
        )

    def basis(self, T: Floats) -> Floats:
        """Return φ (N, K, *T.shape); K = 1 without a field to estimate."""
        T = np.asarray(T, dtype=float)
        at_0 = self.shape(T)
        return np.stack([at_0, self.shape(T, 1.0) - at_0], axis=1) if self.has_field else at_0[:, None]


@lru_cache(maxsize=64)
def _is_separable(reduced: Reduced) -> bool:
    """Return whether `basis` describes the model; that it is linear in the field is tried, not believed."""
    model, known = reduced.model, dict(reduced.held)
    free = [parameter for parameter in model.nonlinear if parameter.name not in known]
    if len(model.amplitudes) != 1 or len(free) != 1 + reduced.has_field or model.time.name in known:
        return False
    if not reduced.has_field:
        return True
    if not model.linear_in_field:
        return False
    rng = np.random.default_rng(0)
    low, high = np.log(reduced.T_bounds)
    T = np.exp(rng.uniform(low, high, 64))
    F = rng.uniform(*reduced.F_bounds, 64)
    phi, true = reduced.basis(T), reduced.shape(T, F)
    return bool(np.allclose(phi[:, 0] + F * phi[:, 1], true, rtol=1e-9, atol=1e-9 * abs(true).max()))
