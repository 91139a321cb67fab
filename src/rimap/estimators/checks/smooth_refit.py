"""Voxels fitted again with a field that is smooth: what a field of each voxel's own has absorbed becomes visible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]

#: Iterations, and the parts of a step that are tried in each of them.
_ITERATIONS, _PARTS = 8, (1.0, 0.3)
#: A change of the field, in standard deviations of what it is in scans, after which the next one does not matter.
_CLOSE = 0.03
#: Relative to the diagonal: keeps a matrix invertible where two parameters have the same effect.
_RIDGE = 1e-6


def refit(model: SignalModel, S: Floats, kappa: Floats, free: list[int], places: Floats) -> tuple[Floats, list[int]]:
    """Return parameters (Q, V) whose smooth parameters are parabolas over the object, and which are still free.

    Gauss and Newton: the coefficients of the parabolas of all voxels, then the other parameters of each voxel.

    Parameters
    ----------
    model
        The signal model.
    S
        (N, V), images.
    kappa
        (Q, V), the fit of each voxel by itself.
    free
        Positions in κ of what was estimated in each voxel.
    places
        (D, V), where the voxels are.
    """
    smooth = [q for q in free if model.parameters[q].smooth]
    own = [q for q in free if q not in smooth]
    if not smooth:
        return kappa, free
    phi, kappa = _parabolas(places), kappa.copy()
    coefficients = {q: np.zeros(len(phi)) for q in smooth}
    for q in smooth:
        coefficients[q][0] = np.median(kappa[q])
        kappa[q] = coefficients[q][0]
    for iteration in range(_ITERATIONS):
        largest = 0.0 if iteration else np.inf
        for q in smooth if iteration else ():
            change = _change(model, S, kappa, (own, q), phi)
            coefficients[q] += change
            kappa[q] = np.clip(coefficients[q] @ phi, *model.parameters[q].bounds)
            largest = max(largest, abs(change).sum() / model.parameters[q].in_a_scan.deviation)
        kappa = _step(model, S, kappa, own)
        if largest < _CLOSE:
            break
    return kappa, own


def _parabolas(places: Floats) -> Floats:
    """Return polynomials of second order (K, V) of the places, the constant first."""
    x = places - places.mean(1, keepdims=True)
    size = abs(x).max(1)
    x = x[size > 0] / size[size > 0, None]
    return np.stack([np.ones(places.shape[1]), *x, *(x[i] * x[j] for i in range(len(x)) for j in range(i, len(x)))])


def _change(model: SignalModel, S: Floats, kappa: Floats, rows: tuple[list[int], int], phi: Floats) -> Floats:
    """Return by how much the coefficients of a smooth parameter change: outliers count less."""
    own, q = rows
    J, f = np.asarray(model.partials(kappa)), np.asarray(model.signal(kappa))
    rest, D = S - f, J[:, q]
    for column in orthonormal(J[:, own]):
        rest = rest - column * (column * rest).sum(0)
        D = D - column * (column * D).sum(0)
    weight = weights(f, rest)
    H = (phi * (weight * (D**2).sum(0))) @ phi.T
    return np.linalg.solve(_regular(H), phi @ (weight * (D * rest).sum(0)))


def _step(model: SignalModel, S: Floats, kappa: Floats, own: list[int]) -> Floats:
    """Return κ after a step of each voxel in its own parameters, where that makes its residual smaller."""
    J, rest = np.asarray(model.partials(kappa))[:, own], S - np.asarray(model.signal(kappa))
    squares = (rest**2).sum(0)
    H, b = np.einsum("nqv,npv->vqp", J, J), np.einsum("nqv,nv->vq", J, rest)
    step = np.linalg.solve(_regular(H), b[..., None])[..., 0].T
    low, high = (np.array([model.parameters[q].bounds[i] for q in own])[:, None] for i in (0, 1))
    best = kappa
    for part in _PARTS:
        new = kappa.copy()
        new[own] = np.clip(kappa[own] + part * step, low, high)
        after = ((S - np.asarray(model.signal(new))) ** 2).sum(0)
        better = after < squares
        best, squares = np.where(better, new, best), np.where(better, after, squares)
    return best


def _regular(H: Floats) -> Floats:
    """Return matrices (…, Q, Q) with a slightly larger diagonal."""
    diagonal = np.einsum("...qq->...q", H)
    return np.asarray(H + (_RIDGE * diagonal + 1e-300)[..., None] * np.eye(H.shape[-1]))


def weights(f: Floats, rest: Floats) -> Floats:
    """Return weights (V) for residuals (N, V): relative to the signal (N, V), and less for outliers."""
    weight = 1 / np.maximum((f**2).mean(0), 1e-300)
    size = (rest**2).sum(0) * weight
    return np.asarray(weight / (1 + size / (9 * np.median(size) + 1e-300)))


def orthonormal(J: Floats) -> list[Floats]:
    """Return an orthonormal basis (N, V) of the columns of J (N, Q, V) in each voxel: Gram and Schmidt, twice for
    precision.
    """
    basis: list[Floats] = []
    for column in np.moveaxis(J, 1, 0):
        q = column / np.maximum(np.linalg.norm(column, axis=0), 1e-30)
        for other in (*basis, *basis):
            q = q - other * (other * q).sum(0)
        basis.append(q / np.maximum(np.linalg.norm(q, axis=0), 1e-30))
    return basis
