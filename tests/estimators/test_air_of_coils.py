"""Air of the root of squares of many coils: found whatever their number, and told from dim tissue and fluid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.bench_trust import air_of_coils
from benchmarks.trust_scenes import TE8, TI4, head, inversion, of_coils
from numpy.typing import NDArray

import rimap
from rimap.estimators.checks.background import background
from rimap.estimators.checks.image_counts import Census

Floats = NDArray[np.float64]
SHAPE = (40, 40)
X, Y = np.indices(SHAPE) - 19.5
OBJECT = np.hypot(X, Y) < 14


def background_of(S: Floats, sigma: float = 1.0) -> NDArray[np.bool_]:
    return background(Census.of(S, 1), sigma, signed=False, usable=np.ones(S.shape[1:], bool))


def coils_of(signal: Floats, number: int, seed: int = 0) -> Floats:
    """Return the root of squares of coils with noise of 1 (N, *X), the signal in equal parts in each of them."""
    e = np.random.default_rng(seed).normal(0, 1, (2, number, *signal.shape))
    return np.asarray(np.sqrt(((signal / np.sqrt(number) + e[0]) ** 2 + e[1] ** 2).sum(0)))


def decaying(number: int) -> Floats:
    """Return the signal of an object in nothing, whose parts decay at different rates."""
    T2 = np.where(X > 0, 60.0, 120.0)
    te = np.linspace(10, 120, number)[:, None, None]
    return np.where(OBJECT, 40.0 * np.exp(-te / T2), 0.0)


@pytest.mark.parametrize("number", [2, 3, 6, 12])
@pytest.mark.parametrize("coils", [8, 16, 32, 64])
def test_air_of_any_number_of_coils_is_background(number: int, coils: int) -> None:
    found = background_of(coils_of(decaying(number), coils, number))
    far = np.hypot(X, Y) > 16
    if coils <= 16:  # of more, air is as bright as the later echoes of the object
        assert found[far].mean() > 0.97
    assert not found[OBJECT].any()


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(lambda te: 8.0 * np.exp(-te / 900), id="a dim fluid that decays slowly"),
        pytest.param(lambda te: 8.0 * abs(1 - 1.9 * np.exp(-te / 100)), id="a dim tissue that recovers"),
        pytest.param(lambda te: 8.0 + 0 * te, id="without noise of its own"),
    ],
)
def test_what_fills_the_edge_and_is_no_air_is_kept(around: Any) -> None:
    te = np.linspace(10, 120, 8)[:, None, None]
    signal = np.where(OBJECT, decaying(8), around(te) * np.ones(SHAPE))
    noise = np.random.default_rng(0).normal(0, 0.2, signal.shape)
    assert not background_of(signal + noise, 0.2).any()


def test_a_dim_tissue_inside_the_object_is_no_air() -> None:
    """As bright as air, and alike in all images: it is not at the edge, nor is it where nothing else is air."""
    signal = decaying(8)
    inside = np.hypot(X, Y) < 5
    signal[:, inside] = 4.0
    found = background_of(coils_of(signal, 16))
    assert found[np.hypot(X, Y) > 16].mean() > 0.97
    whole = np.where(inside, 4.0, 40.0 * np.exp(-np.linspace(10, 120, 8)[:, None, None] / 80) * np.ones(SHAPE))
    assert not background_of(coils_of(whole, 16)).any()


def test_heads_in_air_of_many_coils() -> None:
    assert all(figure.holds for figure in air_of_coils())


@pytest.mark.parametrize("model", [inversion(TI4), rimap.T2Decay(tau=TE8)], ids=["ir", "t2"])
def test_a_head_without_air_has_no_background(model: Any) -> None:
    scene = head(model, size=72, planes=1)
    S = of_coils(scene, 16, 0.65 / 15)[:, 24:48, 24:48]
    assert not background_of(S, 0.65 / 15).any()
