"""Air of the root of squares of many coils: as bright as a tissue, and yet noise.

With L coils of equal noise σ, the root mean square of air is σ √(2L), and its values scatter by σ alone: with 16 coils
by an eighth of their mean. Neither σ nor its darkness nor its roughness shows that it is air. But air is alike in all
images and all voxels, and it surrounds the object: it is at the edge of the field of view.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.checks.neighbour_planes import Planes
from rimap.estimators.quantiles import f_quantile
from rimap.estimators.sigma import chi2, quantile

Floats = NDArray[Any]
Where = NDArray[np.bool_]

#: Air has less than this share of the power of the object,
_DIM = 0.45
#: and so much of the edge of a plane.
_EDGE = 0.3
#: Number of the 3 × 3 voxels that must be dim.
_FEWEST = 8
#: Images of air differ by no more than chance: the quantile of the ratio of variances, and its chance for voxels.
_ALIKE, _UNLIKELY = 4.0, 1e-2
#: The values of air scatter by at most so many σ, and by so large a part of their mean: an image without noise has
#: neither.
_MOST_SIGMA, _ROUGH = 1.5, 0.05
#: The means of all of it differ between the images by less than this: a fluid at the edge decays.
_CONSTANT = 0.03
#: So many voxels determine the level.
_ENOUGH = 100
#: The level is that of most of them: rounds, and the quantile that limits it.
_ROUNDS, _WITHIN = 4, 0.999


class Coils(NamedTuple):
    """Air of many coils: which voxels (P, R, C) are dark enough, its mean power, and the degrees of freedom of the
    power of a voxel.
    """

    dim: Where
    level: float
    freedom: int


def air_of_coils(planes: Planes, power: Floats, sigma: float | Floats, bright: float) -> Coils | None:
    """Return what air of many coils is like, `None` if there is none.

    Parameters
    ----------
    planes, power
        The images and their mean square (P, R, C), zero where they are not known.
    sigma
        A number or (P, R, C), NaN if it is unknown.
    bright
        The power of the object.
    """
    N = len(planes.images)
    dim = (power > 0) & (power < _DIM * bright)
    edge = _edge(planes) & (power > 0)
    if N < 2 or np.count_nonzero(dim & edge) < max(_EDGE * np.count_nonzero(edge), 1):
        return None
    many = planes.count(dim)
    at = np.flatnonzero(dim & (many >= _FEWEST))
    if len(at) < _ENOUGH:
        return None
    mean, of_means, within, of_voxels = planes.images_around(dim, many, _FEWEST).reshape(4, -1)[:, at]
    count = many.reshape(-1)[at].astype(float)
    between = N * (of_voxels - count * mean**2) / (count - 1)
    chance = (within - between * (count - 1)) / ((N - 1) * (count - 1))
    most = f_quantile(1 - _UNLIKELY, _FEWEST - 1, (N - 1) * (_FEWEST - 1))
    limit = np.nan_to_num(_MOST_SIGMA * np.broadcast_to(sigma, power.shape).reshape(-1)[at], nan=np.inf)
    noise = (between < most * chance) & (count * of_means < _ALIKE * chance)
    noise &= (chance > _ROUGH**2 * mean**2) & (chance < limit**2)
    at = at[noise]
    values = power.reshape(-1)[at]
    for _ in range(_ROUNDS):  # a dim tissue that is alike in all images is not of the level of most
        if len(values) < _ENOUGH:
            return None
        level, spread = quantile(values, 0.5), (quantile(values, 0.75) - quantile(values, 0.25)) / 1.349
        freedom = int(np.clip(2 * (level / max(spread, 1e-6 * level)) ** 2, 2 * N, 64 * 2 * N))
        inside = values < level * chi2(_WITHIN, freedom) / freedom
        at, values = at[inside], values[inside]
    levels = planes.images.reshape(N, -1)[:, at].mean(1, dtype=float)
    if np.ptp(levels) > _CONSTANT * levels.mean():
        return None
    found = np.zeros(power.size, bool)
    found[at] = True
    here = found.reshape(power.shape) & _edge(planes, 2)
    if np.count_nonzero(here) < _EDGE * np.count_nonzero(_edge(planes, 2) & (power > 0)):
        return None
    return Coils(dim, float(values.mean()), freedom)


def _edge(planes: Planes, width: int = 1) -> Where:
    """Return the voxels (P, R, C) at the edge of each plane."""
    out = np.zeros(planes.shape, bool)
    out[:, :width] = out[:, -width:] = True
    out[:, :, : width * planes.step] = out[:, :, -width * planes.step :] = True
    return out
