"""Copies: whether two images are one, exported or copied twice, whatever their files and scales."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: So many values of an image stand for it, evenly spread.
_VALUES = 1 << 16
#: Two roundings to whole numbers make two copies differ by this share of a step (root mean square: √2 / √12).
_ROUNDING = 0.45
#: Arithmetic in 32-bit floating point makes them differ by this, relative.
_ARITHMETIC = 1e-6


@dataclass(frozen=True, eq=False)
class Print:
    """What identifies an image.

    Parameters
    ----------
    values
        Values (n) of its voxels, always of the same ones.
    step
        The least distance between two of them: what they were rounded to.
    shape
        Of the image.
    """

    values: NDArray[np.float64]
    step: float
    shape: tuple[int, ...]

    @classmethod
    def of(cls, pieces: Iterable[NDArray[Any]], count: int) -> Print:
        """Return the print of an image from its pieces: `count` volumes (X, Y, Z) or slices (X, Y)."""
        each = max(1, _VALUES // max(count, 1))
        sampled: list[NDArray[np.float64]] = []
        shape: tuple[int, ...] = (0,)
        for piece in pieces:
            shape = piece.shape
            sampled.append(piece.T.reshape(-1)[:: max(1, piece.size // each)].astype(np.float64))
        values = np.concatenate(sampled) if sampled else np.empty(0)
        distinct = np.unique(values[np.isfinite(values)])
        step = float(np.diff(distinct).min()) if distinct.size > 1 else 0.0
        return cls(values, step, (count, *shape))

    def is_copy_of(self, other: Print, *, rescaled: bool = True) -> bool:
        """Return whether two images have the same values, or the same but for a factor and its rounding.

        Repeats of an image have noise of their own, so they never do. Images of one value say nothing.

        Parameters
        ----------
        rescaled
            Whether images that differ by a factor count as the same.
        """
        if self.shape != other.shape or not (self.step and other.step):
            return False
        a, b = self.values, other.values
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)):
            return False
        a, b = a[finite], b[finite]
        if np.array_equal(a, b):
            return True
        if not rescaled:
            return False
        scale = max(float(np.abs(a).max()), float(np.abs(b).max()))
        a, b = a / scale, b / scale  # squares of large values overflow
        steps = self.step / scale, other.step / scale
        power = float(a @ a)
        factor = float(a @ b) / power if power else 0.0
        if not factor > 0:
            return False
        apart = float(np.sqrt(np.mean((b - factor * a) ** 2)))
        whole = _whole_steps(a, steps[0]) or _whole_steps(b, steps[1])
        rounded = _ROUNDING * max(steps[1], factor * steps[0]) if whole else 0.0
        return bool(apart <= max(rounded, _ARITHMETIC * float(np.abs(b).max())))


def _whole_steps(values: NDArray[np.float64], step: float) -> bool:
    """Return whether values are whole multiples of a step: they were stored as whole numbers."""
    steps = (values - values.min()) / step
    return bool(np.abs(steps - np.rint(steps)).max() < 1e-2)
