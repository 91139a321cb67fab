"""What a NIfTI header says of itself: a header that contradicts itself or its file is refused, not repaired.

nibabel repairs such headers, or reads past them. The values would then be a guess without a warning.

References
----------
Cox et al. 2004, *A (sort of) new image data format standard: NIfTI-1* (the fields and what they mean).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nibabel.nifti1 import data_type_codes

from rimap.errors import InputError

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialHeader

#: The first byte that data of one file may have: after the header and the four bytes that say whether extensions
#: follow.
_FIRST_BYTE = {348: 352, 540: 544}
#: Files may be filled up with so many zeros, to whole blocks of a disk or a tape.
_MOST_FILL = 4096


def check_header(path: Path, header: SpatialHeader, single: bool) -> None:
    """Refuse a header whose fields contradict each other.

    Parameters
    ----------
    path
        The file, for the message.
    header
        The header as it is stored, before anything repairs it.
    single
        Whether header and data are one file.

    Raises
    ------
    InputError
        If the bits of a value are not those of its type, the data begin within the header, an axis has fewer than one
        voxel, or a voxel has no size.
    """
    _check_axes(path, header)
    code, bits = int(header["datatype"]), int(header["bitpix"])
    known = data_type_codes.dtype.keys()  # a table of nibabel, which has no operator `in`
    dtype = data_type_codes.dtype[code] if code in known else None
    if dtype is not None and dtype.itemsize and bits != 8 * dtype.itemsize:
        raise _wrong(
            path, f"expected bitpix {8 * dtype.itemsize} for its datatype {code} ({dtype.name}), got bitpix {bits}"
        )
    first, offset = _FIRST_BYTE[int(header["sizeof_hdr"])], float(header["vox_offset"])
    if single and not offset >= first:
        raise _wrong(
            path, f"expected data that begin at byte {first} or later, after the header, got vox_offset {offset:g}"
        )
    if offset != int(offset):
        raise _wrong(path, f"expected a whole number of bytes before the data, got vox_offset {offset:g}")


def _check_axes(path: Path, header: Any) -> None:
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise _wrong(path, f"expected 1 to 7 axes, got dim[0] {n_axes}")
    axes = [int(n) for n in header["dim"][1 : n_axes + 1]]
    if min(axes) < 1:
        raise _wrong(path, f"expected at least one voxel along each axis, got {' × '.join(map(str, axes))}")
    sizes = [float(x) for x in header["pixdim"][1 : min(n_axes, 3) + 1]]
    if not all(math.isfinite(size) and size != 0 for size in sizes):
        raise _wrong(path, f"expected voxel sizes above zero, got {' × '.join(f'{size:g}' for size in sizes)} (pixdim)")


def check_size(path: Path, full: tuple[int, ...], item_bytes: int, offset: int) -> None:
    """Refuse a file that is not compressed and has fewer or more bytes than its header says.

    Parameters
    ----------
    full
        Its shape.
    item_bytes
        The bytes of one value.
    offset
        Where the data begin.

    Raises
    ------
    InputError
        Naming both numbers of bytes.
    """
    expected, size = math.prod(full) * item_bytes, path.stat().st_size
    if offset >= size:
        raise _wrong(path, f"expected data within the {size:,} bytes of the file, got vox_offset {offset:,}")
    if size - offset < expected:
        raise InputError(
            f"{path} is truncated, or its header is wrong: expected {_of_data(full, item_bytes)}, got "
            f"{size - offset:,} bytes. Copy or "
            "convert it again."
        )
    with path.open("rb") as file:
        file.seek(offset + expected)
        if not only_fill(file):
            raise _wrong(path, f"expected {_of_data(full, item_bytes)}, got {size - offset:,} bytes")


def only_fill(file: IO[bytes]) -> bool:
    """Return whether the rest of a file is no data: nothing, or a few zeros."""
    rest = file.read(_MOST_FILL + 1)
    return len(rest) <= _MOST_FILL and not any(rest)


def _of_data(full: tuple[int, ...], item_bytes: int) -> str:
    return f"{math.prod(full) * item_bytes:,} bytes of data ({' × '.join(map(str, full))} values of {item_bytes} bytes)"


def _wrong(path: Path, what: str) -> InputError:
    return InputError(f"{path}: its header is wrong: {what}. Convert or export the image again.")
