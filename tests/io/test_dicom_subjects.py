"""DICOM of several patients in one call: each has maps of its own, nothing is mixed up, and nobody is named."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.io import find_series
from rimap.workflow import Request, map_series

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))

TE = (10, 20, 40, 80)
SHAPE = (2, 24, 20)
PATIENTS = {"Meier^Anna": 50.0, "Huber^Bert": 80.0, "Vogel^Carla": 120.0}


def scan(folder: Path, name: str, T2: float, **more: Any) -> None:
    """Write one series for each echo, all patients with the same numbers."""
    study = f"1.2.826.0.1.3680043.10.4711.{sum(map(ord, name))}"
    for n, te in enumerate(TE):
        stored = np.full(SHAPE, 1000 * np.exp(-te / T2)).round().astype(np.uint16)
        fields = {"PatientName": name, "PatientID": f"ID{len(name)}{name[:3]}", "StudyInstanceUID": study} | more
        make.classic(
            folder, stored, series=5 + n, EchoTime=te, RepetitionTime=5000, ScanningSequence="SE",
            SeriesInstanceUID=f"{study}.{n}", **fields,
        )  # fmt: skip


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three patients in folders of their own."""
    for n, (name, T2) in enumerate(PATIENTS.items()):
        scan(tmp_path / "dicom" / f"{n}", name, T2)
    return tmp_path / "dicom"


def median(path: Path) -> float:
    return float(np.nanmedian(nib.load(path).get_fdata())) * 1000


def test_each_subject_has_its_own_maps(three: Path, tmp_path: Path) -> None:
    run = map_series(Request(inputs=(three,), out=tmp_path / "out", threads=1))
    assert len(run.results) == 3 and not run.refused
    names = [f"subject-{n:02}_series-5to8_T2map.nii.gz" for n in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "out").glob("*_T2map.nii.gz") if "desc" not in p.name) == names
    for name, T2 in zip(names, PATIENTS.values()):
        assert median(tmp_path / "out" / name) == pytest.approx(T2, rel=0.01)
    text = "".join(
        p.read_text(errors="replace") for p in (tmp_path / "out").rglob("*") if p.suffix in (".json", ".html")
    )
    for secret in ("Meier", "Anna", "Huber", "Vogel", "ID10", *make.SECRETS):
        assert secret.lower() not in text.lower()
    assert "dicom:subject-02/series-5" in text
    again = map_series(Request(inputs=(three,), out=tmp_path / "out", threads=1))
    assert len(again.kept) == 3


def test_files_of_all_in_one_folder_are_told_apart(three: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, path in enumerate(sorted(three.rglob("IM_*"), key=lambda p: (p.name, p.parent))):
        shutil.copy(path, flat / f"IM_{n:04}")
    found = find_series(flat)
    assert [f.label for f in found] == [f"subject {n}, DICOM series 5, 6, 7, 8" for n in (1, 2, 3)]
    medians = [float(np.median(f.open().read().images[0])) for f in found]
    assert medians == pytest.approx([1000 * np.exp(-10 / T2) for T2 in PATIENTS.values()], rel=0.01)


def test_another_subject_does_not_take_the_maps_of_one(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    map_series(Request(inputs=(three,), out=out, threads=1))
    before = median(out / "subject-02_series-5to8_T2map.nii.gz")
    scan(three / "0before", "Adler^Dora", 65.0)
    shutil.move(three / "0before", three / "-0")  # now the first in order of name
    result = CliRunner().invoke(build(), ["map", str(three), "-o", str(out)])
    assert result.exit_code == 2 and "already exist" in result.output + result.stderr
    assert median(out / "subject-02_series-5to8_T2map.nii.gz") == before


def test_one_that_cannot_be_mapped_does_not_stop_the_others(three: Path, tmp_path: Path) -> None:
    for path in sorted((three / "1").iterdir())[: 3 * SHAPE[0]]:
        path.unlink()
    result = CliRunner().invoke(build(), ["map", str(three), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2 and "subject 2" in result.output + result.stderr
    assert len(list((tmp_path / "out").glob("subject-*_series-5to8_T2map.nii.gz"))) == 2


def test_one_subject_is_named_as_before(tmp_path: Path) -> None:
    scan(tmp_path / "one", "Meier^Anna", 50.0)
    for path in sorted((tmp_path / "one").iterdir())[:2]:  # a part without names is of the patient of its study
        ds = pydicom.dcmread(path)
        ds.PatientName = ds.PatientID = ds.PatientBirthDate = ""
        ds.save_as(path)
    (found,) = find_series(tmp_path / "one")
    assert found.stem == "series-5to8" and "subject" not in found.label
