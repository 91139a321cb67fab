"""Gains that differ between the images: found from repeats, from air and from residuals, if these are sure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

import rimap
from rimap import InversionRecovery, SignalModel, T2Decay
from rimap.advice import Weight, weight_of
from rimap.estimators.checks import receive_gains as module
from rimap.estimators.checks.receive_gains import Bright, gain_warnings
from rimap.signals.base import FieldPrior

Floats = NDArray[np.float64]
TI = (50.0, 200.0, 400.0, 800.0, 1500.0, 2500.0, 4000.0)
MODEL = InversionRecovery(tau=TI, tr=9000.0)
REPEATED = InversionRecovery(tau=(50.0, 400.0, 400.0, 1100.0, 1100.0, 2500.0))


# Repeats.


@pytest.mark.parametrize(("gain", "seen"), [(1.038, False), (1.043, True)])
def test_repeats_with_another_gain(gain: float, seen: bool) -> None:
    """By more than 0.04, relative to their mean. Images without a repeat have a gain of 1."""
    S = np.random.default_rng(0).uniform(1, 2, (6, 40))
    S[2], S[4] = gain * S[1], S[3]
    found = module._of_repeats(REPEATED, S)
    if not seen:
        assert found is None
    else:
        low, high = 2 / (1 + gain), 2 * gain / (1 + gain)
        np.testing.assert_allclose(found, [1, low, high, 1, 1, 1])


def test_repeats_without_signal_say_nothing() -> None:
    assert module._of_repeats(REPEATED, np.zeros((6, 9))) is None
    assert module._of_repeats(MODEL, np.random.default_rng(0).uniform(1, 2, (7, 9))) is None


def test_the_strongest_voxels_of_a_repeat_count_most() -> None:
    S = np.ones((6, 400))
    S[1], S[2] = np.tile([10.0, 1.0], 200), np.tile([12.0, 9.0], 200)
    mean = np.tile([11.0, 5.0], 200)
    found = module._of_repeats(REPEATED, S)
    assert found is not None
    np.testing.assert_allclose(found[1:3], [S[n] @ mean / (mean @ mean) for n in (1, 2)])


@pytest.mark.parametrize("level", [0.0, 0.02, 0.1, 1.0])
def test_repeats_that_are_mostly_noise_do_not_differ(level: float) -> None:
    """A late echo, or an inversion time near the null, has the ratio of noise; a bright pair still shows a gain."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        S = level + rng.normal(0, 0.05, (6, 200))
        for images in (S, abs(S)):
            assert module._of_repeats(REPEATED, images) is None
        S[3:5] = 1 + rng.normal(0, 0.05, (2, 200))
        S[4] *= 1.06
        found = module._of_repeats(REPEATED, S)
        assert found is not None and (found[[0, 1, 2, 5]] == 1).all()
        assert found[4] / found[3] == pytest.approx(1.06, abs=0.02)


def test_a_scan_with_a_repeated_late_echo_has_no_warning() -> None:
    model = T2Decay(tau=(10.0, 10.0, 80.0, 80.0, 320.0, 320.0))
    f = np.asarray(model.signal(np.stack([np.ones(900), np.full(900, 60.0)])))
    for seed in range(8):
        S = f + np.random.default_rng(seed).normal(0, 1 / 30, f.shape)
        for gain in (1.0, 1.1):
            S[3] *= gain
            maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(S, model))
            assert any("receive gain" in text for text in maps.warnings) == (gain > 1)


# Air.


def air(levels: Any, number: int = 6000, signed: bool = False, seed: int = 0) -> tuple[Floats, NDArray[np.bool_]]:
    """Return images (N, V) of air of these levels, and where it is: everywhere but in three voxels."""
    rng, share = np.random.default_rng(seed), (np.arange(number + 3) + 0.5) / (number + 3)
    values = special.ndtri(share) if signed else np.sqrt(-2 * np.log(share))
    S = np.stack([rng.permutation(values) * level for level in levels])
    where = np.ones(number + 3, bool)
    where[:3] = False
    S[:, :3] = 1e6
    return S, where


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("number_of_images", [2, 3])
def test_the_level_of_air(signed: bool, number_of_images: int) -> None:
    levels = np.array([1.0, 1.1, 1.0][:number_of_images])
    S, where = air(levels, signed=signed)
    found = module._of_air(S, where, signed)
    assert found is not None
    np.testing.assert_allclose(found, levels / levels.mean(), rtol=0.02)
    assert found.mean() == pytest.approx(1)
    assert module._of_air(*air(np.ones(number_of_images), signed=signed), signed) is None
    assert module._of_air(S, where, not signed) is None  # another distribution is no noise of this kind


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("sigma", [2.5, 6.0, 15.0, 60.0])
def test_the_steps_of_whole_numbers_are_no_gain(sigma: float, signed: bool) -> None:
    """The medians of whole numbers differ by 0 or 1, which is 6 % of a noise of 15; a gain of 1.15 is still seen.

    Noise of few units is not recognised as such, so that only the former is asked there.
    """
    false = seen = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, sigma, (2, 6, 10_000))
        S = noise[0] if signed else np.hypot(*noise)
        where = np.ones(S.shape[1], bool)
        false += module._of_air(S.round().astype(np.float32), where, signed) is not None
        S[2] *= 1.15
        seen += module._of_air(S.round().astype(np.float32), where, signed) is not None
    assert false == 0
    assert seen >= 17 or sigma < (60 if signed else 15)


def test_each_image_has_its_own_steps_and_a_single_value_is_no_noise() -> None:
    """Images that a scanner scales each in its own way have other steps each."""
    slopes = np.linspace(0.87, 1.21, 6)[:, None]
    for seed in range(20):
        S = np.hypot(*np.random.default_rng(seed).normal(0, 15.0, (2, 6, 10_000)))
        assert module._of_air((S / slopes).round() * slopes, np.ones(10_000, bool), False) is None
    assert module._of_air(np.ones((4, 2_000), np.float32), np.ones(2_000, bool), False) is None


@pytest.mark.parametrize("number_of_images", [4, 6])
def test_voxels_that_are_dark_in_the_other_images_decide(number_of_images: int) -> None:
    """Ringing, which is in all images, is left out, and a gain is seen in full size: it does not choose its voxels."""
    levels = np.ones(number_of_images)
    levels[1] = 1.2
    S, where = air(levels)
    inside = S[:, where]
    inside[:, :1000] += 20.0
    S[:, where] = inside
    found = module._of_air(S, where, False)
    assert found is not None
    middle = []
    for n, image in enumerate(inside):
        others = np.delete(inside, n, axis=0)
        power = (others**2).sum(0)
        middle.append(np.median(image[power < np.median(power)]))
    np.testing.assert_allclose(found, np.array(middle) / np.mean(middle), rtol=2e-3)
    assert found[1] / found[0] == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("number", [300, 1000, 4000])
def test_a_gain_is_seen_in_little_air_whatever_its_draw(number: int, signed: bool) -> None:
    """The quartiles of few values are not those of their distribution."""
    seen = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(2, 5, number))
        S = (noise[0] if signed else np.hypot(*noise)) * np.array([1.0, 1.0, 1.0, 1.0, 2.0])[:, None]
        seen += module._of_air(S, np.ones(number, bool), signed) is not None
    assert seen >= (38 if number > 300 or not signed else 20)


@pytest.mark.parametrize(("number", "seen"), [(299, False), (300, True)])
def test_air_is_three_hundred_voxels(number: int, seen: bool) -> None:
    S, where = air([1.0, 1.0, 4.0], number, seed=3)
    assert (module._of_air(S, where, False) is not None) == seen
    if seen:
        S[1, 10] = 0  # one is not noise
        assert module._of_air(S, where, False) is None


@pytest.mark.parametrize(("gain", "number", "seen"), [(1.06, 9_000, True), (1.025, 9_000, False), (1.15, 400, False)])
def test_a_difference_must_be_sure(gain: float, number: int, seen: bool) -> None:
    """Six standard errors of a median, and 4 %."""
    S, where = air([1.0, 1.0, gain], number, seed=1)
    assert (module._of_air(S, where, False) is not None) == seen


@pytest.mark.parametrize("signed", [False, True])
def test_the_standard_error_is_that_of_a_median(signed: bool) -> None:
    """0.6 of a Rayleigh variable, 1.2 of the modulus of a normal one, over √V; quartiles need not be all right."""
    number = 1600
    error = 6 * (1.2 if signed else 0.6) / np.sqrt(number)
    rng = np.random.default_rng(5)
    base = np.sort(abs(rng.normal(size=number)) if signed else np.hypot(*rng.normal(size=(2, number))))
    for factor, seen in ((0.97, False), (1.03, True)):
        # Of levels 1, 1 and g the range is (g − 1)/(1 + (g − 1)/3).
        ratio = factor * error
        g = 1 + ratio / (1 - ratio / 3)
        S = base * np.array([1.0, 1.0, g])[:, None]
        assert (module._of_air(S, np.ones(number, bool), signed) is not None) == seen


def test_tissue_is_no_air() -> None:
    rng = np.random.default_rng(2)
    S = rng.normal(100, 5, (3, 2000)) * np.array([1.0, 1.0, 1.5])[:, None]
    assert module._of_air(S, np.ones(2000, bool), False) is None
    assert module._of_air(np.maximum(S - 100, 0) + 1e-9 * (S > 100), np.ones(2000, bool), False) is None
    assert module._of_air(S, np.zeros(2000, bool), False) is None


# Residuals.


def fitted(gains: Any, noise: float = 0.002, V: int = 400, model: SignalModel = MODEL, free: Any = (0, 2)) -> Bright:
    """Return voxels whose images have gains, fitted to first order."""
    rng = np.random.default_rng(0)
    T = rng.uniform(500, 1500, V)
    kappa = np.stack([rng.uniform(0.5, 2, V), *([np.full(V, 1.9)] * (len(model.parameters) - 2)), T])
    f, J = np.asarray(model.signal(kappa)), np.asarray(model.partials(kappa))[:, list(free)]
    S = f * np.asarray(gains)[:, None] + noise * rng.standard_normal(f.shape)
    expected = f.copy()
    for v in range(V):
        step, *_ = np.linalg.lstsq(J[..., v], (S - f)[:, v], rcond=None)
        expected[:, v] = f[:, v] + J[..., v] @ step
    return Bright(S, expected, kappa, list(free), rng.uniform(0, 20, (2, V)))


SIGNED = InversionRecovery(tau=TI, tr=9000.0, signed=True)
GAINS = np.array([1.0, 1.0, 1.0, 1.12, 1.0, 1.0, 1.0])


def test_the_gains_that_fit_best() -> None:
    """Those of ∑ w ‖r − D δ‖², where D is f without what a fit absorbs: by a generic least-squares program."""
    bright = fitted(GAINS)
    found = module._of_fit(MODEL, bright)
    assert found is not None
    J, f = np.asarray(MODEL.partials(bright.kappa))[:, bright.free], bright.expected
    rest, projected = bright.S - f, []
    for v in range(f.shape[1]):
        Q, _ = np.linalg.qr(J[..., v])
        outside = np.eye(7) - Q @ Q.T
        rest[:, v] = outside @ rest[:, v]
        projected.append(outside * f[:, v])
    weight = 1 / (f**2).mean(0)
    size = (rest**2).sum(0) * weight
    weight = np.sqrt(weight / (1 + size / (9 * np.median(size))))
    D = np.concatenate([w * d for w, d in zip(weight, projected)])
    H = D.T @ D
    value, vector = np.linalg.eigh(H)
    sure = value > 1e-3 * value[-1]
    delta = vector[:, sure] @ ((vector[:, sure].T @ (D.T @ (weight * rest).T.reshape(-1))) / value[sure])
    np.testing.assert_allclose(found, 1 + delta, rtol=1e-6)
    assert int(np.argmax(found)) == 3 and np.ptp(found) == pytest.approx(0.12, rel=0.1)


@pytest.mark.parametrize(
    ("gains", "noise", "seen"),
    [
        (np.ones(7), 0.02, False),
        (GAINS, 0.002, True),
        (1 + 0.1 * (GAINS - 1), 0.0001, False),  # too little
        (GAINS, 1.0, False),  # the noise explains it
    ],
)
def test_gains_must_differ_and_explain_the_residuals(gains: Floats, noise: float, seen: bool) -> None:
    assert (module._of_fit(MODEL, fitted(gains, noise)) is not None) == seen


def test_gains_must_be_sure_and_explain_enough() -> None:
    """A range of 0.055 and of six standard errors, and 4 % of the power of the residuals, for noise of any size."""
    seen = []
    for noise in np.geomspace(0.01, 2, 24):
        bright = fitted(GAINS, noise, model=SIGNED)
        J, f = np.asarray(SIGNED.partials(bright.kappa))[:, bright.free], bright.expected
        rest, N = bright.S - f, 7
        H, b = np.zeros((N, N)), np.zeros(N)
        outside = [np.eye(N) - Q @ Q.T for Q in (np.linalg.qr(J[..., v])[0] for v in range(f.shape[1]))]
        rest = np.stack([P @ rest[:, v] for v, P in enumerate(outside)], axis=1)
        size = (rest**2).sum(0) / (f**2).mean(0)
        weight = 1 / (f**2).mean(0) / (1 + size / (9 * np.median(size)))
        for v, P in enumerate(outside):
            H += weight[v] * f[:, [v]] * P * f[:, v]
            b += weight[v] * f[:, v] * rest[:, v]
        value, vector = np.linalg.eigh(H)
        sure = value > 1e-3 * value[-1]
        delta = vector[:, sure] @ ((vector[:, sure].T @ b) / value[sure])
        power = (weight * (rest**2).sum(0)).sum()
        error = np.sqrt(power / (f.shape[1] * 5) * (vector[:, sure] ** 2 / value[sure]).sum(1).max())
        expected = np.ptp(delta) > max(0.055, 6 * error) and b @ delta > 0.04 * power
        assert (module._of_fit(SIGNED, bright) is not None) == expected
        tiny = Bright(
            1e-6 * bright.S, 1e-6 * f, bright.kappa * np.array([1e-6, 1, 1])[:, None], bright.free, bright.places
        )
        assert (module._of_fit(SIGNED, tiny) is not None) == expected
        seen.append(expected)
    assert 0 < sum(seen) < len(seen)


def part_of(bright: Bright, images: Any = slice(None), voxels: Any = slice(None), **changed: Any) -> Bright:
    fields: dict[str, Any] = {
        "S": bright.S[images, voxels],
        "expected": bright.expected[images, voxels].copy(),
        "kappa": bright.kappa[:, voxels],
        "free": bright.free,
        "places": bright.places[:, voxels],
    }
    return Bright(**(fields | changed))


def test_what_residuals_cannot_show() -> None:
    bright = fitted(GAINS)
    assert module._of_fit(T2Decay(tau=TI), fitted(GAINS, model=T2Decay(tau=TI), free=(0, 1))) is None  # a decay
    few = InversionRecovery(tau=TI[:3], tr=9000.0)
    for number, free in ((2, [0, 2]), (3, [0, 1, 2])):
        part = few.with_settings(tau=TI[:number])
        assert module._of_fit(part, part_of(bright, slice(number), free=free)) is None
    for V, seen in ((49, False), (50, True)):
        assert (module._of_fit(MODEL, part_of(bright, voxels=slice(V))) is not None) == seen
        holed = part_of(bright, voxels=slice(V + 5))
        holed.expected[2, :5] = np.nan  # as many are known
        assert (module._of_fit(MODEL, holed) is not None) == seen
        assert (module._of_fit(MODEL, part_of(holed, free=[0, 1, 2])) is not None) == seen
    assert module._of_fit(MODEL, part_of(bright, S=bright.expected)) is None


def fitted_freely(gains: Any, noise: float = 0.002) -> Bright:
    """Return voxels with a field that varies slowly, whose images have gains: each fitted with a field of its own."""
    rng = np.random.default_rng(1)
    V, places = 400, np.indices((20, 20)).reshape(2, -1).astype(float)
    x, y = places / 10 - 1
    kappa = np.stack([rng.uniform(0.5, 2, V), 1.9 - 0.1 * x**2 + 0.05 * y, rng.uniform(400, 3000, V)])
    S = np.asarray(MODEL.signal(kappa)) * np.asarray(gains)[:, None]
    S = S + noise * rng.standard_normal(S.shape)
    maps = rimap.NLLS().estimate(rimap.WeightedSeries(S, MODEL))
    found = np.asarray(maps.kappa, float)
    return Bright(S, np.asarray(MODEL.signal(found)), found, [0, 1, 2], places)


@pytest.mark.parametrize("image", range(7))
@pytest.mark.parametrize("gain", [0.85, 1.0, 1.15])
def test_a_field_of_each_voxel_does_not_hide_a_gain(image: int, gain: float) -> None:
    """Of any image: the voxels are fitted again with a smooth field."""
    gains = np.ones(7)
    gains[image] = gain
    found = module._of_fit(MODEL, fitted_freely(gains))
    assert (found is not None) == (gain != 1)
    if found is not None:
        other = np.delete(found, image).mean()
        assert (found[image] / other - 1) * (gain - 1) > 0


# What is said.


def said(of: Callable[[Bright], Bright] = lambda b: b, *, from_fit: bool = True, gains: Any = GAINS) -> tuple[str, ...]:
    bright = of(fitted(gains, V=144))
    series = rimap.WeightedSeries(bright.S.reshape(7, 12, 12), MODEL)
    return gain_warnings(series, bright, np.zeros((12, 12), bool), from_fit=from_fit)


def test_the_warning_names_the_images() -> None:
    (text,) = said()
    found = module._of_fit(MODEL, fitted(GAINS, V=144))
    assert found is not None
    low = int(np.argmin(found))
    assert (
        "the residuals show a ratio of" in text
        and "image 4 (TI 800 ms)" in text
        and weight_of(text) == Weight.UNRELIABLE
    )
    assert f"image {low + 1} (" in text and f"ratio of {found.max() / found.min():.2f} " in text
    assert said(from_fit=False) == () and said(gains=np.ones(7)) == ()


@dataclass(frozen=True)
class Saturated(InversionRecovery):
    """Recovery after a saturation of about 100°: the first image is close to its null wherever B is about 1.17."""

    parameters = tuple(
        dataclasses.replace(p, start=1.17, prior=FieldPrior((1.0, 1.3), (0.0, 0.08))) if p.name == "B" else p
        for p in InversionRecovery.parameters
    )


@pytest.mark.parametrize(
    ("snr", "gain", "seen"),
    [*((snr, 1.0, False) for snr in (12, 15, 30, 60)), *((snr, 1.2, True) for snr in (15, 30, 60))],
)
def test_images_close_to_their_null_have_no_gain_of_their_own(snr: float, gain: float, seen: bool) -> None:
    """The mean of a magnitude exceeds a weak signal, which is no gain; a gain of a strong image is still seen."""
    model = Saturated(tau=(50.0, 150.0, 400.0, 900.0, 1800.0, 4000.0))
    rng = np.random.default_rng(0)
    y, x = np.indices((48, 48)) / 24 - 1
    T = np.where(np.sin(5 * x) * np.sin(4 * y) > 0, 800.0, 1400.0)
    clean = model.signal(np.stack([np.full(T.shape, 900.0), 1.17 - 0.1 * x**2 + 0.05 * y, T]))
    clean = clean * np.array([1, 1, 1, gain, 1, 1])[:, None, None]
    images = np.hypot(*(900 / snr * rng.standard_normal((2, *clean.shape)) + np.stack([clean, 0 * clean])))
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model))
    told = [text for text in maps.warnings if "receive gain" in text or "do not follow the model" in text]
    assert bool(told) == seen, told
