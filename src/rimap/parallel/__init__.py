"""Work in pieces on any `concurrent.futures.Executor`: processes here, or a Dask cluster."""

from __future__ import annotations

from rimap.parallel.processes import Processes, ProcessLost
from rimap.parallel.slabs import Cuttable, cut, estimate

__all__ = ["Cuttable", "ProcessLost", "Processes", "cut", "estimate"]
