"""Kernels of the MLE for Rician noise: as `profile`, with −log I₀ in place of the least squares.

The negative log-likelihood of one value, without what does not depend on f and in units of σ, is
½(s − f)² − log i0e(s f), f = A|g|. It is even and smooth in g: magnitude images have no kinks here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rimap.estimators.mle.profile import MAX_STEP, TOLERANCE, highest_u, overlap, place_of
from rimap.estimators.table_kernels import (
    FAST,
    Nodes,
    Second,
    hermite,
    interval,
    nodes_bend,
    schur,
    shape_at,
    value_of,
)
from rimap.kernels import njit

#: Below this amplitude, in σ, the likelihood has other valleys than the least squares: so many starts along u are
#: tried, unless the power is that of noise, to so many of its standard deviations.
FAINT, STARTS, SIGNAL = 12.0, 10, 4.0
#: Points of the Bessel table over x = z/(z + 8): cubic Hermite interpolation is exact to 1e-10.
_CELLS = 4096


def _bessel_table() -> NDArray[np.float64]:
    """Return r = I₁/I₀ and log i0e(z) + ½ log(1 + 2πz), with their derivatives times the step, (cells + 1, 4)."""
    x = np.arange(_CELLS) / _CELLS
    z = 8 * x / (1 - x)
    r = special.i1e(z) / special.i0e(z)
    with np.errstate(invalid="ignore", divide="ignore"):
        dr = np.where(z > 0, 1 - r / z - r * r, 0.5)
    dr = np.where(z > 200, 1 / (2 * z**2 + (z == 0)) + 1 / (4 * z**3 + (z == 0)), dr)
    level = np.log(special.i0e(z)) + 0.5 * np.log1p(2 * np.pi * z)
    slope = r - 1 + np.pi / (1 + 2 * np.pi * z)
    scale = 8 / (1 - x) ** 2 / _CELLS
    body = np.stack([r, dr * scale, level, slope * scale], axis=1)
    end = np.array([[1.0, 1 / 16 / _CELLS, 0.0, -(1 / 8 + 1 / (4 * np.pi)) / 8 / _CELLS]])
    return np.ascontiguousarray(np.concatenate([body, end]))


#: Tabulated once: the ratio of Bessel functions is asked for in every image of every voxel.
_BESSEL = _bessel_table()


@njit(fastmath=FAST, inline="always")
def _bessel(z):  # type: ignore[no-untyped-def]
    """Return I₁/I₀ and log i0e at z ≥ 0."""
    k, t = interval(z / (z + 8.0) * _CELLS, 0.0, 1.0, _CELLS)
    weights = hermite(t, 1.0)
    ratio = value_of(weights, Nodes(_BESSEL[k, 0], _BESSEL[k + 1, 0], _BESSEL[k, 1], _BESSEL[k + 1, 1]))
    level = value_of(weights, Nodes(_BESSEL[k, 2], _BESSEL[k + 1, 2], _BESSEL[k, 3], _BESSEL[k + 1, 3]))
    return ratio, level - 0.5 * np.log(1 + 2 * np.pi * z)


@njit()
def bessel(z):  # type: ignore[no-untyped-def]
    """Return I₁/I₀ and log i0e at z (n,) ≥ 0: for tests."""
    out = np.empty((2, z.shape[0]))
    for index in range(z.shape[0]):
        out[0, index], out[1, index] = _bessel(z[index])
    return out


#: Points of the table of the least for each unit of a datum.
_PER_UNIT = 40.0


def _least_of_a_datum() -> NDArray[np.float64]:
    """Return the least of ½(y − s)² − log i0e(ys) over the signal s ≥ 0 for data y up to 40, in steps."""
    y = np.arange(1601) / _PER_UNIT
    s = y.copy()
    for _ in range(300):  # s = y I₁/I₀(ys): slow near √2 alone, where the minimum is flat
        s = y * special.i1e(y * s) / special.i0e(y * s)
    return np.asarray(0.5 * (y - s) ** 2 - np.log(special.i0e(y * s)))


#: Tabulated once, for values in units of σ.
_LEAST = _least_of_a_datum()


@njit(fastmath=FAST, counts_references=False)
def least_rician(S, out):  # type: ignore[no-untyped-def]
    """Set `out` (V) to the least that −log p of a voxel can be, with a signal for each of its data S (V, N), in σ.

    Twice what a fit exceeds it by is its deviance, which is distributed about as χ².
    """
    last = _LEAST.shape[0] - 1
    for voxel in range(S.shape[0]):
        total = 0.0
        for image in range(S.shape[1]):
            x = max(S[voxel, image], 0.0) * _PER_UNIT
            if x >= last:
                total += _LEAST[last] + np.log(x / last)
            else:
                k = int(x)
                total += _LEAST[k] + (x - k) * (_LEAST[k + 1] - _LEAST[k])
        out[voxel] = total


class Rice(NamedTuple):
    """The negative log-likelihood of a voxel at (A, u, F), its slopes and second derivatives, and an upper bound on
    those.
    """

    f: float
    slope_A: float
    slope_u: float
    slope_F: float
    H: Second
    bound: Second
    """That of least squares, which −log I₀ is below: positive definite."""


@njit(fastmath=FAST, counts_references=False)
def _rice(s, shape, place, A, u):  # type: ignore[no-untyped-def]
    """Return the likelihood and its derivatives."""
    powers, j, x = shape.powers, place.j, place.x
    k, t = interval(u, shape.low_u, shape.step_u, powers[0].shape[1] - 1)
    weights = hermite(t, shape.step_u)
    H_AA = H_Au = H_AF = H_uu = H_uF = H_FF = slope_F = slope_u = slope_A = bend_F = f = gg = gg1 = g1g1 = 0.0
    for image in range(s.shape[0]):
        g, g_u, g_uu, g_F, g_uF = shape_at(weights, powers, x, j, k, image)
        y = max(s[image] * 1.0, 0.0)
        signal = A * abs(g)
        z = y * signal
        ratio, log_i0e = _bessel(z)
        r = signal - y * ratio  # the derivative of the negative log-likelihood in the signal
        c = 1 - y * y * ((1 - ratio / z - ratio * ratio) if z > 1e-6 else 0.5)  # and the second one
        if g < 0:
            r = -r
        f += 0.5 * (y - signal) * (y - signal) - log_i0e
        slope_A += r * g
        slope_u += r * g_u
        slope_F += r * g_F
        H_AA += c * g * g
        H_Au += c * A * g * g_u + r * g_u
        H_AF += c * A * g * g_F + r * g_F
        H_uu += A * (c * A * g_u * g_u + r * g_uu)
        H_uF += A * (c * A * g_u * g_F + r * g_uF)
        H_FF += c * g_F * g_F
        gg += g * g
        gg1 += A * g * g_u
        g1g1 += A * A * g_u * g_u
        if len(powers) > 2:  # known to the compiler: no cost for models that are linear in F
            bend = nodes_bend(powers, x, j, k, 0, image)
            bend_F += r * value_of(weights, bend)
    a, b = 1 / shape.step_F, A / shape.step_F
    H = Second(H_AA, H_Au, H_AF * a, H_uu, H_uF * a, b * (b * H_FF + a * bend_F))
    return Rice(f, slope_A, A * slope_u, b * slope_F, H, Second(gg, gg1, 0.0, g1g1, 0.0, 0.0))


@njit(fastmath=FAST, counts_references=False)
def _fit(s, shape, place, A, u):  # type: ignore[no-untyped-def]
    """Return A, u and the likelihood where Newton's method in both ends."""
    low, top = shape.low_u, highest_u(shape)
    here = _rice(s, shape, place, A, u)
    for _ in range(60):
        if A <= 0.0:
            break
        at_bound = (u <= low and here.slope_u > 0) or (u >= top and here.slope_u < 0)
        H_AA, H_Au, H_uu, slope_u = here.H.AA, here.H.Au, here.H.uu, here.slope_u
        if at_bound:
            H_Au, slope_u, H_uu = 0.0, 0.0, 1.0
        if not (H_AA > 0 and H_AA * H_uu - H_Au * H_Au > 1e-10 * H_AA * H_uu):
            H_AA, H_Au, H_uu = here.bound.AA, here.bound.Au, here.bound.uu
            if at_bound:
                H_Au, H_uu = 0.0, 1.0
            H_uu = H_uu * 1.01 + 1e-12
        D = H_AA * H_uu - H_Au * H_Au
        if not D > 0:
            break
        step_A, step_u = -(H_uu * here.slope_A - H_Au * slope_u) / D, -(H_AA * slope_u - H_Au * here.slope_A) / D
        promise = -0.5 * (here.slope_A * step_A + slope_u * step_u)
        if promise < TOLERANCE:
            break
        t = min(1.0, MAX_STEP / (abs(step_u) + 1e-30))
        moved = False
        for _ in range(14):
            trial_A, trial_u = max(A + t * step_A, 0.0), min(max(u + t * step_u, low), top)
            trial = _rice(s, shape, place, trial_A, trial_u)
            if trial.f < here.f:
                moved = True
                A, u, here = trial_A, trial_u, trial
                break
            t *= 0.35
        if not moved:
            break
    return A, u, here


@njit(fastmath=FAST, inline="always")
def _has_signal(s):  # type: ignore[no-untyped-def]
    """Return whether the power of a voxel exceeds that of noise, which is 2 ± 2 in each image."""
    power = 0.0
    for image in range(s.shape[0]):
        power += s[image] * s[image]
    return power > 2 * s.shape[0] + 2 * SIGNAL * np.sqrt(s.shape[0])


@njit(fastmath=FAST, counts_references=False)
def profile_rician(S, F, shape, extra, found):  # type: ignore[no-untyped-def]
    """Minimise −log p over A ≥ 0 and u from found.u and found.A (V), for F (V); S (V, N) in units of σ.

    Sets in place u, A, the minimum f, its first and second derivative g, w in F, and du/dF.
    """
    low, top = shape.low_u, highest_u(shape)
    for voxel in range(S.shape[0]):
        s, place = S[voxel], place_of(shape, F[voxel])
        A, u, best = _fit(s, shape, place, found.A[voxel], found.u[voxel])
        if extra.use_other and abs(extra.other_u[voxel] - u) > 2 * shape.step_u:
            other_A, other_u, other = _fit(s, shape, place, A, extra.other_u[voxel])
            if other.f < best.f - TOLERANCE:
                A, u, best = other_A, other_u, other
        if extra.use_rival:
            faint = A < FAINT and _has_signal(s)
            for start in range(-1, STARTS if faint else 0):
                start_u = extra.rival_u[voxel] if start < 0 else low + (start + 0.5) / STARTS * (top - low)
                if np.isnan(start_u):
                    continue
                sums = overlap(s, shape, place, start_u)
                if not sums.gg > 0:
                    continue
                other_A, other_u, other = _fit(s, shape, place, max(sums.yg, 0.0) / sums.gg, start_u)
                if other.f < best.f - TOLERANCE:
                    A, u, best = other_A, other_u, other
        # A and u follow the field: what is left is the information on F alone (Schur complement)
        w, _, slope = schur(best.H, low < u < top)
        found.u[voxel], found.A[voxel], found.f[voxel] = u, A, best.f
        found.g[voxel], found.w[voxel], found.slope[voxel] = best.slope_F, w, slope
