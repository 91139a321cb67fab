"""The cone search: the global optimum for a model that is linear in its field, or has none.

For each T and each polarity of the images the problem is linear in A and A·F, so T and polarity are searched and the
rest follows. Barral et al. 2010, doi:10.1002/mrm.22497, search T1 and polarity in the same way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.nlls.conic.kernel_arguments import Around, Chunk, Cone, Line, Maps, Nodes, Plan, Queues, Scale
from rimap.estimators.nlls.conic.tables import LineTable, cone_table, line_table
from rimap.estimators.nlls.reduced_model import Reduced
from rimap.estimators.nlls.threads import Floats, Out, Work
from rimap.series import Status

#: Voxels that a thread takes at a time, for 31 images: what its cache holds.
CHUNK = 4096
#: How often a climb may continue elsewhere.
ROUNDS = 5


def chunk_for(n_images: int) -> int:
    """Return how many voxels a thread takes at a time."""
    return CHUNK * min(max(32 // (n_images + 2), 1), 2)


def cone_search(model: Reduced, images: Floats, to: Out) -> Work:
    """Return the work on a chunk of voxels of images (N, M); the rows of `to` are (A, F, T), or (A, T) without a
    field.
    """
    from rimap.estimators.nlls.conic import (
        careful_search,
        climb_kernels,
        finish_kernels,
        no_field_kernels,
        scan_kernels,  # numba is slow to import
    )
    from rimap.estimators.nlls.conic.polynomials import LANES

    table = cone_table(model)
    N, J = len(images), len(table.t)
    free = max(N - model.n_parameters, 1)
    flips, has_field = N if table.flips else 0, int(table.has_field)
    # Images at one value of the axis change sign together.
    repeats = int(np.unique(model.model.times, return_counts=True)[1].max())
    span = 2 if repeats == 1 else repeats + 1
    # Padded as the kernels want them.
    order = np.concatenate([table.order, np.full((J, 4), N)], axis=1)
    cone = Cone(
        nodes=Nodes(
            plane=np.concatenate([table.nodes, np.zeros((J, 3, 1), np.float32)], axis=2),
            edge=table.edge,
            upper=np.concatenate([table.upper, np.zeros((J, 1), np.float32)], axis=1),
            last=table.last,
            order=order,
        ),
        around=Around(table.basis, table.scalars, table.limits, order),
        scale=Scale(table.scalars, table.t, table.width),
        reach=table.reach,
        drift=table.drift,
        rank=np.argsort(table.order, axis=1),
        lean=table.lean,
        padded=np.concatenate([table.basis, np.zeros((J, -N % 4, 16))], axis=1),
    )
    low_F, high_F = table.F_bounds
    plan = Plan(flips, span, has_field, float(low_F), float(high_F), float(free))
    maps = Maps(to.kappa, to.sd, to.residual, to.status, to.rms)
    line = None if has_field else _padded(line_table(model))

    def work(voxels: NDArray[np.int64]) -> None:
        w = _take(N, LANES)
        fit(voxels, w)
        _SPACES.append(w)

    def fit(voxels: NDArray[np.int64], w: _Space) -> None:
        n_lanes = len(voxels)
        blocks, ids = w.blocks[: -(-n_lanes // LANES)], w.everywhere[: -(-n_lanes // LANES) * LANES]
        chunk = Chunk(voxels, w.rows, w.scale, w.total, w.kind, w.goal, w.low, w.best, w.left)
        if line is None:
            scan_kernels.load(images, voxels, blocks, w.rows, w.scale, w.total, w.kind, maps.rms)
        else:
            count = no_field_kernels.fit_line(images, blocks, chunk, line, maps, w.again)
            if not count:
                return
            ids = w.again[: -(-count // LANES) * LANES]
            ids[count:] = -1
            blocks = w.blocks[: len(ids) // LANES]
            for b in range(len(blocks)):
                scan_kernels.gather(w.rows, ids[b * LANES : (b + 1) * LANES], False, blocks[b])
        w.left[:], w.best[:], w.best[:, 0] = 0, 0.0, -1.0
        now, then, mains, rivals, odd = w.tasks
        count, c, r = scan_kernels.scan(blocks, ids, chunk, cone, plan, now, mains, rivals)
        now[count : count + c] = mains[:c]
        count, odds = count + c, 0
        for turn in range(ROUNDS):
            count, odds = climb_kernels.climb(Queues(now, w.index, then, odd), count, odds, chunk, cone, plan)
            if turn == 0 and r:
                count = scan_kernels.weed(rivals, r, w.best, w.total, free, span, then, count)
            now, then = then, now
            if not count:
                break
        for tasks, many in ((odd, odds), (now, count)):
            if many:
                careful_search.settle(tasks, many, chunk, cone, plan)
        w.left[(w.best[:, 0] <= 0) & (w.kind <= 0)] = 1  # not found: the last resort
        ids = ids[ids >= 0][:n_lanes] if has_field else ids[ids >= 0]
        finish_kernels.finish(ids, chunk, cone, plan, maps)
        ids = ids[w.left[ids] > 0]
        if len(ids):
            careful_search.search(ids, chunk, cone, plan, maps)

    return work


def _padded(table: LineTable) -> Line:
    """Return a table as the kernels want it: N a multiple of three."""
    pad = -table.basis.shape[1] % 3
    slopes = np.concatenate([table.slopes, np.zeros((len(table.slopes), pad), np.float32)], axis=1)
    basis = np.concatenate([table.basis, np.zeros((len(table.basis), pad, 8))], axis=1)
    return Line(slopes, basis, table.maps, table.exact)


class _Space:
    """What a thread needs for a chunk of voxels, to be used again and again: new memory costs time."""

    def __init__(self, N: int, lanes: int) -> None:
        self.N = N
        M = -(-chunk_for(N) // lanes) * lanes
        self.blocks, self.rows = np.empty((M // lanes, N + 1, lanes), np.float32), np.empty((M, N), np.float32)
        self.scale, self.total = np.empty(M), np.empty(M)
        self.goal, self.low = np.empty(M, np.float32), np.empty(M, np.float32)
        self.kind, self.left, self.best = (
            np.full(M, Status.NO_SIGNAL, np.int64),
            np.empty(M, np.uint8),
            np.zeros((M, 8)),
        )
        self.tasks = [np.empty((most * M, 8), np.int32) for most in (60, 60, 1, 48, 60)]
        self.index = np.empty(60 * M, np.int32)
        self.everywhere, self.again = np.arange(M), np.empty(M + lanes, np.int64)


#: Those that no thread is using.
_SPACES: list[_Space] = []


def _take(N: int, lanes: int) -> _Space:
    """Return a space for N images; those for another number are let go."""
    while True:
        try:
            space = _SPACES.pop()
        except IndexError:
            return _Space(N, lanes)
        if space.N == N:
            return space
