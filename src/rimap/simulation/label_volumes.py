"""Label volumes: the labels that they may contain, and those of the brain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array
from rimap.errors import InputError
from rimap.simulation.tissues import BRAIN_LABELS, LABELS


def brain_mask(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the brain mask (*X) of labels (*X): CSF, grey matter, white matter and vessels."""
    return np.isin(labels, BRAIN_LABELS)


def as_labels(values: Array, source: str = "the anatomy") -> NDArray[np.uint8]:
    """Check label values (X, Y, Z) and return them as uint8.

    Raises
    ------
    InputError
        If there are not three axes, a value is not a label of BrainWeb, or no label belongs to the brain.
    """
    values = np.asarray(values)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise InputError(f"{source}: expected a label volume with three axes, got shape {values.shape}.")
    labels = values.astype(np.uint8) if np.isfinite(values).all() else np.zeros(values.shape, np.uint8)
    if not (labels == values).all() or labels.max(initial=0) >= len(LABELS):
        raise InputError(
            f"{source}: expected the labels of BrainWeb, whole numbers from 0 to {len(LABELS) - 1} "
            f"({', '.join(LABELS)}), got values from {values.min():g} to {values.max():g}. Give a label image."
        )
    if not brain_mask(labels).any():
        raise InputError(
            f"{source}: expected a brain (labels 1, 2, 3 or 8: CSF, GM, WM, vessels), got none of these labels."
        )
    return labels
