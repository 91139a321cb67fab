"""`rimap compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rimap.cli import _options as options

NO_ARGS_IS_HELP = True


def command(
    first: Annotated[
        Path,
        typer.Argument(metavar="A", help="A map (NIfTI), a folder of maps, or a folder with repeats (ses-, run-)."),
    ],
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="[B]", help="The map or folder to compare with A. Leave it out to compare the repeats in A."
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|FOLDER|PATTERN",
            help="Regions on the grid of A: a label image, a probability image, a BIDS folder, or a pattern. "
            "By default the _dseg file next to A, if there is one. Repeatable.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME",
            help="Maps to compare: T1, R1, B, M0, all. By default relaxation times, and rates that have no time map. "
            "Repeatable.",
        ),
    ] = None,
    include: options.Include = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the table, a page, and maps of the difference and its z-score.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier files.")] = False,
) -> None:
    """Compare two maps, two folders, or the repeats in a folder.

    rimap reports differences (B minus A), limits of agreement, within-subject CV, repeatability coefficient and ICC. If
    the maps have standard deviations, rimap also checks whether these agree with the differences.

    \b
    rimap compare scan/T1map.nii.gz rescan/T1map.nii.gz -o comparison
    rimap compare derivative/ --labels derivatives/segmentation -o comparison
    """
    import sys

    from rimap.cli import _console as console
    from rimap.workflow.compare import compare
    from rimap.workflow.comparison_files import FIXED, lines, write
    from rimap.workflow.tables import check_folder, command_line

    if out is not None:
        check_folder(out, FIXED, overwrite=overwrite)
    found = compare(first, second, labels or (), names=name or (), include=include or ())
    console.show(lines(found))
    if out is not None:
        files = write(found, out, command_line(sys.argv[1:]), overwrite=overwrite)
        print(f"{out / 'compare.html'}, and {len(files) - 1} more files in {out}")
