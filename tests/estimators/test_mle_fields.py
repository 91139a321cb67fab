"""The MLE for any field: smooth and nonlinear, linear without a claim, given as a map or a number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators.mle.estimator import MLE
from rimap.estimators.mle.field_smoothness import DEFAULT_LAMBDA_B, spread_of, weight_of
from rimap.estimators.mle.voxels import Fit, Voxels
from rimap.estimators.nlls.estimator import NLLS
from rimap.estimators.table import ShapeTable
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import Status, WeightedSeries
from rimap.signals.base import FieldPrior, Parameter, SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.look_locker import LookLocker
from rimap.signals.multi_echo_spin_echo import MultiEchoSpinEcho
from rimap.signals.t2_decay import T2Decay
from rimap.signals.variable_flip_angle import VariableFlipAngle

Array = NDArray[np.float64]

TRAIN = MultiEchoSpinEcho(te=10.0 * np.arange(1, 17), profile="sinc")
N = 64


class SmoothLookLocker(LookLocker):
    """Look-Locker with an efficiency that varies slowly."""

    parameters: ClassVar[tuple[Parameter, ...]] = tuple(
        replace(p, treatment="smooth") if p.role == "field" else p for p in LookLocker.parameters
    )


class InversionWithoutAClaim(InversionRecovery):
    """The same signal, of which nobody says that it is linear in B."""

    linear_in_field: ClassVar[bool] = False


def _fields() -> dict[str, Array]:
    y, x = np.meshgrid(np.linspace(-1, 1, N), np.linspace(-1, 1, N), indexing="ij")
    return {
        "constant": np.full((N, N), 1.08),
        "parabola": 0.93 - 0.12 * (x**2 + y**2),
        "as at 3 T": 1.15 * np.cos(0.62 * np.sqrt((x - 0.1) ** 2 + 1.3 * y**2)) + 0.05 * x,
    }


def _train(field: Array, noise: Noise, seed: int = 0, **given: object) -> tuple[WeightedSeries, Array]:
    """Return a train of echoes for a field of B1 and its T2 (*X), tissue of 45 to 110 ms in patches."""
    rng = np.random.default_rng(seed)
    n = field.shape[0]
    T2 = rng.choice([45.0, 70.0, 85.0, 110.0], (n // 8, n // 8)).repeat(8, 0).repeat(8, 1) * rng.normal(1, 0.05, (n, n))
    kappa = {"A": rng.uniform(0.8, 1.2, (n, n)), "B1": field, "T1": given.get("T1", np.full((n, n), 1000.0)), "T2": T2}
    images = noise.sample(TRAIN.signal(np.stack([kappa[p.name] for p in TRAIN.parameters])), rng)
    return WeightedSeries(images=images.astype(np.float32), model=TRAIN, noise=noise, given=given), T2


def _error(found: Array, truth: Array) -> float:
    return float(np.sqrt(np.nanmean((found / truth - 1) ** 2)))


# ---- a smooth field that enters nonlinearly


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.02), Rician(sigma=0.02)], ids=["gaussian", "rician"])
def test_derivatives_of_the_profile_likelihood(noise: Noise) -> None:
    rng = np.random.default_rng(0)
    V = 300
    F = rng.uniform(0.6, 1.4, V)
    kappa = np.stack([np.ones(V), F, np.full(V, 1000.0), np.exp(rng.uniform(np.log(30), np.log(150), V))])
    with ThreadPoolExecutor(1) as pool:
        images = noise.sample(TRAIN.signal(kappa), rng)
        voxels = Voxels.of(images, np.arange(V), noise.sigma, ShapeTable.of(TRAIN), noise, pool)
        F = F + rng.normal(0, 0.03, V)  # off the minimum, where residuals and second derivatives of g count
        fit, e = voxels.fit(F), 1e-4
        up, down = voxels.fit(F + e, fit), voxels.fit(F - e, fit)
    slope, curve = (up.f - down.f) / (2 * e), (up.g - down.g) / (2 * e)
    assert np.quantile(abs(slope - fit.g) / (1 + abs(fit.g)), 0.98) < 0.01
    assert np.quantile(abs(curve - fit.w) / (20 + abs(fit.w)), 0.95) < 0.05


@pytest.mark.parametrize("name", _fields())
def test_smooth_B1_of_a_train_of_echoes(name: str) -> None:
    """B1 far better than voxel by voxel, T2 as if B1 were known: so Newton's method starts on the right branch."""
    field = _fields()[name]
    series, T2 = _train(field, Gaussian(sigma=1 / 50))
    maps = MLE(lambda_B=None).estimate(series)
    known = MLE().estimate(WeightedSeries(images=series.images, model=TRAIN, noise=series.noise, given={"B1": field}))
    each = NLLS().estimate(series)
    assert (maps.status == Status.OK).mean() > 0.999
    assert _error(maps["B1"], field) < 0.3 * _error(each["B1"], field)
    assert abs(maps["B1"] - field).max() < 0.1
    assert _error(maps["T2"], T2) < 1.03 * _error(known["T2"], T2)
    one = MLE(lambda_B=np.inf).estimate(series)
    assert np.median(maps.sd["T2"]) < 1.05 * np.median(one.sd["T2"])


def test_rician_noise_and_a_field_that_enters_nonlinearly() -> None:
    field = _fields()["parabola"]
    series, T2 = _train(field, Rician(sigma=1 / 40))
    maps = MLE(lambda_B=None).estimate(series)
    assert np.median(maps["T2"] / T2) == pytest.approx(1, abs=0.01)
    assert _error(maps["B1"], field) < 0.03


def test_mirrored_fields_of_a_hard_pulse_are_told_apart_by_what_is_usual() -> None:
    """Pulses of 0.92 and 1.08 times 180° give equal echoes: the estimate is the more usual value, and T2 is right."""
    model = MultiEchoSpinEcho(te=10.0 * np.arange(1, 13), profile="hard")
    kappa = np.stack([np.ones((16, 16)), np.full((16, 16), 1.08), np.full((16, 16), 1000.0), np.full((16, 16), 80.0)])
    noise = Gaussian(sigma=0.01)
    images = noise.sample(model.signal(kappa), np.random.default_rng(0))
    for weight in (None, DEFAULT_LAMBDA_B, np.inf):
        maps = MLE(lambda_B=weight).estimate(WeightedSeries(images=images, model=model, noise=noise))
        assert maps["B1"] == pytest.approx(0.92, abs=0.02)
        assert np.median(maps["T2"]) == pytest.approx(80, rel=0.01)


def test_a_linear_model_without_a_claim_has_the_same_maps() -> None:
    tau = (50, 150, 300, 500, 800, 1200, 1800, 2600, 4000)
    claimed, silent = InversionRecovery(tau=tau), InversionWithoutAClaim(tau=tau)
    assert ShapeTable.of(claimed).linear and not ShapeTable.of(silent).linear
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32), indexing="ij")
    truth = np.stack([rng.uniform(0.8, 1.2, x.shape), 1.9 - 0.05 * (x**2 + y**2), rng.uniform(500, 1500, x.shape)])
    for noise in (Gaussian(sigma=0.65 / 100), Rician(sigma=0.65 / 100)):
        images = noise.sample(claimed.signal(truth), rng)
        a, b = (
            MLE(lambda_B=DEFAULT_LAMBDA_B).estimate(WeightedSeries(images=images, model=m, noise=noise))
            for m in (claimed, silent)
        )
        assert b["B"] == pytest.approx(a["B"], abs=2e-3)  # the iterations end where little is to be gained
        assert (abs(b["T1"] - a["T1"]) < 0.05 * a.sd["T1"]).mean() > 0.95
        known = {"B": truth[1]}
        a, b = (MLE().estimate(WeightedSeries(images, m, noise, given=known)) for m in (claimed, silent))
        assert (abs(b["T1"] / a["T1"] - 1) < 1e-4).mean() > 0.99


def test_lambda_means_the_same_smoothness_for_all_fields() -> None:
    B, B1 = InversionRecovery.parameters[1], TRAIN.field
    assert B1 is not None
    assert weight_of(B, DEFAULT_LAMBDA_B) == DEFAULT_LAMBDA_B
    assert weight_of(B1, DEFAULT_LAMBDA_B) == pytest.approx(DEFAULT_LAMBDA_B * (0.1775 / 0.114) ** 2)
    assert weight_of(B1, np.inf) == np.inf and weight_of(B1, 0.0) == 0


@pytest.mark.parametrize(
    ("bounds", "prior", "start", "spread"),
    [
        ((-60.0, 60.0), FieldPrior(mean=(-10.0, 10.0), sd=4.0), 0.0, 4.0),
        ((-60.0, 60.0), FieldPrior(mean=(-10.0, 11.0)), 0.0, 21.0 / 12**0.5),
        ((-60.0, 60.0), FieldPrior(mean=(0.0, 0.0)), 0.0, 6.0),
        ((-60.0, 60.0), None, 0.1, 6.0),
        ((-60.0, 0.0), FieldPrior(mean=(-50.0, -10.0)), -30.0, 3.0),
        ((0.5, 1.5), FieldPrior(mean=(1.0, 1.0), spread=(0.0, 0.0), sd=0.2), 1.0, 0.2),
    ],
)
def test_the_spread_of_a_field_around_zero_is_not_a_share_of_its_mean(
    bounds: Any, prior: FieldPrior | None, start: float, spread: float
) -> None:
    field = Parameter("F", "Hz", bounds, "field", treatment="smooth", start=start, prior=prior)
    assert spread_of(field) == pytest.approx(spread, rel=1e-2)
    assert weight_of(field, 1e6) == pytest.approx(1e6 * (0.1775 / spread) ** 2, rel=2e-2)


@pytest.mark.parametrize(("bend", "most", "least"), [(0.0, np.inf, 1e5), (0.25, 1e5, 1e4), (1.0, 1e5, 1e3)])
def test_lambda_from_the_data(bend: float, most: float, least: float) -> None:
    """One B for a constant field, less smoothing the more it bends; and T1 as good as with the best of the ladder."""
    model = InversionRecovery(tau=(50, 150, 300, 500, 800, 1200, 1800, 2600, 4000))
    y, x = np.meshgrid(np.linspace(-1, 1, N), np.linspace(-1, 1, N), indexing="ij")
    rng = np.random.default_rng(0)
    T1 = rng.choice([780.0, 1200.0, 2500.0], (N // 8, N // 8)).repeat(8, 0).repeat(8, 1)
    noise = Gaussian(sigma=0.65 / 20)
    images = noise.sample(model.signal(np.stack([0 * x + 1, 1.95 - bend * (x**2 + y**2) / 2, T1])), rng)
    series = WeightedSeries(images=images, model=model, noise=noise)
    maps = MLE(lambda_B=None).estimate(series)
    assert least <= maps.settings["lambda_B"] <= most
    ladder = [_error(MLE(lambda_B=x).estimate(series)["T1"], T1) for x in (np.inf, 1e6, 1e5, 1e4, 1e3)]
    assert _error(maps["T1"], T1) < 1.05 * min(ladder)
    assert np.mean(abs(maps["T1"] - T1) < 1.96 * maps.sd["T1"]) == pytest.approx(0.94, abs=0.03)


# ---- what is given


def test_a_given_map_of_the_field_is_not_smoothed() -> None:
    rng = np.random.default_rng(0)
    model = VariableFlipAngle(flip_angle=(3, 6, 12, 20), tr=15.0)
    shape = (40, 40)
    maps = {"A": np.ones(shape), "B1": rng.uniform(0.8, 1.2, shape), "T1": np.full(shape, 1200.0)}
    noise = Rician(sigma=0.008)
    images = noise.sample(model.signal(np.stack([maps[p.name] for p in model.parameters])), rng)
    B1 = maps["B1"].copy()
    B1[3, 4] = np.nan
    series = WeightedSeries(images=images, model=model, noise=noise, given={"B1": B1})
    found = MLE().estimate(series)
    assert "lambda_B" not in found.settings
    assert found.status[3, 4] == Status.NOT_FINITE and np.isnan(found["T1"][3, 4])
    ok = found.status == Status.OK
    assert ok.mean() > 0.95
    np.testing.assert_array_equal(found["B1"][ok], B1[ok])
    assert np.median(found["T1"][ok]) == pytest.approx(1200, rel=0.03)
    spread = np.median(abs(found["T1"][ok] - 1200)) * 1.48
    assert spread / np.median(found.sd["T1"][ok]) == pytest.approx(1, abs=0.15)
    wrong = MLE().estimate(WeightedSeries(images=images, model=model, noise=noise))  # B1 is 1 if no map is given
    assert _error(wrong["T1"][ok], np.asarray(1200.0)) > 1.3 * _error(found["T1"][ok], np.asarray(1200.0))


def test_a_given_map_of_another_parameter_is_taken_by_levels_and_the_field_spans_them() -> None:
    field = _fields()["parabola"]
    T1 = np.where(np.arange(N)[:, None] % 16 < 8, 120.0, 1500.0) + np.zeros((N, N))
    noise = Gaussian(sigma=1 / 80)
    series, T2 = _train(field, noise, T1=T1)
    maps = MLE(lambda_B=None).estimate(series)
    known = MLE(lambda_B=None, fixed={"T1": 1000.0}).estimate(
        WeightedSeries(images=series.images, model=TRAIN, noise=noise)
    )
    short = T1 < 500
    assert np.median(maps["T2"] / T2) == pytest.approx(1, abs=0.01)
    assert abs(np.median((maps["T2"] / T2)[short]) - 1) < 0.2 * abs(np.median((known["T2"] / T2)[short]) - 1)
    assert _error(maps["B1"], field) < 0.02
    np.testing.assert_array_equal(maps["T1"], T1)
    assert np.isnan(maps.sd["T1"]).all()


def test_a_fixed_field_and_other_bounds() -> None:
    model = InversionRecovery(tau=(50, 150, 400, 1100, 3000))
    kappa = np.ones((3, 6, 6)) * np.reshape([100.0, 1.9, 800.0], (3, 1, 1))
    for noise in (Gaussian(sigma=0.1), Rician(sigma=0.1)):
        images = noise.sample(model.signal(kappa), np.random.default_rng(0))
        series = WeightedSeries(images=images, model=model, noise=noise)
        maps = MLE(fixed={"B": 1.9}).estimate(series)
        assert (maps["B"] == 1.9).all()
        assert maps["T1"] == pytest.approx(800, rel=0.01)
        assert maps.settings["fixed"] == {"B": 1.9}
        low = MLE(bounds={"T1": (900, 3000)}).estimate(series)
        assert (low.status == Status.AT_BOUND).all() and low["T1"].min() >= 900
    with pytest.raises(InputError, match="amplitude"):
        MLE(bounds={"A": (0, 1)}).estimate(series)
    with pytest.raises(InputError, match="given"):
        MLE(fixed={"B": 1.9}).estimate(WeightedSeries(images=images, model=model, noise=noise, given={"B": 1.8}))


def test_covariances_are_there_for_derived_maps() -> None:
    model = SmoothLookLocker(ti=(50, 150, 300, 500, 800, 1200, 1800, 2600, 4000))
    rng = np.random.default_rng(0)
    shape = (24, 24)
    kappa = {"A": np.ones(shape), model.field.name: np.full(shape, 1.85), model.time.name: np.full(shape, 900.0)}
    noise = Gaussian(sigma=0.01)
    images = noise.sample(model.signal(np.stack([kappa[p.name] for p in model.parameters])), rng)
    maps = MLE().estimate(WeightedSeries(images=images, model=model, noise=noise))
    assert maps.covariance is not None
    Q = len(model.parameters)
    rows = {pair: i for i, pair in enumerate((i, j) for i in range(Q) for j in range(i, Q))}
    ok = maps.status == Status.OK
    for q in range(Q):
        np.testing.assert_allclose(maps.covariance[rows[q, q]][ok], maps.sd_kappa[q][ok] ** 2, rtol=1e-9)
    a, t = sorted((model.index("A"), model.index(model.time.name)))
    several = [maps["A"][ok], maps[model.time.name][ok]]
    found = np.cov(*several)[0, 1]
    assert np.median(maps.covariance[rows[a, t]][ok]) == pytest.approx(found, rel=0.3)


@dataclass(frozen=True)
class DecayAndOffset(T2Decay):
    """A e^(−τ/T2) + C."""

    parameters = (
        *T2Decay.parameters[:1],
        type(T2Decay.parameters[0])("C", "a.u.", (0.0, np.inf), "amplitude"),
        T2Decay.parameters[1],
    )

    def shape(self, T2: Array) -> Array:  # type: ignore[override]
        decay = super().shape(T2)
        return np.stack([decay, 1 + 0 * decay], axis=1)

    shape_partials = SignalModel.shape_partials  # type: ignore[assignment]


TWO = DecayAndOffset(tau=(10, 20, 40, 80, 160, 320))


def two_amplitudes(noise: Noise, n: int) -> tuple[WeightedSeries, np.ndarray]:
    rng = np.random.default_rng(8)
    kappa = np.stack([rng.uniform(80, 120, n), rng.uniform(5, 15, n), rng.uniform(30, 120, n)])
    return WeightedSeries(noise.sample(TWO.signal(kappa), rng), TWO, noise), kappa


def test_two_amplitudes_without_noise_are_found_and_with_gaussian_noise_are_those_of_least_squares() -> None:
    for noise in (Gaussian(sigma=1e-3), Rician(sigma=1e-3)):
        series, kappa = two_amplitudes(noise, 50)
        assert MLE().estimate(series).kappa == pytest.approx(kappa, rel=1e-3)
    series, _ = two_amplitudes(Gaussian(sigma=2.0), 50)
    assert MLE().estimate(series).kappa == pytest.approx(NLLS().estimate(series).kappa, rel=1e-6)


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_two_amplitudes_with_rician_noise_are_the_most_likely_of_a_dense_search(sigma: float) -> None:
    noise = Rician(sigma=sigma)
    series, kappa = two_amplitudes(noise, 40)
    found = MLE().estimate(series)

    def nll(k: Any, S: Any) -> Any:
        return noise.nll(S, TWO.signal(k)).sum(0)

    A, C, T = np.meshgrid(np.linspace(40, 200, 40), np.linspace(0, 40, 40), np.geomspace(8, 600, 60), indexing="ij")
    grid = np.stack([A.ravel(), C.ravel(), T.ravel()])
    for v in range(len(series.images[0])):
        S = series.images[:, v, None].astype(float)
        assert nll(found.kappa[:, [v]].astype(float), S)[0] <= nll(grid, S).min() + 1e-3
        assert nll(found.kappa[:, [v]].astype(float), S)[0] <= nll(kappa[:, [v]], S)[0] + 1e-3


def test_intervals_of_two_amplitudes_hold_the_truth() -> None:
    series, kappa = two_amplitudes(Rician(sigma=3.0), 3000)
    maps = MLE().estimate(series)
    ok = maps.status == 0
    assert ok.mean() > 0.95
    for q in range(3):
        held = abs(maps.kappa[q] - kappa[q]) < 1.96 * maps.sd_kappa[q]
        assert held[ok].mean() == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.01), Rician(sigma=0.05), Rician(sigma=0.2)], ids=str)
def test_a_known_field_gives_the_best_of_all_minima(noise: Noise) -> None:
    """The fit equals the best of 60 starts along T, even with few images and much noise, when several minima exist."""
    rng = np.random.default_rng(0)
    model, V = InversionRecovery(tau=(50, 200, 500, 1000, 2000, 4000)), 500
    kappa = np.stack([np.ones(V), rng.uniform(1.6, 2, V), np.exp(rng.uniform(np.log(100), np.log(4000), V))])
    S, F = noise.sample(model.signal(kappa), rng), kappa[1] + rng.normal(0, 0.05, V)
    zero = np.zeros(V)
    with ThreadPoolExecutor(1) as pool:
        voxels = Voxels.of(S, np.arange(V), noise.sigma, ShapeTable.of(model), noise, pool)
        found = voxels.fit(F, None, True, thorough=True).f
        best = found
        for T in np.geomspace(20, 9000, 60):
            g = np.abs(model.signal(np.stack([np.ones(V), F, np.full(V, T)])))
            A = (g * S).sum(0) / (g * g).sum(0) / noise.sigma
            best = np.minimum(best, voxels.fit(F, Fit(F, np.full(V, np.log(T)), A, zero, zero, zero, zero)).f)
    assert (found - best > 0.01).mean() < 0.005


@pytest.mark.parametrize("bounds", [(0.5, 1.5), (-1e6, 1e6), (0.0, 1e3), (-np.inf, np.inf)])
@pytest.mark.parametrize(("base", "noise"), [(InversionRecovery, Gaussian), (T2Decay, Rician)])
def test_bounds_of_an_amplitude_are_honoured_or_refused(
    bounds: tuple[float, float], base: type[SignalModel], noise: type[Gaussian | Rician]
) -> None:
    """No value outside the bounds of a model: fits of each voxel honour them, the other ones refuse the model."""
    kind = type("Bounded", (base,), {
        "name": "bounded",
        "parameters": tuple(replace(p, bounds=bounds) if p.role == "amplitude" else p for p in base.parameters),
    })  # fmt: skip
    model = kind(tau=(50.0, 200.0, 500.0, 1000.0, 2500.0, 4000.0))
    kappa = np.ones((len(model.parameters), 4, 4)) * np.reshape(
        [3.0, 1.9, 900.0] if base is InversionRecovery else [3.0, 900.0], (-1, 1, 1)
    )
    series = WeightedSeries(np.asarray(model.signal(kappa)), model, noise=noise(sigma=0.01))
    with pytest.raises(InputError, match=r"(?s)A of .* nlls"):
        MLE(threads=1).estimate(series)
    gaussian = replace(series, noise=Gaussian(sigma=0.01))
    maps = MLE(threads=1, lambda_B=0).estimate(gaussian)
    known = np.isfinite(maps["A"])
    np.testing.assert_allclose(maps["A"][known], np.clip(maps["A"][known], *bounds), rtol=1e-9)  # up to rounding
    assert bounds[1] > 3 or not (maps.status == Status.OK).any()
