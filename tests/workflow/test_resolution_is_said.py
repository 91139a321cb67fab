"""A network reports for each series how much of small spots it preserves; voxelwise estimators need not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.simulation.anatomies import digital_brain
from rimap.simulation.subjects import simulate_subject
from rimap.workflow import Request, map_series, summary

MODEL = rimap.InversionRecovery(tau=[50, 150, 400, 900, 1800, 3600])


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kappa = simulate_subject(digital_brain((96, 108, 8))[:, :, 4:5], MODEL, np.random.default_rng(0))
    clean = MODEL.signal(kappa)
    images = clean + 0.02 * np.random.default_rng(1).standard_normal(clean.shape)
    path = tmp_path_factory.mktemp("scan") / "brain.nii.gz"
    nib.save(nib.Nifti1Image(np.moveaxis(1000 * images, 0, -1).astype(np.float32), np.eye(4)), path)
    return path


def test_several_series_have_one_short_statement(scan: Path, tmp_path: Path) -> None:
    request = Request(inputs=scan, out=tmp_path, sequence="ir", times_ms=tuple(MODEL.times), estimator="rim", threads=1)
    (result,) = map_series(request).results
    other = tuple(replace(k, share=k.share / 2) for k in result.kept)
    notes = summary.notes_in_short([result, replace(result, kept=other, notes=["Resolution: other figures"])])
    of_spots = [text for text in notes if text.startswith("Resolution: ")]
    assert len(of_spots) == 2 and len(set(of_spots)) == 1
    low, high = 100 * other[0].share, 100 * result.kept[0].share
    assert f"keep {low:.0f} to {high:.0f} % of a difference of" in of_spots[0]


@pytest.mark.parametrize("estimator", ["rim", "mle"])
def test_summary_and_sidecar_have_the_statement(scan: Path, tmp_path: Path, estimator: str) -> None:
    request = Request(
        inputs=scan, out=tmp_path, sequence="ir", times_ms=tuple(MODEL.times), estimator=estimator, threads=1
    )
    run = map_series(request)
    (sidecar,) = [p for p in tmp_path.glob("*_T1map.json") if "desc-" not in p.name]
    spots = json.loads(sidecar.read_text()).get("SmallSpots", [])
    text = " ".join(summary.notes(run.results))
    assert bool(spots) == (estimator == "rim")
    assert ("Spots with a larger T1 than" in " ".join(text.split())) == (estimator == "rim")
    for spot in spots:
        assert 0 < spot["ShareKept"] < 1.2
    if spots:
        wide = {(s["WidthVoxels"], s["Contrast"]): s["ShareKept"] for s in spots}
        assert wide[5, 0.25] > wide[1, 0.10]
