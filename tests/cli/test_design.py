"""`rimap design`: what it prints and writes, from options and from a scan."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest

RRSG = ("--times-ms", "50,400,1100,2500", "--tr-ms", "2550")


def test_a_design_beside_the_present_protocol(rimap, tmp_path) -> None:
    out = tmp_path / "design"
    done = rimap("design", "--sequence", "ir", "--T", "600-1600", "--images", "6", *RRSG, "-o", str(out))
    assert done.exit_code == 0, done.output
    for words in (
        "Best protocol (6 images",
        "TI 50, 400, 1100, 2500 ms; TR 2550 ms",
        "At the same scan time the worst",
        "SNR 50",
    ):
        assert words in done.stdout
    about = json.loads((out / "design.json").read_text())
    assert about["best"]["worst_sd_percent"] < about["present"]["worst_sd_percent"]
    assert about["present"]["settings"]["tau"] == [50, 400, 1100, 2500]
    assert about["best"]["sidecars"][0]["InversionTime"] == pytest.approx(about["best"]["settings"]["tau"][0] / 1000)
    with (out / "design.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["T1_ms", "sd_best_percent", "sd_present_percent"] and len(rows) > 50
    with (out / "protocol.tsv").open() as file:
        images = list(csv.DictReader(file, delimiter="\t"))
    assert len(images) == 6 and set(images[0]) == {"image", "tau_ms", "tr_ms"}
    page = (out / "design.html").read_text()
    assert page.count("<svg") == 2 and "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_the_present_protocol_of_a_scan(rimap, tmp_path) -> None:
    series = tmp_path / "bids" / "sub-01" / "anat"
    series.mkdir(parents=True)
    for k, te in enumerate((0.01, 0.02, 0.03, 0.04), start=1):
        stem = series / f"sub-01_echo-{k}_MEGRE"
        nib.save(nib.Nifti1Image(np.full((3, 3, 1), 100 * np.exp(-te / 0.03), np.float32), np.eye(4)), f"{stem}.nii.gz")
        stem.with_suffix(".json").write_text(json.dumps({"EchoTime": te}))
    done = rimap("design", str(tmp_path / "bids"), "--T", "15-60")
    assert done.exit_code == 0, done.output
    assert "TE 10, 20, 30, 40 ms" in done.stdout and "SD of T2*" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "--T: expected a range of relaxation times in ms"),
        (("--T", "600-1600"), "expected --sequence NAME"),
        (("--T", "x", "--sequence", "ir"), "--T: expected a range in ms"),
        (("--T", "600-1600", "--sequence", "irr"), "--sequence: expected one of"),
        (("--T", "600-1600", "--sequence", "ir"), "minutes: expected a scan time"),
        (("--T", "600-1600", "--sequence", "vfa", "--times-ms", "3,20"), "--set flip_angle"),
        (("--T", "600-1600", "--sequence", "ir", "--minutes", "5", "--keep", "tr"), "--keep tr"),
        (("--T", "600-1600", "--sequence", "ir", "--minutes", "5", "--limits", "3"), "LOW,HIGH"),
        (("--T", "600-1600", "--sequence", "ir", "--minutes", "5", "--limit", "0"), "--limit"),
        (("--T", "600-1600", "--sequence", "ir", "--minutes", "5", "--tr-ms", "2550"), "--keep tr"),
        (("--T", "40-150", "--sequence", "t2", "--minutes", "5", "--tr-ms", "2550,3000"), "expected one time for t2"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(rimap, args, message) -> None:
    done = rimap("design", "--snr", "50", *args)
    assert done.exit_code == 2 and message in done.output and "Traceback" not in done.output


def test_a_kept_repetition_time_is_kept(rimap, tmp_path) -> None:
    out = tmp_path / "design"
    args = ("design", "--sequence", "ir", "--T", "600-1600", *RRSG, "--keep", "tr", "-o", str(out))
    done = rimap(*args)
    assert done.exit_code == 0, done.output
    about = json.loads((out / "design.json").read_text())
    assert set(np.ravel(about["best"]["settings"]["tr"])) == {2550.0} and len(about["best"]["settings"]["tau"]) <= 4
