"""What a network smoothed away although the data show it, put back.

A network that smooths takes off a part of the contrast of whatever is small or faint. What it took off is in the
Gauss-Newton step from its estimate to the maximum likelihood of each voxel, among noise. Two means over neighbours
distinguish it from noise:

**Alike voxels.** The mean of the step over voxels near by for which the network found like values has little noise and
all of the contrast that such a group lost as one: it is added. (To smooth what smoothing left, and add it, is Tukey's
twicing: Stuetzle & Mittal 1979, doi:10.1007/BFb0098489. Here the weights are those of a bilateral filter, Tomasi &
Manduchi 1998, doi:10.1109/ICCV.1998.710815, guided by the network's estimate.)

**Texture.** Where the steps of a neighbourhood vary by more than noise explains, voxels differ from each other in a way
that the network did not see. The share of the variance that noise does not explain is how much of each step is added:
the shrinkage of empirical Bayes (Efron & Morris 1973, doi:10.1080/01621459.1973.10481350).

Both add noise, which the standard deviations count. A second pass puts back what the first left of a wide or faint
contrast. If there is little noise, nothing is left; if there is much, the second pass adds more noise than contrast
(docs/development/trials.md).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.rim.data_term import in_chunks
from rimap.estimators.rim.loop import Quadratic
from rimap.estimators.rim.neighbour_sums import gaussian_sum
from rimap.kernels import njit

F32 = NDArray[np.float32]
#: Of the weights of alike voxels: the standard deviation in space (pixels), how far they reach (pixels), and the
#: standard deviation of the difference of estimates, in standard deviations of such a difference.
WIDTH, REACH, ALIKE = 2.0, 4, 1.5
#: σ in units of the image scale between which there is a second pass: it sets in and ends gradually.
SECOND = (0.007, 0.01, 0.08, 0.12)
#: How often a part of an exponential is squared to the whole.
DOUBLINGS = 8
#: Rows of a slice that a thread takes at a time.
ROWS = 64
#: Standard deviation (pixels) of the neighbourhood whose variance is compared with that of noise.
NEIGHBOURHOOD = 3.0
#: A step counts as no more than this many standard deviations in that variance: one odd voxel is not texture.
MOST_DEVIATIONS = 4.0
#: The variance of the step in units of that of a voxel is 1 − a·h + b·h² for an estimate with h of that variance, if
#: nothing was smoothed away: between 1 − h (a mean over voxels) and (1 − h)² (each voxel drawn towards a constant).
#: Measured on smooth brains.
LINEAR, SQUARE = 1.4, 0.4


class Restored(NamedTuple):
    """The estimate u (P, *X) and its standard deviations with what was put back."""

    u: F32
    sd: F32


class _Pass(NamedTuple):
    """An estimate u (P, *X) after a pass, its standard deviations, and their upper bound, which the next pass uses."""

    u: F32
    sd: F32
    largest_sd: F32


def restored(u: F32, sd: F32, quadratic_at: Callable[[F32], Quadratic], executor: Executor | None = None) -> Restored:
    """Return an estimate with what it lacks of what the data show.

    Parameters
    ----------
    u, sd
        (P, b, h, w), the estimate of a network and the standard deviations that it gives.
    quadratic_at
        Returns the data term at an estimate.
    executor
        The threads, if there are any.
    """
    quadratic = quadratic_at(u)
    last = _restored_by(np.ones(1, np.float32), _Pass(u, sd, sd), quadratic, executor)
    share = np.asarray(np.interp(np.log(quadratic.sigma), np.log(SECOND), (0.0, 1.0, 1.0, 0.0)), np.float32)
    if share.any():
        last = _restored_by(share, last, quadratic_at(last.u), executor)
    return Restored(last.u, last.sd)


def _restored_by(weight: F32, before: _Pass, quadratic: Quadratic, executor: Executor | None) -> _Pass:
    """Return what one pass restores, times a weight (broadcast against a map)."""
    u, sd, largest = (x.copy() for x in before)
    for row, step, variance in zip(quadratic.rows_of_voxel, *quadratic.alone):
        d, v = np.asarray(step, np.float32), np.asarray(variance, np.float32)
        of_alike, noise = np.empty_like(d), np.empty_like(d)
        for index in range(len(d)):
            into = (of_alike[index], noise[index])
            _write_mean_of_alike((u[row, index], largest[row, index] ** 2, d[index], 1 / v[index]), into, executor)
        share = share_of_texture(d, v, largest[row])
        u[row] += weight * (of_alike + share * (d - of_alike))
        # The error of the estimate becomes smaller by what is added of each step: with all of it a voxel is at its
        # maximum likelihood, whose variance is v.
        sd[row] = np.sqrt((1 - (weight * share) ** 2) * sd[row] ** 2 + weight**2 * noise + weight * share * v)
        largest[row] = np.sqrt(largest[row] ** 2 + weight**2 * (noise + share * v))
    return _Pass(u, sd, largest)


def _write_mean_of_alike(of: tuple[F32, ...], into: tuple[F32, F32], executor: Executor | None) -> None:
    """Write what `_mean_of_alike` finds (h, w) for estimate, variance, step and precision (h, w), by bands of rows."""

    def run(first: int) -> None:
        low = max(first - REACH, 0)  # rows of the neighbours above
        band = [x[low : first + ROWS + REACH] for x in of]
        found = np.empty_like(band[0]), np.empty_like(band[0])
        _mean_of_alike(*band, *found)
        for whole, part in zip(into, found):
            whole[first : first + ROWS] = part[first - low :][:ROWS]

    in_chunks(run, range(0, len(into[0]), ROWS), executor)


def share_of_texture(step: F32, variance: F32, sd: F32) -> F32:
    """Return which share of the variance of the steps (b, h, w) around each voxel neither noise nor smoothing
    explains.
    """
    left = np.clip(sd**2 / variance, 0, 1)
    explained = 1 - LINEAR * left + SQUARE * left**2
    found = np.minimum(step**2 / variance, MOST_DEVIATIONS**2)
    there = np.isfinite(found) & np.isfinite(explained)
    expected, observed = (
        gaussian_sum(np.where(there, x, 0).astype(np.float32), NEIGHBOURHOOD) for x in (explained, found)
    )
    return np.asarray(np.clip(1 - expected / np.maximum(observed, 1e-6), 0, 1), np.float32)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _mean_of_alike(u, variance, step, precision, mean, noise):  # type: ignore[no-untyped-def]
    """Write the mean of the steps (h, w) over alike voxels, and its variance, Σ w²v / (Σ w)² with w = s·t/v.

    s falls with the distance in space, t with the difference of the estimates u in units of its own standard deviation.
    """
    h, w = u.shape
    one, half = np.float32(1), np.float32(0.5)
    per_distance, per_difference = half / np.float32(WIDTH**2), one / np.float32(ALIKE**2)
    # exp(−x) = exp(−x / 2ᵏ)^(2ᵏ) and the series to second order: within 0.1 % up to x = 6, in vector instructions
    part = one / np.float32(2**DOUBLINGS)
    alike, weighted, weights, squares = np.empty((4, w), np.float32)
    for y in range(h):
        weighted[:], weights[:], squares[:] = 0, 0, 0
        for i in range(max(0, y - REACH), min(h, y + REACH + 1)):
            for along in range(-REACH, REACH + 1):
                distance = np.float32((i - y) ** 2 + along**2) * per_distance
                count = max(0, w - abs(along))
                left, right = max(0, -along), max(0, along)
                here, there = slice(left, left + count), slice(right, right + count)
                estimate, neighbour = u[y, here], u[i, there]
                own_variance, its_variance = variance[y, here], variance[i, there]
                for x in range(len(estimate)):
                    apart = (neighbour[x] - estimate[x]) ** 2 / (own_variance[x] + its_variance[x])
                    z = min((distance + apart * per_difference) * part, one)
                    e = one - z + half * z * z
                    for _ in range(DOUBLINGS):
                        e *= e
                    alike[x] = e
                its_step, its_precision = step[i, there], precision[i, there]
                sum_of_steps, sum_of_weights, sum_of_squares = weighted[here], weights[here], squares[here]
                for x in range(len(estimate)):
                    weight = alike[x] * its_precision[x]
                    sum_of_steps[x] += weight * its_step[x]
                    sum_of_weights[x] += weight
                    sum_of_squares[x] += weight * alike[x]
        for x in range(w):
            if weights[x] > 0:
                mean[y, x] = weighted[x] / weights[x]
                noise[y, x] = squares[x] / weights[x] ** 2
            else:
                mean[y, x] = 0
                noise[y, x] = 0
