"""What `rimap bids` does: every series of a data set, those that are finished left out; then what failed."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rimap.cli._bids_work import Failure, Outcome, Task, line, run
from rimap.cli._options import one_of
from rimap.cli._request import Request, check_request, estimator_of, record_for, sequences
from rimap.cli._written import Result, tsv
from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.io.records import Record
    from rimap.parallel.cluster import ClusterOptions

#: What failed and why, in OUT.
FAILED = "failed.tsv"


@dataclass(frozen=True, kw_only=True)
class App:
    """What was asked for beside the options of `rimap map`; see the help of `rimap bids`."""

    request: Request
    masks: Path | None = None
    rois: Path | None = None
    nprocs: int | None = None
    work_dir: Path | None = None
    scheduler: str | None = None
    cluster: str | None = None
    cluster_options: Path | None = None
    validate: bool = True

    @property
    def data(self) -> Path:
        """BIDS_DIR."""
        return self.request.inputs[0]


def participant(app: App) -> None:
    """Map every series that is not finished; one that fails does not stop the others.

    Raises
    ------
    InputError
        Where nothing can be done, or some series failed: the others are mapped, and a table says which failed and why.
    """
    from rimap.io.run_lock import locked, remove_leftovers

    started, request = time.perf_counter(), app.request
    options = check(app)
    found, failures = _find(request)
    check_request(request, found)
    subjects = sorted({f"sub-{f.entities['sub']}" for f in found} | {f.label for f in failures})
    with locked(request.out, subjects if request.participant_labels else ()), _scratch(app.work_dir):
        todo, kept, outcomes = _sorted(app, found)
        _forget(request.out, subjects)
        for failure in failures:
            subject_record(request.out, failure.label).fail(failure.reason)
        results: list[Result] = []
        with contextlib.closing(run(app, options, todo)) as coming:
            for n, (files, outcome) in enumerate(itertools.chain(outcomes, coming), start=1):
                if isinstance(outcome, Result):
                    results.append(outcome)
                else:
                    failures.append(outcome)
                    _record(app, files).fail(outcome.reason)
                _say(outcome, n, len(todo) + len(outcomes), request)
        if todo:
            remove_leftovers(request.out, subjects if request.participant_labels else ())  # of killed processes
        write_failed(request.out)
    _say_all(request, results, kept, time.perf_counter() - started)
    say_failures(failures, len(found), request.out / FAILED)


def check(app: App) -> ClusterOptions | None:
    """Refuse what cannot be, before any work; return the options of the cluster."""
    from rimap.cli._bids_valid import check_dataset
    from rimap.parallel.cluster import KINDS, read_options

    if not app.data.is_dir():
        raise InputError(f"{app.data}: a BIDS folder was expected; there is none.")
    if app.scheduler is not None and app.cluster is not None:
        raise InputError("--scheduler is a cluster that runs, --cluster one to be started: give one of them.")
    if app.cluster is not None:
        one_of(app.cluster, KINDS, "--cluster")
    if app.cluster_options is not None and app.cluster != "slurm":
        raise InputError("--cluster-options is for --cluster slurm. Leave it out.")
    for where, option in ((app.masks, "--mask"), (app.rois, "--rois")):
        if where is not None and "{" not in str(where) and not where.exists():
            raise InputError(f"{option} {where}: there is no such file or folder.")
    if app.validate:
        check_dataset(app.data)
    return None if app.cluster_options is None else read_options(app.cluster_options)


def _find(request: Request) -> tuple[list[SeriesFiles], list[Failure]]:
    """Return every series, and the subjects whose files make none."""
    from rimap.io import find_series
    from rimap.io.bids import BidsName, model_of_suffix, nifti_files
    from rimap.io.finding import same_label

    root, sequence = request.inputs[0], request.sequence
    if sequence is not None:
        sequence = one_of(sequence, sequences(), "--sequence")
    try:
        found = find_series(
            root,
            participant_labels=request.participant_labels,
            sessions=request.sessions,
            runs=request.runs,
            sequence=sequence,
        )
    except InputError as error:
        whole = error
    else:
        if loose := [f.label for f in found if "sub" not in f.entities]:
            raise InputError(f"{root}: {loose[0]} belongs to no subject (sub-…). Map it with `rimap map`.")
        return found, []
    subjects = request.participant_labels or tuple(sorted(p.name.removeprefix("sub-") for p in root.glob("sub-*")))
    if len(subjects) < 2 or not all((root / f"sub-{s}").is_dir() for s in subjects):
        raise whole
    found, failures = [], []
    for s in subjects:
        names = (BidsName.parse(f.name) for f in nifti_files(root, [s]))
        kinds = {m.name for name in names if name is not None and (m := model_of_suffix(name.suffix))}
        if not (kinds if sequence is None else kinds & {sequence}):
            continue
        try:
            found += find_series(root, participant_labels=(s,), sequence=sequence)
        except InputError as error:
            failures.append(Failure(f"sub-{s}", line(error)))
    for entity, labels in (("ses", request.sessions), ("run", request.runs)):
        found = [f for f in found if not labels or any(same_label(entity, f.entities.get(entity), x) for x in labels)]
    if not found:
        raise whole
    return found, failures


def own_request(app: App, files: SeriesFiles) -> Request:
    """Return the request of one series, with its mask and its labels."""
    from rimap.io.beside import image_for

    entities = {**files.entities, "map": files.model_class(app.request.sequence).parameters[-1].name}
    mask, rois = (
        None if where is None else image_for(where, entities, suffixes, option=option, label=files.label, prefer=d)
        for where, suffixes, option, d in (
            (app.masks, ("mask",), "--mask", "brain"),
            (app.rois, ("dseg",), "--rois", ""),
        )
    )
    return replace(app.request, mask=mask, rois=rois)


def _sorted(app: App, found: Sequence[SeriesFiles]) -> tuple[list[Task], list[str], list[Outcome]]:
    """Return what is to be done, the labels of what is finished, and what cannot be done.

    Raises
    ------
    InputError
        Where OUT cannot take the maps, or holds others and they are not to be replaced.
    """
    from rimap import __version__
    from rimap.io import check_output

    todo: list[Task] = []
    kept: list[str] = []
    other: list[str] = []
    unfit: list[Outcome] = []
    for files in found:
        try:
            request = own_request(app, files)
            record = record_for(request, files)
            state = "overwrite" if request.overwrite else record.state()
        except InputError as error:
            unfit.append((files, Failure(files.label, line(error))))
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
                    [files], request.out, estimator=estimator_of(request, files).name, sequence=request.sequence
                )
            except InputError as error:
                other.append(line(error))
        todo.append(Task(replace(request, quiet=True), files, __version__))
    if other:
        raise InputError(
            f"{len(other)} of {len(found)} series have other maps in {app.request.out} ({other[0]}). Replace them with "
            "--overwrite, or give another OUT_DIR."
        )
    return todo, kept, unfit


def _record(app: App, files: SeriesFiles) -> Record:
    """Return the record of a series, as much as can be known of it."""
    from rimap.io.records import blank_record

    try:
        return record_for(own_request(app, files), files)
    except InputError:
        return blank_record(files, app.request.out, estimator_of(app.request, files).name)


def subject_record(out: Path, label: str) -> Record:
    """Return the record of a subject whose files make no series."""
    from rimap.io.records import FOLDER, Record

    return Record(out / FOLDER / f"{label}.json", out, label, {})


def _forget(out: Path, subjects: Collection[str]) -> None:
    """Remove what is known of earlier failures of these subjects: those that fail again say so again."""
    from rimap.io.records import FOLDER, records

    for name, content in records(out):
        if content.get("state") == "failed" and name.split("_")[0] in subjects:
            (out / FOLDER / f"{name}.json").unlink(missing_ok=True)


def write_failed(out: Path) -> None:
    """Write the table of what failed in OUT in this run or an earlier one; remove it where nothing did."""
    from rimap.io import write_whole
    from rimap.io.records import records

    rows = [
        {"participant_id": name.split("_")[0], "series": content.get("label", name), "reason": content["message"]}
        for name, content in records(out)
        if content.get("message")
    ]
    if rows:
        write_whole(out / FAILED, tsv(rows))
    else:
        (out / FAILED).unlink(missing_ok=True)


def _say(outcome: Result | Failure, n: int, total: int, request: Request) -> None:
    from rimap.report.numbers import number

    if isinstance(outcome, Failure):
        print(f"[{n}/{total}] {outcome.label} failed: {outcome.reason}", file=sys.stderr)
    elif not request.quiet:
        name, s = list(outcome.statistics.items())[-1]
        print(
            f"[{n}/{total}] {outcome.label}  {name} {number(s.median)} {outcome.units[name]} "
            f"({number(s.q25)}–{number(s.q75)}), {100 * outcome.share_ok:.1f} % ok, {outcome.seconds:.1f} s",
            flush=True,
        )


def _say_all(request: Request, results: Sequence[Result], kept: Sequence[str], seconds: float) -> None:
    for text, n in Counter(w for r in results for w in r.warnings).items():
        print(f"warning: {text} ({n} of {len(results)} series)", file=sys.stderr)
    if request.quiet:
        return
    if kept:
        print(f"{len(kept)} series {'was' if len(kept) == 1 else 'were'} finished before (--overwrite maps them again)")
    if results:
        print(f"{len(results)} series mapped in {seconds:.1f} s by {results[0].estimator}: {request.out}")


def say_failures(failures: Sequence[Failure], n: int, table: Path | None = None) -> None:
    """Say what failed, and end with the status that says so too."""
    if not failures:
        return
    width = max(len(f.label) for f in failures)
    print("\nfailed:", *(f"  {f.label:<{width}}  {f.reason}" for f in failures), sep="\n", file=sys.stderr)
    where = f"; the table is {table}" if table else ""
    text = f"{len(failures)} of {max(n, len(failures))} series failed{where}."
    if any(f.defect for f in failures):
        print(f"rimap: {text} A defect is one of rimap, not of your data: please report it.", file=sys.stderr)
        raise typer.Exit(1)
    raise InputError(text)


@contextlib.contextmanager
def _scratch(folder: Path | None) -> Iterator[None]:
    """Keep temporary files in a folder, for this process and those it starts."""
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
