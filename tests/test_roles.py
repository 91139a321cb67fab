"""Only the file of a model names its sequence, parameters, settings and sidecar fields; all else asks for roles.

Nor does it take a parameter by its position in κ. What has a reason to do so is in `ALLOWED`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import rimap
from rimap.signals import signal_models
from rimap.signals.settings import settings_of

FOLDER = Path(rimap.__file__).parent

#: Files by pattern, what they may name, and why.
ALLOWED: dict[str, tuple[set[str], str]] = {
    "__init__.py": ({"FlipAngle", "MP2RAGE"}, "classes of the public interface: ActualFlipAngle, MP2RAGE"),
    "b1.py": ({"tr", "flip_angle"}, "maps of B1 have settings of their own"),
    "io/b1.py": (
        {"FlipAngle", "RepetitionTime", "RepetitionTimeExcitation", "TB1map"},
        "which it declares, as models do",
    ),
    "io/bids.py": ({"TB1map"}, "what is made of scans of B1, whether a model reads it or not"),
    "io/dicom*.py": (
        {"EchoTime", "InversionTime", "RepetitionTime", "FlipAngle", "te", "ti", "tr"},
        "tags of DICOM, and the fields of its frames",
    ),
    "io/sequence_detection.py": (
        {"FlipAngle", "RepetitionTime", "RepetitionTimeExcitation"},
        "gradient echoes are told from spin echoes by their headers, before any model is chosen",
    ),
    "legacy_names.py": ({"B", "tr"}, "files of rimap 0.1.0, which had no other names"),
    "simulation/recipe.py": ({"ir", "t2"}, "the recipes of the paper"),
    "simulation/subjects.py": ({"A", "T1", "T2", "T2star"}, "properties of tissues, not of a model"),
    "simulation/tissues.py": ({"A", "T1", "T2", "T2star"}, "properties of tissues, not of a model"),
    "training/recipe.py": ({"T1", "T2"}, "the ranges of the paper"),
    "evaluation/*.py": ({"T1", "T2", "ir", "t2"}, "the experiments of the paper"),
}
#: Strings that are a name by chance: the order of an array in memory, figure "C" of an experiment, a LaTeX command, the
#: first of two maps.
MEANT_OTHERWISE: dict[str, set[str]] = {
    "estimators/nlls/conic/polynomials.py": {"F"},
    "io/nifti_bytes.py": {"F"},
    "io/nifti.py": {"F"},
    "io/slabs.py": {"F"},
    "workflow/slabs.py": {"A"},
    "workflow/memory.py": {"B"},
    "slices.py": {"A"},
    "cli/compare.py": {"A"},
    "cli/evaluate.py": {"C"},
    "report/formula.py": {"tau"},
}
#: Words that are a name in some model and plain English or a common abbreviation elsewhere.
COMMON = {"signed", "profile", "box"}
#: Arrays whose rows are parameters.
BY_PARAMETER = {"kappa", "sd_kappa", "parameters"}
#: Kernels that are told where each parameter is, or that write κ in their own order.
OWN_ORDER = {"estimators/nlls/conic/finish_kernels.py"}

FILES = [p for p in sorted(FOLDER.rglob("*.py")) if p.parent != FOLDER / "signals"]
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(FOLDER).as_posix())


@cache
def names() -> dict[str, str]:
    """Return every name that must not occur, and what it is."""
    found: dict[str, str] = {}
    for sequence, model in signal_models().items():
        found |= {p.name: f"a parameter of {sequence}" for p in model.parameters}
        found |= {d.name: f"a derived map of {sequence}" for d in model.derived}
        found |= {q.suffix: "a suffix of maps" for q in (*model.parameters, *model.derived) if q.suffix}
        found |= {suffix: "a suffix of images" for suffix in (model.bids_suffix, *model.also_reads) if suffix}
        for s in settings_of(model).values():
            found |= {s.name: f"a setting of {sequence}"} | dict.fromkeys(s.bids, "a field of sidecars")
        found[sequence] = "a sequence"
    return {name: what for name, what in found.items() if name not in COMMON}


def sidecar_fields() -> set[str]:
    """Return the fields of sidecars: long words, which must not occur in messages either."""
    return {name for name, what in names().items() if what == "a field of sidecars"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def constants(path: Path) -> Iterator[str]:
    """Yield the strings and the attributes of a file that are no docstring."""
    nodes = list(ast.walk(tree(path)))
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield f".{node.attr}"


def named_in(path: Path) -> set[str]:
    """Return what a file names."""
    settings = {n for n, what in names().items() if what.startswith("a setting")}
    found = set()
    for text in constants(path):
        if text.startswith("."):
            found |= {text[1:]} & settings
        else:
            found |= ({text} & set(names())) | {key for key in sidecar_fields() if key in text}
    return found


@every_file
def test_no_file_names_what_belongs_to_a_sequence(path: Path) -> None:
    file = path.relative_to(FOLDER).as_posix()
    allowed = {name for pattern, (some, _) in ALLOWED.items() if fnmatch(file, pattern) for name in some}
    named = named_in(path) - MEANT_OTHERWISE.get(file, set())
    assert named <= allowed, {name: names()[name] for name in named - allowed}


def test_nothing_is_allowed_that_does_not_occur() -> None:
    for pattern, (allowed, why) in ALLOWED.items():
        files = [p for p in FILES if fnmatch(p.relative_to(FOLDER).as_posix(), pattern)]
        occurring = {name for path in files for name in named_in(path)}
        assert allowed <= occurring, f"{pattern} ({why}): no longer named, take it from the list: {allowed - occurring}"
    for file, meant in MEANT_OTHERWISE.items():
        assert meant <= named_in(FOLDER / file), file


def test_nothing_is_allowed_in_the_estimators() -> None:
    estimators = [p.relative_to(FOLDER).as_posix() for p in FILES if FOLDER / "estimators" in p.parents]
    assert estimators and not [p for p in estimators for pattern in ALLOWED if fnmatch(p, pattern)]


@every_file
def test_no_file_takes_a_parameter_by_its_position(path: Path) -> None:
    """κ is asked by name or by role: the time is not its last row, and no first row is the amplitude."""
    if path.relative_to(FOLDER).as_posix() in OWN_ORDER:
        pytest.skip("a kernel that writes κ in its own order")
    found = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Subscript):
            continue
        name = getattr(node.value, "id", getattr(node.value, "attr", ""))
        index = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
        if name in BY_PARAMETER and isinstance(index, ast.Constant) and isinstance(index.value, int):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert not found, found


def test_a_name_is_found() -> None:
    assert {"ir", "t2", "T1", "B1", "tau", "InversionTime", "IRT1", "T1map"} <= set(names())
    assert names()["FlipAngle"] == "a field of sidecars"
