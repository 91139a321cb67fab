"""Small data sets to read, and maps to write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.series import ParameterMaps, WeightedSeries

TI_MS = (50.0, 400.0, 1100.0, 2500.0)
TE_MS = (10.0, 20.0, 40.0, 80.0, 160.0)
AFFINE = np.array([[0, -2.0, 0, 11], [1.5, 0, 0, -7], [0, 0, 3, 2.5], [0, 0, 0, 1]])


def save(path: Path, data: Any, sidecar: Mapping[str, Any] | None = None, affine: Any = AFFINE) -> Path:
    """Write an image and, where given, its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.asarray(data), affine).to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.split(".nii")[0] + ".json").write_text(json.dumps(sidecar))
    return path


def recovery(shape: Sequence[int] = (4, 5, 2), *, signed: bool = False, tau: Sequence[float] = TI_MS) -> Any:
    """Images (N, *X) of T1 from 300 to 1500 ms."""
    T1 = np.linspace(300, 1500, int(np.prod(shape))).reshape(shape)
    model = rimap.InversionRecovery(tau=tau, signed=signed)
    return np.asarray(model.signal(np.stack([0 * T1 + 1000, 0 * T1 + 1.9, T1])), dtype=np.float32)


def decay(shape: Sequence[int] = (4, 5, 2)) -> Any:
    """Images (N, *X) of T2 from 40 to 120 ms."""
    T2 = np.linspace(40, 120, int(np.prod(shape))).reshape(shape)
    return np.asarray(rimap.T2Decay(tau=TE_MS).signal(np.stack([0 * T2 + 1000, T2])), dtype=np.float32)


def irt1(root: Path, stem: str = "sub-01/anat/sub-01", part: str = "", tr: float | None = 10.0) -> Path:
    """Write an IRT1 series into a BIDS data set."""
    for n, (ti, image) in enumerate(zip(TI_MS, recovery(signed=part == "_part-real")), 1):
        meta = {"InversionTime": ti / 1000} | ({} if tr is None else {"RepetitionTimePreparation": tr})
        save(root / f"{stem}_inv-{n}{part}_IRT1.nii.gz", image, meta)
    return root


def mese(root: Path, stem: str = "sub-01/anat/sub-01") -> Path:
    """Write a MESE series into a BIDS data set."""
    for n, (te, image) in enumerate(zip(TE_MS, decay()), 1):
        save(root / f"{stem}_echo-{n}_MESE.nii.gz", image, {"EchoTime": te / 1000, "RepetitionTime": 3})
    return root


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """Give the functions above to the tests."""
    return SimpleNamespace(
        save=save, recovery=recovery, decay=decay, irt1=irt1, mese=mese, TI=TI_MS, TE=TE_MS, affine=AFFINE
    )


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """A data set: sub-01 with IRT1 and MESE, sub-02 with sessions and runs of IRT1."""
    root = tmp_path / "raw"
    irt1(mese(root))
    for ses in ("a", "b"):
        for run in (1, 2):
            irt1(root, f"sub-02/ses-{ses}/anat/sub-02_ses-{ses}_run-{run}")
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    irt1(root / "derivatives" / "other", "sub-09/anat/sub-09")
    return root


@pytest.fixture
def as_maps() -> Callable[..., ParameterMaps]:
    """Make maps of a series without estimating: the initial guess, with one voxel that failed."""

    def make(series: WeightedSeries, estimator: str = "nlls") -> ParameterMaps:
        kappa = np.array(series.model.initial_guess(series.images), dtype=float)
        status = np.zeros(series.shape, np.uint8)
        kappa[(slice(None), *(0,) * len(series.shape))] = np.nan
        status[(0,) * len(series.shape)] = rimap.Status.NO_SIGNAL
        return ParameterMaps(
            kappa,
            series.model,
            status,
            sd_kappa=0.1 * kappa,
            residual=0.01 * kappa[0],
            noise=rimap.Gaussian(sigma=2.5),
            sigma_source="residuals",
            estimator=estimator,
            settings={"tolerance": np.float32(0.5), "flips": (1, 2)},
            warnings=("a warning",),
            affine=series.affine,
        )

    return make
