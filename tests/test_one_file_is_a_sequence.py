"""A model with a smooth field is one file: a package that contains only this file is known to every verb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap.simulation.anatomies import digital_brain

FILE = Path(__file__).parent / "contracts" / "plugins" / "lab_prepared_recovery.py"
NAME = "lab-prepared"


class Laboratory:
    """A folder in which the package is installed, and a data set that was simulated with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, site = folder, folder / "site"
        info = site / "lab_prepared_recovery-1.0.dist-info"
        info.mkdir(parents=True)
        shutil.copy(FILE, site)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-prepared-recovery\nVersion: 1.0\n")
        entry = f"[rimap.signals]\n{NAME} = lab_prepared_recovery:PreparedRecovery\n"
        (info / "entry_points.txt").write_text(entry)
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        nib.save(nib.Nifti1Image(digital_brain((48, 54, 36)), np.diag([4.0, 4.0, 4.0, 1.0])), folder / "small.nii.gz")
        self.run("simulate", "--sequence", NAME, "-o", "data", "--anatomy", "small.nii.gz", "--snr", 60, "--seed", 1)

    def run(self, *args: object) -> str:
        command = [sys.executable, "-m", "rimap", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, cwd=self.folder)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def error(self, out: str, name: str) -> float:
        """Return the median relative error of a map in the brain."""
        truth, found = (
            nib.load(self.folder / where / "sub-01" / "anat" / f"sub-01_{name}.nii.gz").get_fdata()
            for where in ("data/derivatives/truth", out)
        )
        brain = (
            nib.load(self.folder / "data/derivatives/truth/sub-01/anat/sub-01_desc-brain_mask.nii.gz").get_fdata() > 0
        )
        return float(np.nanmedian(abs(found[brain] / truth[brain] - 1)))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("laboratory"))


def test_it_holds_its_contracts(laboratory: Laboratory) -> None:
    assert "FAILS" not in laboratory.run("models", "--check", NAME)


@pytest.mark.parametrize("estimator", ["nlls", "mle"])
def test_its_data_set_is_mapped(laboratory: Laboratory, estimator: str) -> None:
    """The folder alone says what it is; the MLE, which is the default, finds the smooth field."""
    more = [] if estimator == "mle" else ["--estimator", estimator]
    text = laboratory.run("map", "data", "-o", estimator, "--threads", 1, *more)
    assert "prepared recovery" in text and f"{estimator} –" in text
    assert laboratory.error(estimator, "T1map") < (0.12 if estimator == "nlls" else 0.05)
    if estimator == "mle":
        assert laboratory.error(estimator, "desc-F_T1map") < 0.01
    anat = laboratory.folder / estimator / "sub-01" / "anat"
    sidecar = json.loads((anat / "sub-01_T1map.json").read_text())
    assert len(sidecar["LabRecoveryTimes"]) > 2 and 40 <= sidecar["LabAngle"] <= 90
    page = (laboratory.folder / estimator / "sub-01_T1map.html").read_text()
    assert "Recovery time, ms" in page and "preparation angle" in page and '"axis":{"title":"recovery time"' in page
    assert "known" not in text and "F  " in text


def test_a_network_is_trained_and_maps(laboratory: Laboratory) -> None:
    pytest.importorskip("torch")
    (laboratory.folder / "tiny.toml").write_text(
        f'name = "tiny"\nsequence = "{NAME}"\nanatomies = ["small.nii.gz"]\n[simulation]\npatch_size = 10\n[training]\n'
        "batch_size = 2\niterations = 3\nvalidation_batches = 1\nvalidate_every = 3\ncheckpoint_every = 3\n"
    )
    laboratory.run("train", "tiny.toml", "-o", "runs", "--workers", 0)
    (network,) = [p for p in (laboratory.folder / "runs").rglob("*.onnx") if not p.stem.endswith("-best")]
    laboratory.run("map", "data", "-o", "rim", "--network", network)
    assert laboratory.error("rim", "T1map") < 0.25  # three iterations: little more than its start


def test_its_protocol_is_designed_and_its_halves_are_compared(laboratory: Laboratory) -> None:
    """Its scan takes time as the declarations say: `design` and `test-retest` name no sequence."""
    laboratory.run("design", "data", "--T", "600-1600", "--images", 5, "-o", "design")
    about = json.loads((laboratory.folder / "design" / "design.json").read_text())
    assert about["sequence"] == NAME and about["best"]["worst_sd_percent"] < about["present"]["worst_sd_percent"]
    text = laboratory.run("evaluate", "test-retest", "data", "-o", "retest", "--estimators", "mle", "--quiet")
    assert "odd against even images" in text and "T1" in text
