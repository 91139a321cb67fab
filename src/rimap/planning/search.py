"""The search for the best protocol of a layout: coordinates in turn, then sequential quadratic programming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from rimap.likelihood import Noise
from rimap.planning.goal import WORST, Goal
from rimap.planning.precision import relative_sd
from rimap.planning.protocols import Layout
from rimap.signals.base import SignalModel

Array = NDArray[np.float64]

#: Values of T at which a protocol is judged while it is searched.
POINTS = 13
#: The relative SD that counts for a value of T that a protocol does not determine.
UNDETERMINED = 1e3
#: Steps along each coordinate, as a share of its range (on the scale of logarithms): from coarse to fine.
_STEPS = (0.25, 0.1, 0.04, 0.015)


@dataclass(frozen=True)
class Found:
    """A protocol and the criterion that it reaches: the worst or the mean relative SD over the range."""

    layout: Layout
    numbers: Array
    score: float


def judged_at(goal: Goal, points: int = POINTS) -> Array:
    """Return the values of T (K,) at which protocols are judged, ms."""
    low, high = goal.T_ms
    return np.geomspace(low, high, points) if high > low else np.array([low])


def precisions(model: SignalModel | None, layout: Layout, noise: Noise, T: Array) -> Array:
    """Return the relative SD at each T with all averages; `UNDETERMINED` where the protocol does not determine it."""
    if model is None:
        return np.full(T.shape, UNDETERMINED)
    sd = relative_sd(model, noise, T, layout.goal) / np.sqrt(layout.averages)
    return np.asarray(np.minimum(np.nan_to_num(sd, nan=UNDETERMINED), UNDETERMINED))


def score_of(sd: Array, criterion: str) -> float:
    """Return the worst or the mean."""
    return float(sd.max() if criterion == WORST else sd.mean())


def best(layouts: list[Layout], noise: Noise, *, kept: int = 3) -> Found:
    """Return the best protocol of all layouts: every one is searched coarsely, and the best few finely."""
    coarse = [_coarse(layout, noise) for layout in layouts]
    coarse.sort(key=lambda found: found.score)
    return min((_fine(found, noise) for found in coarse[:kept]), key=lambda found: found.score)


def _objective(layout: Layout, noise: Noise) -> Callable[[Array], Array]:
    T = judged_at(layout.goal)
    return lambda numbers: precisions(layout.protocol(numbers), layout, noise, T)


def _coarse(layout: Layout, noise: Noise) -> Found:
    """Return the best start after one sweep, improved along each coordinate until no step helps."""
    sd_of, criterion = _objective(layout, noise), layout.goal.criterion
    starts = [np.clip(s, *layout.bounds.T) for s in layout.starts()]
    scored = sorted(((score_of(sd_of(s), criterion), k) for k, s in enumerate(starts)))
    found = [
        _descend(starts[k], layout.bounds, lambda x: _soft(sd_of(x), criterion), _STEPS[:2]) for _, k in scored[:2]
    ]
    numbers = min(found, key=lambda x: score_of(sd_of(x), criterion))
    return Found(layout, numbers, score_of(sd_of(numbers), criterion))


def _fine(found: Found, noise: Noise) -> Found:
    """Return a protocol improved along each coordinate in small steps, and by quadratic programming."""
    layout = found.layout
    sd_of, criterion = _objective(layout, noise), layout.goal.criterion
    numbers = _descend(found.numbers, layout.bounds, lambda x: _soft(sd_of(x), criterion), _STEPS[1:])
    for candidate in (_programmed(numbers, layout.bounds, sd_of, criterion),):
        if score_of(sd_of(candidate), criterion) < score_of(sd_of(numbers), criterion):
            numbers = candidate
    return Found(layout, numbers, score_of(sd_of(numbers), criterion))


def _soft(sd: Array, criterion: str) -> float:
    """Return the criterion, the worst one without a kink: coordinate steps stall at kinks."""
    if criterion != WORST:
        return float(sd.mean())
    worst = sd.max()
    return float(worst * np.mean((sd / worst) ** 16) ** (1 / 16))


def _descend(start: Array, bounds: Array, cost: Callable[[Array], float], steps: tuple[float, ...]) -> Array:
    """Return numbers that no step along a coordinate improves, for steps from coarse to fine."""
    x, least = start.copy(), cost(start)
    width = bounds[:, 1] - bounds[:, 0]
    for step in steps:
        for _ in range(12):
            before = least
            for k in range(x.size):
                for sign in (1.0, -1.0):
                    while True:
                        trial = x.copy()
                        trial[k] = np.clip(x[k] + sign * step * width[k], *bounds[k])
                        value = cost(trial) if trial[k] != x[k] else np.inf
                        if value >= least * (1 - 1e-6):
                            break
                        x, least = trial, value
            if least > before * (1 - 1e-3):
                break
    return x


def _programmed(start: Array, bounds: Array, sd_of: Callable[[Array], Array], criterion: str) -> Array:
    """Return numbers from sequential quadratic programming: minimise s with SD(T) ≤ s for each T, or the mean SD."""
    scale = score_of(sd_of(start), criterion)
    if criterion != WORST:
        result = minimize(
            lambda x: float(sd_of(x).mean() / scale), start, method="SLSQP", bounds=bounds, options={"maxiter": 60}
        )
        return np.asarray(np.clip(result.x, *bounds.T))
    s_bounds = np.vstack([bounds, [0.0, 2.0]])
    gradient = np.append(np.zeros(start.size), 1.0)
    result = minimize(
        lambda x: float(x[-1]),
        np.append(start, 1.0),
        jac=lambda x: gradient,
        method="SLSQP",
        bounds=s_bounds,
        constraints={"type": "ineq", "fun": lambda x: x[-1] - sd_of(x[:-1]) / scale},
        options={"maxiter": 60},
    )
    return np.asarray(np.clip(result.x[:-1], *bounds.T))
