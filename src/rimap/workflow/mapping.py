"""Map each series: read, estimate, write, report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.compiling import compile_ahead
from rimap.errors import InputError, NoiseLevelError
from rimap.workflow.alignment import in_register, looked_at
from rimap.workflow.checks import check_request, finished, record_for, subjects
from rimap.workflow.estimator_choice import chosen, sequence_named, suited, without_network
from rimap.workflow.listener import SILENT, Listener, Progress
from rimap.workflow.model_choice import decide, noted
from rimap.workflow.region_names import label_names
from rimap.workflow.request import Request
from rimap.workflow.requested_series import opened
from rimap.workflow.slice_times import estimate_by_delay
from rimap.workflow.writing import Making, Mapped, Result, written

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.foreground import Region
    from rimap.io import SeriesFiles
    from rimap.io.open_series import OpenSeries
    from rimap.series import ParameterMaps, WeightedSeries
    from rimap.workflow.transmit_field import FieldMap

#: A replacement of `Estimator.estimate`, for example in slabs on a cluster.
Spread = Callable[["Estimator", "WeightedSeries", "Progress | None"], "ParameterMaps"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of `map_series`.

    Parameters
    ----------
    request
        The request.
    results
        The series that were mapped.
    refused
        Label and error of the series that could not be mapped.
    fields
        The maps of B1 that were made first, or that existed already.
    kept
        Labels of the series whose maps existed already, made from the same files with the same settings.
    notes
        What the user should know about the inputs, such as images that belong to no series.
    seconds
        Total time of the run, s.
    """

    request: Request
    results: tuple[Result, ...]
    refused: tuple[tuple[str, InputError], ...] = ()
    fields: tuple[FieldMap, ...] = ()
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def map_series(request: Request, listener: Listener = SILENT) -> Run:
    """Map every series of a request, as `rimap map` does, and write maps, sidecars and a report for each.

    If a series is refused, the others are mapped nevertheless.

    Raises
    ------
    InputError
        If the request matches no series, or if its only series is refused.

    Examples
    --------
    >>> from rimap.workflow import Request, map_series
    >>> run = map_series(Request(inputs="bids", out="maps", estimator="mle"))  # doctest: +SKIP
    >>> run.results[0].statistics["T1"].median  # doctest: +SKIP
    1024.3
    """
    from rimap.io.run_lock import locked
    from rimap.workflow.transmit_field import make_maps, scans_and_series

    started = time.perf_counter()
    request = replace(request, sequence=sequence_named(request.sequence))
    scans, inputs = scans_and_series(request)
    found = list(inputs.series)
    check_request(request, found)
    with locked(request.out, subjects(request, found)):
        alone = (
            len(found) + len(scans) + len(inputs.refused) == 1
        )  # a single series raises its error, because there is nothing else to map
        told = SILENT if alone else listener
        fields, refused = make_maps(request, scans, found, listener, alone=alone)
        if scans:
            found = [replace(files, field_maps=(request.out,)) for files in found]
        for label, error in inputs.refused:
            refused.append((label, error))
            told.warn(_told(label, error))
        todo, kept, unfit = _sorted(request, found)
        for label, error in unfit:
            told.warn(_told(label, error))
        results, refused_series = _map_each(request, todo, replace(listener, warn=told.warn))
    refused += [*unfit, *refused_series]
    if refused and alone:
        raise refused[0][1]
    return Run(
        request=request,
        results=tuple(results),
        refused=tuple(refused),
        fields=tuple(fields),
        kept=tuple(kept),
        notes=tuple(inputs.notes),
        seconds=time.perf_counter() - started,
    )


def _map_each(
    request: Request, todo: Sequence[SeriesFiles], listener: Listener
) -> tuple[list[Result], list[tuple[str, InputError]]]:
    results, refused = [], []
    for n, files in enumerate(todo):
        try:
            position = f"{n + 1}/{len(todo)}" if len(todo) > 1 else ""
            results.append(map_one(request, files, listener=listener, position=position))
        except InputError as error:
            refused.append((files.label, error))
            listener.warn(_told(files.label, error))
    return results, refused


def _told(label: str, error: InputError) -> str:
    text = str(error)
    return f"error: {text if label in text else f'{label}: {text}'}"


def _sorted(
    request: Request, found: Sequence[SeriesFiles]
) -> tuple[list[SeriesFiles], list[str], list[tuple[str, InputError]]]:
    """Return the series to map, the labels of those that are finished, and label and error of those that cannot be
    read.

    Raises
    ------
    InputError
        If maps with other settings exist in OUT and `overwrite` is false.
    """
    todo: list[SeriesFiles] = []
    kept: list[str] = []
    unfit: list[tuple[str, InputError]] = []
    for files in found:
        try:
            files.check_sources()
        except InputError as error:
            unfit.append((files.label, error))
            continue
        if finished(request, files):
            kept.append(files.label)
        else:
            todo.append(files)
    return todo, kept, unfit


def map_one(
    request: Request,
    files: SeriesFiles,
    *,
    listener: Listener = SILENT,
    position: str = "",
    spread: Spread | None = None,
) -> Result:
    """Map one series and write all of its outputs, or none.

    Parameters
    ----------
    position
        Number of this series and number of all series, for the progress bar.
    spread
        Replaces `Estimator.estimate`.

    Raises
    ------
    InputError
        If files, settings and options do not fit together.
    """
    request, decision = decide(request, files)
    model = files.model_class(request.sequence)
    estimator, choice = chosen(request, model)
    record = record_for(request, files)
    overwrite = request.overwrite or record.state() == "begun"
    series = noted(opened(request, files), decision)
    if request.denoise and series.delays is not None:
        raise InputError(
            f"{files.label}: --denoise does not support slices that were acquired at different times. Leave it out."
        )
    estimator, choice = suited(request, estimator, choice, series.model)
    name = " ".join(x for x in (position, files.label) if x)
    making = Making(request=request, files=files, estimator=estimator, choice=choice, record=record, decision=decision)
    compiling = compile_ahead(series.model.name, estimator.name, request.threads)
    with ExitStack() as stack:
        slabs = slabs_for(request, estimator, series)
        progress = listener.progress(name)
        if slabs is None:
            by_default = request.estimator is None and "network" not in request.estimator_options
            mapped, why = None, ""
            try:
                mapped = _whole(making, series, progress, spread)
            except NoiseLevelError:
                if not by_default:
                    raise
                why = "the noise level is not known, which a network needs"
            if by_default and mapped is not None and (outside := _outside_training(mapped)):
                why = (
                    f"{outside} of the voxels are outside the training range of network "
                    f"{mapped.shown_maps.settings['network']}"
                )
            if mapped is None or why:
                estimator, choice = without_network(request, series.model, why)
                making = replace(making, estimator=estimator, choice=choice)
                compiling += compile_ahead(series.model.name, estimator.name, request.threads)
                mapped = _whole(making, series, listener.progress(name), spread)
        else:
            mapped = _in_slabs(making, series, progress, stack, slabs)
        mapped = replace(mapped, compiling=mapped.compiling + compiling)
        return written(making, mapped, overwrite=overwrite)


def _outside_training(mapped: Mapped) -> str:
    """Return the share of voxels outside the training range of a network, "" if it is less than half."""
    from rimap.series import Status

    n = {s: mapped.count.get(s, 0) for s in (Status.OK, Status.AT_BOUND, Status.OFF_MODEL, Status.OUTSIDE_TRAINING)}
    total, outside = sum(n.values()), n[Status.OUTSIDE_TRAINING]
    return f"{100 * outside / total:.0f} %" if total and 2 * outside > total else ""


def slabs_for(request: Request, estimator: Estimator, opened: OpenSeries) -> int | None:
    """Return how many voxels a slab may have within the memory limit; `None` if the whole volume fits.

    Raises
    ------
    InputError
        If the whole volume does not fit and the estimator needs it.
    """
    from rimap.workflow import memory
    from rimap.workflow.slabs import voxelwise

    limit = request.memory or int(0.8 * memory.available())
    voxels, N = math.prod(opened.shape), sum(opened.keep) * (2 if any(file.wide for file in opened.files) else 1)
    need = memory.needed_by(estimator, opened.shape, N)
    if need <= limit:
        return None
    have = f"the limit is {memory.shown(limit)} ({'--memory' if request.memory else '80 % of the free memory'})"
    if opened.delays is not None:
        raise InputError(
            f"{opened.label}: slices that were acquired at different times need the whole volume in memory, about "
            f"{memory.shown(need)}; {have}. "
            "Use a machine with more memory."
        )
    if request.register or request.denoise:
        option = "--register" if request.register else "--denoise"
        raise InputError(
            f"{opened.label}: {option} needs the whole volume in memory, about {memory.shown(need)}; {have}. Use a "
            f"machine with more memory, or leave {option} out."
        )
    if voxelwise(estimator, opened.model, opened.noise) is None:
        raise InputError(
            f"{opened.label}: {estimator.name} needs the whole volume in memory, about {memory.shown(need)}; {have}. "
            f"Use --estimator nlls, which maps slab by slab, or raise the limit with --memory "
            f"{memory.shown(need).replace(' ', '')}."
        )
    slab = memory.slab_voxels(limit, voxels, N) // 2  # the planes of the report take the other half
    if slab < math.prod(opened.shape[:-1]):
        least = memory.needed("nlls", (*opened.shape[:-1], 2), N) + 2 * voxels
        raise InputError(
            f"{opened.label}: a single slice needs about {memory.shown(least)} of memory; {have}. Give more with "
            f"--memory."
        )
    return slab


def _whole(
    making: Making, opened: OpenSeries, watched: AbstractContextManager[Progress | None], spread: Spread | None
) -> Mapped:
    """Return the maps of a series that is in memory as a whole."""
    from rimap import report
    from rimap.io import read_labels

    request, estimator = making.request, making.estimator
    with compile_time() as compiled:
        read = opened.read()
        aligned = looked_at(read, align=request.register, threads=request.threads)
        series = aligned()[0] if request.register else read
        labels = None if request.rois is None else read_labels(request.rois, series.shape, series.affine)
        begun, before = time.perf_counter(), compiled()
        with watched as progress:
            if request.denoise is not None:
                maps = _of_denoised(estimator, series, progress, spread)
            elif opened.delays is not None:
                maps = estimate_by_delay(estimator, series, opened.delays, progress)
            else:
                maps = spread(estimator, series, progress) if spread else estimator.estimate(series, progress=progress)
        seconds = max(time.perf_counter() - begun - (compiled() - before), 0.0)
        series, about_alignment = aligned()
    described = _told_how(request, _described(series, maps))
    return Mapped(
        shown=series,
        shown_maps=maps,
        maps=maps,
        described=described,
        foreground=described,
        shape=series.shape,
        count=maps.count(),
        rois=[] if labels is None else report.roi_table(maps, labels, label_names(request.rois)),
        seconds=seconds,
        compiling=compiled(),
        check=opened.check,
        given=opened.given_from,
        metadata=about_alignment,
    )


def _of_denoised(
    estimator: Estimator, series: WeightedSeries, progress: Progress | None, spread: Spread | None
) -> ParameterMaps:
    """Return the maps of the denoised images (`--denoise`)."""
    from rimap.estimators.denoising import denoised_maps

    smooth = series.model.field is not None and series.model.field.smooth
    if (
        smooth and getattr(estimator, "lambda_B", 0.0) is None
    ):  # the smoothness of the field cannot be estimated from denoised images
        chosen_before = estimator.estimate(series).settings.get("lambda_B")
        estimator = replace(estimator, lambda_B=chosen_before)  # type: ignore[type-var]

    def estimate(clean: WeightedSeries) -> ParameterMaps:
        return spread(estimator, clean, progress) if spread else estimator.estimate(clean, progress=progress)

    return denoised_maps(estimate, series)


def _described(series: WeightedSeries, maps: ParameterMaps) -> Region:
    """Return the voxels that figures describe. Values that are no measurement do not determine the foreground."""
    import numpy as np

    from rimap.series import Status

    wrong = (maps.status == Status.NOT_FINITE) & np.isfinite(series.images).all(0)
    if series.mask is None and wrong.any():
        series = replace(series, images=np.where(wrong, np.nan, series.images))
    return series.described


def _told_how(request: Request, region: Region) -> Region:
    """Return a region with a description of its mask for the sidecar."""
    from rimap.foreground import AUTO, HOW

    if request.mask is None:
        return region
    how = HOW if request.mask == AUTO else f"the mask that was given, {Path(request.mask).name}"
    return replace(region, how=how)


def _in_slabs(
    making: Making,
    opened: OpenSeries,
    watched: AbstractContextManager[Progress | None],
    stack: ExitStack,
    voxels: int,
) -> Mapped:
    """Return the maps of a series that is read in slabs of `slab` voxels. `stack` removes their files at the end."""
    from rimap import report
    from rimap.io.masks import LabelFile
    from rimap.io.slabs import slab_folder
    from rimap.workflow.slabs import estimate

    request = making.request
    labels = None if request.rois is None else LabelFile.of(request.rois, opened.shape, opened.affine)
    folder = stack.enter_context(slab_folder(request.out, opened.label.split()[0]))
    begun = time.perf_counter()
    with compile_time() as compiled, watched as progress:
        done = estimate(making.estimator, opened, folder, voxels, progress)
    seconds = max(time.perf_counter() - begun - compiled(), 0.0)
    rois: list[dict[str, Any]] = []
    if labels is not None:
        maps, values = done.labelled(labels.unpacked(folder))
        rois = report.roi_table(maps, values, label_names(request.rois))
    shown, shown_maps, chosen = done.some(voxels)
    shown, _ = in_register(shown, align=False, threads=request.threads)
    n, all_planes = len(chosen), opened.shape[-1]
    return Mapped(
        described=replace(done.described, inside=done.described.inside[..., chosen]),
        foreground=_told_how(request, done.described),
        shown=shown,
        shown_maps=shown_maps,
        maps=done.maps,
        shape=opened.shape,
        count=done.count(),
        rois=rois,
        seconds=seconds,
        compiling=compiled(),
        check=opened.check,
        given=opened.given_from,
        note="" if n == all_planes else f"in {n} of {all_planes} slices",
    )


@contextmanager
def compile_time() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds that were spent on compiling kernels so far (0 once they are kept)."""
    from numba.core import event

    class Compiling(event.Listener):  # type: ignore[misc]
        """Events come one at a time: numba holds a lock while it compiles."""

        depth, begun, total = 0, 0.0, 0.0

        def on_start(self, event: object) -> None:
            if self.depth == 0:
                self.begun = time.perf_counter()
            self.depth += 1

        def on_end(self, event: object) -> None:
            self.depth -= 1
            if self.depth == 0:
                self.total += time.perf_counter() - self.begun

    listener = Compiling()
    with event.install_listener("numba:compile", listener):
        yield lambda: listener.total
