"""What a run does where a network cannot be used, or says less than the user expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.workflow import Request, map_series
from rimap.workflow.summary import lines

SHAPE = (24, 24, 1)
RNG = np.random.default_rng(0)


def saved(folder: Path, model: rimap.SignalModel, kappa: Any, sigma: float) -> Path:
    """Write noisy images of κ without air."""
    images = abs(model.signal(kappa) + sigma * RNG.standard_normal((model.n_images, *SHAPE)))
    path = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.moveaxis(images, 0, -1).astype(np.float32), np.eye(4)), path)
    return path


def full(*values: float) -> Any:
    return np.stack([np.full(SHAPE, value) for value in values])


def test_two_echoes_without_background_are_mapped_by_maximum_likelihood(tmp_path: Path) -> None:
    path = saved(tmp_path, rimap.T2Decay(tau=[10, 90]), full(900, 80), 9.0)
    run = map_series(Request(inputs=[path], out=tmp_path / "out", sequence="t2", times_ms=[10, 90]))
    (result,) = run.results
    assert result.estimator.startswith("mle")
    assert "noise level is not known" in result.choice
    assert result.statistics["T2"].median == pytest.approx(80, rel=0.05)


def test_a_network_that_was_asked_for_says_that_it_needs_the_noise_level(tmp_path: Path) -> None:
    path = saved(tmp_path, rimap.T2Decay(tau=[10, 90]), full(900, 80), 9.0)
    request = Request(inputs=[path], out=tmp_path / "out", sequence="t2", times_ms=[10, 90], estimator="rim")
    with pytest.raises(rimap.InputError, match="the noise level is not known"):
        map_series(request)


def test_an_echo_train_is_within_the_training_of_the_network_for_every_sequence() -> None:
    model = rimap.MultiEchoSpinEcho(te=[10.0 * n for n in range(1, 13)])
    kappa = np.stack([np.full((24, 24), value) for value in (1.0, 0.95, 80.0, 1000.0)])
    by_name = dict(zip(("A", "B1", "T2", "T1"), kappa))
    kappa = np.stack([by_name[parameter.name] for parameter in model.parameters])
    images = model.signal(kappa) + 0.02 * RNG.standard_normal((12, 24, 24))
    maps = rimap.RIM.load("universal").estimate(rimap.WeightedSeries(images, model, rimap.Gaussian(sigma=0.02)))
    assert (maps.status == rimap.Status.OK).mean() > 0.95
    assert np.median(maps["T2"]) == pytest.approx(80, rel=0.05)


def test_a_map_of_B1_without_values_in_a_part_of_the_object_is_reported() -> None:
    model = rimap.VariableFlipAngle(flip_angle=(3, 6, 10, 15, 20), tr=15.0)
    B1 = np.full((24, 24), 0.95)
    images = 1000 * model.signal([np.ones_like(B1), B1, np.full_like(B1, 900.0)])
    images += RNG.standard_normal(images.shape)
    B1[:8] = np.nan
    warnings = rimap.NLLS().estimate(rimap.WeightedSeries(images, model, given={"B1": B1})).warnings
    assert any("The map of B1 has no value in 33 % of the object" in warning for warning in warnings)


def test_a_limited_range_is_the_reason_where_values_end_at_it() -> None:
    model = rimap.InversionRecovery(tau=(50, 150, 400, 900, 1800, 3500), tr=8000)
    images = 1000 * model.signal([np.ones((24, 24)), np.full((24, 24), 1.95), np.full((24, 24), 1300.0)])
    images += 10 * RNG.standard_normal(images.shape)
    maps = rimap.NLLS(bounds={"T1": (100, 1000)}).estimate(rimap.WeightedSeries(abs(images), model))
    (warning,) = (text for text in maps.warnings if "poorly determined" in text)
    assert "its range was limited to 100 to 1000 ms" in warning


def test_the_summary_says_of_how_many_voxels_a_median_is(tmp_path: Path) -> None:
    """Two thirds of the voxels have a T1 that the network was not trained for."""
    times = (50, 400, 1100, 2500, 5000)
    kappa = full(900, 1.95, 6500)
    kappa[2, :8] = 500
    path = saved(tmp_path, rimap.InversionRecovery(tau=times, tr=30000), kappa, 2.0)
    request = Request(
        inputs=[path], out=tmp_path / "out", sequence="ir", times_ms=times, tr_ms=(30000,), estimator="rim"
    )
    (line,) = (line for line in lines(map_series(request)) if line.startswith("  T1 "))
    assert "median 500 ms" in line
    assert ", of 192 of 576 voxels with a value" in line
