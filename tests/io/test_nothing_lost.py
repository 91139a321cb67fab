"""Killed at any moment, begun twice, a full disk, input that changes: nothing is lost, and the next run ends it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io.run_lock import locked

from .runs_in_parallel import disk_of, side_by_side

#: `rimap` in a process that is ready: it forks for every run, so that 20 of them take seconds. A kill ends the fork.
SERVER = """
import os, sys
import numpy, nibabel, numba, scipy.special, jinja2, matplotlib
from rimap import report, io
from rimap.cli import build
from rimap.workflow import mapping
from rimap.workflow.slabs import estimate
from rimap.estimators.nlls.conic import careful_search
report.page = lambda series, maps, run: "<html>" + run.made + "</html>"  # it takes longest, and is not what is tested
app = build()
import rimap
model = rimap.InversionRecovery(tau=(50.0, 400.0, 1100.0, 2500.0), tr=10000.0)
ones = numpy.ones((3, 8, 8), "f4") * numpy.array([1000, 1.9, 800], "f4").reshape(3, 1, 1)
rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(model.signal(ones).astype("f4"), model))  # kernels are loaded
for line in sys.stdin:
    *args, log = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1), os.dup2(1, 2)
        sys.argv[:] = ["rimap", *args]
        try:
            app(args, prog_name="rimap")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Runs of `rimap`, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, *args: Any) -> int:
        """Begin a run and return its process id."""
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write("\t".join(map(str, (*args, self.log))) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def end(self) -> tuple[int, str]:
        """Wait for it; return its exit status and what it said."""
        assert self.server.stdout
        status = int(self.server.stdout.readline())
        return status, self.log.read_text()

    def __call__(self, *args: Any) -> tuple[int, str]:
        self.start(*args)
        return self.end()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A process that begins runs."""
    runs = Runs(tmp_path_factory.mktemp("runs"))
    yield runs
    assert runs.server.stdin and runs.server.stdout
    runs.server.stdin.close()
    runs.server.wait(60)
    runs.server.stdout.close()


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes longest, and is not what is tested."""
    monkeypatch.setattr("rimap.report.page", lambda series, maps, run: f"<html>{run.made}</html>")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, build: Any) -> Path:
    """A data set of four subjects."""
    root = tmp_path_factory.mktemp("data") / "raw"
    for n in range(1, 5):
        build.irt1(root, f"sub-0{n}/anat/sub-0{n}")
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    return root


def state(folder: Path) -> dict[str, bytes]:
    """Every file, without the dates and durations that a report has."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".html":
                data = b"a page" if data.rstrip().endswith(b"</html>") else data
            found[path.relative_to(folder).as_posix()] = data
    return found


def order(raw: Path, out: Path, *more: Any) -> tuple[Any, ...]:
    return ("map", raw, "-o", out, "--estimator", "nlls", "--threads", "1", *more)


def test_killed_at_20_moments(raw: Path, tmp_path: Path, runs: Runs) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    runs(*order(raw, tmp_path / "a" / "warm"))
    begun = time.perf_counter()
    status, said = runs(*order(raw, tmp_path / "a" / "out"))
    takes = time.perf_counter() - begun
    assert status == 0, said
    expected = state(tmp_path / "a" / "out")
    assert not any(name.endswith((".tmp", ".old", "lock")) for name in expected)
    chance, out, kept, killed = random.Random(0), tmp_path / "b" / "out", [], 0
    for n in range(20):
        if n % 5 == 0:
            shutil.rmtree(out, ignore_errors=True)  # so that early moments are met, too
        process = runs.start(*order(raw, out))
        time.sleep(chance.uniform(0, 1.1 * takes))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        status, _ = runs.end()
        killed += status == -signal.SIGKILL
        # What has a record that says so is whole, at any moment.
        for record in (out / ".rimap").glob("*.json"):
            about = json.loads(record.read_text())
            if about["state"] == "finished":
                for name, size in about["outputs"].items():
                    assert size in (None, (out / name).stat().st_size)
        if n % 5 == 4:
            times = {p: p.stat().st_mtime_ns for p in out.rglob("*_T1map.nii.gz")}
            done = [p.stem.split("_")[0] for p in (out / ".rimap").glob("*.json") if "finished" in p.read_text()]
            status, said = runs(*order(raw, out))
            assert status == 0, said
            assert state(out) == expected
            for path, modified in times.items():
                if path.name.split("_")[0] in done:
                    assert path.stat().st_mtime_ns == modified
            kept.append(len(done))
    assert killed and max(kept) > 0
    status, said = runs(*order(raw, out))
    assert status == 0 and "kept" in said and "same settings and inputs" in said
    status, said = runs(*order(raw, out, "--overwrite"))
    assert status == 0 and "kept" not in said and state(out) == expected


def test_a_run_killed_while_it_overwrites_is_ended_by_the_next(raw: Path, tmp_path: Path, runs: Runs) -> None:
    out = tmp_path / "out"
    runs(*order(raw, out, "--fill", "0"))
    others = state(out)
    runs(*order(raw, tmp_path / "new"))
    expected = state(tmp_path / "new")
    chance = random.Random(1)
    for _ in range(6):
        process = runs.start(*order(raw, out, "--overwrite"))
        time.sleep(chance.uniform(0.02, 0.3))
        os.kill(process, signal.SIGKILL)
        runs.end()
        assert {k for k in state(out) if k.endswith(".nii.gz")} == {k for k in others if k.endswith(".nii.gz")}
    status, said = runs(*order(raw, out, "--overwrite"))
    assert status == 0, said
    found = state(out)
    assert {k: v for k, v in found.items() if "description" not in k} == {
        k: v for k, v in expected.items() if "description" not in k
    }


def test_a_second_run_is_told_of_the_first(raw: Path, tmp_path: Path, runs: Runs) -> None:
    out = tmp_path / "out"
    with locked(out):
        status, said = runs(*order(raw, out))
        assert status == 2 and f"process {os.getpid()} on " in said and len(said.splitlines()) == 1, said
        assert [p.name for p in out.rglob("*") if p.is_file()] == ["lock"]
    assert not out.exists()
    with locked(out, ["sub-01"]):
        assert runs(*order(raw, out))[0] == 2
        assert runs(*order(raw, out, "--participant-label", "01"))[0] == 2
        assert runs(*order(raw, out, "--participant-label", "02"))[0] == 0
    status, said = runs(*order(raw, out))
    assert status == 0 and "kept sub-02" in said
    assert not list((out / ".rimap").glob("lock*"))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_lock_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """On a file system that has no locks, such as some NFS mounts, a file that is touched stands for one."""
    from rimap.io import run_lock

    def none(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock.fcntl, "flock", none)
    out = tmp_path / "out"
    with locked(out):
        for parts in ((), ("sub-01",)):
            with pytest.raises(InputError, match=f"process {os.getpid()} on"), locked(out, parts):
                pass
    with locked(out, ["sub-01"]):
        with pytest.raises(InputError, match="another run"), locked(out):
            pass
        with locked(out, ["sub-02"]):
            pass
    assert not out.exists()
    (out / ".rimap").mkdir(parents=True)
    claim = out / ".rimap" / "lock.0123456789abcdef.held"
    me = json.loads(run_lock._me())
    claim.write_text(json.dumps(me | {"host": "elsewhere"}))
    with pytest.raises(InputError, match="on elsewhere"), locked(out):
        pass
    assert claim.exists()
    os.utime(claim, (time.time() - 1000,) * 2)  # a run that was killed no longer touches its claim
    with locked(out):
        assert not claim.exists()


def test_of_many_runs_without_flock_one_alone_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rimap.io import run_lock

    def none(*args: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "flock", none)
    monkeypatch.setattr(run_lock, "_LOOK_AGAIN", 0.01)
    out, holders, most, held = tmp_path / "out", [0], [0], [0]
    (out / ".rimap").mkdir(parents=True)
    (out / ".rimap" / "lock.dead.held").write_text("{}")
    os.utime(out / ".rimap" / "lock.dead.held", (1, 1))

    def run() -> None:
        for _ in range(15):
            try:
                with locked(out):
                    holders[0] += 1
                    most[0] = max(most[0], holders[0])
                    held[0] += 1
                    time.sleep(0.002)
                    holders[0] -= 1
            except InputError:
                pass

    side_by_side(run, 8)
    assert most[0] == 1 and held[0] > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    with disk_of(tmp_path / "disk", 400) as folder:
        yield folder


def test_a_full_disk(raw: Path, small_disk: Path, runs: Runs) -> None:
    before = state(raw)
    out = small_disk / "out"
    status, said = runs(*order(raw, out, "--participant-label", "01"))
    while status == 0:  # fill it up
        earlier = state(out)
        (small_disk / f"full{len(list(small_disk.iterdir()))}").write_bytes(os.urandom(60_000))
        status, said = runs(*order(raw, out, "--participant-label", "01", "--overwrite"))
    assert status == 2 and "No space left" in said and len(said.splitlines()) <= 2, said
    assert state(out) == earlier and state(raw) == before


def test_a_full_disk_without_mount(raw: Path, tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any write may be the one that fails: nothing of the earlier result is touched, whichever it is."""
    from typer.testing import CliRunner

    from rimap.cli import build as application

    out, app = tmp_path / "out", application()
    args = [str(a) for a in order(raw, out, "--participant-label", "01")]
    assert CliRunner().invoke(app, args).exit_code == 0
    earlier = state(out)
    fsync, left = os.fsync, [0]

    def fail(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    for n in (0, 4, 19):
        left[0] = n
        result = CliRunner().invoke(app, [*args, "--overwrite"])
        assert result.exit_code == 2 and "No space left" in result.stderr, (n, result.output)
        found = state(out)
        assert {k: v for k, v in found.items() if not k.startswith(".rimap")} == {
            k: v for k, v in earlier.items() if not k.startswith(".rimap")
        }
        assert not [k for k in found if k.endswith((".tmp", ".old", "lock"))]


def test_an_out_that_cannot_be_written(raw: Path, tmp_path: Path, runs: Runs) -> None:
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        status, said = runs(*order(raw, out))
        assert status == 2 and len(said.splitlines()) == 1, said
    assert (tmp_path / "file").read_text() == "precious"
    folder = tmp_path / "disk"
    folder.mkdir()
    bind = ["mount", "-t", "tmpfs", "-o", "ro,size=100k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("no permission to mount a read-only disk")
    try:
        status, said = runs(*order(raw, folder / "out"))
        assert status == 2 and len(said.splitlines()) == 1, said
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("what", ["grows", "shrinks", "goes", "is replaced", "mask"])
def test_input_that_changes_while_it_is_read(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from typer.testing import CliRunner

    from rimap.cli import build as application
    from rimap.io import nifti

    data, out = shutil.copytree(raw, tmp_path / "raw"), tmp_path / "out"
    mask = tmp_path / "mask.nii.gz"
    image = nib.load(data / "sub-01/anat/sub-01_inv-1_IRT1.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), mask)
    args = [str(a) for a in order(data, out, "--participant-label", "01", "--mask", mask)]
    app = application()
    assert CliRunner().invoke(app, args).exit_code == 0
    earlier = state(out)
    victim = mask if what == "mask" else data / "sub-01" / "anat" / "sub-01_inv-3_IRT1.nii.gz"
    read, changed = nifti.read_volumes, []

    def change(*args: Any) -> Any:
        if not changed:
            changed.append(True)
            packed = victim.read_bytes()
            if what == "goes":
                victim.unlink()
            else:
                new = {"grows": packed + b"\0", "shrinks": packed[:-40]}.get(what, packed)
                victim.write_bytes(new)
                os.utime(victim, ns=(1, 1))
        return read(*args)

    monkeypatch.setattr("rimap.io.open_series.read_volumes", change)
    result = CliRunner().invoke(app, [*args, "--overwrite"])
    assert result.exit_code == 2 and victim.name in result.stderr, result.output
    assert re.search("changed while it was read|No such file|truncated", result.stderr)
    assert state(out) == earlier


def test_maps_made_otherwise_are_refused_and_copies_are_kept(raw: Path, tmp_path: Path, runs: Runs) -> None:
    data, out = shutil.copytree(raw, tmp_path / "raw"), tmp_path / "out"
    assert runs(*order(data, out))[0] == 0
    before = state(out)

    def refused(word: str, *more: Any) -> None:
        status, said = runs(*order(data, out, *more))
        assert status == 2 and word in said and "--overwrite" in said and len(said.splitlines()) == 1, said
        assert state(out) == before

    refused("rates", "--rates")
    refused("sigma", "--sigma", "3")
    for path in data.rglob("*.nii.gz"):
        os.utime(path)  # a copy: other times, the same content
    status, said = runs(*order(data, out))
    assert status == 0 and "kept" in said
    sidecar = data / "sub-02" / "anat" / "sub-02_inv-1_IRT1.json"
    about = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(about | {"InversionTime": 0.06}))
    refused("source")
    sidecar.write_text(json.dumps(about))
    image = data / "sub-03" / "anat" / "sub-03_inv-1_IRT1.nii.gz"
    shutil.copy(data / "sub-03" / "anat" / "sub-03_inv-2_IRT1.nii.gz", image)
    refused("source")
    shutil.copy(data / "sub-04" / "anat" / "sub-04_inv-1_IRT1.nii.gz", image)
    damaged = [out / "sub-01" / "anat" / "sub-01_T1map.nii.gz", out / "sub-02" / "anat" / "sub-02_T1map.json"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-30])
    (out / "sub-03" / "anat" / "sub-03_M0map.nii.gz").unlink()
    status, said = runs(*order(data, out))
    assert status == 0 and "kept sub-04 IRT1:" in said, said
    assert without_times(state(out)) == without_times(before)


def without_times(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {k: v for k, v in files.items() if not k.startswith(".rimap")}
