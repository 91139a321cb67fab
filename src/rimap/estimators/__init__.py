"""Estimators: one file each, found by looking into this folder."""

from __future__ import annotations

from rimap.discovery import class_of, classes_in
from rimap.estimators.base import Estimator

__all__ = ["Estimator", "estimator_named", "estimators"]


def estimators() -> dict[str, type[Estimator]]:
    """Return every estimator, by the name that `--estimator` takes."""
    return classes_in("rimap.estimators", Estimator)  # type: ignore[type-abstract]


def estimator_named(name: str) -> type[Estimator] | None:
    """Return the estimator of this name, `None` if there is none: the others are not imported if it is in the folder
    `name`.
    """
    own = class_of(f"rimap.estimators.{name}.estimator", Estimator, name)  # type: ignore[type-abstract]
    return own or estimators().get(name)
