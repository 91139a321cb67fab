"""What a scanner was set to: a signal model declares each setting once, and everything else follows from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rimap.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: One number, or one for each image: anything that iterates over numbers; kept as a float or a tuple.
Values = float | Iterable[float]

_METADATA = "rimap.setting"
#: The setting that ``--tr-ms`` and ``tr_ms=`` are for, in every model that has one of this name.
REPETITION_TIME = "tr"
#: Sidecar fields with a repetition time of any kind: what differs in them is of another scan.
REPETITION_FIELDS = ("RepetitionTime", "RepetitionTimePreparation", "RepetitionTimeExcitation")
#: Sidecar fields in which BIDS takes an array of positive numbers; of others it takes one for a value of each volume.
WITH_ARRAYS = ("EchoTime", "FlipAngle")


@dataclass(frozen=True)
class Setting:
    """One setting of the scanner.

    Parameters
    ----------
    name
        The field of the model: ``tau``, ``flip_angle``.
    title, symbol
        What people read: ``inversion time``, ``TI``.
    unit
        ``ms``, ``deg`` or ``1``: the unit inside rimap, on the command line and in the report.
    bids
        The sidecar fields that have it, the preferred one first; () if BIDS has none.
    factor
        One unit of the sidecar in `unit`: 1000 for seconds and milliseconds.
    entity
        The BIDS entity that numbers the images which differ in it: ``inv``, ``echo``, ``flip``; "" if there is none.
    per_image
        Whether each image has a value of its own. `None`: one value, or one for each image.
    lengths
        Of a setting that all images share (`per_image` is `False`): how many values it may have. With other than (1,)
        it is kept as a tuple: (before, after).
    read_from
        Whose sidecar has it, where that is not the one of the image: ``inv-2_MP2RAGE`` is the file of the same scan
        with this entity and suffix. If there is no such file, the sidecar of the image counts.
    required
        Whether the model needs it.
    plausible
        The least and the greatest value that a scan has (in `unit`). What exceeds them was meant in another unit and is
        refused: if all values are below the first, if any is above the second.
    usual
        The range from which protocols are drawn to simulate scans and to train networks. The default is `plausible`.
    even
        Whether the values of the images are multiples of the first one (an echo train).
    one_excitation
        Whether the images along it are echoes of one excitation: nothing moves between them.
    longer_than
        The name of a setting that this one must exceed to be used (a TR that is shorter than the inversion time is
        the time between readouts).
    if_unknown
        What it means for the maps if an optional setting is not known, a clause for a warning.
    unknown_in_field
        Whether a field takes up what is missing if this setting is not known. It then follows the tissue and is not
        smooth.
    if_shorter
        What it means for the maps if it does not exceed it, a sentence for a note.
    """

    name: str
    title: str
    symbol: str
    unit: str
    bids: tuple[str, ...] = ()
    factor: float = 1.0
    entity: str = ""
    per_image: bool | None = True
    lengths: tuple[int, ...] = (1,)
    read_from: str = ""
    required: bool = True
    plausible: tuple[float, float] = (0.0, math.inf)
    usual: tuple[float, float] | None = None
    even: bool = False
    one_excitation: bool = False
    longer_than: str = ""
    if_unknown: str = ""
    unknown_in_field: bool = False
    if_shorter: str = ""

    @property
    def drawn_from(self) -> tuple[float, float]:
        """`usual`, or its default."""
        return self.usual or self.plausible

    def checked(self, values: ArrayLike) -> tuple[float, ...]:
        """Return the values as a tuple, in `unit`.

        Raises
        ------
        InputError
            If a value is not a number, negative or not finite, or if the values look like those of another unit.
        """
        try:
            numbers = tuple(float(v) for v in np.asarray(values, dtype=float).reshape(-1))
        except (TypeError, ValueError):
            raise InputError(f"{self.name}: expected numbers in {self.unit}, got {values!r}.") from None
        for number in numbers:
            if not math.isfinite(number) or number < 0:
                raise InputError(
                    f"{self.name}: expected numbers in {self.unit}, finite and not negative, got {number:g}. Check the "
                    f"sidecars "
                    "or the command line."
                )
        self.refuse_other_unit(numbers, self.name)
        return numbers

    def text(self, value: float) -> str:
        """Return a value for people, with symbol and unit.

        >>> Setting("flip_angle", "flip angle", "FA", "deg").text(5.0)
        'FA 5°'
        """
        return f"{self.symbol} {with_unit(value, self.unit)}"

    @property
    def sidecar_field(self) -> str:
        """The field that rimap writes: the preferred one of BIDS, or the name in its style (``slice_ratio``:
        SliceRatio).
        """
        return self.bids[0] if self.bids else "".join(word[:1].upper() + word[1:] for word in self.name.split("_"))

    @property
    def sidecar_fields(self) -> tuple[str, ...]:
        """The fields that are read, the preferred one first."""
        return self.bids or (self.sidecar_field,)

    def in_sidecar(self, value: float) -> float:
        """Return a value in the unit of the sidecar.

        >>> Setting("te", "echo time", "TE", "ms", factor=1000.0).in_sidecar(139.0)
        0.139
        """
        return float(f"{value / self.factor:.12g}")

    def from_sidecar(self, value: float) -> float:
        """Return a value of a sidecar in `unit`, without the rounding of the product (0.139 s are 139 ms)."""
        return float(f"{value * self.factor:.12g}")

    def refuse_other_unit(self, values: Iterable[float], given_as: str) -> None:
        """Refuse values that must have been meant in the unit of the sidecar (seconds for milliseconds).

        Parameters
        ----------
        given_as
            What they are called where they were given: ``--times-ms``, ``tau``.

        Raises
        ------
        InputError
            With the same values in `unit`.
        """
        numbers = list(values)
        if self.factor == 1.0 or not numbers or not 0 < max(numbers) < self.plausible[0]:
            return
        converted = [f"{number * self.factor:g}" for number in numbers[:3]] + ["…"] * (len(numbers) > 3)
        if given_as.startswith("--set "):
            remedy = f"{given_as}={','.join(converted)}"
        elif given_as.startswith("-"):
            remedy = f"{given_as} {' '.join(converted)}"
        else:
            remedy = f"{given_as}=[{', '.join(converted)}]"
        raise InputError(
            f"{given_as}: expected the {self.title} in {self.unit}, got at most {max(numbers):g} {self.unit}, which is "
            f"too short. If these are seconds, give milliseconds: {remedy}."
        )


def unit_symbol(unit: str) -> str:
    """Return how people write a unit: ``°`` for ``deg``, nothing for ``1``."""
    return {"1": "", "deg": "°"}.get(unit, unit)


def with_unit(value: float, unit: str) -> str:
    """Return a number with its unit, without digits that say nothing.

    >>> with_unit(150.0, "ms"), with_unit(5.0, "deg"), with_unit(0.96, "1")
    ('150 ms', '5°', '0.96')
    """
    symbol = unit_symbol(unit)
    return f"{value:.6g}" + ("" if symbol in ("", "°") else " ") + symbol


def setting(
    title: str,
    symbol: str,
    unit: str = "ms",
    *,
    default: Any = dataclasses.MISSING,
    bids: str | tuple[str, ...] = (),
    factor: float | None = None,
    **options: Any,
) -> Any:
    """Declare a field of a signal model as a setting; the parameters are those of `Setting`.

    A field without `default` is required. `factor` is 1000 for ms (BIDS has seconds) and 1 for other units.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Scan:
    ...     te: tuple[float, ...] = setting("echo time", "TE", bids="EchoTime", entity="echo", plausible=(1, 5000))
    >>> settings_of(Scan)["te"].unit
    'ms'
    """
    if factor is None:
        factor = 1000.0 if unit == "ms" else 1.0
    declared = Setting(
        name="",
        title=title,
        symbol=symbol,
        unit=unit,
        bids=(bids,) if isinstance(bids, str) else tuple(bids),
        factor=factor,
        required=default is dataclasses.MISSING,
        **options,
    )
    return field(default=default, metadata={_METADATA: declared})


def settings_of(model: DataclassInstance | type[DataclassInstance]) -> dict[str, Setting]:
    """Return the settings that a signal model (class or object) declares, by name, in the order of its fields."""
    return {
        field.name: dataclasses.replace(field.metadata[_METADATA], name=field.name)
        for field in dataclasses.fields(model)
        if _METADATA in field.metadata
    }
