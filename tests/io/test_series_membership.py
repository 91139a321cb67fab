"""What belongs together: every file is a source, or is named in a note, or the run is refused."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.nifti import open_nifti
from rimap.io.search_result import Found
from rimap.io.series_search import find
from rimap.workflow.read_series import read

ORIGINAL = ["ORIGINAL", "PRIMARY", "M", "ND"]
PHASE = ["ORIGINAL", "PRIMARY", "P", "ND", "PHASE"]


def loose(folder: Path, build: SimpleNamespace, kind: str = "ti", **more: Any) -> Path:
    """Write a series as dcm2niix does: the times are in the sidecars."""
    times, images, field = (
        (build.TI, build.recovery(), "InversionTime") if kind == "ti" else (build.TE, build.decay(), "EchoTime")
    )
    for n, (t, image) in enumerate(zip(times, images), 1):
        meta = {field: t / 1000, "RepetitionTime": 10.0, "SeriesNumber": 5, "ImageType": ORIGINAL} | more
        build.save(folder / f"5_{kind}_{n}.nii.gz", image, meta)
    return folder


def names(found: Found) -> set[str]:
    """Return the files that are sources, of all series."""
    return {f.name for s in found.series for f in s.sources}


class TestLooseFolders:
    """What dcm2niix leaves in a folder."""

    def test_phase_gives_the_polarity(self, tmp_path: Path, build: SimpleNamespace) -> None:
        for n, (t, image) in enumerate(zip(build.TI, build.recovery(signed=True)), 1):
            meta = {"InversionTime": t / 1000, "RepetitionTime": 10.0}
            build.save(tmp_path / f"ir_{n}.nii.gz", np.abs(image), meta | {"ImageType": ORIGINAL})
            build.save(
                tmp_path / f"ir_{n}_ph.nii.gz",
                np.where(image < 0, 0.3, 0.3 + np.pi).astype("f4"),
                meta | {"ImageType": PHASE},
            )
        (series,) = find(tmp_path).series
        assert [f.name for f in series.companions] == [f"ir_{n}_ph.nii.gz" for n in range(1, 5)]
        np.testing.assert_allclose(read(tmp_path).images, build.recovery(signed=True), rtol=1e-6)

    def test_stacks_of_magnitude_and_phase(self, tmp_path: Path, build: SimpleNamespace) -> None:
        signed = build.recovery(signed=True)
        meta = {"InversionTime": [t / 1000 for t in build.TI], "RepetitionTime": 10.0}
        build.save(tmp_path / "ir.nii.gz", np.moveaxis(np.abs(signed), 0, -1), meta | {"ImageType": ORIGINAL})
        phase = np.where(signed < 0, 0.3, 0.3 + np.pi).astype("f4")
        build.save(tmp_path / "ir_ph.nii.gz", np.moveaxis(phase, 0, -1), meta | {"ImageType": PHASE})
        np.testing.assert_allclose(read(tmp_path).images, signed, rtol=1e-6)

    def test_real_and_imaginary_parts(self, tmp_path: Path, build: SimpleNamespace) -> None:
        for n, (t, image) in enumerate(zip(build.TI, build.recovery(signed=True)), 1):
            for part, factor in (("real", np.cos(0.7)), ("imaginary", np.sin(0.7))):
                meta = {"InversionTime": t / 1000, "RepetitionTime": 10.0}
                build.save(tmp_path / f"ir_{n}_{part}.nii.gz", (image * factor).astype("f4"), meta)
        np.testing.assert_allclose(read(tmp_path).images, build.recovery(signed=True), rtol=1e-5)

    def test_phase_of_echoes_is_left_out_and_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build, "te")
        for n, t in enumerate(build.TE, 1):
            build.save(
                tmp_path / f"5_te_{n}_ph.nii.gz",
                build.decay()[0],
                {"EchoTime": t / 1000, "RepetitionTime": 10.0, "ImageType": PHASE},
            )
        found = find(tmp_path)
        assert len(found.series) == 1 and len(found.series[0].images) == len(build.TE)
        assert len(found.left_out) == len(build.TE)
        assert "5_te_1_ph.nii.gz" in " ".join(read(tmp_path, sequence="t2").notes)

    @pytest.mark.parametrize(
        "other",
        [
            {"EchoTime": 0.01, "RepetitionTime": 10.0, "ImageType": ["DERIVED", "PRIMARY", "M", "T2 MAP", "T2"]},
            {"EchoTime": 0.1, "RepetitionTime": 6.0, "SeriesNumber": 9, "ImageType": ORIGINAL},
            {"EchoTime": 0.1, "RepetitionTime": 10.0, "ScanningSequence": "GR", "ImageType": ORIGINAL},
            {"EchoTime": 0.1, "RepetitionTime": 10.0, "InversionTime": 2.5, "ImageType": ORIGINAL},
            {"EchoTime": 0.1, "RepetitionTime": 10.0, "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]},
            {"EchoTime": 0.01, "RepetitionTime": 10.0, "Units": "ms"},
        ],
        ids=["map", "another TR", "gradient echo", "inversion", "corrected", "map by its unit"],
    )
    def test_another_scan_on_the_same_grid(self, tmp_path: Path, build: SimpleNamespace, other: dict[str, Any]) -> None:
        loose(tmp_path, build, "te", ScanningSequence="SE")
        build.save(tmp_path / "9_other.nii.gz", build.decay()[2], other)
        found = find(tmp_path)
        assert [len(s.images) for s in found.series] == [len(build.TE)]
        assert [f.name for f, _ in found.left_out] == ["9_other.nii.gz"]

    def test_a_structural_scan_with_an_inversion_is_no_image_of_the_series(
        self, tmp_path: Path, build: SimpleNamespace
    ) -> None:
        """Its echo time and flip angle are unknown in the others; its repetition time is another."""
        loose(tmp_path, build)
        about = {"InversionTime": 0.9, "RepetitionTime": 2.3, "EchoTime": 0.003, "FlipAngle": 8, "SeriesNumber": 2}
        build.save(tmp_path / "2_t1w.nii.gz", 2 * build.recovery()[1], about | {"ImageType": ORIGINAL})
        found = find(tmp_path)
        assert "2_t1w.nii.gz" not in names(found) and "2_t1w.nii.gz" in " ".join(found.notes)
        assert len(found.series) == 1 and len(found.series[0].images) == 4

    def test_two_scans_are_two_series(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(loose(tmp_path, build, "ti", EchoTime=0.012), build, "te", RepetitionTime=3.0)
        found = find(tmp_path)
        assert sorted(len(s.images) for s in found.series) == [len(build.TI), len(build.TE)]
        assert {s.model_class().name for s in found.series} == {"ir", "t2"} and not found.left_out
        assert len({s.stem for s in found.series}) == 2

    def test_a_protocol_run_twice_is_two_series(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build, "te")
        for n, (t, image) in enumerate(zip(build.TE, build.decay()), 1):
            meta = {"EchoTime": t / 1000, "RepetitionTime": 10.0, "SeriesNumber": 6, "ImageType": ORIGINAL}
            build.save(tmp_path / f"6_te_{n}.nii.gz", image + 1, meta)
        assert [len(s.images) for s in find(tmp_path).series] == [len(build.TE)] * 2

    def test_a_copy_counts_once(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build)
        for end in (".nii.gz", ".json"):
            shutil.copy(tmp_path / f"5_ti_2{end}", tmp_path / f"5_ti_2 copy{end}")
        found = find(tmp_path)
        assert len(found.series[0].images) == len(build.TI)
        assert "the same image as" in found.left_out[0][1]

    def test_a_copy_explains_why_there_are_more_times_than_images(self, tmp_path: Path, build: SimpleNamespace) -> None:
        files = [build.save(tmp_path / f"{n}.nii", image) for n, image in enumerate(build.recovery()[:3])]
        shutil.copy(files[1], files[2])
        with pytest.raises(
            InputError, match=r"3 times, 2 images.* Note: 1 image left out, the same image as 1\.nii: 2\.nii"
        ):
            read(files, times_ms=(50, 400, 1100), sequence="ir")

    def test_repeats_are_kept(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build)
        meta = json.loads((tmp_path / "5_ti_2.json").read_text())
        build.save(tmp_path / "5_ti_2b.nii.gz", build.recovery()[1] + 1, meta)
        assert len(find(tmp_path).series[0].images) == len(build.TI) + 1

    def test_the_order_of_files_stays_that_of_the_times_that_are_typed(
        self, tmp_path: Path, build: SimpleNamespace
    ) -> None:
        files = sorted(loose(tmp_path, build).glob("*.nii.gz"), reverse=True)
        (series,) = find_series(files)
        assert list(series.images) == files

    def test_only_maps(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.save(tmp_path / "a.nii.gz", build.decay()[0], {"ImageType": ["DERIVED", "PRIMARY", "M", "T1 MAP"]})
        with pytest.raises(InputError, match="only maps"):
            find(tmp_path)

    def test_only_phases(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build, ImageType=PHASE)
        with pytest.raises(InputError, match="only phase"):
            find(tmp_path)

    def test_what_is_beside_is_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build)
        build.save(tmp_path / "below/other.nii.gz", build.decay()[0])
        build.save(tmp_path / "x_mask.nii.gz", build.decay()[0])
        (tmp_path / "T1.mgz").write_bytes(b"x")
        left = {f.name for f, _ in find(tmp_path).left_out}
        assert left == {"other.nii.gz", "x_mask.nii.gz", "T1.mgz"}


class TestBids:
    """Names say which images are a series; sidecars may contradict."""

    def test_real_parts_of_some(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(build.irt1(tmp_path, part="_part-mag"), part="_part-real")
        (tmp_path / "sub-01/anat/sub-01_inv-2_part-real_IRT1.nii.gz").unlink()
        series = read(tmp_path)
        assert len(series.images) == len(build.TI) and not series.model.is_signed
        assert "only 3 of 4" in " ".join(series.notes)

    def test_part_of_some_names(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        for n in (1, 2):
            for f in (tmp_path / "sub-01/anat").glob(f"*inv-{n}_*"):
                f.rename(f.with_name(f.name.replace("_IRT1", "_part-mag_IRT1")))
        series = read(tmp_path)
        assert len(series.images) == len(build.TI) and "taken as magnitude" in " ".join(series.notes)

    def test_parts_that_complement_each_other_only(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(build.irt1(tmp_path, part="_part-mag"), part="_part-real")
        for part, n in (("mag", 1), ("real", 2)):
            (tmp_path / f"sub-01/anat/sub-01_inv-{n}_part-{part}_IRT1.nii.gz").unlink()
        with pytest.raises(InputError, match="the same images of each part"):
            read(tmp_path)

    def test_phase_without_part_in_its_name(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        path = tmp_path / "sub-01/anat/sub-01_inv-3_IRT1.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"ImageType": PHASE}))
        with pytest.raises(InputError, match="inv-3"):
            read(tmp_path)

    def test_a_map_among_the_images(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        path = tmp_path / "sub-01/anat/sub-01_inv-3_IRT1.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"ImageType": ["DERIVED", "PRIMARY", "T1 MAP", "T1 MAP"]})
        )
        with pytest.raises(InputError, match="T1 MAP"):
            read(tmp_path)

    def test_an_image_with_another_echo_time(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        for n in range(1, 5):
            path = tmp_path / f"sub-01/anat/sub-01_inv-{n}_IRT1.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"EchoTime": 0.02 if n == 4 else 0.04}))
        series = read(tmp_path)
        assert len(series.images) == 3 and "EchoTime 0.02, not 0.04" in " ".join(series.notes)

    def test_one_image_under_two_times(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        anat = tmp_path / "sub-01/anat"
        shutil.copy(anat / "sub-01_inv-2_IRT1.nii.gz", anat / "sub-01_inv-3_IRT1.nii.gz")
        assert "images 2 (400 ms) and 3 (1100 ms) have the same values" in " ".join(read(tmp_path).notes)

    def test_a_number_and_an_image_that_are_missing(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        (tmp_path / "sub-01/anat/sub-01_inv-2_IRT1.nii.gz").unlink()
        notes = " ".join(read(tmp_path).notes)
        assert "inv-2 is missing" in notes and "sub-01_inv-2_IRT1.json" in notes

    def test_sidecars_of_images_that_do_not_exist_are_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        for n in (1, 2):
            build.irt1(tmp_path, f"sub-0{n}/anat/sub-0{n}")
        for image in (tmp_path / "sub-02/anat").glob("*.nii.gz"):
            image.unlink()
        (tmp_path / "sub-01/sub-01_IRT1.json").write_text('{"FlipAngle": 90}')  # inherited by images below
        (tmp_path / "sub-01/anat/sub-01_inv-1_part-phase_IRT1.json").write_text('{"Units": "rad"}')
        notes = " ".join(n for s in find(tmp_path).series for n in s.notes) + " ".join(find(tmp_path).notes)
        assert "4 sidecars not used, whose image does not exist: sub-02_inv-1_IRT1.json" in notes
        assert "sub-01_inv-1_part-phase_IRT1.json: no image belongs to this sidecar" in notes
        assert "sub-01_IRT1.json" not in notes

    def test_a_loose_sidecar_without_its_image_is_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build)
        (tmp_path / "5_ti_2.nii.gz").unlink()
        (tmp_path / "notes.json").write_text('{"operator": "x"}')
        (note,) = find(tmp_path).notes
        assert note == "1 sidecar not used, whose image does not exist: 5_ti_2.json"

    def test_half_of_a_pair_is_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        (tmp_path / "sub-01/anat/sub-01_inv-5_IRT1.img").write_bytes(b"\0" * 400)
        assert "one of a pair .hdr and .img without the other: sub-01_inv-5_IRT1.img" in " ".join(find(tmp_path).notes)
        (tmp_path / "alone").mkdir()
        (tmp_path / "alone/ir.hdr").write_bytes(b"\0" * 348)
        with pytest.raises(InputError, match=r"ir\.hdr is one of a pair"):
            find(tmp_path / "alone")

    def test_a_pointer_in_place_of_data_is_explained(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        image = tmp_path / "sub-01/anat/sub-01_inv-2_IRT1.nii.gz"
        image.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        with pytest.raises(InputError, match="git lfs pull"):
            read(tmp_path)
        image.unlink()
        image.symlink_to("../.git/annex/objects/gone")
        with pytest.raises(InputError, match="datalad get"):
            open_nifti(image)

    def test_links_to_folders_that_do_not_exist_are_refused(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        (tmp_path / "sub-02").symlink_to(tmp_path / "gone")
        (tmp_path / "sub-03").mkdir()
        (tmp_path / "sub-03/anat").symlink_to(tmp_path / "gone")
        (tmp_path / "README").symlink_to(tmp_path / "gone")
        found = find(tmp_path)
        assert [label for label, _ in found.refused] == ["sub-02", "sub-03"] and len(found.series) == 1
        assert "link to a folder that does not exist" in str(found.refused[0][1])
        assert not find(tmp_path, participant_labels=["01"]).refused

    @pytest.mark.parametrize("entity", ["acq-TI{t:.0f}", "run-{n}", "rec-{n}"])
    def test_another_entity_numbers_the_images(self, tmp_path: Path, build: SimpleNamespace, entity: str) -> None:
        for n, (t, image) in enumerate(zip(build.TI, build.recovery()), 1):
            stem = f"sub-01/anat/sub-01_{entity.format(t=t, n=n)}_IRT1"
            build.save(tmp_path / f"{stem}.nii.gz", image, {"InversionTime": t / 1000, "RepetitionTime": 9.0})
        build.irt1(tmp_path, "sub-02/anat/sub-02")
        found = find(tmp_path)
        assert [s.label for s in found.series] == ["sub-02 IRT1"]
        ((label, error),) = found.refused
        assert label == "sub-01 IRT1" and "inv-" in str(error)

    def test_other_images_are_named(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        build.save(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz", build.decay()[0])
        assert "sub-01_T1w.nii.gz" in " ".join(find(tmp_path).notes)

    def test_links_to_folders_are_followed_and_circles_are_not(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path / "store")
        raw = tmp_path / "raw"
        raw.mkdir()
        (raw / "sub-01").symlink_to(tmp_path / "store/sub-01", target_is_directory=True)
        build.irt1(tmp_path / "other", "sub-02/anat/sub-02")
        (raw / "sub-02").mkdir()
        (raw / "sub-02/anat").symlink_to(tmp_path / "other/sub-02/anat", target_is_directory=True)
        (tmp_path / "store/sub-01/again").symlink_to(tmp_path / "store/sub-01", target_is_directory=True)
        assert sorted(s.label for s in find_series(raw)) == ["sub-01 IRT1", "sub-02 IRT1"]

    def test_a_folder_that_cannot_be_read(
        self, tmp_path: Path, build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for n in (1, 2):
            build.irt1(tmp_path, f"sub-0{n}/anat/sub-0{n}")
        before = os.scandir

        def scandir(path: Any) -> Any:
            if str(path).endswith("sub-02/anat"):
                raise PermissionError(13, "Permission denied", str(path))
            return before(path)

        monkeypatch.setattr(os, "scandir", scandir)
        found = find(tmp_path)
        assert [s.label for s in found.series] == ["sub-01 IRT1"]
        assert found.refused[0][0] == "sub-02" and "Permission denied" in str(found.refused[0][1])
        with pytest.raises(InputError, match="cannot be read"):
            find_series(tmp_path)


class TestFiles:
    """Shapes, packing, pairs, and what is no file."""

    @pytest.fixture
    def stack(self, tmp_path: Path, build: SimpleNamespace) -> Path:
        return build.save(tmp_path / "ir.nii.gz", np.moveaxis(build.recovery(), 0, -1))

    def test_trailing_axes_of_one(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = build.save(tmp_path / "x.nii", np.moveaxis(build.recovery(), 0, -1)[..., None, None])
        assert read(path, times_ms=build.TI, sequence="ir").images.shape == (4, 4, 5, 2)

    def test_third_axis_of_a_slice(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = build.save(tmp_path / "x.nii", np.moveaxis(build.recovery((4, 5, 1))[..., 0], 0, -1))
        series = read(path, times_ms=build.TI, sequence="ir")
        assert series.images.shape == (4, 4, 5, 1) and "third axis" in " ".join(series.notes)
        np.testing.assert_array_equal(series.images, build.recovery((4, 5, 1)))

    @pytest.mark.parametrize("name", ["plain.nii.gz", "Mixed.Nii", "packed.nii"])
    def test_the_bytes_say_how_a_file_is_packed(self, stack: Path, build: SimpleNamespace, name: str) -> None:
        data = stack.read_bytes()
        path = stack.with_name(name)
        path.write_bytes(data if name.startswith("packed") else gzip.decompress(data))
        np.testing.assert_array_equal(read(path, times_ms=build.TI, sequence="ir").images, build.recovery())

    @pytest.mark.parametrize("given", [".hdr", ".img"])
    def test_pairs(self, tmp_path: Path, build: SimpleNamespace, given: str) -> None:
        image = nib.Nifti1Pair(np.moveaxis(build.recovery(), 0, -1), build.affine)
        nib.save(image, tmp_path / "ir.img")
        series = read(tmp_path / f"ir{given}", times_ms=build.TI, sequence="ir")
        np.testing.assert_array_equal(series.images, build.recovery())
        (files,) = find_series(tmp_path)
        assert {f.name for f in files.sources} == {"ir.hdr", "ir.img"}
        (tmp_path / "ir.hdr").unlink()
        with pytest.raises(InputError, match=r"pair of files \.hdr and \.img"):
            read(tmp_path / "ir.img", times_ms=build.TI, sequence="ir")

    def test_analyze_is_refused(self, tmp_path: Path) -> None:
        nib.save(nib.AnalyzeImage(np.ones((3, 3, 3), np.int16), np.eye(4)), tmp_path / "old.img")
        with pytest.raises(InputError, match=r"Analyze 7\.5"):
            open_nifti(tmp_path / "old.img")

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("a.mgz", "mri_convert"),
            ("a.nrrd", "SimpleITK"),
            ("a.mat", "loadmat"),
            ("2dseq", "brkraw"),
            ("a.zip", "unpack"),
        ],
    )
    def test_other_formats_say_how_to_convert(self, tmp_path: Path, name: str, says: str) -> None:
        (tmp_path / name).write_bytes(b"x" * 400)
        for given_path in (tmp_path, tmp_path / name):
            with pytest.raises(InputError, match=says):
                find(given_path)

    def test_pipes_are_not_opened(self, tmp_path: Path, build: SimpleNamespace) -> None:
        build.irt1(tmp_path)
        image = tmp_path / "sub-01/anat/sub-01_inv-2_IRT1.nii.gz"
        for path in (image, image.with_name("sub-01_inv-2_IRT1.json")):
            content = path.read_bytes()
            path.unlink()
            os.mkfifo(path)
            with pytest.raises(InputError, match="named pipe"):
                read(tmp_path)
            path.unlink()
            path.write_bytes(content)

    def test_files_of_one_name_are_told_apart_by_their_folders(self, tmp_path: Path, build: SimpleNamespace) -> None:
        times = (50, 150, 400, 1100)
        files = [build.save(tmp_path / f"TI{t}/ir.nii.gz", image) for t, image in zip(times, build.recovery())]
        with pytest.raises(InputError, match=r"TI1100/ir\.nii\.gz"):
            read(sorted(files), times_ms=times, sequence="ir")

    def test_times_that_cannot_be(self, stack: Path) -> None:
        with pytest.raises(InputError, match="at most 30000"):
            read(stack, times_ms=(50, 400, 1100, 1e9), sequence="ir")


class TestGrids:
    """Only what a header says of the place is compared, in millimetres."""

    def unoriented(self, path: Path, data: Any) -> Path:
        nib.save(nib.Nifti1Image(np.asarray(data), None), path)
        return path

    def test_mask_of_unoriented_images(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = self.unoriented(tmp_path / "ir.nii", np.moveaxis(build.recovery(), 0, -1))
        mask = build.save(tmp_path / "m.nii", np.ones((4, 5, 2), np.uint8), affine=np.diag([-2.0, -2, 3, 1]))
        series = read(path, times_ms=build.TI, sequence="ir", mask=mask)
        assert series.affine is None and series.mask is not None and series.mask.all()

    def test_micrometres(self, tmp_path: Path, build: SimpleNamespace) -> None:
        image = nib.Nifti1Image(np.moveaxis(build.recovery(), 0, -1), np.diag([200.0, 200, 300, 1]))
        image.header.set_xyzt_units("micron")
        nib.save(image, tmp_path / "ir.nii")
        mask = build.save(tmp_path / "m.nii", np.ones((4, 5, 2), np.uint8), affine=np.diag([0.2, 0.2, 0.3, 1]))
        series = read(tmp_path / "ir.nii", times_ms=build.TI, sequence="ir", mask=mask)
        assert series.voxel_size == pytest.approx((0.2, 0.2, 0.3))

    def test_some_images_have_no_orientation(self, tmp_path: Path, build: SimpleNamespace) -> None:
        files = [self.unoriented(tmp_path / f"ti_{t:.0f}.nii", image) for t, image in zip(build.TI, build.recovery())]
        build.save(files[2], build.recovery()[2])
        series = read(files, times_ms=build.TI, sequence="ir")
        np.testing.assert_array_equal(series.affine, build.affine)
        assert "3 of 4 images have no orientation" in " ".join(series.notes)

    def test_probabilities_are_a_mask_above_one_half(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = build.save(tmp_path / "ir.nii", np.moveaxis(build.recovery(), 0, -1))
        values = np.linspace(0, 1, 40).reshape(4, 5, 2)
        mask = build.save(tmp_path / "p.nii", values.astype(np.float32))
        for where in (mask, values):
            series = read(path, times_ms=build.TI, sequence="ir", mask=where)
            np.testing.assert_array_equal(series.mask, values >= 0.5)
            assert "probabilities" in " ".join(series.notes)


@pytest.mark.parametrize(
    ("values", "least", "told"),
    [
        (np.linspace(0, 100, 40), 50.0, "per cent"),
        (np.arange(40.0), 0.5, "many values, up to 39"),
        (np.repeat([-1.0, 1.0], 20), 0.5, "negative values"),
        (np.repeat([0.0, 1.0, 2.0, 3.0], 10), 0.5, ""),
    ],
)
def test_other_masks(tmp_path: Path, build: SimpleNamespace, values: Any, least: float, told: str) -> None:
    path = build.save(tmp_path / "ir.nii", np.moveaxis(build.recovery(), 0, -1))
    values = values.reshape(4, 5, 2)
    kind = np.float32 if told == "per cent" else np.int16
    mask = build.save(tmp_path / "m.nii", values.astype(kind))
    for where in (mask, values.astype(kind)):
        series = read(path, times_ms=build.TI, sequence="ir", mask=where)
        np.testing.assert_array_equal(series.mask, values >= least)
        notes = " ".join(n for n in series.notes if "mask" in n)
        assert told in notes and bool(notes) == bool(told)


#: RS and SS of each image.
PHILIPS = [(2.07, 0.0009), (2.0, 0.0015), (1.9, 0.0021), (1.8, 0.0017)]


def philips(folder: Path, build: SimpleNamespace, slopes: list[float], fields: list[dict[str, Any]]) -> None:
    """Write images whose values differ by RS · SS, as whole numbers with the slopes of display scale times `slopes`."""
    for n, (t, image, (rescale, scale), slope, more) in enumerate(
        zip(build.TI, build.recovery(), PHILIPS, slopes, fields), 1
    ):
        stored = np.round(np.asarray(image, float) * 3000 * scale * rescale / slope).astype(np.int16)
        path = folder / f"sub-01/anat/sub-01_inv-{n}_IRT1.nii"
        build.save(path, stored, {"InversionTime": t / 1000, "RepetitionTime": 10.0} | more)
        raw = nib.Nifti1Image(stored, build.affine)
        raw.header.set_slope_inter(slope, 0)
        nib.save(raw, path)


@pytest.mark.parametrize("again", [1.0, 0.5], ids=["as exported", "written again as whole numbers"])
@pytest.mark.parametrize("lacks", ["", "PhilipsRescaleSlope"])
@pytest.mark.parametrize("kind", [float, str])
def test_display_scales_of_philips_are_undone(
    tmp_path: Path, build: SimpleNamespace, again: float, lacks: str, kind: Any
) -> None:
    """Value = display value / (RS · SS): here each image has scales of its own."""
    fields = [{"PhilipsRescaleSlope": kind(r), "PhilipsScaleSlope": kind(s)} for r, s in PHILIPS]
    for some in fields:
        some.pop(lacks, None)
    philips(tmp_path, build, [r * again for r, _ in PHILIPS], fields)
    series = read(tmp_path)
    ratio = series.images / build.recovery()
    good = build.recovery() > 100
    np.testing.assert_allclose(ratio[good], np.median(ratio[good]), rtol=0.05)
    assert "display scales of Philips" in " ".join(series.notes)


def test_real_and_imaginary_parts_are_brought_to_one_scale(tmp_path: Path, build: SimpleNamespace) -> None:
    for n, (t, image, (rescale, scale)) in enumerate(zip(build.TI, build.recovery(), PHILIPS), 1):
        for part, share, own in (("real", 0.8, scale), ("imag", 0.6, 1.5 * scale)):
            stored = np.round(np.asarray(image, float) * share * 3000 * own).astype(np.int16)
            path = tmp_path / f"sub-01/anat/sub-01_inv-{n}_part-{part}_IRT1.nii"
            about = {"PhilipsRescaleSlope": rescale, "PhilipsScaleSlope": own}
            build.save(path, stored, {"InversionTime": t / 1000, "RepetitionTime": 10.0} | about)
            raw = nib.Nifti1Image(stored, build.affine)
            raw.header.set_slope_inter(rescale, 0)
            nib.save(raw, path)
    series = read(tmp_path)
    good = build.recovery() > 100
    ratio = (np.abs(series.images) / build.recovery())[good]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.05)
    assert "display scales of Philips" in " ".join(series.notes)


@pytest.mark.parametrize("lacking", [[1], [0, 3]])
def test_a_scale_that_some_sidecars_lack_is_that_of_the_header(
    tmp_path: Path, build: SimpleNamespace, lacking: list[int]
) -> None:
    fields: list[dict[str, Any]] = [{"PhilipsRescaleSlope": r, "PhilipsScaleSlope": s} for r, s in PHILIPS]
    for n in lacking:
        del fields[n]["PhilipsRescaleSlope"]
    philips(tmp_path, build, [r for r, _ in PHILIPS], fields)
    series = read(tmp_path)
    good = build.recovery() > 100
    ratio = (series.images / build.recovery())[good]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.05)
    assert "the slopes of the headers in place of PhilipsRescaleSlope" in " ".join(series.notes)


@pytest.mark.parametrize(
    "case",
    ["one lacks them", "scale slope of floats", "rescale slope alone", "one has them", "none has them", "no slopes"],
)
def test_scales_of_philips_that_cannot_be_undone_are_said(tmp_path: Path, build: SimpleNamespace, case: str) -> None:
    fields: list[dict[str, Any]] = [{"PhilipsRescaleSlope": r, "PhilipsScaleSlope": s} for r, s in PHILIPS]
    slopes = [r for r, _ in PHILIPS]
    if case == "one lacks them":
        fields[2] = {}
    elif case == "scale slope of floats":
        fields, slopes = [{"PhilipsScaleSlope": s} for _, s in PHILIPS], [1.0] * 4
    elif case == "one has them":
        fields[1:] = [{}, {}, {}]
    elif case == "none has them":
        fields = [{"Manufacturer": "Philips"}] * 4
    elif case == "no slopes":  # a program wrote the stored numbers again, without their slopes
        fields, slopes = [one | {"UsePhilipsFloatNotDisplayScaling": 0} for one in fields], [1.0] * 4
    else:
        fields = [{"PhilipsRescaleSlope": r} for r, _ in PHILIPS]
    philips(tmp_path, build, slopes, fields)
    assert re.search("(the values|they) are taken as they are", " ".join(read(tmp_path).notes))


KINDS = ("magnitude", "phase", "real", "map", "T1w", "another TR", "copy")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bids=st.booleans(),
    missing=st.sets(st.sampled_from([1, 2, 3, 4]), max_size=2),
    more=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([1, 2, 3, 4])), max_size=6, unique=True),
)
def test_every_file_is_a_source_or_named_or_the_run_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    build: SimpleNamespace,
    bids: bool,
    missing: set[int],
    more: list[tuple[str, int]],
) -> None:
    root = tmp_path_factory.mktemp("generated")
    folder = root / "sub-01/anat" if bids else root
    images = build.recovery(signed=True)

    def put(n: int, kind: str) -> None:
        meta = {"InversionTime": build.TI[n - 1] / 1000, "RepetitionTime": 10.0, "ImageType": ORIGINAL}
        part = {"phase": "_part-phase", "real": "_part-real", "map": "_part-mag", "copy": "_part-mag"}.get(kind, "")
        suffix = "T1w" if kind == "T1w" else "IRT1"
        data = images[n - 1] if kind == "real" else np.abs(images[n - 1])
        if kind == "phase":
            data, meta["ImageType"] = np.where(images[n - 1] < 0, 0, 3).astype("f4"), PHASE
        if kind == "real":
            meta["ImageType"] = ["ORIGINAL", "PRIMARY", "R", "ND"]
        if kind == "map":
            meta["ImageType"] = ["DERIVED", "PRIMARY", "M", "T1 MAP"]
        if kind == "another TR":
            meta |= {"RepetitionTime": 3.0, "EchoTime": 0.5}
        name = f"sub-01_inv-{n}{part}_{suffix}" if bids else f"{kind.replace(' ', '')}_{n}"
        build.save(folder / f"{name}.nii.gz", data, meta)

    for n in {1, 2, 3, 4} - missing:
        put(n, "magnitude")
    for kind, n in more:
        put(n, kind)
    there = {f.name for f in root.rglob("*.nii.gz")}
    if not there:
        return
    try:
        found = find(root)
        loaded = [s.load() for s in found.series]
    except InputError:
        return
    said = " ".join((*found.notes, *(str(error) for _, error in found.refused), *(n for s in loaded for n in s.notes)))
    if found.refused:
        return
    lost = {name for name in there if name not in names(found) and name not in said}
    assert not lost, (lost, said)


class TestCopiesAndRuns:
    """In loose files, copies count once, an interrupted run is left out, and a repeated protocol is another series."""

    @pytest.mark.parametrize(
        "change", ["a field is missing", "a field was rounded", "no sidecar", "another scale", "floating point"]
    )
    def test_a_copy_whose_sidecar_or_values_differ(self, tmp_path: Path, build: SimpleNamespace, change: str) -> None:
        rng = np.random.default_rng(0)
        images = [np.rint(i + rng.normal(0, 5, i.shape)).astype(np.int16) for i in build.recovery((8, 8, 4))]
        for n, (t, image) in enumerate(zip(build.TI, images), 1):
            meta = {"InversionTime": t / 1000, "RepetitionTime": 10.0, "EchoTime": 0.012, "ImageType": ORIGINAL}
            build.save(tmp_path / f"5_ti_{n}.nii.gz", image, meta)
        again: dict[str, Any] | None = dict(meta, InversionTime=build.TI[1] / 1000)
        assert again is not None
        data: Any = images[1]
        if change == "a field is missing":
            del again["EchoTime"]
        elif change == "a field was rounded":
            again["EchoTime"] = 0.01204
        elif change == "no sidecar":
            again = None
        else:
            data = np.rint(images[1] * 3.3).astype(np.int16) if change == "another scale" else images[1].astype("f4")
        build.save(tmp_path / "9_other.nii.gz", data, again)
        found = find(tmp_path)
        assert [len(s.images) for s in found.series] == [len(build.TI)]
        assert [(f.name, why) for f, why in found.left_out] == [("9_other.nii.gz", "the same image as 5_ti_2.nii.gz")]

    def test_a_run_that_was_stopped(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build, "te")
        for n, (t, image) in enumerate(zip(build.TE[:2], build.decay()), 1):
            meta = {"EchoTime": t / 1000, "RepetitionTime": 10.0, "SeriesNumber": 4, "ImageType": ORIGINAL}
            build.save(tmp_path / f"4_te_{n}.nii.gz", image * 1.1 + np.sin(image), meta)
        found = find(tmp_path)
        assert [len(s.images) for s in found.series] == [len(build.TE)]
        assert {f.name for f, why in found.left_out if "stopped" in why} == {"4_te_1.nii.gz", "4_te_2.nii.gz"}

    def test_a_protocol_with_a_series_for_each_image_that_was_run_again(
        self, tmp_path: Path, build: SimpleNamespace
    ) -> None:
        for run in (0, 1):
            for n, (t, image) in enumerate(zip(build.TI, build.recovery())):
                meta = {"InversionTime": t / 1000, "RepetitionTime": 10.0, "SeriesNumber": 5 + n + 10 * run}
                build.save(tmp_path / f"{5 + n + 10 * run}.nii.gz", image + run * np.sin(image), meta)
        assert [len(s.images) for s in find(tmp_path).series] == [len(build.TI)] * 2

    def test_an_image_that_was_scanned_again_is_said(self, tmp_path: Path, build: SimpleNamespace) -> None:
        for n, (t, image) in enumerate(
            [*zip(build.TI, build.recovery()), (build.TI[2], np.sin(build.recovery()[2]) * 9 + build.recovery()[2])]
        ):
            meta = {"InversionTime": t / 1000, "RepetitionTime": 10.0, "SeriesNumber": 5 + n}
            build.save(tmp_path / f"s{5 + n}.nii.gz", image.astype("f4"), meta)
        notes = " ".join(read(tmp_path).notes)
        assert "s7.nii.gz, s9.nii.gz" in notes and "repeats" in notes

    def test_real_parts_of_another_scan(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build, "te")
        for n, (t, image) in enumerate(zip(build.TI, build.recovery(signed=True)), 1):
            meta = {
                "InversionTime": t / 1000,
                "RepetitionTime": 8.0,
                "SeriesNumber": 9,
                "ImageType": ["ORIGINAL", "PRIMARY", "R", "ND"],
            }
            build.save(tmp_path / f"9_real_{n}.nii.gz", image, meta)
        found = find(tmp_path)
        assert sorted(len(s.images) for s in found.series) == [len(build.TI), len(build.TE)] and not found.left_out

    def test_a_derived_image_of_no_other_word_is_apart(self, tmp_path: Path, build: SimpleNamespace) -> None:
        loose(tmp_path, build, ImageType=["ORIGINAL", "PRIMARY", "M"])
        meta = {
            "InversionTime": build.TI[1] / 1000,
            "RepetitionTime": 10.0,
            "SeriesNumber": 5,
            "ImageType": ["DERIVED", "PRIMARY", "M"],
        }
        build.save(tmp_path / "5_filtered.nii.gz", build.recovery()[1] * 0.7 + np.sin(build.recovery()[1]), meta)
        found = find(tmp_path)
        assert [len(s.images) for s in found.series] == [len(build.TI)]
        assert [f.name for f, _ in found.left_out] == ["5_filtered.nii.gz"]
