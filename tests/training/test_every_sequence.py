"""Every registered signal model trains a general RIM, which then maps a simulated series of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import rimap
from rimap.estimators.network_files import metadata_of
from rimap.estimators.rim.layout import Layout
from rimap.series import Status
from rimap.signals import signal_models
from rimap.simulation.anatomies import Anatomy, digital_brain
from rimap.simulation.subjects import simulate_acquisition
from rimap.training import loop
from rimap.training.loop import Machine, train
from rimap.training.recipe import training_recipe


@pytest.mark.parametrize(
    "sequence", sorted(name for name, m in signal_models().items() if any(p.amplitude for p in m.parameters))
)
def test_it_trains_three_iterations_and_maps(sequence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Anatomy.of(digital_brain((48, 54, 36)), "small")
    monkeypatch.setattr(loop, "load_anatomies", lambda sources: tuple(small for _ in sources))
    size = {"batch_size": 2, "iterations": 3, "validation_batches": 1, "validate_every": 3, "checkpoint_every": 3}
    document = {"name": "tiny", "sequence": sequence, "anatomies": ["a"], "simulation": {"patch_size": 10}}
    recipe = training_recipe(document | {"training": size})
    path = train(recipe, tmp_path, machine=Machine(accelerator="cpu", workers=0))
    about = metadata_of(path)
    model = signal_models()[sequence]
    assert about["carries"] == [p.name for p in Layout.of(model).carried]
    assert sorted(about["trained_on"]["parameters"]) == sorted(p.name for p in model.parameters if not p.amplitude)
    assert np.isfinite(about["figures"]["validation_loss"])

    quiet = replace(recipe.simulation, sigma=(recipe.simulation.sigma[0],) * 2, rician_share=0.0)
    series, truth = simulate_acquisition(quiet, digital_brain((32, 36, 24))[:, :, 12], 0)
    maps = rimap.RIM(network=str(path), threads=1).estimate(series)
    q = series.model.index(series.model.time.name)
    well = np.isin(maps.status, (Status.OK, Status.OUTSIDE_TRAINING))
    assert well[series.selected].mean() > 0.8
    assert np.median(abs(maps.kappa[q] / truth[q] - 1)[well]) < 0.25  # three iterations: hardly more than the start
    for p in series.model.parameters:
        assert np.isfinite(maps[p.name][well]).all()
