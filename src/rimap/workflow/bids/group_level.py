"""One page and one table over all subjects of OUT."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Generator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.errors import InputError
from rimap.workflow.bids.app import App, check
from rimap.workflow.bids.failures import FAILED, read_failed
from rimap.workflow.bids.outcome import Failure, attempt
from rimap.workflow.bids.team import team
from rimap.workflow.listener import SILENT, Listener
from rimap.workflow.regions import label_names, tsv

if TYPE_CHECKING:
    from rimap.report.group import MainMap, Row

#: Of the files that are written.
STEM = "group"
_IGNORED = (f"{STEM}.*", FAILED)


@dataclass(frozen=True)
class Figures:
    """The rows of one map, as they come back from a worker."""

    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class GroupRun:
    """What `group` did.

    Parameters
    ----------
    out
        The folder of the maps.
    rows
        Of the table; none if no map could be read.
    failures
        The maps that could not be read.
    found
        How many maps there are.
    seconds
        Time that all of it took.
    """

    out: Path
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    found: int
    seconds: float


def group(app: App, listener: Listener = SILENT) -> GroupRun:
    """Write ``group.html``, ``group.tsv`` and ``group.json`` into OUT.

    Raises
    ------
    InputError
        If there is no map. Single maps that cannot be read are in the result.
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
    with contextlib.closing(_figures(app, options, maps, listener)) as coming:
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
            command=shlex.join(["rimap", *request.command]) if request.command else "",
            failed=[*read_failed(out), *({"series": f.label, "reason": f.reason} for f in failures)],
        )
        write_whole(out / f"{STEM}.tsv", tsv(rows))
        write_whole(out / f"{STEM}.json", to_json(columns()))
        write_whole(out / f"{STEM}.html", html)
        _ignore(out)
    return GroupRun(
        out=out,
        rows=tuple(rows),
        failures=tuple(failures),
        found=len(maps),
        seconds=time.perf_counter() - started,
    )


def _figures(
    app: App, options: Any, maps: Sequence[MainMap], listener: Listener
) -> Generator[tuple[MainMap, Figures | Failure], None, None]:
    with team(replace(app, nprocs=app.nprocs or _few(len(maps))), options, len(maps), listener) as crew:
        if crew.executor is None:
            yield from ((m, attempt(m.label, partial(figures, app.masks, app.rois, m))) for m in maps)
            return
        futures = {crew.executor.submit(figures, app.masks, app.rois, m): m for m in maps}
        for future in as_completed(futures):
            yield futures[future], attempt(futures[future].label, future.result)


def _few(n: int) -> int:
    """Return how many processes are worth their start, if the user does not specify it."""
    from rimap.parallel import cores

    return max(1, min(cores(), n // 20))


def figures(masks: Path | None, rois: Path | None, main: MainMap) -> Figures:
    """Return the rows of one map: over its labels, else over its mask. A dseg beside the map is used by default."""
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


def _ignore(out: Path) -> None:
    """Make validators ignore the files that BIDS has no name for."""
    from rimap.io import write_whole

    path = out / ".bidsignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if missing := [x for x in _IGNORED if x not in lines]:
        write_whole(path, "\n".join([*lines, *missing]) + "\n")
