"""The RIM in training: the loop of Eqs. 4–5 around the cell, over torch tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rimap.estimators.networks.rnn_cell import RNNCell
from rimap.estimators.rim.data_term import Sums, data_sums
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.loop import Quadratic, RIMConfig, box, cell_inputs, from_state, moved, to_state, units
from rimap.estimators.rim.start import at_B, start
from rimap.signals.base import SignalModel


class RIM(nn.Module):
    """Recurrent inference machine (§3).

    Parameters
    ----------
    config
        What the loop feeds and how an update is applied.
    n_parameters
        Q.
    mixed
        Compute the cell in bfloat16 in training (weights and all else stay single precision).

    Notes
    -----
    The gradient is evaluated at detached estimates, as in the authors' package: training goes back through the
    estimates and the memory, not through ∇L.
    """

    def __init__(self, config: RIMConfig, n_parameters: int, *, mixed: bool = False) -> None:
        super().__init__()
        self.config = config
        self.mixed = mixed
        self.cell = RNNCell(
            config.channels(n_parameters), n_parameters, config.features, zero_output=config.zero_output
        )

    def forward(
        self,
        model: SignalModel,
        S: Tensor,
        sigma: Tensor,
        weight: Tensor | None = None,
        *,
        rician: bool = False,
        nearer_B: Callable[[Tensor], Tensor] | None = None,
    ) -> list[Tensor]:
        """Return u after every step, J tensors (Q, b, h, w); `from_state` turns them into κ.

        Parameters
        ----------
        model
            Signal model, the same for the whole batch.
        S
            (b, N, h, w), in units of the image scale.
        sigma
            (b,), likewise.
        weight
            (b, h, w), zero where there is no tissue (for the start alone).
        rician
            Whether the likelihood is Rician.
        nearer_B
            Returns the B (b, h, w) to start from, given the one that was found.
        """
        config = self.config
        images = S.detach().movedim(1, 0)  # (N, b, h, w)
        s = sigma[:, None, None].to(S.dtype)
        sums_at = data_term(model, images, s if rician else None)
        with torch.no_grad():
            kappa = start(config.start, model, images, s, sums_at, weight)
            if nearer_B is not None:
                kappa = at_B(model, images, nearer_B(kappa[1]), s, sums_at)
        u = to_state(config, kappa)
        bounds = box(config, model)
        h, steps = None, []
        for _ in range(config.n_steps):
            with torch.no_grad():
                here = u.detach()
                kappa = from_state(config, here)
                sums = sums_at(kappa)  # ∇κ, new at each step
                quadratic = Quadratic.of(config, kappa, sums, s)
                unit = units(config, quadratic)
                inputs = cell_inputs(config, here, sums, quadratic, model.n_images)
            if config.inputs[0] == "state":  # the estimate itself stays in the graph
                inputs[: len(u)] = cell_inputs(_STATE_OF[config.state], u, sums, quadratic, model.n_images)
            with torch.autocast(S.device.type, torch.bfloat16, enabled=self.mixed and self.training):
                delta, h = self.cell(torch.stack(inputs, 1), h)  # Eq. 4
            u = moved(config, u, delta.movedim(1, 0).to(u.dtype), unit, bounds)  # Eq. 5
            steps.append(u)
        return steps


_STATE_OF = {s: RIMConfig(inputs=("state",), state=s) for s in ("linear", "log")}


def data_term(model: SignalModel, images: Tensor, rician_sigma: Tensor | None) -> Callable[[Tensor], Sums]:
    """Return the function κ (Q, b, h, w) → `Sums`: from a table on the CPU, by its definition elsewhere."""
    if images.device.type != "cpu" or not model.separable or images.dtype != torch.float32:
        return lambda kappa: data_sums(model, images, kappa, rician_sigma)
    sigma = np.ones((1, 1, 1), np.float32) if rician_sigma is None else rician_sigma.numpy()
    term = DataTerm(model, images.numpy(), sigma, rician_sigma is not None)
    return lambda kappa: Sums(*(torch.from_numpy(np.ascontiguousarray(x)) for x in term(kappa.numpy())))
