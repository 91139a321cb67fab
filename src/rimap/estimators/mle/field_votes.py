"""Which voxels have a say in a smooth field: none that contradicts the model, and little one that contradicts its
neighbours.

The field is determined by all voxels together, so a voxel that the model does not describe (a wrapped integer, a wrong
sign, metal) would move it for all others. A voxel whose residual is improbable whatever its field contradicts the
model: it has no say. A voxel that asks for another field than its neighbours, by many standard deviations, has the say
of a voxel that asks for a few, or none (weights as Huber's, found again at each solution).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.checks.residual_probability import contradicts, usual_misfit
from rimap.estimators.mle.field import Box
from rimap.estimators.mle.voxels import Fit, Voxels

Array = NDArray[np.float64]

#: A voxel does not influence the field if the probability of its residual is below this. Noise alone must not reach it
#: in a whole volume.
LIMIT = 1e-7
#: Number of Newton steps with which a voxel searches its own field, and of values of the field that are tried after.
STEPS, VALUES = 3, 9
#: A voxel has less influence, or none, if the field that fits it best deviates this many times more than usual.
LESS, NONE = 4.0, 8.0
#: The usual deviation, in standard deviations, is the root mean square over the voxels within three times the distance
#: over which the field is smoothed. If the field is smoothed too much, many voxels deviate in the same way and keep
#: their influence. Each deviation counts as at most `MOST`, so that a few outliers do not dominate.
WIDER, MOST = 100.0, 10.0
#: A voxel that says less about the field than this part of the mean: its curvature is noise.
LEAST_SAID = 0.05
#: Of fewer pairs of neighbours their differences are not judged.
FEWEST_PAIRS = 100


def follow_the_model(data: Voxels, fit: Fit, bounds: tuple[float, float], free: int) -> tuple[NDArray[np.bool_], float]:
    """Return which voxels (V) follow the model with any field, and the factor by which χ² is too large in general.

    Parameters
    ----------
    fit
        For any field: whether a voxel contradicts the model does not depend on that of its neighbours.
    free
        Degrees of freedom of a voxel with a field of its own.
    """
    least = data.least
    squares = 2 * (fit.f - least) - _gain(fit)
    doubtful = np.flatnonzero(contradicts(squares, 1.0, free, limit=LIMIT))
    if len(doubtful):
        some, own = data.some(doubtful), fit.of(doubtful)
        for _ in range(STEPS):
            ahead = np.where(own.w > 0, -own.g / np.maximum(own.w, 1e-12), -0.1 * np.sign(own.g) * np.ptp(bounds))
            new = some.fit(np.clip(own.F + ahead, *bounds), own)
            own = new.where(new.f < own.f, own)
        lowest = own.f
        for value in np.linspace(*bounds, VALUES):
            new = some.fit(np.full(len(some), value), None)
            lowest = np.minimum(lowest, new.f - 0.5 * _gain(new))
        squares[doubtful] = 2 * (lowest - least[doubtful])
    follow = ~contradicts(squares, 1.0, free, limit=LIMIT)
    most = squares[follow] if follow.mean() > 0.5 else squares  # an area that contradicts the model is not the usual
    return follow, usual_misfit(most, 1.0, free)


def dispersion(g: Array, w: Array, excess: float) -> float:
    """Return by which factor the votes of neighbours differ more than noise explains; 1 or more.

    What a voxel asks of the field also depends on what the model leaves out: a mixture of tissues asks for another
    field than each of them. Votes that differ for such reasons are evidence for a field that bends only as much as
    noisier votes are. A field that does bend moves neighbours alike, which differences do not see (von Neumann et al.
    1941, doi:10.1214/aoms/1177731677).

    Parameters
    ----------
    g, w
        (*X), first and second derivatives of −log p in the field. A voxel that says next to nothing (w ≤ 0, or a small
        part of the mean) has no vote.
    excess
        By which factor the square of a vote exceeds 1 if only residuals are too large.
    """
    mean = float(w[w > 0].mean()) if (w > 0).any() else 0.0
    votes, says = np.full(g.shape, np.nan), w > LEAST_SAID * mean
    votes[says] = np.clip(g[says] / np.sqrt(w[says] * excess), -LESS, LESS)
    differences = [np.diff(votes, axis=axis) for axis in range(min(votes.ndim, 2))]
    squares = np.concatenate([d[np.isfinite(d)] ** 2 / 2 for d in differences])
    return max(1.0, float(squares.mean())) if len(squares) >= FEWEST_PAIRS else 1.0


def _gain(fit: Fit) -> Array:
    """Return the decrease of χ² (V), to second order, if each voxel takes the field that fits it best."""
    return np.where(fit.w > 0, fit.g**2 / np.maximum(fit.w, 1e-12), 0.0)


def say_among_neighbours(box: Box, fit: Fit, penalty: float) -> Array:
    """Return the weights (V) of voxels, by the deviation of the field from that which fits each voxel best.

    The deviation is relative to the usual one of the neighbours.

    Parameters
    ----------
    fit
        Without weights, at the solution for the `penalty`.
    """
    w = np.maximum(fit.w, 0.0)
    mean = float(w.mean())
    if not mean > 0:
        return np.ones(len(w))
    off = np.abs(fit.g) / np.sqrt(np.maximum(w, LEAST_SAID * mean))
    usual = np.sqrt(np.maximum(box.around_each(np.minimum(off, MOST) ** 2, WIDER * penalty, mean), 1.0))
    return np.where(off > NONE * usual, 0.0, np.minimum(1.0, LESS * usual / np.maximum(off, 1e-12)))
