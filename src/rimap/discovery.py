"""A folder is its registry: find the classes that its files (and entry points) define."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import TypeVar

T = TypeVar("T")


def _files(path: Iterable[str], package: str) -> list[str]:
    """Return the modules of a package that may define one of its classes: its files, and `estimator` of its folders."""
    names = []
    for module in pkgutil.iter_modules(path):
        inner = f"{package}.{module.name}"
        if not module.ispkg:
            names.append(inner)
        elif importlib.util.find_spec(f"{inner}.{package.rsplit('.', 1)[-1].rstrip('s')}"):
            names.append(f"{inner}.{package.rsplit('.', 1)[-1].rstrip('s')}")
    return names


def classes_in(package: str, base: type[T]) -> dict[str, type[T]]:
    """Return the concrete subclasses of `base` in the modules of `package`, by their `name`.

    Third parties add theirs through an entry point of the group `package` (`rimap.signals`,
    `rimap.estimators`).
    """
    folder = importlib.import_module(package)
    modules = [importlib.import_module(name) for name in _files(folder.__path__, package)]
    found = [c for m in modules for c in vars(m).values() if isinstance(c, type) and c.__module__ == m.__name__]
    found += [e.load() for e in entry_points(group=package)]
    return {
        c.name: c  # type: ignore[attr-defined]
        for c in found
        if issubclass(c, base) and c is not base and not getattr(c, "__abstractmethods__", None)
    }
