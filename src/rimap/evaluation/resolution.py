"""How much of a small spot an estimator preserves in a series: spots are added to its maps, simulated and mapped again.

An estimator that reads the neighbours of a voxel smooths, and how much depends on the protocol, the noise and the
contrast. A figure from a benchmark is of another protocol. So a part of the maps that were found is taken for the
truth, with and without spots in it, and mapped twice with the same noise: what is left of the contrast is the share
that the estimator keeps here. The first of the two also shows whether its standard deviations describe its errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.correlation import NoiseCorrelation
from rimap.estimators.base import Estimator
from rimap.estimators.rim.network_input import part_of_series
from rimap.estimators.slice_axis import order_of, turned_maps, turned_series
from rimap.likelihood import HALF_OF_95, Noise, Rician
from rimap.series import ParameterMaps, Status, WeightedSeries

#: Spots: how many voxels they are wide, and the contrast of their relaxation time with what is around.
WIDTHS, CONTRASTS = (1, 3, 5), (0.10, 0.25)
#: From one spot to the next, and the largest edge of the part that is mapped again, voxels.
_APART, _EDGE = 9, 100
#: A spot is put where this share of the 7 × 7 voxels around it was estimated; fewer spots of a kind than this give no
#: result.
_ESTIMATED, _FEWEST = 0.9, 4
#: Fewer voxels than this do not determine how many intervals contain the truth.
_FEWEST_VOXELS = 500
#: A smaller share of 95 % intervals that contain the truth is reported.
_COVERED = 0.88


@dataclass(frozen=True)
class Kept:
    """What an estimator keeps of one kind of spot.

    Parameters
    ----------
    width
        In voxels: 1, or the diameter of a disc.
    voxels
        How many it has.
    contrast
        Of its relaxation time, relative to what is around.
    share
        The share of the contrast that is left in the map, in the median over the spots.
    spots
        How many there were.
    """

    width: int
    voxels: int
    contrast: float
    share: float
    spots: int


@dataclass(frozen=True)
class Simulated:
    """What an estimator does with images that are simulated from its maps.

    Parameters
    ----------
    kept
        What is left of small spots in the map of the relaxation time; nothing if there is no room for them.
    covered
        The share of voxels whose 95 % interval of the relaxation time contains the value from which the images were
        simulated; NaN if there are no standard deviations, or few voxels.
    """

    kept: tuple[Kept, ...] = ()
    covered: float = float("nan")

    def warning(self, time: str) -> tuple[str, ...]:
        """Return a warning about standard deviations of the relaxation time that are too small.

        >>> Simulated(covered=0.96).warning("T1"), Simulated().warning("T1")
        ((), ())
        """
        if not self.covered < _COVERED:
            return ()
        return (
            f"Standard deviations of {time} are too small here: in images that were simulated from these maps, 95 % "
            f"intervals contain the true {time} in only {100 * self.covered:.0f} % of the voxels. Compare these maps "
            "with those of --estimator mle.",
        )


def resolution(series: WeightedSeries, maps: ParameterMaps, estimator: Estimator, *, seed: int = 0) -> tuple[Kept, ...]:
    """Return what is left of small spots in the map of the relaxation time; nothing if there is no room for them."""
    return simulated(series, maps, estimator, seed=seed).kept


def simulated(series: WeightedSeries, maps: ParameterMaps, estimator: Estimator, *, seed: int = 0) -> Simulated:
    """Return what an estimator does with images that are simulated from its maps.

    Parameters
    ----------
    series
        The images, of two or three axes; some of its planes are enough.
    maps
        What the estimator found in them.
    estimator
        As it was used.
    """
    order = order_of(series.shape)
    series, maps = turned_series(series, order), turned_maps(maps, order)
    noise = maps.noise
    if len(series.shape) < 2 or noise is None:
        return Simulated()
    part = _part(maps)
    if hasattr(estimator, "slab"):  # what it knows of the whole series, it knows of this part
        estimator = estimator.slab(part)
    here = part_of_series(replace(series, notes=()), part)
    kappa, status = maps.kappa[(slice(None), *part)], maps.status[part]
    plane = status.reshape(status.shape[:2])
    estimated = (plane == Status.OK) & np.isfinite(kappa).all(0).reshape(plane.shape)
    kinds = [(width, contrast) for width in WIDTHS for contrast in CONTRASTS]
    sites = _sites(estimated)
    here_estimated = np.zeros(maps.status.shape, bool)
    here_estimated[part] = estimated.reshape(status.shape)
    sigma = noise.typical_sigma(here_estimated)
    if not np.isfinite(sigma):
        return Simulated()
    noise = type(noise)(sigma)
    time, known, truth = series.model.time_index, estimated.reshape(status.shape), _filled(kappa, here)
    again = (estimator, here, known, noise, maps.correlation, seed)
    room = len(sites) >= _FEWEST * len(kinds)
    if not room and (estimated.sum() < _FEWEST_VOXELS or maps.sd_kappa is None):
        return Simulated()
    first = _mapped(truth, *again)
    covered = _covered(first, truth[time], known)
    if not room:
        return Simulated(covered=covered)
    factor = np.ones(plane.shape)
    spots: list[list[NDArray[np.intp]]] = [[] for _ in kinds]
    for index, site in enumerate(np.random.default_rng(seed).permutation(sites)):
        width, contrast = kinds[index % len(kinds)]
        inside = site + disc(width)
        factor[tuple(inside.T)] = 1 + contrast
        spots[index % len(kinds)].append(inside)
    changed = truth.copy()
    changed[time] = np.clip(truth[time] * factor.reshape(status.shape), *series.model.time.bounds)
    found = [np.asarray(m.kappa[time], float).reshape(plane.shape) for m in (first, _mapped(changed, *again))]
    difference, asked = (b - a for a, b in (found, (truth[time], changed[time])))
    asked = asked.reshape(plane.shape)
    kept = (
        Kept(width, len(disc(width)), contrast, _share(difference, asked, of_kind), len(of_kind))
        for (width, contrast), of_kind in zip(kinds, spots)
    )
    return Simulated(tuple(kept), covered)


def disc(width: int) -> NDArray[np.intp]:
    """Return the voxels (n, 2) of a disc around the origin, of an odd diameter.

    >>> len(disc(1)), len(disc(3)), len(disc(5))
    (1, 5, 13)
    """
    d = np.arange(-(width // 2), width // 2 + 1)
    y, x = np.meshgrid(d, d, indexing="ij")
    return np.argwhere(y**2 + x**2 <= ((width - 1) / 2) ** 2) - width // 2


def _part(maps: ParameterMaps) -> tuple[Any, ...]:
    """Return the index of the part that is mapped again: around the middle of what was estimated, in the fullest
    plane.
    """
    valid = maps.status == Status.OK
    plane: tuple[Any, ...] = ()
    if valid.ndim == 3:
        k = int(valid.sum((0, 1)).argmax())
        valid, plane = valid[..., k], (slice(k, k + 1),)
    index = []
    for axis in (0, 1):
        weight = valid.sum(1 - axis)
        n, middle = len(weight), round(float(np.average(np.arange(len(weight)), weights=weight + 1e-9)))
        start = int(np.clip(middle - _EDGE // 2, 0, max(n - _EDGE, 0)))
        index.append(slice(start, min(start + _EDGE, n)))
    return (*index, *plane)


def _sites(estimated: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the middles (n, 2) of the spots, on a grid, where nearly all voxels around were estimated."""
    half, margin = 3, max(WIDTHS)
    sites = [
        (y, x)
        for y in range(margin, estimated.shape[0] - margin, _APART)
        for x in range(margin, estimated.shape[1] - margin, _APART)
        if estimated[y - half : y + half + 1, x - half : x + half + 1].mean() >= _ESTIMATED
    ]
    return np.array(sites, dtype=np.intp).reshape(-1, 2)


def _filled(kappa: NDArray[Any], series: WeightedSeries) -> NDArray[np.float64]:
    """Return κ with the start that the model declares if there is no value."""
    out = np.array(kappa, dtype=float)
    for row, parameter in enumerate(series.model.parameters):
        held = series.held.get(parameter.name)
        out[row] = np.where(np.isfinite(out[row]), out[row], (parameter.start or 0.0) if held is None else held)
    return np.asarray(np.nan_to_num(out))


def _covered(maps: ParameterMaps, truth: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """Return the share of voxels (*X) whose 95 % interval of the relaxation time contains the truth (*X)."""
    time = maps.model.time_index
    if maps.sd_kappa is None:
        return float("nan")
    sd = np.asarray(maps.sd_kappa[time], float)
    counts = known & (maps.status == Status.OK) & np.isfinite(sd)
    off = abs(np.asarray(maps.kappa[time], float) - truth)[counts]
    return float((off <= HALF_OF_95 * sd[counts]).mean()) if off.size >= _FEWEST_VOXELS else float("nan")


def _mapped(
    kappa: NDArray[Any],
    estimator: Estimator,
    series: WeightedSeries,
    known: NDArray[np.bool_],
    noise: Noise,
    correlation: NoiseCorrelation | None,
    seed: int,
) -> ParameterMaps:
    """Return the maps of images that are drawn from κ with noise of one σ, correlated in the plane as that of the
    images; where κ is not known they are those that were measured.
    """
    rng = np.random.default_rng([seed, 1])
    signal = np.asarray(series.model.signal(kappa), float)
    plane = signal.shape[:3]

    def drawn_noise() -> NDArray[np.float64]:
        white = rng.standard_normal(plane)
        noisy = white if correlation is None else correlation.coloured(white, (0, 1))
        return np.asarray(noise.sigma * noisy.reshape(signal.shape))

    images = signal + drawn_noise()
    if isinstance(noise, Rician):
        images = np.hypot(images, drawn_noise())
    elif series.model.magnitude:
        images = abs(images)
    images = np.where(known, images, series.images).astype(np.float32)
    drawn = replace(series, images=images, noise=noise)
    return estimator.estimate(drawn)


def _share(difference: NDArray[Any], asked: NDArray[Any], spots: list[NDArray[np.intp]]) -> float:
    """Return the share of a contrast that is left, the median over the spots."""
    shares = [
        difference[tuple(spot.T)].mean() / asked[tuple(spot.T)].mean() for spot in spots if asked[tuple(spot.T)].all()
    ]
    shares = [share for share in shares if np.isfinite(share)]
    return float(np.median(shares)) if len(shares) >= _FEWEST else float("nan")


def in_short(several: Sequence[tuple[Kept, ...]], time: str) -> str:
    """Return one statement about several series: from the least to the greatest share; empty if there is none.

    >>> first, second = (Kept(1, 1, 0.1, 0.41, 9), Kept(3, 5, 0.1, 0.85, 9)), (Kept(1, 1, 0.1, 0.47, 9),)
    >>> print(in_short([first, second], "T1"))
    Of a larger T1 in small spots, these maps keep 41 to 47 % of a difference of 10 % (1 voxel wide), and 85 % of a
    difference of 10 % (3 voxels wide). The sidecar of each map has its own figures.
    """
    shares: dict[tuple[int, float], list[float]] = {}
    for k in (k for kept in several for k in kept if np.isfinite(k.share)):
        shares.setdefault((k.width, k.contrast), []).append(100 * k.share)
    parts = []
    for (width, contrast), found in sorted(shares.items()):
        low, high = (f"{x:.0f}" for x in (min(found), max(found)))
        share = low if low == high else f"{low} to {high}"
        parts.append(f"{share} % of a difference of {100 * contrast:.0f} % ({width} voxel{'s' * (width > 1)} wide)")
    if not parts:
        return ""
    listed = ", ".join(parts[:-1]) + (", and " if parts[1:] else "") + parts[-1]
    return f"Of a larger {time} in small spots, these maps keep {listed}. The sidecar of each map has its own figures."


def in_words(kept: tuple[Kept, ...], time: str) -> str:
    """Return the statement as sentences, one a width; empty if there is none.

    >>> print(in_words((Kept(1, 1, 0.1, 0.41, 9), Kept(3, 5, 0.1, 0.85, 9), Kept(3, 5, 0.25, 0.968, 9)), "T1"))
    Spots with a larger T1 than their surroundings were added to these maps, and mapped again with the same noise. A
    spot 1 voxel wide keeps 41 % of a difference of 10 %. A spot 3 voxels wide keeps 85 % of a difference of 10 % and
    97 % of a difference of 25 %.
    """
    widths: dict[int, list[str]] = {}
    for k in kept:
        if np.isfinite(k.share):
            widths.setdefault(k.width, []).append(f"{100 * k.share:.0f} % of a difference of {100 * k.contrast:.0f} %")
    if not widths:
        return ""
    return " ".join(
        (
            f"Spots with a larger {time} than their surroundings were added to these maps, and mapped again with the "
            f"same noise.",
            *(f"A spot {w} voxel{'s' * (w > 1)} wide keeps {' and '.join(figures)}." for w, figures in widths.items()),
        )
    )
