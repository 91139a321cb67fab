"""Maps to files: a BIDS derivative data set, or loose NIfTI files with sidecars.

Names
-----
For T1 of BIDS input ``sub-01_ses-1_…`` in ``OUT/sub-01/ses-1/anat/`` (T2 likewise):

=========================== =====================================================
``…_T1map``                 T1, s
``…_M0map``                 A, in the unit of the images
``…_R1map``                 1/T1, 1/s, on request
``…_desc-B_T1map``          B, no unit
``…_desc-sd_T1map``         standard deviation of T1, s (``desc-sdB_T1map`` of B,
                            ``desc-sd_M0map`` of A, ``desc-sd_R1map`` of R1)
``…_desc-residual_T1map``   root mean square of image − model
``…_desc-status_T1map``     what became of each voxel, whole numbers
=========================== =====================================================

BIDS has no suffix for B, residual or status. They take the suffix of the map they belong to and a ``desc-``, which
the validator knows, so that no ``.bidsignore`` is needed for them; a suffix of our own would need one. (The
``.bidsignore`` that is written is for reports and tables.) Select maps by suffix AND without `desc`.

Where a data set has both an IRT1 and a MESE with the same entities, A of the MESE is ``…_desc-MESE_M0map``.

The first estimator in OUT owns the names without `desc-`. The maps of another one stand beside them, with its name:
``…_desc-mle_T1map``, ``…_desc-mleSd_T1map``, ``…_desc-mleB_T1map``. The sidecars say which is which (`Estimator`).

Loose files get the same names with their own stem, ``<stem>_T1map``, in OUT itself.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.io.atomic import Content, write_together
from rimap.io.bids import OF_MAPS, absolute, compose, read_json
from rimap.io.nifti import open_nifti
from rimap.io.provenance import dataset_files, dataset_problem, map_metadata, to_json
from rimap.io.series_files import SeriesFiles
from rimap.io.slabs import MapsOnDisk, pieces_of
from rimap.series import ParameterMaps, Status
from rimap.signals import Parameter, SignalModel

#: Bytes that are compressed at a time.
_BLOCK = 1 << 20


def planned_outputs(
    series_files: SeriesFiles, out: Path | str, *, estimator: str, sequence: str | None = None
) -> list[Path]:
    """Return every map file that `write_maps` may write for a series, with R1 or R2.

    Parameters
    ----------
    estimator
        Its name, as `ParameterMaps.estimator`.
    sequence
        ``ir`` or ``t2``, where the files do not tell.
    """
    naming = _Naming(series_files, Path(out), series_files.model_class(sequence), estimator)
    return naming.all_files()


def check_output(
    series: Sequence[SeriesFiles],
    out: Path | str,
    *,
    estimator: str,
    overwrite: bool = False,
    sequence: str | None = None,
) -> None:
    """Refuse, before anything is computed, an OUT that cannot take the maps.

    Raises
    ------
    InputError
        Where OUT is a file, an input data set or that of other software; where results of this estimator are there
        and `overwrite` is false; where two series would get the same names.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a folder was expected. Give another output folder.")
    nearest = next(p for p in [out, *absolute(out).parents] if p.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: no permission to write. Give another output folder.")
    owner: dict[Path, SeriesFiles] = {}
    for s in series:
        if s.dataset is not None and (problem := dataset_problem(out, s.dataset)):
            raise InputError(problem)
        for path in planned_outputs(s, out, estimator=estimator, sequence=sequence):
            if path in owner:
                raise InputError(
                    f"{owner[path].label} and {s.label} would both be written as {path.name}. Map them one at a time, "
                    "each into its own folder."
                )
            owner[path] = s
            if path.exists() and not overwrite:
                raise InputError(
                    f"{path} is there already. Replace it with --overwrite, or give another output folder."
                )


def write_maps(
    maps: ParameterMaps,
    series_files: SeriesFiles,
    out: Path | str,
    *,
    overwrite: bool = False,
    fill: float = np.nan,
    rates: bool = False,
    extra_metadata: Mapping[str, Any] | None = None,
    sequence: str | None = None,
) -> list[Path]:
    """Write the maps of a series with their sidecars, all or none.

    Parameters
    ----------
    out
        The derivative data set (BIDS input) or folder (loose input); made where it is missing.
    overwrite
        Replace an earlier result of the same estimator.
    fill
        What stands for NaN.
    rates
        Write R1 = 1/T1 (or R2) and its standard deviation too, 1/s.
    extra_metadata
        For every sidecar, over what is written by itself.
    sequence
        As in `planned_outputs`.

    Returns
    -------
    list of Path
        The images, the main map (T1 or T2) first.

    Raises
    ------
    InputError
        As `check_output`; where the shape of the maps is not that of the files; where OUT cannot be written.
    """
    check_output([series_files], Path(out), estimator=maps.estimator, overwrite=overwrite, sequence=sequence)
    new = map_files(maps, series_files, out, fill=fill, rates=rates, extra_metadata=extra_metadata)
    write_together(new.contents, remove=new.stale if overwrite else ())
    return list(new.images)


@dataclass(frozen=True)
class MapFiles:
    """What `write_maps` writes.

    Parameters
    ----------
    contents
        By path, in the order in which they are to be written.
    images
        The images among them, the main map first.
    stale
        What an earlier result may have left that these do not replace.
    dataset_files
        Those that all series share.
    """

    contents: Mapping[Path, Content]
    images: tuple[Path, ...]
    stale: tuple[Path, ...]
    dataset_files: tuple[Path, ...]


def map_files(
    maps: ParameterMaps | MapsOnDisk,
    series_files: SeriesFiles,
    out: Path | str,
    *,
    fill: float = np.nan,
    rates: bool = False,
    extra_metadata: Mapping[str, Any] | None = None,
) -> MapFiles:
    """Return the files of the maps of a series, unwritten; the parameters are those of `write_maps`."""
    out = Path(out)
    first = open_nifti(series_files.images[0])
    head, shape = (maps.head, maps.shape) if isinstance(maps, MapsOnDisk) else (maps, maps.status.shape)
    if shape != first.shape:
        raise InputError(f"the maps have shape {shape} and {first.path.name} {first.shape}.")
    naming = _Naming(series_files, out, type(head.model), head.estimator)
    common = map_metadata(head, series_files, out) | dict(extra_metadata or {})
    images: dict[Path, Content] = {}
    sidecars: dict[Path, Content] = {}

    def add(path: Path, values: Values, units: str | None, about: str, **more: Any) -> None:
        images[path] = partial(_nifti, maps, values, first.header, shape, fill)
        metadata = {"Description": about, **({"Units": units} if units else {}), **more, **common}
        sidecars[_sidecar(path)] = to_json(metadata)

    for p in reversed(head.model.parameters):  # the time first: it is the main map
        unit, scale = ("s", 1e-3) if p.unit == "ms" else ("arbitrary" if p.unit == "a.u." else p.unit, 1.0)
        title = f"{p.name} of {head.model.title.lower()}"
        add(naming.main(p), partial(_value, p.name, scale), unit, title)
        if head.sd_kappa is not None:
            add(naming.sd(p), partial(_sd, p.name, scale), unit, f"Standard deviation of {title} ({head.sd_source})")
        if rates and naming.rate(p):
            about = f"1/{p.name} of {head.model.title.lower()}"
            add(naming.main(p, rate=True), partial(_rate, p.name), "1/s", about)
            if head.sd_kappa is not None:
                about = f"Standard deviation of 1/{p.name} ({head.sd_source})"
                add(naming.sd(p, rate=True), partial(_rate_sd, p.name), "1/s", about)
    if head.residual is not None:
        about = "Root mean square of image minus model over the images"
        add(naming.extra("residual"), _residual, "arbitrary", about)
    levels = {str(int(s)): s.meaning for s in Status}
    add(naming.extra("status"), _status, None, "What became of each voxel", Levels=levels)
    files: dict[Path, Content] = {}
    if series_files.dataset is not None:
        files |= dataset_files(out, series_files.dataset)
    stale = [f for path in naming.all_files() for f in (path, _sidecar(path))]
    return MapFiles(files | sidecars | images, tuple(images), tuple(stale), tuple(files))


#: From the maps of a slab to what is written of it.
Values = Callable[[ParameterMaps], NDArray[Any]]


def _value(name: str, scale: float, maps: ParameterMaps) -> NDArray[Any]:
    return np.asarray(maps[name] * scale)


def _sd(name: str, scale: float, maps: ParameterMaps) -> NDArray[Any]:
    return np.asarray(maps.sd[name] * scale)


def _rate(name: str, maps: ParameterMaps) -> NDArray[Any]:
    with np.errstate(divide="ignore"):
        return np.asarray(1000.0 / maps[name])


def _rate_sd(name: str, maps: ParameterMaps) -> NDArray[Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1000.0 / maps[name] * maps.sd[name] / maps[name])


def _residual(maps: ParameterMaps) -> NDArray[Any]:
    assert maps.residual is not None
    return maps.residual


def _status(maps: ParameterMaps) -> NDArray[Any]:
    return maps.status.astype(np.uint8)


class _Naming:
    """The names of the maps of one series by one estimator in OUT."""

    def __init__(self, series_files: SeriesFiles, out: Path, model: type[SignalModel], estimator: str) -> None:
        self.files, self.out, self.model = series_files, out, model
        self.suffix = next((p.suffix for p in reversed(model.parameters) if p.suffix), "map")
        self.prefix = ""
        if self._taken_from(estimator):
            self.prefix = re.sub(r"[^a-zA-Z0-9]", "", estimator) or "other"

    def _taken_from(self, estimator: str) -> bool:
        """Tell whether the names without desc- are another estimator's: for this series, else for any in OUT."""
        own = _sidecar(self._path("", self.suffix))
        if not own.is_file():
            pattern = f"*_{self.suffix}.json" if self.files.dataset is None else f"sub-*/**/*_{self.suffix}.json"
            plain = (f for f in self.out.glob(pattern) if "_desc-" not in f.name and not f.name.startswith("."))
            first = next(plain, None)
            if first is None:
                return False
            own = first
        try:
            return read_json(own).get("Estimator") not in (None, estimator)
        except InputError:
            return False  # damaged: there is nothing of another's to keep

    def main(self, p: Parameter, *, rate: bool = False) -> Path:
        if p.suffix is None:
            return self._path(self._desc(p.name), self.suffix)
        desc = self._desc("") + self._mine(p)
        return self._path(desc, self.rate(p) or p.suffix if rate else p.suffix)

    def sd(self, p: Parameter, *, rate: bool = False) -> Path:
        if p.suffix is None:
            return self._path(self._desc(f"sd{p.name}"), self.suffix)
        return self._path(self._desc("sd") + self._mine(p), self.rate(p) or p.suffix if rate else p.suffix)

    def extra(self, what: str) -> Path:
        return self._path(self._desc(what), self.suffix)

    @staticmethod
    def rate(p: Parameter) -> str | None:
        return f"R{p.suffix[1:]}" if p.suffix and re.fullmatch(r"T\d.*map", p.suffix) else None

    def all_files(self) -> list[Path]:
        paths = []
        for p in reversed(self.model.parameters):
            paths += [self.main(p), self.sd(p)]
            if self.rate(p):
                paths += [self.main(p, rate=True), self.sd(p, rate=True)]
        return [*paths, self.extra("residual"), self.extra("status")]

    def _mine(self, p: Parameter) -> str:
        """Tell apart the maps that two series with the same entities share by name (M0map)."""
        shared = p.suffix != self.suffix and any(s < self.files.suffix for s in self.files.siblings)
        return self.files.suffix if shared else ""

    def _desc(self, what: str) -> str:
        return self.prefix + (what[:1].upper() + what[1:] if self.prefix else what)

    def _path(self, desc: str, suffix: str) -> Path:
        if self.files.dataset is None:
            middle = f"_desc-{desc}" if desc else ""
            return self.out / f"{self.files.stem}{middle}_{suffix}.nii.gz"
        entities = {k: v for k, v in self.files.entities.items() if k in OF_MAPS}
        others = "".join(f"{k}{v}" for k, v in self.files.entities.items() if k not in OF_MAPS and k != "desc")
        if others:  # echo-1 of a multi-echo IRT1, say: a map may not carry it, but its name must tell
            entities["acq"] = entities.get("acq", "") + others
        folder = self.out / f"sub-{entities['sub']}"
        if "ses" in entities:
            folder /= f"ses-{entities['ses']}"
        name = compose(entities | ({"desc": desc} if desc else {}), suffix)
        return folder / "anat" / f"{name}.nii.gz"


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def _nifti(
    maps: ParameterMaps | MapsOnDisk, values: Values, like: Any, shape: tuple[int, ...], fill: float
) -> Iterator[bytes]:
    """Yield a compressed NIfTI file with the geometry of the header `like`, to the bit, from maps in slabs."""
    dtype = _dtype(map(values, pieces_of(maps)))

    def raw() -> Iterator[bytes]:
        yield _header_bytes(like, shape, dtype)
        for piece in pieces_of(maps):
            x = values(piece)
            if dtype != np.uint8:
                x = np.where(np.isfinite(x), x, fill)
            yield x.astype(dtype).tobytes(order="F")

    return _gzipped(raw())


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces compressed; the outcome depends on neither time nor how they were cut."""
    packer, left = zlib.compressobj(1, zlib.DEFLATED, 31), bytearray()
    for piece in pieces:
        left += piece
        whole = len(left) - len(left) % _BLOCK
        for i in range(0, whole, _BLOCK):
            yield packer.compress(bytes(left[i : i + _BLOCK]))
        del left[:whole]
    yield packer.compress(bytes(left))
    yield packer.flush()


def _header_bytes(like: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    header = type(like)()
    header.set_data_dtype(dtype)
    header.set_data_shape((1,) * len(shape))
    for field in ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
                  "sform_code", "srow_x", "srow_y", "srow_z"):  # fmt: skip
        header[field] = like[field]
    header["pixdim"][:4] = like["pixdim"][:4]
    header["xyzt_units"] = like["xyzt_units"] & 7  # space; there is no time axis
    header["descrip"] = f"rimap {importlib.metadata.version('rimap')}".encode()
    two = isinstance(like, nib.Nifti2Header)
    image = (nib.Nifti2Image if two else nib.Nifti1Image)(np.zeros((1,) * len(shape), dtype), None, header)
    for field in ("qform_code", "sform_code"):
        image.header[field] = like[field]
    start = image.to_bytes()[: -dtype.itemsize]
    whole = type(like)(start[: 540 if two else 348])
    whole.set_data_shape(shape)
    whole["pixdim"][:4] = like["pixdim"][:4]  # the slice thickness of two axes as well
    block = bytes(whole.binaryblock)
    return block + bytes(start[len(block) :])


def _dtype(pieces: Iterable[NDArray[Any]]) -> np.dtype[Any]:
    """Return float32 where the values fit it, else float64; whole numbers stay."""
    largest, small, n = 0.0, 0, 0
    tiny, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    for values in pieces:
        if values.dtype == np.uint8:
            return values.dtype
        size = np.abs(values[np.isfinite(values) & (values != 0)])
        n += size.size
        small += int((size <= tiny).sum())
        largest = max(largest, float(size.max(initial=0.0)))
    fits = not n or (largest < most and 2 * small < n)
    return np.dtype(np.float32 if fits else np.float64)
