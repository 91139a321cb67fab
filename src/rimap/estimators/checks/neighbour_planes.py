"""Maps as the planes that they consist of, and sums over neighbours in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.nlls.threads import Voxels

Floats = NDArray[np.float64]
Where = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Planes:
    """The order of the first two axes of a map in its flattened voxels.

    Parameters
    ----------
    voxels
        The images in a row.
    shape
        (P, R, C): planes, rows of a plane, and what is stored side by side.
    step
        How far neighbours in a row are apart.
    """

    voxels: Voxels
    shape: tuple[int, int, int]
    step: int

    @classmethod
    def of(cls, voxels: Voxels) -> Planes | None:
        """Return the planes of voxels, `None` if they are a list or a plane is not 3 × 3."""
        X = voxels.X[::-1] if voxels.turned else voxels.X
        if len(X) < 2 or min(X[:2]) < 3:
            return None
        behind = X[2] if len(X) > 2 else 1
        if voxels.turned:
            return cls(voxels, (behind, X[1], X[0]), 1)
        return cls(voxels, (1, X[0], X[1] * behind), behind)

    def of_map(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a map (*X) as (P, R, C)."""
        return self.voxels.flatten(values).reshape(self.shape)

    def as_map(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return (P, R, C) as a map (*X)."""
        return self.voxels.unflatten(values.reshape(-1))

    @property
    def images(self) -> NDArray[Any]:
        """(N, P, R, C)."""
        return self.voxels.images.reshape(-1, *self.shape)

    def sums(self, values: NDArray[Any], half: int = 1) -> Floats:
        """Return the sum of (P, R, C) over the (2 half + 1)² voxels around each one; beyond the edge there is
        nothing.
        """
        from rimap.estimators.checks.neighbour_plane_kernels import over_squares  # numba is slow to import

        out = np.empty(self.shape)
        over_squares(np.ascontiguousarray(values, float), self.step, half, False, out)
        return out

    def count(self, where: Where, half: int = 1) -> NDArray[np.uint8]:
        """Return how many of the (2 half + 1)² voxels around each one are there (P, R, C)."""
        from rimap.estimators.checks.neighbour_plane_kernels import over_squares

        out = np.empty(self.shape, np.uint8)
        over_squares(where.view(np.uint8), self.step, half, False, out)
        return out

    def maxima(self, values: Floats, half: int = 1) -> Floats:
        """Return the largest of the (2 half + 1)² values around each one, none of which is negative."""
        from rimap.estimators.checks.neighbour_plane_kernels import over_squares

        out = np.empty(self.shape)
        over_squares(values, self.step, half, True, out)
        return out

    def on_a_line(self, values: Floats, around: Floats, limits: tuple[float, float], where: Where) -> Where:
        """Return which of the voxels `where` are in the middle of a dark line on bright ground.

        That is three in a row, column or diagonal whose mean is below the first limit, while that of the six others of
        the 3 × 3 exceeds the second. `around` is the sum of the finite values of the nine.
        """
        from rimap.estimators.checks.neighbour_plane_kernels import straight_lines

        found = where.copy()
        straight_lines(values, around, self.step, found, limits)
        return found

    def images_around(self, where: Where, count: NDArray[np.uint8], fewest: int) -> Floats:
        """Return what the images are in the voxels `where` of the 3 × 3 around each one, if these are `fewest` (4, P,
        R, C).

        The rows are those of `plane_kernels.images_around`.
        """
        from rimap.estimators.checks.neighbour_plane_kernels import images_around

        out = np.zeros((4, *self.shape))
        images_around(self.images, where, count, fewest, self.step, out)
        return out
