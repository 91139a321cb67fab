"""Moved images, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rimap.registration.motion import Floats, Motion
from rimap.series import WeightedSeries
from rimap.signals.base import bids_time

#: A shift is said where it exceeds so many voxels by three standard deviations.
VISIBLE = 0.5
#: Images that lie nearer than this, in voxels, are not resampled.
_NEAR = 0.1


def padded(images: NDArray[Any]) -> NDArray[Any]:
    """Return images (N, *X) with three spatial axes."""
    return images.reshape((*images.shape, 1, 1)[:4])


def moved(images: Floats, motion: Motion, voxel: Floats, *, order: int, fill: float | None = None) -> Floats:
    """Return images (N, X, Y, Z) brought to the place of the maps, each interpolated once by splines of this order.

    Parameters
    ----------
    fill
        What stands where the image does not reach, beyond half a voxel; its border if left out.
    """
    shape = images.shape[1:]
    wide = [a for a in range(3) if shape[a] > 1]
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    out = np.empty(images.shape)
    for n, image in enumerate(images):
        if not motion.translation[n].any() and np.array_equal(motion.rotation[n], np.eye(3)):
            out[n] = image
            continue
        at = (motion.where(n, grid * voxel) / voxel)[:, wide].T
        out[n] = ndimage.map_coordinates(
            image.reshape([shape[a] for a in wide]), at, order=order, mode="nearest"
        ).reshape(shape)
        if fill is not None:
            beyond = np.any([(c < -0.5) | (c > shape[a] - 0.5) for c, a in zip(at, wide)], axis=0)
            out[n][beyond.reshape(shape)] = fill
    return out


def align(series: WeightedSeries, motion: Motion) -> WeightedSeries:
    """Return a series with its images in register: those that are out of it, resampled once; NaN where one of them ends."""
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
    if getattr(series.model, "magnitude", False) and (series.images[np.isfinite(series.images)] >= 0).all():
        result = np.maximum(result, 0.0)  # splines swing below zero
    result = result.reshape(series.images.shape).astype(series.images.dtype)
    return replace(series, images=result, notes=(*series.notes, _aligned(series, motion)))


def still(motion: Motion) -> NDArray[np.bool_]:
    """Return which images (N,) lie where they should, as far as one can tell."""
    return np.asarray(motion.shift < np.maximum(_NEAR * motion.voxel, 2 * motion.sd))


def motion_warnings(series: WeightedSeries, motion: Motion | None) -> tuple[str, ...]:
    """Return a warning where images are visibly out of register: which, and how far."""
    if motion is None:
        return ()
    out = np.flatnonzero(motion.shift - 3 * motion.sd > VISIBLE * motion.voxel)
    if not len(out):
        return ()
    named = _named(series, out, motion)
    many = f"{len(out)} of {len(motion.shift)} images are" if len(out) > 1 else "An image is"
    return (
        f"{many} out of register: {named}. Edges in the maps, and voxels near them, are wrong. --register aligns the images "
        "before they are mapped.",
    )


def motion_metadata(series: WeightedSeries, motion: Motion) -> dict[str, Any]:
    """Return what a sidecar says of images that were aligned."""
    near = still(motion)
    affine = np.eye(4) if series.affine is None else series.affine
    size = tuple(float(v) for v in (*series.voxel_size, 1.0, 1.0)[:3])
    if series.affine is None:
        affine = np.diag([*size, 1.0])
    world = motion.world(affine, size)
    return {
        "Registration": {
            "Description": "Rigid transforms found by variable projection on the signal model; cubic splines, once. Matrix: "
            "from world coordinates (mm) of the maps to those of the image.",
            "Images": [
                {
                    bids_time(series.model): float(f"{t / 1000:.12g}"),
                    "Resampled": bool(not near[n]),
                    "ShiftMillimetres": round(float(motion.shift[n]), 3),
                    "ShiftStandardDeviation": round(float(motion.sd[n]), 3),
                    "RotationDegrees": round(float(motion.angle[n]), 3),
                    "Matrix": np.eye(4).tolist() if near[n] else world[n].round(6).tolist(),
                }
                for n, t in enumerate(series.model.times)
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
    text = f"--register aligned the images: {_named(series, out, motion)}"
    return text + ("" if motion.converged else ". It came to no end: look at the residual")


def _named(series: WeightedSeries, which: Sequence[int] | NDArray[np.int64], motion: Motion) -> str:
    """Return which images were how far off: the six that were farthest."""
    time = {"InversionTime": "TI", "EchoTime": "TE"}.get(bids_time(series.model), "time")
    far = sorted(sorted(which, key=lambda n: -motion.shift[n])[:6])
    parts = []
    for n in far:
        turned = f" and turned by {motion.angle[n]:.1f}°" if motion.angle[n] >= 0.5 else ""
        parts.append(f"image {n + 1} ({time} {series.model.times[n]:g} ms) by {motion.shift[n]:.1f} mm{turned}")
    return ", ".join(parts) + (f" and {len(which) - len(far)} more" if len(which) > len(far) else "")
