"""Compile the kernels of a run side by side, before it begins.

numba compiles one kernel at a time, because it holds a lock while it does. Several processes that each compile a part
of the kernels, and keep them on disk, take less time. Which kernels a run needs, and for which types of arguments, is
on a list (`kernels_of_runs.json`; `python -m tools.list_kernels` writes it). What is missing there is compiled when it
is called, as ever.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rimap import kernels
from rimap.processors import cores

if TYPE_CHECKING:
    import subprocess

    from numba.core import types

#: How a type of numba is spelled: see `spelled`.
Spelling = str | list["Spelling"]
LIST = Path(__file__).with_name("kernels_of_runs.json")
#: More processes would all wait for the one that compiles the longest kernel.
_MOST_PROCESSES = 4
#: Work for less than this is not worth a process of its own, which imports numba first, s.
_LEAST_S = 3.0
#: A process is not waited for longer: kernels that it did not compile are compiled when they are called, s.
_LONGEST_S = 180.0
#: What a process locks while it compiles.
_LOCK = "compiling.lock"


@dataclass(frozen=True)
class Kernel:
    """A kernel and the types of its arguments.

    Parameters
    ----------
    name
        Module and name, as in "rimap.estimators.sigma_kernels:histogram".
    arguments
        What `spelled` says of the type of each argument.
    seconds
        How long it takes to compile, s.
    """

    name: str
    arguments: tuple[Spelling, ...]
    seconds: float


def compile_ahead(model: str, estimator: str, threads: int | None = None) -> float:
    """Compile the kernels that a run needs and that are not kept on disk yet; return how long that took, s.

    Nothing is raised: a kernel that cannot be compiled now is compiled when it is called.

    Parameters
    ----------
    model, estimator
        The sequence and the estimator, as in "ir" and "nlls".
    threads
        How many processes may be used; by default as many as there are processors. With one, kernels are compiled when
        they are called.
    """
    begun = time.perf_counter()
    with contextlib.suppress(Exception):
        if (threads or cores()) > 1 and compile_all(listed({f"{model}/{estimator}"}), threads):
            return time.perf_counter() - begun
    return 0.0


def compile_all(some: Iterable[Kernel], threads: int | None = None) -> bool:
    """Compile those kernels that are not kept on disk yet, in as many processes as help; return whether there were any.

    Another process that compiles is waited for: it may need the same.
    """
    folder = kernels.kernel_folder()
    missing = [] if folder is None else _missing(some)
    if folder is None or not missing:
        return False
    with kernels.locked(folder / _LOCK, _LONGEST_S):
        waiting = deque(sorted(_missing(missing), key=lambda kernel: -kernel.seconds))
        number = min(threads or cores(), _MOST_PROCESSES, int(sum(kernel.seconds for kernel in waiting) / _LEAST_S))
        with contextlib.ExitStack() as stack:
            for _ in range(number - 1):
                stack.enter_context(_helper(waiting))
            compile_here(_taken(waiting))
    return True


def _missing(some: Iterable[Kernel]) -> list[Kernel]:
    """Return the kernels that exist and are not kept on disk."""
    found = []
    for kernel in some:
        with contextlib.suppress(Exception):  # a list of another version
            if not kernels.is_kept(*_made(kernel)):
                found.append(kernel)
    return found


def _made(kernel: Kernel) -> tuple[Any, tuple[types.Type, ...]]:
    """Return the dispatcher of a kernel and the types of its arguments."""
    module, name = kernel.name.split(":")
    return getattr(importlib.import_module(module), name), tuple(typed(argument) for argument in kernel.arguments)


def _taken(waiting: deque[Kernel]) -> Iterator[Kernel]:
    """Yield kernels until others have taken the rest."""
    with contextlib.suppress(IndexError):
        while True:
            yield waiting.popleft()


@contextlib.contextmanager
def _helper(waiting: deque[Kernel]) -> Iterator[None]:
    """Let another process take kernels too, and wait at the end until it has compiled its last."""
    import subprocess  # only a first run needs it

    if not sys.executable or getattr(sys, "frozen", False):  # that is another program than Python
        yield
        return
    # Without the current folder, and with the same packages as here.
    command = [sys.executable, "-P", "-m", "rimap.compiling"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=env)
    except OSError:  # no more processes: this one compiles all
        yield
        return
    try:
        feeder = threading.Thread(target=_feed, args=(process, waiting), daemon=True)
        feeder.start()
        yield
        feeder.join(_LONGEST_S)
    finally:
        process.kill()  # what it has compiled is on disk
        process.wait()


def _feed(process: subprocess.Popen[str], waiting: deque[Kernel]) -> None:
    """Give a process a kernel, and the next one each time it says that it has finished."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError, ValueError), process.stdin, process.stdout:  # it has ended
        for kernel in _taken(waiting):
            print(json.dumps([kernel.name, kernel.arguments, kernel.seconds]), file=process.stdin, flush=True)
            if not process.stdout.readline():
                return


def compile_here(some: Iterable[Kernel]) -> None:
    """Compile kernels in this process, and keep them on disk."""
    for kernel in some:
        with contextlib.suppress(Exception):  # a list of another version: compiled when it is called
            dispatcher, arguments = _made(kernel)
            dispatcher.compile(arguments)


def listed(runs: Collection[str], path: Path = LIST) -> list[Kernel]:
    """Return the kernels of runs ("ir/nlls"); none of a run that is not on the list."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [
        Kernel(entry["name"], tuple(entry["arguments"]), entry["seconds"])
        for entry in entries
        if not set(runs).isdisjoint(entry["runs"])
    ]


def called() -> set[tuple[str, str]]:
    """Return the kernels that Python has called in this process: name, and the arguments as JSON."""
    return {
        (f"{made.py_func.__module__}:{made.py_func.__qualname__}", json.dumps([spelled(t) for t in signature]))
        for made in kernels.MADE
        if "<locals>" not in made.py_func.__qualname__ and made.targetoptions.get("no_cpython_wrapper") is not True
        for signature in made.signatures
    }


def spelled(numba_type: object) -> Spelling:
    """Return a type of numba as text or lists of text.

    An array is "float32:2C" (with "r" if it cannot be written), a number "float64", a tuple a list of its types, and a
    named tuple a list that begins with its class.

    Raises
    ------
    TypeError
        If the type is of another kind.
    """
    from numba.core import types
    from numba.core.types.containers import BaseNamedTuple, BaseTuple

    if isinstance(numba_type, types.Array) and numba_type.aligned:
        return f"{numba_type.dtype}:{numba_type.ndim}{numba_type.layout}{'' if numba_type.mutable else 'r'}"
    if isinstance(numba_type, BaseNamedTuple):
        kind = numba_type.instance_class
        return [f"{kind.__module__}:{kind.__qualname__}", *map(spelled, numba_type)]
    if isinstance(numba_type, BaseTuple):
        return ["", *map(spelled, numba_type)]
    if isinstance(numba_type, types.Integer | types.Float | types.Boolean):
        return str(numba_type)
    raise TypeError(f"expected an array, a number or a tuple of these, got {numba_type}")


def typed(spelling: Spelling) -> types.Type:
    """Return the type of numba that `spelled` spelled."""
    from numba.core import types
    from numba.core.types.containers import BaseTuple

    if isinstance(spelling, str):
        dtype, colon, form = spelling.partition(":")
        scalar: types.Type = getattr(types, "boolean" if dtype == "bool" else dtype)
        layout: Any = form[1:2]
        return types.Array(scalar, int(form[0]), layout, readonly=form.endswith("r")) if colon else scalar
    kind, *rest = spelling
    inside = [typed(one) for one in rest]
    named: tuple[Any, ...] = ()
    if kind:
        module, _, name = str(kind).partition(":")
        named = (getattr(importlib.import_module(module), name),)
    return cast("types.Type", BaseTuple.from_types(inside, *named))


def main() -> None:
    """Compile the kernels that standard input lists, a line each, and say when each is compiled: what a helper does."""
    for line in sys.stdin:
        name, arguments, seconds = json.loads(line)
        compile_here([Kernel(name, tuple(arguments), seconds)])
        sys.stdout.write("compiled\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
