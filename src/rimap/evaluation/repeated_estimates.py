"""Repeated estimates of the same voxels, kept as sums: made in pieces, put together later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Estimator
from rimap.likelihood import Noise
from rimap.signals.base import SignalModel
from rimap.simulation.subjects import simulate_series


@dataclass(frozen=True, eq=False)
class Repeats:
    """Number, mean and sum of squares about the mean of repeated estimates.

    Parameters
    ----------
    n
        C.
    mean, m2
        (Q, M); NaN where one of the estimates is.
    nan
        (M), how many of the estimates are NaN.

    Examples
    --------
    >>> r = Repeats.of(np.array([[[90.0]], [[110.0]]]))
    >>> r.cv.round(2), r.bias(np.array([[80.0]]))
    (array([[14.14]]), array([[25.]]))
    """

    n: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    nan: NDArray[np.float64]

    @classmethod
    def of(cls, estimates: NDArray[Any]) -> Repeats:
        """Return those of estimates (C, Q, M)."""
        e = np.asarray(estimates, float)
        mean = e.mean(0)
        return cls(len(e), mean, ((e - mean) ** 2).sum(0), (~np.isfinite(e)).any(1).sum(0).astype(float))

    @classmethod
    def merge(cls, pieces: Iterable[Repeats]) -> Repeats:
        """Return all pieces as one.

        Raises
        ------
        ValueError
            If there is no piece.
        """
        total: Repeats | None = None
        for piece in pieces:
            if total is None:
                total = piece
                continue
            n, d = total.n + piece.n, piece.mean - total.mean
            total = cls(
                n,
                total.mean + d * (piece.n / n),
                total.m2 + piece.m2 + d**2 * (total.n * piece.n / n),
                total.nan + piece.nan,
            )
        if total is None:
            raise ValueError("no pieces")
        return total

    @property
    def cv(self) -> NDArray[np.float64]:
        """Coefficient of variation (Q, M), % (Eq. 8)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return (
                np.asarray(np.sqrt(self.m2 / (self.n - 1)) / abs(self.mean) * 100) if self.n > 1 else self.m2 * np.nan
            )

    def bias(self, truth: NDArray[Any]) -> NDArray[np.float64]:
        """Return the relative bias (Q, M), % (Eq. 7)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.mean - truth) / truth * 100)

    def rmse(self, truth: NDArray[Any]) -> NDArray[np.float64]:
        """Return the relative root mean square error (Q, M), %."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(self.m2 / self.n + (self.mean - truth) ** 2) / abs(truth) * 100)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return it as arrays for a file."""
        return {
            "n": np.array(self.n),
            "mean": self.mean.astype(np.float32),
            "m2": self.m2.astype(np.float32),
            "nan": self.nan.astype(np.uint16),
        }

    @classmethod
    def from_arrays(cls, a: Mapping[str, NDArray[Any]]) -> Repeats:
        """Return the repeats that `arrays` has turned into arrays by name."""
        return cls(int(a["n"]), a["mean"].astype(float), a["m2"].astype(float), a["nan"].astype(float))


def repeat(
    estimator: Estimator,
    kappa: NDArray[Any],
    model: SignalModel,
    noise: Noise,
    mask: NDArray[np.bool_],
    draws: Iterable[int],
    key: tuple[int, ...],
    *,
    assumed: Noise | None = None,
) -> Repeats:
    """Return the repeated estimates of one truth inside the mask.

    Parameters
    ----------
    kappa
        Truth (Q, *X).
    draws, key
        Draw c has the noise of the generator of (*key, c): the same for every estimator.
    assumed
        The noise that the estimator assumes, if it differs from the truth.
    """
    maps = []
    for draw in draws:
        series = simulate_series(kappa, model, noise, np.random.default_rng([*key, draw]), mask=mask)
        series = series if assumed is None else series.with_noise(assumed)
        maps.append(estimator.estimate(series).kappa[:, mask])
    return Repeats.of(np.stack(maps))
