"""The RNNCell of §4.4.4: two convolution blocks, each followed by a voxelwise gated recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rimap.estimators.networks.voxelwise_gru import VoxelwiseGRU

#: h¹ and h², each (b·h·w, features): one row a voxel.
Memory = tuple[Tensor, Tensor]


class RNNCell(nn.Module):
    """Eq. 4: conv3×3 → tanh → GRU → conv3×3 → tanh → conv3×3 → tanh → GRU → conv1×1.

    Parameters
    ----------
    channels
        Input channels; 2Q in the paper.
    n_parameters
        Q.
    features
        Width; 36.
    zero_output
        Start the last layer at zero.

    Notes
    -----
    41,475 parameters for Q = 3 and 6 channels.

    Deviations
    ----------
    - The paper does not say how wide the kernels of the GRUs are; as in the authors' package they are 1×1.
    - That package has ReLU where the paper says tanh; this has tanh.
    - Kaiming initialisation (§4.4.2) for the convolutions, with the gain of tanh; torch's default for the GRUs.
    """

    def __init__(self, channels: int, n_parameters: int, features: int = 36, *, zero_output: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, padding=1)
        self.gru1 = VoxelwiseGRU(features, features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv3 = nn.Conv2d(features, features, 3, padding=1)
        self.gru2 = VoxelwiseGRU(features, features)
        self.output = nn.Conv2d(features, n_parameters, 1)
        for conv in (self.conv1, self.conv2, self.conv3, self.output):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="tanh" if conv is not self.output else "linear")
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
        if zero_output:
            nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, h: Memory | None = None) -> tuple[Tensor, Memory]:
        """Return Δκ̂ (b, Q, h, w) and the new memory.

        Parameters
        ----------
        x
            (b, channels, h, w).
        h
            The memory of the step before; `None` at the first.
        """
        b, _, height, width = x.shape
        if h is None:
            zero = x.new_zeros(b * height * width, self.gru1.hidden_size)
            h = (zero, zero)
        y = torch.tanh(self.conv1(x.contiguous(memory_format=torch.channels_last)))
        h1 = self.gru1(_rows(y), h[0])
        y = torch.tanh(self.conv2(_maps(h1, b, height, width)))
        y = torch.tanh(self.conv3(y))
        h2 = self.gru2(_rows(y), h[1])
        return self.output(_maps(h2, b, height, width)), (h1, h2)


def _rows(y: Tensor) -> Tensor:
    """View (b, F, h, w) in channels-last memory as (b·h·w, F)."""
    return y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])


def _maps(rows: Tensor, b: int, height: int, width: int) -> Tensor:
    return rows.view(b, height, width, -1).permute(0, 3, 1, 2)
