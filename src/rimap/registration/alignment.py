r"""How far the images of a series are misaligned, found with the signal model.

The contrast changes from image to image, which defeats a comparison of pairs. The model predicts the change. With the
fit f of the images W at their current positions, and small shifts d of the images against it,

    W_n − f_n ≈ Σ_m (1 − P)_nm (−∇f_m · d_m),

where P projects on the tangent space of the model, voxel by voxel: on what the fit absorbs. All d are found together by
least squares (Gauss–Newton on the residual from which the free parameters have been eliminated). The images are moved,
and the next step starts there, from coarse to fine resolution. The first position comes from the edges of the images
(`edges`), within a few voxels. A smooth field is held smooth: free in each voxel it would absorb most of a shift. What
is given is held.

References
----------
Golub & Pereyra 2003, doi:10.1088/0266-5611/19/2/201 (variable projection).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_most
from rimap.estimators.nlls.estimator import least_squares
from rimap.registration.edge_correlation import rough_shifts
from rimap.registration.resampling import moved, padded
from rimap.registration.rigid_transforms import Floats, Motion
from rimap.registration.smoothing import smoothed
from rimap.series import Status, WeightedSeries
from rimap.signals import SignalModel

#: The largest value of the images after scaling, and an amplitude that is no estimate.
_FULL, _HUGE = 1000.0, 1e6
#: An object with fewer voxels does not determine its motion.
_LEAST_VOXELS = 200
#: Images can move along an axis that has at least so many voxels.
_FEWEST = 8
#: Values (images times voxels) and voxels of the finest level: for a look at a slice, at a volume, and to align.
_SLICE, _VOLUME, _ALIGN = (250_000, 25_000), (800_000, 100_000), (6_000_000, 600_000)
#: Error of the model as a share of the largest signal of a voxel: it limits the weight of bright voxels.
_MISFIT = 0.02
#: Points of the object over which a shift is averaged.
_POINTS = 2000
#: SD of the smoothing of a field, voxels of the level; edge of the blocks of voxels whose errors are correlated.
_FIELD_WIDTH, _BLOCK = 6.0, 4
#: A step is at most so long (voxels of the level) and so wide (rad); below `_SHORT` voxels it is the last.
_LONGEST, _WIDEST, _SHORT = 1.5, 0.05, 0.03
#: Steps that are shorter than so many standard deviations are not made.
_SURE = 3.0


@dataclass(frozen=True, eq=False)
class _Level:
    """Images at one resolution.

    Parameters
    ----------
    images
        (N, X, Y, Z), means over blocks of voxels.
    voxel
        (3,), mm.
    origin
        Place of the first voxel in the coordinates of the series, mm.
    axes
        The axes along which images may move.
    given
        Known parameters by name, a number or a map (X, Y, Z) at this resolution.
    fitted
        Type of the values that are fitted: for a look that of the series, for which kernels are compiled and loaded
        anyway.
    """

    images: Floats
    voxel: Floats
    origin: Floats
    axes: tuple[int, ...]
    given: Mapping[str, float | Floats] = field(default_factory=dict)
    fitted: np.dtype[Any] = np.dtype(float)


def find_motion(series: WeightedSeries, *, precise: bool = False, threads: int | None = None) -> Motion | None:
    """Return the position of each image of a series, `None` if the images do not determine it.

    Images may move along and about the axes that have eight voxels or more: in the plane for a slice or a few.

    Parameters
    ----------
    precise
        Use the full resolution, to align the images; else look quickly at coarser ones.
    threads
        Threads of the fits.

    Raises
    ------
    InputError
        Never for what the series holds.
    """
    images = padded(series.images)
    voxel = np.array((*series.voxel_size, 1.0, 1.0)[:3])
    axes = tuple(axis for axis in range(3) if images.shape[1 + axis] >= _FEWEST)
    free = _free(series.model, series.held)
    if len(axes) < 2 or not np.isfinite(voxel).all() or voxel.min() <= 0:
        return None
    if len(set(series.model.conditions)) <= len(free):  # the fit would absorb every shift
        return None
    centre = (np.array(images.shape[1:]) - 1) / 2 * voxel
    motion = Motion.none(len(images), centre, float(np.exp(np.log(voxel[list(axes)]).mean())))
    largest = max(float(np.abs(image).max(where=np.isfinite(image), initial=0.0)) for image in images)
    if not largest > 0:
        return None
    blocks = tuple(max(1, images.shape[1 + axis] // 48) if axis in axes else 1 for axis in range(3))
    rough = _level(images, voxel, blocks, axes, _FULL / largest)
    u = rough_shifts(rough.images, axes) * rough.voxel
    motion = motion.after(u, np.zeros_like(u)).about_median()
    given = {key: _as_volume(value) for key, value in series.given.items()}
    fitted = np.dtype(float) if precise else images.dtype
    sizes = _sizes(images.shape, voxel, axes, _ALIGN if precise else _SLICE if len(axes) == 2 else _VOLUME)
    found = False
    for n, factors in enumerate(sizes):
        level = _level(images, voxel, factors, axes, _FULL / largest)
        given_here = {key: _coarser(value, factors) for key, value in given.items()}
        level = replace(level, given=given_here, fitted=fitted)
        last = n == len(sizes) - 1
        for _ in range(4 if last else 10):
            step = _step(level, series.model, motion, threads)
            if step is None:
                break
            u, w, deviation, x = step
            found = True
            moving = (
                np.linalg.norm(np.concatenate([u, w * _radius(x, motion.centre)], axis=1), axis=1) > _SURE * deviation
            )
            if not moving.any():  # noise would make images wander: interpolated, it fits better
                motion = replace(motion, shift=motion.displacement(x), sd=deviation, converged=True)
                break
            if not precise:
                u, w = u * moving[:, None], w * moving[:, None]
            motion = motion.after(u, w).about_median()
            longest = np.abs(np.stack([u, w * _radius(x, motion.centre)])).max() / level.voxel[list(axes)].min()
            motion = replace(motion, shift=motion.displacement(x), sd=deviation, converged=bool(longest < 10 * _SHORT))
            if longest < _SHORT:
                break
    return motion if found else None


def _free(model: SignalModel, held: Mapping[str, Any]) -> list[int]:
    """Return the positions in κ of the parameters that are fitted in each voxel by itself."""
    return [
        row for row, parameter in enumerate(model.parameters) if not parameter.smooth and parameter.name not in held
    ]


def _as_volume(value: Any) -> float | Floats:
    """Return a given parameter as a number or as a map (X, Y, Z)."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value, float).reshape((*np.shape(value), 1, 1)[:3])


def _coarser(value: float | Floats, factors: tuple[int, ...]) -> float | Floats:
    """Return a given parameter at the resolution of a level: means over the known voxels of each block, else NaN."""
    if isinstance(value, float):
        return value
    known = np.isfinite(value)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(_sums(np.where(known, value, 0.0), factors) / _sums(known.astype(float), factors))


def _sizes(
    shape: tuple[int, ...], voxel: Floats, axes: tuple[int, ...], most: tuple[int, int]
) -> list[tuple[int, ...]]:
    """Return how many voxels are taken together along each axis, coarse to fine."""

    def factors(edge: float) -> tuple[int, ...]:
        return tuple(max(1, int(edge / v + 1e-6)) if a in axes else 1 for a, v in enumerate(voxel))

    def too_many(f: tuple[int, ...]) -> bool:
        voxels = float(np.prod([n // k for n, k in zip(shape[1:], f)]))
        return shape[0] * voxels > most[0] or voxels > most[1]

    unit = float(min(voxel[list(axes)]))
    finest = 1
    while too_many(factors(finest * unit)):
        finest += 1
    coarser = []
    for multiple in (4, 2):
        lengths = sorted(shape[1 + axis] // factors(finest * multiple * unit)[axis] for axis in axes)
        if lengths[0] >= _FEWEST and lengths[-2] >= 24:
            coarser.append(finest * multiple)
    return list(dict.fromkeys(factors(k * unit) for k in (*coarser, finest)))


def _level(images: Floats, voxel: Floats, factors: tuple[int, ...], axes: tuple[int, ...], scale: float) -> _Level:
    """Return means over blocks of voxels, times `scale`, since the unit of the images is arbitrary."""
    f = np.array(factors)
    blocks = np.empty((len(images), *(n // factor for n, factor in zip(images.shape[1:], factors))))
    for number, image in enumerate(images):
        with np.errstate(invalid="ignore"):
            block = _sums(image, factors)
        if not np.isfinite(block).all():
            block = _sums(np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0), factors)
        blocks[number] = block * (scale / f.prod())
    return _Level(blocks, voxel * f, (f - 1) / 2 * voxel, axes)


def _sums(image: NDArray[Any], factors: tuple[int, ...]) -> Floats:
    """Return sums over blocks of voxels, of `factors` along each axis; an incomplete block at the end is left out."""
    for axis, factor in enumerate(factors):
        end = image.shape[axis] // factor * factor
        parts = [image[(slice(None),) * axis + (slice(index, end, factor),)] for index in range(factor)]
        image = np.sum(parts, axis=0, dtype=float) if factor > 1 else np.asarray(parts[0], float)
    return image


def _object(images: Floats) -> NDArray[np.bool_]:
    """Return the voxels of the object: above half of Otsu's threshold of the root mean square over the images."""
    size = np.sqrt((images**2).mean(axis=0))
    if not np.ptp(size) > 1e-9 * size.max():
        return np.zeros(size.shape, bool)
    count, edge = np.histogram(size, 256)
    middle = (edge[1:] + edge[:-1]) / 2
    below, weight = np.cumsum(count), np.cumsum(count * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (weight[-1] * below / below[-1] - weight) ** 2 / (below * (below[-1] - below).astype(float))
    return np.asarray(size > middle[int(np.nanargmax(between))] / 2)


def _step(
    level: _Level, model: SignalModel, motion: Motion, threads: int | None
) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Return the step: translations and rotation vectors (N, 3), the SD of each shift (N,), and points of the object
    (V, 3).
    """
    here = replace(motion, centre=motion.centre - level.origin)  # in the coordinates of the level
    W = moved(level.images, here, level.voxel, order=1)
    mask = _object(W)
    fit = (
        _fit(WeightedSeries(W.astype(level.fitted), model, mask=mask, given=level.given), threads)
        if mask.any()
        else None
    )
    if fit is None:
        return None
    kappa, valid, free = fit
    N, X = len(W), W.shape[1:]
    f = np.where(valid, model.signal(kappa), W)
    largest = np.abs(f).max(axis=0).reshape(-1)
    for axis in level.axes:  # no neighbour, no gradient
        edge: list[Any] = [slice(None)] * 3
        edge[axis] = [0, -1]
        valid[tuple(edge)] = False
    at = np.flatnonzero(valid)
    if len(at) < _LEAST_VOXELS:
        return None
    middle = (f + W) / 2
    gradient = np.zeros((3, N, len(at)))
    for axis in level.axes:
        gradient[axis] = np.gradient(middle, level.voxel[axis], axis=1 + axis).reshape(N, -1)[:, at]
    index = np.stack(np.unravel_index(at, X), axis=-1)
    x = index * level.voxel - here.centre
    D, rotations = _derivatives(gradient, x, level.axes)
    p = D.shape[2]
    kappa, residual = kappa.reshape(len(kappa), -1)[:, at], (W - f).reshape(N, -1)[:, at].T
    J = np.moveaxis(model.partials(kappa)[:, free], 2, 0)
    Q, _ = np.linalg.qr(J / np.maximum(np.linalg.norm(J, axis=1, keepdims=True), 1e-30))
    size = (residual**2).sum(axis=1) / (N - len(free))
    expected = np.median(size) + (_MISFIT * largest[at]) ** 2 + 1e-30
    weight = 1 / expected / (1 + size / (9 * expected))
    residual = residual - np.einsum("vnq,vq->vn", Q, np.einsum("vnq,vn->vq", Q, residual))
    radius = _radius(x, np.zeros(3))
    unit = np.tile([*[1.0] * len(level.axes), *[1 / radius] * len(rotations)], N)  # so that all are lengths in mm
    score = -(D * (residual * weight[:, None])[:, :, None]).reshape(len(at), -1) * unit
    H = _hessian(D, Q, weight) * unit[:, None] * unit
    # The p directions in which all images move alike are not determined at all; others, such as a drift, barely.
    value, vector = np.linalg.eigh(H)
    value[:p], value[p:] = np.inf, np.maximum(value[p:], 1e-30) + 1e-6 * value[-1]
    inverse = (vector / value) @ vector.T
    theta = (inverse @ score.sum(axis=0)).reshape(N, p)
    covariance = inverse @ _spread(score, index) @ inverse
    deviation = np.sqrt(np.diag(covariance).reshape(N, p).sum(axis=1))
    theta = theta * unit.reshape(N, p)
    u, w = np.zeros((N, 3)), np.zeros((N, 3))
    u[:, list(level.axes)], w[:, list(rotations)] = np.split(theta, [len(level.axes)], axis=1)
    longest = _LONGEST * level.voxel[list(level.axes)].min()
    u *= np.minimum(1, longest / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-30))
    w *= np.minimum(1, _WIDEST / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-30))
    return u, w, deviation, at_most(x, _POINTS) + motion.centre


def _fit(series: WeightedSeries, threads: int | None) -> tuple[Floats, NDArray[np.bool_], list[int]] | None:
    """Return κ (Q, *X) with smooth fields, where it is an estimate (*X), and which parameters are free in each
    voxel.
    """
    model, W = series.model, series.images
    maps = least_squares(series, threads=threads)
    valid = np.asarray((maps.status == Status.OK) & np.isfinite(maps.kappa).all(axis=0))
    for amplitude in model.amplitudes:
        valid &= np.abs(np.nan_to_num(maps[amplitude.name], nan=np.inf)) < _HUGE
    kappa = np.where(valid, maps.kappa, 1.0)
    free = _free(model, series.held)
    smooth = [
        row for row, parameter in enumerate(model.parameters) if parameter.smooth and parameter.name not in series.held
    ]
    if not valid.any() or not smooth:
        return (kappa, valid, free) if valid.any() else None
    largest = np.abs(model.signal(kappa)).max(axis=0)
    weight = np.where(valid, np.minimum(largest, np.median(largest[valid])) ** 2, 0.0)
    width = [_FIELD_WIDTH if length >= _FEWEST else 0.0 for length in W.shape[1:]]
    floor = 1e-3 * weight.mean()
    below = smoothed(weight, width, mirrored=False) + floor
    for q in smooth:
        mean = np.average(kappa[q], weights=weight)
        kappa[q] = (smoothed(weight * kappa[q], width, mirrored=False) + floor * mean) / below
    at = np.flatnonzero(valid)
    flat = kappa.reshape(len(kappa), -1)
    flat[:, at] = _refit(W.reshape(len(W), -1)[:, at], model, flat[:, at], free)
    return kappa, valid, free


def _refit(S: Floats, model: SignalModel, kappa: Floats, free: list[int], steps: int = 3) -> Floats:
    """Return κ (Q, V) with the free parameters fitted again: Gauss–Newton on the scale of each (`transform`)."""
    kappa = kappa.copy()
    parameters = [model.parameters[row] for row in free]
    relative = np.array(
        [parameter.transform == "log" or (parameter.amplitude and parameter.bounds[0] >= 0) for parameter in parameters]
    )[:, None]
    low, high = (np.array([parameter.bounds[i] for parameter in parameters])[:, None] for i in (0, 1))
    for _ in range(steps):
        scale = np.where(relative, kappa[free], 1.0)
        J = np.moveaxis(model.partials(kappa)[:, free] * scale, 2, 0)  # (V, N, P)
        H = np.einsum("vnp,vnq->vpq", J, J)
        diagonal = np.einsum("vpp->vp", H)
        H = H + (1e-3 * diagonal + 1e-30)[:, :, None] * np.eye(len(free))
        step = np.linalg.solve(H, np.einsum("vnp,nv->vp", J, S - model.signal(kappa))[..., None])[..., 0].T
        moved_by = np.where(relative, kappa[free] * np.exp(np.clip(step, -0.4, 0.4)), kappa[free] + step)
        kappa[free] = np.clip(moved_by, low, high)
    return kappa


def _derivatives(gradient: Floats, x: Floats, axes: tuple[int, ...]) -> tuple[Floats, tuple[int, ...]]:
    """Return ∇f · d for each way in which an image may move, (V, N, p), and the axes about which it may turn."""
    columns = [gradient[axis] for axis in axes]
    rotations = tuple(axis for axis in range(3) if all(b in axes for b in range(3) if b != axis))
    for rotation in rotations:  # d = e × x
        b, c = (rotation + 1) % 3, (rotation + 2) % 3
        columns.append(gradient[c] * x[:, b] - gradient[b] * x[:, c])
    return np.moveaxis(np.stack(columns, axis=1), 2, 0), rotations


def _hessian(D: Floats, Q: Floats, weight: Floats) -> Floats:
    """Return Σ w Dᵀ (1 − Q Qᵀ) D, (N p, N p)."""
    V, N, p = D.shape
    root = np.sqrt(weight)
    D = D * root[:, None, None]
    H = np.zeros((N, p, N, p))
    for n in range(N):
        H[n, :, n] = D[:, n].T @ D[:, n]
    for index in range(Q.shape[2]):
        B = (Q[:, :, index, None] * D).reshape(V, N * p)
        H -= (B.T @ B).reshape(N, p, N, p)
    return H.reshape(N * p, N * p)


def _spread(score: Floats, index: NDArray[np.int64]) -> Floats:
    """Return the covariance of the sum of scores (V, M), which are correlated in blocks of neighbours."""
    block = (index // _BLOCK) @ [1, 1 << 10, 1 << 20]
    order = np.argsort(block, kind="stable")
    total = np.add.reduceat(score[order], np.flatnonzero(np.diff(block[order], prepend=-1)), axis=0)
    return np.asarray(total.T @ total)


def _radius(x: Floats, centre: Floats) -> float:
    return max(float(np.sqrt(((x - centre) ** 2).sum(axis=1).mean())), 1e-6)
