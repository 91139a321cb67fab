"""What this process holds of an OUT: whether it is still so is asked before anything is written.

A run that was stopped for minutes (SIGSTOP, a laptop that was closed) cannot renew its claim. Another run takes it for
dead and takes over. When the first one continues, it must not write any more.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rimap.errors import InputError


@dataclass(frozen=True)
class Claim:
    """A file that says that a run holds an OUT, or a part of it.

    Parameters
    ----------
    out
        The folder that is held.
    path
        The file.
    text
        What the run wrote into it.
    by_age
        Whether nothing but the age of the file says that its owner lives: then another run may take it away.
    """

    out: Path
    path: Path
    text: bytes
    by_age: bool

    def check(self) -> None:
        """Refuse to continue if another run has taken over.

        Raises
        ------
        InputError
            With what to do.
        """
        try:
            os.utime(self.path)  # renews it, so that it stays ours while something is written
            lost = self.path.read_bytes() != self.text
        except FileNotFoundError:
            lost = self.by_age  # a lock of the operating system holds without its file
        except OSError:
            lost = False  # a file server that does not answer says nothing
        if lost or (not self.by_age and self._claimed_by_another()):
            raise InputError(
                f"this run has lost {self.out}: it was suspended for minutes, so that another run took over and may "
                "write there. It has stopped writing. Run it again when no other run writes there; finished series "
                "are kept."
            )

    def _claimed_by_another(self) -> bool:
        """Return whether a run that finds no locks here claims the same: this one was suspended, and taken for dead."""
        pattern = "lock*.held" if self.path.name == "lock" else f"{glob.escape(self.path.name)}.*.held"
        with contextlib.suppress(OSError):
            return any(True for name in (pattern, "lock.*.held") for _ in self.path.parent.glob(name))
        return False


_held: list[Claim] = []


def hold(claim: Claim) -> None:
    """Remember a claim of this process, or of the one that it works for."""
    if claim not in _held:
        _held.append(claim)


def let_go(claim: Claim) -> None:
    """Forget a claim."""
    if claim in _held:
        _held.remove(claim)


def claims_on(out: Path) -> tuple[Claim, ...]:
    """Return what this process holds of a folder, for the processes that work for it."""
    return tuple(c for c in _held if c.out == Path(out))


def adopt(claims: Iterable[Claim]) -> None:
    """Hold, in a worker, what the run holds that it works for, and nothing else."""
    _held[:] = list(claims)


def check_claims(out: Path) -> None:
    """Refuse to write into a folder that this run held and lost.

    Raises
    ------
    InputError
        If another run has taken it over.
    """
    for claim in claims_on(out):
        claim.check()
