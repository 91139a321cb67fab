"""A map of standard deviations that would hold NaN alone is not written, and the run says why."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from rimap.workflow import Request, map_series

TAU = (50.0, 500.0, 2500.0)


def mapped(tmp_path: Path, sigma: float | None):
    T1 = np.linspace(700, 1300, 12 * 10 * 2).reshape(12, 10, 2)
    images = np.stack([abs(1000 * (1 - 1.9 * np.exp(-t / T1))) for t in TAU])
    nib.save(nib.Nifti1Image(np.moveaxis(images, 0, -1).astype(np.float32), np.eye(4)), tmp_path / "x.nii")
    out = tmp_path / f"out{sigma}"
    how = {"sequence": "ir", "times_ms": TAU, "estimator": "nlls", "sigma": sigma}
    return map_series(Request(inputs=tmp_path / "x.nii", out=out, **how)).results[0]


def test_without_a_noise_level_no_map_of_standard_deviations_is_written(tmp_path: Path) -> None:
    result = mapped(tmp_path, None)  # as many images as parameters, and no air
    assert not [p for p in result.maps if "desc-sd" in p.name]
    (said,) = [n for n in result.notes if "No map of the standard deviation" in n]
    assert "No map of the standard deviation of T1" in said and "noise level is not known" in said
    about = json.loads((tmp_path / "outNone" / "x_T1map.json").read_text())
    assert said in about["Notes"] and said in result.report.read_text()


def test_with_a_noise_level_it_is(tmp_path: Path) -> None:
    result = mapped(tmp_path, 10.0)
    names = {p.name for p in result.maps}
    assert {"x_desc-sd_T1map.nii.gz", "x_desc-sdB_T1map.nii.gz"} <= names
    assert not [n for n in result.notes if "No map of the standard deviation" in n]
    for path in result.maps:
        if "desc-sd" in path.name:
            assert np.isfinite(nib.load(path).get_fdata()).any(), path.name
