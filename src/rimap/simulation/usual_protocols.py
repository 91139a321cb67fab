"""A usual scan of each sequence, from what its signal model declares."""

from __future__ import annotations

from typing import Any

import numpy as np

from rimap.signals.base import SignalModel, axis_of
from rimap.signals.settings import settings_of

#: Number of images, if the model declares no typical protocol.
IMAGES = 8
#: A setting that must exceed the axis (TR) is the largest value of the axis times this.
LONGER = 1.5


def usual_protocol(model: type[SignalModel]) -> SignalModel:
    """Return a signal model with the settings of a usual scan.

    They are those of the first of its ``examples()``, if the class has that classmethod, or else its
    `typical_protocol`. Settings that it does not name are in the middle of their usual range, and the images are spread
    over that of their axis.

    Raises
    ------
    InputError
        If the model refuses these settings.

    Examples
    --------
    >>> import rimap
    >>> usual_protocol(rimap.VariableFlipAngle).times
    array([ 2.  ,  2.94,  4.34,  6.38,  9.4 , 13.8 , 20.4 , 30.  ])
    """
    own = getattr(model, "examples", None)
    if own is not None:
        return next(iter(own()))  # type: ignore[no-any-return]
    axis = axis_of(model)
    settings: dict[str, Any] = dict(model.typical_protocol)
    for s in settings_of(model).values():
        if s.name not in settings and s.name == axis.name:
            low, high = s.drawn_from
            settings[s.name] = _echo_train(low, high) if s.even else _rounded(np.geomspace(low, high, IMAGES))
        elif s.name not in settings and s.required:
            settings[s.name] = _rounded(np.sqrt(np.prod(s.drawn_from)))[0]
    for s in settings_of(model).values():
        if s.name not in settings and s.longer_than == axis.name:
            settings[s.name] = _rounded(LONGER * max(settings[axis.name]))[0]
    return model(**settings)


def _echo_train(low: float, high: float) -> tuple[float, ...]:
    """Return multiples of the first value: echoes whose first and last are equally far from the ends of the range."""
    first = _rounded(np.sqrt(low * high / IMAGES), digits=2)[0]
    return tuple(first * (i + 1) for i in range(IMAGES))


def _rounded(values: Any, digits: int = 3) -> tuple[float, ...]:
    return tuple(float(f"{v:.{digits}g}") for v in np.ravel(values))
