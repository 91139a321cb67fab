"""Pieces of an experiment that are damaged are named with what to do, and never called a bug of rimap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.evaluation import experiment
from rimap.evaluation.experiment import Settings, draw, experiments, run

MONTE_CARLO = experiments()["monte-carlo"]
SETTINGS = Settings(estimators=("nlls",), quick=True, threads=1)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        without_figures(patched)
        return run(MONTE_CARLO, SETTINGS, tmp_path_factory.mktemp("experiments")).folder


def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures, which take longer to draw than what they show to compute."""
    monkeypatch.setattr(experiment, "draw", lambda *_: "")


def copy_of(done: Path, folder: Path) -> Path:
    import shutil

    return shutil.copytree(done, folder / done.name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def text(path: Path) -> None:
    path.write_text("<html>quota exceeded</html>")


def objects(path: Path) -> None:
    np.savez(path, x=np.array([{}], dtype=object))


def nothing(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


@pytest.mark.parametrize("damage", [cut, emptied, flipped, text, objects, nothing])
def test_a_piece_that_is_damaged(
    done: Path, tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_figures(monkeypatch)
    folder = copy_of(done, tmp_path)
    part = min((folder / "parts").rglob("*.npz"))
    damage(part)
    with pytest.raises(InputError) as error:
        run(MONTE_CARLO, SETTINGS, tmp_path)
    assert part.name in str(error.value) and "Remove it" in str(error.value)
    part.unlink()  # as it says
    assert run(MONTE_CARLO, SETTINGS, tmp_path).computed == 1


@pytest.mark.parametrize(
    "damage", [emptied, text, lambda p: p.write_bytes(b"\xff\xfe\x00" * 30), lambda p: p.write_text("a,b\n1\n")]
)
def test_a_table_that_is_damaged(done: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = copy_of(done, tmp_path)
    damage(folder / "table.csv")
    with pytest.raises(InputError, match=r"table\.csv.*without --redraw"):
        draw(MONTE_CARLO, folder)


def children(pid: int) -> set[int]:
    """Return the processes that a process started, and theirs."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found |= {int(status.parent.name)} | children(int(status.parent.name))
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


EVALUATE = """
import sys, time
from rimap.evaluation import experiment
from rimap.cli import build
if __name__ == "__main__":
    build()(["evaluate", "monte-carlo", "--quick", "-o", sys.argv[1], "--workers", "2", "--estimators", "nlls,mle"])
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(EVALUATE)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "out"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        workers: set[int] = set()
        while len(workers) < 2 and process.poll() is None:
            time.sleep(0.1)
            workers |= children(process.pid)
        assert workers, "it ended before its workers were seen"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    for _ in range(600):
        if not any(map(runs, workers)):
            break
        time.sleep(0.1)
    assert not any(map(runs, workers))
