"""How smooth a field is: the weight of its penalty in Eq. 2."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import Parameter

#: The first finite step of the ladder on which λ_B is chosen, and the λ_B that networks were trained with:
#: docs/lambda.md.
DEFAULT_LAMBDA_B = 1e6
#: The finite steps on which λ_B is chosen.
LADDER = (DEFAULT_LAMBDA_B, 1e5, 1e4, 1e3)
#: From this variance inflation of the residuals of neighbours on, λ_B is chosen again with it.
LEAST_SHARED = 1.5
#: Half the difference in AIC below which two values of λ_B are supported alike.
SUPPORTED_ALIKE = 1.0
#: In units of σ²: the mean square of the images up to which a voxel is taken for air, where magnitudes have 2.
AIR = 4.0
#: Air is left out only if it has less than this share of the mean square that the median of the other voxels has: it
#: then says next to nothing about the field, and its noise, which is not Gaussian, would bend it.
FAINT = 0.05
#: The standard deviation of a field within an image for which λ_B is meant: that of the prior of B.
SPREAD_OF_B = 0.1775


def without_air(squares: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which voxels (V) determine the field: all, or those that are no air.

    Parameters
    ----------
    squares
        (V), the mean square of the images of each voxel in units of σ².
    """
    bright = squares > AIR
    faint = bright.any() and FAINT * float(np.median(squares[bright])) > AIR
    return bright if faint else np.ones(len(squares), bool)


def spread_of(field: Parameter) -> float:
    """Return the standard deviation of a field within an image, above 0: that of its prior.

    The spread of a prior is relative to the mean, which says nothing about a field whose mean may be zero (Hz): the
    standard deviation over all scans stands for it.
    """
    of_box = 0.1 * max(abs(bound) for bound in field.bounds)
    if field.prior is None:
        return of_box if field.around_zero or not field.start else 0.1 * abs(field.start)
    low, high = field.prior.mean
    relative = 0.0 if low <= 0 <= high else abs(low + high) / 2 * max(field.prior.spread)
    return relative or field.prior.deviation or of_box


def weight_of(field: Parameter, lambda_B: float) -> float:
    """Return the weight of the penalty on a field, in its own unit, for a λ_B that is meant for the B of inversion
    recovery.

    A field that varies by half as much within an image is as smooth, relative to that, with four times the weight. How
    much it varies is what its prior says.
    """
    ratio = SPREAD_OF_B / spread_of(field)
    return lambda_B if abs(ratio - 1) < 1e-9 else lambda_B * ratio**2


def of_least_cost(costs: Mapping[float, float], best: float) -> float:
    """Return the λ_B of least cost: that of a parabola in log λ_B through the best step of a ladder and its neighbours.

    It is not followed towards more smoothing: T1 of voxels that say little on the field suffers more from too much
    smoothing than from too little, and AIC does not see that. Nor is it followed beyond the next step, to which a
    parabola that is almost flat would lead.
    """
    steps = list(costs)
    at = steps.index(best) if best in costs else 0
    if not 0 < at < len(steps) - 1:
        return best
    above, here, below = (costs[step] for step in steps[at - 1 : at + 2])
    curvature = above - 2 * here + below
    shift = 0.5 * (below - above) / curvature if curvature > 0 else 0.0
    return float(f"{best * (steps[at - 1] / steps[at]) ** min(max(shift, -1.0), 0.0):.3g}")
