"""The signal of a model as a table, so that the page draws curves without knowing any physics."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.signals.base import SignalModel

_LEVELS = 32_000


@dataclass(frozen=True, eq=False)
class SignalTable:
    """φ of S = |A (φ₀(T) + B φ₁(T))| over time and log T.

    Parameters
    ----------
    entries
        (times, K, M) whole numbers; φ is `scale` times them.
    low, step
        T of the first entry, ms, and the difference of log T between entries.
    times
        Where the curve is drawn, ms, and among them the times of the images.
    at
        Indices in `times` of the images (N).
    magnitude
        Whether the modulus is taken.
    """

    entries: NDArray[np.int16]
    scale: float
    low: float
    step: float
    times: NDArray[np.float64]
    at: NDArray[np.intp]
    magnitude: bool

    def signal(self, n: int, kappa: NDArray[Any]) -> NDArray[np.float64]:
        """Return image `n` (*X) of κ (Q, *X), interpolated as the page does it; 0 where κ is not finite."""
        phi, M = self.entries[self.at[n]] * self.scale, self.entries.shape[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            place = np.clip(np.nan_to_num(np.log(kappa[-1] / self.low) / self.step), 0, M - 1)
        i = np.minimum(place.astype(int), M - 2)
        share = place - i
        total = np.zeros(place.shape)
        for k, row in enumerate(phi):
            total += (1.0 if k == 0 else kappa[k]) * (row[i] * (1 - share) + row[i + 1] * share)
        S = kappa[0] * total
        return np.asarray(np.where(np.isfinite(S), np.abs(S) if self.magnitude else S, 0.0))


def signal_table(model: SignalModel, T: NDArray[Any], n_times: int = 140, n_T: int = 256) -> SignalTable | None:
    """Return the table of a separable model over the range of `T` (any shape, ms); `None` for other models."""
    T = T[np.isfinite(T) & (T > 0)]
    if not model.separable or not T.size:
        return None
    low, high = float(T.min()), float(max(T.max(), T.min() * 1.01))
    dense = model.times.max() * np.linspace(0, 1, n_times) ** 1.5  # closer where the signal is fast
    times = np.unique(np.concatenate([dense, model.times]))
    try:
        phi = np.asarray(_at(model, times).basis(np.geomspace(low, high, n_T)), dtype=float)
    except (InputError, TypeError, ValueError, NotImplementedError):
        return None
    largest = float(np.abs(phi).max())
    if not np.isfinite(largest) or not largest:
        return None
    scale = largest / _LEVELS
    return SignalTable(
        entries=np.rint(phi / scale).astype(np.int16),
        scale=scale,
        low=low,
        step=float(np.log(high / low) / (n_T - 1)),
        times=times,
        at=np.searchsorted(times, model.times),
        magnitude=model.magnitude,
    )


def _at(model: SignalModel, times: NDArray[np.float64]) -> SignalModel:
    """Return the model at other times; what was set for each image (TR) is taken between them."""
    order = np.argsort(model.times, kind="stable")
    changes: dict[str, Any] = {"tau": tuple(times)}
    for f in fields(model):
        value = getattr(model, f.name)
        if f.name != "tau" and isinstance(value, tuple) and len(value) == model.n_images:
            changes[f.name] = tuple(np.interp(times, model.times[order], np.asarray(value, dtype=float)[order]))
    return replace(model, **changes)
