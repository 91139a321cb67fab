"""Protocols of a sequence as numbers that an optimiser may choose freely, and the scan time that each takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.planning.goal import Goal
from rimap.signals.base import SignalModel
from rimap.signals.settings import REPETITION_TIME, Setting, settings_of

Array = NDArray[np.float64]

MS_PER_MINUTE = 60_000.0
#: Angles are chosen in steps of this, degrees; times with three significant digits.
STEP_DEG = 0.1
#: Times that differ by less than this, relative, are chosen to be one.
ALIKE = 0.03


def cycles_ms(model: SignalModel, goal: Goal) -> Array:
    """Return the length of each cycle of a protocol, ms: (N,), or (1,) if one cycle acquires all images.

    Raises
    ------
    InputError
        If neither the protocol nor the goal has the length, and the images differ in another setting than a time.
    """
    known = getattr(model, REPETITION_TIME, None)
    count = 1 if goal.in_one_cycle else model.n_images
    if known is not None:
        return np.broadcast_to(np.asarray(known, dtype=float), (count,)).copy()
    if (length := goal.repetition_ms or goal.kind.cycle.length_ms) is not None:
        return np.full(count, length)
    last = model.times[-1:] * 0 + model.times.max() if goal.in_one_cycle else model.times
    if model.axis.unit != "ms":
        raise InputError(f"expected the length of a cycle of {goal.sequence} in ms (repetition_ms), got none.")
    return np.asarray(last + rest_ms(goal))


def rest_ms(goal: Goal) -> float:
    """Return the shortest time from the last image of a cycle to the next one, ms."""
    return max(goal.rest_ms, goal.kind.cycle.recovery * goal.T_ms[1])


def minutes_of(model: SignalModel, goal: Goal) -> float:
    """Return the scan time of a protocol, each image once."""
    return float(cycles_ms(model, goal).sum()) * goal.cycles_of_one_image / MS_PER_MINUTE


def shared_settings(goal: Goal) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that are not chosen, by name, and a note for each that the user did not give."""
    found = {name: value for name, value in goal.settings.items() if name not in goal.chosen}
    notes = []
    for s in settings_of(goal.kind).values():
        if s.name in goal.chosen or s.name in found or not s.required:
            continue
        if s.name in goal.kind.typical_protocol:
            found[s.name] = goal.kind.typical_protocol[s.name]
        else:
            low, high = s.drawn_from
            found[s.name] = float(f"{np.sqrt(low * high):.2g}")
        shown = ", ".join(s.text(float(v)) for v in np.ravel(found[s.name]))
        notes.append(f"{shown} was assumed for the {s.title} (--set {s.name}=…).")
    return found, notes


@dataclass(frozen=True)
class Layout:
    """How many images a protocol has, and how often it is averaged.

    Parameters
    ----------
    images
        Number of images.
    averages
        How often the whole protocol is scanned.
    budget_ms
        Sequence time for all cycles of one shot, averages included: scan time over shots.
    shared
        Settings that are not chosen.
    present
        The values of the present protocol along the axis, to start from as well.
    """

    goal: Goal
    images: int
    averages: int
    budget_ms: float
    shared: dict[str, Any]
    present: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers describe a protocol."""
        return self._of_axis + sum(self.images for _ in self._also)

    @property
    def _of_axis(self) -> int:
        goal = self.goal
        if not goal.in_one_cycle:
            return self.images
        return 1 if goal.axis.even or self.images == 1 else 2

    @property
    def _also(self) -> list[Setting]:
        settings = settings_of(self.goal.kind)
        return [settings[n] for n in self.goal.chosen if n not in (self.goal.axis.name, REPETITION_TIME)]

    @property
    def bounds(self) -> Array:
        """Lower and upper bounds of the logarithms of the numbers, (size, 2)."""
        low, high = self.goal.range_of_axis
        rows = [(low, high)] * self._of_axis
        rows += [s.plausible for s in self._also for _ in range(self.images)]
        return np.asarray(np.log(np.asarray(rows, dtype=float)))

    def starts(self) -> list[Array]:
        """Return numbers to start from, as logarithms: spread evenly and by ratios, over all or part of the range."""
        goal, N = self.goal, self.images
        low, high = goal.range_of_axis
        T_low, T_high = goal.T_ms
        also = [np.log(self._typical(s)) for s in self._also]
        if goal.in_one_cycle:
            typical = goal.kind.typical_protocol.get(goal.axis.name)
            if typical is not None and len(typical) == N:
                first = np.array([typical[0], (typical[-1] - typical[0]) / max(1, N - 1)])[: self._of_axis]
                return [np.concatenate([np.log(first), *also])]
            spacing = [max(low, k * T_high / N) for k in (0.5, 1.5, 3.0)]
            return [np.log(np.clip([low, s][-self._of_axis :], low, high)) for s in spacing]
        if goal.axis.unit != "ms":
            spreads = [np.linspace(low, high, N), np.geomspace(low, high, N)]
        else:
            ends = [min(high, max(2 * low, k * T_high)) for k in (1.0, 2.5)]
            spreads = [f(max(low, 0.02 * T_low), end, N) for end in ends for f in (np.geomspace, np.linspace)]
        if len(self.present) >= 2:  # with another number of images, values between its own
            at = np.linspace(0, len(self.present) - 1, N)
            spreads.append(np.interp(at, np.arange(len(self.present)), np.sort(self.present)))
        return [np.concatenate([np.log(np.clip(spread, low, high)), *also]) for spread in spreads]

    def _typical(self, s: Setting) -> Array:
        value = self.goal.kind.typical_protocol.get(s.name, np.sqrt(s.plausible[0] * s.plausible[1]))
        return np.broadcast_to(np.asarray(value, dtype=float), (self.images,))

    def settings(self, numbers: Sequence[float] | Array) -> dict[str, Any]:
        """Return the settings of a protocol from the free variables (V,), shortened until they fit the scan time."""
        goal, x = self.goal, np.exp(np.asarray(numbers, dtype=float))
        axis = self._axis(x[: self._of_axis])
        found: dict[str, Any] = {**self.shared, goal.axis.name: tuple(axis.tolist())}
        for index, s in enumerate(self._also):
            start = self._of_axis + index * self.images
            found[s.name] = tuple(x[start : start + self.images].tolist())
        if goal.chooses_repetition:
            share = self.budget_ms / self.averages
            recovery = (share - axis.sum()) / self.images
            found[REPETITION_TIME] = (
                share / self.images if goal.one_repetition_time else tuple((axis + recovery).tolist())
            )
        return found

    def _axis(self, x: Array) -> Array:
        goal, N, rest = self.goal, self.images, rest_ms(self.goal)
        low, high = goal.range_of_axis
        share = self.budget_ms / self.averages
        if goal.in_one_cycle:
            first = max(x[0], low)
            gap = x[0] if goal.axis.even else max(x[-1], low)
            last = first + gap * (N - 1)
            length = self._length()
            most = min(high, (share if length is None else length) - rest)
            if N > 1 and last > most:
                gap = first = (most / N) if goal.axis.even else first
                gap = gap if goal.axis.even else max((most - first) / (N - 1), low)
            return np.asarray(first + gap * np.arange(N))
        axis = np.clip(np.sort(x), low, high)
        if goal.axis.unit != "ms":
            return axis
        if self._length() is None and not (goal.chooses_repetition and goal.one_repetition_time):
            room = share - N * rest
            return np.asarray(np.maximum(axis * min(1.0, max(room, 0.0) / axis.sum()), low))
        length = share / N if goal.chooses_repetition else float(self._length() or np.inf)
        return np.minimum(axis, length - rest)

    def _length(self) -> float | None:
        """Return the length of a cycle if it is fixed, ms."""
        known = self.shared.get(REPETITION_TIME)
        if known is not None:
            return float(np.min(known))
        return self.goal.repetition_ms or self.goal.kind.cycle.length_ms

    def protocol(self, numbers: Sequence[float] | Array) -> SignalModel | None:
        """Return the protocol of the free variables (V,), or `None` if it is impossible or exceeds the scan time."""
        model = self._model(self.settings(numbers))
        return model if model is not None and self._fits(model) else None

    def _fits(self, model: SignalModel) -> bool:
        """Return whether all cycles and averages fit the scan time, and each image its cycle."""
        cycles = cycles_ms(model, self.goal)
        if self.averages * cycles.sum() > self.budget_ms * (1 + 1e-6):
            return False
        return model.axis.unit != "ms" or bool(
            (cycles >= model.times.max() + rest_ms(self.goal) - 1e-6).all()
            if self.goal.in_one_cycle
            else (cycles >= model.times + rest_ms(self.goal) - 1e-6).all()
        )

    def _model(self, settings: dict[str, Any]) -> SignalModel | None:
        try:
            return self.goal.kind(**settings)
        except InputError:
            return None

    def rounded(self, numbers: Sequence[float] | Array) -> SignalModel | None:
        """Return the protocol of the free variables (V,), rounded to numbers that one types at a scanner.

        The recovery has whole milliseconds. Numbers are rounded to the nearest, or upwards if the images of a cycle
        would otherwise overlap.
        """
        for how in (np.round, np.ceil):
            model = self._model(self._rounded_settings(numbers, how))
            if model is not None and self._fits(model):
                return model
        return None

    def _rounded_settings(self, numbers: Sequence[float] | Array, how: Callable[[float], float]) -> dict[str, Any]:
        goal, settings = self.goal, self.settings(numbers)
        for s in settings_of(goal.kind).values():
            if s.name not in goal.chosen or s.name == REPETITION_TIME:
                continue
            values = settings[s.name]
            if s.name == goal.axis.name and goal.in_one_cycle and self.images > 1:
                first, gap = (_round(v, s, how) for v in (values[0], float(np.diff(values).mean())))
                first = gap if s.even else first
                settings[s.name] = tuple(float(first + gap * index) for index in range(self.images))
                continue
            values = _grouped(values) if s.name == goal.axis.name else values
            settings[s.name] = tuple(_round(value, s, how) for value in values)
        if goal.chooses_repetition:
            share = self.budget_ms / self.averages
            axis = np.asarray(settings[goal.axis.name])
            recovery = np.floor((share - axis.sum()) / self.images)
            settings[REPETITION_TIME] = (
                float(np.floor(share / self.images)) if goal.one_repetition_time else tuple((axis + recovery).tolist())
            )
        return settings


def _grouped(values: Sequence[float]) -> Array:
    """Return sorted values, those that differ by less than `ALIKE` made one: images at about the same time are
    repeats.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    group = np.concatenate([[0], np.cumsum(np.diff(np.log(ordered)) > np.log1p(ALIKE))])
    means = np.exp(np.bincount(group, np.log(ordered)) / np.bincount(group))
    return np.asarray(means[group])


def _round(value: float, s: Setting, how: Callable[[float], float]) -> float:
    """Return a value in steps of `STEP_DEG`, or with three significant digits."""
    step = STEP_DEG if s.unit == "deg" else 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{how(value / step - 1e-9) * step:.6g}")


def layouts(goal: Goal, minutes: float, present: SignalModel | None = None) -> list[Layout]:
    """Return the numbers of images and of averages that are worth trying in a scan time.

    Raises
    ------
    InputError
        If no protocol fits.
    """
    shared, _ = shared_settings(goal)
    budget = minutes * MS_PER_MINUTE / goal.cycles_of_one_image
    fewest = _fewest(goal)
    length = shared.get(REPETITION_TIME) or goal.repetition_ms or goal.kind.cycle.length_ms
    rest = rest_ms(goal)
    typical = goal.kind.typical_protocol.get(goal.axis.name)
    if goal.images is not None and typical is not None and goal.images != len(typical):
        raise InputError(
            f"images: expected {len(typical)}, which every scan of {goal.sequence} has, got {goal.images}."
        )
    if goal.images is not None and goal.images < fewest:
        raise InputError(f"images: expected {fewest} or more for {fewest} unknowns in each voxel, got {goal.images}.")
    if goal.in_one_cycle:
        images = goal.images or (
            len(typical) if typical is not None else present.n_images if present is not None else 8
        )
        shortest = float(length) if length else goal.range_of_axis[0] * images + rest
        averages = [int(budget // float(length))] if length else range(1, min(int(budget // shortest), 6) + 1)
        found = [Layout(goal, images, average, budget, shared) for average in averages if average >= 1]
    else:
        shortest = float(np.min(length)) if length else goal.range_of_axis[0] + rest
        most = int(budget // shortest)
        counts = [goal.images] if goal.images else list(range(fewest, min(most, _MOST_IMAGES) + 1))
        found = []
        for count in counts:
            if count > most:
                continue
            if length:
                found.append(Layout(goal, count, most // count, budget, shared))
            else:
                found += [Layout(goal, count, index, budget, shared) for index in range(1, most // count + 1)][
                    :_MOST_AVERAGES
                ]
        shortest *= goal.images or fewest
    if present is not None:
        found = [replace(layout, present=tuple(present.times.tolist())) for layout in found]
    if not found:
        least = shortest * goal.cycles_of_one_image / MS_PER_MINUTE
        raise InputError(
            f"minutes: expected at least {least:.3g} min for {goal.images or fewest} images of "
            f"{goal.cycles_of_one_image} shots, got {minutes:.3g} min. Give more minutes, or fewer shots (--shots)."
        )
    return found


#: Protocols with more images than this, or averages, are not tried unless the user asks for them.
_MOST_IMAGES = 12
#: Averages of one image at most.
_MOST_AVERAGES = 6


def _fewest(goal: Goal) -> int:
    """Return the least number of images that determine all parameters."""
    field = goal.field
    unknown = [parameter for parameter in goal.kind.parameters if not parameter.given and parameter != field]
    return len(unknown) + (field is not None and goal.field_treatment != "given")
