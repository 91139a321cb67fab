"""The figures of benchmarks/code_measures.py stay at their goals."""

from __future__ import annotations

import ast

import pytest

measures = pytest.importorskip("benchmarks.code_measures", reason="benchmarks are beside the package in a checkout")


def test_every_goal_is_met() -> None:
    found = measures.measures()
    assert len(found) == 8
    for measure in found:
        assert measure.met, (measure.title, measure.found, measure.places)


def test_each_assignment_is_a_name() -> None:
    tree = ast.parse("a = b = 1\nfor c in [d for d in x]:\n    e += 1\nwith y as f: _ = lambda g: (h := 1)")
    assert sorted(node.id for node in measures.assigned_names(tree)) == list("abcdefh")


def test_a_bad_function_is_found(tmp_path, monkeypatch) -> None:
    path = tmp_path / "bad.py"
    monkeypatch.setattr(measures, "ROOT", tmp_path)
    arguments = ", ".join(f"x{i}: Any" for i in range(13))
    body = "".join(f"    if x{i % 13}:\n        return {i}\n" for i in range(15))
    path.write_text(
        f"from rimap.maps import _private\n# why\n\ndef f({arguments}) -> list[Any]:\n{body}# {'x' * 120}\n"
    )
    files = (path,)
    assert list(measures.functions_with_many_arguments(files)) == ["bad.py:4: f has 13 arguments"]
    assert list(measures.complex_functions(files)) == ["bad.py:4: f has complexity 16"]
    assert len(list(measures.any_in_signatures(files))) == 14
    assert list(measures.private_imports(files)) == ["bad.py:1: _private of rimap.maps"]
    assert len(list(measures.long_lines(files))) == 2
    assert measures.comments(files) == pytest.approx(2 / 34)
