"""Times in DICOM headers, ms: which are times at all, and where vendors write the inversion time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rimap.io.dicom_values import as_float, as_list, number_of, text_of, value_of

if TYPE_CHECKING:
    from pydicom import Dataset

#: Longer times are no times: some Philips files have 1.8e308 (ms).
_LONGEST_MS = {"ti": 30_000.0, "te": 5_000.0, "tr": 100_000.0}
#: An inversion time in the name of a series: “IR_TI400”, “se ir TI = 1100 ms”, “TI_2.5s”.
_TI_IN_WORDS = re.compile(r"(?<![a-z])TI[ _=:-]*(\d{1,5}(?:[.,]\d+)?) ?(ms|s)?(?![a-z\d])", re.IGNORECASE)
#: Less without a unit may be a count: TI1, TI2.
_LEAST_IN_WORDS = 20.0


def inversion_time(modifier: Dataset, header: Dataset, private: Dataset) -> float | None:
    """Return TI, ms: of several InversionTimes (0018,9079) the one that is a time, if it is one."""
    for group in (modifier, header):
        times = {t for x in as_list(group.get("InversionTimes")) if (t := plausible("ti", as_float(x))) is not None}
        if len(times) == 1:
            return times.pop()
    found = plausible(
        "ti",
        *(number_of(part, "InversionTime") for part in (header, modifier, private)),
        number_of(header, (0x2001, 0x1084)),  # Philips
    )
    if found is None and str(value_of(header, (0x2001, 0x101C)) or "").strip().upper() == "INV":
        found = plausible("ti", number_of(header, (0x2001, 0x101B)))  # Philips: delay of the prepulse
    return found


def inversion_time_elsewhere(header: Dataset, description: str) -> tuple[float | None, str]:
    """Return TI, ms, from the protocol that Siemens writes along or from the name of the series, and which."""
    for tag in ((0x0029, 0x1020), (0x0021, 0x1019)):
        raw = value_of(header, tag)
        text = raw.decode("latin-1") if isinstance(raw, bytes) else str(raw or "")
        _, begin, protocol = text.rpartition("### ASCCONV BEGIN")
        found = re.search(r"^\s*alTI\[0\]\s*=\s*([\d.]+)\s*$", protocol, re.MULTILINE) if begin else None
        pulse = re.search(r"^\s*sPrepPulses\.ucInversion\s*=\s*(\w+)\s*$", protocol, re.MULTILINE)
        if found and not (pulse and pulse[1].lower() in ("4", "0x4", "0x04")):  # 4: no inversion
            ti = plausible("ti", (as_float(found[1]) or 0) / 1000)
            if ti is not None:
                return ti, "the Siemens protocol"
    for name in (description, text_of(header, "ProtocolName")):
        if words := _TI_IN_WORDS.search(name):
            number = float(words[1].replace(",", "."))
            unit = (words[2] or "").lower()
            ti = plausible("ti", number * 1000 if unit == "s" else number)
            if ti is not None and (unit or ti >= _LEAST_IN_WORDS):
                return ti, "the names of the series"
    return None, ""


def plausible(what: str, *candidates: float | None) -> float | None:
    """Return the first that is a time, to the microsecond."""
    for candidate in candidates:
        if candidate is not None and 0 < candidate <= _LONGEST_MS[what]:
            return round(candidate, 3)
    return None
