"""Fisher information of the images on A, T and the field of a voxel, for standard deviations."""

from __future__ import annotations

import numpy as np

from rimap.estimators.mle.profile import highest_u, place_of
from rimap.estimators.table_kernels import (
    FAST,
    Second,
    hermite,
    interval,
    nodes_along,
    nodes_at,
    schur,
    slope_of,
    value_of,
)
from rimap.kernels import njit

#: Columns of what `information` finds, with the field known: variances of A and u = log T and their covariance; how A
#: and u follow the field; the information on the field when they do; and Σ(s − f)².
VAR_A, VAR_U, COV_AU, A_ALONG_F, U_ALONG_F, INFO_F, SQUARES = range(7)
#: Numbers that the kernel writes for each voxel: see `information`.
N_COLUMNS = 7
#: If less than this share of the sensitivity to u is independent of A, the images do not determine u.
SINGULAR = 1e-14


@njit(fastmath=FAST, counts_references=False)
def information(S, shape, snr_step, info, F, u, A, out):  # type: ignore[no-untyped-def]
    """Set the columns of `out` (V, `N_COLUMNS`) at F, u and A (V); S (V, N) in units of σ.

    `info` (K) is the Fisher information of one value at f = 0, snr_step, 2 snr_step, …; the last one holds beyond.
    """
    powers, low, top = shape.powers, shape.low_u, highest_u(shape)
    for voxel in range(S.shape[0]):
        # between nodes of the field the table holds polynomials
        cell_F, past_F = place_of(shape, F[voxel])
        node, past_node = interval(u[voxel], low, shape.step_u, powers[0].shape[1] - 1)
        weights = hermite(past_node, shape.step_u)
        H_AA = H_Au = H_AF = H_uu = H_uF = H_FF = squares = 0.0
        for image in range(S.shape[1]):
            here = nodes_at(powers, past_F, cell_F, node, 0, image)
            along_F = nodes_along(powers, past_F, cell_F, node, 0, image)
            g = value_of(weights, here)
            f_u = A[voxel] * slope_of(weights, here)
            f_F = A[voxel] * value_of(weights, along_F) / shape.step_F
            f = abs(A[voxel] * g)
            place = min(f / snr_step, info.shape[0] - 1.001)
            i = int(place)
            c = info[i] + (place - i) * (info[i + 1] - info[i])
            H_AA += c * g * g
            H_Au += c * g * f_u
            H_AF += c * g * f_F
            H_uu += c * f_u * f_u
            H_uF += c * f_u * f_F
            H_FF += c * f_F * f_F
            squares += (S[voxel, image] - (f if shape.magnitude else A[voxel] * g)) ** 2
        out[voxel, SQUARES] = squares
        left = H_uu - H_Au * H_Au / H_AA if H_AA > 0 else 0.0
        found = low < u[voxel] < top and left > SINGULAR * H_uu
        # A and u follow the field: what is left is the information on F alone (Schur complement)
        w, A_along_F, u_along_F = schur(Second(H_AA, H_Au, H_AF, H_uu, H_uF, H_FF), found)
        out[voxel, INFO_F] = w
        if found:
            out[voxel, VAR_U], out[voxel, COV_AU] = 1 / left, -H_Au / (H_AA * left)
            out[voxel, VAR_A] = 1 / H_AA + H_Au * H_Au / (H_AA * H_AA * left)
            out[voxel, A_ALONG_F], out[voxel, U_ALONG_F] = A_along_F, u_along_F
        else:
            out[voxel, :INFO_F] = np.nan
