"""What the data say about κ at an estimate: residual, gradient and Gauss-Newton matrix, summed over the images.

The sums are those of ½ Σₙ(Sₙ − fₙ)², without σ, taken in (amplitudes, field, log T): T is positive and its error is
relative. `data_sums` is the definition, over NumPy and torch, for every model; `SignalTable.sums` is the same from a
table, some twenty times as fast on a CPU, for models that are linear in the field and have one amplitude.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, bessel_e, namespace
from rimap.estimators.rim.layout import Known, Layout
from rimap.kernels import njit
from rimap.signals.base import SignalModel


class Likelihood(NamedTuple):
    """For kernels: whether noise is Rician, whether the signal is a modulus, and the table of `bessel_ratio`."""

    rician: bool
    modulus: bool
    ratio: NDArray[np.float32]


#: Nodes of the table over log T.
_GRID = 4096
#: Voxels at a time: their sums stay in the cache of a core.
_CHUNK = 8192
_LANES = 8  # images of a voxel are filled up with zeros to a multiple of this: whole registers, three times as fast


class Sums(NamedTuple):
    """Sums over the images at one estimate; derivatives are in (amplitudes, coordinate of the field, log T), P of them.

    Parameters
    ----------
    g
        (P, *X), Σ r ∂f. r = f − S, or for the Rician likelihood f − S I₁/I₀(S f/σ²).
    H
        (P(P+1)/2, *X), Σ ∂f ∂f, the upper triangle by rows.
    sse
        (*X), Σ (|f| − S)².
    """

    g: Array
    H: Array
    sse: Array


def has_fast_table(model: SignalModel) -> bool:
    """Whether `SignalTable` serves the model: one amplitude, linear in the field, nothing given."""
    return model.separable and (model.field is None or model.field.transform == "linear")


def data_sums(
    model: SignalModel, S: Array, carried: Array, sigma: Array | None = None, known: Known | None = None
) -> Sums:
    """Return the sums of the images S (N, *X) at an estimate (P, *X) in the order of `Layout`, T in ms.

    Parameters
    ----------
    sigma
        Standard deviation of Rician noise, broadcast against (*X); `None` for Gaussian noise.
    known
        Of a model that takes parameters as given: their maps or numbers, by name.
    """
    array_api, layout = namespace(carried), Layout.of(model)
    P = len(layout.carried)
    kappa = layout.kappa_of(carried, known or {})
    f, partials = model.signal(kappa), model.partials(kappa)
    d = [partials[:, model.index(parameter.name)] for parameter in layout.carried]
    d[-1] = d[-1] * carried[P - 1]
    if layout.in_log_of_field:
        d[-2] = d[-2] * carried[P - 2]
    r = f - S
    sse = (r * r).sum(0)
    if sigma is not None:
        z = S * f / sigma**2
        r = f - S * bessel_e(1, z) / bessel_e(0, z)
    g = array_api.stack([(r * d[index]).sum(0) for index in range(P)])
    H = array_api.stack([(d[p] * d[q]).sum(0) for p in range(P) for q in range(p, P)])
    return Sums(g, H, sse)


@dataclass(frozen=True, eq=False)
class SignalTable:
    """φ₀, φ₁ and their derivatives in log T, on a grid of log T, for a separable model.

    Parameters
    ----------
    model
        |A (φ₀ + F φ₁)| or A φ₀.
    values
        (G, 4, ≥ N) φ₀, φ₁, ∂φ₀/∂log T, ∂φ₁/∂log T; linear between grid points (error below 1e-6); then zeros.
    low, step
        log T of the first grid point and between two.
    """

    model: SignalModel
    values: NDArray[np.float32]
    low: float
    step: float

    @classmethod
    def of(cls, model: SignalModel) -> SignalTable:
        """Tabulate a model over the bounds of its T; the last few tables are kept."""
        try:
            return _kept(model)
        except TypeError:  # a model that has no hash
            return cls._of(model)

    @classmethod
    def _of(cls, model: SignalModel) -> SignalTable:
        low, high = np.log(model.time.bounds)
        grid = np.linspace(low, high, _GRID)
        e = 1e-4
        value = model.basis(np.exp(grid))
        slope = (model.basis(np.exp(grid + e)) - model.basis(np.exp(grid - e))) / (2 * e)
        N, K = value.shape[:2]
        values = np.zeros((_GRID, 4, N + -N % _LANES), np.float32)
        values[:, :K, :N] = np.moveaxis(value, 2, 0).swapaxes(1, 2)
        values[:, 2 : 2 + K, :N] = np.moveaxis(slope, 2, 0).swapaxes(1, 2)
        return cls(model, values, float(low), float(grid[1] - grid[0]))

    def voxels(self, S: NDArray[Any]) -> NDArray[np.float32]:
        """Return the images (N, *X) voxel by voxel (M, ≥ N), filled up with zeros as `values` are."""
        flat = S.reshape(len(S), -1)
        out = np.zeros((flat.shape[1], self.values.shape[2]), np.float32)
        out[:, : len(S)] = flat.T
        return out

    def sums(
        self,
        S: NDArray[np.float32],
        carried: NDArray[np.float32],
        sigma: NDArray[np.float32] | None = None,
        *,
        executor: Executor | None = None,
    ) -> Sums:
        """Return `data_sums` of voxels: S as `voxels` gives it, the estimate (P, M), σ (M) for Rician noise."""
        has_field, M = self.model.field is not None, carried.shape[1]
        out = np.empty((10, M), np.float32)
        A, T = carried[0], carried[-1]
        F = carried[1] if has_field else np.zeros_like(A)
        likelihood = Likelihood(sigma is not None, self.model.magnitude, bessel_ratio_table())
        table = (self.values, self.low, self.step)
        s = np.broadcast_to(np.float32(1) if sigma is None else sigma, (M,)).astype(np.float32)

        def run(start: int) -> None:
            k = slice(start, start + _CHUNK)
            _sums(table, S[k], A[k], F[k], T[k], s[k], likelihood, out[:, k])

        in_chunks(run, range(0, M, _CHUNK), executor)
        if has_field:
            return Sums(out[:3], out[3:9], out[9])
        return Sums(out[[0, 2]], out[[3, 5, 8]], out[9])


@lru_cache(maxsize=6)
def _kept(model: SignalModel) -> SignalTable:
    return SignalTable._of(model)


def in_chunks(run: Callable[[int], Any], starts: range, executor: Executor | None) -> None:
    """Call `run` for every start, on the executor if there is one."""
    for _ in map(run, starts) if executor is None else executor.map(run, starts):
        pass


#: The table of Bessel ratios, made at its first use: mapping with Gaussian noise needs none.
_RATIO: list[NDArray[np.float32]] = []


def bessel_ratio_table() -> NDArray[np.float32]:
    """Return I₁/I₀(z) at z = 0, 0.01, …, 20."""
    if not _RATIO:
        z = np.arange(2002) * 0.01
        _RATIO.append((bessel_e(1, z) / bessel_e(0, z)).astype(np.float32))
    return _RATIO[0]


@njit(nogil=True, cache=True, inline="always")
def bessel_ratio(z, table):  # type: ignore[no-untyped-def]
    """I₁/I₀ of z ≥ 0; its mirror image below."""
    a = abs(z)
    if a < 20.0:
        x = a * 100.0
        i = int(x)
        value = table[i] + (x - i) * (table[i + 1] - table[i])
    else:
        value = 1.0 - 0.5 / a - 0.125 / (a * a) - 0.125 / (a * a * a)
    return value if z >= 0 else -value


#: Sums may be reordered, but NaN is kept: it marks voxels without a value.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def place(log_T, low, step, last):  # type: ignore[no-untyped-def]
    """Return the grid point below log T and how far T is past it."""
    x = np.float32((log_T - low) / step)
    if not (x > np.float32(0)):
        x = np.float32(0)
    if x > last:
        x = last
    i = int(x)
    return i, x - np.float32(i)


@njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
def sums_of_voxel(values, at, a, b, s, inverse, likelihood):  # type: ignore[no-untyped-def]
    """Return g and H in (A, B, log T) and Σ(|f| − S)² of one voxel s (≥ N), at a `place` of the table; `inverse` is
    1/σ².
    """
    i, w = at
    modulus, ratio = likelihood.modulus, likelihood.ratio
    one, zero = np.float32(1), np.float32(0)
    v = one - w
    gA = gB = gT = AA = AB = AT = BB = BT = TT = sse = zero
    for image in range(s.shape[0]):
        p1 = v * values[i, 1, image] + w * values[i + 1, 1, image]
        M = v * values[i, 0, image] + w * values[i + 1, 0, image] + b * p1
        dM = (
            v * values[i, 2, image]
            + w * values[i + 1, 2, image]
            + b * (v * values[i, 3, image] + w * values[i + 1, 3, image])
        )
        f = a * M
        r = f - (-s[image] if (modulus and f < zero) else s[image])
        sse += r * r
        gA += r * M
        gB += r * p1
        gT += r * dM
        AA += M * M
        AB += M * p1
        AT += M * dM
        BB += p1 * p1
        BT += p1 * dM
        TT += dM * dM
    if likelihood.rician:
        gA = gB = gT = zero
        for image in range(s.shape[0]):
            p1 = v * values[i, 1, image] + w * values[i + 1, 1, image]
            M = v * values[i, 0, image] + w * values[i + 1, 0, image] + b * p1
            dM = (
                v * values[i, 2, image]
                + w * values[i + 1, 2, image]
                + b * (v * values[i, 3, image] + w * values[i + 1, 3, image])
            )
            f = a * M
            y = -s[image] if (modulus and f < zero) else s[image]
            r = f - y * np.float32(bessel_ratio(y * f * inverse, ratio))
            gA += r * M
            gB += r * p1
            gT += r * dM
    a2 = a * a
    return gA, a * gB, a * gT, AA, a * AB, a * AT, a2 * BB, a2 * BT, a2 * TT, sse


@njit(nogil=True, cache=True, fastmath=_FAST)
def _sums(table, S, A, B, T, sigma, likelihood, out):  # type: ignore[no-untyped-def]
    values, low, step = table
    last = np.float32(values.shape[0] - 1.001)
    for index in range(S.shape[0]):
        at = place(np.log(T[index]), low, step, last)
        inverse = np.float32(1) / (sigma[index] * sigma[index])
        g0, g1, g2, h0, h1, h2, h3, h4, h5, sse = sums_of_voxel(
            values, at, A[index], B[index], S[index], inverse, likelihood
        )
        out[0, index], out[1, index], out[2, index] = g0, g1, g2
        out[3, index], out[4, index], out[5, index] = h0, h1, h2
        out[6, index], out[7, index], out[8, index] = h3, h4, h5
        out[9, index] = sse
