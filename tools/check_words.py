"""Refuse words that rimap's text avoids: `python tools/check_words.py [FILE…]` prints file:line: word → what to write.

It reads comments, docstrings and other strings of Python files, and all of other text files. CONTRIBUTING.md says how
rimap writes; a word that is right in one place can be let through by an entry of ALLOWED.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Files and folders whose text is checked.
CHECKED = (
    ".github",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "benchmarks",
    "docs",
    "examples",
    "mkdocs.yml",
    "notebooks",
    "pyproject.toml",
    "recipes",
    "src/rimap",
)
SUFFIXES = frozenset({".py", ".md", ".html", ".js", ".toml", ".yml", ".cff"})

#: A regular expression (spaces match any white space), and what to write instead.
AVOIDED: dict[str, str] = {
    r"came": "got; or: was found, was given",
    r"lies?|lying|lain": "is, is stored; misaligned",
    r"tells?|told|telling": "report, warn, show, determine",
    r"sa(?:y|ys|id|ying) so": "report, warn, show",
    r"go(?:es|ing)? on|gone on|went on": "resume, continue",
    r"(?:is|are|was|were|be) (?:to be )?had": "is available, is obtained",
    r"where there (?:is|are|was|were)": "if there is",
    r"where none": "if you do not specify one; if there is none",
    r"(?:became|becomes?|becoming) of": "quality flag of (each voxel); what happened to",
    r"defects?|defective": "bug",
    r"mend(?:s|ed|ing)?": "fix, correct",
    r"reckon(?:s|ed|ing)?": "estimate, calculate",
    r"hardly": "barely",
    r"likewise": "also",
    r"without (?:more|further) ado": "directly",
    r"(?:lies?|lay|lying) out": "outlier",
    r"(?-i:Of) (?:a|an|the) (?:\w+ ){0,3}?\w+,": "for networks, …; in this series, …",
}
#: Where an avoided word is right: numbers and points lie in a range or on a curve.
ALLOWED = (
    r"(?:lies?|lying) (?:between|within|inside|outside|above|below)",
    r"(?:lies?|lying) (?:on a (?:line|curve|sphere)|in the (?:range|interval))",
)


def pieces(path: Path) -> Iterator[tuple[int, str]]:
    """Each text of a file that a person reads, with the line on which it begins."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield 1, text
        return
    lines = text.splitlines()
    nodes = list(ast.walk(ast.parse(text)))
    formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    for string in formatted:
        parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in string.values]
        yield string.lineno, "".join(parts)
    # before Python 3.12 the parts of an f-string have no line numbers of their own
    of_formatted = {id(part) for string in formatted for part in string.values}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in of_formatted:
            yield node.lineno, node.value
    block: list[str] = []  # comments on consecutive lines are one text: a phrase may continue on the next line
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        alone = lines[token.start[0] - 1].lstrip().startswith("#")
        if not (alone and block and token.start[0] == first + len(block)):
            if block:
                yield first, "\n".join(block)
            block, first = [], token.start[0]
        block.append(token.string.lstrip("#: "))
    if block:
        yield first, "\n".join(block)


def findings(path: Path) -> list[tuple[int, str, str]]:
    """The avoided words in a file: line, word and what to write instead, in the order of the lines."""
    found: set[tuple[int, str, str]] = set()
    for first, text in pieces(path):
        text = re.sub(r"`+[\w.]+`+", lambda name: "_" * len(name[0]), text)  # names of the code
        kept = [range(*match.span()) for match in _pattern("|".join(ALLOWED)).finditer(text)]
        for words, instead in AVOIDED.items():
            for match in _pattern(words).finditer(text):
                if not any(match.start() in allowed for allowed in kept):
                    word = " ".join(match[0].split())
                    found.add((first + text.count("\n", 0, match.start()), word, instead))
    return sorted(found)


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{words.replace(' ', chr(92) + 's+')})(?![\w-])", re.IGNORECASE)


def checked_files() -> list[Path]:
    """The files of CHECKED, without what is compiled or downloaded."""
    paths = [ROOT / entry for entry in CHECKED]
    return sorted(
        file
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.suffix in SUFFIXES and file.is_file() and "__pycache__" not in file.parts
    )


def main(arguments: list[str]) -> int:
    failed = False
    for path in [Path(argument).resolve() for argument in arguments] or checked_files():
        for line, word, instead in findings(path):
            print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}: {word!r} → {instead}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
