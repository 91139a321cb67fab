"""Compiled kernels are those of the source, and wherever they are kept a run goes on."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import rimap
from rimap import kernels, source_hashes

CALLED = "from rimap.kernels import njit\nSTEP = 1.0\n@njit()\ndef inner(x):\n    return x + STEP\n"
CALLER = (
    "from rimap.kernels import njit\nfrom rimap.called import inner\n"
    "@njit()\ndef outer(x):\n    return 10.0 * inner(x)\n"
)
#: Print what the kernel gives, whether it came from the cache, and the folder.
USE = """
from pathlib import Path
from rimap import caller, kernels
from rimap.caller import outer
print(outer(2.0), sum(outer.stats.cache_hits.values()), kernels.kernel_folder(Path(caller.__file__)))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A package `rimap` with two kernels, one of which calls the other from another file."""
    package = tmp_path / "site" / "rimap"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for module in (kernels, source_hashes):
        shutil.copy(str(module.__file__), package)
    (package / "called.py").write_text(CALLED)
    (package / "caller.py").write_text(CALLER)
    return package


def _environment(package: Path, **more: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    # Python itself would take bytecode of the same size and date.
    return env | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"} | more


def use(package: Path, code: str = USE, **more: str) -> tuple[float, int, str]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=_environment(package, **more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value, hits, folder = done.stdout.split(maxsplit=2)
    return float(value), int(hits), folder.strip()


def test_a_change_in_a_kernel_reaches_the_kernels_that_call_it(copy: Path) -> None:
    value, hits, first = use(copy)
    assert (value, hits) == (30.0, 0)
    assert use(copy) == (30.0, 1, first)  # kept from run to run
    before = (copy / "called.py").stat()
    (copy / "called.py").write_text(CALLED.replace("1.0", "2.0"))
    os.utime(copy / "called.py", ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same date
    value, hits, second = use(copy)
    assert (value, hits) == (40.0, 0) and second != first
    (copy / "called.py").write_text(CALLED)
    assert use(copy) == (30.0, 1, first)  # both are kept: branches can be changed without compiling


def _fingerprint(root: Path) -> str:
    source_hashes._candidates.cache_clear()
    return source_hashes.source_fingerprint(source_hashes.kernel_sources(root=root), root)


def test_only_what_kernels_are_made_of_counts(copy: Path) -> None:
    before = _fingerprint(copy)
    (copy / "page.py").write_text("TITLE = 'a report'\n")
    assert _fingerprint(copy) == before
    (copy / "constants.py").write_text("STEP = 1.0\n")
    (copy / "called.py").write_text(CALLED.replace("STEP = 1.0", "from rimap.constants import (\n    STEP,\n)"))
    first = _fingerprint(copy)
    (copy / "constants.py").write_text("STEP = 3.0\n")
    assert len({before, first, _fingerprint(copy)}) == 3


def test_every_kernel_of_the_package_is_kept_by_its_sources() -> None:
    found = _kernels()
    assert len(found) > 20
    files = source_hashes.kernel_sources()
    for kernel in found:
        file = Path(kernel.py_func.__code__.co_filename)
        assert file in files, kernel
        folder = kernels.kernel_folder(file)
        assert folder in Path(kernel._cache.cache_path).parents, f"{kernel}: use rimap.kernels.njit, not numba's"


def _kernels() -> list[Any]:
    from numba.core.dispatcher import Dispatcher

    for module in pkgutil.walk_packages(rimap.__path__, "rimap."):
        if (
            module.name.split(".")[1] in ("estimators", "signals", "likelihood", "arrays")
            and "networks" not in module.name
        ):
            importlib.import_module(module.name)
    found = {
        id(x): x
        for name, module in list(sys.modules.items())
        if name.startswith("rimap")
        for x in vars(module).values()
        if isinstance(x, Dispatcher)
    }
    return list(found.values())


def test_a_kernel_uses_nothing_of_the_files_that_do_not_count() -> None:
    left_out = tuple(f"rimap.{part.removesuffix('.py')}" for part in source_hashes._WITHOUT_KERNELS)
    kernels = _kernels()
    assert len(kernels) > 20
    for kernel in kernels:
        tree = ast.parse(Path(kernel.py_func.__code__.co_filename).read_text(encoding="utf-8"))
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith(left_out)]
        names = {a.asname or a.name for n in imports for a in n.names}
        assert not names & set(kernel.py_func.__code__.co_names), kernel


def test_numba_is_imported_only_with_a_kernel() -> None:
    code = "import sys, rimap.kernels, rimap.estimators, rimap.signals; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def nowhere(monkeypatch, tmp_path: Path):
    """Nothing can be written but the folder for temporary files, and that of `NUMBA_CACHE_DIR` if a test gives one."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    blocked = tmp_path / "a file, so that no folder can be made in it"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(kernels, "PACKAGE", blocked)
    kernels.kernel_folder.cache_clear()
    yield tmp_path
    kernels.kernel_folder.cache_clear()


def test_the_folder_of_the_user_is_honoured_and_never_nested(nowhere: Path, monkeypatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(nowhere / "mine"))
    folder = kernels.kernel_folder()
    assert folder == nowhere / "mine" / f"rimap-{source_hashes.kernel_fingerprint()}" and folder.is_dir()
    assert os.environ["NUMBA_CACHE_DIR"] == str(nowhere / "mine")  # children find the same
    from numba import config

    before = config.CACHE_DIR
    kernels.njit()(lambda x: x)
    assert before == config.CACHE_DIR  # other code keeps its own cache


def test_a_private_folder_if_there_is_no_other(nowhere: Path) -> None:
    first = kernels.kernel_folder()
    assert first is not None and first.parent.parent == nowhere and first.parent.stat().st_mode & 0o077 == 0
    kernels.kernel_folder.cache_clear()
    assert kernels.kernel_folder() == first  # kept from run to run


def test_a_folder_that_others_can_write_is_not_trusted(nowhere: Path) -> None:
    planted = nowhere / f"rimap-numba-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    folder = kernels.kernel_folder()
    assert folder is not None and planted not in folder.parents


def test_without_any_folder_kernels_are_compiled_in_memory(nowhere: Path, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "_private", lambda: nowhere / "a file, so that no folder can be made in it")
    assert kernels.kernel_folder() is None
    kernel = kernels.njit()(lambda x: 2 * x)
    assert kernel(3) == 6


def test_old_folders_are_removed_and_nothing_else(nowhere: Path, monkeypatch) -> None:
    base = nowhere / "mine"
    monkeypatch.setattr(kernels, "_KEPT_FOLDERS", 4)
    old = [base / f"rimap-{i:016x}" for i in range(8)]
    for i, folder in enumerate(old):
        folder.mkdir(parents=True)
        (folder / "kernel.nbc").touch()
        os.utime(folder, (time.time() - 7200 - i, time.time() - 7200 - i))
    (base / "profile_0123").mkdir()  # of numba itself
    (base / "rimap-notes").mkdir()
    recent = base / f"rimap-{'f' * 16}"
    recent.mkdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(base))
    new = kernels.kernel_folder()
    assert set(base.iterdir()) == {new, recent, *old[:3], base / "profile_0123", base / "rimap-notes"}


def test_folders_that_nothing_has_used_for_weeks_are_removed_however_few_there_are(nowhere: Path, monkeypatch) -> None:
    base = nowhere / "mine"
    last_week, last_month = (base / f"rimap-{i:016x}" for i in range(2))
    for folder, days in ((last_week, 7), (last_month, 30)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - days * 86400,) * 2)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(base))
    new = kernels.kernel_folder()
    assert set(base.iterdir()) == {new, last_week}


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"no pickle at all"])
def test_damaged_files_are_replaced(copy: Path, ending: str, content: bytes) -> None:
    folder = Path(use(copy)[2])
    for file in folder.rglob(f"*{ending}"):
        file.write_bytes(content)
    assert use(copy)[:2] == (30.0, 0)
    assert use(copy)[:2] == (30.0, 1)


def test_a_full_disk_costs_time_only(copy: Path) -> None:
    resource = pytest.importorskip("resource")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, {resource.RLIM_INFINITY}))\n"
    assert use(copy, limit + USE)[:2] == (30.0, 0)
    assert use(copy)[:2] == (30.0, 0)  # nothing was kept
    assert use(copy)[:2] == (30.0, 1)


def test_a_folder_that_is_removed_during_a_run_costs_time_only(copy: Path) -> None:
    code = (
        "import shutil\nfrom rimap import kernels, caller\nfrom pathlib import Path\n"
        "shutil.rmtree(kernels.kernel_folder(Path(caller.__file__)))\n" + USE
    )
    assert use(copy, code)[:2] == (30.0, 0)


def test_several_processes_share_a_folder(copy: Path) -> None:
    command = [sys.executable, "-c", USE]
    running = [
        subprocess.Popen(command, env=_environment(copy), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    out = [process.communicate() for process in running]
    assert all(stdout.startswith("30.0 ") and not stderr for stdout, stderr in out), out
    assert use(copy)[:2] == (30.0, 1)


def test_what_was_compiled_beside_the_package_is_used_where_that_cannot_be_written(copy: Path, tmp_path: Path) -> None:
    assert use(copy)[1] == 0  # compiled beside the package, as in the image of a container
    value, hits, folder = use(copy, NUMBA_CACHE_DIR=str(tmp_path / "of a user"))
    assert (value, hits) == (30.0, 1)
    assert folder.startswith(str(tmp_path / "of a user"))


def test_compiling_is_announced_once_and_only_if_there_is_something_to_compile(copy: Path) -> None:
    code = "from rimap import kernels\nkernels.announce_compiling(lambda: print('compiling'))\n" + USE
    command = [sys.executable, "-c", code]
    first, second = (
        subprocess.run(command, env=_environment(copy), capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(2)
    )
    assert first[0] == "compiling" and len(first) == 2
    assert second[0].startswith("30.0 1 ")


def test_a_kernel_without_a_way_in_from_python_serves_other_kernels() -> None:
    @kernels.njit(cache=False, from_python=False)
    def scaled(x, factor):
        return x * factor

    @kernels.njit(cache=False)
    def sum_of_two(x, y):
        return scaled(x, y) + scaled(y, y)

    assert sum_of_two(1.5, 2.0) == 7.0
    assert len(scaled.signatures) == 1


#: Files whose kernels are compiled in the first run of `nlls`.
FIRST_RUN = ("estimators/nlls/conic", "estimators/checks", "estimators/sigma_kernels.py")


def test_no_kernel_of_a_first_run_assigns_an_array_to_a_slice() -> None:
    """numba compiles what writes the shapes into the error message, which takes three seconds."""
    for file in source_hashes.sources_of(FIRST_RUN):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            decorators = getattr(function, "decorator_list", [])
            if not any(name in ast.unparse(decorator) for decorator in decorators for name in ("compiled", "njit")):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and "[" in ast.unparse(node.targets[0]):
                    of_slices = [
                        target
                        for target in ast.walk(node.targets[0])
                        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Slice)
                    ]
                    values = [x for x in ast.walk(node.value) if isinstance(x, (ast.Name, ast.Subscript))]
                    number = not values or ast.unparse(node.value) == "np.nan"
                    assert number or not of_slices, f"{file.name}: {ast.unparse(node)}: copy in a loop"
