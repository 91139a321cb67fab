"""The best protocol for a goal, compared with the present protocol of the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.likelihood import Noise
from rimap.planning.goal import Goal
from rimap.planning.precision import brightest, relative_sd
from rimap.planning.protocols import Layout, cycles_ms, layouts, minutes_of, shared_settings
from rimap.planning.search import best, expected_sd, judged_at, precisions, score_of
from rimap.signals.base import SignalModel
from rimap.signals.model_checks import refuse_contradictions_of_others
from rimap.signals.settings import settings_of

Array = NDArray[np.float64]

#: Values of T at which a finished protocol is judged, inside the range and in curves.
_JUDGED, _CURVE = 41, 121
#: A relative standard deviation beyond this is no measurement.
USELESS = 1.0
#: Curves reach so far beyond the range of T, as a factor.
_BEYOND = 4.0


@dataclass(frozen=True, eq=False)
class Protocol:
    """A protocol with the precision that it allows in the scan time of a design.

    Parameters
    ----------
    model
        The settings of all images.
    averages
        How often it is scanned; not whole for the present protocol, which is compared at equal scan time.
    minutes
        Scan time of one pass.
    cycles_ms
        Length of each cycle: one for each image, or one for all.
    sigma
        Standard deviation of the noise of one image, relative to the amplitude.
    """

    goal: Goal
    model: SignalModel
    averages: float
    minutes: float
    cycles_ms: Array
    sigma: float

    @property
    def noise(self) -> Noise:
        """The noise of an image that is not averaged."""
        return self.goal.noise_kind(self.sigma)

    def sd(self, T: Array) -> Array:
        """Return the relative standard deviation at the values T (K,) of the main map; NaN where it is not
        determined.
        """
        return np.asarray(relative_sd(self.model, self.noise, T, self.goal) / np.sqrt(self.averages))

    def expected_sd(self, T: Array) -> Array:
        """Return the relative standard deviations at T (n,) ms, with the error that a wrong polarity adds.

        The Cramér-Rao bound `sd` does not include the polarity of magnitude images.
        """
        return expected_sd(self.model, self.noise, T, self.goal, self.averages)

    @cached_property
    def in_range(self) -> Array:
        """The relative SD over the range of T; infinite where the protocol does not determine it."""
        return np.nan_to_num(self.sd(judged_at(self.goal, _JUDGED)), nan=np.inf)

    @property
    def worst(self) -> float:
        """The largest relative SD over the range."""
        return float(self.in_range.max())

    @property
    def mean(self) -> float:
        """The mean relative SD over the range."""
        return float(self.in_range.mean())

    @property
    def snr(self) -> float:
        """The signal-to-noise ratio of its brightest image at the middle of the range, not averaged."""
        return brightest(self.model, middle(self.goal), self.goal) / self.sigma


@dataclass(frozen=True, eq=False)
class Design:
    """The best protocol, and the present one if there is one.

    Parameters
    ----------
    minutes
        The scan time for which both are compared.
    notes
        What was assumed, for people.
    """

    goal: Goal
    best: Protocol
    present: Protocol | None
    minutes: float
    notes: tuple[str, ...]

    @property
    def T_ms(self) -> Array:
        """Values of T for curves (121,): the range, and as far beyond it as the box of the parameter allows."""
        low, high = self.goal.T_ms
        least, most = self.goal.time.bounds
        return np.geomspace(max(low / _BEYOND, least), min(high * _BEYOND, most), _CURVE)

    @property
    def gain(self) -> float | None:
        """By what the worst relative SD of the present protocol exceeds that of the best one, as a factor."""
        return None if self.present is None else self.present.worst / self.best.worst


def middle(goal: Goal) -> float:
    """Return the middle of the range of T on a logarithmic scale, ms."""
    return float(np.sqrt(goal.T_ms[0] * goal.T_ms[1]))


def design(goal: Goal, present: SignalModel | None = None) -> Design:
    """Return the protocol whose worst (or mean) relative Cramér-Rao SD over the range of T is smallest in the scan
    time.

    Parameters
    ----------
    goal
        What to measure, and under which conditions.
    present
        The protocol that is used now: a signal model with its settings, such as `rimap.read(…).model`. It is compared
        at the same scan time, as if it were averaged to fill it.

    Raises
    ------
    InputError
        If no protocol fits the scan time, or the present protocol is of another sequence.

    Examples
    --------
    >>> import rimap
    >>> goal = rimap.Goal(sequence="t2", T_ms=(80, 80), minutes=5, images=2, separate=True, repetition_ms=2000)
    >>> found = rimap.design(goal)
    >>> found.best.model.n_images
    2
    """
    if present is not None and present.name != goal.sequence:
        raise InputError(f"present: expected a protocol of {goal.sequence}, got one of {present.name}.")
    _, notes = shared_settings(goal)
    now = None if present is None else minutes_of(present, goal)
    minutes = goal.minutes or now
    if minutes is None:
        raise InputError("minutes: expected a scan time, or a present protocol whose scan time counts, got neither.")
    goal = replace(goal, minutes=minutes)
    tried = layouts(goal, minutes, present)
    sigma = _sigma(goal, tried)
    noise = goal.noise_kind(sigma)
    found = best(tried, noise)
    if found.score > USELESS:
        raise InputError(
            f"{goal.time.name}: expected a protocol of {goal.sequence} that measures {goal.T_ms[0]:g} to "
            f"{goal.T_ms[1]:g} ms in {minutes:.3g} min, found none. Give more minutes, more images, fewer shots, other "
            f"limits, or a narrower range."
        )
    chosen = _rounded(found.layout, found.numbers, noise)
    mine = Protocol(goal, chosen, found.layout.averages, minutes_of(chosen, goal), cycles_ms(chosen, goal), sigma)
    theirs = None
    if present is not None and now is not None:
        theirs = Protocol(goal, present, minutes / now, now, cycles_ms(present, goal), sigma)
    return Design(goal, mine, theirs, minutes, tuple(notes))


def _sigma(goal: Goal, tried: list[Layout]) -> float:
    """Return σ over the amplitude for the SNR of the goal: of the brightest image that the sequence can give."""
    T = middle(goal)
    layout = max(tried, key=lambda found: found.images)
    models = [model for start in layout.starts() if (model := layout.protocol(start)) is not None]
    for model in models[:1]:
        refuse_contradictions_of_others(model)
    low, high = goal.range_of_axis
    if not goal.in_one_cycle:
        shared = {key: value for key, value in layout.shared.items() if key in settings_of(goal.kind)}
        if (repetition := goal.repetition) is not None and repetition.longer_than:  # brightest after complete recovery
            shared.pop(repetition.name, None)
        models.append(goal.kind(**{**shared, goal.axis.name: tuple(np.geomspace(low, high, 64))}))
    largest = max((brightest(model, T, goal) for model in models), default=0.0)
    if not largest > 0:
        raise InputError(
            f"expected a protocol of {goal.sequence} whose images fit the limits and the length of a cycle, got none. "
            "Give fewer images, other limits, or a longer cycle (--tr-ms)."
        )
    return largest / goal.snr


def _rounded(layout: Layout, numbers: Array, noise: Noise) -> SignalModel:
    """Return the protocol with round numbers, unless they cost more than a percent of precision."""
    exact, round_ = layout.protocol(numbers), layout.rounded(numbers)
    assert exact is not None
    if round_ is None:
        return exact
    T, goal = judged_at(layout.goal, _JUDGED), layout.goal
    scores = [score_of(precisions(m, layout, noise, T), goal.criterion) for m in (exact, round_)]
    return round_ if scores[1] <= 1.01 * scores[0] else exact
