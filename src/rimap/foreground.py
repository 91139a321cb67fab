"""The foreground: which voxels have signal. Summary, report, group, the mask that is written and `mask="auto"` share
this definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import Advice, note

#: What a mask is called that is to be found from the images.
AUTO = "auto"
#: What sidecars and help say of it.
HOW = (
    "voxels whose root mean square over all images exceeds Otsu's threshold (of its square root; "
    "doi:10.1109/TSMC.1979.4310076); all voxels if what is darker is neither much darker nor noise"
)
#: The same, if there are maps but no images.
HOW_OF_MAPS = f"{HOW}; of the images that the maps predict and their residual"
#: Bins of the histogram from which Otsu's threshold is taken.
_BINS = 256
#: The threshold separates object and background if the share of bright voxels is between these two,
_LEAST, _MOST = 0.01, 0.95
#: and if the dark voxels have a mean root mean square below this share of that of the bright ones.
_DARK = 0.35
#: Brighter dark voxels count as background only if they are noise. Their level is below the first share, differs
#: between the images by at most the second (relative range of their root mean squares), and they scatter as Rayleigh or
#: normal values do: the squared mean over the mean square is at most the third (0.785 for Rayleigh values, near 1 for
#: tissue).
_DARKER, _ALIKE, _SCATTERED = 0.8, 0.1, 0.86

#: Voxels are outliers, and do not determine the threshold, if they are fewer than this share of all, and their root
#: mean square is this many times that of the object: wrapped numbers, or voxels at a surface coil.
_FEW, _OUTLYING = 0.02, 50.0

#: Gives images (N, *X) in pieces with their `strength`, as often as it is called.
Pieces = Callable[[], Iterable[tuple[NDArray[Any], NDArray[np.float64]]]]


@dataclass(frozen=True, eq=False)
class Region:
    """The voxels that figures describe.

    Parameters
    ----------
    inside
        (*X), which voxels.
    words
        What summaries call them: "in the mask", "in the foreground", "of all voxels".
    how
        How they were found.
    """

    inside: NDArray[np.bool_]
    words: str
    how: str

    @classmethod
    def found(cls, inside: NDArray[np.bool_], how: str = HOW) -> Region:
        """Return the region of a foreground."""
        return cls(inside, "of all voxels" if inside.all() else "in the foreground", how)

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_], how: str = "the mask that the series was mapped with") -> Region:
        """Return the region of a mask that the series was mapped with."""
        return cls(mask, "in the mask", how)


def foreground(images: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the foreground (*X) of images (N, *X).

    It is Otsu's threshold on the square root of the root mean square over the images. All voxels are foreground if the
    threshold leaves out or keeps almost nothing, or if what it leaves out is neither much darker nor noise: it would
    split the tissue. A few voxels that are far brighter than all others do not count for the threshold. Values that
    are not finite count as dark. The sign of an image does not matter.

    References
    ----------
    Otsu 1979, doi:10.1109/TSMC.1979.4310076.

    Examples
    --------
    >>> foreground(np.array([[1.0, 2.0, 50.0, 60.0, 55.0]]))
    array([False, False,  True,  True,  True])
    """
    x = strength(images)
    return above(x, threshold(lambda: [(images, x)]))


def note_on(inside: NDArray[np.bool_]) -> Advice:
    """Return a note about a mask that was found."""
    if inside.all():
        return note("The mask was found from the images: they have no background, so it selects all voxels.")
    return note(f"The mask was found from the images: {100 * inside.mean():.1f} % of the voxels have signal.")


def strength(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return the square root of the root mean square (*X) over images (N, *X)."""
    power = np.zeros(images.shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):
        for image in images:  # one at a time: the squares of a large volume would not fit
            power += np.square(image, dtype=np.float64)
    return np.asarray(np.where(np.isfinite(power), power / max(len(images), 1), 0.0) ** 0.25)


def above(x: NDArray[np.float64], limit: float | None) -> NDArray[np.bool_]:
    """Return which strengths are foreground; all if there is no threshold."""
    return np.ones(x.shape, bool) if limit is None else np.asarray(x > limit)


def threshold(pieces: Pieces) -> float | None:
    """Return the strength that separates bright from dark voxels; `None` if there are not two kinds."""
    most = np.inf
    limit = _limit(pieces, most)
    while limit is not None and (lower := _limit_without_outliers(pieces, limit)) is not None:
        most, limit = limit, lower
    return limit if limit is not None and _separates(pieces, limit, most) else None


def _limit(pieces: Pieces, most: float) -> float | None:
    """Return Otsu's threshold of the strengths up to `most`, `None` if they are all the same."""
    low, high, n = np.inf, -np.inf, 0
    for _, x in pieces():
        x = x[x <= most]
        low, high, n = min(low, float(x.min(initial=np.inf))), max(high, float(x.max(initial=-np.inf))), n + x.size
    if not n or not high - low > 1e-6 * high:
        return None
    counts = np.zeros(_BINS)
    for _, x in pieces():
        counts += np.histogram(x, bins=_BINS, range=(low, high))[0]
    return otsu(counts, np.linspace(low, high, _BINS + 1))


def _limit_without_outliers(pieces: Pieces, limit: float) -> float | None:
    """Return the threshold of the voxels below a limit if those above it are a few outliers, else `None`."""
    if sum(np.count_nonzero(x > limit) for _, x in pieces()) >= _FEW * sum(x.size for _, x in pieces()):
        return None
    lower = _limit(pieces, limit)
    if lower is None:
        return None
    power, strengths, count = np.zeros(3), np.zeros(3), np.zeros(3)  # outliers, and both kinds of the others
    for _, x in pieces():
        for side, here in enumerate((x[x > limit], x[(x > lower) & (x <= limit)], x[x <= lower])):
            with np.errstate(over="ignore"):
                power[side] += float(np.sum(here**4))
            strengths[side] += float(np.sum(here**2))
            count[side] += here.size
    rms, level = np.sqrt(power / np.maximum(count, 1)), strengths / np.maximum(count, 1)
    # Without air below, the others are noise, and what looks like outliers is a small object.
    return lower if rms[0] > _OUTLYING * rms[1] and level[2] < _DARK * level[1] else None


def otsu(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> float:
    """Return the edge between bins that leaves the classes farthest apart."""
    n = np.cumsum(counts)
    total = np.cumsum(counts * (edges[1:] + edges[:-1]) / 2)
    dark, bright = n[:-1], n[-1] - n[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = dark * bright * (total[:-1] / dark - (total[-1] - total[:-1]) / bright) ** 2
    return float(edges[1:-1][np.argmax(np.nan_to_num(apart))])


def _separates(pieces: Pieces, limit: float, most: float) -> bool:
    """Return whether the voxels below the limit are something else than tissue; `most` is what outliers count as."""
    rms, counted = np.zeros(2), np.zeros(2)  # below and above the limit
    sums: Any = 0.0  # of the dark voxels: values, squares and number in each image
    for images, x in pieces():
        bright = x > limit
        for side, here in enumerate((x[~bright], x[bright])):
            rms[side] += float(np.sum(np.minimum(here, most) ** 2))
            counted[side] += here.size
        sums = sums + np.array([_sums(image[~bright]) for image in images])
    if not _LEAST < counted[1] / counted.sum() < _MOST:
        return False
    ratio = rms[0] / counted[0] / (rms[1] / counted[1])
    if ratio < _DARK:
        return True
    values, squares = sums[:, :2].T / np.maximum(sums[:, 2], 1)
    if ratio > _DARKER or not (squares > 0).all():
        return False
    level = np.sqrt(squares)
    return bool(np.ptp(level) < _ALIKE * level.mean() and (values**2 < _SCATTERED * squares).all())


def _sums(values: NDArray[Any]) -> tuple[float, float, float]:
    """Return the sum, the sum of the squares and the number of the values that are neither zero nor missing."""
    v = values[np.isfinite(values) & (values != 0)].astype(np.float64)
    return float(v.sum()), float((v**2).sum()), float(v.size)
