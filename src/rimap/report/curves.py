"""Tabulate the shape of a model, so that the page can draw the fitted curve of any voxel without containing the
physics.

The table has one value for each point of the curve, each amplitude and each node of a grid over the other parameters.
Between nodes, the page interpolates by polynomials through the four nearest nodes, or two if two nodes are enough
(which is exact for a model that is linear in its field). The number of nodes of each axis depends on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rimap.arrays import at_least
from rimap.signals.base import SignalModel

Array = NDArray[np.float64]

#: Entries of the table are whole numbers up to this one.
LARGEST_ENTRY = 32_000
#: Points of a curve that can be drawn between the images.
POINTS = 140
#: Numbers of nodes to try along an axis until the error is below `TOLERANCE` of the largest value.
NODES_TO_TRY = (2, 6, 12, 24, 48, 96, 192)
#: Largest error of an interpolated curve relative to its largest value: below the width of its line.
TOLERANCE = 1e-4
#: Largest number of entries of a table. If it would be larger, the axes with the most nodes get fewer.
MOST_ENTRIES = 600_000
#: Error above which the page reports the accuracy of its curves.
VISIBLE_ERROR = 5e-3
#: Number of random points at which the table is compared with the model.
PLACES = 24


@dataclass(frozen=True)
class TableAxis:
    """One parameter of the table: `n` nodes in steps of `step` from `low`, on a logarithmic scale or not."""

    name: str
    logarithmic: bool
    low: float
    step: float
    n: int

    @classmethod
    def over(cls, name: str, values: NDArray[Any], n: int, *, logarithmic: bool) -> TableAxis | None:
        """Return the axis over the range of values; one node if all values are equal, `None` if none is finite."""
        x = np.asarray(values, dtype=float)
        x = x[np.isfinite(x)]
        logarithmic = logarithmic and bool((x > 0).any())
        if logarithmic:
            x = np.log(x[x > 0])
        if not x.size:
            return None
        low, high = float(x.min()), float(x.max())
        if high - low <= 1e-9 * max(abs(high), 1.0):
            return cls(name, logarithmic, low, 1.0, 1)
        return cls(name, logarithmic, low, (high - low) / (n - 1), n)

    def with_nodes(self, n: int) -> TableAxis:
        """Return the same range with another number of nodes."""
        return self if self.n == 1 else replace(self, n=n, step=self.step * (self.n - 1) / (n - 1))

    @property
    def nodes(self) -> Array:
        """The values of the parameter at the nodes, (n,)."""
        return self.at(np.arange(self.n))

    def at(self, place: ArrayLike) -> Array:
        """Return the value of the parameter at places between 0 and n − 1."""
        x = self.low + self.step * np.asarray(place, dtype=float)
        return np.asarray(np.exp(x) if self.logarithmic else x)

    def stencil(self, values: NDArray[Any]) -> tuple[NDArray[np.intp], list[Array]]:
        """Return the first node that each value is interpolated from, and the weights of that node and of those after
        it.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            x = np.log(values) if self.logarithmic else np.asarray(values, dtype=float)
            place = np.clip(np.nan_to_num((x - self.low) / self.step), 0, self.n - 1)
        if self.n == 1:
            return np.zeros(place.shape, np.intp), [np.ones(place.shape)]
        if self.n == 2:
            return np.zeros(place.shape, np.intp), [1 - place, place]
        first = np.clip(place.astype(np.intp) - 1, 0, self.n - 4)
        t = place - first  # Lagrange's polynomials through 0, 1, 2 and 3
        a, b, c = t - 1, t - 2, t - 3
        return first, [-a * b * c / 6, t * b * c / 2, -t * a * c / 2, t * a * b / 6]


@dataclass(frozen=True, eq=False)
class SignalTable:
    """The shape g of S = |Σ A_k g_k(T, F, …)| at the points of a curve.

    Parameters
    ----------
    entries
        (P, K, n₁, n₂, …) whole numbers; g is `scale` times them.
    axes
        The parameters that are not amplitudes.
    amplitudes
        Names of the K amplitudes; none if the signal has no amplitude (a ratio of images), which counts as one of 1.
    points
        The values of the model's axis at which the curve is known (P).
    images
        Which of the points are those of the images (N).
    continuous
        Whether there are points between those of the images, so that a line may be drawn.
    magnitude
        Whether the signal is the modulus.
    error
        The largest error that was found, as a share of the largest |g|.
    """

    entries: NDArray[np.int16]
    scale: float
    axes: tuple[TableAxis, ...]
    amplitudes: tuple[str, ...]
    points: Array
    images: NDArray[np.intp]
    continuous: bool
    magnitude: bool
    error: float

    def reader(self, maps: Mapping[str, NDArray[Any]]) -> Callable[[int], Array]:
        """Return a function that gives the signal (*X) at a point of the curve, for maps (*X) by name.

        It interpolates as the page does. The signal is 0 where a map is not finite.
        """
        stencils = [axis.stencil(np.asarray(maps[axis.name])) for axis in self.axes]
        sizes = [axis.n for axis in self.axes]
        corners = []
        for steps in product(*(range(len(weights)) for _, weights in stencils)):
            index, weight = np.zeros(1, np.intp), np.ones(1)
            for (first, weights), step, size in zip(stencils, steps, sizes):
                index, weight = index * size + first + step, weight * weights[step]
            corners.append((index, weight * self.scale))
        amplitudes = [np.asarray(maps[name], dtype=float) for name in self.amplitudes] or [np.ones(1)]
        known = np.logical_and.reduce(
            [np.isfinite(maps[n]) for n in (*self.amplitudes, *(axis.name for axis in self.axes))]
        )
        rows = self.entries.reshape(*self.entries.shape[:2], -1).astype(float)

        def signal(point: int) -> Array:
            total: Any = 0.0
            for amplitude, row in zip(amplitudes, rows[point]):
                g: Any = 0.0
                for index, weight in corners:
                    g = g + row[index] * weight
                total = total + np.where(known, amplitude, 0.0) * g
            return np.asarray(np.abs(total) if self.magnitude else total)

        return signal

    def about(self) -> dict[str, Any]:
        """Return the description of the table that the page reads together with the entries."""
        return {
            "shape": list(self.entries.shape),
            "scale": self.scale,
            "axes": [
                {"name": axis.name, "log": axis.logarithmic, "low": axis.low, "step": axis.step, "n": axis.n}
                for axis in self.axes
            ],
            "amplitudes": list(self.amplitudes),
            "points": self.points.tolist(),
            "images": self.images.tolist(),
            "continuous": self.continuous,
            "magnitude": self.magnitude,
        }


def signal_table(model: SignalModel, maps: Mapping[str, NDArray[Any]]) -> SignalTable | None:
    """Return the table of a model over the range of its maps; `None` if a map is empty or the model has no finite
    value.

    Parameters
    ----------
    maps
        Values (any shape) by name, for every parameter of the model.
    """
    axes = []
    for parameter in model.nonlinear:
        axis = TableAxis.over(
            parameter.name, maps[parameter.name], NODES_TO_TRY[-1], logarithmic=parameter.transform == "log"
        )
        if axis is None:
            return None
        axes.append(axis)
    places = _places(axes)
    curve, images, continuous = _curve(model, places)
    columns = _columns(curve)
    true = columns(places)
    largest = float(np.abs(true).max(initial=0.0))
    if not np.isfinite(largest) or not largest:
        return None
    axes = [_enough_nodes(columns, axes, index, places, TOLERANCE * largest) for index in range(len(axes))]
    axes = _fitting(axes, true.shape[0] * true.shape[1])
    grid = np.meshgrid(*(axis.nodes for axis in axes), indexing="ij")
    g = columns({axis.name: x.reshape(-1) for axis, x in zip(axes, grid)})
    largest = float(np.abs(g).max())
    if not np.isfinite(largest):
        return None
    scale = largest / LARGEST_ENTRY
    entries = np.rint(g / scale).astype(np.int16).reshape(*g.shape[:2], *(axis.n for axis in axes))
    table = SignalTable(
        entries, scale, tuple(axes), tuple(amplitude.name for amplitude in model.amplitudes), curve.times, images,
        continuous,
        model.magnitude, 0.0,
    )  # fmt: skip
    return replace(table, error=_error(table, places, true, largest))


def _places(axes: Sequence[TableAxis]) -> dict[str, Array]:
    """Return random values of each parameter within its range, (PLACES,) by name."""
    rng = np.random.default_rng(0)
    return {axis.name: axis.at(rng.uniform(0, axis.n - 1, PLACES)) for axis in axes}


def _columns(model: SignalModel) -> Callable[[Mapping[str, Array]], Array]:
    """Return the function that gives the columns of a model, (P, K, M), at M places."""

    def columns(maps: Mapping[str, Array]) -> Array:
        with np.errstate(all="ignore"):  # an overflow in the model is caught as a value that is not finite
            return np.asarray(model.columns(maps), dtype=float)

    return columns


def _enough_nodes(
    columns: Callable[[Mapping[str, Array]], Array],
    axes: Sequence[TableAxis],
    k: int,
    places: Mapping[str, Array],
    tolerance: float,
) -> TableAxis:
    """Return axis k with as many nodes as interpolation along it needs, tested at some points along the other axes."""
    axis = axes[k]
    if axis.n == 1:
        return axis
    few = {name: place[:4] for name, place in places.items()}
    tests = np.linspace(0, 1, 4 * NODES_TO_TRY[-1] + 1)[1::2]  # midway between nodes and elsewhere
    tests = at_least(tests, 97)

    def along(values: Array) -> Array:
        """Return the columns (P, K, 4, M) at M values of the axis."""
        maps = {name: np.repeat(value, len(values)) for name, value in few.items()}
        maps[axis.name] = np.tile(values, len(next(iter(few.values()))))
        found = columns(maps)
        return found.reshape(*found.shape[:2], -1, len(values))

    wanted = axis.at(tests * (axis.n - 1))
    true = along(wanted)
    for n in NODES_TO_TRY:
        tried = axis.with_nodes(n)
        nodes = along(tried.nodes)
        first, weights = tried.stencil(wanted)
        found = sum(weight * nodes[..., first + i] for i, weight in enumerate(weights))
        if float(np.abs(found - true).max()) <= tolerance:
            break
    return tried


def _fitting(axes: list[TableAxis], rows: int) -> list[TableAxis]:
    """Return the axes, with fewer nodes if a table with `rows` values per node would exceed its largest size."""
    while rows * int(np.prod([axis.n for axis in axes])) > MOST_ENTRIES:
        k = int(np.argmax([axis.n for axis in axes]))
        if axes[k].n <= 6:
            break
        axes[k] = axes[k].with_nodes(max(6, int(0.8 * axes[k].n)))
    return axes


def _error(table: SignalTable, places: Mapping[str, Array], true: Array, largest: float) -> float:
    """Return the largest error of the table at the places, as a share of the largest value."""
    found = 0.0
    for index in range(true.shape[1]):
        ones = {amplitude: np.full(PLACES, float(i == index)) for i, amplitude in enumerate(table.amplitudes)}
        signal = replace(table, magnitude=False).reader({**places, **ones})
        found = max(found, *(float(np.abs(signal(p) - true[p, index]).max()) for p in range(len(table.points))))
    return found / largest


def _curve(model: SignalModel, places: Mapping[str, Array]) -> tuple[SignalModel, NDArray[np.intp], bool]:
    """Return the model at the points of the curve, which of them are the images, and whether there are others.

    A model is used only at its images if it cannot be evaluated between them, or if its values at the images would then
    change (an echo train with another echo spacing).
    """
    at_images = _columns(model)(places)
    largest = float(np.nanmax(np.abs(at_images), initial=0.0))
    for lowest in (0.0, float(model.times.min())):
        span = np.linspace(0, 1, POINTS) ** (1.5 if model.axis.unit == "ms" else 1.0)  # closer where the signal is fast
        values = np.unique(np.concatenate([lowest + (model.times.max() - lowest) * span, model.times]))
        images = np.searchsorted(values, model.times)
        try:
            curve = _at(model, values)
            found = _columns(curve)(places)
        except Exception:  # a model may refuse other settings with any exception; then no line is drawn
            continue
        if (
            len(found) == len(values) > len(set(model.times))
            and np.isfinite(found).all()
            and np.abs(found[images] - at_images).max() <= 1e-6 * largest
        ):
            return curve, images, True
    return model, np.arange(model.n_images), False


def _at(model: SignalModel, values: Array) -> SignalModel:
    """Return the model at other values of its axis; other settings of each image are interpolated."""
    order = np.argsort(model.times, kind="stable")
    changes: dict[str, Any] = {model.axis.name: tuple(values)}
    for setting in model.settings.values():
        value = getattr(model, setting.name)
        if setting.name != model.axis.name and setting.per_image is not False and value is not None:
            changes[setting.name] = tuple(np.interp(values, model.times[order], np.asarray(value, dtype=float)[order]))
    return replace(model, **changes)
