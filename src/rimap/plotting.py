"""Maps as a figure of matplotlib, in the colours that the ISMRM recommends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.errors import InputError
from rimap.map_display import Quantity, is_relaxation, label_of, name_of, palette_of, quantities_of, quantity, values_of
from rimap.series import ParameterMaps
from rimap.signals.settings import unit_symbol
from rimap.slices import View, slice_number, view_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Number of slices that are shown if none are specified.
_SLICES = 4


def plot(
    maps: ParameterMaps,
    name: str | None = None,
    *,
    slices: int | Sequence[int] | None = None,
    window: tuple[float, float] | None = None,
    sd: bool = False,
) -> Figure:
    """Draw a map, one panel for each slice; voxels without a value are black.

    Relaxation times and rates are shown in lipari (T1, R1) or navia (T2, T2* and their rates) on a logarithmic scale.
    If the affine is known, slices are shown in the radiological convention.

    Parameters
    ----------
    maps
        The maps of an estimator; X may have one to three axes.
    name
        The map to draw; by default the one that the sequence is for.
    slices
        One or several indices of slices of the acquisition, from 0 as in arrays; by default four through the volume.
        The figure counts slices from 1, as people do.
    window
        Lowest and highest value of the colours, in the unit of the map; by default chosen from the values.
    sd
        Add a second row with the standard deviations, in % of the map for relaxation times and rates.

    Returns
    -------
    figure
        The figure. In a notebook that draws figures inline it is shown once, as the value of the cell.

    Raises
    ------
    InputError
        If `maps` are not maps, the map or a slice does not exist, the window is not (low, high), or matplotlib is
        missing.

    References
    ----------
    Fuderer et al. 2025, doi:10.1002/mrm.30290.
    """
    if not isinstance(maps, ParameterMaps):
        raise InputError(f"rimap.plot: expected the maps of an estimator, got {type(maps).__name__}.")
    try:
        # matplotlib is slow to import: only figures need it
        import matplotlib as mpl
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise InputError(f"rimap.plot needs matplotlib ({error.name} is missing): pip install matplotlib.") from None
    p = maps.model.main if name is None else _quantity(maps, name)
    view = _view(maps, slices)
    drawn_values, relative = values_of(p, maps.model, maps), is_relaxation(p)
    rows = [(label_of(p), drawn_values, window or maps.window(p.name), relative, palette_of(p))]
    if sd:
        deviation = maps.sd[p.name] if p.name in maps.sd else np.full_like(drawn_values, np.nan)
        share = 100 * deviation / drawn_values if relative else deviation
        unit = f"% of {name_of(p)}" if relative else unit_symbol(p.unit)
        top = colours.window(share.reshape(-1)[maps.typical()], upper=0.95)
        rows.append((f"SD of {name_of(p)}" + (f" ({unit})" if unit else ""), share, top, False, "lajolla"))
    low, high = rows[0][2]
    if not low < high:
        raise InputError(f"window: expected (low, high) with low < high, got ({low:g}, {high:g}).")

    n = len(view.slices)
    height = 2.6 if n > 1 else 4.0
    width = height * min(max(view.aspect, 0.4), 3.0)
    figure: Figure = plt.figure(figsize=(max(width * n + 1.2, 3.4), height * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), n, squeeze=False)
    for line, (label, values, (low, high), log, palette) in zip(axes, rows):
        colormap = mpl.colors.ListedColormap(colours.palette(palette) / 255)
        for ax, slice_ in zip(line, view.slices):
            entries = colours.indices(view.picture(values, slice_), low, high, logarithmic=log)
            rows_, columns = entries.shape
            drawn = ax.imshow(
                entries, cmap=colormap, vmin=0, vmax=255, interpolation="nearest", aspect=columns / rows_ / view.aspect
            )
            ax.set(xticks=[], yticks=[])
            if maps.status.ndim == 3 and maps.status.shape[view.plane.axes[2]] > 1:
                ax.set_xlabel(f"slice {slice_number(slice_)}", fontsize=8)
        marks = colours.ticks(low, high)
        places = colours.indices(marks, low, high, logarithmic=log)
        bar = figure.colorbar(drawn, ax=list(line), label=label, pad=0.02)
        bar.set_ticks([float(place) for place in places], labels=[f"{mark:g}" for mark in marks])
        bar.ax.set_ylim(1, 255)
    left = view.plane.letters[0]
    if left:
        axes[0, 0].set_ylabel(f"{view.plane.name}, {left} at the left", fontsize=8)
    figure.suptitle(f"{name_of(p)}, {maps.estimator.upper()}" if maps.estimator else name_of(p))
    if "inline" in mpl.get_backend():
        plt.close(figure)
    return figure


def _quantity(maps: ParameterMaps, name: str) -> Quantity:
    found = quantity(maps.model, name)
    if found is None:
        names = ", ".join(q.name for q in quantities_of(maps.model))
        raise InputError(f"expected one of the maps {names} of {maps.model.title.lower()}, got {name!r}.")
    return found


def _view(maps: ParameterMaps, slices: int | Sequence[int] | None) -> View:
    shown: NDArray[np.bool_] = np.isfinite(maps.kappa).all(0)
    view = view_of(maps.affine, shown if shown.any() else np.ones_like(shown), limit=_SLICES)
    if slices is None:
        return view
    chosen: Any = [slices] if isinstance(slices, (int, np.integer)) else list(slices)
    depth = (*maps.status.shape, 1, 1)[view.plane.axes[2]]
    if not chosen or not all(0 <= int(k) < depth for k in chosen):
        raise InputError(f"slices: expected indices from 0 to {depth - 1}, got {slices}.")
    return replace(view, slices=tuple(int(k) for k in chosen))
