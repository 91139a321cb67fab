"""What is said at the end: one screen."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rimap.cli._request import Request
    from rimap.cli._written import Result

_MOST_ROWS = 40


def print_summary(results: Sequence[Result], request: Request, seconds: float) -> None:
    """Print the summary to standard output; warnings to standard error where the rest is not wanted."""
    if not results:
        return
    if not request.quiet:
        if len(results) == 1:
            _one(results[0], seconds)
        else:
            _several(results, request, seconds)
    for text, n in Counter(w for r in results for w in r.warnings).items():
        where = f" ({n} of {len(results)} series)" if len(results) > 1 else ""
        print(_wrapped("warning:", text + where), file=sys.stderr if request.quiet else sys.stdout)


def _one(r: Result, seconds: float) -> None:
    from rimap.report.numbers import number

    print(f"{r.label}: {r.title.lower()}, {r.n_images} images of {' × '.join(map(str, r.shape))}")
    for name, s in reversed(list(r.statistics.items())):
        unit = "" if r.units[name] == "1" else f" {r.units[name]}"
        print(f"  {name:<10} median {number(s.median)}{unit}, IQR {number(s.q25)}–{number(s.q75)}{unit}, {r.where}")
    print(_wrapped("  voxels", voxels(r)))
    print(_wrapped("  noise", r.noise))
    print(_wrapped("  estimator", f"{r.estimator} ({r.choice})"))
    rate = sum(n for s, n in r.count.items() if s.name != "OUTSIDE_MASK") / max(r.seconds, 1e-9)
    compiling = f", compiling {r.compiling:.1f} s (once for this installation)" if r.compiling > 0.1 else ""
    print(f"  {'time':<10} {seconds:.1f} s; mapping {r.seconds:.1f} s, {rate:,.0f} voxels/s{compiling}")
    print(f"  {'maps':<10} {r.maps[0].parent}{_separator(r.maps[0].parent)}")
    for line in _columns([m.name for m in r.maps if m.name.endswith((".nii", ".nii.gz"))]):
        print(f"  {'':<10}   {line}")
    print(f"  {'report':<10} {r.report}")
    if r.roi_file:
        print(f"  {'regions':<10} {r.roi_file}")
        _table(r.rois)


def _several(results: Sequence[Result], request: Request, seconds: float) -> None:
    from rimap.report.numbers import number

    width = max(len(r.label) for r in results)
    shown = results if len(results) <= _MOST_ROWS else results[: _MOST_ROWS - 1]
    for r in shown:
        name, s = list(r.statistics.items())[-1]
        print(
            f"{r.label:<{width}}  {name} {number(s.median)} {r.units[name]} ({number(s.q25)}–{number(s.q75)}), "
            f"{100 * r.share_ok:.1f} % ok, {r.seconds:.1f} s"
        )
        if r.rois:
            _table(r.rois)
    if len(shown) < len(results):
        print(f"… and {len(results) - len(shown)} more")
    print(f"Medians (quartiles) and shares are {', '.join(dict.fromkeys(r.where for r in results))}.")
    for estimator, choice in dict.fromkeys((r.estimator, r.choice) for r in results):
        print(_wrapped("estimator", f"{estimator} ({choice})"))
    print(
        f"{len(results)} series in {seconds:.1f} s. Maps and a report (.html) each: {request.out}{_separator(request.out)}"
    )


def voxels(r: Result) -> str:
    """Return the number of voxels of each status in words."""
    inside = sum(n for s, n in r.count.items() if s.name != "OUTSIDE_MASK")
    parts = []
    for s, n in r.count.items():
        name = s.name.lower().replace("_", " ")
        parts.append(f"{n:,} {name}" + ("" if s.name == "OUTSIDE_MASK" else f" ({100 * n / max(inside, 1):.1f} %)"))
    return ", ".join(parts)


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rimap.report.numbers import number

    print(f"    {'label':>6} {'map':<4}{'n':>9}{'median':>9}{'IQR':>8}{'mean':>9}{'SD':>8}   ms")
    for row in rows[:_MOST_ROWS]:
        figures = (
            f"{number(row['median'], 4):>9}{number(row['iqr']):>8}{number(row['mean'], 4):>9}{number(row['sd']):>8}"
        )
        print(f"    {row['label']:>6} {row['map']:<4}{row['n']:>9,}{figures}   {row['name']}".rstrip())
    if len(rows) > _MOST_ROWS:
        print(f"    … and {len(rows) - _MOST_ROWS} more in the table")


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(text, 100, initial_indent=f"{label:<12} ", subsequent_indent=" " * 13, break_on_hyphens=False)


def _columns(names: Sequence[str]) -> list[str]:
    return textwrap.wrap("  ".join(names), 96, break_long_words=False, break_on_hyphens=False)


def _separator(path: Path) -> str:
    return "" if str(path).endswith("/") else "/"
