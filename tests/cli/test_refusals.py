"""Bad input ends with status 2, one or two lines that say what is the matter, and nothing in OUT."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest

from rimap.cli import verbs

LOOSE = ("--sequence", "ir", "--times-ms", "50,400,1100,2500", "--tr-ms", "6000")


def first_image(root):
    return root / "sub-01" / "anat" / "sub-01_inv-1_IRT1.nii.gz"


def first_sidecar(root):
    return root / "sub-01" / "anat" / "sub-01_inv-1_IRT1.json"


def edit(path, **fields):
    data = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


# Each case changes a good data set (folder `root`, helpers `make`) and returns the arguments and a part of the message.


def fewer_times_than_images(root, make):
    file = make.save(root / "x.nii.gz", np.moveaxis(make.images(), 0, -1))
    return [file, "--sequence", "ir", "--times-ms", "50,400,1100"], "3 times, 4 images"


def more_times_than_images(root, make):
    return [root, "--times-ms", "50 400 1100 2500 4000"], "5 times, 4 images"


def no_times(root, make):
    edit(first_sidecar(root), InversionTime=None)
    return [root], "InversionTime"


def no_times_for_a_loose_file(root, make):
    file = make.save(root / "x.nii.gz", np.moveaxis(make.images(), 0, -1))
    return [file, "--sequence", "ir"], "--times-ms"


def an_empty_list_of_times(root, make):
    return [root, "--times-ms", " "], "--times-ms"


def times_that_are_no_numbers(root, make):
    return [root, "--times-ms", "50,400,eleven,2500"], "eleven"


def negative_times(root, make):
    return [root, "--times-ms", "-50,400,1100,2500"], "negative"


def negative_times_in_a_sidecar(root, make):
    edit(first_sidecar(root), InversionTime=-0.05)
    return [root], "negative"


def fewer_distinct_times_than_parameters(root, make):
    return [root, "--times-ms", "400,400,1100,1100"], "distinct"


def milliseconds_in_a_seconds_field(root, make):
    edit(first_sidecar(root), InversionTime=50)
    return [root], "If these are milliseconds"


def seconds_for_milliseconds(root, make):
    return [root, "--times-ms", "0.05,0.4,1.1,2.5"], "If these are seconds"


def an_image_of_another_shape(root, make):
    make.save(first_image(root), np.ones((11, 10, 2), np.float32))
    return [root], "shape"


def an_image_of_another_affine(root, make):
    make.save(first_image(root), make.images()[0], np.diag([2.5, 2.0, 4.0, 1.0]))
    return [root], "affine"


def all_nan(root, make):
    return [make.bids(root / "b", np.full((4, *make.shape), np.nan, np.float32))], "NaN"


def all_zero(root, make):
    return [make.bids(root / "b", np.zeros((4, *make.shape), np.float32))], "zero"


def a_truncated_file(root, make):
    path = first_image(root)
    path.write_bytes(path.read_bytes()[:-300])
    return [root], "truncated"


def a_truncated_uncompressed_file(root, make):
    file = root / "x.nii"
    packed = make.save(root / "y.nii.gz", np.moveaxis(make.images(), 0, -1))
    file.write_bytes(gzip.decompress(packed.read_bytes())[:-1000])
    return [file, *LOOSE], "truncated"


def a_foreign_file(root, make):
    first_image(root).write_bytes(b"this is no image" * 100)
    return [root], "NIfTI"


def a_file_of_another_kind(root, make):
    (root / "x.png").write_bytes(b"\x89PNG")
    return [root / "x.png", *LOOSE], "NIfTI"


def broken_json(root, make):
    first_sidecar(root).write_text('{"InversionTime": 0.05,')
    return [root], "JSON"


def json_that_is_no_object(root, make):
    first_sidecar(root).write_text("[1, 2]")
    return [root], "JSON"


def an_empty_folder(root, make):
    (root / "empty").mkdir()
    return [root / "empty"], "empty"


def a_missing_folder(root, make):
    return [root / "nowhere"], "expected an existing"


def a_mask_of_another_shape(root, make):
    return [root, "--mask", make.save(root / "m.nii.gz", np.ones((3, 3, 3), np.uint8))], "shape"


def a_mask_elsewhere(root, make):
    mask = make.save(root / "m.nii.gz", np.ones(make.shape, np.uint8), np.diag([3.0, 3.0, 3.0, 1.0]))
    return [root, "--mask", mask], "affine"


def an_empty_mask(root, make):
    return [root, "--mask", make.save(root / "m.nii.gz", np.zeros(make.shape, np.uint8))], "empty"


def a_missing_mask(root, make):
    return [root, "--mask", "nowhere.nii.gz"], "expected an existing file"


def labels_of_another_shape(root, make):
    return [root, "--rois", make.save(root / "m.nii.gz", np.ones((3, 3, 3), np.uint8))], "shape"


def an_unknown_estimator(root, make):
    return [root, "--estimator", "nls"], "Did you mean nlls?"


def an_unknown_sequence(root, make):
    return [root, "--sequence", "flair"], "ir"


def an_unknown_noise(root, make):
    return [root, "--noise", "poisson"], "gaussian"


def a_negative_sigma(root, make):
    return [root, "--sigma", "-3"], "positive"


def a_sigma_that_is_neither_number_nor_file(root, make):
    return [root, "--sigma", "three"], "three"


def a_sigma_map_of_another_shape(root, make):
    return [root, "--sigma", make.save(root / "s.nii.gz", np.ones((3, 3, 3)))], "got (3, 3, 3)"


def a_sigma_map_of_several_volumes(root, make):
    return [
        root,
        "--sigma",
        make.save(root / "s.nii.gz", np.ones((*make.shape, 2))),
    ], "expected a map of sigma of shape"


def a_sigma_map_elsewhere(root, make):
    sigma = make.save(root / "s.nii.gz", np.ones(make.shape), np.diag([3.0, 3.0, 3.0, 1.0]))
    return [root, "--sigma", sigma], "map of sigma is misaligned"


def an_option_of_another_estimator(root, make):
    return [root, "--estimator", "nlls", "--lambda-b", "5"], "--lambda-b"


def a_network_for_an_estimator_that_has_none(root, make):
    return [root, "--estimator", "nlls", "--network", "t1"], "--network"


def rician_noise_on_signed_images(root, make):
    return [root, "--signed", "--noise", "rician", "--estimator", "mle"], "signed"


def rician_noise_for_least_squares(root, make):
    return [root, "--noise", "Rician", "--estimator", "nlls"], "--estimator mle"


def a_repetition_time_below_the_inversion_time(root, make):
    return [root, "--tr-ms", "1000"], "TR"


def too_few_repetition_times(root, make):
    return [root, "--tr-ms", "6000,6000"], "expected one TR"


def a_subject_that_is_not_there(root, make):
    return [root, "--participant-label", "07"], "sub-01"


def too_many_images_left_out(root, make):
    return [root, "--skip-first", "4"], "--skip-first"


def too_few_images_left(root, make):
    return [root, "--skip-first", "2"], "distinct"


def inversion_options_for_a_decay(root, make):
    folder = make.bids(root / "b", make.images() + 1, (10, 20, 40, 80), suffix="MESE")
    return [folder, "--tr-ms", "5000"], "--tr-ms"


CASES = [
    f
    for f in list(globals().values())
    if getattr(f, "__code__", None) and f.__code__.co_varnames[:2] == ("root", "make")
]


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_refused(case, bids, make, rimap, tmp_path):
    args, message = case(bids, make)
    result = rimap("map", *args, "-o", tmp_path / "out", *(() if "--estimator" in args else ("--estimator", "nlls")))
    lines = result.stderr.splitlines()
    assert result.exit_code == 2, result.output
    assert 1 <= len(lines) <= 2 and lines[0].startswith("rimap: error: "), result.stderr
    assert message in result.stderr and len(result.stderr) < 500
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_earlier_results_are_kept_unless_overwrite(bids, rimap, tmp_path):
    out = tmp_path / "out"
    assert rimap("map", bids, "-o", out, "--estimator", "nlls").exit_code == 0
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    result = rimap("map", bids, "-o", out, "--estimator", "nlls")
    assert result.exit_code == 0 and "kept sub-01 IRT1" in result.stdout
    result = rimap("map", bids, "-o", out, "--estimator", "nlls", "--rates")
    assert result.exit_code == 2 and "--overwrite" in result.stderr and "rates" in result.stderr
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before
    assert rimap("map", bids, "-o", out, "--estimator", "nlls", "--overwrite").exit_code == 0


def test_a_refused_input_leaves_an_earlier_out_as_it_was(bids, rimap, make, tmp_path):
    out = tmp_path / "out"
    rimap("map", bids, "-o", out, "--estimator", "nlls")
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    first_image(bids).write_bytes(b"")
    assert rimap("map", bids, "-o", out, "--estimator", "nlls", "--overwrite").exit_code == 2
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before


def test_out_that_is_a_file_or_the_input(bids, rimap, tmp_path):
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", bids):
        before = sorted(bids.rglob("*"))
        result = rimap("map", bids, "-o", out, "--estimator", "nlls")
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
        assert sorted(bids.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "precious"


def test_one_bad_series_does_not_keep_the_others_from_being_mapped(bids, rimap, make, tmp_path):
    make.bids(bids, subject="02")
    make.bids(bids, subject="03")
    shutil.copy(bids / "dataset_description.json", bids / "sub-02" / "anat" / "sub-02_inv-1_IRT1.nii.gz")
    result = rimap("map", bids, "-o", tmp_path / "out", "--estimator", "nlls")
    assert result.exit_code == 2
    assert "sub-02" in result.stderr and "1 of 3 series" in result.stderr
    found = sorted(p.name for p in (tmp_path / "out").rglob("*_T1map.nii.gz") if "desc" not in p.name)
    assert found == ["sub-01_T1map.nii.gz", "sub-03_T1map.nii.gz"]


@pytest.mark.parametrize("verb", verbs())
@pytest.mark.parametrize("empty", [("-o", ""), ("",), ("--output=",)], ids=str)
def test_an_empty_value_is_no_current_folder(rimap, monkeypatch, tmp_path, verb, empty):
    """As of a variable of the shell that is not set: nothing is read and nothing written."""
    monkeypatch.chdir(tmp_path)
    result = rimap(verb, *empty)
    assert result.exit_code == 2 and "expected a value, got nothing" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not any(tmp_path.iterdir())
