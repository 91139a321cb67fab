"""Map the series of a data set on a team of processes, and yield the outcome of each."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rimap.errors import InputError
from rimap.workflow import memory
from rimap.workflow.bids.app import App
from rimap.workflow.bids.outcome import Outcome, attempt
from rimap.workflow.bids.workers import Team, team
from rimap.workflow.estimator_choice import estimator_of
from rimap.workflow.listener import Listener
from rimap.workflow.mapping import map_one
from rimap.workflow.request import Request
from rimap.workflow.writing import Result

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.io.write_claims import Claim
    from rimap.parallel.cluster import ClusterOptions


@dataclass(frozen=True)
class Task:
    """One series to be mapped, as it is sent to a worker, with the claims of the run on OUT."""

    request: Request
    files: SeriesFiles
    version: str
    claims: tuple[Claim, ...] = ()


def run(
    app: App, options: ClusterOptions | None, todo: Sequence[Task], listener: Listener
) -> Generator[Outcome, None, None]:
    """Yield the outcome of every task, in the order of completion.

    If a cluster has more workers than tasks, each series is distributed in slabs, if the estimator allows it.
    """
    from rimap.parallel import Cuttable

    if not todo:
        return
    _describe(app.request.out, todo)
    fit, limit = _fit(app, todo, listener)
    with team(app, options, min(fit, len(todo)), listener) as crew:
        given = app.request.memory or (
            None if crew.cluster else limit
        )  # otherwise each worker determines its own limit
        each = None if given is None else given // crew.slots
        tasks = [replace(t, request=replace(t.request, threads=crew.threads, memory=each)) for t in todo]
        if crew.executor is None:
            yield from ((task.files, attempt(task.files.label, partial(work, task))) for task in tasks)
            return
        few = crew.cluster and len(tasks) < crew.slots
        cut = [task for task in tasks if few and isinstance(estimator_of(task.request, task.files), Cuttable)]
        futures = {crew.executor.submit(work, task): task.files for task in tasks if task not in cut}
        for t in cut:
            yield t.files, attempt(t.files.label, partial(work, t, crew))
        for future in as_completed(futures):
            yield futures[future], attempt(futures[future].label, future.result)


def _fit(app: App, todo: Sequence[Task], listener: Listener) -> tuple[int, int]:
    """Return how many of these series fit into memory at once, and how many bytes are available for them."""
    from rimap.io.nifti import open_nifti

    limit, need = app.request.memory or int(0.8 * memory.available()), 1
    if app.scheduler is not None or app.cluster is not None:
        return len(todo), limit
    for t in todo:
        with contextlib.suppress(InputError):
            first = open_nifti(t.files.images[0])
            n_images = max(first.n_volumes, len(t.files.images))
            need = max(need, memory.needed_by(estimator_of(t.request, t.files), first.shape, n_images))
    fit = max(1, limit // need)
    if fit < min(app.nprocs or 1, len(todo)):
        listener.warn(
            f"{fit} series in parallel instead of {app.nprocs}: each may need {memory.shown(need)} of "
            f"{memory.shown(limit)} memory"
        )
    return fit, limit


def _describe(out: Path, todo: Sequence[Task]) -> None:
    """Write the description of the data set OUT first, so that several processes do not write it at the same time."""
    from rimap.io.atomic import write_together
    from rimap.io.provenance import dataset_files

    for dataset in {t.files.dataset for t in todo}:
        if dataset is not None:
            write_together(dataset_files(out, dataset))


def work(task: Task, crew: Team | None = None) -> Result:
    """Map one series in this process, or its slabs on a crew.

    Raises
    ------
    InputError
        For errors that the user can correct.
    """
    from rimap import __version__
    from rimap.io.write_claims import adopt

    adopt(task.claims)
    if task.version != __version__:
        raise InputError(f"expected rimap {task.version} on every worker, got {__version__}. Install the same version.")
    with warnings.catch_warnings():
        if os.environ.get("RIMAP_DEBUG") != "1":
            warnings.simplefilter("ignore")  # warnings of libraries; those of rimap are part of the results
        try:
            return map_one(task.request, task.files, spread=crew.spread if crew else None)
        except MemoryError:
            raise InputError("not enough memory for this series. Use fewer processes (--nprocs).") from None
        except OSError as error:
            if error.strerror is None:
                raise
            raise InputError(f"{error.strerror}{f' ({error.filename})' if error.filename else ''}.") from None
