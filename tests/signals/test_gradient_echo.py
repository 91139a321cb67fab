"""Multi-echo gradient echo: known answers, and a kidney in vivo."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap import InputError
from rimap.signals.gradient_echo import GradientEcho, GradientEchoWithOffset

from .properties import check

TE = (4.6, 9.2, 13.8, 18.4, 27.6, 36.8, 55.3)


@pytest.mark.parametrize("model", [GradientEcho(te=TE), GradientEchoWithOffset(te=TE)], ids=lambda m: m.name)
@pytest.mark.parametrize("seed", range(3))
def test_properties(model: GradientEcho, seed: int) -> None:
    check(model, seed)


def test_the_logarithm_of_the_signal_is_a_line_of_slope_minus_R2star() -> None:
    model = GradientEcho(te=TE)
    T2star = np.array([8.0, 25.0, 90.0])
    slope = np.polyfit(TE, np.log(model.signal([[500.0, 500.0, 500.0], T2star])), 1)[0]
    np.testing.assert_allclose(slope, -1 / T2star, rtol=1e-10)
    rate = model.derived[0]
    assert (rate.name, rate.unit, rate.suffix) == ("R2star", "1/s", "R2starmap")
    np.testing.assert_allclose(rate.formula(model, {"T2star": T2star}), [125.0, 40.0, 1000 / 90])


def test_the_offset_is_what_is_left_at_the_end() -> None:
    model = GradientEchoWithOffset(te=(5, 10, 20, 1000))
    columns = model.columns({"T2star": np.array([20.0])})
    assert columns.shape == (4, 2, 1)
    assert float(model.signal([[100.0], [20.0], [7.0]])[-1, 0]) == pytest.approx(7.0)
    assert [p.name for p in model.amplitudes] == ["A", "C"] and model.time.name == "T2star" and not model.separable


def test_gradient_echoes_never_make_a_T2map() -> None:
    for model in (GradientEcho, GradientEchoWithOffset):
        maps = [p.suffix for p in model.parameters] + [d.suffix for d in model.derived]
        assert "T2map" not in maps and "T2starmap" in maps


def test_too_few_echoes_are_refused() -> None:
    with pytest.raises(InputError, match="2 or more distinct values of echo time"):
        GradientEcho(te=[5.0])
    with pytest.raises(InputError, match="3 or more distinct"):
        GradientEchoWithOffset(te=[5.0, 10.0])
    with pytest.raises(InputError, match="If these are seconds"):
        GradientEcho(te=[0.005, 0.01, 0.02])


def test_a_kidney_in_vivo(shared_data: Path) -> None:
    """The weighted log-linear fit of real echoes is what the model's Gauss–Newton steps leave where they are."""
    files = sorted((shared_data / "kidney_megre_philips" / "sub-01" / "anat").glob("*_MEGRE.nii.gz"))
    if not files:
        pytest.skip("kidney_megre_philips is absent")
    times = [1e3 * json.loads(Path(str(f).replace(".nii.gz", ".json")).read_text())["EchoTime"] for f in files]
    S = np.stack([np.asarray(nib.load(f).dataobj, dtype=float)[..., 2] for f in files])  # type: ignore[attr-defined]
    bright = S.min(0) > 0.1 * np.quantile(S, 0.99)
    S = S[:, bright]
    model = GradientEcho(te=times)
    slope, offset = np.polyfit(times, np.log(S), 1)
    kappa = np.stack([np.exp(offset), np.clip(-1 / slope, 1.0, 1000.0)])
    for _ in range(10):
        J, r = np.asarray(model.partials(kappa)), S - np.asarray(model.signal(kappa))
        H = np.einsum("nqm,npm->mqp", J, J)
        step = np.linalg.solve(H, np.einsum("nqm,nm->mq", J, r)[..., None])[..., 0].T
        kappa = np.clip(kappa + step, [[1.0], [1.0]], [[1e9], [1000.0]])
    assert 20 < np.median(kappa[1]) < 40
    assert (np.sqrt((r**2).mean(0)) / S.max(0) < 0.1).mean() > 0.9
