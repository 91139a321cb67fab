"""No file that a run writes contains an absolute path, which would reveal folders and user names to recipients."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap.io.path_redaction import shown_path, without_folders, word_without_folders

from .conftest import SHAPE, TIMES, save, series_images, write_bids

FLIPS = (3.0, 10.0, 20.0)


def vfa(root: Path, subject: str) -> None:
    """Write flip angles, whose T1 depends on B1."""
    anat = root / f"sub-{subject}" / "anat"
    E = np.exp(-15.0 / np.linspace(700, 1500, int(np.prod(SHAPE))).reshape(SHAPE))
    rng = np.random.default_rng(0)
    for n, flip in enumerate(FLIPS, 1):
        a = np.deg2rad(flip)
        image = 5000 * np.sin(a) * (1 - E) / (1 - E * np.cos(a)) + rng.normal(0, 1, SHAPE)
        save(anat / f"sub-{subject}_flip-{n}_VFA.nii.gz", image.astype(np.float32))
        about = {"FlipAngle": flip, "RepetitionTimeExcitation": 0.015}
        (anat / f"sub-{subject}_flip-{n}_VFA.json").write_text(json.dumps(about))


def texts(folder: Path) -> dict[Path, str]:
    """Return every text in a folder, also in hidden ones."""
    kinds = (".json", ".html", ".tsv", "")
    return {p: p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file() and p.suffix in kinds}


def absolute_paths(text: str, *folders: Path) -> list[str]:
    """Return what looks like an absolute path, apart from addresses on the web."""
    found = [str(f) for f in folders if str(f) in text]
    text = re.sub(r"(data:|https?://)[^\s\"')<]+", "", text)  # pictures and addresses
    return found + re.findall(r"(?<![\w./<>+=\"*-])/(?:tmp|home|root|var|work|private|data|usr|mnt)/[^\s\"'<]*", text)


@pytest.fixture
def typed(rimap, monkeypatch):
    """Run `rimap …` as it is typed: the command line is that of the process."""

    def run(*args, status=0):
        monkeypatch.setattr(sys, "argv", ["rimap", *map(str, args)])
        done = rimap(*args)
        assert done.exit_code == status, done.output
        return done

    return run


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with a mask, labels and a map of B1, outside of every data set."""
    away = tmp_path / "alice's data" / "private"
    block = np.ones(SHAPE, np.uint8)
    save(away / "mask.nii.gz", block)
    save(away / "sub-01_dseg.nii.gz", block.astype(np.int16))
    save(away / "TB1map.nii.gz", np.full(SHAPE, 1.1, np.float32))
    save(away / "sigma.nii.gz", np.full(SHAPE, 1.5, np.float32))
    return away


def test_of_the_data_set_app(typed, elsewhere, tmp_path, monkeypatch):
    root, out = write_bids(tmp_path / "studies" / "bids"), tmp_path / "results" / "out"
    vfa(root, "01")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    bad = root / "sub-02" / "anat"
    save(bad / "sub-02_inv-1_IRT1.nii.gz", series_images()[0])
    (bad / "sub-02_inv-1_IRT1.json").write_text("{broken")
    options = [
        "--mask",
        elsewhere / "mask.nii.gz",
        f"--rois={elsewhere}/sub-{{sub}}_dseg.nii.gz",
        "--given",
        f"B1={elsewhere}/TB1map.nii.gz",
    ]
    typed("bids", root, out, "participant", "--skip-bids-validation", "--nprocs", 1, *options, status=2)
    typed("bids", root, out, "group", "--skip-bids-validation", "--nprocs", 1)
    typed("report", out)
    written = texts(out)
    assert {".json", ".html", ".tsv"} <= {p.suffix for p in written} and (out / "failed.tsv") in written
    for path, text in written.items():
        assert not absolute_paths(text, tmp_path, elsewhere, root), path
    page = (out / "sub-01_acq-VFA_T1map.html").read_text()
    assert "B1=TB1map.nii.gz" in page and "measured signal" not in page  # the given map is followed: in its copy
    about = json.loads((out / "sub-01" / "anat" / "sub-01_acq-VFA_T1map.json").read_text())
    assert about["GivenParameters"]["B1"].endswith("TB1map.nii.gz")


def test_of_loose_files(typed, elsewhere, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    image = save(tmp_path / "scans of bob" / "ir.nii.gz", np.moveaxis(series_images(), 0, -1))
    out = tmp_path / "results"
    times = ",".join(map(str, TIMES))
    options = [
        "--mask",
        elsewhere / "mask.nii.gz",
        "--rois",
        elsewhere / "sub-01_dseg.nii.gz",
        "--sigma",
        elsewhere / "sigma.nii.gz",
    ]
    typed("map", image, "-o", out, "--times-ms", times, "--tr-ms", 6000, "--sequence", "ir", *options)
    typed("report", out)
    for path, text in texts(out).items():
        assert not absolute_paths(text, tmp_path, elsewhere), path
    assert "has no measured signal" not in next(out.glob("*.html")).read_text()  # `rimap report` found the images


@pytest.mark.parametrize(
    ("options", "sequence"),
    [
        (("--estimator", "nlls"), "ir"),
        (("--estimator", "mle", "--fixed", "B=1.9"), "ir"),
        (("--estimator", "mle"), "t2"),
    ],
)
def test_no_smoothness_is_written_where_nothing_is_smoothed(options, sequence, typed, nifti, tmp_path):
    axis = ["--times-ms", ",".join(map(str, TIMES))]
    typed("map", nifti, "-o", tmp_path / "out", *axis, "--sequence", sequence, *options)
    written = texts(tmp_path / "out")
    assert written
    for path, text in written.items():
        assert "lambda_B" not in text and "λ_B" not in text, path


def test_infinite_smoothness_is_a_word(typed, nifti, tmp_path):
    axis = ["--times-ms", ",".join(map(str, TIMES))]
    typed("map", nifti, "-o", tmp_path / "out", *axis, "--sequence", "ir", "--estimator", "mle", "--lambda-b", "inf")
    about = json.loads((tmp_path / "out" / "ir_T1map.json").read_text())
    assert about["EstimatorSettings"]["lambda_B"] == "inf"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/bids/sub-01/a.nii.gz: damaged.", "sub-01/a.nii.gz: damaged."),
        ("no permission to write /data/bids. Give another.", "no permission to write bids. Give another."),
        ("see '/home/me/x y/m.nii'", "see 'x y/m.nii'"),
        (
            "rates in 1/s and T1/T2, https://doi.org/10.1/x, mm/px",
            "rates in 1/s and T1/T2, https://doi.org/10.1/x, mm/px",
        ),
        ("C:\\scans\\bob\\x.nii is gone", "x.nii is gone"),
        ("sub-01/anat/x.nii stays, ../y.nii too", "sub-01/anat/x.nii stays, ../y.nii too"),
    ],
)
def test_texts_without_folders(text, expected):
    assert without_folders(text, [Path("/data/bids")]) == expected


def test_words_of_a_command_line(tmp_path):
    assert word_without_folders("--given=B1=x.nii", tmp_path) == "--given=B1=x.nii"
    assert word_without_folders(f"B1={tmp_path}/maps/x.nii", tmp_path) == "B1=maps/x.nii"
    assert word_without_folders("/a b/c d/sub-{sub}_mask.nii.gz", tmp_path) == "sub-{sub}_mask.nii.gz"
    assert shown_path(tmp_path, [tmp_path]) == tmp_path.name


def test_pages_of_unoriented_images_keep_the_shape_of_voxels(typed, tmp_path):
    image = nib.Nifti1Image(np.moveaxis(series_images(), 0, -1), None)
    image.header.set_zooms((1.0, 3.0, 5.0, 1.0))
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, tmp_path / "u.nii.gz")
    typed(
        "map",
        tmp_path / "u.nii.gz",
        "-o",
        tmp_path / "out",
        "--times-ms",
        ",".join(map(str, TIMES)),
        "--sequence",
        "ir",
        "--estimator",
        "nlls",
    )
    for again in (False, True):
        if again:
            typed("report", tmp_path / "out")
        page = (tmp_path / "out" / "u_T1map_report.html").read_text()
        assert "orientation unknown" in page
        assert '"edges":[1.0,3.0,5.0]' in page  # of the viewer
        width, height = 10 * 3.0, 12 * 1.0  # of a picture: axes 2 and 1
        assert f"aspect-ratio: {width / height:.4f}" in page
