"""A suspended run that lost its claim notices this before it writes; a claim expires by age alone, without a race."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rimap.errors import InputError
from rimap.io import run_lock
from rimap.io.run_lock import locked
from rimap.io.write_claims import Claim, adopt, check_claims, claims_on

from .runs_in_parallel import side_by_side


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def none(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", none)
    monkeypatch.setattr(run_lock, "_LOOK_AGAIN", 0.01)


def the_claim(out: Path) -> Path:
    (path,) = (out / ".rimap").glob("*.held")
    return path


def age(path: Path) -> None:
    os.utime(path, (time.time() - 1000,) * 2)


@pytest.mark.usefixtures("no_flock")
class TestWithoutLocks:
    """Claims are files that their owners touch."""

    def test_a_suspended_run_whose_claim_was_taken_may_not_write(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with locked(out):
            check_claims(out)
            (first,) = claims_on(out)
            age(first.path)
            # Another run takes the first for dead.
            with locked(out), pytest.raises(InputError, match="suspended for minutes"):
                first.check()
        assert not claims_on(out)

    def test_a_suspended_run_whose_claim_nobody_took_goes_on(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with locked(out):
            age(the_claim(out))
            check_claims(out)  # and the claim is as good as new
            with pytest.raises(InputError, match="another run"), locked(out):
                pass

    def test_who_comes_back_while_the_claim_is_taken_away_keeps_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look at the age and the removal, the owner touches its claim."""
        out, alive = tmp_path / "out", run_lock._alive
        with locked(out):
            mine = the_claim(out)
            age(mine)

            def look(claim: Path, other: Path) -> bool:
                living = alive(claim, other)
                if claim == mine:
                    os.utime(mine)
                return living

            monkeypatch.setattr(run_lock, "_alive", look)
            with pytest.raises(InputError, match="another run"), locked(out):
                pass
            assert mine.exists()
            check_claims(out)

    def test_a_claim_is_taken_away_by_age_alone(self, tmp_path: Path) -> None:
        """Neither the number of the process nor the name of the machine says that a run has ended."""
        folder = tmp_path / "out" / ".rimap"
        folder.mkdir(parents=True)
        claim = folder / "lock.0123456789abcdef.held"
        claim.write_text('{"pid": 999999999, "host": "gone", "since": "2020-01-01 00:00"}')
        with pytest.raises(InputError, match="process 999999999 on gone"), locked(tmp_path / "out"):
            pass
        age(claim)
        with locked(tmp_path / "out"):
            assert not claim.exists()
        assert not folder.exists()

    def test_of_many_that_find_a_dead_claim_one_gets_it(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        (out / ".rimap").mkdir(parents=True)
        inside, most, held = [0], [0], [0]

        def run() -> None:
            for _ in range(8):
                with contextlib.suppress(OSError):  # who lets go removes an empty folder
                    dead = out / ".rimap" / f"lock.{os.urandom(4).hex()}.held"
                    dead.write_text("{}")
                    age(dead)
                try:
                    with locked(out):
                        inside[0] += 1
                        most[0], held[0] = max(most[0], inside[0]), held[0] + 1
                        time.sleep(0.002)
                        check_claims(out)
                        inside[0] -= 1
                except InputError:
                    pass

        side_by_side(run, 6)
        assert most[0] == 1 and held[0] > 0

    def test_a_run_of_the_command_line_that_lost_its_claim_writes_nothing(
        self, tmp_path: Path, build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from typer.testing import CliRunner

        from rimap.cli import build as application
        from rimap.io import nifti

        data, out = build.irt1(tmp_path / "raw"), tmp_path / "out"
        read = nifti.read_volumes

        def suspended(*args: Any) -> Any:
            for path in (out / ".rimap").glob("*.held"):
                path.unlink()  # as another run does that finds it too old
            return read(*args)

        monkeypatch.setattr("rimap.io.open_series.read_volumes", suspended)
        result = CliRunner().invoke(
            application(), ["map", str(data), "-o", str(out), "--estimator", "nlls", "--threads", "1"]
        )
        assert result.exit_code == 2 and "suspended" in result.stderr, result.output
        assert not list(out.rglob("*.nii.gz")) if out.exists() else True


SUSPENDED = """
import errno, sys
from collections.abc import Callable, Iterator
from pathlib import Path
from rimap.errors import InputError
from rimap.io import run_lock
from rimap.io.write_claims import check_claims

def none(*args):
    raise OSError(errno.ENOLCK, "No locks available")

run_lock.fcntl.flock, run_lock._DEAD, run_lock._BEAT = none, 1.0, 0.1
out = Path(sys.argv[1])
with run_lock.locked(out):
    print("held", flush=True)
    sys.stdin.readline()
    try:
        check_claims(out)
        print("writes", flush=True)
    except InputError as error:
        print(error, flush=True)
"""


@pytest.mark.usefixtures("no_flock")
def test_a_process_that_is_stopped_and_continued_finds_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_DEAD", 1.0)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SUSPENDED, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.5)
        with locked(out):
            os.kill(process.pid, signal.SIGCONT)
            process.stdin.write("\n")
            process.stdin.flush()
            assert "suspended for minutes" in process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_lock_whose_file_another_run_replaced_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locked(out):
        check_claims(out)
        (claim,) = claims_on(out)
        claim.path.unlink()
        check_claims(out)  # the lock itself is still held
        claim.path.write_text('{"pid": 1}')
        with pytest.raises(InputError, match="this run has lost"):
            check_claims(out)
        claim.path.unlink()


def test_a_lock_heeds_claims_of_runs_that_found_no_locks(tmp_path: Path) -> None:
    """One machine mounts the folder with locks, another without."""
    folder = tmp_path / "out" / ".rimap"
    folder.mkdir(parents=True)
    claim = folder / "lock.0123456789abcdef.held"
    claim.write_text('{"pid": 7, "host": "elsewhere", "since": "2020-01-01 00:00"}')
    with pytest.raises(InputError, match="process 7 on elsewhere"), locked(tmp_path / "out"):
        pass
    age(claim)
    with locked(tmp_path / "out"):
        assert not claim.exists()


def test_a_worker_knows_the_claims_of_its_run(tmp_path: Path) -> None:
    path = tmp_path / "lock.1.held"
    path.write_bytes(b"me")
    claim = Claim(tmp_path, path, b"me", by_age=True)
    try:
        adopt([claim])
        check_claims(tmp_path)
        check_claims(tmp_path / "other")
        path.unlink()
        with pytest.raises(InputError, match="this run has lost"):
            check_claims(tmp_path)
    finally:
        adopt([])


@pytest.fixture
def flock_here_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """One folder that has locks for some runs and none for others: what `flock` does is switched."""
    real = run_lock.fcntl.flock

    def switch(on: bool) -> None:
        def none(*args: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(run_lock.fcntl, "flock", real if on else none)

    monkeypatch.setattr(run_lock, "_LOOK_AGAIN", 0.01)
    yield switch
    switch(True)


@pytest.mark.parametrize("parts", [((), ()), (("sub-01",), ("sub-01",)), (("sub-01",), ()), ((), ("sub-01",))])
@pytest.mark.parametrize("first", [True, False], ids=["locks first", "claims first"])
def test_of_a_run_with_locks_and_one_without_one_alone_holds(
    tmp_path: Path, flock_here_only: Callable[[bool], None], first: bool, parts: tuple[tuple[str, ...], ...]
) -> None:
    """A server that gives locks to one machine, and a mount without them on another."""
    out = tmp_path / "out"
    flock_here_only(first)
    with locked(out, parts[0]):
        flock_here_only(not first)
        with pytest.raises(InputError, match=f"another run is writing .* process {os.getpid()}"), locked(out, parts[1]):
            pass
        flock_here_only(first)
        check_claims(out)
    flock_here_only(not first)
    with locked(out, parts[1]):
        check_claims(out)


def test_parts_that_differ_are_held_by_runs_with_and_without_locks(
    tmp_path: Path, flock_here_only: Callable[[bool], None]
) -> None:
    out = tmp_path / "out"
    flock_here_only(True)
    with locked(out, ["sub-01"]):
        flock_here_only(False)
        with locked(out, ["sub-02"]):
            check_claims(out)
        flock_here_only(True)
        check_claims(out)


def test_a_run_with_locks_that_was_suspended_finds_out(tmp_path: Path, flock_here_only: Callable[[bool], None]) -> None:
    """Its file is old, so that a run without locks took over. It may not write until that one has ended."""
    out = tmp_path / "out"
    flock_here_only(True)
    with locked(out):
        age(out / ".rimap" / "lock")
        flock_here_only(False)
        with locked(out):
            flock_here_only(True)
            with pytest.raises(InputError, match="suspended for minutes"):
                check_claims(out)
        flock_here_only(True)
        check_claims(out)


def test_the_file_of_a_run_with_locks_that_was_killed_is_dead_by_age(
    tmp_path: Path, flock_here_only: Callable[[bool], None]
) -> None:
    lock = tmp_path / "out" / ".rimap" / "lock"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"pid": 7, "host": "elsewhere", "since": "2020-01-01 00:00"}')
    flock_here_only(False)
    with pytest.raises(InputError, match="process 7 on elsewhere"), locked(tmp_path / "out"):
        pass
    age(lock)
    with locked(tmp_path / "out"):
        pass
    flock_here_only(True)
    with locked(tmp_path / "out"):  # a lock that nobody holds is free at once
        pass
