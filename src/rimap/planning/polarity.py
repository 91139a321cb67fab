"""What a lost polarity costs: magnitude images may have a second answer that fits them about as well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from rimap.planning.goal import Goal
from rimap.planning.precision import main_values, tissue_of
from rimap.signals.base import FREE, SignalModel

Array = NDArray[np.float64]

#: Values of T at which second answers are searched, from this factor below the range to as far above.
_TIMES, _REACH = 161, 6.0


def wrong_answers(model: SignalModel, sigma: float, T: Array, sd: Array, goal: Goal) -> Array:
    """Return the mean squared relative error (K,) that the second answers of magnitude images add at the values T (K,).

    Parameters
    ----------
    sigma
        Standard deviation of the noise, for an amplitude of 1, all averages together.
    sd
        The relative standard deviation (K,) around the right answer.

    Notes
    -----
    An answer T′ whose images are d away (in σ, with the best amplitude, field and polarity) is preferred by noise with
    the probability ½ erfc(d / 2√2). Around T itself d is |T′ − T| over the standard deviation, which `sd` has already;
    what d falls short of that is added: near a null with either polarity, and far from T if a wrong polarity fits.
    """
    if not model.magnitude or len(model.amplitudes) != 1:
        return np.zeros_like(T)
    low, high = model.time.bounds
    times = np.geomspace(max(low, goal.T_ms[0] / _REACH), min(high, goal.T_ms[1] * _REACH), _TIMES)
    with np.errstate(all="ignore"):
        squared, main = _nearest(model, times, T, goal)
        error = np.abs(np.log(main / T[:, None]))
        excess = _chance(np.sqrt(squared) / sigma) - _chance(error / sd[:, None])
        cost = np.clip(excess, 0, None) * np.minimum(error, 1.0) ** 2
    return np.asarray(np.nan_to_num(cost).max(axis=1))


def _chance(distance: Array) -> Array:
    return np.asarray(0.5 * erfc(distance / (2 * 2**0.5)))


def _at(model: SignalModel, times: Array, goal: Goal) -> Array:
    """Return κ (Q, M) for values of the relaxation time, fields having their typical values."""
    kappa = np.repeat(tissue_of(model, np.array([goal.T_ms[0]]), goal.assumed), times.size, axis=1)
    kappa[model.time_index] = times
    return kappa


def _nearest(model: SignalModel, times: Array, T: Array, goal: Goal) -> tuple[Array, Array]:
    """Return the squared distance (K, M) of the images at T (K,) from the nearest ones at `times` (M,), and the main
    map of those.
    """
    true = np.asarray(model.signal(tissue_of(model, T, goal.assumed)), dtype=float)
    at = _at(model, times, goal)
    field = goal.field
    if field is not None and goal.field_treatment == FREE and model.linear_in_field:
        squared, values = _nearest_linear(model, times, true)
        kappa = np.broadcast_to(at[:, None], (len(at), *values.shape)).copy()
        kappa[model.index(field.name)] = values
        return squared, main_values(model, kappa)
    found = np.asarray(model.signal(at), dtype=float)
    squared = np.square(true).sum(0)[:, None] - (true.T @ found) ** 2 / np.square(found).sum(0)
    return np.clip(squared, 0, None), np.broadcast_to(main_values(model, at), squared.shape)


def _nearest_linear(model: SignalModel, times: Array, true: Array) -> tuple[Array, Array]:
    """Return the distances for images A φ₀ + A F φ₁ with any A and F, the rest of a projection, and F, for the best
    polarity.

    The signal rises through zero once, so that a polarity is a number of first images that are negative.
    """
    order = np.argsort(model.times, kind="stable")
    basis = np.moveaxis(np.asarray(model.basis(times), dtype=float)[order], -1, 0)  # (M, N, 2)
    length = np.linalg.norm(basis[..., 0], axis=1, keepdims=True)
    first = basis[..., 0] / length
    shared = (first * basis[..., 1]).sum(1, keepdims=True)
    second = basis[..., 1] - shared * first
    rest = np.linalg.norm(second, axis=1, keepdims=True)
    second /= rest
    images = true[order]
    nearest = np.full((times.size, images.shape[1]), np.inf)
    field = np.full(nearest.shape, np.nan)
    for negative in range(len(images) + 1):
        signed = images.copy()
        signed[:negative] *= -1
        a, b = first @ signed, second @ signed
        distance = np.square(signed).sum(0) - a**2 - b**2
        field = np.where(distance < nearest, (b / rest) / ((a - b / rest * shared) / length), field)
        nearest = np.minimum(distance, nearest)
    return np.clip(nearest.T, 0, None), field.T
