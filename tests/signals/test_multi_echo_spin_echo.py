"""Multi-echo spin echo: known trains, an independent simulation of isochromats, slice profiles, the NIST phantom."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

import rimap
from rimap import InputError
from rimap.signals.extended_phase_graph import SliceRule, echoes, train
from rimap.signals.multi_echo_spin_echo import PROFILES, MultiEchoSpinEcho
from rimap.signals.slice_profile import Angles, Gauss, Hard, Sinc, profile_of

from .properties import check

TE = tuple(10.0 * n for n in range(1, 9))
ONE = np.ones(())


def isochromats(alpha_deg: float, T1: float, T2: float, spacing: float, n: int) -> NDArray[np.float64]:
    """Return n echoes of a CPMG train by the Bloch equations, spin by spin, with phases spread over a full turn."""
    turn = 2 * np.pi * (np.arange(8 * n) + 0.5) / (8 * n)
    M = np.zeros((3, len(turn)))
    M[0] = 1  # after the excitation, along the axis of the refocusing pulses
    E1, E2 = np.exp(-spacing / 2 / T1), np.exp(-spacing / 2 / T2)
    c, s = np.cos(np.deg2rad(alpha_deg)), np.sin(np.deg2rad(alpha_deg))

    def wait(M: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = np.cos(turn) * M[0] - np.sin(turn) * M[1], np.sin(turn) * M[0] + np.cos(turn) * M[1]
        return np.stack([E2 * x, E2 * y, 1 + E1 * (M[2] - 1)])

    found = []
    for _ in range(n):
        M = wait(M)
        M = np.stack([M[0], c * M[1] - s * M[2], s * M[1] + c * M[2]])
        M = wait(M)
        found.append(M[0].mean())
    return np.array(found)


@pytest.mark.parametrize(
    "model",
    [
        MultiEchoSpinEcho(te=TE),
        MultiEchoSpinEcho(te=TE, profile="hard", refocusing_angle=150.0),
        MultiEchoSpinEcho(te=TE[1:]),
        MultiEchoSpinEcho(te=TE[:6], profile=[180, 175, 150, 90, 30]),
    ],
    ids=["sinc", "hard 150", "without the first", "angles"],
)
def test_properties(model: MultiEchoSpinEcho) -> None:
    check(model)


@pytest.mark.parametrize("alpha", [180.0, 150.0, 120.0, 60.0, 25.0])
@pytest.mark.parametrize(("T1", "T2"), [(1000.0, 80.0), (300.0, 250.0), (50.0, 40.0)])
def test_the_phase_graph_is_what_isochromats_do(alpha: float, T1: float, T2: float) -> None:
    E1, E2 = np.exp(-10 / T1) * ONE, np.exp(-10 / T2) * ONE
    found = echoes(np.cos(np.deg2rad(alpha)) * ONE, E1, E2, 24)
    np.testing.assert_allclose(found, isochromats(alpha, T1, T2, 10.0, 24), atol=1e-12)


def test_180_degrees_give_the_exponential_decay() -> None:
    model = MultiEchoSpinEcho(te=TE, profile="hard")
    T2 = np.array([8.0, 50.0, 300.0])
    S = model.signal(np.stack([0 * T2 + 700, 0 * T2 + 1, 0 * T2 + 900, T2]))
    np.testing.assert_allclose(S, 700 * np.exp(-np.array(TE)[:, None] / T2), rtol=1e-9)


@pytest.mark.parametrize(("alpha", "first", "second"), [(120.0, 0.75, 0.9375), (60.0, 0.25, 0.4375)])
def test_without_relaxation_the_train_reaches_its_pseudo_steady_state(
    alpha: float, first: float, second: float
) -> None:
    """sin²(α/2) at first, sin(α/2) in the end: Hennig 1988, Alsop 1997 (doi:10.1002/mrm.1910370206)."""
    found = echoes(np.cos(np.deg2rad(alpha)) * ONE, ONE, ONE, 96)
    np.testing.assert_allclose(found[:2], [first, second], rtol=1e-12)
    assert found[-24:].mean() == pytest.approx(np.sin(np.deg2rad(alpha / 2)), rel=5e-3)


@pytest.mark.parametrize("profile", PROFILES, ids=repr)
def test_the_rule_is_the_integral_over_the_slice(profile: Sinc) -> None:
    """Few fixed values of cos α stand for all positions, without loss: echo n is a polynomial of degree n in cos α."""
    B1 = np.linspace(0.3, 1.7, 8)
    E1, E2, n = np.exp(-10 / 800.0) + 0 * B1, np.exp(-10 / np.geomspace(8, 500, 8)), 20
    cosine, weight = profile.across(B1, 180.0)
    np.testing.assert_allclose(weight.sum(0), 1, rtol=1e-12)
    everywhere = sum(w * echoes(c, E1, E2, n) for c, w in zip(cosine, weight))
    np.testing.assert_allclose(train(SliceRule.of(profile, 180.0, n), B1, E1, E2, n), everywhere, atol=1e-10)


def test_a_grid_is_what_its_points_are() -> None:
    model = MultiEchoSpinEcho(te=TE)
    T2, B1 = np.geomspace(10, 400, 40)[:, None], np.linspace(0.6, 1.2, 30)[None]
    grid = model.shape(B1=B1, T1=np.full((1, 1), 900.0), T2=T2)
    flat = [a.reshape(-1) for a in np.broadcast_arrays(B1, 900.0, T2)]
    np.testing.assert_allclose(grid.reshape(8, -1), model.shape(B1=flat[0], T1=flat[1], T2=flat[2]), rtol=1e-11)


def test_the_profile_of_a_small_angle_is_the_spectrum_of_the_pulse() -> None:
    """At small angles the slice profile is a Fourier transform: half of the angle at half of the nominal thickness."""
    cosine, _ = Gauss(2.0).across(np.array([0.05]), 180.0)
    angle = np.arccos(cosine[:, 0])
    z = np.linspace(0, 1.6, len(angle))
    assert angle[0] == pytest.approx(np.deg2rad(9.0), rel=1e-3)
    assert np.interp(0.5, z, angle / angle[0]) == pytest.approx(0.5, abs=0.02)
    wide, _ = Gauss(2.0, 1.3).across(np.array([0.05]), 180.0)
    np.testing.assert_allclose(np.interp(z / 1.3, z, angle), np.arccos(wide[:, 0]), atol=1e-4)


def test_at_nominal_b1_the_middle_of_the_slice_is_refocused() -> None:
    for profile in (Sinc(3.0, 1.2), Gauss(2.0), Hard()):
        cosine, _ = profile.across(np.array([1.0]), 180.0)
        assert cosine[0, 0] == pytest.approx(-1.0, abs=1e-12)


def test_leaving_out_echoes_keeps_the_train() -> None:
    model = MultiEchoSpinEcho(te=TE)
    kappa = [[1.0], [0.8], [1000.0], [60.0]]
    later = model.subset([2, 5, 7])
    assert later.echo_numbers == (3, 6, 8) and later.echo_spacing == 10.0
    np.testing.assert_allclose(later.signal(kappa), np.asarray(model.signal(kappa))[[2, 5, 7]], rtol=1e-12)
    direct = MultiEchoSpinEcho(te=TE[1:])  # --skip-first 1: the step tells the spacing
    np.testing.assert_allclose(direct.signal(kappa), np.asarray(model.signal(kappa))[1:], rtol=1e-12)


def test_rounded_echo_times_of_a_long_train_are_understood() -> None:
    te = np.round(np.arange(1, 33) * 7.937, 1)
    model = MultiEchoSpinEcho(te=te)
    assert model.echo_numbers == tuple(range(1, 33)) and model.echo_spacing == pytest.approx(7.937, rel=1e-3)
    assert MultiEchoSpinEcho(te=[12.9 * n for n in range(1, 11)]).echo_numbers[-1] == 10


@pytest.mark.parametrize("te", [(10.0, 25.0, 50.0, 90.0, 150.0), (10.0, 20.0, 40.0, 80.0), (15.0, 25.0, 35.0, 45.0)])
def test_echoes_that_are_no_train_are_refused(te: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="evenly spaced echoes of one train"):
        MultiEchoSpinEcho(te=te)


def test_gaps_need_the_echo_spacing() -> None:
    assert MultiEchoSpinEcho(te=(10, 20, 40, 80), echo_spacing=10).echo_numbers == (1, 2, 4, 8)
    with pytest.raises(InputError, match="multiples of the echo spacing of 8 ms"):
        MultiEchoSpinEcho(te=(10, 20, 40, 80), echo_spacing=8)


@pytest.mark.parametrize("profile", ["square", ["a", "b"], [], Path("x")])
def test_other_profiles_are_refused(profile: object) -> None:
    with pytest.raises(InputError, match="profile: expected"):
        MultiEchoSpinEcho(te=TE, profile=profile)


def test_the_profile_is_part_of_what_makes_two_models_equal() -> None:
    one, other = MultiEchoSpinEcho(te=TE), MultiEchoSpinEcho(te=TE, profile="hard")
    assert one != other and hash(one) == hash(MultiEchoSpinEcho(te=TE, profile=profile_of("sinc")))
    assert dataclasses.replace(one, profile=[180.0, 90.0]).profile == Angles((180.0, 90.0))
    assert len(PROFILES) <= 8 and profile_of("sinc") in PROFILES and Hard() in PROFILES


def test_b1_is_the_field_and_t1_is_given() -> None:
    model = MultiEchoSpinEcho(te=TE)
    assert model.field is not None and model.field.name == "B1" and model.field.smooth
    assert model.time.name == "T2" and not model.separable
    assert [p.name for p in model.parameters if p.given] == ["T1"] and model.parameters[
        model.index("T1")
    ].start == 1000.0


def test_b1_that_was_never_measured_does_no_harm() -> None:
    """A measured map has zeros outside the head, and noise: no power of B1 may overflow there."""
    model = MultiEchoSpinEcho(te=TE)
    S = model.signal(np.array([[1.0] * 4, [0.0, -3.0, 2.5, 1e6], [1000.0] * 4, [80.0] * 4]))
    assert np.isfinite(S).all() and abs(S).max() <= 1


def _one_field(model: MultiEchoSpinEcho, S: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the residual and T2 of every column of S (N, M), with one B1 for all of them and T1 = 1 s."""
    T2, B1 = np.geomspace(5, 1200, 500), np.linspace(0.6, 1.3, 71)
    g = np.asarray(model.shape(B1=B1[None], T1=np.full((1, 1), 1000.0), T2=T2[:, None]))
    explained = np.einsum("nm,ntb->mtb", S, g / np.linalg.norm(g, axis=0)) ** 2
    residual = (S**2).sum() - explained.max(1).sum(0)  # (B1,)
    best = residual.argmin()
    return float(residual[best]), T2[explained[:, :, best].argmax(1)]


def test_t2_of_the_nist_phantom_with_the_profile_that_the_residual_chooses(shared_data: Path) -> None:
    root = shared_data / "nist_phantom"
    scan = "sub-philips3TplateT2"
    if not (root / scan).is_dir():
        pytest.skip("nist_phantom is absent")
    files = list((root / scan / "anat").glob("*_MESE.nii.gz"))
    times = [1e3 * json.loads(Path(str(f).replace(".nii.gz", ".json")).read_text())["EchoTime"] for f in files]
    order = np.argsort(times)
    S = np.stack([np.asarray(nib.load(files[k]).dataobj, dtype=float) for k in order])  # type: ignore[attr-defined]
    rois = root / "derivatives" / "rois" / scan / "anat"
    labels = np.asarray(nib.load(next(rois.glob("*spheresT2_dseg.nii.gz"))).dataobj)  # type: ignore[attr-defined]
    with next(rois.glob("*spheresT2_reference.tsv")).open() as table:
        rows = [(int(r["sphere"]), float(r["reference_ms"])) for r in csv.DictReader(table, delimiter="\t")]
    rows = [(k, t) for k, t in rows if 15 < t < 600]
    spheres = np.stack([np.median(S[:, labels == k], axis=1) for k, _ in rows], axis=1)
    truth = np.array([t for _, t in rows])
    te = np.sort(times)
    fits = {p: _one_field(MultiEchoSpinEcho(te=te, profile=p), spheres) for p in PROFILES}
    chosen = min(fits, key=lambda p: fits[p][0])
    assert chosen == profile_of("sinc")
    assert np.mean(abs(fits[chosen][1] / truth - 1)) < 0.025
    assert fits[Hard()][0] > 3 * fits[chosen][0]  # the profile matters


@pytest.mark.parametrize("profile", ["hard", "sinc", "gauss"])
def test_a_nominal_angle_that_is_wrong_is_reported_and_hardly_moves_t2(profile: str) -> None:
    """A protocol of 130° that is read as 180°: B1 takes the difference, T2 stays."""
    te = np.arange(1, 13) * 10.0
    kappa = np.ones((4, 12, 12)) * np.array([1000.0, 0.98, 1000.0, 60.0])[:, None, None]
    noise = np.random.default_rng(0).standard_normal((12, 12, 12)) * 5
    images = MultiEchoSpinEcho(te=te, refocusing_angle=130, profile=profile).signal(kappa) + noise
    for angle, reported in ((180.0, True), (130.0, False)):
        model = MultiEchoSpinEcho(te=te, refocusing_angle=angle, profile=profile)
        series = rimap.WeightedSeries(images.astype(np.float32), model, rimap.Gaussian(5.0))
        maps = rimap.NLLS(threads=1).estimate(series)
        text = " ".join(maps.warnings)
        assert ("in most scans it is between 0.8 and 1.2" in text) == ("refocusing_angle=DEGREES" in text) == reported
        assert np.median(maps["T2"]) == pytest.approx(60, rel=0.01)
        assert np.median(maps["B1"]) == pytest.approx(0.98 * 130 / angle, rel=0.03)
