"""NLLS on real scans: the NIST phantom's reference values, and a brain as signed and as magnitude images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap import NLLS, InversionRecovery, T2Decay, WeightedSeries
from rimap.signals.base import SignalModel


def _load(folder: Path, pattern: str, field: str) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    files = sorted(folder.glob(pattern + ".json"))
    sidecars = [json.loads(f.read_text()) for f in files]
    order = np.argsort([s[field] for s in sidecars])
    images = np.stack([nib.load(f.with_suffix(".nii.gz")).get_fdata(dtype=np.float32) for f in files])
    times = 1000 * np.array([s[field] for s in sidecars])
    return images[order], times[order], [sidecars[i] for i in order]


def _medians(root: Path, subject: str, array: str, model: SignalModel, images: np.ndarray) -> dict[float, float]:
    rois = root / "derivatives" / "rois" / subject / "anat"
    labels = np.asarray(nib.load(rois / f"{subject}_desc-spheres{array}_dseg.nii.gz").dataobj)
    maps = NLLS().estimate(WeightedSeries(images=images, model=model, mask=labels > 0))
    with (rois / f"{subject}_desc-spheres{array}_reference.tsv").open() as f:
        rows = [(int(r["sphere"]), float(r["reference_ms"])) for r in csv.DictReader(f, delimiter="\t")]
    return {ref: float(np.nanmedian(maps[model.parameters[-1].name][labels == n])) for n, ref in rows}


@pytest.mark.parametrize("subject", ["sub-philips3TplateT1", "sub-siemens1p5TplateT1"])
def test_T1_of_the_nist_phantom_with_the_TR_term(shared_data: Path, subject: str) -> None:
    root = shared_data / "nist_phantom"
    images, times, sidecars = _load(root / subject / "anat", "*_IRT1", "InversionTime")
    model = InversionRecovery(tau=times, tr=[1000 * s["RepetitionTimePreparation"] for s in sidecars])
    medians = {r: v for r, v in _medians(root, subject, "T1", model, images).items() if 80 <= r <= 700}
    assert len(medians) >= 5
    assert {r: v for r, v in medians.items() if abs(v / r - 1) > 0.06} == {}


def test_T2_of_the_nist_T1_array_without_the_first_echo(shared_data: Path) -> None:
    root, subject = shared_data / "nist_phantom", "sub-philips3TplateT1"
    images, times, _ = _load(root / subject / "anat", "*_MESE", "EchoTime")
    medians = _medians(root, subject, "T2", T2Decay(tau=times[1:]), images[1:])
    medians = {r: v for r, v in medians.items() if 16 <= r <= 500}
    assert len(medians) >= 5
    assert {r: v for r, v in medians.items() if abs(v / r - 1) > 0.05} == {}


def test_signed_and_magnitude_brain_agree(shared_data: Path) -> None:
    folder = next((shared_data / "brain_in_vivo").rglob("*IRT1.json")).parent
    images, times, sidecars = _load(folder, "*_IRT1", "InversionTime")
    tr = 1000 * (sidecars[0].get("RepetitionTimePreparation") or sidecars[0]["RepetitionTime"])
    power = np.sqrt((images**2).mean(0))
    head = power > 0.15 * np.percentile(power, 99)
    T1 = []
    for signed in (True, False):
        model = InversionRecovery(tau=times, tr=tr, signed=signed)
        data = images if signed else abs(images)
        T1.append(NLLS().estimate(WeightedSeries(images=data, model=model, mask=head))["T1"][head])
    both = np.isfinite(T1[0]) & np.isfinite(T1[1])
    assert np.median(abs(T1[1][both] / T1[0][both] - 1)) < 0.01
    for t in T1:
        counts, edges = np.histogram(t[(t > 600) & (t < 1100)], bins=20)
        assert 800 <= edges[counts.argmax()] <= 1000
