"""How much of a small spot an estimator preserves: a voxelwise one all of it, a smoother as much as its kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

import rimap
from rimap.correlation import NoiseCorrelation
from rimap.estimators.base import Estimator
from rimap.evaluation.resolution import CONTRASTS, WIDTHS, in_words, resolution, simulated

MODEL = rimap.T2Decay(tau=[10, 20, 40, 80, 160])


def scan(shape: tuple[int, ...] = (80, 72), snr: float = 50.0, noise: type = rimap.Gaussian) -> rimap.WeightedSeries:
    x = np.linspace(0, 1, shape[1]) + np.zeros(shape[:2])
    T = 60 + 30 * x.reshape(*shape[:2], *[1] * (len(shape) - 2)) + np.zeros(shape)
    clean = MODEL.signal(np.stack([np.ones(shape), T]))
    images = clean + np.random.default_rng(0).standard_normal(clean.shape) / snr
    return rimap.WeightedSeries(1000 * images.astype(np.float32), MODEL, noise(sigma=1000 / snr))


@dataclass(frozen=True, kw_only=True)
class Smoothed(Estimator):
    """NLLS, and then the mean over 3 × 3 voxels."""

    name: ClassVar[str] = "smoothed"
    title: ClassVar[str] = "Smoothed"

    def estimate(self, series: rimap.WeightedSeries, *, progress: Any = None) -> rimap.ParameterMaps:
        maps = rimap.NLLS(threads=1).estimate(series)
        return replace(maps, kappa=uniform_filter(maps.kappa, (0, 3, 3, *[0] * (maps.kappa.ndim - 3))))


@pytest.mark.parametrize("noise", [rimap.Gaussian, rimap.Rician])
@pytest.mark.parametrize("shape", [(80, 72), (72, 80, 3)])
def test_a_voxelwise_estimator_keeps_every_contrast(shape: tuple[int, ...], noise: type) -> None:
    series = scan(shape, noise=noise)
    kept = resolution(series, rimap.MLE(threads=1).estimate(series), rimap.MLE(threads=1))
    assert [(k.width, k.contrast) for k in kept] == [(w, c) for w in WIDTHS for c in CONTRASTS]
    assert all(k.share == pytest.approx(1.0, abs=0.1) for k in kept)
    assert [k.voxels for k in kept[::2]] == [1, 5, 13]


def test_a_smoother_keeps_what_its_kernel_leaves() -> None:
    series = scan(snr=1000.0)
    kept = resolution(series, Smoothed().estimate(series), Smoothed())
    expected = {1: 1 / 9, 3: (5 + 4 * 4) / 45}  # of the disc of 5 voxels the middle keeps 5/9, each arm 4/9
    assert expected.keys() <= {k.width for k in kept}
    for k in kept:
        if k.width in expected:
            assert k.share == pytest.approx(expected[k.width], abs=0.02)


def test_nothing_is_said_without_room_or_noise() -> None:
    series = scan((12, 12))
    assert resolution(series, rimap.NLLS(threads=1).estimate(series), rimap.NLLS(threads=1)) == ()
    assert in_words((), "T1") == ""
    quiet = replace(scan(), noise=None)
    maps = replace(rimap.NLLS(threads=1).estimate(quiet), noise=None)
    assert resolution(quiet, maps, rimap.NLLS(threads=1)) == ()


def test_the_estimator_is_as_good_as_it_was_in_the_part_that_is_mapped_again() -> None:
    """Voxels that are not known keep the images that were measured, so that nothing new is around the object."""
    series = scan((96, 96))
    hole = series.images.copy()
    hole[:, 40:56, 40:56] = 0
    series = replace(series, images=hole)
    kept = resolution(series, rimap.NLLS(threads=1).estimate(series), rimap.NLLS(threads=1))
    assert all(k.share == pytest.approx(1.0, abs=0.1) for k in kept)


@dataclass(frozen=True, kw_only=True)
class Kept(Smoothed):
    """NLLS that keeps the images that it was given."""

    seen: list[Any]

    def estimate(self, series: rimap.WeightedSeries, *, progress: Any = None) -> rimap.ParameterMaps:
        self.seen.append(series)
        return rimap.NLLS(threads=1).estimate(series)


def test_the_noise_of_the_spots_is_as_correlated_as_that_of_the_images() -> None:
    series = scan(snr=20.0)
    correlation = NoiseCorrelation(((0.6, 0.1), (), ()))
    estimator = Kept(seen=[])
    maps = replace(rimap.NLLS(threads=1).estimate(series), correlation=correlation)
    assert resolution(series, maps, estimator)
    noise = estimator.seen[0].images - MODEL.signal(maps.kappa[:, :80, :])
    noise = noise[(slice(None), *(slice(10, -10),) * 2)]
    along = [(noise.take(range(1, n), a) * noise.take(range(n - 1), a)).mean() / (noise**2).mean()
             for a, n in ((1, noise.shape[1]), (2, noise.shape[2]))]  # fmt: skip
    assert along == pytest.approx([0.6, 0.0], abs=0.05)


@dataclass(frozen=True, kw_only=True)
class Claiming(Estimator):
    """NLLS that claims other standard deviations than it has, for the relaxation time."""

    name: ClassVar[str] = "claiming"
    title: ClassVar[str] = "Claiming"
    claims: float = 1.0

    def estimate(self, series: rimap.WeightedSeries, *, progress: Any = None) -> rimap.ParameterMaps:
        maps = rimap.NLLS(threads=1).estimate(series)
        sd = np.array(maps.sd_kappa)
        sd[maps.model.time_index] *= self.claims
        return replace(maps, sd_kappa=sd)


@pytest.mark.parametrize(("claims", "share"), [(1.0, 0.95), (2.0, 1.0), (0.5, 0.673)])
@pytest.mark.parametrize("shape", [(80, 72), (26, 26)])  # the smaller one has no room for spots
def test_the_share_of_intervals_that_contain_the_truth_is_that_of_a_normal_distribution(
    shape: tuple[int, ...], claims: float, share: float
) -> None:
    series, estimator = scan(shape, snr=40.0), Claiming(claims=claims)
    found = simulated(series, estimator.estimate(series), estimator)
    assert found.covered == pytest.approx(share, abs=0.03)
    assert bool(found.kept) == (shape[0] > 60)
    (*warning,) = found.warning("T2")
    assert bool(warning) == (claims < 1)
    assert all(f"contain the true T2 in only {100 * found.covered:.0f} % of the voxels" in text for text in warning)


def test_without_standard_deviations_no_share_of_intervals_is_given() -> None:
    series = scan((26, 26))
    maps = replace(rimap.NLLS(threads=1).estimate(series), sd_kappa=None)
    assert np.isnan(simulated(series, maps, Smoothed()).covered)
