"""A full OUT is named, and never the input, whatever is being written when it is full."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import rimap
from rimap.cli import build
from rimap.errors import InputError
from rimap.io.nifti import open_nifti
from rimap.workflow import memory

from .runs_in_parallel import disk_of

TI = (50.0, 400.0, 1100.0, 2500.0)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A compressed series that is mapped in slabs."""
    T1 = np.broadcast_to(np.linspace(400, 1500, 12), (24, 20, 12))
    model = rimap.InversionRecovery(tau=TI, tr=9000.0)
    S = np.abs(np.asarray(model.signal(np.stack([0 * T1 + 800, 0 * T1 + 1.9, T1]))))
    S += np.random.default_rng(0).normal(0, 3, S.shape)
    path = tmp_path / "input.nii.gz"
    nib.save(nib.Nifti1Image(np.moveaxis(S, 0, -1).astype(np.float32), np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


def mapped(series: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(memory, "needed_by", lambda *_: 1 << 60)
    monkeypatch.setattr(memory, "slab_voxels", lambda *_: 4 * 24 * 20)
    times = ",".join(f"{t:g}" for t in TI)
    args = [
        "map",
        series,
        "-o",
        out,
        "--estimator",
        "nlls",
        "--threads",
        "1",
        "--sequence",
        "ir",
        "--times-ms",
        times,
        "--tr-ms",
        "9000",
    ]
    return CliRunner().invoke(build(), [str(a) for a in args])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB: less than the series takes without compression."""
    with disk_of(tmp_path / "disk", 300) as folder:
        yield folder


def check(result: Any, out: Path, series: Path) -> None:
    assert result.exit_code == 2, result.output
    text = result.stderr.replace("\n", " ")
    assert "No space left" in text and str(out) in text
    assert "Free space" in text or "Nothing was written" in text
    assert str(series) not in text and "truncated" not in text and "damaged" not in text


def test_a_small_disk(series: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = small_disk / "out"
    check(mapped(series, out, monkeypatch), out, series)
    assert [f for f in out.rglob("*") if f.is_file()] == []


class _Full(io.RawIOBase):
    """A file on a disk that is full after so many bytes; it may be short of some of them, as a system call may be."""

    def __init__(self, room: int) -> None:
        self._room = room

    def writable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return offset

    def write(self, data: Any) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = min(self._room, len(data))
        self._room -= n
        return n


@pytest.mark.parametrize("room", [0, 1, 1000, 4 * 24 * 20 * 12 * 4 - 1])
def test_any_byte_may_be_the_one_that_does_not_fit(
    series: Path, tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_nifti(series)
    folder = tmp_path / "OUT"
    folder.mkdir()
    plain = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return _Full(room) if self.parent == folder else plain(self, mode, *args, **kwargs)

    with monkeypatch.context() as m:
        m.setattr(Path, "open", full)
        with pytest.raises(InputError, match=r"cannot write to .*OUT: No space left") as error:
            opened.unpacked(folder)
    assert series.name not in str(error.value)


def test_slabs_on_a_full_disk(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the maps of the slabs, once the series is unpacked."""
    out, plain = tmp_path / "out", Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        slab = self.parent.name.startswith("slabs-") and self.name in ("kappa1", "status")
        return _Full(0) if slab and "w" in mode else plain(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    result = mapped(series, out, monkeypatch)
    assert result.exit_code in (1, 2), result.output
    check(result, out, series)
