"""Where images lie to a few voxels, whatever their contrast: the places of their edges, correlated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rimap.registration.motion import Floats

#: A correlation must be as high, and so much above that of no shift, to count.
_HIGH, _ABOVE = 0.3, 0.08
#: Only so many images are tried as the reference.
_REFERENCES = 6


def rough_shifts(images: Floats, axes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return how far the content of images (N, X, Y, Z) is shifted, whole voxels (N, 3), against the one most like all.

    Up to a quarter of the field of view along `axes`; none where noise hides the edges.
    """
    edges = np.stack([_edges(image, axes) for image in images])
    along = [1 + a for a in axes]
    spectra = np.fft.rfftn(edges, axes=along)
    size = [images.shape[a] for a in along]
    near = np.ones(images.shape[1:], bool)
    for a in axes:
        lag = np.abs(np.fft.fftfreq(images.shape[1 + a]) * images.shape[1 + a])
        near &= np.moveaxis((lag <= images.shape[1 + a] / 4)[:, None, None], 0, a)
    best, shifts = -np.inf, np.zeros((len(images), 3), dtype=int)
    for reference in spectra[:: -(-len(spectra) // _REFERENCES)]:
        correlation = np.fft.irfftn(spectra * reference.conj(), s=size, axes=along)
        passive = tuple(1 + a for a in range(3) if a not in axes)
        correlation = np.where(near.any(axis=tuple(p - 1 for p in passive), keepdims=True) if passive else near,
                               correlation.sum(axis=passive, keepdims=True) if passive else correlation, -1.0)  # fmt: skip
        flat = correlation.reshape(len(images), -1)
        if (total := float(flat.max(axis=1).sum())) > best:
            best = total
            at = np.stack(np.unravel_index(flat.argmax(axis=1), correlation.shape[1:]), axis=-1)
            lags = np.where(at > np.array(correlation.shape[1:]) // 2, at - correlation.shape[1:], at)
            sure = (flat.max(axis=1) >= _HIGH) & (flat.max(axis=1) >= flat[:, 0] + _ABOVE)
            shifts = np.where(sure[:, None], lags, 0)
    return shifts


def _edges(image: Floats, axes: tuple[int, ...]) -> Floats:
    """Return the root of the gradient, with mean 0 and norm 1: its root, lest fat decides alone."""
    smooth = ndimage.gaussian_filter(image, [1.0 if a in axes else 0.0 for a in range(3)])
    edge = np.sum([np.gradient(smooth, axis=a) ** 2 for a in axes], axis=0) ** 0.25
    edge -= edge.mean()
    return np.asarray(edge / max(float(np.linalg.norm(edge)), 1e-30))
