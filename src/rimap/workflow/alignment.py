"""Check whether the images of a series are aligned, and align them (`--register`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rimap.advice import note

if TYPE_CHECKING:
    from rimap.series import WeightedSeries


_ONE_EXCITATION = (
    "--register: the images are echoes of one excitation, so there is no motion between them. They are mapped without "
    "alignment."
)


def in_register(series: WeightedSeries, *, align: bool, threads: int | None) -> tuple[WeightedSeries, dict[str, Any]]:
    """Return the series, aligned or with a warning about misaligned images, and the sidecar fields about alignment."""
    from rimap import registration

    if series.model.axis.one_excitation:
        return replace(series, notes=(*series.notes, *([note(_ONE_EXCITATION)] if align else []))), {}
    motion = registration.find_motion(series, precise=align, threads=threads)
    if not align:
        return replace(series, notes=(*series.notes, *registration.motion_warnings(series, motion))), {}
    if motion is None:
        failed = (
            "--register: the images could not be aligned and are mapped without alignment. Alignment needs an object "
            "of at least "
            f"8 × 8 voxels in a slice, at {sum(not parameter.smooth for parameter in series.model.parameters) + 1} "
            f"different times."
        )
        return replace(series, notes=(*series.notes, failed)), {}
    return registration.align(series, motion), registration.motion_metadata(series, motion)
