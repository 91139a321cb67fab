"""Write files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rimap.errors import InputError

#: Bytes, or a function that gives them, whole or piece by piece.
Content = bytes | Callable[[], bytes | Iterable[bytes]]


def as_bytes(text: str) -> bytes:
    """Return text as UTF-8; bytes of file names that are not UTF-8 are spelled ``\\udcf6``, which JSON reads back."""
    return text.encode(errors="backslashreplace")


def write_whole(path: Path | str, data: bytes | str) -> None:
    """Write one file whole or not at all, through a temporary name in the same folder."""
    write_together({Path(path): as_bytes(data) if isinstance(data, str) else data})


def write_together(files: Mapping[Path, Content], remove: Iterable[Path] = (), threads: int = 1) -> None:
    """Write several files, all or none, in their order; then remove others.

    All are written under temporary names and synced to disk before the first gets its own. If a renaming fails, those
    before it are taken back and what they replaced is restored.

    Parameters
    ----------
    files
        Content by path, or a function that gives it when it is needed, in one piece or in several.
    remove
        Files that the new ones make out of date.
    threads
        How many files are made and written at the same time: compressing, which is most of it, can share the cores.

    Raises
    ------
    InputError
        Where the folder cannot be made or written (no permission, disk full).
    """
    folders: list[Path] = []
    temporary: dict[Path, Path] = {}
    backup: dict[Path, Path] = {}
    done: list[Path] = []
    try:
        for path in files:
            folders += make_folder(path.parent)
            temporary[path] = _beside(path, "tmp")
        _write_each([(temporary[path], data) for path, data in files.items()], threads)
        gone = [path for path in remove if path.exists() and path not in files]
        for path in [*(file for file in files if file.exists()), *gone]:
            backup[path] = _beside(path, "old")
            _link(path, backup[path])
        for path, name in temporary.items():
            done.append(path)
            name.replace(path)
        for path in gone:
            path.unlink()
    except BaseException as error:
        for path in done:
            if path not in backup:
                path.unlink(missing_ok=True)
        for path, old in backup.items():
            if old.exists():
                old.replace(path)  # does nothing where both are names of one file
                old.unlink(missing_ok=True)
        _clean(temporary.values())
        for folder in reversed(folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            where = error.filename or next(iter(files)).parent
            raise InputError(f"cannot write to {where}: {error.strerror or error}. Nothing was written.") from None
        raise
    _clean(backup.values())
    for folder in {path.parent for path in files}:
        _sync(folder)


def _write_each(files: Sequence[tuple[Path, Content]], threads: int) -> None:
    """Write new files and sync them to disk; after an error, those that are not begun are left out."""
    if threads < 2 or len(files) < 2:
        for path, data in files:
            _write(path, data)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        for written in [pool.submit(_write, path, data) for path, data in files]:
            written.result()
    finally:
        pool.shutdown(cancel_futures=True)  # waits for those that are being written


def _write(path: Path, data: Content) -> None:
    pieces = data() if callable(data) else data
    with path.open("xb") as file:
        for piece in (pieces,) if isinstance(pieces, bytes) else pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, the outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    made: list[Path] = []
    try:
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            made.append(new)
    except OSError:
        for new in reversed(made):
            with contextlib.suppress(OSError):
                new.rmdir()
        raise
    return made


def is_temporary(name: str) -> bool:
    """Return, by its name, whether a file is one that a killed process left behind."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.(tmp|old)", name) is not None


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{what}")


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:
        shutil.copy2(path, to)


def _clean(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
