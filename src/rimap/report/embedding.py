"""Encode maps and images for the viewer of the page: as whole numbers, compressed, within a size limit.

A value is stored as a code of 16 bits whose step is far below its standard deviation; low and high bytes are stored
apart, which compresses well. Images are stored as their difference from the fitted signal, which takes a third of the
space, in steps that fit the available room (a quarter of the noise to all of it). Only voxels that are shown are
stored, in the order of the array.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.arrays import at_least
from rimap.map_display import Quantity, is_relaxation, kind_of, quantities_of, values_of
from rimap.report.curves import VISIBLE_ERROR, SignalTable, signal_table
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals.base import AMPLITUDE, SignalModel
from rimap.slices import edges_mm, extent, planes_of, volume

#: Largest number of base64 characters per voxel and map, measured on noise.
_PER_VALUE = 2.4
#: Number of values from which the window of the images and the step of their codes are determined.
_OF_VALUES = 200_000
#: The code of a quality flag outside the box that is stored.
NOT_SHOWN = 255


@dataclass(frozen=True, eq=False)
class Embedded:
    """The maps and images in the page.

    Parameters
    ----------
    blocks
        Compressed bytes by name, in base64.
    about
        How to read them: plain numbers and texts, for JSON.
    notes
        What was left out, in words.
    """

    blocks: dict[str, str]
    about: dict[str, Any]
    notes: list[str]

    @property
    def size(self) -> int:
        """Characters of all blocks."""
        return sum(len(block) for block in self.blocks.values())


@dataclass(frozen=True, eq=False)
class Shown:
    """The maps that a page shows.

    Parameters
    ----------
    maps
        Their declarations and values (*X) by name.
    status
        (*X), the quality flags.
    sd
        Standard deviations (*X) by the name of the map: those that the page has.
    residual
        (*X), `None` if there is none.
    model
        The signal model; `None` if it is not known, and then there are no curves.
    """

    maps: Mapping[str, tuple[Quantity, NDArray[Any]]]
    status: NDArray[np.uint8]
    sd: Mapping[str, NDArray[Any]]
    residual: NDArray[Any] | None = None
    model: SignalModel | None = None

    @classmethod
    def of(cls, maps: ParameterMaps) -> Shown:
        """Return the maps of an estimator, with the standard deviations of times and rates, and of fields for the band
        of a curve.
        """
        values = {q.name: (q, values_of(q, maps.model, maps)) for q in quantities_of(maps.model)}
        fields = {parameter.name for parameter in maps.model.nonlinear}
        wanted = [name for name, (q, _) in values.items() if is_relaxation(q) or name in fields]
        deviation = {name: maps.sd[name] for name in wanted if name in maps.sd}
        return cls(values, maps.status, deviation, maps.residual, maps.model)


def embed(
    maps: Shown,
    series: WeightedSeries | None,
    inside: NDArray[np.bool_],
    affine: NDArray[Any] | None,
    room: int,
    edges: Sequence[float] = (),
) -> Embedded:
    """Return maps and images for the viewer, in at most about `room` characters.

    Parameters
    ----------
    series
        Its images are embedded; without it there are none.
    inside
        (*X), what is shown.
    """
    shown = volume(inside)
    n_maps = len(maps.maps) + len(maps.sd) + (maps.residual is not None)
    box, notes = _box(shown, edges_mm(affine, edges), int(0.7 * room / (_PER_VALUE * n_maps))), []
    stride = [b.step for b in box]
    if max(stride) > 1:
        notes.append(
            f"The volume is large: this page shows one voxel in {math.prod(stride)}, in steps of "
            f"{' × '.join(map(str, stride))}. The files contain all voxels."
        )
    shown = shown[box]
    status = np.where(shown, volume(maps.status)[box], NOT_SHOWN).astype(np.uint8)
    blocks = {"status": _base64(status.tobytes(), noise=False)}
    coded: dict[str, dict[str, Any]] = {}
    read: dict[str, NDArray[np.float64]] = {}

    def add(name: str, values: NDArray[Any], step: float, *, log: bool = True) -> None:
        codes, coded[name] = encode(volume(values)[box][shown], step, logarithmic=log)
        blocks[name] = _base64(_planes(codes))
        read[name] = decode(codes, coded[name])

    for name, (q, values) in maps.maps.items():
        step, log = _coding(q, values)
        add(name, values, step, log=log)
        if name in maps.sd:
            add(f"sd {name}", maps.sd[name], 0.01)
    if maps.residual is not None:
        add("residual", maps.residual, 0.01)

    table = None if maps.model is None else signal_table(maps.model, read)
    planes = planes_of(affine, inside.shape)
    about: dict[str, Any] = {
        "shape": list(shown.shape),
        "origin": [b.start for b in box],
        "stride": stride,
        "full": list(volume(inside).shape),
        "axes": inside.ndim,
        "affine": None if affine is None else affine.tolist(),
        "edges": edges_mm(affine, edges).tolist(),
        "planes": [
            {"name": plane.name, "axes": list(plane.axes), "flips": list(plane.flips), "letters": list(plane.letters)}
            for plane in planes
        ],
        "codes": coded,
        "table": None,
        "images": None,
    }
    if table is not None:
        blocks["table"] = _base64(_planes(table.entries.view(np.uint16).ravel()), noise=False)
        about["table"] = table.about()
        if table.error > VISIBLE_ERROR:
            notes.append(f"The fitted curves are accurate to {100 * table.error:.1g} % of the largest signal.")
    if series is not None:
        left = room - sum(len(block) for block in blocks.values())
        images = _images(series, box, shown, read, table, planes[0].axes[2], left)
        if images is None:
            notes.append(
                "There are too many images for this page, so it shows the fitted curves without measured points."
            )
        else:
            blocks["images"], about["images"] = images
            if (every := about["images"]["every"]) > 1:
                notes.append(
                    f"To keep the page small, it contains the measured points of one slice in {every}, and the curves "
                    f"of all."
                )
    return Embedded(blocks, about, notes)


def _coding(q: Quantity, values: NDArray[Any]) -> tuple[float, bool]:
    """Return the step of the codes of a map, and whether it is a share of the value."""
    if is_relaxation(q):
        return 2e-4, True
    finite = values[np.isfinite(values)]
    if kind_of(q) == AMPLITUDE and not (finite < 0).any():
        return 5e-4, True
    return 5e-4 * (1.0 if q.unit == "1" else float(np.abs(finite).max(initial=1e-30))), False


def encode(values: NDArray[Any], step: float, *, logarithmic: bool) -> tuple[NDArray[np.uint16], dict[str, Any]]:
    """Return 16-bit codes of values: 0 for no value, otherwise 1 and up in steps of `step`, or coarser if the range is
    wide.

    With `logarithmic`, 1 is the code of zero and negative values, and a step is a fraction of the value.

    >>> codes, how = encode(np.array([np.nan, 0.0, 10.0, 1000.0]), 0.01, logarithmic=True)
    >>> decode(codes, how).round(1).tolist()
    [nan, 0.0, 10.0, 1004.8]
    """
    x = np.asarray(values, dtype=float)
    finite = np.isfinite(x)
    usable = x[finite & (x > 0)] if logarithmic else x[finite]
    low, high = (float(usable.min()), float(usable.max())) if usable.size else (1.0, 1.0)
    span = np.log(high / low) if logarithmic else high - low
    step = float(max(step, span / 65_000))
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.log(x / low) / step if logarithmic else (x - low) / step
    codes = 2 + np.rint(np.clip(np.nan_to_num(place, neginf=0.0), 0, 65_500))
    codes = np.where(finite, np.where(x > 0, codes, 1) if logarithmic else codes, 0)
    return codes.astype(np.uint16), {"log": logarithmic, "low": low, "step": step}


def decode(codes: NDArray[np.uint16], how: dict[str, Any]) -> NDArray[np.float64]:
    """Return the values of codes, as the page computes them."""
    place = (codes.astype(float) - 2) * how["step"]
    values = how["low"] * np.exp(place) if how["log"] else how["low"] + place
    if how["log"]:
        values = np.where(codes == 1, 0.0, values)
    return np.asarray(np.where(codes == 0, np.nan, values))


def _box(shown: NDArray[np.bool_], size: NDArray[np.float64], most: int) -> tuple[slice, slice, slice]:
    """Return the box around the shown voxels, thinned out along the axes of highest resolution to at most `most`
    voxels.
    """
    ranges, step = [extent(shown, axis) for axis in range(3)], [1, 1, 1]

    def box() -> tuple[slice, slice, slice]:
        x, y, z = (slice(low, high, s) for (low, high), s in zip(ranges, step))
        return x, y, z

    while int(shown[box()].sum()) > most:
        wide = [axis for axis in range(3) if (ranges[axis][1] - ranges[axis][0]) // step[axis] > 1]
        finest = min(wide, key=lambda a: size[a] * step[a])
        step[finest] += 1
    return box()


def _images(
    series: WeightedSeries,
    box: tuple[slice, slice, slice],
    shown: NDArray[np.bool_],
    maps: Mapping[str, NDArray[np.float64]],
    table: SignalTable | None,
    through: int,
    room: int,
) -> tuple[str, dict[str, Any]] | None:
    """Return the images minus the fitted signal, coded, and how to read them; `None` if there is no room."""
    N, place = series.model.n_images, np.argwhere(shown)[:, through]  # the slice of each stored voxel
    if not place.size:
        return None
    r = np.empty((N, place.size), np.float32)
    fitted = None if table is None else table.reader(maps)
    for n in range(N):
        r[n] = volume(series.images[n])[box][shown]
        if table is not None and fitted is not None:
            r[n] -= fitted(int(table.images[n]))
    sample = at_least(r.reshape(-1), _OF_VALUES)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return None
    rms = float(np.sqrt(np.median(sample.astype(float) ** 2) / 0.455))
    finest = max(
        rms / 4, float(np.quantile(np.abs(sample), 0.9999)) / 32_000, float(np.abs(sample).max()) * 1e-7, 1e-30
    )
    n_slices = shown.shape[through]
    for every in range(1, n_slices + 1):
        first = (every // 2) % n_slices
        keep = place % every == first
        room_bits = 6 * room / max(int(keep.sum()) * N, 1)
        step = next((s for s in finest * 2.0 ** np.arange(0, 2.2, 0.2) if _bits(sample / s) <= room_bits), None)
        if step is None or not keep.any():
            continue
        text = _base64(b"".join(_planes(_zigzag(row[keep] / step)) for row in r))
        if len(text) <= room:
            how = {"step": float(step), "every": every, "first": first, "through": through}
            return text, how | image_window(series)
    return None


def _bits(x: NDArray[Any]) -> float:
    """Return the bits per compressed value: the entropy of its two bytes plus the overhead of Huffman coding."""
    codes, total = _zigzag(x), 0.1
    for bytes_ in (codes & 255, codes >> 8):
        p = np.bincount(bytes_, minlength=256) / max(codes.size, 1)
        total -= float((p[p > 0] * np.log2(p[p > 0])).sum())
    return total


def image_window(series: WeightedSeries) -> dict[str, float]:
    """Return the grey window of the images, from a sample of their values."""
    values = at_least(series.images.reshape(-1), _OF_VALUES)
    values = values[np.isfinite(values)]
    low, high = colours.window(values, low=None if (values < 0).any() else 0.0, upper=0.995)
    return {"low": low, "high": high}


def _zigzag(x: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return signed numbers as 0, −1, 1, −2, … → 0, 1, 2, 3, …; 65535 for what is not finite or too large."""
    good = np.isfinite(x) & (np.abs(x) < 32_700)
    n = np.rint(np.where(good, x, 0.0)).astype(np.int32)
    return np.where(good, np.where(n < 0, -2 * n - 1, 2 * n), 65_535).astype(np.uint16)


def _planes(codes: NDArray[np.uint16]) -> bytes:
    return (codes & 255).astype(np.uint8).tobytes() + (codes >> 8).astype(np.uint8).tobytes()


def _base64(data: bytes, *, noise: bool = True) -> str:
    """Return compressed data in base64. For noise, the compression does not search for repetitions, which it lacks."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE if noise else zlib.Z_DEFAULT_STRATEGY)
    return base64.b64encode(packer.compress(data) + packer.flush()).decode("ascii")
