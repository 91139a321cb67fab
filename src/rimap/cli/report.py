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
            metavar="FOLDER", help="Output of `rimap map` or `rimap bids`, maps of other software, or one map."
        ),
    ],
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Also replace pages whose source images are missing. They lose the measured signal."
        ),
    ] = False,
) -> None:
    """Write reports of existing maps.

    rimap reads the maps, their sidecars and, if they still exist, the source images. It estimates nothing. The pages
    are written next to the subjects of a data set, or else next to the maps. Maps of other software have no fitted
    curves.

    \b
    rimap report out/
    rimap report derivatives/other-software
    rimap report sub-01_T1map.nii.gz
    """
    import sys

    from rimap.errors import InputError
    from rimap.io.results import find_results, results_in
    from rimap.report.other_maps import find_other_maps, page_of_other_maps
    from rimap.report.page_rewriting import page_again

    found, failed = results_in(folder) if folder.exists() else [], 0
    others = find_other_maps(folder, found) if folder.exists() and not (found and folder.is_file()) else []
    if not found and not others:
        find_results(folder)  # raises the error that explains what was expected
    for result in found:
        try:
            again = page_again(result, overwrite=overwrite)
        except InputError as error:
            if len(found) == 1 and not others:
                raise
            failed += 1
            print(f"rimap: error: {result.main.name}: {error}", file=sys.stderr)
            continue
        print(again.page)
        if again.kept:
            print(f"  kept, because it shows the measured signal and {again.problem}. --overwrite replaces it.")
        elif again.problem:
            print(f"  without measured signal: {again.problem}")
    for other in others:
        try:
            print(page_of_other_maps(other))
        except InputError as error:
            if len(others) == 1 and not found:
                raise
            failed += 1
            print(f"rimap: error: {other.main.path.name}: {error}", file=sys.stderr)
    if failed:
        raise InputError(f"{failed} of {len(found) + len(others)} reports could not be made. The reasons are above.")
