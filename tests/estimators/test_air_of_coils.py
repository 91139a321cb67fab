"""Air of the root of squares of many coils: found whatever their number, and told from dim tissue and fluid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.bench_trust import air_of_coils
from benchmarks.trust_scenes import TE8, TI4, head, inversion, of_coils
from numpy.typing import NDArray

import rimap
from rimap.estimators.checks import air_of_coils as module
from rimap.estimators.checks.background import background
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.neighbour_planes import Planes

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


def coils_in(S: Floats, *, sigma: Any = np.nan, bright: float = 0.0, where: Any = None) -> module.Coils | None:
    """Return what air of many coils is like in images of it; the object is far brighter by default."""
    census = Census.of(S, 1)
    planes = Planes.of(census.voxels)
    assert planes is not None
    power = census.mean_square.reshape(planes.shape)
    power = power if where is None else np.where(planes.of_map(where), power, 0.0)
    return module.air_of_coils(planes, power, sigma, bright or 1e3 * float(np.nanmax(power)))


def rough(spread: float, number: int = 3, shape: tuple[int, ...] = (30, 30), seed: int = 0) -> Floats:
    """Return images of air of 10 whose values scatter by this part of it."""
    e = np.random.default_rng(seed).normal(0, 1, (number, *shape))
    return 10.0 * (1 + spread * e)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("coils", "number"), [(4, 3), (16, 2), (16, 6), (32, 3)])
def test_air_of_coils_has_two_degrees_of_freedom_of_each_coil_and_image(coils: int, number: int, unit: float) -> None:
    """Its mean power is 2 σ² of each coil."""
    found = coils_in(unit * coils_of(np.zeros((number, 60, 60)), coils), sigma=unit)
    assert found is not None and found.dim.all()
    assert found.level == pytest.approx(2 * coils * unit**2, rel=0.01)
    assert found.freedom == pytest.approx(2 * coils * number, rel=0.15)


def test_the_degrees_of_freedom_are_those_of_at_most_64_coils() -> None:
    found = coils_in(coils_of(np.zeros((6, 40, 40)), 80), sigma=1.0)
    assert found is not None and found.freedom == 64 * 2 * 6


@pytest.mark.parametrize(("spread", "is_air"), [(0.045, False), (0.055, True)])
def test_air_is_rough(spread: float, is_air: bool) -> None:
    """By a twentieth of its mean."""
    assert (coils_in(rough(spread)) is not None) == is_air


@pytest.mark.parametrize(("sigmas", "is_air"), [(1.35, True), (1.65, False)])
@pytest.mark.parametrize("as_map", [False, True])
def test_air_scatters_by_one_and_a_half_sigma_at_most(sigmas: float, is_air: bool, as_map: bool) -> None:
    sigma = 1.5 / sigmas * (np.ones((1, 30, 30)) if as_map else 1.0)
    assert (coils_in(rough(0.15), sigma=sigma) is not None) == is_air
    if as_map:
        sigma[:] = np.nan
        assert coils_in(rough(0.15), sigma=sigma) is not None


@pytest.mark.parametrize(("change", "is_air"), [(0.025, True), (0.035, False)])
def test_the_mean_of_air_is_the_same_in_all_images(change: float, is_air: bool) -> None:
    """To 3 % of it: a fluid decays."""
    e = np.random.default_rng(1).normal(0, 1, (4, 40, 40))
    e -= e.mean((1, 2), keepdims=True)
    level = 10.0 * (1 + change * np.array([0.5, 0, 0, -0.5]))
    assert (coils_in(level[:, None, None] * (1 + 0.15 * e)) is not None) == is_air


def test_air_needs_two_images_and_a_hundred_voxels() -> None:
    assert coils_in(rough(0.15, 1)) is None and coils_in(rough(0.15, 2)) is not None
    # Voxels at the edge have too few neighbours: 81 of the smaller and 196 of the larger plane have enough.
    assert coils_in(rough(0.15, 3, (11, 11))) is None and coils_in(rough(0.15, 3, (16, 16))) is not None


@pytest.mark.parametrize(("bright", "is_air"), [(0.9, False), (1.3, True)])
def test_air_has_less_than_0_45_of_the_power_of_the_object(bright: float, is_air: bool) -> None:
    S = rough(0.06)
    assert (coils_in(S, bright=bright * float((S**2).mean()) / 0.45) is not None) == is_air


@pytest.mark.parametrize(
    ("place", "is_air"), [((slice(20, 30), slice(10, 20)), True), ((slice(20, 30), slice(None)), False)]
)
def test_air_surrounds_the_object(place: Any, is_air: bool) -> None:
    """At three tenths of the edge, of which half is too close to the end of the plane to have neighbours."""
    S = rough(0.15)
    S[:, *place] = 1e3
    found = coils_in(S, bright=1e6)
    assert (found is not None) == is_air
    assert found is None or not found.dim[:, *place].any()


def test_what_is_not_known_is_not_at_the_edge() -> None:
    """A mask leaves an eighth of the edge, and all of that is air."""
    S, where = rough(0.15, shape=(60, 60)), np.zeros((60, 60), bool)
    where[:, :9] = where[20:40, :25] = True
    S[:, 20:40, 9:25] = 1e3
    assert coils_in(S, where=where, bright=1e6) is not None


def test_the_edge_of_planes() -> None:
    for order in ("C", "F"):
        S = np.zeros((2, 6, 7, 3), order=order)  # type: ignore[call-overload]
        S = S if order == "C" else np.ascontiguousarray(S.transpose(0, 3, 2, 1)).transpose(0, 3, 2, 1)
        planes = Planes.of(Census.of(S, 1).voxels)
        assert planes is not None
        for width in (1, 2):
            expected = np.ones((6, 7, 3), bool)
            expected[width:-width, width:-width] = False
            np.testing.assert_array_equal(planes.as_map(module._edge(planes, width)), expected)


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
