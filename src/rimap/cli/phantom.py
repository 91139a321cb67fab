"""`rimap phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rimap.cli import _options as options

NO_ARGS_IS_HELP = True


def command(
    maps: Annotated[
        list[Path],
        typer.Argument(
            metavar="MAPS...", help="Maps of T1 or T2 (NIfTI), or folders; several are compared over their dates."
        ),
    ],
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Array of spheres: nist-t1 (serial numbers up to 41), nist-t1-v2 (from 42 on), nist-t2. nist-t1 or nist-t2 is found out if left out.",
        ),
    ] = None,
    field_strength: Annotated[
        float | None, typer.Option(metavar="T", help="Field strength in T; from the sidecar if left out.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="°C", help="Temperature of the phantom.")] = 20.0,
    tolerance: Annotated[float, typer.Option(metavar="%", help="Bias with which a sphere passes.")] = 10.0,
    include: options.Include = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Write tables, a page and label images of the spheres there."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier files.")] = False,
) -> None:
    """Find the 14 spheres of an ISMRM/NIST system phantom in maps, and compare them with their reference values.

    Nothing is mapped again, and no labels are needed: the array is found in any position, also turned, flipped or partly outside.

    \b
    rimap phantom out/sub-01/anat/sub-01_T1map.nii.gz -o qa
    rimap phantom out/ --layout nist-t1 --temperature 21.5
    """
    import sys

    from rimap.cli import _console as console
    from rimap.errors import InputError
    from rimap.workflow.phantom import lines, phantom, write
    from rimap.workflow.rois import Judging
    from rimap.workflow.tables import command_line

    if out is not None and (out / "phantom.tsv").exists() and not overwrite:
        raise InputError(f"{out / 'phantom.tsv'} exists. Give another folder, or --overwrite.")
    judging = Judging(field_T=field_strength, temperature_C=temperature, tolerance_percent=tolerance)
    run = phantom(maps, layout, include=include or (), judging=judging)
    console.show(lines(run))
    if out is not None:
        for path in write(run, out, command_line(sys.argv[1:])):
            print(path)
