"""docs/development/testing.md names tests: each must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "development" / "testing.md"
_FILE = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def named_tests() -> list[tuple[str, str]]:
    """Return the files and functions that the page names; a file alone has no function."""
    return sorted(set(_FILE.findall(PAGE.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(("file", "function"), named_tests())
def test_every_named_test_exists(file: str, function: str) -> None:
    assert (ROOT / file).is_file(), f"{PAGE.name} names {file}, which does not exist"
    source = (ROOT / file).read_text(encoding="utf-8")
    if function:
        assert re.search(rf"^(?:async )?def {function}\(", source, re.MULTILINE), f"{file} has no {function}"
    else:
        assert re.search(r"^ *def test_", source, re.MULTILINE), f"{file} has no tests"


def test_every_row_of_a_hazard_names_a_test() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Real data")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| hazard")]
    assert len(rows) > 25
    assert [row for row in rows if not _FILE.search(row)] == []
