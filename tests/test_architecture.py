"""What ARCHITECTURE.md says about the modules, held true."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rimap

PACKAGE = Path(rimap.__file__).parent
#: Arguments that a function may have: more are an idea that has no name yet.
MOST_ARGUMENTS = 8
grimp = pytest.importorskip("grimp")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Return what each module of the package imports of it, also inside functions; the public names left out."""
    graph = grimp.build_graph("rimap", cache_dir=None)
    modules = sorted(graph.modules - {"rimap"})
    return {m: set(graph.find_modules_directly_imported_by(m)) - {"rimap"} for m in modules}


def test_no_modules_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    left = {m: set(names) for m, names in imports.items()}
    while ends := {m for m in left if not left[m] & left.keys() or not any(m in names for names in left.values())}:
        left = {m: names - ends for m, names in left.items() if m not in ends}
    assert not left, f"these import each other: { {m: sorted(names & left.keys()) for m, names in left.items()} }"


def test_only_the_command_line_prints() -> None:
    """Ruff checks it too; this one also sees writes to the streams."""
    for path in (PACKAGE / "workflow").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("print(", "sys.stdout", "sys.stderr", "typer")), path


def test_functions_take_at_most_eight_arguments() -> None:
    """But for the verbs of the command line, whose arguments are its options."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and not (path.parent.name == "cli" and function.name == "command"):
                names = _arguments(function)
                assert len(names) <= MOST_ARGUMENTS, f"{path}:{function.lineno} {function.name}: {', '.join(names)}"


def _arguments(function: ast.FunctionDef) -> list[str]:
    """Return the names of the arguments, without the object or the class of a method."""
    a = function.args
    every = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    return [x.arg for x in every if x.arg not in ("self", "cls")]
