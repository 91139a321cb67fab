"""Inputs of kinds that tests of one part of the reader do not cover: parts without a magnitude, numbers that lack,
and units that are mixed.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io.reading_options import Reading
from rimap.io.series_search import find
from rimap.workflow.read_series import read

PARTS = {"mag": "M", "phase": "P", "real": "R", "imag": "I"}
ENDINGS = {"mag": "", "phase": "_ph", "real": "_real", "imag": "_imaginary"}


def parts(folder: Path, build: SimpleNamespace, each: list[str], silent: tuple[str, ...] = ()) -> Path:
    """Write a series in the parts that are named for each image; `silent` parts have no sidecar."""
    for n, (t, image, some) in enumerate(zip(build.TI, build.recovery(signed=True), each), 1):
        whole = image * np.exp(0.7j)
        values = {"mag": np.abs(whole), "phase": np.angle(whole), "real": whole.real, "imag": whole.imag}
        for part in some.split():
            meta = {
                "InversionTime": t / 1000,
                "RepetitionTime": 10.0,
                "ImageType": ["ORIGINAL", "PRIMARY", PARTS[part]],
            }
            path = folder / f"ir_{n}{ENDINGS[part]}.nii.gz"
            build.save(path, values[part].astype("f4"), None if part in silent else meta)
    return folder


class TestParts:
    """Magnitude, phase, real and imaginary part, for some of the images."""

    def test_real_parts_whose_magnitude_lacks_are_used_with_the_others(
        self, tmp_path: Path, build: SimpleNamespace
    ) -> None:
        parts(tmp_path, build, ["mag real imag", "mag real imag", "real imag", "mag real imag"])
        (series,) = find(tmp_path).series
        assert sorted(f.name for f in series.images) == [f"ir_{n}_real.nii.gz" for n in range(1, 5)]
        assert len(series.companions) == 4
        signed = build.recovery(signed=True)
        order = np.argsort(read(tmp_path).model.times)
        np.testing.assert_allclose(read(tmp_path).images[order], signed, rtol=1e-5, atol=1e-3)

    def test_a_phase_whose_magnitude_lacks_is_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        parts(tmp_path, build, ["mag phase", "mag phase", "mag phase", "phase"])
        (note,) = find(tmp_path).notes
        assert note == "1 image left out, a phase whose magnitude image does not exist: ir_4_ph.nii.gz"

    def test_an_imaginary_part_has_its_article(self, tmp_path: Path, build: SimpleNamespace) -> None:
        parts(tmp_path, build, ["mag imag"] * 4)
        assert "4 images left out, an imaginary part that no series needs" in find(tmp_path).notes[0]

    def test_real_parts_without_sidecars_do_not_replace_magnitudes(
        self, tmp_path: Path, build: SimpleNamespace
    ) -> None:
        series = read(parts(tmp_path, build, ["mag real"] * 4, silent=("real",)))
        assert not series.model.is_signed and series.model.times.tolist() == list(build.TI)
        assert "the real parts of the images have no sidecars" in " ".join(series.notes)


class TestNumbers:
    """Numbers in names that are not consecutive."""

    @pytest.mark.parametrize(
        ("numbers", "told"),
        [((1, 5, 9, 30), "inv-2, inv-3, inv-4, inv-6, inv-7, inv-8 … are missing"), ((50, 400, 1100, 2500), "")],
        ids=["few of many", "names with the times"],
    )
    def test_gaps_are_said_and_times_are_none(
        self, tmp_path: Path, build: SimpleNamespace, numbers: tuple[int, ...], told: str
    ) -> None:
        for n, t, image in zip(numbers, build.TI, build.recovery()):
            build.save(tmp_path / f"sub-01/anat/sub-01_inv-{n}_IRT1.nii.gz", image, {"InversionTime": t / 1000})
        (series,) = find(tmp_path).series
        assert told in " ".join(series.notes) and ("missing" in " ".join(series.notes)) == bool(told)

    def test_subjects_without_a_series_are_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        (tmp_path / "sub-02" / "anat").mkdir(parents=True)
        build.save(tmp_path / "sub-03/anat/sub-03_T1w.nii.gz", np.ones((3, 3, 3), "f4"))
        assert "no series was found for sub-02, sub-03" in find(tmp_path).notes
        assert "no series was found" not in " ".join(find(tmp_path, participant_labels=["01"]).notes)

    def test_a_folder_of_dicom_below_nifti_is_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.save(
            tmp_path / "a.nii.gz", np.moveaxis(build.recovery(), 0, -1), {"InversionTime": [0.05, 0.4, 1.1, 2.5]}
        )
        (tmp_path / "scan" / "deeper").mkdir(parents=True)
        (tmp_path / "scan" / "deeper" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(64))
        assert "a folder of DICOM beside NIfTI (give the folder itself): scan" in find(tmp_path).notes[0]


class TestUnits:
    """Values in another unit, in all sidecars or in some."""

    def refused(self, folder: Path, build: SimpleNamespace, **fields: Any) -> str:
        for n, (t, image) in enumerate(zip(build.TI, build.recovery()), 1):
            meta = {key: value(t) if callable(value) else value for key, value in fields.items()}
            build.save(folder / f"im_{n}.nii.gz", image, meta)
        with pytest.raises(InputError) as error:
            read(folder)
        return str(error.value)

    def test_microseconds_are_not_called_milliseconds(self, tmp_path: Path, build: SimpleNamespace) -> None:
        told = self.refused(tmp_path, build, InversionTime=lambda t: 1000 * t)
        assert "got 50000 in its sidecar. If these are microseconds, write 0.05 there" in told

    def test_text_in_place_of_a_number_says_what_to_do(self, tmp_path: Path, build: SimpleNamespace) -> None:
        told = self.refused(tmp_path, build, InversionTime=lambda t: t / 1000, RepetitionTime="10")
        assert told.endswith("a number, got '10' in its sidecar. Correct the sidecar.")

    def test_a_time_that_all_images_share_is_said(self, tmp_path: Path, build: SimpleNamespace) -> None:
        told = self.refused(tmp_path, build, InversionTime=0.4, EchoTime=0.01)
        assert "EchoTime and InversionTime of the sidecars are the same for all images" in told

    @pytest.mark.parametrize(
        ("angles", "tr", "words"),
        [
            ([2, 0.0873, 10, 20], 0.015, r"2_VFA.nii.gz: expected FlipAngle in degrees, got 0.0873 .*write 5 there"),
            ([2, 5, 10, 20], 5, "expected RepetitionTimeExcitation in seconds, got 5 .*milliseconds, write 0.005"),
        ],
        ids=["one angle in radians", "a short TR in milliseconds"],
    )
    def test_flip_angles(
        self, tmp_path: Path, build: SimpleNamespace, angles: list[float], tr: float, words: str
    ) -> None:
        for n, angle in enumerate(angles, 1):
            meta = {"FlipAngle": angle, "RepetitionTimeExcitation": tr}
            build.save(tmp_path / f"sub-01/anat/sub-01_flip-{n}_VFA.nii.gz", np.full((4, 4, 4), 10.0 * n, "f4"), meta)
        with pytest.raises(InputError, match=words):
            read(tmp_path)

    @pytest.mark.parametrize("unit", ["rad", "degrees"])
    def test_a_map_of_flip_angles_is_no_map_of_b1(self, tmp_path: Path, build: SimpleNamespace, unit: str) -> None:
        vfa(tmp_path, build)
        field = build.save(tmp_path / "b1.nii.gz", np.full((4, 4, 4), 1.05, "f4"), {"Units": unit})
        with pytest.raises(InputError, match=f"expected B1 as a factor or in per cent, got an angle .Units {unit}"):
            read(tmp_path / "sub-01", Reading(given={"B1": field}))

    @pytest.mark.parametrize(("median", "warned"), [(63.0, True), (95.0, False), (1.1, False)])
    def test_an_odd_field_without_a_unit_is_a_warning(
        self, tmp_path: Path, build: SimpleNamespace, median: float, warned: bool
    ) -> None:
        vfa(tmp_path, build)
        field = build.save(tmp_path / "b1.nii.gz", np.full((4, 4, 4), median, "f4"))
        notes = read(tmp_path / "sub-01", Reading(given={"B1": field})).notes
        assert ("check that the map does not hold flip angles" in " ".join(notes)) == warned

    def test_a_map_whose_median_is_no_field_is_refused_whatever_its_edge(
        self, tmp_path: Path, build: SimpleNamespace
    ) -> None:
        vfa(tmp_path, build)
        values = np.full((4, 4, 4), 57.0, "f4")
        values[0] = 1.0  # the edge of a map that was smoothed
        with pytest.raises(InputError, match="got a median of 57"):
            read(tmp_path / "sub-01", Reading(given={"B1": build.save(tmp_path / "b1.nii.gz", values)}))


def vfa(folder: Path, build: SimpleNamespace) -> None:
    """Write flip angles of 2 to 20 degrees."""
    model = rimap.VariableFlipAngle(flip_angle=[2, 5, 10, 20], tr=15)
    images = model.signal([np.full((4, 4, 4), v) for v in (1000.0, 1.0, 900.0)])
    for n, (angle, image) in enumerate(zip((2, 5, 10, 20), images), 1):
        meta = {"FlipAngle": angle, "RepetitionTimeExcitation": 0.015}
        build.save(folder / f"sub-01/anat/sub-01_flip-{n}_VFA.nii.gz", np.asarray(image, "f4"), meta)


def test_an_image_without_a_finite_value_is_refused(tmp_path: Path, build: SimpleNamespace) -> None:
    images = build.recovery().copy()
    images[2] = np.nan
    path = build.save(tmp_path / "a.nii.gz", np.moveaxis(images, 0, -1), {"InversionTime": [0.05, 0.4, 1.1, 2.5]})
    with pytest.raises(InputError, match=r"image 3 \(1100 ms\) has no finite value. Leave it out"):
        read(path)


def test_what_an_empty_image_is_called_follows_its_axis(tmp_path: Path, build: SimpleNamespace) -> None:
    vfa(tmp_path, build)
    build.save(
        tmp_path / "sub-01/anat/sub-01_flip-3_VFA.nii.gz",
        np.full((4, 4, 4), np.nan, "f4"),
        {"FlipAngle": 10, "RepetitionTimeExcitation": 0.015},
    )
    with pytest.raises(InputError, match=r"image 3 \(10°\) has no finite value"):
        read(tmp_path / "sub-01")
