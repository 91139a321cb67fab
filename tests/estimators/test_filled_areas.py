"""Areas that are filled with one value: which values, which voxels, and where equal neighbours are measurements."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap.estimators.checks import filled_areas as module
from rimap.estimators.checks.filled_areas import filled, fills_of

Floats = NDArray[np.float64]


def images(seed: int = 0) -> Floats:
    """Return two images (2, 20, 24) of whole numbers."""
    return np.random.default_rng(seed).integers(1, 400, (2, 20, 24)).astype(float)


def fills(S: Floats, thing: NDArray[np.bool_] | None = None, parts: int = 1) -> tuple[tuple[float, ...], ...]:
    thing = np.ones(S.shape[1:], bool) if thing is None else thing
    cuts = np.array_split(np.arange(S.shape[1]), parts)
    return fills_of(lambda: [(S[:, cut], thing[cut]) for cut in cuts], len(S))


def test_a_value_that_fills_an_area_stands_out() -> None:
    S = images()
    S[1, 3:9, 4:10] = 250.5
    assert fills(S) == ((), (250.5,)) and fills(images()) == ()
    assert fills(S, parts=2) == ((), (250.5,))
    S[0, 0:6, 0:6] = 9.5
    assert fills(S) == ((9.5,), (250.5,))


def test_zeros_and_drawn_objects_are_no_fills() -> None:
    S = images()
    S[1, 3:9, 4:10] = 0
    assert fills(S) == ()
    drawn = np.zeros((2, 20, 24)) + np.arange(1, 6).repeat(4)[:, None]
    drawn[1, 3:9, 4:10] = 99
    assert fills(drawn) == ()


@pytest.mark.parametrize(("times", "similar", "stands_out"), [(11, 0, 0), (12, 0, 1), (100, 10, 1), (100, 11, 0)])
def test_a_value_is_side_by_side_ten_times_as_often_as_similar_ones(times: int, similar: int, stands_out: int) -> None:
    for place in range(1, 7):  # among the five next ones on either side
        for sign in (-1, 1):
            counts = dict.fromkeys([float(50 + k) for k in range(-8, 9)], 0)
            counts[50.0], counts[50.0 + sign * place] = times, similar
            expected = stands_out or (place == 6 and times >= 12)
            assert module._outstanding(counts) == ((50.0,) if expected else ())
    assert module._outstanding({0.0: 99}) == () and module._outstanding({}) == ()
    many = {float(100 * k): 20 + k for k in range(1, 6)} | {
        float(100 * k + j): 0 for k in range(1, 6) for j in range(1, 9)
    }
    assert module._outstanding(many) == (500.0, 400.0, 300.0)


def test_pairs_of_equal_neighbours_are_counted_along_each_axis() -> None:
    image = np.array([[1.0, 1, 2], [1, 3, 2], [5, 3, 2]])
    values, counts = module._side_by_side(image, np.ones((3, 3), bool))
    assert dict(zip(values.tolist(), counts.tolist())) == {1.0: 2, 2.0: 2, 3.0: 1}
    where = np.ones((3, 3), bool)
    where[0] = False
    values, counts = module._side_by_side(image, where)
    assert dict(zip(values.tolist(), counts.tolist())) == {2.0: 1, 3.0: 1}


def same(*lines: str) -> NDArray[np.bool_]:
    return np.array([[c == "#" for c in line] for line in lines])


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (("####....", "####....", "####...."), 12),
        (("####....", "####....", "###....."), 0),  # eleven
        (("####...#", "####....", "####...."), 12),  # one voxel apart
        (("####....", "####....", "####....", "...#...."), 12),  # a neighbour by chance
        (("############",), 12),
        (("###########.",), 0),
        (("######......", "......######"), 12),  # lines that touch at their ends
        (("#####.#####.", ".....#......"), 0),  # lines of five
    ],
)
def test_an_area_is_squares_or_lines(lines: tuple[str, ...], kept: int) -> None:
    of_plane = same(*lines)
    for plane in (of_plane, of_plane.T):
        found = module._of_plane(plane)
        assert found.sum() == kept and not (found & ~plane).any()


def test_voxels_of_filled_areas_plane_by_plane() -> None:
    image = np.random.default_rng(1).random((9, 8, 3))
    image[2:6, 2:5, 1] = 5.0
    image[0:4, 0:3, 2] = 6.0
    image[0, 0, 0] = 5.0
    found = filled(image, (5.0, 6.0))
    assert found.sum() == 24 and found[2:6, 2:5, 1].all() and found[0:4, 0:3, 2].all()
    np.testing.assert_array_equal(filled(image[..., 1], (5.0,)), found[..., 1])
    assert filled(np.array([5.0, 1, 5]), (5.0,)).tolist() == [True, False, True] and not filled(image, ()).any()


@pytest.mark.parametrize(("equal", "drawn"), [(0.15, False), (0.3, True)])
def test_an_object_of_equal_neighbours_is_drawn(equal: float, drawn: bool) -> None:
    """In all images, beside what fills them, in a fifth of the neighbours of the object."""
    S = images()
    S[:, : round(20 * equal)] = 33.5
    S[1, 12:18, 12:18] = 250.5
    thing = np.ones((20, 24), bool)
    assert module._drawn(lambda: [(S, thing)], ((), (250.5,))) == drawn
    S[0] = images(3)[0]
    assert not module._drawn(lambda: [(S, thing)], ((), (250.5,)))
