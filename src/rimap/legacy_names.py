"""What files of rimap 0.1.0 say, in the names of today. That version knew a repetition time, B and T, and no other
setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rimap.signals.base import SignalModel

#: Fields of a recipe, by their earlier names.
_OF_RECIPES = {
    "tr_share": "optional_share",
    "tr_unknown_share": "hidden_share",
    "b_gamma": "field_gamma",
    "b_range": "field_mean",
    "b_smooth": "field_spread",
    "b_length": "field_length",
}


def recipe(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of a recipe with the names that fields have now."""
    found = {_OF_RECIPES.get(key, key): value for key, value in table.items()}
    tr = found.pop("tr_ms", ())
    if isinstance(tr, (int, float)) or tr:
        found["settings"] = {**found.get("settings", {}), "tr": tr}
    return found


def training(seen: Mapping[str, Any], model: SignalModel) -> dict[str, Any]:
    """Return what a network has seen in training, with the range of each setting and parameter by name."""
    if "parameters" in seen:
        return dict(seen)
    optional = [setting.name for setting in model.settings.values() if not setting.required]
    parameters = {model.time.name: seen["T_ms"]}
    if model.field is not None:
        parameters[model.field.name] = seen["B"]
    return {**seen, "settings": dict.fromkeys(optional) if seen["tr"] else {}, "parameters": parameters}
