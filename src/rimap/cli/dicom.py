"""`rimap dicom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NO_ARGS_IS_HELP = True


def command(
    maps: Annotated[
        list[Path],
        typer.Argument(metavar="MAPS...", help="Maps (NIfTI), or folders: the output of `rimap map`."),
    ],
    source: Annotated[
        Path, typer.Option("--source", metavar="DICOM", help="Folder of the DICOM files that were mapped.")
    ],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="Folder for the DICOM series, with a folder for each map."),
    ],
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME",
            help="Maps to convert: T1, R1, B, sd, all. By default relaxation times and rates. Repeatable.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier files.")] = False,
) -> None:
    """Write maps as DICOM series, for a picture archive (PACS).

    The series belong to the study of the source images. They contain the patient's name and all other identifying data
    of the source.

    \b
    rimap map dicom/ -o out
    rimap dicom out/ --source dicom/ -o out-dicom
    """
    from rimap.workflow.dicom_out import maps_to_dicom

    for series in maps_to_dicom(maps, source, out, maps=tuple(name or ()), overwrite=overwrite):
        print(f"{series.folder}  series {series.number}, {series.n} image{'s' if series.n != 1 else ''}")
