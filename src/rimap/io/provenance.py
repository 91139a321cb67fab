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

from rimap.advice import notes_of, warnings_of
from rimap.errors import InputError
from rimap.io.bids import absolute, models, read_json
from rimap.io.model_metadata import settings_metadata
from rimap.io.naming import outputs_of, own_suffix, rate_suffix
from rimap.io.series_files import SeriesFiles
from rimap.series import ParameterMaps
from rimap.signals import SignalModel

#: The version whose names and fields are written.
BIDS_VERSION = "1.10.0"
#: The reference of all estimators.
_PAPER = "Sabidussi et al. 2021, Medical Image Analysis 74:102220, https://doi.org/10.1016/j.media.2021.102220"
#: What the source of σ ends with where σ was a map: sidecars have one number.
MEDIAN_OF_MAP = " (median of a map)"
#: Fields of the scanner that are copied if all sidecars agree.
_OF_SCANNER = (
    "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "DeviceSerialNumber", "PulseSequenceType",
    "PulseSequenceDetails", "SequenceName", "ReceiveCoilName", "BodyPart",
)  # fmt: skip
#: How a description ends; sidecars are in seconds.
_IN_UNIT = {"ms": ", s", "a.u.": ", in the unit of the images", "1/s": ", 1/s"}
#: Files beside the maps that the BIDS validator does not know.
_IGNORE = "*.html\n*_rois.tsv\n*_rois.json\ngroup.*\nfailed.tsv\n"
#: What is said of a given map that was not in a file.
ARRAY = "array"
_README = """Parameter maps made by rimap from the data set named in dataset_description.json.

{maps}
desc-sd          standard deviation of the map with that suffix
desc-residual    root mean square of image minus model
desc-status      quality flag of each voxel: see Levels in its sidecar
desc-<name>      a parameter of the signal model that BIDS has no suffix for: see Description in its sidecar

Relaxation times are in seconds and rates in 1/s. A desc- that starts with the name of an estimator marks maps of a
second estimator in this folder. Each sidecar has the estimator, its settings, the settings of the scanner, the noise
level and the versions of the software. A voxel without a value is NaN.
"""


def readme() -> str:
    """Return the README of a derivative data set, with the maps that the signal models declare."""
    meanings: dict[str, str] = {}
    for model in models().values():
        for q in outputs_of(model):
            if suffix := own_suffix(q, model):
                meanings.setdefault(suffix, f"{q.meaning or q.name}{_IN_UNIT.get(q.unit, '')}")
            if rate := rate_suffix(q, model):
                meanings.setdefault(rate, f"rate 1/{q.name}, 1/s (on request)")
    return _README.format(maps="\n".join(f"_{suffix:<15} {meanings[suffix]}" for suffix in sorted(meanings)))


def to_json(data: Mapping[str, Any]) -> bytes:
    """Return JSON text; NaN and infinity become null, arrays lists; bytes of file names that are not UTF-8 are
    spelled.
    """
    return (json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        errors="backslashreplace"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
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
    return {name: importlib.metadata.version(name) for name in names} | {"python": sys.version.split()[0]}


def map_metadata(
    maps: ParameterMaps, series_files: SeriesFiles, out: Path, *, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the sidecars of all maps of a series share.

    Parameters
    ----------
    given
        Where each given parameter is from: a file, a number, or ``"array"``.
    """
    model, noise = maps.model, maps.noise
    known = _given(model, given or {}, series_files, out)
    sigma = None if noise is None else noise.sigma
    typical = None if noise is None else noise.typical_sigma()
    metadata: dict[str, Any] = {
        "Sources": [*_sources(series_files, out), *(v for v in known.values() if isinstance(v, str) and v != ARRAY)],
        "EstimationAlgorithm": f"{maps.estimator}: {model.title}",
        "EstimationReference": f"{model.reference}; {_PAPER}" if model.reference else _PAPER,
        "SkullStripped": False,
        "Estimator": maps.estimator,
        "EstimatorSettings": {
            key: _setting(value) for key, value in maps.settings.items() if key != "threads"
        },  # no value depends on it
        "SignalModel": model.name,
        **settings_metadata(model),
    }
    if known:
        metadata["GivenParameters"] = known
    metadata |= {
        "NoiseModel": None if noise is None else noise.name,
        "NoiseSigma": None if sigma is None else typical,
        "NoiseSigmaSource": maps.sigma_source + (MEDIAN_OF_MAP if sigma is not None and np.ndim(sigma) else ""),
        **({} if maps.correlation is None else {"NoiseCorrelation": list(map(list, maps.correlation.axes))}),
        "Warnings": list(warnings_of(maps.warnings)),
        "Notes": list(notes_of(maps.warnings)),
    }
    sidecars = series_files.metadata()
    for field in _OF_SCANNER:
        values = {json.dumps(sidecar.get(field)) for sidecar in sidecars}
        if len(values) == 1 and sidecars[0].get(field) is not None:
            metadata[field] = sidecars[0][field]
    return metadata | {"EstimationSoftwareVersions": versions()}


def _setting(value: Any) -> Any:
    """Return an option as JSON can have it: an infinite one as a word, which is a choice and not a missing value."""
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _given(model: SignalModel, given: Mapping[str, Any], series_files: SeriesFiles, out: Path) -> dict[str, Any]:
    """Return where the given parameters are from: the name of a source, a number, or `ARRAY`."""
    known: dict[str, Any] = {
        parameter.name: parameter.start for parameter in model.parameters if parameter.given
    } | dict(given)
    return {
        key: source_of(value, series_files.dataset, out) if isinstance(value, Path) else value
        for key, value in known.items()
    }


def _sources(series_files: SeriesFiles, out: Path) -> list[str]:
    if series_files.origin:
        return list(series_files.origin)
    return [source_of(source, series_files.dataset, out) for source in series_files.sources]


def source_of(path: Path, dataset: Path | None, out: Path) -> str:
    """Return what a sidecar calls a source: a BIDS URI, or a path from OUT."""
    if dataset is None or not absolute(path).is_relative_to(dataset):
        return _relative(path, out)
    link = _link_name(_description(out), _relative(dataset, out))
    return f"bids:{link}:{absolute(path).relative_to(dataset).as_posix()}"


def _relative(path: Path, start: Path) -> str:
    path, start = absolute(path), absolute(start)
    try:
        return quote(os.fsencode(Path(os.path.relpath(path, start)).as_posix()))
    except ValueError:  # another drive: an absolute path would show where data are stored
        return quote(path.name)


def _link_name(description: Mapping[str, Any], target: str) -> str:
    links = description.get("DatasetLinks") or {}
    return next(
        (n for n, link in links.items() if link == target), "raw" if "raw" not in links else f"raw{len(links) + 1}"
    )


def _description(out: Path) -> dict[str, Any]:
    path = out / "dataset_description.json"
    return read_json(path) if path.is_file() else {}


def _made_by_rimap(description: Mapping[str, Any]) -> bool:
    made_by = description.get("GeneratedBy")
    return isinstance(made_by, list) and any(isinstance(g, dict) and g.get("Name") == "rimap" for g in made_by)


def dataset_problem(out: Path, dataset: Path) -> str:
    """Return why OUT cannot hold the derivative of `dataset`, "" where it can."""
    if absolute(out) == dataset:
        return (
            f"the output folder is the input data set itself, {out}. Give another folder, "
            f"{out / 'derivatives' / 'rimap'} for example."
        )
    return foreign_problem(out)


def foreign_problem(out: Path) -> str:
    """Return why maps cannot be added to OUT, "" if it is new or has been made by rimap."""
    description = _description(out)
    if description and not _made_by_rimap(description):
        name = description.get("Name", "unnamed")
        return f"{out} is a data set that rimap did not make ({name}). Give another output folder."
    return ""


def dataset_files(out: Path, dataset: Path) -> dict[Path, bytes]:
    """Return dataset_description.json, README and .bidsignore of OUT, those that are missing or change.

    Parameters
    ----------
    dataset
        The input; OUT itself if the images were in memory.
    """
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
        "Name": "rimap: parameter maps" + (f" of {source.get('Name', dataset.name)}" if target != "." else ""),
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
    if target != "." and link not in description.setdefault("DatasetLinks", {}):
        description["DatasetLinks"][link] = target
        origin = {"URL": target} | ({"DOI": source["DatasetDOI"]} if "DatasetDOI" in source else {})
        description["SourceDatasets"] = [*(description.get("SourceDatasets") or []), origin]
    place, content = out / "dataset_description.json", to_json(description)
    files = {} if place.is_file() and place.read_bytes() == content else {place: content}
    for name, text in (("README", readme()), (".bidsignore", _IGNORE)):
        if not (out / name).exists():
            files[out / name] = text.encode()
    return files
