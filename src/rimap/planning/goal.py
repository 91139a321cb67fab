"""What a protocol is planned for: the sequence, the range of T, the scan time, and what is known of the scan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rimap.allowed_numbers import COUNT, Allowed
from rimap.errors import InputError, did_you_mean, one_of
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.signals import signal_models
from rimap.signals.base import FREE, GIVEN, SMOOTH, Parameter, SignalModel, axis_of
from rimap.signals.settings import REPETITION_TIME, Setting, settings_of, with_unit

#: What is minimised over the range of T: the largest relative SD, or the mean.
WORST, MEAN = "worst", "mean"
#: Kinds of noise by name.
NOISES: Mapping[str, type[Noise]] = {kind.name: kind for kind in (Gaussian, Rician)}
#: The shortest time from the last image of a cycle to the next cycle (readout and spoiling), ms.
SHORTEST_REST_MS = 50.0
#: Scan times beyond a day were meant in another unit.
LONGEST_MINUTES = 24 * 60.0
#: A range of T that ends below this share of the start that the model declares was meant in seconds.
LEAST_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a protocol shall measure, and under which conditions.

    Parameters
    ----------
    sequence
        Name of a signal model.
    T_ms
        Range (low, high) of the relaxation time of the main map, ms.
    minutes
        Scan time. `None`: that of the present protocol.
    snr
        Signal-to-noise ratio of the brightest image that the sequence can give, at the middle of the range, without
        averaging.
    images
        Number of images, including averages. `None`: the number that is best.
    shots
        Cycles that one image takes; those of a usual scan if left out (`Cycle.shots`).
    criterion
        ``worst`` or ``mean``: which relative standard deviation over the range is made as small as possible.
    treatment
        How the field (B, B1) is treated: ``free``, ``smooth`` or ``given``; as the model declares it if left out.
    noise
        ``gaussian`` or ``rician``.
    settings
        Settings of the scanner that are not chosen, by name, in their unit.
    assumed
        Values of fields that are not the typical ones, by name.
    limits
        Shortest and longest time (smallest and largest flip angle) that may be chosen; the usual range if left out. In
        a train, the first one is the shortest spacing as well.
    repetition_ms
        Length of a cycle, for models that have no setting for it.
    rest_ms
        Shortest time from the last image of a cycle to the next cycle, ms.
    one_repetition_time
        Whether all images share one repetition time. If not, each image has its time and the same recovery after it.
    separate
        Whether images that could be echoes of one excitation are scans of their own.

    Raises
    ------
    InputError
        For a sequence that does not exist, or values out of range.

    Examples
    --------
    >>> Goal(sequence="ir", T_ms=(600, 1600), minutes=5).time.name
    'T1'
    """

    sequence: str
    T_ms: tuple[float, float]
    minutes: float | None = None
    snr: float = 50.0
    images: int | None = None
    shots: int | None = None
    criterion: str = WORST
    treatment: str | None = None
    noise: str = Gaussian.name
    settings: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    repetition_ms: float | None = None
    rest_ms: float = SHORTEST_REST_MS
    one_repetition_time: bool = False
    separate: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sequence", one_of(self.sequence, sorted(signal_models()), "sequence"))
        if not any(parameter.amplitude for parameter in self.kind.parameters):
            raise InputError(
                f"sequence: expected a sequence whose images have an amplitude, got {self.sequence}, whose noise "
                f"depends on the "
                "images that it is made of. Design that scan instead."
            )
        object.__setattr__(self, "T_ms", self._checked_range())
        self._check_numbers()
        one_of(self.criterion, (WORST, MEAN), "criterion")
        one_of(self.noise, tuple(NOISES), "noise")
        if self.treatment is not None:
            self._check_treatment()
        if self.limits is not None:
            self._check_limits(*self._pair("limits", self.limits))
        self._check_names()

    @staticmethod
    def _pair(name: str, values: Any) -> tuple[float, float]:
        try:
            low, high = (float(value) for value in values)
        except (TypeError, ValueError):
            raise InputError(f"{name}: expected two numbers (low, high), got {values!r}.") from None
        return low, high

    def _checked_range(self) -> tuple[float, float]:
        low, high = self._pair("T", self.T_ms)
        if not (math.isfinite(high) and 0 < low <= high):
            raise InputError(f"T: expected a range LOW-HIGH above 0 in ms, got {low:g}-{high:g}.")
        if high < LEAST_SHARE * float(self.time.start or 0.0):
            raise InputError(
                f"T: expected a range in ms, got at most {high:g} ms, which is too short for {self.time.name}. If "
                f"these are seconds, give milliseconds: {1000 * low:g}-{1000 * high:g}."
            )
        return low, high

    def _check_numbers(self) -> None:
        for name, value, most in (
            ("minutes", self.minutes, LONGEST_MINUTES),
            ("snr", self.snr, 1e6),
            ("repetition_ms", self.repetition_ms, 1e6),
            ("rest_ms", self.rest_ms, 1e6),
        ):
            if value is not None and not Allowed(0.0, most, without_least=True).has(value):
                raise InputError(f"{name}: expected a number above 0 and up to {most:g}, got {_shown(value)}.")
        for name, count in (("images", self.images), ("shots", self.shots)):
            if count is not None and not (COUNT.has(count) and count == int(count)):
                raise InputError(f"{name}: expected a whole number above 0, got {count!r}.")

    def _check_limits(self, low: float, high: float) -> None:
        if not 0 < low < high:
            raise InputError(f"limits: expected LOW,HIGH above 0, got {low:g},{high:g}.")
        least, most = self.axis.plausible
        if not (least <= high and low <= most):
            raise InputError(
                f"limits: expected values of the {self.axis.title} between {with_unit(least, self.axis.unit)} and "
                f"{with_unit(most, self.axis.unit)}, got {low:g},{high:g}."
            )

    def _check_names(self) -> None:
        """Check the names of parameters that are assumed and of settings, and the values of the former."""
        fields = [
            parameter.name for parameter in self.kind.parameters if not parameter.amplitude and parameter.role != "time"
        ]
        for name in self.assumed:
            if name not in fields:
                raise InputError(f"assumed: expected one of {', '.join(fields) or 'none'}, got {name!r}.")
        bounds = {parameter.name: parameter.bounds for parameter in self.kind.parameters}
        for name, value in self.assumed.items():
            if not Allowed(*bounds[name]).has(value):
                raise InputError(
                    f"assumed: expected {name} between {bounds[name][0]:g} and {bounds[name][1]:g}, got "
                    f"{_shown(value)}."
                )
        for name in self.settings:
            known = list(settings_of(self.kind))
            if name not in known and name not in self.kind.__dataclass_fields__:
                raise InputError(
                    f"settings: expected some of {', '.join(known)}, got {name!r}.{did_you_mean(name, known)}"
                )

    def _check_treatment(self) -> None:
        one_of(str(self.treatment), (FREE, SMOOTH, GIVEN), "field")
        if self.field is None:
            raise InputError(f"field: {self.sequence} has no field. Leave it out.")

    @cached_property
    def kind(self) -> type[SignalModel]:
        """The signal model."""
        return signal_models()[self.sequence]

    @cached_property
    def noise_kind(self) -> type[Noise]:
        """The distribution of the noise."""
        return NOISES[self.noise]

    @cached_property
    def axis(self) -> Setting:
        """The setting along which the images differ."""
        return axis_of(self.kind)

    @cached_property
    def time(self) -> Parameter:
        """The relaxation time that is estimated."""
        return next(parameter for parameter in self.kind.parameters if parameter.role == "time")

    @cached_property
    def field(self) -> Parameter | None:
        """The field whose treatment matters: one that is estimated, else one that is given."""
        fields = [parameter for parameter in self.kind.parameters if parameter.role == "field"]
        return next((field for field in fields if not field.given), fields[0] if fields else None)

    @cached_property
    def field_treatment(self) -> str:
        """How the field is treated; "" if the sequence has none."""
        return "" if self.field is None else self.treatment or self.field.treatment

    @cached_property
    def cycles_of_one_image(self) -> int:
        """How many cycles one image takes."""
        return self.shots or self.kind.cycle.shots

    @cached_property
    def range_of_axis(self) -> tuple[float, float]:
        """The smallest and the largest value that may be chosen."""
        return self.limits or self.axis.drawn_from

    @cached_property
    def in_one_cycle(self) -> bool:
        """Whether one cycle reads all images."""
        return self.kind.cycle.all_images and not (self.separate and self.axis.one_excitation)

    @cached_property
    def repetition(self) -> Setting | None:
        """The setting that is the length of a cycle, `None` if the model has none."""
        return settings_of(self.kind).get(REPETITION_TIME)

    @cached_property
    def chooses_repetition(self) -> bool:
        """Whether the length of the cycles is chosen: it is a recovery after the image, and the user does not fix
        it.
        """
        found = self.repetition
        return found is not None and found.longer_than == self.axis.name and found.name not in self.settings

    @cached_property
    def chosen(self) -> tuple[str, ...]:
        """The names of the settings that are chosen."""
        also = tuple(name for name in self.kind.cycle.also_chosen if name not in self.settings)
        return (self.axis.name, *also, *((REPETITION_TIME,) if self.chooses_repetition else ()))


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else repr(value)
