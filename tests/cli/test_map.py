"""`rimap map` from files to files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap.io import find_series
from rimap.workflow import Request
from rimap.workflow.checks import record_for

NLLS = ("--estimator", "nlls")


def data(path):
    return np.asarray(nib.load(path).dataobj)


def test_bids_in_derivative_out(bids, rimap, tmp_path):
    result = rimap("map", bids, "-o", tmp_path / "out", *NLLS)
    assert result.exit_code == 0, result.output
    anat = tmp_path / "out" / "sub-01" / "anat"
    T1 = data(anat / "sub-01_T1map.nii.gz")
    truth = np.linspace(0.7, 1.5, T1.size).reshape(T1.shape)
    assert np.median(abs(T1 / truth - 1)) < 0.05
    sidecar = json.loads((anat / "sub-01_T1map.json").read_text())
    assert sidecar["Units"] == "s" and sidecar["Estimator"] == "nlls"
    assert (tmp_path / "out" / "sub-01_T1map.html").read_text().startswith("<!DOCTYPE html>")


def test_summary_fits_one_screen_and_says_what_matters(bids, rimap, tmp_path):
    result = rimap("map", bids, "-o", tmp_path / "out", *NLLS)
    lines = result.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 160
    for word in (
        "T1",
        "median",
        "IQR",
        " ms",
        "ok (",
        "σ = ",
        "residuals",
        "nlls",
        "as requested",
        "T1map.html",
        " s;",
    ):
        assert word in result.stdout, word
    assert result.stderr == ""


def test_quiet_says_nothing(bids, rimap, tmp_path):
    result = rimap("map", bids, "-o", tmp_path / "out", *NLLS, "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")


def test_loose_nifti(nifti, rimap, tmp_path):
    args = ("--sequence", "ir", "--times-ms", "50, 400, 1100, 2500", "--tr-ms", "6000")
    result = rimap("map", nifti, "-o", tmp_path / "out", *args, *NLLS)
    assert result.exit_code == 0, result.output
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"ir_T1map.nii.gz", "ir_T1map.json", "ir_M0map.nii.gz", "ir_T1map_report.html"} <= names


def test_several_three_dimensional_files(make, rimap, tmp_path):
    files = [make.save(tmp_path / f"TI_{t:04d}.nii.gz", x) for t, x in zip(make.times, make.images())]
    args = ("--sequence", "ir", "--times-ms", ",".join(map(str, make.times)))
    result = rimap("map", *files, "-o", tmp_path / "out", *args, *NLLS)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "TI_T1map.nii.gz").is_file()
    assert "warning: TR is not known, so the model has no TR term" in " ".join(result.stdout.split())


def test_options_reach_the_maps(bids, make, rimap, tmp_path):
    mask = np.zeros(make.shape, np.uint8)
    mask[2:9, 2:8] = 1
    labels = np.zeros(make.shape, np.int16)
    labels[2:5, 2:8], labels[6:9, 2:8] = 4, 9
    (tmp_path / "l.tsv").write_text("index\tname\n4\tputamen\n")
    out = tmp_path / "out"
    result = rimap(
        "map", bids, "-o", out, *NLLS, "--mask", make.save(tmp_path / "m.nii.gz", mask), "--fill", "0", "--rates",
        "--rois", make.save(tmp_path / "l.nii.gz", labels), "--sigma", "1.5", "--tr-ms", "7000", "--threads", "1",
        "--magnitude",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    T1 = data(out / "sub-01" / "anat" / "sub-01_T1map.nii.gz")
    assert ((T1 != 0) == (mask != 0)).all()
    R1 = data(out / "sub-01" / "anat" / "sub-01_R1map.nii.gz")
    np.testing.assert_allclose(R1[mask != 0] * T1[mask != 0], 1, rtol=1e-5)
    sidecar = json.loads((out / "sub-01" / "anat" / "sub-01_T1map.json").read_text())
    assert sidecar["NoiseSigma"] == 1.5 and sidecar["RepetitionTimePreparation"] == 7
    lines = (out / "sub-01_T1map_rois.tsv").read_text().splitlines()
    header, first = lines[0].split("\t"), lines[1].split("\t")
    row = dict(zip(header, first))
    assert len(lines) == 3 and (row["label"], row["name"]) == ("4", "putamen") and row["unit"] == "ms"
    assert float(row["median"]) == pytest.approx(1000 * np.median(T1[labels == 4]), rel=1e-4)
    assert dict(zip(header, lines[2].split("\t")))["name"] == "n/a" and "putamen" in result.stdout
    assert int(row["n"]) == (labels == 4).sum()
    assert "1.50 (given)" in result.stdout and "in the mask" in result.stdout


def test_sigma_from_a_file(bids, make, rimap, tmp_path):
    sigma = make.save(tmp_path / "s.nii.gz", np.full(make.shape, 2.0, np.float32))
    result = rimap("map", bids, "-o", tmp_path / "out", *NLLS, "--sigma", sigma)
    assert result.exit_code == 0 and "σ = 2.00 (given, median of a map)" in result.stdout


def test_several_series_a_line_each(bids, make, rimap, tmp_path):
    for subject in ("02", "03"):
        make.bids(bids, subject=subject)
    result = rimap("map", bids, "-o", tmp_path / "out", *NLLS)
    assert result.exit_code == 0, result.output
    assert [line.split("  ")[0] for line in result.stdout.splitlines()[:3]] == [f"sub-0{n} IRT1" for n in (1, 2, 3)]
    assert len(list((tmp_path / "out").glob("*.html"))) == 3
    one = rimap("map", bids, "-o", tmp_path / "one", *NLLS, "--participant-label", "sub-02")
    assert one.exit_code == 0 and [p.name for p in (tmp_path / "one").glob("*.html")] == ["sub-02_T1map.html"]


def test_first_echo_left_out(make, rimap, tmp_path):
    images = 100 * np.exp(-np.array([10, 20, 40, 80]) / 60)[:, None, None, None] * np.ones((4, *make.shape))
    images[0] *= 0.7
    folder = make.bids(tmp_path / "t2", images.astype(np.float32), (10, 20, 40, 80), suffix="MESE")
    result = rimap("map", folder, "-o", tmp_path / "out", *NLLS, "--skip-first", "1")
    assert result.exit_code == 0, result.output
    T2 = data(tmp_path / "out" / "sub-01" / "anat" / "sub-01_T2map.nii.gz")
    np.testing.assert_allclose(T2, 0.06, rtol=1e-3)


def test_odd_voxels_are_no_error(bids, make, rimap, tmp_path):
    images = make.images()
    images[1, 0, 0, 0], images[2, 1, 0, 0] = np.nan, np.inf
    folder = make.bids(tmp_path / "odd", images)
    result = rimap("map", folder, "-o", tmp_path / "out", *NLLS)
    assert result.exit_code == 0 and "2 not finite" in result.stdout
    assert np.isnan(data(tmp_path / "out" / "sub-01" / "anat" / "sub-01_T1map.nii.gz")).sum() == 2


def test_the_validator_accepts_out_with_reports_and_tables(bids, make, rimap, tmp_path):
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or pytest.skip(
        "no validator"
    )
    labels = make.save(tmp_path / "l.nii.gz", np.ones(make.shape, np.int16))
    assert rimap("map", bids, "-o", tmp_path / "out", *NLLS, "--rois", labels, "--rates").exit_code == 0
    assert rimap("map", bids, "-o", tmp_path / "out", "--estimator", "mle", "--rois", labels).exit_code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"sub-01_T1map.html", "sub-01_desc-mle_T1map.html"}
    done = subprocess.run([validator, "--json", str(tmp_path / "out")], capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [i for i in issues if i["severity"] == "error"] == []


def run(*args, **more):
    return subprocess.run([sys.executable, "-m", "rimap", *map(str, args)], capture_output=True, text=True, **more)


def test_mapping_imports_no_torch_and_prints_no_library_warnings(bids, tmp_path):
    code = """
import sys
from rimap.cli import main
try:
    main()
finally:
    assert not [m for m in ("torch", "matplotlib", "lightning_fabric") if m in sys.modules]
"""
    command = [sys.executable, "-c", code, "map", bids, "-o"]
    subprocess.run([*command, tmp_path / "compiled"], capture_output=True, timeout=300)  # which says that it compiles
    done = subprocess.run([*command, tmp_path / "out"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_progress_bar_on_a_terminal_only(bids, tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rimap", "map", str(bids), "-o", str(tmp_path / "a"), *NLLS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:
                break
            if not block:
                break
            seen += block
        process.communicate()
    os.close(ours)
    assert process.returncode == 0 and b"sub-01 IRT1" in seen and b"%" in seen
    assert run("map", bids, "-o", tmp_path / "b", *NLLS).stderr == ""


def test_output_that_cannot_be_shown_does_not_stop_the_run(bids, tmp_path):
    done = run("map", bids, "-o", tmp_path / "out", *NLLS, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_no_bug(bids, tmp_path):
    command = f'"{sys.executable}" -m rimap map "{bids}" -o "{tmp_path / "out"}" --estimator nlls | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "bug" not in done.stderr and "Traceback" not in done.stderr


def test_a_polarity_that_is_told_is_another_setting(bids, tmp_path):
    (files,) = find_series(bids)
    asked = (Request(inputs=(bids,), out=tmp_path / "out", estimator="nlls", signed=s) for s in (None, False, True))
    assert len({json.dumps(record_for(request, files).wanted, default=str) for request in asked}) == 3
