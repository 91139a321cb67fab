"""Standard deviations of a network: those of repeated scans, the same for slabs, NaN where there is no value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.estimators.rim import bootstrap
from rimap.estimators.rim.estimator import RIM
from rimap.series import Status, WeightedSeries
from rimap.simulation.anatomies import digital_brain
from rimap.simulation.subjects import simulate_series, simulate_subject

MODEL = rimap.InversionRecovery(tau=[50, 150, 400, 900, 1800, 3500])
T2 = rimap.T2Decay(tau=[10, 20, 40, 80, 160, 320])
PATCH = np.s_[36:60, 40:64, 36]  # of the brain: white matter and cortex
SNR_10 = rimap.Gaussian(sigma=0.065)


def scans(model, noise, n=1, **options):
    kappa = simulate_subject(digital_brain((96, 108, 72))[PATCH], model, np.random.default_rng(1))
    return [simulate_series(kappa, model, noise, np.random.default_rng(100 + i), **options) for i in range(n)]


def rim(model, sd_draws=0):
    return replace(RIM.load("t1" if model.name == "ir" else "t2", sd_draws=sd_draws), threads=1)


@pytest.mark.parametrize(
    ("model", "noise"), [(MODEL, SNR_10), (T2, rimap.Rician(sigma=0.065))], ids=["T1 gaussian", "T2 rician"]
)
def test_the_standard_deviation_is_that_of_repeated_scans(model, noise):
    T = model.parameters[-1].name
    series = scans(model, noise, 12)
    again = [rim(model).estimate(s)[T] for s in series]
    maps = rim(model, 8).estimate(series[0])
    truth = np.nanmedian(np.std(again, axis=0, ddof=1))
    assert np.nanmedian(maps.sd[T]) == pytest.approx(truth, rel=0.2)
    assert maps.sd_source == "parametric bootstrap, 8 draws" and maps.settings["sd_draws"] == 8


def test_no_value_no_standard_deviation_and_none_at_a_bound():
    (series,) = scans(MODEL, SNR_10)
    images, mask = series.images.copy(), np.ones(series.shape, bool)
    images[1, 3, 3], images[:, 9, 9] = np.nan, 0
    mask[:, 20:] = False
    holes = WeightedSeries(images, MODEL, noise=SNR_10, mask=mask)
    maps = rim(MODEL, 2).estimate(holes)
    for name in maps:
        np.testing.assert_array_equal(np.isnan(maps.sd[name]), np.isnan(maps[name]) | (maps.status == Status.AT_BOUND))
    assert np.isnan(maps.sd["T1"])[[3, 9, 0], [3, 9, 21]].all() and (maps.sd["T1"][mask] > 0).mean() > 0.95


def test_a_slab_has_the_draws_of_the_whole():
    (flat,) = scans(MODEL, SNR_10)
    images = np.stack([flat.images[:, :12, :12], flat.images[:, 12:, 12:]], -1)
    est, series = rim(MODEL, 2).prepare(WeightedSeries(images, MODEL, noise=SNR_10))
    whole = est.estimate(series)
    for k in range(2):
        for index in (np.s_[..., k : k + 1], np.s_[..., k]):
            part = est.slab(index).estimate(replace(series, images=series.images[index]))
            np.testing.assert_allclose(part.sd_kappa, whole.sd_kappa[index], rtol=1e-4)
    assert np.isnan(whole.sd["B"]).all()  # B was held


def test_the_same_noise_whatever_the_order_of_the_images():
    (series,) = scans(MODEL, SNR_10)
    kappa = np.stack([np.full(series.shape, v, np.float32) for v in (0.8, 1.9, 900.0)])
    order = np.array([3, 0, 5, 1, 4, 2])
    a = bootstrap.drawn(series, kappa, SNR_10, 0)
    b = bootstrap.drawn(series.subset(order), kappa, SNR_10, 0)
    np.testing.assert_array_equal(b.images, a.images[order])
    other = bootstrap.drawn(series, kappa, SNR_10, 1)
    off = np.stack([x.images - MODEL.signal(kappa) for x in (a, other)]) / 0.065
    assert np.std(off) == pytest.approx(1, abs=0.03) and abs(np.corrcoef(off.reshape(2, -1))[0, 1]) < 0.05


def test_without_draws_there_are_none():
    (series,) = scans(MODEL, SNR_10)
    maps = rim(MODEL).estimate(series)
    assert maps.sd_kappa is None and maps.sd_source == "Cramér-Rao bound" and "sd_draws" not in maps.settings


@pytest.mark.parametrize("n", [1, -2])
def test_one_draw_has_no_spread(n):
    with pytest.raises(InputError, match="2 or more draws"):
        RIM.load("t1", sd_draws=n)


@pytest.mark.parametrize("n_draws", [8, 32])
def test_a_derived_map_of_several_parameters_has_a_standard_deviation(n_draws):
    """T1 = T1* (B − 1) of Look-Locker: its errors are not those of T1* and B added up, for these are correlated."""
    model = rimap.LookLocker(ti=np.linspace(60, 3500, 14))
    truth = np.stack([np.full((9, 8), v) for v in (1.0, 2.4, 700.0)])
    series = simulate_series(truth, model, rimap.Gaussian(sigma=0.01), np.random.default_rng(0))
    nlls = rimap.NLLS(threads=1)
    expected = nlls.estimate(series)
    start = expected.kappa.astype(np.float32)
    plain = replace(expected, covariance=None)
    maps = bootstrap.with_sd(plain, series, start, n_draws, lambda drawn, _: nlls.estimate(drawn).kappa)
    assert np.nanmedian(maps.sd["T1"]) == pytest.approx(np.nanmedian(expected.sd["T1"]), rel=0.15)
    added = np.hypot(maps.sd["T1star"] * 1.4, maps.sd["B"] * 700)
    assert np.nanmedian(maps.sd["T1"]) < 0.8 * np.nanmedian(added)
    assert maps.has_sd("T1")
