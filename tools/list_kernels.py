"""Write the list of the kernels that each run needs (`rimap.compiling`): `python -m tools.list_kernels`.

A small simulated series of each sequence is mapped with each estimator, in a process of its own, which says which
kernels were called with arguments of which types. Then each kernel is compiled once more, to see how long that takes.
To be run again when kernels or the types of their arguments have changed; tests/test_compiling.py tells when.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rimap.compiling import LIST, Kernel, called

ESTIMATORS = ("nlls", "mle", "rim")


def kernels_of(run: str) -> list[tuple[str, str]]:
    """Return the kernels that a run calls, found in a process of its own; none if the estimator does not map it."""
    command = [sys.executable, "-m", "tools.list_kernels", run]
    for _ in range(2):  # in the first run kernels are compiled that only other kernels call; the second one loads them
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{run}: {done.stderr}")
    return [(name, arguments) for name, arguments in json.loads(done.stdout)]


def show(run: str) -> None:
    """Map a series of a sequence and print which kernels that called."""
    from rimap.workflow.warm_up import map_examples

    model, estimator = run.split("/")
    mapped = map_examples(model, estimator)
    print(json.dumps(sorted(called()) if mapped else []))


def main() -> None:
    """Write the list."""
    from rimap.signals import signal_models

    if len(sys.argv) > 1:
        show(sys.argv[1])
        return
    runs: dict[tuple[str, str], list[str]] = {}
    for model in sorted(signal_models()):
        for estimator in ESTIMATORS:
            run = f"{model}/{estimator}"
            found = kernels_of(run)
            print(f"{run}: {len(found)} kernels", flush=True)
            for kernel in found:
                runs.setdefault(kernel, []).append(run)
    some = [Kernel(name, tuple(json.loads(arguments)), seconds(name, arguments)) for name, arguments in sorted(runs)]
    lines = [
        json.dumps(
            {
                "name": kernel.name,
                "arguments": kernel.arguments,
                "seconds": kernel.seconds,
                "runs": runs[kernel.name, json.dumps(kernel.arguments)],
            }
        )
        for kernel in some
    ]
    Path(LIST).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


#: Compile a kernel with what it calls, and print how long that took, s.
ALONE = """
import importlib, json, sys, time
from numba.core.caching import NullCache
from rimap import kernels
from rimap.compiling import typed
module, name = sys.argv[1].split(":")
kernel, arguments = getattr(importlib.import_module(module), name), tuple(map(typed, json.loads(sys.argv[2])))
for made in kernels.MADE:
    made._cache = NullCache()  # so that it is compiled, and not loaded
begun = time.perf_counter()
kernel.compile(arguments)
print(round(time.perf_counter() - begun, 1))
"""


def seconds(name: str, arguments: str) -> float:
    """Return how long a kernel takes to compile in a process of its own, s."""
    command = [sys.executable, "-c", ALONE, name, arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
