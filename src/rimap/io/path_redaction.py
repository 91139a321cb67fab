"""Remove paths from texts in files that others may receive: a path shows where data are stored, and often whose they
are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rimap.advice import Advice

#: An absolute path within a text: what follows a letter, a digit, a dot or a slash is part of something else (1/s,
#: https://).
_ABSOLUTE = re.compile(r"(?<![\w./:~%)\]}-])(?:file://)?/[\w.~+@-][^\s\"',;:()<>|]*|\b[A-Za-z]:[\\/][^\s\"',;()<>|]+")


def without_folders(text: str, roots: Iterable[Path] = ()) -> str:
    """Return a text whose absolute paths are relative to one of the folders `roots`, or else names; a sentence keeps
    its weight.

    >>> without_folders("/data/bids/sub-01/x.nii.gz is damaged; see /home/me/mask.nii (1/s)", [Path("/data/bids")])
    'sub-01/x.nii.gz is damaged; see mask.nii (1/s)'
    """
    new = str(text)
    for root in sorted(
        {str(form) for r in roots for form in (Path(r).absolute(), Path(r).resolve())}, key=len, reverse=True
    ):
        if root not in ("", "/", "."):
            new = new.replace(f"{root}/", "")
            new = re.sub(rf"{re.escape(root)}(?![\w.-])", lambda found: Path(found[0]).name, new)
    new = _ABSOLUTE.sub(lambda found: _name(found[0]), new)
    return Advice(new, text.weight) if isinstance(text, Advice) else new


def word_without_folders(word: str, start: Path) -> str:
    """Return a word of a command line whose path is relative to `start` if it is below it, or else a name.

    >>> word_without_folders("--mask=/data/masks/a mask.nii", Path("/work"))
    '--mask=a mask.nii'
    """
    before, equals, value = word.partition("=")
    if equals and Path(value).is_absolute():
        return f"{before}={shown_path(Path(value), [start])}"
    return shown_path(Path(word), [start]) if Path(word).is_absolute() else without_folders(word, [start])


def shown_path(path: Path, roots: Iterable[Path]) -> str:
    """Return a path relative to the first of the folders that contains it, or else its name."""
    full = Path(path).resolve()
    for root in roots:
        if full.is_relative_to(Path(root).resolve()) and full != Path(root).resolve():
            return full.relative_to(Path(root).resolve()).as_posix()
    return Path(path).name or full.name


def _name(path: str) -> str:
    """Return the last part of a path, with the punctuation that ends its sentence."""
    kept = path.rstrip(".!?")
    return (re.split(r"[\\/]", kept.rstrip("/\\"))[-1] or "folder") + path[len(kept) :]
