"""`rimap rois`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rimap.cli import _options as options

NO_ARGS_IS_HELP = True


def command(
    maps: Annotated[
        list[Path],
        typer.Argument(metavar="MAPS...", help="Maps (NIfTI), or folders: the output of `rimap map` or `rimap bids`."),
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|FOLDER|PATTERN",
            help="Regions: a label image, a probability image, a BIDS folder, or a pattern such as "
            "seg/sub-{sub}_dseg.nii.gz. nist-t1:FILE for labels of a phantom. By default the _dseg or _probseg file "
            "next to each map. Repeatable.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME",
            help="Maps to measure: T1, R1, B, M0, sd (standard deviations), all. By default relaxation times and "
            "rates. Repeatable.",
        ),
    ] = None,
    rates: Annotated[bool, typer.Option("--rates", help="Also compute the rate of each relaxation time.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="Lowest probability with which a voxel belongs to a region. By default 0.5."),
    ] = None,
    include: options.Include = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Reference values: nist-t1, nist-t1-v2, nist-t2, nist (whichever fits best), or a table (.tsv) with "
            "the columns label and reference.",
        ),
    ] = None,
    field_strength: Annotated[
        float | None,
        typer.Option(metavar="T", help="Field strength in tesla, for a phantom. By default from the sidecar."),
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="°C", help="Temperature of the phantom.")] = 20.0,
    tolerance: Annotated[float, typer.Option(metavar="%", help="Largest bias with which a region passes.")] = 10.0,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File for the table: .tsv or .json.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier table.")] = False,
) -> None:
    """Compute statistics of regions in existing maps.

    rimap reports the number of voxels, median, quartiles, mean, SD and the share of each quality flag. It also reads
    maps of other software.

    \b
    rimap rois out/ --labels derivatives/segmentation -o regions.tsv
    rimap rois T1map.nii.gz --labels nist-t1:spheres.nii.gz --field-strength 3
    """
    from rimap.cli import _console as console
    from rimap.errors import InputError
    from rimap.workflow.rois import Judging, lines, rois
    from rimap.workflow.tables import check_table, write_table

    if out is not None:
        check_table(out, overwrite=overwrite)
    judging = Judging(
        reference=reference, field_T=field_strength, temperature_C=temperature, tolerance_percent=tolerance
    )
    table = rois(
        maps, labels or (), names=name or (), rates=rates, threshold=threshold, include=include or (), judging=judging
    )
    console.show(lines(table))
    if out is not None:
        for path in write_table(out, table.rows, table.columns()):
            print(path)
    if table.refused:
        raise InputError(
            f"{len(table.refused)} of {len(table.maps)} maps could not be measured. The reasons are above."
        )
