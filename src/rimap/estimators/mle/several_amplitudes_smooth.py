"""A smooth field of a model with several amplitudes (A·g(F, t, T) + C): what each voxel says about it, and the maps for
it.

For a given field F the amplitudes and T of a voxel are those of its maximum likelihood: from least squares with that F,
by Fisher scoring (`several_amplitudes.py`). The likelihood that is left has the derivative ∂L/∂F there (the others are
at their best), and the information I_FF − I_Fo I_oo⁻¹ I_oF, o the other parameters (Murphy & van der Vaart 2000,
doi:10.1080/01621459.2000.10474219). The solver of Eq. 2 needs no more. This is not compiled: a slice of 128 × 128 with
16 echoes takes about a minute on one core.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Progress
from rimap.estimators.mle.field_solver import solve
from rimap.estimators.mle.partitions import Partitions
from rimap.estimators.mle.several_amplitudes import Found, Problem, positive, seen_as
from rimap.estimators.mle.voxels import CHUNK, REACH, Fit, Voxels
from rimap.estimators.nlls.covariance import packed
from rimap.estimators.nlls.estimator import NLLS
from rimap.estimators.nlls.threads import field_threads
from rimap.likelihood import Gaussian, Noise, cramer_rao_covariance, fisher_information, gradient
from rimap.series import Status, WeightedSeries
from rimap.signals.base import Parameter, SignalModel

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeveralVoxels(Voxels):
    """Voxels of a model with several amplitudes, S (V, N) in units of σ.

    Parameters
    ----------
    series
        Them as a list, with what is known of each; without the field.
    field
        The name of the field.
    """

    series: WeightedSeries = field(kw_only=True)
    field: str = field(kw_only=True)

    @classmethod
    def of_series(
        cls,
        series: WeightedSeries,
        noise: Noise,
        voxels: NDArray[np.intp],
        unit: Array,
        name: str,
        pool: ThreadPoolExecutor,
    ) -> SeveralVoxels:
        """Take the voxels (V, flat indices) of a series, whose images are divided by `unit` (V)."""
        images = (series.images.reshape(len(series.images), -1)[:, voxels] / unit).astype(np.float32)
        known = {
            name: np.reshape(value, -1)[voxels] if np.ndim(value) else value for name, value in series.held.items()
        }
        one = type(noise)(sigma=np.ones(len(voxels)))
        some = WeightedSeries(images=images, model=series.model, noise=one, given=known)
        rician = not isinstance(noise, Gaussian)
        return cls(np.ascontiguousarray(images.T), (), (len(voxels),), rician, pool, series=some, field=name)

    @property
    def linear_in_field(self) -> bool:
        """Whether the signal is known to be linear in the field."""
        return False

    @property
    def least(self) -> Array:
        """(V) zero: `fit` counts from the least that the negative log-likelihood can be."""
        return np.zeros(len(self))

    @property
    def model(self) -> SignalModel:
        """Of the series."""
        return self.series.model

    def some(self, keep: NDArray[np.intp]) -> SeveralVoxels:
        """Return some of the voxels: `keep` has their indices (n,), ascending."""
        weight = None if self.weight is None else self.weight[keep]
        return replace(
            self, S=np.ascontiguousarray(self.S[keep]), stops=(len(keep),), weight=weight, series=self._at(keep)
        )

    def _at(self, keep: Any) -> WeightedSeries:
        given = {name: value[keep] if np.ndim(value) else value for name, value in self.series.given.items()}
        images = np.ascontiguousarray(self.series.images[:, keep])
        noise = type(self.series.noise)(sigma=np.ones(images.shape[1]))  # type: ignore[misc]
        return replace(self.series, images=images, given=given, noise=noise, mask=None)

    def fit(self, F: Array, near: Fit | None = None, search: bool = False, *, thorough: bool = False) -> Fit:
        """Return the best amplitudes and T for F (V): from those `near`, or from least squares, or the better of
        both.
        """
        parts = [slice(index, index + CHUNK) for index in range(0, len(self), CHUNK)]
        found = list(self.pool.map(lambda p: self._fit(F, near, search or thorough, p), parts))
        fit = Fit(*(np.concatenate(x) for x in zip(*found)))
        return fit if self.weight is None else fit.weighed(self.weight)

    def _fit(self, F: Array, near: Fit | None, search: bool, p: slice) -> tuple[Array, ...]:
        kappa, here = self.best(F, near, search, p)
        noise = here.noise
        assert noise is not None
        S = positive(np.asarray(here.images, float), noise)
        at, model = self.model.index(self.field), self.model
        along, w = self.along_field(noise, kappa)
        floor = np.minimum.reduce(
            [noise.nll(S, np.sqrt(np.maximum(S**2 - k, 0)) * np.sign(S)) for k in (0, 1, 2, np.inf)]
        )
        with np.errstate(invalid="ignore"):
            above = np.asarray(noise.nll(S, model.signal(kappa)) - floor)
        f = np.where(np.isfinite(above), above, 0.0).sum(0)
        g = np.asarray(gradient(model, noise, S, kappa))[at]
        T = kappa[model.time_index]
        return F[p], np.log(T), kappa[model.index(model.amplitudes[0].name)], f, g, w, along[model.time_index] / T

    def best(self, F: Array, near: Fit | None, search: bool, p: slice) -> tuple[Array, WeightedSeries]:
        """Return κ (Q, V) for F, amplitudes in units of σ, of the voxels of a slice, and those as a series."""
        here = self._at(p)
        bounds = self.model.parameters[self.model.index(self.field)].bounds
        here = replace(here, given={**here.given, self.field: np.clip(F[p], *bounds)})  # rounding is not outside
        model, noise, known = self.model, here.noise, here.held
        assert noise is not None
        free = [row for row, parameter in enumerate(model.parameters) if parameter.name not in known]
        problem = Problem(model, noise, positive(np.asarray(here.images, float), noise), free)
        starts = []
        if near is not None:
            ahead = np.clip(near.slope[p] * (F[p] - near.F[p]), -REACH, REACH)
            starts.append(_with_amplitudes(here, np.clip(np.exp(near.u[p] + ahead), *model.time.bounds)))
        if near is None or search:
            for images in seen_as(here, noise):
                found = NLLS(threads=1).piece(replace(here, images=images, noise=Gaussian(sigma=1.0)))
                usual = _with_amplitudes(here, np.full(len(F[p]), float(model.time.start or 1.0)))
                kappa = np.asarray(found.kappa, float)
                starts.append(np.where(np.isfinite(kappa).all(0), kappa, usual))
        best, least, _ = problem.descended(starts[0])
        for start in starts[1:]:
            other, nll, _ = problem.descended(start)
            best, least = np.where(nll < least, other, best), np.minimum(nll, least)
        return best, here

    def along_field(self, noise: Noise, kappa: Array) -> tuple[Array, Array]:
        """Return dκ/dF (Q, V) with the others at their best, and the information on F that is left (V)."""
        at, parameters = self.model.index(self.field), self.model.parameters
        others = [
            row for row, parameter in enumerate(parameters) if parameter.name not in self.series.held and row != at
        ]
        info = np.moveaxis(np.asarray(fisher_information(self.model, noise, kappa), float), -1, 0)
        inner, mixed = info[:, others][:, :, others], info[:, others, at].copy()
        for index, other in enumerate(others):  # what is at a bound does not follow
            low, high = parameters[other].bounds
            fixed = (kappa[other] <= low) | (kappa[other] >= high)
            inner[fixed, index, :] = inner[fixed, :, index] = mixed[fixed, index] = 0.0
        diagonal = np.einsum("vii->vi", inner)
        unit = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = inner / (unit[:, :, None] * unit[:, None, :]) + 1e-10 * np.eye(len(others))
        step = -np.linalg.solve(scaled, (mixed / unit)[:, :, None])[:, :, 0] / unit
        along = np.zeros_like(kappa)
        along[others], along[at] = step.T, 1.0
        return along, np.maximum(info[:, at, at] + (mixed * step).sum(1), 0.0)

    def kappa(self, fit: Fit) -> Array:
        """Return κ (Q, V) of a fit, amplitudes in units of σ."""
        parts = [slice(index, index + CHUNK) for index in range(0, len(self), CHUNK)]
        return np.concatenate([k for k, _ in self.pool.map(lambda p: self.best(fit.F, fit, False, p), parts)], axis=1)


def _with_amplitudes(series: WeightedSeries, T: Array) -> Array:
    """Return κ (Q, V) with the least-squares amplitudes for T and what is known, within their bounds."""
    model = series.model
    values = {name: np.broadcast_to(value, T.shape) for name, value in series.held.items()} | {model.time.name: T}
    g = np.moveaxis(np.asarray(model.columns(values), float), -1, 0)  # (V, N, K)
    gram = np.swapaxes(g, 1, 2) @ g
    gram += 1e-9 * np.einsum("vii->v", gram)[:, None, None] * np.eye(gram.shape[-1])
    found = np.linalg.solve(gram, np.einsum("vnk,nv->vk", g, series.images)[:, :, None])[:, :, 0].T
    values |= {amplitude.name: np.clip(x, *amplitude.bounds) for amplitude, x in zip(model.amplitudes, found)}
    return np.stack([values[parameter.name] for parameter in model.parameters])


def maximise_smooth(
    series: WeightedSeries, noise: Noise, status: NDArray[np.uint8], unknown: Parameter, lambda_B: float | None,
    threads: int | None, progress: Progress | None,
) -> tuple[Found, Array, float | None]:  # fmt: skip
    """Return what was found in the voxels (M) whose `status` is OK, the smooth field (M), and the λ_B that it was found
    with.
    """
    model, voxels = series.model, np.flatnonzero(status == Status.OK)
    Q, M, at = len(model.parameters), status.size, model.index(unknown.name)
    sigma = np.broadcast_to(np.asarray(noise.sigma, float), series.shape).reshape(M)[voxels]
    with field_threads(threads) as pool:
        data = SeveralVoxels.of_series(series, noise, voxels, sigma, unknown.name, pool)
        solution = solve(series, data, Partitions(voxels, np.arange(len(voxels)), []), unknown, lambda_B, progress)
        kappa = data.kappa(solution.fit)
        along, _ = data.along_field(type(noise)(sigma=1.0), kappa)
    for amplitude in model.amplitudes:
        kappa[model.index(amplitude.name)] *= sigma
        along[model.index(amplitude.name)] *= sigma
    own = cramer_rao_covariance(model, type(noise)(sigma=sigma), kappa, held={*series.held, unknown.name})
    own[at], own[:, at] = 0.0, 0.0
    out = Found(np.full((Q, M), np.nan), np.full((Q * (Q + 1) // 2, M), np.nan), np.full(M, np.nan), status.copy())
    out.kappa[:, voxels] = kappa
    covariance = packed(own + along[:, None] * along[None] * np.broadcast_to(solution.variance, len(voxels)))
    at_bound = Problem(
        model,
        noise,
        kappa,
        [row for row, parameter in enumerate(model.parameters) if parameter.name not in series.held],
    ).at_bound(kappa)
    covariance[:, at_bound] = np.nan
    out.covariance[:, voxels] = covariance
    S = series.images.reshape(len(series.images), M)[:, voxels]
    out.squares[voxels] = ((S - model.signal(kappa)) ** 2).sum(0)
    converged = np.broadcast_to(solution.converged, len(voxels))
    out.status[voxels[at_bound]] = Status.AT_BOUND
    out.status[voxels[~at_bound & ~converged]] = Status.NOT_CONVERGED
    assert solution.field is not None
    return out, solution.field.reshape(M), solution.lambda_B
