"""Colours of maps, after the recommendation of the ISMRM (Fuderer et al. 2025, doi:10.1002/mrm.30290).

T1 and R1 are shown in lipari; T2, T2*, T1rho and their rates in navia. The tables of rates are reversed, so that a
tissue looks alike in both. The scale is linear at first and logarithmic above. The first entry is black and reserved
for voxels without a value; low values are clipped just above it.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Entries of a palette: what eight bits per pixel allow.
N_COLOURS = 256
#: A table whose name ends so is read from its last colour to its first.
REVERSED = "_r"


@cache
def palette(name: str) -> NDArray[np.uint8]:
    """Return a table of Crameri's colours (256, 3), its first entry black; ``grey`` is computed here.

    A name that ends in ``_r`` is that table reversed. The table is read from the files of `cmcrameri`: importing that
    package imports matplotlib, half a second for a table.
    """
    if name.endswith(REVERSED):
        colours = _table(name.removesuffix(REVERSED))[::-1].copy()
    else:
        colours = _table(name)
    colours[0] = 0
    return colours


def _table(name: str) -> NDArray[np.uint8]:
    if name == "grey":
        table = np.repeat(np.linspace(0, 1, N_COLOURS)[:, None], 3, axis=1)
    else:
        spec = importlib.util.find_spec("cmcrameri")
        folders = (spec.submodule_search_locations if spec else None) or []
        table = np.loadtxt(next(Path(folder, "cmaps", f"{name}.txt") for folder in folders))
    return np.asarray(np.round(table * 255), dtype=np.uint8)


def of_relaxation(name: str) -> str:
    """Return the palette of a relaxation time or rate by its name or its BIDS suffix without ``map``.

    >>> [of_relaxation(n) for n in ("T1", "T1*", "T2star", "R1", "R2*", "T1rho")]
    ['lipari', 'lipari', 'navia', 'lipari_r', 'navia_r', 'navia']
    """
    longitudinal = name[1:2] == "1" and not name[2:].lower().startswith(("rho", "ρ"))
    return ("lipari" if longitudinal else "navia") + (REVERSED if name[:1] == "R" else "")


def indices(values: ArrayLike, low: float, high: float, *, logarithmic: bool = False) -> NDArray[np.uint8]:
    """Return the entries of a palette for values: 0 if there is none (NaN), else 1 to 255.

    >>> indices([np.nan, -5.0, 0.0, 50.0, 100.0], 0, 100).tolist()
    [0, 1, 1, 128, 255]
    >>> indices([np.nan, 0.0, 100 / np.e, 100.0], 0, 100, logarithmic=True).tolist()
    [0, 1, 128, 255]
    """
    x = np.asarray(values, dtype=float)
    valid = np.isfinite(x)
    x = np.clip(np.where(valid, x, low), low, high)
    f = _remap(x, low, high) if logarithmic else (x - low) / (high - low)
    entry = 1 + np.floor(f * (N_COLOURS - 2) + 0.5)
    return np.where(valid, np.clip(entry, 1, N_COLOURS - 1), 0).astype(np.uint8)


def _remap(x: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Return the place (0 to 1) in the palette: linear up to high/e, logarithmic above."""
    knee = high / np.e
    middle = max(knee, low)
    share = (knee - low) / (2 * knee - low) if knee > low else 0.0  # of the palette that the linear part takes
    with np.errstate(divide="ignore", invalid="ignore"):
        log = share + (1 - share) * np.log(np.maximum(x, middle) / middle) / np.log(high / middle)
    return np.where(x > middle, log, share * (x - low) / (knee - low) if knee > low else 0.0)


def window(values: NDArray[Any], low: float | None = 0.0, upper: float = 0.98) -> tuple[float, float]:
    """Return a window with round ends: from `low` (or the 2 % quantile) to the quantile `upper`.

    It is around the value if all are the same and `low` is not given.

    >>> window(np.linspace(0, 1873.0, 1000))
    (0.0, 2000.0)
    >>> window(np.full(9, 1.88), low=None)
    (1.7, 2.1)
    """
    x = values[np.isfinite(values)]
    if not x.size:
        return (0.0, 1.0)
    high = float(np.quantile(x, upper))
    start = float(np.quantile(x, 1 - upper)) if low is None else low
    if not high - start > max(1e-9 * max(abs(high), abs(start)), 1e-290):  # one value, as good as
        size = abs(start) if abs(start) > 1e-280 else 1.0
        start, high = (start - 0.1 * size, start + 0.1 * size) if low is None else (start, start + size)
    step = _round_step(high - start, 8)
    return (float(np.floor(start / step + 1e-9) * step), float(np.ceil(high / step - 1e-9) * step))


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return about `n` round values from `low` to `high`.

    >>> ticks(0, 2000)
    [0.0, 500.0, 1000.0, 1500.0, 2000.0]
    """
    step = _round_step(high - low, n)
    first = np.ceil(low / step - 1e-9)
    return [float(step * index) + 0.0 for index in range(int(first), int(np.floor(high / step + 1e-9)) + 1)]


def _round_step(span: float, n: int) -> float:
    raw = span / n
    power = 10.0 ** np.floor(np.log10(raw))
    return float(power * next(s for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999))
