"""The scaling of Philips: images of one series in display scales of their own are brought to one scale, by their sidecars.

A stored number p is shown as p·RS + RI (display scale), and is worth (p·RS + RI) / (RS·SS), with RS, RI the fields
PhilipsRescaleSlope and PhilipsRescaleIntercept and SS PhilipsScaleSlope. RS and SS differ between the images of a series.

References
----------
Chenevert et al. 2014, doi:10.1593/tlo.13811.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rimap.io.nifti import NiftiFile

_RESCALE, _SCALE = "PhilipsRescaleSlope", "PhilipsScaleSlope"
#: Whether dcm2niix was asked for values that images have in common: what it then writes in the header is 1/SS.
_FLOAT = "UsePhilipsFloatNotDisplayScaling"
#: Slopes that differ by less, relative, are the same number as text.
_SAME = 2e-3


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
    slopes = [(_positive(m.get(_RESCALE)), _positive(m.get(_SCALE))) for m in metadata]
    factors = [rescale * scale for rescale, scale in slopes if rescale is not None and scale is not None]
    if len(factors) < len(files) or not factors or max(factors) <= min(factors) * (1 + _SAME):
        return list(files), []
    shown = [_in_display_scale(f, m, r or 1.0, s or 1.0) for f, m, (r, s) in zip(files, metadata, slopes)]
    if all(x is False for x in shown):
        return list(files), []
    ratio = max(factors) / min(factors)
    if None in shown or not all(shown):
        return list(files), [
            f"the scales of Philips differ between the images, up to {ratio:.3g} times, and their headers do not say in which scale the "
            "values are: they are taken as they are. Convert the DICOM files again with dcm2niix if the fit is poor"
        ]
    middle = sorted(factors)[len(factors) // 2]  # values stay about as large as they were
    scaled = [replace(f, slope=f.slope * middle / k, inter=f.inter * middle / k) for f, k in zip(files, factors)]
    return scaled, [
        f"the images are in display scales of Philips, which differ up to {ratio:.3g} times; they were brought to one scale with "
        f"{_RESCALE} and {_SCALE} of the sidecars"
    ]


def _in_display_scale(file: NiftiFile, sidecar: Mapping[str, Any], rescale: float, scale: float) -> bool | None:
    """Tell whether the values of a file are in display scale, `None` if nothing says it."""
    if math.isclose(file.slope, rescale, rel_tol=_SAME):
        return True
    if math.isclose(file.slope, 1 / scale, rel_tol=_SAME):
        return False
    flag = sidecar.get(_FLOAT)
    if flag is None or file.slope != 1.0:
        return None
    return not flag


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        return None
    return float(value)
