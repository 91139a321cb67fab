"""The maps of a run as panels: which, in what colours and window; as pictures for paper, as numbers for the viewer."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.report.statistics import describe
from rimap.series import ParameterMaps, Status
from rimap.signals.base import Parameter
from rimap.slices import View, png

#: Colour of each status in the status map, and in its legend. Distinct also for the colour-blind.
STATUS_COLOURS: Mapping[Status, str] = {
    Status.OK: "#5b7f95",
    Status.AT_BOUND: "#e69f00",
    Status.NO_SIGNAL: "#2b2b2b",
    Status.NOT_FINITE: "#cc79a7",
    Status.NOT_CONVERGED: "#d55e00",
    Status.OUTSIDE_TRAINING: "#f0e442",
    Status.OUTSIDE_MASK: "#000000",
}


@dataclass(frozen=True, eq=False)
class Panel:
    """One map with its colours.

    Parameters
    ----------
    key
        What the viewer takes it from: a parameter, ``sd T1`` (shown as a share of T1), ``residual``.
    title, unit
        For people.
    values
        (*X), NaN where nothing is shown.
    palette
        A table of `colours`.
    window
        What the ends of the palette stand for.
    logarithmic
        Whether it is remapped as the ISMRM recommends for relaxation times.
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
                    "k": k,
                    "src": png(
                        colours.indices(view.picture(self.values, k), low, high, logarithmic=self.logarithmic), table
                    ),
                    "alt": f"{self.title}, slice {k}",
                }
                for k in slices
            ],
            "bar": png(bar, table),
            "ticks": [{"at": 100 * (high - t) / (high - low), "label": f"{t:,.10g}"} for t in colours.ticks(low, high)],
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
    """Return the panels, relaxation times first.

    Parameters
    ----------
    inside
        (*X), what is shown.
    figured
        (*X), what the windows are taken from.
    """
    times = [p for p in maps.model.parameters if p.unit == "ms"]
    panels = [
        Panel(
            p.name, p.name, p.unit, np.where(inside, maps[p.name], np.nan), colours.of_parameter(p.name),
            relaxation_window(maps[p.name][figured], p), True,
        )
        for p in times
    ]  # fmt: skip

    def add(
        key: str, title: str, unit: str, values: NDArray[Any], palette: str, low: float | None, upper: float
    ) -> None:
        window = colours.window(values[figured], low=low, upper=upper)
        panels.append(Panel(key, title, unit, np.where(inside, values, np.nan), palette, window))

    for p in times:
        values = maps[p.name]
        sd = np.where(values > 0, 100 * maps.sd[p.name] / np.where(values > 0, values, 1), np.nan)
        if np.isfinite(sd).any():
            add(f"sd {p.name}", f"SD of {p.name}", f"% of {p.name}", sd, "lajolla", 0.0, 0.95)
    for p in maps.model.parameters:
        if p.unit == "1":
            add(p.name, p.name, "", maps[p.name], "batlow", None, 0.98)
        elif p.unit != "ms":
            add(p.name, p.name, p.unit, maps[p.name], "grey", 0.0, 0.99)
    if maps.residual is not None:
        residual = np.where(np.isfinite(maps.kappa).all(0), maps.residual, np.nan)
        add("residual", "Residual", "a.u.", residual, "lajolla", 0.0, 0.98)
    return panels


def relaxation_window(values: NDArray[Any], p: Parameter) -> tuple[float, float]:
    """Return the window of a relaxation time: contrast for tissue rather than for fluid."""
    low, high = colours.window(values)
    if (most := 2.5 * describe(values).q75) < high:
        low, high = colours.window(np.array([most]))
    return low, min(high, p.bounds[1])


def status_pictures(status: NDArray[np.uint8], view: View, slices: Sequence[int]) -> list[dict[str, Any]]:
    """Return pictures of the status."""
    table = np.zeros((256, 3), np.uint8)
    for s, colour in STATUS_COLOURS.items():
        table[s] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return [{"k": k, "src": png(view.picture(status, k), table), "alt": f"status, slice {k}"} for k in slices]


def palettes(panels: Sequence[Panel]) -> dict[str, str]:
    """Return the tables that the panels use, 256 × RGB in base64."""
    names = {p.palette for p in panels} | {"grey"}
    return {n: base64.b64encode(colours.palette(n).tobytes()).decode("ascii") for n in sorted(names)}
