"""The torch modules: sizes, memory, gradients, and what the loop feeds."""

# ruff: noqa: E402 - torch is asked for first
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rimap
from rimap.estimators.networks.resnet import WIDTHS, ResNet
from rimap.estimators.networks.rim import RIM
from rimap.estimators.networks.rnn_cell import RNNCell
from rimap.estimators.networks.voxelwise_gru import VoxelwiseGRU
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import GENERAL, PAPER, from_state, to_state

IR = rimap.InversionRecovery(tau=[100, 300, 600, 1200, 2500])
T2 = rimap.T2Decay(tau=[10, 30, 60, 120])


def batch(model, n=2, size=8, seed=0, sigma=0.02):
    rng = np.random.default_rng(seed)
    shape = (n, size, size)
    kappa = [rng.uniform(0.5, 1.0, shape), rng.uniform(1.7, 2.0, shape), rng.uniform(300, 2000, shape)]
    kappa = np.stack(kappa if len(model.parameters) == 3 else [kappa[0], kappa[2] / 10])
    S = model.signal(kappa) + sigma * rng.standard_normal((model.n_images, *shape))
    tensors = torch.from_numpy(S.swapaxes(0, 1).astype(np.float32)), torch.full((n,), sigma)
    return *tensors, torch.from_numpy(kappa.astype(np.float32))


def random_rim(config, model, seed=0):
    torch.manual_seed(seed)
    rim = RIM(config, Layout.of(model))
    torch.nn.init.normal_(rim.cell.output.weight, std=0.02)
    return rim


def test_the_paper_cell_has_41475_parameters():
    assert sum(p.numel() for p in RIM(PAPER, Layout.of(IR)).parameters()) == 41_475


def test_resnet_has_the_listed_widths():
    net = ResNet(31, 3)
    assert [b.conv2.out_channels for b in net.blocks] == list(WIDTHS) and len(WIDTHS) == 11
    assert net.first.in_channels == 31 and net.output.out_channels == 3


def test_resnet_in_use_does_not_depend_on_the_rest_of_the_batch():
    torch.manual_seed(0)
    net = ResNet(5, 3, (8, 8, 4))
    S = torch.randn(3, 5, 6, 6)
    net(S)  # running statistics
    net.eval()
    with torch.no_grad():
        assert torch.allclose(net(S)[:1], net(S[:1]), atol=1e-6)


def test_gru_is_torchs():
    torch.manual_seed(0)
    gru = VoxelwiseGRU(7, 7).double()
    x, h = (torch.randn(2500, 7, dtype=torch.double, requires_grad=True) for _ in range(2))
    ours, theirs = gru(x, h), torch.nn.GRUCell.forward(gru, x, h)
    assert torch.allclose(ours, theirs, atol=1e-12)
    w = torch.randn_like(ours)
    leaves = [x, h, *gru.parameters()]
    for a, b in zip(torch.autograd.grad((ours * w).sum(), leaves), torch.autograd.grad((theirs * w).sum(), leaves)):
        assert torch.allclose(a, b, atol=1e-10)


def test_memory_changes_the_output():
    torch.manual_seed(0)
    cell = RNNCell(6, 3)
    x = torch.randn(2, 6, 5, 5)
    first, h = cell(x)
    second, h2 = cell(x, h)
    assert not torch.allclose(first, second)
    assert not torch.allclose(h[0], h2[0]) and not torch.allclose(h[1], h2[1])


@pytest.mark.parametrize("config", [PAPER, GENERAL], ids=["paper", "general"])
@pytest.mark.parametrize("model", [IR, T2], ids=["ir", "t2"])
def test_any_batch_any_n_any_size(config, model):
    Q = len(model.parameters)
    rim = random_rim(config, model)
    for n, m, size in ((1, model, 5), (3, model.subset(range(model.n_images - 1)), 8)):
        S, sigma, _ = batch(m, n, size)
        steps = rim(m, S, sigma).steps
        assert len(steps) == 6
        assert all(u.shape == (Q, n, size, size) and torch.isfinite(u).all() for u in steps)


@pytest.mark.parametrize("config", [PAPER, GENERAL], ids=["paper", "general"])
def test_a_patch_does_not_depend_on_its_batch(config):
    rim = random_rim(config, IR)
    S, sigma, _ = batch(IR, 3)
    with torch.no_grad():
        whole, alone = rim(IR, S, sigma).steps[-1][:, :1], rim(IR, S[:1], sigma[:1]).steps[-1]
    assert torch.allclose(whole, alone, atol=2e-4)


class Recorder(torch.nn.Module):
    """A cell that keeps what it read."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.seen, self.memory = cell, [], []

    def forward(self, x, h=None):
        self.seen.append(x.detach().clone())
        self.memory.append(h)
        return self.cell(x, h)


@pytest.mark.parametrize("model", [IR, T2], ids=["ir", "t2"])
def test_the_gradient_is_autograds_and_new_at_each_step(model):
    """The paper's input: the gradient of ½Σ(S − f)² in scaled units, 31/N times, at the estimate of this step."""
    Q, N = len(model.parameters), model.n_images
    rim = random_rim(PAPER, model)
    rim.cell = Recorder(rim.cell)
    S, sigma, _ = batch(model)
    steps = rim(model, S, sigma).steps
    seen = rim.cell.seen
    assert rim.cell.memory[0] is None and all(h is not None for h in rim.cell.memory[1:])
    for j, x in enumerate(seen):
        u = x[:, :Q].movedim(1, 0).double().requires_grad_(True)
        if j:
            assert torch.equal(x[:, :Q].movedim(1, 0), steps[j - 1].detach())
        f = model.signal(from_state(PAPER, Layout.of(model), u))
        (0.5 * (f - S.movedim(1, 0).double()) ** 2).sum().backward()
        expected = u.grad.movedim(0, 1) * 31 / N
        assert torch.allclose(x[:, Q:].double(), expected, rtol=1e-3, atol=2e-4 * expected.abs().max())
    assert not any(torch.allclose(a[:, Q:], b[:, Q:]) for a, b in pairwise(seen))


def test_paper_start():
    S, sigma, _ = batch(IR)
    rim = random_rim(PAPER, IR)
    rim.cell = Recorder(rim.cell)
    rim(IR, S, sigma)
    A, B, T = rim.cell.seen[0][:, :3].movedim(1, 0)
    assert torch.equal(A, S.abs().amax(1)) and (B == 2).all() and (T == 1).all()  # §4.4.4


def test_an_untrained_general_network_returns_its_start():
    S, sigma, kappa = batch(IR, size=16, sigma=0.005)
    u = RIM(GENERAL, Layout.of(IR))(IR, S, sigma).steps
    assert torch.equal(u[0], u[-1])
    T = from_state(GENERAL, Layout.of(IR), u[-1].detach())[2]
    assert float((T / kappa[2] - 1).abs().median()) < 0.12  # B is white here, the start keeps it smooth


def test_training_reaches_the_first_layer_and_every_step():
    for config in (PAPER, GENERAL):
        rim = random_rim(config, IR)
        S, sigma, kappa = batch(IR)
        loss = ((rim(IR, S, sigma).steps[-1] - to_state(config, Layout.of(IR), kappa)) ** 2).mean()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rim.parameters())


@pytest.mark.parametrize("config", [PAPER, GENERAL], ids=["paper", "general"])
@pytest.mark.parametrize("model", [IR, T2], ids=["ir", "t2"])
def test_without_the_table_it_is_the_same(config, model):
    """Another device than the CPU takes the sums from their definition; so does double precision."""
    rim = random_rim(config, model)
    S, sigma, _ = batch(model)
    with torch.no_grad():
        fast = rim(model, S, sigma).steps[-1]
        slow = rim.double()(model, S.double(), sigma.double()).steps[-1]
    assert torch.allclose(fast.double(), slow, rtol=1e-2, atol=1e-2)
