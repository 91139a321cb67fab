"""A field beyond its physical or usual range: in the median, in a region, and not within its standard deviation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rimap
from rimap.advice import Weight, weight_of
from rimap.estimators.checks.field_range import field_warnings
from rimap.estimators.checks.image_counts import Census
from rimap.series import ParameterMaps, Status

IR = rimap.InversionRecovery(tau=(50.0, 200.0, 500.0, 1000.0, 2000.0))  # B from 1 to 2.1
TRAIN = rimap.MultiEchoSpinEcho(te=10.0 * np.arange(1, 7), profile="hard")  # B1 from 0.5 to 1.5, usual from 0.8 to 1.2


def said(
    values: Any, model: Any = IR, *, images: Any = None, sd: Any = None, status: Any = None, **more: Any
) -> list[str]:
    """Return the warnings on 1,000 voxels with these values of the field."""
    field = np.broadcast_to(np.asarray(values, float), (1000,))
    kappa = np.ones((len(model.parameters), 1000)) * 500
    kappa[model.index(model.field.name)] = field
    status = np.zeros(1000, np.uint8) if status is None else status
    sds = None if sd is None else np.ones(kappa.shape) * sd
    maps = ParameterMaps(kappa=kappa, model=model, status=status, sd_kappa=sds)
    images = np.ones((model.n_images, 1000)) if images is None else images
    series = rimap.WeightedSeries(images, model, **more)
    return list(field_warnings(series, maps, Census.of(series.images, 1)))


@pytest.mark.parametrize(("value", "told"), [(1.0, True), (1.001, False), (2.099, False), (2.1, True), (0.5, True)])
def test_the_median_is_within_what_a_scan_has(value: float, told: bool) -> None:
    texts = said(value)
    assert len(texts) == told
    for text in texts:
        assert weight_of(text) == Weight.UNRELIABLE and "between 1 and 2.1: is this an inversion recovery" in text
        assert f"is {value:.3g} in the median voxel" in text and text.startswith("B (inversion efficiency) is")


def region(share: float, value: float, rest: float = 1.9) -> np.ndarray:
    return np.where(np.arange(1000) < 1000 * share, value, rest)


@pytest.mark.parametrize(
    ("share", "value", "told"),
    [(0.02, 2.2, 0), (0.021, 2.2, 1), (0.3, 0.9, 1), (0.3, 1.1, 0), (0.3, 2.1, 1), (0.3, 1.0, 1)],
)
def test_a_region_beyond_it(share: float, value: float, told: int) -> None:
    """More than one voxel in fifty."""
    texts = said(region(share, value))
    assert len(texts) == told
    for text in texts:
        assert weight_of(text) == Weight.CAUTION and f"in {100 * share:.2g} % of the voxels, {value:.3g} there" in text


@pytest.mark.parametrize(
    ("value", "sd", "told"), [(2.3, 0.09, 1), (2.3, 0.11, 0), (0.8, 0.09, 1), (0.8, 0.11, 0), (2.3, np.nan, 1)]
)
def test_a_region_is_beyond_it_by_two_standard_deviations(value: float, sd: float, told: int) -> None:
    assert len(said(region(0.3, value), sd=sd)) == told
    assert len(said(np.full(1000, value), sd=sd)) == 1  # the median needs none


def test_only_voxels_with_a_value_and_signal_count() -> None:
    wrong = np.arange(1000) % 4 > 0
    for flag in Status:
        status = np.where(wrong, int(flag), 0).astype(np.uint8)
        counts = flag in (Status.OK, Status.AT_BOUND, Status.OUTSIDE_TRAINING)
        assert bool(said(np.where(wrong, 2.5, 1.9), status=status)) == counts, flag
    for share, counts in ((0.39, False), (0.41, True)):
        images = np.ones((5, 1000)) * np.where(wrong, share, 1.0)
        assert bool(said(np.where(wrong, 2.5, 1.9), images=images)) == counts
    assert said(2.5, status=np.full(1000, 2, np.uint8)) == []


def test_unknown_values_are_beyond_any_range_only_if_others_are_known() -> None:
    assert said(np.nan) == []
    assert said(np.where(np.arange(1000) < 300, np.nan, 1.9)) == []
    (text,) = said(np.where(np.arange(1000) < 300, np.nan, 2.5))
    assert "is 2.5 in the median voxel" in text


def test_a_field_that_is_known_or_has_no_range_is_not_judged() -> None:
    assert said(2.5, given={"B": 2.5}) == []
    assert said(9.0, rimap.LookLocker(ti=(50.0, 200.0, 500.0, 1000.0))) == []


def test_bounds_of_the_user_narrow_the_range() -> None:
    narrow = IR.with_bounds({"B": (1.5, 1.95)})
    assert "between 1.5 and 1.95" in said(1.95, narrow)[0] and said(1.9, narrow) == []
    wide = IR.with_bounds({"B": (0.2, 9.0)})
    assert "between 1 and 2.1" in said(2.2, wide)[0]


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.79, True), (0.8, False), (1.2, False), (1.21, True), (0.5, False), (1.5, False), (0.51, True), (1.49, True)],
)
def test_a_possible_field_that_most_scans_do_not_have(value: float, told: bool) -> None:
    texts = [text for text in said(value, TRAIN) if "in most scans" in text]
    assert len(texts) == told
    for text in texts:
        assert f"is {value:.2f} in the median voxel; in most scans it is between 0.8 and 1.2." in text
        assert weight_of(text) == Weight.CAUTION


@pytest.mark.parametrize(("share", "counts"), [(0.19, False), (0.21, True)])
def test_a_fifth_of_the_signal_is_enough_for_what_is_usual(share: float, counts: bool) -> None:
    dark = np.arange(1000) % 4 > 0
    images = np.ones((6, 1000)) * np.where(dark, share, 1.0)
    texts = said(np.where(dark, 1.3, 1.0), TRAIN, images=images)
    assert any("in most scans" in text for text in texts) == counts
