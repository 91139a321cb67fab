"""Which voxels hold noise alone: air, whatever the noise model, also if a scanner has scaled it or set a part of it to zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, maximum_filter, uniform_filter

from rimap.estimators.checks.areas import areas
from rimap.estimators.sigma import chi2, dark_below

Floats = NDArray[Any]
Where = NDArray[np.bool_]

#: How many standard deviations the mean power of a neighbourhood of air may exceed its expectation.
_AROUND = 3.5
#: the same for three voxels in a row, as in bone that is one voxel wide,
_ALONG = 2.5
#: if the power of the others around them exceeds that of noise by this factor: a weak tissue is weak all around.
_BRIGHT_AROUND = 3.0
#: Noise that was added after the modulus has mean zero: more than this share of the values of a magnitude are then negative.
_NEGATIVE = 0.005
#: The power of a single voxel of air exceeds these quantiles seldom: inside air, and at its border with tissue.
_INSIDE, _BORDER = 0.9999, 0.99
#: So many voxels of air determine its scale.
_ENOUGH = 50
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
#: and so do its voxels: the chance that noise alone exceeds the ratio. The rim of an object is dark and rough, but each of its
#: voxels is bright or dark in all images. (So are ghosts and ringing in air, which are therefore told by the level of the object.)
_UNLIKELY = 1e-3
#: Nor does it scatter more than so many σ: scanners scale air, but not by an order of magnitude.
_MOST_SIGMA = 6.0


def background(
    images: Floats, sigma: Any, *, signed: bool, usable: Where, levels: tuple[float, float] | None = None
) -> Where:
    """Return the voxels (*X) whose values are noise in all images.

    Noise has the power σ² χ²(c N) / c N in each voxel, with c = 2 channels for magnitudes and 1 for signed images. The mean over
    the 3 × 3 voxels of a plane decides inside air, and the voxel's own power at the border of the object. Air whose scale is
    not σ (scaled by the scanner, or the root of squares of many coils) is much darker than the object, rough, and alike in all
    images. Voxels without neighbours, in a list of voxels, are not judged.

    Parameters
    ----------
    images
        (N, *X).
    sigma
        A number or a map (*X), NaN if it is unknown.
    signed
        Whether the noise has mean zero in air.
    usable
        (*X), finite in all images and selected.
    levels
        Of a slab: `levels_of` the whole.
    """
    shape = images.shape[1:]
    if len(shape) < 2 or min(shape[:2]) < 3:
        return np.zeros(shape, bool)
    power = np.zeros(shape)
    for image in images:
        power += np.square(np.where(usable, image, 0), dtype=float)
    power /= len(images)
    empty = usable & (power == 0)
    filled = usable & (power > 0)
    channels = 1 if signed or _has_mean_zero(images, filled) else 2
    freedom = len(images) * channels
    air = _like_noise_of(power, sigma, freedom, filled, empty, channels)
    dark, apart = _of_any_scale(images, power, filled, sigma, levels_of(power[filled]) if levels is None else levels)
    if apart.sum() >= _ENOUGH:  # the scale of the air itself, where that is not σ
        own = np.sqrt(float(np.median(power[apart])) / channels)
        apart = apart | (dark & _like_noise_of(power, own, freedom, filled, empty, channels))
    apart = areas(apart | empty, _ENOUGH)  # air is around an object, dark tissue lies scattered
    return np.asarray((air | apart) & filled)


def _like_noise_of(power: Floats, sigma: Any, freedom: int, filled: Where, empty: Where, channels: int) -> Where:
    """Return the voxels whose power is that of noise of σ, in a neighbourhood of such voxels."""
    with np.errstate(all="ignore"):
        a = np.nan_to_num(power / (channels * np.asarray(sigma, float) ** 2), nan=np.inf, posinf=np.inf)
    known = filled & np.isfinite(a)
    if not known.any():
        return np.zeros(known.shape, bool)
    count = _mean(known.astype(float))
    around = _mean(np.where(known, a, 0.0)) / np.maximum(count, 1e-9)
    spread = np.sqrt(2 / (freedom * np.maximum(9 * count, 1)))
    inside = known & (around < 1 + _AROUND * spread) & (a < chi2(_INSIDE, freedom) / freedom)
    inside &= ~_weak_all_around(a, known, freedom)
    border = known & (a < chi2(_BORDER, freedom) / freedom)
    inside |= border & _on_a_line(np.where(known, a, np.inf), 1 + _ALONG * np.sqrt(2 / (3 * freedom)))
    next_to = _plane_of(np.ones((3, 3), bool), a.ndim)
    seeds = inside & (9 * _mean(inside.astype(float)) > _ALONE)
    for _ in range(_STEPS):
        seeds = seeds | (border & binary_dilation(seeds | empty, next_to))
    inside |= seeds
    return np.asarray(inside, bool)


def _weak_all_around(a: Floats, known: Where, freedom: int) -> Where:
    """Return the voxels of a weak tissue: over 5 × 5 voxels there is more power than that of noise, and nowhere a bright object."""
    size = [5, 5, *[1] * (a.ndim - 2)]
    count = uniform_filter(known.astype(float), size, mode="constant")
    around = uniform_filter(np.where(known, a, 0.0), size, mode="constant") / np.maximum(count, 1e-9)
    brightest = maximum_filter(_mean(np.where(known, a, 0.0)), size)
    spread = np.sqrt(2 / (freedom * np.maximum(25 * count, 1)))
    return np.asarray((around > 1 + _AROUND * spread) & (brightest < _BRIGHT_AROUND))


def _has_mean_zero(images: Floats, filled: Where) -> bool:
    """Tell whether the noise was added after the modulus, as in the simulations of the paper."""
    values = images[:, filled]
    return bool(np.count_nonzero(values < 0) > _NEGATIVE * values.size)


def _on_a_line(a: Floats, limit: float) -> Where:
    """Return the voxels in the middle of three in a row, column or diagonal of the plane, whose mean is below a limit.

    The six others of the 3 × 3 voxels are bright.
    """
    padded = np.pad(a, [(1, 1), (1, 1), *[(0, 0)] * (a.ndim - 2)], constant_values=np.inf)
    X, Y = a.shape[:2]

    def at(i: int, j: int) -> Floats:
        return padded[1 + i : 1 + i + X, 1 + j : 1 + j + Y]

    ends = [at(i, j) + at(-i, -j) for i, j in ((0, 1), (1, 0), (1, 1), (1, -1))]
    three = np.minimum.reduce(ends) + a
    finite = np.where(np.isfinite(a), a, 0.0)
    others = (9 * _mean(finite) - np.where(np.isfinite(three), three, 0.0)) / 6
    return np.asarray((three < 3 * limit) & (others > _BRIGHT_AROUND))


def levels_of(power: Floats) -> tuple[float, float]:
    """Return the power of the object from that of voxels (V), the median of those above a quarter of the brightest, and that above
    which voxels belong to it.
    """
    power = power[power > 0]
    if not len(power):
        return 0.0, 0.0
    bright = float(np.median(power[power > 0.25 * np.percentile(power, 98)]))
    return bright, dark_below(np.sqrt(power)) ** 2


def _of_any_scale(
    images: Floats, power: Floats, filled: Where, sigma: Any, levels: tuple[float, float]
) -> tuple[Where, Where]:
    """Return the dark voxels, and those of neighbourhoods that are dark, rough, and alike in all images."""
    none = np.zeros(filled.shape, bool)
    if not filled.any():
        return none, none
    dark = filled & (power < _DARK**2 * levels[0])
    if not dark.any():
        return none, none
    N, weight = len(images), dark.astype(float)
    count = 9 * _mean(weight)
    enough = np.maximum(count, 1)
    means, within, of_voxels = np.zeros((N, *filled.shape)), np.zeros(filled.shape), np.zeros(filled.shape)
    for n, image in enumerate(images):
        values = np.where(dark, image, 0).astype(float)
        means[n] = 9 * _mean(values) / enough
        within += 9 * _mean(values**2) - count * means[n] ** 2
        of_voxels += values / N
    between = N * (9 * _mean(of_voxels**2) - count * means.mean(0) ** 2) / np.maximum(count - 1, 1)
    within_images = within / np.maximum(N * (count - 1), 1)
    chance = (within - between * (count - 1)) / np.maximum(
        (N - 1) * (count - 1), 1
    )  # neither of an image nor of a voxel
    faint = dark & (power < levels[1])
    most = np.nan_to_num(_MOST_SIGMA * np.asarray(sigma, float), nan=np.inf) ** 2
    found = none
    for variance, alike, some in (
        (within_images, np.inf, faint),
        (chance, _most_between(count, N) if N > 1 else none, dark),
    ):
        with np.errstate(all="ignore"):
            noise = (between < alike * variance) & (count * means.var(0, ddof=1) < _ALIKE * variance) if N > 1 else none
            noise = noise & (variance > _ROUGH**2 * np.square(means.mean(0))) & (variance < most)
        noise &= (count >= 4) & (9 * _mean(filled.astype(float)) - count < 4)
        level = np.where(noise, 9 * _mean(np.where(dark, power, 0.0)) / enough, 0.0)
        size = [3, 3, *[1] * (filled.ndim - 2)]
        found = found | (some & (power < chi2(_INSIDE, N) / N * maximum_filter(level, size)))
    return dark, np.asarray(found)


def _most_between(count: Floats, N: int) -> Floats:
    """Return by how much the variance between `count` voxels of noise (of their means over N images) seldom exceeds chance."""
    from scipy.special import fdtri  # the quantile of F

    freedom = np.arange(1, 9)
    limits = fdtri(freedom, (N - 1) * freedom, 1 - _UNLIKELY)
    return np.asarray(limits[np.clip(np.rint(count).astype(int) - 2, 0, 7)])


def _mean(x: Floats) -> Floats:
    """Return the mean over 3 × 3 voxels of the plane; beyond the edge there is nothing."""
    return np.asarray(uniform_filter(x, [3, 3, *[1] * (x.ndim - 2)], mode="constant"))


def _plane_of(square: Where, ndim: int) -> Where:
    return square.reshape(*square.shape, *[1] * (ndim - 2))
