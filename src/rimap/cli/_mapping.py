"""What `rimap map` does with each series: read, estimate, write, report."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.cli._options import one_of
from rimap.cli._progress import compile_time, progress_bar
from rimap.cli._register import in_register
from rimap.cli._request import Request, check_request, chosen, finished, record_for, sequences, subjects
from rimap.cli._written import Mapped, Result, label_names, written
from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.estimators.base import Progress
    from rimap.io import SeriesFiles
    from rimap.io.opened import OpenSeries
    from rimap.likelihood import Noise
    from rimap.series import ParameterMaps, WeightedSeries

#: Estimates in another way than `Estimator.estimate`: in slabs on a cluster, say.
Spread = Callable[["Estimator", "WeightedSeries", "Progress | None"], "ParameterMaps"]


def map_all(request: Request) -> list[Result]:
    """Map every series that the request names, and print what was found.

    One series that is refused does not keep the others from being mapped; the exit status says so.

    Raises
    ------
    InputError
        Where the request fits no series, or its only series is refused.
    """
    from rimap.cli._summary import print_summary
    from rimap.io import find_series
    from rimap.io.run_lock import locked

    started = time.perf_counter()
    if request.threads is not None:
        _limit_threads(request.threads)
    sequence = None if request.sequence is None else one_of(request.sequence, sequences(), "--sequence")
    found = find_series(
        request.inputs,
        participant_labels=request.participant_labels,
        sessions=request.sessions,
        runs=request.runs,
        sequence=sequence,
        series=request.series,
    )
    check_request(request, found)
    with locked(request.out, subjects(request, found)):
        todo = [files for files in found if not finished(request, files)]
        results, refused = _map_each(request, todo)
    print_summary(results, request, time.perf_counter() - started)
    _say_kept([files.label for files in found if files not in todo], request)
    if refused and len(found) == 1:
        raise refused[0]
    if refused:
        raise InputError(f"{len(refused)} of {len(found)} series could not be mapped, for the reasons above.")
    return results


def _map_each(request: Request, todo: Sequence[SeriesFiles]) -> tuple[list[Result], list[InputError]]:
    results, refused = [], []
    for n, files in enumerate(todo):
        try:
            results.append(map_one(request, files, f"{n + 1}/{len(todo)}" if len(todo) > 1 else ""))
        except InputError as error:
            refused.append(error)
            text = str(error)
            if len(todo) > 1:
                print(f"rimap: error: {text if files.label in text else f'{files.label}: {text}'}", file=sys.stderr)
    return results, refused


def _say_kept(kept: Sequence[str], request: Request) -> None:
    if kept and not request.quiet:
        shown = ", ".join(kept[:4]) + (f" and {len(kept) - 4} more" if len(kept) > 4 else "")
        print(f"kept {shown}: same settings and inputs as before (--overwrite computes again)")


def map_one(request: Request, files: SeriesFiles, position: str = "", spread: Spread | None = None) -> Result:
    """Map one series and write what comes out of it: all of it, or nothing.

    Raises
    ------
    InputError
        For whatever does not fit together.
    """
    model = files.model_class(request.sequence)
    estimator, choice = chosen(request, model.name)
    record = record_for(request, files)
    overwrite = request.overwrite or record.state() == "begun"
    opened = files.open(
        times_ms=request.times_ms,
        tr_ms=request.tr_ms if request.tr_ms is None or len(request.tr_ms) > 1 else request.tr_ms[0],
        sequence=request.sequence,
        mask=request.mask,
        noise=_noise(request, files),
        skip_first=request.skip_first,
        signed=request.signed,
    )
    name = " ".join(x for x in (position, files.label) if x)
    with ExitStack() as stack:
        slabs = slabs_for(request, estimator, opened)
        if slabs is None:
            mapped = _whole(request, estimator, opened, name, spread)
        else:
            mapped = _in_slabs(request, estimator, opened, name, stack, slabs)
        return written(request, files, estimator, choice, mapped, record, overwrite)


def slabs_for(request: Request, estimator: Estimator, opened: OpenSeries) -> int | None:
    """Return of how many voxels slabs must be for the memory at hand; `None` where the whole may be mapped at once.

    Raises
    ------
    InputError
        Where the whole does not fit and the estimator needs it.
    """
    from rimap.cli import _memory as memory
    from rimap.cli._slabwise import voxelwise

    limit = request.memory or int(0.8 * memory.available())
    voxels, N = math.prod(opened.shape), sum(opened.keep) * (2 if any(f.wide for f in opened.files) else 1)
    need = memory.needed_by(estimator, opened.shape, N)
    if need <= limit:
        return None
    have = f"it may take {memory.shown(limit)} ({'--memory' if request.memory else 'of what is free'})"
    if request.register:
        raise InputError(
            f"{opened.label}: --register needs the whole volume in memory, about {memory.shown(need)}; {have}. Take a machine "
            "with more memory, or leave --register out."
        )
    if voxelwise(estimator, opened.model, opened.noise) is None:
        raise InputError(
            f"{opened.label}: {estimator.name} needs the whole volume in memory, about {memory.shown(need)}; {have}. Take "
            f"--estimator nlls, which maps slab by slab, or a machine with more memory, or give --memory {memory.shown(need).replace(' ', '')}."
        )
    slab = memory.slab_voxels(limit, voxels, N) // 2  # the report's planes are the other half
    if slab < math.prod(opened.shape[:-1]):
        least = memory.needed("nlls", (*opened.shape[:-1], 2), N) + 2 * voxels
        raise InputError(
            f"{opened.label}: a single slice needs about {memory.shown(least)} of memory; {have}. Give more with --memory."
        )
    return slab


def _whole(request: Request, estimator: Estimator, opened: OpenSeries, name: str, spread: Spread | None) -> Mapped:
    from rimap import report
    from rimap.io import read_labels

    series, about_register = in_register(opened.read(), align=request.register, threads=request.threads)
    labels = None if request.rois is None else read_labels(request.rois, series.shape, series.affine)
    begun = time.perf_counter()
    with compile_time() as compiling, progress_bar(name, quiet=request.quiet) as progress:
        maps = spread(estimator, series, progress) if spread else estimator.estimate(series, progress=progress)
    return Mapped(
        shown=series,
        shown_maps=maps,
        maps=maps,
        shape=series.shape,
        count=maps.count(),
        rois=[] if labels is None else report.roi_table(maps, labels, label_names(request.rois)),
        seconds=max(time.perf_counter() - begun - sum(compiling), 0.0),
        compiling=sum(compiling),
        check=opened.check,
        metadata=about_register,
    )


def _in_slabs(
    request: Request, estimator: Estimator, opened: OpenSeries, name: str, stack: ExitStack, voxels: int
) -> Mapped:
    from rimap import report
    from rimap.cli._slabwise import estimate
    from rimap.io.nifti import LabelFile
    from rimap.io.slabs import slab_folder

    labels = None if request.rois is None else LabelFile.of(request.rois, opened.shape, opened.affine)
    folder = stack.enter_context(slab_folder(request.out, opened.label.split()[0]))
    begun = time.perf_counter()
    with compile_time() as compiling, progress_bar(name, quiet=request.quiet) as progress:
        done = estimate(estimator, opened, folder, voxels, progress)
    seconds = max(time.perf_counter() - begun - sum(compiling), 0.0)
    rois: list[dict[str, Any]] = []
    if labels is not None:
        maps, values = done.labelled(labels.unpacked(folder))
        rois = report.roi_table(maps, values, label_names(request.rois))
    shown, shown_maps, n = done.some(voxels)
    shown, _ = in_register(shown, align=False, threads=request.threads)
    all_planes = opened.shape[-1]
    return Mapped(
        shown=shown,
        shown_maps=shown_maps,
        maps=done.maps,
        shape=opened.shape,
        count=done.count(),
        rois=rois,
        seconds=seconds,
        compiling=sum(compiling),
        check=opened.check,
        note="" if n == all_planes else f"in {n} of {all_planes} slices",
    )


def _noise(request: Request, files: SeriesFiles) -> Noise | None:
    from rimap.likelihood import Gaussian, Rician

    if request.noise is None and request.sigma is None:
        return None
    kind = Rician if (request.noise or "gaussian").strip().lower() == "rician" else Gaussian
    if not isinstance(request.sigma, Path):
        return kind(request.sigma)
    from rimap.io.nifti import open_nifti, read_map

    images = open_nifti(files.images[0])
    return kind(read_map(request.sigma, images.shape, images.affine, "map of sigma"))


def _limit_threads(n: int) -> None:
    """Tell the libraries, which read this when they are imported, to use at most `n` cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(n)
