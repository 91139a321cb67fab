"""Samples of many values."""

import numpy as np
import pytest

from rimap.arrays import at_least, at_most, places


@pytest.mark.parametrize("slices", range(2, 60, 3))
@pytest.mark.parametrize("least", [50, 1000])
def test_a_sample_of_a_volume_has_voxels_of_all_slices(slices, least):
    """A fixed step that is a multiple of the number of slices has those of one slice alone."""
    voxels = np.arange(96 * 96 * slices)
    sample = at_least(voxels, least)
    assert least <= len(sample) < 2 * least
    assert (np.diff(sample) > 0).all()
    assert len(np.unique(sample % slices)) > 0.5 * min(slices, least)
    assert abs(sample.mean() / voxels.mean() - 1) < 0.03


@pytest.mark.parametrize("number_of_slices", range(2, 41))
def test_a_sample_has_voxels_of_all_slices_whatever_the_step(number_of_slices: int) -> None:
    """A fixed step of as many voxels as there are slices would take all from the first, which may be air."""
    for step in (number_of_slices, 3 * number_of_slices):
        count = 2_000 * step
        sample = places(count, step)
        assert len(sample) == 2_000 and (sample // step == np.arange(2_000)).all()
        assert np.bincount(sample % number_of_slices, minlength=number_of_slices).min() > 500 / number_of_slices
        assert len(at_most(np.arange(count), 2_000)) == 2_000
