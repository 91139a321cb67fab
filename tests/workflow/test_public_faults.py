"""What users of other tools have reported, as they would meet it here: wrong values must not look right.

Other reports of the kind have their tests where the code is: what a loose folder holds, parts, copies
(tests/io/test_series_membership.py, test_dicom_copies.py), gradient echoes (test_kind.py), grids and unoriented masks
(test_judge.py), paths and broken sidecars (test_inputs.py), DICOM files that are left out and a UID for each slice
(tests/io/test_dicom_left_out.py), times outside the training (tests/estimators/test_trust.py), formats
(tests/io/test_series_membership.py), few wrong voxels (tests/estimators/test_trust.py, test_mle_fields.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.workflow.read_series import read

TI = (50.0, 150.0, 400.0, 1100.0, 2500.0, 4500.0)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def truth(shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Return T1 (ms), amplitude, and where there is tissue."""
    x, y, z = np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)
    T1 = np.where(x < 0.34, 800, np.where(x < 0.67, 1300, 600)) + 200 * y + 50 * z
    A = np.where(x < 0.34, 900, np.where(x < 0.67, 1000, 1200)) * (1 + 0.2 * y)
    return T1, A, (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.45**2


def recovery(shape: tuple[int, ...], *, signed: bool = False) -> Any:
    """Return images (N, *X) with noise."""
    T1, A, _ = truth(shape)
    S = np.stack([A * (1 - 1.95 * np.exp(-t / T1) + 0.95 * np.exp(-9000 / T1)) for t in TI])
    one, other = np.random.default_rng(0).normal(0, 8, (2, *S.shape))
    return S + one if signed else np.hypot(S + one, other)


def save(path: Path, data: Any, ti: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data).astype(np.float32), AFFINE), path)
    if ti is not None:
        meta = {"InversionTime": ti / 1000, "RepetitionTime": 9.0, "Manufacturer": "Philips"}
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(meta))
    return path


class TestZerosWhereAnImageDoesNotReach:
    """An image that was moved, masked or cut has zeros where the others have signal; they are no measurements."""

    @pytest.mark.parametrize("estimator", ["nlls", "mle", "rim"])
    @pytest.mark.parametrize("where", ["columns", "rows", "a slice of the first axis", "a corner", "both ends"])
    def test_no_voxel_there_looks_right(self, tmp_path: Path, where: str, estimator: str) -> None:
        shape = (24, 24, 6)
        S, lost = recovery(shape), np.zeros(shape, bool)
        index: dict[str, list[Any]] = {
            "columns": [np.s_[:3]],
            "rows": [np.s_[:, -4:]],
            "a slice of the first axis": [np.s_[9]],
            "a corner": [np.s_[:6, :6]],
            "both ends": [np.s_[:2], np.s_[-2:]],
        }
        for part in index[where]:
            lost[part] = True
        S[2][lost] = 0  # at 400 ms
        path = save(tmp_path / "ir.nii.gz", np.moveaxis(S, 0, -1))
        series = read(path, sequence="ir", times_ms=TI, tr_ms=9000)
        made = {"nlls": rimap.NLLS(threads=1), "mle": rimap.MLE(threads=1)}.get(estimator) or rimap.RIM(threads=1)
        maps = made.estimate(series)
        ok = maps.status == rimap.Status.OK
        with np.errstate(invalid="ignore"):
            wrong = np.abs(maps["T1"] / truth(shape)[0] - 1) > 0.1
        assert (ok & wrong)[lost].mean() < 0.005
        assert ok[lost].mean() < 0.04  # near its null a tissue is zero in truth
        assert ok[~lost].mean() > 0.97 and wrong[~lost].mean() < 0.03
        assert any("zero" in text for text in (*series.notes, *maps.warnings))


class TestPhaseOfAMaskedObject:
    """Phase images are zero outside the object, in milliradians, and around any value inside."""

    @pytest.mark.parametrize(
        "unit", [1000.0, 1.0, 180 / np.pi, 4096 / (2 * np.pi)], ids=["mrad", "rad", "degrees", "scanner"]
    )
    @pytest.mark.parametrize("base", [-1.4, 1.6, 0.0, 3.0])
    def test_the_polarity_is_right(self, tmp_path: Path, base: float, unit: float) -> None:
        shape = (24, 24, 4)
        T1, _, inside = truth(shape)
        (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
        signed = recovery(shape, signed=True) * inside
        phase = unit * np.angle(np.exp(1j * (np.where(signed < 0, np.pi, 0) + base))) * inside
        if unit > 100 and unit < 1000:  # scanners store whole numbers from -2048 to 2047
            phase = np.clip(np.rint(phase), -2048, 2047)
        for n, (t, image, angle) in enumerate(zip(TI, signed, phase), 1):
            for part, data in (("mag", np.abs(image)), ("phase", angle)):
                save(tmp_path / f"sub-01/anat/sub-01_inv-{n}_part-{part}_IRT1.nii.gz", data, t)
        series = read(tmp_path)
        assert series.model.is_signed
        bright = inside & (np.abs(signed) > 60).all(0)
        assert (np.sign(series.images) == np.sign(signed))[:, bright].mean() > 0.999
        maps = rimap.NLLS(threads=1).estimate(series)
        assert (np.abs(maps["T1"][inside] / T1[inside] - 1) > 0.1).mean() < 0.01
