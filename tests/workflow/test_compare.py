"""Comparisons of maps: known differences are found, what does not belong together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import rimap
from rimap import InputError, Status
from rimap.cli import build
from rimap.workflow.comparison_files import columns, write

AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])
SHAPE = (24, 20, 3)
T1 = np.random.default_rng(3).uniform(600, 1600, SHAPE)
SD = 0.02 * T1
LABELS = (1 + np.arange(24) // 6)[:, None, None] * np.ones(SHAPE, np.uint8)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **about: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values), affine), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    return path


def scan(folder: Path, stem: str, seed: int, *, factor: float = 1.0, sd_factor: float = 1.0) -> Path:
    """A T1 map with noise of a known SD, its status and its SD map, as rimap writes them."""
    about = {"Estimator": "nlls", "SignalModel": "ir", "Sources": [stem], "Units": "s"}
    x = factor * T1 + SD * np.random.default_rng(seed).standard_normal(SHAPE)
    status = np.zeros(SHAPE, np.uint8)
    status[0] = Status.OFF_MODEL
    save(folder / f"{stem}_desc-sd_T1map.nii.gz", np.float32(sd_factor * SD / 1000), **about)
    save(folder / f"{stem}_desc-status_T1map.nii.gz", status, **{k: v for k, v in about.items() if k != "Units"})
    return save(folder / f"{stem}_T1map.nii.gz", np.float32(x / 1000), **about)


@pytest.fixture
def repeats(tmp_path: Path) -> Path:
    """Two subjects with two sessions each."""
    seed = 0
    for subject, factor in (("01", 1.0), ("02", 1.2)):
        for session in ("1", "2"):
            seed += 1
            stem = f"sub-{subject}_ses-{session}"
            scan(tmp_path / "out" / f"sub-{subject}" / f"ses-{session}" / "anat", stem, seed, factor=factor)
    return tmp_path / "out"


def test_two_maps_with_a_known_difference(tmp_path: Path) -> None:
    a, b = scan(tmp_path, "a", 1), scan(tmp_path, "b", 2, factor=1.05)
    found = rimap.compare(a, b, save(tmp_path / "labels.nii.gz", LABELS.astype(np.uint8)))
    whole = found.rows[0]
    assert whole["label"] == "whole" and whole["n"] == T1.size - T1[0].size  # off model does not count
    assert whole["bias"] == pytest.approx(0.05 * T1[1:].mean(), rel=0.05) and whole["unit"] == "ms"
    assert whole["within_cv_percent"] == pytest.approx(100 * np.sqrt(0.02**2 + 0.0488**2 / 2), rel=0.05)
    assert whole["icc"] > 0.9
    assert [r["label"] for r in found.rows[1:5]] == ["1", "2", "3", "4"] and found.rows[5]["level"] == "regions"
    assert list(whole) == list(columns())
    every = rimap.compare(a, b, include=["off_model"]).rows[0]
    assert every["n"] == T1.size


@pytest.mark.parametrize(("factor", "said"), [(1.0, ""), (0.4, "too small"), (3.0, "too large")])
def test_standard_deviations_are_held_against_the_differences(tmp_path: Path, factor: float, said: str) -> None:
    a, b = (scan(tmp_path, stem, seed, sd_factor=factor) for stem, seed in (("a", 1), ("b", 2)))
    found = rimap.compare(a, b)
    row = found.rows[0]
    assert row["z_sd"] == pytest.approx(1 / factor, rel=0.06)
    assert (row["z_share_95"] == pytest.approx(0.95, abs=0.02)) == (factor == 1)
    assert any(said in text for text in found.notes if "standard deviations are too" in text) == bool(said)


def test_all_repeats_of_a_derivative_and_the_agreement_over_subjects(repeats: Path) -> None:
    found = rimap.compare(repeats)
    assert [p.label for p in found.pairs] == [
        "sub-01_ses-2_T1map − sub-01_ses-1_T1map",
        "sub-02_ses-2_T1map − sub-02_ses-1_T1map",
    ]
    (row,) = found.over_subjects
    assert row["n"] == 2 and row["repeats"] == 2 and row["level"] == "subjects" and not found.over_repeats
    assert row["median_first"] == pytest.approx(1.1 * np.median(T1[1:]), rel=0.02)


def test_more_than_two_repeats_are_taken_together(repeats: Path) -> None:
    scan(repeats / "sub-01" / "ses-3" / "anat", "sub-01_ses-3", 9)
    found = rimap.compare(repeats)
    assert len(found.pairs) == 4
    (row,) = found.over_repeats
    assert row["repeats"] == 3 and row["within_cv_percent"] == pytest.approx(2.0, rel=0.05)


def test_folders_are_paired_by_name_session_or_subject(repeats: Path, tmp_path: Path) -> None:
    one, other = (repeats / "sub-01" / f"ses-{n}" for n in (1, 2))
    assert rimap.compare(one, other).pairs[0].label == "sub-01_ses-2_T1map − sub-01_ses-1_T1map"
    for n in ("01", "02"):
        scan(tmp_path / "again" / f"sub-{n}" / "anat", f"sub-{n}_ses-1", 20 + int(n))
    found = rimap.compare(repeats, tmp_path / "again")
    assert len(found.pairs) == 2 and any("without a partner" in text for text in found.notes)
    assert found.pairs[0].names == ("out: sub-01_ses-1_T1map", "again: sub-01_ses-1_T1map")


def test_what_cannot_be_compared_is_refused_with_the_remedy(tmp_path: Path, repeats: Path) -> None:
    a = scan(tmp_path, "a", 1)
    small = save(tmp_path / "small_T1map.nii.gz", np.float32(T1[:9] / 1000), Units="s")
    moved = save(
        tmp_path / "moved_T1map.nii.gz", np.float32(T1 / 1000), AFFINE + 5 * np.eye(4)[:, [3, 0, 1, 2]].T, Units="s"
    )
    other = save(tmp_path / "x_T2map.nii.gz", np.float32(T1 / 1000), Units="s")
    for b, words in (
        (small, r"expected maps on one grid, got 24 × 20 × 3 and 9 × 20 × 3 voxels.*resample"),
        (moved, "other places"),
        (other, r"expected two maps of the same thing, got T1 \(ms\) and T2 \(ms\)"),
        (a, "the same map twice"),
        (tmp_path / "nowhere.nii.gz", "expected an existing file"),
        (None, "Give the second map as well"),
    ):
        with pytest.raises(InputError, match=words):
            rimap.compare(a, b)
    with pytest.raises(InputError, match="differ in ses- or run-"):
        rimap.compare(repeats / "sub-01" / "ses-1")
    nothing = save(tmp_path / "nothing_T1map.nii.gz", np.full(SHAPE, np.nan, np.float32), Units="s")
    with pytest.raises(InputError, match="no voxel has a value that counts"):
        rimap.compare(a, nothing)


def test_maps_of_the_same_images_are_said_to_share_their_noise(tmp_path: Path) -> None:
    a, b = scan(tmp_path / "one", "x", 1), scan(tmp_path / "two", "x", 2)
    assert any("from the same images" in text for text in rimap.compare(a, b).notes)


def test_command_line_writes_maps_of_differences_and_a_page(tmp_path: Path) -> None:
    a, b = scan(tmp_path, "a", 1), scan(tmp_path, "b", 2)
    out = tmp_path / "out"
    done = CliRunner().invoke(build(), ["compare", str(a), str(b), "-o", str(out)])
    assert done.exit_code == 0, done.output
    difference = nib.load(out / "b_T1map_difference.nii.gz")
    expected = nib.load(b).get_fdata() - nib.load(a).get_fdata()
    np.testing.assert_allclose(difference.get_fdata()[1:], expected[1:], atol=1e-6)
    assert np.isnan(difference.get_fdata()[0]).all()
    np.testing.assert_array_equal(difference.affine, AFFINE)
    assert json.loads((out / "b_T1map_difference.json").read_text())["Units"] == "s"
    z = nib.load(out / "b_T1map_z.nii.gz").get_fdata()
    np.testing.assert_allclose(z[1:], (expected * 1000 / (np.sqrt(2) * SD))[1:], rtol=1e-3, atol=1e-3)
    header = (out / "compare.tsv").read_text().splitlines()[0].split("\t")
    assert header == list(json.loads((out / "compare.json").read_text()))
    page = (out / "compare.html").read_text()
    assert "data:image/png" in page and str(tmp_path) not in page and "<script" not in page
    assert "Slices 1, 2, 3." in page  # counted from 1, as in the report
    assert CliRunner().invoke(build(), ["compare", str(a), str(b), "-o", str(out)]).exit_code == 2


def test_the_maps_of_an_earlier_and_larger_comparison_are_removed(repeats: Path, tmp_path: Path) -> None:
    """Files of others in the folder stay, whatever their names."""
    out = tmp_path / "comparison"
    run = CliRunner()
    assert run.invoke(build(), ["compare", str(repeats), "-o", str(out)]).exit_code == 0
    assert len(list(out.glob("*_pair-*_difference.nii.gz"))) == 2
    mine = save(out / "mine_difference.nii.gz", np.zeros(SHAPE, "f4"), Description="my own")
    bare = save(out / "bare_z.nii.gz", np.zeros(SHAPE, "f4"))
    bare.with_name("bare_z.json").unlink()
    a, b = scan(tmp_path, "a", 1), scan(tmp_path, "b", 2)
    assert run.invoke(build(), ["compare", str(a), str(b), "-o", str(out), "--overwrite"]).exit_code == 0
    left = {path.name for path in out.glob("*.nii.gz")}
    assert left == {"b_T1map_difference.nii.gz", "b_T1map_z.nii.gz", mine.name, bare.name}
    assert not list(out.glob("*_pair-*"))


def test_a_copy_of_a_map_is_no_repeat(tmp_path: Path) -> None:
    a = scan(tmp_path / "one", "a", 1)
    b = scan(tmp_path / "two", "b", 1)
    notes = " ".join(rimap.compare(a, b).notes)
    assert "have the same values in all voxels: one is a copy of the other" in notes
    assert "standard deviations are too" not in notes


def test_maps_of_one_scan_by_two_estimators_are_no_repeats(repeats: Path, tmp_path: Path) -> None:
    alone = rimap.compare(repeats)
    for path in sorted(repeats.rglob("*_T1map.*")):
        if "_desc-" not in path.name:
            other = path.with_name(path.name.replace("_T1map", "_desc-mle_T1map"))
            if path.suffix == ".json":
                other.write_text(path.read_text().replace("nlls", "mle"))
            else:
                nib.save(nib.Nifti1Image(np.float32(nib.load(path).get_fdata() * 1.3), AFFINE), other)
    both = rimap.compare(repeats)
    assert [p.label for p in both.pairs if "mle" not in p.label] == [p.label for p in alone.pairs]
    assert len(both.pairs) == 2 * len(alone.pairs) and not both.over_repeats
    assert all(p.first.about["Estimator"] == p.second.about["Estimator"] for p in both.pairs)
    ones, others = ([r for r in both.over_subjects if r["first"] == name] for name in ("nlls", "mle"))
    assert [r["n"] for r in (*ones, *others)] == 2 * [r["n"] for r in alone.over_subjects]
    assert ones[0]["bias"] == pytest.approx(alone.over_subjects[0]["bias"])


@pytest.mark.parametrize(("units", "name"), [("1/ms", "R1"), ("1/s", "R1"), ("s", "T1"), ("ms", "T1"), (None, "T1")])
def test_a_map_of_differences_has_the_unit_of_the_first_map(tmp_path: Path, units: str | None, name: str) -> None:
    in_ms, per_ms = T1 / (1000 if units in ("s", None) else 1), (1000 if units == "1/s" else 1) / T1
    x = np.float32(in_ms if name == "T1" else per_ms)
    a, b = (
        save(tmp_path / f"{stem}_{name}map.nii.gz", values, **({"Units": units} if units else {}))
        for stem, values in (("a", x), ("b", np.float32(1.1 * x)))
    )
    write(rimap.compare(a, b), tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*_difference.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata(), 0.1 * x, rtol=1e-4)
    assert json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["Units"] == (units or "s")
