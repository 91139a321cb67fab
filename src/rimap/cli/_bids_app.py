"""What `rimap bids` does: every series of a data set, on processes or on a cluster; then one page over all."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from rimap.cli import _mapping
from rimap.cli._mapping import Request, Result
from rimap.cli._options import one_of
from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.estimators.base import Progress
    from rimap.io import SeriesFiles
    from rimap.io.records import Record
    from rimap.parallel.cluster import ClusterOptions
    from rimap.series import ParameterMaps, WeightedSeries

T = TypeVar("T")

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


@dataclass(frozen=True)
class Task:
    """One series to be mapped, as it travels to a worker."""

    request: Request
    files: SeriesFiles
    version: str


@dataclass(frozen=True)
class Failure:
    """A series, or a subject, without a map, and why."""

    label: str
    reason: str
    defect: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", self.reason.removeprefix(f"{self.label}: "))


@dataclass(frozen=True)
class Team:
    """Who does the work: an executor (`None`: this process), `slots` pieces at once, each with `threads`."""

    executor: Executor | None
    slots: int
    threads: int
    cluster: bool = False

    def spread(self, estimator: Estimator, series: WeightedSeries, progress: Progress | None) -> ParameterMaps:
        """Return the maps of a series, its slabs mapped by the executor."""
        from rimap.parallel import Cuttable, estimate

        assert isinstance(estimator, Cuttable) and self.executor is not None
        return estimate(estimator, series, self.executor, 2 * self.slots, progress=progress)


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
    _mapping.check_request(request, found)
    subjects = sorted({f"sub-{f.entities['sub']}" for f in found} | {f.label for f in failures})
    with locked(request.out, subjects if request.participant_labels else ()), _scratch(app.work_dir):
        todo, kept, outcomes = _sorted(app, found)
        _forget(request.out, subjects)
        for failure in failures:
            subject_record(request.out, failure.label).fail(failure.reason)
        results: list[Result] = []
        with contextlib.closing(_run(app, options, todo)) as coming:
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
    if app.validate:
        check_dataset(app.data)
    return None if app.cluster_options is None else read_options(app.cluster_options)


def _find(request: Request) -> tuple[list[SeriesFiles], list[Failure]]:
    """Return every series, and the subjects whose files make none."""
    from rimap.io import find_series
    from rimap.io.bids import BidsName, model_of_suffix, nifti_files

    root, sequence = request.inputs[0], request.sequence
    if sequence is not None:
        sequence = one_of(sequence, _mapping.sequences(), "--sequence")
    try:
        return find_series(
            root,
            participant_labels=request.participant_labels,
            sessions=request.sessions,
            runs=request.runs,
            sequence=sequence,
        ), []
    except InputError as error:
        whole = error
    subjects = request.participant_labels or tuple(sorted(p.name.removeprefix("sub-") for p in root.glob("sub-*")))
    if len(subjects) < 2 or not all((root / f"sub-{s}").is_dir() for s in subjects):
        raise whole
    found: list[SeriesFiles] = []
    failures = []
    for s in subjects:
        names = (BidsName.parse(f.name) for f in nifti_files(root, [s]))
        if not any(name is not None and model_of_suffix(name.suffix) for name in names):
            continue
        try:
            found += find_series(root, participant_labels=(s,), sequence=sequence)
        except InputError as error:
            failures.append(Failure(f"sub-{s}", _line(error)))
    for entity, labels in (("ses", request.sessions), ("run", request.runs)):
        found = [f for f in found if not labels or f.entities.get(entity) in labels]
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


def _estimator(request: Request, files: SeriesFiles) -> Estimator:
    return _mapping.chosen(request, files.model_class(request.sequence).name)[0]


_Outcome = tuple["SeriesFiles", Result | Failure]


def _sorted(app: App, found: Sequence[SeriesFiles]) -> tuple[list[Task], list[str], list[_Outcome]]:
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
    unfit: list[_Outcome] = []
    for files in found:
        try:
            request = own_request(app, files)
            record = _mapping.record_for(request, files)
            state = "overwrite" if request.overwrite else record.state()
        except InputError as error:
            unfit.append((files, Failure(files.label, _line(error))))
            continue
        if state == "finished":
            kept.append(files.label)
            record.forgive()
            continue
        if state == "different":
            other.append(f"{files.label}: {'; '.join(record.differences())[:200]}")
        elif state in ("none", "failed"):
            try:
                check_output([files], request.out, estimator=_estimator(request, files).name, sequence=request.sequence)
            except InputError as error:
                other.append(_line(error))
        todo.append(Task(replace(request, quiet=True), files, __version__))
    if other:
        raise InputError(
            f"{len(other)} of {len(found)} series have other maps in {app.request.out} ({other[0]}). Replace them with "
            "--overwrite, or give another OUT_DIR."
        )
    return todo, kept, unfit


def _run(app: App, options: ClusterOptions | None, todo: Sequence[Task]) -> Generator[_Outcome, None, None]:
    """Yield the outcome of every task, as they come."""
    from rimap.parallel import Cuttable

    if not todo:
        return
    _describe(app.request.out, todo)
    fit, limit = _fit(app, todo)
    with team(app, options, min(fit, len(todo))) as crew:
        given = app.request.memory or (None if crew.cluster else limit)  # else each worker knows its own
        memory = None if given is None else given // crew.slots
        tasks = [replace(t, request=replace(t.request, threads=crew.threads, memory=memory)) for t in todo]
        if crew.executor is None:
            yield from ((t.files, attempt(t.files.label, partial(work, t))) for t in tasks)
            return
        few = crew.cluster and len(tasks) < crew.slots
        cut = [t for t in tasks if few and isinstance(_estimator(t.request, t.files), Cuttable)]
        futures = {crew.executor.submit(work, t): t.files for t in tasks if t not in cut}
        for t in cut:
            yield t.files, attempt(t.files.label, partial(work, t, crew))
        for future in as_completed(futures):
            yield futures[future], attempt(futures[future].label, future.result)


def _fit(app: App, todo: Sequence[Task]) -> tuple[int, int]:
    """Return how many of these series fit into memory at once, and how many bytes there are for them."""
    from rimap.cli import _memory
    from rimap.io.nifti import open_nifti

    limit, need = app.request.memory or int(0.8 * _memory.available()), 1
    if app.scheduler is not None or app.cluster is not None:
        return len(todo), limit
    for t in todo:
        with contextlib.suppress(InputError):
            first = open_nifti(t.files.images[0])
            n_images = max(first.n_volumes, len(t.files.images))
            need = max(need, _memory.needed(_estimator(t.request, t.files).name, math.prod(first.shape), n_images))
    fit = max(1, limit // need)
    if fit < min(app.nprocs or 1, len(todo)):
        _note(f"{fit} at once, not {app.nprocs}: a series may take {_memory.shown(need)} of {_memory.shown(limit)}")
    return fit, limit


def _describe(out: Path, todo: Sequence[Task]) -> None:
    """Write what says that OUT is a data set, before several processes find that it is missing."""
    from rimap.io.atomic import write_together
    from rimap.io.provenance import dataset_files

    for dataset in {t.files.dataset for t in todo}:
        if dataset is not None:
            write_together(dataset_files(out, dataset))


@contextlib.contextmanager
def team(app: App, options: ClusterOptions | None, n: int) -> Iterator[Team]:
    """Open who does `n` pieces of work, and close it; at once where the work is broken off."""
    from rimap.parallel import Processes, cores

    nprocs, threads = app.nprocs or cores(), app.request.threads
    if app.scheduler is not None or app.cluster is not None:
        from rimap.parallel.cluster import dask_workers

        with dask_workers(
            scheduler=app.scheduler, kind=app.cluster, options=options, n=nprocs, folder=app.work_dir, say=_note
        ) as workers:
            yield Team(workers.executor, workers.slots, threads or 1, cluster=True)
        return
    processes = min(nprocs, n)
    threads = threads or max(1, nprocs // processes)
    if processes == 1:
        yield Team(None, 1, threads)
        return
    pool = Processes(processes, threads=threads)
    try:
        yield Team(pool, processes, threads)
    except BaseException:
        pool.kill()
        raise
    pool.shutdown()


def work(task: Task, crew: Team | None = None) -> Result:
    """Map one series, its slabs on a crew where one is given; in whichever process this is.

    Raises
    ------
    InputError
        For whatever the user can mend.
    """
    from rimap import __version__

    if task.version != __version__:
        raise InputError(
            f"this worker has rimap {__version__}; the run was started by {task.version}. Install the same."
        )
    with warnings.catch_warnings():
        if os.environ.get("RIMAP_DEBUG") != "1":
            warnings.simplefilter("ignore")  # those of libraries; ours are part of the results
        try:
            return _mapping.map_one(task.request, task.files, spread=crew.spread if crew else None)
        except MemoryError:
            raise InputError("not enough memory for this series. Use fewer processes (--nprocs).") from None
        except OSError as error:
            if error.strerror is None:
                raise
            raise InputError(f"{error.strerror}{f' ({error.filename})' if error.filename else ''}.") from None


def attempt(label: str, result: Callable[[], T]) -> T | Failure:
    """Return what became of a series."""
    from rimap.parallel import ProcessLost

    try:
        return result()
    except (InputError, ProcessLost) as error:
        return Failure(label, _line(error))
    except CancelledError:
        return Failure(label, "the cluster went away before this was done.")
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # of distributed, which need not be installed
            return Failure(label, "its worker was killed several times over: out of memory?")
        if os.environ.get("RIMAP_DEBUG") == "1":
            traceback.print_exception(error)
        return Failure(label, f"defect of rimap: {type(error).__name__}: {_line(error)[:200]}", defect=True)


def _record(app: App, files: SeriesFiles) -> Record:
    """Return the record of a series, as much as can be known of it."""
    from rimap.io.records import blank_record

    try:
        return _mapping.record_for(own_request(app, files), files)
    except InputError:
        return blank_record(files, app.request.out, _estimator(app.request, files).name)


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
        write_whole(out / FAILED, _mapping.tsv(rows))
    else:
        (out / FAILED).unlink(missing_ok=True)


def _say(outcome: Result | Failure, n: int, total: int, request: Request) -> None:
    from rimap.report.page import number

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
        print(f"{len(kept)} series were finished before (--overwrite maps them again)")
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


def _note(text: str) -> None:
    print(f"rimap: {text}", file=sys.stderr)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
