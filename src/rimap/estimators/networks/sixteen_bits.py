"""Store the weights of a network as 16-bit integers: half of the file, while all computation stays in float32.

Each output channel of a convolution has integers and one scale. Two nodes before the convolution, Cast and Mul, make
float32 of them; ONNX Runtime evaluates these once, when it loads the file. Float16 would be simpler but is less
accurate: of its 16 bits only 11 are the significand, and T1 of a ResNet changes by up to 0.5 % instead of 0.1 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from onnx import ModelProto

#: A convolution with fewer weights stays as it is: it is a small part of the file, and T2 of `resnet_t2` depends on its
#: last digits.
FEWEST_WEIGHTS = 5_000
#: From so many weights on, the integers have `BITS_OF_MANY` bits: their rounding averages out, and a wheel compresses
#: them further.
MANY_WEIGHTS = 100_000
#: Bits of a weight; a large array keeps fewer, which compress better.
BITS, BITS_OF_MANY = 16, 13


def quantised(weight: NDArray[np.float32], bits: int) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Return integers (C, …) of at most so many bits and the scale (C, 1, …) of each output channel: weight ≈ scale ·
    integer.
    """
    largest = abs(weight).reshape(len(weight), -1).max(1).reshape(-1, *(1,) * (weight.ndim - 1))
    scale = np.where(largest > 0, largest, 1) / (2 ** (bits - 1) - 1)
    return np.round(weight / scale).astype(np.int16), scale.astype(np.float32)


def in_sixteen_bits(model: ModelProto) -> ModelProto:
    """Return a copy of an ONNX model with the weights of its large convolutions as 16-bit integers.

    Weights that are integers already are kept, so that a second call changes nothing.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    kept, nodes = [], []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 4 or np.prod(tensor.dims) < FEWEST_WEIGHTS:
            kept.append(tensor)
            continue
        weight = numpy_helper.to_array(tensor)
        name = tensor.name
        integers, scale = quantised(weight, BITS if weight.size < MANY_WEIGHTS else BITS_OF_MANY)
        kept += [numpy_helper.from_array(integers, f"{name}.integers"), numpy_helper.from_array(scale, f"{name}.scale")]
        nodes += [
            helper.make_node("Cast", [f"{name}.integers"], [f"{name}.unscaled"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.unscaled", f"{name}.scale"], [name]),
        ]
    nodes += list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(out)
    return out
