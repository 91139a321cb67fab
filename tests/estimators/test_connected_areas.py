"""Connected areas are those of a labelled volume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rimap.estimators.checks.connected_areas import areas


@pytest.mark.parametrize("shape", [(7, 6), (1, 9), (5, 4, 3), (6, 5, 1)])
@pytest.mark.parametrize("fewest", [1, 2, 4, 30])
def test_areas_are_those_of_a_labelled_volume(shape: tuple[int, ...], fewest: int) -> None:
    for share in (0.0, 0.05, 0.2, 0.35, 1.0):
        where = np.random.default_rng(0).random(shape) < share
        labels, _ = ndimage.label(where, np.ones((3,) * len(shape)))
        expected = where & (np.bincount(labels.reshape(-1))[labels] >= fewest)
        np.testing.assert_array_equal(areas(where, fewest), expected)


def test_the_end_of_a_row_is_not_beside_the_next() -> None:
    where = np.zeros((3, 4), bool)
    where[0, 3] = where[1, 0] = where[2, 2] = where[2, 3] = True
    assert areas(where, 2).tolist() == [[False] * 4, [False] * 4, [False, False, True, True]]


def test_a_chain_through_the_whole_volume_is_one_area() -> None:
    where = np.zeros((9, 9), bool)
    where[::4] = True
    where[1:4, 8] = where[5:8, 0] = True
    assert areas(where, where.sum())[where].all() and not areas(where, where.sum() + 1).any()


def test_a_list_has_no_sides() -> None:
    where = np.array([True, False, True])
    assert areas(where, 5).tolist() == where.tolist() and not areas(np.zeros((3, 3), bool), 1).any()
