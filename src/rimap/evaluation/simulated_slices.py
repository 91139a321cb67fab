"""What the simulated experiments look at: a slice of a brain that nothing was trained on, and its truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation.accuracy import REFERENCE_SIGNAL, crop
from rimap.evaluation.experiment import Settings
from rimap.evaluation.figures import label
from rimap.evaluation.named_estimators import DENOISED
from rimap.evaluation.tables import Row
from rimap.likelihood import Gaussian
from rimap.simulation.anatomies import digital_brain, load_anatomy
from rimap.simulation.label_volumes import brain_mask

#: Draws in one piece of work.
CHUNK = 10
#: From so many draws on, the methods below have a tenth of them.
MANY = 40
#: Estimators whose scatter is many times larger than that of the MLE, or that take many times longer.
FEWER_DRAWS = ("nlls", "global_b", "resnet:", DENOISED)


def brain_slice(settings: Settings) -> NDArray[np.uint8]:
    """Return the axial slice (X, Y) with most brain of `anatomies/test`, brain tissues only, cut to the brain.

    The built-in head if there are no data, and, at a third of the resolution, for `quick`.
    """
    folder = None if settings.quick or settings.data is None else settings.data / "anatomies" / "test"
    return _slice(settings.quick, folder)


@lru_cache(maxsize=2)
def _slice(quick: bool, folder: Path | None) -> NDArray[np.uint8]:
    files = sorted(folder.glob("*.nii*")) if folder and folder.is_dir() else []
    volume = load_anatomy(files[0]) if files else digital_brain() if quick else digital_brain((192, 216, 144))
    brain = np.where(brain_mask(volume), volume, 0).astype(np.uint8)
    labels = crop(brain[:, :, int((brain > 0).sum((0, 1)).argmax())])
    labels.setflags(write=False)
    return labels


def at_snr(snr: float) -> Gaussian:
    """Return the noise of an SNR: σ = 0.65/SNR."""
    return Gaussian(sigma=REFERENCE_SIGNAL / snr)


def chunks(n: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Yield first and one past the last of each piece of n draws."""
    for first in range(0, n, size):
        yield first, min(first + size, n)


def repeats_of(settings: Settings, full: int, quick: int, spec: str = "") -> int:
    """Return C; a tenth of many for the estimators of `FEWER_DRAWS`: it is RIMs that are compared with the MLE."""
    C = settings.repeats or (quick if settings.quick else full)
    return -(-C // 10) if spec.startswith(FEWER_DRAWS) and C >= MANY else C


def repeats_said(rows: Sequence[Row]) -> str:
    """Return ``C = 100 (MP-PCA, NLLS: 25)`` of a table."""
    C = {str(row["estimator"]): int(row["repeats"]) for row in rows}
    most = max(C.values())
    fewer = [f"{label(spec)}: {value}" for spec, value in C.items() if value < most]
    return f"C = {most}" + (f" ({'; '.join(fewer)})" if fewer else "")
