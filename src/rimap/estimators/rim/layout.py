"""Which parameters of a signal model a network carries, in which order, and what is known beside them.

A network sees roles: the amplitudes, the estimated field if there is one, and the time, in this order, whatever the
model calls them and however it orders κ. Parameters that the model takes as given are not carried: they are maps or
numbers by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rimap.arrays import Array, namespace
from rimap.errors import InputError
from rimap.signals.base import FIELD, Parameter, SignalModel

#: By name, what is known: numbers, or maps that broadcast against those of κ.
Known = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """The order of a network's channels for one signal model.

    Parameters
    ----------
    parameters
        Those of the model, in the order of κ (Q).
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        fields = [parameter.name for parameter in self.parameters if parameter.role == FIELD and not parameter.given]
        if len(fields) > 1:
            raise InputError(
                f"a network: expected one field at most, got {', '.join(fields)}. Give maps of the others."
            )

    @classmethod
    def of(cls, model: SignalModel | type[SignalModel]) -> Layout:
        """Return the layout of a model."""
        return cls(tuple(model.parameters))

    @cached_property
    def carried(self) -> tuple[Parameter, ...]:
        """The parameters that the network carries (P), in its order."""
        amplitudes = [parameter for parameter in self.parameters if parameter.amplitude]
        field = [parameter for parameter in self.parameters if parameter.role == FIELD and not parameter.given]
        return (*amplitudes, *field, self.time)

    @cached_property
    def time(self) -> Parameter:
        """The relaxation time."""
        return next(parameter for parameter in self.parameters if not parameter.amplitude and parameter.role != FIELD)

    @cached_property
    def n_amplitudes(self) -> int:
        """K, how many amplitudes there are: the first rows."""
        return sum(parameter.amplitude for parameter in self.parameters)

    @cached_property
    def field(self) -> Parameter | None:
        """The estimated field, the row before the last one."""
        return self.carried[-2] if len(self.carried) == self.n_amplitudes + 2 else None

    @cached_property
    def field_sd(self) -> float:
        """The standard deviation of the field over scans, in its `coordinate`; 1 without a field."""
        if self.field is None:
            return 1.0
        prior = self.field.in_a_scan
        return prior.deviation / (prior.middle if self.in_log_of_field else 1.0)

    @cached_property
    def typical_field(self) -> float:
        """The field where nothing determines it."""
        return 0.0 if self.field is None else self.field.in_a_scan.middle

    @property
    def in_log_of_field(self) -> bool:
        """Whether the field is estimated in its logarithm."""
        return self.field is not None and self.field.transform == "log"

    def coordinate(self, field: Array) -> Array:
        """Return the coordinate in which the field (any shape) is estimated: its logarithm, or the field itself."""
        if not self.in_log_of_field:
            return field
        return namespace(field).log(field + 0.0)

    def field_at(self, coordinate: Array) -> Array:
        """Return the field of a coordinate (any shape)."""
        if not self.in_log_of_field:
            return coordinate
        return namespace(coordinate).exp(coordinate)

    @cached_property
    def every(self) -> tuple[int, ...]:
        """The rows of all that is carried."""
        return tuple(range(len(self.carried)))

    @cached_property
    def without_field(self) -> tuple[int, ...]:
        """The rows that belong to a voxel alone: the amplitudes and the time."""
        return (*range(self.n_amplitudes), len(self.carried) - 1)

    @cached_property
    def known(self) -> tuple[Parameter, ...]:
        """The parameters that are given and not carried."""
        return tuple(parameter for parameter in self.parameters if parameter not in self.carried)

    @cached_property
    def _rows(self) -> tuple[int, ...]:
        return tuple(self.parameters.index(parameter) for parameter in self.carried)

    @cached_property
    def _as_in_model(self) -> bool:
        return self._rows == tuple(range(len(self.parameters)))

    def carried_of(self, kappa: Array) -> Array:
        """Return what the network carries (P, *X) of κ (Q, *X)."""
        return kappa if self._as_in_model else namespace(kappa).stack([kappa[row] for row in self._rows])

    def kappa_of(self, carried: Array, known: Known) -> Array:
        """Return κ (Q, *X) in the order of the model, from what is carried (P, *X) and what is known."""
        if self._as_in_model:
            return carried
        array_api, rows = namespace(carried), {parameter.name: carried[i] for i, parameter in enumerate(self.carried)}
        zero = 0 * carried[0]
        return array_api.stack(
            [
                rows[parameter.name] if parameter.name in rows else known[parameter.name] + zero
                for parameter in self.parameters
            ]
        )

    def known_of(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is known and not carried, by name, from all that is held.

        Raises
        ------
        InputError
            If a parameter that the model takes as given has neither a map nor a default.
        """
        missing = [parameter.name for parameter in self.known if parameter.name not in held]
        if missing:
            raise InputError(f"expected a map or a number for {', '.join(missing)}, got none: give it with given=….")
        return {parameter.name: held[parameter.name] for parameter in self.known}
