"""Misaligned images of a series: how far they are off, and their alignment before mapping."""

from __future__ import annotations

from rimap.registration.alignment import find_motion
from rimap.registration.motion_warnings import motion_warnings
from rimap.registration.resampling import align, motion_metadata, moved
from rimap.registration.rigid_transforms import Motion

__all__ = ["Motion", "align", "find_motion", "motion_metadata", "motion_warnings", "moved"]
