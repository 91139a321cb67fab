"""Given maps whose values are rounded so much that the maps show it."""

from __future__ import annotations

import numpy as np

from rimap.advice import percent
from rimap.estimators.table import LEVEL_TOLERANCE, levels
from rimap.series import WeightedSeries


def rounding_warnings(series: WeightedSeries) -> tuple[str, ...]:
    """Return a caution on each given map, but that of the field, of which a step changes the maps too much."""
    model, found = series.model, []
    for name, value in series.held.items():
        parameter = model.parameters[model.index(name)]
        if not np.ndim(value) or parameter.amplitude or (model.field is not None and name == model.field.name):
            continue
        rounded = levels(np.asarray(value)[series.selected], model, name)
        if rounded.change > 1.01 * LEVEL_TOLERANCE:
            unit = "" if parameter.unit == "1" else f" {parameter.unit}"
            found.append(
                f"The given map of {name} is rounded to steps of {rounded.step:.2g}{unit}, which changes the signal or "
                f"{model.time.name} by up to {percent(rounded.change)} %: the maps may have bands, which the standard "
                "deviations do not include."
            )
    return tuple(found)
