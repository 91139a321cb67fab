"""Warnings about motion, with a second opinion that knows no signal model: the mutual information of pairs of
images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rimap.registration.resampling import moved, named, padded
from rimap.registration.rigid_transforms import Floats, Motion, matrices_of, vectors_of
from rimap.registration.smoothing import smoothed
from rimap.series import WeightedSeries

#: A shift is reported if it exceeds so many voxels by three standard deviations.
VISIBLE = 0.5
#: Parts of the shift that are tried, and the bins of the histograms.
_PARTS, _BINS = (-0.5, 0.0, 0.5, 1.0, 1.5), 32
#: SD of the smoothing before, voxels: interpolation alone then changes little.
_SMOOTH = 0.8
#: An image is compared with so many others, and on so many planes.
_OTHERS, _PLANES = 3, 12
#: By so much, as a share, the mutual information must grow.
_GAIN = 0.01


def motion_warnings(series: WeightedSeries, motion: Motion | None) -> tuple[str, ...]:
    """Return a warning if images are visibly misaligned, by the signal model and by mutual information: which, and how
    far.
    """
    if motion is None:
        return ()
    out = np.flatnonzero(motion.shift - 3 * motion.sd > VISIBLE * motion.voxel)
    out = confirmed(series, motion, out) if len(out) else out
    if not len(out):
        return ()
    which = named(series, out, motion)
    many = f"{len(out)} of {len(motion.shift)} images are" if len(out) > 1 else "An image is"
    return (
        f"{many} misaligned: {which}. Edges in the maps, and voxels near them, are wrong. --register aligns the images "
        "before they are mapped.",
    )


def confirmed(series: WeightedSeries, motion: Motion, suspects: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the suspects (image numbers) that are also more like the other images once they are moved back.

    The model that finds motion may be wrong where its signal is: noise floor, stimulated echoes, pulsation. The mutual
    information of an image with those that did not move needs no model. It must be largest near the shift that was
    found.

    References
    ----------
    Maes et al. 1997, doi:10.1109/42.563664.
    """
    images = np.nan_to_num(padded(series.images).astype(float), nan=0.0, posinf=0.0, neginf=0.0)
    voxel = np.array((*series.voxel_size, 1.0, 1.0)[:3])
    width = [_SMOOTH if length >= 8 else 0.0 for length in images.shape[1:]]
    still = [n for n in range(len(images)) if n not in set(suspects.tolist())]
    others = still or list(range(len(images)))
    planes = slice(None, None, max(1, images.shape[3] // _PLANES))
    sure = []
    for suspect in suspects:
        near = sorted((other for other in others if other != suspect), key=lambda m: abs(m - int(suspect)))[:_OTHERS]
        references = [smoothed(images[m], width) for m in near]
        image = smoothed(images[suspect], width)
        likeness = [
            sum(
                _mutual_information(part[0][..., planes], reference[..., planes])
                for part in [moved(image[None], _part(motion, int(suspect), share), voxel, order=1)]
                for reference in references
            )
            for share in _PARTS
        ]
        back, none, *towards = likeness
        if max(towards) > max(back, none) * (1 + _GAIN) and likeness[3] > none:
            sure.append(int(suspect))
    return np.array(sure, dtype=np.intp)


def _part(motion: Motion, n: int, share: float) -> Motion:
    """Return a share of the motion of one image."""
    turn = vectors_of(motion.rotation[n][None]) * share
    return replace(motion, rotation=matrices_of(turn), translation=motion.translation[n][None] * share)


def _mutual_information(a: Floats, b: Floats) -> float:
    """Return the mutual information of two images, nats, from a histogram of quantiles."""
    x, y = (np.searchsorted(np.quantile(v, np.linspace(0, 1, _BINS + 1)[1:-1]), v.reshape(-1)) for v in (a, b))
    joint = np.bincount(x * _BINS + y, minlength=_BINS**2).reshape(_BINS, _BINS) / x.size
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())
