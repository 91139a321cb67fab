"""Maps too large for memory: kept in files while they are made, slab by slab."""

from __future__ import annotations

import contextlib
import math
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.io.atomic import make_folder
from rimap.io.series_records import FOLDER
from rimap.series import ParameterMaps

#: From and to, of the last axis.
Planes = tuple[int, int]
#: Voxels of a piece, where maps in memory are written.
_PIECE = 1 << 20


@contextlib.contextmanager
def slab_folder(out: Path, name: str) -> Iterator[Path]:
    """Make a folder in OUT for slabs on their way, and remove it; that of a killed run goes with its lock.

    Raises
    ------
    InputError
        Where it cannot be made.
    """
    folder = Path(out) / FOLDER / f"slabs-{name}.{secrets.token_hex(4)}"
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}. Nothing was written.") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cuts(shape: Sequence[int], voxels: int) -> list[Planes]:
    """Return where to cut the last axis into slabs of whole planes, of about so many voxels.

    >>> cuts((10, 10, 7), 300)
    [(0, 3), (3, 6), (6, 7)]
    """
    step = max(1, voxels // max(1, math.prod(shape[:-1])))
    return [(a, min(a + step, shape[-1])) for a in range(0, shape[-1], step)]


@dataclass(frozen=True, eq=False)
class MapsOnDisk:
    """Maps in files: written slab by slab, read plane by plane.

    Parameters
    ----------
    folder
        Where.
    shape
        X.
    head
        What is said of all of them: model, noise, settings, warnings. Its own maps are empty.
    """

    folder: Path
    shape: tuple[int, ...]
    head: ParameterMaps

    def write(self, planes: Planes, maps: ParameterMaps) -> None:
        """Write the maps of a slab.

        Raises
        ------
        InputError
            Where the disk is full.
        """
        deviation = np.full_like(maps.kappa, np.nan) if maps.sd_kappa is None else maps.sd_kappa
        residual = np.full(maps.status.shape, np.nan) if maps.residual is None else maps.residual
        Q = len(maps.kappa)
        named = [
            *((f"kappa{index}", maps.kappa[index]) for index in range(Q)),
            *((f"sd{index}", deviation[index]) for index in range(Q)),
        ]
        named += [
            (row, np.full(maps.status.shape, np.nan) if maps.covariance is None else maps.covariance[k])
            for k, row in enumerate(self._covariance_rows)
        ]
        for name, values in (*named, ("residual", residual), ("status", maps.status)):
            dtype = np.dtype(np.uint8 if name == "status" else np.float64)
            path = self.folder / name
            try:
                with path.open("r+b" if path.exists() else "w+b") as file:
                    file.seek(self._plane * planes[0] * dtype.itemsize)
                    file.write(np.asarray(values, dtype).tobytes(order="F"))
            except OSError as error:
                raise InputError(
                    f"cannot write to {self.folder}: {error.strerror or error}. Free space there, or give another OUT."
                ) from None

    def read(self, planes: Planes) -> ParameterMaps:
        """Return the maps of planes of the last axis."""
        Q = len(self.head.model.parameters)
        rows = self._covariance_rows
        return replace(
            self.head,
            covariance=np.stack([self._get(row, planes) for row in rows]) if rows else None,
            kappa=np.stack([self._get(f"kappa{index}", planes) for index in range(Q)]),
            sd_kappa=np.stack([self._get(f"sd{index}", planes) for index in range(Q)]),
            residual=self._get("residual", planes),
            status=self._get("status", planes, np.uint8),
        )

    def pieces(self) -> Iterator[ParameterMaps]:
        """Yield the maps in slabs, in order."""
        for planes in cuts(self.shape, _PIECE):
            yield self.read(planes)

    @property
    def _covariance_rows(self) -> list[str]:
        """The names of the files of the covariance, which derived maps need for their standard deviations."""
        Q = len(self.head.model.parameters)
        return [f"covariance{index}" for index in range(Q * (Q + 1) // 2)] if self.head.model.derived else []

    @property
    def _plane(self) -> int:
        return math.prod(self.shape[:-1])

    def _get(self, name: str, planes: Planes, dtype: Any = np.float64) -> NDArray[Any]:
        a, b = planes
        count, size = self._plane * (b - a), np.dtype(dtype).itemsize
        values = np.fromfile(self.folder / name, dtype, count, offset=self._plane * a * size)
        return values.reshape((*self.shape[:-1], b - a), order="F")


def pieces_of(maps: ParameterMaps | MapsOnDisk) -> Iterator[ParameterMaps]:
    """Yield maps in slabs of the last axis, in order."""
    if isinstance(maps, MapsOnDisk):
        yield from maps.pieces()
        return
    for a, b in cuts(maps.status.shape, _PIECE):
        yield replace(
            maps,
            kappa=maps.kappa[..., a:b],
            status=maps.status[..., a:b],
            sd_kappa=None if maps.sd_kappa is None else maps.sd_kappa[..., a:b],
            residual=None if maps.residual is None else maps.residual[..., a:b],
            covariance=None if maps.covariance is None else maps.covariance[..., a:b],
            sd_derived={name: value[..., a:b] for name, value in maps.sd_derived.items()},
        )
