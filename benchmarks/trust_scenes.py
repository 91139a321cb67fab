"""Simulated scans for `bench_trust`: a head in air, made without any code of rimap's simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import rimap

TI9 = (50.0, 150.0, 300.0, 500.0, 800.0, 1200.0, 1800.0, 2600.0, 4000.0)
TI6 = (50.0, 200.0, 500.0, 1000.0, 2000.0, 4000.0)
TI4 = (40.0, 400.0, 1200.0, 4000.0)
TE8 = (10.0, 20.0, 30.0, 45.0, 60.0, 80.0, 110.0, 150.0)
#: A, T1 and T2 (ms) of air, scalp, skull, CSF, grey matter and white matter.
TISSUES = np.array(
    [(0, 900, 60), (0.8, 320, 70), (0.0, 900, 60), (1.0, 3800, 900), (0.85, 1350, 95), (0.65, 800, 70)], float
)
_FINER = 3


@dataclass(frozen=True, eq=False)
class Head:
    """A head in air.

    Parameters
    ----------
    images
        (N, X, Y, Z), without noise.
    model
        What they follow, but for partial volume.
    air, tissue
        (X, Y, Z): voxels without any tissue; voxels that are full of it.
    T
        (X, Y, Z), ms, of the tissue.
    """

    images: NDArray[np.float64]
    model: Any
    air: NDArray[np.bool_]
    tissue: NDArray[np.bool_]
    T: NDArray[np.float64]

    def noisy(self, snr: float, *, seed: int = 0, rician: bool = True, images: Any = None) -> NDArray[np.float32]:
        """Return the images with noise of σ = 0.65/SNR: magnitudes, or signed."""
        f = self.images if images is None else images
        e = np.random.default_rng(seed).normal(0, 0.65 / snr, (2, *f.shape))
        return np.asarray(np.hypot(f + e[0], e[1]) if rician else f + e[0], np.float32)


def head(
    model: Any, *, size: int = 96, planes: int = 2, texture: float = 0.05, pure: bool = False, B: float = 1.9
) -> Head:
    """Return a head with texture in T and, unless `pure`, partial volume at all borders.

    Signals (not maps) are averaged over 3 × 3 finer points, so a voxel on a border is a true mixture.
    """
    n = size * _FINER
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n),) * 2, indexing="ij")
    out: list[NDArray[Any]] = []
    labels, times = [], []
    for k in range(planes):
        scale = 1 - 0.05 * k
        r = np.hypot(x / 0.72, y / 0.85) / scale
        fold = 0.05 * np.sin(9 * np.arctan2(y, x) + k) + 0.03 * np.sin(23 * np.arctan2(y, x))
        label = np.zeros((n, n), int)
        label[r < 1] = 1
        label[r < 0.93] = 2
        label[r < 0.88] = 3
        label[r < 0.85] = 4
        label[r < 0.68 + fold] = 5
        label[(abs(x) < 0.12) & (abs(y) < 0.3)] = 3
        label[(np.hypot(abs(x) - 0.3, y + 0.1) < 0.1)] = 4
        if pure:
            label = np.kron(label[_FINER // 2 :: _FINER, _FINER // 2 :: _FINER], np.ones((_FINER, _FINER), int))
        fine = gaussian_filter(rng.standard_normal((n, n)), 2.5 * _FINER) * 2.5 * _FINER * 2 * np.sqrt(np.pi)
        A, T1, T2 = (TISSUES[label, i] for i in range(3))
        T = (T2 if model.time.name.startswith("T2") else T1) * (1 + texture * fine)
        known = {model.time.name: T}
        if model.field is not None:
            known[model.field.name] = np.full_like(T, B) * (1 + 0.02 * x)
        for p in model.nonlinear:
            known.setdefault(p.name, np.full_like(T, p.start))
        kappa = [A if p.amplitude else known[p.name] for p in model.parameters]
        before_modulus = replace(model, signed=True) if model.magnitude else model
        f = _means(np.asarray(before_modulus.signal(np.stack(kappa))))
        out.append(abs(f) if model.magnitude else f)
        labels.append(label.reshape(size, _FINER, size, _FINER))
        times.append(_means(T[None])[0])
    images = np.stack(out, -1)
    lab = np.stack(labels, -1)
    air = np.isin(lab, (0, 2)).all((1, 3))
    first = lab[:, :1, :, :1]
    tissue = (lab == first).all((1, 3)) & ~np.isin(first[:, 0, :, 0], (0, 2))
    return Head(images, model, air, tissue, np.stack(times, -1))


def zero_filled(images: NDArray[np.float64], factor: float, sigma: float, *, seed: int = 0) -> NDArray[np.float32]:
    """Return magnitudes (N, m, m, Z) of signed images (N, n, n, Z) with complex noise and zero-filled k-space."""
    N, n, _, Z = images.shape
    m = round(n * factor)
    e = np.random.default_rng(seed).normal(0, sigma, (2, *images.shape))
    k = np.zeros((N, m, m, Z), complex)
    a = m // 2 - n // 2
    k[:, a : a + n, a : a + n] = np.fft.fftshift(np.fft.fft2(images + e[0] + 1j * e[1], axes=(1, 2)), axes=(1, 2))
    filled = np.fft.ifft2(np.fft.ifftshift(k, axes=(1, 2)), axes=(1, 2)) * (m / n) ** 2
    return np.asarray(abs(filled), np.float32)


def correlated(scene: Head, how: str, sigma: float, *, seed: int = 0) -> NDArray[np.float32]:
    """Return magnitudes of a head in noise of `sigma` whose k-space was filtered (hann, raised cosine, partial), or
    whose outer part is empty (factor …, in all three axes with "3-D"). The object is as sharp as it was.
    """
    e = np.random.default_rng(seed).normal(0, 1, (2, *scene.images.shape))
    axes = (1, 2, 3) if "3-D" in how else (1, 2)
    k = np.fft.fftn(e[0] + 1j * e[1], axes=axes)
    for axis in axes:
        u = abs(np.fft.fftfreq(k.shape[axis])) * 2
        if how == "hann":
            weight = 0.5 + 0.5 * np.cos(np.pi * u)
        elif how == "raised cosine":
            weight = 0.5 + 0.5 * np.cos(np.pi * np.clip(2 * u - 1, 0, 1))
        elif how == "partial":
            weight = (np.fft.fftfreq(k.shape[axis]) > -0.25).astype(float) if axis == 1 else np.ones(k.shape[axis])
        else:
            weight = (u <= 1 / float(how.split()[1])).astype(float)
        k = k * weight.reshape([-1 if a == axis else 1 for a in range(k.ndim)])
    noise = np.fft.ifftn(k, axes=axes)
    return np.asarray(abs(scene.images + sigma * noise / noise.real.std()), np.float32)


def of_coils(scene: Head, coils: int, sigma: float, *, seed: int = 0) -> NDArray[np.float32]:
    """Return the root of the sum of squares of equal coils that share the signal of a head, with noise of `sigma`."""
    rng, power = np.random.default_rng(seed), np.zeros(scene.images.shape)
    for _ in range(coils):
        e = rng.normal(0, sigma, (2, *scene.images.shape))
        power += (scene.images / np.sqrt(coils) + e[0]) ** 2 + e[1] ** 2
    return np.asarray(np.sqrt(power), np.float32)


def _means(f: NDArray[Any]) -> NDArray[Any]:
    N, n, _ = f.shape
    return np.asarray(f.reshape(N, n // _FINER, _FINER, n // _FINER, _FINER).mean((2, 4)))


def inversion(tau: Any = TI9, **options: Any) -> rimap.InversionRecovery:
    """Return an inversion recovery with a TR of 9 s."""
    return rimap.InversionRecovery(tau=tau, tr=9000.0, **options)


def like_ge(S: NDArray[Any], air: NDArray[np.bool_], how: str, *, seed: int = 5) -> NDArray[np.float32]:
    """Return magnitudes as some scanners store them: air partly set to zero, scaled, rounded, or zero-filled."""
    S = np.array(S, float)
    if how == "zeroed":
        S[:, air & (np.random.default_rng(seed).random(air.shape) < 0.6)] = 0
    elif how == "scaled down":
        S[:, air] *= 0.4
    elif how == "scaled up":
        S[:, air] *= 1.8
    elif how == "whole numbers":
        S = np.round(S / np.median(S[:, air]) * 2.0)
    elif how == "zero-filled":
        n = S.shape[1]
        k = np.fft.fftshift(np.fft.fft2(S, axes=(1, 2)), axes=(1, 2))
        keep = abs(np.arange(n) - n // 2) <= n // 3
        k *= keep[None, :, None, None] * keep[None, None, :, None]
        S = abs(np.fft.ifft2(np.fft.ifftshift(k, axes=(1, 2)), axes=(1, 2)))
    return np.asarray(S, np.float32)
