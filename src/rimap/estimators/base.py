"""What an estimator is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from rimap.series import ParameterMaps, WeightedSeries

#: Called with (voxels or slices done, of how many).
Progress = Callable[[int, int], None]


class Estimator(ABC):
    """From a `WeightedSeries` to `ParameterMaps`. A subclass is one file of this folder."""

    name: ClassVar[str]
    """What `--estimator` takes."""
    title: ClassVar[str]
    halo: int | None = 0
    """Voxels that a slab must reach beyond its own to give the map of the whole; `None`: solve whole."""

    @abstractmethod
    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series. The mask selects what is reported."""
