"""No DICOM file is left out without a word: a map without one of its images would look right."""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import find_series
from rimap.workflow.read_series import read

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))

TI, TE = (60, 150, 400, 1000), (10.0, 20.0, 30.0, 40.0)
SHAPE = (3, 7, 5)
COMMON = {"Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "RepetitionTime": 9000}


def image(n: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (500 + 100 * n + np.arange(np.prod(shape)).reshape(shape)).astype(np.uint16)


def inversions(folder: Path, **more: object) -> list[Path]:
    """One series for each TI."""
    files: list[Path] = []
    for n, ti in enumerate(TI):
        files += make.classic(folder, image(n), series=5 + n, InversionTime=ti, EchoTime=12, **(COMMON | more))
    return files


def change(path: Path, **fields: object) -> None:
    ds = pydicom.dcmread(path)
    for name, value in fields.items():
        setattr(ds, name, value)
    ds.save_as(path)


@pytest.mark.parametrize("what", ["a link to nothing", "zeros", "text", "an empty file", "a pipe", "a git-lfs pointer"])
def test_a_file_that_is_no_dicom_among_its_neighbours(tmp_path: Path, what: str) -> None:
    victim = inversions(tmp_path)[4]
    size = victim.stat().st_size
    victim.unlink()
    if what == "a link to nothing":
        victim.symlink_to("nowhere")
    elif what == "a pipe":
        os.mkfifo(victim)
    else:
        contents = {"zeros": bytes(size), "text": b"<html>401</html>" * 30, "an empty file": b""}
        victim.write_bytes(contents.get(what, b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 99))
    with pytest.raises(InputError, match="would look plausible"):
        read(tmp_path)


def test_texts_beside_dicom_are_let_be(tmp_path: Path) -> None:
    inversions(tmp_path)
    (tmp_path / "readme.txt").write_text("a scan " * 60)
    assert len(read(tmp_path).images) == len(TI)


def test_one_uid_for_different_images(tmp_path: Path) -> None:
    files = inversions(tmp_path)
    change(files[4], SOPInstanceUID=pydicom.dcmread(files[0]).SOPInstanceUID)
    with pytest.raises(InputError, match="one UID to different images"):
        read(tmp_path)


def test_copies_are_counted(tmp_path: Path) -> None:
    files = inversions(tmp_path)
    shutil.copy(files[2], tmp_path / "copy_of_an_image")
    (series,) = find_series(tmp_path)
    assert len(series.images) == len(TI) and any("copies" in n for n in series.notes)


@pytest.mark.parametrize(
    ("fields", "says"), [({"InversionTime": 0}, "no InversionTime"), ({"Rows": 5, "Columns": 7}, "another size")]
)
def test_an_image_of_a_series_that_cannot_be_used(tmp_path: Path, fields: dict[str, int], says: str) -> None:
    for n, ti in enumerate(TI):
        files = make.classic(tmp_path, image(n), series=5, first=1 + 3 * n, InversionTime=ti, EchoTime=12, **COMMON)
    for f in files:
        change(f, **fields)
    with pytest.raises(InputError, match=says):
        read(tmp_path)


def test_other_series_are_named(tmp_path: Path) -> None:
    inversions(tmp_path)
    make.classic(tmp_path, image(3), series=20, InversionTime=0, EchoTime=90, **(COMMON | {"ScanningSequence": "SE"}))
    (series,) = find_series(tmp_path)
    assert any("series 20 (1 image)" in n for n in series.notes)


def test_maps_of_the_scanner_are_counted(tmp_path: Path) -> None:
    inversions(tmp_path)
    make.classic(tmp_path, image(3), series=21, **(COMMON | {"ImageType": ["DERIVED", "PRIMARY", "M", "T1 MAP"]}))
    (series,) = find_series(tmp_path)
    assert any("3 DICOM files or frames left out: maps" in n or "maps or other derived" in n for n in series.notes)


def test_a_series_uid_for_each_slice(tmp_path: Path) -> None:
    for n, te in enumerate(TE):
        files = make.classic(
            tmp_path, image(n), series=8, first=1 + 3 * n, EchoTime=te, **(COMMON | {"ScanningSequence": "SE"})
        )
        for k, f in enumerate(files):
            change(f, SeriesInstanceUID=f"1.2.392.1.{k + 1}")
    (series,) = find_series(tmp_path)
    assert series.load().images.shape == (4, 5, 7, 3)


def test_a_series_uid_for_each_slice_of_each_time(tmp_path: Path) -> None:
    for k, f in enumerate(inversions(tmp_path)):
        change(f, SeriesInstanceUID=f"1.2.392.2.{k}")
    assert find_series(tmp_path, series=["5,6,7,8"])[0].load().images.shape == (4, 5, 7, 3)
