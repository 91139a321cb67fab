"""Which voxels become background or off model at the end of every estimator, and what it takes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

import rimap
from rimap import Gaussian, Rician
from rimap.advice import Weight, weight_of
from rimap.estimators.checks import final_checks as module
from rimap.estimators.checks.background import Levels
from rimap.estimators.checks.final_checks import Fit, Usual, judged, warnings_for, with_statuses
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.missing_values import screened
from rimap.estimators.checks.mixtures import unexplained
from rimap.estimators.checks.nothing_mapped import nothing_mapped
from rimap.series import ParameterMaps, Status, WeightedSeries

Floats = NDArray[np.float64]
TE = np.array([10.0, 20.0, 30.0, 45.0, 60.0, 80.0, 120.0, 160.0])
MODEL = rimap.T2Decay(tau=TE)
IR = rimap.InversionRecovery(tau=(50.0, 300.0, 700.0, 1500.0, 3000.0, 5000.0))
SIGMA = 2.0
#: Of χ² with 6 degrees of freedom: exceeded in one voxel of 10,000, and the median.
IMPROBABLE, MEDIAN = special.chdtri(6, 1e-4), special.chdtri(6, 0.5)
FIT = Fit(estimated=2)
#: A residual that no mixture of decays explains, of norm 1.
ODD = np.array([1.0, -1, 1, -1, 1, -1, 1, -1]) / np.sqrt(8)


def scan(shape: tuple[int, ...] = (12, 12), **more: Any) -> tuple[WeightedSeries, ParameterMaps]:
    """Return images of tissue whose residuals are those of the median voxel, and their maps."""
    rng = np.random.default_rng(0)
    kappa = np.stack([np.full(shape, 100.0), rng.uniform(40, 120, shape)])
    S = np.asarray(MODEL.signal(kappa)) + spike(1.0)[(slice(None),) + (None,) * len(shape)]
    options: dict[str, Any] = {
        "noise": Gaussian(sigma=SIGMA),
        "sigma_source": "residuals",
        "status": np.zeros(shape, np.uint8),
    }
    maps = ParameterMaps(kappa=kappa, model=MODEL, **(options | more))
    return WeightedSeries(S, MODEL), fitted(S, maps)


def fitted(S: Floats, maps: ParameterMaps) -> ParameterMaps:
    return replace(maps, residual=np.sqrt(((S - np.asarray(maps.model.signal(maps.kappa))) ** 2).mean(0)))


def spike(chi2_over_median: float) -> Floats:
    """Return residuals (N) with so many times the χ² of the median voxel."""
    return ODD * SIGMA * np.sqrt(chi2_over_median * MEDIAN)


def with_voxel(where: Any, residual: Floats, **more: Any) -> tuple[WeightedSeries, ParameterMaps]:
    series, maps = scan(**more)
    S = series.images.copy()
    S[(slice(None), *where)] = np.asarray(MODEL.signal(maps.kappa))[(slice(None), *where)] + residual
    return replace(series, images=S), fitted(S, maps)


def statuses(series: WeightedSeries, maps: ParameterMaps, fit: Fit = FIT, **more: Any) -> NDArray[np.uint8]:
    return with_statuses(series, maps, fit, **more)[0].status


HERE = (4, 5)


@pytest.mark.parametrize(("factor", "off"), [(0.99, False), (1.01, True)])
def test_a_residual_that_is_improbable_contradicts_the_model(factor: float, off: bool) -> None:
    series, maps = with_voxel(HERE, spike(factor * IMPROBABLE / MEDIAN))
    assert np.argwhere(statuses(series, maps) == Status.OFF_MODEL).tolist() == ([list(HERE)] if off else [])
    for flag, may in ((Status.AT_BOUND, True), (Status.NOT_CONVERGED, False), (Status.OUTSIDE_TRAINING, False)):
        flags = maps.status.copy()
        flags[HERE] = int(flag)
        found = statuses(series, replace(maps, status=flags))
        assert found[HERE] == (Status.OFF_MODEL if off and may else flag)


@pytest.mark.parametrize(("factor", "off"), [(0.98, False), (1.02, True)])
def test_it_must_exceed_what_is_usual_in_the_scan(factor: float, off: bool) -> None:
    """Residuals of all voxels are three times as large: so must be that of one that contradicts."""
    series, maps = scan()
    S = np.asarray(MODEL.signal(maps.kappa)) + spike(3.0)[:, None, None]
    S[(slice(None), *HERE)] += spike(3 * factor * IMPROBABLE / MEDIAN) - spike(3.0)
    series, maps = replace(series, images=S), fitted(S, maps)
    assert (statuses(series, maps)[HERE] == Status.OFF_MODEL) == off
    census = Census.of(S, 1)
    assert Usual.of(census, maps, FIT).misfit == pytest.approx(3.0, rel=1e-6)
    assert statuses(series, maps, usual=Usual(Levels(np.ones(1)), 1.0))[HERE] == Status.OFF_MODEL


def test_the_excess_of_an_estimator_is_taken_off() -> None:
    chi2 = IMPROBABLE + 9.0
    series, maps = with_voxel(HERE, spike(chi2 / MEDIAN))
    usual = Usual(Levels(np.ones(1)), 1.0)
    for farther, off in ((8.9, True), (9.1, False)):
        assert (statuses(series, maps, Fit(2, farther=farther), usual=usual)[HERE] == Status.OFF_MODEL) == off
    S = np.asarray(MODEL.signal(maps.kappa)) + spike(3.0)[:, None, None]
    found = Usual.of(Census.of(S, 1), fitted(S, maps), Fit(2, farther=MEDIAN))
    assert found.misfit == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize(("share", "off"), [(0.079, False), (0.081, True)])
def test_it_must_be_large(share: float, off: bool) -> None:
    """Beside noise, 8 % of the signal (root mean squares): 0.08² (free/N) of the power, and of what mixtures leave."""
    series, maps = scan(noise=Gaussian(sigma=0.01), sigma_source="residuals")
    f = np.asarray(MODEL.signal(maps.kappa))[(slice(None), *HERE)]
    rng = np.random.default_rng(1)
    odd = ODD - f * (f @ ODD) / (f @ f)
    S = np.asarray(MODEL.signal(maps.kappa)) + 1e-4 * rng.normal(size=(8, 12, 12))
    size = share * np.linalg.norm(f) / np.sqrt(1 - share**2)
    S[(slice(None), *HERE)] = f + size * odd / np.linalg.norm(odd)
    left = unexplained(WeightedSeries(S, MODEL), maps, np.array([4 * 12 + 5]))[0]
    assert left < share**2 * 1.001
    grown = size * share / np.sqrt(left)  # so that mixtures leave this share
    S[(slice(None), *HERE)] = f + grown * odd / np.linalg.norm(odd)
    series, maps = replace(series, images=S), fitted(S, maps)
    assert (statuses(series, maps)[HERE] == Status.OFF_MODEL) == off


def test_a_voxel_of_two_tissues_is_no_contradiction() -> None:
    series, maps = scan(noise=Gaussian(sigma=0.01))
    two = 60 * np.exp(-TE / 15) + 40 * np.exp(-TE / 300)
    where = np.array([4 * 12 + 5])
    S = series.images.copy()
    S[(slice(None), *HERE)] = two
    series = replace(series, images=S)
    assert unexplained(series, maps, where)[0] < 1e-3
    assert statuses(series, fitted(S, maps))[HERE] == Status.OK


def test_without_a_residual_degrees_of_freedom_or_sigma_nothing_contradicts() -> None:
    series, maps = with_voxel(HERE, spike(40.0))
    assert statuses(series, maps)[HERE] == Status.OFF_MODEL
    for less in (replace(maps, residual=None), replace(maps, noise=None), replace(maps, noise=Gaussian())):
        assert (statuses(series, less) == Status.OK).all()
    assert (statuses(series, maps, Fit(8)) == Status.OK).all() and statuses(series, maps, Fit(7))[
        HERE
    ] == Status.OFF_MODEL


@pytest.mark.parametrize("sigma", [SIGMA, np.full((12, 12), SIGMA)], ids=["number", "map"])
def test_a_magnitude_is_compared_with_what_the_noise_model_expects(sigma: Any) -> None:
    """Late echoes below the noise: the residual about the signal is large, that about the mean magnitude is not."""
    kappa = np.stack([np.full((12, 12), 20.0), np.full((12, 12), 25.0)])
    f = np.asarray(MODEL.signal(kappa))
    mean = Rician(sigma=SIGMA).mean(f)
    S = mean.copy()
    S[(slice(None), 2, 2)] = f[:, 2, 2] + 6 * SIGMA * ODD
    S[(slice(None), 2, 3)] += 1.7 * SIGMA * np.sqrt(8) * ODD
    options: dict[str, Any] = {"kappa": kappa, "model": MODEL, "status": np.zeros((12, 12), np.uint8)}
    usual = Usual(Levels(np.ones(1)), 0.2)
    maps = fitted(S, ParameterMaps(noise=Rician(sigma=sigma), sigma_source="residuals", **options))
    at = np.flatnonzero(np.ones(144))
    here = sigma if np.ndim(sigma) == 0 else sigma.reshape(-1)
    far = module._far_from_mean(WeightedSeries(S, MODEL), maps, at, here, FIT, 6).reshape(12, 12)
    chi2 = ((S - mean) ** 2).sum(0) / SIGMA**2
    np.testing.assert_array_equal(far, chi2 > IMPROBABLE)
    assert far[2, 2] and not far[2, 3] and far.sum() == 1
    off = module._off_model(WeightedSeries(S, MODEL), maps, sigma, FIT, usual.misfit, Census.of(S, 1))
    assert off[2, 2] and off.sum() == 1
    gaussian = replace(maps, noise=Gaussian(sigma=sigma))
    assert module._off_model(WeightedSeries(S, MODEL), gaussian, sigma, FIT, usual.misfit, Census.of(S, 1)).sum() > 1
    farther = module._far_from_mean(WeightedSeries(S, MODEL), maps, at, here, Fit(2, farther=100.0), 6)
    assert not farther.any()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    series, maps = scan(noise=Rician(sigma=SIGMA))
    at, sigma = np.arange(100), np.linspace(0.1, 2, 100)
    whole = module._far_from_mean(series, maps, at, sigma, FIT, 6)
    assert 0 < whole.sum() < 100
    monkeypatch.setattr(module, "_CHUNK", 7)
    np.testing.assert_array_equal(module._far_from_mean(series, maps, at, sigma, FIT, 6), whole)


@pytest.mark.parametrize("unit", [1.5e-3, 1.5e3])
@pytest.mark.parametrize(("factor", "off"), [(0.98, False), (1.02, True)])
def test_an_estimator_that_smooths_may_be_farther_from_the_images(factor: float, off: bool, unit: float) -> None:
    """By an excess of χ², in any unit: of a number and of a map of σ, with Gaussian and with Rician noise."""
    fit, sigma = Fit(2, farther=16.0), SIGMA * unit
    series, maps = with_voxel(HERE, ODD * SIGMA * np.sqrt(factor * (IMPROBABLE + 16)))
    S = unit * series.images
    kappa = maps.kappa * np.array([unit, 1.0])[:, None, None]
    for of_noise in (sigma, np.full((12, 12), sigma)):
        scaled = fitted(S, replace(maps, kappa=kappa, noise=Gaussian(sigma=of_noise)))
        found = statuses(replace(series, images=S), scaled, fit)
        assert (found[HERE] == Status.OFF_MODEL) == off and (found == Status.OK).sum() == 144 - off
        mean = Rician(sigma=sigma).mean(np.asarray(MODEL.signal(kappa)))
        magnitudes = mean.copy()
        magnitudes[(slice(None), *HERE)] += ODD * sigma * np.sqrt(factor * (IMPROBABLE + 16))
        rician = replace(scaled, noise=Rician(sigma=of_noise))
        here = of_noise if np.ndim(of_noise) == 0 else np.ravel(of_noise)
        far = module._far_from_mean(WeightedSeries(magnitudes, MODEL), rician, np.arange(144), here, fit, 6)
        assert far[4 * 12 + 5] == off and far.sum() == off


def test_voxels_that_fit_by_chance_in_a_wrong_area_are_flagged_with_the_whole_slice() -> None:
    """With two degrees of freedom; a part of a slice leaves them to whoever has the whole."""
    model = rimap.T2Decay(tau=TE[:4])
    kappa = np.stack([np.full((12, 12), 100.0), np.full((12, 12), 60.0)])
    f = np.asarray(model.signal(kappa))
    maps = ParameterMaps(
        kappa=kappa, model=model, status=np.zeros((12, 12), np.uint8), noise=Gaussian(sigma=SIGMA),
        sigma_source="residuals", residual=np.ones((12, 12)),
    )  # fmt: skip
    wrong = np.zeros((12, 12), bool)
    wrong[2:9, 2:9] = True
    wrong[5, 5] = False
    for part, flag in ((True, Status.OK), (False, Status.OFF_MODEL)):
        found = statuses(WeightedSeries(f, model), maps, doubtful=wrong, part_of_slice=part)
        assert found[5, 5] == flag and (found[wrong] == Status.OFF_MODEL).all()


@pytest.mark.parametrize(("farther", "told"), [(0.0, True), (1.0, False)])
def test_residuals_of_a_fit_without_smoothing_have_lost_all_its_parameters(farther: float, told: bool) -> None:
    """A given σ that is 1.9 times too small for eight degrees of freedom is 2.2 times too small for six."""
    series, maps = scan()
    S = np.asarray(MODEL.signal(maps.kappa)) + (ODD * SIGMA * 1.9 * np.sqrt(special.chdtri(8, 0.5)))[:, None, None]
    given = fitted(S, replace(maps, sigma_source="given"))
    texts = warnings_for(replace(series, images=S), given, Fit(2, farther=farther))
    assert any("given σ predicts" in text for text in texts) == told


# Background.


def head(**more: Any) -> tuple[WeightedSeries, ParameterMaps]:
    """Return an object in air of σ, with maps everywhere."""
    rng = np.random.default_rng(2)
    series, maps = scan((24, 24), **more)
    S = series.images.copy()
    S[:, :, :8] = np.hypot(*rng.normal(0, SIGMA, (2, 8, 24, 8)))
    return replace(series, images=S), fitted(
        S, replace(maps, sd_kappa=np.ones((2, 24, 24)), covariance=np.ones((3, 24, 24)))
    )


def test_air_has_no_value_and_a_known_parameter_keeps_it() -> None:
    series, maps = head()
    found, air = with_statuses(series, maps, Fit(2, without_value=("A",)))
    assert air[:, :7].mean() > 0.98 and not air[:, 9:].any()
    assert (found.status[air] == Status.NO_SIGNAL).all() and (found.status[:, 9:] == Status.OK).all()
    for values in (found.kappa[1:], found.sd_kappa, found.covariance, found.residual[None]):
        assert np.isnan(values[:, air]).all() and np.isfinite(values[:, 9:, 9:]).all()
    assert np.isfinite(found.kappa[0]).all() and np.isfinite(maps.kappa).all()  # a copy


def test_air_beside_a_mask_is_a_neighbour_and_has_no_status() -> None:
    series, maps = head()
    mask = np.ones((24, 24), bool)
    mask[:, :4] = mask[12:, 10:14] = False
    status = np.where(mask, 0, int(Status.OUTSIDE_MASK)).astype(np.uint8)
    S = series.images.copy()
    S[2, 3, 2] = np.nan  # beside the mask
    series = replace(series, images=S, mask=mask)
    found, air = with_statuses(series, replace(maps, status=status), FIT)
    assert air[:, :4].mean() > 0.9 and (found.status[:, :4] == Status.OUTSIDE_MASK).all() and not air[3, 2]
    usable = module._usable(series, replace(maps, status=status), Census.of(S, 1))
    assert np.argwhere(~usable).tolist() == [[3, 2]]
    status[5, 5] = int(Status.NOT_FINITE)
    assert not module._usable(replace(series, mask=None), replace(maps, status=status), Census.of(S, 1))[5, 5]


def test_a_scan_in_which_everything_would_be_air_has_a_wrong_sigma() -> None:
    series, maps = scan((16, 16))
    for source, empty in (("given", False), ("residuals", True)):
        found, air = with_statuses(series, replace(maps, noise=Gaussian(sigma=500.0), sigma_source=source), FIT)
        assert air.all() == empty and air.any() == empty and (found.status == Status.NO_SIGNAL).all() == empty


def test_without_an_estimate_there_is_nothing_to_judge() -> None:
    series, maps = scan()
    nothing = replace(maps, status=np.full((12, 12), int(Status.NOT_FINITE), np.uint8))
    found, air = with_statuses(series, nothing, FIT)
    assert found is nothing and not air.any()


def test_doubtful_voxels_are_off_model() -> None:
    series, maps = scan()
    doubtful = np.zeros((12, 12), bool)
    doubtful[3, :4] = True
    flags = maps.status.copy()
    flags[3, 1], flags[3, 2] = int(Status.AT_BOUND), int(Status.NOT_CONVERGED)
    found = statuses(series, replace(maps, status=flags), doubtful=doubtful)
    assert found[3, :5].tolist() == [
        Status.OFF_MODEL,
        Status.OFF_MODEL,
        Status.NOT_CONVERGED,
        Status.OFF_MODEL,
        Status.OK,
    ]


def test_uniform_images_have_no_background() -> None:
    model = rimap.UniformMP2RAGE(
        ti=700, ti_second=2500, flip_angle=4, flip_angle_second=5, tr=5000, tr_excitation=7.1, number_shots=(40, 80)
    )
    S = np.full((1, 12, 12), 1e-3)
    S[:, 6:] = 0.4
    maps = ParameterMaps(
        kappa=np.ones((2, 12, 12)), model=model, status=np.zeros((12, 12), np.uint8), noise=Gaussian(sigma=0.01)
    )
    _, air = with_statuses(WeightedSeries(S, model), maps, Fit(1))
    assert not air.any()


# What is usual.


def test_planes_stand_for_a_volume() -> None:
    rng = np.random.default_rng(3)
    for shape in ((8, 8), (8, 8, 1), (500,)):
        assert module.planes_of(Census.of(rng.random((2, *shape)), 1)) is None
    S = np.zeros((2, 6, 6, 60))
    S[..., 5:] = 1 + rng.random((2, 6, 6, 55))
    census = Census.of(S, 1)
    planes = module.planes_of(census)
    assert planes is not None and len(planes) == 20
    S[...] = 0
    S[..., 0] = 1  # no plane of the sample
    assert module.planes_of(Census.of(S, 1)) is None


def test_the_usual_misfit_is_that_of_bright_voxels_that_follow_the_model() -> None:
    _, maps = scan((20, 20))
    S = np.asarray(MODEL.signal(maps.kappa)) + spike(4.0)[:, None, None]
    dark, artefact = np.zeros((2, 20, 20), bool)
    dark[:13] = True
    artefact[:, :3] = True
    S[:, dark] = np.asarray(MODEL.signal(maps.kappa))[:, dark] * 0.2
    kappa = maps.kappa.copy()
    kappa[0][dark] *= 0.2  # without residuals, and below a quarter of the power
    S[0][artefact & ~dark] = 5000.0
    found = Usual.of(Census.of(S, 1), fitted(S, replace(maps, kappa=kappa)), FIT)
    assert found.misfit == pytest.approx(4.0, rel=1e-6)
    assert found.levels.bright < 1e5  # the artefact does not say what is bright
    for unknown in (replace(maps, residual=None), replace(maps, noise=None)):
        assert Usual.of(Census.of(S, 1), unknown, FIT).misfit == 1.0
    assert Usual.of(Census.of(S, 1), fitted(S, maps), Fit(8)).misfit == 1.0
    of_map = replace(fitted(S, replace(maps, kappa=kappa)), noise=Gaussian(sigma=np.full((20, 20), SIGMA)))
    assert Usual.of(Census.of(S, 1), of_map, FIT).misfit == pytest.approx(4.0, rel=1e-6)


def test_what_is_usual_in_a_volume_is_that_of_its_planes() -> None:
    _, maps = scan((6, 6, 60))
    factor = np.where(np.arange(60) % 3 == 1, 4.0, 1.0)
    S = np.asarray(MODEL.signal(maps.kappa)) + spike(1.0)[:, None, None, None] * np.sqrt(factor)
    for sigma in (SIGMA, np.full((6, 6, 60), SIGMA)):
        noisy = fitted(S, replace(maps, noise=Gaussian(sigma=sigma)))
        assert Usual.of(Census.of(S, 1), noisy, FIT).misfit == pytest.approx(4.0, rel=1e-6)


# Mixtures.


@pytest.mark.parametrize("model", [MODEL, IR], ids=["t2", "ir"])
def test_mixtures_are_those_of_all_pairs_of_times_of_the_object(model: Any) -> None:
    rng = np.random.default_rng(4)
    T = rng.uniform(50, 100, (10, 10)) * (1 if model is MODEL else 10)
    rows = [np.full((10, 10), 100.0), *([rng.uniform(1.8, 2.0, (10, 10))] * (len(model.parameters) - 2)), T]
    kappa = np.stack(rows)
    status = np.zeros((10, 10), np.uint8)
    status[0, :5] = int(Status.AT_BOUND)
    kappa[-1, 0, :5] = 4000.0  # does not count
    kappa[0, 1, 1] = np.nan
    maps = ParameterMaps(kappa=kappa, model=model, status=status)
    S = abs(rng.normal(size=(model.n_images, 10, 10))) + np.asarray(model.signal(kappa)) / 100
    S[:, 9, 9] = 0
    at = np.array([5, 33, 71, 99])
    known = (status == 0) & np.isfinite(kappa).all(0)
    low, high = np.quantile(T[known], [0.02, 0.98])
    times = np.geomspace(max(low / 3, model.time.bounds[0]), min(high * 3, model.time.bounds[1]), 20)
    fields = np.quantile(kappa[1][known], [0.02, 0.25, 0.5, 0.75, 0.98]) if model is IR else [0.0]
    best = np.zeros(4)
    S_at = np.nan_to_num(S).reshape(model.n_images, -1)[:, at]
    for field in fields:
        extra = {"B": np.full(20, field)} if model is IR else {}
        g = np.asarray(model.shape(**{model.time.name: times}, **extra))
        for i, j in itertools.combinations(range(20), 2):
            for w in np.linspace(0, 1, 11)[:-1]:
                mixed = w * g[:, i] + (1 - w) * g[:, j]
                mixed = abs(mixed) if model is IR else mixed
                best = np.maximum(best, mixed @ S_at / np.linalg.norm(mixed))
    expected = 1 - best**2 / np.maximum((S_at**2).sum(0), 1e-300)
    found = unexplained(WeightedSeries(np.nan_to_num(S, nan=1.0), model), maps, at)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), rtol=1e-6, atol=1e-12)
    assert found[3] == 1.0


def test_too_few_voxels_or_other_models_explain_nothing() -> None:
    series, maps = scan((3, 3))
    assert unexplained(series, maps, np.array([0, 1])).tolist() == [1, 1]
    assert unexplained(*scan((2, 5)), np.array([0]))[0] < 0.05 and unexplained(*scan(), np.array([], int)).shape == (0,)
    offset = rimap.GradientEchoWithOffset(te=TE)
    maps = ParameterMaps(kappa=np.ones((3, 12, 12)), model=offset, status=np.zeros((12, 12), np.uint8))
    assert unexplained(WeightedSeries(np.ones((8, 12, 12)), offset), maps, np.array([0, 1])).tolist() == [1, 1]


# What is said.


def test_maps_without_a_value_say_what_the_images_are_like() -> None:
    series, maps = scan((4, 5))
    assert nothing_mapped(series, maps) == []
    status = np.full((4, 5), int(Status.NO_SIGNAL), np.uint8)
    status[0] = int(Status.NOT_FINITE)
    status[1] = int(Status.OUTSIDE_MASK)
    S = np.ones((8, 4, 5)) * np.array([3.0, 9, 4, 5, 0.5, 6, 7, 8])[:, None, None]
    S[1, 0, 0], S[4, 2, 2] = np.nan, np.inf
    (text,) = nothing_mapped(replace(series, images=S), replace(maps, status=status))
    assert "in 67 % of them" in text and weight_of(text) == Weight.UNRELIABLE
    assert "from 0.475 in image 5 (60 ms) to 8.55 in image 2 (20 ms)" in text
    status[2, 2] = int(Status.OK)
    assert nothing_mapped(series, replace(maps, status=status)) == []
    assert nothing_mapped(series, replace(maps, status=np.full((4, 5), int(Status.OUTSIDE_MASK), np.uint8))) == []


def test_all_warnings_are_there_the_heaviest_first() -> None:
    series, maps = with_voxel(HERE, spike(40.0))
    S = series.images.copy()
    S[3] *= 1.4
    status = maps.status.copy()
    status[:2] = int(Status.OFF_MODEL)
    bad = fitted(S, replace(maps, status=status))
    texts = warnings_for(replace(series, images=S), bad, FIT, ["first", "first", "second"])
    assert texts.count("first") == 1 and "second" in texts
    weights = [int(weight_of(text)) for text in texts]
    assert weights == sorted(weights, reverse=True)
    assert any("do not follow the model: the one at 45 ms" in t for t in texts) and any("24 voxels" in t for t in texts)


def test_a_series_is_judged_as_a_whole() -> None:
    series, maps = head()
    S = series.images.copy()
    S[(slice(None), 14, 14)] += spike(60.0)
    S[2, 17:20, 15:18] = 0
    series = replace(series, images=S)
    screen = screened(series, threads=1)
    status = np.where(np.isfinite(screen.series.images).all(0), 0, int(Status.NOT_FINITE)).astype(np.uint8)
    found = judged(screen, fitted(S, replace(maps, status=status)), FIT, ["of the estimator"])
    assert found.status[14, 14] == Status.OFF_MODEL and (found.status[17:20, 15:18] == Status.NOT_FINITE).all()
    assert (found.status[:, :7] == Status.NO_SIGNAL).mean() > 0.98
    assert "of the estimator" in found.warnings and any("is zero in 9 voxels" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("without", "said"),
    [(slice(10, 20), ["25 %"]), (slice(10, 11), []), (slice(60, 80), []), (slice(0, 99), ["100 %"])],
)
def test_a_given_map_without_values_in_the_object_is_named(without: slice, said: list[str]) -> None:
    """The object are 40 of 100 rows; what the map lacks in air does not matter."""
    model = rimap.VariableFlipAngle(flip_angle=[3, 10, 20], tr=15.0)
    amplitude = np.zeros((100, 30))
    amplitude[:40] = 1000.0
    images = np.random.default_rng(0).rayleigh(1.0, (3, 100, 30)) + np.asarray(
        model.signal(np.stack([amplitude, 1 + 0 * amplitude, 1000 + 0 * amplitude]))
    )
    B1 = np.ones((100, 30))
    B1[without] = np.nan
    found = module.unknown_given(WeightedSeries(images, model, given={"B1": B1}))
    assert [text.split(" in ")[1].split(" of ")[0] for text in found] == said
    assert all(text.startswith("The map of B1 has no value") for text in found)
