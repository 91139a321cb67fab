"""Write a trained network as ONNX, with its recipe inside.

The graphs are written node by node: they are small, and so they need no tracing and hold nothing but the network,
with BatchNorm folded into the convolutions. A sum of two convolutions (a gate of a GRU) is fused by ONNX Runtime, with
the activation that follows; their concatenated inputs would be copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rimap.estimators.network_files import METADATA
from rimap.estimators.networks.resnet import ResNet
from rimap.estimators.networks.rnn_cell import RNNCell

#: Versions of ONNX that the oldest allowed ONNX Runtime reads.
OPSET = 17
_IR_VERSION = 8
#: Channels that ONNX Runtime computes at a time. What is over is a convolution of its own, not filled up with zeros.
_BLOCK = 16


class _Graph:
    """Nodes and weights of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._n = 0

    def op(self, kind: str, *inputs: str, out: str = "", n_out: int = 1, **attributes: Any) -> Any:
        self._n += 1
        names = (
            [out or f"{kind.lower()}{self._n}"]
            if n_out == 1
            else [f"{kind.lower()}{self._n}_{index}" for index in range(n_out)]
        )
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if n_out == 1 else names

    def weight(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def conv(
        self, name: str, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None, out: str = ""
    ) -> str:
        k = weight.shape[-1]
        inputs = [x, self.weight(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.weight(f"{name}.bias", bias))
        return str(self.op("Conv", *inputs, out=out, kernel_shape=[k, k], pads=[k // 2] * 4))

    def model(self, inputs: Mapping[str, int], outputs: Mapping[str, int], metadata: Mapping[str, Any]) -> ModelProto:
        def values(of: Mapping[str, int]) -> list[Any]:
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", value, "h", "w"]) for n, value in of.items()
            ]

        graph = helper.make_graph(self.nodes, "rimap", values(inputs), values(outputs), self.weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="rimap"
        )
        helper.set_model_props(model, {METADATA: json.dumps(dict(metadata))})
        onnx.checker.check_model(model)
        return model


def _array(tensor: Any) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float32)


def cell_to_onnx(cell: RNNCell, metadata: Mapping[str, Any]) -> ModelProto:
    """Return the ONNX model of a cell: x, h1, h2 → delta, h1_next, h2_next, all (b, ·, h, w)."""
    g = _Graph()
    F, C = cell.gru1.hidden_size, cell.conv1.in_channels

    def conv(name: str, x: str, out: str = "") -> str:
        module = getattr(cell, name)
        return g.conv(name, x, _array(module.weight), _array(module.bias), out)

    def first() -> str:
        whole, rest = C - C % _BLOCK, C % _BLOCK
        if not whole or not rest:
            return conv("conv1", "x")
        g.weights.append(numpy_helper.from_array(np.array([whole, rest]), "parts"))
        x, y = g.op("Split", "x", "parts", n_out=2, axis=1)
        weight, bias = _array(cell.conv1.weight), _array(cell.conv1.bias)
        some = g.conv("conv1.rest", y, weight[:, whole:])
        return str(g.op("Add", some, g.conv("conv1", x, weight[:, :whole], bias)))

    def gru(name: str, x: str, h: str, out: str) -> str:
        module = getattr(cell, name)
        wi, wh = _array(module.weight_ih)[..., None, None], _array(module.weight_hh)[..., None, None]
        bi, bh = _array(module.bias_ih), _array(module.bias_hh)

        def gate(k: str, i: int) -> str:
            part = slice(i * F, (i + 1) * F)
            past = g.conv(f"{name}.{k}h", h, wh[part])
            return str(g.op("Sigmoid", g.op("Add", past, g.conv(f"{name}.{k}x", x, wi[part], bi[part] + bh[part]))))

        n = slice(2 * F, 3 * F)
        past = g.op("Mul", gate("r", 0), g.conv(f"{name}.hn", h, wh[n], bh[n]))
        new = g.op("Tanh", g.op("Add", past, g.conv(f"{name}.xn", x, wi[n], bi[n])))
        # h' = n + z (h − n)
        return str(g.op("Add", new, g.op("Mul", gate("z", 1), g.op("Sub", h, new)), out=out))

    y = g.op("Tanh", first())
    h1 = gru("gru1", y, "h1", "h1_next")
    y = g.op("Tanh", conv("conv2", h1))
    y = g.op("Tanh", conv("conv3", y))
    h2 = gru("gru2", y, "h2", "h2_next")
    conv("output", h2, "delta")
    Q = cell.output.out_channels
    return g.model({"x": C, "h1": F, "h2": F}, {"delta": Q, "h1_next": F, "h2_next": F}, metadata)


def resnet_to_onnx(network: ResNet, metadata: Mapping[str, Any]) -> ModelProto:
    """Return the ONNX model of a ResNet: S (b, N, h, w) → kappa (b, Q, h, w)."""
    g = _Graph()

    def folded(name: str, x: str, conv: Any, norm: Any) -> str:
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        shift = _array(norm.bias) - scale * _array(norm.running_mean)
        return g.conv(name, x, _array(conv.weight) * scale[:, None, None, None], shift)

    y = g.op("Relu", folded("first", "S", network.first, network.norm))
    for index, block in enumerate(network.blocks):
        b: Any = block
        v = folded(f"{index}.2", g.op("Relu", folded(f"{index}.1", y, b.conv1, b.norm1)), b.conv2, b.norm2)
        skip = y
        if b.skip is not None:
            skip = g.conv(f"{index}.skip", y, _array(b.skip.weight), np.zeros(b.skip.out_channels, np.float32))
        y = g.op("Relu", g.op("Add", v, skip))
    g.conv("output", y, _array(network.output.weight), _array(network.output.bias), "kappa")
    return g.model({"S": network.first.in_channels}, {"kappa": network.output.out_channels}, metadata)


def save_onnx(model: ModelProto, path: Path | str) -> None:
    """Write an ONNX model whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_bytes(model.SerializeToString())
    part.replace(path)
