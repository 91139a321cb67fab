"""Label volumes to simulate from: one that is built in, any NIfTI file, and BrainWeb.

All are (X, Y, Z) uint8 with the labels of `rimap.simulation.tissues.LABELS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.simulation.label_volumes import as_labels, brain_mask
from rimap.simulation.tissues import (
    AROUND_FAT,
    CSF,
    DURA,
    FAT,
    GM,
    MARROW,
    MUSCLE,
    SKIN,
    SKULL,
    VESSELS,
    WM,
)

#: Field of view of the built-in head, mm: left-right, back-front, foot-head.
FIELD_OF_VIEW = (192.0, 216.0, 144.0)
#: Its shape at 1 mm.
ONE_MM = (192, 216, 144)
_CENTRE = (0.0, 0.0, 8.0)  # mm, of the field of view in the coordinates of the head


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label volume to cut patches from.

    Parameters
    ----------
    labels
        (X, Y, Z) uint8.
    low, high
        Bounding box of the brain, (3,): first voxel, one past the last.
    name
        For logs.
    affine
        (4, 4), voxel to world, mm; 1 mm voxels if left out.
    """

    labels: NDArray[np.uint8]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    name: str = ""
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))

    @classmethod
    def of(cls, labels: NDArray[Any], name: str = "", affine: NDArray[Any] | None = None) -> Anatomy:
        """Check the labels (X, Y, Z), which are those of BrainWeb, and return their anatomy.

        Raises
        ------
        InputError
            If the values are not labels, or contain no brain.
        """
        labels = np.ascontiguousarray(as_labels(labels, name or "the anatomy"))
        mask = brain_mask(labels)
        spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        low, high = np.array([span[0] for span in spans]), np.array([span[-1] + 1 for span in spans])
        return cls(labels, low, high, name, np.eye(4) if affine is None else np.asarray(affine, dtype=float))


def digital_affine(shape: tuple[int, int, int] = (64, 72, 48)) -> NDArray[np.float64]:
    """Return the affine (4, 4) of `digital_brain(shape)`, mm, RAS."""
    size = np.array(FIELD_OF_VIEW) / shape
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = np.array(_CENTRE) - size * (np.array(shape) - 1) / 2
    return affine


@lru_cache(maxsize=4)
def _digital(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    size = np.array(FIELD_OF_VIEW) / shape
    fine = tuple(n * max(1, round(float(s) / 1.6)) for n, s in zip(shape, size))
    labels = _head(fine)
    for axis, (n, m) in enumerate(zip(shape, fine)):
        labels = np.take(labels, np.arange(n) * (m // n) + (m // n) // 2, axis=axis)
    labels.setflags(write=False)
    return labels


def digital_brain(shape: tuple[int, int, int] = (64, 72, 48)) -> NDArray[np.uint8]:
    """Return a head drawn by this function alone: ellipsoids, and a cortex folded by a fixed smooth wave.

    It needs no file and has every label. It is a drawing, not an average of people: good for demonstrations,
    tests and as one more shape to train on.

    Parameters
    ----------
    shape
        Voxels (X, Y, Z) over a field of view of 192 × 216 × 144 mm.

    Returns
    -------
    labels
        (X, Y, Z), read-only.

    Raises
    ------
    InputError
        If the shape does not have three axes of 8 voxels or more.

    Examples
    --------
    >>> labels = digital_brain((32, 36, 24))
    >>> labels.shape, bool(brain_mask(labels).any())
    ((32, 36, 24), True)
    """
    if len(shape) != 3 or min(shape) < 8:
        raise InputError(f"the built-in brain: expected a shape of three axes of 8 voxels or more, got {shape}.")
    return _digital((int(shape[0]), int(shape[1]), int(shape[2])))


def _waves(x: Any, y: Any, z: Any, wavelengths: tuple[float, float], seed: int) -> NDArray[np.float32]:
    """Return a smooth wave field over the head with unit variance, always the same."""
    rng = np.random.Generator(np.random.PCG64(seed))
    direction = rng.standard_normal((20, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    k = 2 * np.pi / rng.uniform(*wavelengths, 20)[:, None] * direction
    phase = rng.uniform(0, 2 * np.pi, 20)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
    for (kx, ky, kz), p in zip(k, phase):  # separable: e^(ikx) e^(iky) e^(ikz)
        total += (
            (np.exp(1j * (kx * x + p)) * np.exp(1j * ky * y)).astype(np.complex64)
            * np.exp(1j * kz * z).astype(np.complex64)
        ).real
    return np.asarray(total / np.float32(10.0**0.5))


def _head(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    # scipy is slow to import: only this function needs it
    from scipy.ndimage import distance_transform_edt

    axes = [c + f * ((np.arange(n) + 0.5) / n - 0.5) for n, f, c in zip(shape, FIELD_OF_VIEW, _CENTRE)]
    x, y, z = (
        axis.astype(np.float32).reshape([-1 if i == index else 1 for index in range(3)]) for i, axis in enumerate(axes)
    )
    spacing = [f / length for f, length in zip(FIELD_OF_VIEW, shape)]

    def depth(cx: float, cy: float, cz: float, a: float, b: float, c: float) -> NDArray[np.float32]:
        """Distance to the surface of an ellipsoid, mm, to first order; positive inside."""
        u, v, w = (x - cx), (y - cy), (z - cz)
        r2 = (u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2
        slope = np.sqrt((u / a**2) ** 2 + (v / b**2) ** 2 + (w / c**2) ** 2) + 1e-6
        return np.asarray((1 - r2) / (np.sqrt(r2) + 1) * np.sqrt(r2 + 1e-6) / slope, np.float32)

    fold = _waves(x, y, z, (17.0, 27.0), 1)
    fine = _waves(x, y, z, (9.0, 13.0), 2)
    broad = _waves(x, y, z, (50.0, 90.0), 3)

    hull = np.maximum(depth(0, 0, 8, 68, 85, 62), depth(0, -50, -40, 55, 34, 34)) + 0.8 * broad  # inner skull
    out = -hull  # mm outside the dura
    labels = np.zeros(shape, np.uint8)
    scalp = 15 + 0.7 * broad + np.clip(-(z + 10) / 5, 0, 6).astype(np.float32)
    labels[out < scalp] = SKIN
    labels[out < scalp - 2.5] = FAT
    labels[(out < scalp - 2.5) & (np.abs(fine) < 0.35)] = AROUND_FAT
    labels[(out < scalp - 4.5) & ((z < -5) | (fold > 1.0)) & (fold > -0.9)] = MUSCLE
    labels[out < 8.5] = SKULL
    labels[(out < 6.3) & (out > 3.0) & (broad > -0.8)] = MARROW
    labels[out < 1.2] = DURA

    # The pia: the hull, cut by the sulci, the fissure between the hemispheres and the Sylvian fissures.
    inside = hull - 2.0
    sulci = (np.abs(fold) < 0.15) & (inside < 19 + 4 * broad) & (inside > -1)
    fissure = (np.abs(x + 0.7 * broad) < 1.3) & (depth(0, -2, 6, 30, 46, 15) < 0) & (z > -25)
    sylvian = (
        (np.abs(z + 6 - 0.35 * (np.abs(x) - 40) + 0.3 * y + 2 * broad) < 1.5) & (np.abs(y - 8) < 28) & (np.abs(x) > 36)
    )
    tentorium = np.abs(z + 22 - 0.55 * (y + 55)) < 1.2
    cerebellum = (z < -22 + 0.55 * (y + 55)) & (y < -24)
    sulci |= cerebellum & (np.abs(fine) < 0.22) & (inside < 14)
    cut = (inside <= 0) | sulci | fissure | sylvian | (tentorium & (y < -24))
    to_pia = distance_transform_edt(~cut, sampling=spacing).astype(np.float32)
    ribbon = np.where(cerebellum, 2.4, 3.6 + 0.4 * broad)
    brain = hull > 0
    labels[brain] = CSF
    labels[brain & ~cut] = GM
    labels[brain & ~cut & (to_pia > ribbon)] = WM
    labels[(np.abs(x) < 0.9) & fissure & brain & (z > 12)] = DURA  # falx

    a = np.abs(x)

    def blob(cx: float, cy: float, cz: float, r: tuple[float, float, float]) -> NDArray[np.bool_]:
        return np.asarray(((a - cx) / r[0]) ** 2 + ((y - cy) / r[1]) ** 2 + ((z - cz) / r[2]) ** 2 < 1 + 0.12 * fold)

    labels[blob(0, -22, -40, (13, 12, 34)) & brain] = WM  # brain stem
    labels[blob(0, -2, 14, (22, 40, 9)) & brain] = WM  # corpus callosum and around
    labels[blob(10, -14, 4, (9, 14, 9))] = GM  # thalamus
    labels[blob(14, 16, 11, (5, 13, 8))] = GM  # caudate
    labels[blob(26, 3, 3, (5.5, 16, 10))] = GM  # putamen
    labels[blob(33, -12, -18, (7, 22, 6))] = GM  # hippocampus
    bend = 0.004 * (y + 5) ** 2
    horn = ((a - 7 - 0.13 * np.abs(y)) / 4.6) ** 2 + ((y + 4) / 36) ** 2 + ((z - 15 + bend) / 8) ** 2
    labels[horn < 1] = CSF  # lateral ventricles
    labels[(a < 1.1) & blob(0, -8, 2, (9, 15, 11))] = CSF  # third
    labels[blob(0, -40, -36, (7, 6, 9))] = CSF  # fourth

    sinus = (x**2 + (hull - 2.2) ** 2 < 3.2**2) & (z > 0)  # superior sagittal
    carotid = (((a - 11) ** 2 + (y - 8) ** 2) < 2.3**2) & (z < -18)
    cerebral = ((z + 16 - 0.15 * (a - 11)) ** 2 + (y - 8 - 6 * np.sin(a / 9.0)) ** 2 < 2.2**2) & (a > 10) & (a < 52)
    basilar = (a**2 + (y + 6) ** 2 < 2.3**2) & (z < -20)
    pial = (np.abs(fine) < 0.10) & (np.abs(fold) < 0.5) & (hull > 0) & (hull < 4)
    labels[(sinus | carotid | cerebral | basilar | pial) & brain] = VESSELS
    return labels


@lru_cache(maxsize=2)
def spheres(size: int = 128, count: int = 900) -> NDArray[np.uint8]:
    """Return balls of 3 to 9 voxels' radius in a bath, as in a phantom for relaxometry; always the same.

    Each is in a shell of up to 2.5 voxels without signal. What rings in such a phantom are its shells: the ringing of
    the ball's own edge goes into A alone, that of the bath's edge into T too.

    Parameters
    ----------
    size
        Voxels along each axis.
    count
        Balls that are tried; one that would touch another is left out.

    Returns
    -------
    labels
        (size, size, size), read-only. Each ball is CSF, grey or white matter or vessels, of which a patch draws the
        values and which hold its centre; three quarters of the bath are skin, one is air.
    """
    rng = np.random.Generator(np.random.PCG64(4))
    grid = np.arange(size, dtype=np.float32)
    labels = np.full((size,) * 3, SKIN, np.uint8)
    labels[: size // 4] = 0
    placed: list[tuple[NDArray[np.float64], float]] = []
    for _ in range(count):
        radius, centre = float(rng.uniform(3, 9)), rng.uniform(0, size, 3)
        if any(np.linalg.norm(centre - c) < radius + r + 5 for c, r in placed):
            continue
        placed.append((centre, radius))
        x, y, z = (grid - c for c in centre)
        from_centre = np.sqrt(x[:, None, None] ** 2 + y[None, :, None] ** 2 + z**2)
        labels[from_centre < radius + rng.uniform(0, 2.5)] = 0
        labels[from_centre < radius] = rng.choice((CSF, GM, WM, VESSELS))
    labels.setflags(write=False)
    return labels


def load_anatomy(path: str | Path) -> NDArray[np.uint8]:
    """Read a label volume.

    Parameters
    ----------
    path
        A 3-D NIfTI file with BrainWeb's labels 0–11.

    Returns
    -------
    labels
        (X, Y, Z).

    Raises
    ------
    InputError
        Where the file cannot be read, is not 3-D or holds other values.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    import nibabel

    try:
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    except FileNotFoundError:
        raise InputError(f"no anatomy at {path}. Give a NIfTI file of labels, or `builtin`.") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} is not a readable NIfTI file ({reason}). Give a file of labels, or `builtin`."
        ) from None
    return as_labels(values, str(path)), np.asarray(image.affine, dtype=float)


def load_anatomies(sources: Sequence[str | Path]) -> tuple[Anatomy, ...]:
    """Load all anatomies that `sources` name.

    Parameters
    ----------
    sources
        ``builtin`` (`digital_brain` at 1 mm), ``spheres`` (`spheres`, a phantom), ``brainweb:04``
        (`rimap.simulation.brainweb.load_brainweb`), NIfTI files of labels, or folders of them (in the order of their
        names).

    Raises
    ------
    InputError
        Where one is missing or is no label volume.
    """
    found: list[Anatomy] = []
    for source in sources:
        text, path = str(source), Path(source)
        if text == "builtin":
            found.append(Anatomy.of(digital_brain(ONE_MM), text, digital_affine(ONE_MM)))
        elif text == "spheres":
            found.append(Anatomy.of(spheres(), text))
        elif text.startswith("brainweb:"):
            from rimap.simulation.brainweb import load_brainweb

            found.append(Anatomy.of(load_brainweb(text.removeprefix("brainweb:")), text))
        elif path.is_dir():
            files = sorted(p for p in path.iterdir() if p.name.endswith((".nii", ".nii.gz")))
            if not files:
                raise InputError(f"no NIfTI file in {path}. Give a folder with label volumes, or `builtin`.")
            found += [_from_file(file) for file in files]
        else:
            found.append(_from_file(path))
    if not found:
        raise InputError("no anatomy was given. Give files, folders, or `builtin`.")
    return tuple(found)


def _from_file(path: Path) -> Anatomy:
    labels, affine = _read(path)
    return Anatomy.of(labels, path.name, affine)
