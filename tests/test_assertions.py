"""No test asserts what cannot fail: constants, any length, any error, an error or warning that nobody looks at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))


def faults(tree: ast.AST) -> Iterator[str]:
    """Yield the line of each assertion that asserts too little, and why."""
    looked_at = {
        id(item.context_expr)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if item.optional_vars is not None
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            if isinstance(node.test, ast.Constant):
                yield f"{node.lineno}: a constant"
            text = ast.unparse(node.test)
            if text.startswith("len(") and text.endswith((") > 0", ") >= 0", ") >= 1")):
                yield f"{node.lineno}: any length"
        elif isinstance(node, ast.Call):
            name, words = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
            if name not in ("pytest.raises", "pytest.warns"):
                continue
            kinds = ast.unparse(node.args[0]) if node.args else "Warning"
            if kinds in ("Exception", "BaseException", "Warning"):
                yield f"{node.lineno}: any {kinds}"
            if (
                "match" not in words
                and id(node) not in looked_at
                and kinds in ("InputError", "ValueError", "UserWarning")
            ):
                yield f"{node.lineno}: {name}({kinds}) whose message nobody looks at"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(TESTS).as_posix())
def test_assertions_can_fail(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_assertions_that_cannot_fail_are_found() -> None:
    bad = (
        "assert True",
        "assert len(x) > 0",
        "pytest.raises(Exception, match='x')",
        "with pytest.raises(InputError): f()",
    )
    assert [len(list(faults(ast.parse(code)))) for code in bad] == [1] * len(bad)
    good = "assert len(x) > 1\nwith pytest.raises(InputError) as e: f()\nwith pytest.raises(ValueError, match='x'): f()"
    assert list(faults(ast.parse(good))) == []
