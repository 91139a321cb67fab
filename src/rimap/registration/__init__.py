"""Images of a series that are out of register: how far, and aligned before they are mapped."""

from __future__ import annotations

from rimap.registration.alignment import find_motion
from rimap.registration.motion import Motion
from rimap.registration.resampling import align, motion_metadata, motion_warnings, moved

__all__ = ["Motion", "align", "find_motion", "motion_metadata", "motion_warnings", "moved"]
