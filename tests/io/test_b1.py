"""Scans of the transmit field and their maps, and UNIT1: found, read and used by the sequences that need them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.b1 import find_b1, write_b1
from rimap.io.given_parameters import effect_of_error, found_given
from rimap.io.reading_options import Reading
from rimap.signals.mp2rage import UniformMP2RAGE
from rimap.signals.variable_flip_angle import VariableFlipAngle
from rimap.workflow.read_series import read

from .model_files import SHAPE, example, save, write_bids
from .test_writing import VALIDATOR, sidecar, validate


def scan(root: Path, kind: str, *, subject: str = "1", swapped: bool = False) -> Path:
    """Write a B1 scan as a data set; the images hold 1 and 2 in the order of what differs."""
    for n in (1, 2):
        value = 3 - n if swapped else n
        about: dict[str, Any]
        if kind == "TB1AFI":
            name, about = (
                f"sub-{subject}_acq-tr{n}_TB1AFI",
                {"FlipAngle": 60, "RepetitionTimeExcitation": 0.02 * 5 ** (value - 1)},
            )
        else:
            name, about = f"sub-{subject}_flip-{n}_TB1DAM", {"FlipAngle": 60 * value}
        save(root / f"sub-{subject}/fmap/{name}.nii.gz", np.full(SHAPE, value, np.float32), about)
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    return root


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("kind", "settings"), [("TB1AFI", {"flip_angle": (60,), "tr": (20, 100)}), ("TB1DAM", {"flip_angle": (60, 120)})]
)
def test_found_and_read_in_order(tmp_path: Path, kind: str, settings: dict[str, Any], swapped: bool) -> None:
    root = scan(scan(tmp_path, kind, swapped=swapped), kind, subject="2")
    both = find_b1(root)
    assert [s.label for s in both] == [f"sub-1 {kind}", f"sub-2 {kind}"]
    (files,) = find_b1(root, participant_labels=["sub-1"])
    read = files.load()
    assert dict(read.settings) == settings
    assert read.images.shape == (2, *SHAPE) and (read.images[0] == 1).all() and (read.images[1] == 2).all()
    assert find_b1(files.images[1]) == [files]
    assert find_b1(root, sessions=["1"]) == []


def test_a_scan_with_one_image_is_refused(tmp_path: Path) -> None:
    root = scan(tmp_path, "TB1DAM")
    next(root.glob("sub-1/fmap/*flip-2*.nii.gz")).unlink()
    (files,) = find_b1(root)
    with pytest.raises(InputError, match=r"sub-1 TB1DAM: expected two images, got 1"):
        files.load()


@pytest.mark.parametrize("known", [True, False])
def test_display_scales_of_philips_are_undone_or_said(tmp_path: Path, known: bool) -> None:
    """B1 depends on the ratio of two images, which scales of their own change: 0.9 would be 1.0."""
    B1, factor = 0.9, 5.0
    cosine = np.cos(np.deg2rad(60 * B1))
    ratio = (1 + factor * cosine) / (factor + cosine)
    scan(tmp_path, "TB1AFI")
    for n, (value, rescale, scale) in enumerate([(1.0, 2.0, 0.001), (ratio, 1.5, 0.0012)], 1):
        path = tmp_path / f"sub-1/fmap/sub-1_acq-tr{n}_TB1AFI.nii.gz"
        raw = nib.Nifti1Image(np.full(SHAPE, np.rint(1e6 * value * scale), np.int16), np.eye(4))
        raw.header.set_slope_inter(rescale, 0)
        nib.save(raw, path)
        about = {"FlipAngle": 60, "RepetitionTimeExcitation": 0.02 * 5 ** (n - 1), "PhilipsScaleSlope": scale}
        about |= {"PhilipsRescaleSlope": rescale} if known else {"Manufacturer": "Philips"}
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    (files,) = find_b1(tmp_path)
    read = files.load()
    np.testing.assert_allclose(read.b1(), B1, rtol=5e-3)
    assert "display scales of Philips" in " ".join(read.notes)


@pytest.mark.parametrize("kind", ["TB1AFI", "TB1DAM"])
def test_the_map_is_found_by_other_sequences(tmp_path: Path, kind: str) -> None:
    root = write_bids(scan(tmp_path / "raw", kind), example(VariableFlipAngle))
    out = root / "derivatives" / "rimap"
    (files,) = find_b1(root)
    (series,) = find_series(root)
    assert any("no map of B1 was found" in note for note in series.open().notes)
    b1 = np.linspace(0.8, 1.2, np.prod(SHAPE)).reshape(SHAPE)
    path = write_b1(b1, files, files.load(), out, about={"EstimationAlgorithm": "test"})
    assert path == out / "sub-1/fmap/sub-1_TB1map.nii.gz"
    assert sidecar(path)["Sources"] == [f"bids:raw:{f.relative_to(root).as_posix()}" for f in files.images]
    opened = series.open()
    np.testing.assert_allclose(opened.given["B1"], b1, rtol=1e-6)
    assert opened.notes == ("B1 from sub-1_TB1map.nii.gz, as a factor (median 1)",)
    with pytest.raises(InputError, match="--overwrite"):
        write_b1(b1, files, files.load(), out, about={})
    if VALIDATOR.exists():
        assert validate(out) == []


def test_maps_of_fields_outside_the_data_set_and_several_of_them(tmp_path: Path) -> None:
    root = write_bids(tmp_path / "raw", example(VariableFlipAngle))
    (series,) = find_series(root)
    elsewhere = save(tmp_path / "out/sub-1/fmap/sub-1_TB1map.nii.gz", np.full(SHAPE, 95.0, np.float32))
    assert series.open().given == {}
    near = replace(series, field_maps=(tmp_path / "out",))
    assert found_given(near, VariableFlipAngle) == {"B1": elsewhere}
    opened = near.open()
    np.testing.assert_allclose(opened.given["B1"], 0.95)
    assert opened.notes == ("B1 from sub-1_TB1map.nii.gz, in per cent of the nominal value (median 95 %)",)
    apart = np.eye(4)
    apart[:3, 3] = 500
    image = nib.Nifti1Image(np.full((*SHAPE[:2], 3), 1.0, np.float32), apart)
    image.to_filename(save(root / "sub-1/fmap/sub-1_TB1map.nii.gz", np.ones(SHAPE)))
    (note, warning) = near.open().notes  # that of the data set comes first, but is elsewhere
    assert "was not used for B1" in note and "covers 0 % of it" in note and "no map of B1 was found" in warning
    with pytest.raises(InputError, match=r"expected a map of B1 that covers the object, got one that covers 0 % of it"):
        series.open(Reading(given={"B1": root / "sub-1/fmap/sub-1_TB1map.nii.gz"}))
    with pytest.raises(
        InputError, match=r"expected B1 from 0\.3 to 2, as a factor or in per cent, got a median of 800"
    ):
        series.open(Reading(given={"B1": save(tmp_path / "siemens.nii.gz", np.full(SHAPE, 800, np.int16))}))
    for run in "12":
        save(tmp_path / f"many/sub-1/fmap/sub-1_run-{run}_TB1map.nii.gz", np.ones(SHAPE, np.float32))
    shutil.rmtree(root / "sub-1/fmap")
    (note, warning) = replace(series, field_maps=(tmp_path / "many",)).open().notes
    assert "2 maps of B1 could belong to the series" in note and "--given B1=FILE" in note


def test_the_effect_of_b1_is_that_of_the_model() -> None:
    """T1 of spoiled gradient echoes at small flip angles goes with B1²: Deoni et al. 2003."""
    model = VariableFlipAngle(flip_angle=(2, 10), tr=5)
    assert "Where B1 is 0.9, T1 is 19 % too short" in effect_of_error(model, model.parameters[1])


def test_the_effect_of_b1_on_an_image_without_an_amplitude_is_that_of_its_value() -> None:
    """UNIT1 has no unknown scale: what is fitted is its value, and not its direction, which one image has not."""
    model = example(UniformMP2RAGE)
    B1, T = model.field, 1500.0
    assert B1 is not None
    times = np.linspace(1000.0, 2500.0, 150_001)
    with_low = float(np.asarray(model.shape(B1=np.array([0.9]), T1=np.array([T])))[0, 0])
    assumed = np.asarray(model.shape(B1=np.ones_like(times), T1=times))[0]
    effect = times[np.argmin(abs(assumed - with_low))] / T - 1
    word = "long" if effect > 0 else "short"
    assert f"Where B1 is 0.9, T1 is {100 * abs(effect):.0f} % too {word}" in effect_of_error(model, B1, time=T)


def test_unit1_as_scanners_store_it(tmp_path: Path) -> None:
    model = example(UniformMP2RAGE)
    root = write_bids(tmp_path, model)
    (path,) = root.rglob("*_UNIT1.nii.gz")
    true = read(root).images
    assert true.min() >= -0.5 and true.max() <= 0.5
    save(path, np.rint((true[0] + 0.5) * 4095).astype(np.int16))
    series = read(root)
    np.testing.assert_allclose(series.images, true, atol=0.5 / 4095 + 1e-6)
    assert "whole numbers from 0 to 4095 are taken as -0.5 to 0.5" in series.notes
    settled = find_series(root)[0].open().settled()
    planes = [settled.read_planes(k, k + 1)[0] for k in range(SHAPE[-1])]
    np.testing.assert_array_equal(np.concatenate(planes, -1), series.images)
    save(path, np.full(SHAPE, 9000, np.int16))
    with pytest.raises(InputError, match=r"expected values from -0\.5 to 0\.5, or from 0 to 4095"):
        read(root)


def test_a_sidecar_of_unit1_may_have_the_settings_of_both_images(tmp_path: Path) -> None:
    root = write_bids(tmp_path, example(UniformMP2RAGE))
    expected = read(root).model
    for image in root.rglob("*.nii.gz"):  # two slices could be two images
        values = nib.load(image).get_fdata()
        save(image, np.concatenate([values, values[..., :1]], -1))
    for of_one_image in root.rglob("*inv-*MP2RAGE.json"):
        of_one_image.unlink()
    (path,) = root.rglob("*_UNIT1.json")
    fields = {"RepetitionTimePreparation": expected.tr / 1e3, "RepetitionTimeExcitation": expected.tr_excitation / 1e3}
    fields |= {"NumberShots": list(np.atleast_1d(expected.number_shots)), "FlipAngle": [4.0, 6.0]}
    fields["InversionTime"] = [0.7, 2.5]
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    model = read(root).model
    assert (model.ti, model.ti_second) == ((700.0,), 2500.0)
    assert (model.flip_angle, model.flip_angle_second) == (4.0, 6.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"FlipAngle": 4.0}))
    with pytest.raises(InputError, match=r"expected FlipAngle of inv-1_MP2RAGE and inv-2_MP2RAGE, got one value"):
        read(root)


@pytest.mark.parametrize("name", ["b1_afi", "b1_dam"])
def test_real_scans(shared_data: Path, tmp_path: Path, name: str) -> None:
    (files,) = find_b1(shared_data / name)
    read = files.load()
    assert len(read.images) == 2 and read.images.ndim == nib.load(files.images[0]).ndim + 1
    assert read.settings["flip_angle"][0] == 60
    shutil.copytree(shared_data / name, tmp_path / "raw")
    (copied,) = find_b1(tmp_path / "raw")
    path = write_b1(np.ones(read.images.shape[1:]), copied, copied.load(), tmp_path / "out", about={})
    np.testing.assert_array_equal(nib.load(path).affine, nib.load(files.images[0]).affine)
