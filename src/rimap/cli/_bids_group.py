"""`rimap bids … group`: one page and one table over all subjects of OUT."""

from __future__ import annotations

import contextlib
import csv
import shlex
import time
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.cli._bids_app import FAILED, App, check, say_failures
from rimap.cli._bids_work import Failure, attempt, team
from rimap.cli._written import label_names, tsv
from rimap.errors import InputError, count_of

if TYPE_CHECKING:
    from rimap.report.group import MainMap, Row

#: Of the files that are written.
STEM = "group"
_IGNORED = (f"{STEM}.*", FAILED)


@dataclass(frozen=True)
class Figures:
    """The rows of one map, as they come back from a worker."""

    rows: Sequence[Row]


def group(app: App) -> None:
    """Write ``group.html``, ``group.tsv`` and ``group.json`` into OUT.

    Raises
    ------
    InputError
        Where there is no map, or the figures of some could not be had: those of the others are written.
    """
    from rimap.io import write_whole
    from rimap.io.provenance import to_json
    from rimap.report.group import columns, main_maps, page, with_outliers

    started, request = time.perf_counter(), app.request
    options, out = check(app), request.out
    maps = main_maps(out, subjects=request.participant_labels, sessions=request.sessions, estimator=request.estimator)
    if not maps:
        of = f" of {request.estimator}" if request.estimator else ""
        raise InputError(f"{out} holds no T1 or T2 map{of}. Make them first: rimap bids {app.data} {out} participant.")
    found: dict[Path, Sequence[Row]] = {}
    failures: list[Failure] = []
    with contextlib.closing(_figures(app, options, maps)) as coming:
        for main, outcome in coming:
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                found[main.path] = outcome.rows
    rows = with_outliers([row for main in maps for row in found.get(main.path, ())])
    if rows:
        html = page(
            rows,
            title=_title(out),
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            command=shlex.join(["rimap", *request.command]),
            failed=[*_failed(out), *({"series": f.label, "reason": f.reason} for f in failures)],
        )
        write_whole(out / f"{STEM}.tsv", tsv(rows))
        write_whole(out / f"{STEM}.json", to_json(columns()))
        write_whole(out / f"{STEM}.html", html)
        _ignore(out)
        if not request.quiet:
            _say(rows, out, time.perf_counter() - started)
    say_failures(failures, len(maps))


def _figures(
    app: App, options: Any, maps: Sequence[MainMap]
) -> Generator[tuple[MainMap, Figures | Failure], None, None]:
    with team(replace(app, nprocs=app.nprocs or _few(len(maps))), options, len(maps)) as crew:
        if crew.executor is None:
            yield from ((m, attempt(m.label, partial(figures, app.masks, app.rois, m))) for m in maps)
            return
        futures = {crew.executor.submit(figures, app.masks, app.rois, m): m for m in maps}
        for future in as_completed(futures):
            yield futures[future], attempt(futures[future].label, future.result)


def _few(n: int) -> int:
    """Return how many processes are worth their start, where the user does not say."""
    from rimap.parallel import cores

    return max(1, min(cores(), n // 20))


def figures(masks: Path | None, rois: Path | None, main: MainMap) -> Figures:
    """Return the rows of one map: over its labels, else over its mask; a dseg beside the map is taken by itself."""
    from rimap.io.beside import image_for
    from rimap.report.group import rows_of

    where = partial(image_for, entities={**main.entities, "map": main.name}, label=main.label)
    labels = mask = None
    if rois is not None:
        labels = where(rois, suffixes=("dseg",), option="--rois")
    elif masks is not None:
        mask = where(masks, suffixes=("mask",), option="--mask", prefer="brain")
    elif any(main.path.parent.glob(f"sub-{main.entities['sub']}*_dseg.nii*")):
        labels = where(main.path.parent, suffixes=("dseg",), option="beside the map")
    return Figures(rows_of(main, labels=labels, names=label_names(labels), mask=mask))


def _title(out: Path) -> str:
    from rimap.io.bids import read_json

    path = out / "dataset_description.json"
    return str(read_json(path).get("Name", out.resolve().name)) if path.is_file() else out.resolve().name


def _failed(out: Path) -> list[dict[str, str]]:
    """Return the rows of the table of what has no map."""
    try:
        with (out / FAILED).open(encoding="utf-8", newline="") as file:
            return [{"series": r["series"], "reason": r["reason"]} for r in csv.DictReader(file, delimiter="\t")]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        return []


def _ignore(out: Path) -> None:
    """Tell validators to pass over what BIDS has no name for."""
    from rimap.io import write_whole

    path = out / ".bidsignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if missing := [x for x in _IGNORED if x not in lines]:
        write_whole(path, "\n".join([*lines, *missing]) + "\n")


def _say(rows: Sequence[Row], out: Path, seconds: float) -> None:
    import numpy as np

    from rimap.report.numbers import number

    regions: dict[tuple[str, Any, str], list[Row]] = {}
    for r in rows:
        regions.setdefault((r["map"], r["region"], r["name"]), []).append(r)
    for (name, region, title), members in list(regions.items())[:40]:
        values = np.array([r["median"] for r in members])
        values = values[np.isfinite(values)]
        q = np.quantile(values, [0.25, 0.5, 0.75]) if values.size else np.full(3, np.nan)
        print(
            f"{name} {region} {title}".rstrip(),
            f" median {number(q[1])} ms (quartiles {number(q[0])}–{number(q[2])} of {count_of(len(values), 'map')})",
        )
    if len(regions) > 40:
        print(f"… and {len(regions) - 40} more regions")
    out_of = Counter(r["series"] for r in rows if r["outlier"])
    if out_of:
        shown = ", ".join(list(out_of)[:8]) + (f" and {len(out_of) - 8} more" if len(out_of) > 8 else "")
        print(f"outliers  {shown}")
    print(
        f"{count_of(len({r['series'] for r in rows}), 'map')} in {seconds:.1f} s: {out / STEM}.html, {STEM}.tsv, {STEM}.json"
    )
