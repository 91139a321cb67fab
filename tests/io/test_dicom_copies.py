"""Images that are in DICOM files twice are used once and named, or refused: never averaged in silence."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.image_copies import Print
from rimap.io.series_search import find
from rimap.workflow.read_series import read

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))

TI, TE = (60, 150, 400, 1000), (10.0, 20.0, 30.0, 40.0)
SHAPE = (3, 7, 5)
COMMON = {"Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "RepetitionTime": 9000}
NOISE = np.random.default_rng(0)


def image(n: int) -> np.ndarray:
    return (500 + 100 * n + 10 * np.random.default_rng(n).normal(size=SHAPE)).astype(np.uint16)


def one_by_one(
    folder: Path, number: int = 5, change: Callable[[np.ndarray], np.ndarray] = lambda x: x, **more: Any
) -> Path:
    """A series for each TI."""
    for n, ti in enumerate(TI):
        fields = COMMON | {"InversionTime": ti, "EchoTime": 12, "ScanningSequence": "IR"} | more
        make.classic(folder, change(image(n)), series=number + n, **fields)
    return folder


def in_one(
    folder: Path, number: int = 5, change: Callable[[np.ndarray], np.ndarray] = lambda x: x, **more: Any
) -> Path:
    """All echoes in one series."""
    for n, te in enumerate(TE):
        fields = COMMON | {"EchoTime": te, "ScanningSequence": "SE"} | more
        make.classic(folder, change(image(n)), series=number, first=1 + 3 * n, **fields)
    return folder


def edit(folder: Path, change: Callable[[Any, int], None]) -> Path:
    for n, path in enumerate(sorted(folder.iterdir())):
        ds = pydicom.dcmread(path)
        change(ds, n)
        ds.save_as(path)
    return folder


def other_uids(ds: Any, _: int) -> None:
    ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID}.99"


def other_study(ds: Any, n: int) -> None:
    other_uids(ds, n)
    ds.StudyInstanceUID = f"{ds.StudyInstanceUID}.99"


def other_scale(ds: Any, _: int) -> None:
    """Stored with half the slope: twice the numbers, and a larger unit of the values."""
    other_uids(ds, 0)
    ds.PixelData = (ds.pixel_array * 2).astype(np.uint16).tobytes()
    ds.RescaleSlope, ds.RescaleIntercept = 1.7, 0


def compressed(ds: Any, _: int) -> None:
    from pydicom.uid import RLELossless

    other_uids(ds, 0)
    ds.compress(RLELossless, generate_instance_uid=True)


def renumbered(ds: Any, n: int) -> None:
    other_uids(ds, n)
    ds.InstanceNumber += 500
    ds.AcquisitionNumber = 7


@pytest.mark.parametrize("series", [one_by_one, in_one])
@pytest.mark.parametrize("number", [5, 25])
@pytest.mark.parametrize(
    "again", [None, other_uids, other_scale, compressed, renumbered], ids=lambda f: getattr(f, "__name__", "as is")
)
def test_a_series_that_was_exported_twice_is_used_once(
    tmp_path: Path, series: Callable[..., Path], number: int, again: Callable[[Any, int], None] | None
) -> None:
    alone = read(series(tmp_path / "alone"))
    series(tmp_path / "all" / "first")
    second = series(tmp_path / "all" / "second", number)
    if again is not None:
        edit(second, again)
    found = read(tmp_path / "all")
    assert found.model == alone.model
    ratio = found.images / alone.images
    assert np.ptp(ratio) < 0.01 * ratio.mean()
    assert any("left out" in note and "copies of others" in note for note in found.notes), found.notes


def test_a_copy_of_another_study_is_named(tmp_path: Path) -> None:
    """Whoever removed the names gave it other UIDs: its values say that it is a copy."""
    one_by_one(tmp_path / "a")
    edit(one_by_one(tmp_path / "b"), other_study)
    found = read(tmp_path)
    assert len(found.images) == len(TI) and any("copies of others" in n for n in found.notes)


@pytest.mark.parametrize("series", [one_by_one, in_one])
def test_some_slices_that_are_there_twice(tmp_path: Path, series: Callable[..., Path]) -> None:
    series(tmp_path / "first")
    second = edit(series(tmp_path / "second"), renumbered)
    for k, path in enumerate(sorted(second.iterdir())):
        if k % 3 == 1:
            path.unlink()
    found = read(tmp_path)
    assert len(found.images) == 4 and any("copies of others" in n for n in found.notes)


def test_one_file_twice(tmp_path: Path) -> None:
    in_one(tmp_path)
    some = sorted(tmp_path.iterdir())
    shutil.copy(some[4], tmp_path / "IM_0999")
    edit_one = pydicom.dcmread(some[7])
    edit_one.SOPInstanceUID = edit_one.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    edit_one.save_as(tmp_path / "IM_0998")
    found = read(tmp_path)
    assert len(found.images) == len(TE) and any("copies" in n for n in found.notes)


def test_a_multi_frame_export_beside_the_classic_one(tmp_path: Path) -> None:
    in_one(tmp_path / "classic", ImageType=["ORIGINAL", "PRIMARY", "M_IR", "NONE"], MRAcquisitionType="")
    frames = [{"k": k, "te": te, "tr": 9000} for te in TE for k in range(3)]
    raw = [image(n)[k] for n in range(len(TE)) for k in range(3)]
    make.enhanced(tmp_path / "enhanced.dcm", raw, series=5, frames=frames, philips=False, Manufacturer="SIEMENS",
                  ScanningSequence="SE")  # fmt: skip
    found = read(tmp_path)
    assert len(found.images) == len(TE) and any("copies of others" in n for n in found.notes)


@pytest.mark.parametrize("field", [{"RepetitionTime": 4000}, {"EchoTime": 40}])
def test_a_copy_with_other_settings_is_another_series(tmp_path: Path, field: dict[str, float]) -> None:
    one_by_one(tmp_path / "a")
    one_by_one(tmp_path / "b", 25, **field)
    with pytest.raises(InputError, match="2 series"):
        read(tmp_path)


def test_a_copy_under_another_time_is_said(tmp_path: Path) -> None:
    for n, ti in enumerate((60, 150, 400, 1000, 2500)):
        make.classic(
            tmp_path, image(min(n, 3)), series=5 + n, InversionTime=ti, EchoTime=12, ScanningSequence="IR", **COMMON
        )
    notes = read(tmp_path).notes
    assert any("have the same values" in n and "Do not rely" in n for n in notes), notes


def test_a_repeat_with_noise_of_its_own_is_used_and_said(tmp_path: Path) -> None:
    in_one(tmp_path)
    in_one(tmp_path / "again", change=lambda x: (x + NOISE.normal(0, 6, x.shape)).astype(np.uint16))
    edit(tmp_path / "again", renumbered_in_the_same_series)
    found = read(tmp_path)
    assert len(found.images) == 2 * len(TE)
    assert any("repeats" in n for n in found.notes), found.notes


def renumbered_in_the_same_series(ds: Any, _: int) -> None:
    ds.InstanceNumber += 500


def test_different_images_with_one_instance_number_are_no_copies(tmp_path: Path) -> None:
    """The same headers but for the UID of the image: the pixels say that it is another one."""
    in_one(tmp_path / "a")
    in_one(tmp_path / "b", change=lambda x: (x + NOISE.normal(0, 6, x.shape)).astype(np.uint16))
    found = read(tmp_path)
    assert len(found.images) == 2 * len(TE) and any("repeats" in n for n in found.notes)


def test_the_protocol_run_again_is_another_series(tmp_path: Path) -> None:
    one_by_one(tmp_path / "a")
    one_by_one(tmp_path / "b", 25, change=lambda x: (x + NOISE.normal(0, 6, x.shape)).astype(np.uint16))
    with pytest.raises(InputError, match="2 series"):
        read(tmp_path)


def test_of_two_copies_the_one_that_was_asked_for_is_used(tmp_path: Path) -> None:
    in_one(tmp_path / "a")
    in_one(tmp_path / "b", 25)
    for number in ("5", "25"):
        (files,) = find_series(tmp_path, series=[number])
        assert files.origin == (f"dicom:series-{number}",) and any("copies of others" in n for n in files.notes)
    with pytest.raises(InputError, match="contain the same images"):
        find_series(tmp_path, series=["5,25"])


def test_a_run_that_was_stopped_is_not_mixed_in(tmp_path: Path) -> None:
    in_one(tmp_path / "whole")
    for n, te in enumerate(TE[:2]):
        fields = COMMON | {"EchoTime": te, "ScanningSequence": "SE"}
        make.classic(tmp_path / "stopped", image(n + 7), series=6, first=1 + 3 * n, **fields)
    (files,) = find(tmp_path).series
    assert len(files.images) == len(TE) and any("series 6 (2 images)" in n for n in files.notes)


def test_real_parts_of_another_scan_are_a_series(tmp_path: Path) -> None:
    """They are not left out because another scan has magnitudes."""
    in_one(tmp_path)
    one_by_one(tmp_path / "real", 20, ImageType=["ORIGINAL", "PRIMARY", "R", "ND"])
    with pytest.raises(InputError, match=r"2 series(.|\n)*--series 5 (.|\n)*--series 20 "):
        read(tmp_path)


class TestPrints:
    """When two arrays are one image."""

    def test_scaled_and_rounded_is_a_copy_and_noise_is_none(self) -> None:
        rng = np.random.default_rng(3)
        a = np.rint(rng.gamma(2.0, 200.0, (20, 20, 5)))
        one = Print.of([a], 1)
        for b in (
            a,
            3.7 * a,
            np.rint(3.7 * a),
            (0.01 * a).astype(np.float32),
            a.astype(np.float32) * np.float32(1e-20),
        ):
            assert Print.of([b], 1).is_copy_of(one) and one.is_copy_of(Print.of([b], 1))
        for b in (a + rng.normal(0, 2, a.shape), np.rint(a + rng.normal(0, 2, a.shape)), a + 5, a[::-1], a**1.1):
            assert not Print.of([b], 1).is_copy_of(one)

    def test_images_of_one_value_say_nothing(self) -> None:
        one = Print.of([np.full((5, 5), 3.0)], 1)
        assert not one.is_copy_of(one)
