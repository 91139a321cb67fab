"""The real data sets are read as their README says."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.io import find_series, read_labels
from rimap.io.reading_options import Reading
from rimap.workflow.read_series import read


def test_brain_is_signed_with_a_repetition_time(shared_data: Path) -> None:
    series = read(shared_data / "brain_in_vivo", sequence="ir")
    assert series.model == rimap.InversionRecovery(tau=(50, 100, 200, 500, 2000, 4000), tr=15_000, signed=True)
    assert series.shape == (192, 256, 1)
    assert series.images.min() < 0
    assert series.notes == ()
    modulus = read(shared_data / "brain_in_vivo", sequence="ir", signed=False)
    np.testing.assert_array_equal(modulus.images, abs(series.images))
    assert read(shared_data / "brain_in_vivo", sequence="t2").model == rimap.T2Decay(tau=(10, 25, 50, 90, 150, 250))


def test_phantom_has_its_series_and_its_labels_lie_on_them(shared_data: Path) -> None:
    folder = shared_data / "nist_phantom"
    series = {s.label: s for s in find_series(folder)}
    assert series.keys() == {
        "sub-philips3TplateT1 IRT1",
        "sub-philips3TplateT1 MESE",
        "sub-philips3TplateT2 MESE",
        "sub-siemens1p5TplateT1 IRT1",
        "sub-siemensSignedplateT1 IRT1",
    }
    siemens = series["sub-siemens1p5TplateT1 IRT1"].load()
    assert siemens.model.tr == (1000, 1000, 1000, 1260, 1860, 2460)
    echoes = series["sub-philips3TplateT2 MESE"].load(Reading(skip_first=1))
    assert echoes.model.tau == tuple(range(16, 257, 8))
    for path in (folder / "derivatives").rglob("*_dseg.nii.gz"):
        subject = path.name.split("_")[0].removeprefix("sub-")
        one = find_series(folder, participant_labels=[subject])[0].load()
        assert set(range(15)) <= set(np.unique(read_labels(path, one.shape, one.affine)))


@pytest.mark.parametrize("number", [1, 6])
def test_values_are_those_of_the_files(shared_data: Path, number: int) -> None:
    anat = shared_data / "brain_in_vivo/sub-01/anat"
    image = nib.load(anat / f"sub-01_inv-{number}_part-real_IRT1.nii.gz")
    series = read(anat / "sub-01_inv-1_part-real_IRT1.nii.gz")
    np.testing.assert_array_equal(series.images[number - 1], image.get_fdata())
    np.testing.assert_array_equal(series.affine, image.affine)
