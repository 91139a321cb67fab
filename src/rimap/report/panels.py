"""The maps of a run as panels with their colours and windows: pictures for paper, numbers for the viewer."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.map_display import Quantity, is_relaxation, name_of, palette_of, quantities_of, values_of, window_of
from rimap.report.statistics import known_parameters
from rimap.series import ParameterMaps, Status
from rimap.signals.settings import unit_symbol
from rimap.slices import View, png, slice_number

#: Colour of each quality flag in its map and legend. They are distinct for colour-blind readers too.
STATUS_COLOURS: Mapping[Status, str] = {
    Status.OK: "#5b7f95",
    Status.AT_BOUND: "#e69f00",
    Status.NO_SIGNAL: "#2b2b2b",
    Status.NOT_FINITE: "#cc79a7",
    Status.NOT_CONVERGED: "#d55e00",
    Status.OUTSIDE_TRAINING: "#f0e442",
    Status.OUTSIDE_MASK: "#000000",
    Status.OFF_MODEL: "#9b2fae",
}


@dataclass(frozen=True, eq=False)
class Panel:
    """One map with its colours.

    Parameters
    ----------
    key
        The block that the viewer reads: a map, ``sd T1`` (shown as a share of T1), ``residual``.
    title, unit
        Title and unit as they are shown.
    values
        (*X); NaN is shown black.
    palette
        A table of `colours`.
    window
        The values at the ends of the palette.
    logarithmic
        Whether the scale is the logarithmic one that the ISMRM recommends for relaxation times.
    """

    key: str
    title: str
    unit: str
    values: NDArray[Any]
    palette: str
    window: tuple[float, float]
    logarithmic: bool = False

    def pictures(self, view: View, slices: Sequence[int]) -> dict[str, Any]:
        """Return pictures of slices with their colour bar, for the template."""
        table, (low, high) = colours.palette(self.palette), self.window
        bar = colours.indices(np.linspace(high, low, 256)[:, None], low, high, logarithmic=self.logarithmic)
        return {
            "title": self.title,
            "unit": self.unit,
            "pictures": [
                {
                    "number": slice_number(slice_),
                    "src": png(
                        colours.indices(view.picture(self.values, slice_), low, high, logarithmic=self.logarithmic),
                        table,
                    ),
                    "alt": f"{self.title}, slice {slice_number(slice_)}",
                }
                for slice_ in slices
            ],
            "bar": png(bar, table),
            "ticks": [
                {"at": 100 * (high - tick) / (high - low), "label": f"{tick:,.10g}"}
                for tick in colours.ticks(low, high)
            ],
        }

    def about(self) -> dict[str, Any]:
        """Return what the viewer needs to draw it."""
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "palette": self.palette,
            "low": self.window[0],
            "high": self.window[1],
            "log": self.logarithmic,
        }


def panels_of(maps: ParameterMaps, inside: NDArray[np.bool_], figured: NDArray[np.bool_]) -> list[Panel]:
    """Return the panels: the main map first, then its standard deviation, the other maps and the residual.

    A parameter that was fixed at one number has no panel. A residual that is zero because there are as many parameters
    as images has none either.

    Parameters
    ----------
    inside
        (*X), the voxels that are shown.
    figured
        (*X), the voxels that determine the windows.
    """
    panels: list[Panel] = []
    known = known_parameters(maps)
    for q in quantities_of(maps.model):
        values = values_of(q, maps.model, maps)
        if q.name in known and _constant(values[figured]):
            continue
        window = window_of(q, values[figured])
        shown = np.where(inside, values, np.nan)
        panels.append(Panel(q.name, name_of(q), unit_symbol(q.unit), shown, palette_of(q), window, is_relaxation(q)))
        if q == maps.model.main and q.name in maps.sd:
            panels += _sd_panel(q, maps, values, inside, figured)
    if maps.residual is not None and maps.model.n_images > len(maps.model.parameters) - len(known):
        residual = np.where(np.isfinite(maps.kappa).all(0), maps.residual, np.nan)
        window = colours.window(residual[figured], low=0.0, upper=0.98)
        panels.append(Panel("residual", "Residual", "a.u.", np.where(inside, residual, np.nan), "lajolla", window))
    return panels


def _sd_panel(
    q: Quantity, maps: ParameterMaps, values: NDArray[Any], inside: NDArray[np.bool_], figured: NDArray[np.bool_]
) -> list[Panel]:
    """Return the panel of the standard deviation as a share of the map, none if no voxel has one."""
    deviation = np.where(values > 0, 100 * maps.sd[q.name] / np.where(values > 0, values, 1), np.nan)
    if not np.isfinite(deviation).any():
        return []
    window = colours.window(deviation[figured], low=0.0, upper=0.95)
    shown = np.where(inside, deviation, np.nan)
    return [Panel(f"sd {q.name}", f"SD of {name_of(q)}", f"% of {name_of(q)}", shown, "lajolla", window)]


def _constant(values: NDArray[Any]) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and np.ptp(finite) <= 1e-9 * np.abs(finite).max())


def status_pictures(status: NDArray[np.uint8], view: View, slices: Sequence[int]) -> list[dict[str, Any]]:
    """Return pictures of the status."""
    table = np.zeros((256, 3), np.uint8)
    for s, colour in STATUS_COLOURS.items():
        table[s] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return [
        {
            "number": slice_number(slice_),
            "src": png(view.picture(status, slice_), table),
            "alt": f"quality flags, slice {slice_number(slice_)}",
        }
        for slice_ in slices
    ]


def palettes(panels: Sequence[Panel]) -> dict[str, str]:
    """Return the tables that the panels use, 256 × RGB in base64."""
    names = {panel.palette for panel in panels} | {"grey"}
    return {name: base64.b64encode(colours.palette(name).tobytes()).decode("ascii") for name in sorted(names)}
