"""What is outside the training of a network: each range of it, a tenth beyond its ends, and the voxels concerned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import rimap
from rimap import Gaussian, Rician
from rimap.advice import Weight, weight_of
from rimap.estimators.checks.final_checks import Fit
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.missing_values import screened
from rimap.estimators.checks.training_range import Seen, _widened, checked_maps, compare, unsuited
from rimap.estimators.network_files import UNSEEN
from rimap.estimators.rim.network_input import Prepared
from rimap.series import ParameterMaps, Status

TRAINED: dict[str, Any] = {
    "time_range_ms": [20, 4000],
    "times_ms": [],
    "n_images": [4, 10],
    "settings": {"tr": [1000, 9000]},
    "parameters": {"B": [1.5, 2.0], "T1": [200, 3000]},
    "sigma": [0.01, 0.2],
    "noise": ["gaussian"],
    "signed": False,
}
TI = (50.0, 400.0, 1100.0, 2500.0)


def network(kind: str = "rim", start: str = "likelihood", **trained: Any) -> dict[str, Any]:
    return {"name": "net", "kind": kind, "rim": {"start": start}, "trained_on": TRAINED | trained}


def model(tau: Any = TI, **options: Any) -> rimap.InversionRecovery:
    return rimap.InversionRecovery(tau=tau, **options)


def reasons(about: dict[str, Any] | None = None, scan: Any = None) -> list[str]:
    return unsuited(about or network(), scan or model())


def test_a_scan_like_the_training_suits() -> None:
    assert reasons() == [] and reasons(scan=model(tr=5000.0)) == []


@pytest.mark.parametrize(
    ("tau", "told"),
    [
        ((18.2, *TI), False),
        ((18.1, *TI), True),
        ((*TI, 4400.0), False),
        ((*TI, 4401.0), True),
        ((20.0, *TI, 4000.0), False),
    ],
)
def test_times_a_tenth_beyond_the_training_are_no_reason(tau: tuple[float, ...], told: bool) -> None:
    texts = reasons(scan=model(tau))
    assert len(texts) == told
    assert not told or "inversion times of 20 to 4000 ms" in texts[0]


@pytest.mark.parametrize(("number", "told"), [(3, True), (4, False), (10, False), (11, True)])
def test_the_number_of_images(number: int, told: bool) -> None:
    texts = reasons(scan=model(np.linspace(50, 3000, number)))
    assert len(texts) == told
    assert not told or f"4 to 10 images, and this series has {number}" in texts[0]


@pytest.mark.parametrize(("number", "told"), [(5, True), (6, False), (10, False), (17, False), (18, True)])
def test_the_number_of_images_of_a_network_of_one_protocol(number: int, told: bool) -> None:
    """Of ten images: six to seventeen."""
    protocol = list(np.linspace(50, 3000, 10))
    texts = reasons(network(times_ms=protocol, n_images=[10, 10]), model(np.linspace(50, 3000, number)))
    assert len(texts) == told and (not told or f"10 images, and this series has {number}" in texts[0])


@pytest.mark.parametrize(("shift", "told"), [(0.0, False), (8.9, False), (9.1, True)])
def test_a_resnet_needs_its_own_times(shift: float, told: bool) -> None:
    """To 1 ms and 2 %, in any order."""
    about = network("resnet", times_ms=[400.0, 50.0, 2500.0, 1100.0])
    texts = reasons(about, model((1100.0, 400.0 + shift, 50.0, 2500.0)))
    assert len(texts) == told and (not told or "images at 50, 400, 1100, 2500 ms" in texts[0])
    assert reasons(network(times_ms=[9.0, 50.0, 2500.0, 1100.0], n_images=[4, 4])) == []  # a RIM knows the times


@pytest.mark.parametrize(("tr", "told"), [(9900.0, False), (9901.0, True)])
def test_a_setting_within_its_range(tr: float, told: bool) -> None:
    texts = reasons(scan=model(tr=tr))
    assert len(texts) == told and (not told or "a repetition time of 1000 to 9000 ms" in texts[0])
    assert reasons(network(settings={"tr": None}), model(tr=tr)) == []
    (text,) = reasons(network(settings={}), model(tr=tr))
    assert text.startswith("series without a repetition time (TR)")


@pytest.mark.parametrize(("tr", "told"), [(2728.0, False), (2727.0, True)])
def test_a_setting_below_its_range(tr: float, told: bool) -> None:
    assert len(reasons(network(settings={"tr": [3000, 9000]}), model(tr=tr))) == told
    low_and_high = model(tr=(tr, 5000.0, 5000.0, 5000.0))
    assert len(reasons(network(settings={"tr": [3000, 9000]}), low_and_high)) == told


@pytest.mark.parametrize(
    ("trained", "inside", "outside"),
    [
        ((-100.0, -20.0), (-103.9, -97.0, -21.0, -16.1), (-104.1, -15.9)),
        ((-10.0, 10.0), (-10.9, 0.0, 10.9), (-11.1, 11.1)),
        ((-20.0, 0.0), (-20.9, -20.0, 0.0, 0.9), (-21.1, 1.1)),
        ((10.0, 20.0), (9.1, 21.9), (9.0, 22.1)),
    ],
)
def test_a_range_is_widened_whatever_its_sign(trained: Any, inside: Any, outside: Any) -> None:
    """By a tenth of its ends, or of half of it if it reaches below zero (a field in Hz)."""
    low, high = _widened(*trained)
    assert all(low <= value <= high for value in (*trained, *inside))
    assert not any(low <= value <= high for value in outside)


def test_signed_images() -> None:
    assert reasons(scan=model(signed=True)) == ["magnitude images, and these are signed"]
    assert reasons(network(signed=True), model(signed=True)) == [] == reasons(network(signed=True))


def test_all_settings_were_seen_if_none_is_listed() -> None:
    assert Seen.of(network(settings=None), model()).settings == {"tau": None, "tr": None}
    seen = Seen.of(network(), model())
    assert seen.axis == (20, 4000) and seen.n_images == (4, 10) and seen.settings == {"tr": (1000, 9000)}
    assert seen.parameters == {"B": (1.5, 2.0), "T1": (200, 3000)} and seen.protocol == ()


# Maps.


def compared(
    B: Any = 1.8, T1: Any = 800.0, about: Any = None, *, sigma: float = 0.05, noise: Any = Gaussian, **more: Any
) -> Any:
    """Return which of 100 voxels are outside, and the warnings."""
    scan = model()
    kappa = np.stack([np.ones(100), np.broadcast_to(B, 100).astype(float), np.broadcast_to(T1, 100).astype(float)])
    maps = ParameterMaps(kappa=kappa, model=scan, status=np.zeros(100, np.uint8))
    series = rimap.WeightedSeries(np.ones((4, 100)), scan, **more)
    return compare(about or network(), series, Prepared(100.0, noise(sigma=100 * sigma), "given", sigma), maps)


def test_voxels_within_the_training() -> None:
    outside, warnings = compared()
    assert outside.shape == (100,) and not outside.any() and warnings == ()


@pytest.mark.parametrize(("name", "low", "high"), [("B", 1.5, 2.0), ("T1", 200.0, 3000.0)])
def test_voxels_a_tenth_beyond_the_training_are_inside(name: str, low: float, high: float) -> None:
    values = np.full(100, (low + high) / 2)
    values[:6] = [low / 1.101, low / 1.099, high * 1.099, high * 1.101, np.nan, high]
    outside, _ = compared(**{name: values})
    assert np.flatnonzero(outside).tolist() == [0, 3, 4]


@pytest.mark.parametrize(("share", "told"), [(10, False), (11, True)])
def test_a_field_outside_the_training_in_a_tenth_of_the_voxels_is_said(share: int, told: bool) -> None:
    values = np.where(np.arange(100) < share, 2.5, 1.8)
    outside, warnings = compared(values)
    assert outside.sum() == share and len(warnings) == told
    for text in warnings:
        assert (
            "B is outside 1.5 to 2" in text and "in 11 % of the voxels" in text and weight_of(text) == Weight.UNRELIABLE
        )
    assert compared(1.8, np.full(100, 9000.0))[1] == ()  # a time does not say it
    assert not compared(np.full(100, 2.5), given={"B": 2.5})[0].any()  # what is known was not estimated
    unknown = np.where(np.arange(100) < 90, np.nan, values)
    assert len(compared(unknown)[1]) == 0  # of those with a value none is outside


@pytest.mark.parametrize(
    ("sigma", "start", "told"),
    [
        (0.0091, "paper", 0),
        (0.009, "paper", 1),
        (0.009, "likelihood", 0),
        (0.2199, "paper", 0),
        (0.2201, "likelihood", 1),
    ],
)
def test_noise_beyond_the_training(sigma: float, start: str, told: int) -> None:
    """Less noise is right for a network that begins at maximum likelihood."""
    outside, warnings = compared(about=network(start=start), sigma=sigma)
    assert len(warnings) == told and outside.all() == bool(told) and outside.any() == bool(told)
    assert all("noise of 0.01 to 0.2 of A in CSF" in text and weight_of(text) == Weight.UNRELIABLE for text in warnings)
    resnet = network("resnet", start, times_ms=list(TI))
    assert len(compared(about=resnet, sigma=sigma)[1]) == (told or sigma == 0.009)


def test_rician_noise_must_have_been_seen() -> None:
    (text,) = compared(noise=Rician)[1]
    assert "Gaussian noise, and this series is Rician" in text
    assert compared(noise=Rician, about=network(noise=["gaussian", "rician"]))[1] == ()


def test_a_sequence_that_was_not_seen_is_a_note() -> None:
    outside, (text,) = compared(about=network() | {UNSEEN: ["t2", "sr"]})
    assert not outside.any() and weight_of(text) == Weight.NOTE and "only t2, sr, and not ir" in text


def test_maps_of_a_network_have_statuses_and_no_value_without_an_answer() -> None:
    rng, scan = np.random.default_rng(0), model()
    kappa = np.stack([np.full((20, 20), 100.0), np.full((20, 20), 1.8), rng.uniform(600, 1200, (20, 20))])
    S = np.asarray(scan.signal(kappa)) + rng.normal(0, 2, (4, 20, 20))
    S = abs(S).astype(np.float32)
    S[:, 0, 0] = 0
    S[1, 0, 1] = np.nan
    mask = np.ones((20, 20), bool)
    mask[0, 2] = False
    kappa[2, 5, :4] = 9000.0
    kappa[2, 6, 0] = 10_000.0  # at its bound
    residual = np.full((20, 20), 2.0, np.float32)
    series = rimap.WeightedSeries(S, scan, mask=mask)
    ready = Prepared(100.0, Gaussian(sigma=2.0), "given", 0.02)
    maps = checked_maps(
        network(), series, ready, kappa.astype(np.float32), residual, "rim", {"draws": 3}, screened(series, threads=1)
    )
    assert [maps.status[0, k] for k in range(3)] == [Status.NO_SIGNAL, Status.NOT_FINITE, Status.OUTSIDE_MASK]
    assert (
        np.isnan(maps.kappa[:, 0, :3]).all()
        and np.isnan(maps.residual[0, :3]).all()
        and np.isfinite(maps.kappa[:, 1:]).all()
    )
    assert (maps.status[5, :4] == Status.OUTSIDE_TRAINING).all() and maps.status[6, 0] == Status.AT_BOUND
    assert (maps.status == Status.OK).sum() == 400 - 3 - 4 - 1
    assert maps.estimator == "rim" and maps.settings == {"draws": 3} and maps.sigma_source == "given"
    assert Fit(estimated=0).farther == 0


def test_a_network_may_be_farther_from_the_data_by_four_standard_deviations() -> None:
    """χ² of a voxel that is 16 higher is no contradiction."""
    scan = model(np.linspace(50, 3000, 8))
    kappa = np.stack([np.full((30, 30), 100.0), np.full((30, 30), 1.8), np.full((30, 30), 900.0)])
    f = np.asarray(scan.signal(kappa))
    improbable = 27.856  # of χ² with 6 degrees of freedom in one voxel of 10,000: A and T1 are of each voxel
    for excess, off in ((15.0, False), (17.0, True)):
        sigma = 8.0
        S = f.copy()
        S[:, 4, 4] += np.array([1.0, -1.0] * 4) * sigma * np.sqrt((improbable + excess) / 8)
        residual = np.sqrt(((S - f) ** 2).mean(0)).astype(np.float32)
        series = rimap.WeightedSeries(S, scan)
        ready = Prepared(100.0, Gaussian(sigma=sigma), "given", sigma / 100.0)
        about, screen = network(), screened(series, threads=1)
        maps = checked_maps(about, series, ready, kappa.astype(np.float32), residual, "rim", {}, screen)
        assert (maps.status[4, 4] == Status.OFF_MODEL) == off


@pytest.mark.parametrize("number", [3, 4, 8])
@pytest.mark.parametrize(("wrong", "told"), [(1.0, False), (5.0, True), (0.2, True)])
def test_the_residuals_of_a_network_lack_what_it_estimates_in_each_voxel(number: int, wrong: float, told: bool) -> None:
    """A network that begins at maximum likelihood leaves what a fit of A and T1 leaves: that does not deny σ."""
    scan, rng = model(np.geomspace(50, 3000, number)), np.random.default_rng(0)
    kappa = np.stack([np.full((30, 30), 100.0), np.full((30, 30), 1.8), np.full((30, 30), 900.0)])
    f = np.asarray(scan.signal(kappa))
    S = (f + rng.normal(0, 1.0, f.shape)).astype(np.float32)
    series = rimap.WeightedSeries(S, scan, noise=Gaussian(sigma=1.0))
    fitted = rimap.NLLS(threads=1, fixed={"B": 1.8}).estimate(series)
    assert fitted.residual is not None
    maps = checked_maps(
        network(n_images=[3, 10]), series, Prepared(100.0, Gaussian(sigma=wrong), "given", wrong / 100.0),
        np.array(fitted.kappa, np.float32), np.array(fitted.residual, np.float32), "rim", {},
        screened(series, threads=1),
    )  # fmt: skip
    assert any("given σ predicts" in text for text in maps.warnings) == told
    assert wrong < 1 or not (maps.status == Status.OFF_MODEL).any()


@pytest.mark.parametrize(
    ("bounds", "at_bound", "inside"),
    [
        ((-60.0, 60.0), (-60.0, -59.95, 59.95, 60.0), (-59.9, 0.0, 59.9)),
        ((-60.0, 0.0), (-60.0, 0.0, -0.05), (-0.1,)),
        ((0.0, 3.0), (0.0, 0.002, 3.0), (0.004,)),
    ],
)
def test_estimates_at_a_bound_are_flagged_whatever_its_sign(bounds: Any, at_bound: Any, inside: Any) -> None:
    A, B, T1 = rimap.InversionRecovery.parameters
    field = replace(B, bounds=bounds, start=None, prior=None)
    kind = type("Shifted", (rimap.InversionRecovery,), {"name": "shifted", "parameters": (A, field, T1)})
    F = np.array([*at_bound, *inside], np.float32)
    series = rimap.WeightedSeries(np.ones((4, len(F))), kind(tau=TI))
    kappa = np.stack([np.zeros_like(F), F, np.full_like(F, 800.0)])  # no amplitude is not a bound
    status = Prepared(1.0, Gaussian(sigma=0.1), "given", 0.1).status(series, kappa, Census.of(series.images))
    np.testing.assert_array_equal(status, [Status.AT_BOUND] * len(at_bound) + [Status.OK] * len(inside))
