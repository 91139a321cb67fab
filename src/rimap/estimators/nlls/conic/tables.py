"""Tables for separable models: S = |A (φ₀(T) + B φ₁(T))| is linear in A and A·B once T is known.

For every T the model spans a cone in the space of images: its edges are the signals at the two bounds of B.
In an orthonormal basis u₀, u₁ of that plane (u₀ along the edge of the lower bound) the best fit is the
projection (x, y) of the images, and the residual sum of squares is ‖S‖² − x² − y². The basis is smooth in
log T: around each of a few dozen nodes it is a polynomial of degree 7, exact to about 1e-6 as far as the
neighbouring nodes, so the search computes no exponential.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from rimap.estimators.nlls.reduced_model import Reduced

Floats = NDArray[np.float64]

#: Coefficients of a polynomial.
TERMS = 8
#: Numbers of nodes to try: the first whose polynomials reach the tolerance.
NODES = (16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192)

#: Central differences of order 8.
_OFFSETS = np.arange(-4, 5)
#: Weights of the first derivative on nine points, of eighth order: its error is below that of float32.
_D1 = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])
#: Step of log T between those points.
_STEP = 0.02

#: Below this angle the cone of a T is a line: B leaves no trace in the images.
_NARROW = 1e-9

#: Rows of `ConeTable.scalars`.
EDGE_X, EDGE_Y, LOG_R0, LOG_R1, RATIO, ALPHA, BETA, GAMMA, OMEGA = range(9)


@dataclass(frozen=True, eq=False)
class ConeTable:
    """The cone of a separable model around J nodes of log T, as polynomials in θ = (log T − t)/width.

    Parameters
    ----------
    t, width
        (J,) log T/ms of the nodes, and the unit of θ: the wider of the two steps to the nodes beside it.
    limits
        (J, 2) θ of the nodes beside it, 0 if there is none.
    basis
        (J, N, 16) coefficients of u₀ and u₁, in ascending order; u₁ is zero for a model without B.
    scalars
        (J, 9, 8) coefficients of the upper edge (cos, sin) in the plane of u₀ and u₁, log r₀₀, log r₁₁, r₀₁/r₀₀ of
        the triangular factor, ‖Pu₀′‖², ⟨Pu₀′, Pu₁′⟩, ‖Pu₁′‖², ⟨u₀, u₁′⟩ with P the projection off the plane and ′
        the derivative in log T.
    order
        (J, N) images in the order in which they change sign as B grows, `fixed` if that is so for all T.
    nodes
        (J, 3, N) u₀ and u₁ at the nodes, and u₀ sin − u₁ cos of the upper edge: how far inside of it.
    edge
        (J, 2) the upper edge at the nodes.
    upper
        (J, N) the signal at the upper bound of B, of unit length, as the images see it (its modulus where `flips`).
    last
        (J,) how many images have changed sign at the upper bound of B.
    lean
        (J, N) how far an image can pull the model towards itself: the root of its leverage, at its largest between the
        nodes beside this one (with a reserve for T).
    reach
        (J,) by how much x² + y² may grow between nodes, relative: the largest eigenvalue of (α β; β γ) times the
        squared half step.
    drift
        (J,) the largest increase of x², in the same way.
    F_bounds
        Bounds of the field in the model, (0, 0) without B.
    flips
        Whether the polarity of the images is unknown.
    """

    t: Floats
    width: Floats
    limits: Floats
    basis: Floats
    scalars: Floats
    order: NDArray[np.int64]
    fixed: bool
    nodes: NDArray[np.float32]
    edge: NDArray[np.float32]
    upper: NDArray[np.float32]
    last: NDArray[np.int64]
    lean: Floats
    reach: NDArray[np.float32]
    drift: NDArray[np.float32]
    F_bounds: tuple[float, float]
    has_field: bool
    flips: bool


@dataclass(frozen=True, eq=False)
class LineTable:
    """A separable model without B between K + 1 values of log T: a curve of unit vectors u, as polynomials.

    In θ, which runs from −1 to 1 between neighbouring values.

    Parameters
    ----------
    slopes
        (≥ K + 1, N) the direction of du/dt at those values; the last one comes again up to a multiple of four.
    basis
        (K, N, 8) coefficients of u, in ascending order.
    maps
        (K, 4, 8) coefficients of T, and where ⟨S, u⟩ = 1 of A, the standard deviation of A, and that of T, for σ = 1.
    exact
        (K,) whether the polynomials `maps` are good to the tolerance.
    """

    slopes: NDArray[np.float32]
    basis: Floats
    maps: Floats
    exact: NDArray[np.bool_]


def suits(model: Reduced) -> bool:
    """Return whether `cone_table` can describe the model: A ≥ 0, T within positive bounds, and one polarity at the
    lower F.
    """
    (A,) = model.model.amplitudes
    low, high = model.T_bounds
    if A.bounds != (0.0, np.inf) or A.name in dict(model.held) or not 0 < low < high < np.inf:
        return False
    if not np.isfinite(model.F_bounds).all():
        return False
    phi = model.basis(np.geomspace(low, high, 65))
    psi = phi[:, 0] + model.F_bounds[0] * phi[:, -1] if model.has_field else phi[:, 0]
    constant = (psi >= 0).all(1) | (psi <= 0).all(1)  # the polarity at the lower bound of F must not depend on T
    return bool(not model.magnitude or constant.all())


@lru_cache(maxsize=16)
def cone_table(model: Reduced, tolerance: float = 1e-6) -> ConeTable:
    """Return the table of a model, with as many nodes as polynomials exact to `tolerance` take."""
    for J in NODES:
        table = _table(model, _nodes(model, J))
        if _error(model, table) < tolerance:
            break
    return table


@lru_cache(maxsize=16)
def line_table(model: Reduced, tolerance: float = 1e-6) -> LineTable:
    """Return the table of a model without B, with as many intervals as polynomials exact to `tolerance` take."""
    for J in NODES:
        table, error = _line(model, _nodes(model, J), tolerance)
        if error < tolerance:
            break
    return table


def _line(model: Reduced, t: Floats, tolerance: float) -> tuple[LineTable, float]:
    """Return the table between the values t of log T, and the largest error of u."""
    half, near = np.diff(t)[:, None] / 2, np.linspace(-1, 1, 9)
    theta = chebyshev.chebpts1(TERMS)
    powers = np.linalg.inv(np.vander(theta, increasing=True))
    middle, test = (t[1:, None] + t[:-1, None]) / 2, np.vander(near, TERMS, increasing=True)
    basis = np.einsum("pc,njc->jnp", powers, _frame(model, middle + half * theta)[0][0])
    error = abs(np.einsum("jnp,cp->njc", basis, test) - _frame(model, middle + half * near)[0][0]).max()
    with np.errstate(all="ignore"):
        maps = np.einsum("pc,jqc->jqp", powers, _line_maps(model, middle + half * theta))
        true = _line_maps(model, middle + half * near)
        exact = (abs(np.einsum("jqp,cp->jqc", maps, test) - true) < tolerance * abs(true)).all((1, 2))
    slopes = _derivative(model, t)[0].T
    length = np.linalg.norm(slopes, axis=1)
    seen = np.flatnonzero(length > 1e-5 * length.max())  # where u stands still, the nearest that does not
    nearest = seen[abs(np.arange(len(t))[:, None] - seen).argmin(1)]
    slopes = slopes[nearest] / length[nearest, None]
    slopes = np.pad(slopes, ((0, -len(t) % 4), (0, 0)), mode="edge")
    maps[~exact] = 0.0
    return LineTable(
        np.ascontiguousarray(slopes, dtype=np.float32), np.ascontiguousarray(basis), np.ascontiguousarray(maps), exact
    ), float(error)


def _line_maps(model: Reduced, t: Floats) -> Floats:
    """Return T, 1/r₀₀, the standard deviation of A, and that of T where ⟨S, u⟩ = 1 (K, 4, C) at t (K, C)."""
    log_r, alpha, T = _frame(model, t)[1][LOG_R0], _inner(model, t)[0], np.exp(t)
    slope = _frame(model, t[..., None] + _STEP * _OFFSETS)[1][LOG_R0] @ _D1 / _STEP
    return np.stack([T, np.exp(-log_r), np.exp(-log_r) * np.sqrt(1 + slope**2 / alpha), T / np.sqrt(alpha)], axis=1)


def _nodes(model: Reduced, J: int) -> Floats:
    """Return J values of log T between its bounds, denser where the cone turns fast."""
    low, high = np.log(model.T_bounds)
    dense = np.linspace(low, high, 513)
    speed = _speed(model, dense)
    length = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    t = np.interp(np.linspace(0, length[-1], J), length, dense)
    t[0], t[-1] = low, high
    return np.asarray(t)


def _frame(model: Reduced, t: Floats) -> tuple[Floats, Floats]:
    """Return u₀ and u₁ (2, N, *t.shape), and edge cosine and sine, log r₀₀, log r₁₁, r₀₁/r₀₀ (5, *t.shape)."""
    phi = model.basis(np.exp(t))
    has_field = model.has_field
    b0, b1 = model.F_bounds
    psi1 = phi[:, 1] if has_field else np.zeros_like(phi[:, 0])
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
    u1 = w / np.maximum(r11, tiny)
    ex, ey = r00 + (b1 - b0) * r01 * scale, (b1 - b0) * r11 * scale
    norm = np.maximum(np.hypot(ex, ey), tiny)
    logs = np.log(np.maximum(r00, tiny)), np.log(np.maximum(r11, tiny)) + np.log(scale)
    return np.stack([u0, u1]), np.stack([ex / norm, ey / norm, *logs, r01 * scale / np.maximum(r00, tiny)])


def _derivative(model: Reduced, t: Floats) -> Floats:
    """Return du₀/dt and du₁/dt (2, N, *t.shape), t = log T."""
    stencil = t[..., None] + _STEP * _OFFSETS
    return np.asarray(_frame(model, stencil)[0] @ _D1 / _STEP)


def _off_plane(model: Reduced, t: Floats) -> tuple[Floats, Floats, Floats]:
    """Return Pu₀′ and Pu₁′ (N, *t.shape) and ω."""
    (u0, u1), _ = _frame(model, t)
    d0, d1 = _derivative(model, t)
    omega = (u0 * d1).sum(0)
    return d0 + omega * u1, d1 - omega * u0, omega  # ⟨u₁, u₀′⟩ = −⟨u₀, u₁′⟩, ⟨u, u′⟩ = 0


def _inner(model: Reduced, t: Floats) -> Floats:
    """Return α, β, γ and ω (4, *t.shape)."""
    p0, p1, omega = _off_plane(model, t)
    return np.stack([(p0 * p0).sum(0), (p0 * p1).sum(0), (p1 * p1).sum(0), omega])


def _lean(model: Reduced, t: Floats) -> Floats:
    """Return the root of the leverage of each image (N, *t.shape), that on T at its largest over all A and B."""
    (u0, u1), _ = _frame(model, t)
    p0, p1, _ = _off_plane(model, t)
    a, b, c = (p0 * p0).sum(0), (p0 * p1).sum(0), (p1 * p1).sum(0)
    tiny = 1e-9 * (a + c) + 1e-30
    a, c = a + tiny, c + tiny
    on_T = (c * p0**2 - 2 * b * p0 * p1 + a * p1**2) / (a * c - b * b)
    return np.asarray(np.sqrt(np.clip(u0**2 + u1**2 + 1.5 * on_T, 0, 1)))


def _speed(model: Reduced, t: Floats) -> Floats:
    """Return how fast the cone turns with log T, with a floor, so that nodes are placed where they are needed."""
    (u0, u1), s = _frame(model, t)
    d0, d1 = _derivative(model, t)
    edge = np.gradient(s[EDGE_X] * u0 + s[EDGE_Y] * u1, t, axis=-1)
    wide = np.minimum(10 * abs(s[EDGE_Y]), 1)
    speed = np.sqrt((d0**2).sum(0) + (edge**2).sum(0) + wide * (d1**2).sum(0))
    return np.asarray(speed + 0.25 * speed.max() + 1e-3)


def _table(model: Reduced, t: Floats) -> ConeTable:
    steps = np.diff(t)
    left, right = np.append(0.0, steps), np.append(steps, 0.0)
    width = np.maximum(left, right)
    theta = chebyshev.chebpts1(TERMS)
    points = t[:, None] + width[:, None] * theta  # (J, 8)
    u, five = _frame(model, points)
    scalars = np.concatenate([five, _inner(model, points)])
    narrow = five[EDGE_Y].max(1) <= _NARROW
    if not model.has_field:
        narrow[:] = True
    u[1][:, narrow], scalars[EDGE_Y, narrow] = 0.0, 0.0
    at_nodes, edges = _frame(model, t)
    at_nodes[1][:, narrow], edges[EDGE_Y, narrow] = 0.0, 0.0
    # Values at Chebyshev points -> coefficients of powers.
    powers = np.linalg.inv(np.vander(theta, increasing=True))
    basis = np.einsum("pc,bnjc->jnbp", powers, u).reshape(len(t), u.shape[1], 2 * TERMS)
    scalars = np.einsum("pc,sjc->jsp", powers, scalars)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(at_nodes[1] / at_nodes[0], posinf=1e300, neginf=-1e300)
    order = np.argsort(ratio, axis=0, kind="stable").T
    alpha, beta, gamma = scalars[:, ALPHA, 0], scalars[:, BETA, 0], scalars[:, GAMMA, 0]
    largest = (alpha + gamma) / 2 + np.hypot((alpha - gamma) / 2, beta)
    has_field = model.has_field
    known = ~narrow
    flips = has_field and model.magnitude
    around = t[:, None] + np.stack([-left, -left / 2, 0 * t, right / 2, right], axis=1)  # (J, 5)
    lean = _lean(model, around).max(-1).T if flips else np.ones((len(t), u.shape[1]))
    upper = edges[EDGE_X] * at_nodes[0] + edges[EDGE_Y] * at_nodes[1]  # (N, J)
    depth = at_nodes[0] * edges[EDGE_Y] - at_nodes[1] * edges[EDGE_X]
    return ConeTable(
        t=t,
        width=width,
        limits=np.stack([-left / width, right / width], axis=1),
        basis=np.ascontiguousarray(basis),
        scalars=np.ascontiguousarray(scalars),
        order=np.ascontiguousarray(order),
        fixed=bool((order[known] == order[known][:1]).all()),
        nodes=np.ascontiguousarray(np.moveaxis(np.stack([*at_nodes, depth]), -1, 0), dtype=np.float32),
        edge=np.ascontiguousarray(edges[[EDGE_X, EDGE_Y]].T, dtype=np.float32),
        upper=np.ascontiguousarray((abs(upper) if flips else upper).T, dtype=np.float32),
        last=(upper < 0).sum(0) if flips else np.zeros(len(t), np.int64),
        lean=np.ascontiguousarray(lean),
        reach=np.minimum(largest * (width / 2) ** 2, 1e30).astype(np.float32),
        drift=np.clip((alpha + scalars[:, OMEGA, 0] ** 2) * (width / 2) ** 2, -1e30, 1e30).astype(np.float32),
        F_bounds=model.F_bounds,
        has_field=has_field,
        flips=flips,
    )


def _error(model: Reduced, table: ConeTable) -> float:
    """Return the largest error of the polynomials between their node and the neighbouring ones."""
    theta = table.limits[:, :, None] * np.array([0.3, 0.6, 0.85, 1.0])  # (J, 2, 4)
    points = table.t[:, None, None] + table.width[:, None, None] * theta
    u, s = _frame(model, points)
    power = theta[..., None] ** np.arange(TERMS)
    v = np.einsum("jnbp,jtup->bnjtu", table.basis.reshape(*table.basis.shape[:2], 2, TERMS), power)
    ex, ey = np.einsum("jsp,jtup->sjtu", table.scalars[:, :2], power)
    error = max(abs(v[0] - u[0]).max(), abs(ex * v[0] + ey * v[1] - s[0] * u[0] - s[1] * u[1]).max())
    plane = (s[EDGE_Y] > 1e-3) & table.has_field
    return float(max(error, abs(v[1] - u[1])[:, plane].max() if plane.any() else 0.0))
