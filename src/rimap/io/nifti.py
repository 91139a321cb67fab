"""NIfTI files: headers before data, one volume at a time, and an `InputError` that names the file."""

from __future__ import annotations

import contextlib
import gzip
import math
import secrets
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from nibabel import nifti1, nifti2
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from numpy.typing import NDArray

from rimap.array_inputs import MM
from rimap.errors import InputError
from rimap.io.bids import is_nifti, pair_of
from rimap.io.nifti_header import check_header, check_size, only_fill
from rimap.io.unreadable_formats import how_to_convert, refuse_broken_link, refuse_device

#: deflate cannot do better.
_LARGEST_RATIO = 1032
#: Data begin before this byte.
_LATEST_START = 64 << 20
#: How the file begins that Git LFS and git-annex put in place of data that were not fetched.
_POINTERS = (b"version https://git-lfs", b"/annex/objects/")
#: What nibabel and zlib raise for a file that is damaged or cut off.
_BROKEN = (OSError, EOFError, zlib.error, ValueError, OverflowError, HeaderDataError, HeaderTypeError)


@dataclass(frozen=True)
class Stamp:
    """Size and time of change of a file: whether it is still the one that was looked at."""

    size: int
    modified_ns: int

    def check(self, path: Path) -> None:
        """Refuse a file that has changed since.

        Raises
        ------
        InputError
            Naming the file.
        """
        if stamp(path) != self:
            raise InputError(f"{path} changed while it was read. Run rimap again when no other program writes to it.")


def stamp(path: Path) -> Stamp:
    """Return size and time of change of a file.

    Raises
    ------
    InputError
        Where it is not there (any more).
    """
    try:
        status = path.stat()
    except OSError as error:
        refuse_broken_link(path)
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    return Stamp(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """What the header of a file says.

    Parameters
    ----------
    shape
        X, the spatial shape.
    n_volumes
        Volumes along the fourth axis, 1 if there is none.
    affine
        (4, 4), voxel to world, mm.
    oriented
        Whether qform or sform gives the affine; otherwise it is a guess of the reader.
    header
        The header, to be copied into the maps.
    stamp
        What the file was when the header was read: it must not change.
    data
        Where the data are, if not in `path`.
    """

    path: Path
    shape: tuple[int, ...]
    n_volumes: int
    affine: NDArray[np.float64]
    oriented: bool
    header: Any
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    stamp: Stamp | None = None
    data: Path | None = None

    def volumes(self, keep: Sequence[bool] | None = None) -> Iterator[NDArray[Any]]:
        """Yield the volumes (*X) that are to be kept, scaled, as float32, or float64 for `wide` files.

        Raises
        ------
        InputError
            Where the data end early, are damaged, or change meanwhile.
        """
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        with self._reading() as file:
            file.seek(self.offset)
            for n in range(self.n_volumes):
                if keep is not None and not keep[n]:
                    file.seek(n_bytes, 1)
                else:
                    yield self._scaled(self._read(file, n_bytes, n), self.shape)
            _drain(file)

    def planes(self, a: int, b: int, keep: Sequence[bool] | None = None) -> Iterator[NDArray[Any]]:
        """Yield planes `a` to `b` of the last axis of the volumes that are to be kept, as `volumes` does.

        Quick only for a file that is not compressed, or was `unpacked`.
        """
        shape = (*self.shape[:-1], b - a)
        plane = math.prod(self.shape[:-1]) * self.dtype.itemsize
        with self._reading() as file:
            for n in range(self.n_volumes):
                if keep is None or keep[n]:
                    file.seek(self.offset + plane * (n * self.shape[-1] + a))
                    yield self._scaled(self._read(file, plane * (b - a), n), shape)

    def unpacked(self, folder: Path) -> NiftiFile:
        """Return the file with its data uncompressed in `folder`, if they are not so already; the checksum is checked.

        Raises
        ------
        InputError
            Where the data end early or are damaged, or `folder` cannot take them.
        """
        if not _packed(self.path):
            return self
        left, n = math.prod(self.shape) * self.n_volumes * self.dtype.itemsize, 0
        raw = folder / f"{secrets.token_hex(4)}.raw"
        with _writing(folder, raw) as write, self._reading() as file:
            file.seek(self.offset)
            while left:
                data = self._read(file, min(left, 1 << 22), n)
                write(data)
                left -= len(data)
            _drain(file)
        return replace(self, data=raw, offset=0)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[IO[bytes]]:
        try:
            with _open(self.data or self.path) as file:
                yield file
        except _BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise InputError(f"{self.path} cannot be read: {error.strerror or error}.") from None
            raise InputError(
                f"{self.path} is truncated or damaged ({_reason(error)}). Copy or convert it again."
            ) from None
        finally:
            if self.stamp is not None:
                self.stamp.check(self.path)

    def _read(self, file: IO[bytes], n_bytes: int, n: int) -> bytes:
        data = file.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError(f"it ends within volume {n + 1} of {self.n_volumes}")
        return data

    @property
    def wide(self) -> bool:
        """Whether float32 would lose precision: doubles, long integers, a small signal on an offset, odd scales."""
        if self.dtype.itemsize >= 8:
            return True
        if self.dtype.kind == "f":  # scaled, the smallest ones would be cut
            return (self.slope, self.inter) != (1.0, 0.0)
        if not 1e-37 <= abs(self.slope) <= 1e38 / float(np.iinfo(self.dtype).max):
            return True
        return abs(self.inter) > 1e4 * abs(self.slope)

    def _scaled(self, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        target = np.float64 if self.wide else np.float32
        values = np.frombuffer(data, self.dtype).reshape(shape, order="F")
        with np.errstate(over="ignore", invalid="ignore"):
            if (self.slope, self.inter) == (1.0, 0.0):
                return values.astype(target)
            return (values * np.float64(self.slope) + np.float64(self.inter)).astype(target)


class _CannotWrite(Exception):
    """An error of writing, kept apart from those of reading."""


@contextlib.contextmanager
def _writing(folder: Path, path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield what writes to a new file; its errors name the folder, never what is read at the same time.

    Raises
    ------
    InputError
        If the folder cannot take the file.
    """

    def refused(error: OSError) -> InputError:
        return InputError(
            f"cannot write to {folder}: {error.strerror or error}. Free space there, or give another OUT."
        )

    try:
        file = path.open("xb", buffering=0)  # nothing is left to be written when it is closed
    except OSError as error:
        raise refused(error) from None

    def write(data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[file.write(view) or 0 :]
        except OSError as error:
            raise _CannotWrite(error) from None

    try:
        yield write
    except _CannotWrite as error:
        raise refused(error.args[0]) from None
    finally:
        file.close()


def _drain(file: IO[bytes]) -> None:
    """Read to the end, where a .gz has its checksum; refuse more data than the header declares."""
    if not only_fill(file):
        raise ValueError("expected the data that its header describes, got more: its dimensions or its type are wrong")


def _packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if _packed(path) else path.open("rb")


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__


def open_nifti(path: Path) -> NiftiFile:
    """Read the header of a NIfTI file: .nii or .nii.gz, or a pair .hdr and .img.

    What the bytes say counts, not the name: a file may be compressed or not whatever it is called.

    Raises
    ------
    InputError
        If there is no such file, it is not NIfTI, its numbers are not real, or it is smaller than its header says.
    """
    if not path.exists():
        refuse_broken_link(path)
        raise InputError(f"{path}: expected an existing file, got none.")
    if not is_nifti(path):
        known = how_to_convert(path)
        raise InputError(known or f"{path} is not a NIfTI file (.nii or .nii.gz). Convert it, for DICOM with dcm2niix.")
    header_path, path = header_and_data(path)
    for file in (header_path, path):
        refuse_device(file)
    before = stamp(path)
    single = header_path == path
    start = _start(header_path)
    try:
        kind = _header_class(start, single)
        stored = _as_stored(kind, start)
    except (*_BROKEN, ImageFileError) as error:
        raise InputError(f"{path} is not a readable NIfTI file ({_reason(error)}). Copy or convert it again.") from None
    check_header(path, stored, single)
    try:
        with _quiet(), _open(header_path) as opened:
            header = kind.from_fileobj(opened)
            dtype, full = np.dtype(header.get_data_dtype()), tuple(int(s) for s in header.get_data_shape())
            affine = np.asarray(header.get_best_affine(), dtype=float)
            oriented = bool(header["qform_code"] > 0 or header["sform_code"] > 0)
            offset = int(header.get_data_offset())
            slope, inter = (x if x is not None else default for x, default in zip(header.get_slope_inter(), (1.0, 0.0)))
            affine[:3] *= MM.get(int(header["xyzt_units"]) & 7, 1.0)
    except (*_BROKEN, ImageFileError, KeyError, AttributeError, TypeError, np.linalg.LinAlgError) as error:
        raise InputError(f"{path} is not a readable NIfTI file ({_reason(error)}). Copy or convert it again.") from None
    if dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected real numbers, got "
            f"{'complex numbers' if dtype.kind == 'c' else f'values of type {dtype}'}. Save the magnitude, the real "
            "part, or magnitude and phase (part-mag, part-phase)."
        )
    shape, n_volumes = _split(path, full)
    needed, size = math.prod(full) * dtype.itemsize + offset, path.stat().st_size
    if not _packed(path):
        check_size(path, full, dtype.itemsize, offset)
    elif needed > size * _LARGEST_RATIO:
        raise InputError(
            f"{path} is truncated, or its header is wrong: {' × '.join(map(str, full))} values of {dtype.itemsize} "
            f"bytes do not fit into a file of {size:,} bytes. Copy or convert it again."
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{path}: its affine is singular or not finite. Repair the orientation in the header.")
    return NiftiFile(
        path, shape, n_volumes, affine, oriented, header, dtype, offset, float(slope), float(inter), before
    )


def header_and_data(path: Path) -> tuple[Path, Path]:
    """Return the files that hold the header and the data of an image: one and the same, or a pair .hdr and .img.

    Raises
    ------
    InputError
        If one of a pair is missing.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return path, path
    header, data = pair_of(path)
    for needed, other in ((header, data), (data, header)):
        if needed is None:
            there = other or path
            raise InputError(
                f"{there}: expected a pair of files .hdr and .img, got one of them. Copy the other one to the same "
                "folder."
            )
    assert header is not None and data is not None
    return header, data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep nibabel from saying on standard error what it repairs in a header."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _start(path: Path) -> bytes:
    """Return the first bytes of a header. Refuse one whose data begin absurdly late, since all before would be read."""
    try:
        with _open(path) as file:
            start = file.read(544)
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
        raise InputError(f"{path} is not a readable NIfTI file ({_reason(error)}). Copy or convert it again.") from None
    if start.startswith(_POINTERS):
        raise InputError(
            f"{path} contains only a pointer to its data. Fetch them with `git lfs pull` or `datalad get`."
        )
    if len(start) < 348:
        raise InputError(f"{path} is not a readable NIfTI file (it ends within its header). Copy or convert it again.")
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", start)
        if size in (348, 540):
            (at,) = (
                struct.unpack_from(f"{order}f", start, 108)
                if size == 348
                else struct.unpack_from(f"{order}q", start, 168)
            )
            if not -1 < at <= _LATEST_START:
                raise InputError(f"{path}: its header is wrong, the data would begin at byte {at:g}. Convert it again.")
    return start


def _header_class(start: bytes, single: bool) -> Any:
    """Return the class that reads a header: NIfTI-1 or NIfTI-2, one file or a pair."""
    if 540 in (struct.unpack_from(f"{order}i", start)[0] for order in "<>"):
        return nifti2.Nifti2Header if single else nifti2.Nifti2PairHeader
    if start[344:347] not in (b"n+1", b"ni1"):
        what = "an Analyze 7.5 image, which does not say where left is" if not single else "no NIfTI header"
        raise ImageFileError(f"it is {what}")
    return nifti1.Nifti1Header if single else nifti1.Nifti1PairHeader


def _as_stored(kind: Any, start: bytes) -> Any:
    """Return the fields of a header as they are stored: nothing is repaired."""
    order = next((order for order in "<>" if struct.unpack_from(f"{order}i", start)[0] in (348, 540)), None)
    if order is None:
        raise ImageFileError("it does not begin with the size of a NIfTI header")
    size = 540 if kind.sizeof_hdr == 540 else 348
    return kind(start[:size], endianness=order, check=False)


def _split(path: Path, full: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    shape = full
    while len(shape) > 4 and shape[-1] == 1:  # trailing axes of one say nothing
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:  # a vector axis is where some tools put the images
        shape = (*shape[:3], shape[4])
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise InputError(f"{path}: expected an image of two or three axes, or a series (X, Y, Z, N), got shape {full}.")
    return (shape[:3], shape[3]) if len(shape) == 4 else (shape, 1)


def read_volumes(
    files: Sequence[NiftiFile], keep: Sequence[bool] | None = None, planes: tuple[int, int] | None = None
) -> NDArray[Any]:
    """Read the volumes of the files, one after the other, into one array (N, *X).

    Parameters
    ----------
    keep
        Which of all the volumes to read; all if left out.
    planes
        Range of the last axis; all if left out.
    """
    total = sum(file.n_volumes for file in files)
    keep = [True] * total if keep is None else list(keep)
    wide = any(file.wide for file in files)
    shape = files[0].shape if planes is None else (*files[0].shape[:-1], planes[1] - planes[0])
    images = np.empty((sum(keep), *shape), np.float64 if wide else np.float32)
    start, n = 0, 0
    for file in files:
        kept = keep[start : start + file.n_volumes]
        for volume in file.volumes(kept) if planes is None else file.planes(*planes, kept):
            images[n] = volume
            n += 1
        start += file.n_volumes
    return images
