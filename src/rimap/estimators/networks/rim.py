"""The RIM in training: the loop of Eqs. 4–5 around the cell, over torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rimap.estimators.networks.rnn_cell import RNNCell
from rimap.estimators.rim.data_term import Sums, data_sums
from rimap.estimators.rim.initial_estimate import Problem, at_field, start
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import Quadratic, RIMConfig, box, cell_inputs, from_state, moved, sd_of, to_state, units
from rimap.signals.base import SignalModel


class Passed(NamedTuple):
    """What a pass of the loop gives.

    Parameters
    ----------
    steps
        u after each of the J steps, (P, b, h, w).
    sd
        The standard deviations of the last u that the network expects, in the same form; `None` if it gives none.
    """

    steps: list[Tensor]
    sd: Tensor | None


class RIM(nn.Module):
    """Recurrent inference machine (§3).

    Parameters
    ----------
    config
        What the loop feeds and how an update is applied.
    layout
        The parameters that the network carries.
    mixed
        Compute the cell in bfloat16 in training (weights and all else stay single precision).

    Notes
    -----
    The gradient is evaluated at detached estimates, as in the authors' package: training goes back through the
    estimates and the memory, not through ∇L.
    """

    def __init__(self, config: RIMConfig, layout: Layout, *, mixed: bool = False) -> None:
        super().__init__()
        self.config, self.layout, self.mixed = config, layout, mixed
        self.cell = RNNCell(
            config.channels(layout), config.outputs(layout), config.features, zero_output=config.zero_output
        )

    def forward(
        self,
        model: SignalModel,
        S: Tensor,
        sigma: Tensor,
        weight: Tensor | None = None,
        *,
        rician: bool = False,
        known: Mapping[str, Any] | None = None,
        nearer_field: Callable[[Tensor], Tensor] | None = None,
        hold_field: bool = False,
    ) -> Passed:
        """Return u after every step, (P, b, h, w) each, and its standard deviations; `from_state` turns u into
        estimates.

        Parameters
        ----------
        model
            Signal model, the same for the whole batch.
        S
            (b, N, h, w), in units of the image scale.
        sigma
            (b,), in the same unit.
        weight
            (b, h, w), zero if there is no tissue (for the start alone).
        rician
            Whether the likelihood is Rician.
        known
            Parameters that are given: numbers or maps (b, h, w), by name.
        nearer_field
            Returns the field (b, h, w) to start from, given the one that was found.
        hold_field
            Whether the field stays as it is at the start, as it does where all voxels of a series have determined it.
        """
        config, layout = self.config, Layout.of(model)
        images = S.detach().movedim(1, 0)  # (N, b, h, w)
        s = sigma[:, None, None].to(S.dtype)
        sums_at = data_term(model, images, s if rician else None, known or {})
        problem = Problem(model, images, s, sums_at, known or {}, config.reference_time(layout))
        with torch.no_grad():
            carried = start(config.start, problem, weight)
            if nearer_field is not None:
                carried = at_field(problem, nearer_field(carried[layout.n_amplitudes]))
        u = to_state(config, layout, carried)
        bounds = box(config, layout)
        deviation, h = None, None
        steps: list[Tensor] = []
        for _ in range(config.n_steps):
            with torch.no_grad():
                here = u.detach()
                carried = from_state(config, layout, here)
                sums = sums_at(carried)  # ∇κ, new at each step
                quadratic = Quadratic.of(config, layout, carried, sums, s)
                unit = units(config, quadratic)
                inputs = cell_inputs(config, here, sums, quadratic, model.n_images)
            if config.inputs[0] == "state":  # the estimate itself stays in the graph
                of_state = replace(config, inputs=("state",))
                inputs[: config.n_slots(layout)] = cell_inputs(of_state, u, sums, quadratic, model.n_images)
            with torch.autocast(S.device.type, torch.bfloat16, enabled=self.mixed and self.training):
                delta, h = self.cell(torch.stack(inputs, 1), h)  # Eq. 4
            update, log_sd = config.of_carried(layout, delta.movedim(1, 0).to(u.dtype))
            if hold_field and layout.field is not None:
                update[layout.n_amplitudes] = torch.zeros_like(u[0])
            u = moved(config, u, update, unit, bounds)  # Eq. 5
            steps.append(u)
            deviation = sd_of(config, log_sd, unit) if config.sd_outputs else None
        return Passed(steps, deviation)


def data_term(
    model: SignalModel, images: Tensor, rician_sigma: Tensor | None, known: Mapping[str, Any]
) -> Callable[[Tensor], Sums]:
    """Return the function from an estimate (P, b, h, w) to its `Sums`: from a table on the CPU, by its definition
    elsewhere.
    """
    if images.device.type != "cpu" or images.dtype != torch.float32:
        return lambda carried: data_sums(model, images, carried, rician_sigma, known)
    sigma = np.ones((1, 1, 1), np.float32) if rician_sigma is None else rician_sigma.numpy()
    as_arrays = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in known.items()}
    term = DataTerm(model, images.numpy(), sigma, rician_sigma is not None, known=as_arrays)
    return lambda carried: Sums(*(torch.from_numpy(np.ascontiguousarray(x)) for x in term(carried.numpy())))
