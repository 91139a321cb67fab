"""How readable the code is, in figures with goals: `python -m benchmarks.code_measures [--list MEASURE]`.

Each measure counts over all files of `src/rimap`; `estimators` is also counted by itself, because most physics is
there.

- short names: the share of assigned names with one or two letters. Every assignment counts, and so does the variable of
  every loop, comprehension and `with`; arguments and `_` do not. Symbols of the paper (A, B, T1, S, tau, kappa, sigma,
  f, J, N) count like all other names: physics may use them, so the goal is a share and not zero.
- comments: lines with a comment per line that is not blank. Comments for tools (`# noqa`, `# type: …`) do not count.
- many arguments: functions with more than 12, without `self` and `cls`. Compiled kernels and verbs of the command line
  are exempt: numba takes flat arguments, and the options of a verb are its arguments.
- complex functions: cyclomatic complexity above 15. Compiled kernels are exempt, because a part that is split off is
  compiled again or is not inlined.
- long lines: more than 120 characters, also in tests, benchmarks and documentation scripts.
- private names: names that begin with an underscore and are imported from another module.
- Any in signatures: arguments and results of public functions whose type is `Any`, or a collection of `Any`.
  Not counted: arrays of any dtype (`NDArray[Any]`), mappings such as JSON (`Mapping[str, Any]`) and keywords
  (`**options: Any`), kernels, and `setting`, which declares a field as `dataclasses.field` does.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "rimap"
#: Folders whose lines are kept short, besides the package.
OTHER_CODE = ("tests", "benchmarks", "docs", "notebooks", "tools", "examples")

#: Goals. Shares are fractions; the others are the largest value that a function or line may have.
MOST_SHORT_NAMES = 0.20
MOST_SHORT_NAMES_IN_ESTIMATORS = 0.30
LEAST_COMMENTS = 0.03
MOST_ARGUMENTS = 12
MOST_COMPLEXITY = 15
MOST_CHARACTERS = 120

_SHORT = 2
_FOR_TOOLS = ("# noqa", "# type:", "# mypy:", "# ruff:", "# pragma:")
#: Decorators that compile a function end in one of these.
_COMPILERS = ("njit", "jit", "compiled", "kernel", "vectorize", "guvectorize", "overload")
#: Collections whose elements need a type.
_COLLECTIONS = ("Sequence", "Iterable", "Iterator", "list", "tuple", "set")
#: A type checker takes what they return for the type of the field.
_FIELD_SPECIFIERS = ("setting",)
#: Statements that add a way through a function.
_BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.match_case, ast.FunctionDef)

Files = tuple[Path, ...]


@dataclass(frozen=True)
class Measure:
    """A figure with its goal.

    Parameters
    ----------
    title
        What is measured.
    found
        The share, or how many places miss the goal.
    goal
        The goal, as text.
    met
        Whether the goal is reached.
    places
        What misses the goal, as ``file:line: what``.
    """

    title: str
    found: str
    goal: str
    met: bool
    places: tuple[str, ...] = ()


def python_files(folder: Path = PACKAGE) -> Files:
    """Return the Python files of a folder, sorted."""
    return tuple(sorted(folder.rglob("*.py")))


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def assigned_names(tree: ast.AST) -> Iterator[ast.Name]:
    """Yield each name where it is assigned: by a statement, a loop, a comprehension or `with`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id != "_":
            yield node


def short_names(files: Files) -> float:
    """Return the share of assigned names that have one or two letters."""
    names = [node.id for path in files for node in assigned_names(parsed(path))]
    return sum(len(name) <= _SHORT for name in names) / len(names)


def comments(files: Files) -> float:
    """Return how many lines have a comment, per line that is not blank."""
    lines = commented = 0
    for path in files:
        text = path.read_text(encoding="utf-8")
        lines += sum(bool(line.strip()) for line in text.splitlines())
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            commented += token.type == tokenize.COMMENT and not token.string.startswith(_FOR_TOOLS)
    return commented / lines


def functions_with_many_arguments(files: Files) -> Iterator[str]:
    """Yield functions with more than `MOST_ARGUMENTS` arguments."""
    for path in files:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.FunctionDef) or _is_compiled(node) or _is_verb(node, path):
                continue
            if (count := len(list(_arguments(node)))) > MOST_ARGUMENTS:
                yield f"{_place(path, node.lineno)} {node.name} has {count} arguments"


def complex_functions(files: Files) -> Iterator[str]:
    """Yield functions whose cyclomatic complexity is above `MOST_COMPLEXITY`."""
    for path in files:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.FunctionDef) or _is_compiled(node):
                continue
            # the function itself is among the branches: the one way through it that it has in any case
            if (count := sum(isinstance(part, _BRANCHES) for part in ast.walk(node))) > MOST_COMPLEXITY:
                yield f"{_place(path, node.lineno)} {node.name} has complexity {count}"


def long_lines(files: Files) -> Iterator[str]:
    """Yield lines of more than `MOST_CHARACTERS` characters."""
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > MOST_CHARACTERS:
                yield f"{_place(path, number)} {len(line)} characters"


def private_imports(files: Files) -> Iterator[str]:
    """Yield private names that are imported from a module; private modules, as those of the command line, are none."""
    for path in files:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom):
                folder = PACKAGE.parent.joinpath(*(node.module or "").split("."))
                for name in (alias.name for alias in node.names):
                    if name.startswith("_") and not name.startswith("__") and not (folder / f"{name}.py").is_file():
                        yield f"{_place(path, node.lineno)} {name} of {node.module}"


def any_in_signatures(files: Files) -> Iterator[str]:
    """Yield arguments and results of public functions that are `Any`."""
    for path in files:
        for node in _public_functions(parsed(path).body):
            if node.name in _FIELD_SPECIFIERS:
                continue
            for argument in _arguments(node):
                if argument is not node.args.kwarg and _says_nothing(argument.annotation):
                    yield f"{_place(path, node.lineno)} {node.name}: {argument.arg}"
            if _says_nothing(node.returns):
                yield f"{_place(path, node.lineno)} {node.name}: its result"


def measures() -> list[Measure]:
    """Return every measure of the code with its goal."""
    package, estimators = python_files(), python_files(PACKAGE / "estimators")
    every = package + tuple(path for folder in OTHER_CODE for path in python_files(ROOT / folder))
    shares = [
        ("short names", short_names(package), MOST_SHORT_NAMES),
        ("short names in estimators", short_names(estimators), MOST_SHORT_NAMES_IN_ESTIMATORS),
    ]
    found = [Measure(title, f"{value:.1%}", f"≤ {most:.0%}", value <= most) for title, value, most in shares]
    commented = comments(package)
    found.append(Measure("comments", f"{commented:.1%}", f"≥ {LEAST_COMMENTS:.0%}", commented >= LEAST_COMMENTS))
    lists: list[tuple[str, Callable[[Files], Iterable[str]], Files]] = [
        ("many arguments", functions_with_many_arguments, package),
        ("complex functions", complex_functions, package),
        ("long lines", long_lines, every),
        ("private names", private_imports, package),
        ("Any in signatures", any_in_signatures, package),
    ]
    for title, count, files in lists:
        places = tuple(count(files))
        found.append(Measure(title, str(len(places)), "none", not places, places))
    return found


def main() -> None:
    """Print the measures, and the places of those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", default="", metavar="MEASURE", help="print each place that misses this goal")
    parser.add_argument("--folders", action="store_true", help="print the share of short names of each folder")
    options = parser.parse_args()
    found = measures()
    if options.list:
        chosen = [measure for measure in found if measure.title == options.list]
        print("\n".join(place for measure in chosen for place in measure.places))
        return
    for measure in found:
        print(f"{measure.title:28}{measure.found:>8}   goal {measure.goal:8}{'' if measure.met else 'missed'}")
    if options.folders:
        for folder in sorted({path.parent for path in python_files()}):
            files = tuple(folder.glob("*.py"))
            if any(True for path in files for _ in assigned_names(parsed(path))):
                print(f"  {folder.relative_to(PACKAGE).as_posix():26}{short_names(files):>8.1%}")


def _place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}:"


def _arguments(function: ast.FunctionDef) -> Iterator[ast.arg]:
    """Yield the arguments, without the object or the class of a method."""
    every = function.args
    listed = [*every.posonlyargs, *every.args, every.vararg, *every.kwonlyargs, every.kwarg]
    return (argument for argument in listed if argument is not None and argument.arg not in ("self", "cls"))


def _is_compiled(function: ast.FunctionDef) -> bool:
    """Return whether a decorator compiles the function."""
    calls = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return any(ast.unparse(call).rsplit(".", 1)[-1] in _COMPILERS for call in calls)


def _is_verb(function: ast.FunctionDef, path: Path) -> bool:
    """Return whether typer makes options of the arguments."""
    return path.parent == PACKAGE / "cli" and function.name == "command"


def _public_functions(body: Iterable[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield public functions of a module, and public methods of its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not _is_compiled(node):
            yield node


def _says_nothing(annotation: ast.expr | None) -> bool:
    """Return whether a type is `Any`, or a union or collection of it."""
    if isinstance(annotation, ast.Name):
        return annotation.id == "Any"
    if isinstance(annotation, ast.BinOp):
        return _says_nothing(annotation.left) or _says_nothing(annotation.right)
    if isinstance(annotation, ast.Subscript):
        return ast.unparse(annotation.value) in _COLLECTIONS and _says_nothing(annotation.slice)
    if isinstance(annotation, (ast.Tuple, ast.List)):
        return any(_says_nothing(part) for part in annotation.elts)
    return False


if __name__ == "__main__":
    main()
