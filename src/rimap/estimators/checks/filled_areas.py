"""Areas that a program has filled with one value, whatever it is: neighbours in a measured image are never all equal.

Padding, areas that a registration or a correction of gradients could not fill, and lost columns often hold a value that
is not zero. An area counts as filled if its value occurs side by side far more often than any similar value. In an
object that was drawn, without noise, every tissue would be such an area: there, nothing counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.checks.connected_areas import areas

Where = NDArray[np.bool_]
#: Yields (images (N, *X), voxels of the object (*X)) of each part of a series.
Parts = Callable[[], Iterable[tuple[NDArray[Any], Where]]]
#: The values that fill an image, for each image of a series.
Fills = tuple[tuple[float, ...], ...]

#: Voxels of an area at least, and of a line.
FEWEST, _LINE = 12, 6
#: A value occurs side by side so many times as often as any of so many similar values on either side.
_OVER, _SIMILAR = 10, 5
#: At most so many values fill an image.
_MOST_VALUES = 3
#: An object is drawn if this share of its voxels equals a neighbour in all images.
_DRAWN = 0.2


def fills_of(parts: Parts, n_images: int) -> Fills:
    """Return the values that fill areas of each image of a series, from all its parts; () if there are none."""
    # Over the whole, and over the object alone: there, a value of air stands out.
    counts: list[list[dict[float, int]]] = [[{} for _ in range(n_images)] for _ in range(2)]
    for images, thing in parts():
        for of_value, where in zip(counts, (np.ones_like(thing), thing)):
            for times_of, image in zip(of_value, images):
                for value, times in zip(*_side_by_side(image, where)):
                    times_of[float(value)] = times_of.get(float(value), 0) + int(times)
    found = tuple(tuple({*_outstanding(whole), *_outstanding(thing)}) for whole, thing in zip(*counts))
    return found if any(found) and not _drawn(parts, found) else ()


def filled(image: NDArray[Any], values: tuple[float, ...]) -> Where:
    """Return the voxels (*X) of areas that are filled with one of the values.

    Such an area consists of squares of 2 × 2 voxels, or is a line: a measured value beside it may be the same by
    chance.
    """
    found = np.zeros(image.shape, bool)
    for value in values:
        same = image == image.dtype.type(value)
        if same.ndim < 2:
            found |= same
            continue
        planes = same if same.ndim > 2 else same[..., None]
        for plane in np.flatnonzero(planes.any((0, 1))):
            found.reshape(planes.shape)[..., plane] |= _of_plane(planes[..., plane])
    return found


def _of_plane(same: Where) -> Where:
    """Return the voxels (X, Y) that are in squares or lines of equal ones."""
    squares = np.zeros(same.shape, bool)
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    views = [(slice(x, same.shape[0] - 1 + x), slice(y, same.shape[1] - 1 + y)) for x, y in corners]
    square = np.logical_and.reduce([same[view] for view in views])
    for view in views:
        squares[view] |= square
    thin = same & ~squares
    found = squares.copy()
    for axis in range(2):
        if thin.shape[axis] < _LINE:
            continue
        runs = np.lib.stride_tricks.sliding_window_view(thin, _LINE, axis).all(-1)
        for shift in range(_LINE):
            at = [slice(None)] * 2
            at[axis] = slice(shift, shift + runs.shape[axis])
            found[tuple(at)] |= runs
    return areas(found, FEWEST)


def _side_by_side(image: NDArray[Any], where: Where) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values that voxels share with the next one along an axis, and in how many pairs."""
    found = []
    for axis in range(image.ndim):
        after, before = _neighbours(image, axis)
        found.append(after[(after == before) & np.logical_and(*_neighbours(where, axis))])
    values, counts = np.unique(np.concatenate(found), return_counts=True)
    return values, counts


def _neighbours(values: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values with one before them along a spatial axis, and those before them."""
    after, before = ([slice(None)] * values.ndim for _ in range(2))
    after[axis], before[axis] = slice(1, None), slice(None, -1)
    return values[tuple(after)], values[tuple(before)]


def _outstanding(counts: dict[float, int]) -> tuple[float, ...]:
    """Return the values that occur side by side far more often than similar ones. Zeros are judged elsewhere."""
    values = sorted(counts)
    times = np.array([counts[value] for value in values], float)
    often = np.flatnonzero((times >= FEWEST) & (np.array(values) != 0))
    found = []
    for index in often[np.argsort(-times[often], kind="stable")][:_MOST_VALUES]:
        similar = np.r_[times[max(index - _SIMILAR, 0) : index], times[index + 1 : index + 1 + _SIMILAR]]
        if times[index] >= _OVER * similar.max(initial=0):
            found.append(values[index])
    return tuple(found)


def _drawn(parts: Parts, fills: Fills) -> bool:
    """Return whether voxels beside the filled areas equal their neighbours in all images: there is no noise.

    If the filled areas are all of the object, their signal shows it: a drawn object has another value in each image,
    while a bright area that is taken for the object (it may be brighter than all tissue) has one.
    """
    equal = compared = 0
    for images, thing in parts():
        other = thing.copy()
        for image, values in zip(images, fills):
            other &= ~np.isin(image, np.array(values, image.dtype))
        for axis in range(other.ndim):
            after, before = _neighbours(other, axis)
            both = after & before
            same = both.copy()
            for image in images:
                same &= np.equal(*_neighbours(image, axis))
            compared += int(np.count_nonzero(both))
            equal += int(np.count_nonzero(same))
    if not compared:
        return all(fills) and len(set(fills)) > 1
    return equal >= _DRAWN * compared
