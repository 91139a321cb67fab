"""Estimators: one file each, found by looking into this folder."""

from __future__ import annotations

from rimap.discovery import classes_in
from rimap.estimators.base import Estimator

__all__ = ["Estimator", "estimators"]


def estimators() -> dict[str, type[Estimator]]:
    """Return every estimator, by the name that `--estimator` takes."""
    return classes_in("rimap.estimators", Estimator)  # type: ignore[type-abstract]
