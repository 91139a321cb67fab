"""The B of a whole series, from which the iterations of a RIM begin.

B is determined by all voxels together (Eq. 2), so it is found once for the whole series and never slab by slab. At low
SNR the maximum of the likelihood over A and T of every noisy voxel is biased in B. On images averaged over the voxels
that a first pass found alike it is not.

This is Eq. 2 as `MLE` solves it, but quickly: Newton steps of which the first few see every fourth voxel, on a grid
for B that is half as fine as the images; A and T are those of `known_B`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.mle.estimator import DEFAULT_LAMBDA_B, PRECISION
from rimap.estimators.mle.field import Box, solve_linear
from rimap.estimators.rim.averaging import average_of_alike
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.network_input import neutral, slices
from rimap.likelihood import Gaussian, Rician
from rimap.series import WeightedSeries

F32 = NDArray[np.float32]
Array = NDArray[np.float64]
#: Along both axes of a slice: of how many voxels one is looked at first, and how much coarser the grid of B is.
COARSER = 2
_LARGE_ENOUGH = 64  # voxels along an axis
_STEPS = 3  # on every fourth voxel
_STEPS_OF_ALL = 2
_LARGEST = 0.2  # change of B in a step
_CLOSE = 3e-3  # the step after such a one would be far smaller
_GRID = np.arange(1.0, 2.31, 0.1)
_SOME = 500  # voxels that tell the one B to begin with
_WHERE_NOTHING_TELLS = 1.9


def smooth_B(series: WeightedSeries, *, threads: int | None, rough: bool = False) -> F32:
    """Return the smooth B (*X) of maximum likelihood; `rough`, of every fourth voxel.

    Parameters
    ----------
    series
        Its noise has a σ.
    """
    coarser = _coarser(series.shape)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        some = _every(series, coarser)
        B = _newton(some, _one_B(some, pool), coarser, DEFAULT_LAMBDA_B, _STEPS, 1, pool)
        if coarser > 1 and not rough:
            B = _newton(series, B, coarser, DEFAULT_LAMBDA_B, _STEPS_OF_ALL, coarser, pool)
    return _fine(B, series.shape, coarser)


def _coarser(shape: tuple[int, ...]) -> int:
    return COARSER if len(shape) > 1 and min(shape[:2]) >= _LARGE_ENOUGH else 1


def _every(series: WeightedSeries, coarser: int) -> WeightedSeries:
    """Return the series with one of so many voxels along both axes of a slice."""
    if coarser == 1:
        return series
    k = (slice(None, None, coarser),) * 2
    affine = np.eye(4) if series.affine is None else np.array(series.affine)
    affine[:, :2] *= coarser
    noise = series.noise or Gaussian()
    if np.ndim(noise.sigma):
        noise = type(noise)(sigma=noise.sigma[k])
    selected = series.selected[k]
    mask = None if selected.all() or not selected.any() else selected
    images = series.images[(slice(None), *k)]
    return replace(series, images=images, mask=mask, noise=noise, affine=affine)


def _newton(
    series: WeightedSeries, B: Array, coarser: int, lambda_B: float, steps: int, binned: int, pool: Executor
) -> Array:
    """Return B on its grid after Newton steps.

    Parameters
    ----------
    series
        Every voxel (`binned` = `coarser`) or those on the grid alone, each of which then stands for all around it.
    coarser
        How much coarser the grid is than the images of which λ_B is given.
    """
    grid = series if binned == 1 else _every(series, binned)
    box = Box.around(np.ones(grid.shape, bool), grid.voxel_size)
    edge = min(grid.voxel_size) / min(v / coarser if i < 2 else v for i, v in enumerate(grid.voxel_size))
    penalty = lambda_B * coarser**2 / edge**4  # per voxel of the grid, in its finest edge
    field = np.pad(B, [(i.start, n - i.stop) for i, n in zip(box.inner, box.shape)], mode="edge")
    for _ in range(steps):
        g, w = _information(series, box.crop(field, grid.shape), binned, pool)
        if binned == 1:
            g, w = g * coarser**2, w * coarser**2
        if not w.any():
            return np.full(grid.shape, _WHERE_NOTHING_TELLS)
        rhs = -box.scatter(g.reshape(-1)) - penalty * box.laplacian(box.laplacian(field))
        change, _ = solve_linear(box, box.scatter(w.reshape(-1)), penalty, rhs, rtol=0.03)
        change = np.clip(change, -_LARGEST, _LARGEST)
        field = np.clip(field + change, *series.model.parameters[1].bounds)
        if abs(change).max() < _CLOSE:
            break
    return box.crop(field, grid.shape)


def _information(series: WeightedSeries, B: Array, binned: int, pool: Executor) -> tuple[Array, Array]:
    """Return the derivatives in B of the negative log-likelihood at the best A and T, summed to the grid of B."""
    noise = series.noise or Gaussian()
    unit = _unit(series)
    g, w = np.zeros(B.shape), np.zeros(B.shape)
    for k in slices(series.shape):
        selected = series.selected[k]
        if not selected.any():
            continue
        S = neutral(series.images[(slice(None), *k)], unit)
        here = _fine(B[k], selected.shape, binned)
        sigma = noise.sigma[k] if np.ndim(noise.sigma) else noise.sigma
        g_k, w_k = _derivatives(series, S, here, np.maximum(np.asarray(sigma) / unit, PRECISION), pool)
        for out, values in ((g, g_k), (w, w_k)):
            out[k] = _binned(np.where(selected, values, 0.0), out[k].shape, binned)
    return g, w


def _derivatives(series: WeightedSeries, S: F32, B: F32, sigma: Any, pool: Executor) -> tuple[Array, Array]:
    """Return those of the voxels of one slice (N, *X)."""
    shape = (1, B.shape[0], int(np.prod(B.shape[1:])))
    sigma = np.where(np.isfinite(sigma) & (sigma > 0), sigma, 1.0).astype(np.float32)
    sigma = sigma.reshape(shape) if sigma.ndim else sigma.reshape(1, 1, 1)
    data = DataTerm(series.model, S.reshape(len(S), *shape), sigma, isinstance(series.noise, Rician), pool)
    kappa = data.at_B(np.ascontiguousarray(B.reshape(shape)), alone=True)
    sums = data(kappa)
    _, gB, _ = sums.g
    AA, AB, AT, BB, BT, TT = (x.astype(float) for x in sums.H)
    lo, hi = series.model.parameters[-1].bounds
    inside = (kappa[2] > 1.001 * lo) & (kappa[2] < 0.999 * hi)
    AA = AA + 1e-6 * sigma**2
    tt = np.where(inside, TT - AT**2 / AA, np.inf) + 1e-3 * TT + 1e-12
    bt = BT - AB * AT / AA
    w = np.maximum(BB - AB**2 / AA - bt**2 / tt, 0.0)
    gA, gT = sums.g[0].astype(float), sums.g[2].astype(float)
    g = gB - AB / AA * gA - bt / tt * (gT - AT / AA * gA)
    return (g / sigma**2).reshape(B.shape), (w / sigma**2).reshape(B.shape)


def _one_B(series: WeightedSeries, pool: Executor) -> Array:
    """Return the one B that is best for some strong voxels, everywhere."""
    unit, noise = _unit(series), series.noise or Gaussian()
    flat = series.images.reshape(len(series.images), -1)
    usable = np.flatnonzero(series.selected.reshape(-1))
    usable = usable[:: max(1, len(usable) // (4 * _SOME))]
    S = neutral(flat[:, usable], unit)
    power = (S**2).sum(0)
    strong = np.flatnonzero(power >= np.median(power))
    strong = strong[:: max(1, len(strong) // _SOME)]
    S = np.ascontiguousarray(S[:, None, :, None][:, :, strong])
    sigma = np.full((1, 1, 1), max(float(np.nanmedian(noise.sigma)) / unit, PRECISION), np.float32)
    data = DataTerm(series.model, S, sigma, isinstance(noise, Rician), pool)
    cost = []
    for b in _GRID:
        kappa = data.at_B(np.full(S.shape[1:], b, np.float32), alone=True)
        cost.append(float(np.minimum(data(kappa).sse / sigma**2, 1e4).sum()))
    return np.full(series.shape, float(_GRID[int(np.argmin(cost))]))


def _unit(series: WeightedSeries) -> float:
    """Return the root mean square of the images."""
    some = series.images[(slice(None), *(slice(None, None, 4 if n > 32 else 1) for n in series.shape))]
    values = some[np.isfinite(some)].astype(float)
    return float(np.sqrt(np.mean(values**2))) or 1.0 if len(values) else 1.0


def _binned(values: Array, shape: tuple[int, ...], binned: int) -> Array:
    """Return the sums over squares of `binned` voxels along the first two axes."""
    if binned == 1:
        return values
    full = np.zeros([n * binned for n in shape])
    full[tuple(slice(n) for n in values.shape)] = values
    return np.asarray(full.reshape(shape[0], binned, shape[1], binned).sum((1, 3)))


def _fine(B: Array, shape: tuple[int, ...], coarser: int) -> F32:
    """Return B on the voxels, linear between the points of its grid."""
    for axis in range(2) if coarser > 1 else ():
        x = np.clip((np.arange(shape[axis]) - (coarser - 1) / 2) / coarser, 0, B.shape[axis] - 1)
        i = np.minimum(x.astype(int), max(B.shape[axis] - 2, 0))
        t = (x - i).reshape((-1,) + (1,) * (B.ndim - 1 - axis))
        B = (1 - t) * B.take(i, axis) + t * B.take(np.minimum(i + 1, B.shape[axis] - 1), axis)
    return np.asarray(B, np.float32)


def folds(times: NDArray[Any], n: int, least: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return `n` pairs of image numbers (a part, all others), spread over the times.

    One pair of all images, where fewer than `least` distinct times would be left.
    """
    order = np.argsort(times, kind="stable")
    pairs = [(order[f::n], np.sort(np.delete(order, np.s_[f::n]))) for f in range(n)]
    if n > 1 and min(len(np.unique(times[others])) for _, others in pairs) >= least:
        return pairs
    return [(order, order)]


def smooth_B_of_alike(
    series: WeightedSeries, guides: Sequence[tuple[NDArray[np.intp], Any]], B: F32, *, threads: int | None
) -> F32:
    """Return the smooth B (*X) of the series averaged, slice by slice, over voxels that are alike, from a B nearby.

    Neighbouring averages share their voxels: the penalty is raised as much as noise is lowered, so that B is smoothed
    as over independent voxels.

    Parameters
    ----------
    guides
        For each part of the images its image numbers and the κ (Q, *X) that says which voxels are alike there.
        Where noise is high, a κ of the other images (cross-fitting): voxels chosen by their own noise keep it in
        their average, and B is then too low by up to 0.05 at SNR 3.
    """
    coarser, noise = _coarser(series.shape), series.noise or Gaussian()
    grid = _every(series, coarser)
    images = np.empty(grid.images.shape, np.float32)
    factor = np.ones(grid.shape)
    rician_sigma = float(np.nanmedian(noise.sigma)) if isinstance(noise, Rician) else 0.0
    for k in slices(series.shape):
        S, where = series.images[(slice(None), *k)], series.selected[k]
        flat = S.reshape(len(S), S.shape[1], -1)
        out = np.empty((len(S), *(-(-n // coarser) for n in flat.shape[1:])), np.float32)
        left = np.zeros(out.shape[1:])
        for part, kappa in guides:
            T, A, usable = (x.reshape(flat.shape[1:]) for x in (kappa[-1][k], kappa[0][k], where))
            out[part], less = average_of_alike(flat[part], T, A, usable, every=coarser, rician_sigma=rician_sigma)
            left += less.astype(float) ** 2 * (len(part) / len(S))
        images[(slice(None), *k)] = out.reshape(images[(slice(None), *k)].shape)
        factor[k] = np.sqrt(left).reshape(factor[k].shape)
    sigma = np.asarray((grid.noise or noise).sigma, dtype=float) * factor
    quieter = replace(grid, images=images, noise=Gaussian(sigma=sigma))
    shared = float(np.median(factor[grid.selected]) ** -2)
    first = B[(slice(None, None, coarser),) * 2] if coarser > 1 else B
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        found = _newton(quieter, first.astype(float), coarser, DEFAULT_LAMBDA_B * shared, _STEPS, 1, pool)
    return _fine(found, series.shape, coarser)
