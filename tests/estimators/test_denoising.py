"""Denoising before the fit reduces the error, keeps correct standard deviations, and is reported in the output."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import rimap
from rimap.cli import build
from rimap.errors import InputError
from rimap.estimators import denoising
from rimap.estimators.denoising import denoised_maps, signal_of_means
from rimap.likelihood import Gaussian, Rician

pytestmark = pytest.mark.skipif(importlib.util.find_spec("dipy") is None, reason="dipy is not installed")

SHAPE = (40, 36)
TE = (10, 20, 30, 45, 60, 80, 110, 150)


def truth(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A and T2 of four tissues with sharp borders, each of which varies slowly."""
    x, y = np.indices(shape[:2]) / np.reshape(shape[:2], (2, 1, 1))
    T2 = np.where(x < 0.5, np.where(y < 0.4, 50.0, 90.0), np.where(y < 0.7, 65.0, 130.0)) * (1 + 0.1 * np.sin(5 * x))
    A = np.where(y < 0.55, 100.0, 80.0) * (1 + 0.1 * y)
    kappa = np.stack([A, T2])
    return np.broadcast_to(kappa.reshape(2, *shape[:2], *[1] * (len(shape) - 2)), (2, *shape)).copy()


def series_of(sigma: float, noise: Any = None, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Any:
    kappa, rng, model = truth(shape), np.random.default_rng(seed), rimap.T2Decay(tau=TE)
    S = model.signal(kappa)
    images = np.hypot(S + sigma * rng.standard_normal(S.shape), sigma * rng.standard_normal(S.shape))
    return rimap.WeightedSeries(images, model, noise=noise, affine=np.eye(4)), kappa


@pytest.mark.parametrize("sigma", [1.0, 4.0])
def test_errors_fall_and_intervals_hold_the_truth(sigma: float) -> None:
    series, kappa = series_of(sigma)
    plain = rimap.NLLS(threads=1).estimate(series)
    maps = denoised_maps(rimap.NLLS(threads=1).estimate, series)
    before, after = (np.sqrt(np.mean((m["T2"] / kappa[1] - 1) ** 2)) for m in (plain, maps))
    assert after < 0.8 * before
    inside = np.abs(maps["T2"] - kappa[1]) < 1.96 * maps.sd["T2"]
    assert inside.mean() > 0.93
    assert np.median(maps.sd["T2"]) < 0.9 * np.median(plain.sd["T2"])  # and they are narrower than before
    assert maps.noise.sigma == pytest.approx(sigma, rel=0.08) and maps.sigma_source == "images before denoising"
    assert maps.settings["denoise"] == "mppca" and 0.1 < maps.settings["denoise_sd_factor"] < 0.95
    assert any("denoised by MP-PCA" in w for w in maps.warnings)
    assert not any("σ that was given" in w or "interpolated" in w for w in maps.warnings)
    np.testing.assert_allclose(np.median(maps.residual), np.median(plain.residual), rtol=0.25)


def test_a_denoised_series_says_so_and_keeps_its_noise() -> None:
    series, _ = series_of(2.0, Gaussian(2.0))
    clean = rimap.denoise(series)
    assert clean.denoised == "mppca" and clean.noise.sigma == 2.0 and clean.images.shape == series.images.shape
    assert np.std(clean.images - series.images) < 3.0
    wide = rimap.NLLS(threads=1).estimate(clean)
    narrow = denoised_maps(rimap.NLLS(threads=1).estimate, series)
    assert (wide.sd["T2"] >= narrow.sd["T2"] * 0.5).all() and np.median(wide.sd["T2"]) > np.median(narrow.sd["T2"])
    with pytest.raises(InputError, match="denoised already"):
        rimap.denoise(clean)


def test_the_noise_floor_of_rician_magnitudes_is_removed() -> None:
    series, kappa = series_of(8.0, Rician(8.0))
    last = series.model.signal(kappa)[-1]
    assert np.median(series.images[-1] - last) > 1.0
    clean = rimap.denoise(series)
    assert isinstance(clean.noise, Gaussian) and abs(np.median(clean.images[-1] - last)) < 0.8
    signals = np.array([0.0, 0.5, 2.0, 7.0, 1e3, 1e6])
    means = np.asarray(Rician(3.0).mean(signals))
    np.testing.assert_allclose(signal_of_means(means, 3.0), signals, rtol=2e-3, atol=0.02)


def test_voxels_without_a_value_stay_without() -> None:
    series, _ = series_of(2.0)
    series.images[2, 5, 6] = np.nan
    maps = denoised_maps(rimap.NLLS(threads=1).estimate, series)
    assert np.isnan(maps["T2"][5, 6]) and np.isfinite(maps["T2"][5, 7])
    assert maps.status[5, 6] == rimap.Status.NOT_FINITE


def test_three_axes_and_signed_images() -> None:
    model = rimap.InversionRecovery(tau=(50, 200, 500, 900, 1500, 2500), tr=8000, signed=True)
    kappa = np.stack([np.full((16, 16, 2), 100.0), np.full((16, 16, 2), 1.9), np.full((16, 16, 2), 900.0)])
    images = model.signal(kappa) + np.random.default_rng(1).normal(0, 2, (6, 16, 16, 2))
    series = rimap.WeightedSeries(images, model)
    clean = rimap.denoise(series)
    assert clean.images.min() < -50
    assert np.std(clean.images - model.signal(kappa)) < 0.8 * np.std(images - model.signal(kappa))


def test_what_cannot_be_denoised_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    series, _ = series_of(2.0)
    with pytest.raises(InputError, match="at least 4 images, got 3"):
        rimap.denoise(series.subset([0, 1, 2]))
    with pytest.raises(InputError, match="mppca"):
        rimap.denoise(series, "nlmeans")
    monkeypatch.setattr(denoising.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"rimap\[denoise\]"):
        rimap.denoise(series)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(build(), [str(a) for a in arguments])


@pytest.fixture
def image(tmp_path: Path) -> list[object]:
    series, _ = series_of(2.0, shape=(24, 20, 1))
    path = tmp_path / "echoes.nii.gz"
    nib.save(nib.Nifti1Image(np.moveaxis(series.images, 0, -1).astype(np.float32), np.eye(4)), path)
    return [path, "--sequence", "t2", "--times-ms", ",".join(map(str, TE)), "-o", tmp_path / "out"]


def test_the_option_is_in_sidecar_report_and_methods(image: list[object], tmp_path: Path) -> None:
    result = run("map", *image, "--denoise", "mppca", "--threads", "1")
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "out" / "echoes_T2map.json").read_text())
    assert about["EstimatorSettings"]["denoise"] == "mppca"
    assert about["NoiseSigmaSource"] == "images before denoising" and about["NoiseSigma"] == pytest.approx(
        2.0, rel=0.15
    )
    page = (tmp_path / "out" / "echoes_T2map_report.html").read_text(encoding="utf-8")
    assert "denoised by MP-PCA" in page and "10.1016/j.neuroimage.2016.08.016" in page
    assert "scaled to the error after denoising" in page
    again = run("report", tmp_path / "out")
    assert again.exit_code == 0 and "without measured" not in again.output, again.output
    assert run("map", *image, "--estimator", "mle", "--threads", "1").exit_code == 2  # other settings are other maps


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--register"], "correlated noise"),
        (["--estimator", "rim"], "network"),
    ],
)
def test_what_does_not_go_with_it_is_refused(image: list[object], more: list[str], told: str) -> None:
    result = run("map", *image, "--denoise", "mppca", *more)
    assert result.exit_code == 2 and told in result.stderr, result.output
