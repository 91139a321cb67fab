"""The BIDS App: every series of a data set on all cores or a cluster, and one page over all subjects."""

from __future__ import annotations

from rimap.workflow.bids.app import App
from rimap.workflow.bids.group_level import group
from rimap.workflow.bids.participant_level import participant

__all__ = ["App", "group", "participant"]
