"""docs/statuses.md explains every status and every warning: what is added to the code must be added there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rimap import Status

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "rimap"
PAGE = ROOT / "docs" / "statuses.md"

#: Files of io/ that give a series no notes: their sentences are descriptions and refusals.
SAY_ELSEWHERE = (
    "derivatives",
    "provenance",
    "series_records",
    "run_lock",
    "dicom_headers",
    "dicom_convert",
    "bids",
    "atomic",
    "unreadable_formats",
    "dicom_files",
    "nifti_header",
    "write_claims",
)
#: Sentences of estimators/ and the rest of io/ that are parts of refusals, by their beginnings.
NO_WARNINGS = (
    "holds no NIfTI file",
    "no …- in any name",
    "both InversionTime and EchoTime",
    "neither name nor",
    "Rigid transforms found by",
    "v0 v1 s0",
    "actual flip-angle imaging (",
    "double-angle method (",
    "B1: actual over nominal",
    "… differ between the images",
    "… of the sidecars … the same for",
    "within the repetition time of",
    "FlipAngle …, RepetitionTime",
    "Use --sequence …, or correct",
    "suffix, and --sequence",
    "If these are …, write",
    "a number of more than 20 digits",
    "another size (",
    "Give the PAR file itself",
    "… is …. Copy the other",
    "an Analyze 7.5 image",
    ", or one for each of the",
    "For research, not for diagnosis.",
    "Source image for image processing operation",
)
#: Functions whose strings are refusals, help or names.
_REFUSALS = {"InputError", "RuntimeError", "AttributeError", "ValueError", "KeyError", "Option", "Argument", "print"}


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    return None


def _sentences(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the sentences of a file that are no docstring and no refusal, each with the source of its statement."""
    source = path.read_text(encoding="utf-8")
    skip: set[int] = set()
    tree, lines = ast.parse(source), source.splitlines()
    for node in ast.walk(tree):
        called = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Raise) or called in _REFUSALS:
            skip |= {id(n) for n in ast.walk(node)}
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skip.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skip |= {id(n) for n in ast.walk(node) if n is not node}
    statements = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and not hasattr(n, "body")]
    for statement in statements:
        for node in ast.walk(statement):
            text = None if id(node) in skip else _text(node)
            if text and len(text) >= 25 and len(text.split()) >= 5:
                yield text, "\n".join(lines[statement.lineno - 1 : statement.end_lineno])


@cache
def warnings_in_code() -> list[tuple[str, str]]:
    """Return every sentence that can become a warning, and its file."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        folder, *_ = path.relative_to(SOURCE).parts
        closed = folder in ("estimators", "registration") or (folder == "io" and path.stem not in SAY_ELSEWHERE)
        for text, statement in _sentences(path):
            if text.startswith(NO_WARNINGS) or folder == "report":  # the report's notes are on its own length
                continue
            if path.name == "sequence_page.py":  # its notes are those of a page, not of a series
                continue
            if closed or re.search(r"\b\w*(warnings?|notes?)\b\s*(\+?=|\.append|\.extend)", statement):
                found.append((text, path.relative_to(SOURCE).as_posix()))
    return found


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"^\s*(?:- )?>+ ?", "", text, flags=re.MULTILINE))


def _pieces(text: str) -> list[str]:
    return [_words(piece).strip() for piece in text.split("…")]


def test_the_warnings_are_found() -> None:
    texts = [t for t, _ in warnings_in_code()]
    for beginning in (
        "… is not known, so the model",
        "… is poorly determined",
        "The noise level is not known",
        "Network … was trained",
    ):
        assert any(t.startswith(beginning) for t in texts), beginning
    assert len(texts) >= 15


@pytest.mark.parametrize(("text", "file"), warnings_in_code())
def test_every_warning_is_explained(text: str, file: str) -> None:
    page = _words(PAGE.read_text(encoding="utf-8"))
    missing = [p for p in _pieces(text) if p not in page]
    assert not missing, (
        f"{file} can warn {text!r}, and docs/statuses.md does not quote it (… for what varies). Explain it there; if "
        "it is no warning, add it to NO_WARNINGS of this test."
    )


@pytest.mark.parametrize("status", Status)
def test_every_status_is_explained(status: Status) -> None:
    name = status.name.lower().replace("_", " ")
    (row,) = [r for r in PAGE.read_text(encoding="utf-8").splitlines() if r.startswith(f"| {int(status)} | {name} |")]
    value, meaning = (cell.strip() for cell in row.strip("|").split("|")[2:])
    assert len(meaning) > 5
    assert ("NaN" in value) == ("no value" in status.meaning or status is Status.OUTSIDE_MASK)


def test_every_message_is_under_a_heading_that_the_table_of_messages_links() -> None:
    text = PAGE.read_text(encoding="utf-8")
    index, messages = text.split("### Find a message")[1].split("### About the protocol")
    level, found = 3, []
    for line in messages.split("## How far the flags")[0].splitlines():
        if heading := re.match(r"(#+) (.*)", line):
            level = len(heading[1])
            found += [heading[2]] * (level == 4)
        assert level == 4 or not line.startswith(">"), line
    assert sorted(re.findall(r"\[([^]]*)\]\(#", index)) == sorted(found)
    for title, anchor in re.findall(r"\[([^]]*)\]\(#([^)]*)\)", index):
        assert anchor == re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).lower()), title
