"""A run of rimap, from a request to maps, reports and a summary, without console output.

The command line, `rimap bids` and Python call the same functions:

>>> from rimap.workflow import Request
>>> Request(inputs="bids", out="out", estimator="mle").inputs
(PosixPath('bids'),)

`map_series` maps the series of a `Request` and returns a `Run`. Nothing here prints: a `Listener` is informed of
progress and what goes wrong, and `rimap.workflow.summary` turns a run into text.
"""

from __future__ import annotations

from rimap.workflow.listener import SILENT, Listener
from rimap.workflow.mapping import Run, map_series
from rimap.workflow.request import Request
from rimap.workflow.writing import Result

__all__ = ["SILENT", "Listener", "Request", "Result", "Run", "map_series"]
