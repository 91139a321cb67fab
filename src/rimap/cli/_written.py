"""What is written of a mapped series: maps, sidecars, report and table, all of it or nothing."""

from __future__ import annotations

import csv
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.cli._request import Request, label_table

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.io import SeriesFiles
    from rimap.io.records import Record
    from rimap.io.slabs import MapsOnDisk
    from rimap.report import Statistics
    from rimap.series import ParameterMaps, Status, WeightedSeries


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Mapped:
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


def written(
    request: Request, files: SeriesFiles, estimator: Estimator, choice: str, mapped: Mapped, record: Record,
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
        network_start=report.start_of(network) if (network := str(getattr(estimator, "network", ""))) else "",
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
        estimator=f"{maps.estimator} – {report.title_of(maps, estimator.title)}",
        choice=choice,
        warnings=warnings,
        seconds=mapped.seconds,
        compiling=mapped.compiling,
        maps=new.images,
        report=page,
        rois=rois,
        roi_file=table if rois else None,
    )


def _noise_text(maps: ParameterMaps) -> str:
    from rimap.report.numbers import number, sigma_number, sigma_origin

    if maps.noise is None:
        return "not used"
    sigma = sigma_number(maps)
    text = maps.noise.name
    if sigma is None:
        return text
    return f"{text}, σ = {number(sigma)} ({sigma_origin(maps)})"


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
