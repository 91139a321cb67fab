"""The voxels of a series for a given field: their A and T at the best, and what they say about the field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_least
from rimap.estimators.mle.information import N_COLUMNS, information
from rimap.estimators.mle.profile import Extra, Found, Shape, highest_u, profile_gaussian, search_rival, search_u
from rimap.estimators.table import ShapeTable
from rimap.likelihood import Noise, Rician

Array = NDArray[np.float64]

#: Voxels that a thread takes at a time.
CHUNK = 4096
#: How far the prediction of u from the last field is followed.
REACH = 0.5
#: How many changes of polarity to either side a search looks past; without a search it is one.
HOPS = 4
#: Minima over one F that are refined: those whose log-likelihood on the grid is within this share of the lowest (of the
#: median).
RIVAL = 0.1
#: Minima whose log-likelihoods differ by less are equally likely.
EQUAL = 1.0
#: How many voxels determine where the one value is that is best for all.
SAMPLE = 500
#: The most that one voxel may say against one value for all: so many times (1 and) what is usual, in units of the
#: log-likelihood.
CAP = 10.0
#: Grid on which the information of one value is tabulated, f/σ.
SNR_GRID = np.linspace(0.0, 12.0, 601)


@dataclass(frozen=True, eq=False)
class Fit:
    """The best of every voxel (V) for some field.

    Parameters
    ----------
    F, u, A
        The field, log T and A (in units of σ).
    f, g, w
        Negative log-likelihood (without constants), its first and second derivative in F with A and T following.
    slope
        du/dF.
    """

    F: Array
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
        """Return the values of this fit in the voxels `mine` (V,), and those of `other` elsewhere."""
        return Fit(*(np.where(mine, getattr(self, field.name), getattr(other, field.name)) for field in fields(self)))

    def of(self, keep: NDArray[np.intp]) -> Fit:
        """Return the fit of some voxels: `keep` has their indices (n,)."""
        return Fit(*(getattr(self, field.name)[keep] for field in fields(self)))

    def among(self, mine: NDArray[np.intp], other: Fit, theirs: NDArray[np.intp]) -> Fit:
        """Return the fit of all voxels: this is that of the voxels with indices `mine`, `other` that of `theirs`."""
        whole = np.empty((len(fields(self)), len(mine) + len(theirs)))
        for row, field in zip(whole, fields(self)):
            row[mine], row[theirs] = getattr(self, field.name), getattr(other, field.name)
        return Fit(*whole)

    def weighed(self, weight: Array) -> Fit:
        """Return the fit with the likelihood of each voxel times its weight (V)."""
        return replace(self, f=self.f * weight, g=self.g * weight, w=self.w * weight)


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels with data.

    Parameters
    ----------
    S
        (V, N) float32, in units of σ.
    shapes
        The table of each partition: of the voxels that have the same known values of further parameters.
    stops
        Where each partition ends among the voxels.
    rician
        Which likelihood.
    pool
        The threads.
    weight
        (V) with which the likelihood of each voxel counts; 1 if left out.
    """

    S: NDArray[np.float32]
    shapes: tuple[Shape, ...]
    stops: tuple[int, ...]
    rician: bool
    pool: ThreadPoolExecutor
    weight: Array | None = None

    @classmethod
    def of(
        cls,
        images: NDArray[Any],
        voxels: NDArray[np.intp],
        sigma: Array,
        tables: ShapeTable | Sequence[tuple[ShapeTable, int]],
        noise: Noise,
        pool: ThreadPoolExecutor,
    ) -> Voxels:
        """Take the voxels (V, flat indices) of the images (N, *X).

        Parameters
        ----------
        sigma
            A number or (V).
        tables
            One table for all voxels, or (table, number of voxels) for one partition after the other.
        """
        flat = images.reshape(len(images), -1)
        S = np.empty((len(voxels), len(images)), np.float32)

        def take(part: slice) -> None:
            unit = sigma if np.ndim(sigma) == 0 else sigma[part]
            S[part] = (flat[:, voxels[part]] / unit).T

        list(pool.map(take, _slices(0, len(voxels))))
        parts = [(tables, len(voxels))] if isinstance(tables, ShapeTable) else list(tables)
        stops = np.cumsum([count for _, count in parts])
        shapes = tuple(Shape.of(table) for table, _ in parts)
        return cls(S, shapes, tuple(int(stop) for stop in stops), isinstance(noise, Rician), pool)

    def __len__(self) -> int:
        return len(self.S)

    @property
    def linear_in_field(self) -> bool:
        """Whether the signal is linear in the field."""
        return len(self.shapes[0].powers) < 3

    @property
    def least(self) -> Array:
        """The least that the negative log-likelihood of each voxel (V) can be, with a signal for each of its data."""
        out = np.zeros(len(self))
        if self.rician:
            from rimap.estimators.mle.rician import least_rician  # slow to import, and most noise is Gaussian

            self._share(lambda shape, p: least_rician(self.S[p], out[p]))
        return out

    def some(self, keep: NDArray[np.intp]) -> Voxels:
        """Return some of the voxels: `keep` has their indices (n,), ascending."""
        stops = tuple(int(n) for n in np.searchsorted(keep, self.stops))
        weight = None if self.weight is None else self.weight[keep]
        return replace(self, S=np.ascontiguousarray(self.S[keep]), stops=stops, weight=weight)

    def weighed(self, weight: Array) -> Voxels:
        """Return the voxels with other weights (V)."""
        return replace(self, weight=None if (weight == 1).all() else weight)

    def fit(self, F: Array, near: Fit | None = None, search: bool = False, *, thorough: bool = False) -> Fit:
        """Return the best A and T for F (V): from those `near`, or searched over all T, or the better of both.

        A `thorough` search looks into the second-best valley too, and in noise into many.
        """
        V = len(self)
        low, top = self.shapes[0].low_u, highest_u(self.shapes[0])
        F = np.ascontiguousarray(F, dtype=np.float64)
        other_u, rival_u, u, A, f, g, w, slope = np.zeros((8, V))  # one block: given back whole when a fit is dropped
        if near is not None:
            u[:] = np.clip(near.u + np.clip(near.slope * (F - near.F), -REACH, REACH), low, top)
            A[:] = near.A
        if self.rician:
            from rimap.estimators.mle.rician import profile_rician  # slow to import, and most noise is Gaussian
        use_other = search and near is not None
        hops = HOPS if search else 1

        def work(shape: Shape, p: slice) -> None:
            S = self.S[p]
            if search or near is None:
                search_u(S, F[p], shape, other_u[p])
            if thorough:
                search_rival(S, F[p], shape, other_u[p], rival_u[p])
            found = Found(u[p], A[p], f[p], g[p], w[p], slope[p])
            if near is None:
                u[p] = other_u[p]
            if self.rician:
                if near is None:  # from the least squares
                    profile_gaussian(S, F[p], shape, Extra(other_u[p], rival_u[p], False, False, 1), found)
                profile_rician(S, F[p], shape, Extra(other_u[p], rival_u[p], use_other, thorough, hops), found)
            else:
                profile_gaussian(S, F[p], shape, Extra(other_u[p], rival_u[p], use_other, thorough, hops), found)

        self._share(work)
        fit = Fit(F, u, A, f, g, w, slope)
        return fit if self.weight is None else fit.weighed(self.weight)

    def kappa(self, fit: Fit) -> Array:
        """Return κ (Q, V) of a fit; for a model with several amplitudes, which a `Fit` does not have."""
        raise NotImplementedError

    def information(self, fit: Fit, noise: Noise) -> Array:
        """Return the columns of `information`, (V, `N_COLUMNS`), for σ = 1."""
        info = np.ascontiguousarray(type(noise)(sigma=1.0).information(SNR_GRID), dtype=np.float64)
        out = np.empty((len(self), N_COLUMNS))
        step = float(SNR_GRID[1])

        def work(shape: Shape, p: slice) -> None:
            information(self.S[p], shape, step, info, fit.F[p], fit.u[p], fit.A[p], out[p])

        self._share(work)
        return out

    def _share(self, work: Callable[[Shape, slice], None]) -> None:
        """Do the work on chunks of voxels that share a table."""
        starts = (0, *self.stops[:-1])
        parts = [
            (shape, slice_)
            for shape, start, stop in zip(self.shapes, starts, self.stops)
            for slice_ in _slices(start, stop)
        ]
        list(self.pool.map(work, [s for s, _ in parts], [p for _, p in parts]))

    def best_constant(
        self,
        bounds: tuple[float, float],
        *,
        sample: bool = False,
        tolerance: float = 0.05,
        preferred: float | None = None,
    ) -> Fit:
        """Return the fit with the one F, between `bounds`, that is best for all voxels or for a sample of them.

        Parameters
        ----------
        preferred
            Which of several minima it is, if they are equally likely: the nearest to this.
        """
        few = self._sample(SAMPLE)
        low, high = bounds
        grid = np.linspace(low, high, 25)
        costs = np.stack([few.fit(np.full(len(few), b)).f for b in grid])
        costs -= costs.min(0)  # what a voxel has against a value, and not against the model
        cap = CAP * (1 + float(np.median(costs)))
        totals = np.minimum(costs, cap).sum(1)
        few = few.weighed(np.sqrt(np.minimum(1.0, cap / np.maximum(costs[int(np.argmin(totals))], 1e-12))))
        padded = np.concatenate([[np.inf], totals, [np.inf]])
        close = totals < totals.min() + RIVAL * (np.median(totals) - totals.min()) + EQUAL
        minima = np.flatnonzero((totals <= padded[:-2]) & (totals < padded[2:]) & close)
        step = grid[1] - grid[0]
        found = [few._constant_near(float(grid[i]), step, bounds, tolerance) for i in minima]
        least = min(fit.total for fit in found)
        near = [fit for fit in found if fit.total < least + EQUAL]
        best = near[0] if preferred is None else min(near, key=lambda fit: abs(float(fit.F[0]) - preferred))
        if sample:
            return best
        return self.constant_from(float(best.F[0]), bounds, None, tolerance)

    def _constant_near(self, centre: float, step: float, bounds: tuple[float, float], tolerance: float) -> Fit:
        """Return the fit with the best one F within `step` of `centre`, and where that leads."""
        low, high = bounds
        finer = np.clip(np.linspace(centre - step, centre + step, 5), low, high)
        totals = [self.fit(np.full(len(self), F)).total for F in finer]
        return self.constant_from(float(finer[int(np.argmin(totals))]), bounds, None, tolerance)

    def constant_from(
        self, start: float, bounds: tuple[float, float], near: Fit | None, tolerance: float = 0.05
    ) -> Fit:
        """Return the fit with one F where Newton's method ends, from one F and from a fit that is near it, if there is
        one.
        """
        low, high = bounds
        b, searched = start, False
        fit = self.fit(np.full(len(self), b), near)
        for _ in range(40):
            g, w = float(fit.g.sum()), max(float(fit.w.sum()), 1e-3 * float(np.abs(fit.w).sum()) + 1e-12)
            move = float(np.clip(b - g / w, low, high)) - b
            trial, t = fit, 1.0
            while t > 1e-3:
                trial = self.fit(np.full(len(self), b + t * move), fit)
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
                fit, searched = self.fit(fit.F, fit, True), True
                if before - fit.total < tolerance:
                    break
        return fit

    def _sample(self, n: int) -> Voxels:
        if len(self) <= n:
            return self
        power = np.einsum("vn,vn->v", self.S, self.S)
        strong = np.flatnonzero(power >= np.median(power))
        return self.some(at_least(strong, n))


def _slices(start: int, stop: int) -> list[slice]:
    return [slice(index, min(index + CHUNK, stop)) for index in range(start, stop, CHUNK)]
