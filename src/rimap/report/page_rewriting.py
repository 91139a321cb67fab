"""Write the page of an existing result again, from the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.estimators import estimators
from rimap.io.atomic import write_whole
from rimap.io.nifti import open_nifti
from rimap.io.results import ResultFiles
from rimap.io.voxel_grid import edges_of
from rimap.report.page import RUN_BLOCK, Run, page
from rimap.report.statistics import COUNTS, FIGURES, share_column
from rimap.series import Status

#: Columns with numbers in a table of regions.
_NUMBERS = {"label": int} | {name: int if name in COUNTS else float for name in FIGURES}
#: columns that tables of earlier versions lack: quartiles,
_QUARTILES = ("q25", "q75")
#: and the share of each quality flag.
_SHARES = {share_column(s) for s in Status}


@dataclass(frozen=True)
class Again:
    """A page that was written again.

    Parameters
    ----------
    page
        Its path.
    problem
        Why it has no measured points; "" if it has them.
    kept
        Whether the earlier page was kept, because it has measured points and the new one would not.
    """

    page: Path
    problem: str
    kept: bool = False


def page_again(result: ResultFiles, *, overwrite: bool = False) -> Again:
    """Write the page of a result again, to the path that `rimap map` used.

    The images are read from the sources in the sidecars, if these have not changed. The command and the duration of the
    run are taken from the earlier page, if there is one.

    Parameters
    ----------
    overwrite
        Replace an earlier page even if the images are no longer available and the new page has no measured signal.

    Raises
    ------
    InputError
        If the maps cannot be read or the page cannot be written.
    """
    maps = result.load()
    stem = result.main.name.removesuffix(".nii.gz")
    path = result.dataset / f"{stem}.html" if result.dataset else result.main.parent / f"{stem}_report.html"
    series, problem = None, ""
    try:
        series = result.series(maps)
    except InputError as error:
        problem = str(error)
    text = _text(path)
    if problem and '"images":{' in text and not overwrite:
        return Again(path, problem, kept=True)
    run = _run(result, path, text)
    if problem:
        run = replace(run, warnings=(*run.warnings, f"This page has no measured signal: {problem}."))
    write_whole(path, page(series, maps, run))
    return Again(path, problem)


def _run(result: ResultFiles, path: Path, text_before: str) -> Run:
    before, about = _block(text_before), result.metadata
    cls = estimators().get(str(about.get("Estimator")))

    def text(name: str, otherwise: str = "") -> str:
        value = before.get(name)
        return value if isinstance(value, str) and value else otherwise

    def texts(name: str, otherwise: list[str]) -> list[str]:
        value = before.get(name)
        return [v for v in value if isinstance(v, str)] if isinstance(value, list) and value else otherwise

    seconds = before.get("seconds")
    written = datetime.fromtimestamp(result.main.stat().st_mtime).astimezone()
    sources, versions = about.get("Sources"), about.get("EstimationSoftwareVersions")
    return Run(
        title=text("title", result.label),
        estimator_title=cls.title if cls is not None else text("estimator_title"),
        choice=text("choice"),
        inputs=texts("inputs", [str(source) for source in sources] if isinstance(sources, list) else []),
        outputs=texts("outputs", [image.name for image in result.images()]),
        command=text("command"),
        network_start=text("network_start"),
        seconds=float(seconds) if isinstance(seconds, (int, float)) and 0 < seconds < 1e9 else 0.0,
        made=text("made", written.strftime("%Y-%m-%d %H:%M")),
        rois=_table(path.parent / f"{result.main.name.removesuffix('.nii.gz')}_rois.tsv"),
        described=result.described(),
        edges=edges_of(open_nifti(result.main)),
        versions={str(key): str(value) for key, value in versions.items()} if isinstance(versions, Mapping) else {},
    )


def _text(path: Path) -> str:
    """Return the earlier page; "" if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _block(text: str) -> dict[str, Any]:
    """Return the data of the run in the earlier page; {} if there are none."""
    try:
        block = text[text.index(RUN_BLOCK) + len(RUN_BLOCK) :]
        data = json.loads(block[: block.index("</script>")])
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of regions; [] if there is no readable table."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
        return [
            {key: _cell(key, value) for key, value in row.items()}
            for row in rows
            if {*_NUMBERS, "name", "map", "unit"} - {*_QUARTILES} <= row.keys()
        ]
    except (OSError, ValueError):
        return []


def _cell(column: str, text: str) -> Any:
    if column in _SHARES or column in _QUARTILES:
        return float("nan" if text == "n/a" else text)
    if column in _NUMBERS:
        return _NUMBERS[column]("nan" if text == "n/a" else text)
    return "" if text == "n/a" else text
