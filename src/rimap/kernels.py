"""Compiled kernels: numba's `njit`, kept on disk so that what runs is always what the source says.

Numba recompiles a kernel when its own file changes, but not when a file changes that it calls or takes a constant from.
The folder of the compiled code is therefore named after a hash of the file and of all that it imports: other code,
another folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from rimap.source_hashes import PACKAGE, kernel_fingerprint

#: Folders that are kept: one for each file with kernels, for each of a few branches or installed versions.
_KEPT_FOLDERS = 80
#: Days after which a folder that nothing has used goes, however few there are.
_KEPT_DAYS = 14.0
#: Hours for which a folder is kept in any case: a run that uses it would have to compile again.
_KEPT_HOURS = 1.0
#: What a process locks while it changes the list of compiled kernels of a folder.
_LOCK = "index.lock"
#: Names of the folders of compiled code: nothing else is ever removed.
_FOLDER = re.compile(r"rimap-[0-9a-f]{16}")
_lock = threading.Lock()
_announcements: list[Callable[[], None]] = []
#: All kernels of the files that have been imported, as numba's dispatchers.
MADE: list[Any] = []


def announce_compiling(tell: Callable[[], None]) -> None:
    """Call `tell` once, before the next kernel that has to be compiled; nothing is called if all are compiled
    already.
    """
    _announcements[:] = [tell]


def is_kept(dispatcher: object, arguments: tuple[object, ...]) -> bool:
    """Return whether a kernel (numba's dispatcher) has been compiled for some types of arguments, or is never kept."""
    contains = getattr(getattr(dispatcher, "_cache", None), "contains", None)
    return contains is None or bool(contains(arguments, getattr(dispatcher, "targetctx", None)))


@contextlib.contextmanager
def locked(path: Path, longest_s: float = 60.0) -> Iterator[None]:
    """Hold a lock among processes, which ends with this process, however that ends.

    If there are no such locks (Windows, some file servers), and after `longest_s`, nothing is held.
    """
    try:
        import fcntl

        file = path.open("ab")
    except (ImportError, OSError):
        yield
        return
    with file:
        until = time.monotonic() + longest_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(0.02)
            except OSError:
                break
        yield


def njit(
    *,
    nogil: bool = True,
    cache: bool = True,
    fastmath: bool | set[str] = False,
    inline: str = "never",
    error_model: str = "python",
    counts_references: bool = True,
    from_python: bool = True,
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function as `numba.njit` does, and keep the compiled code in `kernel_folder`.

    A folder that cannot be written, a full disk or damaged files there cost the time to compile, never the run.

    Parameters
    ----------
    nogil, cache, fastmath, inline, error_model
        Those of `numba.njit`. Kernels release the GIL, so that threads share a volume.
    counts_references
        Whether arrays are counted as they are passed on. A kernel that makes no array needs no counts, and is up to
        twice as fast without them if it is called for each voxel.
    from_python
        Whether Python calls the kernel. What only other kernels call needs no way in from Python, which would take
        longer to compile than a small kernel itself.
    """
    import numba  # slow to import, and only kernels need it

    def compiled(function: Callable[..., Any]) -> Any:
        options = {"nogil": nogil, "fastmath": fastmath, "inline": inline, "error_model": error_model}
        options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": not from_python}
        dispatcher = numba.njit(**options, **({} if counts_references else {"_nrt": False}))(function)
        MADE.append(dispatcher)
        folder = kernel_folder(Path(function.__code__.co_filename)) if cache else None
        if folder is not None:
            with contextlib.suppress(RuntimeError), _numba_cache(folder):  # RuntimeError: numba found no place at all
                kept = _lenient_cache()(function)
                if folder in Path(kept.cache_path).parents:  # not one that numba chose because the folder is gone
                    dispatcher._cache = kept
        return dispatcher

    return compiled


@lru_cache(maxsize=64)
def kernel_folder(file: Path | None = None) -> Path | None:
    """Return the folder in which the compiled kernels of a file are kept, `None` if none can be written.

    It is named after the sources, and is in the first of these that can be written: `NUMBA_CACHE_DIR`, the
    `__pycache__` of the package, the user's cache, a private folder among the temporary files.
    """
    return cache_folder(key) if (key := kernel_fingerprint(file)) else None


def cache_folder(key: str) -> Path | None:
    """Return a folder, which nobody else can write, for what is made of the sources with this hash (16 hexadecimal
    digits).
    """
    for place in (_chosen_by_user, _beside_package, _user_cache, _private):
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
            if (base := place()) is not None:
                return _usable(base / f"rimap-{key}")
    return None


def _chosen_by_user() -> Path | None:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return Path(chosen) if chosen else None


def _beside_package() -> Path:
    return PACKAGE / "__pycache__"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rimap"


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


def _usable(folder: Path) -> Path:
    """Return the folder, made and writable; mark it as used, and remove those of sources that are long gone.

    Raises
    ------
    OSError
        If it cannot be made or written.
    """
    if folder.is_dir() and os.access(folder, os.W_OK):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile: tried below
            os.utime(folder)
            return folder
    new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        os.utime(folder)
    if new:
        _fill_from_package(folder)
        _remove_old(folder.parent)
    return folder


def _fill_from_package(folder: Path) -> None:
    """Copy what `rimap --warm-up` compiled beside the package, if it cannot be written there, as in a container.

    The package is as trusted as its code. numba recompiles what was compiled for another processor.
    """
    compiled = _beside_package() / folder.name
    if compiled != folder and compiled.is_dir():
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(compiled, folder, dirs_exist_ok=True)
            os.utime(folder)


def _remove_old(base: Path) -> None:
    """Remove all but the newest folders, and what is long unused. A process that still uses one compiles again."""
    with contextlib.suppress(OSError):
        folders = [
            path for path in base.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]
        age = {folder: time.time() - folder.stat().st_mtime for folder in folders}
        for place, folder in enumerate(sorted(folders, key=age.__getitem__)):
            too_many = place > _KEPT_FOLDERS and age[folder] > _KEPT_HOURS * 3600
            if too_many or age[folder] > _KEPT_DAYS * 86400:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _numba_cache(folder: Path) -> Iterator[None]:
    """Let numba choose `folder` for the caches that are made meanwhile; other code keeps its own."""
    from numba import config

    with _lock:
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder)
        try:
            yield
        finally:
            config.CACHE_DIR = before


@lru_cache(maxsize=1)
def _lenient_cache() -> type[Any]:
    """Return numba's cache of a function, with errors of the disk and of damaged files turned into "not there"."""
    from numba.core.caching import FunctionCache
    from numba.core.runtime import rtsys  # what allocates arrays for compiled code

    class LenientCache(FunctionCache):  # type: ignore[misc]
        def load_overload(self, sig: Any, target_context: Any) -> Any:
            # numba's own method also registers all that can be compiled, which takes ten times as long as loading.
            rtsys.initialize(target_context)
            found = self._found(sig, target_context)
            if found is None and _announcements:
                _announcements.pop()()
            return found

        def contains(self, sig: Any, target_context: Any) -> bool:
            """Return whether the code for a signature is kept, without loading it."""
            with contextlib.suppress(Exception):
                return self._index_key(sig, target_context.codegen()) in self._cache_file._load_index()
            return False

        def _found(self, sig: Any, target_context: Any) -> Any:
            try:
                found = self._load_overload(sig, target_context)
                wanted = sig if isinstance(sig, tuple) else sig.args
                # Two processes that write at a time without a lock can give a file to the wrong signature.
                return found if found is None or tuple(found.signature.args) == tuple(wanted) else None
            except Exception:  # whatever a damaged file may raise
                with contextlib.suppress(Exception):
                    self.flush()  # an empty index: what is compiled now replaces the damaged file
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            folder = Path(self.cache_path)
            with contextlib.suppress(Exception), locked(folder / _LOCK):  # numba reads the index, adds, and writes it
                super().save_overload(sig, data)  # no space, no folder any more: the compiled code is in memory

    return LenientCache
