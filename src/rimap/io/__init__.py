"""Files in and out: NIfTI and BIDS. Seconds become milliseconds here and nowhere else."""

from __future__ import annotations

from rimap.io.atomic import write_whole
from rimap.io.derivatives import Writing, check_output, map_files, planned_outputs, write_maps
from rimap.io.masks import read_labels, read_mask
from rimap.io.reading_options import Reading
from rimap.io.series_files import SeriesFiles
from rimap.io.series_search import find_series

__all__ = [
    "Reading",
    "SeriesFiles",
    "Writing",
    "check_output",
    "find_series",
    "map_files",
    "planned_outputs",
    "read_labels",
    "read_mask",
    "write_maps",
    "write_whole",
]
