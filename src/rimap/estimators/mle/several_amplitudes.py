"""Maximum likelihood in every voxel by itself, for models with several amplitudes (A·exp(−t/T2*) + C): Fisher scoring.

κ ← κ − (I(κ) + damping)⁻¹ ∇L(κ) with the Fisher information I (Osborne 1992, doi:10.2307/1403503), in (amplitudes,
field, log T), from the least squares of the images and from those of √(S² − 2σ²), in which a magnitude has no noise
floor: where that is high, the first may lead to a worse optimum.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.nlls.covariance import packed
from rimap.estimators.nlls.estimator import NLLS
from rimap.likelihood import Gaussian, Noise, cramer_rao_covariance, fisher_information, gradient
from rimap.processors import cores
from rimap.series import Status, WeightedSeries
from rimap.signals.base import SignalModel

Array = NDArray[np.float64]

#: Voxels that are estimated together.
CHUNK = 8_192
#: Steps that are taken at most, and the gain in log-likelihood from which on another one is worth it.
MOST_STEPS, LEAST_GAIN = 60, 1e-7
#: The damping of a step, relative to the diagonal of the information: at first, and at most.
DAMPING, LARGEST_DAMPING = 1e-3, 1e8
#: What a magnitude of zero or less counts as, in units of σ.
LEAST_MAGNITUDE = 1e-12


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in all voxels (M): κ (Q, M), its covariance (Q (Q + 1)/2, M) row by row, Σ(S − f)² (M), and status
    (M).
    """

    kappa: Array
    covariance: Array
    squares: Array
    status: NDArray[np.uint8]


def maximise(series: WeightedSeries, noise: Noise, status: NDArray[np.uint8], least_squares: NLLS) -> Found:
    """Return the maximum of the likelihood in each voxel whose `status` (M) is OK.

    Parameters
    ----------
    least_squares
        That finds where to begin, with parameters that are known and bounds.
    """
    model, held = series.model, {**series.held, **least_squares.fixed}
    Q, M = len(model.parameters), status.size
    free = [row for row, parameter in enumerate(model.parameters) if parameter.name not in held]
    images = series.images.reshape(model.n_images, M)
    sigma = np.broadcast_to(np.asarray(noise.sigma, float), series.shape).reshape(M)
    out = Found(np.full((Q, M), np.nan), np.full((Q * (Q + 1) // 2, M), np.nan), np.full(M, np.nan), status.copy())
    starts = [_from(series, least_squares, S).reshape(Q, M) for S in seen_as(series, noise)]
    voxels = np.flatnonzero((status == Status.OK) & np.isfinite(starts[0]).all(0))
    out.status[np.setdiff1d(np.flatnonzero(status == Status.OK), voxels)] = Status.NO_SIGNAL

    def of_some(at: NDArray[np.intp]) -> None:
        S, of_noise = images[:, at].astype(float), type(noise)(sigma=sigma[at])
        problem = Problem(model, of_noise, positive(S, of_noise), free)
        best, least, converged = problem.descended(starts[0][:, at])
        for start in starts[1:]:
            known = np.isfinite(start[:, at]).all(0)
            other, nll, good = problem.descended(np.where(known, start[:, at], starts[0][:, at]))
            better = nll < least
            best, least = np.where(better, other, best), np.where(better, nll, least)
            converged = np.where(better, good, converged)
        out.kappa[:, at] = best
        out.squares[at] = ((S - model.signal(best)) ** 2).sum(0)
        at_bound = problem.at_bound(best)
        covariance = packed(cramer_rao_covariance(model, of_noise, best, held=held))
        covariance[:, at_bound] = np.nan
        out.covariance[:, at] = covariance
        out.status[at[at_bound]] = Status.AT_BOUND
        out.status[at[~at_bound & ~converged]] = Status.NOT_CONVERGED

    with ThreadPoolExecutor(least_squares.threads or cores()) as pool:
        list(pool.map(of_some, (voxels[index : index + CHUNK] for index in range(0, len(voxels), CHUNK))))
    return out


def seen_as(series: WeightedSeries, noise: Noise) -> Iterator[NDArray[Any]]:
    """Yield the images whose least squares are starts: as they are, and without the noise floor if they have one."""
    yield series.images
    if not isinstance(noise, Gaussian):
        power = np.square(series.images, dtype=float) - 2 * np.square(np.asarray(noise.sigma, float))
        yield np.sqrt(np.maximum(power, 0)).astype(series.images.dtype)


def positive(S: Array, noise: Noise) -> Array:
    """Return images (N, V) for the likelihood: magnitudes are positive, so that zero (whole numbers) has a density.

    The smallest positive number has the same differences in −log p, and the same score, as the limit of S → 0.
    """
    return S if isinstance(noise, Gaussian) else np.maximum(S, LEAST_MAGNITUDE * np.asarray(noise.sigma))


def _from(series: WeightedSeries, least_squares: NLLS, images: NDArray[Any]) -> Array:
    """Return κ (Q, *X) of least squares."""
    seen = replace(series, images=images, noise=Gaussian(sigma=1.0))
    return np.asarray(least_squares.piece(seen).kappa, float)


@dataclass(frozen=True, eq=False)
class Problem:
    """The likelihood of some voxels: their images S (N, V; `positive`), and which parameters are free."""

    model: SignalModel
    noise: Noise
    S: Array
    free: list[int]

    def _nll(self, kappa: Array) -> Array:
        with np.errstate(all="ignore"):
            nll = self.noise.nll(self.S, self.model.signal(kappa))
        return np.asarray(np.where(np.isfinite(nll), nll, np.inf).sum(0))

    def _unit(self, kappa: Array) -> Array:
        """Return ∂κ/∂(coordinate) of the free parameters (P, V): T moves as log T."""
        times = self.model.time_index
        return np.stack([kappa[row] if row == times else np.ones(kappa.shape[1]) for row in self.free])

    def _information(self, kappa: Array) -> Array:
        """Return the Fisher information of the free coordinates (V, P, P)."""
        unit = self._unit(kappa)
        F = np.asarray(fisher_information(self.model, self.noise, kappa), float)[np.ix_(self.free, self.free)]
        return np.moveaxis(F * unit[:, None] * unit[None], -1, 0)

    def descended(self, kappa: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return where scoring leads from κ (Q, V), −log p there (V), and whether it has converged (V)."""
        kappa = kappa.copy()
        lows, highs = (np.array([self.model.parameters[row].bounds[i] for row in self.free])[:, None] for i in (0, 1))
        nll, damping = self._nll(kappa), np.full(kappa.shape[1], DAMPING)
        going = np.ones(kappa.shape[1], bool)
        for _ in range(MOST_STEPS):
            at = np.flatnonzero(going)
            if not len(at):
                break
            some = Problem(
                self.model, type(self.noise)(sigma=np.asarray(self.noise.sigma)[at]), self.S[:, at], self.free
            )
            here = kappa[:, at]
            unit = some._unit(here)
            g = np.asarray(gradient(self.model, some.noise, some.S, here), float)[self.free] * unit
            values = here[self.free]
            held = ((values <= lows) & (g > 0)) | ((values >= highs) & (g < 0))
            step = _steps(some._information(here), g, damping[at], held)
            times = np.array([row == self.model.time_index for row in self.free])[:, None]
            moved = np.where(times, values * np.exp(np.clip(step, -1, 1)), values + step)
            new = here.copy()
            new[self.free] = np.clip(moved, lows, highs)
            found = some._nll(new)
            gain = nll[at] - found
            better = gain > 0
            kappa[:, at[better]], nll[at[better]] = new[:, better], found[better]
            damping[at] = np.where(better, np.maximum(0.1 * damping[at], 1e-12), 10 * np.maximum(damping[at], DAMPING))
            small = np.abs(gain) < LEAST_GAIN
            going[at] = ~(small | (damping[at] > LARGEST_DAMPING))
        return kappa, nll, ~going

    def at_bound(self, kappa: Array) -> NDArray[np.bool_]:
        """Return which voxels (V,) of κ (Q, V) have a parameter at one of its bounds."""
        ends = [(kappa[row], self.model.parameters[row].bounds) for row in self.free]
        near = [(x <= low + 1e-9 * abs(low)) | (x >= high - 1e-9 * abs(high)) for x, (low, high) in ends]
        return np.asarray(np.logical_or.reduce(near))


def _steps(F: Array, g: Array, damping: Array, held: NDArray[np.bool_]) -> Array:
    """Return −(F + damping · diag F)⁻¹ g (P, V); what is `held` (P, V) at a bound does not move."""
    P = len(g)
    F = F.copy()
    diagonal = np.einsum("vii->vi", F)
    F[:, np.arange(P), np.arange(P)] += damping[:, None] * diagonal + 1e-300
    free = ~held.T
    F *= free[:, :, None] & free[:, None, :]
    F[:, np.arange(P), np.arange(P)] += held.T
    d = np.sqrt(np.maximum(np.einsum("vii->vi", F), 1e-300))
    scaled = F / (d[:, :, None] * d[:, None, :]) + 1e-12 * np.eye(P)
    right = (-(g.T) * free / d)[:, :, None]
    return np.asarray((np.linalg.solve(scaled, right)[:, :, 0] / d).T)
