"""Verbs that write tables and pages: what exists, is a file or may not be written is refused, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build

#: A verb, its options, and the name of its output.
VERBS = {
    "compare": (["compare", "a_T1map.nii.gz", "b_T1map.nii.gz"], "out"),
    "rois": (["rois", "a_T1map.nii.gz", "--labels", "labels.nii.gz"], "out/regions.tsv"),
    "design": (["design", "--sequence", "t2", "--T", "80", "--images", "2", "--minutes", "5"], "out"),
    "phantom": (["phantom", "a_T1map.nii.gz", "--field-strength", "3"], "out"),
}


@pytest.fixture(autouse=True)
def _maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for name in "ab":
        nib.save(
            nib.Nifti1Image(rng.uniform(0.6, 1.4, (8, 8, 2)).astype(np.float32), np.eye(4)), f"{name}_T1map.nii.gz"
        )
    nib.save(nib.Nifti1Image(np.ones((8, 8, 2), np.uint8), np.eye(4)), "labels.nii.gz")


def run(verb: str, *more: str) -> tuple[int, str]:
    words, out = VERBS[verb]
    done = CliRunner().invoke(build(), [*words, "-o", out, *more])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("verb", ["compare", "rois", "design"])
def test_what_exists_is_replaced_only_if_asked(verb: str) -> None:
    assert run(verb)[0] == 0
    before = {path: path.stat().st_ino for path in Path("out").iterdir()}
    status, said = run(verb)
    assert status == 2 and "which exists" in said and "--overwrite" in said
    assert {path: path.stat().st_ino for path in Path("out").iterdir()} == before
    assert run(verb, "--overwrite")[0] == 0


def test_files_beside_the_table_are_not_replaced_either() -> None:
    Path("out").mkdir()
    Path("out/b_T1map_difference.nii.gz").write_bytes(b"mine")
    status, said = run("compare")
    assert status == 2 and "b_T1map_difference.nii.gz, which exists" in said
    assert [path.name for path in Path("out").iterdir()] == ["b_T1map_difference.nii.gz"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_is_no_folder(verb: str) -> None:
    Path("out").write_text("mine")
    status, said = run(verb)
    assert status == 2 and "out: expected a folder, got a file" in said and Path("out").read_text() == "mine"


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_without_permission_is_refused_before_any_work(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)
    status, said = run(verb)
    assert status == 2 and "no permission to write" in said and not Path("out").exists()
