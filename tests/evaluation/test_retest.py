"""`rimap evaluate test-retest`: repeated scans, repeats inside a scan, and the halves of one scan."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap import Gaussian, InputError, InversionRecovery, T2Decay, WeightedSeries
from rimap.cli import build
from rimap.evaluation.experiment import Settings, experiments, run
from rimap.evaluation.measurements import HALVES, REPEATS, SCANS, groups_of, halves_of, measurements_of, repeats_of
from rimap.evaluation.tables import select

TE = (10.0, 20.0, 35.0, 50.0, 80.0, 120.0)
SHAPE, SIGMA = (24, 20, 2), 1.0


def write_scan(folder: Path, seed: int, *, te: tuple[float, ...] = TE, session: str = "", volumes: int = 1) -> None:
    """Write a decay series of tissue with T2 from 50 to 90 ms and noise."""
    rng = np.random.default_rng(seed)
    T2 = np.linspace(50, 90, int(np.prod(SHAPE))).reshape(SHAPE)
    anat = folder / "sub-01" / (f"ses-{session}" if session else "") / "anat"
    anat.mkdir(parents=True)
    stem = "sub-01_" + (f"ses-{session}_" if session else "")
    for k, t in enumerate(te, start=1):
        truth = T2Decay(tau=[t, t + 1]).signal([np.full(SHAPE, 100.0), T2])[0]
        images = truth[..., None] + SIGMA * rng.standard_normal((*SHAPE, volumes))
        values = images.astype(np.float32) if volumes > 1 else images[..., 0].astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 4, 1])), anat / f"{stem}echo-{k}_MESE.nii.gz")
        (anat / f"{stem}echo-{k}_MESE.json").write_text(json.dumps({"EchoTime": t / 1000}))


def result(folder: Path, out: Path, *estimators: str) -> list[dict]:
    settings = Settings(scans=(folder,), estimators=estimators or ("nlls",), sequence="t2", threads=1)
    return run(experiments()["test-retest"], settings, out).table


def test_two_sessions_are_repeated_scans_with_the_scatter_of_their_noise(tmp_path: Path) -> None:
    write_scan(tmp_path / "bids", 1, session="1")
    write_scan(tmp_path / "bids", 2, session="2")
    rows = result(tmp_path / "bids", tmp_path / "out", "mle")
    assert {r["measurements"] for r in rows} == {SCANS} and {r["repeats"] for r in rows} == {2.0}
    z = select(rows, metric="z", region="foreground")[0]
    assert (z["q75"] - z["q25"]) / 1.349 == pytest.approx(1.0, abs=0.1)  # standard deviations predict the differences
    assert select(rows, metric="difference", region="foreground")[0]["q50"] == pytest.approx(0, abs=0.5)
    assert (tmp_path / "out" / "test-retest" / "object_1.png").is_file()


def test_one_scan_is_split_into_odd_and_even_images(tmp_path: Path) -> None:
    write_scan(tmp_path / "bids", 1)
    rows = result(tmp_path / "bids", tmp_path / "out")
    assert {r["measurements"] for r in rows} == {HALVES} and {r["images"] for r in rows} == {3.0}
    summary = (tmp_path / "out" / "test-retest" / "summary.txt").read_text()
    assert "half of the images" in summary and "sub-01 t2: odd against even images" in summary


def test_repeats_inside_a_scan_are_told_apart(tmp_path: Path) -> None:
    write_scan(tmp_path / "bids", 1, volumes=3)
    ((label, files),) = groups_of([tmp_path / "bids"], "t2").items()
    found = measurements_of(label, files, "t2", None)
    assert found.kind == REPEATS and len(found.series) == 3
    assert [list(s.model.times) for s in found.series] == [list(TE)] * 3
    assert not np.array_equal(found.series[0].images, found.series[1].images)


def test_a_mask_says_which_voxels_count(tmp_path: Path) -> None:
    write_scan(tmp_path / "bids", 1)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:9, 4:8] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2, 4, 1])), tmp_path / "mask.nii.gz")
    settings = Settings(
        scans=(tmp_path / "bids",), estimators=("mle",), sequence="t2", mask=tmp_path / "mask.nii.gz", threads=1
    )
    table = run(experiments()["test-retest"], settings, tmp_path / "out").table
    assert {r["n"] for r in select(table, region="foreground")} == {48.0}


def test_halves_are_disjoint_and_interleaved() -> None:
    model = InversionRecovery(tau=[2000, 50, 500, 100, 4000, 200], tr=9000)
    series = WeightedSeries(images=np.arange(6.0)[:, None] + np.ones((6, 3)), model=model, noise=Gaussian(1.0))
    odd, even = halves_of(series)
    assert sorted(odd.model.times) == [50, 200, 2000] and sorted(even.model.times) == [100, 500, 4000]
    assert not set(odd.images[:, 0]) & set(even.images[:, 0])
    assert odd.model.times[0] == 2000 and odd.images[0, 0] == series.images[0, 0]
    assert repeats_of(series) == ()


def test_a_scan_with_too_few_images_for_halves_is_refused(tmp_path: Path) -> None:
    write_scan(tmp_path / "bids", 1, te=(10.0, 40.0, 80.0))
    with pytest.raises(InputError, match="expected 4 or more images"):
        result(tmp_path / "bids", tmp_path / "out")


def test_scans_on_other_grids_are_refused(tmp_path: Path) -> None:
    write_scan(tmp_path / "bids", 1, session="1")
    write_scan(tmp_path / "bids", 2, session="2")
    for file in (tmp_path / "bids" / "sub-01" / "ses-2" / "anat").glob("*.nii.gz"):
        image = nib.load(file)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([2.0, 2, 4, 1]) + np.eye(4, k=3) * 5), file)
    with pytest.raises(InputError, match="Register the scans"):
        result(tmp_path / "bids", tmp_path / "out")


def test_the_verb(tmp_path: Path) -> None:
    write_scan(tmp_path / "bids", 1)
    typed = ["evaluate", "test-retest", str(tmp_path / "bids"), "-o", str(tmp_path / "out"), "--estimators", "nlls"]
    done = CliRunner().invoke(build(), [*typed, "--sequence", "t2", "--quiet"])
    assert done.exit_code == 0 and "SD without it" in done.output, done.output
