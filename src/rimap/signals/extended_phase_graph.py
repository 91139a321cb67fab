"""Extended phase graph of a CPMG train: the echoes with all stimulated echoes, integrated over the slice.

With one refocusing angle α through the train, echo n is a polynomial of degree n in cos α. So the integral over the
slice is a sum over few fixed values of cos α, whose weights depend on B1 and the pulse alone, and all of it is smooth
in B1, T1, T2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, floating, is_torch, namespace
from rimap.signals.slice_profile import SliceProfile

Floats = NDArray[np.float64]

#: The weights are polynomials in B1 between these; B1 beyond them counts as the nearer one.
B1_RANGE = (0.0, 2.0)
#: Chebyshev nodes in B1 at which the pulses are simulated: cos α is an entire function of B1.
PULSE_NODES = 48
#: What is left out of the polynomials in B1.
TAIL = 1e-10
#: Values of an array and voxels with which the states stay in the cache of a processor.
BLOCK_VALUES = 1 << 15
#: Voxels at a time: their states stay in the cache of a core.
VOXELS_AT_ONCE = 512
#: Polynomials that are evaluated at once.
POLYNOMIALS_AT_ONCE = 16


def echoes(cosine: Array, E1: Array, E2: Array, n: int) -> Array:
    """Return the amplitudes of n echoes, (n, *X), of a CPMG train after a perfect excitation.

    The states between the pulses are those of Hennig's recursion at the orders 1, 3, 5 … (in units of half an echo
    spacing): P and M are the transverse states of positive and negative order, Z the longitudinal ones times sin α, so
    that only cos α enters.

    Parameters
    ----------
    cosine
        cos α of the refocusing pulses, *X.
    E1, E2
        e^(−ΔTE/T1) and e^(−ΔTE/T2) for the echo spacing ΔTE, *X.
    n
        Number of echoes.

    References
    ----------
    Hennig 1988, doi:10.1016/0022-2364(88)90128-X. Weigel 2015, doi:10.1002/jmri.24619.
    """
    array_api = namespace(cosine, E1, E2)
    stay, swap = (1 + cosine) / 2, (1 - cosine) / 2  # cos²(α/2), sin²(α/2)
    to_Z = 2 * stay * swap  # sin²α/2
    one = 1 + 0 * (cosine * E1 * E2)
    nothing = 0 * one[None]
    P, M, Z = one[None], nothing, nothing
    found = []
    for number in range(1, n + 1):
        difference = P - M
        exchanged = swap * difference - Z
        P, M, Z = P - exchanged, M + exchanged, cosine * Z - to_Z * difference  # the pulse
        echo = E2 * M[:1]  # the order −1 passes through 0, which is the echo, and becomes +1
        found.append(echo)
        # An order of 2j + 1 needs j further pulses to come back: what cannot do so by the last echo is left out.
        needed = min(number + 1, n - number)
        if not needed:
            break
        P = array_api.concat([echo, E2 * P[: needed - 1]])
        M, Z = E2 * M[1 : needed + 1], E1 * Z[:needed]
        M = array_api.concat([M, *[nothing] * (needed - M.shape[0])])
        Z = array_api.concat([Z, *[nothing] * (needed - Z.shape[0])])
    return array_api.concat(found)


def chebyshev_nodes(n: int) -> Floats:
    """Return the n zeros of the Chebyshev polynomial of degree n."""
    return np.cos(np.pi * (np.arange(n) + 0.5) / n)


def to_coefficients(n: int) -> Floats:
    """Return the matrix (n, n) from values at `chebyshev_nodes` to the coefficients of Chebyshev polynomials."""
    k, j = np.arange(n)[:, None], np.arange(n)[None]
    matrix = 2 / n * np.cos(np.pi * k * (j + 0.5) / n)
    matrix[0] /= 2
    return matrix


@dataclass(frozen=True, eq=False)
class SliceRule:
    """The integral over the slice as a sum: Σⱼ wⱼ(B1) e(cⱼ), exact for polynomials of a degree below J in c = cos α.

    Parameters
    ----------
    cosines
        cⱼ, (J,).
    polynomials
        Chebyshev coefficients of wⱼ in B1, scaled to `B1_RANGE`, (J, P).
    """

    cosines: Floats
    polynomials: Floats

    def weights(self, B1: Array) -> Array:
        """Return wⱼ (J, *X) for B1 (*X)."""
        array_api = namespace(B1)
        low, high = B1_RANGE
        real = array_api.real(B1) if array_api.isdtype(B1.dtype, "complex floating") else B1
        inside = array_api.where(real < low, low + 0 * B1, array_api.where(real > high, high + 0 * B1, B1))
        x = (2 * inside - (low + high)) / (high - low)
        matrix = _like(self.polynomials, B1)
        before, now = 1 + 0 * x, x
        block, total, first = [before, now], 0, 0
        for degree in range(2, matrix.shape[1] + 1):  # T₀ and T₁ are there
            if len(block) >= POLYNOMIALS_AT_ONCE or degree == matrix.shape[1]:
                columns = matrix[:, first : first + len(block)]
                total = total + array_api.tensordot(columns, array_api.stack(block), axes=1)
                first, block = degree, []
            before, now = now, 2 * x * now - before
            block.append(now)
        return total

    @classmethod
    def of(cls, profile: SliceProfile, refocusing_angle: float, n_echoes: int) -> SliceRule:
        """Return the rule of a profile for a nominal refocusing angle (degrees); the last ones are kept."""
        return _rule(profile, refocusing_angle, n_echoes)


@lru_cache(maxsize=64)
def _rule(profile: SliceProfile, refocusing_angle: float, n_echoes: int) -> SliceRule:
    low, high = B1_RANGE
    J, half = n_echoes + 1, (high - low) / 2
    coarse = low + half * (chebyshev_nodes(PULSE_NODES) + 1)
    simulated = profile.across(coarse, refocusing_angle)
    # wⱼ oscillates as cos(J α): the nodes in B1 must resolve that.
    fine = chebyshev_nodes(int(2 * J * np.deg2rad(max(refocusing_angle, 180.0)) * half) + 64)
    between = np.polynomial.chebyshev.chebvander(fine, PULSE_NODES - 1) @ to_coefficients(PULSE_NODES)
    cosine, weight = (values @ between.T for values in simulated)  # (Z, B1)
    alpha = np.arccos(np.clip(cosine, -1, 1))
    moments = np.stack(
        [(weight * np.cos(index * alpha)).sum(0) for index in range(J)]
    )  # of the Chebyshev polynomials in cos α
    weights = to_coefficients(J).T @ moments
    polynomials = weights @ to_coefficients(len(fine)).T
    large = abs(polynomials).max(0) > TAIL * abs(polynomials).max()
    return SliceRule(chebyshev_nodes(J), np.ascontiguousarray(polynomials[:, : max(np.flatnonzero(large)[-1] + 1, 2)]))


def train(rule: SliceRule, B1: Array, E1: Array, E2: Array, n: int) -> Array:
    """Return the n echoes (n, *X) of the whole slice; B1 may have other axes than E1 and E2, against which it
    broadcasts.

    The phase graph runs over E1 and E2 alone: on a grid of (T2, B1) it costs no more than on the T2 of that grid.
    """
    full = E1 * E2 * B1
    voxelwise = (E1 * E2).shape == full.shape
    if voxelwise and math.prod(full.shape) > VOXELS_AT_ONCE:
        b, e1, e2 = ((a + 0 * full).reshape(-1) for a in (B1, E1, E2))
        cuts = [slice(index, index + VOXELS_AT_ONCE) for index in range(0, b.shape[0], VOXELS_AT_ONCE)]
        parts = [train(rule, b[cut], e1[cut], e2[cut], n) for cut in cuts]
        return namespace(full).concat(parts, axis=1).reshape((n, *full.shape))
    weights = rule.weights(B1)
    at_once = max(1, BLOCK_VALUES // (n * max(math.prod((E1 * E2).shape), 1)))
    total: Any = 0
    for first in range(0, len(rule.cosines), at_once):
        block = slice(first, first + at_once)
        cosine = _like(rule.cosines[block], full)
        found = echoes(cosine.reshape((-1,) + (1,) * full.ndim), E1, E2, n)  # (n, block, *X)
        total = total + (found * weights[None, block]).sum(1)
    return total


def _like(values: Floats, like: Array) -> Array:
    """Return constants in the precision and on the device of an array, real also where that is complex."""
    if is_torch(like):
        return floating(values, like)
    return values.astype(like.real.dtype, copy=False)
