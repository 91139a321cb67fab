"""The processes that map the series: this one, several, or the workers of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rimap.workflow.bids.app import App
from rimap.workflow.listener import SILENT, Listener

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.estimators.base import Progress
    from rimap.parallel.cluster import ClusterOptions
    from rimap.series import ParameterMaps, WeightedSeries


@dataclass(frozen=True)
class Team:
    """The executor (`None`: this process), which runs `slots` tasks at once with `threads` each."""

    executor: Executor | None
    slots: int
    threads: int
    cluster: bool = False

    def spread(self, estimator: Estimator, series: WeightedSeries, progress: Progress | None) -> ParameterMaps:
        """Return the maps of a series, its slabs mapped by the executor."""
        from rimap.parallel import Cuttable, estimate

        assert isinstance(estimator, Cuttable) and self.executor is not None
        return estimate(estimator, series, self.executor, 2 * self.slots, progress=progress)


@contextlib.contextmanager
def team(app: App, options: ClusterOptions | None, n: int, listener: Listener = SILENT) -> Iterator[Team]:
    """Open a team for `n` tasks, and close it, immediately if the work is interrupted."""
    from rimap.parallel import Processes
    from rimap.processors import cores

    nprocs, threads = app.nprocs or cores(), app.request.threads
    if app.scheduler is not None or app.cluster is not None:
        from rimap.parallel.cluster import dask_workers

        with dask_workers(
            scheduler=app.scheduler, kind=app.cluster, options=options, n=nprocs, folder=app.work_dir, say=listener.warn
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
