"""tools/check_words.py finds every word that rimap's text avoids, and nothing in the text that is written."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECK = runpy.run_path(str(ROOT / "tools" / "check_words.py"))


@pytest.mark.parametrize(
    "words",
    [
        "came", "lie", "lies", "tell", "tells", "told", "telling", "says so", "said so", "goes on", "go on", "gone on",
        "is had", "is to be had", "where there is", "Where there are", "where none", "became of", "defect", "defects",
        "mended", "mend", "reckoned", "hardly", "likewise", "without more ado", "lies out", "Of a network, the",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "template",
    [
        '"""Docstring.\n\nThat {}.\n"""\n',
        "x = 1  # that {}\n",
        'x = "it is " "what {}"\n',
        'y = 2\nx = f"{{y}}. {}"\n',
    ],
    ids=["docstring", "comment", "string", "f-string"],
)  # fmt: skip
def test_each_word_is_found(words: str, template: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(template.format(words), encoding="utf-8")
    found = CHECK["findings"](path)
    assert found and words.startswith(found[0][1]) and found[0][2]


def test_a_phrase_is_found_across_lines_with_its_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nThe command goes\non where it stopped.\n", encoding="utf-8")
    assert CHECK["findings"](page) == [(3, "goes on", "resume, continue")]
    module = tmp_path / "module.py"
    module.write_text("x = 1\n# it goes\n# on\ny = 2\n", encoding="utf-8")
    assert CHECK["findings"](module) == [(2, "goes on", "resume, continue")]


@pytest.mark.parametrize(
    "text", ["became", "belief", "retell-tale", "values lie between 0 and 1", "T1 lies outside 1 to 2 s", "teller"]
)
def test_other_words_and_mathematics_pass(text: str, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    assert CHECK["findings"](path) == []


def test_names_in_code_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('def tell(lies: int) -> int:\n    """Call `tell`."""\n    return lies\n', encoding="utf-8")
    assert CHECK["findings"](path) == []


def test_the_files_that_are_checked_have_text() -> None:
    files = CHECK["checked_files"]()
    assert ROOT / "CONTRIBUTING.md" in files and all(path.suffix in CHECK["SUFFIXES"] for path in files)


def test_what_is_found_is_printed_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.md"
    path.write_text("\nExpected ir or t2, 'vfa' came.\n", encoding="utf-8")
    assert CHECK["main"]([str(path)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}:2: 'came' → got")
