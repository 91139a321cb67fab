"""Average the weights of two networks of one design, the second trained on from the first.

python -m benchmarks.average runs/t1/t1.onnx runs/t1_ringing/t1.onnx 0.3 -o runs/t1_averaged/t1.onnx

Between a network and what it became on other data are networks that keep what the first does well and gain most of what
the second learnt, without any training (Wortsman et al. 2022, arXiv:2109.01903).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from rimap.errors import InputError
from rimap.estimators.network_files import METADATA, metadata_of, path_of
from rimap.estimators.networks.export import save_onnx
from rimap.estimators.networks.restore import written_anew


def average(first: str, second: str, share: float) -> onnx.ModelProto:
    """Return a network with weights (1 − share)·first + share·second, the metadata of `second`, and its origin."""
    a, b = written_anew(first), written_anew(second)
    theirs = {i.name: numpy_helper.to_array(i) for i in b.graph.initializer}
    if {i.name: tuple(i.dims) for i in a.graph.initializer} != {k: v.shape for k, v in theirs.items()}:
        raise InputError(f"{first} and {second} are not of one design.")
    for i in a.graph.initializer:
        own = numpy_helper.to_array(i)
        if own.dtype == np.float32:
            mean = ((1 - share) * own + share * theirs[i.name]).astype(np.float32)
            i.CopyFrom(numpy_helper.from_array(mean, i.name))
    about = [metadata_of(path_of(n)) for n in (first, second)]
    mixed = about[1] | {
        "averaged": [{"iterations": m["iterations"], "share": s} for m, s in zip(about, (1 - share, share))],
        "iterations": sum(m["iterations"] for m in about),
        "figures": {},
    }
    onnx.helper.set_model_props(a, {METADATA: json.dumps(mixed)})
    return a


def main() -> None:
    """Write the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("share", type=float, help="of the second, 0 to 1")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_onnx(average(args.first, args.second, args.share), args.out)


if __name__ == "__main__":
    main()
