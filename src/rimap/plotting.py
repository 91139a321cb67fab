"""Maps as a figure of matplotlib, in the colours that the ISMRM recommends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.errors import InputError
from rimap.series import ParameterMaps
from rimap.signals.base import Parameter
from rimap.slices import View, view_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Slices that are shown where none is asked for.
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

    Relaxation times are in lipari (T1) or navia (T2) with a logarithmic remap, seen as a radiologist sees them where
    the affine is known.

    Parameters
    ----------
    maps
        What an estimator gave; X may have one to three axes.
    name
        Which map; the relaxation time if left out.
    slices
        One or several indices through the slices of the acquisition; four through the volume if left out.
    window
        Least and greatest value of the colours, in the unit of the map; chosen from the values if left out.
    sd
        A second row with the standard deviations, in % of a relaxation time.

    Returns
    -------
    figure
        To show, change or save. Where figures are drawn inline it is the value of the cell that shows it, once.

    Raises
    ------
    InputError
        For anything but maps, for a map or a slice that is not there, a window upside down, or where matplotlib is missing.

    References
    ----------
    Fuderer et al. 2025, doi:10.1002/mrm.30290.
    """
    if not isinstance(maps, ParameterMaps):
        raise InputError(f"rimap.plot draws the maps of an estimator; {type(maps).__name__} came.")
    try:
        import matplotlib as mpl
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise InputError(f"rimap.plot needs matplotlib ({error.name} is missing): pip install matplotlib.") from None
    p = maps.model.parameters[-1] if name is None else _parameter(maps, name)
    view = _view(maps, slices)
    rows = [(_label(p), maps[p.name], window or maps.window(p.name), p.unit == "ms", _palette(p))]
    if sd:
        share = 100 * maps.sd[p.name] / maps[p.name] if p.unit == "ms" else maps.sd[p.name]
        unit = f"% of {p.name}" if p.unit == "ms" else p.unit.replace("1", "")
        top = colours.window(share.reshape(-1)[maps.typical()], upper=0.95)
        rows.append((f"SD of {p.name}" + (f" ({unit})" if unit else ""), share, top, False, "lajolla"))
    low, high = rows[0][2]
    if not low < high:
        raise InputError(f"a window is (least, greatest); ({low:g}, {high:g}) came.")

    n = len(view.slices)
    height = 2.6 if n > 1 else 4.0
    width = height * min(max(view.aspect, 0.4), 3.0)
    figure: Figure = plt.figure(figsize=(max(width * n + 1.2, 3.4), height * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), n, squeeze=False)
    for line, (label, values, (low, high), log, palette) in zip(axes, rows):
        colormap = mpl.colors.ListedColormap(colours.palette(palette) / 255)
        for ax, k in zip(line, view.slices):
            entries = colours.indices(view.picture(values, k), low, high, logarithmic=log)
            rows_, columns = entries.shape
            drawn = ax.imshow(
                entries, cmap=colormap, vmin=0, vmax=255, interpolation="nearest", aspect=columns / rows_ / view.aspect
            )
            ax.set(xticks=[], yticks=[])
            if maps.status.ndim == 3 and maps.status.shape[view.plane.axes[2]] > 1:
                ax.set_xlabel(f"slice {k}", fontsize=8)
        marks = colours.ticks(low, high)
        places = colours.indices(marks, low, high, logarithmic=log)
        bar = figure.colorbar(drawn, ax=list(line), label=label, pad=0.02)
        bar.set_ticks([float(x) for x in places], labels=[f"{t:g}" for t in marks])
        bar.ax.set_ylim(1, 255)
    left = view.plane.letters[0]
    if left:
        axes[0, 0].set_ylabel(f"{view.plane.name}, {left} at the left", fontsize=8)
    figure.suptitle(f"{p.name}, {maps.estimator.upper()}" if maps.estimator else p.name)
    if "inline" in mpl.get_backend():
        plt.close(figure)
    return figure


def _parameter(maps: ParameterMaps, name: str) -> Parameter:
    for p in maps.model.parameters:
        if p.name == name:
            return p
    raise InputError(f"no map {name!r}: {maps.model.title} has {', '.join(maps)}.")


def _label(p: Parameter) -> str:
    return p.name if p.unit == "1" else f"{p.name} ({p.unit})"


def _palette(p: Parameter) -> str:
    return colours.of_parameter(p.name) if p.unit == "ms" else "batlow" if p.unit == "1" else "grey"


def _view(maps: ParameterMaps, slices: int | Sequence[int] | None) -> View:
    shown: NDArray[np.bool_] = np.isfinite(maps.kappa).all(0)
    view = view_of(maps.affine, shown if shown.any() else np.ones_like(shown), limit=_SLICES)
    if slices is None:
        return view
    chosen: Any = [slices] if isinstance(slices, (int, np.integer)) else list(slices)
    depth = (*maps.status.shape, 1, 1)[view.plane.axes[2]]
    if not chosen or not all(0 <= int(k) < depth for k in chosen):
        raise InputError(f"slices must be 0 to {depth - 1}; {slices} came.")
    return replace(view, slices=tuple(int(k) for k in chosen))
