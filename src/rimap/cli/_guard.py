"""Turn exceptions into what the user sees: one or two lines and an exit status."""

from __future__ import annotations

import errno
import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

import typer

from rimap.errors import InputError, PluginWarning

P = ParamSpec("P")


def guarded(verb: Callable[P, None]) -> Callable[P, None]:
    """Return the verb with its exceptions turned into exit statuses.

    2: the user can correct it (`InputError`, files that cannot be read or written). 130: interrupted.
    1: a bug in rimap; RIMAP_DEBUG=1 prints the traceback.
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with warnings.catch_warnings():
                if os.environ.get("RIMAP_DEBUG") != "1":
                    warnings.simplefilter("ignore")  # warnings of libraries; those of rimap are part of the results
                    warnings.filterwarnings("default", category=PluginWarning)
                    warnings.showwarning = _show
                verb(*args, **kwargs)
        except InputError as error:
            stop(2, f"error: {error}")
        except KeyboardInterrupt:
            stop(130, "interrupted.")
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # a closed pipe, as in `rimap … | head`: typer exits without a message
            if error.strerror is None:
                _defect(error)
            where = f" ({error.filename})" if error.filename else ""
            stop(2, f"error: {error.strerror}{where}.")
        except MemoryError:
            stop(2, "error: not enough memory. Use a machine with more, or --estimator nlls, which maps slab by slab.")
        except Exception as error:
            if isinstance(error, (typer.Exit, typer.Abort)):
                raise
            _defect(error)

    return run


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line, without the place in the code."""
    print(f"rimap: warning: {message}", file=sys.stderr)


def _defect(error: Exception) -> None:
    if os.environ.get("RIMAP_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    stop(
        1,
        f"bug: {what[:200]}\nThis is a bug in rimap, not a problem of your data. Please report it with the "
        "traceback that RIMAP_DEBUG=1 prints.",
    )


def stop(status: int, message: str) -> None:
    print(f"rimap: {message}", file=sys.stderr)
    raise typer.Exit(status) from None
