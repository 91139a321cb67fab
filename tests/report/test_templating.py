"""Templates are compiled once, and a cache that is damaged or cannot be written costs time only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from rimap.report import templating

TEMPLATE = "report.html"


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the templates that are compiled, with an empty cache of their own."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jinja2, "__version__", f"of {tmp_path.name}")  # of which nothing is kept beside the package
    names: list[str] = []
    original = jinja2.Environment.compile

    def compile_and_note(self: Any, source: Any, name: Any = None, *rest: Any, **more: Any) -> Any:
        names.append(name)
        return original(self, source, name, *rest, **more)

    monkeypatch.setattr(jinja2.Environment, "compile", compile_and_note)
    templating._environment.cache_clear()
    yield names
    templating._environment.cache_clear()


def load() -> jinja2.Template:
    """Load the template as a new process does."""
    templating._environment.cache_clear()
    return templating._environment().get_template(TEMPLATE)


def test_a_template_is_compiled_in_the_first_run_alone(compiled: list[str], tmp_path: Path) -> None:
    first = load()
    assert compiled == [TEMPLATE]
    again = load()
    assert compiled == [TEMPLATE] and set(again.blocks) == set(first.blocks)
    (file,) = tmp_path.glob("rimap-*/*")
    assert file.stat().st_size > 1000


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-200], lambda data: data[:10] + b"\xff" * 99])
def test_a_damaged_file_is_compiled_again_and_replaced(compiled: list[str], tmp_path: Path, damage: Any) -> None:
    load()
    (file,) = tmp_path.glob("rimap-*/*")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    load()
    assert compiled == [TEMPLATE] * 2
    assert file.read_bytes() == whole
    load()
    assert compiled == [TEMPLATE] * 2


def test_another_source_is_another_folder(compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.setattr(jinja2, "__version__", "another")
    load()
    assert compiled == [TEMPLATE] * 2 and len(list(tmp_path.glob("rimap-*"))) == 2


def test_a_folder_that_cannot_be_written_costs_time_only(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jinja2.bccache.Bucket, "write_bytecode", full)
    assert load().name == TEMPLATE
    monkeypatch.setattr(templating, "cache_folder", lambda key: None)
    assert load().name == TEMPLATE
    assert compiled == [TEMPLATE] * 2
