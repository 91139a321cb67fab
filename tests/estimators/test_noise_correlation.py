"""Interpolated (zero-filled) images: their noise is correlated, which is measured, reported and drawn again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import rimap
from rimap.correlation import NoiseCorrelation, correlation_of
from rimap.estimators.rim.bootstrap import drawn
from rimap.io.results import find_results
from rimap.report.page_rewriting import page_again
from rimap.workflow import Request, map_series, memory, summary

TAU = (50.0, 150.0, 300.0, 500.0, 800.0, 1200.0, 1800.0, 2600.0, 4000.0)
SIGMA = 0.03


def signed_images(n: int, planes: int = 1) -> np.ndarray:
    """Return images (N, n, n, planes) of a disc of smooth T1, without noise."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n),) * 2, indexing="ij")
    T1 = (900 + 300 * x)[..., None] * np.ones(planes)
    disc = gaussian_filter((np.hypot(x, y) < 0.8).astype(float), 1)[..., None]
    return np.stack([disc * (1 - 1.9 * np.exp(-t / T1)) for t in TAU])


def zero_filled(images: np.ndarray, factor: float, seed: int, sigma: float = SIGMA) -> np.ndarray:
    """Return magnitudes of images with complex noise whose k-space is filled up with zeros in the plane."""
    n, m = images.shape[1], round(images.shape[1] * factor)
    e = np.random.default_rng(seed).normal(0, sigma, (2, *images.shape))
    k = np.zeros((len(images), m, m, images.shape[3]), complex)
    a = m // 2 - n // 2
    k[:, a : a + n, a : a + n] = np.fft.fftshift(np.fft.fft2(images + e[0] + 1j * e[1], axes=(1, 2)), axes=(1, 2))
    return abs(np.fft.ifft2(np.fft.ifftshift(k, axes=(1, 2)), axes=(1, 2)) * (m / n) ** 2).astype(np.float32)


def series_of(images: np.ndarray) -> rimap.WeightedSeries:
    return rimap.WeightedSeries(images, rimap.InversionRecovery(tau=TAU))


@pytest.mark.parametrize("factor", [1.0, 4 / 3, 1.6, 2.0])
@pytest.mark.parametrize("estimator", [rimap.NLLS(threads=1), rimap.RIM(threads=1)], ids=["nlls", "rim"])
def test_the_factor_of_interpolation_is_found(factor: float, estimator: Any) -> None:
    maps = estimator.estimate(series_of(zero_filled(signed_images(round(72 / factor)), factor, 1)))
    assert maps.correlation is not None
    assert maps.correlation.factors == pytest.approx((factor, factor, 1.0), rel=0.04)
    told = [w for w in maps.warnings if "correlated" in w]
    assert len(told) == (factor > 1)
    assert float(maps.noise.sigma) == pytest.approx(SIGMA, rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_misfit_that_voxels_far_apart_share_is_said(share: float) -> None:
    """Three echoes of two compartments leave residuals that repeat in every scan: σ contains them."""
    te, rng = (15.0, 40.0, 65.0), np.random.default_rng(1)
    x, y = np.meshgrid(*(np.linspace(0, 1, 64),) * 2, indexing="ij")
    T2 = 60 + 20 * x + 10 * y
    S = np.stack([(1 - share) * np.exp(-t / T2) + share * np.exp(-t / 8) for t in te])[..., None]
    images = np.hypot(S + rng.normal(0, 0.005, S.shape), rng.normal(0, 0.005, S.shape))
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, rimap.T2Decay(tau=te)))
    assert any("misfit of the model" in w for w in maps.warnings) == (share > 0)


@pytest.mark.parametrize("factor", [4 / 3, 2.0])
def test_the_bootstrap_of_a_rim_has_the_scatter_of_repeated_scans(factor: float) -> None:
    truth = signed_images(round(64 / factor))
    scans = [series_of(zero_filled(truth, factor, n)) for n in range(8)]
    first = rimap.RIM(sd_draws=12).estimate(scans[0])
    T = np.stack([rimap.RIM().estimate(s)["T1"] for s in scans])
    inside = np.isfinite(T).all(0) & np.isfinite(first.sd["T1"])
    ratio = np.sqrt(np.median(T[:, inside].var(0, ddof=1) / first.sd["T1"][inside] ** 2) / (6.346 / 7))
    assert 1 / 1.2 < ratio < 1.2


def test_least_squares_has_the_scatter_of_repeated_scans() -> None:
    truth = signed_images(32)
    scans = [series_of(zero_filled(truth, 2.0, n)) for n in range(8)]
    every = [rimap.NLLS(threads=1).estimate(s) for s in scans]
    T, sd = np.stack([m["T1"] for m in every]), every[0].sd["T1"]
    inside = (np.stack([m.status for m in every]) == 0).all(0) & np.isfinite(sd)
    ratio = np.sqrt(np.median(T[:, inside].var(0, ddof=1) / sd[inside] ** 2) / (6.346 / 7))
    assert 1 / 1.2 < ratio < 1.2


@pytest.mark.parametrize("noise", [rimap.Gaussian(2.0), rimap.Rician(2.0)])
def test_draws_have_the_correlation_that_was_measured(noise: Any) -> None:
    found = NoiseCorrelation(((0.6366, 0.0, -0.2122, 0.0), (0.3, -0.2122, 0.1, 0.0), (0.3, -0.2122, 0.1, 0.0)))
    model = rimap.T2Decay(tau=[10, 20, 40])
    kappa = np.stack([np.full((48, 48, 24), 1000.0), np.full((48, 48, 24), 80.0)]).astype(np.float32)
    series = rimap.WeightedSeries(model.signal(kappa), model, noise=noise)
    again = drawn(series, kappa, noise, 1, correlation=found)
    r = np.asarray(again.images - series.images, float)
    assert r.std() == pytest.approx(2.0, rel=0.03)
    measured = correlation_of(r, np.ones(r.shape, bool), 3)
    for axis, expected in zip(measured.axes, found.axes):
        assert axis == pytest.approx(expected, abs=0.05)
    part = drawn(
        replace(series, images=series.images[..., 5:7]),
        kappa[..., 5:7],
        noise,
        1,
        np.broadcast_to([5, 6], (48, 48, 2)),
        found,
    )
    np.testing.assert_array_equal(part.images, again.images[..., 5:7])  # slabs get the noise of the whole


def test_white_draws_are_what_they_were() -> None:
    model = rimap.T2Decay(tau=[10, 20, 40])
    kappa = np.stack([np.full((6, 5), 1000.0), np.full((6, 5), 80.0)]).astype(np.float32)
    series = rimap.WeightedSeries(model.signal(kappa), model, noise=rimap.Gaussian(2.0))
    noise, white = rimap.Gaussian(2.0), NoiseCorrelation(((), ()))
    np.testing.assert_array_equal(
        drawn(series, kappa, noise, 3).images, drawn(series, kappa, noise, 3, None, white).images
    )


def test_errors_of_the_model_are_no_correlated_noise() -> None:
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(5, 80, 80)), (0, 12, 12)) * 40
    white = rng.normal(size=(5, 80, 80))
    assert correlation_of(white + 1.0 * smooth, np.ones(white.shape, bool), 2).is_white
    assert correlation_of(white, np.zeros(white.shape, bool), 2).is_white


def test_few_voxels_or_images_say_nothing() -> None:
    tau = TAU[:3]
    small = rimap.WeightedSeries(zero_filled(signed_images(32)[:3], 2.0, 1), rimap.InversionRecovery(tau=tau))
    assert rimap.NLLS(threads=1).estimate(small).correlation is None  # as many images as parameters
    assert rimap.NLLS(threads=1).estimate(series_of(zero_filled(signed_images(8), 1.0, 1))).correlation.is_white


def test_it_is_reported_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = zero_filled(signed_images(32, planes=3), 2.0, 4)
    nib.save(nib.Nifti1Image(np.moveaxis(images, 0, -1), np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "x.nii")
    request = {"inputs": tmp_path / "x.nii", "sequence": "ir", "times_ms": TAU, "estimator": "nlls"}
    run = map_series(Request(out=tmp_path / "whole", **request))
    about = json.loads((tmp_path / "whole" / "x_T1map.json").read_text())
    assert about["NoiseCorrelation"][0][0] == pytest.approx(0.64, abs=0.03) and about["NoiseCorrelation"][2] == []
    assert any("zero-filled" in n for n in about["Notes"])
    assert "adjacent voxels correlated (0.6" in "\n".join(summary.lines(run))
    page = run.results[0].report.read_text()
    assert "adjacent voxels correlated (0.6" in page and "share one independent value" in page
    (result,) = find_results(tmp_path / "whole")
    assert [list(axis) for axis in result.load().correlation.axes] == about["NoiseCorrelation"]
    page_again(result)
    assert "adjacent voxels correlated (0.6" in run.results[0].report.read_text()
    with monkeypatch.context() as small:
        small.setattr(memory, "needed", lambda *a, **k: 1 << 61)
        small.setattr(memory, "slab_voxels", lambda *a: 2 * 64 * 64)
        map_series(Request(out=tmp_path / "parts", **request))
    parts = json.loads((tmp_path / "parts" / "x_T1map.json").read_text())
    assert np.allclose(parts["NoiseCorrelation"][:2], about["NoiseCorrelation"][:2], atol=0.02)


def test_a_phantom_is_plausible(shared_data: Path) -> None:
    """In scans of the phantom, noise along each axis is white or interpolated by a factor that scanners use."""
    for subject in ("sub-philips3TplateT1", "sub-siemens1p5TplateT1"):
        series = rimap.read(shared_data / "nist_phantom" / subject, sequence="ir")
        found = rimap.NLLS().estimate(series).correlation
        assert found is not None and all(1.0 <= f <= 2.6 for f in found.factors)
