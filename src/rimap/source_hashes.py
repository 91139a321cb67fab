"""Which source code a number depends on: hashes of files of this package."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

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
    """Return a hash of the names below `root` and of the contents of files; only contents and names count, not dates."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
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
    text = _candidates(root)
    compiling = [f for f, content in text.items() if _COMPILES.search(content)]
    left = [file] if file in compiling else compiling
    found: set[Path] = set()
    while left:
        here = left.pop()
        if here not in found:
            found.add(here)
            left += [f for f in _imported(text[here], here, root) if f in text]
    return sorted(found)


@cache
def _candidates(root: Path) -> dict[Path, str]:
    """Return the text of the files that kernels may be made of."""
    return {
        file: file.read_text(encoding="utf-8")
        for file in root.rglob("*.py")
        if file.relative_to(root).parts[0] not in _WITHOUT_KERNELS
    }


def _imported(text: str, importer: Path, root: Path) -> Iterator[Path]:
    """Yield the files that the imports of a file may mean: modules, packages, and the modules among the names."""
    for package, in_parentheses, on_the_line, whole in _IMPORT.findall(text):
        name = package or whole
        if name.startswith("."):
            level = len(name) - len(name.lstrip("."))
            folder = importer.parents[level - 1].joinpath(*filter(None, name.lstrip(".").split(".")))
        elif name.split(".")[0] == root.name:
            folder = root.joinpath(*name.split(".")[1:])
        else:
            continue
        names = re.findall(r"\w+", in_parentheses or on_the_line)
        for path in (folder, *(folder / name for name in names)):
            yield from (path.with_suffix(".py"), path / "__init__.py")


@cache
def kernel_fingerprint(file: Path | None = None) -> str:
    """Return the hash of the sources of the kernels of a file, or of all kernels; "" without sources."""
    try:
        files = kernel_sources(file)
        return source_fingerprint(files) if files else ""
    except OSError:  # a zipped or stripped package
        return ""
