"""Signal models with plausible settings, and parameters within their box, to check them with."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.signals.base import Setting, SignalModel, axis_of
from rimap.signals.settings import settings_of

#: Degrees between which flip angles are chosen if a model does not say more.
_ANGLES_DEG = (2.0, 40.0)


def example_models(model: type[SignalModel]) -> dict[str, SignalModel]:
    """Return instances of a signal model with plausible settings, by what is special about each.

    A class may have a classmethod ``examples()`` that returns them; otherwise they follow from its declarations: values
    within the plausible range of each setting, with and without each optional one, and with each flag.

    Raises
    ------
    InputError
        If the model refuses the values that its declarations call plausible.
    """
    own: Callable[[], Any] | None = getattr(model, "examples", None)
    if own is not None:
        return {f"example {i}" if i else "": m for i, m in enumerate(own())}
    n = max(8, len(model.parameters) + 4)
    axis, settings = axis_of(model), settings_of(model)
    spread = _axis_values(model, axis, n)
    try:
        found = {"": model(**(values := _required(settings, axis, spread)))}
    except InputError:  # the echoes of one train
        step = float(f"{spread[-1] / n:.2g}")
        even = tuple(step * (index + 1) for index in range(n))
        found = {"": model(**(values := _required(settings, axis, even)))}
    options: dict[str, dict[str, Any]] = {}
    for setting in settings.values():
        if not setting.required:
            for many in (False, True) if setting.per_image is None else (setting.per_image,):
                label = f"{setting.name}{' for each image' if many else ''}"
                options[label] = {setting.name: _spread(setting, values, n if many else 1)}
    options |= {field.name: {field.name: True} for field in dataclasses.fields(model) if field.default is False}
    refused = {}
    for label, more in options.items():
        try:
            found[label] = model(**values, **more)
        except InputError:
            refused[label] = more
    if refused:  # settings that need one another
        together = {name: value for more in refused.values() for name, value in more.items()}
        with contextlib.suppress(InputError):  # the classmethod `examples` would know better
            found[" and ".join(refused)] = model(**values, **together)
    return found


def _required(settings: dict[str, Setting], axis: Setting, along: tuple[float, ...]) -> dict[str, Any]:
    """Return values of the required settings, those of the axis being `along`."""
    values: dict[str, Any] = {axis.name: along}
    for setting in settings.values():
        if setting.name != axis.name and setting.required:
            values[setting.name] = _spread(setting, values, len(along) if setting.per_image else 1)
    return values


def _axis_values(model: type[SignalModel], axis: Setting, n: int) -> tuple[float, ...]:
    """Return n values along the axis: times around the relaxation time, angles, or the plausible range."""
    T = next(parameter for parameter in model.parameters if parameter.role == "time")
    low, high = axis.plausible
    if axis.unit == T.unit and T.start is not None:
        low, high = max(low, 0.03 * T.start), min(high, 3 * T.start)
    elif axis.unit == "deg":
        low, high = max(low, _ANGLES_DEG[0]), min(high, _ANGLES_DEG[1])
    else:
        low, high = low or 0.1, high if math.isfinite(high) else 10 * (low or 0.1)
    return _rounded(np.geomspace(low, high, n))


def _spread(s: Setting, values: dict[str, Any], n: int) -> float | tuple[float, ...]:
    """Return one plausible value of a setting, or n that differ."""
    low, high = s.plausible
    if s.longer_than:
        low = max(low, 1.2 * max(values[s.longer_than]))
    low = low or 0.1
    high = min(high, 4 * low) if s.longer_than or not math.isfinite(high) else high
    middle = math.sqrt(low * high)
    few = _rounded(np.geomspace(math.sqrt(low * middle), math.sqrt(middle * high), n)) if n > 1 else ()
    return few or _rounded(np.array([middle]))[0]


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.3g}") for value in values)


def draw(
    model: SignalModel, shape: tuple[int, ...], seed: int, *, inner: float = 0.3, even: bool = False
) -> NDArray[np.float64]:
    """Return maps κ (Q, *shape) that are drawn from the box of a model.

    They are uniform on the scale of each parameter's `transform`; an amplitude without an upper bound is around 1.

    Parameters
    ----------
    inner
        Share of the box that is left out at either end; 0 draws from all of it.
    even
        Whether fields are constant in space.
    """
    rng = np.random.default_rng(seed)
    maps = []
    for parameter in model.parameters:
        low, high = parameter.bounds
        u = inner + (1 - 2 * inner) * rng.random(shape)
        if even and parameter.role == "field":
            u = 0.6 + 0 * u
        if not math.isfinite(high):
            maps.append(max(low, 0.0) + 0.5 + u)
        elif parameter.transform == "log" or (low > 0 and high / low > 20):
            maps.append(low * (high / low) ** u)
        else:
            maps.append(low + (high - low) * u)
    return np.stack(maps)
