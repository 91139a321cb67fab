"""The transmit field B1 from its scans, in closed form: actual flip angle imaging and the double-angle method.

B1 is the actual over the nominal flip angle. Variable flip angle, MP2RAGE and the multi-echo spin echo take it as a
given map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.array_inputs import REAL, images_and_affine
from rimap.arrays import Array
from rimap.errors import InputError

#: The flip angle of the second image of the double-angle method over that of the first, and how far it may be off.
DOUBLE, ROUNDING = 2.0, 0.01


def b1_from_afi(images: Array, tr: Array, flip_angle: Array) -> NDArray[np.float64]:
    """Return B1 (*X) from actual flip angle imaging (TB1AFI): cos α = (r n − 1)/(n − r), r = S₂/S₁, n = TR₂/TR₁.

    Two spoiled gradient echoes alternate, with the same pulse and two repetition times that are short against T1.

    Parameters
    ----------
    images
        Magnitudes (2, *X), in the order of `tr`: an array, a tensor, or a list of two arrays or nibabel images.
    tr
        Repetition time that follows the pulse of each image (2), ms.
    flip_angle
        Nominal flip angle, degrees.

    Returns
    -------
    b1
        NaN if there is no signal, or where the images contradict each other (a ratio that no flip angle gives).

    Raises
    ------
    InputError
        For other than two images, repetition times that are alike, or a flip angle that is not positive.

    References
    ----------
    Yarnykh 2007, doi:10.1002/mrm.21120.

    >>> images = [[1.0, 0.0, 1.0], [0.7143, 0.0, 1.2]]
    >>> b1_from_afi(images, tr=(20, 100), flip_angle=60).round(3)
    array([0.885,   nan,   nan])
    """
    S, (first, second) = _two(images), _numbers("tr", tr, 2)
    (nominal,) = _numbers("flip_angle", flip_angle, 1)
    if first > second:
        S, first, second = S[::-1], second, first
    if first == second:
        raise InputError(f"tr: expected two repetition times that differ, got {first:g} ms twice.")
    n = second / first
    with np.errstate(all="ignore"):
        r = S[1] / S[0]
        cosine = (r * n - 1) / (n - r)
    return _ratio(cosine, (S[0] > 0) & (S[1] > 0), nominal)


def b1_from_dam(images: Array, flip_angle: Array) -> NDArray[np.float64]:
    """Return B1 (*X) from the double-angle method (TB1DAM): cos α = S(2α)/(2 S(α)).

    The repetition time is long against T1, or the magnetisation is reset before each pulse.

    Parameters
    ----------
    images
        Magnitudes (2, *X), in the order of `flip_angle`: an array, a tensor, or a list of two arrays or nibabel images.
    flip_angle
        Nominal flip angles (2), degrees, one twice the other.

    Returns
    -------
    b1
        At most 90° over the smaller nominal angle: magnitude images do not determine larger angles. NaN if there is no
        signal, or where the images contradict each other.

    Raises
    ------
    InputError
        For other than two images, or flip angles of which one is not twice the other.

    References
    ----------
    Insko & Bolinger 1993, doi:10.1006/jmra.1993.1133. Stollberger & Wach 1996, doi:10.1002/mrm.1910350217.

    >>> b1_from_dam([[1.0, 1.0, 0.0], [1.0, 1.9, 0.0]], flip_angle=(60, 120)).round(3)
    array([1.   , 0.303,   nan])
    """
    S, (first, second) = _two(images), _numbers("flip_angle", flip_angle, 2)
    if first > second:
        S, first, second = S[::-1], second, first
    if abs(second / first - DOUBLE) > ROUNDING * DOUBLE:
        raise InputError(f"flip_angle: expected one angle to be twice the other, got {first:g}° and {second:g}°.")
    with np.errstate(all="ignore"):
        cosine = S[1] / (2 * S[0])
    return _ratio(cosine, S[0] > 0, first)


#: What makes a map of the settings of a scan, by its BIDS suffix.
FORMULAS: Mapping[str, Callable[..., NDArray[np.float64]]] = MappingProxyType(
    {"TB1AFI": b1_from_afi, "TB1DAM": b1_from_dam}
)


def _two(images: Any) -> NDArray[np.float64]:
    # A list may hold lists of numbers, which are no arrays yet.
    lists = isinstance(images, (list, tuple)) and not any(hasattr(image, "shape") for image in images)
    try:
        given = np.array(images) if lists else images
    except ValueError:  # lists of different lengths
        raise InputError("images: expected two images of the same shape, got different ones.") from None
    S, _ = images_and_affine(given)
    if S.dtype.kind not in REAL:
        raise InputError(f"images: expected real numbers, got values of type {S.dtype}. Take the magnitude.")
    if S.ndim < 2 or len(S) != 2:
        raise InputError(f"images: expected two images, (2, *X), got the shape {S.shape}.")
    return S.astype(float)


def _numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(v) for v in np.atleast_1d(values))
    except (TypeError, ValueError):
        found = ()
    if len(set(found)) == 1 and count == 1:
        found = found[:1]  # written for each image
    if len(found) != count or not np.isfinite(found).all() or min(found) <= 0:
        raise InputError(f"{name}: expected {'one value' if count == 1 else 'two values'} above zero, got {values!r}.")
    return found


def _ratio(cosine: NDArray[np.float64], signal: NDArray[np.bool_], nominal: float) -> NDArray[np.float64]:
    """Return the angle over its nominal value (degrees), NaN where no angle has this cosine or there is no signal."""
    possible = signal & (abs(np.nan_to_num(cosine, nan=np.inf)) <= 1)
    ratio = np.full(cosine.shape, np.nan)
    ratio[possible] = np.rad2deg(np.arccos(cosine[possible])) / nominal
    return ratio
