"""One page and one table over all subjects of OUT."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
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
from rimap.workflow.bids.workers import team
from rimap.workflow.listener import SILENT, Listener
from rimap.workflow.region_names import label_names, tsv
from rimap.workflow.writing import written_command

if TYPE_CHECKING:
    from rimap.report.main_maps import MainMap, Row
    from rimap.report.thumbnails import Thumbnail

#: Stem of the files that are written, and of the combined table of regions.
STEM = "group"
REGIONS = f"{STEM}_rois"
_IGNORED = (f"{STEM}.*", f"{REGIONS}.*", FAILED)


@dataclass(frozen=True)
class Figures:
    """The rows of one map, as a worker returns them.

    Parameters
    ----------
    rows
        The row of the whole map, and those of its regions if it has labels.
    table
        The table of regions, as text, from the run that made the map.
    labelled
        Whether it has labels.
    thumbnail
        Its middle slice.
    """

    rows: Sequence[Row]
    table: Sequence[Mapping[str, str]]
    labelled: bool
    thumbnail: Thumbnail


@dataclass(frozen=True, kw_only=True)
class GroupRun:
    """The result of `group`.

    Parameters
    ----------
    out
        The folder of the maps.
    rows
        Rows of the table; none if no map could be read.
    failures
        The maps that could not be read.
    found
        Number of maps.
    without_labels
        The maps that have no labels, although other maps have them or `--rois` is given.
    warnings
        Each warning about the maps, with the names of the maps that it applies to.
    has_table
        Whether a combined table of regions was written.
    seconds
        Total time, s.
    """

    out: Path
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    found: int
    without_labels: tuple[str, ...]
    warnings: tuple[tuple[str, list[str]], ...]
    has_table: bool
    seconds: float


def group(app: App, listener: Listener = SILENT) -> GroupRun:
    """Write ``group.html``, ``group.tsv`` and ``group.json`` into OUT, and one table of the regions of all series.

    Raises
    ------
    InputError
        If there is no map. Single maps that cannot be read are listed in the result.
    """
    from rimap.io import write_whole
    from rimap.io.path_redaction import without_folders
    from rimap.io.provenance import to_json
    from rimap.report.group import columns, page, warnings_of_maps, with_outliers
    from rimap.report.main_maps import main_maps, whole_table

    started, request = time.perf_counter(), app.request
    options, out = check(app), request.out
    maps = main_maps(out, subjects=request.participant_labels, sessions=request.sessions, estimator=request.estimator)
    if not maps:
        of = f" of {request.estimator}" if request.estimator else ""
        raise InputError(
            f"{out}: expected T1 or T2 maps{of}, got none. Make them first: rimap bids {app.data} {out} participant."
        )
    found: dict[Path, Figures] = {}
    failures: list[Failure] = []
    with contextlib.closing(_figures(app, options, maps, listener)) as coming:
        for main, outcome in coming:
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                found[main.path] = outcome
    there = [main for main in maps if main.path in found]
    rows = with_outliers([row for main in there for row in found[main.path].rows])
    asked = app.rois is not None or any(found[main.path].labelled for main in there)
    without = [main.series for main in there if asked and not found[main.path].labelled]
    tables = whole_table([(main, found[main.path].table) for main in there])
    if rows:
        html = page(
            rows,
            title=_title(out),
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            command=written_command(request),
            failed=[
                *read_failed(out),
                *(
                    {"series": failure.label, "reason": without_folders(failure.reason, [app.data, out])}
                    for failure in failures
                ),
            ],
            maps=there,
            pictures={main.series: found[main.path].thumbnail for main in there},
            without_labels=without,
        )
        write_whole(out / f"{STEM}.tsv", tsv(rows))
        write_whole(out / f"{STEM}.json", to_json(columns()))
        write_whole(out / f"{STEM}.html", html)
        if tables:
            write_whole(out / f"{REGIONS}.tsv", tsv(tables))
        _ignore(out)
    return GroupRun(
        out=out,
        rows=tuple(rows),
        failures=tuple(failures),
        found=len(maps),
        without_labels=tuple(without),
        warnings=tuple(warnings_of_maps(there)),
        has_table=bool(tables),
        seconds=time.perf_counter() - started,
    )


def _figures(
    app: App, options: Any, maps: Sequence[MainMap], listener: Listener
) -> Generator[tuple[MainMap, Figures | Failure], None, None]:
    out = app.request.out
    with team(replace(app, nprocs=app.nprocs or _few(len(maps))), options, len(maps), listener) as crew:
        if crew.executor is None:
            yield from (
                (map_, attempt(map_.label, partial(figures, _masks(app), app.rois, out, map_))) for map_ in maps
            )
            return
        futures = {crew.executor.submit(figures, _masks(app), app.rois, out, map_): map_ for map_ in maps}
        for future in as_completed(futures):
            yield futures[future], attempt(futures[future].label, future.result)


def _few(n: int) -> int:
    """Return how many processes are worth starting, if the user does not specify it."""
    from rimap.processors import cores

    return max(1, min(cores(), n // 20))


def _masks(app: App) -> Path | None:
    """Return the path of the masks, `None` for foreground masks (the default)."""
    return app.masks if isinstance(app.masks, Path) else None


def figures(masks: Path | None, rois: Path | None, out: Path, main: MainMap) -> Figures:
    """Return the rows of one map: over its mask or foreground, then over its labels.

    The labels are those of `rois`, or else those of the run that made the map, with the numbers of its table, or else
    those of a dseg image next to the map. A map without labels has only the row of the whole.
    """
    from rimap.io.companion_images import NoImage, image_for
    from rimap.report.main_maps import contents_of, read_table, rows_of, rows_of_table
    from rimap.report.thumbnails import Thumbnail

    where = partial(image_for, entities={**main.entities, "map": main.name}, label=main.label)
    mask = None if masks is None else where(masks, suffixes=("mask",), option="--mask", prefer="brain")
    contents = contents_of(main, mask=mask)
    thumbnail = Thumbnail.of(contents)
    path = main.table(out)
    table = read_table(path) if path.is_file() else []
    if rois is None and table:
        rows = [*rows_of(main, contents=contents), *rows_of_table(main, table)]
        return Figures(rows, table, True, thumbnail)
    labels = None
    if rois is not None:
        with contextlib.suppress(NoImage):
            labels = where(rois, suffixes=("dseg",), option="--rois")
    elif any(main.path.parent.glob(f"sub-{main.entities['sub']}*_dseg.nii*")):
        labels = where(main.path.parent, suffixes=("dseg",), option="beside the map")
    rows = rows_of(main, labels=labels, names=label_names(labels), contents=contents)
    return Figures(rows, table, labels is not None, thumbnail)


def _title(out: Path) -> str:
    from rimap.io.bids import read_json

    path = out / "dataset_description.json"
    return str(read_json(path).get("Name", out.resolve().name)) if path.is_file() else out.resolve().name


def _ignore(out: Path) -> None:
    """Make validators ignore files that BIDS does not define."""
    from rimap.io import write_whole

    path = out / ".bidsignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if missing := [x for x in _IGNORED if x not in lines]:
        write_whole(path, "\n".join([*lines, *missing]) + "\n")
