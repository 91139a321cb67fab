"""The picture of a sequence: its signal in three tissues, and a simulated slice that is mapped."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.likelihood import Gaussian
from rimap.map_display import label_of, name_of, palette_of, shown_name, values_of
from rimap.maps import ParameterMaps
from rimap.report.curves import signal_table
from rimap.signals.base import FIELD, SignalModel
from rimap.signals.settings import unit_symbol, with_unit
from rimap.simulation.anatomies import digital_brain
from rimap.simulation.label_volumes import brain_mask
from rimap.simulation.subjects import OFFSET, simulate_series, simulate_subject
from rimap.simulation.tissues import CSF, GM, LABELS, WM, property_of, table_of
from rimap.simulation.usual_protocols import usual_protocol
from rimap.workflow.estimator_choice import build, default_estimator

#: Signal-to-noise ratio of white matter in the brightest image.
SNR = 30.0
#: The slice of the drawn head that is mapped.
SLICE = 24
SEED = 0
#: Tissues with their colours, which differ for people with colour-vision deficiency too (Okabe & Ito).
TISSUES = {CSF: "#0072B2", GM: "#D55E00", WM: "#009E73"}
#: Images that a curve through them needs, if the model knows no values between them.
_FEWEST_FOR_A_CURVE = 4
#: Marks of a logarithmic axis of times, ms.
_MARKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_DPI = 110


def sequence_caption(model: type[SignalModel]) -> str:
    """Return what `sequence_picture` shows, a sentence or two."""
    example = usual_protocol(model)
    settings = ", ".join(
        f"{s.symbol} {_values(getattr(example, s.name), s.unit)}"
        for s in example.settings.values()
        if getattr(example, s.name) is not None
    )
    return (
        f"Left: the signal of cerebrospinal fluid, grey and white matter in a simulated scan ({settings}). Right: "
        f"{name_of(example.main)} of one slice of a drawn head, the truth and the map by "
        f"`{default_estimator(model)[0]}` at a signal-to-noise "
        f"ratio of {SNR:g} in white matter."
    )


def sequence_picture(model: type[SignalModel]) -> bytes:
    """Return the picture of a signal model as PNG: its signal in three tissues, and a map of simulated images.

    Parameters
    ----------
    model
        The class, of rimap or of your own package.

    Raises
    ------
    InputError
        If the model refuses the values that its declarations call usual; a classmethod ``examples`` then gives better
        ones.
    """
    from matplotlib.figure import Figure

    example = usual_protocol(model)
    figure = Figure(figsize=(9.2, 2.9), dpi=_DPI, layout="constrained")
    curve, *pictures = figure.subplots(1, 3, width_ratios=(1.35, 1, 1))
    _draw_signal(curve, example)
    _draw_maps(pictures, *_mapped(example))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _tissue(model: SignalModel, label: int) -> dict[str, float]:
    """Return the parameters of a tissue by name."""
    found: dict[str, float] = {}
    for p in model.parameters:
        if p.amplitude:
            first = next(iter(found.values()), None)
            found[p.name] = float(table_of(p)[0][label]) if first is None else OFFSET * first
        elif p.role == FIELD and not property_of(p):
            found[p.name] = float(p.start if p.given and p.start is not None else p.in_a_scan.middle)
        else:
            found[p.name] = float(np.clip(table_of(p)[0][label], *p.bounds))
    return found | _apparent(model, found[model.time.name])


def _apparent(model: SignalModel, T: Any) -> dict[str, Any]:
    """Return the parameters that a scan has in place of the tissue's T, by name; none if it measures T itself."""
    values = getattr(model, "apparent_values", None)
    return {} if values is None else dict(values(T))


def _draw_signal(axes: Any, model: SignalModel) -> None:
    """Draw the signal along the axis of the images, or along T if there are too few images for a curve."""
    tissues = {label: _tissue(model, label) for label in TISSUES}
    maps = {p.name: np.array([values[p.name] for values in tissues.values()]) for p in model.parameters}
    table = signal_table(model, maps)
    if table is None or (not table.continuous and model.n_images < _FEWEST_FOR_A_CURVE):
        _draw_along_time(axes, model, tissues)
        return
    signal = np.stack([table.reader(maps)(i) for i in range(len(table.points))])
    for k, (label, values) in enumerate(tissues.items()):
        axes.plot(table.points, signal[:, k], color=TISSUES[label], label=_legend(model, label, values))
        axes.plot(table.points[table.images], signal[table.images, k], "o", ms=3, color=TISSUES[label])
    unit = unit_symbol(model.axis.unit)
    axes.set_xlabel(f"{model.axis.title} ({unit})" if unit else model.axis.title, fontsize=8)
    _finish(axes, model)


def _draw_along_time(axes: Any, model: SignalModel, tissues: Mapping[int, Mapping[str, float]]) -> None:
    middle = next(v for label, v in tissues.items() if label == GM)
    low, high = np.sort([v[model.time.name] for v in tissues.values()])[[0, -1]]
    times = np.geomspace(max(low / 2, model.time.bounds[0]), min(1.4 * high, model.time.bounds[1]), 200)
    kappa = np.stack([np.full_like(times, middle[p.name]) if p is not model.time else times for p in model.parameters])
    for values, image in zip(model.signal(kappa), model.times):
        axes.plot(times, values, label=model.axis.text(float(image)))
    for label, values in tissues.items():
        axes.axvline(values[model.time.name], color=TISSUES[label], lw=1, ls=":")
    axes.set_xlabel(f"{shown_name(model.time.name)} ({unit_symbol(model.time.unit)}); dotted: WM, GM, CSF", fontsize=8)
    axes.set_xscale("log")
    marks = [mark for mark in _MARKS_MS if times[0] <= mark <= times[-1]]
    axes.set_xticks(marks, labels=[f"{mark:g}" for mark in marks])
    axes.set_xticks([], minor=True)
    _finish(axes, model)


def _legend(model: SignalModel, label: int, values: Mapping[str, float]) -> str:
    return (
        f"{LABELS[label]}, {shown_name(model.time.name)} {with_unit(round(values[model.time.name]), model.time.unit)}"
    )


def _finish(axes: Any, model: SignalModel) -> None:
    axes.set_ylabel("signal (A of CSF = 1)" if model.amplitudes else "signal", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def _mapped(model: SignalModel) -> tuple[NDArray[np.float64], ParameterMaps, NDArray[Any]]:
    """Return the truth of the main map of a slice, the maps of a simulated scan of it, and its labels."""
    labels = digital_brain()[:, :, SLICE]
    rng = np.random.default_rng(SEED)
    kappa = simulate_subject(labels, model, rng)
    for name, values in _apparent(model, kappa[model.index(model.time.name)].copy()).items():
        kappa[model.index(name)] = values
    signal = np.abs(model.signal(kappa))
    sigma = float(np.median(signal[:, labels == WM].max(0))) / SNR
    given = {p.name: kappa[i] for i, p in enumerate(model.parameters) if p.given}
    series = simulate_series(
        kappa, model, Gaussian(sigma=sigma), rng, given=given, mask=None if model.amplitudes else labels > 0
    )
    estimator = build(default_estimator(type(model))[0], {}, threads=1)
    truth = dict(zip((p.name for p in model.parameters), kappa))
    return values_of(model.main, model, truth), estimator.estimate(series), labels


def _draw_maps(pictures: Any, truth: NDArray[Any], maps: ParameterMaps, labels: NDArray[Any]) -> None:
    import matplotlib as mpl

    main = maps.model.main
    found = values_of(main, maps.model, maps)
    colormap = mpl.colors.ListedColormap(colours.palette(palette_of(main)) / 255)
    low, high = colours.window(truth[np.isin(labels, (GM, WM))])  # with the fluid in it, the tissue would be dark
    truth = np.where(np.isfinite(found), truth, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = 100 * float(np.nanmedian(np.abs(found / truth - 1)[brain_mask(labels)]))
    title = f"{maps.estimator}: median error {error:.2g} % in the brain"
    for axes, values, text in zip(pictures, (truth, found), (f"{name_of(main)}, truth", title)):
        entries = colours.indices(np.rot90(values), low, high, logarithmic=True)
        drawn = axes.imshow(entries, cmap=colormap, vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(text, fontsize=8)
    marks = colours.ticks(low, high)
    bar = axes.figure.colorbar(drawn, ax=pictures, pad=0.02)
    bar.set_label(label_of(main), fontsize=8)
    bar.set_ticks(
        [float(x) for x in colours.indices(marks, low, high, logarithmic=True)], labels=[f"{t:g}" for t in marks]
    )
    bar.ax.tick_params(labelsize=7)
    bar.ax.set_ylim(1, 255)


def _values(value: Any, unit: str) -> str:
    """Return one or several values of a setting with their unit."""
    values = sorted(set(np.ravel(np.asarray(value, dtype=float)).tolist()))
    if len(values) > 3:
        return f"{values[0]:.6g} to {with_unit(values[-1], unit)}, {len(values)} values"
    return with_unit(values[0], unit) if len(values) == 1 else " and ".join(with_unit(v, unit) for v in values)
