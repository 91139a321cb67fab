"""Misaligned images of a series: how far they are off, and their alignment before mapping."""

from __future__ import annotations

from rimap.registration.agreement import motion_warnings
from rimap.registration.alignment import find_motion
from rimap.registration.motion import Motion
from rimap.registration.resampling import align, motion_metadata, moved

__all__ = ["Motion", "align", "find_motion", "motion_metadata", "motion_warnings", "moved"]
