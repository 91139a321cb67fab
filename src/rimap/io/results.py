"""Maps that rimap wrote, read back with all that their sidecars say: `find_results` for all of a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note
from rimap.arrays import at_least
from rimap.correlation import NoiseCorrelation
from rimap.errors import InputError
from rimap.foreground import Region
from rimap.io.bids import absolute, is_nifti, models, read_json
from rimap.io.model_metadata import model_from_metadata
from rimap.io.naming import SIGNAL, desc_of, main_suffix, outputs_of, own_suffix, sidecar_of
from rimap.io.nifti import open_nifti
from rimap.io.provenance import ARRAY
from rimap.io.reading_options import Reading
from rimap.io.series_search import find_series
from rimap.io.source_files import source_path
from rimap.io.voxel_grid import affine_of, placed_first, same_grid
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals import Parameter, SignalModel
from rimap.signals.model_options import knows_polarity
from rimap.signals.settings import Setting

#: The parts of the name of a sidecar: stem, description and suffix.
_NAME = re.compile(r"(?P<stem>.+?)(_desc-(?P<desc>[A-Za-z0-9]+))?_(?P<suffix>[A-Za-z0-9]+)\.json")
#: Units of rimap in one unit of a map.
_TO_RIMAP = {"ms": 1000.0, "1/ms": 1e-3}
_WITHOUT_VALUE = (Status.NO_SIGNAL, Status.NOT_FINITE, Status.OUTSIDE_MASK)


@dataclass(frozen=True)
class ResultFiles:
    """The maps of one series by one estimator.

    Parameters
    ----------
    main
        The image of the main map: T1, T2.
    stem
        What the names start with.
    prefix
        The estimator's in ``desc-``, "" for the first one in the folder.
    suffix
        T1map, T2map.
    metadata
        The sidecar of `main`.
    """

    main: Path
    stem: str
    prefix: str
    suffix: str
    metadata: Mapping[str, Any]

    @property
    def dataset(self) -> Path | None:
        """The derivative data set, `None` for loose files."""
        subject = self.stem.split("_")[0]
        found = [
            parent.parent
            for parent in absolute(self.main).parents
            if parent.name == subject and subject.startswith("sub-")
        ]
        return found[0] if found else None

    @property
    def label(self) -> str:
        """What to call the series: ``sub-01 ses-1 IRT1``, or the name of a loose file."""
        if self.dataset is None:
            return self.stem
        cls = self.model_class()
        return f"{self.stem} {cls.bids_suffix or cls.title}".replace("_", " ")

    def images(self) -> list[Path]:
        """Return the images that are there, the main one first."""
        names = [self._path(what, suffix) for what, suffix in self._wanted().values()]
        return [p for p in dict.fromkeys([self.main, *names]) if p.is_file()]

    def model_class(self) -> type[SignalModel]:
        """Return the signal model.

        Raises
        ------
        InputError
            Where the sidecar names none that is known.
        """
        name = self.metadata.get("SignalModel")
        if name not in models():
            raise InputError(
                f"{sidecar_of(self.main)}: SignalModel: expected one of {', '.join(sorted(models()))}, got {name!r}. "
                "Map the series again."
            )
        return models()[name]

    def model(self) -> SignalModel:
        """Return the signal model with its settings.

        Raises
        ------
        InputError
            Where the sidecar lacks a setting, or one cannot be.
        """
        return model_from_metadata(self.model_class(), self.metadata, str(sidecar_of(self.main)))

    def load(self) -> ParameterMaps:
        """Return the maps in rimap's units (ms), NaN where a voxel has no value.

        σ is one number, also where it was a map. A given parameter that was one number is that number everywhere.

        Raises
        ------
        InputError
            Where a map is missing or damaged, or the sidecar does not say what it must.
        """
        model, about = self.model(), self.metadata
        header = open_nifti(self.main)
        wanted = self._wanted()

        def read(what: str) -> NDArray[Any] | None:
            path = self._path(*wanted[what])
            if not path.is_file():
                return None
            file = open_nifti(path)
            if file.shape != header.shape or file.n_volumes != 1:
                raise InputError(f"{path}: expected the shape of {self.main.name}, got another. Map the series again.")
            return next(iter(file.volumes()))

        status = read("status")
        constant = self._constants(model)
        kappa = [
            self._scaled(read(parameter.name), parameter, constant, header.shape) for parameter in model.parameters
        ]
        read_so_far = {"status": status} | {parameter.name: k for parameter, k in zip(model.parameters, kappa)}
        missing = [self._path(*wanted[name]).name for name, value in read_so_far.items() if value is None]
        if status is None or missing:
            raise InputError(f"{self.main.parent}: expected {', '.join(missing)}, got none. Map the series again.")
        codes = np.rint(np.nan_to_num(status, nan=-1)).astype(int)
        if not np.isin(codes, [int(s) for s in Status]).all():
            raise InputError(
                f"{self._path(*wanted['status'])} has values that are not quality flags. Map the series again."
            )
        no_value = np.isin(codes, _WITHOUT_VALUE)
        values = np.stack([np.where(no_value, np.nan, k) for k in kappa if k is not None])
        scale = [_TO_RIMAP.get(parameter.unit, 1.0) for parameter in model.parameters]
        deviation = [read(f"sd {parameter.name}") for parameter in model.parameters]
        sds = np.stack(
            [np.full(codes.shape, np.nan) if x is None else np.asarray(x, float) * s for x, s in zip(deviation, scale)]
        )
        apart = {d.name: (read(f"sd {d.name}"), _TO_RIMAP.get(d.unit, 1.0)) for d in model.derived}
        residual = read("residual")
        settings = about.get("EstimatorSettings")
        told = (*_texts(about.get("Warnings")), *map(note, _texts(about.get("Notes"))))
        return ParameterMaps(
            kappa=values,
            model=model,
            status=codes.astype(np.uint8),
            sd_kappa=None if all(x is None for x in deviation) else np.where(no_value | ~(sds > 0), np.nan, sds),
            residual=None if residual is None else np.where(no_value, np.nan, residual),
            noise=self._noise(),
            sigma_source=str(about.get("NoiseSigmaSource") or "given"),
            estimator=str(about.get("Estimator") or ""),
            settings=settings if isinstance(settings, dict) else {},
            warnings=told,
            affine=affine_of(header),
            correlation=_correlation(about.get("NoiseCorrelation")),
            sd_derived={
                name: np.where(no_value | ~(np.asarray(x) > 0), np.nan, np.asarray(x, float) * s)
                for name, (x, s) in apart.items()
                if x is not None
            },
        )

    def described(self) -> Region | None:
        """Return the voxels that the statistics of the run describe, from the mask that it wrote, or `None`."""
        path = self._path(*self._wanted()[SIGNAL])
        if not path.is_file() or not self._of_this_series(path):
            return None
        file, shape = open_nifti(path), open_nifti(self.main).shape
        if file.shape != shape or file.n_volumes != 1:
            return None
        inside, how = np.asarray(next(iter(file.volumes())) > 0), str(read_json(sidecar_of(path)).get("HowFound", ""))
        if not inside.any():
            return None
        about = str(read_json(sidecar_of(path)).get("Description", ""))
        return Region.of_mask(inside, how) if Region.of_mask(inside).words in about else Region.found(inside)

    def sources(self) -> list[Path]:
        """Return the images that were mapped, without the maps that were given.

        Raises
        ------
        InputError
            Where the sidecar does not name files, one is not there, or a name leads out of its data set.
        """
        named, given = self.metadata.get("Sources"), self.metadata.get("GivenParameters")
        if not isinstance(named, list) or not named or not all(isinstance(s, str) for s in named):
            raise InputError("the sidecar contains no sources")
        known = [v for v in given.values() if isinstance(v, str)] if isinstance(given, dict) else []
        named = [s for s in named if s not in known]
        found = [source_path(s, self.main.parent, self.dataset) for s in named]
        for path in found:
            if not is_nifti(path) or not path.is_file():
                raise InputError(
                    f"{path.name} no longer exists"
                    if is_nifti(path)
                    else "the sources are not NIfTI files, but for example DICOM"
                )
        return found

    def series(self, maps: ParameterMaps) -> WeightedSeries:
        """Return the images that were mapped, from the sources.

        Raises
        ------
        InputError
            Where they are not at hand, or are not those that gave the maps.
        """
        if "Registration" in self.metadata:
            raise InputError("the images were aligned (--register) before they were mapped")
        model, mask, given = maps.model, maps.status != Status.OUTSIDE_MASK, self.given()
        found = find_series(self.sources(), sequence=model.name)
        if len(found) != 1:
            raise InputError("the sources are not one series")
        files = found[0]
        grids = [open_nifti(image) for image in files.images]
        first = placed_first(grids)
        both = first.oriented and maps.affine is not None
        if first.shape != maps.status.shape or (
            both and not same_grid(first.affine, np.asarray(maps.affine), first.shape)
        ):
            raise InputError("the sources are on another grid than the maps")
        # Images of the shortest times may have been left out; their settings are then not in the sidecar of the maps.
        more = sum(grid.n_volumes for grid in grids) - model.n_images
        typed = (
            {setting: v for setting in model.settings if (v := getattr(model, setting)) is not None}
            if more == 0
            else {}
        )
        if more > 0:
            typed = {
                setting.name: v
                for setting in model.settings.values()
                if not setting.per_image and (v := _shared(model, setting)) is not None
            }
        all_values = (
            files.open(Reading(sequence=model.name, settings=typed, given=given)).model.times
            if more > 0
            else model.times
        )
        how = Reading(
            settings=typed,
            given=given,
            sequence=model.name,
            mask=None if mask.all() else mask,
            noise=maps.noise,
            skip_first=max(len(set(all_values)) - len(set(model.times)), 0),
            signed=model.is_signed if knows_polarity(model) else None,
        )
        series = files.load(how)
        if series.model.n_images != model.n_images or not np.allclose(series.model.times, model.times, rtol=1e-6):
            raise InputError("the sources have other times than the maps")
        if not _same_images(series, maps):
            raise InputError("the sources have changed since: they do not give the residual of these maps")
        return series

    def given(self) -> dict[str, Path | float]:
        """Return the parameters that were given, by name: the file or the number.

        A file that is not in the data set, is not there any more, or was an array in memory is the copy that was
        written with the maps.

        Raises
        ------
        InputError
            If there is no such copy either.
        """
        named = self.metadata.get("GivenParameters")
        known: dict[str, Path | float] = {}
        for name, value in (named if isinstance(named, dict) else {}).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                known[name] = float(value)
            elif (file := self._given_file(value)) is not None:
                known[name] = file
            else:
                written = self._path(*self._wanted()[name]) if name in self._wanted() else None
                if written is None or not written.is_file():
                    raise InputError(f"the given map of {name} no longer exists")
                known[name] = written
        return known

    def _given_file(self, value: Any) -> Path | None:
        """Return the file of a given map, `None` if it is not to be followed or is not there any more."""
        if not isinstance(value, str) or value == ARRAY:
            return None
        try:
            path = source_path(value, self.main.parent, self.dataset)
        except InputError:
            return None
        return path if path.is_file() else None

    @staticmethod
    def _scaled(
        values: NDArray[Any] | None, p: Parameter, constant: Mapping[str, float], shape: tuple[int, ...]
    ) -> NDArray[np.float64] | None:
        """Return a map in rimap's unit: the file's, or else the one number that was given."""
        if values is None:
            return np.full(shape, constant[p.name]) if p.name in constant else None
        return np.asarray(values, dtype=float) * _TO_RIMAP.get(p.unit, 1.0)

    def _constants(self, model: SignalModel) -> dict[str, float]:
        """Return the given parameters that were one number, in rimap's unit."""
        named = self.metadata.get("GivenParameters")
        known = {
            parameter.name: parameter.start
            for parameter in model.parameters
            if parameter.given and parameter.start is not None
        }
        for name, value in (named if isinstance(named, dict) else {}).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                known[name] = float(value)
        return known

    def _noise(self) -> Noise | None:
        kind = {"gaussian": Gaussian, "rician": Rician}.get(str(self.metadata.get("NoiseModel")))
        sigma = self.metadata.get("NoiseSigma")
        if kind is None:
            return None
        good = isinstance(sigma, (int, float)) and not isinstance(sigma, bool) and 0 < sigma < np.inf
        return kind(float(sigma) if good and sigma is not None else None)

    def _wanted(self) -> dict[str, tuple[str, str]]:
        """Return (desc, suffix) of each image: of parameters, their deviations, residual and status."""
        cls = self.model_class()
        wanted = {"status": ("status", self.suffix), "residual": ("residual", self.suffix)}
        apart_by = [s for s in (cls.bids_suffix, *cls.also_reads) if s]
        second = next((f"{SIGNAL}{s}" for s in apart_by if self._path(f"{SIGNAL}{s}", "mask").is_file()), SIGNAL)
        wanted[SIGNAL] = (second, "mask")
        for q in outputs_of(cls):
            own = own_suffix(q, cls)
            wanted[q.name] = ("" if own else q.name, own or self.suffix)
            wanted[f"sd {q.name}"] = ("sd" if own else f"sd{q.name}", own or self.suffix)
            if own and own != self.suffix:
                for named in filter(None, (cls.bids_suffix, *cls.also_reads)):
                    apart = self._path(named, own)  # if the names without it are those of another series
                    if apart.is_file() and self._of_this_series(apart):
                        wanted[q.name], wanted[f"sd {q.name}"] = (named, own), (f"sd{named}", own)
        return wanted

    def _of_this_series(self, image: Path) -> bool:
        try:
            return read_json(sidecar_of(image)).get("Sources") == self.metadata.get("Sources")
        except InputError:
            return False

    def _path(self, what: str, suffix: str) -> Path:
        desc = desc_of(what, self.prefix)
        return self.main.with_name(f"{self.stem}{f'_desc-{desc}' if desc else ''}_{suffix}.nii.gz")


def find_results(folder: Path | str) -> list[ResultFiles]:
    """Return the maps in a folder that `rimap map` wrote, one for each series and estimator.

    Parameters
    ----------
    folder
        A derivative data set, a part of one, a folder of loose maps, or one main map (T1, T2).

    Raises
    ------
    InputError
        If there are none.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: expected an existing folder, got none.")
    found = results_in(folder)
    if not found:
        raise InputError(
            f"{folder}: expected maps, got none. Give the output of `rimap map` or `rimap bids`, a main map (T1map, "
            "T2map) in it, or maps of other software with such names."
        )
    return found


def results_in(folder: Path) -> list[ResultFiles]:
    """Return the maps in a folder that `rimap map` wrote, one for each series and estimator; [] if there are none."""
    return [r for path in _sidecars(folder) if (r := _result(path)) is not None]


def _sidecars(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield sidecar_of(folder)
        return
    for path in sorted(folder.rglob("*.json")):
        below = path.relative_to(folder).parts
        if not any(p.startswith(".") for p in below):
            yield path


def _result(sidecar: Path) -> ResultFiles | None:
    """Return the result whose main map has this sidecar; `None` where it is another file's."""
    name = _NAME.fullmatch(sidecar.name)
    main = sidecar.with_name(sidecar.name.removesuffix(".json") + ".nii.gz")
    if name is None or not sidecar.is_file() or not main.is_file():
        return None
    suffixes = {m.name: main_suffix(m) for m in models().values()}
    if name["suffix"] not in suffixes.values():
        return None
    about = read_json(sidecar)
    model, estimator = about.get("SignalModel"), about.get("Estimator")
    if not isinstance(model, str) or not isinstance(estimator, str) or suffixes.get(model) != name["suffix"]:
        return None
    prefix = name["desc"] or ""
    if prefix and prefix != re.sub(r"[^a-zA-Z0-9]", "", estimator):
        return None  # desc-sd, desc-status
    return ResultFiles(main, name["stem"], prefix, name["suffix"], about)


def _correlation(axes: Any) -> NoiseCorrelation | None:
    """Return the correlation of the noise that a sidecar has."""
    if not isinstance(axes, list) or not all(
        isinstance(axis, list) and all(isinstance(c, (int, float)) for c in axis) for axis in axes
    ):
        return None
    return NoiseCorrelation(tuple(tuple(map(float, axis)) for axis in axes))


def _texts(value: Any) -> list[str]:
    """Return the sentences of a field of a sidecar."""
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _shared(model: SignalModel, setting: Setting) -> float | None:
    """Return the one value of a setting that all images share, `None` if there is none."""
    value = getattr(model, setting.name)
    several = set() if value is None else set(np.atleast_1d(value).tolist())
    return several.pop() if len(several) == 1 else None


def _same_images(series: WeightedSeries, maps: ParameterMaps, most: int = 2000) -> bool:
    """Return whether the images minus the signal of the maps have the residual of the maps."""
    if maps.residual is None:
        return True
    use = np.flatnonzero((maps.status == Status.OK) & np.isfinite(maps.residual) & np.isfinite(maps.kappa).all(0))
    use = at_least(use, most)
    if not len(use):
        return True
    S = series.images.reshape(len(series.images), -1)[:, use].astype(float)
    f = np.asarray(series.model.signal(maps.kappa.reshape(len(maps.kappa), -1)[:, use]))
    found, told = np.sqrt(np.mean((S - f) ** 2, axis=0)), maps.residual.reshape(-1)[use]
    return bool(np.median(np.abs(found - told)) <= 0.02 * np.median(told) + 1e-5 * np.median(np.abs(f).max(0)))
