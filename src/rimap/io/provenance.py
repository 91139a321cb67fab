"""What sidecars and dataset_description.json say of how maps were made."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rimap.errors import InputError
from rimap.io.bids import absolute, read_json
from rimap.io.series_files import SeriesFiles
from rimap.series import ParameterMaps
from rimap.signals import SignalModel
from rimap.signals.base import bids_time

BIDS_VERSION = "1.10.0"
_PAPER = "Sabidussi et al. 2021, Medical Image Analysis 74:102220, https://doi.org/10.1016/j.media.2021.102220"
#: What the source of σ ends with where σ was a map: sidecars have one number.
MEDIAN_OF_MAP = " (median of a map)"
#: Of the scanner, copied where all sidecars agree.
_OF_SCANNER = (
    "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "DeviceSerialNumber", "PulseSequenceType",
    "PulseSequenceDetails", "SequenceName", "ReceiveCoilName", "BodyPart",
)  # fmt: skip
_IGNORE = "*.html\n*_rois.tsv\n*_rois.json\ngroup.*\nfailed.tsv\n"
_README = """Parameter maps made by rimap from the data set named in dataset_description.json.

_T1map, _T2map   relaxation times, s
_M0map           amplitude A, in the unit of the images
_R1map, _R2map   relaxation rates, 1/s (on request)
desc-sd          standard deviation of the map with that suffix
desc-B           inversion efficiency term B of A (1 - B exp(-TI/T1))
desc-residual    root mean square of image minus model
desc-status      what became of each voxel: see Levels in its sidecar

A desc- that starts with the name of an estimator marks maps of a second estimator in this folder. Each sidecar has the
estimator, its settings, the noise level and the versions of the software. A voxel without an answer is NaN.
"""


def to_json(data: Mapping[str, Any]) -> bytes:
    """Return JSON text; NaN and infinity become null, arrays lists, half characters question marks."""
    return (json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="replace")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


@cache
def versions() -> dict[str, str]:
    """Return the versions of rimap and of what it computes with."""
    names = ("rimap", "numpy", "scipy", "numba", "nibabel")
    return {n: importlib.metadata.version(n) for n in names} | {"python": sys.version.split()[0]}


def map_metadata(maps: ParameterMaps, series_files: SeriesFiles, out: Path) -> dict[str, Any]:
    """Return what the sidecars of all maps of a series share."""
    model, noise = maps.model, maps.noise
    sigma = None if noise is None or noise.sigma is None else np.asarray(noise.sigma, dtype=float)
    metadata: dict[str, Any] = {
        "Sources": _sources(series_files, out),
        "EstimationAlgorithm": f"{maps.estimator}: {model.title}",
        "EstimationReference": _PAPER,
        "SkullStripped": False,
        "Estimator": maps.estimator,
        "EstimatorSettings": {k: v for k, v in maps.settings.items() if k != "threads"},  # no value depends on it
        "SignalModel": model.name,
        _times_field(model): [_seconds(t) for t in model.times],
    }
    tr = getattr(model, "tr", None)
    if tr is not None:
        if len(set(tr)) == 1:
            metadata["RepetitionTimePreparation"] = _seconds(tr[0])
        else:  # BIDS would take the array for one value per volume of the map
            metadata["RepetitionTimesPreparation"] = [_seconds(t) for t in tr]
    if hasattr(model, "signed"):
        metadata["SignedImages"] = model.signed
    metadata |= {
        "NoiseModel": None if noise is None else noise.name,
        "NoiseSigma": None if sigma is None else float(sigma) if sigma.ndim == 0 else float(np.nanmedian(sigma)),
        "NoiseSigmaSource": maps.sigma_source + (MEDIAN_OF_MAP if sigma is not None and sigma.ndim else ""),
        "Warnings": list(maps.warnings),
    }
    sidecars = series_files.metadata()
    for field in _OF_SCANNER:
        values = {json.dumps(m.get(field)) for m in sidecars}
        if len(values) == 1 and sidecars[0].get(field) is not None:
            metadata[field] = sidecars[0][field]
    return metadata | {"EstimationSoftwareVersions": versions()}


def _times_field(model: SignalModel) -> str:
    """Return the field for the times: BIDS takes an array for EchoTime (positive), but not for InversionTime."""
    return "EchoTime" if bids_time(model) == "EchoTime" and model.times.min() > 0 else f"{bids_time(model)}s"


def _seconds(ms: float) -> float:
    return float(f"{ms / 1000:.12g}")


def _sources(series_files: SeriesFiles, out: Path) -> list[str]:
    if series_files.origin:
        return list(series_files.origin)
    if series_files.dataset is None:
        return [_relative(f, out) for f in series_files.sources]
    link = _link_name(_description(out), _relative(series_files.dataset, out))
    paths = [absolute(f).relative_to(series_files.dataset) for f in series_files.sources]
    return [f"bids:{link}:{p.as_posix()}" for p in paths]


def _relative(path: Path, start: Path) -> str:
    path, start = absolute(path), absolute(start)
    try:
        return quote(Path(os.path.relpath(path, start)).as_posix())
    except ValueError:  # another drive
        return path.as_uri()


def _link_name(description: Mapping[str, Any], target: str) -> str:
    links = description.get("DatasetLinks") or {}
    return next((n for n, t in links.items() if t == target), "raw" if "raw" not in links else f"raw{len(links) + 1}")


def _description(out: Path) -> dict[str, Any]:
    path = out / "dataset_description.json"
    return read_json(path) if path.is_file() else {}


def _made_by_rimap(description: Mapping[str, Any]) -> bool:
    made_by = description.get("GeneratedBy")
    return isinstance(made_by, list) and any(isinstance(g, dict) and g.get("Name") == "rimap" for g in made_by)


def dataset_problem(out: Path, dataset: Path) -> str:
    """Return why OUT cannot hold the derivative of `dataset`, "" where it can."""
    if absolute(out) == dataset:
        return f"the output folder is the input data set itself, {out}. Give another folder, {out / 'derivatives' / 'rimap'} for example."
    description = _description(out)
    if description and not _made_by_rimap(description):
        name = description.get("Name", "unnamed")
        return f"{out} is a data set that rimap did not make ({name}). Give another output folder."
    return ""


def dataset_files(out: Path, dataset: Path) -> dict[Path, bytes]:
    """Return dataset_description.json, README and .bidsignore of OUT, those that are missing or change."""
    before = _description(out)
    target = _relative(dataset, out)
    try:
        source = (
            read_json(dataset / "dataset_description.json") if (dataset / "dataset_description.json").is_file() else {}
        )
    except InputError:
        source = {}
    version = importlib.metadata.version("rimap")
    description = before or {
        "Name": f"rimap: T1 and T2 maps of {source.get('Name', dataset.name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [],
        "SourceDatasets": [],
        "DatasetLinks": {},
    }
    if not any(g.get("Name") == "rimap" and g.get("Version") == version for g in description["GeneratedBy"]):
        description["GeneratedBy"] = [
            *description["GeneratedBy"],
            {"Name": "rimap", "Version": version, "Description": _PAPER},
        ]
    link = _link_name(description, target)
    if link not in description.setdefault("DatasetLinks", {}):
        description["DatasetLinks"][link] = target
        origin = {"URL": target} | ({"DOI": source["DatasetDOI"]} if "DatasetDOI" in source else {})
        description["SourceDatasets"] = [*(description.get("SourceDatasets") or []), origin]
    place, content = out / "dataset_description.json", to_json(description)
    files = {} if place.is_file() and place.read_bytes() == content else {place: content}
    for name, text in (("README", _README), (".bidsignore", _IGNORE)):
        if not (out / name).exists():
            files[out / name] = text.encode()
    return files
