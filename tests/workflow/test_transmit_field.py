"""Maps of B1 come before the series that need them, and only those of the same subject and session use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.errors import InputError
from rimap.signals.variable_flip_angle import VariableFlipAngle
from rimap.workflow import Request, map_series, summary

SHAPE = (16, 12, 2)
B1 = np.linspace(0.7, 1.2, 16)[:, None, None] * np.ones(SHAPE)
T1 = np.linspace(600, 1800, B1.size).reshape(SHAPE)
FLIPS, TR = (4.0, 12.0, 22.0), 15.0
AFI = {"RepetitionTimeExcitation": (0.02, 0.1), "FlipAngle": (55, 55)}
DAM = {"FlipAngle": (60, 120)}


def save(path: Path, values: Any, **sidecar: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), np.diag([2.0, 2.0, 4.0, 1.0])), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))


def afi_images(b1: Any = B1) -> list[Any]:
    n, cosine = AFI["RepetitionTimeExcitation"][1] / AFI["RepetitionTimeExcitation"][0], np.cos(np.deg2rad(55) * b1)
    return [800 * np.ones_like(cosine), 800 * (1 + n * cosine) / (n + cosine)]  # Yarnykh 2007, Eq. 5


def write(root: Path, subject: str = "01", *, afi: bool = True, vfa: bool = True, b1: Any = B1) -> Path:
    (root / "dataset_description.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    folder = root / f"sub-{subject}"
    for k, image in enumerate(afi_images(b1) if afi else ()):
        sidecar = {name: values[k] for name, values in AFI.items()}
        save(folder / "fmap" / f"sub-{subject}_acq-tr{k + 1}_TB1AFI.nii.gz", image, **sidecar)
    kappa = np.stack([np.full(SHAPE, 5000.0), b1, T1])
    for k, image in enumerate(VariableFlipAngle(flip_angle=FLIPS, tr=TR).signal(kappa) if vfa else ()):
        sidecar = {"FlipAngle": FLIPS[k], "RepetitionTimeExcitation": TR / 1000}
        save(folder / "anat" / f"sub-{subject}_flip-{k + 1}_VFA.nii.gz", image, **sidecar)
    return root


def T1_of(out: Path, subject: str = "01") -> Any:
    return nib.load(out / f"sub-{subject}" / "anat" / f"sub-{subject}_T1map.nii.gz").get_fdata() * 1000


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_air_has_no_value_whatever_the_scale(scale: float, tmp_path: Path) -> None:
    data = write(tmp_path / "bids", vfa=False)
    for k, image in enumerate(afi_images()):
        image[:, :3] = [0.01, 0.006][k] * 800
        sidecar = {name: values[k] for name, values in AFI.items()}
        save(data / "sub-01" / "fmap" / f"sub-01_acq-tr{k + 1}_TB1AFI.nii.gz", scale * image, **sidecar)
    (field,) = map_series(Request(inputs=data, out=tmp_path / "out")).fields
    known = np.isfinite(nib.load(field.path).get_fdata())
    assert known[:, 3:].all() and not known[:, :3].any()


def test_a_series_uses_the_map_that_is_made_first(tmp_path: Path) -> None:
    data = write(tmp_path / "bids")
    run = map_series(Request(inputs=data, out=tmp_path / "out", threads=1))
    (field,) = run.fields
    assert field.path == tmp_path / "out" / "sub-01" / "fmap" / "sub-01_TB1map.nii.gz" and not field.kept
    np.testing.assert_allclose(nib.load(field.path).get_fdata(), B1, rtol=1e-5)
    np.testing.assert_allclose(T1_of(tmp_path / "out"), T1, rtol=1e-3)
    sidecar = json.loads((tmp_path / "out" / "sub-01" / "anat" / "sub-01_T1map.json").read_text())
    assert "TB1map" in json.dumps(sidecar)
    assert any("B1 median 0.95" in line for line in summary.lines(run))
    again = map_series(Request(inputs=data, out=tmp_path / "out", threads=1))
    assert again.results == () and again.kept == ("sub-01 VFA",) and again.fields[0].kept


def test_a_map_of_another_subject_is_not_used(tmp_path: Path) -> None:
    data = write(write(tmp_path / "bids", "01"), "02", afi=False)
    run = map_series(Request(inputs=data, out=tmp_path / "out", threads=1))
    assert len(run.fields) == 1 and len(run.results) == 2
    assert np.median(abs(T1_of(tmp_path / "out", "02") / T1 - 1)) > 0.05
    (of_02,) = (r for r in run.results if "sub-02" in r.label)
    assert any("no map of B1" in warning for warning in of_02.warnings)


@pytest.mark.parametrize("name", ["scan", "file"])
def test_a_scan_alone_is_enough(name: str, tmp_path: Path) -> None:
    data = write(tmp_path / "bids", vfa=False)
    inputs = data if name == "scan" else data / "sub-01" / "fmap" / "sub-01_acq-tr1_TB1AFI.nii.gz"
    run = map_series(Request(inputs=inputs, out=tmp_path / "out"))
    assert run.results == () and len(run.fields) == 1 and run.fields[0].path.is_file()


def test_double_angle_in_files(tmp_path: Path) -> None:
    data, angle = write(tmp_path / "bids", afi=False), np.deg2rad(60) * B1
    for k, image in enumerate((np.sin(angle), np.sin(2 * angle))):
        save(data / "sub-01" / "fmap" / f"sub-01_flip-{k + 1}_TB1DAM.nii.gz", image, FlipAngle=DAM["FlipAngle"][k])
    run = map_series(Request(inputs=data, out=tmp_path / "out", threads=1))
    assert "double-angle" in run.fields[0].method
    np.testing.assert_allclose(T1_of(tmp_path / "out"), T1, rtol=1e-3)


def test_a_scan_that_is_refused_does_not_keep_the_series(tmp_path: Path) -> None:
    data = write(tmp_path / "bids")
    (data / "sub-01" / "fmap" / "sub-01_acq-tr2_TB1AFI.nii.gz").unlink()
    run = map_series(Request(inputs=data, out=tmp_path / "out", threads=1))
    assert len(run.results) == 1 and run.fields == ()
    ((label, error),) = run.refused
    assert label == "sub-01 TB1AFI" and "expected two images" in str(error)


def test_another_scan_is_another_map(tmp_path: Path) -> None:
    data = write(tmp_path / "bids")
    map_series(Request(inputs=data, out=tmp_path / "out", threads=1))
    write(data, b1=B1 * 0.9)
    with pytest.raises(InputError, match="already exist"):
        map_series(Request(inputs=data, out=tmp_path / "out", threads=1))
    run = map_series(Request(inputs=data, out=tmp_path / "out", threads=1, overwrite=True))
    np.testing.assert_allclose(nib.load(run.fields[0].path).get_fdata(), B1 * 0.9, rtol=1e-5)
    np.testing.assert_allclose(T1_of(tmp_path / "out"), T1, rtol=1e-3)


def test_the_bids_app_makes_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(write(tmp_path / "bids", "01"), "02", b1=B1 * 0.9)
    (data / "sub-02" / "fmap" / "sub-02_acq-tr2_TB1AFI.nii.gz").unlink()
    monkeypatch.chdir(tmp_path)
    args = ["bids", str(data), "out", "participant", "--nprocs", "1", "--skip-bids-validation"]
    done = CliRunner().invoke(build(), args, prog_name="rimap")
    assert done.exit_code == 2 and "1 map of B1 made first" in done.output, done.output
    np.testing.assert_allclose(T1_of(tmp_path / "out"), T1, rtol=1e-3)
    failed = (tmp_path / "out" / "failed.tsv").read_text().splitlines()
    assert len(failed) == 2 and failed[1].startswith("sub-02\tsub-02 TB1AFI\t")
