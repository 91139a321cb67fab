"""Scans of the transmit field B1 in BIDS (TB1AFI, TB1DAM): found, read, and their map written as TB1map.

The formulas are in `rimap.b1`; here are the names, the settings and the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.b1 import FORMULAS
from rimap.errors import InputError
from rimap.io.atomic import write_together
from rimap.io.bids import BidsName, Sidecars, absolute, compose, dataset_of, natural, nifti_files, same_label
from rimap.io.nifti import open_nifti, read_volumes
from rimap.io.nifti_bytes import nifti_file
from rimap.io.philips_scaling import in_one_scale
from rimap.io.provenance import dataset_files, dataset_problem, source_of, to_json, versions
from rimap.io.settings import settings_from_sidecars
from rimap.io.voxel_grid import check_same_grid
from rimap.signals.settings import Setting, Values, setting, settings_of

#: The suffix of the map that is made.
SUFFIX = "TB1map"
#: The larger image must exceed this share of its 98th percentile: air gets no value.
LEAST_SIGNAL = 0.1
#: The end of ``acq-`` that numbers the images of actual flip angle imaging: acq-tr1, acq-tr2.
_NUMBERED_TR = re.compile(r"(?P<rest>.*?)(?P<number>tr\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class ActualFlipAngle:
    """The settings of actual flip angle imaging: one flip angle, two repetition times that follow each other."""

    tr: Values = setting(
        "repetition time",
        "TR",
        bids=("RepetitionTimeExcitation", "RepetitionTime"),
        entity="acq",
        plausible=(1.0, 10_000.0),
    )
    flip_angle: float = setting("flip angle", "α", "deg", bids="FlipAngle", per_image=False, plausible=(5.0, 180.0))

    method: ClassVar[str] = "actual flip-angle imaging (Yarnykh 2007, doi:10.1002/mrm.21120)"


@dataclass(frozen=True)
class DoubleAngle:
    """The settings of the double-angle method: two flip angles, the second twice the first."""

    flip_angle: Values = setting("flip angle", "α", "deg", bids="FlipAngle", entity="flip", plausible=(5.0, 360.0))

    method: ClassVar[str] = "double-angle method (Insko & Bolinger 1993, doi:10.1006/jmra.1993.1133)"


#: What declares the settings of a scan, by its BIDS suffix.
KINDS: Mapping[str, type[ActualFlipAngle] | type[DoubleAngle]] = {"TB1AFI": ActualFlipAngle, "TB1DAM": DoubleAngle}


@dataclass(frozen=True, eq=False)
class B1Scan:
    """The two images of a B1 scan.

    Parameters
    ----------
    kind
        Its BIDS suffix: ``TB1AFI`` or ``TB1DAM``.
    images
        (2, *X), in ascending order of what differs between them.
    settings
        By name, in ms and degrees: ``flip_angle`` and, of TB1AFI, ``tr``; one value, or one for each image.
    affine
        (4, 4), voxel to world, mm.
    notes
        What the user should know of how it was read.
    """

    kind: str
    images: NDArray[Any]
    settings: Mapping[str, tuple[float, ...]]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def b1(self) -> NDArray[np.float64]:
        """Return B1, actual over nominal flip angle (*X); NaN if there is no signal or no angle gives these images."""
        values = FORMULAS[self.kind](self.images, **self.settings)
        signal = np.abs(np.nan_to_num(self.images)).max(axis=0)
        return np.asarray(np.where(signal > LEAST_SIGNAL * np.quantile(signal, 0.98), values, np.nan))


@dataclass(frozen=True)
class B1Files:
    """The files of one B1 scan.

    Parameters
    ----------
    kind
        Its BIDS suffix: ``TB1AFI`` or ``TB1DAM``.
    images
        The two images, in the order of their numbers.
    entities
        The BIDS entities of its map.
    dataset
        The BIDS data set.
    label
        For messages: ``sub-01 TB1AFI``.
    """

    kind: str
    images: tuple[Path, ...]
    entities: dict[str, str]
    dataset: Path
    label: str

    def load(self) -> B1Scan:
        """Read the images and their settings.

        Raises
        ------
        InputError
            If there are not two images on one grid, or a setting is missing or cannot be.
        """
        if len(self.images) != 2:
            raise InputError(
                f"{self.label}: expected two images, got {len(self.images)} "
                f"({', '.join(image.name for image in self.images[:3])}). Add the missing one, or remove what does not "
                "belong to the scan."
            )
        files = [open_nifti(image) for image in self.images]
        notes = check_same_grid(files)
        if any(file.n_volumes != 1 for file in files):
            raise InputError(f"{self.label}: expected one volume in each file, got several.")
        sidecars = Sidecars()
        metadata = [sidecars(image, self.dataset) for image in self.images]
        declared: Any = KINDS[self.kind]
        settings, about_settings = settings_from_sidecars(self.images, [1, 1], metadata, declared)
        files, about_scale = in_one_scale(files, metadata)  # B1 depends on the ratio of the images
        axis = next(s for s in settings_of(declared).values() if s.per_image)
        order = np.argsort(settings[axis.name], kind="stable")
        _refuse_equal(axis, settings[axis.name], self.label)
        return B1Scan(
            self.kind,
            read_volumes(files)[order],
            {name: tuple(value[i] for i in order) if len(value) == 2 else value for name, value in settings.items()},
            files[0].affine,
            (*notes, *about_settings, *about_scale),
        )

    def map_path(self, out: Path | str) -> Path:
        """Return where the map is written."""
        folder = Path(out) / f"sub-{self.entities['sub']}"
        if "ses" in self.entities:
            folder /= f"ses-{self.entities['ses']}"
        return folder / "fmap" / f"{compose(self.entities, SUFFIX)}.nii.gz"


def find_b1(
    inputs: Path | str | Sequence[Path | str],
    *,
    participant_labels: Sequence[str] = (),
    sessions: Sequence[str] = (),
    runs: Sequence[str] = (),
) -> list[B1Files]:
    """Return the B1 scans in BIDS folders, [] if there are none.

    Parameters
    ----------
    inputs
        Data sets or parts of them; single files of a scan stand for all of it, other files are passed over.
    participant_labels, sessions, runs
        Only these, with or without ``sub-``, ``ses-``, ``run-``; all if empty.

    Raises
    ------
    InputError
        If an image is there twice.
    """
    wanted = {
        entity: [str(label).removeprefix(f"{entity}-") for label in labels]
        for entity, labels in (("sub", participant_labels), ("ses", sessions), ("run", runs))
    }
    groups: dict[tuple[Path, str, tuple[tuple[str, str], ...]], dict[str, Path]] = {}
    for path in _images([Path(p) for p in ([inputs] if isinstance(inputs, (str, Path)) else inputs)], wanted["sub"]):
        name = BidsName.parse(path.name)
        assert name is not None
        if name.entities.get("part", "mag") != "mag":
            continue
        number, shared = _numbered(name)
        images = groups.setdefault((path.parent, name.suffix, tuple(sorted(shared.items()))), {})
        if images.setdefault(number, path) != path:
            raise InputError(
                f"{path.name}: expected each image once, got a duplicate of {images[number].name}. Remove one of them."
            )
    found = []
    for (_, suffix, shared_items), images in groups.items():
        entities, dataset = dict(shared_items), dataset_of(next(iter(images.values())))
        fits = all(
            not labels or any(same_label(e, entities.get(e), label) for label in labels) for e, labels in wanted.items()
        )
        if dataset is not None and fits:
            ordered = tuple(images[image] for image in sorted(images, key=natural))
            label = compose(entities, suffix).replace("_", " ")
            found.append(B1Files(suffix, ordered, entities, dataset, label))
    return found


def write_b1(
    b1: NDArray[Any],
    files: B1Files,
    scan: B1Scan,
    out: Path | str,
    *,
    about: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Write a B1 map (actual over nominal flip angle) with its sidecar, in a derivative data set.

    Parameters
    ----------
    b1
        (*X), 1 where the flip angle is the nominal one; NaN where it is not known.
    about
        Fields for the sidecar: how the map was made.
    overwrite
        Replace an earlier map.

    Raises
    ------
    InputError
        If the map exists and `overwrite` is false, or OUT is not a data set of rimap.
    """
    out = Path(out)
    path = files.map_path(out)
    if problem := dataset_problem(out, files.dataset):
        raise InputError(problem)
    if path.exists() and not overwrite:
        raise InputError(f"{path} already exists. Replace it with --overwrite, or give another output folder.")
    first = open_nifti(files.images[0])
    if b1.shape != first.shape:
        raise InputError(f"{files.label}: expected a map of shape {first.shape}, got {b1.shape}.")
    metadata = {
        "Description": "B1: actual over nominal flip angle",
        "Units": "1",
        "Sources": [source_of(image, files.dataset, out) for image in files.images],
        "SkullStripped": False,
        **_settings_metadata(scan),
        **({"Warnings": list(scan.notes)} if scan.notes else {}),
        **about,
        "EstimationSoftwareVersions": versions(),
    }
    sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
    content = partial(nifti_file, np.asarray(b1, dtype=np.float32), first.header)
    write_together({**dataset_files(out, files.dataset), sidecar: to_json(metadata), path: content})
    return path


def _images(paths: Sequence[Path], subjects: Sequence[str]) -> list[Path]:
    """Return the images of B1 scans among the inputs; one file stands for those beside it that are of its scan."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [f for f in nifti_files(absolute(path), subjects, []) if is_b1(f)]
        elif path.is_file() and is_b1(path):
            own = _numbered(BidsName.parse(path.name))  # type: ignore[arg-type]
            beside = [f for f in nifti_files(absolute(path).parent, (), []) if is_b1(f)]
            found += [f for f in beside if (n := BidsName.parse(f.name)) and _numbered(n)[1] == own[1]]
    return sorted(set(found))


def is_b1(path: Path) -> bool:
    """Return, by its name, whether a file is an image of a B1 scan."""
    name = BidsName.parse(path.name)
    return name is not None and name.suffix in KINDS and "sub" in name.entities


def _numbered(name: BidsName) -> tuple[str, dict[str, str]]:
    """Return the number of an image of its scan, and the entities that all of them share."""
    entity = next(s.entity for s in settings_of(KINDS[name.suffix]).values() if s.entity)
    shared = {key: value for key, value in name.entities.items() if key not in (entity, "part")}
    value = name.entities.get(entity, "")
    if entity != "acq":
        return value, shared
    numbered = _NUMBERED_TR.fullmatch(value)
    if numbered is None:
        return value, shared
    return numbered["number"], shared | ({"acq": numbered["rest"]} if numbered["rest"] else {})


def _refuse_equal(axis: Setting, values: Sequence[float], label: str) -> None:
    if len(set(values)) < 2:
        raise InputError(
            f"{label}: expected two values of {axis.title}, got {values[0]:g} {axis.unit} twice. Check the sidecars."
        )


def _settings_metadata(scan: B1Scan) -> dict[str, Any]:
    declared = settings_of(KINDS[scan.kind])
    found: dict[str, Any] = {}
    for name, values in scan.settings.items():
        written = [declared[name].in_sidecar(value) for value in values]
        # BIDS takes an array in FlipAngle, and would take one of times for a value of each volume of the map.
        many = declared[name].sidecar_field if declared[name].unit == "deg" else f"{declared[name].sidecar_field}s"
        found[declared[name].sidecar_field if len(written) == 1 else many] = (
            written[0] if len(written) == 1 else written
        )
    return found
