"""The ResNet of §4.4.3: from N weighted images straight to the maps."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

#: Channels of the blocks, as §4.4.3 of the paper lists them.
WIDTHS = (40, 40, 80, 80, 160, 320, 160, 80, 80, 40, 6)


class ResidualBlock(nn.Module):
    """conv3×3 → BatchNorm → ReLU → conv3×3 → BatchNorm, plus the input, → ReLU."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.skip = nn.Conv2d(before, width, 1, bias=False) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, width, h, w)."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + (x if self.skip is None else self.skip(x)))


class ResNet(nn.Module):
    """Λ_φ: (b, N, h, w) → A, B, T/1000 ms (b, Q, h, w).

    Parameters
    ----------
    n_images
        N; one network serves one N.
    n_parameters
        Q.

    Deviations
    ----------
    - The paper says G = 12 blocks and lists 11 widths; these are the 11 that are listed.
    - It does not say how an input of another width is added: by a 1×1 convolution here (He et al. 2016).
    - BatchNorm keeps running statistics, which mapping uses. The authors' package keeps none: there the map of a
      voxel depends on everything else in the image, and a phantom is not normalised as a brain was.
    """

    def __init__(self, n_images: int, n_parameters: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_images, widths[0], 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.ModuleList(ResidualBlock(a, width) for a, width in zip((widths[0], *widths), widths))
        self.output = nn.Conv2d(widths[-1], n_parameters, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, S: Tensor) -> Tensor:
        """Return the maps of images in units of the image scale."""
        y = torch.relu(self.norm(self.first(S.contiguous(memory_format=torch.channels_last))))
        for block in self.blocks:
            y = block(y)
        return cast(Tensor, self.output(y))
