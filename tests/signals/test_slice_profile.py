"""Slice profiles against Bloch's equations, rotation by rotation, and the sums that stand for the slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rimap import InputError
from rimap.signals import extended_phase_graph as graph
from rimap.signals.extended_phase_graph import SliceRule, chebyshev_nodes, echoes, to_coefficients, train
from rimap.signals.multi_echo_spin_echo import MultiEchoSpinEcho
from rimap.signals.slice_profile import PROFILES, Angles, Gauss, Hard, Shaped, Sinc, SliceProfile, profile_of

Floats = NDArray[np.float64]
B1 = np.array([0.7, 1.0, 1.2])


def rotated(M: Floats, axis: Floats) -> Floats:
    """Return vectors (Z, 3), each turned about an axis by its length (Rodrigues)."""
    angle = np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-300)
    n = axis / angle
    along = (n * M).sum(1, keepdims=True)
    return M * np.cos(angle) + np.cross(n, M) * np.sin(angle) + n * along * (1 - np.cos(angle))


def after_pulse(envelope: Floats, flip: float, z: Floats, time_bandwidth: float) -> Floats:
    """Return the magnetisation (Z, 3) after a pulse about x with a slice gradient, which begins along z."""
    M = np.zeros((len(z), 3))
    M[:, 2] = 1
    turn_z = 2 * np.pi * time_bandwidth * z / len(envelope)
    for share in envelope / envelope.sum():
        M = rotated(M, np.stack([np.full(len(z), share * flip), 0 * z, turn_z], axis=1))
    return M


def envelope_of(profile: Shaped, time_bandwidth: float) -> Floats:
    t = (np.arange(96) + 0.5) / 96 - 0.5
    if isinstance(profile, Sinc):
        return np.sinc(time_bandwidth * t) * (1 + np.cos(2 * np.pi * t)) / 2
    return np.exp(-((np.pi * time_bandwidth * t) ** 2) / (4 * np.log(2)))


@pytest.mark.parametrize("profile", [Sinc(2.0, 1.3), Gauss(2.5)], ids=str)
@pytest.mark.parametrize("angle", [180.0, 130.0])
def test_a_profile_is_what_the_rotations_of_its_pulses_are(profile: Shaped, angle: float) -> None:
    cosine, weight = profile.across(B1, angle)
    z = np.linspace(0, 1.6, 121)
    assert cosine.shape == weight.shape == (121, 3)
    refocusing, excitation = envelope_of(profile, profile.time_bandwidth), envelope_of(profile, 3.0)
    for m, b in enumerate(B1):
        inverted = after_pulse(refocusing, b * np.deg2rad(angle), z / profile.thickness_ratio, profile.time_bandwidth)
        np.testing.assert_allclose(cosine[:, m], inverted[:, 2], atol=1e-9)
        excited = after_pulse(excitation, b * np.pi / 2, z, 3.0)
        rewound = rotated(
            excited, np.stack([0 * z, 0 * z, -np.pi * 3.0 * z], axis=1)
        )  # half of the gradient, backwards
        share = -rewound[:, 1]
        share[0] /= 2  # both sides of the slice share its middle
        np.testing.assert_allclose(weight[:, m], share / share.sum(), atol=1e-9)


def test_profiles_without_a_pulse() -> None:
    cosine, weight = Hard().across(B1, 150.0)
    np.testing.assert_allclose(cosine, np.cos(np.deg2rad(150) * B1)[None])
    assert weight.tolist() == [[1.0, 1.0, 1.0]]
    cosine, weight = Angles((180, 90), (3, 1)).across(B1, 150.0)
    np.testing.assert_allclose(cosine, np.cos(np.deg2rad([[180.0], [90.0]]) * B1))
    np.testing.assert_allclose(weight, [[0.75] * 3, [0.25] * 3])
    np.testing.assert_allclose(Angles((180, 90, 10)).across(B1, 1.0)[1], 1 / 3)


@pytest.mark.parametrize(
    ("degrees", "weights", "says"),
    [
        ((), (), "got 0 angles and 0 weights"),
        ((180.0, np.nan), (), "refocusing angles in degrees"),
        ((180.0, 90.0), (1.0,), "got 2 angles and 1 weights"),
        ((180.0, 90.0), (1.0, -0.1), "not negative"),
        ((180.0, 90.0), (0.0, 0.0), "a sum above zero"),
    ],
)
def test_angles_that_cannot_be_are_refused(degrees: Any, weights: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Angles(degrees, weights)
    assert Angles((180, 90), (1, 0)).weights == (1.0, 0.0)


@pytest.mark.parametrize("kind", [Sinc, Gauss])
def test_pulses_that_cannot_be_are_refused(kind: Any) -> None:
    assert (
        kind(0.5, 0.5).time_bandwidth == 0.5 and kind(20, 5).thickness_ratio == 5.0 and kind(2.0).thickness_ratio == 1.0
    )
    for values, says in (
        ((0.49,), "between 0.5 and 20, got 0.49"),
        ((20.1,), "time_bandwidth"),
        ((2.0, 0.49), "thickness_ratio between 0.5 and 5"),
        ((2.0, 5.1), "got 5.1"),
    ):
        with pytest.raises(InputError, match=says):
            kind(*values)


def test_profiles_by_name() -> None:
    assert [profile_of(name) for name in ("hard", "sinc", "gauss")] == [Hard(), Sinc(2.0, 1.3), Gauss(2.0, 1.0)]
    assert profile_of(PROFILES[1]) is PROFILES[1] and profile_of(np.array([[180], [90]])) == Angles((180.0, 90.0))
    with pytest.raises(
        InputError, match="profile: expected hard, sinc, gauss, or refocusing angles in degrees, got 'square'"
    ):
        profile_of("square")


# Sums over the slice.


@pytest.mark.parametrize("n", [3, 8])
def test_coefficients_of_chebyshev_polynomials(n: int) -> None:
    x = chebyshev_nodes(n)
    np.testing.assert_allclose(np.polynomial.chebyshev.chebroots([0] * n + [1]), np.sort(x), atol=1e-12)
    values = np.random.default_rng(0).normal(size=n)
    found = to_coefficients(n) @ values
    np.testing.assert_allclose(np.polynomial.chebyshev.chebval(x, found), values, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 6, 15, 16, 17, 31, 32, 33, 40])
def test_weights_are_polynomials_in_b1(n: int) -> None:
    """Of any number of terms, which are summed in blocks; beyond its range B1 counts as the end."""
    polynomials = np.random.default_rng(1).normal(size=(4, max(n, 2)))
    rule = SliceRule(np.zeros(4), polynomials)
    b = np.array([[0.0, 0.4, 1.0], [1.7, 2.0, 0.1]])
    found = rule.weights(b)
    np.testing.assert_allclose(found, [np.polynomial.chebyshev.chebval(b - 1, p) for p in polynomials], atol=1e-12)
    np.testing.assert_allclose(rule.weights(np.array([-1.0, 3.0])), rule.weights(np.array([0.0, 2.0])))
    assert rule.weights(b.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("profile", [Hard(), Sinc(2.0, 1.3)], ids=["hard", "sinc"])
@pytest.mark.parametrize(("angle", "n"), [(180.0, 3), (120.0, 6), (300.0, 4)])
def test_the_rule_of_a_profile_is_exact(profile: Any, angle: float, n: int) -> None:
    b = np.linspace(0.1, 2, 9)
    E1, E2 = np.full(9, 0.99), np.full(9, 0.9)
    cosine, weight = profile.across(b, angle)
    expected = sum(w * echoes(c, E1, E2, n) for c, w in zip(cosine, weight))
    rule = SliceRule.of(profile, angle, n)
    assert rule.cosines.shape == (n + 1,) and SliceRule.of(profile, angle, n) is rule
    np.testing.assert_allclose(train(rule, b, E1, E2, n), expected, atol=2e-9)
    assert rule.polynomials.shape[1] < 120  # terms that are next to nothing are left out


@pytest.mark.parametrize(("voxels", "values"), [(7, 1 << 15), (512, 1), (8, 100), (10**6, 1)])
def test_voxels_and_nodes_in_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch, voxels: int, values: int) -> None:
    rng = np.random.default_rng(2)
    rule, b = SliceRule.of(Sinc(2.0), 180.0, 5), rng.uniform(0.5, 1.5, (4, 5))
    E1, E2 = np.full((4, 5), 0.99), rng.uniform(0.7, 0.95, (4, 5))
    whole = train(rule, b, E1, E2, 5)
    monkeypatch.setattr(graph, "VOXELS_AT_ONCE", voxels)
    monkeypatch.setattr(graph, "BLOCK_VALUES", values)
    np.testing.assert_allclose(train(rule, b, E1, E2, 5), whole, rtol=1e-12)
    assert train(rule, b, E1, E2, 5).shape == (5, 4, 5)
    grid = train(rule, b[:1, None], E1[:, :1, None], E2[:, :1, None], 5)
    assert grid.shape == (5, 4, 1, 5)


# Echo times of a train.


def test_limits_of_a_train() -> None:
    te = 10.0 * np.arange(1, 6)
    assert MultiEchoSpinEcho(te=te, refocusing_angle=360.0).refocusing_angle == 360.0
    for angle in (0.0, 360.1):
        with pytest.raises(InputError, match=f"refocusing_angle: expected degrees up to 360, got {angle:g}"):
            MultiEchoSpinEcho(te=te, refocusing_angle=angle)
    assert max(MultiEchoSpinEcho(te=[2.0, 4.0, 1024.0], echo_spacing=2.0).echo_numbers) == 512
    with pytest.raises(InputError, match=r"up to 512 echoes, got 513 \(spacing 2 ms\)"):
        MultiEchoSpinEcho(te=[2.0, 4.0, 1026.0], echo_spacing=2.0)


@pytest.mark.parametrize(
    ("te", "fits"),
    [
        ((10.0, 20.4, 40.0), True),
        ((10.0, 20.6, 40.0), False),
        ((10.0, 20.0, 320.9), True),  # 0.05 of a spacing for each 16 echoes
        ((10.0, 20.0, 321.1), False),
        ((4.9, 10.0, 20.0), False),
        ((10.0, 10.2, 20.0), True),
    ],
)
def test_echo_times_are_multiples_of_the_spacing_to_their_rounding(te: tuple[float, ...], fits: bool) -> None:
    if fits:
        assert MultiEchoSpinEcho(te=te, echo_spacing=10.0).echo_numbers == tuple(round(t / 10) for t in te)
        return
    with pytest.raises(InputError, match="te: expected multiples of the echo spacing of 10 ms"):
        MultiEchoSpinEcho(te=te, echo_spacing=10.0)


EVEN = "the evenly spaced echoes of one train"


@pytest.mark.parametrize(
    ("te", "spacing"),
    [
        ((10.0, 20.0, 30.0), 10.0),
        ((20.0, 30.0, 40.0), 10.0),  # without the first
        ((10.0, 20.4, 30.0, 40.0), 10.0),
        ((10.0, 20.6, 30.0, 40.0), EVEN),
        ((11.4, 21.4, 31.4), "multiples of the echo spacing of 10.4667 ms"),
        ((11.6, 21.6, 31.6), EVEN),
        ((4.9, 14.9, 24.9), EVEN),
        ((8.6, 18.6, 28.6), "multiples of the echo spacing of 9.53333 ms"),
        ((8.4, 18.4, 28.4), EVEN),
        ((10.0, 20.0, 30.0, 30.0), 10.0),
    ],
)
def test_the_spacing_of_even_echo_times(te: tuple[float, ...], spacing: float | str) -> None:
    """The first echo is a multiple of the step to 0.15 of it, each one is where it is expected to 0.05."""
    if isinstance(spacing, str):
        with pytest.raises(InputError, match=f"te: expected {spacing}"):
            MultiEchoSpinEcho(te=te)
    else:
        assert MultiEchoSpinEcho(te=te).echo_spacing == pytest.approx(spacing, rel=1e-12)


@pytest.mark.parametrize(("number", "shown"), [(6, "1, 4, 9, 16, 25, 36 ms"), (7, "1, 4, 9, 16, 25, … ms")])
def test_few_echo_times_are_named(number: int, shown: str) -> None:
    with pytest.raises(InputError, match=f"got {shown}"):
        MultiEchoSpinEcho(te=[float(n * n) for n in range(1, number + 1)])


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_a_pulse_of_no_strength_has_the_profile_of_a_weak_one(profile: SliceProfile) -> None:
    """B1 = 0 excites nothing: the share of each position is that of small angles, and nothing is refocused."""
    cosine, weight = profile.across(np.array([0.0, 1e-4]), 180.0)
    np.testing.assert_allclose(cosine[:, 0], 1)
    np.testing.assert_allclose(weight[:, 0], weight[:, 1], atol=1e-6)
    np.testing.assert_allclose(weight.sum(0), 1)
