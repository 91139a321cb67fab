"""Tables for separable models: S = |A (φ₀(T) + B φ₁(T))| is linear in A and A·B once T is known.

For every T the model spans a cone in the space of images: its edges are the signals at the two bounds of B.
In an orthonormal basis u₀, u₁ of that plane (u₀ along the edge of the lower bound) the best fit is the
projection (x, y) of the images, and the residual sum of squares is ‖S‖² − x² − y². The basis is smooth in
log T: with its first two derivatives at a few dozen nodes, quintic Hermite interpolation is exact to about
1e-8, and no exponential is left in the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]

#: Central differences of order 8: first and second derivative.
_OFFSETS = np.arange(-4, 5)
_D1 = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])
_D2 = np.array([-1 / 560, 8 / 315, -1 / 5, 8 / 5, -205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560])
_STEP = 0.02

#: Below this angle the cone of a T is a line: B leaves no trace in the images.
_NARROW = 1e-9

#: Scalars of a node, each with two derivatives in log T.
EDGE_X, EDGE_Y, LOG_R0, LOG_R1, RATIO, ALPHA, BETA, GAMMA, OMEGA = range(9)


@dataclass(frozen=True, eq=False)
class ConeTable:
    """The cone of a separable model at J nodes of log T.

    Parameters
    ----------
    t
        (J,) log T/ms of the nodes, from bound to bound.
    vectors
        (J, 6, N): u₀, u₀′, u₀″, u₁, u₁′, u₁″ (derivatives in log T); u₁ is zero for a model without B.
    scalars
        (J, 9, 3): the upper edge (cos, sin) in the plane of u₀ and u₁, log r₀₀, log r₁₁, r₀₁/r₀₀ of the triangular
        factor, ‖Pu₀′‖², ⟨Pu₀′, Pu₁′⟩, ‖Pu₁′‖², ⟨u₀, u₁′⟩ with P the projection off the plane; value and two derivatives.
    order
        (J, N): images in the order in which they change sign as B grows.
    B_bounds
        Of the model, (0, 0) without B.
    """

    t: Floats
    vectors: Floats
    scalars: Floats
    order: NDArray[np.int64]
    B_bounds: tuple[float, float]
    has_B: bool
    flips: bool

    coarse: NDArray[np.float32]
    """(J, 2, N) u₀ and u₁."""
    coarse_edge: NDArray[np.float32]
    """(J, 2) the upper edge."""


def suits(model: SignalModel) -> bool:
    """Tell whether `cone_table` can describe the model: (A, T) or (A, B, T), A ≥ 0, T within positive bounds."""
    if not model.separable or len(model.parameters) not in (2, 3):
        return False
    A, T = model.parameters[0], model.parameters[-1]
    B = model.parameters[1].bounds if len(model.parameters) == 3 else (0.0, 0.0)
    if A.bounds != (0.0, np.inf) or not 0 < T.bounds[0] < T.bounds[1] < np.inf or not np.isfinite(B).all():
        return False
    phi = np.asarray(model.basis(np.geomspace(*T.bounds, 65)), dtype=float)
    psi = phi[:, 0] + B[0] * phi[:, -1] if len(model.parameters) == 3 else phi[:, 0]
    constant = (psi >= 0).all(1) | (psi <= 0).all(1)  # the polarity at the lower bound of B must not depend on T
    return bool(phi.shape[1] == len(model.parameters) - 1 and (not model.magnitude or constant.all()))


@lru_cache(maxsize=16)
def cone_table(model: SignalModel, tolerance: float = 1e-7) -> ConeTable:
    """Return the table of a model, with as many nodes as interpolation to `tolerance` takes."""
    A, T = model.parameters[0], model.parameters[-1]
    assert A.bounds[0] == 0
    lo, hi = np.log(T.bounds[0]), np.log(T.bounds[1])
    dense = np.linspace(lo, hi, 1025)
    speed = _speed(model, dense)
    length = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    for J in (24, 32, 40, 48, 64, 96, 128, 192, 256):
        t = np.interp(np.linspace(0, length[-1], J), length, dense)
        t[0], t[-1] = lo, hi
        table = _table(model, t)
        if _error(model, table) < tolerance:
            break
    return table


def _frame(model: SignalModel, t: Floats) -> tuple[Floats, Floats, Floats]:
    """Return u₀, u₁ (N, *t.shape) and the scalars r₀₀, r₁₁, r₀₁/r₀₀, edge (5, *t.shape)."""
    phi = np.asarray(model.basis(np.exp(t)), dtype=float)
    has_B = phi.shape[1] == 2
    b0, b1 = model.parameters[1].bounds if has_B else (0.0, 0.0)
    psi1 = phi[:, 1] if has_B else np.zeros_like(phi[:, 0])
    psi0 = phi[:, 0] + b0 * psi1
    if model.magnitude:  # |f| does not see the sign of an image: let it be positive at the lower bound of B
        sign = np.where(psi0 < 0, -1.0, 1.0)
        psi0, psi1 = sign * psi0, sign * psi1
    tiny = np.finfo(float).tiny
    r00 = np.sqrt((psi0**2).sum(0))
    u0 = psi0 / np.maximum(r00, tiny)
    scale = np.maximum(abs(psi1).max(0), tiny)
    v = psi1 / scale
    r01 = (u0 * v).sum(0)
    w = v - r01 * u0
    w = w - (u0 * w).sum(0) * u0
    r11 = np.sqrt((w**2).sum(0))
    narrow = (b1 - b0) * r11 * scale <= _NARROW * r00
    u1 = np.where(narrow, 0.0, w / np.maximum(r11, tiny))
    ex, ey = r00 + (b1 - b0) * r01 * scale, np.where(narrow, 0.0, (b1 - b0) * r11 * scale)
    norm = np.maximum(np.hypot(ex, ey), tiny)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(r00, tiny)), np.log(np.maximum(r11, tiny)) + np.log(scale)
    return u0, u1, np.stack([ex / norm, ey / norm, *logs, r01 * scale / np.maximum(r00, tiny)])


def _with_derivatives(model: SignalModel, t: Floats) -> tuple[Floats, Floats]:
    """Return (2, 3, N, J) vectors u₀, u₁ and (5, 3, J) scalars with two derivatives in log T."""
    stencil = t[None, :] + _STEP * _OFFSETS[:, None]
    u0, u1, s = _frame(model, stencil)
    u = np.stack([u0, u1])
    narrow = ~u1.any(0).all(0)  # where the stencil straddles the end of the cone there is no derivative
    centre = len(_OFFSETS) // 2

    def both(a: Floats) -> Floats:
        d1, d2 = np.einsum("o,...oj->...j", _D1, a) / _STEP, np.einsum("o,...oj->...j", _D2, a) / _STEP**2
        return np.stack([a[..., centre, :], d1, d2])

    vectors = np.moveaxis(both(u), 0, 1)
    scalars = np.moveaxis(both(s), 0, 1)
    vectors[1, :, :, narrow] = 0.0
    scalars[:2, 1:, narrow] = 0.0
    scalars[1, 0, narrow] = 0.0
    scalars[0, 0, narrow] = np.sign(scalars[0, 0, narrow])
    return vectors, scalars


def _speed(model: SignalModel, t: Floats) -> Floats:
    """Return how fast the cone turns with log T, with a floor, so that nodes lie where they are needed."""
    u, s = _with_derivatives(model, t)
    ex, ey = s[EDGE_X], s[EDGE_Y]
    edge = ex[1] * u[0, 0] + ex[0] * u[0, 1] + ey[1] * u[1, 0] + ey[0] * u[1, 1]
    wide = np.minimum(abs(ey[0]) * 10, 1)
    speed = np.sqrt((u[0, 1] ** 2).sum(0) + (edge**2).sum(0) + wide * (u[1, 1] ** 2).sum(0))
    return np.asarray(speed + 0.25 * speed.max() + 1e-3)


def _table(model: SignalModel, t: Floats) -> ConeTable:
    u, five = _with_derivatives(model, t)
    stencil = t[None, :] + _STEP * _OFFSETS[:, None]
    # The four inner products, on the same stencil, so that they too have derivatives.
    inner = np.stack([_inner(model, row) for row in stencil], axis=1)  # (4, 9, J)
    d1, d2 = np.einsum("o,qoj->qj", _D1, inner) / _STEP, np.einsum("o,qoj->qj", _D2, inner) / _STEP**2
    four = np.stack([inner[:, len(_OFFSETS) // 2], d1, d2], axis=1)
    scalars = np.ascontiguousarray(np.moveaxis(np.concatenate([five, four]), -1, 0))
    vectors = np.ascontiguousarray(np.moveaxis(u.reshape(6, *u.shape[2:]), -1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        order = np.argsort(np.nan_to_num(u[1, 0] / u[0, 0], posinf=1e300, neginf=-1e300), axis=0, kind="stable").T
    has_B = len(model.parameters) == 3
    return ConeTable(
        t=t,
        vectors=vectors,
        scalars=scalars,
        order=np.ascontiguousarray(order),
        B_bounds=model.parameters[1].bounds if has_B else (0.0, 0.0),
        has_B=has_B,
        flips=has_B and model.magnitude,
        coarse=np.ascontiguousarray(vectors[:, [0, 3]], dtype=np.float32),
        coarse_edge=np.ascontiguousarray(scalars[:, [EDGE_X, EDGE_Y], 0], dtype=np.float32),
    )


def _inner(model: SignalModel, t: Floats) -> Floats:
    (u0, d0), (u1, d1) = (v[:2] for v in _with_derivatives(model, t)[0])
    omega = (u0 * d1).sum(0)
    p0, p1 = d0 + omega * u1, d1 - omega * u0  # ⟨u₁, u₀′⟩ = −⟨u₀, u₁′⟩, ⟨u, u′⟩ = 0
    return np.stack([(p0 * p0).sum(0), (p0 * p1).sum(0), (p1 * p1).sum(0), omega])


def hermite(theta: float, h: float) -> Floats:
    """Return the weights (6,) of f₀, f₀′, f₀″, f₁, f₁′, f₁″ for f(θ) in a cell of width h."""
    a = theta
    a3, a4, a5 = a**3, a**4, a**5
    return np.asarray(
        [
            1 - 10 * a3 + 15 * a4 - 6 * a5,
            h * (a - 6 * a3 + 8 * a4 - 3 * a5),
            h * h * (a * a / 2 - 1.5 * a3 + 1.5 * a4 - 0.5 * a5),
            10 * a3 - 15 * a4 + 6 * a5,
            h * (-4 * a3 + 7 * a4 - 3 * a5),
            h * h * (0.5 * a3 - a4 + 0.5 * a5),
        ]
    )


def _error(model: SignalModel, table: ConeTable) -> float:
    """Return the largest error of the interpolated edges of the cone, midway between nodes."""
    t, h = table.t, np.diff(table.t)
    u0, u1, s = _frame(model, t[:-1] + h / 2)
    w = np.stack([hermite(0.5, step) for step in h], axis=1)  # (6, J-1)
    v, e = np.moveaxis(table.vectors, 0, -1), np.moveaxis(table.scalars, 0, -1)

    def at(f: Floats) -> Floats:  # (3, …, J) -> (…, J-1)
        return np.asarray(np.einsum("dj,d...j->...j", w, np.concatenate([f[..., :-1], f[..., 1:]])))

    v0, v1 = at(v[:3]), at(v[3:])
    ex, ey = at(e[EDGE_X]), at(e[EDGE_Y])
    plane = s[EDGE_Y] > 1e-3
    errors = [abs(v0 - u0).max(), abs(ex * v0 + ey * v1 - s[0] * u0 - s[1] * u1).max()]
    if plane.any():
        errors.append(abs(v1 - u1)[:, plane].max())
    return float(max(errors))
