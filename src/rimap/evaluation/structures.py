"""The small structures of Fig. 3: single pixels and lines whose T1 differs from the tissue around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import SignalModel
from rimap.simulation.tissues import GM, WM

#: Pixels of a line; the paper does not say.
LINE = 9


@dataclass(frozen=True)
class Structure:
    """One kind of structure.

    Parameters
    ----------
    name
        Ω's index in the paper.
    T1
        Its value, ms.
    tissue
        Label of the surrounding tissue.
    shape
        Pixels along the two axes.
    """

    name: str
    title: str
    T1: float
    tissue: int
    shape: tuple[int, int]


#: §5.1.2. The first axis of a slice runs left to right, the second upwards.
STRUCTURES = (
    Structure("hypo_point", "hypo-intense point in GM", 400.0, GM, (1, 1)),
    Structure("hyper_point", "hyper-intense point in WM", 1200.0, WM, (1, 1)),
    Structure("vertical_line", "vertical line in WM", 1200.0, WM, (1, LINE)),
    Structure("horizontal_line", "horizontal line in WM", 1200.0, WM, (LINE, 1)),
)


@dataclass(frozen=True, eq=False)
class Placed:
    """Structures on a slice.

    Parameters
    ----------
    inside
        For each kind, (*X): the index (1, 2, …) of the structure that a pixel is of, else 0.
    around
        The same for the immediate neighbourhood, one pixel wide.
    """

    inside: dict[str, NDArray[np.int64]]
    around: dict[str, NDArray[np.int64]]

    def count(self, name: str) -> int:
        """Return how many structures of a kind were placed."""
        return int(self.inside[name].max())


def place(
    labels: NDArray[Any],
    rng: np.random.Generator,
    *,
    count: int = 8,
    distance: int = 8,
    structures: Sequence[Structure] = STRUCTURES,
) -> Placed:
    """Place up to `count` structures of each kind on a slice (X, Y), nowhere nearer to each other than `distance`.

    A structure and its neighbourhood lie inside their tissue.
    """
    free = np.ones(labels.shape, bool)
    inside = {structure.name: np.zeros(labels.shape, np.int64) for structure in structures}
    around = {structure.name: np.zeros(labels.shape, np.int64) for structure in structures}
    for structure in sorted(structures, key=lambda s: -max(s.shape)):  # the largest have fewest places
        (a, b), X = structure.shape, labels.shape
        windows = np.lib.stride_tricks.sliding_window_view(labels == structure.tissue, (a + 2, b + 2)).all((-2, -1))
        sites = rng.permutation(np.argwhere(windows))
        n = 0
        for x, y in sites:
            box = (slice(x, x + a + 2), slice(y, y + b + 2))
            if n == count:
                break
            if not free[box].all():
                continue
            n += 1
            around[structure.name][box] = n
            core = (slice(x + 1, x + 1 + a), slice(y + 1, y + 1 + b))
            around[structure.name][core] = 0
            inside[structure.name][core] = n
            reach = (
                slice(max(0, x - distance), min(X[0], x + a + 2 + distance)),
                slice(max(0, y - distance), min(X[1], y + b + 2 + distance)),
            )
            free[reach] = False
    return Placed(inside, around)


#: The amplitude of grey matter (Table 1), where A of CSF is 1.
GREY_MATTER_A = 0.85


def with_structures(
    kappa: NDArray[Any], model: SignalModel, placed: Placed, structures: Sequence[Structure] = STRUCTURES
) -> NDArray[np.float64]:
    """Return the maps κ (Q, X, Y) with the relaxation time changed inside the structures."""
    out = np.array(kappa, float)
    for structure in structures:
        out[model.time_index][placed.inside[structure.name] > 0] = structure.T1
    return out


def uniform_tissue(model: SignalModel, T: NDArray[Any]) -> NDArray[np.float64]:
    """Return κ (Q, *X) for relaxation times T (*X): the amplitude is that of grey matter, and a field is typical
    everywhere.

    >>> from rimap import InversionRecovery
    >>> uniform_tissue(InversionRecovery(tau=[50, 400, 1100, 2500]), np.array([800.0])).ravel()
    array([  0.85,   1.9 , 800.  ])
    """
    known = {
        parameter.name: GREY_MATTER_A if parameter.amplitude else parameter.in_a_scan.middle
        for parameter in model.parameters
        if parameter != model.time
    }
    return np.stack(
        [
            np.full(np.shape(T), known[parameter.name]) if parameter.name in known else T
            for parameter in model.parameters
        ]
    )


def disc(shape: tuple[int, ...], centre: Sequence[float], radius: float) -> NDArray[np.bool_]:
    """Return the mask (*X) of a disc or ball."""
    grids = np.ogrid[tuple(slice(length) for length in shape)]
    return np.asarray(sum((grid - c) ** 2 for grid, c in zip(grids, centre)) <= radius**2)
