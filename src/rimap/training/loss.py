"""The loss of a batch: Eq. 3, Eq. 6, and the same in units of the Cramér-Rao bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rimap.estimators.rim.data_term import data_sums
from rimap.estimators.rim.loop import Quadratic, to_state
from rimap.simulation.patches import Batch, Structure
from rimap.training.recipe import Loss, TrainingRecipe


def batch_loss(recipe: TrainingRecipe, network: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Return the loss of one batch (Eq. 6 for a RIM, Eq. 3 for a ResNet)."""
    S, truth, sigma, weight = (
        torch.from_numpy(np.ascontiguousarray(x)).to(device)
        for x in (batch.images, batch.kappa.swapaxes(0, 1), batch.sigma, batch.weight.astype(np.float32))
    )
    config = recipe.rim
    if recipe.network == "rim":
        estimates = network(batch.model, S, sigma, weight, rician=batch.rician, nearer_B=nearer_B(recipe, batch, truth))
    else:
        estimates = [network(S).movedim(1, 0)]
    target = to_state(config, truth)
    scale = _error_scale(recipe.loss, recipe, batch, truth, sigma)
    J = len(estimates)
    share = (
        [1.0 / J] * J
        if recipe.loss.steps == "uniform"
        else [6 * (j + 1) ** 2 / (J * (J + 1) * (2 * J + 1)) for j in range(J)]
    )
    D = recipe.simulation.noise_draws
    weight = weight * structure_weights(recipe.loss, batch).to(device)
    total = S.new_zeros(())
    for part, u in zip(share, estimates):
        e = (u - target) / scale
        cost = e * e
        if recipe.loss.huber:
            d = recipe.loss.huber
            cost = 2 * d * d * ((1 + cost / (d * d)).sqrt() - 1)
        if recipe.loss.bias_penalty and D > 1:
            draws = e.unflatten(1, (-1, D))
            # squared bias of the mean over the draws, without the noise that is left in the mean
            bias = draws.mean(2) ** 2 - draws.var(2) / D
            if recipe.loss.huber:
                bias = bias / (1 + draws.square().mean(2).detach() / recipe.loss.huber**2)
            cost = cost + recipe.loss.bias_penalty * bias.repeat_interleave(D, 1)
        total = total + part * (cost * _parameter_weights(recipe.loss, cost) * weight).sum() / (
            weight.sum().clamp(min=1) * len(cost)
        )
    return total


def nearer_B(recipe: TrainingRecipe, batch: Batch, truth: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return what moves the B of the start towards the truth (Q, b, h, w): a slice tells B better than a patch."""
    low, high = recipe.training.b_error_left
    if len(truth) != 3 or low >= 1 or batch.hidden_tr or recipe.rim.start == "paper":
        return None
    draw = np.random.default_rng([recipe.simulation.seed, batch.index, 3]).uniform(
        np.log(low), np.log(high), len(truth[1])
    )
    share = torch.as_tensor(np.exp(draw), dtype=truth.dtype, device=truth.device)[:, None, None]
    return lambda found: truth[1] + share * (found - truth[1])


def structure_weights(loss: Loss, batch: Batch) -> Tensor:
    """Return how often each voxel counts, (b, h, w): single voxels and lines `structure_weight` times."""
    alone = np.isin(batch.structures, (Structure.VOXEL, Structure.LINE))
    return torch.from_numpy(np.where(alone, np.float32(loss.structure_weight), np.float32(1)))


def _parameter_weights(loss: Loss, cost: Tensor) -> Tensor:
    w = loss.weights if len(cost) == 3 else (loss.weights[0], loss.weights[2])
    return cost.new_tensor(w)[:, None, None, None]


def _error_scale(loss: Loss, recipe: TrainingRecipe, batch: Batch, truth: Tensor, sigma: Tensor) -> Tensor:
    """Return what an error in u is divided by, (Q, b, h, w): 1, or the Cramér-Rao bound at the truth with B known."""
    if loss.kind == "mse":
        return torch.ones_like(truth)
    with torch.no_grad():
        S = batch.model.signal(truth)
        s = sigma[:, None, None]
        Q = len(truth)
        quadratic = Quadratic.of(recipe.rim, truth, data_sums(batch.model, S, truth), s)
        _, variance = quadratic.solve([0, Q - 1])
        sd = [(v + loss.floor**2).sqrt().clamp(max=loss.ceiling) for v in variance]
        middle = [torch.full_like(sd[0], loss.b_sd)] * (Q - 2)
        return torch.stack([sd[0], *middle, sd[1]])
