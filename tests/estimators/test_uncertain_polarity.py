"""Standard deviations that are too small because noise reverses the polarity of magnitudes are reported."""

from __future__ import annotations

import numpy as np
import pytest

import rimap
from rimap.estimators.checks.uncertain_polarity import uncertain_polarity

FAR, NEAR = (50.0, 150.0, 400.0, 900.0, 1800.0, 4000.0), (550.0, 600.0, 2500.0, 4000.0)


def maps_of(
    times: tuple[float, ...], snr: float, noise: type, *, signed: bool = False
) -> tuple[rimap.ParameterMaps, float]:
    """Return the maps of a noisy object, and the share of its 95 % intervals that contain the truth."""
    model = rimap.InversionRecovery(tau=times, tr=12000.0, signed=signed)
    T1 = np.linspace(700, 1300, 48 * 40).reshape(48, 40)
    kappa = np.stack([np.ones_like(T1), np.full_like(T1, 1.9), T1])
    clean, sigma = model.signal(kappa), 1 / snr
    images = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    images = images if signed else abs(images)
    maps = rimap.MLE(threads=1).estimate(rimap.WeightedSeries(images, model, noise(sigma=sigma)))
    return maps, float((abs(maps["T1"] - T1) < 1.96 * maps.sd["T1"])[maps.status == 0].mean())


def said(maps: rimap.ParameterMaps) -> list[str]:
    return [warning for warning in maps.warnings if "polarity of images near their null is uncertain" in warning]


def test_intervals_that_are_too_short_are_reported() -> None:
    maps, covers = maps_of(NEAR, 10.0, rimap.Gaussian)
    assert covers < 0.85
    (text,) = said(maps)
    said_percent = float(text.split("at most ")[1].split(" %")[0])
    assert 100 * covers - 5 < said_percent < 90


@pytest.mark.parametrize(
    ("times", "snr", "noise", "signed"),
    [
        (FAR, 20.0, rimap.Gaussian, False),
        (NEAR, 60.0, rimap.Gaussian, False),
        (NEAR, 10.0, rimap.Rician, False),
        (NEAR, 10.0, rimap.Gaussian, True),
    ],
)
def test_nothing_is_said_of_a_certain_polarity(times: tuple[float, ...], snr: float, noise: type, signed: bool) -> None:
    maps, covers = maps_of(times, snr, noise, signed=signed)
    assert not said(maps)
    assert covers > 0.8


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_the_images_does_not_matter(unit: float) -> None:
    model = rimap.InversionRecovery(tau=NEAR, tr=12000.0)
    T1 = np.linspace(700, 1300, 48 * 40).reshape(48, 40)
    signal = model.signal(np.stack([np.ones_like(T1), np.full_like(T1, 1.9), T1]))
    images = abs(signal + 0.1 * np.random.default_rng(0).standard_normal(signal.shape))
    texts = []
    for factor in (1.0, unit):
        series = rimap.WeightedSeries(factor * images, model, rimap.Gaussian(sigma=0.1 * factor))
        texts.append(said(rimap.MLE(threads=1).estimate(series)))
    assert texts[0] and texts[0] == texts[1]


def test_decays_have_no_polarity() -> None:
    model = rimap.T2Decay(tau=[10, 20, 40, 80, 160, 320])
    signal = model.signal(np.stack([np.ones((40, 40)), np.full((40, 40), 60.0)]))
    images = abs(signal + 0.1 * np.random.default_rng(0).standard_normal(signal.shape))
    series = rimap.WeightedSeries(images, model, rimap.Gaussian(sigma=0.1))
    assert not uncertain_polarity(series, rimap.NLLS(threads=1).estimate(series))
