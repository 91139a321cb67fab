"""What kind of series images are, from their sidecars: which signal model, and whether echoes are gradient echoes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rimap import advice
from rimap.errors import InputError
from rimap.io.bids import models
from rimap.io.settings import settings_from_sidecars
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.settings import settings_of

GRADIENT, SPIN, UNKNOWN = "gradient", "spin", ""
#: Words for the sequence in free text, vendors' names among them (fl2d and epfid: Siemens; FFE: Philips; SPGR: GE).
_GRADIENT_WORDS = re.compile(
    r"gradient|spgr|flash|\bm?e?gre\b|f?gre|\bt?ffe\b|\btfe\b|\bt?fl[23]d|\bgr\b|epfid|bssfp|trufi|fiesta",
    re.IGNORECASE,
)
_SPIN_WORDS = re.compile(r"spin|\bt?se\b|\b[tf]se|tse|\bse[23]d|epse|mese|cpmg|\bspc|\bspace\b", re.IGNORECASE)
#: Sidecar fields with such text, the clearest first.
_TEXT_FIELDS = ("PulseSequenceType", "SequenceName", "PulseSequenceName", "PulseSequenceDetails")
#: A spin echo is never excited with less, in degrees, while it is repeated this fast, in s.
_LEAST_EXCITATION_DEG, _SHORT_TR_S = 50.0, 0.5


def echo_kind(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return whether images are gradient or spin echoes, `UNKNOWN` if the sidecars do not define it, and the evidence.

    >>> echo_kind([{"ScanningSequence": "GR", "EchoTime": 0.005}])
    ('gradient', 'ScanningSequence GR')
    """
    about = metadata[0] if metadata else {}
    codes = _codes(about.get("ScanningSequence"))
    if ("GR" in codes) != ("SE" in codes):
        return (GRADIENT if "GR" in codes else SPIN), f"ScanningSequence {'/'.join(sorted(codes))}"
    for field in _TEXT_FIELDS:
        text = about.get(field)
        if isinstance(text, str):
            gradient, spin = bool(_GRADIENT_WORDS.search(text)), bool(_SPIN_WORDS.search(text))
            if gradient != spin:
                return (GRADIENT if gradient else SPIN), f"{field} {text[:40]}"
    flip, tr = about.get("FlipAngle"), about.get("RepetitionTimeExcitation", about.get("RepetitionTime"))
    numbers = [v for v in (flip, tr) if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) == 2 and 0 < numbers[0] < _LEAST_EXCITATION_DEG and 0 < numbers[1] < _SHORT_TR_S:
        return GRADIENT, f"FlipAngle {numbers[0]:g}, RepetitionTime {numbers[1]:g} s"
    return UNKNOWN, ""


def model_of_sidecars(
    label: str, images: Sequence[Path], counts: Sequence[int], metadata: Sequence[Mapping[str, Any]]
) -> type[SignalModel]:
    """Return the signal model that the sidecars of loose images fit: that whose axis differs between the images.

    Parameters
    ----------
    label
        The series, for messages.
    images, counts, metadata
        The files, the number of volumes of each and its sidecar.

    Raises
    ------
    InputError
        If none fits, or several do.
    """
    known = models()
    defaults = [m for m in known.values() if m.bids_suffix]
    axes = {bids_key for model in defaults for bids_key in axis_of(model).bids}
    varying = {axis for axis in axes if _varies(metadata, axis)}
    # A setting that differs and that a model does not know would be taken for tissue: such a model does not fit.
    fitting = [model for model in defaults if varying & set(axis_of(model).bids) and varying <= _declared(model)]
    kind, _ = echo_kind(metadata)
    fitting = [m for m in fitting if m.gradient_echo is None or m.gradient_echo == (kind == GRADIENT)]
    if len(fitting) > 1:
        buildable = [m for m in fitting if _can_be_built(m, images, counts, metadata)]
        # If no settings fit, the simplest model says best what is missing.
        fitting = buildable or [min(fitting, key=lambda m: sum(s.required for s in settings_of(m).values()))]
    if len(fitting) == 1:
        return fitting[0]
    possible = fitting or [model for model in defaults if varying & set(axis_of(model).bids)] or defaults
    constant = sorted(axis for axis in axes if metadata and all(m.get(axis) is not None for m in metadata))
    why = "neither name nor sidecars determine the sequence"
    if varying:
        why = f"{' and '.join(sorted(varying))} differ between the images"
    elif constant and len(images) > 1:
        why = (
            f"{' and '.join(constant)} of the sidecars {'is' if len(constant) == 1 else 'are'} the same for all images"
        )
    for field in sorted(axes):
        without = [path.name for path, meta in zip(images, metadata) if meta.get(field) is None]
        if 0 < len(without) < len(images) / 2:
            raise InputError(
                f"{label}: expected {field} in the sidecars of all images, got none for {', '.join(without[:6])}. Add "
                "it, or leave the image out."
            )
    flags = " or ".join(f"--sequence {m.name}" for m in sorted(possible, key=lambda m: m.name))
    lacking = not any(axis in meta for axis in axes for meta in metadata)
    raise InputError(
        f"{label}: expected a known sequence and its times, got none: {why}. "
        f"Give {flags}{', and the times in ms with --times-ms' if lacking else ''}."
    )


def note_on_echoes(
    label: str, metadata: Sequence[Mapping[str, Any]], model: type[SignalModel], *, sure: bool
) -> list[str]:
    """Return a note if nothing says that echoes are those that a model is for.

    Parameters
    ----------
    sure
        Whether a name or the user says what the images are.

    Raises
    ------
    InputError
        For gradient echoes of different echo times and a model of spin echoes: their decay is T2*, not T2.
    """
    if model.gradient_echo is None or not any(_varies(metadata, bids_key) for bids_key in axis_of(model).bids):
        return []  # the images differ in something else: a preparation, whatever the readout
    kind, evidence = echo_kind(metadata)
    if model.gradient_echo and kind == GRADIENT and not sure:
        return [advice.note(f"the sidecars indicate gradient echoes ({evidence}), so the map is T2*, not T2")]
    if model.gradient_echo or kind == SPIN:
        return []
    for_gradient_echoes = [
        m.name
        for m in models().values()
        if m.gradient_echo and m.bids_suffix and axis_of(m).bids == axis_of(model).bids
    ]
    if kind == GRADIENT:
        remedy = f"Use --sequence {' or '.join(for_gradient_echoes)}, or correct" if for_gradient_echoes else "Correct"
        raise InputError(
            f"{label}: expected spin echoes for {model.title.lower()}, got gradient echoes ({evidence} in the "
            f"sidecars), which decay with T2*. {remedy} the sidecars."
        )
    if sure or not for_gradient_echoes:
        return []
    return [
        f"nothing says whether these are spin or gradient echoes: taken as {model.title}. If they are gradient echoes, "
        f"give --sequence {for_gradient_echoes[0]}, for T2*"
    ]


def _codes(value: Any) -> set[str]:
    """Return the codes of a DICOM code string, which converters write as a list or with separators."""
    several = value if isinstance(value, list) else re.split(r"[\\/_,\s]+", value) if isinstance(value, str) else []
    return {str(v).strip().upper() for v in several} - {""}


def _declared(model: type[SignalModel]) -> set[str]:
    return {bids_key for s in settings_of(model).values() for bids_key in s.bids}


def _varies(metadata: Sequence[Mapping[str, Any]], field: str) -> bool:
    """Return whether a sidecar field differs between images, of which all have it."""
    values = [m.get(field) for m in metadata]
    if any(value is None for value in values) or not values:
        return False
    return any(isinstance(value, list) for value in values) or len({str(value) for value in values}) > 1


def _can_be_built(
    model: type[SignalModel], images: Sequence[Path], counts: Sequence[int], metadata: Sequence[Mapping[str, Any]]
) -> bool:
    try:
        settings: dict[str, Any] = dict(settings_from_sidecars(images, counts, metadata, model)[0])
        model(**settings)
    except (InputError, TypeError):
        return False
    return True
