"""The scaling of Philips: images of one series in display scales of their own are brought to one scale, by their
sidecars.

A stored number p is shown as p·RS + RI (display scale), and is worth (p·RS + RI) / (RS·SS), with RS, RI the fields
PhilipsRescaleSlope and PhilipsRescaleIntercept and SS PhilipsScaleSlope. RS and SS differ between the images of a
series.

References
----------
Chenevert et al. 2014, doi:10.1593/tlo.13811.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rimap.advice import note
from rimap.io.nifti import NiftiFile

#: Fields that dcm2niix writes for Philips: from display scale to floating-point scale.
_RESCALE, _SCALE = "PhilipsRescaleSlope", "PhilipsScaleSlope"
#: Whether dcm2niix was asked for values that images have in common: what it then writes in the header is 1/SS.
_FLOAT = "UsePhilipsFloatNotDisplayScaling"
#: Slopes that differ by less, relative, are the same number as text.
_SAME = 5e-3


def in_one_scale(
    files: Sequence[NiftiFile], metadata: Sequence[Mapping[str, Any]]
) -> tuple[list[NiftiFile], list[str]]:
    """Return the images of a series in the scale that they have in common, and notes.

    Only images in display scale are changed, and only if their scales differ: a factor that all share is left.

    Parameters
    ----------
    metadata
        The sidecar of each file.
    """
    rescale, scale = ([_positive(m.get(field)) for m in metadata] for field in (_RESCALE, _SCALE))
    inferred = False
    if None not in scale and None in rescale and _may_be_rescale_slopes(files, rescale):
        # The slope of a header is RS in display scale, and 1/SS in the common one, which the test below distinguishes.
        rescale, inferred = [r or (file.slope if file.slope > 0 else None) for file, r in zip(files, rescale)], True
    factors = [r * s for r, s in zip(rescale, scale) if r is not None and s is not None]
    if len(factors) < len(files) or not factors:
        return list(files), _incomplete(files, metadata, rescale, scale)
    if max(factors) <= min(factors) * (1 + _SAME):
        return list(files), []
    displayed = _in_display_scale(files, metadata, [r or 1.0 for r in rescale], [s or 1.0 for s in scale])
    if displayed is False:
        return list(files), []
    ratio = max(factors) / min(factors)
    if displayed is None:
        return list(files), [
            f"the scales of Philips differ between the images, up to {ratio:.3g} times, and their headers do not say "
            f"in which scale the "
            "values are: they are taken as they are. Convert the DICOM files again with dcm2niix if the fit is poor"
        ]
    middle = sorted(factors)[len(factors) // 2]  # values stay about as large as they were
    scaled = [
        replace(file, slope=file.slope * middle / factor, inter=file.inter * middle / factor)
        for file, factor in zip(files, factors)
    ]
    text = (
        f"the images are in display scales of Philips, which differ up to {ratio:.3g} times; they were brought to one "
        "scale with "
    )
    if inferred:
        return scaled, [
            f"{text}{_SCALE} of the sidecars, and the slopes of the headers in place of {_RESCALE}, which the sidecars "
            f"lack"
        ]
    return scaled, [note(f"{text}{_RESCALE} and {_SCALE} of the sidecars")]


def _may_be_rescale_slopes(files: Sequence[NiftiFile], rescale: Sequence[float | None]) -> bool:
    """Return whether the slopes of headers can stand for those that sidecars lack: they are equal if both are known."""
    known = [(file.slope, r) for file, r in zip(files, rescale) if r is not None]
    if not known:
        return len({file.slope for file in files}) > 1
    return all(abs(slope - r) <= _SAME * r for slope, r in known)


def _incomplete(
    files: Sequence[NiftiFile],
    metadata: Sequence[Mapping[str, Any]],
    rescale: Sequence[float | None],
    scale: Sequence[float | None],
) -> list[str]:
    """Return a warning if scales differ, in sidecars or headers, and some lack what would undo them."""
    if all(_says_common_scale(m) for m in metadata):
        return []
    known = {_RESCALE: rescale, _SCALE: scale}
    ratios = {field: _spread(values) for field, values in known.items()}
    if any(rescale) or any(scale) or any(_is_philips(m) for m in metadata):
        ratios["the slope in the header"] = _spread([file.slope if file.slope > 0 else None for file in files])
    differ = [what for what, ratio in ratios.items() if ratio > 1 + _SAME]
    if not differ:
        return []
    lacking = next(
        f"{field} ({file.path.name})"
        for field, values in known.items()
        for file, value in zip(files, values)
        if value is None
    )
    ratio = max(ratios[what] for what in differ)
    return [
        f"{' and '.join(differ)} of Philips {'differs' if len(differ) == 1 else 'differ'} between the images, up to "
        f"{ratio:.3g} times, and a sidecar lacks {lacking}: the values are taken as they are. Convert the DICOM files "
        f"again with dcm2niix if the fit is poor"
    ]


def _is_philips(sidecar: Mapping[str, Any]) -> bool:
    return str(sidecar.get("Manufacturer") or "").lower().startswith("philips")


def _spread(values: Sequence[float | None]) -> float:
    there = [value for value in values if value is not None]
    return max(there) / min(there) if there else 1.0


def _says_common_scale(sidecar: Mapping[str, Any]) -> bool:
    """Return whether a sidecar says that its image is in the common scale."""
    return sidecar.get(_FLOAT) in (1, True, "1")


def _in_display_scale(
    files: Sequence[NiftiFile], metadata: Sequence[Mapping[str, Any]], rescale: Sequence[float], scale: Sequence[float]
) -> bool | None:
    """Return whether values are in display scale, `None` if nothing says it.

    The slope of a header is RS in display scale, and 1/SS in the common one. Whoever writes an image again as whole
    numbers keeps those proportions, because scanners use their whole range of numbers.
    """
    slopes = [file.slope for file in files]
    if _proportional(slopes, rescale) and not _proportional(slopes, [1 / s for s in scale]):
        return True
    if _proportional(slopes, [1 / s for s in scale]):
        return False
    flags = {m.get(_FLOAT) for m in metadata}
    if all(_says_common_scale(m) for m in metadata):
        return False
    stored_as_they_are = all(file.dtype.kind in "iu" for file in files) and _spread(slopes) <= 1 + _SAME
    if stored_as_they_are and _spread(rescale) > 1 + _SAME:
        return None  # a program that lost the slopes, or one that wrote the values of the display as whole numbers
    return True if flags == {0} or flags == {False} else None


def _proportional(a: Sequence[float], b: Sequence[float]) -> bool:
    ratios = [x / y for x, y in zip(a, b)]
    return max(ratios) <= min(ratios) * (1 + _SAME) and min(ratios) > 0


def _positive(value: Any) -> float | None:
    if isinstance(value, str):  # as some tools write numbers
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        return None
    return float(value)
