"""Slices of a volume as pictures, seen as a radiologist sees them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The letters of a direction and its opposite, by axis of the patient.
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True)
class Plane:
    """How slices across one axis of a volume (X, Y, Z) are laid on the page.

    Parameters
    ----------
    name
        axial, coronal, sagittal; "across axis 3" without an affine.
    axes
        Array axes that run right, down and through the slices.
    flips
        Whether each of the first two runs backwards.
    letters
        What is at the left, right, top and bottom, empty where no affine is known.
    """

    name: str
    axes: tuple[int, int, int]
    flips: tuple[bool, bool]
    letters: tuple[str, str, str, str]


@dataclass(frozen=True)
class View:
    """Chosen slices of a plane, cropped.

    Parameters
    ----------
    plane
        How a slice is laid.
    slices
        Chosen indices through the slices.
    crop
        Half-open ranges to the right and down.
    aspect
        Width over height of a picture, in mm.
    """

    plane: Plane
    slices: tuple[int, ...]
    crop: tuple[slice, slice]
    aspect: float

    @property
    def middle(self) -> int:
        """The slice in the middle of the chosen ones."""
        return self.slices[len(self.slices) // 2]

    def picture(self, x: NDArray[Any], k: int) -> NDArray[Any]:
        """Return slice `k` (height, width)."""
        right, down, through = self.plane.axes
        image = np.moveaxis(volume(x), (down, right, through), (0, 1, 2))[:, :, k]
        if self.plane.flips[1]:
            image = image[::-1]
        if self.plane.flips[0]:
            image = image[:, ::-1]
        return image[self.crop[1], self.crop[0]]


def slice_number(k: int) -> int:
    """Return the number of a slice for people, who count from 1, from its index in an array.

    >>> slice_number(0)
    1
    """
    return int(k) + 1


def volume(x: NDArray[Any]) -> NDArray[Any]:
    """Return an array of one to three axes as one of three."""
    return x.reshape(x.shape + (1,) * (3 - x.ndim))


def edges_mm(affine: NDArray[Any] | None, known: Sequence[float] = ()) -> NDArray[np.float64]:
    """Return the edge lengths (3,) of a voxel, mm: of the affine, else those that are `known` without it, else 1."""
    if affine is not None:
        return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))
    edges = np.array([*known, 1.0, 1.0, 1.0], dtype=float)[:3]
    return np.where(np.isfinite(edges) & (edges > 0), edges, 1.0)


def planes_of(affine: NDArray[Any] | None, shape: tuple[int, ...]) -> list[Plane]:
    """Return the planes that a volume can be cut in, that of the acquisition first.

    Radiological convention: the patient's right is at the left of the picture. The acquired slices are across
    the longest edge of the voxel, else they are axial. A single slice has one plane.
    """
    full = (*shape, 1, 1)[:3]
    thin = [axis for axis in range(3) if full[axis] == 1]
    if affine is None:
        stored = Plane("" if len(thin) else "across axis 3", (1, 0, 2), (False, False), ("", "", "", ""))
        if thin:
            return [stored]
        turned = ((2, 0, 1), (2, 1, 0))
        return [stored, *(Plane(f"across axis {a[2] + 1}", a, (False, False), stored.letters) for a in turned)]
    direction = affine[:3, :3] / edges_mm(affine)
    world: list[int] = [-1, -1, -1]  # the world axis (R, A, S) nearest to each array axis
    for a, w in sorted(np.ndindex(3, 3), key=lambda aw: -abs(direction[aw[1], aw[0]])):
        if world[a] < 0 and w not in world:
            world[a] = int(w)
    size = edges_mm(affine)
    if len(thin) == 1:
        first = thin[0]
    elif size.max() > 1.2 * np.median(size):
        first = int(size.argmax())
    else:
        first = world.index(2)
    others = tuple(world.index(w) for w in (2, 1, 0) if world.index(w) != first)
    return [_laid(direction, world, through) for through in (first, *(() if thin else others))]


def _laid(direction: NDArray[Any], world: list[int], through: int) -> Plane:
    # Down the picture goes S→I, or A→P in an axial one; to the right R→L, or A→P in a sagittal one.
    w_right, w_down = {2: (0, 1), 1: (0, 2), 0: (1, 2)}[world[through]]
    right, down = world.index(w_right), world.index(w_down)
    towards_left_or_posterior = direction[w_right, right] < 0
    flips = (not towards_left_or_posterior, bool(direction[w_down, down] > 0))
    letters = (_LETTERS[w_right][1], _LETTERS[w_right][0], _LETTERS[w_down][1], _LETTERS[w_down][0])
    return Plane(("sagittal", "coronal", "axial")[world[through]], (right, down, through), flips, letters)


def view_of(
    affine: NDArray[Any] | None, shown: NDArray[np.bool_], limit: int = 12, edges: Sequence[float] = ()
) -> View:
    """Return the acquisition's plane: up to `limit` slices through `shown` (*X), cropped to it; `edges` as of
    `edges_mm`.
    """
    plane = planes_of(affine, shown.shape)[0]
    shown, size = volume(shown), edges_mm(affine, edges)
    right, down, through = plane.axes
    used = np.flatnonzero(shown.any(axis=(right, down)))
    used = used if used.size else np.arange(shown.shape[through])
    slices = used[np.unique(np.linspace(0, used.size - 1, min(limit, used.size)).round().astype(int))]
    crops = []
    for axis, flip in ((right, plane.flips[0]), (down, plane.flips[1])):
        n, (low, high) = shown.shape[axis], extent(shown, axis)
        crops.append(slice(n - high, n - low) if flip else slice(low, high))
    width, height = ((crop.stop - crop.start) * size[axis] for crop, axis in zip(crops, plane.axes))
    return View(plane, tuple(int(slice_) for slice_ in slices), (crops[0], crops[1]), float(width / height))


def extent(shown: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return the half-open range of `shown` (X, Y, Z) along an axis, with a margin; all of it where nothing is."""
    n = shown.shape[axis]
    found = np.flatnonzero(shown.any(axis=tuple({0, 1, 2} - {axis})))
    if not found.size:
        return 0, n
    margin = max(2, n // 40)
    return max(0, int(found[0]) - margin), min(n, int(found[-1]) + 1 + margin)


def png(entries: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Return a PNG of palette entries (height, width) as a data URI."""
    from PIL import Image  # only who draws pays for it

    image = Image.fromarray(np.ascontiguousarray(entries, dtype=np.uint8))
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
