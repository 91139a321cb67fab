"""How smooth a field is: the weight of its penalty in Eq. 2."""

from __future__ import annotations

from rimap.signals.base import Parameter

#: The first finite step of the ladder on which λ_B is chosen, and the λ_B that networks were trained with: docs/lambda.md.
DEFAULT_LAMBDA_B = 1e6
#: The standard deviation of a field within an image for which λ_B is meant: that of the prior of B.
SPREAD_OF_B = 0.1775


def spread_of(field: Parameter) -> float:
    """Return the standard deviation of a field within an image: that of its prior."""
    if field.prior is not None:
        return abs(sum(field.prior.mean) / 2) * max(field.prior.spread)
    return 0.1 * (abs(field.start) if field.start else max(abs(b) for b in field.bounds))


def weight_of(field: Parameter, lambda_B: float) -> float:
    """Return the weight of the penalty on a field, in its own unit, for a λ_B that is meant for the B of inversion recovery.

    A field that varies by half as much within an image is as smooth, relative to that, with four times the weight. How much it
    varies is what its prior says.
    """
    ratio = SPREAD_OF_B / spread_of(field)
    return lambda_B if abs(ratio - 1) < 1e-9 else lambda_B * ratio**2
