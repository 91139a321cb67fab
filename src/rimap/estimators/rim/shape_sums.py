# mypy: allow-untyped-calls
"""The sums of `data_term` for every model: any number of amplitudes, any field, given maps, from the table of the shape."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.rim.data_term import Sums, bessel_ratio, bessel_ratio_table, in_chunks
from rimap.estimators.rim.layout import Layout
from rimap.estimators.table import SLOPE, VALUE, ShapeTable, levels
from rimap.estimators.table_kernels import FAST, along_field, at_field, hermite, interval
from rimap.kernels import njit
from rimap.signals.base import SignalModel

F32 = NDArray[np.float32]
_CHUNK = 2048


class _Grid(NamedTuple):
    """Where the nodes of a table are: along log T, and along the field."""

    low_u: float
    step_u: float
    n_u: int
    low_F: float
    step_F: float
    n_F: int


class _Kind(NamedTuple):
    """How many amplitudes there are; whether the signal is a modulus, the noise is Rician, the field is estimated, and its
    coordinate is its logarithm."""

    n_amplitudes: int
    modulus: bool
    rician: bool
    has_field: bool
    log_field: bool


class ShapeSums:
    """The sums at any estimate of voxels (P, M).

    Parameters
    ----------
    model
        The signal model.
    S
        The images (N, *X) of M voxels.
    sigmas
        (M,) for Rician noise, `None` for Gaussian noise.
    known
        Parameters that are given: numbers or maps that broadcast against (*X), by name. Of further parameters than one
        field, maps are rounded to levels (`rimap.estimators.table.levels`).
    """

    def __init__(self, model: SignalModel, S: F32, sigmas: F32 | None, known: Mapping[str, Any]) -> None:
        self.model, self.layout = model, Layout.of(model)
        X = S.shape[1:]
        self.voxels = np.ascontiguousarray(S.reshape(len(S), -1).T, np.float32)
        self.sigmas = sigmas
        axis = None if model.field is None else model.field.name
        self.given_field: NDArray[np.float64] | None = None
        if axis is not None and axis in known and self.layout.field is None:
            self.given_field = np.broadcast_to(np.asarray(known[axis], np.float64), X).reshape(-1)
        further = {key: value for key, value in known.items() if key != axis}
        self.groups = list(_groups(model, further, X))

    def __call__(self, carried: F32, executor: Executor | None = None) -> Sums:
        """Return the sums at an estimate (P, M)."""
        layout, (P, M) = self.layout, carried.shape
        K = layout.n_amplitudes
        field = self.given_field if layout.field is None else carried[K].astype(float)
        field = np.zeros(M) if field is None else field
        sigmas = np.ones(1, np.float32) if self.sigmas is None else self.sigmas
        kind = _Kind(
            K,
            self.model.magnitude,
            self.sigmas is not None,
            layout.field is not None,
            layout.field is not None and layout.field.transform == "log",
        )
        out = np.empty((P + P * (P + 1) // 2 + 1, M), np.float32)
        ratio = bessel_ratio_table()
        for table, where in self.groups:
            grid = _Grid(table.low_u, table.step_u, table.n_u, table.low_F, table.step_F, table.n_intervals)
            all_of_them = where is None
            at = np.arange(M) if where is None else where
            part = out if all_of_them else np.empty((len(out), len(at)), np.float32)

            def run(start: int, table: ShapeTable = table, grid: _Grid = grid, at: Any = at, part: Any = part) -> None:
                here = at[start : start + _CHUNK]
                s = sigmas[here] if kind.rician else sigmas
                images, estimate = self.voxels[here], carried[:, here]
                result = part[:, start : start + _CHUNK]
                _sums_of_voxels((table.powers, ratio), grid, kind, images, estimate, field[here], s, result)

            in_chunks(run, range(0, len(at), _CHUNK), executor)
            if not all_of_them:
                out[:, at] = part
        return Sums(out[:P], out[P:-1], out[-1])


def _groups(
    model: SignalModel, further: Mapping[str, Any], X: tuple[int, ...]
) -> list[tuple[ShapeTable, NDArray[np.intp] | None]]:
    """Return the tables, and the voxels that each serves; `None` for all."""
    maps = {
        key: np.broadcast_to(np.asarray(value, float), X).reshape(-1)
        for key, value in further.items()
        if np.ndim(value)
    }
    numbers = {key: float(value) for key, value in further.items() if not np.ndim(value)}
    if not maps:
        return [(ShapeTable.of(model, numbers), None)]
    rounded = {key: levels(value) for key, value in maps.items()}
    codes = np.stack([where for _, where in rounded.values()])
    combinations, group = np.unique(codes, axis=1, return_inverse=True)
    found: list[tuple[ShapeTable, NDArray[np.intp] | None]] = []
    for index, code in enumerate(combinations.T):
        held = {key: float(middles[max(c, 0)]) for (key, (middles, _)), c in zip(rounded.items(), code) if len(middles)}
        found.append((ShapeTable.of(model, numbers | held), np.flatnonzero(group.reshape(-1) == index)))
    return found


@njit(nogil=True, cache=True, fastmath=FAST)
def _sums_of_voxels(tables, grid, kind, images, carried, field, sigma, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Fill `out` (P + P(P+1)/2 + 1, M) with g, the upper triangle of H and Σ(|f| − S)² of each voxel.

    Parameters
    ----------
    tables, grid
        The powers of a `ShapeTable` and the table of I₁/I₀; the nodes.
    images
        (M, N).
    carried, field
        The estimate (P, M), and the field of each voxel (M), estimated or given.
    sigma
        (M) for Rician noise.
    """
    powers, ratio = tables
    P, (M, N) = carried.shape[0], images.shape
    K, columns = kind.n_amplitudes, powers[0].shape[3]
    d, total = np.empty(P), np.empty(out.shape[0])
    for m in range(M):
        k, t = interval(np.log(carried[P - 1, m]), grid.low_u, grid.step_u, grid.n_u - 1)
        t = min(max(t, 0.0), 1.0)
        w = hermite(t, grid.step_u)
        j, x = interval(field[m], grid.low_F, grid.step_F, grid.n_F)
        scale = field[m] / grid.step_F if kind.log_field else 1.0 / grid.step_F
        inverse = 1.0 / (sigma[m] * sigma[m]) if kind.rician else 1.0
        total[:] = 0.0
        for n in range(N):
            f = along_u = along_F = 0.0
            for c in range(columns):
                v0, v1 = at_field(powers, x, j, k, VALUE, c, n), at_field(powers, x, j, k + 1, VALUE, c, n)
                s0, s1 = at_field(powers, x, j, k, SLOPE, c, n), at_field(powers, x, j, k + 1, SLOPE, c, n)
                g = w.v0 * v0 + w.v1 * v1 + w.s0 * s0 + w.s1 * s1
                A = np.float32(1)  # without an amplitude
                if K:
                    A = carried[c, m]
                    d[c] = g
                f += A * g
                along_u += A * (w.dv * (v0 - v1) + w.ds0 * s0 + w.ds1 * s1)
                if kind.has_field:
                    v0, v1 = along_field(powers, x, j, k, VALUE, c, n), along_field(powers, x, j, k + 1, VALUE, c, n)
                    s0, s1 = along_field(powers, x, j, k, SLOPE, c, n), along_field(powers, x, j, k + 1, SLOPE, c, n)
                    along_F += A * (w.v0 * v0 + w.v1 * v1 + w.s0 * s0 + w.s1 * s1)
            if kind.has_field:
                d[K] = along_F * scale
            d[P - 1] = along_u
            y = images[m, n]
            s = -y if (kind.modulus and f < 0.0) else y
            total[-1] += (f - s) * (f - s)
            r = f - s * bessel_ratio(np.float32(s * f * inverse), ratio) if kind.rician else f - s
            row = P
            for p in range(P):
                total[p] += r * d[p]
                for q in range(p, P):
                    total[row] += d[p] * d[q]
                    row += 1
        out[:, m] = total
