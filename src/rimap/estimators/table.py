"""The one table of a series: the shape g(T, F) and its derivatives over u = log T and the field F.

Every estimator reads it, so no exponential and no extended phase graph is left in an inner loop. Along u it is cubic
Hermite between uniform nodes. Along F it is a polynomial of each interval: of degree 0 without a field, 1 for a model
that is linear in the field (one interval, exact), and 3 (cubic Hermite) otherwise.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from rimap.errors import InputError
from rimap.signals.base import Parameter, SignalModel

Array = NDArray[np.float64]

#: Rows of a node: g, and its derivative in u times the step of the table.
VALUE, SLOPE = 0, 1
#: Nodes along u of a model without a field or linear in it: interpolation is then exact to 1e-9.
NODES_ALONG_U = 513
#: Interpolation of any other model is exact to this share of its largest value: a tenth of the noise at an SNR of
#: 10,000.
TOLERANCE = 1e-5
#: The least and the greatest number of nodes along u and along F of such a table.
NODES_OF_U, NODES_OF_FIELD = (33, 513), (5, 257)
#: Terms of the Chebyshev series along u and F, to begin with and at most; the series is then exact to
#: `SERIES_TOLERANCE`.
FIRST_TERMS, MOST_TERMS = (24, 12), 160
#: Largest error of the table relative to the largest signal: far below the noise of a scan.
SERIES_TOLERANCE = 1e-7
#: A table whose error may exceed this share of the largest signal is refused: a tenth of the noise at an SNR of 100.
REFUSED_ERROR = 1e-3
#: A given map of a further parameter is rounded to levels. They are this far apart, relative, or closer, so that half a
#: step changes T, and the signal relative to the largest, by at most this share; with at most so many levels in place
#: of one.
LEVEL_STEP, LEVEL_TOLERANCE, MOST_LEVELS = 0.05, 2.5e-3, 64
#: Values in a cell at which the change of the signal is computed.
_POINTS = 17


@dataclass(frozen=True, eq=False)
class ShapeTable:
    """g(T, F) of N images and K amplitudes on a grid.

    Parameters
    ----------
    model
        Whose shape it is.
    held
        Values of further parameters that are known and alike in all voxels.
    low_u, step_u, n_u
        The first node along u = log(T/ms), the step, and the number of nodes G.
    low_F, step_F
        Where the first interval of the field starts, and how long the intervals are; 0 and 1 without a field.
    powers
        P arrays (J, G, 2, K, N): in interval j of F, with x = (F − low_F)/step_F − j, node k has the row
        Σₚ powers[p][j, k, row] xᵖ, where row is `VALUE` or `SLOPE`.
    magnitude
        Whether the signal is the modulus of A·g.
    has_field
        Whether F is an axis of the table.
    """

    model: SignalModel
    held: Mapping[str, float]
    low_u: float
    step_u: float
    n_u: int
    low_F: float
    step_F: float
    powers: tuple[Array, ...]
    magnitude: bool
    has_field: bool

    @classmethod
    def of(cls, model: SignalModel, held: Mapping[str, float] | None = None) -> ShapeTable:
        """Tabulate a model over the bounds of its time and its field; the last few tables are kept.

        Parameters
        ----------
        held
            Parameters that have one known value in all voxels. If the field is among them the table has no field axis.

        Raises
        ------
        InputError
            If the model has a parameter that the table cannot hold, a second field, for instance, or changes more often
            within the box than a table can follow.
        """
        known = {
            parameter.name: float(parameter.start)
            for parameter in model.nonlinear
            if parameter.given and parameter.start is not None and parameter != model.field
        }
        known |= {key: float(value) for key, value in (held or {}).items()}
        key = tuple(sorted(known.items()))
        try:
            return _kept(model, key)
        except TypeError:  # a model that has no hash
            return _tabulated(model, key)

    @property
    def u(self) -> Array:
        """The nodes along log(T/ms), (G,)."""
        return np.asarray(self.low_u + self.step_u * np.arange(self.n_u), dtype=float)

    @property
    def high_u(self) -> float:
        """The last node."""
        return self.low_u + self.step_u * (self.n_u - 1)

    @property
    def n_intervals(self) -> int:
        """J, the number of intervals of the field."""
        return int(self.powers[0].shape[0])

    @property
    def linear(self) -> bool:
        """Whether g is linear in the field (or has none)."""
        return len(self.powers) < 3

    def nodes(self, F: ArrayLike, *, stride: int = 1) -> Array:
        """Return g at every node of u (or every `stride`-th) for fields F (M,): (M, G, K, N)."""
        j, x = self._interval(np.asarray(F, dtype=float))
        powers = [power[j, ::stride, VALUE] for power in self.powers]
        return _horner(powers, x[:, None, None, None])

    def evaluate(self, T: ArrayLike, F: ArrayLike = 0.0) -> tuple[Array, Array, Array]:
        """Return g, ∂g/∂u and ∂g/∂F at T (*X) and F (*X), each (N, K, *X): the definition of what the kernels do."""
        T, F = np.broadcast_arrays(np.asarray(T, dtype=float), np.asarray(F, dtype=float))
        place = np.clip((np.log(T) - self.low_u) / self.step_u, 0, self.n_u - 1)
        k = np.minimum(place.astype(int), self.n_u - 2)
        w = hermite_weights(place - k, self.step_u)
        j, x = self._interval(F)
        x = x[..., None, None]
        found, slopes = [], []
        for row in (VALUE, SLOPE):
            for node in (k, k + 1):
                powers = [power[j, node, row] for power in self.powers]  # (*X, K, N)
                found.append(_horner(powers, x))
                slopes.append(
                    _horner([i * power for i, power in enumerate(powers)][1:] or [0 * powers[0]], x) / self.step_F
                )
        v = np.stack([np.broadcast_to(np.asarray(c), T.shape) for c in w])[..., None, None]
        W = dict(zip(w._fields, v))
        (value_0, value_1, slope_0, slope_1), (along_F_0, along_F_1, slope_along_F_0, slope_along_F_1) = found, slopes
        value = W["v0"] * value_0 + W["v1"] * value_1 + W["s0"] * slope_0 + W["s1"] * slope_1
        along_u = W["dv"] * (value_0 - value_1) + W["ds0"] * slope_0 + W["ds1"] * slope_1
        along_F = W["v0"] * along_F_0 + W["v1"] * along_F_1 + W["s0"] * slope_along_F_0 + W["s1"] * slope_along_F_1
        return tuple(np.moveaxis(a, (-1, -2), (0, 1)) for a in (value, along_u, along_F))

    def _interval(self, F: Array) -> tuple[NDArray[np.intp], Array]:
        place = (F - self.low_F) / self.step_F
        j = np.clip(place.astype(int), 0, self.n_intervals - 1)
        return j, place - j


def _horner(coefficients: list[Array], x: Array) -> Array:
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


@lru_cache(maxsize=48)
def _kept(model: SignalModel, held: tuple[tuple[str, float], ...]) -> ShapeTable:
    return _tabulated(model, held)


def _tabulated(model: SignalModel, held: tuple[tuple[str, float], ...]) -> ShapeTable:
    known = dict(held)
    unknown = [
        parameter.name
        for parameter in model.nonlinear
        if parameter.name not in known and parameter != model.time and parameter != model.field
    ]
    if unknown:
        raise InputError(f"{model.title}: expected one time and one field to estimate, got also {', '.join(unknown)}.")
    has_field = model.field is not None and model.field.name not in known
    low, high = np.log(model.time.bounds)
    if not has_field or (model.linear_in_field and model.separable):
        u = np.linspace(low, high, NODES_ALONG_U)
        columns = _without_intervals(model, u, known, has_field)
        return _table(model, known, u, 0.0, 1.0, columns, has_field)
    u, F, values, slopes = _smooth_grid(model, known)
    return _table(model, known, u, F[0], F[1] - F[0], _with_intervals(values, slopes, u, F), True)


def _table(
    model: SignalModel,
    held: Mapping[str, float],
    u: Array,
    low_F: float,
    step_F: float,
    powers: list[Array],
    has_field: bool,
) -> ShapeTable:
    rows = tuple(np.ascontiguousarray(power) for power in powers)
    step = float(u[1] - u[0])
    return ShapeTable(
        model, dict(held), float(u[0]), step, len(u), float(low_F), float(step_F), rows, model.magnitude, has_field
    )


def _value_and_slope(model: SignalModel, u: Array, maps: Mapping[str, Any]) -> Array:
    """Return g and ∂g/∂u, (2, N, K, *X), at log T u (*X)."""
    T, several = np.exp(u), len(model.amplitudes) > 1
    at = {key: value + 0 * T for key, value in maps.items()} | {model.time.name: T}
    arguments = {parameter.name: at[parameter.name] for parameter in model.nonlinear}
    g = np.asarray(model.shape(**arguments), dtype=float)
    slope = np.asarray(model.shape_partials(**arguments)[model.time.name], dtype=float) * T
    return np.stack([g, slope]) if several else np.stack([g, slope])[:, :, None]


def _rows(two: Array, step: float) -> Array:
    """Return (G, 2, K, N) from g and ∂g/∂u (2, N, K, G)."""
    two = two.copy()
    two[SLOPE] *= step
    return np.moveaxis(two, (3, 0, 2, 1), (0, 1, 2, 3))


def _without_intervals(model: SignalModel, u: Array, held: Mapping[str, float], has_field: bool) -> list[Array]:
    """Return the powers of a model without a field axis, or linear in it: exact with one interval."""
    step = float(u[1] - u[0])
    if not has_field:
        return [_rows(_value_and_slope(model, u, held), step)[None]]
    assert model.field is not None
    name = model.field.name
    at_0, at_1 = (_value_and_slope(model, u, {**held, name: F}) for F in (0.0, 1.0))
    return [_rows(at_0, step)[None], _rows(at_1 - at_0, step)[None]]


def _with_intervals(values: Array, slopes: Array, u: Array, F: Array) -> list[Array]:
    """Return the powers of cubic Hermite polynomials between the nodes F, from g, ∂g/∂u and their slopes, (2, N, K, G,
    nF).
    """
    slopes = slopes * (F[1] - F[0])
    slope_along_F_0, slope_along_F_1, m0, m1 = values[..., :-1], values[..., 1:], slopes[..., :-1], slopes[..., 1:]
    powers = [
        slope_along_F_0,
        m0,
        -3 * slope_along_F_0 + 3 * slope_along_F_1 - 2 * m0 - m1,
        2 * slope_along_F_0 - 2 * slope_along_F_1 + m0 + m1,
    ]
    step = float(u[1] - u[0])
    return [np.stack([_rows(power[..., index], step) for index in range(len(F) - 1)]) for power in powers]


def _smooth_grid(model: SignalModel, held: Mapping[str, float]) -> tuple[Array, Array, Array, Array]:
    """Return nodes u and F, and g and ∂g/∂u there with their slopes in F, (2, N, K, G, nF) each.

    The model is evaluated at the points of a Chebyshev series alone, as few as it takes (an extended phase graph is
    slow). The series gives all derivatives, and the fourth ones say how far apart the nodes of cubic interpolation may
    be.
    """
    assert model.field is not None
    box = (tuple(np.log(model.time.bounds)), model.field.bounds)
    series = _series(model, held, box)
    largest = _largest(series)
    nodes: list[Array] = []
    for axis, (low, high), (least, most) in zip((0, 1), box, (NODES_OF_U, NODES_OF_FIELD)):
        bend = _largest(chebyshev.chebder(series, 4, scl=2 / (high - low), axis=axis))
        step = (192 * TOLERANCE * largest / max(bend, 1e-300)) ** 0.25  # cubic Hermite: h⁴/384 g⁗ along each axis
        n = int(np.clip(np.ceil((high - low) / step) + 1, least, most))
        if TOLERANCE * ((high - low) / (n - 1) / step) ** 4 > REFUSED_ERROR:
            raise _too_fine(model)
        nodes.append(np.linspace(low, high, n))
    u, F = (np.asarray(node, dtype=np.float64) for node in nodes)
    along_u, slope_u = _evaluation(series.shape[0], u, box[0])
    along_F, slope_F = _evaluation(series.shape[1], F, box[1])
    rows = np.stack([along_u, slope_u])
    values = np.einsum("rgi,ijnk->rgjnk", rows, series, optimize=True)
    g, slope = (np.asarray(np.einsum("fj,rgjnk->rnkgf", f, values, optimize=True)) for f in (along_F, slope_F))
    return u, F, g, slope


def _evaluation(terms: int, points: Array, limits: tuple[float, float]) -> tuple[Array, Array]:
    """Return the matrices (points, terms) that give a Chebyshev series and its derivative at points within limits."""
    middle, half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    at = np.asarray(chebyshev.chebvander((points - middle) / half, terms - 1), dtype=np.float64)
    derivative = chebyshev.chebder(np.eye(terms), scl=1 / half, axis=0)
    return at, np.asarray(at[:, : terms - 1] @ derivative, dtype=np.float64)


def _largest(series: Array) -> float:
    """Return the largest modulus of a Chebyshev series (n_u, n_F, N, K) over a fine grid of its box."""
    at = [chebyshev.chebvander(np.linspace(-1, 1, 4 * length + 1), length - 1) for length in series.shape[:2]]
    return float(abs(np.einsum("gi,fj,ijnk->gfnk", *at, series, optimize=True)).max())


def _series(model: SignalModel, held: Mapping[str, float], box: Any) -> Any:
    """Return the coefficients (n_u, n_F, N, K) of the Chebyshev series of the shape, with as many terms as it takes."""
    n_u, n_F = FIRST_TERMS
    while True:
        coefficients = _coefficients(model, held, box, (n_u, n_F))
        scale = abs(coefficients).max()
        short_u = abs(coefficients[-3:]).max() > SERIES_TOLERANCE * scale
        short_F = abs(coefficients[:, -3:]).max() > SERIES_TOLERANCE * scale
        full_u, full_F = n_u >= MOST_TERMS, n_F >= MOST_TERMS
        if not (short_u and not full_u) and not (short_F and not full_F):
            last = max(abs(coefficients[-3:]).max(), abs(coefficients[:, -3:]).max())
            if last > REFUSED_ERROR * scale:
                raise _too_fine(model)
            return coefficients
        n_u = min(n_u * 3 // 2, MOST_TERMS) if short_u else n_u
        n_F = min(n_F * 3 // 2, MOST_TERMS) if short_F else n_F


def _too_fine(model: SignalModel) -> InputError:
    """Return why a model has no table: the box has too many turns of the signal."""
    assert model.field is not None
    (low, high), name = model.field.bounds, model.field.name
    unit = "" if model.field.unit == "1" else f" {model.field.unit}"
    return InputError(
        f"{model.title}: expected a signal that the estimators can tabulate for {name} of {low:g} to {high:g}{unit}, "
        f"got one that changes too often in this range. Give narrower bounds (--bounds {name}=LOW,HIGH), or one "
        f"number for {name}."
    )


def _coefficients(model: SignalModel, held: Mapping[str, float], box: Any, terms: tuple[int, int]) -> Array:
    assert model.field is not None
    points, inverse = [], []
    for term, (low, high) in zip(terms, box):
        x = chebyshev.chebpts1(term)
        points.append((low + high) / 2 + (high - low) / 2 * x)
        transform = chebyshev.chebvander(x, term - 1).T * (2 / term)  # discrete orthogonality
        transform[0] /= 2
        inverse.append(transform)
    u, F = np.meshgrid(*points, indexing="ij", sparse=True)  # a phase graph then runs over u alone
    maps = {key: value + 0 * u for key, value in held.items()} | {model.time.name: np.exp(u), model.field.name: F}
    g = np.asarray(model.shape(**{parameter.name: maps[parameter.name] for parameter in model.nonlinear}), dtype=float)
    g = np.broadcast_to(g, (*g.shape[:-2], *terms))
    g = g if len(model.amplitudes) > 1 else g[:, None]
    return np.asarray(np.einsum("iu,jf,nkuf->ijnk", *inverse, g, optimize=True))


class Levels(NamedTuple):
    """A given map of a further parameter, rounded.

    Parameters
    ----------
    middles
        The levels (L,).
    where
        (V) the index of the level of each voxel; −1 where the map has no value.
    step, change
        The widest step, in the unit of the parameter, of those where half a step changes T or the signal most;
        and this change, relative to T or the largest signal.
    """

    middles: Array
    where: NDArray[np.intp]
    step: float = 0.0
    change: float = 0.0


def levels(values: NDArray[Any], model: SignalModel, name: str) -> Levels:
    """Round a given map (V,) of a further parameter.

    It is parted into cells: 5 % of the value, or of the box if this reaches zero or below. A cell has as many levels as
    signal and T demand. They follow from the model alone, so a slab has the levels of the whole.
    """
    flat = np.asarray(values, dtype=float).reshape(-1)
    parameter = model.parameters[model.index(name)]
    known = np.isfinite(flat) & ((flat > 0) | (parameter.bounds[0] <= 0))
    where = np.full(len(flat), -1, np.intp)
    if not known.any():
        return Levels(np.empty(0), where)
    if np.ptp(flat[known]) == 0:  # one value everywhere need not be rounded
        where[known] = 0
        return Levels(flat[known][:1], where)
    place = _place(parameter, flat[known])
    cells, of_cell = np.unique(np.round(place).astype(int), return_inverse=True)
    each, changes = (np.array(column) for column in zip(*(_levels_of_cell(model, name, int(cell)) for cell in cells)))
    within = np.floor((place - cells[of_cell] + 0.5) * each[of_cell]).astype(int)
    within = np.clip(within, 0, each[of_cell] - 1)
    steps, index = np.unique(np.stack([of_cell, within]), axis=1, return_inverse=True)
    where[known] = index.reshape(-1)
    middles = _value(parameter, cells[steps[0]] - 0.5 + (steps[1] + 0.5) / each[steps[0]])
    worst = int(np.argmax(changes))
    ends = _value(parameter, cells[worst] + np.array([-0.5, 0.5]) / each[worst])
    return Levels(middles, where, float(np.ptp(ends)), float(changes[worst]))


def _cell(p: Parameter) -> float:
    """Return the length of a cell on the scale of a parameter: its logarithm, or itself if it may be zero or below."""
    low, high = p.bounds
    if low > 0:
        return float(np.log1p(LEVEL_STEP))
    return LEVEL_STEP * (high - low if np.isfinite(high - low) else 10 * (abs(p.start or 0.0) or 1.0))


def _place(p: Parameter, values: Array) -> Array:
    """Return where values are, in cells."""
    return np.asarray((np.log(values) if p.bounds[0] > 0 else values) / _cell(p), dtype=np.float64)


def _value(p: Parameter, place: Array) -> Array:
    """Return the values at some places."""
    return np.asarray(np.exp(place * _cell(p)) if p.bounds[0] > 0 else np.clip(place * _cell(p), *p.bounds))


def _levels_of_cell(model: SignalModel, name: str, cell: int) -> tuple[int, float]:
    """Return how many levels a cell needs, and by how much half a step then changes the signal or T, relative."""
    try:
        return _kept_levels(model, name, cell)
    except TypeError:  # a model that has no hash
        return _kept_levels.__wrapped__(model, name, cell)


@lru_cache(maxsize=4096)
def _kept_levels(model: SignalModel, name: str, cell: int) -> tuple[int, float]:
    time, start = model.time, float(model.time.start or 1.0)
    usual = [start / 2, 2 * start, *(model.times[model.times > 0] if model.axis.unit == time.unit else ())]
    low, high = max(time.bounds[0], min(usual)), min(time.bounds[1], max(usual))
    at: dict[str, Any] = {p.name: float(p.start or 0.0) for p in model.nonlinear}
    if model.field is not None:
        at[model.field.name] = np.linspace(*model.field.searched, 3)[:, None, None]
    at[time.name] = np.geomspace(low, high, 5)[:, None]
    at[name] = _value(model.parameters[model.index(name)], np.linspace(cell - 0.5, cell + 0.5, _POINTS))
    X = np.broadcast_shapes(*(np.shape(value) for value in at.values()))
    maps = {key: np.broadcast_to(value, X) + 0.0 for key, value in at.items()}
    g = np.asarray(model.shape(**maps), dtype=float).reshape(model.n_images, -1, *X)
    slopes = {key: np.reshape(value, g.shape).sum(1) for key, value in model.shape_partials(**maps).items()}
    across = slopes[name] * np.gradient(at[name]) * (_POINTS - 1)  # of a whole cell
    others = [*np.moveaxis(g, 1, 0), slopes[time.name] * maps[time.name]]
    if model.field is not None and not model.field.given:
        others.insert(0, slopes[model.field.name])
    J = np.moveaxis(np.stack(others), (0, 1), (-1, -2))
    gram = np.swapaxes(J, -1, -2) @ J
    gram += 1e-9 * np.trace(gram, axis1=-2, axis2=-1)[..., None, None] * np.eye(len(others))
    of_time = np.linalg.solve(gram, np.swapaxes(J, -1, -2) @ np.moveaxis(across, 0, -1)[..., None])[..., -1, 0]
    largest = float(np.sqrt((g.sum(1) ** 2).sum(0)).max()) or 1.0
    of_signal = float(np.sqrt((across**2).sum(0)).max()) / largest
    half = max(of_signal, float(abs(of_time).max())) / 2
    many = int(np.clip(np.ceil(half / LEVEL_TOLERANCE), 1, MOST_LEVELS))
    return many, half / many


#: Weights of cubic Hermite interpolation at t in an interval of length `step`: of the values v0, v1 and the slopes s0,
#: s1 (times the step) at its ends. `dv`, `ds0`, `ds1` give the derivative from v0 − v1, s0, s1; `ddv`, `dds0`, `dds1`
#: the second one.
Hermite = namedtuple("Hermite", "v0 v1 s0 s1 dv ds0 ds1 ddv dds0 dds1")


def hermite_weights(t: Array, step: float) -> Hermite:
    """Return the weights of cubic Hermite interpolation at t (0 to 1) of an interval of length `step`.

    f(t) = (1 + 2t)(1 − t)² f₀ + t²(3 − 2t) f₁ + t(1 − t)² f′₀ + t²(t − 1) f′₁, where slopes are times the step. The
    weight of f₁ has the derivative of the weight of f₀, with the opposite sign.
    """
    return Hermite(
        (1 + 2 * t) * (1 - t) ** 2,
        t * t * (3 - 2 * t),
        t * (1 - t) ** 2,
        t * t * (t - 1),
        6 * t * (t - 1) / step,
        (1 - t) * (1 - 3 * t) / step,
        t * (3 * t - 2) / step,
        (12 * t - 6) / (step * step),
        (6 * t - 4) / (step * step),
        (6 * t - 2) / (step * step),
    )
