"""Images that are clipped: many voxels of the object have the largest value, few have one just below it."""

from __future__ import annotations

import numpy as np
import pytest

from rimap.estimators.checks.clipping import MANY, PILE, Clipping

SHAPE = (20, 25, 2)


def images(seed: int = 0) -> np.ndarray:
    """Three images of whole numbers, all different in the object."""
    return (
        np.random.default_rng(seed).permuted(np.arange(3000).reshape(3, 1000), axis=1).reshape(3, *SHAPE).astype(float)
    )


def of(S: np.ndarray, thing: np.ndarray | None = None) -> Clipping:
    inside = np.ones(SHAPE, bool) if thing is None else thing
    return Clipping.of(lambda: [(S[..., k : k + 1], inside[..., k : k + 1]) for k in range(2)])


def test_images_as_they_are() -> None:
    assert of(images()) == Clipping() == Clipping(levels=(), much=False)


@pytest.mark.parametrize(("n", "found"), [(PILE - 1, False), (PILE, True), (40, True)])
def test_a_pile_at_the_largest_value_of_one_image(n: int, found: bool) -> None:
    S = images()
    level = np.sort(S[2].ravel())[-n]
    S[2] = np.minimum(S[2], level)
    assert of(S) == (Clipping(levels=(np.inf, np.inf, level), much=False) if found else Clipping())


@pytest.mark.parametrize(("share", "much"), [(0.9 * MANY, False), (1.2 * MANY, True)])
def test_many_voxels_spoil_the_maps(share: float, much: bool) -> None:
    S = images()
    level = np.sort(S[2].ravel())[-round(share * 1000)]
    assert of(np.minimum(S, level)) == Clipping(levels=(np.inf, np.inf, level), much=much)


@pytest.mark.parametrize(("voxels", "much"), [(1000, False), (999, True)])
def test_many_is_more_than_one_in_twenty(voxels: int, much: bool) -> None:
    """Of 50 voxels."""
    S, thing = images(), np.ones(SHAPE, bool)
    thing.reshape(-1)[np.argmin(S[2]) : np.argmin(S[2]) + 1] = voxels == 1000
    level = np.sort(S[2].ravel())[-50]
    S[2] = np.minimum(S[2], level)
    assert of(S, thing) == Clipping(levels=(np.inf, np.inf, level), much=much)


def test_the_background_is_not_asked() -> None:
    S, thing = images(), np.ones(SHAPE, bool)
    thing[:4] = False
    S[2, :4] = 1e6
    assert of(S, thing) == Clipping()
    S[2] = np.minimum(S[2], np.sort(S[2, 4:].ravel())[-10])
    assert of(S, thing).levels == (np.inf, np.inf, S[2].max())


def test_values_that_are_as_frequent_below_are_no_pile() -> None:
    """Whole numbers of low SNR: each value is frequent, also the largest."""
    S = images()
    S[2] = np.floor(S[2] / 20)
    assert of(S) == Clipping()


def test_a_drawn_object_is_no_pile() -> None:
    """Its tissues are alike in all images."""
    S = np.zeros((3, *SHAPE))
    for k, tissue in enumerate((slice(0, 8), slice(8, 9))):
        S[:, tissue] = np.array([30.0, 20.0, 10.0])[:, None, None, None] - k
    assert of(S) == Clipping()


def test_images_in_scales_of_their_own_have_levels_of_their_own() -> None:
    S = images()
    levels = [np.sort(image.ravel())[-20] for image in S]
    found = of(np.stack([np.minimum(s, v) for s, v in zip(S, levels)]))
    assert found.levels == tuple(levels)
    assert found.of_images(3).tolist() == levels and Clipping().of_images(2).tolist() == [np.inf, np.inf]


def piled(distinct: int, planes: bool = False) -> np.ndarray:
    """Images; the last one has 40 voxels of one value, where the others have this many distinct values (per plane)."""
    S = images()
    value = S[2].max() + 1
    for k in range(2):
        S[2, :4, :5, k] = value
        for n in range(2):
            own = 5000 + 1000 * n + (0 if planes else 100 * k) + np.arange(20) % (distinct if planes else distinct // 2)
            S[n, :4, :5, k] = own.reshape(4, 5)
    return S


@pytest.mark.parametrize(("distinct", "found"), [(20, False), (22, True), (4, False)])
def test_other_images_must_differ_within_the_pile(distinct: int, found: bool) -> None:
    S = piled(distinct)
    thing = np.ones(SHAPE, bool)
    thing[:4, :5] = True
    assert of(S, thing).levels == ((np.inf, np.inf, S[2].max()) if found else ())


def test_distinct_values_are_counted_in_each_plane() -> None:
    S = piled(12, planes=True)  # 12 in each of two planes, of 40 voxels
    assert of(S).levels == (np.inf, np.inf, S[2].max())


def test_an_image_of_one_plane() -> None:
    S = np.random.default_rng(1).permuted(np.arange(1500).reshape(3, 500), axis=1).reshape(3, 20, 25).astype(float)
    level = np.sort(S[2].ravel())[-10]
    S[2] = np.minimum(S[2], level)
    assert Clipping.of(lambda: [(S, np.ones((20, 25), bool))]) == Clipping(levels=(np.inf, np.inf, level), much=False)


@pytest.mark.parametrize(("n", "found"), [(11, False), (12, True)])
def test_the_pile_is_four_times_as_frequent_as_values_below(n: int, found: bool) -> None:
    S = images()
    order = np.argsort(S[2].ravel())
    flat = S[2].reshape(-1)
    flat[order[-n - 3 : -n]] = flat[order[-n - 1]]  # three voxels with one value
    flat[order[-n:]] = flat[order[-1]]
    assert of(S).levels == ((np.inf, np.inf, S[2].max()) if found else ())


def test_a_signed_image_without_positive_values_is_not_clipped_at_zero() -> None:
    S = images()
    S[2] -= np.sort(S[2].ravel())[-30]
    S[2] = np.minimum(S[2], 0)
    assert of(S) == Clipping()
