"""The general search: any model with one time, at most one field, and up to two amplitudes.

The whole box of (T, F) is searched on a coarse grid, whose nodes are as far apart as the shape lets them be. From its
best nodes a damped Newton iteration on the table of the series leads to the optimum, with the amplitudes solved within
their bounds (variable projection). A field that each voxel has for itself is taken from its map; the search is then
along T alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators.nlls.threads import Floats, Out, Work
from rimap.estimators.table import SLOPE, VALUE, ShapeTable, hermite_weights
from rimap.signals.base import SignalModel

#: Voxels that a thread takes at a time.
CHUNK = 1024
#: The same where the field of each voxel is known, which takes a tenth of the time.
LINE_CHUNK = 4096
#: Angle between neighbouring nodes of the coarse grid along (u, F), rad: of a smooth shape, and of a modulus, which has
#: kinks. A field can have many shallow optima, along a ridge across u.
ANGLE, ANGLE_OF_MODULUS = (0.07, 0.08), (0.05, 0.05)
#: How much of the largest turn along u and F counts everywhere: valleys where the shape turns little need nodes, too.
#: Without a field that is searched there is one line along u, and no valleys across it.
EVEN, EVEN_OF_MODULUS, EVEN_OF_LINE = (0.3, 0.1), (0.1, 0.1), 0.1
#: The least and the greatest number of nodes along an axis.
NODES, NODES_OF_MODULUS = (12, 160), (48, 384)
#: Part of an atom that the compressed basis of the coarse grid may leave out.
LEFT_OUT = 3e-3
#: Times at which the shape is smaller than this part of the largest are not searched: the table has only errors there.
FAINT = 1e-5


def grid_search(model: SignalModel, held: Mapping[str, float], fields: Floats | None, images: Floats, to: Out) -> Work:
    """Return the work on a chunk of voxels of images (N, M); the rows of `to` are (amplitudes, F, T) of what is
    estimated.

    Parameters
    ----------
    held
        The parameters that are known and alike in all voxels, amplitudes too.
    fields
        (M,) the field of each voxel if it has one for itself.

    Raises
    ------
    InputError
        If the model has more than two amplitudes.
    """
    from rimap.estimators.nlls import grid_kernels as kernels  # numba is slow to import
    from rimap.estimators.nlls.descent import Box, scratch
    from rimap.estimators.nlls.variable_projection import Grid

    amplitudes = model.amplitudes
    if len(amplitudes) > 2:
        names = ", ".join(parameter.name for parameter in amplitudes)
        raise InputError(f"{model.title}: expected at most two amplitudes for nlls, got {len(amplitudes)} ({names}).")
    table = ShapeTable.of(
        model, {key: value for key, value in held.items() if key not in {parameter.name for parameter in amplitudes}}
    )
    box = np.ones((2, 2))  # without an amplitude the signal is the shape itself: an amplitude of 1
    for index, amplitude in enumerate(amplitudes):
        box[index] = (held[amplitude.name],) * 2 if amplitude.name in held else amplitude.bounds
    free = [parameter.name not in held for parameter in amplitudes]
    moves = table.has_field and fields is None
    F_bounds = model.field.bounds if moves and model.field is not None else (0.0, 0.0)
    u, F = _axes(table, moves)
    problem = kernels.Problem(
        amplitudes=box,
        open_amplitudes=(bool(free[0]) if free else False, bool(free[1]) if len(free) > 1 else False),
        has_unit=bool(free),
        magnitude=bool(table.magnitude),
        box=Box(
            low_u=float(u[0]),
            high_u=float(u[-1]),
            low_F=float(F_bounds[0]),
            high_F=float(F_bounds[1]),
            cell_u=float(u[-1] - u[0]) / (len(u) - 1),
            cell_F=float(F[-1] - F[0]) / (len(F) - 1) if moves else 1.0,
            moves_F=moves,
        ),
        T_bounds=cast("tuple[float, float]", tuple(float(bound) for bound in model.time.bounds)),
        usual_F=float(model.field.start or 0.0) if moves and model.field is not None else 0.0,
        n_free=float(max(len(images) - sum(free) - 1 - moves, 1)),
    )
    grid, rows = Grid.of(table), kernels.Rows(to.kappa, to.sd, to.residual, to.status, to.rms)
    K, N = table.powers[0].shape[3:]
    if fields is not None and table.has_field:
        nodes, known = _line(table), np.asarray(fields, dtype=float)

        def along(voxels: NDArray[np.int64]) -> None:
            line = kernels.line_of(*nodes)
            kernels.fit_on_line(images, voxels, known, line, grid, problem, scratch(K, N), rows)

        return along
    coarse = kernels.Coarse._make((*_coarse(table, moves), (len(F), len(u))))

    def over(voxels: NDArray[np.int64]) -> None:
        lanes = kernels.lanes_for(coarse, N)
        kernels.fit_on_grid(images, voxels, coarse, grid, problem, lanes, scratch(K, N), rows)

    return over


def _columns(table: ShapeTable, u: Floats, F: Floats) -> Floats:
    """Return the shape as the images see it, (*X, N, K), at u and F (*X)."""
    from rimap.estimators.nlls.variable_projection import Grid, shapes_at

    u, F = np.broadcast_arrays(np.asarray(u, dtype=float), np.asarray(F, dtype=float))
    K, N = table.powers[0].shape[3:]
    g = np.empty((u.size, K, N))
    shapes_at(Grid.of(table), np.ascontiguousarray(u).reshape(-1), np.ascontiguousarray(F).reshape(-1), g)
    g = np.moveaxis(g.reshape(*u.shape, K, N), -2, -1)
    return np.asarray(abs(g) if table.magnitude else g)


def _fields(table: ShapeTable) -> Floats:
    """Return some fields within the box, 0 without one."""
    field = table.model.field
    return np.linspace(*field.bounds, 9) if table.has_field and field is not None else np.zeros(1)


def _orthonormal(g: Floats) -> tuple[Floats, Floats]:
    """Return q (*X, N, K) and the triangular factor (3, *X), with zeros where a column is zero or along the first
    one.
    """
    tiny = 1e-150
    r11 = np.sqrt((g[..., 0] ** 2).sum(-1))
    q = g / np.maximum(r11, tiny)[..., None, None]
    if g.shape[-1] == 1:
        return q, np.stack([r11, 0 * r11, 0 * r11])
    second = g[..., 1]
    r12 = (q[..., 0] * second).sum(-1)
    rest = second - r12[..., None] * q[..., 0]
    rest = rest - (q[..., 0] * rest).sum(-1)[..., None] * q[..., 0]
    r22 = np.sqrt((rest**2).sum(-1))
    q[..., 1] = np.where((r22 > 1e-7 * abs(r12))[..., None], rest / np.maximum(r22, tiny)[..., None], 0.0)
    return q, np.stack([r11, r12, r22])


def _distance(a: Floats, b: Floats) -> Floats:
    """Return the largest squared sine of the angles between the planes of a and b (*X, N, K), columns orthonormal."""
    inside = np.einsum("...nk,...nl->...kl", a, b)
    return np.asarray(np.clip((b**2).sum(-2) - (inside**2).sum(-2), 0, 1).max(-1))


def _spread(table: ShapeTable, bounds: tuple[float, float], axis: int, *, line: bool = False) -> Floats:
    """Return nodes of u (axis 0) or F (axis 1) between bounds, so that neighbours are about `ANGLE` apart everywhere.

    On a `line` only u is searched.
    """
    low, high = bounds
    fine = np.linspace(low, high, 257)
    others = _fields(table) if axis == 0 else np.linspace(table.low_u, table.high_u, 9)
    x, y = np.meshgrid(fine, others, indexing="ij")
    q, _ = _orthonormal(_columns(table, *((x, y) if axis == 0 else (y, x))))
    steps = np.sqrt(_distance(q[:-1], q[1:])).max(1)
    angle, (least, most) = (ANGLE_OF_MODULUS, NODES_OF_MODULUS) if table.magnitude else (ANGLE, NODES)
    even = EVEN_OF_LINE if line else (EVEN_OF_MODULUS if table.magnitude else EVEN)[axis]
    steps = steps + even * steps.max() + 1e-9  # nodes everywhere, closer where the shape turns
    length = np.concatenate([[0.0], np.cumsum(steps)])
    n = int(np.clip(np.ceil(length[-1] / angle[axis]) + 1, least, most))
    nodes = np.interp(np.linspace(0, length[-1], n), length, fine)
    nodes[0], nodes[-1] = low, high
    return np.asarray(nodes)


def _halfway(x: Floats) -> list[Floats]:
    """Return the middles before and after each node of an axis."""
    return [np.append(x[:1], (x[1:] + x[:-1]) / 2), np.append((x[1:] + x[:-1]) / 2, x[-1:])]


def _reach(table: ShapeTable, u: Floats, F: Floats) -> Floats:
    """Return the squared sine of the largest angle between each node and the places around it that are as near to
    others.
    """
    q, _ = _orthonormal(_columns(table, *np.meshgrid(u, F)))
    reach = np.zeros(q.shape[:2])
    for around_u in _halfway(u):
        for around_F in _halfway(F) if len(F) > 1 else [F]:
            reach = np.maximum(reach, _distance(q, _orthonormal(_columns(table, *np.meshgrid(around_u, around_F)))[0]))
    return reach


def _visible(table: ShapeTable) -> tuple[float, float]:
    """Return the bounds of u between which the shape is not `FAINT` for some field."""
    low, high = (float(v) for v in np.log(table.model.time.bounds))
    fine = np.linspace(low, high, 257)
    size = np.linalg.norm(_columns(table, *np.meshgrid(fine, _fields(table))), axis=(-2, -1)).max(0)
    seen = np.flatnonzero(size > FAINT * size.max())
    return (float(fine[seen[0]]), float(fine[seen[-1]])) if len(seen) else (low, high)


@lru_cache(maxsize=8)
def _axes(table: ShapeTable, moves_F: bool) -> tuple[Floats, Floats]:
    """Return the nodes along u, and those along F if the field is searched."""
    model = table.model
    u = _spread(table, _visible(table), axis=0, line=not moves_F)
    return u, _spread(table, model.field.bounds, axis=1) if moves_F and model.field is not None else np.zeros(1)


@lru_cache(maxsize=8)
def _coarse(table: ShapeTable, moves_F: bool) -> tuple[Any, ...]:
    """Return what `grid_kernels.Coarse` wants, but its shape.

    They are kept with the table: the slabs of a volume share them.
    """
    u, F = _axes(table, moves_F)
    at_u, at_F = np.meshgrid(u, F)
    q, factor = _orthonormal(_columns(table, at_u, at_F))
    G, N, K = at_u.size, q.shape[2], q.shape[3]
    columns = np.moveaxis(q.reshape(G, N, K), -1, 0)  # (K, G, N)
    # An orthonormal basis, the most important first: of each unit vector q as many coefficients count as leave out
    # LEFT_OUT.
    basis = np.linalg.eigh(np.einsum("kgn,kgm->nm", columns, columns, optimize=True))[1].T[::-1]
    atoms = np.zeros((K, G + -G % 4, N + -N % 4), np.float32)
    atoms[:, :G, :N] = columns @ basis.T
    left_out = np.sqrt(np.cumsum(atoms[..., ::-1] ** 2, axis=-1))[..., ::-1]  # from each coefficient on
    counts = (left_out > LEFT_OUT).sum(-1).reshape(K, -1, 4).max(-1)
    ranks = counts + -counts % 4
    rank = int(ranks.max())
    projection = np.zeros((rank, N + -N % 4), np.float32)
    projection[: min(rank, N), :N] = basis[:rank]
    tiny = np.finfo(np.float32).tiny  # not zero: an infinite bound times it is infinite
    factor = factor.reshape(3, G).astype(np.float32)
    factor[0] = np.maximum(factor[0], tiny)
    reach = np.ascontiguousarray(_reach(table, u, F).reshape(-1), dtype=np.float32)
    return (
        projection,
        np.ascontiguousarray(atoms[..., :rank]),
        ranks,
        factor,
        reach,
        np.ascontiguousarray(at_u.reshape(-1)),
        np.ascontiguousarray(at_F.reshape(-1)),
    )


@lru_cache(maxsize=8)
def _line(table: ShapeTable) -> tuple[Any, ...]:
    """Return powers, reach and u of nodes along u, as `grid_kernels.Line` wants them."""
    u, _ = _axes(table, False)
    place = np.clip((u - table.low_u) / table.step_u, 0, table.n_u - 1)
    k = np.minimum(place.astype(int), table.n_u - 2)
    w = hermite_weights(place - k, table.step_u)

    def along(p: NDArray[Any]) -> Floats:  # (J, G, 2, K, N) -> (J, K, N, 1, G)
        at = (w.v0[:, None, None] * p[:, k, VALUE] + w.v1[:, None, None] * p[:, k + 1, VALUE]
              + w.s0[:, None, None] * p[:, k, SLOPE] + w.s1[:, None, None] * p[:, k + 1, SLOPE])  # fmt: skip
        return np.ascontiguousarray(np.moveaxis(at, 1, -1)[..., None, :])

    return tuple(along(power) for power in table.powers), _reach(table, u, _fields(table)).max(0), u
