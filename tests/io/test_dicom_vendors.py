"""DICOM of several vendors gives the values, times and geometry that were put in."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io import find_series
from rimap.signals.gradient_echo import GradientEcho, GradientEchoWithOffset
from rimap.signals.variable_flip_angle import VariableFlipAngle
from rimap.workflow.read_series import read

pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))

TI = (60, 150, 400, 1000, 2400, 5000)
TE = (11.5, 23.0, 34.5, 46.0)
K, ROWS, COLUMNS = 3, 7, 5
T1 = np.linspace(200, 3000, K * ROWS * COLUMNS).reshape(K, ROWS, COLUMNS)
A = np.linspace(600, 1000, K * ROWS * COLUMNS).reshape(K, ROWS, COLUMNS)


def signed(ti: float, tr: float = 9000) -> Any:
    return A * (1 - 1.96 * np.exp(-ti / T1) + 0.96 * np.exp(-tr / T1))


def decay(te: float) -> Any:
    return A * np.exp(-te / (T1 / 20))


def stored(image: Any) -> Any:
    return np.rint(np.abs(image)).astype(np.uint16)


def as_nifti(image: Any) -> Any:
    """Put (slices, rows, columns) into the order of NIfTI: columns, rows from below, slices."""
    return np.transpose(np.asarray(image)[:, ::-1, :], (2, 1, 0))


def the_only(found: list[Any]) -> Any:
    assert len(found) == 1
    return found[0]


def siemens(
    folder: Path, *, phase: bool = False, number: int = 5, tr: Any = lambda ti: 9000, noise: Any = 0, **more: Any
) -> Path:
    """One series for each TI; the phase is the series after its magnitude."""
    common = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Aera", "ScanningSequence": ["SE", "IR"]} | more
    for n, ti in enumerate(TI):
        image, at = signed(ti, tr(ti)) + noise, number + (2 * n if phase else n)
        make.classic(folder, stored(image), series=at, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM", "ND"],
                     InversionTime=ti,
                     EchoTime=12, RepetitionTime=tr(ti), SeriesDescription=f"se_ir_TI{ti}", **common)  # fmt: skip
        if phase:
            turned = np.where(image < 0, 2047 + 2048, 2047) + np.arange(COLUMNS) * 3
            make.classic(folder, (turned % 4096).astype(np.uint16), series=at + 1,
                         ImageType=["ORIGINAL", "PRIMARY", "P", "ND"],
                         InversionTime=ti, EchoTime=12, RepetitionTime=tr(ti), RescaleSlope=2, RescaleIntercept=-4096,
                         **common)  # fmt: skip
    return folder


def test_one_series_for_each_inversion_time(tmp_path: Path) -> None:
    files = the_only(find_series(siemens(tmp_path, tr=lambda ti: 3000 + ti)))
    series = files.load()
    assert series.model == rimap.InversionRecovery(tau=TI, tr=[3000 + t for t in TI])
    for n, ti in enumerate(TI):
        np.testing.assert_array_equal(series.images[n], as_nifti(stored(signed(ti, 3000 + ti))))
    assert files.stem == "series-5to10"
    assert files.label == "DICOM series 5, 6, 7, 8, 9, 10"
    # the first voxel is the last row of the first slice; LPS becomes RAS
    lps = np.array(make.position(0)) + (ROWS - 1) * make.SPACING[0] * np.array(make.ORIENTATION[3:])
    np.testing.assert_allclose(series.affine @ [0, 0, 0, 1], [*(lps * [-1, -1, 1]), 1], atol=1e-4)
    step = series.affine @ [0, 0, 1, 1] - series.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(step[:3], make.GAP * make.NORMAL * [-1, -1, 1], atol=1e-4)


def test_magnitude_and_phase_series_give_signed_images(tmp_path: Path) -> None:
    series = read(siemens(tmp_path, phase=True))
    assert series.model.signed
    for image, ti in zip(series.images, TI):
        np.testing.assert_allclose(image, as_nifti(signed(ti)), atol=0.51)
    assert any("phase from series 6, 8" in n for n in series.notes)
    assert any("polarity from the phase" in n for n in series.notes)


def test_a_phase_series_that_lacks_is_said_and_not_used(tmp_path: Path) -> None:
    siemens(tmp_path, phase=True)
    for f in tmp_path.glob("IM_06*"):
        f.unlink()
    for f in tmp_path.glob("IM_10*"):
        f.unlink()
    series = read(tmp_path)
    assert not series.model.signed
    assert any("only" in n and "phase" in n for n in series.notes)


def test_the_protocol_run_twice_is_two_series(tmp_path: Path) -> None:
    siemens(siemens(tmp_path), number=25, noise=np.random.default_rng(0).normal(0, 5, A.shape))
    with pytest.raises(InputError, match=r"2 series(.|\n)*--series 5 (.|\n)*--series 25 "):
        find_series(tmp_path)
    assert the_only(find_series(tmp_path, series=["27"])).stem == "series-25to30"
    assert [f.stem for f in find_series(tmp_path, series=["5", "25"])] == ["series-5to10", "series-25to30"]
    some = the_only(find_series(tmp_path, series=["6,28,29,30"]))
    assert some.load().model.times.tolist() == [150, 1000, 2400, 5000]
    assert some.stem == "series-6-28-29-30"


def test_filtered_copies_are_apart(tmp_path: Path) -> None:
    siemens(tmp_path)
    for n, ti in enumerate(TI):
        make.classic(tmp_path, stored(signed(ti)), series=40 + n, ImageType=["ORIGINAL", "PRIMARY", "M", "DIS2D"],
                     InversionTime=ti,
                     EchoTime=12, RepetitionTime=9000, ScanningSequence=["SE", "IR"])  # fmt: skip
    with pytest.raises(InputError, match="2 series"):
        find_series(tmp_path)


def ge(folder: Path, parts: tuple[int, ...] = (0,), number: int = 7) -> Path:
    """All echoes, and all parts, in one series; the private tag tells the part."""
    first = 1
    for te in TE:
        for part in parts:
            value = decay(te) if part == 0 else decay(te) * (0, 0, 0.6, -0.8)[part] if part > 1 else 0 * A + 1500
            make.classic(
                folder, np.rint(value).astype(np.int16), series=number, first=first, name="e{}.MRDC", EchoTime=te,
                RepetitionTime=2000,
                Manufacturer="GE MEDICAL SYSTEMS", ImageType=["ORIGINAL", "PRIMARY", "OTHER"], ScanningSequence="SE",
                EchoNumbers=TE.index(te) + 1, private={(0x0043, "GEMS_PARM_01", 0x2F, "SS"): [part, 0, 0, 0]},
            )  # fmt: skip
            first += K
    return folder


@pytest.mark.parametrize("parts", [(0,), (0, 1, 2, 3), (2, 3)])
def test_multi_echo_in_one_series(tmp_path: Path, parts: tuple[int, ...]) -> None:
    series = read(ge(tmp_path, parts))
    assert series.model == rimap.T2Decay(tau=TE)
    for image, te in zip(series.images, TE):
        np.testing.assert_allclose(image, as_nifti(decay(te)), atol=1.0)


def test_gradient_echoes_are_never_t2(tmp_path: Path) -> None:
    for n, te in enumerate(TE):
        make.classic(
            tmp_path,
            stored(decay(te)),
            series=3,
            first=1 + n * K,
            EchoTime=te,
            ScanningSequence="GR",
            RepetitionTime=500,
        )
    for options in ({}, {"series": "3"}, {"sequence": "megre"}):
        assert read(tmp_path, **options).model == GradientEcho(te=TE)
    assert read(tmp_path, sequence="megre-offset").model == GradientEchoWithOffset(te=TE)
    for options in ({"sequence": "t2"}, {"series": "3", "sequence": "t2"}):
        with pytest.raises(InputError, match="--sequence t2"):
            read(tmp_path, **options)


def test_flip_angles_of_gradient_echoes(tmp_path: Path) -> None:
    """Each flip angle in a series of its own, as scanners write them; those of spin echoes make no series."""
    for n, (flip, code) in enumerate([(3, "GR"), (20, "GR"), (90, "SE"), (120, "SE")]):
        make.classic(
            tmp_path,
            stored(decay(10.0 + n)),
            series=5 + n,
            EchoTime=2.5,
            FlipAngle=flip,
            ScanningSequence=code,
            RepetitionTime=15,
        )
    (files,) = find_series(tmp_path)
    series = files.load()
    assert series.model == VariableFlipAngle(flip_angle=(3, 20), tr=15)
    assert files.origin == ("dicom:series-5", "dicom:series-6")


def philips_frames() -> tuple[list[dict[str, Any]], list[Any], dict[float, Any]]:
    """Frames in an order that no one expects, and the values they stand for."""
    rng = np.random.default_rng(3)
    frames, raw, truth = [], [], {}
    for ti in TI:
        truth[ti] = np.empty((K, ROWS, COLUMNS))
        for k in range(K):
            scale, slope, inter = (
                float(np.float32(rng.uniform(0.005, 0.03))),
                round(rng.uniform(1, 3), 6),
                float(rng.integers(0, 9)),
            )
            frames.append({"k": k, "ti": ti, "scale": scale, "slope": slope, "inter": inter})
            raw.append(rng.integers(0, 4096, (ROWS, COLUMNS)).astype(np.uint16))
            truth[ti][k] = (slope * raw[-1] + inter) / (slope * scale)
    order = rng.permutation(len(frames))
    return [frames[o] for o in order], [raw[o] for o in order], truth


def test_enhanced_multi_frame_with_a_scale_slope_for_each_frame(tmp_path: Path) -> None:
    frames, raw, truth = philips_frames()
    path = make.enhanced(tmp_path / "IM_0001", raw, series=801, frames=frames, Manufacturer="Philips Medical Systems")
    for given in (tmp_path, path):  # the folder, or the file
        series = read(given)
        assert series.model == rimap.InversionRecovery(tau=TI, tr=9000)
        for image, ti in zip(series.images, TI):
            np.testing.assert_allclose(image, as_nifti(truth[ti]), rtol=2e-6)


def test_enhanced_with_all_four_parts(tmp_path: Path) -> None:
    frames, raw = [], []
    for ti in TI:
        phase = np.where(signed(ti) < 0, -3142, 0)
        for part, value in {
            "MAGNITUDE": abs(signed(ti)),
            "PHASE": phase,
            "REAL": signed(ti),
            "IMAGINARY": 0 * A,
        }.items():
            inter = 0 if part == "MAGNITUDE" else -4000
            frames += [{"k": k, "ti": ti, "part": part, "inter": inter} for k in range(K)]
            raw += list(np.rint(value - inter).astype(np.uint16))
    make.enhanced(tmp_path / "x.dcm", raw, series=9, frames=frames, Manufacturer="Philips")
    series = read(tmp_path)
    assert series.model.signed
    for image, ti in zip(series.images, TI):
        np.testing.assert_allclose(image, as_nifti(signed(ti)), atol=0.51)


def test_enhanced_one_file_for_each_time(tmp_path: Path) -> None:
    for n, ti in enumerate(TI):
        frames = [{"k": k, "ti": ti} for k in range(K)]
        make.enhanced(tmp_path / f"{n}.dcm", stored(signed(ti)), series=11 + n, frames=frames, philips=False,
                      Manufacturer="Siemens Healthineers", EchoPulseSequence="SPIN")  # fmt: skip
    series = read(tmp_path)
    assert series.model.times.tolist() == list(TI)
    np.testing.assert_array_equal(series.images[3], as_nifti(stored(signed(TI[3]))))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_real_parts_beside_magnitudes_give_the_polarity(tmp_path: Path, syntax: str) -> None:
    for n, ti in enumerate(TI):
        common = {"InversionTime": ti, "EchoTime": 12, "RepetitionTime": 9000, "ScanningSequence": "IR",
                  "Manufacturer": "Philips",
                  "RescaleSlope": 2, "private": {(0x2005, "Philips MR Imaging DD 001", 0x0E, "FL"): 0.25 + n},
                  "series": 3 + n,
                  "syntax": syntax}  # fmt: skip
        make.classic(
            tmp_path,
            stored(signed(ti)),
            ImageType=["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"],
            RescaleIntercept=0,
            **common,
        )
        make.classic(tmp_path, np.rint(signed(ti) * 0.5 + 2048).astype(np.uint16), first=50, RescaleIntercept=-4096,
                     ImageType=["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"], **common)  # fmt: skip
    series = read(tmp_path)
    assert series.model.signed
    for n, ti in enumerate(TI):
        np.testing.assert_allclose(series.images[n] * (0.25 + n), as_nifti(signed(ti)), atol=0.6)


@pytest.mark.parametrize("bad", ["1.79769E308", "0", None])
def test_inversion_times_that_are_none_must_be_given(tmp_path: Path, bad: str | None) -> None:
    for n, ti in enumerate(TI):
        more = {} if bad is None else {"InversionTime": bad}
        make.classic(
            tmp_path,
            stored(signed(ti)),
            series=5 + n,
            EchoTime=12,
            RepetitionTime=9000,
            ScanningSequence=["SE", "IR"],
            **more,
        )
    with pytest.raises(InputError, match=r"expected a series of three or more(.|\n)*--times-ms(.|\n)*--series 5 "):
        find_series(tmp_path)
    with pytest.raises(InputError, match="--sequence"):
        read(tmp_path, series="5,6,7,8,9,10")
    series = read(tmp_path, series="5,6,7,8,9,10", sequence="ir", times_ms=TI)
    assert series.model == rimap.InversionRecovery(tau=TI, tr=9000)
    np.testing.assert_array_equal(series.images[2], as_nifti(stored(signed(TI[2]))))


def test_delay_of_the_philips_prepulse_is_the_inversion_time(tmp_path: Path) -> None:
    creator = "Philips Imaging DD 001"
    for n, ti in enumerate(TI):
        make.classic(tmp_path, stored(signed(ti)), series=5 + n, EchoTime=12, RepetitionTime=9000,
                     ScanningSequence="IR",
                     private={(0x2001, creator, 0x1B, "FL"): float(ti),
                              (0x2001, creator, 0x1C, "CS"): "INV"})  # fmt: skip
    assert read(tmp_path).model.times.tolist() == list(TI)


@pytest.mark.parametrize("syntax", ["rle", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_other_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    import pydicom
    from pydicom.uid import RLELossless

    siemens(tmp_path, **({} if syntax == "rle" else {"syntax": syntax}))
    for path in tmp_path.iterdir() if syntax == "rle" else ():
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path)
    series = read(tmp_path)
    np.testing.assert_array_equal(series.images[1], as_nifti(stored(signed(TI[1]))))


def test_other_series_and_other_files_beside(tmp_path: Path) -> None:
    """A localizer, a map made on the scanner and a T2 series do not come into the way; --sequence chooses."""
    siemens(tmp_path / "deep" / "er")
    ge(tmp_path, number=77)
    make.classic(tmp_path / "loc", stored(A), series=1, EchoTime=5, RepetitionTime=10, ScanningSequence="GR")
    make.classic(tmp_path / "map", stored(T1), series=90, EchoTime=12, ImageType=["DERIVED", "PRIMARY", "T1 MAP", "T1"])
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 20)
    (tmp_path / "readme.txt").write_text("08 is not DICOM")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4" + bytes(300))
    assert [f.sequence for f in find_series(tmp_path, series=["8", "77"])] == ["ir", "t2"]
    assert the_only(find_series(tmp_path, sequence="ir")).load().images.shape == (6, COLUMNS, ROWS, K)
    assert the_only(find_series(tmp_path, sequence="t2")).load().images.shape == (4, COLUMNS, ROWS, K)


def test_one_series_for_each_echo_time_of_the_same_repetition_time(tmp_path: Path) -> None:
    common = {"ScanningSequence": "SE", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "Manufacturer": "CANON_MEC"}
    for n, te in enumerate(TE):
        make.classic(tmp_path, stored(decay(te)), series=20 + n, EchoTime=te, RepetitionTime=3000, **common)
    make.classic(tmp_path, stored(decay(5)), series=30, EchoTime=5, RepetitionTime=600, **common)  # T1-weighted
    series = read(tmp_path)
    assert series.model == rimap.T2Decay(tau=TE)
    np.testing.assert_array_equal(series.images[3], as_nifti(stored(decay(TE[3]))))


def test_one_time_that_was_scanned_again_is_said(tmp_path: Path) -> None:
    siemens(tmp_path)
    make.classic(tmp_path, stored(signed(400) + 5 * np.sin(A)), series=31,
                 ImageType=["ORIGINAL", "PRIMARY", "M", "NORM", "ND"], InversionTime=400,
                 EchoTime=12, RepetitionTime=9000, ScanningSequence=["SE", "IR"])  # fmt: skip
    series = read(tmp_path)
    assert series.model.times.tolist() == sorted([*TI, 400])
    assert any("have the same time" in n and "series 7 image" in n and "series 31 image" in n for n in series.notes)
    assert len(read(tmp_path, series="5,6,31,8,9,10").model.times) == 6
