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
            help="Label image, image of probabilities, folder with BIDS names, or seg/sub-{sub}_dseg.nii.gz. "
            "nist-t1:FILE for labels of a phantom. By default the _dseg or _probseg beside each map. Repeatable.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME",
            help="Maps to take from folders: T1, R1, B, M0, sd (standard deviations), all. Repeatable. By default relaxation times and rates.",
        ),
    ] = None,
    rates: Annotated[bool, typer.Option("--rates", help="Compute the rate of each relaxation time as well.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="Probability from which a voxel is in a region; 0.5 if left out."),
    ] = None,
    include: options.Include = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Reference values: nist-t1, nist-t1-v2, nist-t2, nist (the one that fits best), or a table (.tsv) with columns label and reference.",
        ),
    ] = None,
    field_strength: Annotated[
        float | None,
        typer.Option(metavar="T", help="Field strength in T, for a phantom; from the sidecar if left out."),
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="°C", help="Temperature of the phantom.")] = 20.0,
    tolerance: Annotated[float, typer.Option(metavar="%", help="Bias with which a region passes.")] = 10.0,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the table: .tsv, or .json.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier table.")] = False,
) -> None:
    """Statistics of regions on maps that exist: n, median, quartiles, mean, SD and the share of each status.

    Nothing is mapped again, and maps of other software are read as well.

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
            f"{len(table.refused)} of {len(table.maps)} maps could not be measured, for the reasons above."
        )
