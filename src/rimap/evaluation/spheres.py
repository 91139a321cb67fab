"""Find the spheres of an array of the ISMRM/NIST system phantom in a map of relaxation times.

The array is known: ten spheres on a ring of 50 mm, 36° apart, and four on a square inside, each 28.3 mm from the middle
(Stupic et al. 2021, doi:10.1002/mrm.28779). What is not known is where its middle is, how far it is turned, and from
which side it is seen. The values decide: the references of the fourteen spheres span two orders of magnitude, so only
one placement puts each value where it belongs. No step needs a mask, nor the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from rimap.errors import InputError

#: Spheres of an array.
N_SPHERES = 14
#: Radius of the ring and distance of the inner spheres from the middle, mm.
RING_MM, INNER_MM = 50.0, 28.3
#: Inner radius of a sphere, and radius of the disc that is measured, mm: walls and their ringing are left out.
SPHERE_MM, MEASURED_MM = 7.5, 3.5
#: Voxel of the grid on which the array is looked for, mm.
_GRID_MM = 1.5
#: Slices that are thinner are not all looked at, mm.
_THIN_MM = 3.0
#: Of the search: steps of the middle (voxels of that grid) and of the angle (degrees), and how many placements are
#: refined.
_STEP, _TURN, _REFINED = 2, 4.0, 12
#: A sphere counts as much as this difference of log T at most: a wrong one must not decide.
_MOST_OFF = 0.5
#: A common bias of all values is allowed up to this (log T), and costs as much as this share of it.
_MOST_BIAS, _COST_OF_BIAS = 0.4, 0.25
#: What it costs if none of the spheres is a disc of one value, and how many placements are looked at for that.
_COST_OF_NO_DISC, _JUDGED = 0.3, 4
#: Of the scatter inside a disc (log T), what counts as much as a difference.
_COST_OF_SCATTER = 0.5
#: A sphere can be measured if its disc has this share of values,
_FILLED = 0.5
#: and is a disc of one value that differs so much from what surrounds it (log T). Without a disc, it must differ if its
#: reference does, by as much as the second, and its value may not be farther from the reference than the third.
_CONTRAST, _SHOULD_DIFFER, _NEAR = 0.15, 0.2, 0.7
#: A sphere fits if it is this close to its reference (log T). So many must fit for the array to be found, and this
#: share of those in the image.
_FITS, LEAST_SEEN, _LEAST_SHARE = 0.35, 8, 0.65
#: Two placements whose costs differ by less are both possible.
_AMBIGUOUS = 0.02
#: What is said of a sphere that is not in the image.
OUTSIDE = "outside the image"

Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Placement:
    """Where an array is in a plane.

    Parameters
    ----------
    middle_mm
        Centre of the ring, from the first voxel of the plane.
    turn_deg
        The angle of sphere 1.
    mirrored
        Whether the array is seen from its other side.
    scale
        Of all distances: the gradients and the voxel size in the header are not exact.
    cost
        Mean difference of log T from the references, capped, with what scatter and a common bias cost; 0 is perfect.
    bias
        Common difference of log T.
    """

    middle_mm: tuple[float, float]
    turn_deg: float
    mirrored: bool
    scale: float = 1.0
    cost: float = np.inf
    bias: float = 0.0

    def centres_mm(self) -> Plane:
        """Return the centres (14, 2) of the spheres, from the first voxel of the plane."""
        return np.asarray(self.middle_mm) + self.scale * _template(self.turn_deg, self.mirrored)


@dataclass(frozen=True, eq=False)
class Sphere:
    """A sphere of an array.

    Parameters
    ----------
    number
        1 to 14.
    centre
        Index (3,) of its centre in the volume; not whole.
    inside
        Index of the voxels to measure, as of `numpy.nonzero`.
    off
        Difference of log T from its reference and the common bias; NaN if one of them is not known.
    problem
        Why it cannot be measured, "" if it can.
    """

    number: int
    centre: tuple[float, ...]
    inside: tuple[NDArray[np.int64], ...]
    off: float
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Array:
    """An array that was found in a map.

    Parameters
    ----------
    spheres
        All fourteen, those with a problem too.
    placement
        Where it is, in its plane.
    axis, index
        The axis of the volume across the plane, and the slice of its middle.
    """

    spheres: tuple[Sphere, ...]
    placement: Placement
    axis: int
    index: int

    @property
    def seen(self) -> int:
        """The number of spheres that can be measured."""
        return sum(not sphere.problem for sphere in self.spheres)

    @property
    def fitting(self) -> int:
        """The number of spheres that have about their values."""
        return sum(not sphere.problem and abs(sphere.off) < _FITS for sphere in self.spheres)

    @property
    def is_one(self) -> bool:
        """Whether these are the spheres of the array, and not by chance."""
        in_image = sum(sphere.problem != OUTSIDE for sphere in self.spheres)
        return self.fitting >= max(LEAST_SEEN, _LEAST_SHARE * in_image)

    def labels(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a label image (*X) of the voxels to measure."""
        image = np.zeros((*shape, 1, 1)[:3], np.uint8)
        for sphere in self.spheres:
            if not sphere.problem:
                image[sphere.inside] = sphere.number
        return image.reshape(shape)


def find_array(
    times: NDArray[np.float64],
    edges_mm: Sequence[float],
    references: Mapping[int, float],
    axes: Sequence[int] = (2,),
) -> Array:
    """Find the spheres of an array in a map of relaxation times.

    Parameters
    ----------
    times
        (X, Y, Z) in the unit of the references; NaN or zero if there is no value.
    edges_mm
        Edges (3,) of a voxel.
    references
        Times of the spheres by number; a sphere without one does not help to find the array.
    axes
        Axes of the volume across which the array is looked for, the likely one first.

    Raises
    ------
    InputError
        If there is no such array.
    """
    log = np.log(np.where(np.isfinite(times) & (times > 0), times, np.nan))
    target = np.array([np.log(references[n]) if n in references else np.nan for n in range(1, N_SPHERES + 1)])
    most = 0
    for axis in axes:
        found = _in_slices(log, edges_mm, target, axis)
        if found is not None and found.is_one:
            return found
        most = max(most, found.fitting if found is not None else 0)
    raise InputError(
        f"no array of spheres was found: expected {N_SPHERES} spheres on a ring of {2 * RING_MM:g} mm and a square "
        f"inside it, got {most} with about their values. Check that the map shows this array, that the slice of the "
        "array is in the volume, and that the voxel size is right."
    )


def _in_slices(log: Plane, edges_mm: Sequence[float], target: Plane, axis: int) -> Array | None:
    """Return the best array across one axis: a coarse search in slices that no sphere escapes, then the neighbours of
    the best.
    """
    stack = np.moveaxis(log, axis, 0)
    across = float(edges_mm[axis])
    edges = tuple(float(e) for k, e in enumerate(edges_mm) if k != axis)
    if min(n * edge for n, edge in zip(stack.shape[1:], edges)) < RING_MM:
        return None
    step = int(SPHERE_MM / across) if across < _THIN_MM else 1  # no sphere is between two slices
    coarse = range(step // 2 if len(stack) > step else 0, len(stack), step)
    planes = {k: found for k in coarse if (found := _search(_grid_of(stack[k], edges), target))}
    if not planes:
        return None
    start = min(planes, key=lambda k: planes[k][0].cost)
    near = range(max(0, start - step + 1), min(len(stack), start + step))
    grids = {k: _grid_of(stack[k], edges) for k in near}
    refined = [_refined(grids[start], target, p) for p in planes[start][:_REFINED]]
    first = _most_plausible(stack[start], edges, refined)
    placed = {k: first if k == start else _refined(grids[k], target, first) for k in near}
    least = min(p.cost for p in placed.values())
    alike = [k for k in placed if placed[k].cost < least + 0.02]
    k = alike[len(alike) // 2]  # the middle of the spheres
    placement = _by_centres(stack[k], edges, placed[k])
    centres = placement.centres_mm()
    measured = _disc_centres(stack[k], edges, centres)
    # Each centre is half what the fourteen say of it and half what its own edge says: neither is exact.
    centres = np.where(np.isfinite(measured), (centres + measured) / 2, centres)
    discs, expected = np.isfinite(measured[:, 0]), target + placement.bias
    spheres = []
    for n in range(N_SPHERES):
        c = centres[n]
        place = np.insert(c / np.array(edges) - 0.5, axis, k)
        off, problem = _judged(stack[k], edges, c, float(expected[n]), bool(discs[n]))
        spheres.append(Sphere(n + 1, tuple(map(float, place)), _ball(log.shape, edges_mm, place), off, problem))
    return Array(tuple(spheres), placement, axis, k)


def _most_plausible(plane: Plane, edges: Sequence[float], placements: Sequence[Placement]) -> Placement:
    """Return the placement whose values fit and whose spheres are discs.

    The values alone could err if all have one bias: the references of the ring fall by a nearly constant factor, so
    that a turn by one sphere looks like another bias. The inner spheres are then expected at places without spheres.
    """
    distinct: list[Placement] = []
    for placement in sorted(placements, key=lambda p: p.cost):
        if not any(_alike(placement, other) for other in distinct):
            distinct.append(placement)
    judged = [
        replace(p, cost=p.cost + _COST_OF_NO_DISC * _share_without_disc(plane, edges, p)) for p in distinct[:_JUDGED]
    ]
    judged.sort(key=lambda p: p.cost)
    if len(judged) > 1 and judged[1].cost - judged[0].cost < _AMBIGUOUS and judged[0].cost < _MOST_OFF / 2:
        raise InputError(
            "the spheres fit the array in two ways, so that their numbers are not certain: expected values near the "
            "references, got a "
            f"bias of {100 * np.expm1(judged[0].bias):+.0f} %. Check the map, the field strength and the array, or "
            f"give labels (rimap rois)."
        )
    return judged[0]


def _alike(a: Placement, b: Placement) -> bool:
    """Return whether two placements put each sphere at about the same place."""
    return float(np.linalg.norm(a.centres_mm() - b.centres_mm(), axis=1).max()) < 2 * SPHERE_MM


def _share_without_disc(plane: Plane, edges: Sequence[float], p: Placement) -> float:
    return float(1 - np.isfinite(_disc_centres(plane, edges, p.centres_mm())).all(1).mean())


def _template(turn_deg: float | NDArray[np.float64], mirrored: bool) -> Plane:
    """Return the centres (14, 2) in mm from the middle; (…, 14, 2) for several angles."""
    ring, inner = -36.0 * np.arange(10), 45.0 - 90.0 * np.arange(4)
    angle = np.radians(np.concatenate([ring, inner]) + np.asarray(turn_deg, dtype=float)[..., None])
    radius = np.concatenate([np.full(10, RING_MM), np.full(4, INNER_MM)])
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return np.stack([-x if mirrored else x, y], axis=-1)


@dataclass(frozen=True, eq=False)
class _Grid:
    """A plane on the grid of the search: mean and scatter of log T over the measured disc about each voxel; NaN where
    it has no values.
    """

    mean: Plane
    scatter: Plane


def _grid_of(plane: Plane, edges: Sequence[float]) -> _Grid:
    size = [int(np.ceil(n * edge / _GRID_MM)) for n, edge in zip(plane.shape, edges)]
    at = [
        np.clip(((np.arange(s) + 0.5) * _GRID_MM / edge - 0.5).round().astype(int), 0, length - 1)
        for s, edge, length in zip(size, edges, plane.shape)
    ]
    x = plane[np.ix_(*at)]
    r = int(np.ceil(MEASURED_MM / _GRID_MM))
    disc = (np.hypot(*np.mgrid[-r : r + 1, -r : r + 1]) * _GRID_MM <= MEASURED_MM).astype(float)
    there = np.isfinite(x)
    filled = np.where(there, x, 0.0)
    n = ndimage.convolve(there.astype(float), disc, mode="constant")
    n = np.maximum(n.round(), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = ndimage.convolve(filled, disc, mode="constant") / n
        scatter = np.sqrt(np.maximum(ndimage.convolve(filled**2, disc, mode="constant") / n - mean**2, 0))
    enough = n >= _FILLED * disc.sum()
    return _Grid(np.where(enough, mean, np.nan), np.where(enough, scatter, np.nan))


def _search(grid: _Grid, target: Plane) -> list[Placement]:
    """Return the best placement in a plane for each angle and side, the best of all first."""
    mean, scatter = grid.mean, grid.scatter
    if np.isfinite(mean).sum() < 100:
        return []
    margin = int(np.ceil(RING_MM / _GRID_MM)) + 1
    padded, scattered = (np.pad(a, margin, constant_values=np.nan) for a in (mean, scatter))
    rows, columns = (np.arange(0, length, _STEP) for length in mean.shape)
    found: list[Placement] = []
    for mirrored in (False, True):
        for turn in np.arange(0.0, 360.0, _TURN):
            cost = np.zeros((rows.size, columns.size))
            for (dx, dy), t in zip(np.round(_template(turn, mirrored) / _GRID_MM).astype(int), target):
                if not np.isfinite(t):
                    continue
                where = np.ix_(rows + margin + dx, columns + margin + dy)
                off = np.abs(padded[where] - t) + _COST_OF_SCATTER * scattered[where]
                cost += np.where(off < _MOST_OFF, off, _MOST_OFF)  # NaN counts as the most
            i, j = np.unravel_index(int(cost.argmin()), cost.shape)
            middle = tuple((float(k) + 0.5) * _GRID_MM for k in (rows[i], columns[j]))
            found.append(Placement((middle[0], middle[1]), float(turn), mirrored, cost=float(cost[i, j]) / N_SPHERES))
    found.sort(key=lambda p: p.cost)
    return found


def _refined(grid: _Grid, target: Plane, start: Placement) -> Placement:
    """Return a placement of least cost near another one."""
    mean, scatter = grid.mean, grid.scatter
    # Interpolation needs values everywhere: what has none costs the most.
    there = np.isfinite(mean).astype(float)
    parts = [np.nan_to_num(mean), np.nan_to_num(scatter), there]

    def at(p: NDArray[np.float64]) -> tuple[Plane, Plane]:
        centres = np.array(p[:2]) + p[3] * _template(p[2], start.mirrored)
        where = (centres / _GRID_MM - 0.5).T
        values, spread, weight = (ndimage.map_coordinates(part, where, order=1, mode="constant") for part in parts)
        with np.errstate(invalid="ignore", divide="ignore"):
            good = weight > 0.6
            return np.where(good, values / weight - target, np.nan), np.where(good, spread / weight, np.nan)

    def judged(p: NDArray[np.float64]) -> tuple[float, float]:
        off, spread = at(p)
        if not np.isfinite(off).any():
            return _MOST_OFF, 0.0
        bias = float(np.clip(np.nanmedian(off), -_MOST_BIAS, _MOST_BIAS))
        each = np.abs(off - bias) + _COST_OF_SCATTER * spread
        known = np.isfinite(target)
        capped = np.where(each < _MOST_OFF, each, _MOST_OFF)[known]
        stretched = 2.0 * max(abs(p[3] - 1) - 0.02, 0.0)
        return float(capped.mean()) + _COST_OF_BIAS * abs(bias) + stretched, bias

    first = np.array([*start.middle_mm, start.turn_deg, start.scale])
    simplex = np.vstack([first, *(first + step for step in np.diag([2.0, 2.0, 3.0, 0.02]))])
    done = optimize.minimize(
        lambda p: judged(p)[0],
        first,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxiter": 250, "xatol": 0.02, "fatol": 1e-4},
    )
    cost, bias = judged(done.x)
    x, y, turn, scale = (float(v) for v in done.x)
    return Placement((x, y), turn % 360, start.mirrored, scale, cost, bias)


def _by_centres(plane: Plane, edges: Sequence[float], start: Placement) -> Placement:
    """Return the placement that fits the centres of the discs that are visible: the values determine which sphere, the
    edges where.
    """
    known = _disc_centres(plane, edges, start.centres_mm())
    good = np.isfinite(known).all(1)
    if good.sum() < LEAST_SEEN:
        return start

    def off(p: NDArray[np.float64]) -> NDArray[np.float64]:
        centres = np.array(p[:2]) + p[3] * _template(p[2], start.mirrored)
        return np.asarray((centres - known)[good].ravel())

    fitted = optimize.least_squares(
        off, [*start.middle_mm, start.turn_deg, start.scale], loss="soft_l1", x_scale=[1, 1, 1, 0.02]
    )
    x, y, turn, scale = (float(v) for v in fitted.x)
    return replace(start, middle_mm=(x, y), turn_deg=turn % 360, scale=scale)


@dataclass(frozen=True, eq=False)
class _Window:
    """The part of a plane about a place: log T, the distance of each voxel from the place, and its position, mm."""

    log: Plane
    distance_mm: Plane
    places_mm: Plane

    @property
    def middle(self) -> float:
        """The median log T of the measured disc; NaN if it has no values."""
        return _median(self.log[self.distance_mm <= MEASURED_MM])

    @property
    def around(self) -> float:
        """The median log T of what surrounds a sphere at this place; NaN if that has no values."""
        return _median(self.log[(self.distance_mm > SPHERE_MM + 3) & (self.distance_mm < SPHERE_MM + 7)])


def _window(plane: Plane, edges: Sequence[float], centre: NDArray[np.float64]) -> _Window:
    reach = SPHERE_MM + 7
    cut = []
    for c, edge, length in zip(centre, edges, plane.shape):
        low = int(np.clip(np.floor((c - reach) / edge), 0, length))
        cut.append(slice(low, int(np.clip(np.ceil((c + reach) / edge) + 1, low, length))))
    places = np.stack(
        np.meshgrid(*((np.arange(s.start, s.stop) + 0.5) * edge for s, edge in zip(cut, edges)), indexing="ij"), axis=-1
    )
    return _Window(plane[cut[0], cut[1]], np.linalg.norm(places - centre, axis=-1), places)


def _median(values: Plane) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _disc_centres(plane: Plane, edges: Sequence[float], near: Plane) -> Plane:
    """Return the centres (14, 2), mm, of the regions of one value about given points; NaN if there is none of the size
    of a sphere.

    The region must differ from what surrounds it.
    """
    found = np.full((len(near), 2), np.nan)
    for k, centre in enumerate(near):
        w = _window(plane, edges, centre)
        typical, around = w.middle, w.around
        if not np.isfinite(typical) or abs(typical - around) < _CONTRAST:
            continue
        scatter = _median(np.abs(w.log[w.distance_mm <= MEASURED_MM] - typical))
        alike = (np.abs(w.log - typical) < np.clip(3 * 1.4826 * scatter, 0.15, 0.3)) & (w.distance_mm < SPHERE_MM + 3)
        regions, n = ndimage.label(alike)
        inside = regions[(w.distance_mm <= MEASURED_MM) & (regions > 0)]
        if not inside.size:
            continue
        own = int(np.bincount(inside, minlength=n + 1).argmax())
        region = ndimage.binary_fill_holes(regions == own)
        radius = float(np.sqrt(region.sum() * edges[0] * edges[1] / np.pi))
        if 0.6 * SPHERE_MM < radius < 1.3 * SPHERE_MM:
            found[k] = w.places_mm[region].mean(0)
    found[~(np.linalg.norm(found - near, axis=1) < 4.0)] = np.nan
    return found


def _ball(
    shape: tuple[int, ...], edges_mm: Sequence[float], place: NDArray[np.float64]
) -> tuple[NDArray[np.int64], ...]:
    """Return the voxels within the measured radius of a place; at least those of its slice."""
    low = [max(0, int(np.floor(p - MEASURED_MM / e))) for p, e in zip(place, edges_mm)]
    high = [min(length, int(np.ceil(p + MEASURED_MM / e)) + 1) for p, e, length in zip(place, edges_mm, shape)]
    if any(a >= b for a, b in zip(low, high)):
        return tuple(np.zeros(0, np.int64) for _ in range(3))
    index = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high)), indexing="ij"))
    apart = np.sqrt(sum(((i - p) * e) ** 2 for i, p, e in zip(index, place, edges_mm)))
    inside = apart <= MEASURED_MM
    return tuple(np.asarray(i[inside], np.int64) for i in index)


def _judged(
    plane: Plane, edges: Sequence[float], centre: NDArray[np.float64], expected: float, disc: bool
) -> tuple[float, str]:
    """Return the difference of log T from what is expected, and why the sphere cannot be measured, "" if it can.

    Parameters
    ----------
    disc
        Whether a disc of one value was seen there.
    """
    if any(not MEASURED_MM <= c <= length * edge - MEASURED_MM for c, edge, length in zip(centre, edges, plane.shape)):
        return float("nan"), OUTSIDE
    w = _window(plane, edges, centre)
    off = w.middle - expected
    if np.isfinite(w.log[w.distance_mm <= MEASURED_MM]).mean() < _FILLED:
        return off, "no values"
    like_surroundings = abs(w.middle - w.around) < _CONTRAST and abs(expected - w.around) > _SHOULD_DIFFER
    if not disc and (like_surroundings or abs(off) > _NEAR):
        return off, "not seen: no disc of one value differs from its surroundings"
    return off, ""
