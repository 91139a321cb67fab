"""Which voxels hold noise alone: air, whatever the noise model, also if a scanner has scaled it or set a part of it to
zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array
from rimap.estimators.checks.air_of_coils import air_of_coils
from rimap.estimators.checks.connected_areas import areas
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.neighbour_planes import Planes
from rimap.estimators.quantiles import f_quantile
from rimap.estimators.sigma import chi2, dark_below, quantile

Floats = NDArray[Any]
Where = NDArray[np.bool_]

#: How many standard deviations the mean power of a neighbourhood of air may exceed its expectation.
_AROUND = 3.5
#: the same for three voxels in a row, as in bone that is one voxel wide,
_ALONG = 2.5
#: if the power of the others around them exceeds that of noise by this factor: a weak tissue is weak all around.
_BRIGHT_AROUND = 3.0
#: A single dark voxel has noise alone if the eight around it have this many times the power of noise.
_BRIGHT_ALL_AROUND = 10.0
#: Filters, and interpolation by more than two, correlate the power of neighbours in air, and sums over neighbours vary
#: more. This counts if the correlation of adjacent voxels exceeds the first number, and that of voxels two apart the
#: second.
#: (With lower limits, tissue at the noise level would be lost.) The factor is at most the third.
_CORRELATED, _TWO_APART, _WIDEST = 0.45, 0.1, 2.5
_ROUNDS = 2
#: Planes of a volume that determine this correlation, and pairs of neighbours in air at least.
_SOME_PLANES, _PAIRS = 4, 200
#: Noise that was added after the modulus has mean zero: more than this share of the values of a magnitude are then
#: negative.
_NEGATIVE = 0.005
#: The power of a single voxel of air exceeds these quantiles seldom: inside air, and at its border with tissue.
_INSIDE, _BORDER = 0.9999, 0.99
#: No single value of air exceeds so many σ: the chance of a magnitude is 10⁻⁷.
_PEAK = 5.7
#: A list of voxels has air if so many are as dark as noise: a number, and a share.
_FEWEST_ALONE, _SHARE_ALONE = 8, 0.01
#: and few, relative to those, are little brighter.
_BETWEEN = 0.1
#: So many voxels of air determine its scale.
_ENOUGH = 50
#: Number of the 3 × 3 voxels that determine a level; fewer brighter voxels do not matter.
_FEWEST = 4
#: Air is extended from where more than so many of 3 × 3 voxels are air: a voxel of a weak tissue is like air by chance.
_ALONE = 2.5
#: How often air is extended to neighbours.
_STEPS = 2
#: Air of any scale: its root mean square is below this share of that of the object,
_DARK = 0.35
#: its values scatter by at least this part of their mean (Rayleigh: 0.52, the root of squares of many coils: less),
_ROUGH = 0.2
#: its images differ by no more than chance lets them: the quantile of the ratio of variances, for Gaussian values;
_ALIKE = 4.0
#: and so do its voxels: the chance that noise alone exceeds the ratio. The rim of an object is dark and rough, but each
#: of its voxels is bright or dark in all images. (So are ghosts and ringing in air, which are therefore recognised by
#: the level of the object.)
_UNLIKELY = 1e-3
#: Nor does it scatter more than so many σ: scanners scale air, but not by an order of magnitude.
_MOST_SIGMA = 6.0


@dataclass(frozen=True, eq=False)
class Levels:
    """What the power of an object is like, from that of voxels (V)."""

    power: Floats

    @cached_property
    def _positive(self) -> Floats:
        positive = self.power > 0
        return self.power if positive.all() else self.power[positive]

    @cached_property
    def bright(self) -> float:
        """The median of those above a quarter of the brightest."""
        power = self._positive
        return quantile(np.compress(power > 0.25 * quantile(power, 0.98), power), 0.5) if len(power) else 0.0

    @cached_property
    def edge(self) -> float:
        """Above it, voxels belong to the object."""
        power = self._positive
        return dark_below(np.sqrt(power)) ** 2 if len(power) else 0.0


def background(census: Census, sigma: Array, *, signed: bool, usable: Where, levels: Levels | None = None) -> Where:
    """Return the voxels (*X) whose values are noise in all images.

    Noise has the power σ² χ²(c N) / c N in each voxel, with c = 2 channels for magnitudes and 1 for signed images. The
    mean over the 3 × 3 voxels of a plane decides inside air, and the voxel's own power at the border of the object. Air
    whose scale is not σ (scaled by the scanner, or the root of squares of many coils) is much darker than the object,
    rough, and alike in all images. In a list, where voxels have no neighbours, the voxel's own power decides, if there
    are more dark ones than chance leaves of an object.

    Parameters
    ----------
    census
        Of the images.
    sigma
        A number or a map (*X), NaN if it is unknown.
    signed
        Whether the noise has mean zero in air.
    usable
        (*X), finite in all images and selected.
    levels
        Of a slab: those of the whole.
    """
    planes, N = Planes.of(census.voxels), len(census.voxels.images)
    if planes is None:
        return _alone(census, sigma, signed=signed, usable=usable)
    known = planes.of_map(usable)
    power = np.where(known, census.mean_square.reshape(planes.shape), 0.0)
    if levels is None:
        levels = Levels(power[power > 0])
    channels = 1 if signed or _has_mean_zero(census, planes, power > 0) else 2
    freedom = N * channels
    sigma = planes.of_map(np.asarray(sigma, float)) if np.ndim(sigma) else float(sigma)
    below = np.fmax.reduce(channels * np.square(sigma) * chi2(_INSIDE, freedom) / freedom, axis=None)
    scene = _Scene(planes, power, filled=power > 0, empty=known & (power == 0))
    if not np.any((power > 0) & (power < np.fmax(1.001 * below, _DARK**2 * levels.bright))):
        return np.asarray(planes.as_map(_of_coils(scene, sigma, levels, channels)))  # or a scan of tissue alone
    # A tissue that decays fast has little power over all images, and yet a signal in one.
    with np.errstate(invalid="ignore"):
        signal = census.peak.reshape(planes.shape) > _PEAK * sigma
    air = _like_noise_of(scene, sigma, freedom, channels) & ~signal
    dark, apart = _of_any_scale(scene, sigma, levels)
    if apart.sum() >= _ENOUGH:  # the scale of the air itself, where that is not σ
        own = np.sqrt(quantile(power[apart], 0.5) / channels)
        apart = apart | (dark & _like_noise_of(scene, own, freedom, channels))
    if (apart & ~air).any():
        apart = areas((apart | scene.empty).reshape(census.voxels.X), _ENOUGH).reshape(planes.shape)
        air = air | apart  # air surrounds an object, dark tissue is scattered
    if np.count_nonzero(air) < _ENOUGH:
        air = air | _of_coils(scene, sigma, levels, channels)
    return np.asarray(planes.as_map(air & scene.filled))


def _alone(census: Census, sigma: Any, *, signed: bool, usable: Where) -> Where:
    """Return the voxels of a list whose power is that of noise of σ, if many have so little."""
    channels, N = 1 if signed else 2, len(census.voxels.images)
    freedom = N * channels
    power, unit = census.power, channels / freedom * np.square(np.asarray(sigma, float))  # NaN if σ is unknown
    filled = usable & (power > 0)
    noise = 2 * np.count_nonzero(filled & (power < chi2(0.5, freedom) * unit))
    if noise < max(_FEWEST_ALONE, _SHARE_ALONE * np.count_nonzero(filled)):
        return np.zeros(usable.shape, bool)
    limit = chi2(_BORDER, freedom) * unit
    between = np.count_nonzero(filled & (power >= limit) & (power < 2 * limit))
    if between > _BETWEEN * noise:  # faint tissue: nothing separates it from air
        return np.zeros(usable.shape, bool)
    return np.asarray(filled & (power < limit))


def _of_coils(scene: _Scene, sigma: Any, levels: Levels, channels: int) -> Where:
    """Return the voxels of air of the root of squares of many coils."""
    found = air_of_coils(scene.planes, scene.power, sigma, levels.bright)
    if found is None:
        return np.zeros(scene.power.shape, bool)
    air = found.dim & _like_noise_of(scene, np.sqrt(found.level / channels), found.freedom, channels)
    return areas((air | scene.empty).reshape(scene.planes.voxels.X), _ENOUGH).reshape(scene.power.shape) & air


@dataclass(frozen=True, eq=False)
class _Scene:
    """What the images show, as planes (P, R, C): the power, and which voxels have a value that is not, or that is, zero
    in all images.
    """

    planes: Planes
    power: Floats
    filled: Where
    empty: Where

    @cached_property
    def near(self) -> _Sums:
        """Over 3 × 3 voxels."""
        return _Sums.of(self, 1)

    @cached_property
    def far(self) -> _Sums:
        """Over 5 × 5 voxels."""
        return _Sums.of(self, 2)

    @cached_property
    def brightest(self) -> Floats:
        """The largest sum over 3 × 3 voxels of those around the 5 × 5 voxels."""
        return self.planes.maxima(self.near.power, half=2)

    @cached_property
    def bounded(self) -> Floats:
        """The power, infinite in voxels that are not filled."""
        return np.where(self.filled, self.power, np.inf)


@dataclass(frozen=True, eq=False)
class _Sums:
    """The power of the filled voxels around each one (P, R, C), and how many these are."""

    power: Floats
    count: NDArray[np.uint8]

    @classmethod
    def of(cls, scene: _Scene, half: int) -> _Sums:
        planes = scene.planes
        return cls(planes.sums(np.where(scene.filled, scene.power, 0.0), half), planes.count(scene.filled, half))


def _like_noise_of(scene: _Scene, sigma: Any, freedom: int, channels: int) -> Where:
    """Return the voxels whose power is that of noise of σ, in a neighbourhood of such voxels."""
    planes, unit = scene.planes, channels * np.square(sigma)
    if np.ndim(unit):
        with np.errstate(all="ignore"):
            a = np.asarray(scene.power / unit)
        scene, unit = _Scene(planes, a, scene.filled & np.isfinite(a), scene.empty), 1.0
    if not (scene.filled.any() and np.isfinite(unit)):
        return np.zeros(scene.filled.shape, bool)
    power, known, near, far = scene.power, scene.filled, scene.near, scene.far
    number = np.arange(26)  # of known voxels among 3 × 3 or 5 × 5
    highest = unit * chi2(_INSIDE, freedom) / freedom

    def in_air(wider: float) -> tuple[Where, Floats]:
        """Return the voxels inside air, and the largest sums of noise over `number` voxels."""
        limits = unit * number * (1 + _AROUND * wider * np.sqrt(2 / (freedom * np.maximum(number, 1))))
        return known & (power < highest) & (near.power < np.take(limits, near.count)), limits

    inside, limits = in_air(1.0)
    for _ in range(_ROUNDS):  # what was found before has lost the largest sums
        wider = _wider(planes, power, inside)
        if wider == 1:
            break
        inside, limits = in_air(wider)
    # A weak tissue: over 5 × 5 voxels there is more power than that of noise, and nowhere a bright object.
    weak = far.power > np.take(limits, far.count)
    inside &= ~(weak & (scene.brightest < unit * 9 * _BRIGHT_AROUND))
    border = known & (power < unit * chi2(_BORDER, freedom) / freedom)
    limit = unit * (1 + _ALONG * np.sqrt(2 / (3 * freedom)))
    inside |= border & (near.power - power > 8 * _BRIGHT_ALL_AROUND * unit)
    on_line = border & ~inside
    inside |= planes.on_a_line(scene.bounded, near.power, (limit, unit * _BRIGHT_AROUND), on_line)
    seeds = inside & (planes.count(inside) > _ALONE)
    for _ in range(_STEPS):
        seeds |= border & (planes.count(seeds | scene.empty) > 0)
    return np.asarray(inside | seeds, bool)


def _wider(planes: Planes, power: Floats, air: Where) -> float:
    """Return by which factor the mean power of 3 × 3 voxels of air varies more than that of independent noise.

    Noise of Gaussian correlation ρ has powers of correlation ρ². Along oblique directions it is the product.
    """
    some = slice(None, None, len(power) // _SOME_PLANES + 1)
    power, air, variance = power[some], air[some], 1.0
    values = power[air]
    if len(values) < _PAIRS:
        return 1.0
    middle, spread = float(values.mean()), float(values.var())
    for axis, step in ((1, 1), (2, planes.step)):
        along = 0.0
        for lag, pairs_of_three in ((1, 4 / 3), (2, 2 / 3)):
            before, after = ([slice(None)] * 3 for _ in range(2))
            before[axis], after[axis] = slice(None, -lag * step), slice(lag * step, None)
            both = air[tuple(before)] & air[tuple(after)]
            if np.count_nonzero(both) < _PAIRS or not spread > 0:
                break
            product = (power[tuple(before)][both] - middle) * (power[tuple(after)][both] - middle)
            correlation = float(product.mean()) / spread
            if correlation < (_CORRELATED if lag == 1 else _TWO_APART):
                break
            along += pairs_of_three * correlation
        variance *= 1 + along
    return float(min(np.sqrt(variance), _WIDEST))


def _has_mean_zero(census: Census, planes: Planes, filled: Where) -> bool:
    """Return whether the noise was added after the modulus, as in the simulations of the paper."""
    negative = [n for n in range(len(planes.images)) if census.smallest[n] < 0]
    number = sum(np.count_nonzero((planes.images[n] < 0) & filled) for n in negative)
    return bool(number > _NEGATIVE * len(planes.images) * np.count_nonzero(filled))


def _of_any_scale(scene: _Scene, sigma: Any, levels: Levels) -> tuple[Where, Where]:
    """Return the dark voxels, and those of neighbourhoods that are dark, rough, and alike in all images."""
    planes, power, N = scene.planes, scene.power, len(scene.planes.images)
    none = np.zeros(planes.shape, bool)
    dark = scene.filled & (power < _DARK**2 * levels.bright)
    many = planes.count(dark)
    at = np.flatnonzero((many >= _FEWEST) & (scene.near.count - many < _FEWEST))
    if N < 2 or not len(at):
        return dark, none
    found = planes.images_around(dark, many, _FEWEST).reshape(4, -1)[:, at]
    mean, of_means, within, of_voxels = found
    count = many.reshape(-1)[at].astype(float)
    between = N * (of_voxels - count * mean**2) / (count - 1)
    within_images = within / (N * (count - 1))
    chance = (within - between * (count - 1)) / ((N - 1) * (count - 1))  # neither of an image nor of a voxel
    faint = dark & (power < levels.edge)
    most = np.nan_to_num(_MOST_SIGMA * (sigma.reshape(-1)[at] if np.ndim(sigma) else np.asarray(sigma)), nan=np.inf)
    level = planes.sums(np.where(dark, power, 0.0)).reshape(-1)[at] / count
    air = none
    for variance, alike, some in ((within_images, np.inf, faint), (chance, _most_between(count, N), dark)):
        with np.errstate(invalid="ignore"):  # ∞ times 0
            noise = (between < alike * variance) & (count * of_means < _ALIKE * variance)
        noise &= (variance > _ROUGH**2 * mean**2) & (variance < most**2)
        around = np.zeros(planes.shape)
        around.reshape(-1)[at] = np.where(noise, level, 0.0)
        air = air | (some & (power < chi2(_INSIDE, N) / N * planes.maxima(around)))
    return dark, np.asarray(air)


def _most_between(count: Floats, N: int) -> Floats:
    """Return by how much the variance between `count` voxels of noise (of their means over N images) seldom exceeds
    chance.
    """
    limits = np.array([f_quantile(1 - _UNLIKELY, freedom, (N - 1) * freedom) for freedom in range(1, 9)])
    return np.asarray(limits[np.clip(np.rint(count).astype(int) - 2, 0, 7)])
