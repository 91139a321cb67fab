"""Mutation testing: change one operator, comparison or constant at a time and count how many changes a test notices.

    python -m benchmarks.mutation --mutants 320 --seed 1

`make mutation` runs it every night, each time with another seed. A mutant that no test notices is printed with its
line.
Each mutant runs in a process of its own, forked from one that has imported everything already, so that it costs little
more than its tests. Compiled kernels of a mutated file run as plain Python. Not mutated: messages of errors, type
annotations, and what runs only once during import. Changes that no test can notice are listed in
`equivalent_mutants.toml`, each with the reason; they do not count.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import io
import os
import random
import resource
import signal
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
#: A mutant that computes so much longer than its tests need without it is stuck in a loop, which counts as noticed.
CPU_SECONDS = 60


#: The tests that must notice a change in a file: fast ones, which check this file directly. By area and folder.
_CHECKS = "tests/estimators"
AREAS: dict[str, dict[str, tuple[str, ...]]] = {
    "signals": {
        f"rimap/signals/{name}.py": tuple(f"tests/signals/{test}.py" for test in tests.split())
        for name, tests in {
            "__init__": "test_declarations",
            "base": "test_declarations",
            "extended_phase_graph": "test_slice_profile test_multi_echo_spin_echo",
            "gradient_echo": "test_known_answers",
            "inversion_recovery": "test_known_answers",
            "look_locker": "test_known_answers",
            "model_checks": "test_model_checks",
            "model_options": "test_known_answers",
            "mp2rage": "test_mp2rage",
            "multi_echo_spin_echo": "test_slice_profile test_multi_echo_spin_echo",
            "saturation_recovery": "test_known_answers",
            "settings": "test_declarations",
            "slice_profile": "test_slice_profile",
            "t2_decay": "test_known_answers",
            "variable_flip_angle": "test_known_answers",
        }.items()
    },
    "likelihood": {
        "rimap/likelihood.py": ("tests/test_likelihood.py",),
        "rimap/correlation.py": ("tests/test_correlation.py",),
    },
    "checks": {
        f"rimap/estimators/checks/{name}.py": tuple(f"{_CHECKS}/{test}.py" for test in tests.split())
        for name, tests in {
            "air_of_coils": "test_air_of_coils",
            "background": "test_background",
            "clipping": "test_clipping",
            "connected_area_kernels": "test_connected_areas",
            "connected_areas": "test_connected_areas",
            "extreme_values": "test_missing_values",
            "uncertain_polarity": "test_uncertain_polarity",
            "field_range": "test_field_range",
            "filled_areas": "test_filled_areas",
            "final_checks": "test_final_checks",
            "image_count_kernels": "test_check_kernels",
            "image_counts": "test_check_kernels",
            "misfit": "test_misfit_of_residuals",
            "missing_values": "test_missing_values",
            "mixture_kernels": "test_check_kernels",
            "mixtures": "test_final_checks",
            "model_selection": "test_model_selection",
            "neighbour_plane_kernels": "test_check_kernels",
            "neighbour_planes": "test_check_kernels",
            "noise_floor": "test_noise_floor_bias",
            "nothing_mapped": "test_final_checks",
            "receive_gains": "test_receive_gains",
            "residual_probability": "test_residual_probability",
            "rounded_maps": "test_table",
            "smooth_refit": "test_smooth_refit",
            "training_range": "test_training_range",
            "wrong_areas": "test_wrong_areas",
        }.items()
    },
    "timing": {
        f"rimap/io/{name}.py": tuple(f"tests/io/{test}.py" for test in tests.split())
        for name, tests in {
            "dicom_times": "test_dicom_times",
            "image_order": "test_image_order",
            "repeated_volumes": "test_image_order",
            "settings": "test_settings",
            "slice_times": "test_slice_times",
        }.items()
    },
}
#: Tests of these files that take long, and notice nothing that the others do not.
SLOW = (
    *(
        f"tests/signals/test_multi_echo_spin_echo.py::{name}"
        for name in (
            "test_t2_of_the_nist_phantom_with_the_profile_that_the_residual_chooses",
            "test_a_nominal_angle_that_is_wrong_is_reported_and_hardly_moves_t2",
        )
    ),
    f"{_CHECKS}/test_air_of_coils.py::test_heads_in_air_of_many_coils",
    f"{_CHECKS}/test_wrong_areas.py::test_others_are_as_if_the_wrong_area_was_masked_out",
    *(
        f"{_CHECKS}/test_uncertain_polarity.py::{name}"
        for name in (
            "test_intervals_that_are_too_short_are_reported",
            "test_nothing_is_said_of_a_certain_polarity",
            "test_the_unit_of_the_images_does_not_matter",
        )
    ),
)
#: Changes that no test can notice, each with the reason.
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")


@dataclass(frozen=True)
class Mutant:
    """One change: the `place`-th that is possible in a file."""

    path: str
    place: int
    line: int
    function: str
    change: str


COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip


class Changer(ast.NodeTransformer):
    """Count the changes that are possible in a module, and make the one of number `wanted`."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.count, self.function = wanted, 0, ""
        self.found: list[tuple[int, str, str]] = []
        self.run_during_import: set[str] = set()

    def _is_wanted(self, node: ast.AST, change: str) -> bool:
        self.found.append((node.lineno, self.function, change))  # type: ignore[attr-defined]
        self.count += 1
        return self.count - 1 == self.wanted

    def _function(self, node: Any) -> Any:
        outer = self.function
        if not outer and node.name in self.run_during_import:
            return node
        if "(" not in outer:  # functions inside functions belong to the outer one
            self.function = f"{outer}{node.name}("
        node.body = [n for statement in node.body for n in _as_list(self.visit(statement))]
        self.function = outer
        return node

    visit_FunctionDef = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if "(" in self.function:
            return node
        outer, self.function = self.function, f"{self.function}{node.name}."
        node.body = [self.visit(n) if isinstance(n, ast.FunctionDef) else n for n in node.body]
        self.function = outer
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.run_during_import = _called_outside_functions(node)
        node.body = [self.visit(n) if isinstance(n, ast.FunctionDef | ast.ClassDef) else n for n in node.body]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node  # what an error says is checked by its words, not by mutants

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for k, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]
            if self._is_wanted(node, f"{type(operator).__name__} -> {other.__name__}"):
                node.ops[k] = other()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if _is_zero(node) or (isinstance(node.op, ast.Add | ast.Sub) and _is_zero(node.right)):
            return node  # another sign of zero, which only gives an array its shape, is the same
        other = OPERATORS.get(type(node.op))
        if other and self._is_wanted(node, f"{type(node.op).__name__} -> {other.__name__}"):
            node.op = other()
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        other = OPERATORS.get(type(node.op))
        if other and self._is_wanted(node, f"{type(node.op).__name__}= -> {other.__name__}="):
            node.op = other()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if self._is_wanted(node, "and <-> or"):
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not | ast.USub) and self._is_wanted(node, f"{type(node.op).__name__} -> nothing"):
            return node.operand
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Attribute) and node.func.attr == "reshape":  # to NumPy -2 is -1
            kept = [a if ast.unparse(a) == "-1" else self.visit(a) for a in node.args]
            node.func, node.args = self.visit(node.func), kept
            return node
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            if self._is_wanted(node, f"{node.value} -> {not node.value}"):
                return ast.copy_location(ast.Constant(not node.value), node)
        elif isinstance(node.value, int | float) and self._is_wanted(node, f"{node.value} -> {node.value + 1}"):
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node


def _is_zero(node: ast.AST) -> bool:
    """Return whether an expression is 0 * x."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Mult)
        and isinstance(node.left, ast.Constant)
        and node.left.value == 0
    )


def _called_outside_functions(module: ast.Module) -> set[str]:
    """Return the names of functions that a module calls while it is imported: tests begin later."""
    found: set[str] = set()
    waiting: list[ast.AST] = [module]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add(node.func.id)
            if not isinstance(node, ast.FunctionDef):
                waiting.append(node)
    return found


def _as_list(node: Any) -> list[Any]:
    return node if isinstance(node, list) else [node]


def mutants_of(path: Path) -> list[Mutant]:
    """Return every change that is possible in the functions of a file."""
    changer, text = Changer(), path.read_text(encoding="utf-8")
    changer.visit(ast.parse(text))
    name, lines = path.relative_to(SOURCE).as_posix(), [line.strip() for line in text.splitlines()]
    found = [Mutant(name, k, line, function.rstrip("("), c) for k, (line, function, c) in enumerate(changer.found)]
    return [mutant for mutant in found if (name, lines[mutant.line - 1], mutant.change) not in equivalent()]


@functools.cache
def equivalent() -> set[tuple[str, str, str]]:
    """Return the file, the line and the change of each mutant that no test can notice."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
    return {
        (path, entry["line"], change)
        for path, entries in listed.items()
        for entry in entries
        for change in entry["changes"]
    }


def apply(mutant: Mutant) -> None:
    """Give the function of a module that is imported already the code of a mutant."""
    path = SOURCE / mutant.path
    tree = Changer(mutant.place).visit(ast.parse(path.read_text(encoding="utf-8")))
    code: Any = compile(ast.fix_missing_locations(tree), str(path), "exec")
    holder: Any = importlib.import_module(mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    *classes, last = mutant.function.split(".")
    for name in classes:
        code, holder = _code_in(code, name)[0], vars(holder)[name]
    found = _functions_in(vars(holder)[last])
    for function, new in zip(found, _code_in(code, last)[-len(found) :], strict=True):
        function.__code__ = new
    _run_kernels_as_python(holder)


def _run_kernels_as_python(changed: types.ModuleType | type) -> None:
    """Replace the compiled functions of a module wherever they were imported: they were compiled before the change."""
    kernels = {value: value.py_func for value in vars(changed).values() if hasattr(value, "py_func")}
    for module in (
        [m for name, m in sys.modules.items() if name.startswith(("rimap.", "test_", "tests."))] if kernels else []
    ):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func") and value in kernels:
                setattr(module, name, kernels[value])


def _code_in(code: types.CodeType, name: str) -> list[types.CodeType]:
    return [c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name]


def _functions_in(value: Any) -> list[types.FunctionType]:
    """Return the function inside properties, class methods, caches and dispatchers."""
    if isinstance(value, types.FunctionType):
        return [_functions_in(value.__wrapped__)[0] if hasattr(value, "__wrapped__") else value]
    if isinstance(value, property):
        return [f for g in (value.fget, value.fset) if g for f in _functions_in(g)]
    inner = getattr(value, "__func__", None) or getattr(value, "func", None) or value.__wrapped__
    return _functions_in(inner)


def in_child(work: Callable[[], int], seconds: int = CPU_SECONDS) -> int:
    """Return the exit status of some work in a forked process; that of a process that was ended is above 100."""
    if (pid := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        status = 99
        with contextlib.suppress(BaseException), contextlib.redirect_stdout(io.StringIO()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            status = work()
        os._exit(status)
    _, ended = os.waitpid(pid, 0)
    return 100 + os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended)


def run_tests(tests: tuple[str, ...], *options: str) -> int:
    """Run tests in this process, until the first that fails."""
    import pytest

    os.chdir(ROOT)
    common = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "-o", "addopts=--import-mode=importlib"]
    return int(pytest.main([*common, *(f"--deselect={test}" for test in SLOW), *options, *tests]))


def sample(mutants: list[Mutant], n: int, seed: int) -> list[Mutant]:
    """Return n mutants, drawn without replacement, in the order of the files."""
    drawn = random.Random(seed).sample(mutants, min(n, len(mutants)))
    return sorted(drawn, key=lambda m: (m.path, m.place))


def survivors_of(subjects: dict[str, tuple[str, ...]], n: int, seed: int) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant of a sample of some files (with their tests), and whether it survived.

    Raises
    ------
    SystemExit
        If the tests fail without any mutant.
    """
    tests = tuple(dict.fromkeys(t for some in subjects.values() for t in some))
    for name in subjects:
        importlib.import_module(name.removesuffix(".py").replace("/", "."))
    with contextlib.redirect_stdout(io.StringIO()):
        run_tests(tests, "--collect-only")  # imports the tests once, for every mutant
    if in_child(lambda: run_tests(tests), CPU_SECONDS * len(subjects)):  # the tests of all files
        raise SystemExit(f"{' '.join(tests)}: these tests fail without any mutant")

    def work(mutant: Mutant) -> int:
        apply(mutant)
        return run_tests(subjects[mutant.path])

    for mutant in sample([m for name in subjects for m in mutants_of(SOURCE / name)], n, seed):
        yield mutant, in_child(lambda m=mutant: work(m)) == 0  # type: ignore[misc]


def main() -> None:
    """Print each survivor, and the share of mutants that a test noticed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mutants", type=int, default=320, help="in all areas together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--area", choices=list(AREAS), nargs="+", default=list(AREAS))
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.path.insert(0, str(SOURCE))
    noticed = total = 0
    for name in args.area:
        results = []
        for mutant, survived in survivors_of(AREAS[name], args.mutants // len(args.area), args.seed):
            results.append(not survived)
            if survived:
                print(f"survived: {mutant.path}:{mutant.line} {mutant.function}: {mutant.change}", flush=True)
        print(
            f"{name}: {sum(results)} of {len(results)} mutants noticed ({sum(results) / len(results):.0%})", flush=True
        )
        noticed, total = noticed + sum(results), total + len(results)
    print(f"all: {noticed} of {total} mutants noticed ({noticed / total:.1%}), seed {args.seed}")


if __name__ == "__main__":
    main()
