"""Somewhere to keep compiled kernels, also where neither the package nor the user's home can be written."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path


def ensure_cache() -> None:
    """Give numba a folder of its own below the temporary one, if it would find no other.

    Numba keeps compiled code beside the source, else in the user's cache. Where both are read-only (a container, a
    job without a home) it refuses to import; NUMBA_CACHE_DIR is then set, for this process and its children.
    """
    if (
        os.environ.get("NUMBA_CACHE_DIR")
        or _writable(Path(__file__).parent / "__pycache__")
        or _writable(_user_cache())
    ):
        return
    os.environ["NUMBA_CACHE_DIR"] = folder = str(_private())
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder


def _user_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home at all
        return Path("/nonexistent")


def _writable(path: Path) -> bool:
    nearest = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    return os.access(nearest, os.W_OK | os.X_OK)


def _private() -> Path:
    """Return a folder that nobody else can write: what is cached there is run."""
    if not hasattr(os, "getuid"):
        return Path(tempfile.mkdtemp(prefix="rimap-"))
    path = Path(tempfile.gettempdir()) / f"rimap-numba-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="rimap-"))
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return path if ours else Path(tempfile.mkdtemp(prefix="rimap-"))
