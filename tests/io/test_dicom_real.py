"""The phantom as it left the scanners gives the values of its BIDS version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import find_series
from rimap.workflow.read_series import read

pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")


@pytest.mark.parametrize(
    ("folder", "subject", "sequence", "n_images"),
    [("philips3T_T1", "philips3TplateT1", "ir", 6), ("philips3T_T2", "philips3TplateT1", "t2", 32),
     ("siemens1p5T_T1", "siemens1p5TplateT1", "ir", 6)],
)  # fmt: skip
def test_values_and_times_are_those_of_the_bids_version(
    shared_data: Path, folder: str, subject: str, sequence: str, n_images: int
) -> None:
    series = read(shared_data / "dicom" / folder, sequence=sequence)
    expected = read(shared_data / "nist_phantom" / f"sub-{subject}", sequence=sequence)
    assert series.model == expected.model
    assert series.images.shape == expected.images.shape == (n_images, 192, 192, 1)
    np.testing.assert_allclose(series.images, expected.images, rtol=3e-7, atol=0.02)


def test_several_series_are_listed_and_chosen(shared_data: Path) -> None:
    with pytest.raises(InputError) as error:
        find_series(shared_data / "dicom")
    text = str(error.value)  # of the first patient; the other one has one series
    assert "--series 1301 " in text
    assert "32 images, TE 8, 16 … 256 ms, “T2 Relaxometry15”" in text
    found = find_series(shared_data / "dicom", series=["1901", "1601"])
    assert [f.stem for f in found] == ["subject-01_series-1901", "subject-01_series-1301to1801"]
    assert all("subject 2 left out" in str(f.notes) for f in found)
    both = find_series(shared_data / "dicom", sequence="ir")
    assert [f.stem for f in both] == ["subject-01_series-1301to1801", "subject-02_series-2to7"]
    with pytest.raises(InputError, match="no such series"):
        find_series(shared_data / "dicom", series=["77"])
    assert find_series(shared_data / "dicom", sequence="t2")[0].stem == "subject-01_series-1901"
