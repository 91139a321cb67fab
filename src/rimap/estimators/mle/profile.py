"""Numba kernels of the MLE: for each voxel, A and T at the best for a given B, and what B would rather be.

For a separable model S = |A (φ₀(T) + B φ₁(T))| and a given B what is left of a voxel is a search along T: A is
linear. The basis is tabulated over u = log T (`Table`), so the kernels know no signal model and call no exp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rimap.kernels import njit
from rimap.signals.base import SignalModel

#: Points of the table along u; cubic Hermite interpolation between them is exact to 1e-9.
N_TABLE = 513
#: Every how many points of the table the global search visits.
STRIDE = 8
#: How far along u the next change of polarity may be for the minimum beyond it to be looked at.
REACH = 0.3
#: What a Newton iteration along u may move.
MAX_STEP = 0.25
#: The largest decrease of χ²/2 by another step that the voxel forgoes.
TOLERANCE = 1e-7

#: How much higher χ²/2 may be there.
RIDGE = 6.0

_FAST = {"reassoc", "contract", "nsz", "arcp"}
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """φ and dφ/du over u = log T.

    Parameters
    ----------
    u
        (G) the points.
    values
        (G, 4, N): φ₀, φ₁, and their derivatives times the step; φ₁ = 0 where the model has no B.
    phi
        (G, 2, N) float32: φ₀, φ₁, for the global search.
    gram
        (G, 3) float32: φ₀·φ₀, φ₀·φ₁, φ₁·φ₁.
    magnitude
        Whether the signal is a modulus.
    """

    u: Array
    values: Array
    phi: NDArray[np.float32]
    gram: NDArray[np.float32]
    magnitude: bool

    @classmethod
    def of(cls, model: SignalModel) -> Table:
        """Tabulate the basis of `model`."""
        lo, hi = np.log(model.parameters[-1].bounds)
        u = np.linspace(lo, hi, N_TABLE)
        d = 1e-3
        at = {k: _basis(model, u + k * d) for k in (-2, -1, 0, 1, 2)}
        slope = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * d) * (u[1] - u[0])
        values = np.ascontiguousarray(np.concatenate([at[0], slope], axis=1).transpose(2, 1, 0))
        phi = np.ascontiguousarray(values[:, :2], np.float32)
        gram = np.stack([(values[:, i] * values[:, j]).sum(-1) for i, j in ((0, 0), (0, 1), (1, 1))], axis=-1)
        return cls(u, values, phi, gram.astype(np.float32), model.magnitude)


def _basis(model: SignalModel, u: Array) -> Array:
    """Return (N, 2, G)."""
    phi = np.asarray(model.basis(np.exp(u)), dtype=float)
    return phi if phi.shape[1] == 2 else np.concatenate([phi, 0 * phi], axis=1)


@njit(nogil=True, cache=True, fastmath=_FAST)
def _best(S, v, b, start, stop, stride, phi, gram, magnitude):  # type: ignore[no-untyped-def]
    """Return the point of the table where A = Σ s|M|/ΣM² takes most off Σs²."""
    best, at = np.float32(-1.0), start
    for k in range(start, stop, stride):
        c = np.float32(0.0)
        if magnitude:
            for n in range(S.shape[1]):
                c += S[v, n] * abs(phi[k, 0, n] + b * phi[k, 1, n])
        else:
            for n in range(S.shape[1]):
                c += S[v, n] * (phi[k, 0, n] + b * phi[k, 1, n])
        d = gram[k, 0] + b * (np.float32(2.0) * gram[k, 1] + b * gram[k, 2])
        gain = c * c / d if c > 0 and d > 0 else np.float32(0.0)
        if gain > best:
            best, at = gain, k
    return at


@njit(nogil=True, cache=True, fastmath=_FAST)
def search_T(S, B, phi, gram, magnitude, u0, du, u):  # type: ignore[no-untyped-def]
    """Set u (V) to the best point of the table for the data S (V, N) and B (V): coarse, then fine."""
    G = phi.shape[0]
    for v in range(S.shape[0]):
        b = np.float32(B[v])
        at = _best(S, v, b, 0, G, STRIDE, phi, gram, magnitude)
        at = _best(S, v, b, max(at - STRIDE, 0), min(at + STRIDE + 1, G), 2, phi, gram, magnitude)
        u[v] = u0 + at * du


@njit(nogil=True, cache=True, fastmath=_FAST)
def _past_null(B, u, side, values, u0, du):  # type: ignore[no-untyped-def]
    """Return the u just behind the nearest change of polarity below (side 0) or above u (side 1); far off if none."""
    x = (u - u0) / du
    k = min(max(int(x), 0), values.shape[0] - 2)
    t = x - k
    sign = 1.0 if side == 1 else -1.0
    best, at = 1e9, -1
    for n in range(values.shape[2]):
        v0 = values[k, 0, n] + B * values[k, 1, n]
        v1 = values[k + 1, 0, n] + B * values[k + 1, 1, n]
        if v1 != v0:
            r = -sign * (v0 + t * (v1 - v0)) * du / (v1 - v0)  # along a straight line
            if 1e-6 < r < best:
                best, at = r, n
    null = u + sign * best
    if at >= 0 and best < REACH:
        top = u0 + du * (values.shape[0] - 1)
        for _ in range(2):
            if u0 < null < top:
                M, M1, _, _, _ = _image(B, null, at, values, u0, du)
                if M1 != 0.0:
                    null -= M / M1
    return null + sign * 2e-6


@njit(nogil=True, cache=True, fastmath=_FAST)
def _sums(s, B, u, values, magnitude, u0, du, out):  # type: ignore[no-untyped-def]
    """Return Σ s|M|, ΣM², Σ s|M|′, ΣMM′, Σ s|M|″, Σ(M′² + MM″), ΣM′² for M = φ₀ + Bφ₁ at u."""
    x = (u - u0) / du
    k = min(max(int(x), 0), values.shape[0] - 2)
    t = x - k
    a0, a1 = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    b0, b1 = t * (1 - t) ** 2, t * t * (t - 1)
    ad = 6 * t * (t - 1) / du
    b0d, b1d = (1 - t) * (1 - 3 * t) / du, t * (3 * t - 2) / du
    add = (12 * t - 6) / (du * du)
    b0dd, b1dd = (6 * t - 4) / (du * du), (6 * t - 2) / (du * du)
    c = d = cu = du_ = cuu = duu = e = 0.0
    for n in range(s.shape[0]):
        v0 = values[k, 0, n] + B * values[k, 1, n]
        v1 = values[k + 1, 0, n] + B * values[k + 1, 1, n]
        s0 = values[k, 2, n] + B * values[k, 3, n]
        s1 = values[k + 1, 2, n] + B * values[k + 1, 3, n]
        M = a0 * v0 + a1 * v1 + b0 * s0 + b1 * s1
        M1 = ad * (v0 - v1) + b0d * s0 + b1d * s1
        M2 = add * (v0 - v1) + b0dd * s0 + b1dd * s1
        y = -s[n] if magnitude and M < 0 else s[n] * 1.0
        c += y * M
        d += M * M
        cu += y * M1
        du_ += M * M1
        cuu += y * M2
        e += M1 * M1
        duu += M1 * M1 + M * M2
    out[0], out[1], out[2], out[3], out[4], out[5], out[6] = c, d, cu, du_, cuu, duu, e


@njit(nogil=True, cache=True, fastmath=_FAST)
def _descend(s, B, u, values, magnitude, u0, du, out):  # type: ignore[no-untyped-def]
    """Newton along u from u; returns u, −c²/2d there, and the image whose null holds it (−1: none); `out` is `_sums`."""
    top = u0 + du * (values.shape[0] - 1)
    _sums(s, B, u, values, magnitude, u0, du, out)
    f = -0.5 * out[0] * out[0] / out[1] if out[0] > 0 else 0.0
    for iteration in range(30):
        c, d, cu, du_, cuu, duu, e = out[0], out[1], out[2], out[3], out[4], out[5], out[6]
        if c <= 0:
            break
        A = c / d
        g = A * (A * du_ - cu)
        h = A * (A * duu - cuu) - (cu - 2 * A * du_) ** 2 / d
        gn = A * A * (e - du_ * du_ / d)
        if h < 0.1 * gn:
            h = gn
        if (u <= u0 and g > 0) or (u >= top and g < 0):
            break
        step = -g / h if h > 0 else (-MAX_STEP if g > 0 else MAX_STEP)
        step = min(max(step, -MAX_STEP), MAX_STEP)
        if -0.5 * step * g < TOLERANCE:
            break
        moved = False
        for attempt in range(12):
            if magnitude and (attempt == 1 or (attempt == 0 and iteration > 1)):
                null, n = _negative_null(s, B, u, step if attempt == 0 else step / 0.35, values, u0, du)
                if n >= 0 and u0 < null < top:
                    _sums(s, B, null, values, magnitude, u0, du, out)
                    ft = -0.5 * out[0] * out[0] / out[1] if out[0] > 0 else 0.0
                    if ft < f + TOLERANCE and _holds(s, B, null, n, values, magnitude, u0, du, out):
                        return null, ft, n
            trial = min(max(u + step, u0), top)
            _sums(s, B, trial, values, magnitude, u0, du, out)
            ft = -0.5 * out[0] * out[0] / out[1] if out[0] > 0 else 0.0
            if ft < f:
                moved = True
                u, f = trial, ft
                break
            step *= 0.35
        if not moved:
            _sums(s, B, u, values, magnitude, u0, du, out)
            break
    return u, f, -1


@njit(nogil=True, cache=True, fastmath=_FAST)
def _negative_null(s, B, u, step, values, u0, du):  # type: ignore[no-untyped-def]
    """Return the u of the nearest null of an image with s < 0 between u and u + step, and the image (−1: none).

    Noise added after the modulus makes such images. There −s|M| is a valley with a sharp bottom.
    """
    x = (u - u0) / du
    k = min(max(int(x), 0), values.shape[0] - 2)
    t = x - k
    best, at = 1.0, -1
    slack = -1e-3 / abs(step)  # a start on a null, to the precision of a straight line between points of the table
    for n in range(s.shape[0]):
        if s[n] < 0:
            v0 = values[k, 0, n] + B * values[k, 1, n]
            v1 = values[k + 1, 0, n] + B * values[k + 1, 1, n]
            if v1 != v0:
                r = -(v0 + t * (v1 - v0)) * du / (v1 - v0) / step
                if slack < r < best:
                    best, at = r, n
    if at < 0:
        return u, -1
    null = u + best * step
    for _ in range(3):
        M, M1, _, _, _ = _image(B, null, at, values, u0, du)
        if M1 == 0.0:
            return u, -1
        null -= M / M1
    return null + 1e-9, at  # on one side of it, so that every sum sees the same sign


@njit(nogil=True, cache=True, fastmath=_FAST)
def _image(B, u, n, values, u0, du):  # type: ignore[no-untyped-def]
    """Return M, M′, M″, φ₁, φ₁′ of image n."""
    x = (u - u0) / du
    k = min(max(int(x), 0), values.shape[0] - 2)
    t = x - k
    a0, a1 = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    b0, b1 = t * (1 - t) ** 2, t * t * (t - 1)
    ad = 6 * t * (t - 1) / du
    b0d, b1d = (1 - t) * (1 - 3 * t) / du, t * (3 * t - 2) / du
    add = (12 * t - 6) / (du * du)
    b0dd, b1dd = (6 * t - 4) / (du * du), (6 * t - 2) / (du * du)
    p0, p1, q0, q1 = values[k, 1, n], values[k + 1, 1, n], values[k, 3, n], values[k + 1, 3, n]
    v0, v1 = values[k, 0, n] + B * p0, values[k + 1, 0, n] + B * p1
    s0, s1 = values[k, 2, n] + B * q0, values[k + 1, 2, n] + B * q1
    M = a0 * v0 + a1 * v1 + b0 * s0 + b1 * s1
    M1 = ad * (v0 - v1) + b0d * s0 + b1d * s1
    M2 = add * (v0 - v1) + b0dd * s0 + b1dd * s1
    return M, M1, M2, a0 * p0 + a1 * p1 + b0 * q0 + b1 * q1, ad * (p0 - p1) + b0d * q0 + b1d * q1


@njit(nogil=True, cache=True, fastmath=_FAST)
def _holds(s, B, null, n, values, magnitude, u0, du, out):  # type: ignore[no-untyped-def]
    """Tell whether the other images pull less than the valley of image n holds; `out` is `_sums` at its null."""
    if not out[0] > 0:
        return False
    M, M1, _, _, _ = _image(B, null, n, values, u0, du)
    A = out[0] / out[1]
    y = -s[n] if magnitude and M < 0 else s[n]
    rest = A * (A * out[3] - (out[2] - y * M1))
    return abs(rest) <= abs(A * s[n] * M1)


@njit(nogil=True, cache=True, fastmath=_FAST)
def _minimise(s, B, u, values, magnitude, u0, du, hops, out):  # type: ignore[no-untyped-def]
    """As `_descend`, and past the next `hops` changes of polarity on either side wherever it goes down behind one."""
    u, f, held = _descend(s, B, u, values, magnitude, u0, du, out)
    if not magnitude or out[0] <= 0:
        return u, f, held
    top = u0 + du * (values.shape[0] - 1)
    for _ in range(4):
        here = u
        for side in range(2):
            start = here
            for _ in range(hops):
                start = _past_null(B, start, side, values, u0, du)
                if abs(start - here) > REACH or start <= u0 or start >= top:
                    break
                _sums(s, B, start, values, magnitude, u0, du, out)
                if out[0] <= 0 or -0.5 * out[0] * out[0] / out[1] > f + RIDGE:
                    break
                A = out[0] / out[1]
                g = A * (A * out[3] - out[2])
                if (g < 0) == (side == 1):
                    other, fo, n = _descend(s, B, start, values, magnitude, u0, du, out)
                    if fo < f - TOLERANCE:
                        u, f, held = other, fo, n
                        break
        if u == here:
            break
    _sums(s, B, u, values, magnitude, u0, du, out)
    return u, f, held


@njit(nogil=True, cache=True, fastmath=_FAST)
def profile_gaussian(S, B, values, magnitude, u0, du, other_u, other, hops, u, A, f, g, w, slope):  # type: ignore[no-untyped-def]
    """Minimise ½Σ(s − A|M|)² over A ≥ 0 and u from u (V), for B (V); S (V, N) in units of σ.

    With `other` also from `other_u`; `hops` as in `_minimise`. Returns in place u, A, the minimum f, its first and second derivative g, w in B, and du/dB.
    """
    out = np.empty(8)
    for v in range(S.shape[0]):
        s = S[v]
        u[v], f[v], held = _minimise(s, B[v], u[v], values, magnitude, u0, du, hops, out)
        if other and abs(other_u[v] - u[v]) > 2 * du:
            u1, f1, held1 = _minimise(s, B[v], other_u[v], values, magnitude, u0, du, hops, out)
            if f1 < f[v] - TOLERANCE:
                u[v], f[v], held = u1, f1, held1
            else:
                _sums(s, B[v], u[v], values, magnitude, u0, du, out)
        A[v] = out[0] / out[1] if out[0] > 0 else 0.0
        e = 0.0
        for n in range(s.shape[0]):
            e += s[n] * 1.0 * s[n]  # in double precision
        f[v] += 0.5 * e
        inside = u0 < u[v] < u0 + du * (values.shape[0] - 1)
        _derivatives(s, B[v], u[v], A[v], values, magnitude, u0, du, out)
        if held >= 0:
            g[v], w[v], slope[v] = _along(s[held], A[v], _image(B[v], u[v], held, values, u0, du), out)
        else:
            g[v], w[v], slope[v] = _schur(out, inside)


@njit(nogil=True, cache=True, fastmath=_FAST)
def _derivatives(s, B, u, A, values, magnitude, u0, du, out):  # type: ignore[no-untyped-def]
    """Set `out` to the Hessian AA, Au, AB, uu, uB, BB and the gradient B, u of ½Σ(s − A|M|)²."""
    x = (u - u0) / du
    k = min(max(int(x), 0), values.shape[0] - 2)
    t = x - k
    a0, a1 = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    b0, b1 = t * (1 - t) ** 2, t * t * (t - 1)
    ad = 6 * t * (t - 1) / du
    b0d, b1d = (1 - t) * (1 - 3 * t) / du, t * (3 * t - 2) / du
    add = (12 * t - 6) / (du * du)
    b0dd, b1dd = (6 * t - 4) / (du * du), (6 * t - 2) / (du * du)
    AA = Au = AB = uu = uB = BB = gB = gu = 0.0
    for n in range(s.shape[0]):
        p0, p1, q0, q1 = values[k, 1, n], values[k + 1, 1, n], values[k, 3, n], values[k + 1, 3, n]
        v0, v1 = values[k, 0, n] + B * p0, values[k + 1, 0, n] + B * p1
        s0, s1 = values[k, 2, n] + B * q0, values[k + 1, 2, n] + B * q1
        M = a0 * v0 + a1 * v1 + b0 * s0 + b1 * s1
        M1 = ad * (v0 - v1) + b0d * s0 + b1d * s1
        M2 = add * (v0 - v1) + b0dd * s0 + b1dd * s1
        P = a0 * p0 + a1 * p1 + b0 * q0 + b1 * q1
        P1 = ad * (p0 - p1) + b0d * q0 + b1d * q1
        r = A * M - (-s[n] if magnitude and M < 0 else s[n] * 1.0)
        AA += M * M
        Au += (A * M + r) * M1
        AB += (A * M + r) * P
        uu += A * M1 * M1 * A + r * A * M2
        uB += A * M1 * P * A + r * A * P1
        BB += P * P
        gB += r * P
        gu += r * M1
    out[0], out[1], out[2], out[3], out[4], out[5] = AA, Au, AB, uu, uB, A * A * BB
    out[6], out[7] = A * gB, A * gu


@njit(nogil=True, cache=True, fastmath=_FAST)
def _schur(H, inside):  # type: ignore[no-untyped-def]
    """Return g, the curvature left for B when A and u follow it, and du/dB."""
    AA, Au, AB, uu, uB, BB = H[0], H[1], H[2], H[3], H[4], H[5]
    if not AA > 0:
        return 0.0, 0.0, 0.0
    BB -= AB * AB / AA
    uu -= Au * Au / AA
    uB -= Au * AB / AA
    if not inside or not uu > 0:
        return H[6], BB, 0.0
    return H[6], BB - uB * uB / uu, -uB / uu


@njit(nogil=True, cache=True, fastmath=_FAST)
def _along(s, A, image, H):  # type: ignore[no-untyped-def]
    """As `_schur`, where u follows B along the null M(u, B) = 0 of one image."""
    M, M1, M2, P, P1 = image
    y = -s if M < 0 else s
    k = -P / M1
    bend = -(M2 * k * k + 2 * P1 * k) / M1
    # the image itself is constant along its null: its share comes off
    Au, AB = H[1] + y * M1, H[2] + y * P
    uu, uB, BB = H[3] - A * A * M1 * M1 + y * A * M2, H[4] - A * A * M1 * P + y * A * P1, H[5] - A * A * P * P
    gB, gu = H[6] + A * y * P, H[7] + A * y * M1
    mixed = AB + Au * k
    return gB + gu * k, BB + 2 * uB * k + uu * k * k + gu * bend - mixed * mixed / H[0], k


@njit(nogil=True, cache=True, fastmath=_FAST)
def information(S, B, values, magnitude, u0, du, snr_step, info, u, A, out):  # type: ignore[no-untyped-def]
    """Set out (V, 6) to the variance of A and u when B is known, dA/dB, du/dB, the information on B, and Σ(s − f)².

    `info` (K) is the Fisher information of one value at f = 0, snr_step, 2 snr_step, …; the last one holds beyond.
    """
    top = u0 + du * (values.shape[0] - 1)
    for v in range(S.shape[0]):
        x = (u[v] - u0) / du
        k = min(max(int(x), 0), values.shape[0] - 2)
        t = x - k
        a0, a1 = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
        b0, b1 = t * (1 - t) ** 2, t * t * (t - 1)
        ad = 6 * t * (t - 1) / du
        b0d, b1d = (1 - t) * (1 - 3 * t) / du, t * (3 * t - 2) / du
        AA = Au = AB = uu = uB = BB = rss = 0.0
        for n in range(S.shape[1]):
            p0, p1, q0, q1 = values[k, 1, n], values[k + 1, 1, n], values[k, 3, n], values[k + 1, 3, n]
            v0, v1 = values[k, 0, n] + B[v] * p0, values[k + 1, 0, n] + B[v] * p1
            s0, s1 = values[k, 2, n] + B[v] * q0, values[k + 1, 2, n] + B[v] * q1
            M = a0 * v0 + a1 * v1 + b0 * s0 + b1 * s1
            M1 = A[v] * (ad * (v0 - v1) + b0d * s0 + b1d * s1)
            P = A[v] * (a0 * p0 + a1 * p1 + b0 * q0 + b1 * q1)
            f = abs(A[v] * M)
            j = min(f / snr_step, info.shape[0] - 1.001)
            i = int(j)
            h = info[i] + (j - i) * (info[i + 1] - info[i])
            AA += h * M * M
            Au += h * M * M1
            AB += h * M * P
            uu += h * M1 * M1
            uB += h * M1 * P
            BB += h * P * P
            rss += (S[v, n] - (f if magnitude else A[v] * M)) ** 2
        out[v, 5] = rss
        D = AA * uu - Au * Au
        if u0 < u[v] < top and 1e-14 * AA * uu < D:
            kA, ku = -(uu * AB - Au * uB) / D, -(AA * uB - Au * AB) / D
            out[v, 0], out[v, 1], out[v, 2], out[v, 3] = uu / D, AA / D, kA, ku
            out[v, 4] = BB + AB * kA + uB * ku
        else:
            out[v, 0] = out[v, 1] = out[v, 2] = out[v, 3] = np.nan
            out[v, 4] = BB - AB * AB / AA if AA > 0 else 0.0
