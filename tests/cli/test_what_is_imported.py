"""A run imports what it uses, and no more: what a verb does not need would be most of the time of a small series."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rimap

#: What runs the command line in a new process, and prints the packages that it imported.
RUN = """
import sys
from rimap.cli import main
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
print("imported", *{".".join(name.split(".")[:2]) for name, module in sys.modules.items() if module is not None})
"""
#: Packages that take longer to import than a slice takes to map.
SLOW = {
    f"scipy.{part}"
    for part in ("fft", "interpolate", "linalg", "ndimage", "optimize", "sparse", "spatial", "special", "stats")
}
SLOW |= {
    "onnxruntime",
    "matplotlib",
    "pydicom",
    "torch",
    "dipy",
    "distributed",
    "pandas",
    "rich",
    "cmcrameri",
    "pydantic",
}


def imported(*words: str | Path) -> set[str]:
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "imported"
    return set(last[1:])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A slice with air around an object, of an inversion recovery: magnitudes."""
    rng = np.random.default_rng(3)
    x, y = np.mgrid[:40, :36]
    inside = np.hypot(x - 20, y - 18) < 14
    kappa = np.stack([1000.0 * inside, np.full(inside.shape, 1.9), np.where(x < 20, 800.0, 1400.0)])
    model = rimap.InversionRecovery(tau=(50, 400, 1100, 2500, 4000))
    noise = rng.normal(0, 10, (2, 5, *inside.shape))
    stack = np.hypot(model.signal(kappa) + noise[0], noise[1])
    path = tmp_path / "ir.nii.gz"
    nib.save(nib.Nifti1Image(np.moveaxis(stack, 0, -1)[:, :, None].astype(np.float32), np.diag([1, 1, 2, 1])), path)
    return path


def test_a_slice_is_mapped_by_least_squares_without_slow_packages(images: Path, tmp_path: Path) -> None:
    times = ("--sequence", "ir", "--times-ms", "50,400,1100,2500,4000")
    imported("map", images, *times, "--estimator", "nlls", "-o", tmp_path / "compiled")  # compiling imports more
    found = imported("map", images, *times, "--estimator", "nlls", "-o", tmp_path / "maps")
    assert {"numpy", "nibabel", "numba"} <= found
    assert not found & SLOW


def test_other_estimators_are_not_imported() -> None:
    code = "import sys\nfrom rimap.workflow.estimator_choice import build\nbuild('nlls', {})\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "rimap.estimators.nlls.estimator" in modules
    assert not {f"rimap.estimators.{name}.estimator" for name in ("mle", "rim", "resnet")} & modules


def test_nibabel_is_imported_without_pydicom_on_the_command_line_only() -> None:
    code = (
        "import sys\nfrom rimap.imports import nibabel_alone\n{}\n"
        "print(nibabel_alone().__name__, 'pydicom' in sys.modules)"
    )
    for before, expected in (("", "nibabel False"), ("import pydicom", "nibabel True")):
        command = [sys.executable, "-c", code.format(before)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
