"""The smooth field of a whole series, from which the iterations of a RIM begin.

The field is determined by all voxels together (Eq. 2), so it is found once for the whole series and never slab by slab. At
low SNR the maximum of the likelihood over amplitude and T of every noisy voxel is biased in the field. On images averaged
over the voxels that a first pass found alike it is not.

This is Eq. 2 as `MLE` solves it, with the λ_B that the data ask for, but quickly: Newton steps of which the first few see every fourth voxel, on a grid for the
field that is half as fine as the images; amplitudes and T are those of `DataTerm.at_field`. Voxels that contradict the model have no say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.checks.improbable import contradicts
from rimap.estimators.mle.estimator import MLE, PRECISION
from rimap.estimators.mle.field import Box, solve_linear
from rimap.estimators.mle.say import LIMIT
from rimap.estimators.mle.weight import DEFAULT_LAMBDA_B, weight_of
from rimap.estimators.rim.averaging import average_of_alike
from rimap.estimators.rim.elimination import Triangle, eliminated
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.network_input import known_at, neutral, part_of_series, slices
from rimap.estimators.rim.start import field_grid
from rimap.likelihood import Gaussian, Rician
from rimap.series import WeightedSeries

F32 = NDArray[np.float32]
Array = NDArray[np.float64]
#: Along both axes of a slice: of how many voxels one is looked at first, and how much coarser the grid of the field is.
COARSER = 2
#: Voxels along an axis from which on the grid is coarser.
LARGE_ENOUGH = 64
#: Newton steps on every fourth voxel, and on all.
STEPS, STEPS_OF_ALL = 3, 2
#: In standard deviations of the field: the largest change in a step, and a change after which the next one is far smaller.
LARGEST_CHANGE, CLOSE = 1.0, 0.015
#: How many voxels determine the one field to begin with.
N_FIRST = 500
#: The smoothness is chosen on about so many voxels along the longer axis of a slice, and so many slices; of fewer voxels in all it
#: is not. Beyond the stiffest the field is one value.
POINTS, SLICES, FEWEST, STIFFEST = 48, 4, 200, 1e8


def smooth_field(
    series: WeightedSeries, *, threads: int | None, rough: bool = False, lambda_field: float = DEFAULT_LAMBDA_B
) -> F32:
    """Return the smooth field (*X) of maximum likelihood; `rough`, of every fourth voxel.

    Parameters
    ----------
    series
        Its noise has a σ.
    lambda_field
        The weight of its penalty, as λ_B of `MLE`.
    """
    coarser = _coarser(series.shape)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        some = _every(series, coarser)
        field = _newton(some, _one_field(some, pool), coarser, lambda_field, STEPS, 1, pool)
        if coarser > 1 and not rough:
            field = _newton(series, field, coarser, lambda_field, STEPS_OF_ALL, coarser, pool)
    return _fine(field, series.shape, coarser)


def smoothness(series: WeightedSeries, *, threads: int | None) -> float:
    """Return the λ_B that the data ask for by AIC, as `MLE` chooses it, from a part of the voxels.

    A field belongs to the coil and the object, so on a grid that is k times as coarse it is as smooth with λ_B / k⁴.

    Parameters
    ----------
    series
        Its noise has a σ.
    """
    if len(series.shape) < 2 or len(series.model.amplitudes) != 1:
        return DEFAULT_LAMBDA_B
    every = max(1, round(max(series.shape[:2]) / POINTS))
    some = _every(series, every)
    if len(some.shape) > 2 and some.shape[2] > SLICES:
        step = some.shape[2] // SLICES
        affine = np.eye(4) if some.affine is None else np.array(some.affine)
        affine[:, 2] *= step
        some = replace(part_of_series(some, (slice(None), slice(None), slice(step // 2, None, step))), affine=affine)
    known = some.selected & np.isfinite(some.images).all(0)
    if known.sum() < FEWEST or not some.images[:, known].any():
        return DEFAULT_LAMBDA_B
    chosen = MLE(threads=threads).estimate(some).settings.get("lambda_B", DEFAULT_LAMBDA_B)
    if not 0 < chosen * every**4 < STIFFEST:
        return STIFFEST
    # In steps of half a decade: neither the unit of the images nor the order of the times makes a difference.
    return float(10 ** (np.round(2 * np.log10(chosen * every**4)) / 2))


def _coarser(shape: tuple[int, ...]) -> int:
    return COARSER if len(shape) > 1 and min(shape[:2]) >= LARGE_ENOUGH else 1


def _every(series: WeightedSeries, coarser: int) -> WeightedSeries:
    """Return the series with one of so many voxels along both axes of a slice."""
    if coarser == 1:
        return series
    affine = np.eye(4) if series.affine is None else np.array(series.affine)
    affine[:, :2] *= coarser
    return replace(part_of_series(series, (slice(None, None, coarser),) * 2), affine=affine)


def _newton(
    series: WeightedSeries, field: Array, coarser: int, lambda_field: float, steps: int, binned: int, pool: Executor
) -> Array:
    """Return the field on its grid after Newton steps.

    Parameters
    ----------
    series
        Every voxel (`binned` = `coarser`) or those on the grid alone, each of which then stands for all around it.
    coarser
        How much coarser the grid is than the images of which λ is given.
    """
    grid, layout = series if binned == 1 else _every(series, binned), Layout.of(series.model)
    assert layout.field is not None
    box = Box.around(np.ones(grid.shape, bool), grid.voxel_size)
    edge = min(grid.voxel_size) / min(v / coarser if i < 2 else v for i, v in enumerate(grid.voxel_size))
    penalty = weight_of(layout.field, lambda_field) * coarser**2 / edge**4  # per voxel of the grid, in its finest edge
    padded = np.pad(field, [(i.start, n - i.stop) for i, n in zip(box.inner, box.shape)], mode="edge")
    for _ in range(steps):
        g, w = _information(series, box.crop(padded, grid.shape), binned, pool)
        if binned == 1:
            g, w = g * coarser**2, w * coarser**2
        if not w.any():
            return np.full(grid.shape, layout.typical_field)
        rhs = -box.scatter(g.reshape(-1)) - penalty * box.laplacian(box.laplacian(padded))
        change, _ = solve_linear(box, box.scatter(w.reshape(-1)), penalty, rhs, rtol=0.03)
        sd = layout.field.in_a_scan.deviation
        change = np.clip(change, -LARGEST_CHANGE * sd, LARGEST_CHANGE * sd)
        padded = np.clip(padded + change, *layout.field.bounds)
        if abs(change).max() < CLOSE * sd:
            break
    return box.crop(padded, grid.shape)


def _information(series: WeightedSeries, field: Array, binned: int, pool: Executor) -> tuple[Array, Array]:
    """Return the derivatives in the field of the negative log-likelihood at the best amplitudes and T, summed to its grid."""
    noise = series.noise or Gaussian()
    unit = _unit(series)
    g, w = np.zeros(field.shape), np.zeros(field.shape)
    for k in slices(series.shape):
        selected = series.selected[k]
        if not selected.any():
            continue
        S = neutral(series.images[(slice(None), *k)], unit)
        here = _fine(field[k], selected.shape, binned)
        sigma = noise.sigma[k] if np.ndim(noise.sigma) else noise.sigma
        sigma = np.maximum(np.asarray(sigma) / unit, PRECISION)
        g_k, w_k = _derivatives(series, S, here, sigma, known_at(series, k), pool)
        for out, values in ((g, g_k), (w, w_k)):
            out[k] = _binned(np.where(selected, values, 0.0), out[k].shape, binned)
    return g, w


def _derivatives(
    series: WeightedSeries, S: F32, field: F32, sigma: Any, known: Mapping[str, Any], pool: Executor
) -> tuple[Array, Array]:
    """Return those of the voxels of one slice (N, *X)."""
    shape = (1, field.shape[0], int(np.prod(field.shape[1:])))
    sigma = np.where(np.isfinite(sigma) & (sigma > 0), sigma, 1.0).astype(np.float32)
    sigma = sigma.reshape(shape) if sigma.ndim else sigma.reshape(1, 1, 1)
    known = {name: v.reshape(shape) if np.ndim(v) else v for name, v in known.items()}
    rician, model = isinstance(series.noise, Rician), series.model
    data = DataTerm(model, S.reshape(len(S), *shape), sigma, rician, pool, known=known)
    carried = data.at_field(np.ascontiguousarray(field.reshape(shape)), alone=True)
    sums, layout = data(carried), Layout.of(model)
    K, P = layout.n_amplitudes, len(layout.carried)
    pairs = [(i, j) for i in range(P) for j in range(i, P)]
    H: Triangle = {pair: x.astype(float) for pair, x in zip(pairs, sums.H)}
    g: Mapping[int, Array] = {q: sums.g[q].astype(float) for q in range(P)}
    for k in range(K):
        H, g = eliminated(H, g, k, H[k, k] + 1e-6 * sigma**2)
    lo, hi = model.time.bounds
    inside = (carried[-1] > 1.001 * lo) & (carried[-1] < 0.999 * hi)  # at a bound T does not follow the field
    own = sums.H[-1].astype(float)
    H, g = eliminated(H, g, P - 1, np.where(inside, H[P - 1, P - 1], np.inf) + 1e-3 * own + 1e-12)
    w, slope = np.maximum(H[K, K], 0.0), g[K]
    if layout.field is not None and layout.field.transform == "log":  # from the logarithm to the field itself
        w, slope = w / carried[K] ** 2, slope / carried[K]
    slope, w = slope / sigma**2, w / sigma**2
    own = sums.sse / sigma**2 - np.where(w > 0, slope**2 / np.maximum(w, 1e-12), 0.0)  # χ² with a field of its own
    say = ~contradicts(own, 1.0, len(S) - P, limit=LIMIT)
    return (slope * say).reshape(field.shape), (w * say).reshape(field.shape)


def _one_field(series: WeightedSeries, pool: Executor) -> Array:
    """Return the one field that is best for some strong voxels, everywhere."""
    unit, noise = _unit(series), series.noise or Gaussian()
    flat = series.images.reshape(len(series.images), -1)
    usable = np.flatnonzero(series.selected.reshape(-1))
    usable = usable[:: max(1, len(usable) // (4 * N_FIRST))]
    S = neutral(flat[:, usable], unit)
    power = (S**2).sum(0)
    strong = np.flatnonzero(power >= np.median(power))
    strong = strong[:: max(1, len(strong) // N_FIRST)]
    S = np.ascontiguousarray(S[:, None, :, None][:, :, strong])
    known = {
        name: np.reshape(v, -1)[usable][strong][None, :, None] if np.ndim(v) else v
        for name, v in known_at(series, ...).items()
    }
    sigma = np.full((1, 1, 1), max(float(np.nanmedian(noise.sigma)) / unit, PRECISION), np.float32)
    data = DataTerm(series.model, S, sigma, isinstance(noise, Rician), pool, known=known)
    grid, cost = field_grid(Layout.of(series.model)), []
    for value in grid:
        carried = data.at_field(np.full(S.shape[1:], value, np.float32), alone=True)
        cost.append(float(np.minimum(data(carried).sse / sigma**2, 1e4).sum()))
    return np.full(series.shape, float(grid[int(np.argmin(cost))]))


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


def _fine(field: Array, shape: tuple[int, ...], coarser: int) -> F32:
    """Return the field on the voxels, linear between the points of its grid."""
    for axis in range(2) if coarser > 1 else ():
        x = np.clip((np.arange(shape[axis]) - (coarser - 1) / 2) / coarser, 0, field.shape[axis] - 1)
        i = np.minimum(x.astype(int), max(field.shape[axis] - 2, 0))
        t = (x - i).reshape((-1,) + (1,) * (field.ndim - 1 - axis))
        field = (1 - t) * field.take(i, axis) + t * field.take(np.minimum(i + 1, field.shape[axis] - 1), axis)
    return np.asarray(field, np.float32)


def folds(times: NDArray[Any], n: int, least: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return `n` pairs of image numbers (a part, all others), spread over the times.

    One pair of all images, where fewer than `least` distinct times would be left.
    """
    order = np.argsort(times, kind="stable")
    pairs = [(order[f::n], np.sort(np.delete(order, np.s_[f::n]))) for f in range(n)]
    if n > 1 and min(len(np.unique(times[others])) for _, others in pairs) >= least:
        return pairs
    return [(order, order)]


def smooth_field_of_alike(
    series: WeightedSeries,
    guides: Sequence[tuple[NDArray[np.intp], Any]],
    field: F32,
    *,
    threads: int | None,
    lambda_field: float = DEFAULT_LAMBDA_B,
) -> F32:
    """Return the smooth field (*X) of the series averaged, slice by slice, over voxels that are alike, from a field nearby.

    Neighbouring averages share their voxels: the penalty is raised as much as noise is lowered, so that the field is smoothed
    as over independent voxels.

    Parameters
    ----------
    guides
        For each part of the images its image numbers and the estimate (P, *X) that says which voxels are alike there.
        If noise is high, an estimate from the other images (cross-fitting): voxels chosen by their own noise keep it in
        their average, and an inversion efficiency is then too low by up to 0.05 at SNR 3.
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
        for part, carried in guides:
            T, A, usable = (x.reshape(flat.shape[1:]) for x in (carried[-1][k], carried[0][k], where))
            out[part], less = average_of_alike(flat[part], T, A, usable, every=coarser, rician_sigma=rician_sigma)
            left += less.astype(float) ** 2 * (len(part) / len(S))
        images[(slice(None), *k)] = out.reshape(images[(slice(None), *k)].shape)
        factor[k] = np.sqrt(left).reshape(factor[k].shape)
    sigma = np.asarray((grid.noise or noise).sigma, dtype=float) * factor
    quieter = replace(grid, images=images, noise=Gaussian(sigma=sigma))
    shared = float(np.median(factor[grid.selected]) ** -2)
    first = field[(slice(None, None, coarser),) * 2] if coarser > 1 else field
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        found = _newton(quieter, first.astype(float), coarser, lambda_field * shared, STEPS, 1, pool)
    return _fine(found, series.shape, coarser)
