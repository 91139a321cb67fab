"""Samples of many values."""

import numpy as np
import pytest

from rimap.arrays import at_least


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
