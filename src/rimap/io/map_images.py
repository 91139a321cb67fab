"""Map files, of rimap or of other software: what each shows, its unit, and the files that belong to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note
from rimap.errors import InputError, did_you_mean
from rimap.io.bids import BidsName, is_nifti, map_suffixes, models, read_json, strip_nii
from rimap.io.masks import read_map
from rimap.io.naming import SIGNAL, desc_of, main_suffix, sidecar_of
from rimap.io.nifti import NiftiFile, open_nifti
from rimap.io.voxel_grid import affine_of, edges_of
from rimap.maps import Status

#: The unit in which tables have a map, and how many of it one unit of the file is, by `Units` of the sidecar.
_UNITS = {
    "s": ("ms", 1000.0),
    "ms": ("ms", 1.0),
    "1/s": ("1/s", 1.0),
    "1/ms": ("1/s", 1000.0),
    "arbitrary": ("a.u.", 1.0),
    "degree": ("deg", 1.0),
}
#: The parts of the name of a map: stem, description and suffix.
_NAME = re.compile(r"(?P<stem>.+?)(?:_desc-(?P<desc>[A-Za-z0-9]+))?_(?P<suffix>[A-Za-z0-9]+)")
#: Names of relaxation times and rates, also in names that are not BIDS: t1.nii.gz, mean_R2star.nii.
_RELAXATION = re.compile(r"(?:^|[^a-z0-9])(?P<kind>[TR])(?P<rest>1rho|2star|1|2)(?:map)?(?:$|[^a-z0-9])", re.IGNORECASE)
#: A map of times with a median above this many seconds is in ms: water has T1 and T2 of a few seconds, and no T2* near
#: that.
_LONGEST_S, _LONGEST_T2STAR_S = 8.0, 0.5
#: What `desc-` can say beside the name of a parameter.
_NO_VALUES = ("status", "residual", SIGNAL)
#: Take every map of a folder.
ALL = "all"


@dataclass(frozen=True, eq=False)
class MapImage:
    """A map in a file.

    Parameters
    ----------
    path
        The image.
    name
        What it shows: ``T1``, ``R2``, ``B``, ``sd T1``; the name of the file if that is not known.
    unit
        The unit of its `values`: ms, 1/s; "" if it is not known.
    scale
        How many of that unit one unit of the file is.
    stem
        What the names of all maps of the series start with.
    entities
        BIDS entities of the name, without ``desc-``; {} for other names.
    about
        The sidecar, {} if there is none.
    notes
        What the user should know of how it was read.
    of_time
        The relaxation time that a rate is computed from, `None` for a map that is in a file of its own.
    """

    path: Path
    name: str
    unit: str
    scale: float
    stem: str
    entities: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    of_time: MapImage | None = None

    @property
    def label(self) -> str:
        """The name of the file without extension, and of the map if the file is another's."""
        stem = strip_nii(self.path)
        return f"{stem} ({self.name})" if self.of_time is not None else stem

    @property
    def quantity(self) -> str:
        """The map without what it is of it: T1 for ``sd T1``."""
        return self.name.removeprefix("sd ")

    @property
    def of_main(self) -> str:
        """The relaxation time whose series it is from: T1 for R1map and for ``desc-B_T1map``."""
        model = models().get(str(self.about.get("SignalModel")))
        if model is not None:
            return main_suffix(model).removesuffix("map")
        return re.sub("^R(?=[12])", "T", _suffix(self.path).removesuffix("map"))

    @property
    def unit_of_file(self) -> str:
        """The unit of the values in the file, as sidecars have it: s for times that tables have in ms."""
        if self.of_time is None and self.about.get("Units"):
            return str(self.about["Units"])
        return next(
            (unit for unit, (own, scale) in _UNITS.items() if (own, scale) == (self.unit, self.scale)), self.unit
        )

    @property
    def is_time(self) -> bool:
        """Whether it is a relaxation time."""
        return self.unit == "ms" and self.name == self.quantity and self.name.startswith("T")

    def file(self) -> NiftiFile:
        """Return the header.

        Raises
        ------
        InputError
            If it cannot be read, or has several volumes.
        """
        file = open_nifti(self.path)
        if file.n_volumes != 1:
            raise InputError(
                f"{self.path}: expected a map with one value for each voxel, got {file.n_volumes} volumes. "
                "Map the series first (rimap map), or give one volume."
            )
        return file

    def values(self) -> NDArray[np.float64]:
        """Return the values (*X) in `unit`; NaN if there is none."""
        if self.of_time is not None:
            return _inverse(self.of_time.values())
        return np.asarray(next(iter(self.file().volumes())), dtype=float) * self.scale

    def sd(self) -> NDArray[np.float64] | None:
        """Return the standard deviations (*X) in `unit`; `None` if there is no map of them beside it."""
        if self.of_time is not None:
            deviation = self.of_time.sd()
            return (
                None if deviation is None else deviation / 1000 * self.values() ** 2
            )  # the delta method: SD(1/T) = SD(T)/T²
        path = self._beside(lambda m: m.name == f"sd {self.name}")
        return None if path is None else self._read(path) * self.scale

    def status(self) -> NDArray[np.uint8] | None:
        """Return the quality flags (*X); `None` if there is no map of them beside it."""
        if self.of_time is not None:
            return self.of_time.status()
        path = self._beside(lambda m: m.name == "status")
        return None if path is None else np.nan_to_num(self._read(path), nan=float(Status.NOT_FINITE)).astype(np.uint8)

    def described(self) -> Path | None:
        """Return the mask of the voxels that the figures of its run describe; `None` if there is none."""
        if self.of_time is not None:
            return self.of_time.described()
        desc = desc_of(SIGNAL, _prefix(self))
        for path in sorted(self.path.parent.glob(f"{_escaped(self.stem)}_desc-{desc}*_mask.nii*")):
            if set(_texts(map_image(path, look=False).about)) <= set(_texts(self.about)):
                return path
        return None

    def rate(self) -> MapImage | None:
        """Return the rate of a relaxation time, `None` for other maps."""
        if not self.is_time:
            return None
        return replace(self, name=f"R{self.name[1:]}", unit="1/s", scale=1.0, of_time=self, notes=())

    def geometry(self) -> tuple[NDArray[np.float64] | None, tuple[float, ...]]:
        """Return the affine, `None` if the header has none, and the edges of a voxel, mm."""
        file = self.file()
        return affine_of(file), edges_of(file)

    def _read(self, path: Path) -> NDArray[Any]:
        file = self.file()
        return read_map(path, file.shape, affine_of(file), "map")

    def _beside(self, fits: Any) -> Path | None:
        """Return the map of the same series and estimator with the same suffix, else the one from the same sources."""
        suffix = _suffix(self.path)
        found = []
        for path in sorted(self.path.parent.glob(f"{_escaped(self.stem)}_*.nii*")):
            other = map_image(path, look=False)
            if other.stem == self.stem and _prefix(other) == _prefix(self) and fits(other):
                found.append(other)
        own = [m for m in found if _suffix(m.path) == suffix]
        same = own or [m for m in found if "Sources" in m.about and m.about["Sources"] == self.about.get("Sources")]
        return same[0].path if same else None


def map_image(path: Path, *, look: bool = True) -> MapImage:
    """Return what is known about a map from its name and its sidecar.

    Parameters
    ----------
    look
        Read the values if the unit is not known from the sidecar.

    Raises
    ------
    InputError
        If the sidecar is damaged, or the image cannot be read.
    """
    sidecar = sidecar_of(path)
    about = read_json(sidecar) if sidecar.is_file() else {}
    stem, bids = strip_nii(path), BidsName.parse(path.name)
    parsed = _NAME.fullmatch(stem)
    entities = {key: value for key, value in bids.entities.items() if key != "desc"} if bids else {}
    name = _name(stem, parsed, about)
    unit, scale = _UNITS.get(str(about.get("Units", "")), (str(about.get("Units", "")), 1.0))
    notes: tuple[str, ...] = ()
    if not unit and look:
        unit, scale, notes = _guessed(path, name)
    known = parsed is not None and (parsed["suffix"] in map_suffixes() or bids is not None)
    of_series = parsed["stem"] if parsed is not None and known else stem
    return MapImage(path, name, "" if unit == "1" else unit, scale, of_series, entities, about, notes)


def named_as(m: MapImage, name: str) -> MapImage:
    """Return a map whose file name is no map name under the given name. Without a sidecar, the values give its unit."""
    unit, scale, notes = (m.unit, m.scale, ()) if m.unit else _guessed(m.path, name)
    return replace(m, name=name, unit=unit, scale=scale, notes=(*m.notes, *notes))


def map_images(inputs: Sequence[Path | str], wanted: Sequence[str] = (), *, rates: bool = False) -> list[MapImage]:
    """Return the maps in files and folders, in their order.

    Parameters
    ----------
    inputs
        NIfTI files, which are taken whatever they are called, and folders.
    wanted
        Names of maps to take from folders: T1, R1, B, sd; ``all`` for all. Relaxation times and rates by default.
    rates
        Add the rate of each relaxation time, unless a file has it.

    Raises
    ------
    InputError
        If a file or folder does not exist, or a folder has no such map.
    """
    found: list[MapImage] = []
    for given in map(Path, inputs):
        if given.is_dir():
            found += _of_folder(given, wanted, rates=rates)
        elif given.exists():
            found.append(map_image(given))
        else:
            raise InputError(f"{given}: expected an existing file or folder, got none.")
    if wanted and ALL not in wanted and not any(path.is_dir() for path in map(Path, inputs)):
        names = [*wanted, *(f"T{name[1:]}" for name in wanted if rates and name[:1] in "rR")]
        if not any(_is(map_, name) for map_ in found for name in names):
            raise InputError(
                f"--map {', '.join(wanted)}: expected folders to take maps from, or files of this map, got "
                f"{', '.join(f'{map_.label} ({map_.name})' for map_ in found[:4])}. Leave --map out."
            )
    if rates:
        there = {(m.path.parent, m.stem, m.name) for m in found}
        with_rates = [[m, m.rate()] for m in found]
        every = [m for pair in with_rates for m in pair if m is not None]
        found = [m for m in every if m.of_time is None or (m.path.parent, m.stem, m.name) not in there]
    return found


def maps_beside(m: MapImage) -> list[MapImage]:
    """Return the maps of the same series in the folder of a map, with itself if its name is that of a map."""
    paths = sorted(
        path for path in m.path.parent.glob(f"{_escaped(m.stem)}_*.nii*") if is_nifti(path) and path.is_file()
    )
    found = [c for path in paths if (c := _candidate(path)) is not None]
    return [map_image(c.path) for c in found if c.stem == m.stem]


def _of_folder(folder: Path, wanted: Sequence[str], *, rates: bool) -> list[MapImage]:
    candidates = [m for path in _niftis(folder) if (m := _candidate(path)) is not None]
    if not candidates:
        raise InputError(
            f"{folder}: expected maps with names like sub-01_T1map.nii.gz, got none. Give the files themselves."
        )
    names = sorted({candidate.name for candidate in candidates})
    for name in wanted:
        if name not in (ALL, "sd") and not any(_is(candidate, name) for candidate in candidates):
            if rates and any(_is(candidate, f"T{name[1:]}") for candidate in candidates):
                continue
            raise InputError(
                f"--map {name}: expected one of {', '.join(names)}, or all, in {folder}.{did_you_mean(name, names)}"
                + (" Rates are computed with --rates." if name[:1] in "rR" else "")
            )
    if ALL in wanted:
        chosen = candidates
    elif wanted:
        chosen = [candidate for candidate in candidates if any(_is(candidate, name) for name in wanted)]
    else:
        chosen = [candidate for candidate in candidates if _is_relaxation(candidate.name)]
    if not chosen:
        raise InputError(
            f"{folder}: expected maps of relaxation times or rates, got {', '.join(names)}. Choose maps with --map "
            f"{names[0]}."
        )
    return [map_image(m.path) for m in chosen]


def _is(m: MapImage, name: str) -> bool:
    """Return whether a map is the one of that name; ``sd`` names every standard deviation."""
    wanted = name.strip().lower()
    return m.name.lower() == wanted or (wanted == "sd" and m.name.startswith("sd "))


def _is_relaxation(name: str) -> bool:
    return re.fullmatch(r"[TR](1|2|1rho|2star)", name) is not None


def _candidate(path: Path) -> MapImage | None:
    """Return the map that a file of a folder is; `None` for masks, labels, images, quality flags and residuals."""
    stem = strip_nii(path)
    parsed = _NAME.fullmatch(stem)
    suffix = parsed["suffix"] if parsed else ""
    if suffix in ("mask", "dseg", "probseg"):
        return None
    if suffix not in map_suffixes() and not _RELAXATION.search(stem):
        return None
    found = map_image(path, look=False)
    return None if found.name in _NO_VALUES else found


def _niftis(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.nii*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and is_nifti(path) and path.is_file():
            yield path


def _name(stem: str, parsed: re.Match[str] | None, about: Mapping[str, Any]) -> str:
    """Return what a map shows: by its suffix, and by its ``desc-`` if rimap wrote it."""
    if parsed is None or parsed["suffix"] not in map_suffixes():
        found = _RELAXATION.search(stem)
        return f"{found['kind'].upper()}{found['rest'].lower()}" if found else stem
    main = parsed["suffix"].removesuffix("map")
    what = _without_prefix(parsed["desc"] or "", about)
    if not what or "Estimator" not in about:
        return "sd " + main if what == "sd" else main
    if what.startswith("sd"):
        return f"sd {what[2:] if _is_parameter(what[2:]) else main}"
    return what if what in _NO_VALUES or _is_parameter(what) else main


def _is_parameter(what: str) -> bool:
    """Return whether a name is a parameter (B, B1), not the suffix of a series that distinguishes two maps (MESE)."""
    return bool(what) and not re.fullmatch(r"[A-Z0-9]{3,}", what)


def _without_prefix(desc: str, about: Mapping[str, Any]) -> str:
    """Return a ``desc-`` without the name of the estimator that starts it if several wrote into one folder."""
    estimator = re.sub(r"[^a-zA-Z0-9]", "", str(about.get("Estimator", "")))
    if not estimator or not desc.startswith(estimator):
        return desc
    rest = desc.removeprefix(estimator)
    return rest[:1].lower() + rest[1:] if rest.startswith(("Sd", "Status", "Residual", "Signal")) else rest


def _prefix(m: MapImage) -> str:
    """Return the name of the estimator that starts the ``desc-``."""
    parsed = _NAME.fullmatch(strip_nii(m.path))
    desc = (parsed["desc"] or "") if parsed else ""
    estimator = re.sub(r"[^a-zA-Z0-9]", "", str(m.about.get("Estimator", "")))
    return estimator if estimator and desc.startswith(estimator) else ""


def _texts(about: Mapping[str, Any]) -> list[str]:
    """Return the sources that a sidecar names."""
    named = about.get("Sources")
    return [v for v in named if isinstance(v, str)] if isinstance(named, list) else []


def _suffix(path: Path) -> str:
    return strip_nii(path).rsplit("_", 1)[-1]


def _escaped(stem: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", stem)


def _guessed(path: Path, name: str) -> tuple[str, float, tuple[str, ...]]:
    """Return the unit of a map that has no sidecar: rates are in 1/s, and times in s as BIDS has it or else in ms."""
    if not _is_relaxation(name):
        return "", 1.0, ()
    if name.startswith("R"):
        return "1/s", 1.0, (note(f"{path.name}: the unit is not in a sidecar; rimap assumes 1/s."),)
    values = next(iter(open_nifti(path).volumes()))
    positive = values[np.isfinite(values) & (values > 0)]
    longest = _LONGEST_T2STAR_S if name.endswith("star") else _LONGEST_S
    in_ms = bool(positive.size and np.median(positive) > longest)
    unit = "ms" if in_ms else "s"
    return (
        "ms",
        1.0 if in_ms else 1000.0,
        (note(f"{path.name}: the unit is not in a sidecar; rimap inferred {unit} from the values."),),
    )


def _inverse(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rates (1/s) of times (ms)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(times > 0, 1000.0 / times, np.nan)
