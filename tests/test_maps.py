"""What comes out of an estimator: derived maps with their standard deviations, predictions, copies."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from rimap import Derived, Gaussian, InputError, InversionRecovery, ParameterMaps, WeightedSeries
from rimap.derived import depends_on
from rimap.signals.base import Parameter

TAU = (50.0, 400.0, 1100.0, 2500.0)
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class WithDerived(InversionRecovery):
    """Inversion recovery with derived maps of one parameter, of two, and of one that is known."""

    derived: ClassVar[tuple[Derived, ...]] = (
        Derived("R1", "1/s", lambda model, maps: 1000 / maps["T1"], suffix="R1map"),
        Derived("inverted", "ms", lambda model, maps: maps["T1"] * (maps["B"] - 1)),
    )


@dataclass(frozen=True)
class GivenB(WithDerived):
    """The same with a B that is known."""

    parameters: ClassVar[tuple[Parameter, ...]] = tuple(
        Parameter("B", "1", (0.5, 3.0), "field", "given", start=2.0) if p.name == "B" else p
        for p in InversionRecovery.parameters
    )


def of(model: InversionRecovery, covariance: np.ndarray | None = None, n: int = 6, **more: object) -> ParameterMaps:
    """Return maps of n voxels; the standard deviations are those of the covariance (Q, Q)."""
    kappa = np.stack([np.full(n, 100.0), np.linspace(1.5, 2.0, n), np.linspace(500, 1500, n)])
    sd = packed = None
    if covariance is not None:
        sd = np.sqrt(np.diag(covariance))[:, None] * np.ones(n)
        pairs = itertools.combinations_with_replacement(range(3), 2)
        packed = np.stack([np.full(n, covariance[i, j]) for i, j in pairs])
    status = np.zeros(n, np.uint8)
    return ParameterMaps(kappa, model, status, sd_kappa=sd, covariance=packed, **more)  # type: ignore[arg-type]


def _covariance() -> np.ndarray:
    L = np.array([[1.0, 0, 0], [0.01, 0.02, 0], [3.0, -4.0, 9.0]])
    return np.asarray(L @ L.T)


def test_derived_maps_are_there_after_the_parameters() -> None:
    maps = of(WithDerived(tau=TAU), _covariance())
    assert list(maps) == list(maps.sd) == ["A", "B", "T1", "R1", "inverted"]
    assert len(maps) == len(maps.sd) == 5 and "R1" in maps and "R1" in maps.sd and "T3" not in maps
    np.testing.assert_allclose(maps["R1"], 1000 / maps["T1"])
    np.testing.assert_allclose(dict(maps)["inverted"], maps["T1"] * (maps["B"] - 1))
    with pytest.raises(KeyError, match="has A, B, T1, R1, inverted"):
        maps["T2"]


def test_their_standard_deviations_are_those_of_drawn_parameters() -> None:
    model, C = WithDerived(tau=TAU), _covariance()
    maps = of(model, C)
    drawn = maps.kappa[:, :, None] + (np.linalg.cholesky(C) @ RNG.standard_normal((3, 100_000)))[:, None]
    np.testing.assert_allclose(maps.sd["R1"], (1000 / drawn[2]).std(-1), rtol=0.01)
    np.testing.assert_allclose(maps.sd["inverted"], (drawn[2] * (drawn[1] - 1)).std(-1), rtol=0.01)
    np.testing.assert_allclose(maps.sd["R1"], 1000 * maps.sd["T1"] / maps["T1"] ** 2)


def test_without_a_covariance_only_formulas_of_one_parameter_have_one() -> None:
    model = WithDerived(tau=TAU)
    assert depends_on(model, model.derived[0]) == ["T1"] and depends_on(model, model.derived[1]) == ["B", "T1"]
    with_covariance = of(model, _covariance())
    maps = ParameterMaps(with_covariance.kappa, model, with_covariance.status, sd_kappa=with_covariance.sd_kappa)
    np.testing.assert_allclose(maps.sd["R1"], with_covariance.sd["R1"])
    assert np.isnan(maps.sd["inverted"]).all() and maps.has_sd("R1") and not maps.has_sd("inverted")
    assert with_covariance.has_sd("inverted") and with_covariance.has_sd("T1") and not of(model).has_sd("T1")
    assert np.isnan(of(model).sd["R1"]).all()


def test_what_is_known_adds_nothing() -> None:
    C = _covariance()
    C[1], C[:, 1] = np.nan, np.nan
    expected = of(WithDerived(tau=TAU), C)
    np.testing.assert_allclose(expected.sd["inverted"], expected.sd["T1"] * (expected["B"] - 1))
    given = of(GivenB(tau=TAU))
    maps = ParameterMaps(
        given.kappa, given.model, given.status, sd_kappa=np.array([[1.0], [np.nan], [10.0]]) * np.ones(6)
    )
    assert depends_on(given.model, given.model.derived[1]) == ["T1"] and maps.has_sd("inverted")
    np.testing.assert_allclose(maps.sd["inverted"], 10 * (maps["B"] - 1))


def test_a_voxel_without_a_covariance_or_a_value_has_none() -> None:
    maps = of(WithDerived(tau=TAU), _covariance())
    assert maps.covariance is not None
    maps.covariance[:, 2], maps.kappa[:, 4] = np.nan, np.nan
    assert list(np.isnan(maps.sd["inverted"])) == [False, False, True, False, True, False]


def test_standard_deviations_that_were_read_are_kept() -> None:
    maps = of(WithDerived(tau=TAU), sd_derived={"inverted": np.full(6, 7.0)})
    assert (maps.sd["inverted"] == 7).all() and maps.has_sd("inverted")


def test_maps_predict_images() -> None:
    model = InversionRecovery(tau=TAU, tr=6000.0)
    maps = of(model)
    np.testing.assert_array_equal(maps.signal(), model.signal(maps.kappa))
    other = [100.0, 700.0, 1500.0, 3000.0, 5000.0]
    expected = InversionRecovery(tau=other, tr=6000.0).signal(maps.kappa)
    np.testing.assert_array_equal(maps.signal(other), expected)
    np.testing.assert_array_equal(maps.signal(tau=other), expected)
    assert maps.signal([700.0]).shape == (1, 6)  # too few to estimate from, not to predict
    np.testing.assert_array_equal(maps.signal(700.0), expected[1:2])
    np.testing.assert_array_equal(maps.signal(tr=8000.0), InversionRecovery(tau=TAU, tr=8000.0).signal(maps.kappa))
    assert (maps.signal(signed=True)[0] < 0).all() and (maps.signal()[0] >= 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"te": [1.0]}, "expected some of tau, tr, signed, got 'te'"),
        ({"tau": [-5.0]}, "tau"),
        ({"tau": [7000.0]}, "TR longer"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        of(InversionRecovery(tau=TAU, tr=6000.0)).signal(**settings)


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_maps_and_series_can_be_copied_and_pickled(twin_of) -> None:
    maps = of(WithDerived(tau=TAU), _covariance(), settings={"a": 1})
    twin = twin_of(maps)
    assert type(twin.model) is WithDerived
    np.testing.assert_array_equal(twin.model.times, TAU)
    np.testing.assert_array_equal(twin.kappa, maps.kappa)
    np.testing.assert_array_equal(twin.sd["inverted"], maps.sd["inverted"])
    assert twin.settings == {"a": 1}
    with pytest.raises(TypeError, match="does not support item assignment"):
        twin.settings["a"] = 2  # still read-only
    B = np.full((4, 5), 1.9)
    images = InversionRecovery(tau=TAU).signal(np.stack([np.ones((4, 5)), B, np.full((4, 5), 900.0)]))
    series = WeightedSeries(images, InversionRecovery(tau=TAU), Gaussian(0.01), given={"B": B}, notes=("a note",))
    again = twin_of(series)
    np.testing.assert_array_equal(again.images, series.images)
    np.testing.assert_array_equal(again.given["B"], B)
    assert again.notes == ("a note",) and again.model == series.model
    with pytest.raises(TypeError, match="does not support item assignment"):
        again.given["B"] = 2.0
