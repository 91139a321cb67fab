"""Map every series of a data set that is not finished."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rimap.errors import InputError
from rimap.workflow.bids.app import App, check, own_request
from rimap.workflow.bids.execution import Task, run
from rimap.workflow.bids.failures import FAILED, forget, subject_record, write_failed
from rimap.workflow.bids.outcome import Failure, Outcome, in_one_line
from rimap.workflow.checks import as_decided, check_request, record_for
from rimap.workflow.estimator_choice import estimator_of, sequence_named
from rimap.workflow.listener import SILENT, Listener
from rimap.workflow.model_choice import settled
from rimap.workflow.request import Request
from rimap.workflow.summary import in_a_line
from rimap.workflow.writing import Result

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.io.series_records import Record
    from rimap.workflow.transmit_field import FieldMap


@dataclass(frozen=True, kw_only=True)
class DatasetRun:
    """The result of `participant`.

    Parameters
    ----------
    out
        The folder of the maps.
    results
        The series that were mapped.
    fields
        The maps of B1 that were made first, or that existed already.
    failures
        The series and subjects that were not mapped.
    found
        Number of series in the data set.
    kept
        Labels of the series that an earlier run finished.
    seconds
        Total time, s.
    """

    out: Path
    results: tuple[Result, ...]
    fields: tuple[FieldMap, ...]
    failures: tuple[Failure, ...]
    found: int
    kept: tuple[str, ...]
    seconds: float

    @property
    def table(self) -> Path:
        """The table of failures."""
        return self.out / FAILED


def participant(app: App, listener: Listener = SILENT) -> DatasetRun:
    """Map every series that is not finished. If one fails, the others are mapped nevertheless.

    Raises
    ------
    InputError
        If no series can be mapped. Single failures are listed in the result and in a table in OUT.
    """
    from rimap.io.run_lock import locked, remove_leftovers
    from rimap.io.write_claims import check_claims

    started = time.perf_counter()
    request = replace(app.request, sequence=sequence_named(app.request.sequence))
    app = replace(app, request=request)
    options = check(app)
    found, failures = _find(request, listener)
    check_request(request, found)
    subjects = sorted({f"sub-{f.entities['sub']}" for f in found} | {failure.label.split()[0] for failure in failures})
    with locked(request.out, subjects if request.participant_labels else ()), _scratch(app.work_dir):
        found, fields = _with_fields(app, found, failures, listener)
        todo, kept, outcomes = _sorted(app, found)
        forget(request.out, subjects)
        for failure in failures:
            subject_record(request.out, failure.label).fail(_written(app, failure.reason))
        results: list[Result] = []
        with contextlib.closing(run(app, options, todo, listener)) as coming:
            for n, (files, outcome) in enumerate(itertools.chain(outcomes, coming), start=1):
                position = f"[{n}/{len(todo) + len(outcomes)}] {outcome.label}"
                if isinstance(outcome, Result):
                    results.append(outcome)
                    listener.say(f"{position}  {in_a_line(outcome)}")
                else:
                    failures.append(outcome)
                    _record(app, files).fail(_written(app, outcome.reason))
                    listener.warn(f"{position} failed: {outcome.reason}")
        check_claims(request.out)
        if todo:
            remove_leftovers(request.out, subjects if request.participant_labels else ())  # of killed processes
        write_failed(request.out)
    return DatasetRun(
        out=request.out,
        results=tuple(results),
        fields=tuple(fields),
        failures=tuple(failures),
        found=len(found),
        kept=tuple(kept),
        seconds=time.perf_counter() - started,
    )


def _with_fields(
    app: App, found: Sequence[SeriesFiles], failures: list[Failure], listener: Listener
) -> tuple[list[SeriesFiles], list[FieldMap]]:
    """Make maps of B1 in OUT, and return the series, which now use them, and the maps. Refused scans are added to
    `failures`.
    """
    from rimap.io.b1 import find_b1
    from rimap.workflow.transmit_field import make_maps

    request = app.request
    scans = find_b1(app.data, participant_labels=request.participant_labels, sessions=request.sessions)
    if not scans:
        return list(found), []
    fields, refused = make_maps(request, scans, found, listener)
    failures += [Failure(label, in_one_line(error)) for label, error in refused]
    return [replace(files, field_maps=(request.out,)) for files in found], fields


def _find(request: Request, listener: Listener) -> tuple[list[SeriesFiles], list[Failure]]:
    """Return all series, and the subjects or series whose files are unusable. Report files that belong to no series."""
    from rimap.io.series_search import find

    root = request.inputs[0]
    found = find(
        root,
        participant_labels=request.participant_labels,
        sessions=request.sessions,
        runs=request.runs,
        sequence=request.sequence,
    )
    if loose := [f.label for f in found.series if "sub" not in f.entities]:
        raise InputError(f"{root}: expected series of subjects (sub-…), got {loose[0]}. Map it with `rimap map`.")
    for text in found.notes:
        listener.say(f"note: {text}")
    return list(found.series), [Failure(label, in_one_line(error)) for label, error in found.refused]


def _sorted(app: App, found: Sequence[SeriesFiles]) -> tuple[list[Task], list[str], list[Outcome]]:
    """Return the series to map, the labels of those that are finished, and those that cannot be mapped.

    Raises
    ------
    InputError
        If the maps cannot be written to OUT, or if maps with other settings exist and `overwrite` is false.
    """
    from rimap import __version__
    from rimap.io import check_output
    from rimap.io.write_claims import claims_on

    todo: list[Task] = []
    kept: list[str] = []
    other: list[str] = []
    unfit: list[Outcome] = []
    for files in found:
        try:
            request = own_request(app, files)
            decided = as_decided(request, files)
            record = record_for(decided, files)
            state = "overwrite" if request.overwrite else record.state()
        except InputError as error:
            unfit.append((files, Failure(files.label, in_one_line(error))))
            continue
        if state == "finished":
            kept.append(files.label)
            record.forgive()
            continue
        if state == "different":
            other.append(f"{files.label}: {'; '.join(record.differences())[:200]}")
        elif state in ("none", "failed"):
            try:
                check_output(
                    [files], request.out, estimator=estimator_of(decided, files).name, sequence=decided.sequence
                )
            except InputError as error:
                other.append(in_one_line(error))
        todo.append(Task(request, files, __version__, claims_on(request.out)))
    if other:
        raise InputError(
            f"{len(other)} of {len(found)} series already have maps with other settings in {app.request.out} "
            f"({other[0]}). Replace "
            "them with --overwrite, or give another OUT_DIR."
        )
    return todo, kept, unfit


def _written(app: App, reason: str) -> str:
    """Return a reason as it is written to files: without the folders in it."""
    from rimap.io.path_redaction import without_folders

    return without_folders(reason, [app.data, app.request.out])


def _record(app: App, files: SeriesFiles) -> Record:
    """Return the record of a series, an empty one if its settings cannot be read."""
    from rimap.io.series_records import blank_record

    try:
        request = own_request(app, files)
        known = settled(request, files)
        return record_for(request if known is None else known[0], files)
    except InputError:
        return blank_record(files, app.request.out, estimator_of(app.request, files).name)


@contextlib.contextmanager
def _scratch(folder: Path | None) -> Iterator[None]:
    """Store temporary files in a folder, for this process and those that it starts."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    try:
        yield
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
