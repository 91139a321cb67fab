"""Whether the images of a series are in register, and `--register`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rimap.series import WeightedSeries


def in_register(series: WeightedSeries, *, align: bool, threads: int | None) -> tuple[WeightedSeries, dict[str, Any]]:
    """Return a series whose notes say how far its images are out of register, or aligned; and what sidecars say of that."""
    from rimap import registration

    motion = registration.find_motion(series, precise=align, threads=threads)
    if not align:
        return replace(series, notes=(*series.notes, *registration.motion_warnings(series, motion))), {}
    if motion is None:
        note = (
            "--register: nothing tells how the images lie, and they are mapped as they are. An object is needed that fills a slice "
            f"of 8 voxels or more each way, at {sum(not p.smooth for p in series.model.parameters) + 1} different times."
        )
        return replace(series, notes=(*series.notes, note)), {}
    return registration.align(series, motion), registration.motion_metadata(series, motion)
