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
        typer.Argument(metavar="MAPS...", help="Maps of T1 or T2 (NIfTI), or folders. Several dates are compared."),
    ],
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Array of spheres: nist-t1 (serial numbers up to 41), nist-t1-v2 (42 and later) or nist-t2. "
            "By default nist-t1 or nist-t2, whichever fits.",
        ),
    ] = None,
    field_strength: Annotated[
        float | None, typer.Option(metavar="T", help="Field strength in tesla. By default from the sidecar.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="°C", help="Temperature of the phantom.")] = 20.0,
    tolerance: Annotated[float, typer.Option(metavar="%", help="Largest bias with which a sphere passes.")] = 10.0,
    include: options.Include = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder for tables, a page and label images of the spheres."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier files.")] = False,
) -> None:
    """Compare maps of a NIST phantom with reference values.

    rimap finds the 14 spheres of an ISMRM/NIST system phantom in existing maps and needs no labels. The phantom may be
    rotated, flipped or partly outside the image.

    \b
    rimap phantom out/sub-01/anat/sub-01_T1map.nii.gz -o qa
    rimap phantom out/ --layout nist-t1 --temperature 21.5
    """
    import sys

    from rimap.cli import _console as console
    from rimap.workflow.phantom import phantom
    from rimap.workflow.phantom_files import FIXED, lines, write
    from rimap.workflow.rois import Judging
    from rimap.workflow.tables import check_folder, command_line

    if out is not None:
        check_folder(out, FIXED, overwrite=overwrite)
    judging = Judging(field_T=field_strength, temperature_C=temperature, tolerance_percent=tolerance)
    run = phantom(maps, layout, include=include or (), judging=judging)
    console.show(lines(run))
    if out is not None:
        for path in write(run, out, command_line(sys.argv[1:]), overwrite=overwrite):
            print(path)
