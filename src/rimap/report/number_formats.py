"""Numbers as text."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from rimap.io.provenance import MEDIAN_OF_MAP
from rimap.series import ParameterMaps


def number(x: float, digits: int = 3) -> str:
    """Return a number as text with 3 significant digits, and all digits of its integer part, up to nine.

    >>> [number(x) for x in (1234.5, 64.23, 0.01234, 1.5e-7, 5.53e30, float("nan"))]
    ['1,234', '64.2', '0.0123', '1.5e-07', '5.53e+30', '–']
    """
    if not np.isfinite(x):
        return "–"
    if x == 0:
        return "0"
    if abs(x) >= 1e9:
        return f"{x:.{digits}g}"
    if abs(x) >= 10 ** (digits - 1):
        return f"{x:,.0f}"
    if abs(x) < 1e-4:
        return f"{x:.{digits}g}"
    return f"{x:.{digits - 1 - int(np.floor(np.log10(abs(x))))}f}"


def plain(value: object) -> str:
    """Return a setting as text."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) < 1e9 and value == round(value) else f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(v)}" for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value)
    return str(value)


def plural(title: str) -> str:
    """Return the plural of the title of a setting.

    >>> plural("flip angle"), plural("number of shots")
    ('flip angles', 'numbers of shots')
    """
    return re.sub(r"^(.*?)(?= of | from |$)", r"\1s", title, count=1)


def sigma_number(maps: ParameterMaps) -> float | None:
    """Return σ, or its median if it is a map, or `None` if there is none."""
    if maps.noise is None or maps.noise.sigma is None:
        return None
    return maps.noise.typical_sigma()


def sigma_origin(maps: ParameterMaps) -> str:
    """Return the origin of σ, ``given`` or ``from the residuals``, and whether it is the median of a map."""
    source = maps.sigma_source.removesuffix(MEDIAN_OF_MAP)
    is_map = source != maps.sigma_source or (maps.noise is not None and np.ndim(maps.noise.sigma) > 0)
    return ("given" if source == "given" else f"from the {source}") + (", median of a map" if is_map else "")


def sd_origin(maps: ParameterMaps) -> str:
    """Return the origin of the standard deviations; "" if no voxel has one."""
    return maps.sd_source if maps.sd_kappa is not None and np.isfinite(maps.sd_kappa).any() else ""


def correlation_in_words(maps: ParameterMaps) -> str:
    """Return the noise correlation of adjacent voxels, "" if it is unknown or zero."""
    found = maps.correlation
    if found is None or found.is_white:
        return ""
    return f"adjacent voxels correlated ({' × '.join(f'{neighbour:.2f}' for neighbour in found.neighbours)})"
