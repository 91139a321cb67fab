"""Statuses and values of real scans: the object keeps its values, and they are right where a reference is known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rimap
from rimap.estimators.sigma import dark_below
from rimap.io import find_series, read_labels
from rimap.io.reading_options import Reading
from rimap.workflow.read_series import read

SIGNED = "sub-siemensSignedplateT1"


@pytest.mark.parametrize("estimator", [rimap.NLLS(), rimap.RIM()], ids=lambda e: e.name)
def test_signed_phantom_is_within_six_per_cent(shared_data: Path, estimator: Any) -> None:
    folder = shared_data / "nist_phantom"
    regions = folder / "derivatives" / "rois" / SIGNED / "anat"
    with (regions / f"{SIGNED}_desc-spheresT1_reference.tsv").open() as file:
        reference = {int(r["sphere"]): float(r["reference_ms"]) for r in csv.DictReader(file, delimiter="\t")}
    series = read(folder / SIGNED)
    labels = read_labels(regions / f"{SIGNED}_desc-spheresT1_dseg.nii.gz", series.shape, series.affine)
    maps = estimator.estimate(series)
    limit = 0.06 if estimator.name == "rim" else 0.08  # the sphere of 731 ms has its last inversion time at 800 ms
    for sphere, nominal in reference.items():
        if 80 <= nominal <= 750:
            assert (maps.status[labels == sphere] == rimap.Status.OK).all()
            assert np.median(maps["T1"][labels == sphere]) == pytest.approx(nominal, rel=limit)
    assert np.nanmedian(maps["B"][labels > 0]) == pytest.approx(2.0, abs=0.1)


def test_rim_of_a_phantom_is_no_air(shared_data: Path) -> None:
    # Its voxels are dark and differ from each other as much as noise does, but by a hundred σ.
    series_of_phantom = find_series(shared_data / "nist_phantom")
    assert len(series_of_phantom) >= 3
    for found in series_of_phantom:
        series = found.load(Reading(skip_first=1 if "MESE" in found.label else 0))
        maps = rimap.NLLS().estimate(series)
        rms = np.sqrt(np.mean(np.square(series.images, dtype=float), axis=0))
        inside = rms > dark_below(rms[rms > 0])
        assert (maps.status[inside] == rimap.Status.NO_SIGNAL).mean() < 0.001
        assert (maps.status[~inside] != rimap.Status.NO_SIGNAL).mean() < 0.1
