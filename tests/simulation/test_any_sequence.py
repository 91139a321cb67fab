"""Every registered signal model can be simulated: patches, subjects and data sets, with a truth inside its own box."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import rimap
from rimap.cli import build
from rimap.errors import InputError
from rimap.signals import signal_models
from rimap.signals.base import image_suffix
from rimap.signals.settings import settings_of
from rimap.simulation.acquisitions import draw_acquisition, stream
from rimap.simulation.anatomies import Anatomy, digital_brain
from rimap.simulation.patches import simulate_batch
from rimap.simulation.recipe import general, recipe_from
from rimap.simulation.subjects import simulate_acquisition

HEAD = Anatomy.of(digital_brain((48, 54, 36)), "small")
MEASURED = sorted(name for name, m in signal_models().items() if any(p.amplitude for p in m.parameters))
each = pytest.mark.parametrize("sequence", MEASURED)


@pytest.mark.parametrize("sequence", sorted(set(signal_models()) - set(MEASURED)))
def test_images_that_are_computed_from_others_are_not_simulated(sequence: str) -> None:
    with pytest.raises(InputError, match="computed from other images"):
        general(sequence)


@each
def test_patches_are_inside_the_box_and_show_a_signal(sequence: str) -> None:
    recipe = replace(general(sequence), patch_size=12)
    for k in range(3):
        batch = simulate_batch(recipe, [HEAD], k, 3)
        model = batch.model
        assert model.name == sequence and batch.images.shape == (3, model.n_images, 12, 12)
        for q, p in enumerate(model.parameters):
            assert (batch.kappa[:, q] >= p.bounds[0]).all() and (batch.kappa[:, q] <= p.bounds[1]).all(), p.name
        assert sorted(batch.known) == sorted(p.name for p in model.parameters if p.given)
        signal = np.moveaxis(np.asarray(model.signal(np.moveaxis(batch.kappa, 1, 0))), 0, 1)
        brightest = abs(signal).max(1)[batch.brain]
        assert np.median(brightest / np.broadcast_to(batch.sigma[:, None, None], batch.brain.shape)[batch.brain]) > 1


@each
def test_protocols_differ_and_are_what_scanners_run(sequence: str) -> None:
    found = [draw_acquisition(general(sequence), stream(1, i)).model for i in range(20)]
    assert len({tuple(m.times) for m in found}) > 10
    for m in found:
        for s in m.settings.values():
            values = getattr(m, s.name)
            if values is not None:
                low, high = s.plausible
                assert low <= np.max(values) and np.min(values) <= high, s.name


@each
def test_a_subject_has_its_given_maps(sequence: str) -> None:
    recipe = replace(general(sequence), anatomies=("builtin",))
    series, kappa = simulate_acquisition(recipe, digital_brain((32, 36, 24))[:, :, 12:13], 1)
    again, _ = simulate_acquisition(recipe, digital_brain((32, 36, 24))[:, :, 12:13], 1)
    np.testing.assert_array_equal(series.images, again.images)
    for p, truth in zip(series.model.parameters, kappa):
        assert (truth >= p.bounds[0]).all() and (truth <= p.bounds[1]).all(), p.name
        if p.name in series.given:
            assert 0 < np.median(abs(series.given[p.name] / truth - 1)) < 0.05


@each
def test_the_command_writes_sidecars_that_are_read_as_they_were(sequence: str, tmp_path: Path) -> None:
    out = tmp_path / "sim"
    arguments = ["simulate", "--sequence", sequence, "-o", str(out), "--seed", "3", "--snr", "50"]
    result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 0, result.output
    kind = signal_models()[sequence]
    images = sorted((out / "sub-01/anat").glob(f"*_{image_suffix(kind)}.nii.gz"))
    truth = {p.name for p in (out / "derivatives/truth/sub-01/anat").glob("*.nii.gz")}
    assert all(any(q.suffix and q.suffix in n for n in truth) for q in (*kind.parameters, *kind.derived) if q.suffix)
    sidecar = json.loads(images[0].with_name(images[0].name[:-7] + ".json").read_text())
    assert sidecar["SimulatedNoiseSigma"] > 0
    if not kind.bids_suffix or any(s.read_from for s in settings_of(kind).values()):
        return
    series = rimap.read(out, sequence=sequence)
    assert len(images) == series.model.n_images and series.model.name == sequence
    for s in series.model.settings.values():
        value = getattr(series.model, s.name)
        if value is not None and s.bids:
            written = [json.loads(f.with_name(f.name[:-7] + ".json").read_text())[s.bids[0]] for f in images]
            if s.per_image is False:
                assert all(w == written[0] for w in written)
            known = np.sort(np.ravel(written[:1] if s.per_image is False else written))
            np.testing.assert_allclose(np.sort(np.ravel(value)), known[: np.size(value)] * s.factor, rtol=1e-6)
    assert set(series.given) == {p.name for p in kind.parameters if p.given and p.suffix}


def test_other_settings_are_the_recipes() -> None:
    recipe = recipe_from({"sequence": "vfa", "settings": {"tr": 15, "flip_angle": [3, 10, 20]}, "anatomies": "builtin"})
    assert recipe.times_ms == (3.0, 10.0, 20.0)
    model = draw_acquisition(recipe, stream(0)).model
    assert model.flip_angle == (3.0, 10.0, 20.0) and model.tr == (15.0, 15.0, 15.0)
    assert recipe_from(recipe.as_dict()) == recipe
    drawn = recipe_from({"sequence": "vfa", "setting_ranges": {"tr": [8, 9]}})
    assert all(8 <= draw_acquisition(drawn, stream(i)).model.tr[0] <= 9 for i in range(10))
    with pytest.raises(InputError, match=r"unknown key 'te' in settings\. The nearest valid one is 'tr'"):
        recipe_from({"sequence": "vfa", "settings": {"te": 3}})


def test_names_of_rimap_0_1_0_are_understood() -> None:
    old = recipe_from({"sequence": "ir", "b_range": [1.6, 2.0], "b_smooth": [0, 0.1], "tr_share": 0.2, "tr_ms": []})
    new = recipe_from({"sequence": "ir", "field_mean": [1.6, 2.0], "field_spread": [0, 0.1], "optional_share": 0.2})
    assert old == new
    assert recipe_from({"times_ms": [50, 400, 2000], "tr_ms": 9000}).settings == {"tr": (9000.0,)}


def test_the_paper_has_no_protocol_of_other_sequences() -> None:
    with pytest.raises(InputError, match="the paper has no protocol for megre"):
        recipe_from({"sequence": "megre", "preset": "paper"})
