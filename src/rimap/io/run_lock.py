"""One run at a time writes into an OUT; what a killed run left behind is removed by the next."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.atomic import is_temporary, make_folder
from rimap.io.series_records import FOLDER
from rimap.io.write_claims import Claim, hold, let_go

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Of more subjects than this, all of OUT is locked.
_MOST_PARTS = 64
#: A claim without `flock` is renewed this often, and is dead after this long (s).
_BEAT, _DEAD = 20.0, 180.0
#: How often a new claim looks for others, and how long it waits between (s).
_LOOKS, _LOOK_AGAIN = 4, 0.25
#: Errors of file systems that have no locks, as some network drives.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def locked(out: Path, parts: Sequence[str] = ()) -> Iterator[None]:
    """Lock OUT, so that a second run is refused; first remove the temporary files of a run that was killed.

    The lock is an advisory one of the operating system (`flock`), which ends with its process, however that ends. If
    the file system has none, each run claims OUT with a file that it touches; a claim not touched for three minutes is
    dead. The same folder may have locks on one machine and none on another. A locked file is therefore touched as well:
    runs without locks take it for a claim.

    Parameters
    ----------
    out
        Made where it is missing; removed at the end if it is empty.
    parts
        Only what belongs to these (``sub-01``) will be written, so that jobs of an array may share OUT; all if empty.

    Raises
    ------
    InputError
        Where another run holds OUT, or one of the parts; where OUT cannot be written.

    Notes
    -----
    A forked child holds the lock as long as it lives; start workers by spawn.
    """
    parts = () if len(set(parts)) > _MOST_PARTS else tuple(dict.fromkeys(parts))
    folder = Path(out) / FOLDER
    made: list[Path] = []
    held: list[_Held] = []
    try:
        try:
            made = make_folder(folder)
            before = _left_behind(folder, parts)
            if parts:
                held.append(_take(folder / "lock", out, shared=True))
            for name in [f"lock-{part}" for part in parts] or ["lock"]:
                held.append(_take(folder / name, out))
            if before:
                remove_leftovers(Path(out), parts)
        except OSError as error:
            raise InputError(
                f"cannot write to {error.filename or out}: {error.strerror or error}. Nothing was written."
            ) from None
        yield
    finally:
        for lock in reversed(held):
            lock.release()
        for new in reversed(made if Path(out).exists() else []):
            with contextlib.suppress(OSError):
                new.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()


def remove_leftovers(out: Path, parts: Sequence[str] = ()) -> None:
    """Remove the temporary files and slabs in OUT, those of `parts` alone where they are given. Hold the lock."""

    def mine(name: str) -> bool:
        return not parts or any(re.match(rf"(\.|slabs-){re.escape(part)}(_|\.|$)", name) for part in parts)

    inside = (
        [out / part for part in parts]
        if parts
        else [path for path in out.iterdir() if path.is_dir() and path.name != FOLDER]
    )
    found = [f for f in (*out.iterdir(), *(out / FOLDER).iterdir()) if mine(f.name)]
    for folder in inside:
        for where, _, names in os.walk(folder):
            found += [Path(where) / name for name in names if name.startswith(".")]
    for path in found:
        with contextlib.suppress(OSError):
            if is_temporary(path.name):
                path.unlink()
            elif path.name.startswith("slabs-") and path.parent.name == FOLDER:
                shutil.rmtree(path)
    if not parts:
        for path in (out / FOLDER).glob("lock-*"):
            if path.suffix != ".held":  # a claim is removed by its owner, or by age
                path.unlink(missing_ok=True)
        for path in (out / FOLDER).glob("lock.*.dead"):  # whoever took it away was killed
            path.unlink(missing_ok=True)


def _left_behind(folder: Path, parts: Sequence[str]) -> bool:
    """Return whether there is a lock file. (Whether it is still held shows when it is taken.)"""
    names = [f"lock-{part}" for part in parts] if parts else ["lock", *(path.name for path in folder.glob("lock-*"))]
    return any((folder / name).exists() or any(folder.glob(f"{glob.escape(name)}.*.held")) for name in names)


@dataclass
class _Held:
    path: Path
    handle: int | None
    stop: threading.Event | None = None
    claim: Claim | None = None

    def __post_init__(self) -> None:
        if self.claim is not None:
            hold(self.claim)

    def release(self) -> None:
        if self.claim is not None:
            let_go(self.claim)
        with contextlib.suppress(OSError):
            if self.stop is not None:
                self.stop.set()
            if self.handle is None and self.stop is not None:
                self.path.unlink(missing_ok=True)
            elif self.handle is not None:
                # The last one out takes the file away, but not the trace of a run that was killed.
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                text = _holder(self.path)
                if not text or text.get("pid") == os.getpid():
                    self.path.unlink(missing_ok=True)
        if self.handle is not None:
            os.close(self.handle)


def _take(path: Path, out: Path, *, shared: bool = False) -> _Held:
    if fcntl is None:
        return _claim(path, out, shared=shared)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino != path.stat().st_ino:
                raise FileNotFoundError(path)  # its last owner took it away meanwhile
            if shared:
                return _Held(path, handle)
            return _hold(path, handle, out)
        except FileNotFoundError:
            os.close(handle)
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_LOCKS:
                if new:
                    path.unlink(missing_ok=True)
                return _claim(path, out, shared=shared)
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise
            raise _told(out, path) from None
        except BaseException:
            os.close(handle)
            raise


def _hold(path: Path, handle: int, out: Path) -> _Held:
    """Hold a file that this process has locked, also against runs that find no locks there.

    An older kernel or another mount may show the folder without locks. Such a run looks for the text of this file and
    for its age. It writes its claim before it looks, and this run writes its text before it looks for claims: at least
    one of two sees the other.

    Raises
    ------
    FileNotFoundError
        If another run has taken the file away meanwhile.
    """
    text = _me()
    os.ftruncate(handle, 0)
    os.pwrite(handle, text, 0)
    if os.fstat(handle).st_ino != path.stat().st_ino:
        raise FileNotFoundError(path)
    if rivals := _rivals(path, path):
        os.ftruncate(handle, 0)
        raise _told(out, rivals[0])
    return _Held(path, handle, _kept_young(path), Claim(out, path, text, by_age=False))


def _kept_young(path: Path) -> threading.Event:
    """Touch a file again and again, until the event that is returned is set."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(_BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, daemon=True).start()
    return stop


def _claim(path: Path, out: Path, *, shared: bool) -> _Held:
    """Hold a lock by a file of one's own, ``<path>.<token>.held``, where the file system has no locks.

    Each run first makes its claim and then looks for others, so that of two runs at least one sees the other. No run
    ever removes a claim that may be alive: a claim is dead by age alone, because the number of a process says nothing
    in a container or on another machine.
    """
    if shared:  # the parts claim for themselves, and look for who holds the whole
        return _Held(path, None)
    mine = path.with_name(f"{path.name}.{secrets.token_hex(8)}.held")
    text = _me()
    _write_new(mine, text)
    try:
        for attempt in range(_LOOKS):
            if holders := _holders_of_locks(path, mine):
                raise _told(out, holders[0])
            rivals = _rivals(path, mine)
            if not rivals:
                break
            # Of two runs that started together, the one with the greater token gives way; an older run does not.
            if attempt == _LOOKS - 1 or min(rival.name for rival in rivals) < mine.name:
                raise _told(out, rivals[0].with_name(rivals[0].name.rsplit(".", 2)[0]))
            time.sleep(_LOOK_AGAIN)
    except BaseException:
        mine.unlink(missing_ok=True)
        raise
    return _Held(mine, None, _kept_young(mine), Claim(out, mine, text, by_age=True))


def _write_new(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


def _rivals(path: Path, mine: Path) -> list[Path]:
    """Return the living claims on the same, on the whole, or (for the whole) on any part; remove the dead ones."""
    pattern = "lock*.held" if path.name == "lock" else f"{glob.escape(path.name)}.*.held"
    found = {*path.parent.glob(pattern), *path.parent.glob("lock.*.held")} - {mine}
    living = []
    for claim in sorted(found):
        if _alive(claim, mine) or not _buried(claim, mine):
            living.append(claim)
    return living


def _holders_of_locks(path: Path, mine: Path) -> list[Path]:
    """Return the lock files of living runs that found locks where this one finds none."""
    found = {*path.parent.glob("lock-*" if path.name == "lock" else path.name), path.parent / "lock"}
    locks = [file for file in sorted(found) if file.suffix not in (".held", ".dead")]
    return [file for file in locks if _holder(file) and _alive(file, mine)]


def _buried(claim: Path, mine: Path) -> bool:
    """Remove a stale claim, unless its owner has renewed it in the meantime: then it is restored.

    Its owner touches it by its name before it writes. Either that was before the renaming, and shows; or it was after
    it, and fails, so that the owner knows.
    """
    grave = claim.with_name(f"{claim.name}.{secrets.token_hex(4)}.dead")
    try:
        claim.rename(grave)
    except FileNotFoundError:
        return True
    if _alive(grave, mine):
        grave.rename(claim)
        return False
    grave.unlink(missing_ok=True)
    return True


def _alive(claim: Path, mine: Path) -> bool:
    """Return whether a claim was touched within the last minutes, by the clock of the file server."""
    try:
        os.utime(mine)
        return mine.stat().st_mtime - claim.stat().st_mtime < _DEAD
    except FileNotFoundError:
        return False


def runs(pid: int) -> bool:
    """Return whether a process of this machine runs, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _me() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M")
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "token": secrets.token_hex(8)}
    return json.dumps(about).encode()


def _holder(path: Path) -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(path.read_bytes())
        return data if isinstance(data, dict) else {}
    return {}


def _told(out: Path, path: Path) -> InputError:
    """Return the message for the second run: who holds OUT."""
    who: dict[str, object] = {}
    for _ in range(5):  # its owner may just be writing it
        parts = sorted(path.parent.glob("lock-*")) if path.name == "lock" else []
        places = [*parts, path, *sorted(path.parent.glob(f"{glob.escape(path.name)}.*.held"))]
        who = next((w for w in map(_holder, places) if w), {})
        if who:
            break
        time.sleep(0.05)
    by = (
        f"process {who['pid']} on {who['host']}, since {who['since']}"
        if {"pid", "host", "since"} <= who.keys()
        else "a process that gives no name"
    )
    part = f" for {path.name.removeprefix('lock-')}" if path.name.startswith("lock-") else ""
    return InputError(
        f"another run is writing to {out}{part}: {by}. Wait until it has finished, or give another output folder."
    )
