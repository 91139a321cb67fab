"""The B of a whole series: what is averaged to find it, and that voxels are not chosen by their own noise."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import rimap
from rimap.estimators.possible_values import folded
from rimap.estimators.rim.field_grid import MANY_SLICES, FieldGrid, fine
from rimap.estimators.rim.whole_field import folds, smooth_field, smooth_field_of_alike
from rimap.processors import planes_at_once
from rimap.series import Status
from rimap.signals.paper_protocols import PROTOCOLS


@pytest.mark.parametrize("n_images", [4, 6, 9, 31])
def test_folds_are_parts_of_the_images_and_their_complements(n_images):
    times = np.random.default_rng(n_images).permutation(np.linspace(40.0, 4000.0, n_images))
    pairs = folds(times, 4, 3)
    assert len(pairs) == 4
    assert sorted(np.concatenate([part for part, _ in pairs])) == list(range(n_images))
    for part, others in pairs:
        assert not set(part) & set(others) and len(part) + len(others) == n_images
        assert np.ptp(times[others]) > 0.6 * np.ptp(times)  # spread over the times


@pytest.mark.parametrize("times", [(100.0, 500.0, 1500.0), (100.0, 100.0, 500.0, 500.0, 1500.0)])
def test_too_few_distinct_times_are_not_parted(times):
    ((part, others),) = folds(np.array(times), 4, 3)
    assert sorted(part) == sorted(others) == list(range(len(times)))


def test_voxels_chosen_by_other_images_give_the_B_that_voxels_chosen_by_their_own_noise_do_not():
    model, B, sigma = PROTOCOLS["IV_T1"], 1.9, 0.2
    rng = np.random.default_rng(5)
    T = np.where(np.arange(96)[:, None] < 48, 800.0, 1300.0) * np.ones((96, 96))
    kappa = np.stack([np.ones_like(T), np.full_like(T, B), T])
    images = model.signal(kappa) + rng.normal(0, sigma, (31, 96, 96))
    series = rimap.WeightedSeries(images=images.astype(np.float32), model=model, noise=rimap.Gaussian(sigma=sigma))

    start = smooth_field(series, threads=1, lambda_B=1e6).field

    def error(guides):
        return float((smooth_field_of_alike(series, guides, start, threads=1).field - B).mean())

    def chosen_by(numbers):
        """Return a κ that follows the noise of these images, half the way to their least squares at this B."""
        noise, J = (images - model.signal(kappa))[numbers], model.partials(kappa)[numbers][:, [0, 2]]
        H = np.einsum("nixy,njxy->xyij", J, J)
        step = np.linalg.solve(H, np.einsum("nixy,nxy->xyi", J, noise)[..., None])[..., 0]
        return np.stack([1 + 0.5 * step[..., 0], kappa[1], T + 0.5 * step[..., 1]])

    every = np.arange(31)
    own = error([(every, chosen_by(every))])
    crossed = error([(part, chosen_by(others)) for part, others in folds(model.times, 4, 3)])
    told = error([(every, kappa)])  # by the truth: what is left is the noise of these images
    assert told - own > 0.003
    assert abs(crossed - told) < 0.5 * abs(own - told)
    assert abs(crossed) < 0.5 * abs(float((start - B).mean()))


@pytest.mark.parametrize("noise", [rimap.Gaussian, rimap.Rician])
def test_magnitude_images_in_air_give_the_true_B_whatever_their_noise_is_taken_for(noise):
    """Neither the folded noise of averaged magnitudes, nor averages below the error of the model, may bias B."""
    model, sigma = PROTOCOLS["IV_T1"], 0.65 / 30
    rng = np.random.default_rng(2)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    T = np.where((y // 0.2 + x // 0.2) % 2 == 0, 800.0, 1300.0)
    B = 1.85 + 0.05 * (1 - x**2 - y**2)
    kappa = np.stack([np.where(x**2 + y**2 < 0.8, 0.65, 0.0), B, T])
    real, imaginary = sigma * rng.standard_normal((2, 31, 96, 96))
    images = np.hypot(model.signal(kappa) + real, imaginary).astype(np.float32)
    maps = rimap.RIM(network="t1", threads=1).estimate(rimap.WeightedSeries(images, model, noise(sigma=sigma)))
    inside = x**2 + y**2 < 0.7
    assert abs(np.nanmedian((maps["B"] - B)[inside])) < 0.01
    assert abs(np.nanmedian((maps["T1"] / T - 1)[inside])) < 0.015


def test_the_smoothness_is_that_which_the_maximum_likelihood_chooses():
    """On a part of the voxels, as on all."""
    model, sigma = PROTOCOLS["IV_T1"], 0.65 / 20
    rng = np.random.default_rng(4)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    for bend, stiff in ((0.0, True), (0.35, False)):
        kappa = np.stack([np.full_like(x, 0.65), 1.9 - bend * (x**2 + y**2) / 2, 900 + 200 * np.sign(np.sin(9 * x))])
        images = model.signal(kappa) + sigma * rng.standard_normal((31, 128, 128))
        series = rimap.WeightedSeries(images.astype(np.float32), model, rimap.Gaussian(sigma=sigma))
        found = smooth_field(series, threads=1).lambda_B
        best = rimap.MLE(threads=1).estimate(series).settings["lambda_B"]
        assert (found >= 1e6) == (best >= 1e6) == stiff
        if not stiff:
            assert abs(np.log10(found / best)) <= 1.0


@pytest.mark.parametrize(("snr", "n"), [(8.0, 96), (30.0, 96), (30.0, 40)])
def test_the_field_has_a_standard_deviation_that_predicts_its_error(snr, n):
    """Found on averages (SNR 8), on all voxels, and on a small image; T1 is less certain by the error of the field."""
    model, sigma = rimap.InversionRecovery(tau=[50, 200, 500, 1000, 1600, 2600, 4000]), 0.65 / snr
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    kappa = np.stack(
        [np.full_like(x, 0.65), 1.9 - 0.05 * (x**2 + y**2), np.where((y // 0.4 + x // 0.4) % 2, 800, 1300)]
    )
    z = []
    for seed in range(3):
        noise = sigma * np.random.default_rng(seed).standard_normal((7, n, n))
        series = rimap.WeightedSeries(
            (model.signal(kappa) + noise).astype(np.float32), model, rimap.Gaussian(sigma=sigma)
        )
        maps = rimap.RIM(network="universal", threads=1).estimate(series)
        z.append((maps["B"] - kappa[1]) / maps.sd["B"])
    assert 0.5 < np.sqrt(np.mean(np.square(z))) < 2
    exact = rimap.RIM(network="universal", threads=1).estimate(replace(series, given={"B": maps["B"]}))
    assert np.isnan(exact.sd["B"]).all()
    assert (maps.sd["T1"] >= 0.999 * exact.sd["T1"]).mean() > 0.99


def test_slabs_have_the_standard_deviations_of_the_whole():
    model, sigma = rimap.InversionRecovery(tau=[50, 200, 500, 1000, 1600, 2600, 4000]), 0.65 / 30
    rng = np.random.default_rng(0)
    kappa = np.stack([np.full((40, 40, 4), 0.65), np.full((40, 40, 4), 1.9), rng.choice([700.0, 1300.0], (40, 40, 4))])
    images = (model.signal(kappa) + sigma * rng.standard_normal((7, 40, 40, 4))).astype(np.float32)
    series = rimap.WeightedSeries(images, model, rimap.Gaussian(sigma=sigma))
    rim = rimap.RIM(network="universal", threads=1)
    whole, (prepared, ready) = rim.estimate(series), rim.prepare(series)
    index = (slice(None), slice(None), slice(1, 3))
    part = prepared.slab(index).estimate(rimap.WeightedSeries(images[..., 1:3], model, ready.noise))
    for name in ("T1", "B"):
        np.testing.assert_allclose(part.sd[name], whole.sd[name][index], rtol=1e-3)


def volume_of_five_slices():
    """Return inversion recovery of a ball of two tissues in five slices, and where it is."""
    model = rimap.InversionRecovery(tau=[50, 200, 500, 1000, 2000, 4000])
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, 72),) * 2, np.arange(5), indexing="ij")
    inside = x**2 + y**2 < 0.8
    kappa = np.stack([1.0 * inside, np.full(x.shape, 1.9), np.where(x > 0, 800.0, 1300.0)])
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.02, (2, 6, *x.shape))
    return model, np.hypot(model.signal(kappa) + noise[0], noise[1]).astype(np.float32), inside, kappa[2]


@pytest.mark.parametrize(("n_slices", "threads"), [(2, 5), (5, 3), (MANY_SLICES, 3)])
def test_threads_do_not_change_the_maps(n_slices, threads):
    """With few slices, threads share the voxels of a field; with many, each takes slices. Planes are mapped at once."""
    model, images, _, _ = volume_of_five_slices()
    many = np.concatenate([images] * 4, axis=-1)[..., :n_slices]
    one, several = (rimap.RIM(threads=n).estimate(rimap.WeightedSeries(many, model)) for n in (1, threads))
    for name in ("A", "B", "T1"):
        np.testing.assert_array_equal(one[name], several[name])
        np.testing.assert_array_equal(one.sd[name], several.sd[name])
    np.testing.assert_array_equal(one.status, several.status)


@pytest.mark.parametrize("background", ["whole numbers", 0.0, np.nan])
def test_the_field_of_magnitudes_stands_zeros(background):
    """A magnitude of zero is impossible with Rician noise, and no reason for another field."""
    model, sigma, n = rimap.InversionRecovery(tau=[50, 150, 300, 500, 800, 1200, 1800, 2600, 4000]), 0.65 / 8, 96
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    B, inside = 1.9 - 0.35 * (x**2 + y**2) / 2, x**2 + y**2 < 0.9
    T1 = np.where((np.floor(4 * x) + np.floor(4 * y)) % 2, 1300.0, 800.0)
    images = rimap.Rician(sigma).sample(model.signal(np.stack([0 * x + 1, B, T1])), np.random.default_rng(0))
    if background == "whole numbers":
        unit, images = 100.0, np.rint(100 * images)
    else:
        unit, images = 1.0, np.where(inside, images, background)
    series = rimap.WeightedSeries(images.astype(np.float32), model, rimap.Gaussian(sigma=unit * sigma))
    found = smooth_field(series, threads=1)
    assert found.lambda_B <= 1e6 and np.sqrt(np.mean(np.square(found.field - B)[inside])) < 0.03


@pytest.mark.parametrize(
    ("shape", "threads", "planes"),
    [((96, 96), 8, 1), ((96, 96, 3), 8, 3), ((96, 96, 30), 2, 2), ((256, 256, 30), 8, 2), ((512, 512, 30), 8, 1)],
)
def test_large_planes_are_mapped_one_by_one(shape, threads, planes):
    assert planes_at_once(shape, threads) == planes


@pytest.mark.parametrize("value", [np.nan, 0.0])
@pytest.mark.parametrize(
    ("axis", "blank"), [(3, [0, 1]), (3, [0, 2, 4]), (3, [2]), (1, slice(0, None, 2)), (2, slice(40))]
)
def test_slices_or_columns_without_a_value_do_not_change_the_field_of_the_others(axis, blank, value):
    model, images, inside, T1 = volume_of_five_slices()
    place = [slice(None)] * 4
    place[axis] = blank
    images[tuple(place)] = value
    whole = np.isfinite(images).all(0) & images.any(0)
    maps = rimap.RIM(threads=1).estimate(rimap.WeightedSeries(images, model))
    assert (maps.status[inside & whole] == Status.OK).mean() > 0.99
    assert not (maps.status[~whole] == Status.OK).any()
    assert np.nanmedian(maps["B"][inside & whole]) == pytest.approx(1.9, abs=0.02)
    assert np.median(abs(maps["T1"] / T1 - 1)[inside & whole]) < 0.02


def test_a_sigma_beyond_the_signal_of_magnitudes_leaves_the_first_field() -> None:
    model = rimap.InversionRecovery(tau=(50, 150, 400, 900, 1800, 3500))
    images = abs(np.random.default_rng(0).normal(0, 1, (6, 24, 24))).astype(np.float32)
    series = rimap.WeightedSeries(images, model, noise=rimap.Gaussian(sigma=50.0))
    first = np.full((24, 24), 1.9, np.float32)
    guides = [(np.arange(6), np.stack([np.ones_like(first), first, 1000 * first]))]
    found = smooth_field_of_alike(series, guides, first, threads=1)
    np.testing.assert_array_equal(found.field, first)
    assert found.sd is None


@pytest.mark.parametrize("binned", [False, True])
def test_a_grid_of_every_second_voxel_and_one_of_means_are_at_their_own_places(binned: bool) -> None:
    """A plane is that plane on all voxels, whichever grid it was on."""
    y, x = np.meshgrid(np.arange(12.0), np.arange(10.0), indexing="ij")
    plane = 3 * y - x
    on_grid = plane.reshape(6, 2, 5, 2).mean((1, 3)) if binned else plane[::2, ::2]
    inside = (slice(1, 10), slice(1, 8))
    np.testing.assert_allclose(fine(on_grid, plane.shape, 2, binned=binned)[inside], plane[inside], rtol=1e-6)


def test_a_rough_field_is_where_the_field_is() -> None:
    """A field that one side of the head knows from the other would be found shifted."""
    y = np.linspace(0, 1, 96)[:, None] + np.zeros((96, 96))
    model = rimap.InversionRecovery(tau=[50, 300, 900, 2000, 4000])
    kappa = np.stack([np.ones_like(y), 1.95 - 0.3 * y, np.full_like(y, 900.0)])
    series = rimap.WeightedSeries(model.signal(kappa).astype(np.float32), model, rimap.Gaussian(sigma=0.002))
    rough = smooth_field(series, threads=1, rough=True, lambda_B=1e3).field
    off = (rough - kappa[1])[20:76, 20:76].mean() / (0.3 / 95)  # in voxels
    assert abs(off) < 0.1


def test_zeros_beside_the_mask_do_not_decide_whether_magnitudes_are_folded_but_air_does() -> None:
    rng = np.random.default_rng(0)
    model = rimap.InversionRecovery(tau=[50, 300, 900])
    signed = rng.standard_normal((3, 20, 20))
    for n_zeros in (0, 300):
        images = np.concatenate([signed, np.zeros((3, n_zeros, 20))], axis=1)
        mask = np.arange(20 + n_zeros)[:, None] + np.zeros(20) < 20
        assert not folded(rimap.WeightedSeries(images, model, mask=mask))
    bright, air = 20 + signed, rng.standard_normal((3, 20, 20))
    mask = np.arange(40)[:, None] + np.zeros(20) < 20
    assert not folded(rimap.WeightedSeries(np.concatenate([bright, air], axis=1), model, mask=mask))
    assert folded(rimap.WeightedSeries(np.concatenate([bright, abs(air)], axis=1), model, mask=mask))


def test_which_values_are_possible_is_decided_for_the_volume_not_for_a_slice() -> None:
    """Many negative values in one slice are an exception if there are few in all slices."""
    model = rimap.InversionRecovery(tau=[50, 300, 900, 2000, 4000])
    kappa = np.stack([np.ones((20, 20, 8)), np.full((20, 20, 8), 1.9), np.full((20, 20, 8), 900.0)])
    images = model.signal(kappa).astype(np.float32)
    wrong = np.random.default_rng(0).random((20, 20)) < 0.15
    images[-1, wrong, 3] *= -1
    series = rimap.WeightedSeries(images, model, rimap.Gaussian(sigma=0.02))
    with ThreadPoolExecutor(1) as pool:
        grid = FieldGrid(series, 1, 1, pool)
        say = grid.at(grid.padded(np.full(series.shape, 1.9))).say
    assert not say[wrong, 3].any()
    assert say[..., 4].all()
