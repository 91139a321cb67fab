"""What an image is by its image type: which part of the signal, an acquired image or a map. One rule for DICOM and
sidecars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Values of the BIDS entity `part`.
MAGNITUDE, PHASE, REAL, IMAGINARY = "mag", "phase", "real", "imag"
#: What images that are no magnitude are called.
PART_WORDS = {PHASE: "phase", REAL: "real part", IMAGINARY: "imaginary part"}
#: Values of ImageType (0008,0008) that name a part, in full and as one letter.
_PARTS = {"MAGNITUDE": MAGNITUDE, "PHASE": PHASE, "REAL": REAL, "IMAGINARY": IMAGINARY}
_SHORT = {"M": MAGNITUDE, "P": PHASE, "R": REAL, "I": IMAGINARY}
#: Values of ImageType that leave open what an image shows.
_SAYS_NOTHING = ("ORIGINAL", "MIXED", "NONE", "OTHER", "PRIMARY", "")
_MAP = re.compile(
    r"(T1|T2|T2\*|T2_?STAR|T1RHO|R1|R2|R2\*|R2_?STAR|PD|B0|B1|ADC|FA|M0|PARAMETRIC)[ "
    r"_]?MAP|UNI|ADC|FA|TRACEW|TENSOR|SWI|MIP|MNIP"
    r"|MINIP|MPR|PROJECTION IMAGE|SUB(TRACTION|TRACT)?"
)
#: Units of maps. Images have none, and phases have those of an angle.
_UNITS_OF_MAPS = ("s", "sec", "seconds", "ms", "msec", "milliseconds", "hz", "1/s", "s^-1", "1/ms", "mm^2/s")
#: Units of angles, in which a phase image may be stored.
UNITS_OF_ANGLES = ("rad", "radian", "radians", "mrad", "milliradians", "deg", "degree", "degrees")
#: Endings that dcm2niix gives to the parts, for sidecars that do not say which part it is.
_ENDINGS = (
    (PHASE, re.compile(r"_(ph|phase)$", re.I)),
    (IMAGINARY, re.compile(r"_imag(inary)?$", re.I)),
    (REAL, re.compile(r"_real$", re.I)),
)


@dataclass(frozen=True)
class ImageType:
    """What kind of image it is.

    Parameters
    ----------
    part
        ``mag``, ``phase``, ``real``, ``imag``, or "" if nothing says it.
    derived
        What was computed from other images (``T2 MAP``), "" for an acquired image.
    variant
        What else the image type says: unlike variants (filtered, distortion corrected) make no series together.
    """

    part: str
    derived: str
    variant: tuple[str, ...]


def image_type(values: Sequence[str], component: str = "") -> ImageType:
    """Return the kind of an image from ImageType (0008,0008), and ComplexImageComponent (0008,9208) if there is one.

    >>> image_type(["ORIGINAL", "PRIMARY", "P", "ND", "PHASE"])
    ImageType(part='phase', derived='', variant=('ND',))
    """
    tokens = [str(value).strip().upper() for value in values]
    derived = next((token for token in tokens[2:] if _MAP.fullmatch(token)), "")
    part = _PARTS.get(component.strip().upper()) or _part(tokens[2:])
    variant = {t for t in (*tokens[:1], *tokens[2:]) if not _part([t]) and t not in _SAYS_NOTHING}
    return ImageType(part, derived, tuple(sorted(variant)))


def image_type_of_sidecar(sidecar: Mapping[str, Any], stem: str) -> ImageType:
    """Return the kind of an image from its sidecar, and from the end of its name if the sidecar does not say the part.

    Parameters
    ----------
    stem
        The name of the file without extension, as dcm2niix or a user wrote it.
    """
    value = sidecar.get("ImageType")
    tokens = [str(t) for t in value] if isinstance(value, list) else str(value or "").split("\\")
    found = image_type(tokens, str(sidecar.get("ComplexImageComponent") or ""))
    unit = str(sidecar.get("Units") or "").strip().lower()
    part, derived = found.part, found.derived
    if unit in UNITS_OF_ANGLES:
        part = PHASE
    elif unit in _UNITS_OF_MAPS and not derived:
        derived = f"map in {unit}"
    if not part:
        part = next((p for p, end in _ENDINGS if end.search(stem)), "")
    return ImageType(part, derived, found.variant)


def a_part(part: str) -> str:
    """Return what an image that is no magnitude is called, with its article.

    >>> a_part("phase"), a_part("imag")
    ('a phase', 'an imaginary part')
    """
    word = PART_WORDS[part]
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _part(tokens: Sequence[str]) -> str:
    for token in tokens:
        if token in _SHORT or token in _PARTS:
            return _SHORT.get(token) or _PARTS[token]
    for token in tokens:
        for word, part in _PARTS.items():
            if token.startswith((f"{word[0]}_", f"{word} ", f"{word}_")):
                return part
    return ""
