"""Slices of a volume as PNG pictures inside the page, seen as a radiologist sees them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rimap.series import WeightedSeries

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True)
class View:
    """How slices of a volume (X, Y, Z) are laid on the page: which, cropped where, turned how.

    Parameters
    ----------
    axes
        Array axes that run right, down and through the slices.
    flips
        Whether each of the first two runs backwards.
    slices
        Chosen indices through the slices.
    crop
        Half-open ranges along the first two.
    aspect
        Width over height of a picture, in mm.
    letters
        What is at the left, right, top and bottom, empty where no affine is known.
    plane
        axial, coronal, sagittal or empty.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool]
    slices: tuple[int, ...]
    crop: tuple[slice, slice]
    aspect: float
    letters: tuple[str, str, str, str]
    plane: str

    def picture(self, volume: NDArray[Any], k: int) -> NDArray[Any]:
        """Return slice `k` (height, width)."""
        right, down, through = self.axes
        image = np.moveaxis(_volume(volume), (down, right, through), (0, 1, 2))[:, :, k]
        if self.flips[1]:
            image = image[::-1]
        if self.flips[0]:
            image = image[:, ::-1]
        return image[self.crop[1], self.crop[0]]


def _volume(x: NDArray[Any]) -> NDArray[Any]:
    return x.reshape(x.shape + (1,) * (3 - x.ndim))


def view_of(series: WeightedSeries, shown: NDArray[np.bool_], limit: int = 12) -> View:
    """Return the view of a series: up to `limit` slices through `shown` (*X), cropped to it.

    Radiological convention: the patient's right is at the left of the picture. The slices are those of the
    acquisition: across the longest edge of the voxel, else axial.
    """
    volume = _volume(shown)
    size = np.array((*series.voxel_size, 1.0, 1.0)[:3])
    if series.affine is None:
        axes, flips, letters, plane = (1, 0, 2), (False, False), ("", "", "", ""), ""
    else:
        axes, flips, letters, plane = _orientation(series.affine, volume.shape, size)
    right, down, through = axes
    used = np.flatnonzero(volume.any(axis=(right, down)))
    used = used if used.size else np.arange(volume.shape[through])
    slices = used[np.unique(np.linspace(0, used.size - 1, min(limit, used.size)).round().astype(int))]
    crops = []
    for axis, flip in ((right, flips[0]), (down, flips[1])):
        n = volume.shape[axis]
        found = np.flatnonzero(volume.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = (found[0], found[-1] + 1) if found.size else (0, n)
        margin = max(2, n // 40)
        low, high = max(0, low - margin), min(n, high + margin)
        crops.append(slice(int(n - high), int(n - low)) if flip else slice(int(low), int(high)))
    width, height = ((c.stop - c.start) * size[a] for c, a in zip(crops, axes))
    return View(axes, flips, tuple(int(k) for k in slices), (crops[0], crops[1]), float(width / height), letters, plane)


def _orientation(
    affine: NDArray[Any], shape: tuple[int, ...], size: NDArray[Any]
) -> tuple[tuple[int, int, int], tuple[bool, bool], tuple[str, str, str, str], str]:
    direction = affine[:3, :3] / size
    world: list[int] = [-1, -1, -1]  # the world axis (R, A, S) nearest to each array axis
    for a, w in sorted(np.ndindex(3, 3), key=lambda aw: -abs(direction[aw[1], aw[0]])):
        if world[a] < 0 and w not in world:
            world[a] = int(w)
    thin = [a for a in range(3) if shape[a] == 1]
    if len(thin) == 1:
        through = thin[0]
    elif size.max() > 1.2 * np.median(size):
        through = int(size.argmax())
    else:
        through = world.index(2)
    # Down the picture goes S→I, or A→P in an axial one; to the right R→L, or A→P in a sagittal one.
    w_right, w_down = {2: (0, 1), 1: (0, 2), 0: (1, 2)}[world[through]]
    right, down = world.index(w_right), world.index(w_down)
    towards_left_or_posterior = direction[w_right, right] < 0
    flips = (not towards_left_or_posterior, bool(direction[w_down, down] > 0))
    letters = (_LETTERS[w_right][1], _LETTERS[w_right][0], _LETTERS[w_down][1], _LETTERS[w_down][0])
    plane = ("sagittal", "coronal", "axial")[world[through]]
    return (right, down, through), flips, letters, plane


def png(entries: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Return a PNG of palette entries (height, width) as a data URI."""
    image = Image.fromarray(np.ascontiguousarray(entries, dtype=np.uint8))
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
