"""Kernels that a run needs are compiled side by side, once, and the list of them is that of the source."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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
compiling.cores, compiling._LEAST_S = (lambda: 2), 0.5
here, left = compiling.compile_here, int(sys.argv[2])
def compile_here(waiting):
    time.sleep(10 if left == 0 else 0)
    here(waiting)
compiling.compile_here = compile_here
some = [compiling.Kernel(name, tuple(arguments), seconds) for name, arguments, seconds in json.loads(sys.argv[1])]
with event.install_recorder("numba:compile") as recorder:
    compiling.compile_all(some, "test")
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
    assert not list(tmp_path.rglob("compiling-*"))


def test_a_process_waits_for_one_that_compiles_the_same_and_not_for_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "kernel_folder", lambda file=None: tmp_path)
    compiled: list[str] = []
    monkeypatch.setattr(compiling, "compile_here", lambda some: compiled.extend(kernel.name for kernel in some))
    monkeypatch.setattr(compiling, "cores", lambda: 1)
    claim = tmp_path / "compiling-ours.pid"
    claim.touch()
    monkeypatch.setattr(time, "sleep", lambda seconds: claim.unlink())  # the other one has finished
    compile_all(list(SMALL), "ours")
    assert not compiled and not claim.exists()
    claim.touch()
    os.utime(claim, (1.0, 1.0))
    compile_all(list(SMALL), "ours")  # what was left is removed, and each kernel is compiled when it is called
    assert not compiled and not claim.exists()
    compile_all(list(SMALL), "ours")
    assert compiled == [kernel.name for kernel in SMALL] and not claim.exists()


def test_a_kernel_of_another_version_and_a_damaged_list_are_passed_over(tmp_path: Path) -> None:
    some = [Kernel("rimap.nowhere:kernel", (), 1.0), Kernel("rimap.estimators.sigma_kernels:gone", ("int64",), 1.0)]
    compiling.compile_here(some)
    assert not {"nowhere", "gone"} & {made.py_func.__name__ for made in kernels.MADE}
    damaged = tmp_path / "list.json"
    damaged.write_text("[{", encoding="utf-8")
    assert listed({"ir/nlls"}, damaged) == [] and listed({"ir/nlls"}, tmp_path / "absent") == []
    assert listed({"no such sequence/nlls"}) == []


def test_the_first_kernel_that_has_to_be_compiled_starts_the_others_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "kernel_folder", lambda file=None: tmp_path)
    calls: list[str] = []

    @kernels.njit()
    def twice(x):
        return 2 * x

    @kernels.njit()
    def thrice(x):
        return 3 * x

    kernels.prepare_compiling(lambda: (calls.append("many"), twice.compile((types.float64,)), None)[-1])
    assert twice(1.5) == 3.0 and thrice(np.float64(2.0)) == 6.0
    assert calls == ["many"]
    assert len(list(tmp_path.rglob("*twice*.nbc"))) == 1


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
