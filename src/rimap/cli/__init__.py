"""The command line: one file per verb, found by listing this folder. It contains no physics.

Each verb imports what it needs when it runs, so that `rimap --help` needs neither numpy nor torch.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import sys
from typing import Annotated

import typer

from rimap.cli._command import Command, Group
from rimap.cli._guard import guarded

#: Packages whose versions a bug report needs: the required ones, and those of the extras.
_VERSIONS = (
    ("numpy", "scipy", "numba", "nibabel", "onnxruntime", "matplotlib"),
    ("torch", "dcm2niix", "pydicom", "itk-elastix", "distributed"),
)


def versions() -> list[str]:
    """Return lines with the versions of rimap, Python and the main packages, without the names of user and machine."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    from rimap import __version__

    lines = [f"rimap {__version__}", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    for names in _VERSIONS:
        found = []
        for name in names:
            try:
                found.append(f"{name} {version_of(name)}")
            except PackageNotFoundError:
                found.append(f"no {name}")
        lines.append(", ".join(found))
    return lines


def _version(wanted: bool) -> None:
    if wanted:
        print("\n".join(versions()))
        raise typer.Exit


def _warm_up(wanted: bool) -> None:
    if wanted:
        from rimap.workflow.warm_up import warm_up

        print("Compiling for this processor. This takes a few minutes, once for this installation.", flush=True)
        done = warm_up(lambda line: print(f"  {line}", flush=True))
        print(
            f"{done.kernels} kernels compiled in {done.seconds:.0f} s." if done.kernels else "Nothing left to compile."
        )
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the versions of rimap and the packages it uses."
        ),
    ] = False,
    warm_up: Annotated[
        bool,
        typer.Option(
            "--warm-up",
            callback=_warm_up,
            is_eager=True,
            help="Compile all kernels for this processor, so that the first run starts at once.",
        ),
    ] = False,
) -> None:
    """Estimate T1, T2 or T2* maps from a series of MR images. Start with `rimap demo` or `rimap map INPUT -o OUT`."""


def verbs() -> list[str]:
    """Return the verbs, `map` first: the modules of this folder without a leading underscore."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return sorted(names, key=lambda name: (name != "map", name))


def build(only: str | None = None) -> typer.Typer:
    """Return the application, with one verb only if it is known which one runs.

    The file of each verb has a function `command`, whose docstring is the help text.
    """
    app = typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    for name in verbs() if only is None else [only]:
        module = importlib.import_module(f"{__name__}.{name}")
        no_args_is_help = getattr(module, "NO_ARGS_IS_HELP", False)
        app.command(name, cls=Command, no_args_is_help=no_args_is_help)(guarded(module.command))
    return app


def main() -> None:
    """Run the command line (the entry point `rimap`)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # print σ as ? on a terminal that supports ASCII only
    asked = sys.argv[1] if len(sys.argv) > 1 else None
    build(asked if asked in verbs() else None)(prog_name="rimap")
