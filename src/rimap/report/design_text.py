"""A design as text, tables and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from rimap import __version__
from rimap.errors import count_of
from rimap.map_display import name_of
from rimap.planning.design import Design, Protocol
from rimap.planning.goal import Goal
from rimap.planning.measurable_range import name_of_time, repeats_note, what_it_measures
from rimap.planning.search import judged_at
from rimap.report.number_formats import number
from rimap.signals.settings import REPETITION_TIME, Setting, unit_symbol, with_unit

#: Values of T in the printed table.
_SHOWN = 6
#: Protocols whose worst standard deviations differ by less than this factor count as equally good.
ALIKE = 1.02


def duration(minutes: float) -> str:
    """Return a scan time in words.

    >>> duration(2.72), duration(0.4167), duration(61.3)
    ('2.7 min', '25 s', '61 min')
    """
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes >= 20 else f"{minutes:.1f} min"


def title_of(found: Design) -> str:
    """Return the title of a design in one line."""
    goal = found.goal
    low, high = goal.T_ms
    span = f"{low:g} ms" if low == high else f"{low:g} to {high:g} ms"
    return f"{goal.kind.title}: {name_of_time(found.best.model)} of {span} in {duration(found.minutes)}"


def conditions_of(found: Design) -> list[str]:
    """Return the assumptions behind the figures, one sentence each."""
    goal = found.goal
    lines = [
        f"SNR {goal.snr:g} in the brightest image that the sequence can give, without averaging "
        f"(σ = {number(found.best.sigma)} of the amplitude, {goal.noise.capitalize()} noise)."
    ]
    if goal.field is not None:
        how = {
            "free": "estimated in every voxel",
            "smooth": "smooth in space and estimated from all voxels of a neighbourhood together",
            "given": "known from a map",
        }[goal.field_treatment]
        lines.append(f"{name_of(goal.field)} is {how}.")
    lines.append(scan_time_of(goal))
    if note := repeats_note(found.best.model, goal):
        lines.append(note)
    return lines


def scan_time_of(goal: Goal) -> str:
    """Return how the scan time of the sequence is calculated, in a sentence."""
    shots = count_of(goal.cycles_of_one_image, "shot")
    axis = goal.axis.symbol
    rest = max(goal.rest_ms, goal.kind.cycle.recovery * goal.T_ms[1])
    length = goal.repetition_ms or goal.kind.cycle.length_ms
    if goal.in_one_cycle:
        what = "One cycle acquires all images"
    else:
        what = "Each image needs its own cycles"
    if goal.chooses_repetition and goal.one_repetition_time:
        cycle = "one repetition time for all images"
    elif goal.chooses_repetition:
        cycle = f"{axis} and a recovery, the same after every image"
    elif goal.repetition is not None:
        cycle = "the repetition time"
    elif length is not None:
        cycle = f"{length:g} ms"
    else:
        cycle = f"the last {axis} and {rest:g} ms" if goal.in_one_cycle else f"{axis} and {rest:g} ms"
    return f"{what}, {shots} each; a cycle takes {cycle}."


def columns_of(protocol: Protocol) -> list[Setting]:
    """Return the settings that differ between images, or that were chosen."""
    model = protocol.model
    return [
        setting
        for setting in model.settings.values()
        if setting.per_image is not False and getattr(model, setting.name) is not None
    ]


def images_of(protocol: Protocol) -> list[list[float]]:
    """Return the values of `columns_of` for each image."""
    values = [getattr(protocol.model, s.name) for s in columns_of(protocol)]
    return [[float(v) for v in row] for row in zip(*values)]


def settings_line(protocol: Protocol) -> str:
    """Return a protocol in a line: every setting with its values."""
    parts = []
    for s in columns_of(protocol):
        values = np.asarray(getattr(protocol.model, s.name), dtype=float)
        text = ", ".join(f"{value:.6g}" for value in values) if len(set(values)) > 1 else f"{values.flat[0]:.6g}"
        symbol = unit_symbol(s.unit)
        parts.append(f"{s.symbol} {text}" + ("" if symbol in ("", "°") else " ") + symbol)
    times = "" if protocol.averages == 1 else f", averaged {protocol.averages:.3g} times"
    return "; ".join(parts) + times


def text_of(found: Design, limit_percent: float) -> str:
    """Return what the command line prints."""
    best, present = found.best, found.present
    lines = [
        title_of(found),
        "",
        f"Best protocol ({count_of(best.model.n_images, 'image')}, {duration(best.minutes * best.averages)})",
    ]
    lines.append(f"  {settings_line(best)}")
    if present is not None:
        once = f"{count_of(present.model.n_images, 'image')}, {duration(present.minutes)} for one pass"
        lines += [f"Present protocol ({once})", f"  {settings_line(present)}"]
    lines += ["", *_table(found)]
    if present is not None:
        lines += ["", f"The best protocol {what_it_measures(found, best, limit_percent).removeprefix('It ')}"]
        lines.append(f"The present protocol {what_it_measures(found, present, limit_percent).removeprefix('It ')}")
        lines.append(gain_of(found))
    else:
        lines += ["", what_it_measures(found, best, limit_percent)]
    return "\n".join([*lines, "", *conditions_of(found), *found.notes])


def gain_of(found: Design) -> str:
    """Return the improvement by the best protocol, in a sentence."""
    gain = found.gain
    if gain is None or found.present is None:
        return ""
    ours, theirs = 100 * found.best.worst, 100 * found.present.worst
    if not np.isfinite(gain):
        return (
            f"The worst standard deviation falls to {ours:.3g} %; the present protocol does not determine the whole "
            "range."
        )
    if gain <= ALIKE:
        return (
            f"The present protocol is as good as the best one that was found (worst SD {theirs:.3g} and {ours:.3g} %)."
        )
    return (
        f"At the same scan time the worst standard deviation falls from {theirs:.3g} to {ours:.3g} %. "
        f"The present protocol needs {gain**2:.3g} times the scan time to reach this."
    )


def _table(found: Design) -> list[str]:
    name = name_of_time(found.best.model)
    both = [("best", found.best), *([("present", found.present)] if found.present is not None else [])]
    T = judged_at(found.goal, _SHOWN)
    rows = [
        [f"{t:.0f} ms" if t >= 100 else f"{t:.3g} ms", *(_percent(float(p.sd(np.array([t]))[0])) for _, p in both)]
        for t in T
    ]
    rows += [["worst", *(_percent(p.worst) for _, p in both)], ["mean", *(_percent(p.mean) for _, p in both)]]
    head = [f"SD of {name}", *(label for label, _ in both)]
    widths = [max(len(r[index]) for r in [head, *rows]) for index in range(len(head))]
    return ["  " + "  ".join(c.rjust(width) for c, width in zip(r, widths)) for r in [head, *rows]]


def _percent(x: float) -> str:
    return f"{100 * x:.2f} %" if np.isfinite(x) and x < 10 else "–"


def precision_tsv(found: Design) -> str:
    """Return T and the relative SDs as a table."""
    T = found.T_ms
    columns = [T, 100 * found.best.sd(T)]
    head = [f"{found.best.model.main.name}_ms", "sd_best_percent"]
    if found.present is not None:
        columns.append(100 * found.present.sd(T))
        head.append("sd_present_percent")
    return _tsv(head, [[f"{v:.6g}" if np.isfinite(v) else "n/a" for v in row] for row in zip(*columns)])


def protocol_tsv(found: Design) -> str:
    """Return the settings of each image of the best protocol as a table."""
    head = ["image", *(f"{s.name}_{s.unit}" if s.unit != "1" else s.name for s in columns_of(found.best))]
    return _tsv(head, [[str(i + 1), *(f"{v:.6g}" for v in row)] for i, row in enumerate(images_of(found.best))])


def _tsv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerows([head, *rows])
    return buffer.getvalue()


def as_json(found: Design, command: str = "") -> str:
    """Return goal, protocols and figures as JSON; settings also as sidecars have them."""
    goal = found.goal
    about: dict[str, Any] = {
        "rimap": __version__,
        "command": command,
        "sequence": goal.sequence,
        "map": found.best.model.main.name,
        "range_ms": list(goal.T_ms),
        "minutes": found.minutes,
        "snr": goal.snr,
        "noise": goal.noise,
        "criterion": goal.criterion,
        "field": None if goal.field is None else {"name": goal.field.name, "treatment": goal.field_treatment},
        "scan_time": scan_time_of(goal),
        "notes": list(found.notes),
        "best": _protocol(found.best),
        "present": None if found.present is None else _protocol(found.present),
    }
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def _protocol(protocol: Protocol) -> dict[str, Any]:
    model = protocol.model
    known = {
        setting.name: getattr(model, setting.name)
        for setting in model.settings.values()
        if getattr(model, setting.name) is not None
    }
    sidecars = [
        {s.sidecar_field: s.in_sidecar(v) for s, v in zip(columns_of(protocol), row)} for row in images_of(protocol)
    ]
    return {
        "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()},
        "sidecars": sidecars,
        "averages": protocol.averages,
        "minutes": protocol.minutes * protocol.averages,
        "worst_sd_percent": _finite(100 * protocol.worst),
        "mean_sd_percent": _finite(100 * protocol.mean),
        "snr_of_brightest_image": protocol.snr,
    }


def _finite(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


__all__ = ["REPETITION_TIME", "as_json", "precision_tsv", "protocol_tsv", "text_of", "with_unit"]
