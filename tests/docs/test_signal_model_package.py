"""The worked example, as a package beside rimap: its entry point alone brings it to every verb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap.simulation.anatomies import digital_brain

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "saturation-recovery"
TIMES = (100, 300, 800, 2000, 5000)
T1 = np.linspace(400, 1800, 60).reshape(6, 5, 2)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Lay the package out as an installer would, and return the environment that finds it."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "saturation_recovery.py", folder)
    info = folder / f"rimap_saturation_recovery-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in e.items()) for group, e in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return os.environ | {"PYTHONPATH": str(folder)}


def run(*args: object, env: dict[str, str], cwd: Path) -> str:
    command = [sys.executable, "-m", "rimap", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_and_maps_files(installed: dict[str, str], tmp_path: Path) -> None:
    assert "Saturation recovery: A, T1; BIDS SRT1, delay from RepetitionTime" in run(
        "models", env=installed, cwd=tmp_path
    )
    images = 1000 * (1 - np.exp(-np.reshape(TIMES, (-1, 1, 1, 1)) / T1))
    images += 2 * np.random.default_rng(0).standard_normal(images.shape)
    anat = tmp_path / "bids" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (tmp_path / "bids" / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    for n, (image, tau) in enumerate(zip(images, TIMES), start=1):
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), anat / f"sub-01_inv-{n}_SRT1.nii.gz")
        (anat / f"sub-01_inv-{n}_SRT1.json").write_text(json.dumps({"RepetitionTime": tau / 1000}))
    text = run("map", "bids", "-o", "out", "--threads", 1, env=installed, cwd=tmp_path)
    assert "saturation recovery, 5 images" in text
    (found,) = (tmp_path / "out").rglob("sub-01_T1map.nii.gz")
    np.testing.assert_allclose(1000 * nib.load(found).get_fdata(), T1, rtol=0.05)


def test_a_network_can_be_trained_for_it(installed: dict[str, str], tmp_path: Path) -> None:
    recipe = """
sequence = "my-sr"
times_ms = [100, 300, 800, 2000, 5000]
anatomies = ["head.nii.gz"]
simulation = {patch_size = 12}
training = {iterations = 1, batch_size = 2, validate_every = 1, validation_batches = 1, validation = ["head.nii.gz"]}
"""
    nib.save(nib.Nifti1Image(digital_brain((48, 54, 36)), np.diag([4.0, 4, 4, 1])), tmp_path / "head.nii.gz")
    (tmp_path / "my-sr.toml").write_text(recipe)
    text = run(
        "train", "my-sr.toml", "-o", "trained", "--accelerator", "cpu", "--workers", 0, env=installed, cwd=tmp_path
    )
    assert "trained:" in text and (tmp_path / "trained" / "my-sr.onnx").is_file()
