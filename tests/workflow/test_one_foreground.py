"""Summary, report, group page, written mask and mask "auto" describe the same voxels with the same numbers."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.foreground import foreground
from rimap.io.results import find_results
from rimap.report.page_rewriting import page_again
from rimap.workflow import Request, map_series, memory
from rimap.workflow.bids import App, group, participant, summary

SHAPE = (24, 20, 3)
TIMES = {"IRT1": (50.0, 300.0, 900.0, 2500.0, 4000.0), "MESE": (10.0, 30.0, 60.0, 100.0, 150.0)}
HEAD = np.zeros(SHAPE, bool)
HEAD[5:18, 4:15] = True


def images_of(suffix: str, T: float, seed: int, pad: int = 0) -> np.ndarray:
    """Return magnitudes (N, *X) of a head in air, in so many more voxels of it on each side."""
    t = np.array(TIMES[suffix])[:, None, None, None]
    times = T * np.linspace(0.9, 1.1, SHAPE[0])[:, None, None] * np.ones(SHAPE)
    f = 1000 * HEAD * (1 - 1.9 * np.exp(-t / times) if suffix == "IRT1" else np.exp(-t / times))
    f = np.pad(f, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    e = np.random.default_rng(seed).normal(0, 12, (2, *f.shape))
    return np.hypot(f + e[0], e[1]).astype(np.float32)


def write(root: Path, sub: str, suffix: str, T: float, seed: int, pad: int = 0) -> None:
    key, number = ("InversionTime", "inv") if suffix == "IRT1" else ("EchoTime", "echo")
    anat = root / f"sub-{sub}" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    for n, (image, t) in enumerate(zip(images_of(suffix, T, seed, pad=pad), TIMES[suffix]), 1):
        stem = anat / f"sub-{sub}_{number}-{n}_{suffix}"
        nib.save(nib.Nifti1Image(image, np.diag([2.0, 2.0, 4.0, 1.0])), f"{stem}.nii.gz")
        about = {key: t / 1000} | ({"RepetitionTime": 9.0} if suffix == "IRT1" else {"RefocusingFlipAngle": 180})
        Path(f"{stem}.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects with T1 and T2, of whom the last two have no labels."""
    root = tmp_path_factory.mktemp("study") / "bids"
    root.mkdir()
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    labels = np.zeros(SHAPE, np.int16)
    labels[6:10, 5:10], labels[12:16, 6:12] = 1, 2
    for n in range(1, 7):
        write(root, f"{n:02d}", "IRT1", 800 + 20 * n, n)
        write(root, f"{n:02d}", "MESE", 60 + 2 * n, 10 + n)
        if n < 5:
            seg = root.parent / "seg" / f"sub-{n:02d}"
            seg.mkdir(parents=True)
            nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2.0, 4.0, 1.0])), seg / f"sub-{n:02d}_dseg.nii.gz")
            (seg / f"sub-{n:02d}_dseg.tsv").write_text("index\tname\n1\t=cmd|calc\n2\twhite matter\n")
    return root


def app(study: Path, out: Path, **more: Any) -> App:
    keys = ("rois", "masks")
    request = Request(inputs=study, out=out, threads=1, **{k: v for k, v in more.items() if k not in keys})
    return App(request=request, validate=False, nprocs=1, **{k: v for k, v in more.items() if k in keys})


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def mapped(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """The maps of the study by its defaults, and its group level."""
    out = tmp_path_factory.mktemp("mapped") / "out"
    run = participant(app(study, out))
    assert not run.failures and len(run.results) == 12
    return out, run, group(app(study, out))


def test_the_mask_that_is_written_is_the_foreground_of_the_images(study: Path, mapped: Any) -> None:
    _, run, _ = mapped
    for result in run.results:
        mask = next(p for p in result.maps if p.name.endswith("_mask.nii.gz"))
        assert mask.name.split("_")[1] == ("desc-signal" if "IRT1" in result.label else "desc-signalMESE")
        series = rimap.read(study / result.label.split()[0], sequence="ir" if "IRT1" in result.label else "t2")
        inside = read(mask) > 0
        assert (inside == foreground(series.images)).all() and (inside == HEAD).all()
        about = json.loads(Path(str(mask).replace(".nii.gz", ".json")).read_text())
        assert about["Type"] == "ROI" and "Otsu" in about["HowFound"] and about["Sources"]
        np.testing.assert_array_equal(nib.load(mask).affine, nib.load(result.maps[0]).affine)


def test_group_numbers_are_subject_numbers_to_the_last_digit(mapped: Any) -> None:
    _, run, together = mapped
    rows = {r["series"]: r for r in together.rows}
    assert len(rows) == len(together.rows) == 12
    for result in run.results:
        row, s = rows[result.maps[0].name.removesuffix(".nii.gz")], result.statistics[result.main]
        got = [row[k] for k in ("n", "median", "q25", "q75", "mean", "sd", "share_ok")]
        assert got == [s.n, s.median, s.q25, s.q75, s.mean, s.sd, result.share_ok]


def test_the_report_and_a_second_report_have_these_numbers(mapped: Any) -> None:
    from rimap.report.number_formats import number

    _, run, _ = mapped
    first = run.results[0]
    median = f"<b>{number(first.statistics[first.main].median)} ms</b>"
    assert median in first.report.read_text()
    (result,) = find_results(first.maps[0])
    assert page_again(result).problem == "" and median in first.report.read_text()
    assert (result.described().inside == HEAD).all() and result.described().words == first.where


def test_air_makes_no_outliers(study: Path, tmp_path: Path) -> None:
    """A subject in three times as much air is like the others, whatever the estimates in air are."""
    root = tmp_path / "bids"
    for n in range(1, 7):
        write(root, f"{n:02d}", "IRT1", 900 + n, n, pad=12 if n == 6 else 0)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    participant(app(root, tmp_path / "out", estimator="nlls"))
    together = group(app(root, tmp_path / "out"))
    assert len(together.rows) == 6 and not any(r["outlier"] for r in together.rows)
    assert all(r["voxels"] == HEAD.sum() and r["share_ok"] > 0.99 for r in together.rows)


def test_every_series_names_its_estimator(mapped: Any) -> None:
    out, run, together = mapped
    text = "\n".join(summary.of_participants(run))
    for name in {r.estimator for r in run.results}:
        assert name in text
    rows = table(out / "group.tsv")
    assert {r["estimator"] for r in rows} == {r.estimator.split(" – ")[0] for r in run.results}
    page = (out / "group.html").read_text()
    assert all(f"<td>{r['estimator']}</td>" in page for r in rows)
    assert "estimators" in "\n".join(summary.of_group(together))


def test_region_tables_are_put_together_and_no_subject_is_lost(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seg = study.parent / "seg"
    for n in range(1, 7):
        rois = f"{seg}/sub-{{sub}}/sub-{{sub}}_dseg.nii.gz" if n < 5 else None
        some = {"participant_labels": (f"{n:02d}",), "sequence": "ir", "estimator": "nlls"}
        participant(app(study, out, rois=None if rois is None else Path(rois), **some))
    together = group(app(study, out))
    rows, whole = table(out / "group.tsv"), table(out / "group_rois.tsv")
    assert {r["participant_id"] for r in rows} == {f"sub-{n:02d}" for n in range(1, 7)}
    assert sorted(together.without_labels) == ["sub-05_T1map", "sub-06_T1map"]
    html = (out / "group.html").read_text()
    assert "sub-05_T1map" in html[html.index("Without labels") : html.index("<h2>")]
    assert any("sub-06_T1map" in line for line in summary.warnings_of_group(together))
    for n in range(1, 5):
        own = table(out / f"sub-{n:02d}_T1map_rois.tsv")
        mine = [r for r in whole if r["participant_id"] == f"sub-{n:02d}"]
        assert [{k: r[k] for k in own[0]} for r in mine] == own and len(own) == 2
        of_group = [r for r in rows if r["participant_id"] == f"sub-{n:02d}" and r["region"] in "12"]
        same = (
            "voxels",
            "n",
            "median",
            "q25",
            "q75",
            "iqr",
            "mean",
            "sd",
            "share_ok",
            "share_at_bound",
            "share_off_model",
        )
        assert [[r[k] for k in same] for r in of_group] == [[r[k] for k in same] for r in own]
        assert own[0]["name"] == "'=cmd|calc" == mine[0]["name"]  # which a spreadsheet does not execute
    labelled = group(app(study, out, rois=seg))
    assert {r["participant_id"] for r in labelled.rows} == {f"sub-{n:02d}" for n in range(1, 7)}
    assert len(labelled.without_labels) == 2 and not labelled.failures


def test_the_group_shows_the_warnings_of_each_map(study: Path, mapped: Any, tmp_path: Path) -> None:
    out, _, _ = mapped
    path = next(p for p in sorted(out.rglob("sub-03_T1map.json")))
    about, before = json.loads(path.read_text()), path.read_text()
    about["Warnings"] = ["B is 0.3 in 12 voxels: do not rely on these maps.", *about["Warnings"]]
    path.write_text(json.dumps(about))
    try:
        together = group(app(study, out))
    finally:
        path.write_text(before)
    assert together.warnings[0] == (about["Warnings"][0], ["sub-03_T1map"])
    html = (out / "group.html").read_text()
    part = html[html.index("Warnings about the maps") :]
    assert part.index(about["Warnings"][0]) < part.index("sub-03_T1map.html")
    assert any(about["Warnings"][0] in line for line in summary.warnings_of_group(together))
    counts = {r["series"]: int(r["warnings"]) for r in table(out / "group.tsv")}
    assert counts["sub-03_T1map"] == len(about["Warnings"])


def test_mask_auto_is_the_mask_that_is_written(study: Path, mapped: Any, tmp_path: Path) -> None:
    out, _, _ = mapped
    again = participant(app(study, tmp_path / "out", masks="auto", participant_labels=("01",)))
    assert not again.failures
    for result in again.results:
        mask = next(p for p in result.maps if p.name.endswith("_mask.nii.gz"))
        (before,) = out.rglob(mask.name)
        status = next(p for p in result.maps if "desc-status" in p.name)
        assert (read(mask) == read(before)).all()
        assert ((read(status) != rimap.Status.OUTSIDE_MASK) == (read(mask) > 0)).all()
        assert result.where == "in the mask" and any("found from the images" in n for n in result.notes)
    series = rimap.read(study / "sub-01", sequence="ir")
    auto = rimap.WeightedSeries(series.images, series.model, mask="auto")
    assert (auto.mask == HEAD).all() and rimap.read(
        study / "sub-01", sequence="ir", mask="auto"
    ).mask.sum() == HEAD.sum()
    with pytest.raises(rimap.InputError, match="auto"):
        rimap.WeightedSeries(series.images, series.model, mask="brain.nii.gz")


@pytest.mark.parametrize("mask", [None, "auto"])
def test_slabs_write_the_mask_of_the_whole(mask: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = nib.Nifti1Image(np.moveaxis(images_of("IRT1", 900, 3), 0, -1), np.diag([2.0, 2.0, 4.0, 1.0]))
    nib.save(image, tmp_path / "x.nii")
    request = {
        "inputs": tmp_path / "x.nii",
        "sequence": "ir",
        "times_ms": TIMES["IRT1"],
        "mask": mask,
        "estimator": "nlls",
    }
    whole = map_series(Request(out=tmp_path / "whole", threads=1, **request))
    with monkeypatch.context() as small:
        small.setattr(memory, "needed", lambda *a, **k: 1 << 61)
        small.setattr(memory, "slab_voxels", lambda *a: 2 * SHAPE[0] * SHAPE[1])
        parts = map_series(Request(out=tmp_path / "parts", threads=1, **request))
    files = {p.name: p for p in whole.results[0].maps}
    assert "x_desc-signal_mask.nii.gz" in files
    for path in parts.results[0].maps:
        np.testing.assert_allclose(read(path), read(files[path.name]), rtol=1e-5, err_msg=path.name)
    assert whole.results[0].where == re.sub(" in .* slices", "", parts.results[0].where)


def test_a_mask_that_is_given_is_what_is_described(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.moveaxis(images_of("IRT1", 900, 3), 0, -1), np.eye(4)), tmp_path / "x.nii")
    half = HEAD & (np.indices(SHAPE)[0] < 12)
    nib.save(nib.Nifti1Image(half.astype(np.uint8), np.eye(4)), tmp_path / "half.nii")
    request = {"inputs": tmp_path / "x.nii", "sequence": "ir", "times_ms": TIMES["IRT1"], "estimator": "nlls"}
    map_series(Request(out=tmp_path / "out", mask=tmp_path / "half.nii", **request))
    assert (read(tmp_path / "out" / "x_desc-signal_mask.nii.gz") > 0).tolist() == half.tolist()
    about = json.loads((tmp_path / "out" / "x_desc-signal_mask.json").read_text())
    assert "half.nii" in about["HowFound"] and str(tmp_path) not in about["HowFound"]


@pytest.mark.parametrize("snr", [6, 15, 40])
@pytest.mark.parametrize("kind", ["magnitude", "signed"])
def test_air_is_no_foreground_and_tissue_is(snr: int, kind: str) -> None:
    rng = np.random.default_rng(1)
    t = np.array([50.0, 300.0, 900.0, 1500.0, 2500.0, 4000.0])[:, None, None]
    tissue = np.zeros((64, 64), bool)
    tissue[16:48, 12:50] = True
    f = tissue * (1 - 1.9 * np.exp(-t / np.where(np.indices((64, 64))[0] > 30, 800.0, 1400.0)))
    e = rng.normal(0, 1 / snr, (2, *f.shape))
    found = foreground(np.hypot(f + e[0], e[1]) if kind == "magnitude" else f + e[0])
    assert found[tissue].mean() > 0.99 and found[~tissue].mean() < 0.01


def test_tissue_alone_is_not_split() -> None:
    t = np.array([10.0, 30.0, 60.0, 100.0])[:, None, None]
    T2 = np.where(np.indices((40, 40))[0] > 20, 60.0, 90.0)
    noise = np.random.default_rng(0).normal(0, 0.02, (4, 40, 40))
    assert foreground(np.exp(-t / T2) + noise).all()
    assert foreground(np.ones((3, 5, 5))).all() and foreground(np.zeros((3, 5, 5))).all()
    assert foreground(np.full((2, 4), np.nan)).all()


@pytest.mark.parametrize("n", [1, 12, 60])
@pytest.mark.parametrize("factor", [1e3, 1e10, 1e36])
def test_a_few_voxels_that_are_far_too_bright_do_not_hide_the_object(n: int, factor: float) -> None:
    x, y = np.mgrid[:96, :96]
    head = ((x - 48) / 35) ** 2 + ((y - 48) / 42) ** 2 < 1
    rng = np.random.default_rng(0)
    images = np.hypot(500 * head + rng.normal(0, 15, (4, *head.shape)), rng.normal(0, 15, (4, *head.shape)))
    images.reshape(4, -1)[2, rng.choice(np.flatnonzero(head), n, replace=False)] *= factor
    assert (foreground(images) == head).mean() > 0.995


@pytest.mark.parametrize("radius", [3, 4, 6, 8])
def test_a_small_object_is_not_taken_for_voxels_that_are_too_bright(radius: int) -> None:
    """Its ghost is no object. All voxels are described if the object is less than a hundredth of them."""
    x, y = np.mgrid[:96, :96]
    thing = (x - 48) ** 2 + (y - 48) ** 2 < radius**2
    rng = np.random.default_rng(0)
    signal = 1000 * thing + 20 * np.roll(thing, 30, 0)
    images = np.hypot(signal + rng.normal(0, 3, (4, *thing.shape)), rng.normal(0, 3, (4, *thing.shape)))
    found = foreground(images)
    assert found.all() or (found == thing).mean() > 0.995
