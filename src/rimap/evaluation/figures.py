"""How figures look: the same colour for an estimator everywhere, boxes from quantiles, maps in the ISMRM colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.evaluation.tables import Cell, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: As in the paper: MLE blue, RIM red, ResNet green.
COLOURS = {
    "nlls": "#7f7f7f",
    "mle": "#1f5fa8",
    "global_b": "#6fb7e9",
    "mppca+nlls": "#e08e0b",
    "mppca+mle": "#a8720f",
    "rim:universal": "#c8102e",
    "rim:t1": "#73122f",
    "rim:t2": "#73122f",
    "rim:rim_t1_31": "#f08c8c",
    "rim:rim_t2": "#f08c8c",
    "rim:rim_t1_23": "#f4b6a6",
    "rim:rim_t1_25": "#b5606b",
    "resnet:resnet_t1_31": "#2e9e4f",
    "resnet:resnet_t2": "#2e9e4f",
    "resnet:resnet_t1_23": "#93cf8f",
    "resnet:resnet_t1_25": "#57804f",
    "reference": "#000000",
}
#: Colours of estimators that are not in the paper.
_OTHERS = {
    "rim": ("#8e1b5e", "#d1478c", "#5a2a6b"),
    "resnet": ("#1d6b52", "#8aa832"),
    "": ("#6a4fa3", "#2aa5a0", "#9a6b4f"),
}
#: What figures call each estimator.
LABELS = {
    "nlls": "NLLS",
    "mle": "MLE",
    "global_b": "MLE, one B",
    "mppca+nlls": "MP-PCA, NLLS",
    "mppca+mle": "MP-PCA, MLE",
    "reference": "truth",
}
#: Width of the page, inches.
WIDTH = 7.2


def colour(spec: str) -> str:
    """Return the colour of an estimator: always the same."""
    if spec in COLOURS:
        return COLOURS[spec]
    kind = spec.partition(":")[0]
    family = _OTHERS.get(kind, _OTHERS[""])
    return family[sum(map(ord, spec)) % len(family)]


def label(spec: str) -> str:
    """Return the name of an estimator in figures.

    >>> label("mle"), label("rim:rim_t1_31"), label("rim:runs/a/best.onnx")
    ('MLE', 'RIM rim_t1_31', 'RIM best')
    """
    if spec in LABELS:
        return LABELS[spec]
    kind, _, what = spec.partition(":")
    name = {"rim": "RIM", "resnet": "ResNet", "mle": "MLE λ ="}.get(kind, kind)
    return f"{name} {what.rpartition('/')[2].removesuffix('.onnx')}".strip()


def canvas(
    rows: int = 1, columns: int = 1, *, height: float = 2.6, width: float = WIDTH
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of the page's width and its axes (rows, columns); `height` is that of a row, inches."""
    # matplotlib is slow to import: only figures need it
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


#: Settings of matplotlib for all figures: sizes in points, as they are printed.
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
}


def boxes(ax: Axes, groups: Sequence[Cell], rows: Sequence[Row], column: str, estimators: Sequence[str]) -> None:
    """Draw one box for each estimator in each group (a value of `column`), from the quantiles of a table.

    The box is from quartile to quartile with a line at the median, the whiskers from 5 % to 95 %; points mark least
    and greatest value where they fit on the axis.
    """
    width = 0.8 / max(len(estimators), 1)
    for index, spec in enumerate(estimators):
        at, stats = [], []
        for g, group in enumerate(groups):
            found = [row for row in rows if row["estimator"] == spec and row[column] == group and "q50" in row]
            if found and np.isfinite(found[0]["q50"]):
                r = found[0]
                at.append(g + (index - (len(estimators) - 1) / 2) * width)
                stats.append({"med": r["q50"], "q1": r["q25"], "q3": r["q75"], "whislo": r["q5"], "whishi": r["q95"]})
        if not at:
            continue
        fill, line = colour(spec), {"linewidth": 0.8, "color": colour(spec)}
        ax.bxp(
            stats, positions=at, widths=width * 0.8, showfliers=False, patch_artist=True, manage_ticks=False,
            boxprops={"facecolor": fill, "edgecolor": fill, "alpha": 0.55, "linewidth": 0.8}, whiskerprops=line,
            capprops=line, medianprops={"color": "black", "linewidth": 1.0},
        )  # fmt: skip
    ax.set_xticks(range(len(groups)), [f"{group:g}" if isinstance(group, float) else str(group) for group in groups])
    ax.set_xlim(-0.6, len(groups) - 0.4)


def legend(figure: Figure, estimators: Sequence[str], *, extra: Sequence[tuple[str, dict[str, Any]]] = ()) -> None:
    """Put one legend of the estimators' colours above the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(color=colour(estimator), alpha=0.75, label=label(estimator)) for estimator in estimators
    ]
    handles += [Line2D([], [], label=text, **style) for text, style in extra]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(len(handles), 5), fontsize=7.5, frameon=False,
        handlelength=1.4,
    )  # fmt: skip


def symlog(ax: Axes, linear: float) -> None:
    """Make the y axis logarithmic beyond ±`linear`, with round ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_yscale("symlog", linthresh=linear, linscale=1.0)
    marks = [linear * m for m in (0.5, 1, 2, 5, 10, 20, 50, 100, 1000)]
    ax.yaxis.set_major_locator(FixedLocator([-mark for mark in reversed(marks)] + [0.0] + marks))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}".replace("-", "−")))
    ax.yaxis.set_minor_locator(NullLocator())


def error_axis(ax: Axes, *, signed: bool) -> None:
    """Make the y axis that of an error in %: logarithmic; that of a `signed` one (a bias) linear within ±10, with its
    zero.
    """
    if signed:
        symlog(ax, 10)
        ax.axhline(0, color="black", linewidth=0.6)
    else:
        ax.set_yscale("log")
        log_ticks(ax.yaxis)


def log_ticks(axis: Axis) -> None:
    """Write round numbers on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def show_map(
    ax: Axes, values: NDArray[Any], low: float, high: float, palette: str, *, logarithmic: bool = False
) -> None:
    """Draw a map (X, Y) with the second axis upwards; NaN is black."""
    entries = colours.indices(values.T, low, high, logarithmic=logarithmic)
    ax.imshow(colours.palette(palette)[entries], origin="lower", interpolation="nearest")
    bare(ax)


def titled(ax: Axes, text: str) -> None:
    """Give axes their title, in two lines if they are narrow."""
    inches = ax.get_position().width * ax.figure.get_figwidth()  # type: ignore[union-attr]
    ax.set_title(text.replace(" ", "\n", 1) if len(text) > 11 * inches else text, fontsize=8.5)


def bare(ax: Axes) -> None:
    """Remove ticks, frame and grid."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def colour_bar(
    figure: Figure,
    axes: Axes | Sequence[Axes] | NDArray[Any],
    low: float,
    high: float,
    palette: str,
    text: str,
    *,
    logarithmic: bool = False,
) -> None:
    """Draw the colour bar of `show_map` next to the axes, with ticks at its values."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    table = colours.palette(palette)[1:] / 255
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), ListedColormap(table)), ax=axes, shrink=0.85, pad=0.02, aspect=25
    )
    marks = colours.ticks(low, high)
    at = (colours.indices(marks, low, high, logarithmic=logarithmic).astype(float) - 1) / 254
    bar.set_ticks(list(at), labels=[f"{mark:g}" for mark in marks])
    bar.ax.tick_params(labelsize=7)
    bar.set_label(text, fontsize=7.5)
    bar.outline.set_visible(False)
