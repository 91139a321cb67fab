"""Align images of any contrast to a few voxels, by correlating the positions of their edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_most
from rimap.registration.rigid_transforms import Floats
from rimap.registration.smoothing import smoothed

#: A correlation must be as high, and so much above that of no shift, to count.
_HIGH, _ABOVE = 0.3, 0.08
#: Only so many images are tried as the reference.
_REFERENCES = 6


def rough_shifts(images: Floats, axes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return how far the content of images (N, X, Y, Z) is shifted, whole voxels (N, 3), against the one most like all.

    Up to a quarter of the field of view along `axes`; none where noise hides the edges.
    """
    edges = np.stack([_edges(image, axes) for image in images])
    along = [1 + axis for axis in axes]
    spectra = np.fft.rfftn(edges, axes=along)
    shape = edges.shape[1:]
    del edges
    inside = np.ones(shape, bool)
    for axis in axes:
        lag = np.abs(np.fft.fftfreq(shape[axis]) * shape[axis])
        inside &= np.moveaxis((lag <= shape[axis] / 4)[:, None, None], 0, axis)
    passive = tuple(axis for axis in range(3) if axis not in axes)
    near = np.asarray(inside.any(axis=passive, keepdims=True))
    best, shifts = -np.inf, np.zeros((len(images), 3), dtype=int)
    for reference in at_most(spectra, _REFERENCES):
        lags, highest, still = np.zeros_like(shifts), np.zeros(len(images)), np.zeros(len(images))
        for n, spectrum in enumerate(spectra):  # one at a time: of a large volume all would not fit
            correlation = np.fft.irfftn(spectrum * reference.conj(), s=[shape[axis] for axis in axes], axes=axes)
            correlation = np.where(near, correlation.sum(axis=passive, keepdims=True), -1.0)
            at = np.array(np.unravel_index(correlation.argmax(), correlation.shape))
            size = np.array(correlation.shape)
            lags[n] = np.where(at > size // 2, at - size, at)
            highest[n], still[n] = correlation.max(), correlation[0, 0, 0]
        if (total := float(highest.sum())) > best:
            best = total
            sure = (highest >= _HIGH) & (highest >= still + _ABOVE)
            shifts = np.where(sure[:, None], lags, 0)
    return shifts


def _edges(image: Floats, axes: tuple[int, ...]) -> Floats:
    """Return the root of the gradient, with mean 0 and norm 1: its root, lest fat decides alone."""
    smooth = smoothed(image.astype(np.float32), [1.0 if axis in axes else 0.0 for axis in range(3)])
    edge = np.sum([np.gradient(smooth, axis=axis) ** 2 for axis in axes], axis=0) ** 0.25
    edge -= edge.mean()
    return np.asarray(edge / max(float(np.linalg.norm(edge)), 1e-30))
