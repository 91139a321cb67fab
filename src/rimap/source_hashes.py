"""Which source code a number depends on: hashes of files of this package."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

#: The root of all file names in a hash.
PACKAGE = Path(__file__).parent

#: Folders and files whose code no kernel calls, which a test proves: other floors, and what is used around the kernels.
_WITHOUT_KERNELS = (
    "signals",
    "series.py",
    "likelihood.py",
    "errors.py",
    "arrays.py",
    "cli",
    "workflow",
    "report",
    "evaluation",
    "training",
    "parallel",
    "registration",
    "simulation",
    "io",
)
#: What a file with a kernel contains: a decorator that compiles.
_COMPILES = re.compile(r"^\s*@(\w+\.)*(n?jit|compiled|kernel|g?u?vectorize)\b", re.MULTILINE)
#: An import: from where, and what, in parentheses or to the end of the line.
_IMPORT = re.compile(r"^\s*(?:from +(\.*[\w.]*) +import +(?:\(([^)]*)\)|(.*))|import +(rimap[\w.]*))", re.MULTILINE)


def source_fingerprint(files: Iterable[Path], root: Path = PACKAGE) -> str:
    """Return a hash of the names below `root` and of the contents of files; only contents and names count, not
    dates.
    """
    return _hash_of(((file, file.read_bytes()) for file in sorted(files)), root)


def _hash_of(contents: Iterable[tuple[Path, bytes]], root: Path) -> str:
    digest = hashlib.sha256()
    for file, content in contents:
        digest.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def sources_of(parts: Iterable[str], root: Path = PACKAGE) -> list[Path]:
    """Return the Python files of parts of the package: folders and files by their names below `root`."""
    found: list[Path] = []
    for part in parts:
        path = root / part
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def kernel_sources(file: Path | None = None, root: Path = PACKAGE) -> list[Path]:
    """Return the files whose code ends up in compiled kernels: those that compile, and all that these import.

    Functions and constants of an imported file become part of the kernel that uses them.

    Parameters
    ----------
    file
        Only for the kernels of this file; for all kernels if left out, or if the file is no part of the package.
    """
    sources = _candidates(root)
    compiling = [source for source in sources.values() if source.compiles]
    chosen = [s for s in compiling if s.file == file]
    left, found = chosen or compiling, set[Path]()
    while left:
        here = left.pop()
        if here.file not in found:
            found.add(here.file)
            left += [sources[name] for name in here.imported if name in sources]
    return sorted(found)


@dataclass(frozen=True, eq=False)
class _Source:
    """A file of the package: its module's name (that of the folder for `__init__.py`), and its content."""

    file: Path
    name: str
    content: bytes

    @cached_property
    def _text(self) -> str:
        return self.content.decode()

    @cached_property
    def compiles(self) -> bool:
        """Whether it has a decorator that compiles."""
        return _COMPILES.search(self._text) is not None

    @cached_property
    def imported(self) -> frozenset[str]:
        """The modules that its imports may mean: modules, packages, and what may be modules among the names."""
        package = self.name.split(".") if self.file.name == "__init__.py" else self.name.split(".")[:-1]
        names: set[str] = set()
        for source, in_parentheses, on_the_line, whole in _IMPORT.findall(self._text):
            module = source or whole
            if module.startswith("."):
                beyond = module.lstrip(".")
                above = package[: len(package) - (len(module) - len(beyond) - 1)]
                module = ".".join([*above, *filter(None, [beyond])])
            names.add(module)
            names.update(f"{module}.{name}" for name in re.findall(r"\w+", in_parentheses or on_the_line))
        return frozenset(names)


@cache
def _candidates(root: Path) -> dict[str, _Source]:
    """Return the files that kernels may be made of, by the names of their modules."""
    found: dict[str, _Source] = {}
    for folder, folders, files in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        if not parts:
            folders[:] = [name for name in folders if name not in _WITHOUT_KERNELS]
            files = [name for name in files if name not in _WITHOUT_KERNELS]
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            if name.endswith(".py"):
                file = Path(folder, name)
                module = ".".join([root.name, *parts, *([] if name == "__init__.py" else [name[:-3]])])
                found[module] = _Source(file, module, file.read_bytes())
    return found


@cache
def kernel_fingerprint(file: Path | None = None) -> str:
    """Return the hash of the sources of the kernels of a file, or of all kernels; "" without sources."""
    try:
        files = kernel_sources(file)
    except OSError:  # a zipped or stripped package
        return ""
    contents = {source.file: source.content for source in _candidates(PACKAGE).values()}
    return _hash_of(((file, contents[file]) for file in files), PACKAGE) if files else ""
