"""Whether images are on one grid of voxels: the same shape at the same place."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note
from rimap.array_inputs import MM
from rimap.errors import InputError
from rimap.io.nifti import NiftiFile

#: Two images are on the same grid if no corner is further apart than this many voxels.
TOLERANCE = 0.05


def same_grid(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Return whether two affines (4, 4) put the corners of a grid at the same places, within `TOLERANCE` voxels."""
    size = (*shape, 1, 1, 1)[:3]
    corners = np.array([[i, j, k, 1] for i in (0, size[0]) for j in (0, size[1]) for k in (0, size[2])], float).T
    apart = np.abs(((a - b) @ corners)[:3]).max()
    return bool(apart <= TOLERANCE * np.linalg.norm(a[:3, :3], axis=0).min())


def check_same_grid(files: Sequence[NiftiFile]) -> list[str]:
    """Refuse images of different shape or place, and return a note if some do not say where they are.

    Only affines that a header gives are compared: that of a file without an orientation is a guess of its reader.

    Raises
    ------
    InputError
        Naming the two files.
    """
    first = files[0]
    for f in files[1:]:
        if f.shape != first.shape:
            one, other = names_of([first.path, f.path])
            raise InputError(
                f"expected images of one shape, got {first.shape} in {one} and "
                f"{f.shape} in {other}. Give the images of one series, or resample them to one grid."
            )
    placed = [file for file in files if file.oriented]
    for f in placed[1:]:
        if not same_grid(placed[0].affine, f.affine, first.shape):
            one, other = names_of([placed[0].path, f.path])
            raise InputError(
                f"expected images on one grid, but the affines of {one} and {other} "
                "differ. Give the images of one series, or resample them to one grid."
            )
    if placed and len(placed) < len(files):
        lacking = next(file for file in files if not file.oriented)
        return [
            f"{len(files) - len(placed)} of {len(files)} images have no orientation in their headers "
            f"({lacking.path.name}): they are taken to be where the others are"
        ]
    return []


def third_axis_as_images(file: NiftiFile, counts: Container[int]) -> tuple[NiftiFile, list[str]]:
    """Return a file (X, Y, N) as N images of one slice, if N is a number of values that belong to it, and a note.

    Parameters
    ----------
    counts
        Numbers of values of the setting that differs between the images.
    """
    if file.n_volumes != 1 or len(file.shape) != 3 or file.shape[2] < 2 or file.shape[2] not in counts:
        return file, []
    n = file.shape[2]
    about = (
        f"{file.path.name} has the shape {file.shape} and there are {n} values: its third axis is taken for {n} images "
        "of one slice"
    )
    return replace(file, shape=(*file.shape[:2], 1), n_volumes=n), [note(about)]


def placed_first(files: Sequence[NiftiFile]) -> NiftiFile:
    """Return the first image whose header says where it is, else the first image."""
    return next((file for file in files if file.oriented), files[0])


def edges_of(file: NiftiFile) -> tuple[float, ...]:
    """Return the edge lengths of a voxel in mm as the header has them, also if it does not say where the image is."""
    in_mm = MM.get(int(file.header["xyzt_units"]) & 7, 1.0)
    return tuple(float(e) * in_mm for e in file.header["pixdim"][1:4])


def affine_of(file: NiftiFile) -> NDArray[np.float64] | None:
    """Return the affine of an image (4, 4), mm; `None` if its header does not say where it is."""
    return file.affine if file.oriented else None


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return the names of files, with their folders if the names alone are not unique."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [f"{path.parent.name}/{path.name}" for path in paths]
