"""Which files are DICOM, and which should be and are not."""

from __future__ import annotations

import re
import struct
from collections import Counter
from pathlib import Path

from rimap.errors import InputError
from rimap.io.bids import walk

#: No DICOM file is shorter.
_LEAST_BYTES = 132


def like_dicom_name(path: Path) -> bool:
    """Return whether a file is called as DICOM files are: by extension, or by a number without one."""
    suffix = path.suffix.lower()
    return suffix in (".dcm", ".ima", ".dicom") or (not suffix[1:].isalpha() and any(c.isdigit() for c in path.name))


def looks_like_dicom(path: Path) -> bool:
    """Return, by its first bytes, whether a file is DICOM, with or without the preamble."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return False
        with path.open("rb") as file:
            head = file.read(_LEAST_BYTES)
    except OSError:
        return False
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[1] or head[0] not in (2, 8) or head[3]:  # no preamble: the first group is 0002 or 0008
        return False
    length = struct.unpack("<I", head[4:8])[0]
    return head[4:6] in (b"UL", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM") or length < 256


def dicom_files(path: Path) -> list[Path]:
    """Return the DICOM files in a folder and below it, or the file itself, in order of name.

    A DICOMDIR stands for its folder. Hidden files are left out, and what is no DICOM and is not named like one.

    Raises
    ------
    InputError
        For what should be DICOM among DICOM files and is not: empty files, links to nothing, files that are named like
        their neighbours and hold something else. A map without one of its images would look right. And for a folder
        that cannot be read.
    """
    if path.name.upper() == "DICOMDIR":
        path = path.parent
    if path.is_file():
        return [path] if looks_like_dicom(path) else []
    found: list[Path] = []
    others: list[tuple[Path, str]] = []
    for where, folders, files in walk(path):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for name in sorted(files):
            file = where / name
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if looks_like_dicom(file):
                found.append(file)
            else:
                others.append((file, _what(file)))
    patterns = {_pattern(f) for f in found}
    wrong = [(f, what) for f, what in others if _by_extension(f) or (_pattern(f) in patterns and like_dicom_name(f))]
    if found and wrong:
        counts = Counter(what for _, what in wrong)
        kinds = ", ".join(f"{n} {what}" for what, n in counts.most_common())
        raise InputError(
            f"{len(wrong)} of the files among the DICOM files cannot be read ({kinds}). A map from incomplete images "
            "would look plausible: export, fetch or copy them again, or remove files that are not images."
        )
    return found


def _by_extension(path: Path) -> bool:
    return path.suffix.lower() in (".dcm", ".ima", ".dicom")


def _pattern(path: Path) -> tuple[Path, str]:
    """Return the name of a file without its numbers, and its folder: neighbours of one series have the same."""
    return path.parent, re.sub(r"\d+", "#", path.name.lower())


def _what(path: Path) -> str:
    """Return in a word or two what a file is that is no DICOM."""
    if not path.exists():
        return "link to nothing"
    if not path.is_file():
        return "no file"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return "not readable"
    if size < _LEAST_BYTES:
        return "empty or cut short"
    if not any(head):
        return "filled with zeros"
    if head.startswith(b"version https://git-lfs"):
        return "pointer of git-lfs, not fetched"
    return "text" if head.isascii() else "not DICOM"
