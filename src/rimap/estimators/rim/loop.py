"""What is around the cell of a RIM: what it reads and how its output moves the estimate (Eqs. 4–5).

The same lines serve training (torch) and mapping (NumPy). Images are in units of the image scale here, so that
A ≈ 1 in CSF. The estimate is carried as `u`, the coordinates in which the network moves it.

Two designs are kept by name: `PAPER` is §4.4.4; `GENERAL` works in coordinates whose errors are alike for
every protocol and noise level. Both are plain `RIMConfig` values, and every choice is one field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rimap.arrays import Array, namespace
from rimap.errors import InputError
from rimap.estimators.rim.data_term import Sums
from rimap.estimators.rim.neighbours import gaussian_sum
from rimap.signals.base import SignalModel

INPUTS = ("state", "gradient", "step", "step_known_B", "score", "sd", "log_sigma", "misfit", "contrast")
#: Standard deviations (pixels) of the means that ``contrast`` compares a voxel with.
CONTRAST = {"A": (1.0, 2.0), "T": (0.7, 1.4, 2.8)}
_A0 = 0.1  # below a tenth of the image scale, A is carried on a linear scale
_CENTRE = {"A": 2.7, "B": 1.9, "T": 0.0}
_SPREAD = {"A": 0.5, "B": 0.2, "T": 0.7}


@dataclass(frozen=True)
class RIMConfig:
    """The choices of a RIM, stored in its recipe and in its exported file.

    Parameters
    ----------
    inputs
        What the cell reads, in this order (Q = number of parameters):
        ``state`` (Q) the estimate; ``gradient`` (Q) ∇κ of ½Σ(S − f)², times 31/N, never divided by σ²;
        ``step`` (Q) the damped Gauss-Newton step; ``step_known_B`` (1) its T at fixed B;
        ``score`` (Q) the gradient in units of its own standard deviation;
        ``sd`` (1, or 3 where there is a B) logarithm of the Cramér-Rao bound of log T with B known, with B free,
        and of B; ``log_sigma`` (1); ``misfit`` (1) log χ²/N;
        ``contrast`` (5) how far the precision-weighted means of A and T over neighbourhoods of several sizes are
        from the voxel, in units of its Cramér-Rao bound: what a smoother would do, for the cell to weigh.
    state
        ``linear``: A, B, T/1000 ms. ``log``: asinh(10 A), B, log(T/1000 ms).
    start
        ``paper``: §4.4.4. ``smooth_B``: maximum likelihood with a smooth B.
    update
        ``abs``: κ ← |κ + Δ|, the domain guard of the authors' package. ``clip``: into the box.
    unit
        What an output of 1 means: ``fixed``: `gain`; ``sd``: the Cramér-Rao bound of each voxel with B known
        (for B: `gain`).
    gain
        Size of an output of 1 in u, one for each parameter from A to T; the middle one is left out without a B.
    limit
        Largest change in one step, in units of the output, by a tanh; 0 for none.
    n_steps, features
        J, and the width of the cell.
    zero_output
        The output layer starts at zero: an untrained network returns its start.
    prior_sd
        Standard deviations in u of the weak prior that damps the Gauss-Newton step (A, B, T).
    floor
        Smallest standard deviation of log T, log A that is told apart.
    """

    inputs: tuple[str, ...] = ("state", "gradient")
    state: str = "linear"
    start: str = "paper"
    update: str = "abs"
    unit: str = "fixed"
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    limit: float = 0.0
    n_steps: int = 6
    features: int = 36
    zero_output: bool = False
    prior_sd: tuple[float, float, float] = (2.0, 0.3, 1.5)
    floor: float = 0.01

    def __post_init__(self) -> None:
        for name in ("inputs", "gain", "prior_sd"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for value, allowed in (
            (self.state, ("linear", "log")),
            (self.start, ("paper", "smooth_B")),
            (self.update, ("abs", "clip")),
            (self.unit, ("fixed", "sd")),
            *((i, INPUTS) for i in self.inputs),
        ):
            if value not in allowed:
                raise InputError(f"{value!r} in the network's settings: expected one of {', '.join(allowed)}.")

    def channels(self, Q: int) -> int:
        """Return the number of input channels of the cell."""
        one = {"step_known_B": 1, "log_sigma": 1, "misfit": 1, "sd": 3 if Q == 3 else 1}
        one["contrast"] = sum(len(widths) for widths in CONTRAST.values())
        return sum(one.get(i, Q) for i in self.inputs)

    @classmethod
    def of(cls, values: dict[str, Any]) -> RIMConfig:
        """Return the configuration of its fields as a dictionary."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return its fields."""
        return dataclasses.asdict(self)


#: §3 and §4.4.4, with the gradient and the domain guard of the authors' package.
PAPER = RIMConfig()

#: Made for any protocol and noise level.
GENERAL = RIMConfig(
    inputs=("state", "step", "step_known_B", "score", "sd", "log_sigma"),
    state="log",
    start="smooth_B",
    update="clip",
    unit="sd",
    gain=(1.0, 0.05, 1.0),
    limit=4.0,
    features=32,  # whole registers of a CPU: maps 1.7 times as fast as 36
    zero_output=True,
)
VARIANTS = {"paper": PAPER, "general": GENERAL}


def _pick(values: Sequence[float], Q: int) -> tuple[float, ...]:
    """Return the values of the Q parameters from those of (A, B, T)."""
    return tuple(values) if Q == 3 else (values[0], values[2])


def _kinds(Q: int) -> str:
    return "ABT" if Q == 3 else "AT"


def to_state(config: RIMConfig, kappa: Array) -> Array:
    """Return u (Q, *X) of κ (Q, *X), A in units of the image scale, T in ms."""
    xp, Q = namespace(kappa), kappa.shape[0]
    if config.state == "linear":
        return xp.stack([kappa[q] for q in range(Q - 1)] + [kappa[Q - 1] / 1000.0])
    return xp.stack([xp.asinh(kappa[0] / _A0)] + [kappa[q] for q in range(1, Q - 1)] + [xp.log(kappa[Q - 1] / 1000.0)])


def from_state(config: RIMConfig, u: Array) -> Array:
    """Return κ (Q, *X) of u."""
    xp, Q = namespace(u), u.shape[0]
    if config.state == "linear":
        return xp.stack([u[q] for q in range(Q - 1)] + [u[Q - 1] * 1000.0])
    return xp.stack([xp.sinh(u[0]) * _A0] + [u[q] for q in range(1, Q - 1)] + [xp.exp(u[Q - 1]) * 1000.0])


def box(config: RIMConfig, model: SignalModel) -> list[tuple[float, float]]:
    """Return the bounds of u for each parameter; A is at most 100 image scales."""
    bounds = [(lo, min(hi, 100.0) if q == 0 else hi) for q, (lo, hi) in enumerate(p.bounds for p in model.parameters)]
    ends = np.array(bounds).T
    lo, hi = (to_state(config, e) for e in ends)
    return [(float(a), float(b)) for a, b in zip(lo, hi)]


def _slopes(config: RIMConfig, kappa: Array) -> list[Array]:
    """Return d(A, B, log T)/du."""
    xp, Q = namespace(kappa), kappa.shape[0]
    one = 0 * kappa[0] + 1
    if config.state == "linear":
        return [one] * (Q - 1) + [1000.0 / kappa[Q - 1]]
    return [xp.sqrt(kappa[0] ** 2 + _A0**2)] + [one] * (Q - 1)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The data term at one estimate in the coordinates u: gradient, Gauss-Newton matrix, damping.

    Parameters
    ----------
    g
        Q maps, Σ r ∂f/∂u.
    H
        Upper triangle by (i, j), Σ ∂f/∂uᵢ ∂f/∂uⱼ, without damping.
    damping
        Q maps, σ²/sd² of the weak prior.
    sigma
        σ in units of the image scale, broadcast against the maps.
    """

    g: list[Array]
    H: dict[tuple[int, int], Array]
    damping: list[Array]
    sigma: Array

    @classmethod
    def of(cls, config: RIMConfig, kappa: Array, sums: Sums, sigma: Array) -> Quadratic:
        """Return it at κ from the sums over the images."""
        Q = kappa.shape[0]
        J = _slopes(config, kappa)
        pairs = [(i, j) for i in range(Q) for j in range(i, Q)]
        g = [sums.g[q] * J[q] for q in range(Q)]
        H = {(i, j): sums.H[k] * J[i] * J[j] for k, (i, j) in enumerate(pairs)}
        damping = [(sigma / sd) ** 2 + 1e-12 for sd in _pick(config.prior_sd, Q)]
        return cls(g, H, damping, sigma)

    def solve(self, free: Sequence[int]) -> tuple[list[Array], list[Array]]:
        """Return the damped step −(H + D)⁻¹ g and the variances σ² diag (H + D)⁻¹ over the parameters `free`.

        Two or three parameters: closed forms, safe in single precision because the damping is there.
        """
        a = {
            (i, j): self.H[free[i], free[j]] + (self.damping[free[i]] if i == j else 0.0)
            for i in range(len(free))
            for j in range(i, len(free))
        }
        g = [self.g[i] for i in free]
        s2 = self.sigma**2
        if len(free) == 1:
            return [-g[0] / a[0, 0]], [s2 / a[0, 0]]
        # eliminate the first parameter; the others are a 1×1 or 2×2 system (its Schur complement)
        r = [a[0, j] / a[0, 0] for j in range(1, len(free))]
        b = [g[j] - r[j - 1] * g[0] for j in range(1, len(free))]
        least = [self.damping[i] for i in free]
        xp = namespace(g[0])
        c = {(i, j): a[i, j] - r[i - 1] * a[0, j] for i, j in a if i > 0}
        c11 = xp.maximum(c[1, 1], least[1])
        if len(free) == 2:
            x = [-b[0] / c11]
            v = [1 / c11]
            v0 = 1 / a[0, 0] + r[0] ** 2 * v[0]
        else:
            q = c[1, 2] / c11
            last = xp.maximum(c[2, 2] - q * c[1, 2], least[2])
            x2 = -(b[1] - q * b[0]) / last
            v2 = 1 / last
            x = [-b[0] / c11 - q * x2, x2]
            v = [1 / c11 + q**2 * v2, v2]
            v0 = 1 / a[0, 0] + r[0] ** 2 * v[0] + r[1] ** 2 * v[1] - 2 * r[0] * r[1] * q * v2
        x0 = -g[0] / a[0, 0] - sum(ri * xi for ri, xi in zip(r, x))
        return [x0, *x], [s2 * w for w in (v0, *v)]


def cell_inputs(config: RIMConfig, u: Array, sums: Sums, quadratic: Quadratic, n_images: int) -> list[Array]:
    """Return the channels that the cell reads (Eq. 4), each (*X)."""
    xp, Q = namespace(u), u.shape[0]
    kinds = _kinds(Q)
    centre, spread = [_CENTRE[k] for k in kinds], [_SPREAD[k] for k in kinds]
    out: list[Array] = []
    every = list(range(Q))
    known_B = [0, Q - 1]
    step, variance = quadratic.solve(every) if {"step", "sd"} & set(config.inputs) else ([], [])
    step_B, variance_B = (
        quadratic.solve(known_B) if {"step_known_B", "sd", "contrast"} & set(config.inputs) else ([], [])
    )

    def soft(x: Array, at: float) -> Array:
        return xp.tanh(x / at) * at

    def log_sd(v: Array) -> Array:
        return 0.5 * xp.log(v) / 1.5 + 2.0  # 5 % is 0

    for name in config.inputs:
        if name == "state":
            out += [u[q] if config.state == "linear" else (u[q] - centre[q]) / spread[q] for q in every]
        elif name == "gradient":
            out += [quadratic.g[q] * (31.0 / n_images) for q in every]
        elif name == "step":
            out += [soft(step[q] / spread[q], 2.0) for q in every]
        elif name == "step_known_B":
            out += [soft(step_B[-1] / spread[-1], 2.0)]
        elif name == "score":
            out += [
                soft(quadratic.g[q] / (quadratic.sigma * xp.sqrt(quadratic.H[q, q] + quadratic.damping[q])), 4.0) / 2
                for q in every
            ]
        elif name == "sd":
            out += [log_sd(variance_B[-1])]
            if Q == 3:
                out += [log_sd(variance[-1]), log_sd(variance[1])]
        elif name == "log_sigma":
            out += [xp.log(quadratic.sigma + 0 * u[0]) / 1.5 + 2.0]
        elif name == "contrast":
            for q, kind in ((0, "A"), (Q - 1, "T")):
                v = variance_B[min(q, 1)] + config.floor**2
                for width in CONTRAST[kind]:
                    mean = gaussian_sum(u[q] / v, width) / (gaussian_sum(1 / v, width) + 1e-12)
                    out += [soft((mean - u[q]) / xp.sqrt(v), 4.0) / 2]
        elif name == "misfit":
            out += [soft(xp.log(sums.sse / (n_images * quadratic.sigma**2) + 0.1), 3.0)]
    return out


def units(config: RIMConfig, quadratic: Quadratic) -> list[Any]:
    """Return the size in u of an output of 1, a number or a map for each parameter."""
    Q = len(quadratic.g)
    gain = _pick(config.gain, Q)
    if config.unit == "fixed":
        return list(gain)
    _, variance = quadratic.solve([0, Q - 1])
    xp = namespace(variance[0])
    sd = [xp.sqrt(v + config.floor**2) for v in variance]
    sd = [xp.where(s > 0.5, 0 * s + 0.5, s) for s in sd]
    return [gain[0] * sd[0], *gain[1 : Q - 1], gain[-1] * sd[1]]


def moved(
    config: RIMConfig, u: Array, delta: Array, unit: Sequence[Any], bounds: Sequence[tuple[float, float]]
) -> Array:
    """Return u + Δ (Eq. 5) with the guard of the domain. `delta` is the cell's output (Q, *X)."""
    xp, Q = namespace(u), u.shape[0]
    if config.limit:
        delta = xp.tanh(delta / config.limit) * config.limit
    new = [u[q] + unit[q] * delta[q] for q in range(Q)]
    if config.update == "abs":
        # |κ + Δ|; T stays above its lower bound, where e^(−τ/T) is still finite
        new = [abs(x) for x in new]
        new[-1] = xp.clip(new[-1], bounds[-1][0], None)
    else:
        new = [xp.clip(x, lo, hi) for x, (lo, hi) in zip(new, bounds)]
    return xp.stack(new)
