"""How bright the images of a series are: an image of one value, or brighter than the others allow, is named."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import unreliable
from rimap.signals import SignalModel
from rimap.signals.settings import with_unit

#: Images of fewer voxels may be of one value.
_FEWEST_VOXELS = 20
#: Values beyond this are not those of a scanner: products of them overflow 32-bit floating-point numbers.
_LARGEST = 1e30
#: An image that is less bright than the brightest by this factor contains nothing that can be distinguished from zero.
_FAINTEST = 1e-9
#: Noise, motion and gains make an image this much brighter than the model allows.
_MARGIN = 2.0
#: A few voxels rule a mean of which the largest value is so many times: it says nothing about the image.
_RULED = 300.0


@dataclass(frozen=True)
class Level:
    """What is known of the values of one image, or of some planes of it.

    Parameters
    ----------
    lowest, highest
        Of its finite values; not finite if it has none.
    total
        Sum of the magnitudes of its finite values.
    n_voxels
        How many finite values it has.
    checksum
        Of all of its values.
    """

    lowest: float = np.inf
    highest: float = -np.inf
    total: float = 0.0
    n_voxels: int = 0
    checksum: int = 0

    def with_planes(self, values: NDArray[Any]) -> Level:
        """Return the level of the image with more of its planes: `values` (X, Y, n)."""
        finite = np.isfinite(values)
        n = int(np.count_nonzero(finite))
        usable = values if n == values.size else np.where(finite, values, 0)
        return Level(
            lowest=min(self.lowest, float(values.min(where=finite, initial=np.inf))),
            highest=max(self.highest, float(values.max(where=finite, initial=-np.inf))),
            total=self.total + float(np.abs(usable).sum(dtype=float)),
            n_voxels=self.n_voxels + n,
            checksum=zlib.crc32(np.ascontiguousarray(values).tobytes(), self.checksum),
        )

    @property
    def mean(self) -> float:
        """Mean of the magnitudes, NaN without any."""
        return self.total / self.n_voxels if self.n_voxels else np.nan

    @property
    def varies(self) -> bool:
        """Whether not all values are the same."""
        return self.lowest < self.highest

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.lowest), abs(self.highest))


def levels_of(images: NDArray[Any]) -> list[Level]:
    """Return the level of each image of a series (N, *X)."""
    return [Level().with_planes(image) for image in images]


def copies(levels: Sequence[Level], model: SignalModel) -> list[str]:
    """Return what the user should know of images that have the same values: one is a copy of the other.

    Images that are the same everywhere may be alike.
    """
    seen: dict[object, int] = {}
    notes: list[str] = []
    for index, level in enumerate(levels):
        if level.n_voxels < _FEWEST_VOXELS or not level.varies:
            continue
        first = seen.setdefault((level.checksum, level.lowest, level.highest, level.total), index)
        if first == index:
            continue
        if model.times[first] == model.times[index]:
            notes.append(
                f"images {first + 1} and {index + 1} ({_time(index, model)} each) have the same values: one is a copy "
                "of the other, not a repeat. Both are used, so that σ and the standard deviations are too small: "
                "leave one out"
            )
        else:
            notes.append(
                unreliable(
                    f"images {first + 1} ({_time(first, model)}) and {index + 1} ({_time(index, model)}) have the same "
                    "values: one is a copy of the other. Do not rely on the maps before you have copied or converted "
                    "them again, or left one out"
                )
            )
    return notes


def odd_levels(levels: Sequence[Level], model: SignalModel) -> list[str]:
    """Return what is odd about the brightness of the images of a series, for the user.

    Parameters
    ----------
    levels
        Of each image.
    model
        Its signal model: it says how much brighter than the others an image can be.
    """
    if any(level.n_voxels < _FEWEST_VOXELS for level in levels) or len(levels) < 2:
        return []
    return [
        *copies(levels, model),
        *_of_one_value(levels, model),
        *_of_another_scale(levels, model),
        *_too_large(levels),
    ]


def _of_one_value(levels: Sequence[Level], model: SignalModel) -> list[str]:
    flat = [k for k, level in enumerate(levels) if level.lowest == level.highest != 0]
    if len(flat) == len(levels):  # a phantom of one tissue, without noise
        return []
    return [
        unreliable(
            f"{_name(k, model)} has the same value in all voxels, {levels[k].highest:g}, so it is not an image. Do not "
            "rely on the maps: leave it out, with its time, or export it again"
        )
        for k in flat
    ]


def _of_another_scale(levels: Sequence[Level], model: SignalModel) -> list[str]:
    means = np.array([level.mean for level in levels])
    total, found = float(means.sum()), []
    if not np.isfinite(total) or total <= 0 or len(model.amplitudes) != 1:
        return []
    if any(level.largest > _RULED * level.mean for level in levels):
        return []
    allowed = largest_ratios(model)
    for index, mean in enumerate(means):
        others = float(np.delete(means, index).sum())  # not the total less one: it may be smaller by 38 orders
        if mean > _MARGIN * allowed[index] * others:
            ratio = f"{mean / others * (len(means) - 1):.3g}" if others > 0 else "infinitely many"
            found.append(
                f"{_name(index, model)} is {ratio} times as bright as the mean of the others, more than any tissue "
                "allows: its scale (scl_slope, RescaleSlope) or its unit differs"
            )
    for index, mean in enumerate(means if not found else ()):
        if 0 < mean < _FAINTEST * means.max() and _should_be_bright(index, model):
            found.append(
                f"{_name(index, model)} is {means.max() / mean:.3g} times less bright than the brightest: its scale "
                "(scl_slope, RescaleSlope) or its unit differs"
            )
    return [
        unreliable(f"{text}. Do not rely on the maps until you have exported the images in one scale") for text in found
    ]


def _too_large(levels: Sequence[Level]) -> list[str]:
    largest = max(level.largest for level in levels)
    if not largest > _LARGEST:
        return []
    return [
        f"the images hold values up to {largest:.3g}: check their scale (scl_slope). Times do not depend on it, "
        "amplitudes do"
    ]


def _time(k: int, model: SignalModel) -> str:
    return with_unit(float(model.times[k]), model.axis.unit)


def _name(k: int, model: SignalModel) -> str:
    return f"image {k + 1} ({_time(k, model)})"


def _should_be_bright(k: int, model: SignalModel) -> bool:
    """Return whether some tissue is bright in every other image and not faint in this one (e.g. the longest TI)."""
    shape = _shapes(model)
    return bool((np.abs(shape[k]) > 1e-3 * np.abs(shape).max(axis=0)).all())


def largest_ratios(model: SignalModel) -> NDArray[np.float64]:
    r"""Return (N) how bright an image can be relative to the sum of the others, for any mixture of tissues.

    With :math:`S_n = \sum_v A_v |g_n(T_v, F_v)|`, and :math:`r_n` the largest :math:`|g_n| / \max_{m \ne n} |g_m|` of
    any tissue, :math:`S_n \le r_n \sum_{m \ne n} S_m`.
    """
    shape = np.abs(_shapes(model))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([np.nanmax(shape[n] / np.delete(shape, n, axis=0).max(axis=0)) for n in range(len(shape))])


def _shapes(model: SignalModel) -> NDArray[np.float64]:
    """Return the signal of an amplitude of one (N, M) for tissues all over the range of the parameters."""
    axes: Iterable[NDArray[np.float64]] = (
        np.geomspace(*parameter.bounds, 64) if parameter is model.time else np.linspace(*parameter.bounds, 5)
        for parameter in model.nonlinear
    )
    grid = np.meshgrid(*axes, indexing="ij")
    values = {p.name: g.ravel() for p, g in zip(model.nonlinear, grid)}
    return np.asarray(model.shape(**values), dtype=float)
