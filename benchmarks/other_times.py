"""Make of a ResNet's checkpoint one for another protocol of its sequence, to train on from.

python -m benchmarks.other_times runs/resnet_t1_31/last.safetensors IV_T1 HP_T1 -o runs/resnet_t1_23_start.safetensors

The first layer is 1×1: it reads the images of a voxel. It is multiplied by the matrix that best predicts the images at
the old times from those at the new ones, over tissues and noise; all other layers stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from rimap import PROTOCOLS
from rimap.io.atomic import write_whole
from rimap.signals.base import SignalModel

N_TISSUES, SIGMA, FIRST = 40_000, 0.05, "network.first.weight"


def images_from(old: SignalModel, new: SignalModel) -> NDArray[np.float64]:
    """Return M (N_old, N_new), with S_old ≈ M S_new: least squares over tissues of any T1, with noise."""
    rng = np.random.default_rng(0)
    A, B = rng.uniform(0.3, 1.2, N_TISSUES), rng.uniform(1.5, 2.1, N_TISSUES)
    kappa = np.stack([A, B, np.exp(rng.uniform(np.log(150), np.log(4500), N_TISSUES))])
    S_old, S_new = old.signal(kappa), new.signal(kappa)
    power = S_new @ S_new.T + N_TISSUES * SIGMA**2 * np.eye(len(S_new))
    return np.asarray(np.linalg.solve(power, S_new @ S_old.T).T)


def main() -> None:
    """Write the checkpoint without Adam's moments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("old", choices=sorted(PROTOCOLS))
    parser.add_argument("new", choices=sorted(PROTOCOLS))
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    M = images_from(PROTOCOLS[args.old], PROTOCOLS[args.new])
    weights = {k: v for k, v in load_file(args.checkpoint).items() if k.startswith("network.")}
    weights[FIRST] = (weights[FIRST][:, :, 0, 0] @ M)[:, :, None, None].astype(np.float32)
    write_whole(args.out, save(weights))


if __name__ == "__main__":
    main()
