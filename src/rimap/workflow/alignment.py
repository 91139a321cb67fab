"""Whether the images of a series are aligned, and `--register`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rimap.advice import note

if TYPE_CHECKING:
    from rimap.series import WeightedSeries


_ONE_EXCITATION = "--register: the images are echoes of one excitation, which cannot move against each other; they are mapped as they are."


def in_register(series: WeightedSeries, *, align: bool, threads: int | None) -> tuple[WeightedSeries, dict[str, Any]]:
    """Return the series aligned, or with a note of how far its images are misaligned; and the sidecar fields about it."""
    from rimap import registration

    if series.model.axis.one_excitation:
        return replace(series, notes=(*series.notes, *([note(_ONE_EXCITATION)] if align else []))), {}
    motion = registration.find_motion(series, precise=align, threads=threads)
    if not align:
        return replace(series, notes=(*series.notes, *registration.motion_warnings(series, motion))), {}
    if motion is None:
        failed = (
            "--register: the images could not be aligned and are mapped as they are. Alignment needs an object that fills a "
            f"slice of 8 voxels or more each way, at {sum(not p.smooth for p in series.model.parameters) + 1} different times."
        )
        return replace(series, notes=(*series.notes, failed)), {}
    return registration.align(series, motion), registration.motion_metadata(series, motion)
