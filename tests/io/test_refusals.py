"""What cannot be read is refused with a message of one or two lines that names what does not fit."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.nifti import open_nifti
from rimap.io.reading_options import Reading
from rimap.workflow.read_series import read


def refused(function: Callable[[], object]) -> str:
    """Return the message; it must be short and say what to do."""
    with pytest.raises(InputError) as caught:
        function()
    text = str(caught.value)
    assert len(text) < 420, text
    assert len(text.splitlines()) <= 2
    assert text.rstrip().endswith((".", ")", "…", "?", "0")), text
    return text


@pytest.fixture
def loose(tmp_path: Path, build: SimpleNamespace) -> Path:
    return build.save(tmp_path / "ir.nii.gz", np.moveaxis(build.recovery(), 0, -1))


def edit(path: Path, **fields: object) -> None:
    """Change fields of a sidecar; None removes one."""
    data = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


class TestTimes:
    @pytest.mark.parametrize(
        ("times", "says"),
        [
            ([50, 400, 1100, 2500, 3000], "5 times, 4 images"),
            ([50, 400, 1100], "3 times, 4 images"),
            ([], "no times"),
            ([-50, 400, 1100, 2500], "-50"),
            ([float("nan"), 400, 1100, 2500], "nan"),
            ([50, 50, 400, 400], "3 or more distinct values of inversion time, got 2"),
            ([0.05, 0.4, 1.1, 2.5], r"If these are seconds.* --times-ms 50 400 1100 …"),
        ],
    )
    def test_given(self, loose: Path, times: list[float], says: str) -> None:
        text = refused(lambda: read(loose, times_ms=times, sequence="ir"))
        assert __import__("re").search(says, text), text

    def test_echo_times_in_seconds(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = build.save(tmp_path / "t2.nii", np.moveaxis(build.decay(), 0, -1))
        text = refused(lambda: read(path, times_ms=[t / 1000 for t in build.TE], sequence="t2"))
        assert "If these are seconds" in text
        assert read(path, times_ms=build.TE, sequence="t2").model.tau == build.TE

    def test_none_at_all(self, loose: Path) -> None:
        text = refused(lambda: read(loose))
        assert "--sequence ir or " in text and "--sequence t2" in text and "--times-ms" in text
        assert "no InversionTime" in refused(lambda: read(loose, sequence="ir"))

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (None, "no InversionTime"),
            (-0.4, "cannot be negative"),
            (400, r"expected InversionTime in seconds, got 400 .*If these are milliseconds, write 0.4 "),
            ("0.4", "'0.4'"),
            (True, "True"),
            ([0.4, 0.5], "2 times, 1 image"),
            ([], "0 times, 1 image"),
            (float("nan"), "nan"),
        ],
    )
    def test_in_sidecars(self, bids: Path, value: object, says: str) -> None:
        edit(bids / "sub-01/anat/sub-01_inv-2_IRT1.json", InversionTime=value)
        text = refused(lambda: read(bids / "sub-01", sequence="ir"))
        assert __import__("re").search(says, text), text
        assert "sub-01_inv-2_IRT1" in text

    def test_one_time_for_many_volumes(self, loose: Path) -> None:
        loose.with_name("ir.json").write_text('{"InversionTime": 0.05}')
        assert "1 time, 4 images" in refused(lambda: read(loose, sequence="ir"))

    def test_in_milliseconds_echo(self, bids: Path, build: SimpleNamespace) -> None:
        for n, te in enumerate(build.TE, 1):
            edit(bids / f"sub-01/anat/sub-01_echo-{n}_MESE.json", EchoTime=te / 5)  # 2…32: below 30, yet ms
        assert "If these are milliseconds" in refused(lambda: read(bids / "sub-01", sequence="t2"))

    def test_repetition_time_shorter_than_inversion_time(self, bids: Path) -> None:
        assert "longer than TI" in refused(lambda: read(bids / "sub-01", sequence="ir", tr_ms=2000))

    def test_sequence_that_contradicts_the_suffix(self, bids: Path) -> None:
        file = bids / "sub-01/anat/sub-01_inv-2_IRT1.nii.gz"
        text = refused(lambda: read(file, sequence="t2"))
        assert text.endswith(
            "sub-01_inv-2_IRT1.nii.gz: expected a series of --sequence t2, got sub-01 IRT1. Leave --sequence out."
        )
        (series,) = find_series(file)
        assert "inversion recovery according to its suffix" in refused(lambda: series.load(Reading(sequence="t2")))


class TestGrids:
    def test_shape(self, bids: Path, build: SimpleNamespace) -> None:
        build.save(bids / "sub-01/anat/sub-01_inv-3_IRT1.nii.gz", np.ones((4, 5, 3), np.float32))
        text = refused(lambda: read(bids / "sub-01", sequence="ir"))
        assert "(4, 5, 2) in sub-01_inv-1_IRT1.nii.gz and (4, 5, 3) in sub-01_inv-3_IRT1.nii.gz" in text

    @pytest.mark.parametrize("shift", [0.5, 0.01])
    def test_affine(self, bids: Path, build: SimpleNamespace, shift: float) -> None:
        moved = build.affine.copy()
        moved[0, 3] += shift
        build.save(bids / "sub-01/anat/sub-01_inv-3_IRT1.nii.gz", build.recovery()[2], affine=moved)
        if shift < 0.05:  # rounding of another tool
            read(bids / "sub-01", sequence="ir")
        else:
            assert "affines of sub-01_inv-1" in refused(lambda: read(bids / "sub-01", sequence="ir"))

    def test_mask(self, bids: Path, build: SimpleNamespace, tmp_path: Path) -> None:
        for shape, affine, says in (
            ((4, 5, 3), build.affine, "of shape (4, 5, 2) like the images, got (4, 5, 3)"),
            ((4, 5, 2, 2), build.affine, "got (4, 5, 2, 2)"),
            ((4, 5, 2), 2 * build.affine, "another affine"),
        ):
            path = build.save(tmp_path / "m.nii.gz", np.ones(shape, np.uint8), affine=affine)
            assert says in refused(lambda path=path: read(bids / "sub-01", sequence="ir", mask=path))
        assert "expected an existing file" in refused(
            lambda: read(bids / "sub-01", sequence="ir", mask=tmp_path / "none.nii")
        )

    def test_the_same_image_twice(self, bids: Path, build: SimpleNamespace) -> None:
        build.save(bids / "sub-01/anat/sub-01_inv-1_IRT1.nii", build.recovery()[0])
        assert "duplicate" in refused(lambda: find_series(bids))


@pytest.mark.parametrize(("value", "says"), [(np.nan, "no value of the images is finite"), (0, "all images are zero")])
def test_nothing_to_see(tmp_path: Path, build: SimpleNamespace, value: float, says: str) -> None:
    path = build.save(tmp_path / "x.nii.gz", np.full((3, 4, 2, 4), value, np.float32))
    text = refused(lambda: read(path, times_ms=build.TI, sequence="ir"))
    assert says in text and "x.nii.gz" in text


def test_a_few_voxels_that_are_not_finite_are_kept(tmp_path: Path, build: SimpleNamespace) -> None:
    images = build.recovery()
    images[0, 0, 0, 0], images[1, 1, 1, 1] = np.nan, np.inf
    path = build.save(tmp_path / "x.nii.gz", np.moveaxis(images, 0, -1))
    np.testing.assert_array_equal(read(path, times_ms=build.TI, sequence="ir").images, images)


class TestFiles:
    @pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("left", [0.0, 0.001, 0.4, 0.97])
    def test_truncated(self, tmp_path: Path, build: SimpleNamespace, extension: str, left: float) -> None:
        noise = np.random.default_rng(0).normal(100, 10, (4, 5, 2, 4)).astype(np.float32)
        path = build.save(tmp_path / f"x{extension}", noise)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * left)])
        text = refused(lambda: read(path, times_ms=build.TI, sequence="ir"))
        assert f"x{extension}" in text

    def test_damaged(self, tmp_path: Path, build: SimpleNamespace) -> None:
        noise = np.random.default_rng(0).normal(100, 10, (4, 5, 2, 4)).astype(np.float32)
        path = build.save(tmp_path / "x.nii.gz", noise)
        data = bytearray(path.read_bytes())
        refusals = 0
        for place in range(12, len(data), 5):
            broken = data.copy()
            broken[place] ^= 0x55
            path.write_bytes(broken)
            try:
                read(path, times_ms=build.TI, sequence="ir")
            except InputError as error:
                refusals += "x.nii.gz" in str(error)
        assert refusals >= len(range(12, len(data), 5)) - 1  # every one: the checksum is read

    @pytest.mark.parametrize(
        "content", [b"", b"\0" * 400, b"not an image", b"\x1f\x8b rubbish", gzip.compress(b"rubbish" * 100, mtime=0)]
    )
    @pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
    def test_foreign(self, tmp_path: Path, build: SimpleNamespace, content: bytes, name: str) -> None:
        (tmp_path / name).write_bytes(content)
        assert name in refused(lambda: read(tmp_path / name, times_ms=build.TI, sequence="ir"))

    def test_not_nifti_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "x.dcm").write_bytes(b"DICM")
        assert "expected NIfTI" in refused(lambda: read(tmp_path / "x.dcm"))
        assert "expected an existing file" in refused(lambda: read(tmp_path / "y.nii"))

    @pytest.mark.parametrize("packed", [False, True])
    def test_a_header_that_claims_more_than_there_is_allocates_nothing(self, tmp_path: Path, packed: bool) -> None:
        header = nib.Nifti1Header()
        header.set_data_dtype(np.float64)
        header.set_data_shape((30000, 30000, 30000, 4))
        header["vox_offset"], header["magic"] = 352, b"n+1"
        data = header.binaryblock + b"\0" * 4000
        path = tmp_path / ("x.nii.gz" if packed else "x.nii")
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
        tracemalloc.start()
        try:
            text = refused(lambda: read(path, times_ms=(1, 2, 3, 400), sequence="ir"))
            assert ("do not fit into a file" if packed else "expected 864,000,000,000,000 bytes of data") in text
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()

    def test_negative_shape(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = build.save(tmp_path / "x.nii", np.ones((4, 5, 2, 4), np.float32))
        data = bytearray(path.read_bytes())
        data[42:44] = struct.pack("<h", -4)
        path.write_bytes(data)
        assert "x.nii" in refused(lambda: read(path, times_ms=build.TI, sequence="ir"))

    def test_complex_numbers_and_colours(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = build.save(tmp_path / "x.nii", np.ones((4, 5, 2, 4), np.complex64))
        assert "part-phase" in refused(lambda: read(path, times_ms=build.TI, sequence="ir"))
        rgb = np.zeros((4, 5, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.Nifti1Image(rgb, build.affine).to_filename(tmp_path / "c.nii")
        assert "real numbers" in refused(lambda: open_nifti(tmp_path / "c.nii"))

    @pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.full((3, 3), np.nan)])
    def test_an_affine_without_inverse(self, tmp_path: Path, build: SimpleNamespace, bad: np.ndarray) -> None:
        path = build.save(tmp_path / "x.nii", np.ones((4, 5, 2, 4), np.float32))
        image = nib.load(path)
        header = image.header
        header["srow_x"][:3], header["srow_y"][:3], header["srow_z"][:3] = bad
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(header.binaryblock + path.read_bytes()[348:])
        assert "affine" in refused(lambda: read(path, times_ms=build.TI, sequence="ir"))


class TestJson:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ('{\n "InversionTime": 0.05,,\n}', "line 2"),
            ("", "line 1"),
            ("[0.05]", "list"),
            ("[" * 100_000, "nested"),
        ],
    )
    def test_broken(self, bids: Path, text: str, says: str) -> None:
        path = bids / "sub-01/anat/sub-01_inv-1_IRT1.json"
        path.write_text(text)
        message = refused(lambda: read(bids / "sub-01", sequence="ir"))
        assert says in message and path.name in message

    def test_not_text(self, bids: Path) -> None:
        path = bids / "IRT1.json"
        path.write_bytes(b"\xff\xfe\x00rubbish")
        assert "IRT1.json" in refused(lambda: read(bids / "sub-01", sequence="ir"))

    def test_byte_order_mark_is_no_error(self, bids: Path) -> None:
        path = bids / "sub-01/anat/sub-01_inv-1_IRT1.json"
        times = read(bids / "sub-01", sequence="ir").model.times
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        np.testing.assert_array_equal(read(bids / "sub-01", sequence="ir").model.times, times)


class TestFolders:
    def test_missing(self, tmp_path: Path) -> None:
        assert "expected an existing file or folder" in refused(lambda: read(tmp_path / "none"))

    def test_empty(self, tmp_path: Path) -> None:
        assert "is empty" in refused(lambda: read(tmp_path))
        (tmp_path / "a.txt").write_text("")
        assert "no NIfTI file" in refused(lambda: read(tmp_path))
        assert "expected input, got none" in refused(lambda: find_series([]))

    def test_without_a_series(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.save(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", build.recovery()[0])
        build.save(tmp_path / "sub-1/func/sub-1_task-rest_bold.nii.gz", build.recovery())
        assert (
            "series, got none (found" in (text := refused(lambda: find_series(tmp_path)))
            and "IRT1" in text
            and "MESE" in text
            and "T1w, bold" in text
        )

    def test_files_of_another_suffix_with_a_sequence(self, tmp_path: Path, build: SimpleNamespace) -> None:
        for n, (te, image) in enumerate(zip(build.TE, build.decay()), 1):
            build.save(tmp_path / f"sub-1/anat/sub-1_echo-{n}_T2w.nii.gz", image, {"EchoTime": te / 1000})
        series = read(tmp_path / "sub-1/anat/sub-1_echo-1_T2w.nii.gz", sequence="t2")
        assert series.model.tau == build.TE
