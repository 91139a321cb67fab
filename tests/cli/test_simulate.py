"""`rimap simulate`."""

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.simulation.anatomies import digital_affine, digital_brain


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory):
    path = tmp_path_factory.mktemp("anatomy") / "head.nii.gz"
    nib.save(nib.Nifti1Image(digital_brain((48, 54, 36)), digital_affine((48, 54, 36))), path)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(build(), ["simulate", *map(str, arguments)])


def test_series_with_truth(tmp_path, anatomy):
    out = tmp_path / "sim"
    result = run("IV_T2", "-o", out, "--anatomy", anatomy, "--snr", 30, "--n", 2, "--seed", 4)
    assert result.exit_code == 0, result.output
    images = sorted(out.glob("sub-01/anat/*_MESE.nii.gz"))
    times = [json.loads(p.with_name(p.name[:-7] + ".json").read_text())["EchoTime"] for p in images]
    assert times == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32]
    truth = out / "derivatives/truth/sub-01/anat"
    A, T2 = (nib.load(truth / f"sub-01_{s}.nii.gz") for s in ("M0map", "T2map"))
    labels = np.asarray(nib.load(truth / "sub-01_dseg.nii.gz").dataobj)
    np.testing.assert_allclose(A.affine, nib.load(images[0]).affine)
    inside = labels > 0
    expected = A.get_fdata()[inside] * np.exp(-0.08 / T2.get_fdata()[inside])
    residual = nib.load(images[3]).get_fdata()[inside] - expected
    assert residual.std() == pytest.approx(0.65 / 30, rel=3 / np.sqrt(2 * residual.size))  # three standard errors
    assert np.isnan(T2.get_fdata()[~inside]).all()
    assert (out / "sub-02").is_dir()
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "raw"


def test_slice_stands_where_it_was_cut(tmp_path, anatomy):
    run("IV_T2", "-o", tmp_path / "s", "--anatomy", anatomy, "--slice", 20)
    image = nib.load(next((tmp_path / "s/sub-01/anat").glob("*.nii.gz")))
    affine = digital_affine((48, 54, 36))
    assert image.shape == (48, 54, 1)
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], affine @ [0, 0, 19, 1], atol=1e-4)


def test_patches(tmp_path, anatomy):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'sequence = "ir"\ntimes_ms = [50, 400, 1100, 2500]\nanatomies = "{anatomy}"\n')
    result = run(recipe, "-o", tmp_path / "p", "--patches", "--n", 6)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "p" / "patches.npz", allow_pickle=False) as data:
        assert data["images"].shape == (6, 4, 40, 40) and data["kappa"].shape == (6, 3, 40, 40)
        assert list(data["parameters"]) == ["A", "B", "T1"] and data["times_ms"].tolist() == [50, 400, 1100, 2500]
        assert json.loads(str(data["recipe"]))["sequence"] == "ir"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.toml"], "no recipe at"),
        (["IV_T2", "--slice", "99"], "--slice: expected 1 to 36"),
        (["IV_T2", "--snr", "-1"], "--snr: expected a number above 0"),
        (["IV_T2", "--slice", "20", "--volume"], "expected --volume alone, got --slice as well"),
        (["IV_T2", "--patches", "--volume"], "expected --volume alone, got --patches as well"),
        (["IV_T2", "--patches", "--slice", "20"], "--slice: expected it for subjects"),
        (["IV_T2", "--anatomy", "nowhere.nii.gz"], "no anatomy at"),
    ],
)
def test_errors(tmp_path, anatomy, arguments, message):
    extra = [] if "--anatomy" in arguments else ["--anatomy", anatomy]
    result = run(*arguments, *extra, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(tmp_path, anatomy):
    (tmp_path / "mine.txt").write_text("keep")
    result = run("IV_T2", "-o", tmp_path, "--anatomy", anatomy)
    assert result.exit_code == 2 and "expected an empty or new folder" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
