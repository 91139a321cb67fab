"""The search for the best protocol of a layout: coordinates in turn, then sequential quadratic programming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from rimap.likelihood import Noise
from rimap.planning.goal import WORST, Goal
from rimap.planning.polarity import wrong_answers
from rimap.planning.precision import relative_sd
from rimap.planning.protocols import Layout
from rimap.signals.base import SignalModel

Array = NDArray[np.float64]

#: Values of T at which a protocol is judged while it is searched.
POINTS = 13
#: The relative SD that counts for a value of T that a protocol does not determine.
UNDETERMINED = 1e3
#: So many protocols drawn at random are tried beside the regular starts, and so many of all are improved.
RANDOM_STARTS, DESCENDED = 48, 2
#: Steps along each coordinate, as a share of its range (on the scale of logarithms): from coarse to fine.
_STEPS = (0.1, 0.04, 0.015)
#: Values that an exchange tries for each number over its whole range.
_VALUES = 15


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
    """Return the relative SD (n,) at each T (n,) ms with all averages.

    It is `UNDETERMINED` if the protocol does not determine T.
    """
    if model is None:
        return np.full(T.shape, UNDETERMINED)
    deviation = expected_sd(model, noise, T, layout.goal, layout.averages)
    return np.asarray(np.minimum(np.nan_to_num(deviation, nan=UNDETERMINED), UNDETERMINED))


def expected_sd(model: SignalModel, noise: Noise, T: Array, goal: Goal, averages: float) -> Array:
    """Return the relative SD (K,) of an estimate: the bound, and what a lost polarity adds to it. NaN if T is not
    determined.
    """
    deviation = relative_sd(model, noise, T, goal) / np.sqrt(averages)
    added = wrong_answers(model, float(noise.sigma) / np.sqrt(averages), T, deviation, goal)
    return np.asarray(np.sqrt(deviation**2 + added))


def score_of(sd: Array, criterion: str) -> float:
    """Return the worst of the relative standard deviations (n,), or their mean."""
    return float(sd.max() if criterion == WORST else sd.mean())


def best(layouts: list[Layout], noise: Noise, *, kept: int = 3) -> Found:
    """Return the best protocol of all layouts: all are ranked by a few steps, and the best few are searched."""
    if len(layouts) > kept:
        rough = sorted(((_rough(layout, noise), k) for k, layout in enumerate(layouts)))
        layouts = [layouts[k] for _, k in rough[:kept]]
    coarse = sorted((_coarse(layout, noise) for layout in layouts), key=lambda found: found.score)
    return min((_fine(found, noise) for found in coarse[:2]), key=lambda found: found.score)


def _objective(layout: Layout, noise: Noise) -> Callable[[Array], Array]:
    T = judged_at(layout.goal)
    return lambda numbers: precisions(layout.protocol(numbers), layout, noise, T)


def _rough(layout: Layout, noise: Noise) -> float:
    """Return the criterion after a few steps from the best regular start: enough to rank numbers of images."""
    sd_of, criterion = _objective(layout, noise), layout.goal.criterion
    starts = [np.clip(start, *layout.bounds.T) for start in layout.starts()]
    start = min(starts, key=lambda s: score_of(sd_of(s), criterion))
    soft = lambda x: _soft(sd_of(x), criterion)  # noqa: E731
    return score_of(sd_of(_descend(start, layout.bounds, soft, _STEPS[:1], sweeps=4)), criterion)


def _coarse(layout: Layout, noise: Noise) -> Found:
    """Return the best start after one sweep, improved along each coordinate until no step helps."""
    sd_of, criterion = _objective(layout, noise), layout.goal.criterion
    starts = [np.clip(start, *layout.bounds.T) for start in layout.starts()]
    rng = np.random.default_rng(0)  # the same protocols are tried each time
    starts += list(rng.uniform(layout.bounds[:, 0], layout.bounds[:, 1], (RANDOM_STARTS, layout.size)))
    scored = sorted((score_of(sd_of(start), criterion), k) for k, start in enumerate(starts))
    soft = lambda x: _soft(sd_of(x), criterion)  # noqa: E731
    found = [
        _descend(_exchanged(starts[k], layout.bounds, soft), layout.bounds, soft, _STEPS[:1])
        for _, k in scored[:DESCENDED]
    ]
    numbers = min(found, key=lambda x: score_of(sd_of(x), criterion))
    return Found(layout, numbers, score_of(sd_of(numbers), criterion))


def _fine(found: Found, noise: Noise) -> Found:
    """Return a protocol improved along each coordinate in small steps, and by quadratic programming."""
    layout = found.layout
    sd_of, criterion = _objective(layout, noise), layout.goal.criterion
    numbers = _descend(found.numbers, layout.bounds, lambda x: _soft(sd_of(x), criterion), _STEPS)
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


def _exchanged(start: Array, bounds: Array, cost: Callable[[Array], float]) -> Array:
    """Return numbers each of which is the best of a few values over its whole range: images may change places."""
    x, least = start.copy(), cost(start)
    for _ in range(3):
        before = least
        for index in range(x.size):
            for value in np.linspace(bounds[index, 0], bounds[index, 1], _VALUES):
                trial = x.copy()
                trial[index] = value
                if (found := cost(trial)) < least:
                    x, least = trial, found
        if least > before * (1 - 1e-2):
            break
    return x


def _descend(
    start: Array, bounds: Array, cost: Callable[[Array], float], steps: tuple[float, ...], *, sweeps: int = 12
) -> Array:
    """Return numbers that no step along a coordinate improves, for steps from coarse to fine."""
    x, least = start.copy(), cost(start)
    width = bounds[:, 1] - bounds[:, 0]
    for step in steps:
        for _ in range(sweeps):
            before = least
            for index in range(x.size):
                for sign in (1.0, -1.0):
                    while True:
                        trial = x.copy()
                        trial[index] = np.clip(x[index] + sign * step * width[index], *bounds[index])
                        value = cost(trial) if trial[index] != x[index] else np.inf
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
