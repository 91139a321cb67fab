"""Markdown out of declarations and docstrings, for pages that nobody writes by hand."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
#: An entry of a numpydoc section: its names, and the indented lines that describe them.
_ENTRY = re.compile(r"^(\w[\w, ]*)\n((?:[ ]+.*(?:\n|$)|\n)+)", re.MULTILINE)
_DOI = re.compile(r"\bdoi:(10\.[^\s,;]+[^\s,;.])")
_MARKS = re.compile(r"([*|_\[\]])")


def escaped(text: str) -> str:
    r"""Return text in which Markdown reads no mark outside of code: T1* is no emphasis. Double backticks become single
    ones.

    >>> escaped("T1* of ``a|b`` <x> | y")
    'T1\\* of `a|b` &lt;x> \\| y'
    """
    parts = text.replace("``", "`").split("`")
    return "`".join(part if i % 2 else _MARKS.sub(r"\\\1", part).replace("<", "&lt;") for i, part in enumerate(parts))


def cell(text: str | None) -> str:
    """Return text for a cell of a table; a dash if there is none."""
    return escaped(" ".join((text or "–").split()))


def code(words: Iterable[str]) -> str:
    """Return words as code, a dash if there are none.

    >>> code(["--mask", "FILE|auto"])
    '`--mask`, `FILE|auto`'
    """
    return ", ".join(f"`{word}`" for word in words if word) or "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, and an empty one after it."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def listed(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the rows of a table as a list, which no line is too narrow for, and an empty line after it.

    >>> list(listed(("map", "unit"), [("T1", "ms")]))
    ['- **T1**: unit: ms', '']
    """
    for first, *others in rows:
        yield f"- **{first}**: " + "; ".join(
            f"{name}: {value}" for name, value in zip(head[1:], others) if value != "–"
        )
    yield ""


def linked(text: str) -> str:
    """Return text with its digital object identifiers as links.

    >>> linked("Barral et al. 2010, doi:10.1002/mrm.22497.")
    'Barral et al. 2010, [doi:10.1002/mrm.22497](https://doi.org/10.1002/mrm.22497).'
    """
    return _DOI.sub(r"[doi:\1](https://doi.org/\1)", text)


def docstring_of(described: type) -> tuple[str, dict[str, str]]:
    """Return the text of a class before the sections of its own docstring, and these sections by title."""
    text = inspect.cleandoc(described.__dict__.get("__doc__") or "")
    parts = _SECTION.split(text)
    return parts[0].strip(), {title: textwrap.dedent(body).strip() for title, body in zip(parts[1::2], parts[2::2])}


def entries_of(section: str) -> dict[str, tuple[list[str], str]]:
    """Return the entries of a numpydoc section by name: the names that share a description, and that on one line.

    >>> entries_of("low, high\\n    The range.\\nunit\\n    ``ms``.")["high"]
    (['low', 'high'], 'The range.')
    """
    found: dict[str, tuple[list[str], str]] = {}
    for names, description in _ENTRY.findall(section):
        together = [name.strip() for name in names.split(",")]
        found |= {name: (together, " ".join(description.split())) for name in together}
    return found
