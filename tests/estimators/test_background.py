"""Which voxels are air: the definition written out with loops, on scenes close to its limits, and single limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, special

from rimap.estimators.checks import background as module
from rimap.estimators.checks.background import Levels, background
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.neighbour_planes import Planes

Floats = NDArray[np.float64]
Where = NDArray[np.bool_]
N = 4
#: Median of the power of air in units of its mean, of 4 magnitudes.
MEDIAN_OF_CHI2 = special.chdtri(8, 0.5) / 8


def found(S: Floats, sigma: Any, *, signed: bool = False, usable: Where | None = None, **more: Any) -> Where:
    usable = np.ones(S.shape[1:], bool) if usable is None else usable
    return background(Census.of(S, 1), sigma, signed=signed, usable=usable, **more)


def near(shape: tuple[int, ...], i: int, j: int, half: int) -> tuple[slice, slice]:
    return slice(max(i - half, 0), i + half + 1), slice(max(j - half, 0), j + half + 1)


def voxels(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return itertools.product(range(shape[0]), range(shape[1]))


def around(values: Any, half: int, of: Any = np.sum) -> Floats:
    """Return a figure of the (2 half + 1)² values around each voxel of one plane."""
    return np.array(
        [[of(values[near(values.shape, i, j, half)]) for j in range(values.shape[1])] for i in range(len(values))]
    )


def wider(power: Floats, air: Where) -> float:
    """Return by which factor means over 3 × 3 voxels scatter more than those of independent noise."""
    variance = 1.0
    if air.sum() < 200:
        return variance
    middle, spread = power[air].mean(), power[air].var()
    for turned, of in ((power, air), (power.T, air.T)):
        along = 0.0
        for lag, weight in ((1, 4 / 3), (2, 2 / 3)):
            both = of[:-lag] & of[lag:]
            if both.sum() < 200:
                break
            correlation = ((turned[:-lag] - middle) * (turned[lag:] - middle))[both].mean() / spread
            if correlation < (0.45 if lag == 1 else 0.1):
                break
            along += weight * correlation
        variance *= 1 + along
    return min(float(np.sqrt(variance)), 2.5)


def like_noise(power: Floats, filled: Where, empty: Where, unit: float, freedom: int) -> Where:
    """Return the voxels of one plane that are like noise of this mean power, by the definition."""
    chance = {q: special.chdtri(freedom, 1 - q) / freedom * unit for q in (0.9999, 0.99)}
    known = np.where(filled, power, 0.0)
    sums, count = around(known, 1), around(filled, 1)
    far, far_count = around(known, 2), around(filled, 2)

    def limit(number: Floats, factor: float) -> Floats:
        return unit * number * (1 + 3.5 * factor * np.sqrt(2 / (freedom * np.maximum(number, 1))))

    factor = 1.0
    inside = filled & (power < chance[0.9999]) & (sums < limit(count, factor))
    for _ in range(2):
        if (found := wider(power, inside)) == 1:
            break
        factor = found
        inside = filled & (power < chance[0.9999]) & (sums < limit(count, factor))
    inside &= ~((far > limit(far_count, factor)) & (around(sums, 2, np.max) < 27 * unit))
    border = filled & (power < chance[0.99])
    inside |= border & (sums - power > 80 * unit)
    for i, j in voxels(power.shape):
        if not border[i, j] or inside[i, j]:
            continue
        for di, dj in ((0, 1), (1, 0), (1, 1), (1, -1)):
            ends = [(i + di, j + dj), (i - di, j - dj)]
            if all(0 <= a < power.shape[0] and 0 <= b < power.shape[1] and filled[a, b] for a, b in ends):
                three = power[i, j] + sum(power[end] for end in ends)
                dark = three < 3 * unit * (1 + 2.5 * np.sqrt(2 / (3 * freedom)))
                inside[i, j] |= dark and sums[i, j] - three > 6 * 3 * unit
    seeds = inside & (around(inside, 1) > 2.5)
    for _ in range(2):
        seeds = seeds | (border & (around(seeds | empty, 1) > 0))
    return inside | seeds


def of_any_scale(S: Floats, power: Floats, filled: Where, sigma: float, levels: Levels) -> tuple[Where, Where]:
    """Return the dark voxels of one plane, and those among dark, rough and like images."""
    dark = filled & (power < 0.35**2 * levels.bright)
    count, known = around(dark, 1), around(filled, 1)
    use = (count >= 4) & (known - count < 4)
    one, other = np.zeros(power.shape), np.zeros(power.shape)
    for i, j in zip(*np.nonzero(use)):
        values = S[(slice(None), *near(power.shape, i, j, 1))][:, dark[near(power.shape, i, j, 1)]]
        n, v = values.shape
        mean = values.mean()
        of_means = values.mean(1).var(ddof=1)
        between = n * values.mean(0).var(ddof=1)
        in_images = values.var(axis=1, ddof=1).mean()
        rest = values - values.mean(1, keepdims=True) - values.mean(0) + mean
        chance = (rest**2).sum() / ((n - 1) * (v - 1))
        alike = special.fdtri(v - 1, (n - 1) * (v - 1), 0.999)
        level = power[near(power.shape, i, j, 1)][dark[near(power.shape, i, j, 1)]].mean()
        for variance, most, to in ((in_images, np.inf, one), (chance, alike, other)):
            noise = between < most * variance and v * of_means < 4 * variance
            if noise and variance > 0.2**2 * mean**2 and (np.isnan(sigma) or variance < (6 * sigma) ** 2):
                to[i, j] = level
    limit = special.chdtri(N, 1e-4) / N
    faint = dark & (power < levels.edge)
    air = (faint & (power < limit * around(one, 1, np.max))) | (dark & (power < limit * around(other, 1, np.max)))
    return dark, air


def expected(S: Floats, sigma: float, *, signed: bool = False, usable: Where | None = None) -> Where:
    """Return the background of one plane by the definition."""
    usable = np.ones(S.shape[1:], bool) if usable is None else usable
    power = np.where(usable, (S**2).mean(0), 0.0)
    filled, empty = power > 0, usable & (power == 0)
    levels = Levels(power[filled])
    mean_zero = signed or (S[:, filled] < 0).sum() > 0.005 * N * filled.sum()
    channels = 1 if mean_zero else 2
    freedom = N * channels
    air = np.zeros(power.shape, bool)
    if np.isfinite(sigma):
        air = like_noise(power, filled, empty, channels * sigma**2, freedom)
    dark, apart = of_any_scale(S, power, filled, sigma, levels)
    if apart.sum() >= 50:
        own = np.median(power[apart])
        apart = apart | (dark & like_noise(power, filled, empty, own, freedom))
    if (apart & ~air).any():
        labels, _ = ndimage.label(apart | empty, np.ones((3, 3)))
        apart = (np.bincount(labels.reshape(-1))[labels] >= 50) & (labels > 0)
        air |= apart
    return air & filled


def scene(seed: int, snr: float, *, air: float = 1.0, signed: bool = False, zeros: float = 0.0) -> Floats:
    """Return images (4, 30, 28) of an object of 1, a faint part and a dark line in noise; air has any scale."""
    rng, shape = np.random.default_rng(seed), (30, 28)
    clean = np.zeros((N, *shape))
    clean[:, 8:22, 7:20] = np.array([1.0, 0.8, 0.6, 0.5])[:, None, None]
    clean[:, 12:15, 9:16] *= 0.25
    clean[:, 18] = 0
    e = rng.normal(0, 1 / snr, (2, N, *shape)) * np.where(clean.any(0), 1.0, air)
    S = clean + e[0] if signed else np.hypot(clean + e[0], e[1])
    S[:, rng.random(shape) < zeros] = 0
    return S


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("snr", "sigma", "options"),
    [
        (12.0, 1 / 12, {}),
        (5.0, 1 / 5, {}),
        (12.0, 1 / 12, {"signed": True}),
        (12.0, 1 / 12, {"air": 0.5}),
        (20.0, 1 / 20, {"air": 2.5, "zeros": 0.1}),
        (12.0, np.nan, {}),
        (30.0, 0.1 / 30, {"zeros": 0.3}),
    ],
)
def test_air_is_what_the_definition_says(seed: int, snr: float, sigma: float, options: dict[str, Any]) -> None:
    S = scene(seed, snr, **options)
    usable = np.random.default_rng(seed + 9).random(S.shape[1:]) < 0.98
    signed = bool(options.get("signed", False))
    air = found(S, sigma, signed=signed, usable=usable)
    np.testing.assert_array_equal(air, expected(S, sigma, signed=signed, usable=usable))
    assert 10 < air.sum() < air.size - 100


def flat(power: Floats) -> Floats:
    """Return magnitudes that are alike in all images, with this power."""
    return np.repeat(np.sqrt(power)[None], N, axis=0)


@pytest.mark.parametrize(("factor", "is_air"), [(1.0, True), (0.97, False)])
def test_a_dark_hole_in_a_bright_object_is_air(factor: float, is_air: bool) -> None:
    """The eight voxels around it have ten times the power of noise."""
    power = np.full((15, 15), 900.0)
    power[:4] = 0.5  # air
    power[9:12, 9:12] = factor * 20.1
    power[10, 10] = 4.0
    assert found(flat(power), 1.0)[10, 10] == is_air


def test_air_of_filtered_images_is_air() -> None:
    """The powers of neighbours are correlated: more sums of air are large by chance."""
    S = np.hypot(*ndimage.gaussian_filter(np.random.default_rng(8).normal(0, 1, (2, N, 40, 30)), (0, 0, 0.8, 0.8)))
    sigma = float(np.sqrt((S**2).mean() / 2))
    S[:, 20:] += 50
    np.testing.assert_array_equal(found(S, sigma), expected(S, sigma))
    assert found(S, sigma)[:19].mean() > 0.99


@pytest.mark.parametrize(("level", "is_air"), [(0.99, True), (1.01, False)])
def test_a_single_voxel_of_air_may_be_bright(level: float, is_air: bool) -> None:
    power = np.full((40, 20), 1.0)
    power[20:] = 900.0
    power[10, 10] = level * 2 * special.chdtri(8, 1e-4) / 8
    assert found(flat(power), 1.0)[10, 10] == is_air


def test_zeros_are_not_negative() -> None:
    """One negative value and many zeros in an image of air: noise still has two channels."""
    S, sigma = scene(7, 12.0), 1.3 / 12
    some = S.copy()
    some[0, :4, ::2] = 0
    some[0, 0, 1] *= -1
    np.testing.assert_array_equal(found(some, sigma), expected(some, sigma))


def test_sigma_may_be_a_map_and_is_unknown_in_places() -> None:
    S = scene(4, 12.0)
    gain = np.linspace(1, 3, 28)
    plain = found(S, 1 / 12)
    scaled = found(S * gain, gain / 12 * np.ones((30, 1)))
    assert (scaled == plain).mean() > 0.97
    sigma = np.full(S.shape[1:], 1 / 12)
    sigma[:5] = np.nan
    partly = found(S, sigma)
    assert partly[8:].sum() > 0 and (partly == plain)[8:].mean() > 0.99


def test_negative_values_of_magnitudes_say_that_noise_has_mean_zero() -> None:
    """More than half a per cent of all values: air of this σ then has half of the power."""
    S, sigma, air = scene(7, 12.0), 1.3 / 12, {}
    for number in (16, 17):  # of 4 × 840
        some = S.copy()
        some[0, :5].reshape(-1)[: 8 * number : 8] *= -1
        air[number] = found(some, sigma)
        np.testing.assert_array_equal(air[number], expected(some, sigma))
    assert (air[16] != air[17]).any()


def test_a_scan_of_tissue_alone_has_no_air() -> None:
    S = scene(5, 30.0)[:, 8:22, 7:20]
    assert not found(np.maximum(S, 0.45), 1 / 30).any()
    assert not found(np.zeros((N, 12, 12)) + 1.0, 1.0, usable=np.zeros((12, 12), bool)).any()


def test_levels_of_a_whole_decide_in_a_slab() -> None:
    S = scene(6, 12.0, air=3.0)
    whole = Levels(np.full(100, 900.0))
    assert found(S, np.nan, levels=whole).sum() > found(S, np.nan).sum()


def test_levels_of_an_object() -> None:
    power = np.concatenate([np.full(600, 1.0), np.full(300, 100.0), np.full(100, 120.0), np.zeros(50)])
    levels = Levels(power)
    assert levels.bright == pytest.approx(100) and 1 < levels.edge < 100
    for unit in (1e-4, 50.0):
        of_unit = Levels(unit * power)
        assert (of_unit.bright / levels.bright, of_unit.edge / levels.edge) == pytest.approx((unit, unit), rel=0.02)
    assert Levels(np.zeros(4)).bright == 0 and Levels(np.zeros(0)).edge == 0
    assert Levels(np.array([26.0, 24.0, 100.0])).bright == pytest.approx(np.median([26.0, 100.0]))


@pytest.mark.parametrize("unit", [1e-3, 1e3])
@pytest.mark.parametrize("sigma", [1 / 12, np.nan])
def test_the_unit_of_the_images_does_not_matter(unit: float, sigma: float) -> None:
    for options in ({}, {"air": 2.5}, {"signed": True}):
        S, signed = scene(3, 12.0, **options), "signed" in options
        np.testing.assert_array_equal(
            found(unit * S, unit * sigma, signed=signed), found(S, sigma, signed=signed), err_msg=str(options)
        )


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_air_around_an_object_that_is_little_brighter_is_air(unit: float) -> None:
    """Six times the power of noise: no voxel is much darker than the object, and σ shows what is air."""
    power = np.full((20, 20), 12.0)
    power[:, :8] = 2.0
    air = found(flat(unit**2 * power), unit)
    assert air[:, :7].all() and not air[:, 9:].any()


@pytest.mark.parametrize("unit", [1.0, 30.0])
@pytest.mark.parametrize(("peak", "is_air"), [(5.65, True), (5.75, False)])
def test_air_has_no_single_value_above_5_7_sigma(peak: float, is_air: bool, unit: float) -> None:
    """Of eight images, one with such a value has no more power than noise has in one voxel of a thousand."""
    S = np.full((8, 30, 20), np.sqrt(2.0))
    S[:, 20:] = 30.0
    S[:, 8, 8] = 0.1
    S[3, 8, 8] = peak
    assert found(unit * S, unit)[8, 8] == is_air


@pytest.mark.parametrize(("level", "is_air"), [(2.6, True), (2.9, False)])
@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_a_voxel_amid_zeros_is_its_whole_neighbourhood(level: float, is_air: bool, scale: float) -> None:
    """The power of one voxel of noise, of eight values, is below 1 + 3.5/2 of its mean."""
    power = np.zeros((20, 20))
    power[:5] = 900.0
    power[12, 12] = 2 * level
    assert found(scale * flat(power), scale)[12, 12] == is_air


@pytest.mark.parametrize(("spot", "is_air"), [(9.5, False), (9.8, True)])
@pytest.mark.parametrize("unit", [1.0, 5.0])
def test_what_is_a_little_brighter_than_air_all_around_is_a_weak_tissue(spot: float, is_air: bool, unit: float) -> None:
    """1.45 times the power of noise is chance in nine voxels, but not in 25, unless nine voxels near them have three
    times the power of noise.
    """
    power = 2 * 1.45 * (1 + 0.004 * (-1.0) ** np.indices((21, 21)).sum(0))  # neighbours are not alike
    power[9:12, 12:15] = 2 * 2.6
    power[10, 13] = 2 * spot
    air = found(unit * flat(power), unit)
    assert air[10, 10] == is_air and not air[10, 3]


@pytest.mark.parametrize("unit", [1.0, 5.0])
@pytest.mark.parametrize(
    ("dark", "bright", "is_air"), [(1.70, 6.0, True), (1.74, 6.0, False), (1.70, 3.05, True), (1.70, 2.95, False)]
)
def test_a_dark_line_of_three_voxels_is_air(dark: float, bright: float, is_air: bool, unit: float) -> None:
    """Below 1 + 2.5 √(2/24) of the power of noise, between voxels of three times the power of noise."""
    power = np.full((17, 17), 2.0 * bright)
    power[:4] = 2.0
    power[10, 7:10] = 2.0 * dark
    assert found(unit * flat(power), unit)[10, 8] == is_air


@pytest.mark.parametrize("width", [0.0, 0.7, 1.0, 1.4, 4.0])
def test_sums_of_correlated_noise_scatter_more(width: float) -> None:
    """In a plane, and in volumes that repeat it, whichever axis is stored first."""
    S = np.hypot(*ndimage.gaussian_filter(np.random.default_rng(8).normal(0, 1, (2, N, 40, 30)), (0, 0, width, width)))
    S[:, 30:] *= 9
    air = np.indices((40, 30))[0] < 28
    expected_factor = wider((S**2).mean(0), air)
    assert (expected_factor > 1.2) == (width >= 1) and expected_factor <= 2.5
    volume = np.repeat(S[..., None], 9, axis=-1)
    backwards = np.ascontiguousarray(volume.transpose(0, 3, 2, 1)).transpose(0, 3, 2, 1)
    for images in (S, volume, backwards):
        census = Census.of(images, 1)
        planes = Planes.of(census.voxels)
        assert planes is not None
        where = np.broadcast_to(air.reshape(air.shape + (1,) * (images.ndim - 3)), images.shape[1:])
        factor = module._wider(planes, census.mean_square.reshape(planes.shape), planes.of_map(where))
        assert factor == pytest.approx(expected_factor, rel=1e-6)
    flat_air = np.ones(planes.shape)
    assert module._wider(planes, flat_air, planes.of_map(where)) == 1.0


def test_air_of_many_coils_around_an_object_is_air() -> None:
    """Without a scale of σ: the root of squares of 16 coils. Signed images have no such air."""
    rng = np.random.default_rng(3)
    x, y = np.indices((40, 40)) - 19.5
    thing = np.hypot(x, y) < 13
    signal = np.where(thing, 40.0 * np.array([1.0, 0.8, 0.6])[:, None, None], 0.0)
    for unit in (1.0, 20.0):
        e = rng.normal(0, 1, (2, 16, 3, 40, 40))
        S = unit * np.sqrt(((signal / 4 + e[0]) ** 2 + e[1] ** 2).sum(0))
        air = found(S, unit)
        assert air[np.hypot(x, y) > 15].mean() > 0.97 and not air[thing].any()
        listed_air = found(S, np.nan)
        assert listed_air[np.hypot(x, y) > 15].mean() > 0.97 and not listed_air[thing].any()


# A list of voxels, which have no neighbours.


def listed(dark: int, bright: int, between: int = 0) -> Floats:
    """Return a list with voxels in the middle of air, of an object, and a little above air (σ = 1)."""
    middle, limit = 2 * MEDIAN_OF_CHI2, 2 * special.chdtri(8, 0.01) / 8
    return flat(
        np.concatenate([np.full(dark, 0.99 * middle), np.full(between, 1.5 * limit), np.full(bright, 400.0), [0.0]])
    )


@pytest.mark.parametrize(
    ("dark", "bright", "found_any"), [(3, 20, False), (4, 20, True), (4, 796, True), (4, 797, False)]
)
def test_air_in_a_list_is_many_dark_voxels(dark: int, bright: int, found_any: bool) -> None:
    """Twice those below the median of noise: eight of them, and one in a hundred."""
    for unit in (1.0, 3.0):
        air = found(unit * listed(dark, bright), unit)
        assert air[:dark].all() == found_any and not air[dark:].any()


@pytest.mark.parametrize(("between", "found_any"), [(2, True), (3, False)])
def test_what_is_little_brighter_than_air_in_a_list_is_faint_tissue(between: int, found_any: bool) -> None:
    """A tenth of twice ten voxels."""
    air = found(3 * listed(10, 100, between), 3.0)
    assert air[:10].all() == found_any and not air[10:].any()


def test_the_limits_of_a_list() -> None:
    limit, middle = 2 * special.chdtri(8, 0.01) / 8, 2 * MEDIAN_OF_CHI2
    power = np.concatenate([np.full(10, middle * 0.9), [limit * 0.999, limit * 1.001, limit * 1.999, limit * 2.001]])
    power = np.concatenate([power, np.full(50, 400.0)])
    assert found(flat(power), 1.0)[10:].tolist() == [True] + [False] * 53
    usable = np.ones(64, bool)
    usable[:7] = False
    assert not found(flat(power), 1.0, usable=usable).any()  # three are left
    assert not found(flat(power), np.nan).any()
    of_signed = found(flat(power / 2), 1.0, signed=True)
    assert of_signed[:10].all() and not of_signed[14:].any()
