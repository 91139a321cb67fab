"""The number of threads of numerical libraries is set before they read it, and that of the user is kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rimap.cli._console import limit_threads

ONE = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("before", "limit", "after"),
    [
        ({}, None, ONE),
        ({"NUMBA_NUM_THREADS": "2"}, None, {"NUMBA_NUM_THREADS": "2", **ONE}),
        ({"OMP_NUM_THREADS": "4"}, None, {"OMP_NUM_THREADS": "4"}),
        ({"OPENBLAS_NUM_THREADS": "4"}, None, {"OPENBLAS_NUM_THREADS": "4"}),
        (
            {"OPENBLAS_NUM_THREADS": "4"},
            3,
            {f"{name}_NUM_THREADS": "3" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")},
        ),
    ],
)
def test_linear_algebra_has_one_thread_unless_a_number_is_set(
    before: dict[str, str], limit: int | None, after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(before)
    monkeypatch.setattr(os, "environ", environment)
    limit_threads(limit)
    assert environment == after


def test_numpy_reads_the_limit_of_a_run() -> None:
    """When `rimap map` sets the limit, NumPy is not imported yet."""
    code = (
        "import sys\nfrom rimap.cli import _console, main\n"
        "def stop(n):\n    print(n, 'numpy' in sys.modules)\n    raise SystemExit\n"
        "_console.limit_threads = stop\nmain()"
    )
    command = [sys.executable, "-c", code, "map", ".", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["None", "False"], done.stderr
