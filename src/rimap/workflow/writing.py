"""Write the results of a mapped series, all or none: maps, sidecars, report and table."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.advice import note, notes_of, ordered, warnings_of
from rimap.errors import InputError
from rimap.workflow.region_names import tsv
from rimap.workflow.request import Request

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.evaluation.resolution import Kept, Simulated
    from rimap.foreground import Region
    from rimap.io import SeriesFiles
    from rimap.io.series_records import Record
    from rimap.io.slabs import MapsOnDisk
    from rimap.report import Statistics
    from rimap.series import ParameterMaps, Status, WeightedSeries
    from rimap.workflow.model_choice import Decision

#: So many files are compressed at the same time; more would wait for the disk.
_MOST_THREADS = 4


#: The beginning of the note on the contrast of small spots.
RESOLUTION = "Resolution: "


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the summary needs about one mapped series, without the images.

    Parameters
    ----------
    label, title
        The name of the series, and of its signal model.
    shape, n_images
        Voxels and images.
    where
        Which voxels the statistics describe, in words.
    share_ok
        Share of those whose quality flag is OK.
    main
        The name of the main map, T1 or T2.
    statistics, titles, units
        For each map by name: its statistics, its name in words and its unit.
    known
        The names of the parameters that were known and not estimated.
    count
        Number of voxels of each quality flag.
    noise, estimator, choice
        Noise model and σ, estimator, and reason for the choice of the estimator, in words.
    warnings, notes
        What the user should know, the most important first, and what was done.
    decision
        Which signal model was chosen and why, if there was a choice.
    kept
        The contrast of small spots that the maps keep; none of an estimator that does not smooth.
    seconds, compiling
        Time for mapping, and for compiling kernels before it, s.
    maps, report
        Files that were written.
    rois, roi_file
        The rows of the table of regions, and its file if there is one.
    """

    label: str
    title: str
    shape: tuple[int, ...]
    n_images: int
    where: str
    share_ok: float
    main: str
    statistics: Mapping[str, Statistics]
    titles: Mapping[str, str]
    units: Mapping[str, str]
    known: Collection[str]
    count: Mapping[Status, int]
    noise: str
    estimator: str
    choice: str
    warnings: Sequence[str]
    notes: Sequence[str]
    decision: Decision | None
    kept: tuple[Kept, ...]
    seconds: float
    compiling: float
    maps: Sequence[Path]
    report: Path
    rois: Sequence[Mapping[str, Any]]
    roi_file: Path | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Mapped:
    """A series and its maps.

    Parameters
    ----------
    shown, shown_maps
        What the report and the summary describe: the whole series, or some planes of it.
    maps
        The maps to write.
    count
        Number of voxels of each quality flag, over the whole.
    check
        Refuses files that have changed since they were read.
    given
        Source of each known parameter by name: a file, a number, or ``"array"``.
    described, foreground
        The voxels that statistics describe, of the shown part and of the whole series.
    note
        Description of the shown part, "" for the whole series.
    metadata
        Additional fields for the sidecars.
    """

    shown: WeightedSeries
    shown_maps: ParameterMaps
    maps: ParameterMaps | MapsOnDisk
    shape: tuple[int, ...]
    count: Mapping[Status, int]
    rois: Sequence[Mapping[str, Any]]
    seconds: float
    compiling: float
    check: Callable[[], None]
    described: Region
    foreground: Region
    given: Mapping[str, Path | float | str] = field(default_factory=dict)
    note: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Making:
    """How the maps of a series are made: request, files, estimator with the reason for it, record, and decision on the
    model.
    """

    request: Request
    files: SeriesFiles
    estimator: Estimator
    choice: str
    record: Record
    decision: Decision | None = None


def written(making: Making, mapped: Mapped, *, overwrite: bool) -> Result:
    """Write maps, sidecars, report and table, all or none. `overwrite` also removes further files of an earlier run."""
    from rimap import report
    from rimap.io import Writing, map_files
    from rimap.io.atomic import as_bytes, write_together
    from rimap.io.nifti import open_nifti
    from rimap.io.path_redaction import without_folders
    from rimap.io.voxel_grid import edges_of, placed_first
    from rimap.map_display import name_of, quantities_of
    from rimap.processors import cores
    from rimap.report.statistics import known_parameters
    from rimap.signals.settings import unit_symbol

    request, files, estimator = making.request, making.files, making.estimator
    series, maps, rois = mapped.shown, mapped.shown_maps, mapped.rois
    folders = [*([] if files.dataset is None else [files.dataset]), request.out]
    simulated = _simulated(making, mapped)
    kept = simulated.kept
    about_intervals = simulated.warning(name_of(series.model.time))
    said = ordered(
        (*series.notes, *maps.warnings, *_about_sd(mapped), *about_intervals, *_about_resolution(kept, series))
    )
    told = [without_folders(text, folders) for text in said]
    part = (
        (note(f"The volume was mapped in slabs. Figures and images show the voxels {mapped.note}."),)
        if mapped.note
        else ()
    )
    how = Writing(
        fill=math.nan if request.fill is None else request.fill,
        rates=request.rates,
        given=mapped.given,
        described=mapped.foreground,
        extra_metadata={
            **mapped.metadata,
            **_resolution_fields(kept),
            "Warnings": list(warnings_of(told)),
            "Notes": list(notes_of(told)),
        },
    )
    new = map_files(mapped.maps, files, request.out, how)
    page, table = _places(new.images[0], files, request.out)
    run = report.Run(
        title=files.label,
        estimator_title=estimator.title,
        network_start=report.start_of(network) if (network := str(getattr(estimator, "network", ""))) else "",
        choice=making.choice,
        inputs=[
            *(list(files.origin) or [_shown(source, request, files.dataset) for source in files.sources]),
            *(_shown(f, request, files.dataset) for f in mapped.given.values() if isinstance(f, Path)),
        ],
        outputs=[_shown(image, request, files.dataset) for image in new.images],
        command=written_command(request, hide_inputs=bool(files.origin)),
        seconds=mapped.seconds,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        warnings=(*told, *part),
        rois=rois,
        described=mapped.described,
        edges=edges_of(placed_first([open_nifti(image) for image in files.images])),
    )
    # The page comes first, so that one processor makes it while others compress the maps.
    contents = {page: lambda: as_bytes(report.page(series, replace(maps, warnings=()), run)), **new.contents}
    if rois:
        contents[table] = as_bytes(tsv(rois))
    mapped.check()
    with making.record.writing():
        threads = min(request.threads or cores(), _MOST_THREADS)
        write_together(contents, remove=new.stale if overwrite else (), threads=threads)
    making.record.finish(path for path in contents if path not in new.dataset_files)
    inside, where = mapped.described.inside, mapped.described.words
    statistics = report.statistics_of(maps, inside)
    return Result(
        label=files.label,
        title=series.model.title,
        shape=mapped.shape,
        n_images=series.model.n_images,
        where=" ".join(x for x in (where, mapped.note) if x),
        share_ok=float((maps.status[inside] == 0).mean()) if inside.any() else 0.0,
        main=series.model.main.name,
        statistics=statistics,
        titles={q.name: name_of(q) for q in quantities_of(maps.model)},
        units={q.name: unit_symbol(q.unit) for q in quantities_of(maps.model)},
        known=known_parameters(maps),
        count=mapped.count,
        noise=_noise_text(maps),
        estimator=f"{maps.estimator} – {report.title_of(maps, estimator.title)}",
        choice=making.choice,
        warnings=warnings_of(said),
        notes=notes_of(said),
        decision=making.decision,
        kept=kept,
        seconds=mapped.seconds,
        compiling=mapped.compiling,
        maps=new.images,
        report=page,
        rois=rois,
        roi_file=table if rois else None,
    )


def _simulated(making: Making, mapped: Mapped) -> Simulated:
    """Return what is left of small spots in this series, and how many intervals contain the truth, for an estimator
    that reads neighbours.
    """
    from rimap.evaluation.resolution import Simulated, simulated

    estimator = making.estimator
    if not estimator.smooths:
        return Simulated()
    if hasattr(estimator, "sd_draws"):
        estimator = replace(estimator, sd_draws=0)  # type: ignore[type-var]
    try:
        return simulated(mapped.shown, mapped.shown_maps, estimator)
    except InputError:  # the part cannot be mapped alone; this does not affect the maps of the whole series
        return Simulated()


def _about_resolution(kept: tuple[Kept, ...], series: WeightedSeries) -> list[str]:
    from rimap.evaluation.resolution import in_words
    from rimap.map_display import name_of

    text = in_words(kept, name_of(series.model.time))
    return [note(f"{RESOLUTION}{text}")] if text else []


def _resolution_fields(kept: tuple[Kept, ...]) -> dict[str, Any]:
    """Return the sidecar field on the contrast of small spots."""
    found = [
        {"WidthVoxels": k.width, "Voxels": k.voxels, "Contrast": k.contrast, "ShareKept": round(k.share, 3)}
        for k in kept
        if math.isfinite(k.share)
    ]
    return {"SmallSpots": found} if found else {}


def _about_sd(mapped: Mapped) -> list[str]:
    """Return a note about maps of standard deviations that are not written."""
    from rimap.io.derivatives import without_sd
    from rimap.map_display import shown_name

    names = [shown_name(name) for name in without_sd(mapped.maps, mapped.given)]
    if not names:
        return []
    noise = mapped.shown_maps.noise
    why = "the noise level is not known" if noise is None or noise.sigma is None else "no voxel has one"
    if not any(mapped.shown_maps.has_sd(name) for name in without_sd(mapped.maps, mapped.given)):
        why = f"{mapped.shown_maps.estimator} does not find the covariance that it needs; nlls and mle do"
    return [note(f"No map of the standard deviation of {' and '.join(names)} is written: {why}.")]


def _noise_text(maps: ParameterMaps) -> str:
    from rimap.report.number_formats import correlation_in_words, number, sigma_number, sigma_origin

    if maps.noise is None:
        return "not used"
    sigma = sigma_number(maps)
    text = maps.noise.name + ("" if sigma is None else f", σ = {number(sigma)} ({sigma_origin(maps)})")
    return ", ".join(filter(None, (text, correlation_in_words(maps))))


def _places(main: Path, files: SeriesFiles, out: Path) -> tuple[Path, Path]:
    """Return the paths of the report and of the table of regions. They are named like the main map, at the top of
    OUT.
    """
    stem = main.name.removesuffix(".nii.gz")
    return out / (f"{stem}.html" if files.dataset else f"{stem}_report.html"), out / f"{stem}_rois.tsv"


def written_command(request: Request, *, hide_inputs: bool = False) -> str:
    """Return the command line without folders, "" if Python was the caller. `hide_inputs` hides DICOM paths, which may
    name the patient.
    """
    from rimap.io.path_redaction import word_without_folders

    hidden = set(request.inputs) if hide_inputs else set()

    def without_path(word: str) -> str:
        path = Path(word)
        if path in hidden:
            return "DICOM"
        return f"DICOM/{path.name}" if hidden & set(path.parents) - {Path()} else word_without_folders(word, _here())

    return shlex.join(["rimap", *map(without_path, request.command)]) if request.command else ""


def _here() -> Path:
    """Return the working directory, or a placeholder if it no longer exists."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def _shown(path: Path, request: Request, dataset: Path | None) -> str:
    """Return a path relative to the working directory, or else to the data set or OUT, or else its name."""
    from rimap.io.path_redaction import shown_path

    return shown_path(path, [_here(), *([] if dataset is None else [dataset]), request.out])
