"""Lines across the border of grey and white matter, and the sigmoid along each (§5.3)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from rimap.errors import InputError
from rimap.io.unreadable_formats import refuse_device

#: Half the length of a line that is found, voxels.
REACH = 5.0
#: Steps along a line, voxels.
STEP = 0.25


@dataclass(frozen=True)
class Line:
    """A line from (x0, y0) to (x1, y1), voxels."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def length(self) -> float:
        """In voxels."""
        return float(np.hypot(self.x1 - self.x0, self.y1 - self.y0))

    def profile(self, values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions along the line, zero in its middle, and the values (X, Y) there, linearly interpolated."""
        n = max(5, round(self.length / STEP) + 1)
        x = np.linspace(-self.length / 2, self.length / 2, n)
        at = np.array([np.linspace(self.x0, self.x1, n), np.linspace(self.y0, self.y1, n)])
        return x, ndimage.map_coordinates(np.asarray(values, float), at, order=1, cval=np.nan)


@dataclass(frozen=True)
class Sigmoid:
    """y = V/(1 + e^(−ν(x − x₀))) + b, least squares; NaN throughout if there is no fit.

    Parameters
    ----------
    nu
        Its slope, 1/voxel: the sharpness.
    r2
        Fraction of the variance explained.
    """

    V: float
    nu: float
    x0: float
    b: float
    r2: float

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Return y."""
        return np.asarray(self.V / (1 + np.exp(-self.nu * (x - self.x0))) + self.b)


def fit_sigmoid(x: NDArray[np.float64], y: NDArray[np.float64]) -> Sigmoid:
    """Fit a sigmoid to a profile y (n,) at the positions x (n,), in voxels.

    Its slope ν is between 0.1 and 20 per voxel.

    >>> x = np.linspace(-5, 5, 41)
    >>> round(fit_sigmoid(x, 600 / (1 + np.exp(-1.5 * (x - 0.3))) + 900).nu, 3)
    1.5
    """
    valid = np.isfinite(y)
    nothing = Sigmoid(*(float("nan"),) * 5)
    if valid.sum() < 5:
        return nothing
    x, y = x[valid], y[valid]
    unit = max(float(np.ptp(y)), 1e-9)
    z = (y - y.min()) / unit
    if z[-1] < z[0]:
        return nothing  # the line runs from white to grey matter

    def model(x: Any, V: float, nu: float, x0: float, b: float) -> Any:
        return V / (1 + np.exp(-nu * (x - x0))) + b

    best, least = None, np.inf
    for start in (0.7, 2.0):
        try:
            p, _ = optimize.curve_fit(
                model, x, z, p0=(1.0, start, 0.0, 0.0), bounds=([0, 0.1, x[0], -2], [4, 20, x[-1], 2]), maxfev=2000
            )
        except (RuntimeError, ValueError):
            continue
        if (cost := float(((model(x, *p) - z) ** 2).sum())) < least:
            best, least = p, cost
    if best is None:
        return nothing
    r2 = 1 - least / max(float(((z - z.mean()) ** 2).sum()), 1e-12)
    V, nu, x0, b = (float(v) for v in best)
    return Sigmoid(V * unit, nu, x0, b * unit + float(y.min()), r2)


def find_lines(
    T: NDArray[Any], low: tuple[float, float], high: tuple[float, float], *, count: int = 20, apart: float = 6.0
) -> list[Line]:
    """Return lines across the border between two tissues, from the one of low T to that of high T.

    Parameters
    ----------
    T
        Map (X, Y) that decides where the border is; it is smoothed.
    low, high
        Range of T of each tissue, ms.
    count
        At most so many, the best fitting first.
    apart
        Least distance between their middles, voxels.
    """
    filled = np.where(np.isfinite(T), T, np.nanmedian(T))
    smooth = ndimage.gaussian_filter(ndimage.median_filter(filled, 3), 0.8)
    middle = (low[1] + high[0]) / 2
    gx, gy = np.gradient(smooth)
    size = np.hypot(gx, gy)
    near = (abs(smooth - middle) < 0.3 * (np.mean(high) - np.mean(low))) & (size > np.percentile(size, 60))
    candidates = []
    for x, y in np.argwhere(near):
        u = np.array([gx[x, y], gy[x, y]]) / size[x, y]
        a, b = np.array([x, y]) - REACH * u, np.array([x, y]) + REACH * u
        if min(a.min(), b.min()) < 0 or (np.maximum(a, b) > np.array(T.shape) - 1).any():
            continue
        line = Line(*map(float, (*a, *b)))
        if np.isnan(line.profile(T)[1]).any():
            continue
        at, y_ = line.profile(smooth)
        left, right = y_[at < -2.5], y_[at > 2.5]
        if not (low[0] < left.mean() < low[1] and high[0] < right.mean() < high[1]):
            continue
        if left.std() > 0.3 * np.ptp(y_) or right.std() > 0.3 * np.ptp(y_):
            continue
        candidates.append((left.std() + right.std() + abs(smooth[x, y] - middle), line, (x, y)))
    chosen: list[Line] = []
    middles: list[tuple[int, int]] = []
    for _, line, (x, y) in sorted(candidates, key=lambda c: c[0]):
        if all(np.hypot(x - p, y - q) >= apart for p, q in middles):
            chosen.append(line)
            middles.append((x, y))
        if len(chosen) == count:
            break
    return chosen


def read_lines(path: Path | str) -> list[Line]:
    """Read lines from a CSV file with the columns x0, y0, x1, y1 (voxels, from white to grey matter).

    Raises
    ------
    InputError
        Where it has not these columns.
    """
    refuse_device(Path(path))
    try:
        with Path(path).open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [Line(*(float(row[c]) for c in ("x0", "y0", "x1", "y1"))) for row in rows]
    except (OSError, KeyError, ValueError, TypeError):
        raise InputError(
            f"{path}: expected a CSV file with the columns x0,y0,x1,y1 in voxels, got another file."
        ) from None


def check_lines(lines: Sequence[Line], where: str) -> None:
    """Refuse too few lines.

    Raises
    ------
    InputError
        Below three.
    """
    if len(lines) < 3:
        raise InputError(
            f"expected three or more lines across the border in {where}, got {len(lines)}. Give --lines FILE."
        )
