"""What users have their images in: NumPy arrays, torch tensors, nibabel images, or lists of them. Neither is
imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, to_numpy
from rimap.errors import InputError

#: Kinds of types of real numbers: floating-point numbers, whole numbers, truth values.
REAL = "fiub"
#: Millimetres in the unit of space that a NIfTI header names: metres and micrometres.
MM = {1: 1000.0, 3: 1e-3}
#: Affines that differ by less (mm) are the same.
_SAME_MM = 1e-3
#: What a map of probabilities must reach to select a voxel, and what is 0 or 1 but for rounding.
HALF, _NEARLY_0 = 0.5, 1e-3
#: The largest value of a map of probabilities in per cent is at least this; a mask of labels has at most so many.
_PER_CENT, _FEW_VALUES = 90.0, 20


def is_nibabel(x: object) -> bool:
    """Return whether `x` is a spatial image of nibabel."""
    return hasattr(x, "dataobj") and hasattr(x, "affine")


def images_and_affine(images: Array) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return images (N, *X), and the affine of nibabel images.

    Parameters
    ----------
    images
        An array or tensor (N, *X), a nibabel image (X, Y, Z, N), or a list of N of either without the axis N.

    Raises
    ------
    InputError
        For a path, or images of different shape or place.
    """
    if isinstance(images, (str, Path)):
        raise InputError(f"images: expected an array (N, *X), got the path {images}. Read files with rimap.read.")
    if is_nibabel(images):
        if len(images.shape) < 4:
            raise InputError(
                f"a nibabel image with N images must have four axes, (X, Y, Z, N); its shape is {images.shape}. "
                "Give several such volumes as a list."
            )
        values = _data(images, 4)
        if values.ndim == 5 and values.shape[3] == 1:  # a vector axis is where some tools put the images
            values = values[:, :, :, 0]
        return np.moveaxis(values, -1, 0), affine_of(images)
    if not isinstance(images, (list, tuple)):
        return to_numpy(images), None
    affines = [known for image in images if is_nibabel(image) and (known := affine_of(image)) is not None]
    volumes = [_data(image, 3) if is_nibabel(image) else to_numpy(image) for image in images]
    if len(shapes := {volume.shape for volume in volumes}) > 1:
        raise InputError(
            f"images: expected a list of images with the same shape, got {' and '.join(map(str, sorted(shapes)))}."
        )
    if any(abs(affine - affines[0]).max() > _SAME_MM for affine in affines):
        raise InputError(
            "images: expected a list of images with the same affine, got different ones. Resample them to one grid."
        )
    return np.stack(volumes) if volumes else np.empty(0), affines[0] if affines else None


def volume(x: Array, affine: Array, what: str) -> NDArray[Any]:
    """Return a map (*X), from an array, a tensor or a nibabel image.

    Parameters
    ----------
    affine
        Affine of the series, or `None`.
    what
        What to call it, as in "the mask".

    Raises
    ------
    InputError
        If the values are no real numbers, or the affine of a nibabel image differs from that of the series.
    """
    own = affine_of(x) if is_nibabel(x) else None
    if affine is not None and own is not None and abs(own - affine).max() > _SAME_MM:
        raise InputError(f"{what}: expected the affine of the images, got another. Resample {what} to the images.")
    values = _data(x, 3) if is_nibabel(x) else to_numpy(x)
    if values.dtype.kind not in REAL:
        raise InputError(f"{what}: expected real numbers, got {shown(x)}.")
    return values


def shown(x: Array) -> str:
    """Return what someone gave in place of something else, in few words."""
    kind = getattr(x, "dtype", None)
    return f"values of type {kind}" if kind is not None and np.ndim(x) else repr(x)[:60]


def indices_of_images(keep: Array, n_images: int) -> NDArray[np.intp]:
    """Return the indices of images that are kept, from their indices or from one truth value for each image.

    Raises
    ------
    InputError
        For anything else, and for an image that does not exist.

    Examples
    --------
    >>> indices_of_images([True, False, True], 3)
    array([0, 2])
    """
    found = to_numpy(keep).reshape(-1)
    if found.dtype.kind == "b" and found.size == n_images:
        return np.flatnonzero(found)
    if found.size and (found.dtype.kind not in "iu" or found.min() < -n_images or found.max() >= n_images):
        raise InputError(
            f"keep: expected indices of {n_images} images, or one truth value for each of them, got {shown(keep)}."
        )
    return found.astype(np.intp)


def selection(values: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Return where a mask selects: above the threshold of a map of probabilities, where it is above 0 otherwise."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    return np.asarray(values >= threshold if threshold else values > 0)


def threshold_of(values: NDArray[Any]) -> float:
    """Return the least value that a mask selects: one half for a map of probabilities, in parts of 1 or in per cent, 0
    otherwise.
    """
    if values.dtype.kind != "f" or not values.size:
        return 0.0
    values = np.nan_to_num(values)
    between = (values > _NEARLY_0) & (values < 1 - _NEARLY_0)
    lowest, highest = float(values.min()), float(values.max())
    if between.any() and lowest >= -_NEARLY_0 and highest <= 1 + _NEARLY_0:
        return HALF
    broken = np.abs(values - np.rint(values)) > _NEARLY_0
    return 100 * HALF if broken.any() and lowest >= -_NEARLY_0 and _PER_CENT <= highest <= 100 + _NEARLY_0 else 0.0


def why_empty(threshold: float) -> str:
    """Return what a mask was expected to have, and why it selects nothing."""
    above = f" with values of {threshold:g} or more, because it contains fractions" if threshold else ""
    return f"expected a mask with voxels inside{above}, got {'none' if above else 'an empty one'}."


def notes_on_mask(values: NDArray[Any], threshold: float) -> list[str]:
    """Return notes if a mask holds more than zeros and one other value: how it was read.

    Parameters
    ----------
    values, threshold
        The mask, and what `threshold_of` returns for it.
    """
    if threshold:
        unit = "values between 0 and 1" if threshold == HALF else "values between 0 and 100, taken as per cent"
        return [f"the mask holds probabilities ({unit}): voxels of {threshold:g} and more are selected"]
    if values.dtype.kind == "b" or not values.size:
        return []
    finite = np.nan_to_num(values) if values.dtype.kind == "f" else values
    if finite.min() < 0:
        return ["the mask holds negative values: only voxels above zero are selected"]
    if len(np.unique(finite[finite != 0][: 1 << 20])) > _FEW_VALUES:
        return [f"the mask holds many values, up to {finite.max():g}: all voxels above zero are selected"]
    return []


def affine_of(image: Array) -> NDArray[Any] | None:
    """Return the affine of a nibabel image (4, 4), mm; `None` if its header does not say where it is."""
    if image.affine is None:
        return None
    affine = np.array(image.affine, dtype=float)
    try:
        codes = int(image.header["qform_code"]), int(image.header["sform_code"])
        unit = int(image.header["xyzt_units"]) & 7
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return affine  # of another format than NIfTI
    if not any(codes):
        return None  # nibabel made it of the voxel size
    affine[:3] *= MM.get(unit, 1.0)
    return affine


def _data(image: Any, axes: int) -> NDArray[Any]:
    """Return the values, without trailing axes of length one beyond `axes`."""
    values: NDArray[Any] = np.asanyarray(image.dataobj)
    while values.ndim > axes and values.shape[-1] == 1:
        values = values[..., 0]
    return values
