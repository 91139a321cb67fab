"""Training on a device that is not the CPU: on torch's `meta`, whose tensors have no values, operands must meet."""

# ruff: noqa: E402 - torch is asked for first
from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rimap.estimators.networks.voxelwise_gru import VoxelwiseGRU
from rimap.estimators.rim import initial_estimate
from rimap.simulation.anatomies import Anatomy, digital_brain
from rimap.simulation.patches import simulate_batch
from rimap.training.checkpoint import resume, save_checkpoint
from rimap.training.loop import build_network
from rimap.training.loss import batch_loss
from rimap.training.recipe import training_recipe

ELSEWHERE = torch.device("meta")
RECIPES = {
    "paper": {"variant": "paper"},
    "general": {"variant": "general", "training": {"field_error_left": [1.0, 1.0]}},
    "nearer field": {"variant": "general", "training": {"field_error_left": [0.1, 0.5]}},
    "T2": {"variant": "general", "sequence": "t2"},
    "draws": {"variant": "general", "simulation": {"noise_draws": 2}, "loss": {"bias_penalty": 1.0}},
    "mixed": {"variant": "general", "training": {"precision": "bf16-mixed"}},
    "contrast": {"rim": {"inputs": ["state", "gradient", "contrast", "misfit"]}},
    "resnet": {"network": "resnet", "times_ms": [50, 300, 900, 2000, 3000]},
}


def _recipe(name: str):
    tables = {"anatomies": ["a"], "simulation": {}} | RECIPES[name]
    tables["simulation"] = {"patch_size": 10} | tables["simulation"]
    return training_recipe(tables)


class Together(TorchDispatchMode):
    """Refuses operations on tensors of several devices; `meta` alone lets some pass."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim]
        moves = op.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        assert moves or len({x.device for x in tensors}) < 2, f"{op} of tensors on several devices"
        return op(*args, **(kwargs or {}))


def _first_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `at_field` use one value of the field for all voxels, because tensors without values cannot be compared."""
    original = initial_estimate.namespace

    class Namespace:
        def __init__(self, xp):
            self._xp = xp

        def __getattr__(self, name):
            return getattr(self._xp, name)

        def unique_values(self, x):
            return [95.0]

        def nonzero(self, x):
            return (self._xp.arange(len(x), device=x.device),)

    monkeypatch.setattr(initial_estimate, "namespace", lambda *x: Namespace(original(*x)))


@pytest.mark.parametrize("name", [*RECIPES, "general rician"])
def test_a_step_stays_on_its_device(name, monkeypatch):
    recipe = _recipe(name.removesuffix(" rician"))
    batch = simulate_batch(recipe.simulation, [Anatomy.of(digital_brain((32, 36, 24)), "small")], 0, 4)
    batch = replace(batch, rician=name.endswith("rician"))
    _first_only(monkeypatch)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for meta
    network = build_network(recipe).to(ELSEWHERE)
    optimiser = torch.optim.Adam(network.parameters(), foreach=True)
    with Together():
        loss = batch_loss(recipe, network, batch, ELSEWHERE)
        loss.backward()
        optimiser.step()
    assert loss.device == ELSEWHERE and loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.device == ELSEWHERE for p in network.parameters())


def test_operands_apart_are_found():
    with Together(), pytest.raises(AssertionError, match="several devices"):
        torch.zeros(2, 2, device=ELSEWHERE) @ torch.zeros(2, 2)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta")
def test_moments_are_resumed_where_the_weights_are(tmp_path):
    recipe = _recipe("paper")
    network = build_network(recipe)
    optimiser = torch.optim.Adam(network.parameters())
    sum(p.sum() for p in network.parameters()).backward()
    optimiser.step()
    save_checkpoint(tmp_path / "c.safetensors", recipe, network, optimiser, {}, 1)
    there = build_network(recipe).to("meta")
    optimiser = torch.optim.Adam(there.parameters())
    assert resume(tmp_path / "c.safetensors", there, optimiser, {}) == 1
    moments = [s[k] for s in optimiser.state.values() for k in ("exp_avg", "exp_avg_sq")]
    assert len(moments) == 2 * len(list(there.parameters())) and all(m.is_meta for m in moments)


def test_another_device_has_the_same_gru():
    torch.manual_seed(0)
    gru = VoxelwiseGRU(5, 5)
    x, h = torch.randn(2, 40, 5)
    np.testing.assert_allclose(
        gru(x, h).detach().numpy(), torch.nn.GRUCell.forward(gru, x, h).detach().numpy(), atol=1e-6
    )
