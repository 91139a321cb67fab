"""Values that were never measured: zeros where an image does not reach, areas of one value, clipped values, wrapped
whole numbers, values far beyond those of the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.advice import Advice, Weight, listed
from rimap.arrays import Array, stride
from rimap.estimators.checks.clipping import MANY, PILE, Clipping
from rimap.estimators.checks.connected_areas import areas
from rimap.estimators.checks.extreme_values import FAR, extreme_above
from rimap.estimators.checks.filled_areas import FEWEST, Fills, filled, fills_of
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.sigma import dark_below, quantile
from rimap.series import WeightedSeries
from rimap.signals.base import SignalModel

Where = NDArray[np.bool_]
Power = NDArray[np.float64]
#: Yields the images (N, *X) of each part of a series, and their root mean square (*X).
Parts = Callable[[], Iterable[tuple[NDArray[Any], Power]]]

#: A zero is no measurement if voxels around it have at least this share of their root mean square in that image; the
#: voxels next to it at least the second share, for a signal that crosses zero has small values around its zeros.
_EXPECTED, _NEXT = 0.15, 0.05
#: Zeros of coarse whole numbers are measurements: so many of their steps must be expected.
_STEPS = 16.0
#: Edges of the squares, in voxels, in which values are expected, from near to far; and how many voxels it takes.
_NEAR, _FEWEST = (5, 15, 45), 3
#: So many zeros that stand out from the next values were not measured, also where the signal is low.
_BELOW = 10
#: What an image does not reach is a line, a plane or an area: fewer zeros side by side are measurements near a null.
_AREA = 6
#: Among so many of the smallest values.
_SMALLEST = 10_000
#: A magnitude below minus this share of the object's is wrapped, if this share of the object's voxels at most have one.
_NEGATIVE, _FEW = 1.0, 0.02
#: and if it is so many times as far below zero as this share of the voxels.
_FAR_BELOW = 5.0
#: So many planes stand for a volume.
_PLANES = 24
#: Fewer voxels are not worth a warning: a number, and a share of the object.
_WORTH, _SHARE_WORTH = 5, 0.001


@dataclass(frozen=True, eq=False)
class Missing:
    """How many voxels of each image have a value that was not measured.

    Parameters
    ----------
    zero, clipped, negative, filled
        (N) numbers of voxels.
    voxels
        Number of voxels of the object.
    extreme, largest
        Number of voxels with a value far beyond those of the object, and the size of the largest one.
    doubtful
        (*X) voxels that keep their values although these are wrong: much of the object is clipped.
    """

    zero: NDArray[np.int64]
    clipped: NDArray[np.int64]
    negative: NDArray[np.int64]
    filled: NDArray[np.int64]
    voxels: int = 0
    extreme: int = 0
    largest: float = 0.0
    doubtful: Where | None = None

    @classmethod
    def none(cls, n_images: int) -> Missing:
        """Return that nothing is missing."""
        zero, clipped, negative, filled = (np.zeros(n_images, np.int64) for _ in range(4))
        return cls(zero, clipped, negative, filled)

    def __add__(self, other: Missing) -> Missing:
        """Return the sum over two parts of a series; what is doubtful is known of each part alone."""
        return Missing(
            self.zero + other.zero,
            self.clipped + other.clipped,
            self.negative + other.negative,
            self.filled + other.filled,
            self.voxels + other.voxels,
            self.extreme + other.extreme,
            max(self.largest, other.largest),
        )

    def advice(self, model: SignalModel) -> tuple[str, ...]:
        """Return what the user should know, in plain words."""
        kinds: tuple[tuple[NDArray[np.int64], Callable[[str], str]], ...] = (
            (
                self.zero,
                lambda n: (
                    f"zero in {n} voxels where the others have signal: no map is made there. Check the field of view "
                    f"and the mask of each image"
                ),
            ),
            (
                self.clipped,
                lambda n: (
                    f"clipped in {n} voxels, which all have the largest value of the image: do not rely on the maps "
                    f"there. Export the images with another scale"
                ),
            ),
            (
                self.negative,
                lambda n: (
                    f"far below zero in {n} voxels of a magnitude image: no map is made there. Whole numbers may "
                    f"have wrapped: export the images again"
                ),
            ),
            (
                self.filled,
                lambda n: (
                    f"filled with one value in {n} adjacent voxels, which is not a measurement: no map is made "
                    f"there. Check the field of view of each image, and whether a registration or padding filled it"
                ),
            ),
        )
        found = []
        if self.extreme:
            some = "1 voxel has a value of" if self.extreme == 1 else f"{self.extreme:,} voxels have values of up to"
            text = (
                f"{some} {self.largest:.2g}, more than {FAR:,.0f} times those of the object: no map is made "
                "there. A division by almost zero makes such values, for example at the edge of a mask."
            )
            many = self.extreme > MANY * max(self.voxels, 1)
            found.append(Advice(text, Weight.UNRELIABLE if many else Weight.CAUTION))
        for counts, what in kinds:
            worth = np.flatnonzero(counts >= max(_WORTH, _SHARE_WORTH * self.voxels))
            if worth.size:
                most = int(counts[worth].max())
                weight = Weight.UNRELIABLE if most > MANY * self.voxels else Weight.CAUTION
                number = f"{most:,}" if len(worth) == 1 else f"up to {most:,}"
                found.append(Advice(f"{_are(worth, model)} {what(number)}.", weight))
        return tuple(found)


def _are(images: NDArray[np.intp], model: SignalModel) -> str:
    """Return images by their indices, and the verb: the axis of a single one, and neighbours in short."""
    if len(images) == 1:
        return f"image {images[0] + 1} ({model.axis.text(model.times[images[0]])}) is"
    named: list[str] = []
    for run in np.split(images + 1, np.flatnonzero(np.diff(images) > 1) + 1):
        named += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    return f"images {listed(named)} are"


@dataclass(frozen=True)
class Whole:
    """What the whole of a series says about values that were not measured, so that each part of it is judged alike.

    Parameters
    ----------
    level
        The root mean square above which voxels belong to the object.
    clipping
        Where the images are clipped.
    zeros
        Of each image: the share of the root mean square that is expected, the smallest value, and whether zero stands
        out from small values.
    wrapped_below
        Of each image: no magnitude is below this value.
    fills
        Of each image: the values that fill areas of it.
    extreme_above
        The size above which values are far beyond those of the object.
    """

    level: float
    clipping: Clipping
    zeros: tuple[tuple[float, float, bool], ...]
    wrapped_below: tuple[float, ...]
    fills: Fills = ()
    extreme_above: float = np.inf

    @classmethod
    def of(cls, sample: WeightedSeries | None, parts: Callable[[], Iterable[WeightedSeries]]) -> Whole:
        """Return it from the planes that stand for the whole (`sample_of_planes`; `None` if nothing is there) and all
        parts.
        """
        if sample is None:
            return cls(0.0, Clipping(), (), ())
        every = np.ones(len(sample.images), bool)
        return cls._of(
            sample,
            _rms(sample),
            lambda: ((part.images, _rms(part)) for part in parts()),
            zeros=every, negative=every, alike=True,
        )  # fmt: skip

    @classmethod
    def _of(
        cls, sample: WeightedSeries, rms: Power, parts: Parts, *, zeros: Where, negative: Where, alike: bool
    ) -> Whole:
        """Return it from a sample, images and root mean squares of all parts, which images (N) may have zeros or
        wrapped values, and whether any may have areas of one value.
        """
        N, census = len(sample.images), Census.of(sample.images)

        def of_object(level: float) -> Callable[[], Iterable[tuple[NDArray[Any], Where]]]:
            return lambda: ((images, of_part > level) for images, of_part in parts())

        limit, level = _limits(census, rms)
        fills = fills_of(of_object(level), N) if alike else ()
        if fills:  # a bright area would be taken for the object
            there = ~np.logical_or.reduce([filled(image, values) for image, values in zip(sample.images, fills)])
            limit, level = _limits(census, np.where(there, rms, 0.0))
        rms = np.where(census.brightest > limit, 0.0, rms)
        thing = rms > level
        clipping = Clipping.of(of_object(level))
        return cls(
            level,
            clipping,
            tuple(
                _zeros_of(image, thing, rms) if some else (0.0, 0.0, False) for image, some in zip(sample.images, zeros)
            ),
            _lowest_magnitudes(sample, thing, rms, negative),
            tuple(tuple(value for value in values if value < top) for values, top in zip(fills, clipping.of_images(N))),
            limit,
        )


def _limits(census: Census, rms: Power) -> tuple[float, float]:
    """Return the size above which values are extreme, and the root mean square above which voxels belong to the
    object, from voxels with a root mean square (*X) that is not zero.
    """
    limit = extreme_above(census, rms > 0)
    usual = rms[(rms > 0) & (census.brightest <= limit)]
    return limit, dark_below(usual) if usual.size else 0.0


class Screened(NamedTuple):
    """A series with NaN for values that were not measured, how many there are, and the census of its images."""

    series: WeightedSeries
    missing: Missing
    census: Census


def screened(series: WeightedSeries, whole: Whole | None = None, *, threads: int | None = None) -> Screened:
    """Return the series with NaN for values that were not measured, and how many there are.

    Nothing is made of such voxels, and they have no say in a smooth field.

    Parameters
    ----------
    series
        The whole, or a slab.
    whole
        Of a slab: what the whole says.
    threads
        How many count the images; by default as many as there are processors.
    """
    images, N = series.images, len(series.images)
    census = Census.of(images, threads)
    negative = (census.smallest < -_NEGATIVE * 0.1 * abs(census.largest)) & (not series.model.is_signed)
    piled = census.at_largest >= PILE
    if whole is not None:
        piled |= census.largest >= whole.clipping.of_images(N)
    alike = bool(whole.fills) if whole is not None else bool((census.voxels.equal_neighbours() >= FEWEST).any())
    limit = whole.extreme_above if whole is not None else extreme_above(census, series.selected)
    extreme = max(census.largest.max(), -census.smallest.min()) > limit
    if not (alike or extreme or ((census.zeros_of > 0) | piled | negative).any()):  # as in most scans of tissue
        return Screened(series, Missing.none(N), census)
    rms = _rms(series, census)
    if not (rms > 0).any():
        return Screened(series, Missing.none(N), census)
    if whole is None:
        sample = _sampled(series)
        of_sample = rms if sample is series else rms[..., sample_of_planes(series.shape)]
        below = census.smallest < 0
        whole = Whole._of(
            sample, of_sample, lambda: ((images, rms),), zeros=census.zeros_of > 0, negative=below, alike=alike
        )
    far = census.brightest > whole.extreme_above
    rms = np.where(far, 0.0, rms)
    thing = np.asarray(rms > whole.level)
    none = np.zeros(thing.shape, bool)

    def where(some: NDArray[np.bool_], found: Callable[[int], Where]) -> list[Where]:
        return [found(n) if some[n] else none for n in range(N)]

    has_zeros = (census.zeros_of > 0) & bool(whole.zeros)
    lowest, levels = np.array(whole.wrapped_below or (-np.inf,) * N), whole.clipping.of_images(N)
    bad = {
        "zero": where(has_zeros, lambda n: _not_reached(images[n], thing, rms, *whole.zeros[n])),
        "clipped": where(census.largest >= levels, lambda n: thing & (images[n] >= levels[n])),
        "negative": where(census.smallest < lowest, lambda n: thing & (images[n] < lowest[n])),
        "filled": where(
            np.array([*map(bool, whole.fills)] or [False] * N), lambda n: filled(images[n], whole.fills[n])
        ),
    }
    counts = [np.array([np.count_nonzero(place) for place in places], np.int64) for places in bad.values()]
    found = Missing(counts[0], counts[1], counts[2], counts[3], int(thing.sum()))
    if far.any():
        bad["extreme"] = list(abs(images) > whole.extreme_above)
        size = census.brightest[far & series.selected]
        found = replace(found, extreme=size.size, largest=float(size.max(initial=0)))
    elif not any(count.any() for count in counts):
        return Screened(series, found, census)
    if whole.clipping.much:  # values are kept, with a quality flag and the warning that they are wrong
        found = replace(found, doubtful=np.logical_or.reduce(bad.pop("clipped")))
    cleaned = images.copy()
    for places in bad.values():
        for image, place in zip(cleaned, places):
            image[place] = np.nan
    if not np.isfinite(cleaned).all(0).any():  # nothing would be left: the checks of the fit say what is wrong
        return Screened(series, found, census)
    return Screened(replace(series, images=cleaned), found, Census.of(cleaned, threads))


def _sampled(series: WeightedSeries) -> WeightedSeries:
    """Return the planes that stand for the whole."""
    planes = sample_of_planes(series.shape)
    if isinstance(planes, slice) or len(planes) == series.shape[2]:
        return series
    mask = None if series.mask is None else series.mask[..., planes]
    images = series.images[..., planes]
    if not np.isfinite(images).all(0).any() or (mask is not None and not mask.any()):
        return series
    return replace(series, images=images, mask=mask, noise=None, given={}, affine=None)


def sample_of_planes(shape: tuple[int, ...]) -> Array:
    """Return which planes of the last of three axes stand for the whole; all of a slice or a list."""
    if len(shape) < 3:
        return slice(None)
    step = stride(shape[2], _PLANES)
    return np.arange(step // 2, shape[2], step)


def _rms(series: WeightedSeries, census: Census | None = None) -> Power:
    """Return the root mean square (*X) over the images that are not zero; 0 where a value is not finite, or outside the
    mask.
    """
    census = census or Census.of(series.images)
    usable = np.isfinite(census.mean_square) & census.voxels.flatten(series.selected)
    filled = np.maximum(len(series.images) - census.zeros.astype(np.int64), 1)
    return np.asarray(
        census.voxels.unflatten(np.sqrt(np.where(usable, census.mean_square, 0.0) * (len(series.images) / filled)))
    )


def _zeros_of(image: NDArray[Any], thing: Where, rms: NDArray[np.float64]) -> tuple[float, float, bool]:
    """Return an image's share of the root mean square, its smallest value, and whether zero stands out, over an
    object.
    """
    zero = thing & (image == 0)
    there = thing & ~zero
    if not there.any():
        return 0.0, 0.0, False
    size = abs(image[there]).astype(float)
    return float(size.mean() / rms[there].mean()), float(size.min()), _is_pile(int(zero.sum()), size)


def _not_reached(
    image: NDArray[Any], thing: Where, rms: NDArray[np.float64], usual: float, step: float, pile: bool
) -> Where:
    """Return the voxels of an object where an image is zero and should not be."""
    zero = thing & (image == 0)
    if not zero.any():
        return np.zeros(thing.shape, bool)
    if thing.ndim < 2:  # a list of voxels, which have no neighbours
        return np.asarray(zero & pile & (usual > _EXPECTED) & (usual * rms > _STEPS * step))
    expected, nearest = _around(zero, thing, image, rms, usual)
    strong = (expected > _EXPECTED) & (nearest > _EXPECTED)
    bright = strong & (np.minimum(expected, nearest) * rms[zero] > _STEPS * step)
    if pile:
        bright |= expected > _NEXT
    found = zero.copy()
    found[zero] = bright
    return areas(found, _AREA)


def _around(
    zero: Where, thing: Where, image: NDArray[Any], rms: NDArray[np.float64], usual: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the signal around each zero (V), over the root mean square: mean of a square, minimum of 3 × 3 voxels."""
    rows, columns, _ = shape = (*zero.shape, 1)[:3]
    row, column, plane = np.nonzero(zero.reshape(shape))
    used, plane = np.unique(plane, return_inverse=True)  # few planes have such zeros
    there = (thing & ~zero).reshape(shape)[..., used]
    size = np.where(there, abs(image.reshape(shape)[..., used]), 0).astype(float)
    of_rms = np.where(there, rms.reshape(shape)[..., used], 0.0)
    sums = [_summed(values) for values in (there, size, of_rms)]
    expected = np.full(len(row), usual)
    for edge in reversed(_NEAR):
        above, below = (np.clip(row + shift, 0, rows) for shift in (-(edge // 2), edge // 2 + 1))
        left, right = (np.clip(column + shift, 0, columns) for shift in (-(edge // 2), edge // 2 + 1))
        count, of_image, of_all = (
            total[below, right, plane]
            - total[above, right, plane]
            - total[below, left, plane]
            + total[above, left, plane]
            for total in sums
        )
        expected = np.where(count >= _FEWEST - 0.5, of_image / np.maximum(of_all, 1e-300), expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(there, size / of_rms, np.inf)
    near = [
        share[np.clip(row + down, 0, rows - 1), np.clip(column + across, 0, columns - 1), plane]
        for down in (-1, 0, 1)
        for across in (-1, 0, 1)
    ]
    return expected, np.min(near, axis=0)


def _summed(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sums (X + 1, Y + 1, Z) over all voxels before each place of the first two axes."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1, *values.shape[2:]))
    np.cumsum(np.cumsum(values, axis=0, dtype=float), axis=1, out=sums[1:, 1:])
    return sums


def _is_pile(zeros: int, others: NDArray[np.float64]) -> bool:
    """Return whether zero occurs often and no other small value twice: of continuous values, zero is then no
    measurement.
    """
    smallest = np.partition(others, min(_SMALLEST, len(others) - 1))[:_SMALLEST]
    counts = np.unique(smallest, return_counts=True)[1][:_BELOW]
    return bool(zeros >= PILE and counts.max() == 1)


def _lowest_magnitudes(series: WeightedSeries, thing: Where, rms: Power, some: Where) -> tuple[float, ...]:
    """Return, for each image, the value below which a magnitude has wrapped; −∞ if that would be so in more than a few
    voxels.

    Only `some` images (N) have negative values.
    """
    never = (-np.inf,) * len(series.images)
    if series.model.is_signed or not thing.any():
        return never
    size = _NEGATIVE * quantile(rms[thing], 0.5)
    # Where noise alone makes values negative (it was added after the modulus), they must also be far below most of
    # those.
    low = [quantile(image[thing], _FEW) if negative else 0.0 for image, negative in zip(series.images, some)]
    limits = tuple(-max(size, -_FAR_BELOW * q) for q in low)
    wrapped = np.zeros(thing.shape, bool)
    for n in np.flatnonzero(some):
        wrapped |= thing & (series.images[n] < limits[n])
    return limits if wrapped.sum() <= _FEW * thing.sum() else never
