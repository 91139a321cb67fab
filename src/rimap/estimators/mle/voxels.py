"""The voxels of a series for a given B: their A and T at the best, and what they say about B."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.mle.profile import Table, information, profile_gaussian, search_T
from rimap.estimators.mle.rician import profile_rician
from rimap.likelihood import Noise, Rician
from rimap.signals.base import SignalModel

Array = NDArray[np.float64]

#: Voxels that a thread takes at a time.
CHUNK = 4096
#: How far the prediction of u from the last B is followed.
_REACH = 0.5
#: How many changes of polarity to either side a search looks past; without a search it is one.
HOPS = 4
#: Grid on which the information of one value is tabulated, f/σ.
_SNR = np.linspace(0.0, 12.0, 601)


@dataclass(frozen=True, eq=False)
class Fit:
    """The best of every voxel (V) for some B.

    Parameters
    ----------
    B, u, A
        B, log T and A (in units of σ).
    f, g, w
        Negative log-likelihood (without constants), its first and second derivative in B with A and T following.
    slope
        du/dB.
    """

    B: Array
    u: Array
    A: Array
    f: Array
    g: Array
    w: Array
    slope: Array

    @property
    def total(self) -> float:
        """Σ f."""
        return float(self.f.sum())

    def where(self, mine: NDArray[np.bool_], other: Fit) -> Fit:
        """Return the fit that is this one where `mine`, else `other`."""
        return Fit(*(np.where(mine, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels with data.

    Parameters
    ----------
    S
        (V, N) float32, in units of σ.
    table
        Of the signal model.
    rician
        Which likelihood.
    pool
        The threads.
    """

    S: NDArray[np.float32]
    table: Table
    rician: bool
    pool: ThreadPoolExecutor

    @classmethod
    def of(
        cls, images: NDArray[Any], voxels: NDArray[np.intp], sigma: Any, model: SignalModel, noise: Noise,
        pool: ThreadPoolExecutor,
    ) -> Voxels:  # fmt: skip
        """Take the voxels (V, flat indices) of the images (N, *X); sigma is a number or (V)."""
        flat = images.reshape(len(images), -1)
        S = np.empty((len(voxels), len(images)), np.float32)

        def take(part: slice) -> None:
            unit = sigma if np.ndim(sigma) == 0 else sigma[part]
            S[part] = (flat[:, voxels[part]] / unit).T

        list(pool.map(take, _parts(len(voxels))))
        return cls(S, Table.of(model), isinstance(noise, Rician), pool)

    def __len__(self) -> int:
        return len(self.S)

    def subset(self, keep: Any) -> Voxels:
        """Return some of the voxels."""
        return Voxels(np.ascontiguousarray(self.S[keep]), self.table, self.rician, self.pool)

    def fit(self, B: Array, near: Fit | None = None, search: bool = False) -> Fit:
        """Return the best A and T for B (V): from those `near`, or searched over all T, or the better of both."""
        table, V = self.table, len(self)
        u0, du = float(table.u[0]), float(table.u[1] - table.u[0])
        B = np.ascontiguousarray(B, dtype=np.float64)
        found, u, A, f, g, w, slope = np.zeros((7, V))  # one block: given back whole when a fit is dropped
        if near is not None:
            u[:] = np.clip(near.u + np.clip(near.slope * (B - near.B), -_REACH, _REACH), u0, table.u[-1])
            A[:] = near.A

        def work(p: slice) -> None:
            S = self.S[p]
            if search or near is None:
                search_T(S, B[p], table.phi, table.gram, table.magnitude, u0, du, found[p])
            other = search and near is not None
            hops = HOPS if search else 1
            out = (u[p], A[p], f[p], g[p], w[p], slope[p])
            if near is None:
                u[p] = found[p]
            if self.rician:
                if near is None:  # from the least squares
                    profile_gaussian(S, B[p], table.values, table.magnitude, u0, du, found[p], False, 1, *out)
                profile_rician(S, B[p], table.values, u0, du, found[p], other, *out)
            else:
                profile_gaussian(S, B[p], table.values, table.magnitude, u0, du, found[p], other, hops, *out)

        list(self.pool.map(work, _parts(V)))
        return Fit(B, u, A, f, g, w, slope)

    def information(self, fit: Fit, noise: Noise) -> Array:
        """Return (V, 6): variance of A and u when B is known, dA/dB, du/dB, information on B, Σ(s − f)²."""
        table = self.table
        info = np.ascontiguousarray(type(noise)(sigma=1.0).information(_SNR), dtype=np.float64)
        out = np.empty((len(self), 6))

        def work(p: slice) -> None:
            information(
                self.S[p], fit.B[p], table.values, table.magnitude, float(table.u[0]), float(table.u[1] - table.u[0]),
                _SNR[1], info, fit.u[p], fit.A[p], out[p],
            )  # fmt: skip

        list(self.pool.map(work, _parts(len(self))))
        return out

    def best_constant(self, bounds: tuple[float, float], *, sample: int | None = None, tolerance: float = 0.05) -> Fit:
        """Return the fit with the one B, between `bounds`, that is best for all voxels (or for a `sample` of them)."""
        few = self._sample(1000)
        lo, hi = bounds
        grid = np.linspace(lo, hi, 25)
        centre = grid[int(np.argmin([few.fit(np.full(len(few), b)).total for b in grid]))]
        step = grid[1] - grid[0]
        own = few if sample is not None and sample < len(self) else self
        grid = np.clip(np.linspace(centre - step, centre + step, 5), lo, hi)
        b = float(grid[int(np.argmin([few.fit(np.full(len(few), x)).total for x in grid]))])
        fit = own.fit(np.full(len(own), b))
        searched = False
        for _ in range(40):
            g, w = float(fit.g.sum()), max(float(fit.w.sum()), 1e-3 * float(np.abs(fit.w).sum()) + 1e-12)
            move = float(np.clip(b - g / w, lo, hi)) - b
            trial, t = fit, 1.0
            while t > 1e-3:
                trial = own.fit(np.full(len(own), b + t * move), fit)
                if trial.total < fit.total:
                    break
                t *= 0.4
            gain = fit.total - trial.total
            if gain > 0:
                b, fit, searched = b + t * move, trial, False
            if gain < tolerance:
                if searched:
                    break
                before = fit.total
                fit, searched = own.fit(fit.B, fit, True), True
                if before - fit.total < tolerance:
                    break
        return fit

    def _sample(self, n: int) -> Voxels:
        if len(self) <= n:
            return self
        power = np.einsum("vn,vn->v", self.S, self.S)
        strong = np.flatnonzero(power >= np.median(power))
        return self.subset(strong[:: max(1, len(strong) // n)])


def _parts(n: int) -> list[slice]:
    return [slice(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK)]
