"""Estimators know roles: no file of theirs names a sequence, a parameter, a setting or a field of a sidecar."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import rimap.estimators
from rimap.signals import signal_models
from rimap.signals.settings import settings_of

FOLDER = Path(rimap.estimators.__file__).parent

#: What is left, by file: to be emptied.
STILL_NAMED: dict[str, set[str]] = {
    "checks/training_range.py": {"B", "tr"},  # metadata of networks that were trained with rimap 0.1.0
}
#: Strings that are the name of a parameter by chance: the order of an array in memory.
MEANT_OTHERWISE: dict[str, set[str]] = {"nlls/conic/polynomials.py": {"F"}}
#: Words that are a name in some model and plain English or a common abbreviation elsewhere.
COMMON = {"signed", "profile", "box"}


@cache
def names() -> dict[str, str]:
    """Return every name that must not occur, and what it is."""
    found: dict[str, str] = {}
    for sequence, model in signal_models().items():
        found |= {p.name: f"a parameter of {sequence}" for p in model.parameters}
        found |= {d.name: f"a derived map of {sequence}" for d in model.derived}
        for s in settings_of(model).values():
            found |= {s.name: f"a setting of {sequence}"} | dict.fromkeys(s.bids, "a field of sidecars")
        found[sequence] = "a sequence"
    return {name: what for name, what in found.items() if name not in COMMON}


def sidecar_fields() -> set[str]:
    """Return the fields of sidecars: long words, which must not occur in messages either."""
    return {name for name, what in names().items() if what == "a field of sidecars"}


def constants(path: Path) -> Iterator[str]:
    """Yield the strings and the attributes of a file that are no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
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


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_no_file_names_what_belongs_to_a_sequence(path: Path) -> None:
    file = path.relative_to(FOLDER).as_posix()
    allowed = STILL_NAMED.get(file, set())
    named = named_in(path) - MEANT_OTHERWISE.get(file, set())
    assert named <= allowed, {name: names()[name] for name in named - allowed}
    assert allowed <= named, f"no longer named, take it from the list: {allowed - named}"


def test_a_name_is_found() -> None:
    assert {"ir", "t2", "T1", "B1", "tau", "InversionTime"} <= set(names())
    assert names()["FlipAngle"] == "a field of sidecars"
