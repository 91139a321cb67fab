"""The loss of a batch: Eq. 3, Eq. 6, and the same in units of the Cramér-Rao bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rimap.estimators.networks.rim import Passed, data_term
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import Quadratic, by_role, to_state
from rimap.likelihood import HALF_OF_95
from rimap.simulation.patches import Batch, Structure
from rimap.training.recipe import Loss, TrainingRecipe


def batch_loss(recipe: TrainingRecipe, network: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Return the loss of one batch (Eq. 6 for a RIM, Eq. 3 for a ResNet)."""
    S, truth, sigma, weight = tensors_of(batch, device)
    estimates, deviation = estimates_of(recipe, network, batch, (S, truth, sigma, weight))
    layout = Layout.of(batch.model)
    target = to_state(recipe.rim, layout, truth)
    scale = _error_scale(recipe.loss, recipe, batch, truth, sigma)
    J = len(estimates)
    share = (
        [1.0 / J] * J
        if recipe.loss.steps == "uniform"
        else [6 * (index + 1) ** 2 / (J * (J + 1) * (2 * J + 1)) for index in range(J)]
    )
    D = recipe.simulation.noise_draws
    weight = weight * structure_weights(recipe.loss, batch).to(device)
    penalty = bias_penalties(recipe.loss, batch).to(device) if D > 1 else None
    total = S.new_zeros(())
    for part, u in zip(share, estimates):
        e = (u - target) / scale
        cost = e * e
        if recipe.loss.huber:
            d = recipe.loss.huber
            cost = 2 * d * d * ((1 + cost / (d * d)).sqrt() - 1)
        if penalty is not None:
            draws = e.unflatten(1, (-1, D))
            # squared bias of the mean over the draws, without the noise that is left in the mean
            bias = draws.mean(2) ** 2 - draws.var(2) / D
            if recipe.loss.huber:
                bias = bias / (1 + draws.square().mean(2).detach() / recipe.loss.huber**2)
            cost = cost + penalty * bias.repeat_interleave(D, 1)
        total = total + part * (cost * _parameter_weights(recipe.loss, layout, cost) * weight).sum() / (
            weight.sum().clamp(min=1) * len(cost)
        )
    if deviation is not None and recipe.loss.sd_weight:
        missed = interval_loss((estimates[-1].detach() - target).abs() / scale, deviation / scale)
        cost = missed * _parameter_weights(recipe.loss, layout, missed) * weight
        total = total + recipe.loss.sd_weight * cost.sum() / (weight.sum().clamp(min=1) * len(missed))
    return total


#: Intervals of so many standard deviations hold such a share of normal errors.
_INTERVALS = ((1.0, 0.6827), (HALF_OF_95, 0.95))


def interval_loss(error: Tensor, sd: Tensor) -> Tensor:
    """Return the pinball loss of the intervals of 1 and 1.96 `sd`: least where they hold 68 and 95 % of the errors.

    Unlike a likelihood it asks for the intervals themselves, whatever the distribution of the errors (Koenker & Bassett
    1978, doi:10.2307/1913643).
    """
    total = torch.zeros_like(error)
    for width, share in _INTERVALS:
        beyond = error - width * sd
        total = total + torch.maximum(share * beyond, (share - 1) * beyond)
    return total


Tensors = tuple[Tensor, Tensor, Tensor, Tensor]


def tensors_of(batch: Batch, device: torch.device) -> Tensors:
    """Return images (b, N, h, w), the truth (P, b, h, w) of what a network carries, σ (b), and the tissue mask (b, h,
    w).
    """
    truth = Layout.of(batch.model).carried_of(batch.kappa.swapaxes(0, 1))
    arrays = (batch.images, truth, batch.sigma, batch.weight.astype(np.float32))
    S, kappa, sigma, weight = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
    return S, kappa, sigma, weight


def known_of(batch: Batch, device: torch.device) -> dict[str, float | Tensor]:
    """Return the parameters that are given, numbers or maps (b, h, w), by name."""
    return {
        name: torch.from_numpy(value).to(device) if np.ndim(value) else value for name, value in batch.known.items()
    }


def estimates_of(recipe: TrainingRecipe, network: nn.Module, batch: Batch, tensors: Tensors) -> Passed:
    """Return u (P, b, h, w) after every step of a RIM, and its standard deviations; the one u of a ResNet."""
    S, truth, sigma, weight = tensors
    if recipe.network != "rim":
        return Passed([network(S).movedim(1, 0)], None)
    known = known_of(batch, S.device)
    nearer = nearer_field(recipe, batch, truth)
    hold = nearer is not None and recipe.training.hold_field
    found: Passed = network(
        batch.model, S, sigma, weight, rician=batch.rician, known=known, nearer_field=nearer, hold_field=hold
    )
    return found


def nearer_field(recipe: TrainingRecipe, batch: Batch, truth: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return the change of the start (P, b, h, w) that moves its field towards the truth.

    A slice determines a smooth field better than a patch does.
    """
    (low, high), layout = recipe.training.field_error_left, Layout.of(batch.model)
    smooth = layout.field is not None and layout.field.smooth
    if not smooth or low >= 1 or batch.hidden or recipe.rim.start == "paper":
        return None
    field = truth[layout.n_amplitudes]
    draw = np.random.default_rng([recipe.simulation.seed, batch.index, 3]).uniform(
        np.log(low), np.log(high), len(field)
    )
    share = torch.as_tensor(np.exp(draw), dtype=truth.dtype, device=truth.device)[:, None, None]
    return lambda found: field + share * (found - field)


def structure_weights(loss: Loss, batch: Batch) -> Tensor:
    """Return the weight of each voxel in the loss, (b, h, w): `structure_weight` for single voxels and lines."""
    alone = np.isin(batch.structures, (Structure.VOXEL, Structure.LINE))
    return torch.from_numpy(np.where(alone, np.float32(loss.structure_weight), np.float32(1)))


def bias_penalties(loss: Loss, batch: Batch) -> Tensor:
    """Return the weight of the squared bias of each voxel, (b, h, w): more of it inside structures."""
    inside = torch.from_numpy(np.where(batch.structures != Structure.NONE, np.float32(1), np.float32(0)))
    return loss.bias_penalty + loss.structure_bias_penalty * inside


def _parameter_weights(loss: Loss, layout: Layout, cost: Tensor) -> Tensor:
    return cost.new_tensor(by_role(layout, loss.weights))[:, None, None, None]


def _error_scale(loss: Loss, recipe: TrainingRecipe, batch: Batch, truth: Tensor, sigma: Tensor) -> Tensor:
    """Return what an error in u is divided by, (P, b, h, w): 1, or the Cramér-Rao bound at the truth with a smooth
    field known.
    """
    if loss.kind == "mse":
        return torch.ones_like(truth)
    with torch.no_grad():
        layout, s = Layout.of(batch.model), sigma[:, None, None]
        known = known_of(batch, truth.device)
        S = torch.from_numpy(batch.images).to(truth.device).movedim(1, 0)  # of which the information is independent
        sums = data_term(batch.model, S, None, known)(truth)
        quadratic = Quadratic.of(recipe.rim, layout, truth, sums, s)
        scale = [torch.full_like(truth[0], loss.field_sd)] * len(layout.carried)
        for row, v in zip(quadratic.rows_of_voxel, quadratic.alone[1]):
            scale[row] = (v + loss.floor**2).sqrt().clamp(max=loss.ceiling)
        return torch.stack(scale)
