"""A wrong number that looks right: what the images say against the model is told, by every estimator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rimap
from rimap.estimators.base import Estimator
from rimap.estimators.checks.misfit import misfit, misfit_warnings
from rimap.io import find_series

TI = np.array([50, 200, 400, 800, 1500, 2500, 4000.0])
TE = np.array([10, 20, 40, 80, 160.0])
ESTIMATORS: list[Estimator] = [rimap.NLLS(threads=1), rimap.MLE(threads=1), rimap.RIM(threads=1)]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)


def signals(model: rimap.SignalModel, sd: float = 10.0) -> NDArray[Any]:
    """Return images (N, 40, 40) of three tissues."""
    T = np.repeat(np.linspace(0.4, 1.6, 3), (14, 13, 13))[:, None] * np.ones(40)
    last = T * (1000 if len(model.parameters) == 3 else 90)
    kappa = [np.full(T.shape, 1000.0), *([np.full(T.shape, 1.9)] * (len(model.parameters) - 2)), last]
    return np.asarray(model.signal(kappa) + np.random.default_rng(0).normal(0, sd, (model.n_images, *T.shape)))


def inversion(tau: Any = TI, **options: Any) -> rimap.InversionRecovery:
    return rimap.InversionRecovery(tau=tau, tr=9000.0, **options)


def warned(estimator: Estimator, images: Any, model: rimap.SignalModel, **more: Any) -> str:
    maps = estimator.estimate(rimap.WeightedSeries(images, model, **more))
    return " ".join(w for w in maps.warnings if "noise floor" not in w)


@each
@pytest.mark.parametrize("sd", [0.0, 10.0, 60.0])
def test_nothing_is_said_of_good_images(estimator: Estimator, sd: float) -> None:
    for model in (inversion(), inversion(signed=True), rimap.T2Decay(tau=TE)):
        noise = None if sd else rimap.Gaussian(sigma=5.0)
        if noise is None or estimator.name == "rim":
            images = signals(model, sd or 5.0)
            assert "follow" not in warned(estimator, images, model, noise=noise)


def gain(S: NDArray[Any]) -> NDArray[Any]:
    S[5:] *= 1.3
    return S


def empty(S: NDArray[Any]) -> NDArray[Any]:
    S[3] = 0
    return S


def twice(S: NDArray[Any]) -> NDArray[Any]:
    S[3] = S[2]
    return S


def clipped(S: NDArray[Any]) -> NDArray[Any]:
    return np.minimum(S, 600)


@each
@pytest.mark.parametrize("spoil", [gain, empty, twice, lambda S: S[::-1], lambda S: S[[0, 3, 1, 2, 4, 5, 6]]])
def test_images_that_are_no_such_series_are_told(
    estimator: Estimator, spoil: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    said = warned(estimator, spoil(abs(signals(inversion()))), inversion())
    assert "do not follow the model" in said and " ms deviates systematically from the fit" in said


@each
def test_clipped_images_are_told_and_have_no_map(estimator: Estimator) -> None:
    images = abs(signals(inversion()))
    images[:, :4, 36:] *= 3
    images = np.minimum(images, 1200)
    maps = estimator.estimate(rimap.WeightedSeries(images, inversion()))
    assert any(" clipped in " in w for w in maps.warnings)
    assert (maps.status[:4, 36:] == rimap.Status.NOT_FINITE).all() and (maps.status[:, :36] == rimap.Status.OK).all()


@each
def test_images_that_are_clipped_in_much_of_the_object_keep_their_values_and_are_marked(estimator: Estimator) -> None:
    images = abs(signals(inversion()))
    where = (images > 600).any(0)
    maps = estimator.estimate(rimap.WeightedSeries(np.minimum(images, 600), inversion()))
    assert any(" clipped in " in w and "do not rely" in w for w in maps.warnings)
    assert where.mean() > 0.05 and not (maps.status[where] == rimap.Status.OK).any()
    assert np.isfinite(maps.kappa[:, where]).all()


@each
def test_a_low_first_echo_is_told_with_what_helps(estimator: Estimator) -> None:
    model = rimap.T2Decay(tau=TE)
    images = signals(model)
    images[0] *= 0.8
    assert "--skip-first 1" in warned(estimator, images, model)


@each
def test_signed_images_taken_for_magnitudes_are_told(estimator: Estimator) -> None:
    assert "--signed" in warned(estimator, signals(inversion(signed=True)), inversion())


@each
@pytest.mark.parametrize(("sigma", "said"), [(0.1, True), (10.0, False), (15.0, False), (100.0, True)])
def test_a_sigma_that_the_residuals_deny_is_told(estimator: Estimator, sigma: float, said: bool) -> None:
    found = warned(
        estimator, signals(inversion(signed=True)), inversion(signed=True), noise=rimap.Gaussian(sigma=sigma)
    )
    assert said == ("times as large as the given σ predicts" in found)


def test_share_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    S, T = np.ones((4, 4000)), rng.permutation(4000).astype(float)
    assert misfit(S, rng.normal(size=S.shape), T).share < 0.02
    of_T = np.where(T < 2000, 1.0, -1.0) * rng.normal(size=(4, 1))  # nothing on average, all in voxels of a like T
    found = misfit(2 * S, of_T, T)
    assert found.share == pytest.approx(1) and np.allclose(found.size, abs(of_T[:, 0]) / 2)
    assert misfit(S, 0 * S, T).share == 0


def test_what_is_known_of_real_data(shared_data: Path) -> None:
    """In vivo, and T1 of the phantom, follow the model; its multi-echo images have stimulated echoes (13 % in T2)."""
    for folder, told in (
        ("brain_in_vivo", {"IRT1": False, "MESE": False}),
        ("nist_phantom", {"IRT1": False, "MESE": True}),
    ):
        scans = find_series(shared_data / folder)
        assert {found.suffix for found in scans} == set(told)
        for found in scans:
            series = found.load()
            k = series.shape[2] // 2
            series = rimap.WeightedSeries(series.images[..., k : k + 1], series.model)
            maps = rimap.NLLS(threads=1).estimate(series)
            free = sum(p.name not in series.held for p in series.model.parameters)
            assert bool(misfit_warnings(series, maps, free)) == told[found.suffix], found.label
