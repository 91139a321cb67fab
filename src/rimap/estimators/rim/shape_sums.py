# mypy: allow-untyped-calls
"""The sums of `data_term` for every model: any number of amplitudes, any field, given maps, from the table of the
shape.
"""

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
#: Voxels of one task.
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
    """How many amplitudes there are; whether the signal is a modulus, the noise is Rician, the field is estimated, and
    its coordinate is its logarithm."""

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
        layout, (n_parameters, n_voxels) = self.layout, carried.shape
        n_amplitudes = layout.n_amplitudes
        field = self.given_field if layout.field is None else carried[n_amplitudes].astype(float)
        field = np.zeros(n_voxels) if field is None else field
        sigmas = np.ones(1, np.float32) if self.sigmas is None else self.sigmas
        kind = _Kind(
            n_amplitudes,
            self.model.magnitude,
            self.sigmas is not None,
            layout.field is not None,
            layout.in_log_of_field,
        )
        out = np.empty((n_parameters + n_parameters * (n_parameters + 1) // 2 + 1, n_voxels), np.float32)
        ratio = bessel_ratio_table()
        for table, where in self.groups:
            grid = _Grid(table.low_u, table.step_u, table.n_u, table.low_F, table.step_F, table.n_intervals)
            all_of_them = where is None
            at = np.arange(n_voxels) if where is None else where
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
        return Sums(out[:n_parameters], out[n_parameters:-1], out[-1])


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
    rounded = {key: levels(value, model, key)[:2] for key, value in maps.items()}
    codes = np.stack([where for _, where in rounded.values()])
    combinations, group = np.unique(codes, axis=1, return_inverse=True)
    found: list[tuple[ShapeTable, NDArray[np.intp] | None]] = []
    for index, code in enumerate(combinations.T):
        held = {key: float(middles[max(c, 0)]) for (key, (middles, _)), c in zip(rounded.items(), code) if len(middles)}
        found.append((ShapeTable.of(model, numbers | held), np.flatnonzero(group.reshape(-1) == index)))
    return found


@njit(nogil=True, cache=True, fastmath=FAST)
def _sums_of_voxels(tables, grid, kind, images, carried, field, sigma, out):  # type: ignore[no-untyped-def]
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
    n_parameters, (n_voxels, n_images) = carried.shape[0], images.shape
    n_amplitudes, columns = kind.n_amplitudes, powers[0].shape[3]
    derivatives, total = np.empty(n_parameters), np.empty(out.shape[0])
    for voxel in range(n_voxels):
        node, past_node = interval(np.log(carried[n_parameters - 1, voxel]), grid.low_u, grid.step_u, grid.n_u - 1)
        past_node = min(max(past_node, 0.0), 1.0)
        # cubic Hermite interpolation in u = log T between two nodes of the table
        weights = hermite(past_node, grid.step_u)
        # between nodes of the field the table holds polynomials
        cell_F, past_F = interval(field[voxel], grid.low_F, grid.step_F, grid.n_F)
        scale = field[voxel] / grid.step_F if kind.log_field else 1.0 / grid.step_F
        inverse = 1.0 / (sigma[voxel] * sigma[voxel]) if kind.rician else 1.0
        total[:] = 0.0
        for image in range(n_images):
            f = along_u = along_F = 0.0
            for c in range(columns):
                value_0, value_1 = (
                    at_field(powers, past_F, cell_F, node, VALUE, c, image),
                    at_field(powers, past_F, cell_F, node + 1, VALUE, c, image),
                )
                slope_0, slope_1 = (
                    at_field(powers, past_F, cell_F, node, SLOPE, c, image),
                    at_field(powers, past_F, cell_F, node + 1, SLOPE, c, image),
                )
                g = weights.v0 * value_0 + weights.v1 * value_1 + weights.s0 * slope_0 + weights.s1 * slope_1
                A = np.float32(1)  # without an amplitude
                if n_amplitudes:
                    A = carried[c, voxel]
                    derivatives[c] = g
                f += A * g
                along_u += A * (weights.dv * (value_0 - value_1) + weights.ds0 * slope_0 + weights.ds1 * slope_1)
                if kind.has_field:
                    value_0, value_1 = (
                        along_field(powers, past_F, cell_F, node, VALUE, c, image),
                        along_field(powers, past_F, cell_F, node + 1, VALUE, c, image),
                    )
                    slope_0, slope_1 = (
                        along_field(powers, past_F, cell_F, node, SLOPE, c, image),
                        along_field(powers, past_F, cell_F, node + 1, SLOPE, c, image),
                    )
                    along_F += A * (
                        weights.v0 * value_0 + weights.v1 * value_1 + weights.s0 * slope_0 + weights.s1 * slope_1
                    )
            if kind.has_field:
                derivatives[n_amplitudes] = along_F * scale
            derivatives[n_parameters - 1] = along_u
            y = images[voxel, image]
            s = -y if (kind.modulus and f < 0.0) else y
            total[-1] += (f - s) * (f - s)
            residual = f - s * bessel_ratio(np.float32(s * f * inverse), ratio) if kind.rician else f - s
            row = n_parameters
            for parameter in range(n_parameters):
                total[parameter] += residual * derivatives[parameter]
                for index in range(parameter, n_parameters):
                    total[row] += derivatives[parameter] * derivatives[index]
                    row += 1
        out[:, voxel] = total
