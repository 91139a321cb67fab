"""Variable flip angle: the steady state of a simulated train, DESPOT1, and a brain in vivo with its B1 map."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap import InputError
from rimap.signals.variable_flip_angle import VariableFlipAngle

from .properties import check

FLIPS = (2.0, 4.0, 9.0, 15.0, 20.0)


@pytest.mark.parametrize("tr", [15.0, (12.0, 13.0, 14.0, 15.0, 20.0)])
@pytest.mark.parametrize("seed", range(3))
def test_properties(tr: float, seed: int) -> None:
    check(VariableFlipAngle(flip_angle=FLIPS, tr=tr), seed)


def test_it_is_the_steady_state_of_a_spoiled_train() -> None:
    """Independent: excite, spoil and recover, step by step, until nothing changes."""
    model, T1, B1, tr = VariableFlipAngle(flip_angle=FLIPS, tr=15.0), 900.0, 0.85, 15.0
    for flip, S in zip(FLIPS, np.asarray(model.signal([[1.0], [B1], [T1]]))[:, 0]):
        Mz, angle = 1.0, np.deg2rad(flip) * B1
        for _ in range(4000):
            Mxy, Mz = Mz * np.sin(angle), Mz * np.cos(angle)
            Mz = 1 + (Mz - 1) * np.exp(-tr / T1)
        assert pytest.approx(Mxy, rel=1e-9) == S


def test_despot1_finds_the_truth_in_it() -> None:
    """S/sin α against S/tan α is a line of slope E: Deoni 2003."""
    T1 = np.array([300.0, 900.0, 1600.0, 4000.0])
    B1 = np.array([0.8, 1.0, 1.1, 1.3])
    S = np.asarray(VariableFlipAngle(flip_angle=FLIPS, tr=15.0).signal(np.stack([0 * T1 + 700.0, B1, T1])))
    alpha = np.deg2rad(np.array(FLIPS))[:, None] * B1
    x, y = S / np.tan(alpha), S / np.sin(alpha)
    slope = ((x - x.mean(0)) * y).sum(0) / ((x - x.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(-15.0 / np.log(slope), T1, rtol=1e-9)


def test_short_repetition_times_lose_no_digits() -> None:
    """For TR ≪ T1 and a small angle, S = A (TR/T1)/(TR/T1 + α²/2) α, which single precision has too."""
    model = VariableFlipAngle(flip_angle=(1.0, 2.0, 5.0), tr=2.0)
    kappa = np.array([[1.0], [1.0], [9000.0]])
    single = np.asarray(model.signal(kappa.astype(np.float32)))
    np.testing.assert_allclose(single, model.signal(kappa), rtol=2e-6)


def test_b1_is_given_and_is_no_part_of_what_is_estimated() -> None:
    model = VariableFlipAngle(flip_angle=(3.0, 20.0), tr=15.0)  # two images for A and T1
    field = model.field
    assert field is not None and (field.name, field.given, field.start, field.suffix) == ("B1", True, 1.0, "TB1map")
    assert model.time.name == "T1" and model.axis.entity == "flip" and not model.separable


@pytest.mark.parametrize("unit", ["radians", "seconds"])
def test_other_units_are_refused(unit: str) -> None:
    flips = np.deg2rad(FLIPS) if unit == "radians" else FLIPS
    with pytest.raises(InputError, match="degrees" if unit == "radians" else "If these are seconds"):
        VariableFlipAngle(flip_angle=flips, tr=15.0 if unit == "radians" else 0.015)


def test_a_brain_in_vivo(shared_data: Path) -> None:
    """The two flips of the reference data determine T1 in closed form; the published maps have 1336 and 1450 ms."""
    folder = shared_data / "vfa_b1"
    if not folder.is_dir():
        pytest.skip("vfa_b1 is absent")

    def image(name: str) -> np.ndarray:
        return np.asarray(nib.load(next(folder.rglob(name))).dataobj, dtype=float)  # type: ignore[attr-defined]

    mask = image("*_mask.nii.gz") > 0
    S = np.stack([image("*flip-1_VFA.nii.gz")[mask], image("*flip-2_VFA.nii.gz")[mask]])
    model = VariableFlipAngle(flip_angle=(3.0, 20.0), tr=15.0)
    T1 = np.geomspace(50, 9000, 2000)
    for B1, median in ((image("*_TB1map.nii.gz")[mask], 1336.0), (np.ones(S.shape[1]), 1450.0)):
        ratio = np.stack([np.divide(*model.shape(B1=np.full_like(T1, b), T1=T1)) for b in (0.7, 1.0, 1.3)])
        assert (np.diff(ratio, axis=1) > 0).all() or (np.diff(ratio, axis=1) < 0).all()  # one T1 for one ratio
        low, high = np.full(S.shape[1], 20.0), np.full(S.shape[1], 9500.0)
        for _ in range(40):  # bisection
            middle = np.sqrt(low * high)
            g = np.asarray(model.shape(B1=B1, T1=middle))
            longer = g[0] / g[1] < S[0] / S[1]
            low, high = np.where(longer, middle, low), np.where(longer, high, middle)
        assert np.median(middle) == pytest.approx(median, rel=0.01)
