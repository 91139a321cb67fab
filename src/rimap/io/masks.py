"""Masks, label images and maps on the grid of the images of a series."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.array_inputs import notes_on_mask, selection, threshold_of, why_empty
from rimap.arrays import Array
from rimap.errors import InputError
from rimap.io.nifti import NiftiFile, open_nifti
from rimap.io.voxel_grid import same_grid


def open_on_grid(path: Path, shape: tuple[int, ...], affine: Array, what: str, *, several: bool = False) -> NiftiFile:
    """Open an image that has the grid of others.

    Parameters
    ----------
    shape, affine
        Those of the others. The affine is `None` if they have no orientation.
    what
        What messages call it.
    several
        Whether it may have several volumes.

    Raises
    ------
    InputError
        For another shape or affine, or for several volumes.
    """
    file = open_nifti(Path(path))
    squeezed = [tuple(s for s in (*x, 1)[:3] if s != 1) for x in (file.shape, tuple(shape))]
    if (file.n_volumes != 1 and not several) or (file.shape != tuple(shape) and squeezed[0] != squeezed[1]):
        full = file.shape if file.n_volumes == 1 else (*file.shape, file.n_volumes)
        raise InputError(
            f"{path}: expected a {what} of shape {tuple(shape)} like the images, got {full}. Resample it to the images."
        )
    if affine is not None and file.oriented and not same_grid(np.asarray(affine, float), file.affine, tuple(shape)):
        raise InputError(
            f"{path}: the {what} is misaligned: it has the shape of the images, but another affine. Resample it to the "
            "images."
        )
    # Axes of one voxel, which one file may have and the other not, say nothing.
    return replace(file, shape=tuple(shape))


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask on the grid of the images: true where the file is above zero, or at least a threshold.

    Parameters
    ----------
    file
        The image.
    threshold
        What probabilities must reach; 0 if the image holds none.
    notes
        What the user should know of how the mask was read.
    """

    file: NiftiFile
    threshold: float = 0.0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, shape: tuple[int, ...], affine: Array = None) -> MaskFile:
        """Open a mask.

        Raises
        ------
        InputError
            For another shape or affine.
        """
        file = open_on_grid(path, shape, affine, "mask")
        values = next(iter(file.volumes()))
        whole_numbers = file.dtype.kind != "f" and (file.slope, file.inter) == (1.0, 0.0)
        threshold = 0.0 if whole_numbers else threshold_of(values)
        return cls(file, threshold, tuple(notes_on_mask(values, threshold)))

    def read(self, planes: tuple[int, int] | None = None) -> NDArray[np.bool_]:
        """Read the mask (*X), or planes of its last axis.

        Raises
        ------
        InputError
            Where the whole of it selects nothing.
        """
        if planes is not None:
            (values,) = self.file.planes(*planes)
            return selection(values, self.threshold)
        (values,) = self.file.volumes()
        mask = selection(values, self.threshold)
        if not mask.any():
            raise InputError(f"{self.file.path}: {why_empty(self.threshold)}")
        return mask

    def unpacked(self, folder: Path) -> MaskFile:
        """Return the mask, uncompressed in `folder`."""
        return replace(self, file=self.file.unpacked(folder))


def read_mask(path: Path | str, shape: tuple[int, ...], affine: Array = None) -> NDArray[np.bool_]:
    """Read a mask (*X): true where the file is above zero, or at least one half if it holds probabilities.

    Parameters
    ----------
    shape, affine
        Those of the images. The affine is `None` if the images have no orientation, and compared if both files have
        one.

    Raises
    ------
    InputError
        For another shape or affine, or a mask that selects nothing.
    """
    return MaskFile.of(Path(path), shape, affine).read()


def read_map(path: Path | str, shape: tuple[int, ...], affine: Array, what: str) -> NDArray[Any]:
    """Read a map (*X) of real numbers on the grid of the images.

    Parameters
    ----------
    shape, affine
        Those of the images. The affine is `None` if the images have no orientation, and compared if both files have
        one.
    what
        What messages call it.

    Raises
    ------
    InputError
        For another shape or affine.
    """
    return next(iter(open_on_grid(Path(path), shape, affine, what).volumes()))


@dataclass(frozen=True, eq=False)
class LabelFile:
    """A label image on the grid of the images: whole numbers, 0 is background."""

    file: NiftiFile

    @classmethod
    def of(cls, path: Path, shape: tuple[int, ...], affine: Array = None) -> LabelFile:
        """Open a label image.

        Raises
        ------
        InputError
            For another shape or affine.
        """
        return cls(open_on_grid(path, shape, affine, "label image"))

    def read(self, planes: tuple[int, int] | None = None) -> NDArray[np.int64]:
        """Read the labels (*X), or planes of its last axis.

        Raises
        ------
        InputError
            For values that are not whole numbers, and where the whole of it has no label.
        """
        path = self.file.path
        (values,) = self.file.volumes() if planes is None else self.file.planes(*planes)
        values = np.nan_to_num(values)
        if np.abs(values).max() > 2.0**53:
            raise InputError(f"{path}: expected labels, that is whole numbers, got {np.abs(values).max():g}.")
        labels: NDArray[np.int64] = np.rint(values).astype(np.int64)
        if np.abs(values - labels).max() > 1e-3:
            raise InputError(
                f"{path}: expected labels, that is whole numbers, got others. Possibly it is a probability map."
            )
        if planes is None and not labels.any():
            raise InputError(f"{path}: expected labels, got only zeros.")
        return labels

    def unpacked(self, folder: Path) -> LabelFile:
        """Return the labels, uncompressed in `folder`."""
        return LabelFile(self.file.unpacked(folder))


def read_labels(path: Path | str, shape: tuple[int, ...], affine: Array = None) -> NDArray[np.int64]:
    """Read a label image (*X) of whole numbers; 0 is background.

    Raises
    ------
    InputError
        For another shape or affine, values that are not whole numbers, or no label at all.
    """
    return LabelFile.of(Path(path), shape, affine).read()
