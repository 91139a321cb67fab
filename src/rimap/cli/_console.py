"""Console output of a run: a progress bar with the rate, lines of results, and warnings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rimap.kernels import announce_compiling

if TYPE_CHECKING:
    from rimap.workflow import Listener, Run

#: What the first run after an installation prints before it compiles.
COMPILING = (
    "rimap: compiling for this processor, once for this installation. `rimap --warm-up` does it ahead for all "
    "sequences."
)


@contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function to call with (done, total), or `None` if `quiet` or if standard error is not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        Rate(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def listener(*, quiet: bool = False) -> Listener:
    """Return a listener that shows a run on the console: warnings and, unless `quiet`, a progress bar and results."""
    from rimap.workflow import Listener

    if not quiet:
        announce_compiling(lambda: print(COMPILING, file=sys.stderr, flush=True))
    return Listener(
        progress=partial(progress_bar, quiet=quiet),
        say=_nothing if quiet else partial(print, flush=True),
        warn=lambda text: print(text if text.startswith("[") else f"rimap: {text}", file=sys.stderr),
    )


def show(lines: Iterable[str], *, error: bool = False) -> None:
    """Print lines to standard output or standard error."""
    for line in lines:
        print(line, file=sys.stderr if error else sys.stdout)


def show_run(run: Run, *, quiet: bool = False) -> None:
    """Print the summary of a run of `map_series`. If `quiet`, print only the warnings, to standard error."""
    from rimap.workflow import summary

    if not quiet:
        show(summary.lines(run))
    show(summary.warnings(run.results), error=quiet)
    if not quiet:
        show(summary.notes(run.results))
    show(summary.about_inputs(run), error=quiet)
    if not quiet:
        show(summary.kept(run))


def limit_threads(n: int | None) -> None:
    """Limit numerical libraries to `n` cores. Call it before they are imported, which is when they read the limit.

    Without a limit, linear algebra has one thread unless the user has set a number: rimap shares its voxels over the
    cores itself, and the matrices are small, so that more threads only wait for each other.
    """
    linear_algebra = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    every = ("OMP_NUM_THREADS", *linear_algebra, "NUMBA_NUM_THREADS")
    if n is not None:
        os.environ.update(dict.fromkeys(every, str(n)))
    elif not any(name in os.environ for name in ("OMP_NUM_THREADS", *linear_algebra)):
        os.environ.update(dict.fromkeys(linear_algebra, "1"))


def _nothing(text: str) -> None:
    """Print nothing."""
