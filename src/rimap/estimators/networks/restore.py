"""Read the weights of a trained network back into torch, to train on from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn

from rimap.errors import InputError
from rimap.estimators.networks.rim import RIM
from rimap.estimators.shipped import path_of


def weights_of(source: str, network: nn.Module) -> dict[str, Tensor]:
    """Return the weights for `network` from a network that ships, an exported RIM or a checkpoint.

    Raises
    ------
    InputError
        For an exported ResNet: its BatchNorm is folded away; a checkpoint still has it.
    """
    if source.endswith(".safetensors"):
        if not Path(source).exists():
            raise InputError(f"no checkpoint at {source}.")
        tensors = load_file(source)
        prefix = "average." if any(k.startswith("average.") for k in tensors) else "network."
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if not isinstance(network, RIM):
        raise InputError("a ResNet goes on from a checkpoint (.safetensors), not from an exported file.")
    graph = onnx.load(str(path_of(source))).graph
    values = {i.name: np.array(numpy_helper.to_array(i)) for i in graph.initializer}
    return {f"cell.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in _cell(values).items()}


def _cell(v: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a cell from those of its fused graph (the biases of r and z are one there)."""
    out = {f"{c}.{k}": v[f"{c}.{k}"] for c in ("conv1", "conv2", "conv3", "output") for k in ("weight", "bias")}
    for g in ("gru1", "gru2"):
        F = len(v[f"{g}.xn.bias"])
        r, z, xn, hn = (v[f"{g}.{k}.weight"][..., 0, 0] for k in ("r", "z", "xn", "hn"))
        out[f"{g}.weight_ih"] = np.concatenate([r[:, :F], z[:, :F], xn])
        out[f"{g}.weight_hh"] = np.concatenate([r[:, F:], z[:, F:], hn])
        out[f"{g}.bias_ih"] = np.concatenate([v[f"{g}.{k}.bias"] for k in ("r", "z", "xn")])
        out[f"{g}.bias_hh"] = np.concatenate([np.zeros(2 * F, np.float32), v[f"{g}.hn.bias"]])
    return out
