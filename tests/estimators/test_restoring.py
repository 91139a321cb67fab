"""What a network smoothed away and the data show is put back, and the standard deviations count what that costs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rimap import InversionRecovery
from rimap.errors import InputError
from rimap.estimators.rim import restoring
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import GENERAL, Quadratic, RIMConfig, from_state, to_state
from rimap.estimators.rim.restoring import (
    ALIKE,
    REACH,
    ROWS,
    WIDTH,
    _mean_of_alike,
    _write_mean_of_alike,
    restored,
    share_of_texture,
)

MODEL = InversionRecovery(tau=[50, 200, 500, 1000, 2000, 4000])
CONFIG = RIMConfig(**{**GENERAL.as_dict(), "sd_outputs": True, "restore": True})
LAYOUT = Layout.of(MODEL)
SIGMA, EDGE, TIME = 0.02, 48, 2


def put_back(T1: np.ndarray, found: np.ndarray, sd: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the restored T1, its SD and that of a single voxel, all relative, for an estimate `found`."""
    rng = np.random.default_rng(3)
    kappa = np.stack([np.full(T1.shape, 0.65), np.full(T1.shape, 1.9), T1])
    images = MODEL.signal(kappa) + SIGMA * rng.standard_normal((MODEL.n_images, *T1.shape))
    sigma = np.full((1, 1, 1), SIGMA, np.float32)
    data = DataTerm(MODEL, images[:, None].astype(np.float32), sigma, False)
    carried = np.stack([kappa[0], kappa[1], found])[:, None].astype(np.float32)

    def quadratic_at(u: np.ndarray) -> Quadratic:
        carried = np.asarray(from_state(CONFIG, LAYOUT, u), np.float32)
        return Quadratic.of(CONFIG, LAYOUT, carried, data(carried), sigma)

    u = np.asarray(to_state(CONFIG, LAYOUT, carried), np.float32)
    quadratic = quadratic_at(u)
    new = restored(u, np.full(u.shape, sd, np.float32), quadratic_at)
    own = np.sqrt(quadratic.alone[1][-1])[0]
    return np.asarray(from_state(CONFIG, LAYOUT, new.u))[TIME, 0], new.sd[TIME, 0], own


def square(edge: int, contrast: float) -> np.ndarray:
    """Return a relative map with a square of a contrast in its middle."""
    out = np.ones((EDGE, EDGE))
    middle = slice(EDGE // 2 - edge // 2, EDGE // 2 + (edge + 1) // 2)
    out[middle, middle] += contrast
    return out


def test_bands_of_rows_give_what_the_whole_slice_gives() -> None:
    shape, rng = (2 * ROWS + 11, 9), np.random.default_rng(4)
    of = tuple(rng.uniform(0.5, 1.5, shape).astype(np.float32) for _ in range(4))
    whole, bands = ((np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for _ in range(2))
    _mean_of_alike(*of, *whole)
    with ThreadPoolExecutor(3) as executor:
        _write_mean_of_alike(of, bands, executor)
    for one, other in zip(whole, bands):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(13, 17), (6, 1), (6, 2), (7, 3), (2, 5), (1, 9)])
def test_the_mean_of_alike_voxels_is_that_of_its_weights(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    u, variance, step, precision = (rng.uniform(0.5, 1.5, shape) for _ in range(4))
    y, x = (a[:, :, None, None] for a in np.indices(u.shape))
    i, j = np.indices(u.shape)
    near = (abs(i - y) <= REACH) & (abs(j - x) <= REACH)
    in_space = np.exp(-((i - y) ** 2 + (j - x) ** 2) / (2 * WIDTH**2))
    apart = (u - u[:, :, None, None]) ** 2 / (variance + variance[:, :, None, None])
    alike = near * in_space * np.exp(-apart / ALIKE**2)
    weights = (alike * precision).sum((2, 3))
    mean, noise = np.empty((2, *u.shape), np.float32)
    _mean_of_alike(*(a.astype(np.float32) for a in (u, variance, step, precision)), mean, noise)
    assert mean == pytest.approx((alike * precision * step).sum((2, 3)) / weights, rel=1e-3)
    assert noise == pytest.approx((alike**2 * precision).sum((2, 3)) / weights**2, rel=1e-3)


@pytest.mark.parametrize("edge", [3, 5, 8])
def test_a_group_that_lost_contrast_as_one_gets_it_back(edge: int) -> None:
    T1, found = 800 * square(edge, 0.25), 800 * square(edge, 0.15)
    new, sd, own = put_back(T1, found, 0.02)
    inside = T1 > 800
    error = (new / T1 - 1)[inside].mean()
    assert abs(error) < 3 * own[inside].mean() / edge
    assert sd[inside].mean() > 0.02


def test_where_nothing_was_lost_little_noise_is_added() -> None:
    T1 = np.full((EDGE, EDGE), 800.0)
    new, sd, own = put_back(T1, T1, 0.4 * 0.03)
    added = (new / T1 - 1)[8:-8, 8:-8]
    assert added.std() < 0.45 * own.mean()
    # what the standard deviation claims to have been added is what was added
    claimed = np.sqrt(np.mean(sd[8:-8, 8:-8] ** 2) - (0.4 * 0.03) ** 2)
    assert 0.5 < added.std() / claimed < 1.5


def test_texture_is_told_from_noise_by_its_variance() -> None:
    rng = np.random.default_rng(0)
    variance = np.ones((1, 128, 128), np.float32)
    noise, texture = rng.standard_normal((2, 1, 128, 128))
    nothing = np.full_like(variance, 1e-3)
    of_noise = share_of_texture(noise.astype(np.float32), variance, nothing)
    of_both = share_of_texture((noise + 2 * texture).astype(np.float32), variance, nothing)
    assert np.median(of_noise) < 0.1
    assert np.median(of_both) == pytest.approx(0.8, abs=0.08)  # 4 of 5: what a Wiener filter would keep


def test_one_odd_voxel_is_no_texture() -> None:
    step = np.zeros((1, 41, 41), np.float32)
    step[0, 20, 20] = 30.0
    share = share_of_texture(step, np.ones_like(step), np.full_like(step, 1e-3))
    assert share.max() == 0.0


def test_white_texture_that_was_smoothed_away_comes_back() -> None:
    rng = np.random.default_rng(1)
    T1 = 800 * (1 + 0.05 * rng.standard_normal((EDGE, EDGE)))
    flat = np.full_like(T1, 800.0)
    new, sd, own = put_back(T1, flat, 0.005)
    error = (np.log(new) - np.log(T1))[8:-8, 8:-8]
    assert error.std() < 1.2 * own.mean() < 0.8 * np.log(T1).std()
    assert (abs(error) < 1.96 * sd[8:-8, 8:-8]).mean() > 0.85


def test_it_needs_the_standard_deviations_of_the_network() -> None:
    with pytest.raises(InputError, match="sd_outputs"):
        RIMConfig(restore=True)


@pytest.mark.parametrize(("sigma", "twice"), [(0.003, False), (0.03, True), (0.2, False)])
def test_a_second_pass_restores_more_where_it_costs_little(
    sigma: float, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little noise nothing is left to restore, and with much it is noise."""
    monkeypatch.setitem(globals(), "SIGMA", sigma)
    stripes = np.broadcast_to(np.sign(np.sin(np.arange(EDGE) * np.pi / 5 + 0.1)), (EDGE, EDGE))
    T1 = 800 * (1 + 0.6 * sigma * stripes)
    found = 800 + 0.5 * (T1 - 800)
    both = put_back(T1, found, 0.3 * sigma)[0]
    monkeypatch.setattr(restoring, "SECOND", (1e-9, 2e-9, 3e-9, 4e-9))
    once = put_back(T1, found, 0.3 * sigma)[0]
    middle = slice(8, -8)

    def kept(new: np.ndarray) -> float:
        return float(np.polyfit(T1[middle, middle].ravel(), new[middle, middle].ravel(), 1)[0])

    if twice:
        assert kept(once) + 0.05 < kept(both) < 1.05
    else:
        np.testing.assert_array_equal(both, once)


def test_the_standard_deviation_of_what_came_back_whole_is_that_of_maximum_likelihood() -> None:
    """And not that of the smoothed estimate and of maximum likelihood together: its error is gone."""
    T1 = 800 * (1 + 0.2 * np.random.default_rng(2).standard_normal((EDGE, EDGE)))
    new, sd, own = put_back(T1, np.full_like(T1, 800.0), 0.8 * 0.03)
    inside = (slice(8, -8),) * 2
    assert np.median((sd / own)[inside]) == pytest.approx(1, abs=0.1)
    assert 0.9 < (abs(np.log(new / T1)) < 1.96 * sd)[inside].mean() < 0.98
