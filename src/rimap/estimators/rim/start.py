"""Where the iterations of a RIM begin: the constants of §4.4.4, or maximum likelihood with a smooth B.

The smooth B is found in two passes. Coarse, on quietened images: for each B of a grid, the misfit of some voxels at
their own best A and T is one matrix product, and their sum tells one B for the image. Fine: some Gauss-Newton steps
in which A and T are the voxel's own and B is shared by a neighbourhood; only voxels that determine B by themselves to
about `OWN_SD` speak there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, floating, is_torch, namespace
from rimap.estimators.rim.data_term import Sums
from rimap.estimators.rim.neighbours import convolved, gaussian_sum
from rimap.signals.base import SignalModel

GRID_B = tuple(1.0 + 0.1 * i for i in range(14))  # to 2.3
N_T = 48
WIDTH = 5.0  # pixels, SD of the neighbourhood that shares a B
DEPARTURE = 0.1  # SD of B inside an image around its mean
MEAN_SD = 0.05  # of the coarse pass
_SOME = 1024  # voxels of an image that the coarse pass looks at
OWN_SD = 1.0
QUIET = 20.0
N_STEPS = 8
N_STEPS_KNOWN_B = 5
B_STEP = 0.02  # of the B that `at_B` searches T for
ODD = 9.0  # χ², three standard deviations
_MODEL_ERROR = 0.04  # relative to the signal: of the grid
_CAP = 100.0  # a voxel that no B explains counts no more than ten standard deviations
PRIOR_LOG_T = 2.0  # SD of a weak prior of log T around 1000 ms, for voxels that say nothing

#: κ (Q, n, h, w) to its `Sums`.
SumsAt = Callable[[Array], Sums]


def start(kind: str, model: SignalModel, S: Array, sigma: Array, sums_at: SumsAt, weight: Array | None = None) -> Array:
    """Return κ̂₀ (Q, n, h, w): `paper_start` or `smooth_B_start` by the name in a `RIMConfig`."""
    return paper_start(model, S) if kind == "paper" else smooth_B_start(model, S, sigma, sums_at, weight)


def paper_start(model: SignalModel, S: Array) -> Array:
    """Return A = maximum over the images, B = 2, T1 = 1000 ms, T2 = 100 ms (§4.4.4), (Q, *X)."""
    return model.initial_guess(S)


def smooth_B_start(model: SignalModel, S: Array, sigma: Array, sums_at: SumsAt, weight: Array | None = None) -> Array:
    """Return A, B and T of maximum likelihood (Gaussian) with a B that varies slowly, (Q, n, h, w).

    Parameters
    ----------
    S
        (N, n, h, w): n images of one slice or patch each, treated apart.
    sigma
        (n, 1, 1) or (n, h, w), in the unit of S.
    sums_at
        Gives the `Sums` at an estimate.
    weight
        (n, h, w), zero for voxels that must not speak for B.
    """
    xp, Q = namespace(S), len(model.parameters)
    N, n, h, w = S.shape
    s2 = sigma**2 + 0 * S[0]
    smooth, s2_smooth = (S, s2) if Q == 2 else quietened(S, s2)
    values = xp.permute_dims(smooth, (1, 2, 3, 0)).reshape(n, h * w, N)
    scale = s2_smooth.reshape(n, h * w) + (values * values).sum(2) * (_MODEL_ERROR**2 / N)
    lo, hi = np.log(model.parameters[-1].bounds)
    grid = np.linspace(max(lo, np.log(2.0)), hi, N_T)
    search = _Search(xp, model, grid)
    if Q == 2:
        _, T = search(values, scale, None)
        return _refined(model, _solved(model, S, None, T.reshape(n, h, w)), s2, sums_at, None)
    speaks = 0 * s2 + 1 if weight is None else weight
    some = slice(None, None, max(1, h * w // _SOME))
    C = xp.stack([search(values[:, some], scale[:, some], floating([B] * n, S))[0] for B in GRID_B])  # (nB, n, some)
    C = C - xp.min(C, axis=0)[None]
    C = xp.where(C < _CAP, C, 0 * C + _CAP) * speaks.reshape(1, n, h * w)[:, :, some]
    B = _least(xp, C.sum(2))  # one B for each image
    _, T = search(values, scale, B)
    kappa = _solved(model, S, B[:, None, None] + 0 * s2, T.reshape(n, h, w))
    return _refined(model, kappa, s2, sums_at, speaks)


@dataclass(frozen=True, eq=False)
class _Search:
    """The least misfit over A and a grid of log T."""

    xp: Any
    model: SignalModel
    grid: NDArray[np.float64]

    def __call__(self, values: Array, s2: Array, B: Array | None) -> tuple[Array, Array]:
        """Return the misfit in χ² and the T (n, P) of voxels (n, P, N) whose B is that of their image (n)."""
        xp = self.xp
        phi = floating(self.model.basis(np.exp(self.grid)), values)  # (N, K, G)
        D = phi[:, 0][None] if B is None else phi[:, 0][None] + B[:, None, None] * phi[:, 1][None]  # (n, N, G)
        D = abs(D) if self.model.magnitude else D
        P = values @ (D / xp.sqrt((D * D).sum(1)[:, None] + 1e-12))  # (n, P, G)
        P = xp.where(P > 0, P, 0 * P)
        prior = floating((self.grid - np.log(1000.0)) ** 2 / PRIOR_LOG_T**2, values)
        Z = (P * P / s2[..., None] - prior).reshape(-1, N_T)
        log_T, peak = _peak(xp, Z, xp.argmax(Z, axis=1), self.grid)
        return (values * values).sum(2) / s2 - peak.reshape(s2.shape), xp.exp(log_T).reshape(s2.shape)


def quietened(S: Array, s2: Array) -> tuple[Array, Array]:
    """Return images blurred until their SNR is about `QUIET`, and what is left of σ²: (N, n, h, w), (n, h, w).

    At low SNR a B fitted beside one T for each noisy voxel is biased; beside one T for each neighbourhood it is not.
    """
    xp = namespace(S)
    n, h, w = S.shape[1:]
    noise = s2.mean((1, 2))
    power = (S * S).mean((0, 2, 3)) - noise
    power = xp.where(power > 0.01 * noise, power, 0.01 * noise)
    width = xp.clip(QUIET * xp.sqrt(noise / power) / 3.545, 0.05, 2.5)  # Σ G² = 1/(2√π b)²
    if not is_torch(S) and S.dtype == np.float32 and n == 1:
        return _quietened(S, s2, float(width[0]))

    def matrix(m: int) -> Array:
        x = floating(np.arange(m), S)
        G = xp.exp(-0.5 * ((x[:, None] - x[None]) / width[:, None, None]) ** 2)
        return G / G.sum(2)[..., None]

    G, K = matrix(h), matrix(w)
    left = (G * G).sum(2)[:, :, None] * (K * K).sum(2)[:, None, :]
    return G @ S @ xp.permute_dims(K, (0, 2, 1)), s2 * left


def _quietened(S: NDArray[np.float32], s2: NDArray[Any], width: float) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return `quietened` of one slice."""
    if not width >= 0.2:  # a neighbour would weigh less than 4e-6, or the squares are beyond all numbers
        return S, s2
    half = np.exp(-0.5 * (np.arange(int(4.8 * width) + 2) / width) ** 2)
    band = np.concatenate([half[:0:-1], half])
    sums, squares = (
        [np.convolve(np.ones(m), band**power)[len(half) - 1 :][:m] for m in S.shape[2:]] for power in (1, 2)
    )
    smooth = convolved(S, half)
    smooth /= np.multiply.outer(*sums).astype(np.float32)
    return smooth, s2 * np.multiply.outer(squares[0] / sums[0] ** 2, squares[1] / sums[1] ** 2).astype(np.float32)


def at_B(model: SignalModel, S: Array, B: Array, sigma: Array, sums_at: SumsAt) -> Array:
    """Return κ (3, n, h, w) with A and T of maximum likelihood, over all T, for the given B (n, h, w).

    Where noise leaves several T, the one that the neighbourhood has as well: a voxel leaves it if its data ask for it
    (by `ODD` of χ²), as a single odd voxel does.
    """
    xp = namespace(S)
    N = S.shape[0]
    s2 = sigma**2 + 0 * S[0]
    lo, hi = np.log(model.parameters[-1].bounds)
    grid = np.linspace(max(lo, np.log(2.0)), hi, N_T)
    smooth, s2_smooth = quietened(S, s2)
    own, around = (xp.permute_dims(x, (1, 2, 3, 0)).reshape(-1, N) for x in (S, smooth))
    s2_own, s2_around = s2.reshape(-1), (s2_smooth + 0 * s2).reshape(-1)
    of_B = xp.round(B / B_STEP).reshape(-1)
    log_T = 0 * s2_own
    for b in xp.unique_values(of_B):
        here = xp.nonzero(of_B == b)[0]
        phi = floating(model.basis(np.exp(grid)), S)
        D = phi[:, 0] + float(b) * B_STEP * phi[:, 1]  # (N, G)
        D = abs(D) if model.magnitude else D
        D = D / xp.sqrt((D * D).sum(0) + 1e-12)
        prior = floating((grid - np.log(1000.0)) ** 2 / PRIOR_LOG_T**2, S)
        Z, Y = (
            xp.clip(x[here] @ D, 0.0) ** 2 / v[here][:, None] - prior for x, v in ((own, s2_own), (around, s2_around))
        )
        best, near = xp.argmax(Z, axis=1), xp.argmax(Y, axis=1)
        k = xp.where(_take(xp, Z, best) > _take(xp, Z, near) + ODD, best, near)
        log_T[here] = _peak(xp, Z, k, grid)[0]
    T = xp.clip(xp.exp(log_T), *model.parameters[-1].bounds).reshape(B.shape)
    return _refined(model, _solved(model, S, B, T), s2, sums_at, None)


def _peak(xp: Any, Z: Array, k: Array, grid: NDArray[np.float64]) -> tuple[Array, Array]:
    """Return log T and the value of the parabola's peak around grid point k (M) of the curves Z (M, G)."""
    k = xp.clip(k, 1, N_T - 2)
    before, at, after = (_take(xp, Z, k + d) for d in (-1, 0, 1))
    curve = before - 2 * at + after
    curve = xp.where(curve < -1e-6, curve, 0 * curve - 1e-6)
    shift = xp.clip(0.5 * (before - after) / curve, -1.0, 1.0)
    log_T = float(grid[0]) + (xp.astype(k, Z.dtype) + shift) * float(grid[1] - grid[0])
    return log_T, at - 0.25 * (before - after) * shift


def _refined(model: SignalModel, kappa: Array, s2: Array, sums_at: SumsAt, speaks: Array | None) -> Array:
    """Take Gauss-Newton steps: A and log T voxel by voxel, B over neighbourhoods, or not at all (`speaks` is `None`)."""
    xp, Q = namespace(kappa), kappa.shape[0]
    lo, hi = model.parameters[-1].bounds
    mean: Array = kappa[1]
    for _ in range(N_STEPS if speaks is not None else N_STEPS_KNOWN_B if Q == 3 else 2):
        sums = sums_at(kappa)
        T = kappa[Q - 1]
        if Q == 3:
            gA, gB, gT = (sums.g[q] for q in range(3))
            AA, AB, AT, BB, BT, TT = (sums.H[i] for i in range(6))
        else:
            gA, gT = sums.g[0], sums.g[1]
            AA, AT, TT = sums.H[0], sums.H[1], sums.H[2]
            gB = AB = BB = BT = 0 * gA
        ridge = s2 / PRIOR_LOG_T**2
        gT = gT + ridge * xp.log(T / 1000.0)
        AA = 1.001 * AA + 1e-6 * s2
        TT = 1.001 * TT + ridge
        det = AA * TT - AT * AT

        def solve(a: Array, t: Array, AA: Array = AA, AT: Array = AT, TT: Array = TT, det: Array = det) -> Any:
            return (TT * a - AT * t) / det, (AA * t - AT * a) / det

        dA, dT = solve(gA, gT)
        if speaks is not None:
            cA, cT = solve(AB, BT)
            gP = gB - AB * dA - BT * dT  # of the misfit at the voxel's best A and T
            hP = BB - AB * cA - BT * cT
            hP = xp.where(hP > 0, hP, 0 * hP)
            own = (OWN_SD**2 * hP / s2) ** 2
            says = speaks * own / (1 + own) / (s2 + gP * gP / (9.0 * hP + 1e-9 * BB + 1e-20))
            B = kappa[1]
            total = (hP * says).sum((1, 2))[:, None, None] + 1 / MEAN_SD**2
            mean = (((hP * B - gP) * says).sum((1, 2))[:, None, None] + mean / MEAN_SD**2) / total
            mean = xp.clip(mean, GRID_B[0], GRID_B[-1])
            g = gaussian_sum(gP * says, WIDTH) + (B - mean) / DEPARTURE**2
            dB = -g / (gaussian_sum(hP * says, WIDTH) + 1 / DEPARTURE**2)
            dB = xp.clip(dB, -0.2, 0.2)
            dA, dT = dA + cA * dB, dT + cT * dB
            B = xp.clip(B + dB, 0.5, 2.5)
        A = xp.clip(kappa[0] - dA, 0.5 * kappa[0], 2.0 * kappa[0])
        T = xp.clip(T * xp.exp(xp.clip(-dT, -0.5, 0.5)), lo, hi)
        kappa = xp.stack([A, T] if Q == 2 else [A, kappa[1] if speaks is None else B, T])
    return kappa


def _solved(model: SignalModel, S: Array, B: Array | None, T: Array) -> Array:
    """Return κ with the best A for B and T."""
    xp = namespace(S)
    one = 0 * T + 1
    f = model.signal(xp.stack([one, T] if B is None else [one, B, T]))
    A = (f * S).sum(0) / ((f * f).sum(0) + 1e-12)
    A = xp.where(A > 0, A, 0 * A)
    return xp.stack([A, T] if B is None else [A, B, T])


def _take(xp: Any, Z: Array, k: Array) -> Array:
    """Return Z[m, k[m]]."""
    at = k + xp.arange(Z.shape[0], dtype=k.dtype, device=k.device) * Z.shape[1]
    return xp.reshape(Z, (-1,))[at]


def _least(xp: Any, C: Array) -> Array:
    """Return the B of the least cost (nB, n) of each image, by a parabola between grid points."""
    step = GRID_B[1] - GRID_B[0]
    k = xp.clip(xp.argmin(C, axis=0), 1, len(GRID_B) - 2)
    a, b, c = (_take(xp, C.T, k + d) for d in (-1, 0, 1))
    curve = a - 2 * b + c
    curve = xp.where(curve > 1e-9, curve, 0 * curve + 1e-9)
    shift = xp.clip(0.5 * (a - c) / curve, -1.0, 1.0)
    return GRID_B[0] + step * (xp.astype(k, C.dtype) + shift)
