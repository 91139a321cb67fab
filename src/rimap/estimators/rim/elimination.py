"""Small symmetric systems, one for each voxel: every entry is a map, and one elimination serves all voxels.

The number of parameters is any. The root-free Cholesky factors H = L D Lᵀ are safe in single precision if the matrix is
damped: no pivot falls below its damping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rimap.arrays import Array, namespace

#: The upper triangle of a symmetric matrix by (row, column): maps (*X).
Triangle = Mapping[tuple[int, int], Array]


@dataclass(frozen=True, eq=False)
class Factors:
    """H = L D Lᵀ.

    Parameters
    ----------
    pivots
        The diagonal of D, P maps.
    below
        L below its diagonal of ones, by (row, column).
    """

    pivots: list[Array]
    below: dict[tuple[int, int], Array]

    @classmethod
    def of(cls, H: Triangle, damping: Sequence[Array]) -> Factors:
        """Return the factors of H + diag(damping).

        Parameters
        ----------
        damping
            P maps or numbers above zero.
        """
        P = len(damping)
        left = {(i, j): H[i, j] + damping[i] if i == j else H[i, j] for i in range(P) for j in range(i, P)}
        pivots, below = [left[0, 0]], {}
        for k in range(P - 1):
            for i in range(k + 1, P):
                below[i, k] = left[k, i] / pivots[k]
            for i in range(k + 1, P):
                for j in range(i, P):
                    left[i, j] = left[i, j] - below[i, k] * left[k, j]
            # rounding may leave less than was added
            pivots.append(namespace(left[k + 1, k + 1]).maximum(left[k + 1, k + 1], damping[k + 1] + 0 * pivots[0]))
        return cls(pivots, below)

    def solve(self, g: Sequence[Array]) -> list[Array]:
        """Return H⁻¹ g, P maps (*X), for P maps g."""
        P = len(self.pivots)
        y: list[Array] = list(g)
        for k in range(P):
            for i in range(k + 1, P):
                y[i] = y[i] - self.below[i, k] * y[k]
        x = y
        for k in reversed(range(P)):
            x[k] = y[k] / self.pivots[k]
            for i in range(k + 1, P):
                x[k] = x[k] - self.below[i, k] * x[i]
        return x

    def inverse_diagonal(self) -> list[Array]:
        """Return the diagonal of H⁻¹, P maps, by Takahashi's recursion from the last row upwards."""
        P = len(self.pivots)
        z: dict[tuple[int, int], Array] = {}
        for j in reversed(range(P)):
            for i in range(j + 1, P):
                z[j, i] = -sum(self.below[index, j] * z[min(i, index), max(i, index)] for index in range(j + 1, P))
            z[j, j] = 1 / self.pivots[j] - sum(self.below[index, j] * z[j, index] for index in range(j + 1, P))
        return [z[index, index] for index in range(P)]


def eliminated(H: Triangle, g: Mapping[int, Array], k: int, pivot: Array) -> tuple[Triangle, Mapping[int, Array]]:
    """Return the matrix and the gradient of the other parameters at the best value of parameter k (Schur complement).

    Parameters
    ----------
    g
        By parameter.
    pivot
        What H[k, k] is taken for: damped, or infinite to leave k where it is.
    """

    def entry(i: int, j: int) -> Array:
        return H[min(i, j), max(i, j)]

    rest = [i for i in g if i != k]
    share = {i: entry(i, k) / pivot for i in rest}
    return (
        {(i, j): H[i, j] - share[i] * entry(k, j) for i in rest for j in rest if i <= j},
        {i: g[i] - share[i] * g[k] for i in rest},
    )
