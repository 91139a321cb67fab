"""Maps as DICOM series: values, places, units and references, read back by pydicom and by dcm2niix."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.dicom_write import slope_for
from rimap.workflow.dicom_out import maps_to_dicom

pydicom = pytest.importorskip("pydicom")
dcm2niix = pytest.importorskip("dcm2niix")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dicom_builder.py"))))

TE, SHAPE = (10, 20, 40, 80), (3, 24, 20)
T2 = 40 + np.arange(np.prod(SHAPE)).reshape(SHAPE) / 10


def scan(folder: Path, **more: Any) -> Path:
    for n, te in enumerate(TE):
        fields = {"EchoTime": te, "RepetitionTime": 5000, "ScanningSequence": "SE"} | more
        make.classic(folder, (1000 * np.exp(-te / T2)).round().astype(np.uint16), series=5 + n, **fields)
    return folder


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    """A scan, and a map with a voxel without value on the grid of its images."""
    (found,) = find_series(scan(tmp_path / "dicom"))
    image = nib.load(found.images[0])
    values = np.transpose(T2[:, ::-1, :], (2, 1, 0)) / 1000
    values[3, 4, 1] = np.nan
    (tmp_path / "maps").mkdir()
    path = tmp_path / "maps" / "series-5to8_T2map.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), path)
    path.with_name("series-5to8_T2map.json").write_text(
        '{"Units": "s", "Estimator": "nlls", "SignalModel": "t2", "Sources": ["dicom:series-5", "dicom:series-6"]}'
    )
    return tmp_path


def test_values_places_and_identity_are_those_of_source_and_map(mapped: Path) -> None:
    (series,) = maps_to_dicom([mapped / "maps"], mapped / "dicom", mapped / "out")
    files = sorted(series.folder.iterdir())
    assert len(files) == SHAPE[0] and series.number == 501
    sources = {tuple(map(float, d.ImagePositionPatient)): d for d in map(pydicom.dcmread, (mapped / "dicom").iterdir())}
    uids = set()
    for path in files:
        ds = pydicom.dcmread(path)
        source = sources[tuple(map(float, ds.ImagePositionPatient))]
        k = next(k for k in range(SHAPE[0]) if np.allclose(make.position(k), ds.ImagePositionPatient, atol=1e-6))
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        expected = T2[k].copy()
        if k == 1:
            expected[SHAPE[1] - 1 - 4, 3] = 0
        np.testing.assert_allclose(values, expected, atol=float(ds.RescaleSlope) / 2 + 1e-4)
        assert ds.RescaleType == "ms" and list(ds.ImageType[:2]) == ["DERIVED", "PRIMARY"]
        (world,) = ds.RealWorldValueMappingSequence
        assert world.MeasurementUnitsCodeSequence[0].CodeValue == "ms"
        assert world.RealWorldValueSlope == pytest.approx(float(ds.RescaleSlope))
        for name in ("PatientName", "PatientID", "StudyInstanceUID", "ImageOrientationPatient", "PixelSpacing"):
            assert ds[name].value == source[name].value
        assert len({ds.SeriesInstanceUID} & {s.SeriesInstanceUID for s in sources.values()}) == 0
        referenced = {r.ReferencedSOPInstanceUID for r in ds.SourceImageSequence}
        own = [d for d in map(pydicom.dcmread, (mapped / "dicom").iterdir()) if d.SeriesNumber in (5, 6)]
        assert referenced == {
            d.SOPInstanceUID for d in own if np.allclose(d.ImagePositionPatient, ds.ImagePositionPatient)
        }
        uids.add((ds.SeriesInstanceUID, ds.SOPInstanceUID))
    assert len({s for s, _ in uids}) == 1 and len({i for _, i in uids}) == SHAPE[0]


def test_dcm2niix_gives_the_map_back(mapped: Path) -> None:
    (series,) = maps_to_dicom([mapped / "maps"], mapped / "dicom", mapped / "out")
    (mapped / "nifti").mkdir()
    command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "map", "-o", str(mapped / "nifti"), str(series.folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = (mapped / "nifti").glob("*.nii")
    back, before = nib.load(path), nib.load(mapped / "maps" / "series-5to8_T2map.nii.gz")
    assert back.shape == before.shape
    np.testing.assert_allclose(back.affine, before.affine, atol=1e-3)
    values = np.nan_to_num(before.get_fdata() * 1000)
    np.testing.assert_allclose(back.get_fdata(), values, atol=slope_for(values)[0])


def test_maps_among_the_images_are_no_images(mapped: Path) -> None:
    maps_to_dicom([mapped / "maps"], mapped / "dicom", mapped / "dicom" / "rimap")
    (found,) = find_series(mapped / "dicom")
    assert len(found.images) == len(TE)


def test_what_does_not_fit_is_refused(mapped: Path, tmp_path: Path) -> None:
    maps_to_dicom([mapped / "maps"], mapped / "dicom", mapped / "out")
    with pytest.raises(InputError, match="expected an empty or new folder"):
        maps_to_dicom([mapped / "maps"], mapped / "dicom", mapped / "out")
    path = mapped / "maps" / "series-5to8_T2map.nii.gz"
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 1.0
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), moved), mapped / "moved_T2map.nii.gz")
    with pytest.raises(InputError, match="grid of this map"):
        maps_to_dicom([mapped / "moved_T2map.nii.gz"], mapped / "dicom", mapped / "out2")
    scan(mapped / "dicom" / "other", PatientName="Adler^Dora", PatientID="X1", StudyInstanceUID="1.2.3.4.5")
    with pytest.raises(InputError, match="expected one patient and study"):
        maps_to_dicom([path], mapped / "dicom", mapped / "out3")
    assert not (mapped / "out2").exists() and not (mapped / "out3").exists()


def test_negative_values_and_outliers_keep_their_precision() -> None:
    slope, intercept = slope_for(np.array([-3.0, 5.0, np.nan]))
    assert intercept < -3 and slope < 1e-3
    values = np.append(np.linspace(1, 10, 10_000), 1e12)
    assert slope_for(values)[0] < 0.01


def test_the_command(mapped: Path) -> None:
    arguments = ["dicom", mapped / "maps", "--source", mapped / "dicom", "-o", mapped / "out"]
    result = CliRunner().invoke(build(), [str(a) for a in arguments])
    assert result.exit_code == 0 and "series 501, 3 images" in result.output
    result = CliRunner().invoke(build(), [str(a) for a in [*arguments[:3], mapped / "nowhere", *arguments[4:]]])
    assert result.exit_code == 2 and "expected an existing file" in result.stderr
