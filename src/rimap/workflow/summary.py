"""The summary of a run in words, on one screen."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.advice import note, ordered

if TYPE_CHECKING:
    from rimap.workflow.mapping import Run
    from rimap.workflow.transmit_field import FieldMap
    from rimap.workflow.writing import Result

#: Rows of a table on a screen: more are in the files.
_MOST_ROWS = 40


def lines(run: Run) -> list[str]:
    """Return the summary of a run: medians, quality flags, noise and estimator, without warnings and notes."""
    text = [line for field in run.fields for line in _field(field)]
    if len(run.results) == 1:
        text += _one(run.results[0], run.seconds)
    elif run.results:
        text += _several(run.results, run.request.out, run.seconds)
    return text


def kept(run: Run) -> list[str]:
    """Return a line about the series whose maps existed already, if there are any."""
    if not run.kept:
        return []
    shown = ", ".join(run.kept[:4]) + (f" and {len(run.kept) - 4} more" if len(run.kept) > 4 else "")
    return [f"kept {shown}: same settings and inputs as before (--overwrite recomputes)"]


def warnings(results: Sequence[Result]) -> list[str]:
    """Return each warning once, with the number of series it applies to, the most important first."""
    return _told("warning:", [warning for result in results for warning in result.warnings], len(results))


def notes(results: Sequence[Result]) -> list[str]:
    """Return each note once, with the number of series it applies to."""
    return _told("note:", notes_in_short(results), len(results))


def notes_in_short(results: Sequence[Result]) -> list[str]:
    """Return the notes of all series.

    For several series, decisions are without their figures, which differ, and the resolution is that of all series with
    the same main map.
    """
    from rimap.evaluation.resolution import in_short
    from rimap.map_display import shown_name
    from rimap.workflow.writing import RESOLUTION

    found: list[str] = []
    for result in results:
        decided = result.decision
        for text in result.notes:
            if text.startswith(RESOLUTION) and len(results) > 1:
                alike = [other.kept for other in results if other.main == result.main]
                found.append(note(f"{RESOLUTION}{in_short(alike, shown_name(result.main))}"))
                continue
            few = decided is None or text != decided.text or len(results) == 1
            found.append(text if few or decided is None else note(f"{decided.short}."))
    return found


def about_inputs(run: Run) -> list[str]:
    """Return a line about each group of images that belong to no series, unless a note of a series covers them."""
    told = {w for result in run.results for w in (*result.warnings, *result.notes)}
    return [wrapped("note:", text) for text in run.notes if text not in told]


def _told(label: str, texts: Sequence[str], n_series: int) -> list[str]:
    counts = Counter(texts)
    return [
        wrapped(label, text + (f" ({counts[text]} of {n_series} series)" if n_series > 1 else ""))
        for text in ordered(texts)
    ]


def in_a_line(r: Result) -> str:
    """Return the main figures of a series, and its estimator."""
    from rimap.report.number_formats import number

    s, unit = r.statistics[r.main], r.units[r.main]
    if not math.isfinite(s.median):
        return f"{r.titles[r.main]}: no voxel has a value, by {r.estimator.split(' – ')[0]} in {r.seconds:.1f} s"
    return (
        f"{r.titles[r.main]} {number(s.median)} {unit} ({number(s.q25)}–{number(s.q75)}), {100 * r.share_ok:.1f} % ok, "
        f"by {r.estimator.split(' – ')[0]} in {r.seconds:.1f} s"
    )


def _field(field: FieldMap) -> Iterator[str]:
    low, middle, high = field.quartiles
    made = "made earlier from the same files" if field.kept else f"made by {field.method}"
    yield f"{field.label}: B1 median {middle:.2f} ({low:.2f}–{high:.2f}), {made}"
    yield f"  {'map':<10} {field.path}"


def _one(r: Result, seconds: float) -> Iterator[str]:
    from rimap.report.number_formats import number

    yield f"{r.label}: {r.title.lower()}, {r.n_images} images of {' × '.join(map(str, r.shape))}"
    without = ("NO_SIGNAL", "NOT_FINITE", "OUTSIDE_MASK")
    valued = sum(n for status, n in r.count.items() if status.name not in without)
    for name in (r.main, *(statistic for statistic in reversed(list(r.statistics)) if statistic != r.main)):
        s, unit = r.statistics[name], f" {r.units[name]}" if r.units[name] else ""
        if name in r.known and s.q25 == s.q75:
            yield f"  {r.titles[name]:<10} {number(s.median)}{unit}, known and not estimated"
            continue
        if not math.isfinite(s.median):
            yield f"  {r.titles[name]:<10} no voxel has a value, {r.where}"
            continue
        values = f"median {number(s.median)}{unit}, IQR {number(s.q25)}–{number(s.q75)}{unit}"
        if 2 * s.n < valued:  # the others have a flag that says not to rely on them
            values += f", of {s.n:,} of {valued:,} voxels with a value"
        yield f"  {r.titles[name]:<10} {values}, {f'known, {r.where}' if name in r.known else r.where}"
    yield wrapped("  voxels", voxels(r))
    yield wrapped("  noise", r.noise)
    yield wrapped("  estimator", f"{r.estimator} ({r.choice})")
    rate = sum(value for s, value in r.count.items() if s.name != "OUTSIDE_MASK") / max(r.seconds, 1e-9)
    compiling = f", compiling {r.compiling:.1f} s (once for this installation)" if r.compiling > 0.1 else ""
    yield f"  {'time':<10} {seconds:.1f} s; mapping {r.seconds:.1f} s, {rate:,.0f} voxels/s{compiling}"
    yield f"  {'maps':<10} {r.maps[0].parent}{_separator(r.maps[0].parent)}"
    names = [map_.name for map_ in r.maps if map_.name.endswith((".nii", ".nii.gz"))]
    for line in textwrap.wrap("  ".join(names), 96, break_long_words=False, break_on_hyphens=False):
        yield f"  {'':<10}   {line}"
    yield f"  {'report':<10} {r.report}"
    if r.roi_file:
        yield f"  {'regions':<10} {r.roi_file}"
        yield from _table(r.rois, r.titles, r.units)


def _several(results: Sequence[Result], out: Path, seconds: float) -> Iterator[str]:
    width = max(len(result.label) for result in results)
    shown = results if len(results) <= _MOST_ROWS else results[: _MOST_ROWS - 1]
    for r in shown:
        yield f"{r.label:<{width}}  {in_a_line(r)}"
        if r.rois:
            yield from _table(r.rois, r.titles, r.units)
    if len(shown) < len(results):
        yield f"… and {len(results) - len(shown)} more"
    yield f"Medians (quartiles) and shares are {', '.join(dict.fromkeys(result.where for result in results))}."
    for estimator, choice in dict.fromkeys((result.estimator, result.choice) for result in results):
        yield wrapped("estimator", f"{estimator} ({choice})")
    yield f"{len(results)} series in {seconds:.1f} s. Maps and a report (.html) each: {out}{_separator(out)}"


def voxels(r: Result) -> str:
    """Return the number of voxels of each quality flag in words."""
    inside = sum(value for s, value in r.count.items() if s.name != "OUTSIDE_MASK")
    parts = []
    for s, value in r.count.items():
        name = s.name.lower().replace("_", " ")
        parts.append(
            f"{value:,} {name}" + ("" if s.name == "OUTSIDE_MASK" else f" ({100 * value / max(inside, 1):.1f} %)")
        )
    return ", ".join(parts)


def _table(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], units: Mapping[str, str]) -> Iterator[str]:
    from rimap.report.number_formats import number

    maps = {row["map"]: f"{titles[row['map']]}, {units[row['map']]}".removesuffix(", ") for row in rows}
    width = 1 + max(map(len, maps.values()))
    yield f"    {'label':>6} {'map':<{width}}{'n':>9}{'median':>9}{'IQR':>8}{'mean':>9}{'SD':>8}"
    for row in rows[:_MOST_ROWS]:
        figures = (
            f"{number(row['median'], 4):>9}{number(row['iqr']):>8}{number(row['mean'], 4):>9}{number(row['sd']):>8}"
        )
        yield f"    {row['label']:>6} {maps[row['map']]:<{width}}{row['n']:>9,}{figures}   {row['name']}".rstrip()
    if len(rows) > _MOST_ROWS:
        yield f"    … and {len(rows) - _MOST_ROWS} more in the table"


def wrapped(label: str, text: str) -> str:
    """Return a label and a text whose further lines are indented."""
    return textwrap.fill(text, 100, initial_indent=f"{label:<12} ", subsequent_indent=" " * 13, break_on_hyphens=False)


def _separator(path: Path) -> str:
    return "" if str(path).endswith("/") else "/"
