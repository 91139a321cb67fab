"""Nothing that identifies a patient leaves the folder of DICOM, and nothing stays in the temporary one."""

from __future__ import annotations

import gzip
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import dicom_convert, find_series

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))
TI = (60, 150, 400, 1000, 2400)


def scan(folder: Path, series: int = 5, amplitude: Any = 900, **more: Any) -> Path:
    T1 = np.linspace(200, 3000, 2 * 6 * 5).reshape(2, 6, 5)
    for n, ti in enumerate(TI):
        image = np.rint(abs(amplitude * (1 - 1.96 * np.exp(-ti / T1)))).astype(np.uint16)
        make.classic(folder, image, series=series + n, InversionTime=ti, EchoTime=12, RepetitionTime=15000,
                     name="ZWEISTEIN_ALBERTINA_19530417_{}.dcm", SeriesDescription="IR of Albertina Zweistein 4711007",
                     ScanningSequence="IR", **more)  # fmt: skip
    return folder


def leaks(text: str | bytes, where: str) -> list[str]:
    """Return which of the planted words a text has, also as UTF-16, as the header stores them."""
    data = text.encode() if isinstance(text, str) else text
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return [f"{word} in {where}" for word in make.SECRETS if word.encode() in data.lower()]


def leaks_below(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        found += leaks(str(path.relative_to(folder)), f"the name of {path}")
        if path.is_file():
            found += leaks(path.read_bytes(), str(path))
    return found


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


def rimap(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rimap", "map", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def test_planted_words_are_found(tmp_path: Path) -> None:
    scan(tmp_path)
    found = " ".join(leaks_below(tmp_path))
    assert all(
        word in found for word in ("zweistein", "4711007", "19530417", "rotenfels", "claustrophobia", "20230228")
    )


def test_a_run_tells_nothing(tmp_path: Path, temporary: Path) -> None:
    folder, work = scan(tmp_path / "ZWEISTEIN"), tmp_path / "work"
    work.mkdir()
    done = rimap(folder, "-o", "out", "--estimator", "nlls", "--threads", 1, cwd=work)
    assert done.returncode == 0, done.stderr
    assert (work / "out" / "series-5to9_T1map.nii.gz").is_file()
    assert leaks(done.stdout + done.stderr, "the terminal") + leaks_below(work) == []
    assert list(temporary.glob("rimap-dicom-*")) == []


def test_list_of_series_and_debugging_tell_nothing(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(scan(tmp_path / "d"), series=30, amplitude=np.linspace(700, 900, 60).reshape(2, 6, 5))
    monkeypatch.setenv("RIMAP_DEBUG", "1")
    done = rimap("d", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "--series 5 " in done.stderr
    assert "--series 30 " in done.stderr
    assert "“IR of … … …”" in done.stderr
    assert leaks(done.stdout + done.stderr, "the terminal") == []
    assert list(temporary.glob("rimap-dicom-*")) == []


def test_temporary_files_tell_nothing(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = subprocess.run

    def watched(command: list[str], **options: Any) -> Any:
        done = run(command, **options)
        assert len(list(temporary.rglob("*.dcm"))) == 10
        assert temporary.joinpath(Path(command[-1]).parent.name).stat().st_mode & 0o077 == 0
        seen.extend([*leaks_below(temporary), *leaks(" ".join(command), "the command")])
        return done

    monkeypatch.setattr(dicom_convert.subprocess, "run", watched)
    (files,) = find_series(scan(tmp_path / "d"))
    assert seen + leaks_below(temporary) + leaks(repr(files), "repr") == []
    series = files.load()
    assert leaks(repr(series.source) + repr(series.notes), "the series") == []
    assert list(temporary.iterdir()) != []
    del files
    assert list(temporary.iterdir()) == []


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_convert, "require", lambda: "/bin/false")
    with pytest.raises(InputError, match="dcm2niix could not convert series 5"):
        find_series(scan(tmp_path / "d"))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("what", ["header", "pixels", "empty", "first bytes", "text", "pixels that are too few"])
def test_damaged_files_are_refused_without_their_names(tmp_path: Path, what: str) -> None:
    folder = scan(tmp_path / "d")
    victim = sorted(folder.iterdir())[3]
    data = victim.read_bytes()
    if what == "header":
        victim.write_bytes(data[:700])
    elif what == "pixels":
        victim.write_bytes(data[:-10])
    elif what in ("empty", "first bytes"):
        victim.write_bytes(data[: 0 if what == "empty" else 100])
    elif what == "text":
        victim.write_bytes(data[:132] + b"Albertina Zweistein " * 30)
    else:
        ds = pydicom.dcmread(victim)
        ds.PixelData = ds.PixelData[:-20]
        ds.save_as(victim)
    with pytest.raises(InputError) as error:
        find_series(folder)
    assert leaks(str(error.value), "the message") == []
    assert ("empty or cut short" if what in ("empty", "first bytes") else "file 4 of 10") in str(error.value)


def test_a_slice_that_is_missing_is_refused(tmp_path: Path) -> None:
    folder = scan(tmp_path / "d")
    sorted(folder.iterdir())[3].unlink()
    with pytest.raises(InputError, match="has 1 of 2 slices"):
        find_series(folder)


def test_another_patient_in_the_folder_is_another_series(tmp_path: Path) -> None:
    folder = scan(tmp_path / "d")
    for path in scan(tmp_path / "e", amplitude=np.linspace(700, 900, 60).reshape(2, 6, 5)).iterdir():
        ds = pydicom.dcmread(path)
        ds.StudyInstanceUID, ds.SOPInstanceUID = "1.2.3.4", f"1.2.3.4.{path.stem[-3:]}"
        ds.SeriesInstanceUID = f"1.2.3.5.{ds.SeriesNumber}"
        ds.save_as(folder / f"second{path.name[-8:]}")
    with pytest.raises(InputError, match=r"--series 5a (.|\n)*--series 5b "):
        find_series(folder)
    assert find_series(folder, series=["5b"])[0].stem == "series-5bto9"


def test_foreign_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("Zweistein")
    with pytest.raises(InputError, match="no NIfTI file and no DICOM"):
        find_series(tmp_path)
    ds = make.header(make.CLASSIC, 1, 1, Modality="CT")
    make.pixels(ds, np.zeros((4, 4), np.uint16))
    ds.save_as(tmp_path / "ct", enforce_file_format=True)
    with pytest.raises(InputError, match=r"expected weighted MR images .*CT"):
        find_series(tmp_path)
    with pytest.raises(InputError, match="--series: expected DICOM input"):
        find_series(tmp_path / "notes.txt", series=["4"])


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scan(tmp_path / "d")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'rimap\[dicom\]'"):
        find_series(folder)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"pip install 'rimap\[dicom\]'"):
        find_series(folder)


@pytest.mark.parametrize("series", ["99", "x", "5,99", ""])
def test_series_that_are_not_there(tmp_path: Path, series: str) -> None:
    with pytest.raises(InputError, match="--series"):
        find_series(scan(tmp_path / "d"), series=[series])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_leaves_nothing_for_long(temporary: Path, number: int) -> None:
    code = (
        "import time; from rimap.io.dicom_convert import PrivateFolder; f = PrivateFolder(); "
        "print(f.path, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        assert path.is_dir()
        assert path.stat().st_mode & 0o077 == 0
        process.send_signal(number)
        assert process.wait() == -number
    if number == signal.SIGKILL:  # no program can clean up after that; the next run does
        assert path.is_dir()
        dicom_convert.PrivateFolder().remove()
    assert not path.exists()
    assert list(temporary.iterdir()) == []
