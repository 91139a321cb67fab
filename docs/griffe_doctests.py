"""Examples in docstrings as code: what follows ``>>>`` without the heading "Examples" would become a quotation."""

from __future__ import annotations

import re
from typing import Any

import griffe


class DoctestsAsExamples(griffe.Extension):
    """Give examples that follow the text of a docstring their heading."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = with_headings(obj.docstring.value)


def with_headings(docstring: str) -> str:
    r"""Return a docstring whose first example has the heading "Examples".

    >>> with_headings("Return 1.\n\n>>> one()\n1")
    'Return 1.\n\nExamples\n--------\n>>> one()\n1'
    """
    first = re.search(r"^>>> ", docstring, re.MULTILINE)
    if first is None:
        return docstring
    sections = re.findall(r"^(\w[\w ]*)\n-{3,}$", docstring[: first.start()], re.MULTILINE)
    if sections[-1:] == ["Examples"]:
        return docstring
    return f"{docstring[: first.start()]}Examples\n--------\n{docstring[first.start() :]}"
