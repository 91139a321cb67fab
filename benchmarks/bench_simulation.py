"""How long a batch of training patches takes on one core: 24 patches of 40×40.

OMP_NUM_THREADS=1 python -m benchmarks.bench_simulation
"""

from __future__ import annotations

import time
from dataclasses import replace

from rimap.signals.paper_protocols import PROTOCOLS
from rimap.simulation.anatomies import load_anatomies
from rimap.simulation.patches import simulate_batch
from rimap.simulation.recipe import PatchRecipe, general_t1, general_t2, paper


def best_of(recipe: PatchRecipe, repeats: int = 15) -> float:
    """Return the least time of a batch, ms."""
    anatomies = load_anatomies(["builtin"])
    seconds = []
    for index in range(repeats):
        start = time.perf_counter()
        simulate_batch(recipe, anatomies, index, 24)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


def main() -> None:
    """Print the table."""
    cases = {
        "paper, T1, N = 31": paper(),
        "paper, T2, N = 6": paper("t2"),
        "general, T1, N = 31": replace(general_t1(), times_ms=tuple(PROTOCOLS["IV_T1"].times)),
        "general, T1, N drawn": general_t1(),
        "general, T2, N drawn": general_t2(),
    }
    print("24 patches of 40×40, one core, best of 15 batches (drawn N: the quickest one)")
    for name, recipe in cases.items():
        print(f"  {name:<22} {best_of(recipe):6.1f} ms")


if __name__ == "__main__":
    main()
