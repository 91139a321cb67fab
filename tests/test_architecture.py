"""What ARCHITECTURE.md says about the modules, held true."""

from __future__ import annotations

from pathlib import Path

import pytest

import rimap

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
    for path in (Path(rimap.__file__).parent / "workflow").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("print(", "sys.stdout", "sys.stderr", "typer")), path
