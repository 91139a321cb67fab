"""Bounded least squares for a signal model of any form: many starts, Levenberg-Marquardt over all voxels at once.

The slow road: `NLLS` takes it for a model that gives no `basis`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.likelihood import Gaussian, cramer_rao_sd
from rimap.series import Status
from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]

CHUNK = 4096
_STARTS, _BEST, _ITERATIONS = 96, 6, 60


def fit_block(model: SignalModel, S: Floats) -> tuple[Floats, Floats, Floats, NDArray[np.uint8]]:
    """Fit finite images S (N, M), each voxel with a largest modulus of 1.

    Returns
    -------
    κ (Q, M), standard deviations for σ = 1 (Q, M), residual sums of squares (M) and status (M).
    """
    starts = _starts(model, S)
    cost = np.stack([_cost(model, S, k) for k in starts])
    best, best_cost = starts[0], np.full(S.shape[1], np.inf)
    for i in np.argsort(cost, axis=0)[:_BEST]:
        kappa, rss = _descend(model, S, np.take_along_axis(starts, i[None, None], 0)[0])
        better = rss < best_cost
        best, best_cost = np.where(better, kappa, best), np.where(better, rss, best_cost)
    lo, hi = _box(model, best)
    at = ((best <= lo + 1e-9 * abs(lo)) & np.isfinite(lo)) | ((best >= hi * (1 - 1e-9)) & np.isfinite(hi))
    bound = at.any(0)
    with np.errstate(all="ignore"):
        sd = np.where(bound, np.nan, cramer_rao_sd(model, Gaussian(sigma=1.0), best))
    return best, sd, best_cost, np.where(bound, Status.AT_BOUND, Status.OK).astype(np.uint8)


def _box(model: SignalModel, like: Floats) -> tuple[Floats, Floats]:
    shape = (-1,) + (1,) * (like.ndim - 1)
    lo, hi = (np.array([p.bounds[i] for p in model.parameters]).reshape(shape) for i in (0, 1))
    return lo, hi


def _starts(model: SignalModel, S: Floats) -> Floats:
    """Return starting maps (n, Q, M): the initial guess, and a low-discrepancy cover of the box around it."""
    guess = np.asarray(model.initial_guess(S), dtype=float)
    Q = len(guess)
    root = np.array([0.5 + (i * (5**0.5 - 1) / 2) for i in range(_STARTS)])
    ratios = np.sqrt([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0])[:Q]
    unit = (np.arange(1, _STARTS)[:, None] * ratios + root[0]) % 1.0
    starts = [guess]
    for u in unit:
        kappa = guess.copy()
        for q, p in enumerate(model.parameters):
            b0, b1 = p.bounds
            if np.isfinite(b0 + b1):
                kappa[q] = b0 * (b1 / b0) ** u[q] if b0 > 0 and b1 / b0 > 20 else b0 + (b1 - b0) * u[q]
        starts.append(_scaled(model, S, kappa))
    lo, hi = _box(model, guess)
    return np.asarray(np.clip(np.stack(starts), lo, hi))


def _scaled(model: SignalModel, S: Floats, kappa: Floats) -> Floats:
    """Scale the first parameter to the images where it is an amplitude without an upper bound."""
    if np.isfinite(model.parameters[0].bounds[1]):
        return kappa
    f = np.asarray(model.signal(kappa), dtype=float)
    with np.errstate(all="ignore"):
        factor = np.nan_to_num((S * f).sum(0) / (f * f).sum(0), nan=1.0, posinf=1.0, neginf=1.0)
    scaled = kappa.copy()
    scaled[0] *= np.clip(factor, 0, 1e6)
    return scaled


def _cost(model: SignalModel, S: Floats, kappa: Floats) -> Floats:
    rss = ((S - np.asarray(model.signal(kappa), dtype=float)) ** 2).sum(0)
    return np.where(np.isfinite(rss), rss, np.inf)


def _descend(model: SignalModel, S: Floats, kappa: Floats) -> tuple[Floats, Floats]:
    """Return κ (Q, M) and its cost after projected Levenberg-Marquardt steps."""
    lo, hi = _box(model, kappa)
    cost = _cost(model, S, kappa)
    damping = np.full(S.shape[1], 1e-3)
    eye: Any = np.eye(len(kappa))
    for _ in range(_ITERATIONS):
        J = np.nan_to_num(np.asarray(model.partials(kappa), dtype=float))
        r = S - np.asarray(model.signal(kappa), dtype=float)
        g = (J * r[:, None]).sum(0)
        free = ~(((kappa <= lo) & (g < 0)) | ((kappa >= hi) & (g > 0)))
        J = J * free[None]
        H = np.einsum("nqm,npm->mqp", J, J)
        d = np.sqrt(np.einsum("mqq->mq", H))
        d = np.where(d > 0, d, 1.0)
        H = H / (d[:, :, None] * d[:, None, :]) + damping[:, None, None] * eye + 1e-14 * eye
        step = (np.linalg.solve(H, ((g * free).T / d)[..., None])[..., 0] / d).T
        trial = np.clip(kappa + step, lo, hi)
        trial_cost = _cost(model, S, trial)
        better = trial_cost < cost
        done = bool(np.all(cost - np.where(better, trial_cost, cost) <= 1e-14 * cost) and np.all(damping > 1e3))
        kappa, cost = np.where(better, trial, kappa), np.where(better, trial_cost, cost)
        damping = np.clip(np.where(better, damping * 0.2, damping * 5), 1e-12, 1e8)
        if done:
            break
    return kappa, cost
