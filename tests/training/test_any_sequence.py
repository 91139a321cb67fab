"""One cell for every sequence: it is trained on several and maps one that it has never seen."""

# ruff: noqa: E402 - torch is asked for first
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rimap
from rimap.errors import InputError
from rimap.estimators.network_files import ANY_SEQUENCE, metadata_of
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import to_state
from rimap.series import Status
from rimap.signals import signal_models
from rimap.simulation.anatomies import Anatomy, digital_brain
from rimap.simulation.patches import simulate_batch
from rimap.simulation.recipe import general
from rimap.simulation.subjects import simulate_acquisition
from rimap.training import loop
from rimap.training.loop import Machine, build_network, train
from rimap.training.loss import batch_loss, estimates_of, tensors_of
from rimap.training.recipe import TrainingRecipe, training_recipe

SEQUENCES = ["ir", "t2", "look-locker"]


def recipe(**rim: object) -> TrainingRecipe:
    return training_recipe(
        {
            "name": "several",
            "anatomies": ["a"],
            "simulation": {"patch_size": 10, "sequences": SEQUENCES},
            "rim": {"any_sequence": True, "sd_outputs": True, **rim},
            "training": {
                "batch_size": 2,
                "iterations": 3,
                "validation_batches": 1,
                "validate_every": 3,
                "checkpoint_every": 3,
            },
        }
    )


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = Anatomy.of(digital_brain((48, 54, 36)), "small")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "load_anatomies", lambda sources: tuple(small for _ in sources))
        return train(recipe(), tmp_path_factory.mktemp("any"), machine=Machine(accelerator="cpu", workers=0))


def test_the_network_says_what_it_has_seen_of_each_sequence(network: Path) -> None:
    about = metadata_of(network)
    assert about["sequence"] == ANY_SEQUENCE
    assert sorted(about["trained_on"]) == sorted(SEQUENCES)
    assert set(about["trained_on"]["look-locker"]["parameters"]) == {"B", "T1star"}


@pytest.mark.parametrize("sequence", [*SEQUENCES, "vfa", "megre", "sr"])
def test_it_maps_sequences_that_it_has_and_has_not_seen(network: Path, sequence: str) -> None:
    quiet = replace(general(sequence), sigma=(general(sequence).sigma[0],) * 2, rician_share=0.0)
    series, truth = simulate_acquisition(quiet, digital_brain((32, 36, 24))[:, :, 12], 0)
    maps = rimap.RIM(network=str(network), threads=1).estimate(series)
    well = np.isin(maps.status, (Status.OK, Status.OUTSIDE_TRAINING))
    q = series.model.index(series.model.time.name)
    assert well[series.selected].mean() > 0.8
    assert np.median(abs(maps.kappa[q] / truth[q] - 1)[well]) < 0.25
    assert maps.sd_kappa is not None and np.isfinite(maps.sd_kappa[q][well]).mean() > 0.99


def test_a_sequence_with_several_amplitudes_is_refused(network: Path) -> None:
    series, _ = simulate_acquisition(general("megre-offset"), digital_brain((32, 36, 24))[:, :, 12], 0)
    with pytest.raises(InputError, match="one amplitude"):
        rimap.RIM(network=str(network)).estimate(series)


def test_several_sequences_need_a_cell_for_any() -> None:
    with pytest.raises(InputError, match="any_sequence"):
        recipe(any_sequence=False)


def test_batches_take_turns_over_the_sequences() -> None:
    assert [recipe().simulation_of(i).sequence for i in range(4)] == [*SEQUENCES, SEQUENCES[0]]


@pytest.mark.parametrize("sequence", ["ir", "t2", "look-locker"])
def test_the_loss_has_a_gradient_in_every_input_that_the_sequence_has(sequence: str) -> None:
    """The channels of a missing field are zero, so that their weights get no gradient from such a sequence."""
    several = replace(recipe(), simulation=replace(general(sequence), patch_size=12))
    net = build_network(several)
    torch.nn.init.normal_(net.cell.output.weight, std=0.05)
    small = Anatomy.of(digital_brain((48, 54, 36)), "small")
    batch_loss(several, net, simulate_batch(several.simulation, [small], 0, 2), torch.device("cpu")).backward()
    gradient = net.cell.conv1.weight.grad.abs().sum((0, 2, 3))
    has_field = Layout.of(signal_models()[sequence]).field is not None
    assert bool(gradient[1] > 0) == has_field  # the second channel is the state of the field
    assert gradient[0] > 0
    assert gradient[2] > 0


def test_calibrated_intervals_hold_the_truth_in_95_of_100_voxels_of_the_middle_protocol(network: Path) -> None:
    """±1.96 SD contain the truth in 95 % of the voxels or more for half of the protocols, and in fewer for the rest."""
    several = recipe()
    net = build_network(several)
    small = Anatomy.of(digital_brain((48, 54, 36)), "small")
    batches = [simulate_batch(several.simulation_of(i), [small], i, 2) for i in range(6)]
    cpu = torch.device("cpu")
    factor = loop.calibrated(several, net, batches, cpu)[2]
    held = []
    for batch in batches:
        tensors = tensors_of(batch, cpu)
        steps, sd = estimates_of(several, net, batch, tensors)
        error = (steps[-1] - to_state(several.rim, Layout.of(batch.model), tensors[1])).abs()
        held.append((error[-1] <= 1.96 * factor * sd[-1]).detach().numpy()[batch.weight])
    shares = sorted(float(of_batch.mean()) for of_batch in held)
    assert shares[2] < 0.95 < shares[3]
    assert len(metadata_of(network)["sd_factors"]) == 3
