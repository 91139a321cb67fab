"""A folder is its registry: find the classes that its files (and entry points) define."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from rimap.errors import PluginWarning

T = TypeVar("T")


def classes_in(package: str, base: type[T], fault: Callable[[type[T]], str] = lambda found: "") -> dict[str, type[T]]:
    """Return the concrete subclasses of `base` in the modules of `package`, by their `name`.

    Third parties add theirs through an entry point of the group `package` (`rimap.signals`, `rimap.estimators`). A
    plugin that is broken, or that takes the name of another class, is skipped with a `PluginWarning` that names it: it
    must not stop the commands that have nothing to do with it.

    Parameters
    ----------
    fault
        Returns what is wrong with a plugin's class, "" if it can be used.
    """
    folder = importlib.import_module(package)
    found = _concrete((importlib.import_module(name) for name in _files(folder.__path__, package)), base)
    return found | dict(_plugins(package, base, fault, found))


def class_of(module: str, base: type[T], name: str) -> type[T] | None:
    """Return the concrete subclass of `base` called `name` in a module of this package, `None` if there is no such
    module or class.

    It is what `classes_in` has under this name, for no plugin may take the name of a class of the package.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:  # no such folder
        return None
    return _concrete([importlib.import_module(module)], base).get(name)


def _concrete(modules: Iterable[ModuleType], base: type[T]) -> dict[str, type[T]]:
    """Return the concrete subclasses of `base` that modules define, by their `name`."""
    own = [
        c
        for module in modules
        for c in vars(module).values()
        if isinstance(c, type) and c.__module__ == module.__name__
    ]
    return {
        c.name: c  # type: ignore[attr-defined]
        for c in own
        if issubclass(c, base) and c is not base and not getattr(c, "__abstractmethods__", None)
    }


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


def _plugins(
    group: str, base: type[T], fault: Callable[[type[T]], str], built_in: Iterable[str]
) -> Iterator[tuple[str, type[T]]]:
    """Yield name and class of each plugin that can be used, and warn about the others."""
    usable: dict[str, dict[type[T], EntryPoint]] = {}
    for entry in _entry_points(group):
        found, problem = _loaded(entry, base, fault)
        if found is None:
            _skip(entry, f"{problem}. Update or uninstall that package.")
        elif (name := found.name) in built_in:  # type: ignore[attr-defined]
            _skip(entry, f"its name {name!r} is that of a class of rimap. Give it another name.")
        else:
            usable.setdefault(name, {}).setdefault(found, entry)
    for name, claims in usable.items():
        if len(claims) == 1:
            yield name, next(iter(claims))
        for entry in claims.values() if len(claims) > 1 else ():
            others = " and ".join(_words(claim) for claim in claims.values() if claim is not entry)
            _skip(entry, f"{others} has the same name {name!r}. Uninstall one of them.")


def _entry_points(group: str) -> Iterable[EntryPoint]:
    try:
        return _entry_points_on(group, tuple(map(_dated, sys.path)))
    except Exception as error:  # one package whose metadata is damaged hides those of all others
        warnings.warn(
            f"rimap skips all plugins: reading the entry points raised {error!r}.", PluginWarning, stacklevel=1
        )
        return ()


@lru_cache(maxsize=8)
def _entry_points_on(group: str, path: tuple[tuple[str, int], ...]) -> EntryPoints:
    """Return the entry points of a group; the slow search for them would otherwise happen several times in a run."""
    return entry_points(group=group)


def _dated(folder: str) -> tuple[str, int]:
    """Return a folder of `sys.path` with the time of its last change (0 if absent): an installation changes it."""
    try:
        return folder, Path(folder).stat().st_mtime_ns
    except OSError:
        return folder, 0


def _loaded(entry: EntryPoint, base: type[T], fault: Callable[[type[T]], str]) -> tuple[type[T] | None, str]:
    """Return the class of a plugin, or `None` and why it cannot be used."""
    try:
        found = entry.load()
        if not isinstance(found, type) or not issubclass(found, base) or found is base:
            return None, f"expected a subclass of {base.__name__}, got {found!r}"
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            return None, f"it does not define {' and '.join(missing)}"
        for attribute in ("name", "title"):
            value = getattr(found, attribute, None)
            if not isinstance(value, str) or not value:
                return None, f"expected a text as its {attribute}, got {value!r}"
        problem = fault(found)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        said = " ".join(str(error).split())
        return None, f"it raised {type(error).__name__}{': ' * bool(said)}{said}"
    return (None, problem) if problem else (found, "")


def _words(entry: EntryPoint) -> str:
    package = f" of the package {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"{entry.name} = {entry.value}{package}"


def _skip(entry: EntryPoint, why: str) -> None:
    # One line of this file warns: Python then shows each text once, however often the folder is looked into.
    warnings.warn(f"rimap skips the plugin {_words(entry)}: {why}", PluginWarning, stacklevel=1)
