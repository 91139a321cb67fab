"""Maps of a field that were measured on another grid of voxels: interpolated at the voxels of the images.

A field varies slowly, so a map of lower resolution describes it. A mask or a label image does not: its edges would be
wrong by a voxel, so those on another grid are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.foreground import foreground
from rimap.io.masks import read_map
from rimap.io.nifti import NiftiFile, open_nifti
from rimap.io.voxel_grid import affine_of, same_grid

Floats = NDArray[np.float64]

#: Share of the object that a map on another grid must cover.
_COVERED = 0.95
#: A voxel reaches this far from its middle; rounding of headers is a little of it.
_HALF = 0.5 + 0.05
#: Voxels with less than this weight of known neighbours have no value.
_LEAST_WEIGHT = 1e-3


def map_at_images(path: Path, first: NiftiFile, what: str) -> tuple[Floats, str]:
    """Return a map (*X) at the voxels of an image, and how it got there, for a note; "" if it has the same grid.

    Voxels of the map without a value (zero or not finite) have no say. Voxels of the image far from all that have one
    are NaN.

    Raises
    ------
    InputError
        If the map is on another grid and its header or that of the image has no orientation, or if it does not cover
        the object.
    """
    file = open_nifti(path)
    alike = file.shape == first.shape and same_grid(file.affine, first.affine, first.shape)
    if alike or file.n_volumes != 1 or not (file.oriented and first.oriented):
        return read_map(path, first.shape, affine_of(first), what).astype(float), ""
    shape, size = (*first.shape, 1, 1, 1)[:3], (*file.shape, 1, 1, 1)[:3]
    to_map = np.linalg.inv(file.affine) @ first.affine
    (values,) = file.volumes()
    values = np.reshape(values, size).astype(float)
    known = np.isfinite(values) & (values != 0)
    planes = [_plane(np.where(known, values, 0.0), known, _places(to_map, shape, k)) for k in range(shape[2])]
    found, covered = (np.stack(part, axis=-1).reshape(first.shape) for part in zip(*planes))
    share = float(covered[foreground(np.stack(list(first.volumes())))].mean())
    if share < _COVERED:
        raise InputError(
            f"{path}: expected a {what} that covers the object, got one that covers {100 * share:.0f} % of it. "
            "Give a map of the whole object, or check the affine of the map."
        )
    voxel = " × ".join(f"{edge:.3g}" for edge in np.linalg.norm(file.affine[:3, :3], axis=0))
    return found, f", interpolated from voxels of {voxel} mm at those of the images"


def _places(to_map: Floats, shape: tuple[int, ...], k: int) -> Floats:
    """Return where the voxels of a plane of the images are in the map (3, X, Y), in voxels."""
    x, y = np.indices(shape[:2], dtype=float)
    return np.asarray(np.einsum("ij,jxy->ixy", to_map[:3], np.stack([x, y, np.full_like(x, k), np.ones_like(x)])))


def _plane(values: Floats, known: NDArray[np.bool_], places: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the means of the known neighbours by their weights, NaN if there are none, and what the map covers."""
    # scipy is slow to import: only who interpolates pays
    from scipy.ndimage import map_coordinates

    size = np.reshape(known.shape, (3, 1, 1))
    covered: NDArray[np.bool_] = np.all((places >= -_HALF) & (places <= size - 1 + _HALF), axis=0)
    at = np.clip(places, 0, size - 1)
    weight = map_coordinates(known.astype(float), at, order=1, mode="nearest")
    total = map_coordinates(values, at, order=1, mode="nearest")
    usable = covered & (weight > _LEAST_WEIGHT)
    return np.where(usable, total / np.where(usable, weight, 1.0), np.nan), covered
