"""The public checks find what is wrong, and say it: models and estimators with one fault each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import rimap
from rimap import InversionRecovery, Parameter, T2Decay, WeightedSeries, setting
from rimap.arrays import column, namespace
from rimap.estimators.base import Estimator
from rimap.series import ParameterMaps
from rimap.signals.base import Derived, FieldPrior
from rimap.testing import (
    ContractError,
    Tolerance,
    check_estimator,
    check_signal_model,
    example_models,
    signal_model_outcomes,
)

TAU = (10.0, 20.0, 40.0, 80.0, 160.0)


def of(shape: Callable[..., Any] | None = None, base: type = T2Decay, **more: Any) -> Any:
    """Return T2 decay (or another model) with something changed."""
    changed = {"shape": shape, "shape_partials": rimap.SignalModel.shape_partials} if shape else {}
    return type("Changed", (base,), changed | more)(tau=TAU)


def _wrong_slope(self: Any, T2: Any) -> dict[str, Any]:
    return {"T2": 1.01 * T2Decay.shape_partials(self, T2)["T2"]}


def _numpy_only(self: Any, T2: Any) -> Any:
    return np.exp(-np.reshape(self.tau, (-1,) + (1,) * np.ndim(T2)) / np.asarray(T2))


def _sees_neighbours(self: Any, T2: Any) -> Any:
    return T2Decay.shape(self, T2 + 0 * T2.mean()) * (1 + 1e-9 * T2.mean())


def _not_finite(self: Any, T2: Any) -> Any:
    return T2Decay.shape(self, T2) * (T2 - 0.5) / (T2 - 0.5)


def _in_double(self: Any, T2: Any) -> Any:
    return namespace(T2).exp(-np.reshape(self.tau, (-1,) + (1,) * T2.ndim) / T2)


def _by_position(self: Any, kappa: Any) -> Any:
    return kappa[0] * self.shape(kappa[1])


def _not_proportional(self: Any, kappa: Any) -> Any:
    return T2Decay.signal(self, kappa) + 0.01


def _sorted(self: Any, keep: Any) -> Any:
    return T2Decay.subset(self, np.sort(keep))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (of(shape_partials=_wrong_slope), "the derivative in T2 deviates from finite differences by"),
        (of(_numpy_only), "With torch tensors"),
        (of(_sees_neighbours), "A voxel gives the same alone as in a volume"),
        (of(_not_finite), "the signal is not finite at A = "),
        (of(_in_double), "float32"),
        (of(signal=_by_position), "With its parameters declared in another order"),
        (of(signal=_not_proportional), "The signal scales with all amplitudes together"),
        (of(subset=_sorted), "The images of a subset are those of the whole, in its order"),
        (of(__post_init__=lambda self: None), "tau = (-1.0, 20.0, 40.0, 80.0, 160.0) was accepted"),
        (
            of(derived=(Derived("R2", "1/s", lambda model, maps: namespace(maps["T2"]).round(1e4 / maps["T2"])),)),
            "the slope of R2 in T2",
        ),
        (of(derived=(Derived("T2", "ms", lambda model, maps: maps["T2"]),)), "expected distinct names of maps"),
    ],
)
def test_a_model_with_a_fault_is_found(model: Any, said: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(ContractError) as error:
        check_signal_model(model)
    assert said in str(error.value) and isinstance(error.value, AssertionError)


def test_a_false_claim_of_linearity_is_found() -> None:
    def curved(self: Any, B: Any, T1: Any) -> Any:
        return InversionRecovery.shape(self, B**2, T1)

    with pytest.raises(ContractError, match="If it claims to be linear in the field, it is"):
        check_signal_model(of(curved, InversionRecovery))


def test_a_smooth_field_without_a_prior_is_found() -> None:
    parameters = tuple(replace(p, prior=None) for p in InversionRecovery.parameters)
    with pytest.raises(ContractError, match="B is smooth: expected a FieldPrior"):
        check_signal_model(of(base=InversionRecovery, parameters=parameters))
    wide = tuple(replace(p, prior=FieldPrior((1.0, 9.0))) if p.prior else p for p in InversionRecovery.parameters)
    with pytest.raises(ContractError, match="expected a mean within"):
        check_signal_model(of(base=InversionRecovery, parameters=wide))


def test_every_outcome_has_a_property_in_words() -> None:
    outcomes = signal_model_outcomes(T2Decay(tau=TAU), seeds=(0,))
    assert len({o.property for o in outcomes}) == len(outcomes) > 10
    assert not [o for o in outcomes if o.failure] and {o.skipped for o in outcomes} > {"it has no field"}


def test_torch_is_not_needed() -> None:
    code = """
import sys
sys.modules["torch"] = None
import importlib.util
importlib.util.find_spec = lambda name, *a, find=importlib.util.find_spec: None if name == "torch" else find(name, *a)
import rimap
from rimap.testing import check_signal_model, signal_model_outcomes
model = rimap.T2Decay(tau=[10, 20, 40, 80])
check_signal_model(model)
assert "torch is not installed" in [o.skipped for o in signal_model_outcomes(model)]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_examples_follow_from_the_declarations() -> None:
    found = example_models(InversionRecovery)
    assert set(found) == {"", "tr", "tr for each image", "signed"}
    assert found["signed"].is_signed and len(set(found["tr"].tr)) == 1 < len(set(found["tr for each image"].tr))
    assert all(m.tr is None or min(m.tr) > max(m.tau) for m in found.values())

    @dataclass(frozen=True)
    class Own(T2Decay):
        @classmethod
        def examples(cls) -> list[Any]:
            return [cls(tau=TAU)]

    assert list(example_models(Own).values()) == [Own(tau=TAU)]

    @dataclass(frozen=True)
    class Required(T2Decay):
        tr: float = setting("repetition time", "TR", per_image=False, plausible=(100.0, 10_000.0))
        parameters = (
            *T2Decay.parameters[:1],
            Parameter("B", "1", (0.5, 1.5), "field", "given"),
            *T2Decay.parameters[1:],
        )

        def shape(self, B: Any, T2: Any) -> Any:
            return B * namespace(T2).exp(-column(self.tau, T2) / T2)

        shape_partials = rimap.SignalModel.shape_partials

    assert example_models(Required)[""].tr == 1000.0
    check_signal_model(example_models(Required)[""])


class LogLinear(Estimator):
    """Log-linear least squares of T2 decay: a right estimator in a few lines, to which faults are added."""

    name, title = "log-linear", "Log-linear least squares"

    def estimate(self, series: WeightedSeries, *, progress: Any = None) -> ParameterMaps:
        from rimap import Gaussian, Status

        S = series.images.astype(float)
        sigma = np.full(
            series.shape, np.median(abs(np.diff(S, axis=0))) if series.noise is None else series.noise.sigma
        )
        status = np.where(np.isfinite(S).all(0) & np.isfinite(sigma), Status.OK, Status.NOT_FINITE).astype(np.uint8)
        status[(S == 0).all(0)] = Status.NO_SIGNAL
        status[~series.selected] = Status.OUTSIDE_MASK
        X = np.stack([np.ones_like(series.model.times), -series.model.times], axis=1)
        with np.errstate(all="ignore"):
            unit = np.nanmax(np.where(np.isfinite(S), S, np.nan))
            y = np.log(np.maximum(S / unit, 1e-3)).reshape(len(S), -1)
            fit = np.stack(
                [
                    np.linalg.lstsq(X, y[:, i], rcond=None)[0] if np.isfinite(y[:, i]).all() else [np.nan] * 2
                    for i in range(y.shape[1])
                ],
                1,
            )
        log_A, rate = fit.reshape(2, *series.shape)
        with np.errstate(all="ignore"):
            kappa = np.stack([unit * np.exp(log_A), np.clip(1 / np.maximum(rate, 1e-9), *series.model.time.bounds)])
        kappa[:, status != Status.OK] = np.nan
        if progress:
            progress(1, 1)
        noise = series.noise or Gaussian(self.sigma_of(S))
        source = "given" if series.noise else "residuals"
        return ParameterMaps(kappa, series.model, status, noise=noise, sigma_source=source, estimator=self.name)

    def sigma_of(self, S: Any) -> float:
        return 0.02 * float(np.median(S.max(0)))


MODEL = T2Decay(tau=[5, 10, 20, 40, 60, 80])


def _truth(shape: tuple[int, ...]) -> Any:
    return np.stack([np.ones(shape), 60 + 20 * np.random.default_rng(3).random(shape)])


def _changed(
    change: Callable[[WeightedSeries], WeightedSeries] | None, after: Callable[[ParameterMaps], ParameterMaps] | None
) -> Estimator:
    class Changed(LogLinear):
        def estimate(self, series: WeightedSeries, *, progress: Any = None) -> ParameterMaps:
            maps = super().estimate(change(series) if change else series, progress=progress)
            maps = replace(maps, model=series.model)
            return after(maps) if after else maps

    return Changed()


def test_a_right_estimator_passes() -> None:
    check_estimator(LogLinear(), MODEL, truth=_truth)


def _smoothed(series: WeightedSeries) -> WeightedSeries:
    return replace(series, images=series.images + 1e-3 * np.nanmean(series.images, axis=1, keepdims=True))


def _in_order(series: WeightedSeries) -> WeightedSeries:
    weights = np.linspace(1, 1.001, len(series.images)).reshape(-1, *(1,) * len(series.shape))
    return replace(series, images=series.images * weights)


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (_changed(None, lambda m: replace(m, kappa=m.kappa * 1.3)), "median error of T2"),
        (_changed(None, lambda m: replace(m, kappa=m.kappa[:1])), "expected maps (Q, *X)"),
        (_changed(None, lambda m: replace(m, estimator="another")), "the maps say that 'another' made them"),
        (_changed(lambda s: replace(s, mask=None), None), "a voxel outside the mask has"),
        (_changed(_in_order, None), "Images in another order"),
        (_changed(None, lambda m: replace(m, kappa=np.minimum(m.kappa, 1e3))), "Images in another unit"),
        (_changed(_smoothed, None), "leave the others alone"),
        (_changed(None, lambda m: replace(m, status=np.zeros_like(m.status))), "expected the status NOT_FINITE"),
        (_changed(None, lambda m: replace(m, noise=None)), ""),
    ],
)
def test_an_estimator_with_a_fault_is_found(estimator: Estimator, said: str) -> None:
    if not said:
        check_estimator(estimator, MODEL, truth=_truth)  # it may do without noise
        return
    with np.errstate(all="ignore"), pytest.raises(ContractError) as error:
        check_estimator(estimator, MODEL, truth=_truth)
    assert said in str(error.value)


def test_a_sigma_that_is_wrong_is_found() -> None:
    class Wrong(LogLinear):
        def sigma_of(self, S: Any) -> float:
            return 0.05

    with pytest.raises(ContractError, match=r"σ is \+\d+ % off; 10 % is allowed"):
        check_estimator(Wrong(), MODEL, truth=_truth)
    check_estimator(Wrong(), MODEL, truth=_truth, tolerance=Tolerance(sigma=3.0))


def test_without_a_model_the_first_that_it_takes_is_used() -> None:
    with pytest.raises(ContractError, match="on inversion recovery"):
        check_estimator(LogLinear())  # it takes any series, and is wrong for this one
