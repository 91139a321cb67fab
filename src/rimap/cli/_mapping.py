"""What `rimap map` does with each series: read, estimate, write, report."""

from __future__ import annotations

import csv
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.cli._choice import build, default_estimator, estimator_names
from rimap.cli._options import one_of
from rimap.cli._progress import compile_time, progress_bar
from rimap.cli._register import in_register
from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.estimators.base import Progress
    from rimap.io import SeriesFiles
    from rimap.io.opened import OpenSeries
    from rimap.io.records import Record
    from rimap.io.slabs import MapsOnDisk
    from rimap.likelihood import Noise
    from rimap.report import Statistics
    from rimap.series import ParameterMaps, Status, WeightedSeries


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for; see the help of `rimap map`."""

    inputs: tuple[Path, ...]
    out: Path
    estimator: str | None = None
    mask: Path | None = None
    times_ms: tuple[float, ...] | None = None
    tr_ms: tuple[float, ...] | None = None
    sequence: str | None = None
    signed: bool | None = None
    skip_first: int = 0
    noise: str | None = None
    sigma: float | Path | None = None
    estimator_options: Mapping[str, Any] = field(default_factory=dict)
    participant_labels: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    rois: Path | None = None
    rates: bool = False
    fill: float | None = None
    overwrite: bool = False
    threads: int | None = None
    memory: int | None = None
    register: bool = False
    quiet: bool = False
    command: tuple[str, ...] = ()  # what was typed, where a worker is told


#: Estimates in another way than `Estimator.estimate`: in slabs on a cluster, say.
Spread = Callable[["Estimator", "WeightedSeries", "Progress | None"], "ParameterMaps"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one series: all that the summary says, and none of the images."""

    label: str
    title: str
    shape: tuple[int, ...]
    n_images: int
    where: str
    share_ok: float
    statistics: Mapping[str, Statistics]
    units: Mapping[str, str]
    count: Mapping[Status, int]
    noise: str
    estimator: str
    choice: str
    warnings: Sequence[str]
    seconds: float
    compiling: float
    maps: Sequence[Path]
    report: Path
    rois: Sequence[Mapping[str, Any]]
    roi_file: Path | None


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


def subjects(request: Request, found: Sequence[SeriesFiles]) -> list[str]:
    """Return the subjects that a run writes where it was asked for some alone: others may run beside it."""
    if not request.participant_labels or any(files.dataset is None for files in found):
        return []
    return sorted({f"sub-{files.entities['sub']}" for files in found})


def sequences() -> list[str]:
    """Return the names that `--sequence` takes."""
    from rimap.signals import signal_models

    return sorted(signal_models())


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
        noise=_noise(request),
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
        return _written(request, files, estimator, choice, mapped, record, overwrite)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mapped:
    """A series and its maps.

    Parameters
    ----------
    shown, shown_maps
        What the report and the summary see: all, or planes of it.
    maps
        What is written.
    count
        Voxels by status, all of them.
    note
        How the shown differs from all, "" where it does not.
    metadata
        For the sidecars.
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
    note: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


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
    need = memory.needed(estimator.name, voxels, N)
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
        least = memory.needed("nlls", 2 * math.prod(opened.shape[:-1]), N) + 2 * voxels
        raise InputError(
            f"{opened.label}: a single slice needs about {memory.shown(least)} of memory; {have}. Give more with --memory."
        )
    return slab


def _whole(request: Request, estimator: Estimator, opened: OpenSeries, name: str, spread: Spread | None) -> _Mapped:
    from rimap import report
    from rimap.io import read_labels

    series, about_register = in_register(opened.read(), align=request.register, threads=request.threads)
    labels = None if request.rois is None else read_labels(request.rois, series.shape, series.affine)
    begun = time.perf_counter()
    with compile_time() as compiling, progress_bar(name, quiet=request.quiet) as progress:
        maps = spread(estimator, series, progress) if spread else estimator.estimate(series, progress=progress)
    return _Mapped(
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
) -> _Mapped:
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
    return _Mapped(
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


def _written(
    request: Request, files: SeriesFiles, estimator: Estimator, choice: str, mapped: _Mapped, record: Record,
    overwrite: bool,
) -> Result:  # fmt: skip
    """Write maps, sidecars, report and table, all or none."""
    from rimap import report
    from rimap.io import map_files
    from rimap.io.atomic import write_together

    series, maps, rois = mapped.shown, mapped.shown_maps, mapped.rois
    warnings = tuple(dict.fromkeys((*series.notes, *maps.warnings)))
    new = map_files(
        mapped.maps,
        files,
        request.out,
        fill=math.nan if request.fill is None else request.fill,
        rates=request.rates,
        extra_metadata={**mapped.metadata, "Warnings": list(warnings)},
    )
    page, table = _places(new.images[0], files, request.out)
    run = report.Run(
        title=files.label,
        estimator_title=estimator.title,
        choice=choice,
        inputs=list(files.origin) or [_shown(f) for f in files.sources],
        outputs=[_shown(f) for f in new.images],
        command=_command(request, hide_inputs=bool(files.origin)),
        seconds=mapped.seconds,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        warnings=(*warnings, f"Mapped in slabs; figures and pictures are of the voxels {mapped.note}.")
        if mapped.note
        else warnings,
        rois=rois,
    )
    contents = {**new.contents, page: report.page(series, maps, run).encode()}
    if rois:
        contents[table] = tsv(rois).encode()
    mapped.check()
    with record.writing():
        write_together(contents, remove=new.stale if overwrite else ())
    record.finish(path for path in contents if path not in new.dataset_files)
    inside, where = report.region(series)
    return Result(
        label=files.label,
        title=series.model.title,
        shape=mapped.shape,
        n_images=series.model.n_images,
        where=" ".join(x for x in (where, mapped.note) if x),
        share_ok=float((maps.status[inside] == 0).mean()),
        statistics=report.statistics_of(maps, inside),
        units={p.name: p.unit for p in maps.model.parameters},
        count=mapped.count,
        noise=_noise_text(maps),
        estimator=f"{maps.estimator} – {estimator.title}",
        choice=choice,
        warnings=warnings,
        seconds=mapped.seconds,
        compiling=mapped.compiling,
        maps=new.images,
        report=page,
        rois=rois,
        roi_file=table if rois else None,
    )


def chosen(request: Request, sequence: str) -> tuple[Estimator, str]:
    """Return the estimator of a request for a sequence, and why it is that one."""
    if request.estimator is None:
        name, why = default_estimator(sequence, request.estimator_options)
    else:
        name, why = one_of(request.estimator, estimator_names(), "--estimator"), "as asked for"
    return build(name, dict(request.estimator_options), threads=request.threads), why


def check_request(request: Request, found: Sequence[SeriesFiles]) -> None:
    """Refuse options that no series can take, and an OUT that cannot take the maps, before any work."""
    _check_options(request, found)
    _check_output(request, found)


def _check_options(request: Request, found: Sequence[SeriesFiles]) -> None:
    models = {f.model_class(request.sequence) for f in found}
    for model in models:
        chosen(request, model.name)
    if request.times_ms is not None and len(models) > 1:
        raise InputError(
            f"--times-ms is for series of one kind; {' and '.join(sorted(m.title for m in models))} came. "
            "Choose one with --sequence."
        )
    has = {f.name for model in models for f in fields(model)}
    titles = " and ".join(sorted(m.title for m in models))
    for option, value, name in (("--tr-ms", request.tr_ms, "tr"), ("--signed/--magnitude", request.signed, "signed")):
        if value is not None and name not in has:
            raise InputError(f"{option} is for inversion recovery; {titles} came. Leave it out.")
    if request.noise is not None:
        one_of(request.noise, ("gaussian", "rician"), "--noise")
    if request.skip_first < 0:
        raise InputError(f"--skip-first: a number of images was expected; {request.skip_first} came.")
    for path, option in ((request.mask, "--mask"), (request.rois, "--rois")):
        if path is not None and not path.is_file():
            raise InputError(f"{option} {path}: there is no such file.")
    if request.out.exists() and not request.out.is_dir():
        raise InputError(f"-o {request.out}: a folder was expected; this is a file.")


def _check_output(request: Request, found: Sequence[SeriesFiles]) -> None:
    from rimap.io import check_output

    by_estimator: dict[str, list[SeriesFiles]] = {}
    for f in found:
        by_estimator.setdefault(chosen(request, f.model_class(request.sequence).name)[0].name, []).append(f)
    for name, files in by_estimator.items():
        check_output(files, request.out, estimator=name, overwrite=True, sequence=request.sequence)


def finished(request: Request, files: SeriesFiles) -> bool:
    """Tell whether the maps of a series are all there, made of the same files with the same settings.

    Raises
    ------
    InputError
        Where other maps are there and `overwrite` is false.
    """
    from rimap.io import check_output

    if request.overwrite:
        return False
    record = record_for(request, files)
    state = record.state()
    if state in ("finished", "begun"):
        return state == "finished"
    if state == "different":
        what = "; ".join(record.differences())
        raise InputError(
            f"{files.label}: maps are there already in {request.out}, made otherwise ({what[:200]}). Replace them with "
            "--overwrite, or give another -o OUT."
        )
    estimator, _ = chosen(request, files.model_class(request.sequence).name)
    check_output([files], request.out, estimator=estimator.name, sequence=request.sequence)
    return False


#: What the maps do not depend on, or what `record_for` says in another way.
_NOT_RECORDED = {
    "inputs", "out", "estimator", "estimator_options", "participant_labels", "sessions", "runs", "series", "overwrite",
    "threads", "memory", "quiet", "command",
}  # fmt: skip


def record_for(request: Request, files: SeriesFiles) -> Record:
    """Return the record of a series in OUT: what the maps depend on, and what became of them."""
    from rimap import __version__
    from rimap.estimators.shipped import default_network, path_of
    from rimap.io.records import checksum, record_of

    model = files.model_class(request.sequence)
    estimator, _ = chosen(request, model.name)
    known = getattr(estimator, "__dataclass_fields__", {}).values()
    options = {f.name: getattr(estimator, f.name) for f in known if f.repr and f.name != "threads"}
    if "network" in options:
        network = path_of(options["network"] or default_network(model.name, estimator.name))
        options["network"] = f"{network.stem} {checksum(network)}"
    asked = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in _NOT_RECORDED}
    if request.rois is not None and (table := label_table(request.rois)).is_file():
        asked["roi_names"] = table
    settings = {"rimap": __version__, **options, **asked}
    given = {k: v for k, v in settings.items() if v is not None and v is not False and v != ()}
    return record_of(files, request.out, estimator.name, given)


def _noise(request: Request) -> Noise | None:
    from rimap.likelihood import Gaussian, Rician

    if request.noise is None and request.sigma is None:
        return None
    kind = Rician if (request.noise or "gaussian").strip().lower() == "rician" else Gaussian
    if not isinstance(request.sigma, Path):
        return kind(request.sigma)
    from rimap.io.nifti import open_nifti

    file = open_nifti(request.sigma)
    if file.n_volumes != 1:
        raise InputError(f"--sigma {request.sigma}: one volume was expected; {file.n_volumes} came.")
    return kind(next(iter(file.volumes())))


def _noise_text(maps: ParameterMaps) -> str:
    from rimap.report.page import number, sigma_number

    if maps.noise is None:
        return "not used"
    sigma = sigma_number(maps)
    text = maps.noise.name
    if sigma is None:
        return text
    source = "given" if maps.sigma_source == "given" else f"estimated from the {maps.sigma_source}"
    return f"{text}, σ = {number(sigma)} ({source})"


def _places(main: Path, files: SeriesFiles, out: Path) -> tuple[Path, Path]:
    """Return where the report and the table of regions go: named like the main map, at the top of OUT."""
    stem = main.name.removesuffix(".nii.gz")
    return out / (f"{stem}.html" if files.dataset else f"{stem}_report.html"), out / f"{stem}_rois.tsv"


def label_names(image: Path | None) -> dict[int, str]:
    """Return the names in the table beside a label image (BIDS: the same stem, ``.tsv``, index and name), if any."""
    if image is None:
        return {}
    names = {}
    try:
        with label_table(image).open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if (row.get("index") or "").strip().isdigit():
                    names[int(row["index"])] = (row.get("name") or "").strip()
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return names


def label_table(image: Path) -> Path:
    """Return where the names of the labels of an image are, if anywhere."""
    return image.with_name(f"{image.name.removesuffix('.gz').removesuffix('.nii')}.tsv")


def tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as tab-separated text, as BIDS has it: ``n/a`` for what is not known."""

    def cell(v: Any) -> str:
        if isinstance(v, float):
            return f"{v:.6g}" if v == v else "n/a"
        return str(v) or "n/a"

    lines = ["\t".join(rows[0]), *("\t".join(cell(v) for v in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def _command(request: Request, *, hide_inputs: bool) -> str:
    """Return what was typed; without the paths of DICOM, which may be named after the patient."""
    hidden = set(request.inputs) if hide_inputs else set()

    def said(word: str) -> str:
        path = Path(word)
        return "DICOM" if path in hidden else f"DICOM/{path.name}" if hidden & set(path.parents) - {Path()} else word

    return shlex.join(["rimap", *map(said, request.command or sys.argv[1:])])


def _shown(path: Path) -> str:
    """Return a path as short as it can be said."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _limit_threads(n: int) -> None:
    """Tell the libraries, which read this when they are imported, to use at most `n` cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(n)
