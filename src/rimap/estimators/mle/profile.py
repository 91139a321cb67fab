"""Kernels of the MLE: for each voxel, A and T at the best for a given field F, and what F would rather be.

For a model S = |A g(T, F)| and a given F what is left of a voxel is a search along T, because A is linear. The shape g
is tabulated over u = log T and F (`ShapeTable`), so the kernels know no signal model and compute no exponential. With y
= ±s, the data with the sign of g where the model takes the modulus, the best A at (u, F) is Σyg/Σg², and

    f(u, F) = ½ Σ(s − A|g|)² = ½ Σs² − ½ (Σyg)²/Σg²

is the profile likelihood, minimised over u by Newton's method. What F gains from it has the derivatives of f with A and
u following F: a Schur complement.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.table import VALUE, ShapeTable
from rimap.estimators.table_kernels import (
    FAST,
    Second,
    at_field,
    curvature_of,
    hermite,
    interval,
    nodes_along,
    nodes_at,
    nodes_bend,
    schur,
    shape_at,
    slope_of,
    value_of,
)
from rimap.kernels import njit

#: About how many points along u the global search visits at first.
SEARCH_POINTS = 64
#: A valley of the coarse search is looked at besides the best one if it takes less off χ² by no more than this, and
#: this share.
RIVAL_GAP, RIVAL_SHARE = 20.0, 0.01
#: How far along u the next change of polarity may be for the minimum beyond it to be searched.
REACH = 0.3
#: The largest move of a Newton iteration along u.
MAX_STEP = 0.25
#: The largest decrease of χ²/2 by another step that the voxel forgoes.
TOLERANCE = 1e-7
#: By how much χ²/2 may be higher at a change of polarity that a search passes.
RIDGE = 6.0

Array = NDArray[np.float64]
F32 = NDArray[np.float32]


class Shape(NamedTuple):
    """A `ShapeTable` as the kernels read it: see there. `coarse` and `gram` are for the global search, in single
    precision.

    `coarse` is `powers` without the slopes; g·g at node k in interval j is Σₘ gram[j, k, m] xᵐ.
    """

    powers: tuple[Array, ...]
    coarse: tuple[F32, ...]
    gram: F32
    low_u: float
    step_u: float
    low_F: float
    step_F: float
    magnitude: bool

    @classmethod
    def of(cls, table: ShapeTable) -> Shape:
        """Return the table of a model with one amplitude."""
        values = [power[:, :, VALUE, 0] for power in table.powers]
        gram = np.zeros((*values[0].shape[:2], 2 * len(values) - 1))
        for p, value in enumerate(values):
            for q, b in enumerate(values):
                gram[..., p + q] += (value * b).sum(-1)
        return cls(
            powers=table.powers,
            coarse=tuple(np.ascontiguousarray(value[:, :, None, None], np.float32) for value in values),
            gram=gram.astype(np.float32),
            low_u=table.low_u,
            step_u=table.step_u,
            low_F=table.low_F,
            step_F=table.step_F,
            magnitude=table.magnitude,
        )


class Place(NamedTuple):
    """Where a voxel's field is in the table: interval and how far in it, in steps."""

    j: int
    x: float


class Overlap(NamedTuple):
    """Sums over the images of data y and shape g at (u, F); 1 and 2 are derivatives in u."""

    yg: float
    gg: float
    yg1: float
    gg1: float
    yg2: float
    bend: float
    """Σ(g₁² + g g₂), half the second derivative of Σg²."""
    g1g1: float


class Image(NamedTuple):
    """The shape of one image, and its derivatives in u and F."""

    g: float
    g_u: float
    g_uu: float
    g_F: float
    g_uF: float
    g_FF: float


class Minimum(NamedTuple):
    """The best u, −½(Σyg)²/Σg² there, the image whose null holds u there (−1: none), and the sums."""

    u: float
    f: float
    held: int
    sums: Overlap


class Found(NamedTuple):
    """Results for the voxels of a chunk, each (V,)."""

    u: Array
    A: Array
    f: Array
    g: Array
    w: Array
    slope: Array


class Extra(NamedTuple):
    """What else a voxel tries: the minima near `other_u` if `use_other` and near `rival_u` if that is a number and
    `use_rival`.

    And minima up to `hops` changes of polarity away.
    """

    other_u: Array
    rival_u: Array
    use_other: bool
    use_rival: bool
    hops: int


@njit(fastmath=FAST, inline="always")
def place_of(shape, F):  # type: ignore[no-untyped-def]
    """Return where F is in the table."""
    # between nodes of the field the table holds polynomials
    cell_F, past_F = interval(F, shape.low_F, shape.step_F, shape.powers[0].shape[0])
    return Place(cell_F, past_F)


@njit(fastmath=FAST, inline="always")
def highest_u(shape):  # type: ignore[no-untyped-def]
    """Return the last node along u."""
    return shape.low_u + shape.step_u * (shape.powers[0].shape[1] - 1)


@njit(fastmath=FAST, counts_references=False)
def _best_node(s, shape, place, start, stop, stride):  # type: ignore[no-untyped-def]
    """Return the node of u where A = Σs|g|/Σg² takes most off Σs²."""
    cell_F, past_F = place.j, np.float32(place.x)
    best, at = np.float32(-1.0), start
    P = len(shape.coarse)
    for k in range(start, stop, stride):
        cost = np.float32(0.0)
        if shape.magnitude:
            for image in range(s.shape[0]):
                cost += s[image] * abs(at_field(shape.coarse, past_F, cell_F, k, VALUE, 0, image))
        else:
            for image in range(s.shape[0]):
                cost += s[image] * at_field(shape.coarse, past_F, cell_F, k, VALUE, 0, image)
        d = shape.gram[cell_F, k, 2 * P - 2]
        for m in range(2 * P - 3, -1, -1):
            d = d * past_F + shape.gram[cell_F, k, m]
        gain = cost * cost / d if cost > 0 and d > 0 else np.float32(0.0)
        if gain > best:
            best, at = gain, k
    return at


@njit(fastmath=FAST, counts_references=False)
def search_u(S, F, shape, u):  # type: ignore[no-untyped-def]
    """Set u (V) to the best node of the table for the data S (V, N) and F (V): coarse, then fine."""
    G = shape.powers[0].shape[1]
    stride = max((G - 1) // SEARCH_POINTS, 1)
    for voxel in range(S.shape[0]):
        place = place_of(shape, F[voxel])
        at = _best_node(S[voxel], shape, place, 0, G, stride)
        if stride > 1:
            low, high = max(at - stride, 0), min(at + stride + 1, G)
            at = _best_node(S[voxel], shape, place, low, high, max(stride // 4, 1))
        u[voxel] = shape.low_u + at * shape.step_u


@njit(fastmath=FAST, counts_references=False)
def overlap(s, shape, place, u):  # type: ignore[no-untyped-def]
    """Return the sums of the profile likelihood at u."""
    powers, cell_F, past_F = shape.powers, place.j, place.x
    node, past_node = interval(u, shape.low_u, shape.step_u, powers[0].shape[1] - 1)
    weights = hermite(past_node, shape.step_u)
    yg = gg = yg1 = gg1 = yg2 = bend = g1g1 = 0.0
    for image in range(s.shape[0]):
        here = nodes_at(powers, past_F, cell_F, node, 0, image)
        g = value_of(weights, here)
        g1 = slope_of(weights, here)
        g2 = curvature_of(weights, here)
        # the modulus hides the polarity: an image has the sign that the model gives it
        signed = -s[image] if shape.magnitude and g < 0 else s[image] * 1.0
        yg += signed * g
        gg += g * g
        yg1 += signed * g1
        gg1 += g * g1
        yg2 += signed * g2
        g1g1 += g1 * g1
        bend += g1 * g1 + g * g2
    return Overlap(yg, gg, yg1, gg1, yg2, bend, g1g1)


@njit(fastmath=FAST, inline="always")
def _gain(sums):  # type: ignore[no-untyped-def]
    """Return −½(Σyg)²/Σg²; 0 where the best A is 0."""
    return -0.5 * sums.yg * sums.yg / sums.gg if sums.yg > 0 else 0.0


@njit(fastmath=FAST, counts_references=False)
def search_rival(S, F, shape, u, rival):  # type: ignore[no-untyped-def]
    """Set `rival` (V) to the u of the best peak of the gain in another valley than that of u (V); NaN if none is about
    as good.
    """
    G = shape.powers[0].shape[1]
    stride = max((G - 1) // SEARCH_POINTS, 1)
    for voxel in range(S.shape[0]):
        place = place_of(shape, F[voxel])
        best = second = before = last = -1.0
        other = 0
        for index in range(0, G + stride, stride):
            gain = -1.0
            if index < G:
                gain = -2 * _gain(overlap(S[voxel], shape, place, shape.low_u + index * shape.step_u))
            if last > before and last >= gain:  # a peak at the node before this one
                best = max(best, last)
                if (
                    last > second
                    and abs(shape.low_u + (index - stride) * shape.step_u - u[voxel]) > 1.5 * stride * shape.step_u
                ):
                    second, other = last, index - stride
            before, last = last, gain
        rival[voxel] = np.nan
        if second > 0 and best - second < RIVAL_GAP + RIVAL_SHARE * best:
            rival[voxel] = shape.low_u + other * shape.step_u


@njit(fastmath=FAST, counts_references=False)
def image_at(shape, place, u, n):  # type: ignore[no-untyped-def]
    """Return the shape of image n with its derivatives."""
    powers, cell_F, past_F = shape.powers, place.j, place.x
    node, past_node = interval(u, shape.low_u, shape.step_u, powers[0].shape[1] - 1)
    weights = hermite(past_node, shape.step_u)
    here = nodes_at(powers, past_F, cell_F, node, 0, n)
    along_F = nodes_along(powers, past_F, cell_F, node, 0, n)
    bend = nodes_bend(powers, past_F, cell_F, node, 0, n)
    step_F = shape.step_F
    return Image(
        value_of(weights, here),
        slope_of(weights, here),
        curvature_of(weights, here),
        value_of(weights, along_F) / step_F,
        slope_of(weights, along_F) / step_F,
        value_of(weights, bend) / (step_F * step_F),
    )


@njit(fastmath=FAST, counts_references=False)
def _past_null(shape, place, u, side):  # type: ignore[no-untyped-def]
    """Return the u just behind the nearest change of polarity below (side 0) or above u (side 1); far off if none."""
    powers, cell_F, past_F = shape.powers, place.j, place.x
    node, past_node = interval(u, shape.low_u, shape.step_u, powers[0].shape[1] - 1)
    sign = 1.0 if side == 1 else -1.0
    best, at = 1e9, -1
    for n in range(powers[0].shape[4]):
        value_0, value_1 = (
            at_field(powers, past_F, cell_F, node, VALUE, 0, n),
            at_field(powers, past_F, cell_F, node + 1, VALUE, 0, n),
        )
        if value_1 != value_0:
            residual = (
                -sign * (value_0 + past_node * (value_1 - value_0)) * shape.step_u / (value_1 - value_0)
            )  # along a straight line
            if 1e-6 < residual < best:
                best, at = residual, n
    null = u + sign * best
    if at >= 0 and best < REACH:
        top = highest_u(shape)
        for _ in range(2):
            if shape.low_u < null < top:
                image = image_at(shape, place, null, at)
                if image.g_u != 0.0:
                    null -= image.g / image.g_u
    return null + sign * 2e-6


@njit(fastmath=FAST, counts_references=False)
def _descend(s, shape, place, u):  # type: ignore[no-untyped-def]
    """Return the minimum that Newton's method finds along u from u."""
    low, top = shape.low_u, highest_u(shape)
    sums = overlap(s, shape, place, u)
    f = _gain(sums)
    for iteration in range(30):
        if sums.yg <= 0:
            break
        A = sums.yg / sums.gg
        slope = A * (A * sums.gg1 - sums.yg1)
        curve = A * (A * sums.bend - sums.yg2) - (sums.yg1 - 2 * A * sums.gg1) ** 2 / sums.gg
        gauss_newton = A * A * (sums.g1g1 - sums.gg1 * sums.gg1 / sums.gg)
        if curve < 0.1 * gauss_newton:
            curve = gauss_newton
        if (u <= low and slope > 0) or (u >= top and slope < 0):
            break
        step = -slope / curve if curve > 0 else (-MAX_STEP if slope > 0 else MAX_STEP)
        step = min(max(step, -MAX_STEP), MAX_STEP)
        if -0.5 * step * slope < TOLERANCE:
            break
        moved = False
        for attempt in range(12):
            if shape.magnitude and (attempt == 1 or (attempt == 0 and iteration > 1)):
                null, n = _negative_null(s, shape, place, u, step if attempt == 0 else step / 0.35)
                if n >= 0 and low < null < top:
                    trial_sums = overlap(s, shape, place, null)
                    trial_f = _gain(trial_sums)
                    if trial_f < f + TOLERANCE and _holds(s[n], image_at(shape, place, null, n), trial_sums):
                        return Minimum(null, trial_f, n, trial_sums)
            trial = min(max(u + step, low), top)
            trial_sums = overlap(s, shape, place, trial)
            trial_f = _gain(trial_sums)
            if trial_f < f:
                moved = True
                u, f, sums = trial, trial_f, trial_sums
                break
            step *= 0.35
        if not moved:
            break
    return Minimum(u, f, -1, sums)


@njit(fastmath=FAST, counts_references=False)
def _negative_null(s, shape, place, u, step):  # type: ignore[no-untyped-def]
    """Return the u of the nearest null of an image with s < 0 between u and u + step, and the image (−1: none).

    Noise added after the modulus makes such images. There −s|g| is a valley with a sharp bottom.
    """
    powers, cell_F, past_F = shape.powers, place.j, place.x
    node, past_node = interval(u, shape.low_u, shape.step_u, powers[0].shape[1] - 1)
    best, at = 1.0, -1
    slack = -1e-3 / abs(step)  # a start on a null, to the precision of a straight line between nodes
    for n in range(s.shape[0]):
        if s[n] < 0:
            value_0, value_1 = (
                at_field(powers, past_F, cell_F, node, VALUE, 0, n),
                at_field(powers, past_F, cell_F, node + 1, VALUE, 0, n),
            )
            if value_1 != value_0:
                residual = -(value_0 + past_node * (value_1 - value_0)) * shape.step_u / (value_1 - value_0) / step
                if slack < residual < best:
                    best, at = residual, n
    if at < 0:
        return u, -1
    null = u + best * step
    for _ in range(3):
        image = image_at(shape, place, null, at)
        if image.g_u == 0.0:
            return u, -1
        null -= image.g / image.g_u
    return null + 1e-9, at  # on one side of it, so that every sum sees the same sign


@njit(fastmath=FAST, counts_references=False)
def _holds(s, image, sums):  # type: ignore[no-untyped-def]
    """Return whether the other images pull less than the valley of the image with the datum s holds, at its null."""
    if not sums.yg > 0:
        return False
    A = sums.yg / sums.gg
    # the modulus hides the polarity: an image has the sign that the model gives it
    signed = -s if image.g < 0 else s
    rest = A * (A * sums.gg1 - (sums.yg1 - signed * image.g_u))
    return abs(rest) <= abs(A * s * image.g_u)


@njit(fastmath=FAST, counts_references=False)
def _minimise(s, shape, place, u, hops):  # type: ignore[no-untyped-def]
    """As `_descend`, and past the next `hops` changes of polarity on either side wherever it goes down behind one."""
    best = _descend(s, shape, place, u)
    if not shape.magnitude or best.sums.yg <= 0:
        return best
    low, top = shape.low_u, highest_u(shape)
    for _ in range(4):
        here = best.u
        for side in range(2):
            start = here
            for _ in range(hops):
                start = _past_null(shape, place, start, side)
                if abs(start - here) > REACH or start <= low or start >= top:
                    break
                sums = overlap(s, shape, place, start)
                if sums.yg <= 0 or _gain(sums) > best.f + RIDGE:
                    break
                A = sums.yg / sums.gg
                slope = A * (A * sums.gg1 - sums.yg1)
                if (slope < 0) == (side == 1):
                    other = _descend(s, shape, place, start)
                    if other.f < best.f - TOLERANCE:
                        best = other
                        break
        if best.u == here:
            break
    return best


@njit(fastmath=FAST, counts_references=False)
def profile_gaussian(S, F, shape, extra, found):  # type: ignore[no-untyped-def]
    """Minimise ½Σ(s − A|g|)² over A ≥ 0 and u from found.u (V), for F (V); S (V, N) in units of σ.

    Sets in place u, A, the minimum f, its first and second derivative g, w in F, and du/dF.
    """
    low, top = shape.low_u, highest_u(shape)
    for voxel in range(S.shape[0]):
        s, place = S[voxel], place_of(shape, F[voxel])
        best = _minimise(s, shape, place, found.u[voxel], extra.hops)
        if extra.use_other and abs(extra.other_u[voxel] - best.u) > 2 * shape.step_u:
            other = _minimise(s, shape, place, extra.other_u[voxel], extra.hops)
            if other.f < best.f - TOLERANCE:
                best = other
        if extra.use_rival and not np.isnan(extra.rival_u[voxel]):
            other = _minimise(s, shape, place, extra.rival_u[voxel], extra.hops)
            if other.f < best.f - TOLERANCE:
                best = other
        A = best.sums.yg / best.sums.gg if best.sums.yg > 0 else 0.0
        half = 0.0
        for n in range(s.shape[0]):
            half += s[n] * 1.0 * s[n]  # in double precision
        found.u[voxel], found.A[voxel], found.f[voxel] = best.u, A, best.f + 0.5 * half
        slope_F, slope_u, H = _derivatives(s, shape, place, best.u, A)
        if best.held >= 0:
            image = image_at(shape, place, best.u, best.held)
            found.g[voxel], found.w[voxel], found.slope[voxel] = _along_null(
                s[best.held], A, image, slope_F, slope_u, H
            )
        else:
            # A and u follow the field: what is left is the information on F alone (Schur complement)
            w, _, slope = schur(H, low < best.u < top)
            found.g[voxel], found.w[voxel], found.slope[voxel] = slope_F, w, slope


@njit(fastmath=FAST, counts_references=False)
def _derivatives(s, shape, place, u, A):  # type: ignore[no-untyped-def]
    """Return the derivatives of ½Σ(s − A|g|)² in F and u, and the second ones."""
    powers, cell_F, past_F = shape.powers, place.j, place.x
    node, past_node = interval(u, shape.low_u, shape.step_u, powers[0].shape[1] - 1)
    weights = hermite(past_node, shape.step_u)
    H_AA = H_Au = H_AF = H_uu = H_uF = H_FF = slope_F = slope_u = bend_F = 0.0
    for image in range(s.shape[0]):
        g, g_u, g_uu, g_F, g_uF = shape_at(weights, powers, past_F, cell_F, node, image)
        residual = A * g - (-s[image] if shape.magnitude and g < 0 else s[image] * 1.0)
        H_AA += g * g
        H_Au += (A * g + residual) * g_u
        H_AF += (A * g + residual) * g_F
        H_uu += A * g_u * g_u * A + residual * A * g_uu
        H_uF += A * g_u * g_F * A + residual * A * g_uF
        H_FF += g_F * g_F
        slope_F += residual * g_F
        slope_u += residual * g_u
        if len(powers) > 2:  # known to the compiler: no cost for models that are linear in F
            bend = nodes_bend(powers, past_F, cell_F, node, 0, image)
            bend_F += residual * value_of(weights, bend)
    a, b = 1 / shape.step_F, A / shape.step_F
    H = Second(H_AA, H_Au, H_AF * a, H_uu, H_uF * a, b * (b * H_FF + a * bend_F))
    return b * slope_F, A * slope_u, H


@njit(fastmath=FAST, counts_references=False)
def _along_null(s, A, image, slope_F, slope_u, H):  # type: ignore[no-untyped-def]
    """Return g, w and du/dF where u follows F along the null g(u, F) = 0 of the image with the datum s."""
    # the modulus hides the polarity: an image has the sign that the model gives it
    signed = -s if image.g < 0 else s
    node = -image.g_F / image.g_u
    bend = -(image.g_uu * node * node + 2 * image.g_uF * node + image.g_FF) / image.g_u
    # the image itself is constant along its null: its share comes off
    H_Au, H_AF = H.Au + signed * image.g_u, H.AF + signed * image.g_F
    H_uu = H.uu - A * A * image.g_u * image.g_u + signed * A * image.g_uu
    H_uF = H.uF - A * A * image.g_u * image.g_F + signed * A * image.g_uF
    H_FF = H.FF - A * A * image.g_F * image.g_F + signed * A * image.g_FF
    slope_F, slope_u = slope_F + A * signed * image.g_F, slope_u + A * signed * image.g_u
    mixed = H_AF + H_Au * node
    return (
        slope_F + slope_u * node,
        H_FF + 2 * H_uF * node + H_uu * node * node + slope_u * bend - mixed * mixed / H.AA,
        node,
    )
