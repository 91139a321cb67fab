"""Air of a large volume is found before it is fitted, and the maps are those of a fit of all voxels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rimap import MLE, NLLS, Gaussian, InversionRecovery, SignalModel, Status, T2Decay, WeightedSeries
from rimap.estimators.mle.field_smoothness import without_air
from rimap.estimators.nlls import estimator as module
from rimap.estimators.rim.whole_field import smooth_field

#: Large enough (`module._LARGE`), with fewer slices than stand for the whole.
SHAPE = (72, 72, 36)
MODELS = {
    "ir": InversionRecovery(tau=[50.0, 150.0, 400.0, 900.0, 1800.0, 4000.0]),
    "t2": T2Decay(tau=[10.0, 20.0, 40.0, 60.0, 90.0, 120.0]),
}


def volume(model: SignalModel, snr: float = 30.0, signed: bool = False) -> WeightedSeries:
    """Return images of a ball of two tissues in air."""
    rng = np.random.default_rng(4)
    x = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    radius = np.sqrt((x**2).sum(0))
    T = np.where(radius < 0.4, 1200.0, 800.0) / (1 if model.field is not None else 10)
    A = 100.0 * (radius < 0.75)
    kappa = np.stack([A, 1.85 + 0.05 * x[0], T] if model.field is not None else [A, T])
    clean = np.asarray(model.signal(kappa))
    noise = rng.normal(0, float(clean.max()) / snr, (2, *clean.shape))
    images = clean + noise[0] if signed else np.hypot(clean + noise[0], noise[1])
    return WeightedSeries(images.astype(np.float32), replace(model, signed=True) if signed else model)


@pytest.fixture
def left_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of voxels that the fits of a test leave out."""
    numbers: list[int] = []
    fit = module._fit

    def counted(series: Any, held: Any, threads: Any, progress: Any, left: Any = None) -> Any:
        numbers.append(0 if left is None else int(left.sum()))
        return fit(series, held, threads, progress, left)

    monkeypatch.setattr(module, "_fit", counted)
    return numbers


@pytest.mark.parametrize("option", ["", "mask", "sigma", "low SNR"])
@pytest.mark.parametrize("name", MODELS)
def test_the_maps_are_those_of_a_fit_of_all_voxels(
    name: str, option: str, left_out: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    series = volume(MODELS[name], snr=5.0 if option == "low SNR" else 30.0)
    if option == "mask":
        mask = np.ones(SHAPE, bool)
        mask[:10] = False
        series = replace(series, mask=mask)
    if option == "sigma":
        series = replace(series, noise=Gaussian(sigma=float(np.std(series.images[0, :8])) / 0.655))
    maps = NLLS().estimate(series)
    air = (maps.status == Status.NO_SIGNAL).sum()
    assert (left_out[-1] > 0.5 * air > 30_000) or option == "low SNR"
    monkeypatch.setattr(module._Air, "of", lambda *a: None)
    expected = NLLS().estimate(series)
    assert left_out[-1] == 0
    for key in ("kappa", "sd_kappa", "residual", "status"):
        np.testing.assert_array_equal(getattr(maps, key), getattr(expected, key))
    assert maps.warnings == expected.warnings and maps.noise.sigma == expected.noise.sigma


@pytest.mark.parametrize("why", ["signed", "sigma corrected", "small", "no air"])
def test_all_voxels_are_fitted_where_their_fits_determine_what_air_is(
    why: str, left_out: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    series = volume(MODELS["ir"], signed=why == "signed")
    if why == "sigma corrected":  # from simulations at the estimates of all voxels
        estimate = module.estimate_sigma
        monkeypatch.setattr(module, "estimate_sigma", lambda *given: (given[-1](estimate(*given)[0]), "residuals"))
    if why == "small":
        series = replace(series, images=series.images[..., ::4])
    if why == "no air":
        series = replace(series, images=series.images[:, 24:48, 24:48, 12:24].repeat(3, 1).repeat(3, 2).repeat(3, 3))
    NLLS().estimate(series)
    assert left_out[-1] == 0


@pytest.mark.parametrize("what", ["sigma map", "given map", "negative values"])
def test_what_may_have_no_value_is_fitted(what: str, left_out: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A voxel without a fit would change which voxels determine σ."""
    series = volume(MODELS["ir"])
    if what == "sigma map":
        sigma = np.full(SHAPE, 3.0)
        sigma[0, 0, :3] = np.nan
        series = replace(series, noise=Gaussian(sigma=sigma))
    elif what == "given map":
        B = np.full(SHAPE, 1.85)
        B[0, 0, :3] = B[36, 36, 18] = np.nan
        series = replace(series, given={"B": B})
    else:
        images = series.images.copy()
        images[:, 0, 0, :3] = -0.5
        series = replace(series, images=images)
    maps = NLLS().estimate(series)
    assert left_out[-1] == 0
    monkeypatch.setattr(module._Air, "of", lambda *a: None)
    expected = NLLS().estimate(series)
    for key in ("kappa", "sd_kappa", "status"):
        np.testing.assert_array_equal(getattr(maps, key), getattr(expected, key))


def test_all_voxels_are_fitted_if_one_has_no_fit_after_all(
    left_out: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, series = module._fit, volume(MODELS["ir"])

    def without_one(*given: Any) -> Any:
        maps, rms = fit(*given)
        status = maps.status.copy()
        if len(given) > 4 and given[3] is None and len(left_out) > 1:  # the fit of the rest, not that of the sample
            status[36, 36, 18] = Status.NOT_CONVERGED
        return replace(maps, status=status), rms

    monkeypatch.setattr(module, "_fit", without_one)
    maps = NLLS().estimate(series)
    assert len(left_out) == 3 and left_out[1] > 0 and left_out[2] == 0
    assert maps.status[36, 36, 18] == Status.OK


def test_air_does_not_bend_a_smooth_field() -> None:
    series = volume(MODELS["ir"])
    object_ = np.hypot.reduce(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")) < 0.75
    maps, masked = (MLE(threads=1).estimate(s) for s in (series, replace(series, mask=object_)))
    assert maps.settings["lambda_B"] == pytest.approx(masked.settings["lambda_B"], rel=0.1)
    for name in ("T1", "B"):
        off = (np.asarray(maps[name]) - np.asarray(masked[name]))[object_] / np.asarray(masked.sd[name])[object_]
        assert np.nanquantile(abs(off), 0.99) < 1.0
    air = maps.status == Status.NO_SIGNAL
    assert air.mean() > 0.6 and np.isfinite(maps["B"]).all()


@pytest.mark.parametrize(("snr", "some"), [(3.0, False), (30.0, True)])
def test_a_weak_signal_is_not_taken_for_air(snr: float, some: bool) -> None:
    images = volume(MODELS["ir"], snr=snr).images.astype(float)
    squares = np.square(images).mean(0).reshape(-1) / np.var(images[0, :8]) * 0.655**2
    assert without_air(squares).all() != some


def test_air_does_not_bend_the_field_of_a_network() -> None:
    series = replace(volume(MODELS["ir"]), noise=Gaussian(sigma=100.0 / 30))
    tissue = np.hypot.reduce(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")) < 0.75
    found, masked = (smooth_field(s, threads=1) for s in (series, replace(series, mask=tissue)))
    assert found.lambda_B == pytest.approx(masked.lambda_B, rel=0.1)
    assert found.sd is not None and masked.sd is not None
    assert np.quantile(abs(found.field - masked.field)[tissue] / masked.sd[tissue], 0.99) < 1.0
