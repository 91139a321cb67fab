"""Who maps the series of `rimap bids`: this process, several, or the workers of a cluster; what becomes of each."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rimap.cli._mapping import map_one
from rimap.cli._request import Request, estimator_of
from rimap.cli._written import Result
from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.cli._bids_app import App
    from rimap.estimators import Estimator
    from rimap.estimators.base import Progress
    from rimap.io import SeriesFiles
    from rimap.parallel.cluster import ClusterOptions
    from rimap.series import ParameterMaps, WeightedSeries

T = TypeVar("T")


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


#: A series, and what became of it.
Outcome = tuple["SeriesFiles", Result | Failure]


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


def run(app: App, options: ClusterOptions | None, todo: Sequence[Task]) -> Generator[Outcome, None, None]:
    """Yield the outcome of every task, as they come.

    A cluster with more workers than tasks gets a series in slabs, where its estimator can be cut.
    """
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
        cut = [t for t in tasks if few and isinstance(estimator_of(t.request, t.files), Cuttable)]
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
            need = max(need, _memory.needed_by(estimator_of(t.request, t.files), first.shape, n_images))
    fit = max(1, limit // need)
    if fit < min(app.nprocs or 1, len(todo)):
        note(f"{fit} at once, not {app.nprocs}: a series may take {_memory.shown(need)} of {_memory.shown(limit)}")
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
            scheduler=app.scheduler, kind=app.cluster, options=options, n=nprocs, folder=app.work_dir, say=note
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
            return map_one(task.request, task.files, spread=crew.spread if crew else None)
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
        return Failure(label, line(error))
    except CancelledError:
        return Failure(label, "the cluster went away before this was done.")
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # of distributed, which need not be installed
            return Failure(label, "its worker was killed several times over: out of memory?")
        if os.environ.get("RIMAP_DEBUG") == "1":
            traceback.print_exception(error)
        return Failure(label, f"defect of rimap: {type(error).__name__}: {line(error)[:200]}", defect=True)


def note(text: str) -> None:
    """Say something on the way."""
    print(f"rimap: {text}", file=sys.stderr)


def line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())
