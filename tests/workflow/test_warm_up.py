"""A warm-up compiles what is not compiled yet, and a second one nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: Warm up for one sequence and one estimator, and print how many kernels were compiled and which sequences were mapped.
RUN = """
import rimap, rimap.estimators, rimap.signals
from rimap.workflow.warm_up import warm_up
rimap.signals.signal_models = lambda: {"t2": rimap.T2Decay}
rimap.estimators.estimators = lambda: {"nlls": rimap.NLLS}
said = []
print(warm_up(said.append).kernels, len(said))
"""


def warmed(folder: Path) -> tuple[int, int]:
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", RUN], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels, sequences = done.stdout.split()
    return int(kernels), int(sequences)


def test_a_second_warm_up_compiles_nothing_and_maps_nothing_unless_a_kernel_is_gone(tmp_path: Path) -> None:
    assert warmed(tmp_path)[1] == 1
    assert list(tmp_path.rglob("*.nbc"))
    assert warmed(tmp_path) == (0, 0)
    for kernel in tmp_path.rglob("*climb*.nb?"):
        kernel.unlink()
    for kernel in tmp_path.rglob("*neighbour_plane*.nb?"):
        kernel.unlink()
    compiled, sequences = warmed(tmp_path)
    assert compiled > 0 and sequences == 1
    assert warmed(tmp_path) == (0, 0)
