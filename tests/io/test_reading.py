"""What is found in folders and files, and that each image gets its own time."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io import find_series, read_labels, read_mask
from rimap.io.reading_options import Reading, ReadingOptions
from rimap.workflow.read_series import read

LABELS = {
    "sub-01 IRT1",
    "sub-01 MESE",
    *(f"sub-02 ses-{s} run-{r} IRT1" for s in "ab" for r in "12"),
}


def test_every_series_of_a_folder_is_found_and_derivatives_are_not(bids: Path) -> None:
    found = find_series(bids)
    assert {s.label for s in found} == LABELS
    assert all(s.dataset == bids for s in found)


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"sequence": "t2"}, {"sub-01 MESE"}),
        ({"participant_labels": ["01"], "sequence": "ir"}, {"sub-01 IRT1"}),
        ({"participant_labels": ["sub-02"], "sessions": ["b"]}, {"sub-02 ses-b run-1 IRT1", "sub-02 ses-b run-2 IRT1"}),
        ({"runs": ["01"]}, {"sub-02 ses-a run-1 IRT1", "sub-02 ses-b run-1 IRT1"}),
        ({"participant_labels": ["01", "02"]}, LABELS),
    ],
)
def test_entities_choose(bids: Path, options: dict[str, list[str]], labels: set[str]) -> None:
    assert {s.label for s in find_series(bids, **options)} == labels


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"participant_labels": ["03"]}, "sub-01, sub-02"),
        ({"participant_labels": ["01", "09"]}, "sub-09"),
        ({"participant_labels": ["02"], "sequence": "t2"}, "--sequence t2"),
        ({"sessions": ["c"]}, "ses-a, ses-b"),
        ({"runs": ["3"]}, "run-1, run-2"),
        ({"sequence": "epi"}, "ir, .*t2"),
    ],
)
def test_a_label_that_is_not_there_is_refused_and_those_that_are_named(
    bids: Path, options: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        find_series(bids, **options)


def test_parts_of_a_data_set_are_read_like_the_whole(bids: Path) -> None:
    assert {s.label for s in find_series(bids / "sub-02")} == {x for x in LABELS if "sub-02" in x}
    assert [s.label for s in find_series(bids / "sub-02" / "ses-a" / "anat", runs=["2"])] == ["sub-02 ses-a run-2 IRT1"]
    assert all(s.dataset == bids for s in find_series(bids / "sub-02" / "ses-a"))


def test_one_file_stands_for_its_series_and_several_for_themselves(bids: Path, build: SimpleNamespace) -> None:
    anat = bids / "sub-01" / "anat"
    assert read(anat / "sub-01_inv-3_IRT1.nii.gz").model.tau == build.TI
    three = [anat / f"sub-01_inv-{n}_IRT1.nii.gz" for n in (4, 1, 2)]
    assert read(three).model.tau == (50.0, 400.0, 2500.0)
    (series,) = find_series(three)
    assert series.siblings == ("MESE",)


def test_images_keep_their_own_times_whatever_the_names(tmp_path: Path, build: SimpleNamespace) -> None:
    images = build.recovery()
    for number, n in (("10", 0), ("9", 2), ("2", 1), ("1", 3)):
        build.save(
            tmp_path / f"sub-x/anat/sub-x_inv-{number}_IRT1.nii.gz",
            images[n],
            {"InversionTime": build.TI[n] / 1000},
        )
    series = read(tmp_path)
    assert series.model.tau == (2500.0, 400.0, 1100.0, 50.0)
    np.testing.assert_array_equal(series.images, images[[3, 1, 2, 0]])


def test_reading_gives_values_affine_mask_and_noise(bids: Path, build: SimpleNamespace, tmp_path: Path) -> None:
    mask = np.zeros((4, 5, 2), np.uint8)
    mask[1:3] = 1
    path = build.save(tmp_path / "mask.nii.gz", mask)
    noise = rimap.Rician(sigma=3.0)
    series = read(bids / "sub-01", sequence="ir", mask=path, noise=noise)
    np.testing.assert_array_equal(series.images, build.recovery())
    np.testing.assert_allclose(series.affine, build.affine)
    np.testing.assert_array_equal(series.mask, mask == 1)
    assert series.noise is noise
    assert series.model == rimap.InversionRecovery(tau=build.TI, tr=10_000)
    assert series.notes == ()


def test_several_series_are_refused_by_read_and_named(bids: Path) -> None:
    with pytest.raises(InputError, match=r"6 series.*sub-01 IRT1.*sub-02 ses-b run-2 IRT1.*Choose one"):
        read(bids)


def test_sidecars_are_inherited_and_the_nearer_one_wins(tmp_path: Path, build: SimpleNamespace) -> None:
    for n, image in enumerate(build.recovery(), 1):
        build.save(tmp_path / f"sub-1/ses-1/anat/sub-1_ses-1_acq-hi_inv-{n}_IRT1.nii.gz", image)
    write = {
        "IRT1.json": {"RepetitionTimePreparation": 9, "InversionTime": 0.123},
        "MESE.json": {"RepetitionTimePreparation": 1},
        "acq-lo_IRT1.json": {"RepetitionTimePreparation": 2},
        **{f"inv-{n}_IRT1.json": {"InversionTime": t / 1000} for n, t in enumerate(build.TI[:3], 1)},
        "sub-1/ses-1/sub-1_ses-1_inv-4_IRT1.json": {"InversionTime": 3.0},
        "sub-1/ses-1/anat/sub-1_ses-1_acq-hi_inv-3_IRT1.json": {"InversionTime": 1.5},
    }
    for name, meta in write.items():
        (tmp_path / name).write_text(json.dumps(meta))
    assert read(tmp_path).model == rimap.InversionRecovery(tau=(50, 400, 1500, 3000), tr=9000)


def test_bids_file_with_all_images_in_the_fourth_axis(tmp_path: Path, build: SimpleNamespace) -> None:
    data = np.moveaxis(build.recovery(), 0, -1)
    path = tmp_path / "sub-01/anat/sub-01_IRT1.nii.gz"
    build.save(path, data, {"InversionTime": [t / 1000 for t in build.TI], "RepetitionTimePreparation": 8})
    series = read(path)
    assert series.model == rimap.InversionRecovery(tau=build.TI, tr=8000)
    np.testing.assert_array_equal(series.images, build.recovery())


def test_files_of_several_volumes_repeat_their_time(tmp_path: Path, build: SimpleNamespace) -> None:
    for n, (te, image) in enumerate(zip(build.TE, build.decay()), 1):
        build.save(
            tmp_path / f"sub-1/anat/sub-1_echo-{n}_MESE.nii.gz", np.stack([image, image], -1), {"EchoTime": te / 1000}
        )
    series = read(tmp_path)
    assert series.model.tau == tuple(np.repeat(build.TE, 2))
    np.testing.assert_array_equal(series.images[2], series.images[3])
    assert "2 volumes for each time count as repeats" in series.notes


@pytest.mark.parametrize("second", [0.001, 0.5])  # phase, a later echo
def test_volumes_that_are_no_repeats_are_refused(tmp_path: Path, build: SimpleNamespace, second: float) -> None:
    for n, (te, image) in enumerate(zip(build.TE, build.decay()), 1):
        data = np.stack([image, second * image], -1)
        build.save(tmp_path / f"sub-1/anat/sub-1_echo-{n}_MESE.nii.gz", data, {"EchoTime": te / 1000})
    with pytest.raises(InputError, match=r"echo-1_MESE.*expected repeats.* for 2 volumes.* Keep one volume"):
        read(tmp_path)


class TestLoose:
    def test_four_axes_and_times_from_the_user(self, tmp_path: Path, build: SimpleNamespace) -> None:
        path = build.save(tmp_path / "ir.nii.gz", np.moveaxis(build.recovery(), 0, -1))
        series = read(path, times_ms=build.TI, sequence="ir", tr_ms=7000)
        assert series.model == rimap.InversionRecovery(tau=build.TI, tr=7000)
        np.testing.assert_array_equal(series.images, build.recovery())

    @pytest.mark.parametrize("kind", ["ir", "t2"])
    def test_the_sidecar_tells_the_sequence(self, tmp_path: Path, build: SimpleNamespace, kind: str) -> None:
        images, times, field, other = (
            (build.recovery(), build.TI, "InversionTime", "EchoTime")
            if kind == "ir"
            else (build.decay(), build.TE, "EchoTime", "InversionTime")
        )
        files = [
            build.save(tmp_path / f"scan_{t:g}ms.nii.gz", image, {field: t / 1000, other: 0.02})
            for t, image in zip(times, images)
        ]
        (series,) = find_series(tmp_path)
        assert series.model_class().name == kind
        assert (series.stem, series.dataset, series.entities) == ("scan", None, {})
        assert series.load().model.tau == times
        assert read(files[::-1]).model.tau == times[::-1]

    def test_names_are_sorted_as_numbers_and_maps_are_no_images(self, tmp_path: Path, build: SimpleNamespace) -> None:
        for t, image in zip(build.TI, build.recovery()):
            build.save(tmp_path / f"TI_{t:g}.nii", image)
        build.save(tmp_path / "TI_T1map.nii.gz", build.recovery()[0])
        build.save(tmp_path / "brain_mask.nii.gz", build.recovery()[0])
        series = read(tmp_path, times_ms=build.TI, sequence="ir")
        np.testing.assert_array_equal(series.images, build.recovery())

    def test_two_axes_and_a_singleton_fifth(self, tmp_path: Path, build: SimpleNamespace) -> None:
        flat = build.recovery((6, 7))
        files = [build.save(tmp_path / f"a{n}.nii", image) for n, image in enumerate(flat)]
        assert read(files, times_ms=build.TI, sequence="ir").shape == (6, 7)
        path = build.save(tmp_path / "b.nii", np.moveaxis(build.recovery(), 0, -1)[..., None, :])
        assert read(path, times_ms=build.TI, sequence="ir").images.shape == (4, 4, 5, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_scaling_is_honoured_and_integers_stay_light(tmp_path: Path, build: SimpleNamespace, dtype: type) -> None:
    data = np.moveaxis(np.arange(160).reshape(4, 4, 5, 2) % 120, 0, -1).astype(dtype)
    image = nib.Nifti1Image(data, build.affine)
    if np.issubdtype(dtype, np.integer):
        image.header.set_slope_inter(0.25, -3)
        path = tmp_path / "x.nii.gz"
        image.to_filename(path)
        raw = bytearray(path.read_bytes())
        # nibabel rescales on saving: write the stored integers as they are
        header = image.header.copy()
        header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = 0.25, -3, 352, b"n+1"
        path = tmp_path / "x.nii"
        path.write_bytes(header.binaryblock + b"\0" * 4 + data.tobytes(order="F"))
        expected = data * 0.25 - 3
        del raw
    else:
        path = tmp_path / "x.nii"
        image.to_filename(path)
        expected = data.astype(float)
    series = read(path, times_ms=build.TI, sequence="ir", signed=True)
    np.testing.assert_allclose(np.moveaxis(series.images, 0, -1), expected, rtol=1e-6)
    assert series.images.dtype == (np.float64 if dtype is np.float64 else np.float32)


def test_skipping_leaves_out_the_shortest_times(bids: Path, build: SimpleNamespace) -> None:
    series = read(bids / "sub-01", sequence="t2", skip_first=2)
    assert series.model.tau == build.TE[2:]
    np.testing.assert_array_equal(series.images, build.decay()[2:])
    with pytest.raises(InputError, match="0 to 4"):
        read(bids / "sub-01", sequence="t2", skip_first=5)
    with pytest.raises(InputError, match="2 or more distinct values of echo time, got 1"):
        read(bids / "sub-01", sequence="t2", skip_first=4)


def test_skipping_counts_times_and_not_images(tmp_path: Path, build: SimpleNamespace) -> None:
    path = build.save(tmp_path / "t2.nii", np.moveaxis(build.decay()[[0, 0, 1, 1, 2, 2]], 0, -1))
    series = read(path, times_ms=(10, 10, 20, 20, 40, 40), sequence="t2", skip_first=1)
    assert series.model.tau == (20, 20, 40, 40)
    with pytest.raises(InputError, match=r"images at 3 times; expected a number from 0 to 2"):
        read(path, times_ms=(10, 10, 20, 20, 40, 40), sequence="t2", skip_first=3)


class TestRepetitionTime:
    def write(self, build: SimpleNamespace, root: Path, **fields: object) -> Path:
        for n, (ti, image) in enumerate(zip(build.TI, build.recovery()), 1):
            meta = {k: v[n - 1] if isinstance(v, list) else v for k, v in fields.items()}
            build.save(root / f"sub-1/anat/sub-1_inv-{n}_IRT1.nii.gz", image, {"InversionTime": ti / 1000, **meta})
        return root

    def test_preparation_comes_first(self, tmp_path: Path, build: SimpleNamespace) -> None:
        self.write(build, tmp_path, RepetitionTimePreparation=6, RepetitionTime=9)
        assert read(tmp_path).model.tr == (6000.0,) * 4

    def test_else_the_repetition_time_one_per_image(self, tmp_path: Path, build: SimpleNamespace) -> None:
        self.write(build, tmp_path, RepetitionTime=[0.06, 3, 4, 5])
        assert read(tmp_path).model.tr == (60.0, 3000.0, 4000.0, 5000.0)

    def test_a_time_between_readouts_is_left_out_with_a_note(self, tmp_path: Path, build: SimpleNamespace) -> None:
        self.write(build, tmp_path, RepetitionTime=0.008192)
        series = read(tmp_path)
        assert series.model.tr is None
        assert "8.192 ms" in series.notes[0] and "T1*" in series.notes[0]

    def test_that_some_files_lack_is_not_used(self, tmp_path: Path, build: SimpleNamespace) -> None:
        self.write(build, tmp_path, RepetitionTime=[None, 3, 4, 5])
        series = read(tmp_path)
        assert series.model.tr is None
        assert read(tmp_path, tr_ms=9000).model.tr == (9000.0,) * 4

    def test_milliseconds_are_refused(self, tmp_path: Path, build: SimpleNamespace) -> None:
        self.write(build, tmp_path, RepetitionTimePreparation=6000)
        with pytest.raises(
            InputError,
            match=r"expected RepetitionTimePreparation in seconds, got 6000 .*If these are milliseconds, write 6 ",
        ):
            read(tmp_path)


def test_masks_and_labels(tmp_path: Path, build: SimpleNamespace) -> None:
    labels = np.zeros((4, 5, 1), np.int16)
    labels[1], labels[2] = 7, 300
    path = build.save(tmp_path / "l.nii.gz", labels)
    np.testing.assert_array_equal(read_labels(path, (4, 5, 1), build.affine), labels)
    np.testing.assert_array_equal(read_mask(path, (4, 5), build.affine), labels[..., 0] > 0)
    almost = build.affine + 1e-4
    assert read_mask(path, (4, 5, 1), almost).sum() == 10
    for function in (read_mask, read_labels):
        with pytest.raises(InputError, match=r"shape \(5, 4, 1\) like the images, got \(4, 5, 1\)"):
            function(path, (5, 4, 1), build.affine)
        with pytest.raises(InputError, match="another affine"):
            function(path, (4, 5, 1), build.affine + np.eye(4))
        with pytest.raises(InputError, match=r"empty|only zeros"):
            function(build.save(tmp_path / "0.nii.gz", 0 * labels), (4, 5, 1), build.affine)
    with pytest.raises(InputError, match="whole numbers"):
        read_labels(build.save(tmp_path / "p.nii.gz", labels / 7.0), (4, 5, 1))


@pytest.mark.parametrize(("dtype", "slope"), [("u1", 1e37), ("i2", 1e36), ("i2", 1e-43), ("f4", 1e30), ("f4", 1e-30)])
def test_odd_scales_leave_no_value_behind(tmp_path: Path, dtype: str, slope: float) -> None:
    """Nothing becomes infinite, or zero, because float32 ends there."""
    values = np.linspace(1, 120, 64).reshape(4, 4, 1, 4).astype(dtype) * (1e10 if dtype == "f4" and slope > 1 else 1)
    raw = bytearray(nib.Nifti2Image(values.astype(dtype), np.eye(4)).to_bytes())
    raw[176:184] = np.float64(slope).tobytes()
    (tmp_path / "x.nii").write_bytes(raw)
    series = read(tmp_path / "x.nii", times_ms=(50, 400, 1100, 2500), sequence="ir")
    expected = np.moveaxis(np.asarray(nib.load(tmp_path / "x.nii").dataobj, dtype=np.float64), -1, 0)
    np.testing.assert_allclose(series.images, expected, rtol=1e-6)
    assert (series.images > 0).all()


def test_a_data_set_below_a_folder_named_like_a_subject(tmp_path: Path, build: SimpleNamespace) -> None:
    root = build.irt1(tmp_path / "sub-01" / "study")
    (series,) = find_series(root)
    assert series.dataset == root


def test_links_are_read_where_they_stand(tmp_path: Path, build: SimpleNamespace) -> None:
    """git-annex keeps images as links into .git/annex; their sidecars lie beside the links."""
    store = build.irt1(tmp_path / "store")
    anat = tmp_path / "raw/sub-01/anat"
    anat.mkdir(parents=True)
    for n in range(1, 5):
        hashed = store / f"sub-01/anat/sub-01_inv-{n}_IRT1"
        (anat / f"{hashed.name}.nii.gz").symlink_to(f"{hashed}.nii.gz")
        (anat / f"{hashed.name}.json").write_bytes(Path(f"{hashed}.json").read_bytes())
    (series,) = find_series(tmp_path / "raw")
    assert series.dataset == tmp_path / "raw"
    assert series.load().model.tau == build.TI


def test_how_to_read_is_a_value_whose_fields_are_keywords_too(bids: Path) -> None:
    assert {f.name for f in fields(Reading)} == set(get_type_hints(ReadingOptions))
    how = Reading(sequence="t2", skip_first=2)
    series, alike = read(bids / "sub-01", how), read(bids / "sub-01", sequence="t2", skip_first=2)
    assert (
        series.model == alike.model
        and series.model.n_images == len(read(bids / "sub-01", how, skip_first=0).model.times) - 2
    )
    np.testing.assert_array_equal(series.images, alike.images)
    with pytest.raises(InputError, match="expected skip_first, got 'skip_frst'"):
        read(bids / "sub-01", skip_frst=2)  # type: ignore[call-arg]
