"""Folders of DICOM, and settings files beside images: what is there is a source, or named, or the run is refused."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rimap.errors import InputError
from rimap.io.series_search import find

TI = (60.0, 150.0, 400.0, 1000.0)
SHAPE = (2, 8, 7)
BASE = {"Manufacturer": "SIEMENS", "RepetitionTime": 9000, "EchoTime": 12, "ScanningSequence": "IR"}
ORIGINAL = ["ORIGINAL", "PRIMARY", "M", "ND"]
KINDS = (
    "magnitude", "magnitude again", "copy", "copy with other UIDs", "copy of another study", "phase", "real",
    "imaginary", "map", "filtered",
    "another TR", "another size", "one slice", "no time", "localizer", "report", "mosaic", "text", "no DICOM",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore")


def image(ti: float, noise: int = 0) -> Any:
    T1 = np.linspace(300, 1500, int(np.prod(SHAPE))).reshape(SHAPE)
    S = 900 * (1 - 1.95 * np.exp(-ti / T1))
    return S + np.random.default_rng(noise).normal(0, 6, SHAPE)


class Folder:
    """A folder that is filled with images of any kind; each has a series number of its own, by which it is named."""

    def __init__(self, path: Path, make: SimpleNamespace) -> None:
        self.path, self.make, self.number = path, make, 0
        self.files: dict[int, list[Path]] = {}

    def put(self, kind: str, n: int) -> None:
        import pydicom

        self.number += 1
        ti, number = TI[n], self.number
        fields: dict[str, Any] = BASE | {"InversionTime": ti, "ImageType": ORIGINAL}
        signed = image(ti, n)
        stored = np.rint(np.abs(signed))
        changes = {
            "phase": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
            "real": {"ImageType": ["ORIGINAL", "PRIMARY", "R", "ND"]},
            "imaginary": {"ImageType": ["ORIGINAL", "PRIMARY", "I", "ND"]},
            "map": {"ImageType": ["DERIVED", "PRIMARY", "M", "T1 MAP"]},
            "filtered": {"ImageType": ["DERIVED", "PRIMARY", "M", "ND"]},
            "another TR": {"RepetitionTime": 3000, "EchoTime": 500},
            "no time": {"InversionTime": 0},
            "localizer": {
                "ScanningSequence": "GR",
                "InversionTime": 0,
                "RepetitionTime": 8,
                "EchoTime": 3,
                "FlipAngle": 20,
            },
            "mosaic": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]},
        }.get(kind, {})
        fields |= changes
        if kind == "phase":
            stored = np.where(signed < 0, 4095, 2048)
        elif kind in ("real", "imaginary"):
            stored = signed * (1 if kind == "real" else 0.1)
        elif kind == "magnitude again":
            stored = np.rint(np.abs(image(ti, 50 + n)))
        elif kind in ("filtered", "another TR", "map", "localizer", "no time"):
            stored = np.rint(0.9 * np.abs(image(ti, 70 + n)))
        elif kind == "another size":
            stored = stored[:, :-2]
        elif kind == "one slice":
            stored = stored[:1]
        if kind in ("text", "no DICOM"):
            path = self.path / ("readme.txt" if kind == "text" else f"{number:04}.dcm")
            path.write_text("a scan " * 90)
            return
        paths = self.make.classic(self.path, stored.astype(np.int16), series=number, name="IM_{:05}", **fields)
        if kind == "copy":
            fields_of = self.files.get(n)
            if fields_of:  # of what was put first at this time
                for path in paths:
                    path.unlink()
                paths = [Path(shutil.copy(f, self.path / f"again_{number}_{f.name}")) for f in fields_of]
        for path in paths:
            ds = pydicom.dcmread(path)
            if kind == "copy of another study":
                ds.StudyInstanceUID = f"{ds.StudyInstanceUID}.7"
                ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID}.7"
            elif kind == "report":
                ds.Modality = "SR"
            ds.save_as(path)
        if kind == "magnitude":
            self.files.setdefault(n, paths)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    missing=st.sets(st.integers(0, 3), max_size=1),
    more=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=5, unique=True),
)
def test_every_dicom_file_is_a_source_or_named_or_the_run_is_refused(
    tmp_path_factory: pytest.TempPathFactory, missing: set[int], more: list[tuple[str, int]]
) -> None:
    """By counting: images that are read, and those that a note names with their number, are all that there are."""
    pytest.importorskip("pydicom")
    pytest.importorskip("dcm2niix")
    make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))
    folder = Folder(tmp_path_factory.mktemp("generated"), make)
    every = [("magnitude", n) for n in sorted({0, 1, 2, 3} - missing)]
    every += [(kind, n) for kind, n in more if kind != "magnitude" or n in missing]
    for kind, n in every:
        folder.put(kind, n)
    try:
        found = find(folder.path)
        loaded = [s.load() for s in found.series]
    except InputError:
        return
    assert not found.refused
    said = " ".join((*found.notes, *(n for s in loaded for n in s.notes)))
    read = {int(n) for s in found.series for o in s.origin for n in re.findall(r"\d+", o)}
    for number, (kind, _) in enumerate(every, 1):
        if kind in ("text", "no DICOM"):
            continue
        named = {
            "map": "maps or other derived images", "mosaic": "mosaics", "report": "SR", "copy": "copies of others",
        }.get(kind, rf"series [^.;:]*\b{number}\b")  # fmt: skip
        assert number in read or re.search(named, said), (number, kind, every, said)


SETTINGS = (
    "no field",
    "a text for the time",
    "no JSON",
    "a list",
    "another time",
    "a folder",
    "nothing",
    "negative",
    "null",
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bids=st.booleans(),
    which=st.dictionaries(st.integers(0, 3), st.sampled_from(SETTINGS), min_size=1, max_size=2),
    lonely=st.booleans(),
)
def test_settings_files_are_used_or_named_or_the_run_is_refused(
    tmp_path_factory: pytest.TempPathFactory, build: SimpleNamespace, bids: bool, which: dict[int, str], lonely: bool
) -> None:
    """An unusable sidecar neither drops an image silently, nor leads to a map with a time that nobody gave."""
    root = tmp_path_factory.mktemp("generated")
    folder = root / "sub-01/anat" if bids else root
    images = build.recovery()
    for n, t in enumerate(build.TI):
        name = f"sub-01_inv-{n + 1}_IRT1" if bids else f"ir_{n + 1}"
        path = build.save(folder / f"{name}.nii.gz", images[n], {"InversionTime": t / 1000, "RepetitionTime": 10.0})
        sidecar = path.with_name(f"{name}.json")
        change = which.get(n)
        meta: Any = {"InversionTime": t / 1000, "RepetitionTime": 10.0}
        if change == "no field":
            del meta["InversionTime"]
        elif change == "a text for the time":
            meta["InversionTime"] = "soon"
        elif change == "negative":
            meta["InversionTime"] = -1.0
        elif change == "null":
            meta["InversionTime"] = None
        elif change == "another time":
            meta["InversionTime"] = 1.777
        elif change == "a list":
            meta = [meta]
        if change == "nothing":
            sidecar.unlink()
        elif change == "a folder":
            sidecar.unlink()
            sidecar.mkdir()
        elif change == "no JSON":
            sidecar.write_text('{"InversionTime": 0.4,')
        else:
            sidecar.write_text(json.dumps(meta))
    if lonely and bids:
        (folder / "sub-01_inv-7_IRT1.json").write_text(json.dumps({"InversionTime": 0.7}))
    there = {f.name for f in root.rglob("*.nii.gz")}
    try:
        found = find(root)
        loaded = [s.load() for s in found.series]
    except InputError:
        return
    said = " ".join((*found.notes, *(str(e) for _, e in found.refused), *(n for s in loaded for n in s.notes)))
    used = {f.name for s in found.series for f in s.sources}
    assert all(name in used or name in said for name in there), (which, said)
    given_times = {t for n, t in enumerate(build.TI) if which.get(n) in (None, "another time")} | {1777.0}
    for series in loaded:
        assert set(np.round(series.model.times, 6)) <= given_times, (which, series.model.times)
    if lonely and bids and not found.refused:
        assert "inv-7_IRT1.json" in said
