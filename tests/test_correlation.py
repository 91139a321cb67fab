"""The correlation of noise: measured in noise whose correlation is known, and drawn again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap import correlation as module
from rimap.advice import Weight, weight_of
from rimap.correlation import FAR, LAGS, NoiseCorrelation, correlation_of

Floats = NDArray[np.float64]
LAG = np.arange(1, FAR + 1)


def sinc(factor: float, lags: int = LAGS) -> tuple[float, ...]:
    return tuple(np.sinc(np.arange(1, lags + 1) / factor))


HALF = NoiseCorrelation((sinc(2.0), (), sinc(1.5)))


def test_what_is_known_of_a_correlation() -> None:
    assert not HALF.is_white and NoiseCorrelation(((), ())).is_white
    assert HALF.neighbours == pytest.approx((np.sinc(0.5), 0.0, np.sinc(1 / 1.5)))
    assert HALF.factors == pytest.approx((2.0, 1.0, 1.5), abs=0.004) and HALF.voxels == pytest.approx(3.0, rel=0.004)
    assert NoiseCorrelation(((0.9745,),)).factors[0] == pytest.approx(8.0, abs=0.01)
    assert NoiseCorrelation(((0.9999,),)).factors[0] == 8.0 and NoiseCorrelation(((-0.5,),)).factors[0] == 1.0


def test_what_is_said_of_it() -> None:
    (text,) = HALF.notes
    assert "(0.64 × 0.00 × 0.41 along the axes)" in text and "by 2.00 × 1.00 × 1.50: 3.0 voxels share" in text
    assert weight_of(text) == Weight.NOTE
    assert NoiseCorrelation(((),)).notes == () and NoiseCorrelation(((),), shared=0.149).notes == ()
    (misfit,) = NoiseCorrelation(((),), shared=0.15).notes
    assert misfit.startswith("Voxels 5 to 8 voxels apart share 15 % of the power") and weight_of(misfit) == Weight.NOTE
    assert [n[:6] for n in NoiseCorrelation((sinc(2.0),), shared=0.2).notes] == ["The no", "Voxels"]


def correlations(x: Floats, axis: int, lags: int = LAGS) -> list[float]:
    """Return the mean product of values so many places apart on a circle, relative to the power."""
    return [float(np.mean(x * np.roll(x, lag, axis)) / np.mean(x * x)) for lag in range(1, lags + 1)]


#: Their spectra are nowhere negative.
DRAWN = NoiseCorrelation(((0.5, 0.1, 0.0, 0.0), (), (-0.3, 0.0, 0.1, 0.0)))


@pytest.mark.parametrize("n", [24, 25])
def test_noise_is_drawn_with_the_correlation_of_each_axis(n: int) -> None:
    """And with the variance of white noise."""
    white = np.random.default_rng(0).standard_normal((60, n, 5, n))
    x = DRAWN.coloured(white, (0, 1, 2))
    assert x.shape == white.shape and x.std() == pytest.approx(1, rel=0.01)
    for place, axis in ((1, 0), (2, 1), (3, 2)):
        np.testing.assert_allclose(correlations(x, place), DRAWN.axes[axis] or (0,) * LAGS, atol=0.02)


def test_some_axes_of_noise() -> None:
    white = np.random.default_rng(1).standard_normal((60, 30, 40))
    turned = DRAWN.coloured(white, (2, 0))
    np.testing.assert_allclose(correlations(turned, 1), DRAWN.axes[2], atol=0.02)
    np.testing.assert_allclose(correlations(turned, 2), DRAWN.axes[0], atol=0.02)
    np.testing.assert_array_equal(DRAWN.coloured(white, (1, 3)), white)  # no correlation, no such axis


def test_the_spectrum_is_that_of_the_correlations_and_not_negative() -> None:
    frequency = np.linspace(-0.5, 0.5, 201)
    c = (0.3, -0.1)
    expected = 1 + 0.6 * np.cos(2 * np.pi * frequency) - 0.2 * np.cos(4 * np.pi * frequency)
    np.testing.assert_allclose(module._spectrum(c, frequency), expected, atol=1e-12)
    assert module._spectrum((0.9,), np.array([0.5]))[0] == 0.0


def test_taps_make_the_correlation_of_an_axis() -> None:
    c = (0.5, 0.1, 0.0, 0.0)
    taps = NoiseCorrelation((c, ())).taps(0)
    assert taps.shape == (2 * LAGS + 1,) and (taps**2).sum() == pytest.approx(1)
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-12)
    made = [float((taps[lag:] * taps[:-lag]).sum()) for lag in range(1, LAGS + 1)]
    np.testing.assert_allclose(made, c, atol=0.02)
    assert int(np.argmax(taps)) == LAGS
    assert HALF.taps(1).tolist() == [1.0] == HALF.taps(3).tolist()


# Measured in residuals.


def noise(factor: float, shape: tuple[int, ...] = (6, 64, 60), seed: int = 0) -> Floats:
    """Return noise whose first spatial axis is interpolated by a factor."""
    white = np.random.default_rng(seed).standard_normal(shape)
    k = np.fft.fft(white, axis=1)
    k[:, abs(np.fft.fftfreq(shape[1])) > 0.5 / factor] = 0
    return np.fft.ifft(k, axis=1).real


def measured(r: Floats, good: NDArray[np.bool_] | None = None, freedom: float = 4.0) -> NoiseCorrelation:
    return correlation_of(r, np.ones(r.shape, bool) if good is None else good, freedom)


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0])
def test_the_factor_of_interpolation_is_measured(factor: float) -> None:
    r = noise(factor)
    found = measured(r)
    assert found.factors == pytest.approx((factor, 1.0), abs=0.1) and found.shared < 0.05
    assert measured(1000 * r).axes == found.axes
    holed = np.random.default_rng(1).random(r.shape) < 0.8
    assert measured(np.where(holed, r, 1e9), holed).factors == pytest.approx((factor, 1.0), abs=0.1)
    turned = measured(r.transpose(0, 2, 1))
    assert turned.axes[::-1] == found.axes


def test_correlations_are_means_over_the_pairs_that_are_known() -> None:
    """Of values that are clipped at three robust standard deviations; one array by hand."""
    r = np.random.default_rng(2).standard_normal((2, 30, 40)).astype(np.float32)
    r[0, 3, 3] = 50
    good = np.random.default_rng(3).random(r.shape) < 0.9
    limit = 3 * np.median(abs(r[good])) / 0.6745
    clipped = np.clip(r, -limit, limit)
    power = (clipped[good] ** 2).sum() / good.sum()
    expected = []
    for lag in range(1, FAR + 1):
        pairs = good[:, lag:] & good[:, :-lag]
        expected.append((clipped[:, lag:] * clipped[:, :-lag])[pairs].sum() / pairs.sum() / power)
    seen: list[Floats] = []
    kept = module._without_errors
    try:
        module._without_errors = lambda c: seen.append(c) or kept(c)  # type: ignore[func-returns-value]
        found = correlation_of(r, good, 4.0)
    finally:
        module._without_errors = kept
    np.testing.assert_allclose(seen[0], expected, rtol=1e-3, atol=1e-5)
    assert found.is_white
    shares = [float(np.mean(c[LAGS:])) for c in seen]
    assert found.shared == pytest.approx(max(0.0, min(shares)))


def test_where_nothing_can_be_measured() -> None:
    ones = np.ones((2, 5, 6))
    assert measured(ones, np.zeros(ones.shape, bool)) == NoiseCorrelation(((), ()))
    assert measured(0 * ones) == NoiseCorrelation(((), ())) and measured(np.ones((2, 1, 900))).axes[0] == ()


@pytest.mark.parametrize(("length", "rows", "known"), [(41, 10, True), (58, 7, False)])
def test_four_hundred_pairs_are_needed(length: int, rows: int, known: bool) -> None:
    """Of neighbours: 40 × 10 are enough, 57 × 7 are not."""
    assert (measured(noise(2.0, (40, length, rows))).axes[0] != ()) == known


def test_an_axis_needs_all_lags() -> None:
    r = noise(2.0, (4, 64, 300)).astype(np.float32)  # 300 pairs at the last lag
    for length, known in ((FAR + 1, True), (FAR, False)):
        part = r[:, :length]
        _, shared = module._along(part, np.ones(part.shape, bool), 0, 4.0)
        assert np.isfinite(shared) == known
    flat = measured(r[:, :, :1])
    assert flat.axes[1] == () and np.isfinite(flat.shared)


def test_a_small_correlation_must_be_sure() -> None:
    """Four standard errors of a correlation of neighbours: 1/√(pairs × degrees of freedom); and 0.1."""
    r = noise(1.13, (6, 64, 9), seed=4)  # 567 pairs
    c = measured(noise(1.13, (30, 64, 60), seed=4)).axes[0]
    assert c != () and 0.1 < c[0] < 0.15
    pairs = 63 * 9
    alone = measured(r, freedom=1e6).axes[0]
    assert alone != ()
    enough = (4 / alone[0]) ** 2 / pairs
    assert measured(r, freedom=0.9 * enough).axes[0] == () and measured(r, freedom=1.1 * enough).axes[0] != ()


def test_degrees_of_freedom_are_at_least_one() -> None:
    r = noise(2.0)
    assert measured(r, freedom=0.0) == measured(r, freedom=1.0)


# Noise and errors of the model.


def curve(factor: float, error: float = 0.0, bend: float = 0.0, scale: float = 1.0) -> Floats:
    """Return the correlations of residuals: noise of the rest of the power, an error, and how the error varies."""
    return scale * (1 - error) * np.sinc(LAG / factor) + error - bend * (LAG / FAR) ** 2


@pytest.mark.parametrize(("error", "bend"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.1), (0.85, 0.05)])
@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_an_error_of_the_model_is_taken_off(factor: float, error: float, bend: float) -> None:
    found = module._without_errors(curve(factor, error, bend))
    assert found.shape == (LAGS,)
    np.testing.assert_allclose(found, np.sinc(np.arange(1, LAGS + 1) / factor), atol=0.01)


def test_residuals_that_are_an_error_alone_say_nothing_of_noise() -> None:
    assert module._without_errors(curve(2.0, 0.95)).shape == (0,)
    assert module._without_errors(np.array([0.9, 0.2, 0.9, 0.2, 0.5, 0.2, 0.6, 0.3])).shape == (0,)  # does not decay


@pytest.mark.parametrize(("scale", "fits"), [(0.81, True), (0.79, False), (1.09, True), (1.11, False)])
def test_noise_that_is_nearly_zero_filled_counts_as_such(scale: float, fits: bool) -> None:
    """If its share is 0.8 to 1.1; other correlations are taken as they are."""
    c = curve(2.0, scale=scale)
    expected = np.sinc(np.arange(1, LAGS + 1) / 2) if fits else c[:LAGS]
    np.testing.assert_allclose(module._without_errors(c), expected, atol=0.012)


def test_correlations_that_are_not_those_of_zero_filling_are_kept() -> None:
    c = np.array([0.6, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    kept = module._without_errors(c)
    designs, inverses = module._designs()
    best, parts = min(
        (
            (np.sqrt(np.mean((d @ (i @ c) - c) ** 2)), i @ c)
            for d, i in zip(designs, inverses)
            if (i @ c)[1:].min() >= 0
        ),
        key=lambda pair: pair[0],
    )
    assert best > 0.03
    lags = np.arange(1, LAGS + 1)
    np.testing.assert_allclose(kept, (c[:LAGS] - parts[1] + parts[2] * (lags / FAR) ** 2) / (1 - parts[1]), atol=1e-9)


def test_designs_are_noise_and_an_error_at_each_lag() -> None:
    designs, inverses = module._designs()
    assert designs.shape == (400, FAR, 3) and inverses.shape == (400, 3, FAR)
    factors = np.geomspace(1.05, 3.5, 400)
    for k, lag in itertools.product((0, 17, 399), range(FAR)):
        np.testing.assert_allclose(
            designs[k, lag], [np.sinc((lag + 1) / factors[k]), 1, -(((lag + 1) / FAR) ** 2)], atol=1e-12
        )
    np.testing.assert_allclose(inverses[9] @ designs[9], np.eye(3), atol=1e-9)
