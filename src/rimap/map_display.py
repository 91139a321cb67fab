"""How a map is shown: its colours, window and label follow from the role and the unit that its declaration gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.signals.base import AMPLITUDE, FIELD, TIME, Derived, Parameter, SignalModel
from rimap.signals.settings import unit_symbol

#: What a signal model declares a map with.
Quantity = Parameter | Derived

#: Kinds of maps that are no times.
RATE, FACTOR = "rate", "factor"
#: Units of relaxation rates.
RATE_UNITS = ("1/s", "1/ms")
#: The unit of a map in BIDS, and how many of it one unit of rimap is.
_FILE_UNITS = {"ms": ("s", 1e-3), "1/ms": ("1/s", 1e3), "a.u.": ("arbitrary", 1.0), "deg": ("degree", 1.0)}
#: A window ends at so many times the third quartile at the latest: contrast for tissue rather than for fluid.
HIGHEST_QUARTILES = 2.5


def quantities_of(model: SignalModel) -> list[Quantity]:
    """Return every map of a model: the main one first, then other times and rates, then factors and amplitudes."""
    found: list[Quantity] = [*model.parameters, *model.derived]
    order = {TIME: 1, RATE: 2, AMPLITUDE: 4}
    return sorted(found, key=lambda q: 0 if q == model.main else order.get(kind_of(q), 3))


def quantity(model: SignalModel, name: str) -> Quantity | None:
    """Return the declaration of the map `name`, `None` if the model has none."""
    found: list[Quantity] = [*model.parameters, *model.derived]
    return next((q for q in found if q.name == name), None)


def kind_of(q: Quantity) -> str:
    """Return what a map is: ``time``, ``rate``, ``amplitude`` or ``factor`` (anything else)."""
    if isinstance(q, Parameter) and q.role in (TIME, AMPLITUDE):
        return q.role
    if isinstance(q, Parameter) and q.role == FIELD and q.transform != "log":  # a delay of the scanner may be in ms too
        return FACTOR
    if q.unit == "ms":
        return TIME
    if q.unit in RATE_UNITS:
        return RATE
    return AMPLITUDE if q.unit == "a.u." else FACTOR


def is_relaxation(q: Quantity) -> bool:
    """Return whether a map is a relaxation time or rate: it is drawn in the recommended colours, on a logarithmic
    scale.
    """
    return kind_of(q) in (TIME, RATE)


def palette_of(q: Quantity) -> str:
    """Return the colours of a map: those of the ISMRM for times and rates, batlow for factors, grey for amplitudes."""
    if is_relaxation(q):
        return colours.of_relaxation((q.suffix or "").removesuffix("map") or q.name)
    return "grey" if kind_of(q) == AMPLITUDE else "batlow"


def name_of(q: Quantity) -> str:
    """Return the name of a map as people write it: ``T2*`` for T2star, which is a name in Python."""
    return shown_name(q.name)


def shown_name(name: str) -> str:
    """Return the name of a map, as files and Python have it, as people write it.

    >>> shown_name("T2star"), shown_name("B1")
    ('T2*', 'B1')
    """
    return re.sub("star$", "*", name)


def label_of(q: Quantity) -> str:
    """Return the name of a map with its unit.

    >>> label_of(Parameter("T1", "ms", (1, 5000), "time")), label_of(Parameter("B1", "1", (0.2, 2), "field"))
    ('T1 (ms)', 'B1')
    """
    unit = unit_symbol(q.unit)
    return f"{name_of(q)} ({unit})" if unit else name_of(q)


def window_of(q: Quantity, values: NDArray[Any]) -> tuple[float, float]:
    """Return the lowest and the highest value that the colours show, from the values of typical voxels."""
    finite = values[np.isfinite(values)]
    negative = bool((finite < 0).any())
    if not is_relaxation(q):
        from_zero = kind_of(q) == AMPLITUDE and not negative
        return colours.window(finite, low=0.0 if from_zero else None, upper=0.99 if from_zero else 0.98)
    low, high = colours.window(finite)
    if not finite.size:
        return low, high
    most = HIGHEST_QUARTILES * float(np.quantile(finite, 0.75))
    if 0 < most < high:
        high = colours.window(np.array([most]))[1]
    return low, min(high, q.bounds[1]) if isinstance(q, Parameter) else high


def file_unit(unit: str) -> tuple[str, float]:
    """Return the unit in which files have a map, and how many of it one unit of rimap is.

    >>> file_unit("ms")
    ('s', 0.001)
    """
    return _FILE_UNITS.get(unit, (unit, 1.0))


def as_stored(q: Quantity, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return values in the unit of rimap as they are read back from a file: figures of a run are then those of its
    maps.
    """
    _, scale = file_unit(q.unit)
    with np.errstate(over="ignore", invalid="ignore"):
        x = (np.asarray(values, dtype=float) * scale).astype(np.float32).astype(float)
        fits = (np.abs(x) > np.finfo(np.float32).tiny) & np.isfinite(x)
    return np.where(fits, x * (1 / scale), values)


def values_of(q: Quantity, model: SignalModel, maps: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return a map (*X) by its declaration; a derived one is computed if `maps` does not have it."""
    if q.name in maps or isinstance(q, Parameter):
        return np.asarray(maps[q.name])
    with np.errstate(all="ignore"):
        return np.asarray(
            q.formula(model, {parameter.name: maps[parameter.name] for parameter in model.parameters}), dtype=float
        )
