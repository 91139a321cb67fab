"""The start of a smooth field is the most likely combination of values of its blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap.estimators.mle.initial_field import _most_likely
from rimap.estimators.mle.message_kernels import write_messages

LEVELS = np.linspace(0.4, 1.6, 7)
STEP = 0.1


def total(found: NDArray[np.intp], unary: NDArray[np.float64]) -> float:
    """Return what `_most_likely` minimises."""
    said = np.take_along_axis(unary, found[..., None], -1).sum()
    steps = [np.diff(LEVELS[found], axis=axis) for axis in range(found.ndim)]
    return float(said + sum(0.5 * ((step / STEP) ** 2).sum() for step in steps))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(5,), (1, 5), (5, 1, 1)])
def test_in_a_line_no_combination_is_more_likely(shape: tuple[int, ...], seed: int) -> None:
    """Without loops, the messages find the exact minimum."""
    unary = np.random.default_rng(seed).uniform(0, 30, (*shape, len(LEVELS)))
    all_of_them = (np.reshape(levels, shape) for levels in itertools.product(range(len(LEVELS)), repeat=5))
    least = min(total(levels, unary) for levels in all_of_them)
    assert total(_most_likely(unary, LEVELS, STEP), unary) == pytest.approx(least)


def test_messages_are_the_least_over_all_levels() -> None:
    rng = np.random.default_rng(0)
    without, pairwise = rng.normal(0, 50, (40, 9)), rng.uniform(0, 100, (9, 9))
    messages = np.empty_like(without)
    write_messages(without, pairwise, messages)
    least = (without[:, :, None] + pairwise).min(1)
    np.testing.assert_array_equal(messages, least - least.min(1, keepdims=True))
