"""Random faults for `bench_trust`: something is wrong in a random place of a random sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rimap
from benchmarks.trust_scenes import TE8, TI6, TI9, Head, head, inversion

Images = NDArray[np.float32]
Where = NDArray[np.bool_]
Random = np.random.Generator

MODELS: dict[str, Any] = {
    "9 TIs": inversion(TI9),
    "6 TIs": inversion(TI6),
    "4 TIs": inversion((100, 300, 900, 2700)),
    "T2": rimap.T2Decay(tau=TE8),
    "MEGRE": rimap.GradientEcho(te=np.arange(1, 13) * 4.0),
    "saturation recovery": rimap.SaturationRecovery(tau=(100, 300, 600, 1000, 1600, 2500, 4000, 8000)),
    "VFA": rimap.VariableFlipAngle(flip_angle=(3, 6, 10, 15, 20), tr=15.0),
}


@dataclass(frozen=True, eq=False)
class Spoilt:
    """A scan with and without a fault.

    Parameters
    ----------
    name
        The name of the sequence, its SNR and the fault.
    good, bad
        (N, X, Y, Z).
    where
        (X, Y, Z), the voxels with the fault.
    """

    name: str
    scene: Head
    good: Images
    bad: Images
    where: Where


def _with(change: Callable[[Random, Images], Any]) -> Callable[[Random, Images, Where, int], None]:
    """Return a fault that sets the values of one image in a place."""

    def fault(rng: Random, images: Images, where: Where, n: int) -> None:
        images[n][where] = change(rng, images[n][where])

    return fault


def _swapped(_: Random, images: Images, where: Where, n: int) -> None:
    other = (n + 1) % len(images)
    images[n][where], images[other][where] = images[other][where].copy(), images[n][where].copy()


def _repeated(_: Random, images: Images, where: Where, n: int) -> None:
    images[n][where] = images[(n + 1) % len(images)][where]


def _constant(rng: Random, images: Images, where: Where, n: int) -> None:
    images[n][where] = rng.uniform(0.05, 1) * images.max()


def _shifted(rng: Random, images: Images, where: Where, n: int) -> None:
    images[n] = np.roll(images[n], rng.integers(1, 5), rng.integers(0, 2))
    where[:] = True


def _ghost(_: Random, images: Images, where: Where, n: int) -> None:
    images[n] += 0.3 * np.roll(images[n], images.shape[2] // 2, 1)
    where[:] = True


def _transposed(_: Random, images: Images, where: Where, n: int) -> None:
    images[n] = images[n].swapaxes(0, 1)
    where[:] = True


def _few_levels(_: Random, images: Images, where: Where, __: int) -> None:
    step = images.max() / 40
    images[:] = np.round(images / step) * step
    where[:] = True


def _clipped(rng: Random, images: Images, where: Where, _: int) -> None:
    most = rng.uniform(0.3, 0.8) * images.max()
    where[:] = (images >= most).any(0)
    images[:] = np.minimum(images, most)


def _wrapped(rng: Random, images: Images, where: Where, _: int) -> None:
    most = rng.uniform(0.4, 0.9) * images.max()
    where[:] = (images > most).any(0)
    images[:] = np.where(images > most, images - 2 * most, images)


FAULTS: dict[str, Callable[[Random, Images, Where, int], None]] = {
    "zeros in an image": _with(lambda rng, S: 0 * S),
    "one value in an image": _constant,
    "a part of another image": _repeated,
    "parts of two images swapped": _swapped,
    "a wrong sign": _with(lambda rng, S: -S),
    "twice the signal": _with(lambda rng, S: 2 * S),
    "another gain": _with(lambda rng, S: rng.uniform(0.7, 1.4) * S),
    "a drop-out": _with(lambda rng, S: np.linspace(0, 1, len(S)) * S),
    "spikes": _with(lambda rng, S: abs(S + rng.normal(0, 0.3 * S.max(), len(S)))),
    "NaN": _with(lambda rng, S: np.nan * S),
    "a shifted image": _shifted,
    "a ghost": _ghost,
    "a transposed image": _transposed,
    "40 levels": _few_levels,
    "clipped": _clipped,
    "wrapped": _wrapped,
}


def _place(rng: Random, shape: tuple[int, ...]) -> Where:
    """Return some rows, columns, a slice or a rectangle."""
    where, (first, second) = np.zeros(shape, bool), rng.integers(shape[0] // 5, 3 * shape[0] // 4, 2)
    width, kind = rng.integers(3, 12), rng.integers(0, 4)
    if kind == 0:
        where[first : first + width] = True
    elif kind == 1:
        where[:, first : first + width] = True
    elif kind == 2:
        where[..., 0] = True
    else:
        where[first : first + width, second : second + width] = True
    return where


def spoilt(seed: int) -> Spoilt:
    """Return the scan and its fault of a seed: the faults and the sequences take turns."""
    rng = np.random.default_rng(seed)
    sequences, faults = list(MODELS), list(FAULTS)
    sequence, fault = sequences[seed % len(sequences)], faults[seed % len(faults)]
    scene, snr = head(MODELS[sequence], size=72), float(rng.choice([15, 30, 60]))
    sigma = 0.65 / snr * min(1.0, scene.images.max())
    noise = rng.normal(0, sigma, (2, *scene.images.shape))
    good = np.hypot(scene.images + noise[0], noise[1]).astype(np.float32)
    bad, where = good.copy(), _place(rng, scene.T.shape)
    FAULTS[fault](rng, bad, where, int(rng.integers(0, len(good))))
    return Spoilt(f"{sequence}, SNR {snr:g}, {fault}", scene, good, bad, where)


def spoilt_scans(seeds: range) -> Iterator[Spoilt]:
    """Yield the scans of some seeds."""
    return map(spoilt, seeds)
