"""Read the weights of a trained network back into torch, to train on from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rimap.errors import InputError
from rimap.estimators.network_files import content_of, metadata_of, path_of
from rimap.estimators.networks.export import cell_to_onnx
from rimap.estimators.networks.rim import RIM
from rimap.estimators.networks.rnn_cell import RNNCell

if TYPE_CHECKING:
    from onnx import ModelProto


def weights_of(source: str, network: nn.Module) -> dict[str, Tensor]:
    """Return the weights for `network` from a network that ships, an exported RIM or a checkpoint.

    Raises
    ------
    InputError
        For an exported ResNet: its BatchNorm is folded away; a checkpoint still has it.
    """
    if source.endswith(".safetensors"):
        if not Path(source).is_file():
            raise InputError(f"no checkpoint at {source}.")
        try:
            tensors = load_file(source)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{source} cannot be read ({str(error).splitlines()[0][:120]}). Give another checkpoint, or leave out "
                f"init."
            ) from None
        prefix = "average." if any(tensor.startswith("average.") for tensor in tensors) else "network."
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if not isinstance(network, RIM):
        raise InputError("a ResNet: expected a checkpoint (.safetensors) to resume from, got an exported file.")
    return {
        f"cell.{key}": torch.from_numpy(np.ascontiguousarray(value)) for key, value in _cell(_values(source)).items()
    }


def written_anew(source: str) -> ModelProto:
    """Return the ONNX model of an exported RIM as this version writes it: the same network, perhaps faster."""
    about = metadata_of(path_of(source))
    values = _values(source)
    cell = _cell(values)
    Q, features, channels = len(cell["output.bias"]), len(cell["conv1.bias"]), cell["conv1.weight"].shape[1]
    module = RNNCell(channels, Q, features)
    module.load_state_dict({key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in cell.items()})
    return cell_to_onnx(module, about)


def _values(source: str) -> dict[str, NDArray[np.float32]]:
    graph = onnx.load_model_from_string(content_of(path_of(source))).graph
    return {i.name: np.array(numpy_helper.to_array(i)) for i in graph.initializer}


def _cell(v: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a cell from those of its graph (the biases of r and z are one there)."""
    out = {f"{c}.{k}": v[f"{c}.{k}"] for c in ("conv1", "conv2", "conv3", "output") for k in ("weight", "bias")}
    if "conv1.rest.weight" in v:
        out["conv1.weight"] = np.concatenate([out["conv1.weight"], v["conv1.rest.weight"]], 1)
    for g in ("gru1", "gru2"):
        F = len(v[f"{g}.xn.bias"])
        if f"{g}.r.weight" in v:  # of both inputs at once, as it was written at first
            for k in "rz":
                both = v[f"{g}.{k}.weight"]
                v[f"{g}.{k}x.weight"], v[f"{g}.{k}h.weight"] = both[:, :F], both[:, F:]
                v[f"{g}.{k}x.bias"] = v[f"{g}.{k}.bias"]
        out[f"{g}.weight_ih"] = np.concatenate([v[f"{g}.{k}.weight"][..., 0, 0] for k in ("rx", "zx", "xn")])
        out[f"{g}.weight_hh"] = np.concatenate([v[f"{g}.{k}.weight"][..., 0, 0] for k in ("rh", "zh", "hn")])
        out[f"{g}.bias_ih"] = np.concatenate([v[f"{g}.{k}.bias"] for k in ("rx", "zx", "xn")])
        out[f"{g}.bias_hh"] = np.concatenate([np.zeros(2 * F, np.float32), v[f"{g}.hn.bias"]])
    return out
