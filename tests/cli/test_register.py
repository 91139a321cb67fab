"""`rimap map` reports misaligned images; `--register` aligns them."""

from __future__ import annotations

import json
import re

import nibabel as nib
import numpy as np
import pytest

from rimap.signals.inversion_recovery import InversionRecovery

TIMES = (50, 200, 500, 1000, 2000, 4000)


@pytest.fixture
def moved(make, tmp_path):
    """A BIDS folder with a disc of tissues whose third image lies 6 mm (3 voxels) beside the others."""
    x, y = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1.2, 1.2, 72), indexing="ij")
    T1 = np.where(np.hypot(x, y) < 0.3, 3500.0, np.where(np.hypot(x - 0.2, y) < 0.6, 800.0, 1300.0))[..., None]
    A = np.where(np.hypot(x, y)[..., None] < 0.85, 500 + 200 * (T1 > 1000), 0)
    signal = InversionRecovery(tau=TIMES, tr=6000.0).signal(np.stack([A, np.full_like(A, 1.9), T1]))
    images = np.abs(signal + np.random.default_rng(0).normal(0, 8, signal.shape)).astype(np.float32)
    images[2] = np.roll(images[2], 3, axis=0)
    return make.bids(tmp_path / "bids", images, times=TIMES), T1[..., 0], A[..., 0]


def test_the_warning_names_the_image_and_how_far(moved, rimap, tmp_path):
    result = rimap("map", moved[0], "-o", tmp_path / "out", "--estimator", "nlls")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    named = re.search(r"An image is misaligned: image 3 \(TI 500 ms\) by (\d\.\d) mm\.", said)
    assert named is not None and float(named[1]) == pytest.approx(6, abs=0.15)
    sidecar = json.loads((tmp_path / "out/sub-01/anat/sub-01_T1map.json").read_text())
    assert any("misaligned" in w for w in sidecar["Warnings"]) and "Registration" not in sidecar
    assert "misaligned" in (tmp_path / "out" / "sub-01_T1map.html").read_text()


def test_register_aligns_and_says_so(moved, rimap, tmp_path):
    bids, T1, A = moved
    result = rimap("map", bids, "-o", tmp_path / "out", "--estimator", "nlls", "--register")
    assert result.exit_code == 0, result.output
    anat = tmp_path / "out" / "sub-01" / "anat"
    sidecar = json.loads((anat / "sub-01_T1map.json").read_text())
    images = sidecar["Registration"]["Images"]
    assert [i["Resampled"] for i in images] == [False, False, True, False, False, False]
    assert images[2]["InversionTime"] == 0.5 and images[2]["ShiftMillimetres"] == pytest.approx(6, abs=0.2)
    assert np.array(images[2]["Matrix"]).shape == (4, 4)
    found = np.asarray(nib.load(anat / "sub-01_T1map.nii.gz").dataobj)[..., 0] * 1000
    assert np.nanmedian(np.abs(found / T1 - 1)[A > 0]) < 0.05
    assert "--register aligned the images: image 3 (TI 500 ms)" in " ".join(result.output.split())
    page = tmp_path / "out" / "sub-01_T1map.html"
    page.unlink()
    again = rimap("report", tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert "--register aligned the images: image 3 (TI 500 ms)" in page.read_text(encoding="utf-8")


def test_register_where_nothing_can_be_told(bids, rimap, tmp_path):
    result = rimap("map", bids, "-o", tmp_path / "out", "--register", "--estimator", "nlls")
    assert result.exit_code == 0
    assert "--register: the images could not be aligned and are mapped without alignment" in " ".join(
        result.output.split()
    )
    sidecar = json.loads((tmp_path / "out/sub-01/anat/sub-01_T1map.json").read_text())
    assert "Registration" not in sidecar


def test_the_bids_app_registers_as_map_does(moved, rimap, tmp_path):
    options = ("--estimator", "nlls", "--register")
    assert rimap("map", moved[0], "-o", tmp_path / "map", *options).exit_code == 0
    done = rimap("bids", moved[0], tmp_path / "app", "participant", "--nprocs", 1, *options)
    assert done.exit_code == 0, done.output
    assert "--register aligned the images: image 3 (TI 500 ms)" in done.stderr
    for name in ("sub-01_T1map.nii.gz", "sub-01_desc-status_T1map.nii.gz", "sub-01_T1map.json"):
        assert (tmp_path / "app/sub-01/anat" / name).read_bytes() == (tmp_path / "map/sub-01/anat" / name).read_bytes()
    left = rimap("bids", moved[0], tmp_path / "app", "participant", "--nprocs", 1, *options[:2])
    assert left.exit_code == 2 and "register" in left.output, left.output
