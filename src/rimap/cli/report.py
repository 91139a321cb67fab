"""`rimap report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NO_ARGS_IS_HELP = True


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Output of `rimap map` or `rimap bids`, a folder in it, or one T1 or T2 map."
        ),
    ],
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a page also where the images are gone, and with them its signal."),
    ] = False,
) -> None:
    """Make the reports of maps again, from the maps, their sidecars and, if still there, the images.

    The pages are written where they were, or would have been. Nothing is estimated.
    """
    import sys

    from rimap.errors import InputError
    from rimap.io.results import find_results
    from rimap.report.again import page_again

    found, failed = find_results(folder), 0
    for result in found:
        try:
            again = page_again(result, overwrite=overwrite)
        except InputError as error:
            if len(found) == 1:
                raise
            failed += 1
            print(f"rimap: error: {result.main.name}: {error}", file=sys.stderr)
            continue
        print(again.page)
        if again.kept:
            print(f"  left as it is, with the measured signal, since {again.problem}; --overwrite replaces it")
        elif again.problem:
            print(f"  without measured signal: {again.problem}")
    if failed:
        raise InputError(f"{failed} of {len(found)} reports could not be made, for the reasons above.")
