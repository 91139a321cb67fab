"""A slice that lacks in one image gives no number that looks right."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.empty_slices import empty_slices, left_out
from rimap.io.reading_options import Reading

TI = [50.0, 200, 400, 800, 1500, 2500, 4000]
IR, T2 = rimap.InversionRecovery(tau=TI, tr=9000.0), rimap.T2Decay(tau=[10.0, 20, 40, 80])


def images(model: rimap.SignalModel, planes: int = 5) -> np.ndarray:
    shape = (12, 10, planes)
    middle = [np.full(shape, 1.9)] * (len(model.parameters) - 2)
    return np.asarray(model.signal([np.full(shape, 1000.0), *middle, np.full(shape, 900.0 if middle else 60.0)]))


def load(path: Path, S: np.ndarray) -> rimap.WeightedSeries:
    nib.save(nib.Nifti1Image(np.moveaxis(S, 0, -1).astype(np.float32), np.eye(4)), path)
    (found,) = find_series(path, sequence="ir")
    return found.load(Reading(times_ms=TI, tr_ms=9000.0))


def test_a_slice_that_lacks_in_one_image_has_no_map_and_the_others_theirs(tmp_path: Path) -> None:
    S = images(IR)
    S[4, ..., 2] = 0
    series = load(tmp_path / "x.nii.gz", S)
    assert any("image 5 (1500 ms) is zero" in n and "slice 3" in n for n in series.notes)
    maps = rimap.NLLS(threads=1).estimate(series)
    assert (maps.status[..., 2] == rimap.Status.NOT_FINITE).all() and np.isnan(maps["T1"][..., 2]).all()
    np.testing.assert_allclose(np.delete(maps["T1"], 2, -1), 900, rtol=1e-3)


@pytest.mark.parametrize("planes", [1, 5])
def test_an_image_that_is_empty_is_refused(tmp_path: Path, planes: int) -> None:
    S = images(IR, planes)
    S[3] = 0
    with pytest.raises(InputError, match=r"image 4 \(800 ms\) is zero throughout. Leave it out"):
        load(tmp_path / "x.nii", S)


def test_what_may_be_zero() -> None:
    S = images(T2)
    S[2:, ..., 1] = 0  # decayed
    S[:, ..., 0] = 0  # outside of the object
    S[1:, ..., 4] = 0
    S[1, 3, 3, 4] = 1
    assert not empty_slices(S, T2).any()
    S[1, ..., 3] = 0
    assert np.argwhere(empty_slices(S, T2)).tolist() == [[1, 3]]


def test_a_slice_by_itself_that_is_read_in_parts_is_left_out_whole() -> None:
    S = images(IR)[..., 0]
    S[3] = 0
    assert len(left_out(S, IR, first=0)) == 1 and np.isnan(S[3]).all()
