"""A small inversion-recovery series in files, and the command line inside this process."""

from __future__ import annotations

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.signals.inversion_recovery import InversionRecovery

TIMES = (50, 400, 1100, 2500)
SHAPE = (12, 10, 2)


def series_images(times=TIMES, shape=SHAPE, tr=6000.0, sigma=1.0):
    """Images (N, *X) of a block of tissue, T1 from 700 to 1500 ms, with Gaussian noise."""
    rng = np.random.default_rng(0)
    T1 = np.linspace(700, 1500, int(np.prod(shape))).reshape(shape)
    kappa = np.stack([np.full(shape, 100.0), np.full(shape, 1.9), T1])
    signal = InversionRecovery(tau=times, tr=tr).signal(kappa)
    return np.abs(signal + sigma * rng.standard_normal(signal.shape)).astype(np.float32)


def save(path, values, affine=None):
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values), np.diag([2.0, 2.0, 4.0, 1.0]) if affine is None else affine), path)
    return path


def write_bids(root, images=None, times=TIMES, tr=6000.0, *, subject="01", entities="", suffix="IRT1"):
    """Write a BIDS data set of one series and return its folder."""
    images = series_images(times, tr=tr) if images is None else images
    anat = root / f"sub-{subject}" / "anat"
    (root / "dataset_description.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    field, number = ("InversionTime", "inv") if suffix == "IRT1" else ("EchoTime", "echo")
    for n, (image, tau) in enumerate(zip(images, times), start=1):
        stem = f"sub-{subject}{entities}_{number}-{n}_{suffix}"
        save(anat / f"{stem}.nii.gz", image)
        sidecar = {field: tau / 1000} | ({"RepetitionTime": tr / 1000} if tr and suffix == "IRT1" else {})
        (anat / f"{stem}.json").write_text(json.dumps(sidecar))
    return root


@pytest.fixture
def bids(tmp_path):
    """A BIDS folder."""
    return write_bids(tmp_path / "bids")


@pytest.fixture
def nifti(tmp_path):
    """A 4-D NIfTI file without sidecar."""
    return save(tmp_path / "ir.nii.gz", np.moveaxis(series_images(), 0, -1))


@pytest.fixture(scope="session")
def app():
    """The application."""
    return build()


@pytest.fixture
def rimap(app, monkeypatch, tmp_path):
    """Run `rimap …` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RIMAP_DEBUG", raising=False)

    def run(*args):
        return CliRunner().invoke(app, [str(a) for a in args], prog_name="rimap")

    return run


@pytest.fixture(scope="session")
def make():
    """What makes files: `make.save`, `make.images`, `make.bids`, and the times and shape of the series."""
    return SimpleNamespace(save=save, images=series_images, bids=write_bids, times=TIMES, shape=SHAPE)
