"""Series as scanners and archives store them: times in odd fields, parts in separate series, copies, compression."""

from __future__ import annotations

import io
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io import find_series
from rimap.workflow.read_series import read

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))

TI = (60, 150, 400, 1000, 2400, 5000)
TE = (11.5, 23.0, 34.5, 46.0)
K, ROWS, COLUMNS = 3, 32, 40
T1 = np.linspace(200, 3000, K * ROWS * COLUMNS).reshape(K, ROWS, COLUMNS)
A = np.linspace(600, 1000, K * ROWS * COLUMNS).reshape(K, ROWS, COLUMNS)
IR = {"EchoTime": 12, "RepetitionTime": 9000, "ScanningSequence": "IR"}


def signed(ti: float) -> Any:
    return A * (1 - 1.96 * np.exp(-ti / T1) + 0.96 * np.exp(-9000 / T1))


def stored(image: Any) -> Any:
    return np.rint(np.abs(image)).astype(np.uint16)


def as_nifti(image: Any) -> Any:
    return np.transpose(np.asarray(image)[:, ::-1, :], (2, 1, 0))


def by_time(folder: Path, *, number: int = 5, noise: Any = 0, **more: Any) -> Path:
    """One series for each TI; values that are callable are asked for each TI."""
    for n, ti in enumerate(TI):
        fields = {k: v(ti) if callable(v) else v for k, v in ({"InversionTime": ti} | IR | more).items()}
        fields = {k: v for k, v in fields.items() if v is not None}
        make.classic(folder, stored(signed(ti) + noise), series=number + n, **fields)
    return folder


def edit(folder: Path, change: Any) -> Path:
    for n, path in enumerate(sorted(folder.iterdir())):
        ds = pydicom.dcmread(path)
        change(ds, n)
        ds.save_as(path)
    return folder


# Times


def asccconv(ti: float, off: bool = False) -> bytes:
    return (
        b"SV10\x04\x03\x02\x01\x00\x00### ASCCONV BEGIN object=MrProtDataImpl@MrProtocolData version=61310001 ###\n"
        b'tPatientName = "Zweistein"\nalTE[0]\t = \t12000\n'
        + f"alTI[0]\t = \t{ti * 1000:.0f}\nsPrepPulses.ucInversion\t = \t0x{4 if off else 2}\n".encode()
        + b"### ASCCONV END ###\x00\x00"
    )


def test_inversion_times_from_the_protocol_of_siemens(tmp_path: Path) -> None:
    by_time(tmp_path / "a", InversionTime=None, Manufacturer="SIEMENS",
            private=lambda ti: {(0x0029, "SIEMENS CSA HEADER", 0x20, "OB"): asccconv(ti)})  # fmt: skip
    series = read(tmp_path / "a")
    assert series.model == rimap.InversionRecovery(tau=TI, tr=9000)
    assert any(
        "no field of the headers has the inversion times; they are from the Siemens protocol" in n for n in series.notes
    )
    assert "weistein" not in repr(series.notes)
    by_time(tmp_path / "b", InversionTime=None, Manufacturer="SIEMENS",
            private=lambda ti: {(0x0029, "SIEMENS CSA HEADER", 0x20, "OB"): asccconv(ti, off=True)})  # fmt: skip
    with pytest.raises(InputError, match="expected a series of three"):
        find_series(tmp_path / "b")


@pytest.mark.parametrize("name", ["se_ir_TI{}", "T1 map ti = {} ms Zweistein", "TI_{}_tra"])
def test_inversion_times_from_the_names_of_series(tmp_path: Path, name: str) -> None:
    series = read(by_time(tmp_path, InversionTime=None, SeriesDescription=lambda ti: name.format(ti)))
    assert series.model.times.tolist() == list(TI)
    assert any("they are from the names of the series: check them" in n for n in series.notes)


@pytest.mark.parametrize("name", ["ir_TI{}", "TIRM {}", "STI{}00"])
def test_what_is_no_time_in_a_name(tmp_path: Path, name: str) -> None:
    by_time(tmp_path, InversionTime=None, SeriesDescription=lambda ti: name.format(1 + TI.index(ti)))
    with pytest.raises(
        InputError, match=r"--times-ms; the times are then those of the images in the order of --series"
    ):
        find_series(tmp_path)
    asked = read(tmp_path, series="5,7,6,8,9,10", sequence="ir", times_ms=[60, 400, 150, 1000, 2400, 5000])
    for n, ti in enumerate([60, 400, 150, 1000, 2400, 5000]):
        np.testing.assert_array_equal(asked.images[n], as_nifti(stored(signed(ti))))


# Parts in series of their own


@pytest.mark.parametrize(("parts", "is_signed"),
                         [((0, 1), True), ((0, 1, 2, 3), True), ((2, 3), True), ((0, 2, 3), True),
                                                  ((0,), False)])  # fmt: skip
@pytest.mark.parametrize("apart", [True, False])
def test_inversion_recovery_of_ge(tmp_path: Path, parts: tuple[int, ...], is_signed: bool, apart: bool) -> None:
    """The private tag alone tells magnitude (0), phase (1, milliradians), real (2) and imaginary (3)."""
    turn = (0.4 + 0.02 * np.arange(COLUMNS)) * (1 if parts[1:] == (1,) else 4)  # the real part passes zero
    for n, ti in enumerate(TI):
        value = signed(ti) * np.exp(1j * turn)
        for part in parts:
            image = (np.abs(value), np.angle(value) * 1000, value.real, value.imag)[part]
            make.classic(tmp_path, np.rint(image).astype(np.int16), series=100 * (n + 1) + (part if apart else 0),
                         first=1 + 10 * part,
                         InversionTime=ti, **IR, Manufacturer="GE MEDICAL SYSTEMS",
                         ImageType=["ORIGINAL", "PRIMARY", "OTHER"],
                         name="I{}.MRDCM", private={(0x0043, "GEMS_PARM_01", 0x2F, "SS"): [part, 0, 0, 0]})  # fmt: skip
    series = read(tmp_path)
    assert series.model.signed is is_signed
    for image, ti in zip(series.images, TI):
        np.testing.assert_allclose(
            image, as_nifti(signed(ti) if is_signed else abs(signed(ti))), atol=3 if 0 in parts else 1.6
        )


def test_philips_with_its_phase_in_the_same_series_and_scaling(tmp_path: Path) -> None:
    for n, ti in enumerate(TI):
        scale, slope = 0.02 * (n + 1), 1.5 + n
        private = {(0x2005, "Philips MR Imaging DD 001", 0x0E, "FL"): scale}
        common = {"InversionTime": ti, **IR, "Manufacturer": "Philips Medical Systems", "series": 301 + 100 * n}
        make.classic(tmp_path, np.rint(abs(signed(ti)) * scale * 100).astype(np.uint16), first=1, RescaleSlope=slope,
                     RescaleIntercept=0,
                     ImageType=["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"], private=private, **common)  # fmt: skip
        phase = np.where(signed(ti) < 0, 4095, 2048).astype(np.uint16)
        make.classic(tmp_path, phase, first=21, ImageType=["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "IR"],
                     RescaleSlope=1.5348,
                     RescaleIntercept=-3142, private={(0x2005, "Philips MR Imaging DD 001", 0x0E, "FL"): 0.6516},
                     **common)  # fmt: skip
    series = read(tmp_path)
    assert series.model.signed
    for image, ti in zip(series.images, TI):
        np.testing.assert_allclose(image, 100 * as_nifti(signed(ti)), atol=0.51 / 0.02)


@pytest.mark.parametrize("own", [True, False])
def test_siemens_xa_with_phase(tmp_path: Path, own: bool) -> None:
    """Enhanced multi-frame, a file for each time and part; the phase has its own number, or that of its magnitude."""
    for n, ti in enumerate(TI):
        frames = [{"k": k, "ti": ti} for k in range(K)]
        common = {
            "philips": False,
            "Manufacturer": "Siemens Healthineers",
            "SoftwareVersions": "syngo MR XA30",
            "EchoPulseSequence": "SPIN",
        }
        make.enhanced(tmp_path / f"{n}m", stored(signed(ti)), series=11 + 2 * n, frames=frames, **common)
        phase = np.where(signed(ti) < 0, 4095, 2048).astype(np.uint16)
        made = make.enhanced(tmp_path / f"{n}p", phase, series=11 + 2 * n + own, **common,
                             frames=[f | {"part": "PHASE", "slope": 2, "inter": -4096} for f in frames])  # fmt: skip
        assert made.stat().st_size
    series = read(tmp_path)
    assert series.model.signed and series.model.times.tolist() == list(TI)
    for image, ti in zip(series.images, TI):
        np.testing.assert_allclose(image, as_nifti(signed(ti)), atol=0.51)


def test_multi_echo_of_bruker(tmp_path: Path) -> None:
    """All echoes and slices in one enhanced file, slices fastest, with a slope for each frame."""
    frames, raw = [], []
    for n, te in enumerate(TE):
        for k in reversed(range(K)):
            frames.append({"k": k, "te": te, "tr": 3000, "slope": 0.25 * (n + 1)})
            raw.append(np.rint(A[k] * np.exp(-te / 60) / (0.25 * (n + 1))).astype(np.uint16))
    make.enhanced(tmp_path / "MRIm01.dcm", raw, series=3, frames=frames, philips=False,
                  Manufacturer="Bruker BioSpin MRI GmbH",
                  EchoPulseSequence="SPIN")  # fmt: skip
    series = read(tmp_path)
    assert series.model == rimap.T2Decay(tau=TE)
    for image, te in zip(series.images, TE):
        np.testing.assert_allclose(image, as_nifti(A * np.exp(-te / 60)), atol=0.51)


# Copies, derived images, mosaics, numbers


def test_an_image_that_was_exported_twice_counts_once(tmp_path: Path) -> None:
    by_time(tmp_path / "first")
    by_time(tmp_path / "again")  # with instance UIDs of its own, as anonymisers make them
    series = read(tmp_path)
    assert series.model.times.tolist() == list(TI)
    assert series.images.shape == (6, COLUMNS, ROWS, K)


def test_derived_images_are_apart_and_said_to_be(tmp_path: Path) -> None:
    by_time(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    by_time(tmp_path, number=50, ImageType=["DERIVED", "PRIMARY", "M", "ND"])
    with pytest.raises(InputError, match=r"2 series(.|\n)*--series 5 (.|\n)*--series 50 .*, derived"):
        find_series(tmp_path)
    assert find_series(tmp_path, series=["5"])[0].stem == "series-5to10"


def test_mosaics_are_named(tmp_path: Path) -> None:
    by_time(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    with pytest.raises(InputError, match=r"expected weighted MR images .*Siemens mosaics, which rimap cannot map"):
        find_series(tmp_path)


def test_every_number_in_the_list_can_be_asked_for(tmp_path: Path) -> None:
    by_time(tmp_path / "a")
    by_time(tmp_path / "b", number=20, noise=5 * np.sin(A), ImageType=["DERIVED", "PRIMARY", "M"])
    for n, te in enumerate(TE):
        for variant in ("ND", "DIS2D"):
            make.classic(tmp_path / "c", stored(A * np.exp(-te / 60)), series=77,
                         first=1 + 10 * n + 50 * (variant == "ND"),
                         EchoTime=te, RepetitionTime=2000, ScanningSequence="SE",
                         ImageType=["ORIGINAL", "PRIMARY", "M", variant])  # fmt: skip
    with pytest.raises(InputError) as error:
        find_series(tmp_path)
    listed = re.findall(r"^  --series (\S+)", str(error.value), re.MULTILINE)
    assert listed == ["5", "20", "77a", "77b"]
    for key in listed:
        assert len(find_series(tmp_path, series=[key])) == 1
    assert len(find_series(tmp_path, series=listed)) == 4
    in_brackets = re.findall(r"\(series ([\d, ]+)\)", str(error.value))
    assert len(find_series(tmp_path, series=in_brackets)) == 2  # as it is shown, with blanks


def test_series_without_numbers(tmp_path: Path) -> None:
    edit(by_time(tmp_path, SeriesDescription="IR"), lambda ds, n: delattr(ds, "SeriesNumber"))
    assert read(tmp_path).model.times.tolist() == list(TI)
    edit(tmp_path, lambda ds, n: delattr(ds, "InversionTime"))
    with pytest.raises(InputError, match="--series 0 "):
        find_series(tmp_path)


@pytest.mark.parametrize("way", ["folder", "DICOMDIR", "files", "nested"])
def test_ways_to_name_a_folder(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "DICOM"
    for n in range(len(TI)):
        where = folder / "PAT0001" / "STU1" / f"SER{n}" if way == "nested" else folder
        make.classic(where, stored(signed(TI[n])), series=5 + n, InversionTime=TI[n], name="{:08}", **IR)
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 20)
    (folder / "VERSION").write_text("viewer 3")
    given: Any = {"DICOMDIR": folder / "DICOMDIR", "files": sorted(folder.glob("0*"))}.get(way, folder)
    assert read(given).model.times.tolist() == list(TI)


# Compression


def test_jpeg_2000_is_read_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    from PIL import Image, features
    from pydicom.encaps import encapsulate

    if not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")

    def compress(ds: Any, n: int) -> None:
        buffer = io.BytesIO()
        Image.fromarray(ds.pixel_array).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
        ds.PixelData = encapsulate([buffer.getvalue()])
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
        ds["PixelData"].VR = "OB"

    by_time(tmp_path)
    plain = read(tmp_path).images
    np.testing.assert_array_equal(read(edit(tmp_path, compress)).images, plain)

    def mislabel(ds: Any, n: int) -> None:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"

    with pytest.raises(InputError, match=r"compressed as JPEG-LS Lossless.*Export it uncompressed"):
        find_series(edit(tmp_path, mislabel))


def test_one_image_and_the_wrong_kind_are_said_to_be_so(tmp_path: Path) -> None:
    by_time(tmp_path / "all")
    make.classic(tmp_path / "one", stored(A[:1]), series=1, InversionTime=50, **IR)
    with pytest.raises(InputError, match=r"expected images of several inversion or echo times, got one image"):
        find_series(tmp_path / "one")
    with pytest.raises(InputError, match=r"no series for --sequence t2; leave it out for\n  --series 5 "):
        find_series(tmp_path / "all", sequence="t2")


def test_a_mask_beside_dicom(tmp_path: Path) -> None:
    import nibabel as nib

    by_time(tmp_path)
    nib.save(nib.Nifti1Image(np.ones((COLUMNS, ROWS, K), np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match="the folder contains DICOM, and NIfTI files that are not a series") as error:
        find_series(tmp_path)
    assert str(tmp_path) not in str(error.value)
    assert the_times(find_series(tmp_path, series=["5"])[0].load()) == list(TI)


def the_times(series: Any) -> list[float]:
    return [float(t) for t in series.model.times]
