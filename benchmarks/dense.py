"""A slow reference for NLLS that shares nothing with it.

`dense_search` takes the exact profile over a dense grid of T for models that are linear in the field; `dense_grid`
takes a dense grid over T and the field of any model, and polishes its best places with the derivatives of the model
itself.
"""

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
    assert model.field is not None
    b0, b1 = model.field.bounds
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
    flips = np.arange(f0.shape[1] + 1)
    moments = []
    for f in (f0, f1):
        if len(f) == 1:  # all voxels share the polarities, so that a product of matrices does
            polarity = start * np.where(np.argsort(order, axis=1) < flips[:, None], -1.0, 1.0)
            moments.append(S @ (polarity * f).T)
            continue
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
    T = np.geomspace(*model.time.bounds, n_T)
    out = np.empty(S.shape[1])
    for i in range(0, S.shape[1], 4096):
        block = S[:, i : i + 4096]
        rss = np.stack([profile(model, block, T[j : j + 1]) for j in range(n_T)])
        padded = np.pad(rss, ((1, 1), (0, 0)), constant_values=np.inf)
        minimum = np.where((rss <= padded[:-2]) & (rss <= padded[2:]), rss, np.inf)
        least = rss.min(0)
        for place in np.argsort(minimum, axis=0)[:best]:
            found = np.flatnonzero(np.isfinite(minimum[place, np.arange(len(place))]))  # others have fewer minima
            for u in np.linspace(-1, 1, 25):
                here = np.clip(T[place[found]] * (T[1] / T[0]) ** u, T[0], T[-1])
                least[found] = np.minimum(least[found], profile(model, block[:, found], here))
        out[i : i + 4096] = least
    return out


def dense_grid(
    model: SignalModel, S: Floats, held: dict[str, float | Floats], *, n_T: int = 300, n_F: int = 160, best: int = 4
) -> Floats:
    """Return the least sum of squares (V,) over the amplitudes, T and the field of any model.

    Parameters
    ----------
    S
        Images (N, V).
    held
        What is known, by name: a number, or one for each voxel (V,). Fields that are estimated are not in it.
    n_T, n_F, best
        Nodes along T and F, and from how many of the local minima the polish starts.
    """
    T = np.geomspace(*model.time.bounds, n_T)
    free_field = model.field is not None and model.field.name not in held
    F = np.linspace(*model.field.bounds, n_F) if free_field and model.field is not None else np.zeros(1)
    alike = all(np.ndim(v) == 0 for v in held.values())
    atoms = None
    if alike:
        at_T, at_F = (a.reshape(-1) for a in np.meshgrid(T, F, indexing="ij"))
        atoms = _columns(model, held, at_T, at_F if free_field else None)  # (N, K, G)
    out = np.empty(S.shape[1])
    size = 256
    for i in range(0, S.shape[1], size):
        block = S[:, i : i + size]
        known = {k: v if np.ndim(v) == 0 else np.asarray(v)[i : i + size] for k, v in held.items()}
        if atoms is not None:
            rss = _bounded(model, block, atoms).reshape(len(T), len(F), -1)
        else:
            here = [_columns(model, known, np.full(block.shape[1], t), None) for t in T]
            rss = np.stack([_bounded(model, block[:, None], c[:, :, None])[0] for c in here])[:, None]
        out[i : i + size] = _polished(model, block, known, (T, F if free_field else None), rss, best)
    return out


def _columns(model: SignalModel, held: dict[str, float | Floats], T: Floats, F: Floats | None) -> Floats:
    """Return the columns (N, K, *T.shape) as the images see them; one column of a model without an amplitude."""
    maps = {k: v + 0 * T for k, v in held.items()} | {model.time.name: T}
    if F is not None and model.field is not None:
        maps[model.field.name] = F
    g = np.asarray(model.shape(**{p.name: maps[p.name] for p in model.nonlinear}), dtype=float)
    g = g if len(model.amplitudes) > 1 else g[:, None]
    return abs(g) if model.magnitude else g


def _bounded(model: SignalModel, S: Floats, g: Floats) -> Floats:
    """Return min ‖S − Σ Aₖ gₖ‖² (G, V) over amplitudes within their bounds; S (N, V) or (N, 1, V), g (N, K, G[, V])."""
    power = (S**2).sum(0)
    if g.ndim == 3:
        m = np.einsum("nkg,nv->kgv", g, S)
        gram = np.einsum("nkg,nlg->klg", g, g)[..., None]
    else:
        m = (g * S[:, None]).sum(0)
        gram = (g[:, :, None] * g[:, None]).sum(0)
    bounds = [p.bounds for p in model.amplitudes] or [(1.0, 1.0)]
    tiny = 1e-300
    if len(bounds) == 1:
        a = np.clip(m[0] / np.maximum(gram[0, 0], tiny), *bounds[0])
        return np.asarray(power - a * (2 * m[0] - a * gram[0, 0]))
    (g11, g12), (_, g22) = gram
    det = g11 * g22 - g12**2
    with np.errstate(all="ignore"):
        a, c = (g22 * m[0] - g12 * m[1]) / det, (g11 * m[1] - g12 * m[0]) / det
    (a0, a1), (c0, c1) = bounds
    inside = (det > 1e-12 * g11 * g22) & (a >= a0) & (a <= a1) & (c >= c0) & (c <= c1)
    gain = np.where(inside, np.where(inside, a, 0) * m[0] + np.where(inside, c, 0) * m[1], -np.inf)
    for edge in (a0, a1):
        if np.isfinite(edge):
            c = np.clip((m[1] - edge * g12) / np.maximum(g22, tiny), c0, c1)
            gain = np.maximum(gain, 2 * (edge * m[0] + c * m[1]) - edge**2 * g11 - 2 * edge * c * g12 - c**2 * g22)
    for edge in (c0, c1):
        if np.isfinite(edge):
            a = np.clip((m[0] - edge * g12) / np.maximum(g11, tiny), a0, a1)
            gain = np.maximum(gain, 2 * (a * m[0] + edge * m[1]) - a**2 * g11 - 2 * a * edge * g12 - edge**2 * g22)
    return np.asarray(power - gain)


def _polished(
    model: SignalModel,
    S: Floats,
    held: dict[str, float | Floats],
    axes: tuple[Floats, Floats | None],
    rss: Floats,
    best: int,
) -> Floats:
    """Return the least sum of squares after a zoom around the best local minima of rss (n_T, n_F, V)."""
    T, F = axes
    padded = np.pad(rss, ((1, 1), (1, 1), (0, 0)), constant_values=np.inf)
    around = [
        padded[1 + a : 1 + a + rss.shape[0], 1 + b : 1 + b + rss.shape[1]] for a in (-1, 0, 1) for b in (-1, 0, 1)
    ]
    minimum = np.where(rss <= np.min(around, axis=0), rss, np.inf).reshape(-1, rss.shape[2])
    least = rss.min((0, 1))
    order = np.argsort(minimum, axis=0)[:best]
    value = np.take_along_axis(minimum, order, 0)
    rank, voxel = np.nonzero(np.isfinite(value))  # other voxels have fewer minima
    value, images = value[rank, voxel], S[:, None, voxel]
    known = {k: v if np.ndim(v) == 0 else np.asarray(v)[voxel] for k, v in held.items()}
    i, j = np.unravel_index(order[rank, voxel], rss.shape[:2])
    u, f = np.log(T[i]), (F[j] if F is not None else 0 * T[i])
    step_u, step_F = np.log(T[1] / T[0]), (F[1] - F[0] if F is not None and len(F) > 1 else 0.0)
    around_it = [(a, b) for a in (-1, 0, 1) for b in ((-1, 0, 1) if step_F else (0,)) if (a, b) != (0, 0)]
    for _ in range(14):  # a zoom: the best of the place and the eight (or two) around it, then half as far
        centre_u, centre_f = u, f
        for a, b in around_it:
            v = np.clip(centre_u + a * step_u / 2, np.log(T[0]), np.log(T[-1]))
            g = np.clip(centre_f + b * step_F / 2, F[0], F[-1]) if F is not None else centre_f
            c = _columns(model, known, np.exp(v), g if F is not None else None)
            here = _bounded(model, images, c[:, :, None])[0]
            u, f = np.where(here < value, v, u), np.where(here < value, g, f)
            value = np.minimum(here, value)
        step_u, step_F = 0.6 * step_u, 0.6 * step_F
    np.minimum.at(least, voxel, value)
    return np.asarray(least)
