"""Summaries of runs of the BIDS App in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.advice import ordered
from rimap.errors import count_of
from rimap.workflow.bids.failures import FAILED, read_failed
from rimap.workflow.bids.group_level import REGIONS, STEM
from rimap.workflow.bids.outcome import Failure
from rimap.workflow.summary import notes_in_short

if TYPE_CHECKING:
    from rimap.report.main_maps import Row
    from rimap.workflow.bids.group_level import GroupRun
    from rimap.workflow.bids.participant_level import DatasetRun
    from rimap.workflow.writing import Result

#: Rows of a table on a screen: more are in the files.
_MOST_REGIONS, _MOST_OUTLIERS = 40, 8


def of_participants(run: DatasetRun) -> Iterator[str]:
    """Yield the number of series that were mapped, and of those that an earlier run had finished."""
    if new := sum(not field.kept for field in run.fields):
        yield f"{count_of(new, 'map')} of B1 made first"
    if run.kept:
        n = len(run.kept)
        yield f"{n} series {'was' if n == 1 else 'were'} already finished (--overwrite recomputes)"
    if run.results:
        yield f"{len(run.results)} series mapped in {run.seconds:.1f} s: {run.out}"
        for estimator, n in Counter(result.estimator for result in run.results).items():
            yield f"  {n} by {estimator}"


def warnings(results: Sequence[Result]) -> Iterator[str]:
    """Yield each warning in one line, with the number of series it applies to, the most important first; then the
    notes.
    """
    for label, texts in (
        ("warning", [warning for result in results for warning in result.warnings]),
        ("note", notes_in_short(results)),
    ):
        counts = Counter(texts)
        for text in ordered(texts):
            yield f"{label}: {text} ({counts[text]} of {len(results)} series)"


def of_group(run: GroupRun) -> Iterator[str]:
    """Yield the median of each region over all maps, the outliers and the files."""
    import numpy as np

    from rimap.map_display import shown_name
    from rimap.report.number_formats import number
    from rimap.signals.settings import unit_symbol

    if not run.rows:
        return
    regions: dict[tuple[str, Any, str], list[Row]] = {}
    for row in run.rows:
        regions.setdefault((row["map"], row["region"], row["name"]), []).append(row)
    for (name, region, title), members in list(regions.items())[:_MOST_REGIONS]:
        values = np.array([member["median"] for member in members])
        values = values[np.isfinite(values)]
        q = np.quantile(values, [0.25, 0.5, 0.75]) if values.size else np.full(3, np.nan)
        quartiles = f"(quartiles {number(q[0])}–{number(q[2])} of {count_of(len(values), 'map')})"
        median = f"{number(q[1])} {unit_symbol(members[0]['unit'])}".rstrip()
        yield f"{f'{shown_name(name)} {region} {title}'.rstrip()}  median {median} {quartiles}"
    if len(regions) > _MOST_REGIONS:
        yield f"… and {len(regions) - _MOST_REGIONS} more regions"
    outliers = list(Counter(row["series"] for row in run.rows if row["outlier"]))
    if outliers:
        more = f" and {len(outliers) - _MOST_OUTLIERS} more" if len(outliers) > _MOST_OUTLIERS else ""
        yield f"outliers  {', '.join(outliers[:_MOST_OUTLIERS])}{more}"
    n = len({row["series"] for row in run.rows})
    of = Counter(r["estimator"] for r in {row["series"]: row for row in run.rows}.values())
    counts = [f"{name} ({count_of(value, 'map')})" for name, value in of.items()]
    yield f"estimators  {', '.join(counts)}"
    files = [f"{run.out / STEM}.html", f"{STEM}.tsv", f"{STEM}.json", *([f"{REGIONS}.tsv"] if run.has_table else [])]
    yield f"{count_of(n, 'map')} in {run.seconds:.1f} s: {', '.join(files)}"


def warnings_of_group(run: GroupRun) -> Iterator[str]:
    """Yield each warning about the maps with the number of maps it applies to, and the maps without labels."""
    n = len({row["series"] for row in run.rows})
    for text, names in run.warnings:
        yield f"warning: {text} ({len(names)} of {count_of(n, 'map')})"
    if failed := [row["series"] for row in read_failed(run.out)]:
        further = f" and {len(failed) - _MOST_OUTLIERS} more" if len(failed) > _MOST_OUTLIERS else ""
        yield f"warning: without a map, as they failed: {', '.join(failed[:_MOST_OUTLIERS])}{further} ({FAILED})"
    if run.without_labels:
        shown = ", ".join(run.without_labels[:_MOST_OUTLIERS])
        more = len(run.without_labels) - _MOST_OUTLIERS
        yield (
            "warning: the table has no regions for maps without labels: "
            f"{shown}{f' and {more} more' if more > 0 else ''}"
        )


def of_failures(failures: Sequence[Failure]) -> Iterator[str]:
    """Yield a line for each failure."""
    width = max((len(failure.label) for failure in failures), default=0)
    if failures:
        yield "\nfailed:"
    yield from (f"  {failure.label:<{width}}  {failure.reason}" for failure in failures)


def conclusion(failures: Sequence[Failure], n: int, table: Path | None = None) -> str:
    """Return how many of `n` series failed, and the path of the table of failures."""
    where = f". The reasons are in {table}" if table else ""
    return f"{len(failures)} of {max(n, len(failures))} series failed{where}."
