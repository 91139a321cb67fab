"""Fisher information of the images on A, T and the field of a voxel, for standard deviations."""

from __future__ import annotations

import numpy as np

from rimap.estimators.mle.profile import highest_u, place_of
from rimap.estimators.table import SLOPE, VALUE
from rimap.estimators.table_kernels import FAST, Second, along_field, at_field, hermite, interval, schur
from rimap.kernels import njit

#: Columns of what `information` finds, with the field known: variances of A and u = log T and their covariance; how A and u
#: follow the field; the information on the field when they do; and Σ(s − f)².
VAR_A, VAR_U, COV_AU, A_ALONG_F, U_ALONG_F, INFO_F, SQUARES = range(7)
N_COLUMNS = 7
#: If less than this share of the sensitivity to u is independent of A, the images do not determine u.
SINGULAR = 1e-14


@njit(fastmath=FAST)
def information(S, shape, snr_step, info, F, u, A, out):  # type: ignore[no-untyped-def]
    """Set the columns of `out` (V, `N_COLUMNS`) at F, u and A (V); S (V, N) in units of σ.

    `info` (K) is the Fisher information of one value at f = 0, snr_step, 2 snr_step, …; the last one holds beyond.
    """
    powers, low, top = shape.powers, shape.low_u, highest_u(shape)
    for v in range(S.shape[0]):
        j, x = place_of(shape, F[v])
        k, t = interval(u[v], low, shape.step_u, powers[0].shape[1] - 1)
        h = hermite(t, shape.step_u)
        AA = Au = AF = uu = uF = FF = squares = 0.0
        for n in range(S.shape[1]):
            v0, v1 = at_field(powers, x, j, k, VALUE, 0, n), at_field(powers, x, j, k + 1, VALUE, 0, n)
            s0, s1 = at_field(powers, x, j, k, SLOPE, 0, n), at_field(powers, x, j, k + 1, SLOPE, 0, n)
            p0, p1 = along_field(powers, x, j, k, VALUE, 0, n), along_field(powers, x, j, k + 1, VALUE, 0, n)
            q0, q1 = along_field(powers, x, j, k, SLOPE, 0, n), along_field(powers, x, j, k + 1, SLOPE, 0, n)
            g = h.v0 * v0 + h.v1 * v1 + h.s0 * s0 + h.s1 * s1
            f_u = A[v] * (h.dv * (v0 - v1) + h.ds0 * s0 + h.ds1 * s1)
            f_F = A[v] * (h.v0 * p0 + h.v1 * p1 + h.s0 * q0 + h.s1 * q1) / shape.step_F
            f = abs(A[v] * g)
            place = min(f / snr_step, info.shape[0] - 1.001)
            i = int(place)
            c = info[i] + (place - i) * (info[i + 1] - info[i])
            AA += c * g * g
            Au += c * g * f_u
            AF += c * g * f_F
            uu += c * f_u * f_u
            uF += c * f_u * f_F
            FF += c * f_F * f_F
            squares += (S[v, n] - (f if shape.magnitude else A[v] * g)) ** 2
        out[v, SQUARES] = squares
        left = uu - Au * Au / AA if AA > 0 else 0.0
        found = low < u[v] < top and left > SINGULAR * uu
        w, A_along_F, u_along_F = schur(Second(AA, Au, AF, uu, uF, FF), found)
        out[v, INFO_F] = w
        if found:
            out[v, VAR_U], out[v, COV_AU] = 1 / left, -Au / (AA * left)
            out[v, VAR_A] = 1 / AA + Au * Au / (AA * AA * left)
            out[v, A_ALONG_F], out[v, U_ALONG_F] = A_along_F, u_along_F
        else:
            out[v, :INFO_F] = np.nan
