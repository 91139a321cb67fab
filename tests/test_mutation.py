"""The mutation run: it covers whole folders, changes what it says, and excludes only changes that exist."""

from __future__ import annotations

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

mutation = pytest.importorskip("benchmarks.mutation", reason="benchmarks are beside the package in a checkout")


def test_every_file_of_the_areas_is_covered_by_tests_that_exist() -> None:
    covered = {path: tests for files in mutation.AREAS.values() for path, tests in files.items()}
    for folder in ("signals", "estimators/checks"):
        for path in (mutation.SOURCE / "rimap" / folder).glob("*.py"):
            name = path.relative_to(mutation.SOURCE).as_posix()
            assert name in covered or mutation.mutants_of(path) == [], name
    assert all((mutation.ROOT / test).is_file() for tests in covered.values() for test in tests)


def test_equivalent_changes_are_changes_of_a_covered_file_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tomllib.loads(mutation.EQUIVALENT.read_text(encoding="utf-8"))
    covered = {path for files in mutation.AREAS.values() for path in files}
    monkeypatch.setattr(mutation, "equivalent", set)
    for path, entries in listed.items():
        assert path in covered
        lines = (mutation.SOURCE / path).read_text(encoding="utf-8").splitlines()
        possible = {(lines[m.line - 1].strip(), m.change) for m in mutation.mutants_of(mutation.SOURCE / path)}
        for entry in entries:
            assert {(entry["line"], change) for change in entry["changes"]} <= possible, entry
            assert len(entry["reason"].split()) > 3


SOURCE = """
def kept(x):
    raise ValueError(1 + x)

def changed(a, b: int = 3, *, shape=(2,)):
    return a.reshape(-1, b) if a > 1 and b else -a + 0 * b
"""


def test_each_change_is_one_change() -> None:
    """Messages of errors, −1 in a shape and the sign of 0 * x are left alone."""
    changer = mutation.Changer()
    changer.visit(ast.parse(SOURCE))
    assert {function for _, function, _ in changer.found} == {"changed("}
    assert sorted(change for *_, change in changer.found) == [
        "0 -> 1", "1 -> 2", "Gt -> GtE", "USub -> nothing", "and <-> or",
    ]  # fmt: skip
    texts = {ast.unparse(mutation.Changer(k).visit(ast.parse(SOURCE))) for k in range(len(changer.found))}
    assert len(texts) == len(changer.found) and ast.unparse(ast.parse(SOURCE)) not in texts


def test_a_change_is_made_in_place_and_a_kernel_runs_as_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process of a mutant: here with a module of its own."""
    (tmp_path / "rimap.py").write_text("")
    (tmp_path / "some_module.py").write_text(
        "class Kernel:\n    def __init__(self, f):\n        self.py_func = self.__wrapped__ = f\n"
        "    def __call__(self, x):\n        return 'compiled'\n\n"
        "def twice(x):\n    return 2 * x\n\n"
        "@Kernel\ndef kernel(x):\n    return x + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mutation, "SOURCE", tmp_path)
    module = importlib.import_module("some_module")
    monkeypatch.setitem(mutation.sys.modules, "rimap.some_module", module)
    mutants = {(m.function, m.change): m for m in mutation.mutants_of(tmp_path / "some_module.py")}
    assert module.twice(5) == 10 and module.kernel(5) == "compiled"
    mutation.apply(mutants["kernel", "Add -> Sub"])
    assert module.kernel(5) == 4
    mutation.apply(mutants["twice", "Mult -> Div"])
    assert module.twice(5) == 0.4
