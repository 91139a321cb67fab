"""What residuals say of a model and of σ: sizes that are known, and the limits from which on it is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

import rimap
from rimap import Gaussian, Rician
from rimap.advice import Weight, weight_of
from rimap.estimators.checks import misfit as module
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.misfit import misfit, misfit_warnings, off_model_warnings
from rimap.series import ParameterMaps, Status

Floats = NDArray[np.float64]
TE = (10.0, 20.0, 40.0, 80.0, 160.0)
MODEL = rimap.T2Decay(tau=TE)
IR = rimap.InversionRecovery(tau=(50.0, 200.0, 500.0, 1000.0, 2000.0, 4000.0))


def alike(number: int) -> tuple[Floats, Floats]:
    return np.ones((3, number)), np.arange(float(number))


@pytest.mark.parametrize("number", [7, 49, 50, 199, 200, 1000])
def test_residuals_are_compared_in_groups_of_a_like_t(number: int) -> None:
    """Of 25 voxels or more, eight at most. Size and share by their definition."""
    S, T = alike(number)
    rng = np.random.default_rng(0)
    order = rng.permutation(number)
    e = 0.1 * rng.normal(size=S.shape) + np.array([0.0, 0.05, -0.02])[:, None] * np.sign(T - number / 2)
    e[1] += 0.1
    found = misfit(2 * S[:, order], 2 * e[:, order], T[order])
    groups = np.array_split(e, max(1, min(8, number // 25)), axis=1)
    means = np.array([group.mean(1) for group in groups])
    np.testing.assert_allclose(found.size, np.sqrt((means**2).mean(0)))
    assert found.share == pytest.approx((means**2).mean() / (e**2).mean())


def test_residuals_are_relative_to_the_brightest_image_and_unknown_voxels_do_not_count() -> None:
    S, T = alike(100)
    S[1] = -4
    S[0, 7], S[:, 9] = np.nan, 0.0
    e = np.full(S.shape, 0.4)
    found = misfit(S, e, T)
    np.testing.assert_allclose(found.size, 0.1)
    assert found.share == pytest.approx(1)
    for nothing in (misfit(S, 0 * e, T), misfit(S * np.nan, e, T), misfit(0 * S, e, T)):
        assert nothing.share == 0 and nothing.size.tolist() == [0, 0, 0]


def shape_of(share: float, size: Any, S: Any = None, model: Any = MODEL) -> tuple[str, ...]:
    images = np.ones((model.n_images, 10)) if S is None else S
    series = rimap.WeightedSeries(np.ones((model.n_images, 10)), model)
    return module._shape(series, images, module.Misfit(np.array(size), share))


@pytest.mark.parametrize(
    ("share", "size", "said"), [(0.25, 0.04, 1), (0.249, 0.04, 0), (0.25, 0.0399, 0), (1.0, 0.5, 1)]
)
def test_a_misfit_is_said_from_a_quarter_of_the_power_and_four_per_cent_on(
    share: float, size: float, said: int
) -> None:
    texts = shape_of(share, [0.01, 0.0, size, 0.01, 0.0])
    assert len(texts) == said
    for text in texts:
        assert "the one at 40 ms deviates systematically from the fit" in text and weight_of(text) == Weight.UNRELIABLE
        assert f"by {100 * size:.2g} % of" in text and "--skip-first 1" in text


@pytest.mark.parametrize(("number", "depth", "signed"), [(3, 0.21, True), (3, 0.19, False), (2, 0.21, False)])
def test_images_with_negative_bright_voxels_are_signed(number: int, depth: float, signed: bool) -> None:
    """More than 2 % of 100 voxels are below −0.2 of their brightest."""
    S = np.full((6, 100), 0.5)
    S[4] = -1.0
    S[4, ::2] = 1.0
    S[4] = 1.0
    S[1, :number] = -depth
    for unit in (1.0, 30.0):
        texts = shape_of(0.5, [0, 0, 0, 0.1, 0, 0], unit * S, IR)
        assert ("--signed" in texts[0]) == signed
    assert "--signed" not in shape_of(0.5, [0, 0, 0, 0.1, 0, 0], S, replace(IR, signed=True))[0]


def maps_of(status: Any, **more: Any) -> ParameterMaps:
    status = np.asarray(status, np.uint8)
    kappa = np.ones((2, *status.shape)) * np.reshape([100.0, 60.0], (2,) + (1,) * status.ndim)
    return ParameterMaps(kappa=kappa, model=MODEL, status=status, **more)


@pytest.mark.parametrize(
    ("off", "total", "said", "weight"),
    [
        (4, 100, 0, None),
        (5, 100, 1, Weight.CAUTION),
        (6, 100, 1, Weight.UNRELIABLE),
        (9, 10_000, 0, None),
        (10, 10_000, 1, Weight.CAUTION),
    ],
)
def test_voxels_off_the_model_are_counted(off: int, total: int, said: int, weight: Any) -> None:
    """Five, and one in a thousand; more than one in twenty spoil the maps. Voxels without a value do not count."""
    status = np.full(total + 50, int(Status.NO_SIGNAL))
    status[:total] = int(Status.OK)
    status[: total // 3] = int(Status.AT_BOUND)
    status[:off] = int(Status.OFF_MODEL)
    texts = off_model_warnings(maps_of(status))
    assert len(texts) == said
    if said:
        assert f"{off} voxels ({100 * off / total:.2g} % of" in texts[0] and weight_of(texts[0]) == weight


# σ that the residuals deny.


def scatter(ratio: float, free: int = 3, **more: Any) -> tuple[str, ...]:
    """Return what is said of residuals that are larger than expected by a factor."""
    sigma = np.full(9, 2.0)
    residual = np.zeros((5, 9))
    residual[0] = 2.0 * ratio * np.sqrt(special.chdtri(free, 0.5))
    residual[:, 3], sigma[4] = np.nan, np.nan
    options: dict[str, Any] = {"sigma_source": "given", "noise": Gaussian(sigma=2.0)} | more
    return module._scatter(maps_of(np.zeros(9), **options), residual, sigma, (free, free))


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(0.51, 0), (0.49, 1), (1.99, 0), (2.01, 1), (0.0011, 1), (0.0009, 0), (0.0, 0), (np.inf, 0)],
)
def test_sigma_may_be_wrong_by_a_factor_of_two(ratio: float, said: int) -> None:
    texts = scatter(ratio)
    assert len(texts) == said
    assert all(text.startswith(f"The residuals are {ratio:.2g} times") for text in texts)
    assert [len(scatter(ratio, free)) for free in (1, 5)] == [said, said]


@pytest.mark.parametrize("free", [(1, 3), (2, 4), (5, 7)])
def test_residuals_that_an_estimator_smooths_have_some_degrees_of_freedom(free: tuple[int, int]) -> None:
    """Between those of a fit of each voxel and those of all images: none of them denies σ, and a wrong σ is denied."""
    maps = maps_of(np.zeros(9), sigma_source="given")
    low, high = (np.sqrt(special.chdtri(n, 0.5)) for n in free)

    def told(size: float) -> tuple[str, ...]:
        residual = np.zeros((8, 9))
        residual[0] = 3.0 * size
        return module._scatter(maps, residual, np.full(9, 3.0), free)

    assert all(told(size) == () for size in np.linspace(0.51 * low, 1.99 * high, 9))
    assert "2.1 times as large" in told(2.1 * high)[0] and "0.48 times as large" in told(0.48 * low)[0]


def test_only_a_sigma_that_was_given_is_denied() -> None:
    assert scatter(5.0, sigma_source="residuals") == ()
    assert module._scatter(maps_of(np.zeros(9), sigma_source="given"), np.ones((5, 9)), np.full(9, 0.01), (0, 0)) == ()
    assert (
        module._scatter(maps_of(np.zeros(9), sigma_source="given"), np.ones((5, 9)), np.full(9, np.nan), (3, 3)) == ()
    )
    assert not module._denied(2.0) and not module._denied(0.5) and module._denied(1e9)


# Which voxels are looked at, and what is expected of them.


def census_of(brightest: Floats) -> Census:
    return Census.of(np.stack([brightest, 0.5 * brightest]), 1)


def test_voxels_with_a_value_and_much_signal() -> None:
    status = np.array([flag for flag in Status for _ in range(50)])
    brightest = np.full(400, 10.0)
    brightest[::5], brightest[1::5] = 3.9, 4.1
    at = module._bright(maps_of(status), census_of(brightest))
    allowed = [int(s) for s in (Status.OK, Status.AT_BOUND, Status.OUTSIDE_TRAINING, Status.OFF_MODEL)]
    expected = [k for k in range(400) if status[k] in allowed and brightest[k] > 4]
    assert at.tolist() == expected
    assert len(module._bright(maps_of(np.full(9, 2)), census_of(np.ones(9)))) == 0


def test_many_voxels_are_sampled_and_a_small_mask_is_not() -> None:
    many = np.zeros(100_000, np.uint8)
    at = module._bright(maps_of(many), census_of(np.ones(100_000)))
    assert 1_000 <= len(at) <= 1_200
    for slices in range(2, 31):  # the last axis of a volume: as many voxels from each slice, whatever its number
        assert np.bincount(at % slices, minlength=slices).min() > 0.5 * len(at) / slices
    small = np.full(100_000, int(Status.OUTSIDE_MASK), np.uint8)
    small[1000:2000] = 0
    at = module._bright(maps_of(small), census_of(np.ones(100_000)))
    assert at.tolist() == list(range(1000, 2000))
    medium = np.zeros(3_000, np.uint8)
    at = module._bright(maps_of(medium), census_of(np.ones(3_000)))
    assert (at // 3).tolist() == list(range(1_000))  # one of three


@pytest.mark.parametrize("estimator", ["nlls", "mle"])
@pytest.mark.parametrize("noise", [None, Gaussian(sigma=20.0), Rician(sigma=20.0), "map", Rician()])
def test_what_is_expected_of_voxels(estimator: str, noise: Any) -> None:
    rng = np.random.default_rng(0)
    kappa = np.stack([rng.uniform(50, 100, (4, 5)), rng.uniform(1.7, 2, (4, 5)), rng.uniform(500, 1500, (4, 5))])
    sigma = rng.uniform(10, 30, (4, 5))
    noise = Rician(sigma=sigma) if noise == "map" else noise
    maps = ParameterMaps(kappa=kappa, model=IR, status=np.zeros((4, 5), np.uint8), noise=noise, estimator=estimator)
    series = rimap.WeightedSeries(rng.random((6, 4, 5)), IR)
    at = np.array([3, 7, 12])
    found = module._look(series, maps, at)
    where = np.unravel_index(at, (4, 5))
    np.testing.assert_array_equal(found.S, series.images[(slice(None), *where)])
    np.testing.assert_array_equal(found.kappa, kappa[(slice(None), *where)])
    f = np.asarray(IR.signal(kappa[(slice(None), *where)]))
    if isinstance(noise, Rician) and noise.sigma is not None:
        f = Rician(sigma=noise.sigma if np.ndim(noise.sigma) == 0 else noise.sigma[where]).mean(f)
    np.testing.assert_allclose(found.expected, f)
    assert found.free == ([0, 1, 2] if estimator == "nlls" else [0, 2])
    sigmas = module._sigma_at(maps, at)
    known = noise is not None and noise.sigma is not None
    np.testing.assert_array_equal(sigmas, np.broadcast_to(noise.sigma, (4, 5))[where] if known else np.full(3, np.nan))


def test_what_is_known_is_not_free() -> None:
    maps = ParameterMaps(kappa=np.ones((3, 9)), model=IR, status=np.zeros(9, np.uint8), estimator="nlls")
    series = rimap.WeightedSeries(np.ones((6, 9)), IR, given={"B": 1.9})
    assert module._look(series, maps, np.arange(9)).free == [0, 2]


@pytest.mark.parametrize(("number", "said"), [(7, 0), (8, 1)])
def test_eight_voxels_are_needed(number: int, said: int) -> None:
    maps = maps_of(np.zeros(number), noise=Gaussian(sigma=1.0), sigma_source="given")
    S = np.asarray(MODEL.signal(maps.kappa)) * np.array([1.0, 1.0, 1.4, 1.0, 1.0])[:, None]
    texts = misfit_warnings(rimap.WeightedSeries(S, MODEL), maps, 2)
    assert ["do not follow the model" in text for text in texts[:said]] == [True] * said and bool(texts) == bool(said)
    good = np.asarray(MODEL.signal(maps.kappa)) + np.random.default_rng(0).normal(0, 1, (5, number))
    assert misfit_warnings(rimap.WeightedSeries(good, MODEL), maps, 2) == ()
    if said:
        assert any(text.startswith("The residuals are") for text in texts)
        again = misfit_warnings(rimap.WeightedSeries(S, MODEL), maps, 2, census=Census.of(S, 1))
        assert again == texts


@pytest.mark.parametrize(("farther", "free"), [(False, 3), (True, 5)])
@pytest.mark.parametrize(("ratio", "told"), [(1.95, False), (2.05, True)])
def test_residuals_have_lost_the_parameters_of_each_voxel_unless_a_fit_smooths(
    farther: bool, free: int, ratio: float, told: bool
) -> None:
    """Of five images, two parameters leave three degrees of freedom; a fit that smooths may have lost none."""
    maps = maps_of(np.zeros(40), noise=Gaussian(sigma=1.0), sigma_source="given")
    odd = np.array([1.0, -2.0, 1.5, -1.0, 0.5])
    S = np.asarray(MODEL.signal(maps.kappa)) + (
        ratio * np.sqrt(special.chdtri(free, 0.5)) * odd[:, None] / np.linalg.norm(odd)
    )
    texts = misfit_warnings(rimap.WeightedSeries(S, MODEL), maps, 2, farther=farther)
    assert any("given σ predicts" in text for text in texts) == told


@pytest.mark.parametrize("known", [True, False])
def test_gains_are_seen_in_air_if_that_is_known(known: bool) -> None:
    """Images that follow the model, in air of which one image has a fifth more."""
    maps = maps_of(np.where(np.arange(2400) < 400, int(Status.OK), int(Status.NO_SIGNAL)))
    S = np.asarray(MODEL.signal(maps.kappa))
    S[:, 400:] = np.hypot(*np.random.default_rng(0).normal(0, 1, (2, 5, 2000))) * np.array(
        [[1.0], [1], [1.2], [1], [1]]
    )
    texts = misfit_warnings(rimap.WeightedSeries(S, MODEL), maps, 2, (np.arange(2400) >= 400) if known else None)
    assert [("voxels of air show" in text, "image 3 (TE 40 ms)" in text) for text in texts] == [(True, True)] * known
