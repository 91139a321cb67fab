"""Maps of the transmit field B1 from BIDS scans TB1AFI and TB1DAM, made before the series that need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rimap.advice import warnings_of
from rimap.errors import InputError
from rimap.workflow.listener import Listener
from rimap.workflow.model_choice import possible_models
from rimap.workflow.request import Request

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.io.b1 import B1Files
    from rimap.io.search_result import Found
    from rimap.io.series_records import Record


@dataclass(frozen=True)
class FieldMap:
    """A map of B1.

    Parameters
    ----------
    label
        The scan that it was made from.
    path
        Path of the map.
    method
        Method with which it was made, with a reference.
    quartiles
        Quartiles of the voxels that have a value.
    kept
        Whether an earlier run made it from the same files.
    """

    label: str
    path: Path
    method: str
    quartiles: tuple[float, float, float]
    kept: bool = False


def scans_and_series(request: Request) -> tuple[list[B1Files], Found]:
    """Return the B1 scans and the series of a request. B1 scans without series are accepted.

    Raises
    ------
    InputError
        If there is neither.
    """
    from rimap.io.b1 import find_b1
    from rimap.io.search_result import Found
    from rimap.io.series_search import find

    labels = {
        "participant_labels": request.participant_labels,
        "sessions": request.sessions,
        "runs": request.runs,
    }
    scans = find_b1(request.inputs, participant_labels=request.participant_labels, sessions=request.sessions)
    if scans and _only_scans(request.inputs):
        return scans, Found(())
    return scans, find(request.inputs, sequence=request.sequence, series=request.series, **labels)


def make_maps(
    request: Request, scans: Sequence[B1Files], found: Sequence[SeriesFiles], listener: Listener, *, alone: bool = False
) -> tuple[list[FieldMap], list[tuple[str, InputError]]]:
    """Return the maps of the scans that a series needs (of all if there is no series), and scans that were refused.

    The error of a scan that is `alone` is not shown, because it is raised.
    """
    maps, refused = [], []
    for scan in scans:
        if found and not any(_needs(request, files, scan) for files in found):
            continue
        try:
            maps.append(_map(request, scan, listener))
        except InputError as error:
            refused.append((scan.label, error))
            if not alone:
                listener.warn(f"error: {error if scan.label in str(error) else f'{scan.label}: {error}'}")
    return maps, refused


def _map(request: Request, scan: B1Files, listener: Listener) -> FieldMap:
    """Write the map of a scan, unless an earlier run made it from the same files. Warnings go to the listener."""
    from rimap.io.b1 import KINDS, write_b1
    from rimap.io.nifti import open_nifti

    path, method, record = scan.map_path(request.out), KINDS[scan.kind].method, _record(request, scan)
    state = "none" if request.overwrite else record.state()
    if state == "finished":
        (values,) = open_nifti(path).volumes()
        return FieldMap(scan.label, path, method, _quartiles(values), kept=True)
    if state == "different":
        raise InputError(
            f"{scan.label}: a map made from other files already exists ({'; '.join(record.differences())[:200]}). "
            f"Replace it "
            "with --overwrite, or give another output folder."
        )
    loaded = scan.load()
    for text in warnings_of(loaded.notes):
        listener.warn(f"warning: {scan.label}: {text}.")
    b1 = loaded.b1()
    if not np.isfinite(b1).any():
        raise InputError(
            f"{scan.label}: expected signal that fits the {method}, got none in any voxel. Check the two images."
        )
    with record.writing():
        write_b1(
            b1, scan, loaded, request.out, about={"Method": method}, overwrite=request.overwrite or state == "begun"
        )
    record.finish([path, path.with_name(path.name.replace(".nii.gz", ".json"))])
    return FieldMap(scan.label, path, method, _quartiles(b1))


def _record(request: Request, scan: B1Files) -> Record:
    from rimap import __version__
    from rimap.io import SeriesFiles
    from rimap.io.bids import compose
    from rimap.io.series_records import record_of

    stem = compose(scan.entities, "").rstrip("_")
    files = SeriesFiles(scan.images, scan.entities, scan.kind, stem, scan.dataset, scan.label)
    return record_of(files, request.out, "b1", {"rimap": __version__})


def _needs(request: Request, files: SeriesFiles, scan: B1Files) -> bool:
    """Return whether a series has the subject and session of a B1 scan, and its model uses B1."""
    from rimap.io.b1 import SUFFIX

    same = all(files.entities.get(entity) == scan.entities.get(entity) for entity in ("sub", "ses"))
    parameters = [parameter for model in possible_models(request, files) for parameter in model.parameters]
    return same and any(parameter.suffix == SUFFIX and parameter.name not in request.given for parameter in parameters)


def _only_scans(inputs: Sequence[Path]) -> bool:
    """Return whether the inputs contain no series, but may contain B1 scans."""
    from rimap.io.b1 import KINDS
    from rimap.io.bids import BidsName, absolute, model_of_suffix, nifti_files

    for path in inputs:
        for file in nifti_files(absolute(path), (), []) if path.is_dir() else [path]:
            name = BidsName.parse(file.name)
            if name is None or model_of_suffix(name.suffix) or (not path.is_dir() and name.suffix not in KINDS):
                return False
    return True


def _quartiles(b1: np.ndarray) -> tuple[float, float, float]:
    low, middle, high = np.nanquantile(np.asarray(b1, dtype=float), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
