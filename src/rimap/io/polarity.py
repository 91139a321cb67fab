"""Magnitude and phase, or real and imaginary part, to signed inversion recovery images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError

#: Phase that stays below this is in turns or units of π (noise in air fills the circle).
_LEAST_RADIANS = 1.1
#: Phase between a full turn in radians and this may be radians that were unwrapped.
_UNWRAPPED = 60.0
#: What a full turn may be in scaled phase images: degrees, 12 bits, milliradians, 13 bits.
_CIRCLES = (360.0, 4096.0, 2000 * math.pi, 8192.0)
#: The mean of |cos| of phases that differ by nothing or half a turn exceeds this, and the share of those that are
#: turned.
_ALIGNED, _TURNED = 0.85, 0.02
#: Where more than this share of what is bright is negative at some time, images are signed.
_NEGATIVE = 0.05
#: Where more than this share of what is bright and changes falls, signed images are reversed.
_FALLING = 0.9
#: How much of the mean magnitude the signal must fall over time before its polarity is turned round.
_FALL = 0.1


def phase_circle(lowest: float, highest: float) -> float:
    """Return what a full turn is in the unit of phase images with this range: radians, or scaled integers.

    Known are ±π and 0…2π, ±3142 (milliradians), ±180° and 0…360°, 0…4095 and ±2048, and ±4096.

    Raises
    ------
    InputError
        For a range beyond ±4096, or so small that it is no radians.

    Examples
    --------
    >>> phase_circle(-4096, 4094)
    8192.0
    """
    largest, width = max(abs(lowest), abs(highest)), highest - lowest
    if largest <= _LEAST_RADIANS:
        raise InputError(
            f"phase images: expected radians (−3.14…3.14) or −4096…4095, got {lowest:g} to {highest:g}. If these are "
            "turns or units of π, convert them to radians."
        )
    if largest <= 2 * math.pi + 0.01:
        return 2 * math.pi
    if largest <= 360.5:
        return 360.0
    if lowest < -3000 and 3000 < largest <= 3142.5:
        return 2000 * math.pi
    if lowest >= 0 and 4096.5 < highest <= 2000 * math.pi + 0.5:
        return 2000 * math.pi
    if lowest >= 0 and highest <= 4096.5:
        return 4096.0
    if largest <= 2048.5:
        return 4096.0
    if largest <= 4096.5 and width <= 8193:
        return 8192.0
    raise InputError(
        f"phase images: expected radians or −4096…4095, got {lowest:g} to {highest:g}. Convert them to radians."
    )


def circle_of_images(images: NDArray[Any], phase: NDArray[Any], reference: int, limits: tuple[float, float]) -> float:
    """Return what a full turn is, from the range of the phase and from which turn makes the images ± one signal.

    The range of an object without air does not distinguish milliradians from 12-bit numbers. With the right turn the
    phases of the images differ by nothing or by half a turn; with another they differ by anything.

    Parameters
    ----------
    images, phase
        (N, *X), or a sample of the voxels.
    reference
        Which image has the longest inversion time.
    limits
        The least and the largest value of all of the phase.

    Raises
    ------
    InputError
        If the range is not that of a phase.
    """
    usual = phase_circle(*limits)
    if usual == _CIRCLES[0] and max(map(abs, limits)) < _UNWRAPPED:
        # Degrees that differ by half a turn have a range of 180: these are radians that were unwrapped, or the same
        # everywhere.
        return 2 * math.pi if all(_two_signs(images, phase, reference, 2 * math.pi)) else usual
    if usual < 360 or _two_signs(images, phase, reference, usual)[0]:
        return usual
    for circle in _CIRCLES:
        half = limits[0] >= -circle / 2 - 0.5 and limits[1] <= circle / 2 + 0.5
        if circle != usual and (half or (limits[0] >= 0 and limits[1] <= circle + 0.5)):
            fits, turned = _two_signs(images, phase, reference, circle)
            if fits and turned:
                return circle
    return usual


def _two_signs(images: NDArray[Any], phase: NDArray[Any], reference: int, circle: float) -> tuple[bool, bool]:
    """Return whether phases differ from the reference by 0 or π only, and whether some differ by π."""
    weights = np.nan_to_num(np.abs(images), posinf=0.0, neginf=0.0)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.cos((phase - phase[reference]) * (2 * math.pi / circle)))
    weights = np.delete(
        weights * np.minimum(1, weights[reference] / max(float(weights[reference].max()), 1e-30)), reference, 0
    )
    apart, total = np.delete(apart, reference, 0), float(weights.sum())
    if not total:
        return True, False
    return (
        float((weights * np.abs(apart)).sum()) > _ALIGNED * total,
        float(weights[apart < -_ALIGNED].sum()) > _TURNED * total,
    )


def sign_from_phase(phase: NDArray[Any], reference: NDArray[Any], circle: float) -> NDArray[np.int8]:
    """Return ±1 (*X): −1 where the phase is more than a quarter turn from the reference.

    Parameters
    ----------
    phase, reference
        (*X), in the unit of which `circle` is a full turn. The reference is that of the longest inversion time.
    """
    with np.errstate(invalid="ignore"):
        apart = np.cos((phase - reference) * (2 * math.pi / circle))
    return np.where(apart < 0, -1, 1).astype(np.int8)


def restore_polarity(signed: NDArray[Any], tau: NDArray[np.float64]) -> None:
    """Turn those voxels round, in place, that have not crossed zero at the latest inversion time.

    The phase gives the polarity relative to the last image. An inversion recovery rises; where the signed series
    falls by more than a tenth of its mean magnitude, the last image was still negative.

    Parameters
    ----------
    signed
        Images (N, *X).
    tau
        Inversion times (N), ms.
    """
    weights = tau - tau.mean()
    weights = weights / (weights**2).sum() * np.ptp(tau)
    rise = np.zeros(signed.shape[1:])
    mean = np.zeros(signed.shape[1:])
    with np.errstate(invalid="ignore"):
        for weight, image in zip(weights, signed):
            rise += weight * image
            mean += np.abs(image) / len(signed)
    signed *= np.where(rise < -_FALL * mean, -1, 1).astype(signed.dtype)


def looks_signed(images: NDArray[Any]) -> bool:
    """Return whether inversion recovery images (N, *X) keep their polarity, so that many voxels are clearly negative.

    Means of blocks of 3 × 3 voxels are looked at: noise that was added to a modulus is negative in single voxels near
    the zero crossing and in air, and not in their means; tissue is. Fat, which may be the brightest tenth and never
    negative, does not hide it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        means, errors = (np.array(x) for x in zip(*(_block_means(image) for image in images)))
        peak = np.abs(means).max(axis=0)
        bright = peak >= 0.1 * np.quantile(peak, 0.99)
        negative = ((means < -0.3 * peak) & (means < -6 * errors)).any(axis=0)
    return bool((negative & bright).sum() > _NEGATIVE * bright.sum())


def refuse_reversed(images: NDArray[Any], tau: NDArray[np.float64]) -> None:
    """Refuse signed images (N, *X) that fall from the shortest to the longest inversion time (N), ms.

    Raises
    ------
    InputError
        Where nearly all that is bright and changes falls: an inversion recovery rises, for any T1, B and TR.
    """
    first, last = int(np.argmin(tau)), int(np.argmax(tau))
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = (_block_means(images[n])[0] for n in (first, last))
        peak = np.maximum(np.abs(a), np.abs(b))
        bright = peak > 0.3 * np.quantile(peak, 0.99)
        falls, rises = (int(np.sum(bright & (change > 0.3 * peak))) for change in (a - b, b - a))
    if falls > _FALLING * (falls + rises) and falls > 0.2 * bright.sum():
        raise InputError(
            f"expected signed images that increase with the inversion time, got a decrease from {tau[first]:g} to "
            f"{tau[last]:g} ms where they are bright. If the sign or the order of the times is reversed, negate the "
            "images or correct the times; --magnitude (signed=False) uses the modulus."
        )


def _block_means(image: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over each block of 3 × 3 voxels of an image (*X) and its standard error."""
    size = [s for s in image.shape if s > 1]
    rows, columns, *_ = [*size, 1, 1]
    a, b = min(rows, 3), min(columns, 3)
    image = np.nan_to_num(image, posinf=0.0, neginf=0.0).reshape(rows, columns, -1)
    blocks = image[: rows // a * a, : columns // b * b].reshape(rows // a, a, columns // b, b, -1)
    return blocks.mean(axis=(1, 3), dtype=float), blocks.std(axis=(1, 3), dtype=float) / math.sqrt(a * b)
