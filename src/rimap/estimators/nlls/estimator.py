"""Voxelwise nonlinear least squares, to the global optimum."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators.base import Estimator, Progress, conditioning_warnings, model_warnings
from rimap.estimators.checks.misfit import misfit_warnings
from rimap.estimators.checks.noise_floor import noise_floor_warnings
from rimap.estimators.nlls import multistart
from rimap.estimators.nlls.conic.tables import LineTable, cone_table, line_table, suits
from rimap.estimators.sigma import estimate_sigma
from rimap.likelihood import Gaussian, Noise, cramer_rao_sd
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

#: Voxels that a thread takes at a time, for 31 images: what its cache holds.
CHUNK = 4096
#: How often a climb may continue elsewhere.
ROUNDS = 5

Floats = NDArray[Any]
Bytes = NDArray[np.uint8]
Work = Callable[[NDArray[np.int64]], None]


@dataclass(frozen=True, kw_only=True)
class NLLS(Estimator):
    """Least squares in every voxel by itself: κ̂ = argmin Σₙ (Sₙ − fₙ(κ))² within the box of the parameters.

    For a model with a `basis` the global optimum is found: for each T and each polarity of the images the
    problem is linear in A and A·B, so T and polarity are searched and the rest follows. For magnitude images
    without negative values, Σ(S − |f|)² is the least over all polarities of Σ(±S − f)². Images with negative
    values (noise added after the modulus) are searched over the polarities that the model itself has.
    Any other model is fitted from many starts, slowly.

    Standard deviations are those of the Cramér-Rao bound at the estimate; at a bound they are NaN.

    Parameters
    ----------
    threads
        How many; as many as there are processors where it is left out.

    References
    ----------
    Barral et al. 2010, doi:10.1002/mrm.22497: the reduced-dimension search over T1 and polarity.

    Examples
    --------
    >>> from rimap import InversionRecovery, WeightedSeries
    >>> model = InversionRecovery(tau=[50, 200, 500, 1000, 2500])
    >>> images = model.signal([[100.0], [1.9], [800.0]])
    >>> maps = NLLS().estimate(WeightedSeries(images=images, model=model))
    >>> {name: float(value[0].round(2)) for name, value in maps.items()}
    {'A': 100.0, 'B': 1.9, 'T1': 800.0}
    """

    threads: int | None = None

    name: ClassVar[str] = "nlls"
    title: ClassVar[str] = "Nonlinear least squares"

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be 1 or more; {self.threads} came.")

    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series, with standard deviations, residual and σ."""
        maps, rms = _fit(series, self.threads, progress)
        return self._finish(series, maps, rms, out=maps.sd_kappa)

    def piece(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a slab: those of the whole, cut, up to `finish`."""
        return least_squares(series, threads=self.threads, progress=progress)

    def finish(self, series: WeightedSeries, maps: ParameterMaps) -> ParameterMaps:
        """Return the maps of the whole with what needs the whole: σ, the standard deviations, warnings."""
        return self._finish(series, maps)

    def _finish(
        self, series: WeightedSeries, maps: ParameterMaps, rms: Floats | None = None, out: Floats | None = None
    ) -> ParameterMaps:
        noise, source, found = noise_of(series, maps, rms)
        maps = replace(
            maps,
            sd_kappa=sd_for(series.model, maps, noise, out),
            noise=noise,
            sigma_source=source,
            estimator=self.name,
            settings=asdict(self),
        )
        doubts = (
            *conditioning_warnings(series, maps),
            *noise_floor_warnings(series, maps),
            *misfit_warnings(series, maps),
        )
        return replace(maps, warnings=(*model_warnings(series.model), *found, *doubts))


def least_squares(
    series: WeightedSeries, *, threads: int | None = None, progress: Progress | None = None
) -> ParameterMaps:
    """Return the least-squares maps of a series; their `sd_kappa` are for σ = 1."""
    return _fit(series, threads, progress)[0]


def _fit(series: WeightedSeries, threads: int | None, progress: Progress | None) -> tuple[ParameterMaps, Floats | None]:
    """Return the maps, and the root mean square of the images (*X) where it is known."""
    model, fast = series.model, suits(series.model)
    images, mask, unflatten = _flat(series)
    Q, M, size = len(model.parameters), images.shape[1], _chunk(model.n_images) if fast else multistart.CHUNK
    everywhere = bool(mask.all())
    voxels = None if everywhere else np.flatnonzero(mask)
    many = M if voxels is None else len(voxels)
    chunks = (np.arange(i, min(i + size, M)) if voxels is None else voxels[i : i + size] for i in range(0, many, size))
    values = np.empty((2 * Q + 1, M)) if everywhere else np.full((2 * Q + 1, M), np.nan)  # new memory costs time
    status, rms = np.full(M, Status.OUTSIDE_MASK, np.uint8), np.zeros(M, images.dtype)
    kappa, sd, residual = values[:Q], values[Q : 2 * Q], values[2 * Q]
    writes_all = fast and Q == 2
    out = (kappa, sd, residual, status)
    fit = _cone_search(model, images, rms, *out) if fast else _any_model(model, images, *out)

    def work(chunk: NDArray[np.int64]) -> None:
        if everywhere and not writes_all:
            values[:, chunk[0] : chunk[-1] + 1] = np.nan
        fit(chunk)

    _share(work, chunks, many, min(threads or _cores(), -(-many // size)), progress)
    maps = ParameterMaps(
        kappa=unflatten(kappa),
        model=model,
        status=unflatten(status),
        sd_kappa=unflatten(sd),
        residual=unflatten(residual),
        affine=series.affine,
        estimator=NLLS.name,
    )
    return maps, unflatten(rms) if fast else None


def _flat(series: WeightedSeries) -> tuple[Floats, NDArray[np.bool_], Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return the images (N, M) and the mask (M), without a copy if they lie in C or Fortran order, and the way back."""
    images, mask = series.images, series.selected
    backwards = (0, *range(images.ndim - 1, 0, -1))
    turned = not images.flags.c_contiguous and images.transpose(backwards).flags.c_contiguous
    if turned:
        images, mask = images.transpose(backwards), mask.T
    X = mask.shape

    def unflatten(a: NDArray[Any]) -> NDArray[Any]:
        a = a.reshape(a.shape[:-1] + X)
        if not turned:
            return a
        return np.ascontiguousarray(a.T if a.ndim == len(X) else a.transpose(backwards))

    return np.ascontiguousarray(images).reshape(len(images), -1), mask.reshape(-1), unflatten


def _share(
    work: Work, chunks: Iterator[NDArray[np.int64]], total: int, threads: int, progress: Progress | None
) -> None:
    """Do the chunks on this thread and others: the kernels release the GIL."""
    done, lock = 0, threading.Lock()

    def drain(progress: Progress | None = None) -> None:
        nonlocal done
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            work(chunk)
            with lock:
                done += len(chunk)
            if progress:
                progress(done, total)

    if threads == 1:
        drain(progress)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        futures = [pool.submit(drain) for _ in range(threads - 1)]
        try:
            drain(progress)
            for future in futures:
                future.result()
        finally:  # after an interrupt there is nothing more to do
            chunks = iter(())
    if progress:
        progress(done, total)


def _chunk(N: int) -> int:
    return CHUNK * min(max(32 // (N + 2), 1), 2)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cone_search(
    model: SignalModel, images: Floats, rms: Floats, kappa: Floats, sd: Floats, residual: Floats, status: Bytes
) -> Work:
    """Return the work on a chunk of voxels for a separable model."""
    from rimap.estimators.nlls.conic import careful as nlls_kernels
    from rimap.estimators.nlls.conic import climb as nlls_climb
    from rimap.estimators.nlls.conic import finish as nlls_finish
    from rimap.estimators.nlls.conic import line as nlls_line
    from rimap.estimators.nlls.conic import scan as nlls_scan  # numba is slow to import
    from rimap.estimators.nlls.conic.polynomials import LANES

    table = cone_table(model)
    N, J, free = model.n_images, len(table.t), max(model.n_images - len(model.parameters), 1)
    flips, has_B = N if table.flips else 0, int(table.has_B)
    # Images at one time change sign together.
    repeats = int(np.unique(model.times, return_counts=True)[1].max())
    span = 2 if repeats == 1 else repeats + 1
    # Padded as the kernels want them.
    order = np.concatenate([table.order, np.full((J, 4), N)], axis=1)
    rank = np.argsort(table.order, axis=1)
    nodes = np.concatenate([table.nodes, np.zeros((J, 3, 1), np.float32)], axis=2)
    upper = np.concatenate([table.upper, np.zeros((J, 1), np.float32)], axis=1)
    basis = np.concatenate([table.basis, np.zeros((J, -N % 4, 16))], axis=1)
    cones = (nodes, table.edge, upper, table.last, table.reach)
    out = (kappa, sd, residual, status)
    line = None if has_B else _padded(line_table(model))

    def work(voxels: NDArray[np.int64]) -> None:
        w = _take(N, LANES)
        fit(voxels, w)
        _SPACES.append(w)

    def fit(voxels: NDArray[np.int64], w: _Space) -> None:
        m = len(voxels)
        blocks, ids = w.blocks[: -(-m // LANES)], w.everywhere[: -(-m // LANES) * LANES]
        if line is None:
            nlls_scan.load(images, voxels, blocks, w.rows, w.scale, w.total, w.kind, rms)
        else:
            count = nlls_line.fit_line(
                images, voxels, blocks, w.rows, w.scale, w.total, w.kind, rms, *line, *out, w.again
            )
            if not count:
                return
            ids = w.again[: -(-count // LANES) * LANES]
            ids[count:] = -1
            blocks = w.blocks[: len(ids) // LANES]
            for b in range(len(blocks)):
                nlls_scan.gather(w.rows, ids[b * LANES : (b + 1) * LANES], False, blocks[b])
        w.left[:], w.best[:], w.best[:, 0] = 0, 0.0, -1.0
        now, then, mains, rivals, odd = w.tasks
        count, c, r = nlls_scan.scan(
            blocks, ids, w.kind, *cones, order, flips, table.drift, free, w.goal, w.low, now, mains, rivals, w.left
        )
        now[count : count + c] = mains[:c]
        count, odds = count + c, 0
        for turn in range(ROUNDS):
            count, odds = nlls_climb.climb(
                now, count, w.index, w.rows, w.total, table.limits, basis, table.scalars, order, rank, table.lean, flips,
                has_B, span, nodes, table.edge, table.last, table.reach, w.goal, w.low, w.best, w.left, then, odd, odds,
            )  # fmt: skip
            if turn == 0 and r:
                count = nlls_scan.weed(rivals, r, w.best, w.total, free, span, then, count)
            now, then = then, now
            if not count:
                break
        for tasks, many in ((odd, odds), (now, count)):
            if many:
                nlls_kernels.settle(
                    tasks, many, w.rows, flips, span, order, table.basis, table.scalars, table.t, table.limits, w.best
                )
        w.left[(w.best[:, 0] <= 0) & (w.kind <= 0)] = 1  # not found: the last resort
        bounds = (*table.B_bounds, has_B)
        ids = ids[ids >= 0][:m] if has_B else ids[ids >= 0]
        nlls_finish.finish(
            ids, w.best, w.left, w.kind, w.scale, w.total, voxels, w.rows, flips, table.t, table.width, table.basis,
            table.scalars, *bounds, *out,
        )  # fmt: skip
        ids = ids[w.left[ids] > 0]
        if len(ids):
            nlls_kernels.search(
                w.rows, ids, w.kind, w.scale, voxels, table.t, table.width, table.limits, table.basis, table.scalars,
                order, *cones, *bounds, flips, span, *out,
            )  # fmt: skip

    return work


def _padded(table: LineTable) -> tuple[Floats, Floats, Floats, Floats]:
    """Return slopes, basis, maps and exact of a table, as the kernels want them: N a multiple of three."""
    pad = -table.basis.shape[1] % 3
    slopes = np.concatenate([table.slopes, np.zeros((len(table.slopes), pad), np.float32)], axis=1)
    basis = np.concatenate([table.basis, np.zeros((len(table.basis), pad, 8))], axis=1)
    return slopes, basis, table.maps, table.exact


class _Space:
    """What a thread needs for a chunk of voxels, to be used again and again: new memory costs time."""

    def __init__(self, N: int, lanes: int) -> None:
        self.N = N
        M = -(-_chunk(N) // lanes) * lanes
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


def _any_model(model: SignalModel, images: Floats, kappa: Floats, sd: Floats, residual: Floats, status: Bytes) -> Work:
    """Return the work on a chunk of voxels for a model that is not separable."""

    def work(voxels: NDArray[np.int64]) -> None:
        S = images[:, voxels].astype(np.float64)
        finite = np.isfinite(S).all(0)
        size = np.where(finite, abs(S).max(0), 0.0)
        status[voxels] = np.where(finite, Status.NO_SIGNAL, Status.NOT_FINITE)
        good = size > 0
        if good.any():
            v, unit = voxels[good], size[good]
            kappa[:, v], sd[:, v], cost, status[v] = multistart.fit_block(model, S[:, good] / unit)
            residual[v] = np.sqrt(cost / model.n_images) * unit
            for q, p in enumerate(model.parameters):
                if p.unit == "a.u.":
                    kappa[q, v] *= unit
                else:
                    sd[q, v] /= unit

    return work


def noise_of(
    series: WeightedSeries, maps: ParameterMaps, rms: Floats | None = None
) -> tuple[Noise, str, tuple[str, ...]]:
    """Return the noise with its σ, where that came from, and warnings; `rms` as of `estimate_sigma`."""
    noise = series.noise or Gaussian()
    if noise.sigma is not None:
        return noise, "given", ()
    sigma, source = estimate_sigma(series, maps, rms)
    if np.isfinite(sigma):
        return type(noise)(sigma=sigma), source, ()
    return noise, source, (
        f"The noise level is not known: {series.model.n_images} images and {len(series.model.parameters)} parameters "
        "leave no residual, and there is no background. Give --sigma for standard deviations.",
    )  # fmt: skip


def sd_for(model: SignalModel, maps: ParameterMaps, noise: Noise, out: Floats | None = None) -> NDArray[np.float64]:
    """Return the standard deviations for the noise at hand from those for Gaussian noise of σ = 1, in `out` if it may be."""
    assert maps.sd_kappa is not None
    if noise.sigma is None:
        return np.full_like(maps.kappa, np.nan)
    if isinstance(noise, Gaussian):
        return np.asarray(np.multiply(maps.sd_kappa, noise.sigma, out=out))
    sd = np.full(maps.kappa.shape, np.nan)
    flat, kappa = sd.reshape(len(sd), -1), maps.kappa.reshape(len(sd), -1)
    ok = np.flatnonzero(maps.status == Status.OK)
    for voxels in np.array_split(ok, len(ok) // CHUNK + 1):
        sigma = noise.sigma if np.ndim(noise.sigma) == 0 else noise.sigma.reshape(-1)[voxels]
        flat[:, voxels] = cramer_rao_sd(model, type(noise)(sigma=sigma), kappa[:, voxels])
    return flat.reshape(sd.shape)
