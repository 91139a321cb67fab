"""Where images are clipped: many voxels of an object have the largest value of all, and few have any value just below
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Where = NDArray[np.bool_]
#: Yields (images (N, *X), voxels of the object (*X)) of each part of a series. Planes are along the last axis.
Parts = Callable[[], Iterable[tuple[NDArray[Any], Where]]]

#: So many voxels with the largest value, and so many times the number at any other of so many next values, are clipped.
PILE, _OVER, _BELOW = 6, 4, 10
#: Voxels that are alike in all images are a drawn object: the other images must have this share of distinct values.
_DISTINCT = 0.5
#: From this share of the object's voxels on, wrong values spoil the maps.
MANY = 0.05


@dataclass(frozen=True)
class Clipping:
    """At which value each image of a series is clipped.

    Images that are stored in one scale share their value; images in scales of their own (as after a conversion to 12
    bits one by one) have one each.

    Parameters
    ----------
    levels
        (N), the values; infinite for an image that is not clipped; empty if none is.
    much
        Whether that is in more than a few voxels of the object.
    """

    levels: tuple[float, ...] = ()
    much: bool = False

    def of_images(self, n_images: int) -> NDArray[np.float64]:
        """Return the values (N), infinite for all images of a series of which nothing is known."""
        return np.array(self.levels or (np.inf,) * n_images)

    @classmethod
    def of(cls, parts: Parts) -> Clipping:
        """Return it from all parts of a series, which are read again only if many voxels have the largest value."""
        largest, piled = _largest(parts)
        levels = {n: float(largest[n]) for n, clipped in _piles(parts, piled).items() if clipped}
        # An image with few clipped voxels has no pile, but the largest value of one that has.
        levels |= {n: float(value) for n, value in largest.items() if float(value) in levels.values()}
        if not levels:
            return cls()
        clipped, total, n_images = 0, 0, 0
        for images, thing in parts():
            n_images = len(images)
            clipped += int(np.logical_or.reduce([thing & (images[n] >= level) for n, level in levels.items()]).sum())
            total += int(thing.sum())
        return cls(tuple(levels.get(n, np.inf) for n in range(n_images)), clipped > MANY * total)


def _largest(parts: Parts) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return the largest value of the object in each image, and only of the images in which many voxels have it, by the
    image's number.
    """
    largest: dict[int, Any] = {}
    count: dict[int, int] = {}
    for images, thing in parts():
        for number, image in enumerate(images):
            values = image[thing]
            if not len(values):
                continue
            top = values.max()
            here = int(np.count_nonzero(values == top))
            if number not in largest or top > largest[number]:
                largest[number], count[number] = top, here
            elif top == largest[number]:
                count[number] += here
    # The largest value of a signed image without positive ones may be zero, where it does not reach.
    return largest, {n: value for n, value in largest.items() if count[n] >= PILE and value > 0}


def _piles(parts: Parts, largest: dict[int, Any]) -> dict[int, bool]:
    """Return for each image whether voxels accumulate at its largest value. In a drawn object, that is the value of a
    tissue.
    """
    if not largest:
        return {}
    counts: dict[int, dict[Any, int]] = {n: {} for n in largest}
    distinct: dict[int, NDArray[np.int64]] = {}
    for images, thing in parts():
        for n in largest:
            values, many = np.unique(images[n][thing], return_counts=True)
            for value, c in zip(values[-1 - _BELOW :].tolist(), many[-1 - _BELOW :].tolist()):
                counts[n][value] = counts[n].get(value, 0) + c
            distinct[n] = distinct.get(n, np.zeros(len(images), np.int64)) + _distinct(images, thing, n, largest[n])
    found = {}
    for n, of_value in counts.items():
        top, *below = (of_value[v] for v in sorted(of_value, reverse=True)[: 1 + _BELOW])
        others = np.delete(distinct[n], n)
        found[n] = bool(below and top >= max(PILE, _OVER * max(below)) and others.max(initial=0) > _DISTINCT * top)
    return found


def _distinct(images: NDArray[Any], thing: Where, n: int, value: Any) -> NDArray[np.int64]:
    """Return how many distinct values each image has where image n has a value, summed over the planes."""
    pile = thing & (images[n] == value)
    planes = [(..., k) for k in np.flatnonzero(pile.any((0, 1)))] if pile.ndim > 2 else [(...,)]
    return np.array([sum(len(np.unique(image[plane][pile[plane]])) for plane in planes) for image in images], np.int64)
