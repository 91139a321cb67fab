"""Check whether the images of a series are aligned, and align them (`--register`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rimap.advice import note
from rimap.processors import cores

if TYPE_CHECKING:
    from rimap.series import WeightedSeries


_ONE_EXCITATION = (
    "--register: the images are echoes of one excitation, so there is no motion between them. They are mapped without "
    "alignment."
)


#: A series that is aligned or has a warning, and sidecar fields about it.
Aligned = tuple["WeightedSeries", dict[str, Any]]


def looked_at(series: WeightedSeries, *, align: bool, threads: int | None) -> Callable[[], Aligned]:
    """Return a function that returns what `in_register` does; a second processor looks for motion meanwhile."""
    if align or (threads or cores()) < 2:
        found = in_register(series, align=align, threads=threads)
        return lambda: found
    future: Future[Aligned] = Future()

    def look() -> None:
        try:
            future.set_result(in_register(series, align=False, threads=1))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=look, daemon=True).start()  # daemon: an interrupted run does not wait for it
    return future.result


def in_register(series: WeightedSeries, *, align: bool, threads: int | None) -> Aligned:
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
