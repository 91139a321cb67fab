"""Magnitudes near the noise that are taken for Gaussian are said to bias T; others are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rimap
from rimap.estimators.checks.noise_floor import excess, noise_floor_warnings
from rimap.workflow.read_series import read

IR = rimap.InversionRecovery(tau=(50, 100, 200, 500, 2000, 4000), tr=15000)
IR_MANY = rimap.InversionRecovery(tau=tuple(np.linspace(100, 3100, 31)))
T2 = rimap.T2Decay(tau=tuple(12.0 * np.arange(1, 9)))
T2_LATE = rimap.T2Decay(tau=tuple(8.0 * np.arange(1, 33)))


def scan(model: Any, snr: float, noise: Any = None) -> Any:
    """White and grey matter and CSF in air; SNR is A of CSF over σ."""
    rng, shape = np.random.default_rng(0), (60, 60)
    tissue = np.zeros(shape, int)
    tissue[12:48, 10:50] = rng.choice([1, 2, 3], (36, 40), p=[0.5, 0.4, 0.1])
    T = np.array([500, 850, 1400, 4000] if "B" in [p.name for p in model.parameters] else [50, 70, 90, 1500.0])[tissue]
    A = 200 * np.array([0, 0.68, 0.82, 1.0])[tissue]
    kappa = np.stack([A, np.full(shape, 1.95), T] if len(model.parameters) == 3 else [A, T])
    f = model.signal(kappa)
    e = rng.normal(0, 200 / snr, (2, *f.shape))
    images = f + e[0] if getattr(model, "signed", False) else np.hypot(f + e[0], e[1])
    return rimap.WeightedSeries(images.astype(np.float32), model, noise=noise)


def floor(maps: Any) -> list[str]:
    return [w for w in maps.warnings if w.startswith("The noise floor")]


@pytest.mark.parametrize("model", [IR, IR_MANY, T2, T2_LATE])
def test_it_warns_at_snr_3_and_not_at_30(model: Any) -> None:
    (text,) = floor(rimap.NLLS(threads=1).estimate(scan(model, 3)))
    T = model.parameters[-1].name
    assert f"biases {T}" in text and "--noise rician --estimator mle" in text and "σ = " in text
    assert floor(rimap.NLLS(threads=1).estimate(scan(model, 30))) == []


@pytest.mark.parametrize("estimator", [rimap.MLE(threads=1), rimap.RIM(threads=1)])
def test_whoever_takes_the_noise_for_gaussian(estimator: Any) -> None:
    (text,) = floor(estimator.estimate(scan(IR, 4)))
    assert text.endswith("Use --noise rician.")
    assert floor(estimator.estimate(scan(IR, 4, rimap.Rician()))) == []
    assert floor(estimator.estimate(scan(IR, 30))) == []


def test_least_squares_take_no_notice_of_rician_noise() -> None:
    assert floor(rimap.NLLS(threads=1).estimate(scan(T2, 4, rimap.Rician())))


def test_late_echoes_in_the_noise_bias_also_where_the_first_are_good() -> None:
    (text,) = floor(rimap.NLLS(threads=1).estimate(scan(T2_LATE, 12)))
    assert "of 32 images are below 3 σ" in text
    early = scan(T2_LATE, 12).subset(range(6))
    assert floor(rimap.NLLS(threads=1).estimate(early)) == []


def test_signed_images_have_no_floor() -> None:
    assert floor(rimap.NLLS(threads=1).estimate(scan(replace(IR, signed=True), 3))) == []
    noisy = scan(T2, 3)
    signed = replace(noisy, images=noisy.images * np.sign(np.random.default_rng(0).normal(2, 1, noisy.images.shape)))
    maps = rimap.NLLS(threads=1).estimate(signed)
    assert floor(maps) == [] and noise_floor_warnings(noisy, maps)


def test_the_bias_that_it_names_is_there() -> None:
    """T2 of a voxel that is measured often, at an SNR where the first order is good."""
    kappa = np.stack([np.full(3000, 100.0), np.full(3000, 80.0)])
    f, e = T2_LATE.signal(kappa), np.random.default_rng(0).normal(0, 100 / 15, (2, 32, 3000))
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(np.hypot(f + e[0], e[1]), T2_LATE))
    (text,) = floor(maps)
    said = float(text.split("off by about ")[1].split(" %")[0])
    assert said == pytest.approx(100 * (np.median(maps["T2"]) / 80 - 1), rel=0.4)


def test_the_mean_of_a_magnitude() -> None:
    m, e = np.array([0, 0.5, 1, 3, 10.0]), np.random.default_rng(0).normal(0, 1, (2, 200_000, 1))
    np.testing.assert_allclose(excess(m), (np.hypot(m + e[0], e[1]) - m).mean(0), atol=0.01)
    assert excess(np.array([0.0]))[0] == pytest.approx(np.sqrt(np.pi / 2))
    assert 0 <= excess(np.array([1e30]))[0] < 1e-3


@pytest.mark.parametrize(("sequence", "signed"), [("ir", True), ("ir", False), ("t2", False)])
def test_silent_on_a_head_in_vivo(shared_data: Path, sequence: str, signed: bool) -> None:
    series = read(shared_data / "brain_in_vivo", sequence=sequence)
    if sequence == "ir" and not signed:
        series = rimap.WeightedSeries(abs(series.images), replace(series.model, signed=False))
    assert floor(rimap.NLLS(threads=1).estimate(series)) == []


@pytest.mark.parametrize("scan", ["philips3TplateT1", "philips3TplateT2", "siemens1p5TplateT1"])
def test_silent_on_the_phantom(shared_data: Path, scan: str) -> None:
    for kind in ("IRT1", "MESE"):
        if files := sorted((shared_data / "nist_phantom" / f"sub-{scan}" / "anat").glob(f"*{kind}.nii.gz")):
            assert floor(rimap.NLLS(threads=1).estimate(read(files))) == []


def test_a_few_wrapped_values_do_not_silence_it() -> None:
    series = scan(T2, 3)
    images = series.images.copy()
    images[-1, 20:24, 20:24] *= -1
    assert floor(rimap.NLLS(threads=1).estimate(replace(series, images=images)))
