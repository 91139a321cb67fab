"""Moved images, and the metadata about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note
from rimap.registration.rigid_transforms import Floats, Motion
from rimap.series import WeightedSeries

#: Images that are misaligned by less than this, in voxels, are not resampled.
_NEAR = 0.1


def padded(images: NDArray[Any]) -> NDArray[Any]:
    """Return images (N, *X) with three spatial axes."""
    return images.reshape((*images.shape, 1, 1)[:4])


def moved(images: Floats, motion: Motion, voxel: Floats, *, order: int, fill: float | None = None) -> Floats:
    """Return images (N, X, Y, Z) moved to the position of the maps, each interpolated once by splines of this order.

    Parameters
    ----------
    fill
        The value of voxels that the image does not cover (by more than half a voxel); by default that of its border.
    """
    shape = images.shape[1:]
    wide = [axis for axis in range(3) if shape[axis] > 1]
    grid = np.stack(np.meshgrid(*(np.arange(length, dtype=float) for length in shape), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    out = np.empty(images.shape)
    for number, image in enumerate(images):
        if not motion.translation[number].any() and np.array_equal(motion.rotation[number], np.eye(3)):
            out[number] = image
            continue
        from scipy import ndimage  # slow to import, and images rarely move

        at = (motion.where(number, grid * voxel) / voxel)[:, wide].T
        out[number] = ndimage.map_coordinates(
            image.reshape([shape[a] for a in wide]), at, order=order, mode="nearest"
        ).reshape(shape)
        if fill is not None:
            beyond = np.any([(c < -0.5) | (c > shape[a] - 0.5) for c, a in zip(at, wide)], axis=0)
            out[number][beyond.reshape(shape)] = fill
    return out


def align(series: WeightedSeries, motion: Motion) -> WeightedSeries:
    """Return a series with aligned images: misaligned ones are resampled once, and are NaN where they have no data."""
    near = still(motion)
    used = replace(
        motion,
        rotation=np.where(near[:, None, None], np.eye(3), motion.rotation),
        translation=np.where(near[:, None], 0.0, motion.translation),
    )
    voxel = np.array((*series.voxel_size, 1.0, 1.0)[:3])
    images = padded(series.images).astype(float)
    holes = ~np.isfinite(images)
    result = moved(np.where(holes, 0.0, images), used, voxel, order=3, fill=np.nan)
    if holes.any():
        result[moved(holes.astype(float), used, voxel, order=1) > 0.01] = np.nan
    if not series.model.is_signed and (series.images[np.isfinite(series.images)] >= 0).all():
        tiny = np.finfo(np.float32).tiny  # zero would mean that nothing was measured
        result = np.where(result < 0, tiny, result)  # splines swing below zero
    result = result.reshape(series.images.shape).astype(series.images.dtype)
    return replace(series, images=result, notes=(*series.notes, note(_aligned(series, motion))))


def still(motion: Motion) -> NDArray[np.bool_]:
    """Return which images (N,) are aligned, within the accuracy of their shift."""
    return np.asarray(motion.shift < np.maximum(_NEAR * motion.voxel, 2 * motion.sd))


def motion_metadata(series: WeightedSeries, motion: Motion) -> dict[str, Any]:
    """Return the entries of the sidecar about images that were aligned."""
    near, axis = still(motion), series.model.axis
    key = axis.bids[0] if axis.bids else axis.title
    affine = np.eye(4) if series.affine is None else series.affine
    size = tuple(float(v) for v in (*series.voxel_size, 1.0, 1.0)[:3])
    if series.affine is None:
        affine = np.diag([*size, 1.0])
    world = motion.world(affine, size)
    return {
        "Registration": {
            "Description": "Rigid transforms found by variable projection on the signal model; cubic splines, once. "
            "Matrix: from world coordinates (mm) of the maps to those of the image.",
            "Images": [
                {
                    key: float(f"{value / axis.factor:.12g}"),
                    "Resampled": bool(not near[n]),
                    "ShiftMillimetres": round(float(motion.shift[n]), 3),
                    "ShiftStandardDeviation": round(float(motion.sd[n]), 3),
                    "RotationDegrees": round(float(motion.angle[n]), 3),
                    "Matrix": np.eye(4).tolist() if near[n] else world[n].round(6).tolist(),
                }
                for n, value in enumerate(series.model.times)
            ],
        }
    }


def _aligned(series: WeightedSeries, motion: Motion) -> str:
    out = np.flatnonzero(~still(motion))
    if not len(out):
        n = int(motion.shift.argmax())
        return (
            f"--register: no image was moved; the largest shift found is {motion.shift[n]:.2g} ± {motion.sd[n]:.2g} mm"
        )
    text = f"--register aligned the images: {named(series, out, motion)}"
    return text + ("" if motion.converged else ". The alignment did not converge: check the residual map")


def named(series: WeightedSeries, which: Sequence[int] | NDArray[np.int64], motion: Motion) -> str:
    """Return which images were misaligned and how far: the six that were farthest."""
    far = sorted(sorted(which, key=lambda n: -motion.shift[n])[:6])
    parts = []
    for n in far:
        turned = f" and turned by {motion.angle[n]:.1f}°" if motion.angle[n] >= 0.5 else ""
        label = series.model.axis.text(series.model.times[n])
        parts.append(f"image {n + 1} ({label}) by {motion.shift[n]:.1f} mm{turned}")
    return ", ".join(parts) + (f" and {len(which) - len(far)} more" if len(which) > len(far) else "")
