"""NIfTI files as bytes: compressed in pieces, with the geometry of another file to the bit."""

from __future__ import annotations

import importlib.metadata
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array

#: Bytes that are compressed at a time.
_BLOCK = 1 << 20

Pieces = Callable[[], Iterable[NDArray[Any]]]


def nifti_file(values: NDArray[Any], like: Array) -> Iterator[bytes]:
    """Yield a compressed NIfTI file of a map (*X) with the geometry of the header `like`."""
    return nifti_of_pieces(lambda: [values], like, values.shape)


def nifti_of_pieces(pieces: Pieces, like: Array, shape: tuple[int, ...], fill: float = np.nan) -> Iterator[bytes]:
    """Yield a compressed NIfTI file with the geometry of the header `like`, to the bit, from a map in slabs.

    Parameters
    ----------
    pieces
        Gives the slabs of the map, in order; it is called twice.
    shape
        X.
    fill
        Replaces what is not finite.
    """
    dtype = _dtype(pieces())

    def raw() -> Iterator[bytes]:
        yield _header_bytes(like, shape, dtype)
        for piece in pieces():
            x = np.where(np.isfinite(piece), piece, fill) if dtype != np.uint8 else piece
            yield x.astype(dtype).tobytes(order="F")

    return _gzipped(raw())


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces compressed; the outcome depends on neither time nor how they were cut."""
    packer, left = zlib.compressobj(1, zlib.DEFLATED, 31), bytearray()
    for piece in pieces:
        left += piece
        whole = len(left) - len(left) % _BLOCK
        for index in range(0, whole, _BLOCK):
            yield packer.compress(bytes(left[index : index + _BLOCK]))
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
