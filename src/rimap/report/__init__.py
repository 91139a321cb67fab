"""The results of a run: statistics, and one self-contained HTML page."""

from __future__ import annotations

from rimap.report.methods import start_of, title_of
from rimap.report.page import Run, page
from rimap.report.statistics import Statistics, describe, roi_table, statistics_of

__all__ = ["Run", "Statistics", "describe", "page", "roi_table", "start_of", "statistics_of", "title_of"]
