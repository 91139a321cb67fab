"""Kernels that a run needs are compiled side by side, once, and the list of them is that of the source."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from numba import types

import rimap
from rimap import compiling, kernels
from rimap.compiling import Kernel, compile_all, listed, spelled, typed
from rimap.estimators.nlls.conic.kernel_arguments import Line

SMALL = tuple(
    Kernel(f"rimap.estimators.sigma_kernels:{name}", arguments, 1.0)
    for name, arguments in [
        ("histogram", ("float64:1C", "float64:1C", "int64:1C")),
        ("split_sums", ("float64:1C", "float64")),
    ]
)


@pytest.mark.parametrize(
    "numba_type",
    [
        types.int64,
        types.float32,
        types.boolean,
        types.Array(types.boolean, 3, "C"),
        types.Array(types.float32, 2, "A", readonly=True),
        types.UniTuple(types.float64, 2),
        types.Tuple((types.int64, types.Array(types.uint8, 1, "F"))),
        types.NamedUniTuple(types.Array(types.float64, 1, "C"), 4, Line),
    ],
)
def test_a_type_is_what_its_spelling_says(numba_type: types.Type) -> None:
    assert typed(json.loads(json.dumps(spelled(numba_type)))) == numba_type


def test_a_type_that_cannot_be_spelled_is_an_error() -> None:
    with pytest.raises(TypeError, match="expected an array"):
        spelled(types.unicode_type)


#: Compile two kernels in two processes, of which this one takes what the other leaves; say how many it compiled itself.
TWO = """
import json, sys, time
from numba.core import event
from rimap import compiling
compiling._LEAST_S = 0.5
here, left = compiling.compile_here, int(sys.argv[2])
def compile_here(waiting):
    time.sleep(10 if left == 0 else 0)
    here(waiting)
compiling.compile_here = compile_here
some = [compiling.Kernel(name, tuple(arguments), seconds) for name, arguments, seconds in json.loads(sys.argv[1])]
with event.install_recorder("numba:compile") as recorder:
    compiling.compile_all(some, 2)
print(sum(one.is_start for _, one in recorder.buffer if one.data["dispatcher"].py_func.__module__.startswith("rimap")))
"""


@pytest.mark.parametrize("by_this_process", [0, 2])
def test_two_processes_compile_all_kernels_and_keep_them(by_this_process: int, tmp_path: Path) -> None:
    some = json.dumps([[kernel.name, kernel.arguments, kernel.seconds] for kernel in SMALL])
    words = [sys.executable, "-c", TWO, some, str(by_this_process)]
    ignored = shutil.ignore_patterns("__pycache__", "weights")  # without what was compiled beside the package
    shutil.copytree(Path(rimap.__file__).parent, tmp_path / "rimap", ignore=ignored)
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "compiled"), "PYTHONPATH": str(tmp_path)}
    first = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert int(first.stdout) == 0 if by_this_process == 0 else int(first.stdout) > 0
    kept = {file.name.split("-")[0] for file in tmp_path.rglob("*.nbc")}
    assert {"sigma_kernels.histogram", "sigma_kernels.split_sums"} <= kept
    assert subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.strip() == "0"


def test_a_process_waits_for_one_that_compiles_and_then_finds_what_that_has_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "kernel_folder", lambda file=None: tmp_path)
    compiled: list[str] = []
    monkeypatch.setattr(compiling, "compile_here", lambda some: compiled.extend(kernel.name for kernel in some))
    missing = [list(SMALL), list(SMALL)]
    monkeypatch.setattr(compiling, "_missing", lambda some: missing.pop(0))
    assert compile_all(SMALL, 1) and compiled == [kernel.name for kernel in SMALL]
    missing[:] = [list(SMALL), []]  # the other process has compiled them meanwhile
    assert compile_all(SMALL, 1) and len(compiled) == len(SMALL)
    missing[:] = [[]]
    assert not compile_all(SMALL, 1)


#: Hold a lock, say so, and wait to be killed.
HOLD = """
import sys, time
from pathlib import Path
from rimap.kernels import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks on Windows")
def test_a_lock_is_waited_for_and_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "compiling.lock"
    entered: list[float] = []

    def enter() -> None:
        with kernels.locked(path):
            entered.append(time.monotonic())

    waiting = threading.Thread(target=enter)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        waiting.start()
        waiting.join(0.3)
        assert not entered
        killed = time.monotonic()
        holder.kill()
    waiting.join(30)
    assert entered and entered[0] >= killed
    with kernels.locked(tmp_path / "no folder" / "lock"):  # nothing is held where nothing can be written
        pass


def test_a_kernel_of_another_version_and_a_damaged_list_are_passed_over(tmp_path: Path) -> None:
    some = [Kernel("rimap.nowhere:kernel", (), 1.0), Kernel("rimap.estimators.sigma_kernels:gone", ("int64",), 1.0)]
    compiling.compile_here(some)
    assert not {"nowhere", "gone"} & {made.py_func.__name__ for made in kernels.MADE}
    damaged = tmp_path / "list.json"
    damaged.write_text("[{", encoding="utf-8")
    assert listed({"ir/nlls"}, damaged) == [] and listed({"ir/nlls"}, tmp_path / "absent") == []
    assert listed({"no such sequence/nlls"}) == []


def test_code_for_other_arguments_is_not_taken_and_what_is_kept_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that write the list of a folder at a time can give a file to the wrong arguments."""
    monkeypatch.setattr(kernels, "kernel_folder", lambda file=None: tmp_path)

    def made():
        @kernels.njit()
        def twice(x):
            return 2 * x

        return twice

    first, whole, real = made(), (types.int64,), (types.float64,)
    assert not kernels.is_kept(first, real)
    assert first(1.5) == 3.0 and first(2) == 4
    assert kernels.is_kept(first, real) and kernels.is_kept(first, whole)
    codes = sorted(tmp_path.rglob("*.nbc"))
    assert len(codes) == 2
    codes[0].write_bytes(codes[1].read_bytes())  # both entries lead to the same code
    second = made()
    assert second(1.5) == 3.0 and second(2) == 4 and isinstance(second(2), int)


def test_one_processor_compiles_when_a_kernel_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(compiling, "compile_all", lambda *a: asked.append(a) or True)
    assert compiling.compile_ahead("ir", "nlls", 1) == 0.0 and not asked
    assert compiling.compile_ahead("ir", "nlls", 2) > 0.0 and len(asked) == 1
    monkeypatch.setattr(compiling, "compile_all", lambda *a: 1 / 0)
    assert compiling.compile_ahead("ir", "nlls", 2) == 0.0  # compiled when they are called


#: Print the kernels that a run calls; in the first process what only other kernels call may be among them.
CALLED = """
import json, sys
from rimap.compiling import called
from rimap.workflow.warm_up import map_examples
map_examples(*sys.argv[1].split("/"))
print(json.dumps(sorted(called())))
"""


@pytest.mark.parametrize("run", ["ir/nlls", "ir/rim", "t2/mle", "mese/nlls"])
def test_the_list_contains_what_a_run_calls(run: str) -> None:
    words = [sys.executable, "-c", CALLED, run]
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    expected = {(name, arguments) for name, arguments in json.loads(done.stdout)}
    found = {(kernel.name, json.dumps(kernel.arguments)) for kernel in listed({run})}
    assert found == expected, "run python -m tools.list_kernels"
