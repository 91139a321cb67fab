"""`rimap map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NO_ARGS_IS_HELP = True

_SELECT, _SERIES, _ESTIMATE, _OUTPUT = "Which series", "What they are", "How to estimate", "What comes out"


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="A BIDS folder, a folder of DICOM, a 4-D NIfTI file, or several 3-D ones."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for maps and reports.")],
    estimator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="nlls, mle, rim or resnet, as `rimap models` lists them; chosen if left out."
        ),
    ] = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="NIfTI, non-zero where maps are wanted.")] = None,
    times_ms: Annotated[
        str | None,
        typer.Option(metavar="LIST", help='Inversion or echo times in ms: "50,400,1100". Else from the sidecars.'),
    ] = None,
    tr_ms: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Time from inversion to inversion in ms, one or one per image."),
    ] = None,
    sequence: Annotated[
        str | None, typer.Option(metavar="ir|t2", help="Where the BIDS suffix does not tell it.")
    ] = None,
    signed: Annotated[
        bool | None,
        typer.Option("--signed/--magnitude", help="Images keep their polarity (real part), or are a modulus."),
    ] = None,
    skip_first: Annotated[
        int, typer.Option(metavar="N", help="Leave out the N images of shortest time (the first echo of a MESE).")
    ] = 0,
    noise: Annotated[
        str | None, typer.Option(metavar="gaussian|rician", help="Likelihood; gaussian if left out.")
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|FILE", help="Noise SD in the unit of the images; estimated if left out."),
    ] = None,
    lambda_b: Annotated[
        float | None, typer.Option("--lambda-b", metavar="X", help="Smoothness of B (mle).", show_default=False)
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Trained network (rim, resnet), as `rimap models` lists them."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER", help="DICOM series; 5,6,7 for one made of several. Repeatable."),
    ] = None,
    participant_label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Only this subject, with or without sub-. Repeatable.")
    ] = None,
    session: Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Only this session. Repeatable.")] = None,
    run: Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Only this run. Repeatable.")] = None,
    register: Annotated[bool, typer.Option("--register", help="Align the images before they are mapped.")] = False,
    rois: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Label image: print and write a table of the values per label.")
    ] = None,
    rates: Annotated[bool, typer.Option("--rates", help="Write R1 or R2 as well.")] = False,
    fill: Annotated[
        float | None, typer.Option(metavar="0", help="Write this instead of NaN, for tools that cannot read NaN.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Cores to use; all if left out.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory to take at most (2GiB): a larger volume is mapped slab by slab (nlls). Of what is free, if left out.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; warnings only.")] = False,
) -> None:
    """Map T1 or T2: a series of images in, maps, sidecars and a report out.

    \b
    rimap map bids/ -o out
    rimap map ir.nii.gz --sequence ir --times-ms "50,400,1100,2500" --tr-ms 2550 -o out
    """
    from rimap.cli import _options as typed
    from rimap.cli._mapping import Request, map_all
    from rimap.cli._memory import size

    request = Request(
        inputs=tuple(inputs),
        out=out,
        estimator=estimator,
        mask=mask,
        times_ms=typed.numbers(times_ms, "--times-ms"),
        tr_ms=typed.numbers(tr_ms, "--tr-ms"),
        sequence=typed.sequence(sequence),
        signed=signed,
        skip_first=skip_first,
        noise=noise,
        sigma=typed.sigma_or_file(sigma),
        estimator_options={k: v for k, v in (("lambda_B", lambda_b), ("network", network)) if v is not None},
        participant_labels=typed.labels(participant_label, "sub-"),
        sessions=typed.labels(session, "ses-"),
        runs=typed.labels(run, "run-"),
        series=tuple(series or ()),
        rois=rois,
        rates=rates,
        fill=fill,
        overwrite=overwrite,
        threads=threads,
        memory=None if memory is None else size(memory, "--memory"),
        register=register,
        quiet=quiet,
    )
    map_all(request)
