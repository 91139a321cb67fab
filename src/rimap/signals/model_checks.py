"""What is checked of a signal model of another package before its images are mapped: its declarations, and its shape.

A model that contradicts itself gives maps that look right. `rimap.testing` checks more, for those who write a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.signals.base import FIELD, TIME, Parameter, SignalModel
from rimap.signals.model_options import knows_polarity
from rimap.signals.settings import settings_of

Maps = dict[str, NDArray[np.float64]]

#: Names and suffixes of maps are parts of file names.
_PART = re.compile(r"[A-Za-z0-9]+")
#: So many voxels within the box are tried, on the scale of each parameter, between these shares of its box.
_TRIED, _INNER = 8, (0.05, 0.95)
#: Step of a finite difference as a share of the box, or of the time.
_STEP = 1e-5
#: A derivative may deviate from finite differences by this share of the largest one, and of the signal (rounding).
_OF_SLOPE, _OF_SIGNAL = 1e-3, 1e-9
#: Two calls with the same values differ by at most this share of the largest signal.
_SAME = 1e-9
#: Values that are below zero by more than this share of the largest signal are no rounding.
_BELOW_ZERO = 1e-6


def fault_of_declarations(model: type[SignalModel]) -> str:
    """Return what every command needs of a signal model and this one lacks, "" if nothing."""
    parameters = getattr(model, "parameters", None)
    if not isinstance(parameters, tuple) or not all(isinstance(parameter, Parameter) for parameter in parameters):
        return f"expected a tuple of Parameter as its parameters, got {parameters!r}"
    names, roles = [parameter.name for parameter in parameters], [parameter.role for parameter in parameters]
    maps = [*parameters, *model.derived]
    if len({map_.name for map_ in maps}) < len(maps):
        return f"expected a name of its own for each parameter, got {', '.join(map_.name for map_ in maps)}"
    if roles.count(TIME) != 1:
        return f"expected one parameter with the role time, got {', '.join(roles) or 'none'}"
    estimated = [parameter.name for parameter in parameters if parameter.role == FIELD and not parameter.given]
    if len(estimated) > 1:
        return f"expected one field to estimate, the others given, got {', '.join(estimated)}"
    if not any(s.per_image for s in settings_of(model).values()):
        return "expected a setting with a value for each image (is @dataclass(frozen=True) missing?)"
    if set(model.name) & set("/\\"):
        return f"expected a name without / and \\, got {model.name!r}"
    if model.changes_sign and not knows_polarity(model):
        return "expected a field signed: bool = False, because changes_sign is True"
    suffixes = [suffix for map_ in maps if (suffix := map_.suffix)]
    if wrong := next((part for part in (*names, *suffixes) if not _PART.fullmatch(part)), ""):
        return f"expected letters and digits in the names and suffixes of maps, got {wrong!r}"
    if len(set(suffixes)) < len(suffixes):
        return f"expected a suffix of its own for each map, got {', '.join(suffixes)}"
    return next(filter(None, map(_fault_of_box, parameters)), "")


def _fault_of_box(parameter: Parameter) -> str:
    low, high = parameter.bounds
    if parameter.role == TIME and not (low > 0 and np.isfinite(high)):
        return f"expected bounds of {parameter.name} that are positive and finite, got {parameter.bounds}"
    if parameter.role == FIELD and not np.isfinite((low, high)).all():
        return f"expected finite bounds of {parameter.name}, got {parameter.bounds}"
    if parameter.start is not None and not low <= parameter.start <= high:
        return f"expected a start of {parameter.name} within its bounds {parameter.bounds}, got {parameter.start:g}"
    return ""


def refuse_contradictions_of_others(model: SignalModel) -> None:
    """Refuse a model of another package that contradicts itself: the tests of rimap check its own.

    Raises
    ------
    InputError
        With the first contradiction.
    """
    if not type(model).__module__.startswith("rimap."):
        refuse_contradictions(model)


@lru_cache(maxsize=64)
def refuse_contradictions(model: SignalModel) -> None:
    """Refuse a model whose declarations are incomplete, or whose shape, derivatives and signal contradict each other.

    Raises
    ------
    InputError
        With the first contradiction.
    """
    problem = fault_of_declarations(type(model)) or _fault_of_values(model)
    if problem:
        raise InputError(
            f"signal model {model.name}: {problem}. rimap.testing.check_signal_model shows all its faults."
        )


def _fault_of_values(model: SignalModel) -> str:
    """Return how shape, derivatives and signal contradict each other, "" if they do not."""
    inside = _voxels(model)
    steps = (
        ("shape", "gets arrays (*X) by name and returns (N, *X)", _fault_of_shape),
        ("shape_partials", "returns a derivative (N, *X) for each argument of shape, by name", _fault_of_partials),
        ("signal", "returns the images (N, *X) of the maps (Q, *X)", _fault_of_signal),
    )
    for name, contract, fault in steps:
        try:
            with np.errstate(all="ignore"):
                problem = fault(model, inside)
        except Exception as error:  # it may raise anything
            said = " ".join(str(error).split())
            return f"its {name} raised {type(error).__name__}: {said}. It {contract}"
        if problem:
            return problem
    return ""


def _voxels(model: SignalModel) -> Maps:
    """Return values within the box, for each argument of the shape."""
    rng = np.random.default_rng(0)
    found = {}
    for parameter in model.nonlinear:
        (low, high), u = parameter.bounds, rng.uniform(*_INNER, _TRIED)
        found[parameter.name] = low * (high / low) ** u if parameter.role == TIME else low + (high - low) * u
    return found


def _fault_of_shape(model: SignalModel, inside: Maps) -> str:
    given = {name: values.copy() for name, values in inside.items()}
    g = model.shape(**given)
    if any((given[name] != values).any() for name, values in inside.items()):
        return "its shape changes the arrays that it gets. Return new ones"
    again, some = model.shape(**inside), model.shape(**{name: v[:4].reshape(2, 2) for name, v in inside.items()})
    if not all(isinstance(found, np.ndarray) for found in (g, again, some)):
        return f"expected a NumPy array from its shape, got {type(g).__name__}"
    ends = np.asarray(model.shape(**{p.name: np.array(p.bounds, float) for p in model.nonlinear}))
    if g.dtype.kind != "f":
        return f"expected real numbers from its shape, got {g.dtype}"
    K = len(model.amplitudes)
    leading = (model.n_images, K) if K > 1 else (model.n_images,)
    for X, found in (((_TRIED,), g), ((2, 2), some), ((2,), ends)):
        if found.shape != (*leading, *X):
            axes = "(N, K, *X), a column for each of the K amplitudes" if K > 1 else "(N, *X)"
            return f"expected {(*leading, *X)} from its shape for arrays of {X}, got {found.shape}. It returns {axes}"
    size = float(abs(g).max())
    if not (np.isfinite(size) and np.isfinite(ends).all()):
        box = ", ".join(f"{p.name} {p.bounds[0]:g} to {p.bounds[1]:g}" for p in model.nonlinear)
        return f"its shape is not finite everywhere within its bounds ({box}). Change the bounds or the shape"
    if size == 0:
        return "its shape is zero everywhere"
    if (abs(again - g) > _SAME * size).any():
        return "two calls of its shape with the same values give different signals"
    if (abs(some - g[..., :4].reshape(some.shape)) > _SAME * size).any():
        return "its shape in a voxel depends on the other voxels"
    return _fault_of_sign(model, inside) if K == 1 and model.amplitudes[0].bounds[0] >= 0 else ""


def _fault_of_sign(model: SignalModel, inside: Maps) -> str:
    """Return that the shape is negative around the starts although the model does not declare it, "" if it is not.

    In corners of the box, whose values no tissue has together (T2 > T1), it may be.
    """
    usual = {p.name: np.full(_TRIED, p.start) for p in model.nonlinear if p.start is not None}
    time = model.time
    usual[time.name] = np.clip(usual[time.name] * np.geomspace(0.5, 2.0, _TRIED), *time.bounds)
    g = model.shape(**inside | usual)
    if model.changes_sign or g.min() >= -_BELOW_ZERO * abs(g).max():
        return ""
    return (
        "its shape is negative in some images, which it does not declare. Declare changes_sign = True and a field "
        "signed: bool = False"
    )


def _fault_of_partials(model: SignalModel, inside: Maps) -> str:
    slopes = model.shape_partials(**inside)
    if not isinstance(slopes, Mapping) or set(slopes) != set(inside):
        got = ", ".join(slopes) if isinstance(slopes, Mapping) else type(slopes).__name__
        return f"expected derivatives in {', '.join(inside)} from its shape_partials, got {got or 'none'}"
    size = float(abs(model.shape(**inside)).max())
    for parameter in model.nonlinear:
        name, (low, high) = parameter.name, parameter.bounds
        unit = inside[name] if parameter.role == TIME else high - low
        up, down = (model.shape(**inside | {name: inside[name] + sign * _STEP * unit}) for sign in (1, -1))
        numeric, slope = (up - down) / (2 * _STEP), np.asarray(slopes[name]) * unit
        if slope.shape != numeric.shape:
            return f"expected {numeric.shape} as its derivative in {name}, got {slope.shape}"
        largest, off = float(abs(numeric).max()), float(np.max(abs(slope - numeric)))
        if parameter.role == TIME and largest == 0:
            return f"its shape does not depend on {name}"
        if not off <= _OF_SLOPE * largest + _OF_SIGNAL * size:
            if type(model).shape_partials is SignalModel.shape_partials:
                remedy = "rimap passes complex numbers to a shape without shape_partials: use no abs or float in it"
            else:
                remedy = "Correct or remove its shape_partials"
            return f"its derivative in {name} is wrong by up to {100 * off / (largest or size):.3g} %. {remedy}"
    return ""


def _fault_of_signal(model: SignalModel, inside: Maps) -> str:
    amplitudes = {p.name: np.linspace(0.5, 1.5, _TRIED) * (1 + k) for k, p in enumerate(model.amplitudes)}
    maps = inside | amplitudes
    columns = model.columns(maps)
    f = np.sum([a * columns[:, k] for k, a in enumerate(amplitudes.values())], axis=0) if amplitudes else columns[:, 0]
    signal = np.asarray(model.signal(np.stack([maps[p.name] for p in model.parameters])))
    same = signal.shape == f.shape and (abs(signal - (abs(f) if model.magnitude else f)) <= _SAME * abs(f).max()).all()
    return (
        "" if same else "its signal is not the sum of amplitude times shape. Write the formula in shape, not in signal"
    )
