"""Slices that are empty in some image and not in the others: dropped on the way, or beyond the edge of a moved
image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.signals import SignalModel
from rimap.signals.model_options import knows_polarity
from rimap.signals.settings import with_unit
from rimap.slices import slice_number

#: Fewer voxels that are not zero say nothing of a slice: their number, and their share of it.
_LEAST, _SHARE = 20, 0.01


def empty_slices(images: NDArray[Any], model: SignalModel) -> NDArray[np.bool_]:
    """Return where (N, planes) an image of a series (N, X, Y, planes) is zero throughout and should not be.

    It should not where two thirds of the other images have signal in that slice; of a decay, a later one as well: its
    last images may be zero.
    """
    n = np.stack([np.count_nonzero(image, axis=(0, 1)) for image in images])
    full = n >= max(_LEAST, _SHARE * images.shape[1] * images.shape[2])
    expected = full.sum(0) >= 2 / 3 * (len(images) - 1)
    if not knows_polarity(model):
        later = model.times[:, None] < model.times[None, :]
        expected = expected & (later @ full.astype(int) > 0)
    return np.asarray((n == 0) & expected)


def left_out(images: NDArray[Any], model: SignalModel, *, first: int | None = None) -> list[str]:
    """Set slices that are empty in one image to NaN in all images, in place, and return notes about them.

    Parameters
    ----------
    images
        (N, X, Y, Z).
    first
        The index of the first of these slices, if they are a part of the volume; `None` if they are all of it.

    Raises
    ------
    InputError
        Where all of an image is empty, or has no finite value.
    """
    S = images if images.ndim == 4 else images[..., None]  # a view: a slice has one plane
    without = [i for i, image in enumerate(S) if not (np.isfinite(image[::4, ::4]).any() or np.isfinite(image).any())]
    if first is None and 0 < len(without) < len(S):
        raise InputError(
            f"{_called(without[0], model)} has no finite value. Leave it out, with its time, or export it again."
        )
    found, notes = empty_slices(S, model), []
    for i in np.flatnonzero(found.any(1)):
        what = _called(int(i), model)
        if first is None and not S[i].any():
            raise InputError(f"{what} is zero throughout. Leave it out, with its time, or export it again.")
        planes = np.flatnonzero(found[i])
        S[i][..., planes] = np.nan
        several = ", ".join(str(slice_number((first or 0) + plane)) for plane in planes[:5]) + (
            " …" if len(planes) > 5 else ""
        )
        notes.append(f"{what} is zero where the others have signal, in slice {several}: no map is made there")
    return notes


def _called(i: int, model: SignalModel) -> str:
    return f"image {i + 1} ({with_unit(model.times[i], model.axis.unit)})"
