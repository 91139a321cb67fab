"""Run every benchmark: `python -m benchmarks`, or those that are named: `python -m benchmarks nlls peers`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Run the `main()` of each bench_*.py that has one."""
    names = sorted(f.stem for f in Path(__file__).parent.glob("bench_*.py"))
    if chosen := sys.argv[1:]:
        unknown = [c for c in chosen if f"bench_{c}" not in names]
        if unknown:
            sys.exit(f"no benchmark {unknown[0]!r}: there are {', '.join(n.removeprefix('bench_') for n in names)}")
        names = [f"bench_{c}" for c in chosen]
    for name in names:
        run = getattr(importlib.import_module(f"benchmarks.{name}"), "main", None)
        if run is not None:
            print(f"\n{name.removeprefix('bench_')}", flush=True)
            sys.argv = [name]
            run()


if __name__ == "__main__":
    main()
