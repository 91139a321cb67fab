"""Numba kernels of the MLE for Rician noise: as `mle_kernels`, with −log I₀ in place of the least squares.

The negative log-likelihood of one value, without what does not depend on f and in units of σ, is
½(s − f)² − log i0e(s f), f = A|M|. It is even and smooth in M: magnitude images have no kinks here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rimap.estimators.mle.profile import _FAST, MAX_STEP, TOLERANCE, _schur
from rimap.kernels import njit

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


_BESSEL = _bessel_table()


@njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
def _bessel(z):  # type: ignore[no-untyped-def]
    """Return I₁/I₀ and log i0e at z ≥ 0."""
    x = z / (z + 8.0) * _CELLS
    k = min(int(x), _CELLS - 1)
    t = x - k
    a1 = t * t * (3 - 2 * t)
    a0 = 1 - a1
    b0, b1 = t * (1 - t) ** 2, t * t * (t - 1)
    r = a0 * _BESSEL[k, 0] + b0 * _BESSEL[k, 1] + a1 * _BESSEL[k + 1, 0] + b1 * _BESSEL[k + 1, 1]
    level = a0 * _BESSEL[k, 2] + b0 * _BESSEL[k, 3] + a1 * _BESSEL[k + 1, 2] + b1 * _BESSEL[k + 1, 3]
    return r, level - 0.5 * np.log(1 + 2 * np.pi * z)


@njit(nogil=True, cache=True)
def bessel(z):  # type: ignore[no-untyped-def]
    """Return I₁/I₀ and log i0e at z (n,) ≥ 0: for tests."""
    out = np.empty((2, z.shape[0]))
    for i in range(z.shape[0]):
        out[0, i], out[1, i] = _bessel(z[i])
    return out


@njit(nogil=True, cache=True, fastmath=_FAST)
def _rice(s, B, A, u, values, u0, du, out):  # type: ignore[no-untyped-def]
    """Set `out` to the Hessian AA, Au, AB, uu, uB, BB, the gradient B, u, A, the value, and an upper bound AA, Au, uu."""
    x = (u - u0) / du
    k = min(max(int(x), 0), values.shape[0] - 2)
    t = x - k
    a0, a1 = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    b0, b1 = t * (1 - t) ** 2, t * t * (t - 1)
    ad = 6 * t * (t - 1) / du
    b0d, b1d = (1 - t) * (1 - 3 * t) / du, t * (3 * t - 2) / du
    add = (12 * t - 6) / (du * du)
    b0dd, b1dd = (6 * t - 4) / (du * du), (6 * t - 2) / (du * du)
    AA = Au = AB = uu = uB = BB = gB = gu = gA = F = mm = mu = nn = 0.0
    for n in range(s.shape[0]):
        p0, p1, q0, q1 = values[k, 1, n], values[k + 1, 1, n], values[k, 3, n], values[k + 1, 3, n]
        v0, v1 = values[k, 0, n] + B * p0, values[k + 1, 0, n] + B * p1
        s0, s1 = values[k, 2, n] + B * q0, values[k + 1, 2, n] + B * q1
        M = a0 * v0 + a1 * v1 + b0 * s0 + b1 * s1
        M1 = ad * (v0 - v1) + b0d * s0 + b1d * s1
        M2 = add * (v0 - v1) + b0dd * s0 + b1dd * s1
        P = a0 * p0 + a1 * p1 + b0 * q0 + b1 * q1
        P1 = ad * (p0 - p1) + b0d * q0 + b1d * q1
        y = max(s[n] * 1.0, 0.0)
        f = A * abs(M)
        z = y * f
        r, logi = _bessel(z)
        e = f - y * r
        h = 1 - y * y * ((1 - r / z - r * r) if z > 1e-6 else 0.5)
        if M < 0:
            e = -e
        F += 0.5 * (y - f) * (y - f) - logi
        gA += e * M
        gu += e * M1
        gB += e * P
        AA += h * M * M
        Au += h * A * M * M1 + e * M1
        AB += h * A * M * P + e * P
        uu += A * (h * A * M1 * M1 + e * M2)
        uB += A * (h * A * M1 * P + e * P1)
        BB += h * P * P
        mm += M * M
        mu += A * M * M1
        nn += A * A * M1 * M1
    out[0], out[1], out[2], out[3], out[4], out[5] = AA, Au, AB, uu, uB, A * A * BB
    out[6], out[7], out[8], out[9] = A * gB, A * gu, gA, F
    out[10], out[11], out[12] = mm, mu, nn


@njit(nogil=True, cache=True, fastmath=_FAST)
def _fit(s, B, A, u, values, u0, du, out):  # type: ignore[no-untyped-def]
    """Newton in A and u; returns them, with `out` as `_rice` leaves it."""
    top = u0 + du * (values.shape[0] - 1)
    _rice(s, B, A, u, values, u0, du, out)
    for _ in range(60):
        if A <= 0.0:
            break
        F, gA, gu = out[9], out[8], out[7]
        fixed = (u <= u0 and gu > 0) or (u >= top and gu < 0)
        AA, Au, uu = out[0], out[1], out[3]
        if fixed:
            Au, gu, uu = 0.0, 0.0, 1.0
        if not (AA > 0 and AA * uu - Au * Au > 1e-10 * AA * uu):
            AA, Au, uu = out[10], out[11], out[12]  # −log I₀ is concave: the least squares bound it from above
            if fixed:
                Au, uu = 0.0, 1.0
            uu = uu * 1.01 + 1e-12
        D = AA * uu - Au * Au
        if not D > 0:
            break
        sA, su = -(uu * gA - Au * gu) / D, -(AA * gu - Au * gA) / D
        promise = -0.5 * (gA * sA + gu * su)
        if promise < TOLERANCE:
            break
        t = min(1.0, MAX_STEP / (abs(su) + 1e-30))
        moved = False
        for _ in range(14):
            A1, u1 = max(A + t * sA, 0.0), min(max(u + t * su, u0), top)
            _rice(s, B, A1, u1, values, u0, du, out)
            if out[9] < F:
                moved = True
                A, u = A1, u1
                break
            t *= 0.35
        if not moved:
            _rice(s, B, A, u, values, u0, du, out)
            break
    return A, u


@njit(nogil=True, cache=True, fastmath=_FAST)
def profile_rician(S, B, values, u0, du, other_u, other, u, A, f, g, w, slope):  # type: ignore[no-untyped-def]
    """Minimise −log p over A ≥ 0 and u from u and A (V), for B (V); S (V, N) in units of σ.

    With `other` also from `other_u`. Returns in place u, A, the minimum f, its derivatives g, w in B, and du/dB.
    """
    out = np.empty(13)
    top = u0 + du * (values.shape[0] - 1)
    for v in range(S.shape[0]):
        s = S[v]
        A[v], u[v] = _fit(s, B[v], A[v], u[v], values, u0, du, out)
        if other and abs(other_u[v] - u[v]) > 2 * du:
            F = out[9]
            _rice(s, B[v], A[v], other_u[v], values, u0, du, out)
            A1, u1 = _fit(s, B[v], A[v], other_u[v], values, u0, du, out)
            if out[9] < F - TOLERANCE:
                A[v], u[v] = A1, u1
            else:
                _rice(s, B[v], A[v], u[v], values, u0, du, out)
        f[v] = out[9]
        g[v], w[v], slope[v] = _schur(out, u0 < u[v] < top)
