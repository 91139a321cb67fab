"""A slow reference for NLLS that shares nothing with it: the exact profile over a dense grid of T."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]


def profile(model: SignalModel, S: Floats, T: Floats) -> Floats:
    """Return the least Σ(S − |f|)² over A ≥ 0 and B within its bounds, for one T per voxel.

    Between two neighbouring zero crossings of the model its polarity is fixed: a linear problem on a sector.

    Parameters
    ----------
    S
        Images (N, V) of any sign.
    T
        (V,) or (1,), ms.
    """
    phi = np.moveaxis(np.asarray(model.basis(T), dtype=float), -1, 0)  # (V or 1, N, K)
    S = S.T  # (V, N)
    power = (S**2).sum(1)
    if phi.shape[2] == 1:
        f = phi[:, :, 0]
        p = np.maximum((S * f).sum(1), 0) ** 2 / np.maximum((f**2).sum(1), 1e-300)
        return power - p
    b0, b1 = model.parameters[1].bounds
    f0, f1 = phi[:, :, 0], phi[:, :, 1]
    with np.errstate(all="ignore"):
        cross = np.where((f0 < 0) | (f1 == 0), np.inf, -f0 / f1)  # B at which the image changes sign
    cross = np.where((cross > b0) & (cross < b1) & model.magnitude, cross, np.inf)
    order = np.argsort(cross, axis=1)
    cross = np.take_along_axis(cross, order, 1)
    one = np.ones((len(cross), 1))
    edges = np.concatenate([b0 * one, np.minimum(cross, b1), b1 * one], axis=1)  # (·, N + 2)
    start = np.sign(f0 + b0 * f1) if model.magnitude else np.ones_like(f0)
    start = np.where(start == 0, np.sign(f1), start)
    order = np.broadcast_to(order, S.shape)
    moments = []
    for f in (f0, f1):
        v = S * start * f
        flipped = np.cumsum(np.take_along_axis(v, order, 1), axis=1)
        moments.append(v.sum(1)[:, None] - 2 * np.concatenate([np.zeros((len(S), 1)), flipped], axis=1))
    m0, m1 = moments  # (V, N + 1): ⟨±S, φ⟩ with the first k images flipped
    g00, g01, g11 = ((a * b).sum(1)[:, None] for a, b in ((f0, f0), (f0, f1), (f1, f1)))
    det = g00 * g11 - g01**2
    with np.errstate(all="ignore"):
        a, c = (g11 * m0 - g01 * m1) / det, (g00 * m1 - g01 * m0) / det
        B = c / a
        inside = (a > 0) & (det > 1e-12 * g00 * g11) & (edges[:, :-1] <= B) & (edges[:, 1:] >= B)
        gain = np.where(inside, a * m0 + c * m1, 0.0).max(1)
        # On an edge: f = A (φ₀ + B φ₁) with the polarity on either side (there the image at the crossing is zero).
        w = m0 + edges[:, 1:] * m1
        size = g00 + 2 * edges[:, 1:] * g01 + edges[:, 1:] ** 2 * g11
        reached = edges[:, :-1] < b1  # with this many flips the model is still within the bounds of B
        gain = np.maximum(gain, np.where(reached, np.maximum(w, 0) ** 2 / np.maximum(size, 1e-300), 0.0).max(1))
        w = m0[:, 0] + b0 * m1[:, 0]
        size = (g00 + 2 * b0 * g01 + b0**2 * g11)[:, 0]
        gain = np.maximum(gain, np.maximum(w, 0) ** 2 / np.maximum(size, 1e-300))
    return power - gain


def dense_search(model: SignalModel, S: Floats, *, n_T: int = 400, best: int = 3) -> Floats:
    """Return the least sum of squares (V,) over A, B and T: `n_T` values of T, then finer around the `best`."""
    T = np.geomspace(*model.parameters[-1].bounds, n_T)
    out = np.empty(S.shape[1])
    for i in range(0, S.shape[1], 4096):
        block = S[:, i : i + 4096]
        rss = np.stack([profile(model, block, T[j : j + 1]) for j in range(n_T)])
        padded = np.pad(rss, ((1, 1), (0, 0)), constant_values=np.inf)
        minimum = np.where((rss <= padded[:-2]) & (rss <= padded[2:]), rss, np.inf)
        least = rss.min(0)
        for j in np.argsort(minimum, axis=0)[:best]:
            for u in np.linspace(-1, 1, 25):
                here = np.clip(T[j] * (T[1] / T[0]) ** u, T[0], T[-1])
                least = np.minimum(least, profile(model, block, here))
        out[i : i + 4096] = least
    return out
